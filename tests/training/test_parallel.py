"""Two processes train one run: as one process does, and nobody waits for somebody who has ended."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import interp
from interp import cli
from interp.config import Config
from interp.errors import ConfigError, InterpError
from interp.run import Run
from interp.training.parallel import Ranks, gather
from tests.helpers import contents

TOLERANCE = 1e-5
"""Relative, in single precision, whose rounding is 6e-8. Two processes add up the same gradients in
another order, and Adam, which divides by their size, passes rounding on where they are small: over
tens of steps losses part by 2e-7 to 4e-7. A wrong weight of a process shows at 1e-4 or more."""

TRAIN = """
import os
os.environ.update(out["launched"])
{before}
import interp
from interp.config import Config
for config, folder, resume in out["runs"]:
    interp.train(Config.from_yaml(config), folder, resume=resume, progress=False)
"""

AT_STEP_5 = """
from interp.training import loop
update = loop.Trainer._update
def update_or_signal(trainer, log):
    if trainer.step == 5:
        os.kill(os.getpid(), {number})
    update(trainer, log)
loop.Trainer._update = update_or_signal
"""

Task = tuple[Config, Path, bool]
"""Settings, folder, and whether to resume."""


def launched(rank: int, port: int) -> dict[str, str]:
    """What a launcher of two processes puts into the environment."""
    return {
        "WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


@pytest.fixture
def pair(child) -> Callable[..., list[Any]]:
    """Trains runs with two processes; of each the exit code and the error.

    What is to be done before is code for the leading process and for the other.
    """

    def start(*tasks: Task, before: tuple[str, str] = ("", "")) -> list[tuple[int, str]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        runs = [(config.to_yaml(), str(folder), resume) for config, folder, resume in tasks]
        both = [
            child(
                TRAIN.replace("{before}", before[rank]),
                {"launched": launched(rank, port), "runs": runs},
            )
            for rank in (0, 1)
        ]
        return [(process.wait(120), process.error) for process in both]

    return start


@pytest.fixture(scope="module")
def adaptive(smoke: Config) -> Config:
    """Shows six people until they are known, which takes some 80 steps, then everybody."""
    return smoke.with_settings(
        **{
            "sampling": {"kind": "adaptive", "indiv_warmup": 6, "growth": "at_once"},
            "model.n_layers": 1, "training.n_steps": 95, "training.batch_size": 16,
            "optimizer.learning_rate": 1e-2, "optimizer.schedule": "constant",
            "evaluation.splits": ("evaluation",), "training.checkpoint_every": 95,
        }
    )  # fmt: skip


STAGED: dict[str, Any] = {
    "training.n_steps": 12, "training.checkpoint_every": 8, "adapter.rank": 2,
    "data.stages": (
        {"start": 0, "forms": [{"form": "mnemonic"}, {"form": "biography", "loss": "values"}]},
        {"start": 4, "forms": [{"form": "question", "loss": "answers"}], "weights": "adapter"},
        {"start": 8, "forms": [{"form": "biography"}]},
    ),
}  # fmt: skip


def test_two_processes_train_as_one_does(
    smoke: Config, adaptive: Config, smoke_run: Run, pair, tmp_path: Path
) -> None:
    """With a batch that cannot be halved, patched attention, an adaptive schedule, and an adapter's stage."""
    patching = {"reference": str(smoke_run.path), "reference_step": 40, "start": 4}
    configs = {
        "uneven": smoke.with_settings(**{"training.batch_size": 7}),
        "patched": smoke.with_settings(patching=patching, **{"training.stop_at": 20}),
        "adaptive": adaptive,
        "staged": smoke.with_settings(**STAGED),
    }
    assert pair(*((c, tmp_path / name, False) for name, c in configs.items())) == [(0, "")] * 2
    for name, config in configs.items():
        one = interp.train(config, tmp_path / f"{name}, one", progress=False)
        two = Run.load(tmp_path / name)
        assert contents(two.path).keys() == contents(one.path).keys()
        assert two.environment["processes"] == 2
        assert "processes" not in one.environment
        ours, theirs = two.metrics, one.metrics
        names = ["step", "split", "metric", "attribute"]
        assert ours[names].equals(theirs[names])
        losses = ours["metric"].isin(["loss", "attribute_loss"])
        assert list(ours["value"][losses]) == pytest.approx(
            list(theirs["value"][losses]), rel=TOLERANCE
        ), name
        assert two.stages == one.stages
    assert [count for _, count in Run.load(tmp_path / "adaptive").stages] == [24]
    for name in ("uneven", "patched", "staged"):
        one_model, two_model = (
            Run.load(tmp_path / f"{name}, one").model(),
            Run.load(tmp_path / name).model(),
        )
        for ours, theirs in zip(two_model.parameters(), one_model.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("signalled", [0, 1], ids=["the leader", "the other"])
def test_interrupted_and_resumed(signalled: int, short: Config, pair, tmp_path: Path) -> None:
    """Whichever process is asked to stop, both do, and go on to the bytes of an undisturbed run."""
    signals = ["", ""]
    signals[signalled] = AT_STEP_5.replace("{number}", str(int(signal.SIGTERM)))
    leader, other = pair((short, tmp_path / "run", False), before=tuple(signals))
    assert leader[1].startswith("InterruptedRunError: Stopped at step 6 of 12; everything is saved")
    assert other[1] == "SystemExit: 130"
    assert not Run.load(tmp_path / "run").finished
    tasks = ((short, tmp_path / "run", True), (short, tmp_path / "whole", False))
    assert pair(*tasks) == [(0, "")] * 2
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_an_error_in_the_leader_ends_both(
    short: Config, short_run: Run, pair, tmp_path: Path
) -> None:
    """The disk is full. One process can go on with what was saved, and says what is different."""
    size = (short_run.path / "checkpoints" / "step_00000000.safetensors").stat().st_size
    full = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({2 * size}, -1))"
    leader, other = pair((short, tmp_path, False), before=(full, ""))
    assert leader[1].startswith("StorageError: Could not write ")
    assert other[1] == "SystemExit: 2"
    with pytest.warns(UserWarning, match=r"\(processes: 2 before, 1 now\)"):
        run = interp.train(short, tmp_path, resume=True, progress=False)
    assert run.finished


