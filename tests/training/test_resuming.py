"""Runs that are killed, interrupted or out of disk, and go on to the same bytes."""

import importlib.util
import os
import signal
from pathlib import Path

import pytest

import interp
from interp.config import Config
from interp.errors import CheckpointError, ConfigError, RunError
from interp.files import folder_lock
from interp.run import Run
from interp.training import conditions
from tests.helpers import contents, wait_for

TRAIN = """
import interp
from interp.config import Config
config, folder, resume = out[:3]
interp.train(Config.from_yaml(config), folder, resume=resume, progress=False)
"""

# Sends the process a signal when it is about to open, move or remove a file for the n-th time. The
# interpreter announces these as audit events, so nothing of the package is replaced.
SIGNAL_AT = """
import os, sys
number, event_wanted, name_wanted, countdown = out[3]
def watch(event, arguments):
    global countdown
    if event == event_wanted and name_wanted in str(arguments[event == "os.rename"]):
        if event != "open" or "a" in str(arguments[1]):
            countdown -= 1
            if countdown == 0:
                os.kill(os.getpid(), number)
sys.addaudithook(watch)
"""

MOMENTS = {
    "before the first checkpoint": ("os.rename", "step_00000000", 1),
    "between checkpoint and state": ("os.rename", "training_state", 2),
    "between metrics and checkpoint": ("os.rename", "step_00000008", 1),
    "before metrics": ("open", "metrics.jsonl", 4),
    "before the last checkpoint": ("os.rename", "step_00000012", 1),
    "before it counts as finished": ("os.rename", "finished.json", 1),
}


