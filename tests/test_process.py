"""What a process asks of the machine, each time in a new one: torch reads some of it when it is imported."""

import os
import subprocess
import sys

import pytest

SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def run(code: str, **environment: str) -> str:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in SETTINGS and not name.startswith("MALLOC_")
    }
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env={**kept, **environment}, capture_output=True, text=True, timeout=60, check=True
    ).stdout.strip()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "5000 None"),
        ({"GOMP_SPINCOUNT": "5"}, "5 None"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None ACTIVE"),
    ],
)
def test_a_notebook_waits_as_the_command_line_does(given: dict[str, str], expected: str) -> None:
    code = f"import interp, os; print(*map(os.environ.get, {SETTINGS}))"
    assert run(code, **given) == expected


def test_torch_is_not_imported_first() -> None:
    assert run("import interp, sys; print('torch' in sys.modules)") == "False"


FAULTS = """
{first}
import resource
sizes = [2_000_000] * 20
def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    kept = [bytearray(size) for size in sizes]
step(); step()
before = pages()
step()
print(pages() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="about glibc")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    if os.confstr("CS_GNU_LIBC_VERSION") is None:
        pytest.skip("another C library")
    assert int(run(FAULTS.format(first="import interp"))) < 100
    asked = run(
        FAULTS.format(first="import interp"), MALLOC_TRIM_THRESHOLD_="0", MALLOC_TOP_PAD_="0"
    )
    assert int(asked) > 5000, "what the user has set stays"
