"""Any value of any flag ends in settings, or in one line that says what is wrong with it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import interp.training
from interp import preset
from interp.cli import main
from interp.config import Config, flatten
from interp.training.size import require_memory

FLAGS = sorted(
    f"--{name.replace('_', '-')}"
    for name in flatten(preset("smoke").model_dump())
    if name != "preset"
)
NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.integers(-2, 300),
    st.sampled_from(["1e400", "-0"]),
).map(str)
VALUES = st.one_of(
    NUMBERS,
    st.text(max_size=40),
    st.sampled_from(
        ["", " ", "None", "True", "١٢", "0x10", "1_000", "[1, 2]", "{}", "self", "cpu", "\x1b[31m", "[bold]",
         "../..", "x" * 5000, "7" * 5000, "é" * 300]
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def untrained() -> Iterator[None]:
    """`interp train` up to where it would begin: the settings, and whether there is memory for them."""

    def begin(config: Config, out: Path, **how: Any) -> Config:
        require_memory(config)
        return config

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(interp.training, "train", begin)
        yield


def require_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        main(words)
        code = 0
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr().err
    assert code in (0, 2), words
    if code:
        assert said.count("\n") == 1, said
        assert len(said) <= 500, said
        assert said.startswith("error: ")
        assert "\x1b" not in said
        assert "Traceback" not in said


def check(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    require_one_line(["train", "smoke", "--out", "runs/x", flag, value], capsys)
    require_one_line(["train", "smoke", "--out", "runs/x", f"{flag}={value}"], capsys)


@settings(
    max_examples=60, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(st.sampled_from(FLAGS), VALUES)
def test_any_value_of_any_flag(
    untrained: None, capsys: pytest.CaptureFixture[str], flag: str, value: str
) -> None:
    check(flag, value, capsys)


@pytest.mark.slow
@settings(
    max_examples=3000, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(st.sampled_from(FLAGS), VALUES)
def test_any_value_of_any_flag_at_length(
    untrained: None, capsys: pytest.CaptureFixture[str], flag: str, value: str
) -> None:
    check(flag, value, capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seed", "x"], r"--seed: invalid literal.*'x'"),
        (["--model.dmlp", "3"], r"--model\.dmlp.*meant.*--model\.d-mlp"),
        (["--model.normalization", "x"], r"'x'.*--model\.normalization.*LN"),
        (["--seed"], r"--seed"),
    ],
)
def test_what_is_wrong_with_a_flag(
    words: list[str], said: str, untrained: None, capsys: pytest.CaptureFixture[str]
) -> None:

    with pytest.raises(SystemExit, match="2"):
        main(["train", "smoke", "--out", "runs/x", *words])
    assert re.search(said, capsys.readouterr().err)