def test_a_process_that_dies_ends_both(short: Config, pair, tmp_path: Path) -> None:
    killed = AT_STEP_5.replace("{number}", str(int(signal.SIGKILL)))
    leader, other = pair((short, tmp_path, False), before=("", killed))
    assert other[0] == -signal.SIGKILL
    assert leader[1].startswith("LostProcessError: Another process of this training has ended")
    assert "resume=True" in leader[1]
    assert Run.load(tmp_path).steps == [0, 4]


def test_an_error_before_training_ends_both(short: Config, pair, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    leader, other = pair((short, tmp_path, False))
    assert leader[1].startswith(f"RunError: {tmp_path} holds files but no run")
    assert other[1] == "SystemExit: 2"


@pytest.mark.slow
def test_accelerate_launch(tmp_path: Path) -> None:
    """The launcher itself, for which `launched` stands in above.

    Its flag for CPUs starts one process; this one starts as many as it says.
    """
    launch = [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
        "--main_process_port", "0", "-m", "interp", "train", "smoke", "--out", str(tmp_path / "run"),
        "--training.n-steps", "6", "--training.device", "cpu",
    ]  # fmt: skip
    done = subprocess.run(launch, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Run(") == 1
    assert done.stderr.count("step 6 of 6") == 1
    run = Run.load(tmp_path / "run")
    assert run.finished
    assert run.environment["processes"] == 2


@pytest.fixture
def first_of_two(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in launched(0, 1).items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.parametrize(
    ("settings", "environment", "complaint"),
    [
        ({"training.batch_size": 1}, {}, r"batch_size=1.*2 processes"),
        ({"training.device": "cuda:1"}, {}, r"device='cuda:1'.*each has its own device"),
        ({"training.device": "mps"}, {}, r"device='mps'.*2 processes"),
        ({"training.device": "cuda"}, {"ACCELERATE_USE_CPU": "true"}, r"launched with --cpu"),
        ({}, {"LOCAL_RANK": ""}, r"LOCAL_RANK=''"),
    ],
)
def test_what_several_processes_cannot_train_is_refused_once(
    settings: dict[str, Any], environment: dict[str, str], complaint: str, short: Config,
    first_of_two: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = short.with_settings(**settings)
    for name, value in environment.items():
        first_of_two.setenv(name, value)
    with pytest.raises(ConfigError, match=complaint):
        gather(config)
    first_of_two.setenv("RANK", "1")
    with pytest.raises(SystemExit) as ended:
        gather(config)
    assert ended.value.code == 2


def test_other_commands_are_not_shared(
    first_of_two: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first_of_two.setattr(cli.OUT, "quiet", False)
    for rank, said in (("0", "Only `interp train` can be shared"), ("1", "")):
        first_of_two.setenv("RANK", rank)
        with pytest.raises(SystemExit) as ended:
            cli.main(["reproduce", "smoke", "--out", "never"])
        assert ended.value.code == InterpError.exit_code
        assert said in (error := capsys.readouterr().err)
        assert bool(error) is bool(said)


@pytest.mark.parametrize("count", ["", "1"])
def test_one_process_is_a_team_of_its_own(
    count: str, short: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", count)
    assert type(gather(short)) is Ranks
