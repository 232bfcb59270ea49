"""`interp train --config FILE`: settings in YAML between the preset and the flags."""

from pathlib import Path

import pytest

from interp import preset
from interp.cli.parsing import with_file
from interp.run import Run
from tests.helpers import run_cli

STAGES = """\
training: {n_steps: 4, checkpoint_every: 2, early_checkpoints: [0], batch_size: 4}
evaluation.every: 2
adapter.rank: 2
data:
  stages:
    - {start: 0, forms: [{form: mnemonic}]}
    - {start: 2, forms: [{form: question, people: [0, 0.5], loss: answers}], weights: adapter}
"""


def test_from_the_file_and_the_flags(tmp_path: Path) -> None:
    (tmp_path / "stages.yaml").write_text(STAGES)
    out = tmp_path / "run"
    words = ["train", "smoke", "--config", tmp_path / "stages.yaml", "--seed", 3]
    assert run_cli(*words, "--training.batch-size", 5, "--out", out) == 0
    run = Run.load(out)
    assert run.config.seed == 3
    assert (run.config.training.n_steps, run.config.training.batch_size) == (4, 5)
    assert [stage.start for stage in run.config.data.stages or ()] == [0, 2]
    assert run.config.data.boundaries == ((2, "question, adapter"),)
    assert run.phases.stages == ((2, "question, adapter"),)
    again, rest = with_file(preset("tiny"), [f"--config={run.config_path}", "--out", "x"])
    assert again == run.config
    assert rest == ["--out", "x"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "cannot be read"),
        ("[", "no YAML"),
        ("", "empty"),
        ("- 1", "no settings by name"),
        ("3", "no settings by name"),
        ("model.layers: 3", "Did you mean 'model.n_layers'"),
        ("data: {stages: [{start: 3}]}", "begins at 0"),
        ("data: {stages: [{start: 0, forms: [{form: question, weight: 0}]}]}", "weight"),
        ("training.n_steps: many", "expected a whole number"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    text: str | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_text(text)
    assert run_cli("train", "smoke", "--config", path, "--out", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: ")
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [["--config"], ["--config", "--seed", "1"], ["--config=a"] * 2])
def test_one_file(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("train", "smoke", "--out", tmp_path / "run", *words) == 2
    assert "--config names" in capsys.readouterr().err