def parts(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*.part")]


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_killed_and_resumed(
    moment: tuple[str, str, int], short: Config, short_run: Run, child, tmp_path: Path
) -> None:
    out = (short.to_yaml(), str(tmp_path), False, (int(signal.SIGKILL), *moment))
    assert child(SIGNAL_AT + TRAIN, out).wait() == -signal.SIGKILL
    assert not Run.load(tmp_path).finished
    resumed = interp.train(short, tmp_path, resume=True, progress=False)
    assert contents(resumed.path) == contents(short_run.path)


def test_killed_again_and_again(short: Config, short_run: Run, child, tmp_path: Path) -> None:
    """Every attempt gets a little further; the last one is left alone."""
    for step in (4, 8):
        kill = (int(signal.SIGKILL), "os.rename", f"step_{step:08d}", 1)
        out = (short.to_yaml(), str(tmp_path), step > 4, kill)
        assert child(SIGNAL_AT + TRAIN, out).wait() == -signal.SIGKILL
    assert child(TRAIN, (short.to_yaml(), str(tmp_path), True)).wait() == 0
    assert contents(tmp_path) == contents(short_run.path)


def test_killed_from_outside(short: Config, child, tmp_path: Path) -> None:
    """At whatever instruction it is, once there are so many lines of metrics."""
    config = short.with_settings(**{"training.n_steps": 24})
    whole = interp.train(config, tmp_path / "whole", progress=False)
    metrics = tmp_path / "run" / "metrics.jsonl"
    killed = child(TRAIN, (config.to_yaml(), str(tmp_path / "run"), False))
    wait_for(lambda: metrics.exists() and metrics.read_bytes().count(b"\n") > 300)
    os.kill(killed.process.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    resumed = interp.train(config, tmp_path / "run", resume=True, progress=False)
    assert contents(resumed.path) == contents(whole.path)


def test_killed_just_after_it_finished(
    short: Config, short_run: Run, child, tmp_path: Path
) -> None:
    moment = ("os.remove", "training_state", 1)
    out = (short.to_yaml(), str(tmp_path), False, (int(signal.SIGKILL), *moment))
    watch = SIGNAL_AT.replace('event == "os.rename"', "0")
    assert child(watch + TRAIN, out).wait() == -signal.SIGKILL
    resumed = interp.train(short, tmp_path, resume=True, progress=False)
    assert contents(resumed.path) == contents(short_run.path)


def test_resuming_removes_what_a_kill_left(short: Config, child, tmp_path: Path) -> None:
    kill = (int(signal.SIGKILL), "os.rename", "step_00000004", 1)
    child(SIGNAL_AT + TRAIN, (short.to_yaml(), str(tmp_path), False, kill)).wait()
    assert parts(tmp_path) != []
    interp.train(short, tmp_path, resume=True, progress=False)
    assert parts(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_resumed(
    number: signal.Signals, short: Config, short_run: Run, child, tmp_path: Path
) -> None:
    """The signal comes while the metrics of step 6 are written, between two checkpoints."""
    out = (short.to_yaml(), str(tmp_path), False, (int(number), "open", "metrics.jsonl", 4))
    stopped = child(SIGNAL_AT + TRAIN, out)
    assert stopped.wait() == 1
    assert stopped.error.startswith("InterruptedRunError: Stopped at step 6 of 12; everything")
    assert "resume=True" in stopped.error
    run = Run.load(tmp_path)
    assert run.state_path.exists()
    assert not run.finished
    assert parts(tmp_path) == []
    resumed = interp.train(short, tmp_path, resume=True, progress=False)
    assert contents(resumed.path) == contents(short_run.path)


def test_ctrl_c_from_outside(short: Config, child, tmp_path: Path) -> None:
    config = short.with_settings(**{"training.n_steps": 5000})
    stopped = child(TRAIN, (config.to_yaml(), str(tmp_path), False))
    wait_for((tmp_path / "training_state.safetensors").exists)
    os.kill(stopped.process.pid, signal.SIGINT)
    assert stopped.wait() == 1
    assert stopped.error.startswith("InterruptedRunError: Stopped at step ")


LIMITED = """
import resource
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (out[3], hard))
"""


def test_disk_full_at_a_checkpoint(short: Config, short_run: Run, child, tmp_path: Path) -> None:
    """No file may grow beyond what the first state needs; later states hold moments too."""
    size = (short_run.path / "checkpoints" / "step_00000000.safetensors").stat().st_size
    out = (short.to_yaml(), str(tmp_path), False, 2 * size)
    full = child(LIMITED + TRAIN, out)
    assert full.wait() == 1
    assert full.error.startswith("StorageError: Could not write ")
    assert "training_state.safetensors: File too large" in full.error
    assert "resume=True" in full.error
    assert parts(tmp_path) == []
    found, whole = contents(tmp_path), contents(short_run.path)
    assert {name for name in found if name.startswith("checkpoints")} == {
        "checkpoints/step_00000000.safetensors",
        "checkpoints/step_00000004.safetensors",
    }
    metrics = found.pop("metrics.jsonl")
    assert whole["metrics.jsonl"].startswith(metrics)
    del found["training_state.safetensors"]
    assert all(whole[name] == content for name, content in found.items())
    resumed = interp.train(short, tmp_path, resume=True, progress=False)
    assert contents(resumed.path) == whole


def test_disk_full_within_the_metrics(short: Config, child, tmp_path: Path) -> None:
    """A small model and many measurements, so that metrics are the largest file."""
    config = short.with_settings(
        **{
            "model.d_model": 4, "model.n_heads": 1, "model.d_mlp": 4,
            "training.n_steps": 16, "evaluation.every": 1,
        }
    )  # fmt: skip
    whole = interp.train(config, tmp_path / "whole", progress=False)
    limit = whole.metrics_path.stat().st_size * 3 // 4
    full = child(LIMITED + TRAIN, (config.to_yaml(), str(tmp_path / "run"), False, limit))
    assert full.wait() == 1
    assert full.error.startswith("StorageError: Could not write ")
    assert "metrics.jsonl: File too large" in full.error
    assert (tmp_path / "run" / "metrics.jsonl").stat().st_size == limit
    assert not Run.load(tmp_path / "run").metrics.empty  # still readable
    resumed = interp.train(config, tmp_path / "run", resume=True, progress=False)
    assert contents(resumed.path) == contents(whole.path)


def test_two_processes_on_one_folder(short: Config, child, tmp_path: Path) -> None:
    code = """
import time
from pathlib import Path
from interp.files import folder_lock
with folder_lock(Path(out)):
    Path(out, ".held").touch()
    time.sleep(60)
"""
    holder = child(code, str(tmp_path))
    wait_for((tmp_path / ".held").exists)
    with pytest.raises(RunError, match=r"Another process is writing to .*another folder"):
        interp.train(short, tmp_path, progress=False)
    assert contents(tmp_path) == {}
    os.kill(holder.process.pid, signal.SIGKILL)
    holder.wait()
    with folder_lock(tmp_path):  # the system let go of it
        pass


@pytest.mark.parametrize("damage", ["truncated", "foreign"])
def test_a_damaged_state_is_refused_and_can_be_deleted(
    damage: str, short: Config, short_run: Run, child, tmp_path: Path
) -> None:
    kill = (int(signal.SIGKILL), "os.rename", "step_00000008", 1)
    child(SIGNAL_AT + TRAIN, (short.to_yaml(), str(tmp_path), False, kill)).wait()
    state = tmp_path / "training_state.safetensors"
    if damage == "truncated":
        state.write_bytes(state.read_bytes()[:-50])
    else:
        state.write_bytes((tmp_path / "checkpoints/step_00000000.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"training_state.*Delete it.*resume=True"):
        interp.train(short, tmp_path, resume=True, progress=False)
    state.unlink()
    resumed = interp.train(short, tmp_path, resume=True, progress=False)
    assert contents(resumed.path) == contents(short_run.path)


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs wandb")
def test_wandb_offline_stays_in_the_folder(
    short: Config, short_run: Run, child, tmp_path: Path
) -> None:
    config = short.with_settings(**{"logging.wandb": "offline"})
    logged = child(TRAIN, (config.to_yaml(), str(tmp_path / "run"), False))
    assert logged.wait() == 0, logged.error
    found = contents(tmp_path / "run")
    assert any(name.startswith("wandb/offline-run-") for name in found)
    whole = contents(short_run.path)
    assert {name: found[name] for name in whole if name != "config.yaml"} == {
        name: content for name, content in whole.items() if name != "config.yaml"
    }
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_training_from_the_start_forgets_the_results_of_an_earlier_one(
    short: Config, tmp_path: Path
) -> None:
    run = interp.train(short, tmp_path, progress=False)
    (run.results_path / "phases").mkdir(parents=True)
    (run.results_path / "phases/summary.json").write_text("{}")
    run.finished_path.unlink()
    interp.train(short, tmp_path, resume=True, progress=False)
    assert not run.results_path.exists()
    assert run.steps == [0, 4, 8, 12]


def test_a_tokenizer_folder_left_half_written_is_written_again(
    short: Config, tmp_path: Path
) -> None:
    run = interp.train(short, tmp_path, progress=False)
    before = contents(tmp_path)
    run.finished_path.unlink()
    (run.tokenizer_path / "tokenizer.json").unlink()
    interp.train(short, tmp_path, resume=True, progress=False)
    assert contents(tmp_path) == before


def test_resume_and_overwrite_together_are_refused(short: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Choose one"):
        interp.train(short, tmp_path, resume=True, overwrite=True, progress=False)


def test_going_on_in_another_environment_is_said(short: Config, tmp_path: Path) -> None:
    run = interp.train(short, tmp_path, progress=False)
    now = run.environment
    with pytest.warns(UserWarning, match=r"threads: 64 before, 1 now\): its numbers"):
        conditions.warn_of_changes(now, now | {"threads": 64})
    conditions.warn_of_changes(now, now)  # a warning would be an error here
