"""Settings as flags of the command line: any text gives settings that work, or one line that says why not."""

import contextlib
import io
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import interp.batch
from interp.biographies import Corpus
from interp.config import Config
from interp.run import Run
from interp.studies import grid
from interp.studies.registry import STUDIES, study_named
from interp.training import loop
from tests.helpers import run_cli

GIB = 2**20
"""In the units of `ru_maxrss`."""
MOST_PEOPLE = 2000
"""Of more, a test does not draw names and facts: that is work, not reading settings."""


def flags_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from flags_of(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


CONFIG = sorted(flags_of(Config))
SETTINGS = {study: sorted(study_named(study).settings.model_fields) for study in STUDIES}
BATCH = [
    "seeds", "set", "workers", "threads", "engine", "address", "cpus-per-run", "gpus-per-run", "retry",
]  # fmt: skip
PATCHED = ["reference-steps", "start-steps", "layers", "heads", "seeds", "until", "workers"]

KNOWN = [
    "", " ", "0", "1", "2", "-1", "-0", "+3", "010", "0x1F", "1_000", "1e3", "1e-400", "1e999", "-1e999",
    "nan", "inf", "-inf", "NaN", "Infinity", "٣", "１２", "½", "²", "1" * 31, "9" * 5000, "x" * 100_000,
    "None", "null", "~", "true", "True", "no", "self", "all", "same", "0,1",
    "1,", ",", "-", "--", "--seed", "=", "a=b",
    "[]", "[1, 2]", "[-1]", "[[1, 2]]", "{}", "{a: 1}", "{training.n_steps: -5}", "{seed: 3}", "{kind: x}",
    "[" * 3000, "{a: " * 3000, "&a [*a]", "!!int x", "*a", "a: b: c", "- x", "%", "`", "'", '"', "\\",
    "[" + ", ".join(map(str, range(1, 20_000))) + "]", "cpu", "cuda", "cuda:99", "mps", "meta", "auto", "ray://",
    "word", "bpe", "rg_lru", "rotary", "power_law", "adaptive", "rare", "online", "finetuned", "evaluation",
    "\x1b[31m", "\x07", "\n", "\t", "\r\n", "a\nb", "\u202e", "\u2028", "\ud800", "[bold]", "[/x]",
    "../..", "/", "~nobody/x",
    "a" * 256, "/dev/null", ".",
]  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(KNOWN),
    st.integers(-(10**40), 10**40).map(str),
    st.integers(-3, 40).map(str),
    st.sampled_from([10**power + sign for power in range(20) for sign in (-1, 0, 1)]).map(str),
    st.floats().map(str),
    st.text(st.characters(exclude_characters="\0"), max_size=40),  # no program is given a NUL
    st.text("0123456789-+.,e_[]{}:= \n#&*!\"'", max_size=30),
)


class ReadyError(BaseException):
    """The settings work; what would follow is the training."""


@contextlib.contextmanager
def untrained() -> Iterator[None]:
    """While this lasts, a command goes as far as it does before it builds models."""

    def ready(*_: Any, **__: Any) -> None:
        raise ReadyError

    draw = Corpus.from_config

    def drawn(config: Config) -> Corpus:
        people = config.population
        if people.n_individuals + people.n_held_out > MOST_PEOPLE:
            raise ReadyError
        return draw(config)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "Trainer", ready)
        patched.setattr(Corpus, "from_config", drawn)
        patched.setattr(interp.batch, "run_jobs", ready)
        patched.setattr(grid, "run_jobs", ready)
        yield


def require_settings_or_one_line(arguments: list[str]) -> bool:
    """Runs a command up to its training; whether the settings work. Fails where they end otherwise."""
    errors = io.StringIO()
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    code: int | None = None
    with (
        contextlib.redirect_stderr(errors),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.suppress(ReadyError),
    ):
        code = run_cli(*arguments)
    shown = [word[:60] for word in arguments]
    assert time.monotonic() - start < 10, shown
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GIB, shown
    if code is None or code == 0:  # --help, as a value
        return True
    text = errors.getvalue()
    text = text[text.find("error: ") :]  # after what a command says of its progress
    assert code == 2, (shown, text)
    assert text.startswith("error: "), (shown, text)
    assert text.count("\n") == 1, (shown, text)
    assert len(text) <= 500, (shown, text)
    return False


@st.composite
def command_lines(draw: st.DrawFn, run: Path, out: Path) -> list[str]:
    """A command line with any values of one flag or two."""
    command = draw(
        st.sampled_from(["train", "train", "reproduce", "batch", "batch", "train-patched"])
    )
    words: list[str]
    if command in ("train", "reproduce"):
        words = [command, draw(st.sampled_from(["smoke", "tiny", "paper"]))]
        names = CONFIG
    elif command == "batch":
        study = draw(st.sampled_from(sorted(STUDIES)))
        words, names = [command, study], BATCH
        if draw(st.booleans()):
            setting = draw(st.sampled_from([*SETTINGS[study], *CONFIG]))
            words += ["--set", f"{setting}={draw(VALUES)}"]
    else:
        words, names = [command, str(run)], PATCHED
    words += ["--out", str(out)]
    for name in draw(st.lists(st.sampled_from(names), min_size=len(words) == 4, max_size=2)):
        flag, value = f"--{name.replace('_', '-')}", draw(VALUES)
        words += [f"{flag}={value}"] if draw(st.booleans()) else [flag, value]
    return words


def check_any_value(run: Run, folder: Path, n: int, **profile: Any) -> None:
    counts = {True: 0, False: 0}

    @settings(
        max_examples=n,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        **profile,
    )
    @given(command_lines(run.path, folder / "out"))
    def check(arguments: list[str]) -> None:
        counts[require_settings_or_one_line(arguments)] += 1

    with untrained():
        check()
    assert min(counts.values()) >= n / 60, counts  # few words name a file, or a form
    assert not (folder / "out" / "config.yaml").exists(), (
        "nothing is written before it is known to work"
    )


def test_any_value_of_any_flag(smoke_run: Run, tmp_path: Path) -> None:
    check_any_value(smoke_run, tmp_path, 120, derandomize=True)


@pytest.mark.slow
def test_any_value_of_any_flag_for_long(smoke_run: Run, tmp_path: Path) -> None:
    check_any_value(smoke_run, tmp_path, 10_000)


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ("--seed", "9" * 5000),
        ("--model.d-mlp", "1000000000000"),
        ("--model.n-layers", "1e999"),
        ("--training.early-checkpoints", "[" * 3000),
        ("--optimizer.learning-rate", "nan"),
        ("--training.device", "\x1b[31m"),
        ("--population.n-individuals", "٣" * 30),
        ("--sampling.kind", ""),
    ],
    ids=lambda flags: flags[0],
)
def test_a_command_of_its_own(flags: tuple[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "interp", "train", "smoke", "--out", "run", *flags]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert len(ended.stderr) <= 500
    assert not list(tmp_path.iterdir())
