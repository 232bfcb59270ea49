import subprocess
import sys

import pytest

import interp


@pytest.mark.parametrize("name", interp.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(interp, name) is not None
    assert name in dir(interp)


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="'trian'"):
        interp.trian  # noqa: B018


def test_importing_waits_for_nothing_heavy() -> None:
    """`interp --help` would wait for it; the configuration needs none of these either."""
    code = (
        "import sys, interp, interp.config, interp.presets, interp.errors\n"
        "interp.preset('smoke')\n"
        "print(*{'torch', 'transformer_lens', 'transformers', 'pandas', 'plotly'} & {*sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
