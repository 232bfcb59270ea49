"""The training loop: what it writes, when it stops, and what it refuses."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import interp
from interp.biographies import Corpus
from interp.config import Config, OptimizerConfig
from interp.errors import ConfigError, DivergedError, RunError
from interp.files import folder_lock
from interp.knowledge import SPLITS
from interp.model import hooked_transformer
from interp.run import Run
from interp.training import learning_rate, loop, updates
from interp.training.optimizer import adamw
from interp.training.size import least_bytes
from tests.helpers import contents


def test_files_of_a_run(short_run: Run) -> None:
    assert set(contents(short_run.path)) == {
        "config.yaml", "environment.json", "metrics.jsonl", "finished.json", "README.md",
        "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json",
        *(f"checkpoints/step_{step:08d}.safetensors" for step in (0, 4, 8, 12)),
    }  # fmt: skip
    note = json.loads(short_run.finished_path.read_text())
    assert (note["step"], note["reason"]) == (12, "n_steps")
    assert set(note["digests"]) == {
        "environment.json", "metrics.jsonl", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json",
    }  # fmt: skip


def test_the_same_config_gives_the_same_bytes(
    short: Config, short_run: Run, tmp_path: Path
) -> None:
    torch.manual_seed(99)
    run = interp.train(short, tmp_path, progress=False)
    assert contents(run.path) == contents(short_run.path)


def test_logging_to_the_screen_changes_nothing(
    short: Config, short_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = interp.train(short, tmp_path, progress=True)
    assert contents(run.path) == contents(short_run.path)
    assert "step 12 of 12" in capsys.readouterr().err


def test_another_seed_gives_other_losses(short: Config, short_run: Run, tmp_path: Path) -> None:
    other = interp.train(short.with_settings(seed=1), tmp_path, progress=False)
    assert list(other.curve()) != list(short_run.curve())


def test_metrics_come_at_the_steps_asked_for(short_run: Run, smoke_run: Run) -> None:
    for run, every, steps in [(short_run, 2, 12), (smoke_run, 5, 40)]:
        for split in SPLITS:
            assert list(run.curve(split=split).index) == list(range(0, steps + 1, every))
        assert list(run.curve("loss", "train").index) == list(range(steps))
    assert smoke_run.steps == [0, 5, 10, 20, 30, 40]


def test_training_changes_every_weight(smoke_run: Run) -> None:
    first, last = smoke_run.model(0), smoke_run.model(40)
    for (name, before), after in zip(first.named_parameters(), last.parameters(), strict=True):
        assert not torch.equal(before, after), name


def test_checkpoint_0_holds_the_initial_weights(smoke_run: Run, smoke: Config) -> None:
    fresh = hooked_transformer(smoke).state_dict()
    saved = smoke_run.model(0).state_dict()
    assert all(torch.equal(saved[name], fresh[name]) for name in fresh)


def test_measured_losses_are_those_of_the_checkpoints(smoke_run: Run) -> None:
    for step in (0, 20, 40):
        measured = smoke_run.measure(step).set_index(["metric", "attribute"])["value"]
        recorded = smoke_run.curve()[step]
        assert measured["attribute_loss", "all"] == pytest.approx(recorded, rel=1e-5)


def test_cosine_learning_rate() -> None:
    config = Config().with_settings(**{"optimizer.learning_rate": 2.0, "training.n_steps": 100})
    rates = [learning_rate(config, step) for step in (0, 25, 50, 75, 100)]
    half = math.sqrt(0.5)
    assert rates == pytest.approx([2, 1 + half, 1, 1 - half, 0])


def test_constant_learning_rate() -> None:
    settings = {"optimizer.learning_rate": 2.0, "optimizer.schedule": "constant"}
    config = Config().with_settings(**settings, **{"training.n_steps": 100})
    assert [learning_rate(config, step) for step in (0, 50, 99)] == [2.0, 2.0, 2.0]


def test_only_matrices_decay(smoke: Config) -> None:
    model = hooked_transformer(smoke)
    decaying, still = adamw(
        dict(model.named_parameters()), OptimizerConfig(weight_decay=0.3, beta1=0.8)
    ).param_groups
    assert (decaying["weight_decay"], still["weight_decay"]) == (0.3, 0.0)
    assert decaying["betas"] == still["betas"] == (0.8, 0.95)
    ids = {id(parameter) for parameter in decaying["params"]}
    for name, parameter in model.named_parameters():
        is_matrix = name.endswith("weight") and ".ln" not in name and "ln_out" not in name
        assert (id(parameter) in ids) == is_matrix, name
    assert len(decaying["params"]) + len(still["params"]) == len(list(model.parameters()))


def test_stop_below(
    short: Config, short_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops at the first measurement below the share, with a checkpoint there."""
    monkeypatch.setattr(Run, "phase_baseline", 100.0)  # so that a few steps suffice
    curve = short_run.curve()
    assert curve[2] > curve[4] > curve[6]
    share = float(curve[4] + curve[6]) / 2 / 100
    config = short.with_settings(**{"training.stop_below": share})
    run = interp.train(config, tmp_path, progress=False)
    assert list(run.curve()) == list(curve[curve.index <= 6])
    note = json.loads(run.finished_path.read_text())
    assert (note["step"], note["reason"]) == (6, "stop_below")
    assert run.steps == [0, 4, 6]
    assert not run.state_path.exists()


