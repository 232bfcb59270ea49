"""Opening runs: what they offer, and clear errors where something is missing or foreign."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from interp.biographies import ATTRIBUTES
from interp.errors import CheckpointError, ConfigError, InterpError, RunError
from interp.knowledge import METRICS, Baseline
from interp.run import Run, load_checkpoint
from tests.helpers import without_digests


@pytest.fixture
def copy(smoke_run: Run, tmp_path: Path) -> Run:
    """A run that may be changed."""
    return Run.load(without_digests(shutil.copytree(smoke_run.path, tmp_path / "copy")))


def checkpoint(run: Run, step: int) -> Path:
    return run.path / "checkpoints" / f"step_{step:08d}.safetensors"


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no folder .*nowhere\. Train a run"):
        Run.load(tmp_path / "nowhere")


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no run \(config\.yaml is missing\)"):
        Run.load(tmp_path)


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file"):
        Run.load(tmp_path / "file")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"model: {n_layers: 2", "no YAML"),
        (b"model: {n_layer: 2}", "Did you mean 'model.n_layers'"),
        (b"seed: many", "seed"),
        (b"", "cannot be read"),
        (b"\xff\xfe\x00broken", "cannot be read"),
    ],
)
def test_bad_settings(copy: Run, content: bytes, complaint: str) -> None:
    copy.config_path.write_bytes(content)
    with pytest.raises(ConfigError, match=complaint) as caught:
        Run.load(copy.path)
    assert str(copy.config_path) in str(caught.value)


def test_metrics(smoke_run: Run) -> None:
    table = smoke_run.metrics
    assert list(table.columns) == ["step", "split", "metric", "attribute", "value"]
    assert set(table["metric"]) == {*METRICS, "loss"}
    assert set(table["split"]) == {"train", "evaluation", "held_out"}
    assert set(table["attribute"]) == {"all", *ATTRIBUTES}
    assert not table.duplicated(["step", "split", "metric", "attribute"]).any()
    assert table["value"].notna().all()
    assert table[table["metric"] == "attribute_accuracy"]["value"].between(0, 1).all()


def test_metrics_of_a_run_that_is_being_written(copy: Run) -> None:
    """The last line may be there in part."""
    n_rows = len(copy.metrics)
    with copy.metrics_path.open("a") as file:
        file.write('{"step": 41, "spl')
    assert len(copy.metrics) == n_rows


def test_metrics_are_read_again_where_the_file_has_changed(copy: Run) -> None:
    table = copy.metrics
    table["value"] = 0.0
    assert copy.metrics["value"].max() > 0, "a table is its caller's own"
    lines = copy.metrics_path.read_text().splitlines(keepends=True)
    copy.metrics_path.write_text("".join(lines[:-1]))
    assert len(copy.metrics) == len(table) - 1
    other = copy.metrics_path.with_name("other")
    other.write_text("".join(lines[1:-1]))
    other.replace(copy.metrics_path)
    assert len(copy.metrics) == len(table) - 2
    copy.metrics_path.unlink()
    assert copy.metrics.empty


@pytest.mark.parametrize(
    "wanted",
    [("accuracy", "evaluation", "all"), ("attribute_loss", "test", "all"),
     ("attribute_loss", "evaluation", "hobby")],
)  # fmt: skip
def test_a_curve_that_was_not_measured(smoke_run: Run, wanted: tuple[str, str, str]) -> None:
    with pytest.raises(RunError) as caught:
        smoke_run.curve(*wanted)
    for exists in (*METRICS, "held_out", "university", *wanted):
        assert repr(exists) in str(caught.value)


def test_curve(smoke_run: Run) -> None:
    curve = smoke_run.curve()
    assert curve.name == "attribute_loss"
    assert curve.index.name == "step"
    by_attribute = [smoke_run.curve(attribute=a) for a in ATTRIBUTES]
    assert curve[40] == pytest.approx(sum(c[40] for c in by_attribute) / 6)


def test_model_of_a_step(smoke_run: Run) -> None:
    model = smoke_run.model(20)
    assert not model.training
    assert len(model.tokenizer) == model.cfg.d_vocab
    last, same = smoke_run.model().state_dict(), smoke_run.model(40).state_dict()
    assert all(torch.equal(last[name], same[name]) for name in last)
    assert not torch.equal(last["embed.weight"], model.state_dict()["embed.weight"])


def test_a_missing_step_lists_steps(smoke_run: Run) -> None:
    with pytest.raises(CheckpointError, match=r"step 7.*0, 5, 10, 20, 30, 40"):
        smoke_run.model(7)


def test_no_checkpoint_at_all(copy: Run) -> None:
    shutil.rmtree(copy.path / "checkpoints")
    with pytest.raises(RunError, match="no checkpoint yet"):
        copy.model()
    with pytest.raises(CheckpointError, match=r"Steps: none\."):
        copy.model(0)


@pytest.mark.parametrize("kept", [0, 4, 1000, -1])
def test_a_truncated_checkpoint(copy: Run, kept: int) -> None:
    path = checkpoint(copy, 20)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="truncated") as caught:
        copy.model(20)
    assert str(path) in str(caught.value)


def test_a_foreign_safetensors_file(copy: Run) -> None:
    save_file({"weight": torch.zeros(2)}, checkpoint(copy, 20))
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        copy.model(20)


def test_a_checkpoint_of_another_run(copy: Run, short_run: Run) -> None:
    shutil.copy(checkpoint(short_run, 0), checkpoint(copy, 0))
    with pytest.raises(CheckpointError, match="another run"):
        copy.model(0)


def test_a_checkpoint_of_another_step(copy: Run) -> None:
    shutil.copy(checkpoint(copy, 5), checkpoint(copy, 10))
    with pytest.raises(CheckpointError, match=r"another run.*step 5"):
        copy.model(10)


def test_a_bad_checkpoint_leaves_the_model_alone(copy: Run) -> None:
    model = copy.model(40)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = checkpoint(copy, 20)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError):
        load_checkpoint(copy.path, 20, model, copy.config)
    assert all(torch.equal(before[name], model.state_dict()[name]) for name in before)


def test_another_population_is_refused(copy: Run) -> None:
    path = copy.path / "environment.json"
    environment = json.loads(path.read_text())
    path.write_text(json.dumps(environment | {"population": "0" * 64}))
    with pytest.raises(RunError, match=r"population.*NumPy \d"):
        _ = copy.corpus


def test_a_missing_tokenizer(copy: Run) -> None:
    shutil.rmtree(copy.tokenizer_path)
    with pytest.raises(RunError, match=r"holds no tokenizer"):
        copy.model()


def test_a_damaged_environment(copy: Run) -> None:
    (copy.path / "environment.json").write_text("{")
    with pytest.raises(InterpError, match=r"environment\.json"):
        _ = copy.corpus


def test_environment(smoke_run: Run) -> None:
    environment = smoke_run.environment
    assert environment["precision"] == "fp32"
    assert environment["device"] == "cpu"
    assert environment["threads"] == 1
    assert environment["population"] == smoke_run.population.fingerprint()
    assert environment["packages"]["torch"] == torch.__version__


def test_baselines(smoke_run: Run) -> None:
    baseline = Baseline.of(smoke_run.population)
    assert smoke_run.baselines == baseline
    assert smoke_run.baseline == Baseline.overall(baseline.theoretical)
    assert smoke_run.phase_baseline == Baseline.overall(baseline.statistics)
    assert smoke_run.phase_baseline < smoke_run.baseline


def test_phases_follow_the_curve(copy: Run) -> None:
    """Metrics of our own: down to the plateau at step 10, below it from 30 on."""
    shares = {0: 1.5, 10: 1.0, 20: 1.0, 30: 0.9, 40: 0.5}
    rows = [
        {"step": step, "split": "evaluation", "metric": metric, "attribute": "all",
         "value": share * copy.phase_baseline}
        for step, share in shares.items()
        for metric in ("attribute_loss", "attribute_accuracy")
    ]  # fmt: skip
    copy.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert (copy.phases.statistics_end, copy.phases.plateau_end) == (10, 30)
    assert copy.phases_at(0.2).plateau_end == 40
    table = copy.phase_sensitivity().set_index("delta")["plateau_end"]
    assert (table[0.05], table[0.3]) == (30, 40)
    assert "statistics end at step 10, plateau ends at step 30" in repr(copy)


def test_repr(smoke_run: Run, copy: Run) -> None:
    text = repr(smoke_run)
    for words in (str(smoke_run.path), "24 individuals + 8 held out", "2 layers, d_model 32",
                  "6 checkpoints, last step 40, finished", "statistics end", "plateau ends",
                  "attribute accuracy"):  # fmt: skip
        assert words in text
    copy.finished_path.unlink()
    copy.metrics_path.unlink()
    shutil.rmtree(copy.path / "checkpoints")
    assert "0 checkpoints, last step none, not finished (40 steps asked)" in repr(copy)


def test_batches_feed_the_model(smoke_run: Run) -> None:
    batch = smoke_run.corpus.biographies(slice(0, 3))
    with torch.no_grad():
        logits, cache = smoke_run.model().run_with_cache(batch.tokens)
    assert logits.shape == (*batch.tokens.shape, len(smoke_run.tokenizer))
    assert cache["blocks.0.attn.hook_pattern"].shape[1] == 2
