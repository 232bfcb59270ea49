"""Runs in the folder of a batch: what each is for, and that only what nothing needs is deleted."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from interp.engine.store import Store
from interp.errors import ConfigError, RunError
from interp.files import folder_lock
from interp.run import Run
from interp.studies.batch import Batch, planned_runs
from interp.studies.stored import prune, stored_runs
from tests.helpers import run_cli

FILE = '''"""A study.

A question?

Command: interp batch my_study.py --out my_results
Duration: 1 runs of a second
"""

from interp.studies import Planned, Study, StudySettings


class Settings(StudySettings):
    preset: str = "smoke"
    seeds: tuple[int, ...] = (0,)


def planned(settings):
    changes = {"training.n_steps": 4, "training.early_checkpoints": (0,), "training.checkpoint_every": 4}
    return [Planned(settings.config(seed, **changes)) for seed in settings.seeds]


STUDY = Study("mine", __doc__, Settings, planned, lambda settings, runs: {})
'''


@pytest.fixture
def out(tmp_path: Path, trained: Callable[..., Run]) -> Path:
    """The folder of a batch that trained seeds 0 and 1, and of which seed 0 is asked for now."""
    study = tmp_path / "my_study.py"
    study.write_text(FILE, encoding="utf-8")
    folder = tmp_path / "out"
    store = Store(folder / "runs")
    both = Batch.parse({"studies": [{"study": str(study), "settings": {"seeds": [0, 1]}}]})
    for planned in planned_runs(both.studies[0]):
        run = trained(planned.config)
        shutil.copytree(run.path, store.folder(planned.config))
    now = Batch.parse({"studies": [{"study": str(study), "settings": {"seeds": [0]}}]})
    (folder / "batch.yaml").write_text(now.to_yaml(), encoding="utf-8")
    return folder


def test_what_each_run_is_for(out: Path) -> None:
    unneeded, needed = stored_runs(out)
    assert (unneeded.needed_by, needed.needed_by) == ((), ("mine",))
    assert {one.state for one in (unneeded, needed)} == {"finished"}
    assert needed.size == sum(p.stat().st_size for p in needed.folder.rglob("*") if p.is_file())


def test_only_what_nothing_needs_is_deleted(out: Path) -> None:
    unneeded, needed = stored_runs(out)
    (unneeded.folder / "notes.txt").write_text("mine", encoding="utf-8")
    (out / "runs" / "somebody_elses").mkdir()
    assert prune(stored_runs(out)) == [unneeded.folder]
    assert [p.name for p in unneeded.folder.iterdir()] == ["notes.txt"]
    assert Run.load(needed.folder).finished
    assert (out / "runs" / "somebody_elses").is_dir()
    (unneeded.folder / "notes.txt").unlink()
    prune(stored_runs(out))
    assert not unneeded.folder.exists()


def test_a_run_in_use_is_left_alone(out: Path) -> None:
    unneeded, _ = stored_runs(out)
    with folder_lock(unneeded.folder):
        assert [one.state for one in stored_runs(out)] == ["in use", "finished"]
        assert prune([unneeded]) == []
    assert Run.load(unneeded.folder).finished


def test_links_and_unknown_needs_are_refused(out: Path, tmp_path: Path) -> None:
    unneeded, _ = stored_runs(out)
    shutil.move(unneeded.folder, tmp_path / "elsewhere")
    unneeded.folder.symlink_to(tmp_path / "elsewhere")
    assert len(stored_runs(out)) == 1
    (tmp_path / "my_study.py").unlink()
    with pytest.raises(ConfigError, match="There is no file"):
        stored_runs(out)
    with pytest.raises(RunError, match="holds no batch"):
        stored_runs(tmp_path)


def test_the_command(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("store", out) == 0
    listed = capsys.readouterr().out
    assert "mine" in listed
    assert "needed by nothing: 1 run," in listed
    assert run_cli("store", out, "--yes") == 2
    assert run_cli("store", out, "--prune") == 0
    assert "add --yes" in capsys.readouterr().out
    assert len(stored_runs(out)) == 2
    assert run_cli("store", out, "--prune", "--yes") == 0
    assert "deleted: 1 run," in capsys.readouterr().out
    assert len(stored_runs(out)) == 1