@pytest.mark.parametrize("log_every", [1, 50], ids=["seen in the loss", "seen when measuring"])
def test_divergence(
    log_every: int, short: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def breaks(model: object, tokens: Tensor, **settings: object) -> Tensor:
        calls.append(tokens)
        loss = original(model, tokens, **settings)
        return loss * math.nan if len(calls) == 7 else loss

    original = updates.training_loss
    monkeypatch.setattr(updates, "training_loss", breaks)
    config = short.with_settings(**{"evaluation.log_every": log_every})
    with pytest.raises(DivergedError) as caught:
        interp.train(config, tmp_path, progress=False)
    for words in (str(tmp_path), "diverged", "nan", "last good checkpoint is step 4"):
        assert words in str(caught.value)
    run = Run.load(tmp_path)
    assert run.steps == [0, 4]
    assert not run.finished
    for path in (tmp_path / "checkpoints").iterdir():
        assert all(tensor.isfinite().all() for tensor in load_file(path).values())
    assert run.metrics["value"].notna().all()


def test_a_learning_rate_far_too_high(short: Config, tmp_path: Path) -> None:
    """It ends with an error or with finite weights, never with a broken checkpoint."""
    config = short.with_settings(**{"optimizer.learning_rate": 1e30})
    with pytest.raises(DivergedError, match=r"diverged.*now 1e\+30"):
        interp.train(config, tmp_path, progress=False)
    for path in (tmp_path / "checkpoints").iterdir():
        assert all(tensor.isfinite().all() for tensor in load_file(path).values())


@pytest.fixture
def copy(short_run: Run, tmp_path: Path) -> Path:
    """A finished run that may be changed."""
    return Path(shutil.copytree(short_run.path, tmp_path / "copy"))


def test_resuming_a_finished_run_returns_it(short: Config, copy: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.name != ".lock"}
    run = interp.train(short, copy, resume=True, progress=False)
    assert run.finished
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_run_is_not_replaced_by_mistake(short: Config, copy: Path) -> None:
    before = contents(copy)
    with pytest.raises(RunError, match=r"already holds a run.*resume=True.*overwrite=True"):
        interp.train(short, copy, progress=False)
    assert contents(copy) == before


def test_resuming_with_other_settings_is_refused(short: Config, copy: Path) -> None:
    before = contents(copy)
    other = short.with_settings(**{"model.n_layers": 1, "training.stop_below": 0.5})
    with pytest.raises(RunError) as caught:
        interp.train(other, copy, resume=True, progress=False)
    assert "model.n_layers: 2 there, 1 asked for" in str(caught.value)
    assert "training.stop_below: not set there, 0.5 asked for" in str(caught.value)
    assert contents(copy) == before


def test_other_logging_is_no_other_run(short: Config, copy: Path) -> None:
    other = short.with_settings(**{"logging.wandb_project": "mine"})
    assert interp.train(other, copy, resume=True, progress=False).finished


THEIRS = (
    "notes.txt", "figures/loss.png", "results/MINE.csv", "results/attention/MINE.csv",
    "results/patching/runs/MINE/x", "results/patching/runs/seed0_unpatched/MINE", "checkpoints/MINE.pt",
    "checkpoints/step_1.safetensors", "tokenizer/MINE.txt", ".cache/.MINE.part", "wandb/x",
)  # fmt: skip


@pytest.fixture
def shared(copy: Path) -> Path:
    """A run that has results, into which somebody has put files of their own."""
    nested = copy / "results/patching/runs/seed0_unpatched"
    shutil.copytree(copy, nested)
    for name in ("attention/scores.csv", "attention/summary.json"):
        (copy / "results" / name).parent.mkdir(exist_ok=True)
        (copy / "results" / name).write_text("")
    for name in THEIRS:
        (copy / name).parent.mkdir(exist_ok=True, parents=True)
        (copy / name).write_text("mine")
    (copy / ".x.part").mkdir()
    return copy


@pytest.mark.parametrize("overwrite", [True, False], ids=["overwritten", "trained from the start"])
def test_only_files_of_runs_are_deleted(
    overwrite: bool, short: Config, short_run: Run, shared: Path
) -> None:
    if not overwrite:
        (shared / "finished.json").unlink()
    config = short.with_settings(seed=1) if overwrite else short
    run = interp.train(config, shared, resume=not overwrite, overwrite=overwrite, progress=False)
    assert run.config == config
    ours, theirs = contents(short_run.path).keys(), set(THEIRS) - {".cache/.MINE.part"}
    assert contents(shared).keys() == ours | theirs
    assert all((shared / name).read_text() == "mine" for name in THEIRS)
    assert (shared / ".x.part").is_dir()


def test_a_run_that_others_share_is_deleted_whole_without_them(
    short: Config, short_run: Run, copy: Path
) -> None:
    shutil.copytree(copy, copy / "results/patching/runs/seed0_unpatched")
    interp.train(short.with_settings(seed=1), copy, overwrite=True, progress=False)
    assert contents(copy).keys() == contents(short_run.path).keys()
    assert not (copy / "results").exists()


def test_checkpoints_elsewhere_are_not_deleted(short: Config, copy: Path) -> None:
    elsewhere = copy.parent / "elsewhere"
    (copy / "checkpoints").rename(elsewhere)
    (copy / "checkpoints").symlink_to(elsewhere)
    before = contents(copy) | contents(elsewhere)
    with pytest.raises(RunError, match=r"checkpoints is a link.*Remove the link"):
        interp.train(short, copy, overwrite=True, progress=False)
    assert contents(copy) | contents(elsewhere) == before


@pytest.mark.parametrize(
    "name", ["results/MINE.csv", "checkpoints/MINE.pt", "wandb/x", "report.html"]
)
def test_names_of_runs_without_a_run_are_somebody_elses(
    name: str, short: Config, tmp_path: Path
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(RunError, match="holds files but no run"):
        interp.train(short, tmp_path, progress=False)
    assert contents(tmp_path) == {name: b"mine"}


@pytest.mark.parametrize("resume", [True, False], ids=["resumed", "overwritten"])
@pytest.mark.parametrize("metrics", ["mine\n", "mine", None])
def test_settings_alone_are_not_the_mark_of_a_run(
    resume: bool, metrics: str | None, short: Config, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(short.to_yaml())
    for name in ("report.html", "summary.json"):
        (tmp_path / name).write_text("mine")
    if metrics is not None:
        (tmp_path / "metrics.jsonl").write_text(metrics)
    before = contents(tmp_path)
    with pytest.raises(RunError, match="neither environment"):
        interp.train(short, tmp_path, resume=resume, overwrite=not resume, progress=False)
    assert contents(tmp_path) == before


def test_settings_alone_can_be_gone_on_with(short: Config, short_run: Run, tmp_path: Path) -> None:
    """A kill may leave no more than that."""
    (tmp_path / "config.yaml").write_text(short.to_yaml())
    run = interp.train(short, tmp_path, resume=True, progress=False)
    assert contents(run.path).keys() == contents(short_run.path).keys()


def test_a_model_that_cannot_be_built_leaves_nothing(
    short: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as small:
        small.setattr(loop, "adamw", too_large)
        with pytest.raises(MemoryError):
            interp.train(short, tmp_path / "new", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_is_looked_at_without_a_lock(short: Config, copy: Path) -> None:
    """So it may lie where nothing can be written, or carry a lock that was copied."""
    with folder_lock(copy):
        assert interp.train(short, copy, resume=True, progress=False).finished


@pytest.mark.parametrize(("resume", "overwrite"), [(False, False), (True, False), (False, True)])
def test_a_folder_of_other_files_is_refused_untouched(
    short: Config, tmp_path: Path, resume: bool, overwrite: bool
) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match=r"holds files but no run \(thesis\.tex\)"):
        interp.train(short, tmp_path, resume=resume, overwrite=overwrite, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_overwriting_another_programs_folder_is_refused(short: Config, tmp_path: Path) -> None:
    """Many programs have a config.yaml, and a folder named checkpoints beside it."""
    (tmp_path / "config.yaml").write_text("trainer: {max_epochs: 10}\n")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").write_bytes(b"weeks of work")
    before = contents(tmp_path)
    with pytest.raises(RunError, match="not known to be a run"):
        interp.train(short, tmp_path, overwrite=True, progress=False)
    assert contents(tmp_path) == before


def test_an_out_folder_that_is_a_file(short: Config, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"is a file.*a folder is needed"):
        interp.train(short, tmp_path / "file", progress=False)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"training.device": "abacus"}, "'abacus'"),
        ({"model.n_ctx": 20}, "Set model.n_ctx to"),
    ],
)
def test_a_config_that_cannot_work_makes_no_folder(
    short: Config, tmp_path: Path, settings: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        interp.train(short.with_settings(**settings), tmp_path / "new", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_without_held_out_people(short: Config, tmp_path: Path) -> None:
    config = short.with_settings(**{"population.n_held_out": 0, "training.n_steps": 2})
    run = interp.train(config, tmp_path, progress=False)
    assert set(run.metrics["split"]) == {"train", "evaluation"}


def test_rotary_rms_bpe_and_power_law_train(short: Config, tmp_path: Path) -> None:
    config = short.with_settings(
        **{
            "model.normalization": "RMS", "model.positions": "rotary", "model.n_ctx": 512,
            "tokenizer.kind": "bpe", "tokenizer.bpe_vocabulary": 300,
            "sampling.kind": "power_law", "sampling.exponent": 1.0,
            "training.n_steps": 2, "optimizer.schedule": "constant",
        }
    )  # fmt: skip
    run = interp.train(config, tmp_path, progress=False)
    assert run.curve("loss", "train").notna().all()
    assert run.model().cfg.positional_embedding_type == "rotary"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model.d_model": 10**6, "model.n_heads": 1}, "GiB of memory"),
        ({"training.batch_size": 10**7, "model.d_mlp": 10**6}, "GiB of memory"),
    ],
)
def test_what_no_memory_can_hold_is_refused_before_anything_is_written(
    smoke: Config, settings: dict[str, object], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=says):
        interp.train(smoke.with_settings(**settings), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_memory_is_estimated_from_below() -> None:
    config = interp.preset("tiny", **{"training.batch_size": 1})
    model = hooked_transformer(config, Corpus.from_config(config).tokenizer)
    trained = 16 * sum(
        weights.numel() for weights in model.parameters()
    )  # with gradient and moments
    assert 0.7 * trained < least_bytes(config) < trained


def test_sending_metrics_without_a_login_is_refused_before_anything_is_written(
    smoke: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wandb.login", lambda **_: False)
    config = smoke.with_settings(**{"logging.wandb": "online"})
    with pytest.raises(ConfigError, match="wandb login"):
        interp.train(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
