"""What a device computes is what the CPU computes, within the tolerance that each test states.

They need a card: `make gpu` runs them on it, `pytest -m gpu --device cpu` sees that they run at all.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import interp
from interp.biographies import Corpus
from interp.config import Config
from interp.interventions import Grid, patch, swapped_people
from interp.model import AttentionPatch, hooked_transformer, training_loss
from interp.run import Run, resolve_device
from interp.training import graphs
from tests.golden import CUDA_TOLERANCE
from tests.helpers import contents

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def device(request: pytest.FixtureRequest) -> torch.device:
    try:
        return resolve_device(request.config.getoption("--device"))
    except interp.InterpError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def on_device(device: torch.device, smoke: Config, trained: Callable[[Config], Run]) -> Run:
    """The smoke run, trained on the device in single precision."""
    return trained(smoke.with_settings(**{"training.device": str(device)}))


def numbers(table: pd.DataFrame) -> pd.DataFrame:
    return table.select_dtypes("float")


def require_alike(mine: pd.DataFrame, theirs: pd.DataFrame, tolerance: float) -> None:
    """The same rows; numbers within a tolerance of the largest of their column."""
    kept = theirs.columns.difference(numbers(theirs).columns)
    pd.testing.assert_frame_equal(mine[kept], theirs[kept])
    assert not numbers(theirs).empty
    for name, values in numbers(theirs).items():
        atol = tolerance * max(values.abs().max(), 1e-6)
        np.testing.assert_allclose(mine[name], values, rtol=0, atol=atol, err_msg=str(name))


def test_training_losses(on_device: Run, smoke_run: Run) -> None:
    """Losses of the first 20 steps, relative; later ones part, as on any other processor."""
    for metric, split in (("loss", "train"), ("attribute_loss", "evaluation")):
        mine, theirs = (run.curve(metric, split).loc[:20] for run in (on_device, smoke_run))
        assert len(theirs) >= 5
        np.testing.assert_allclose(mine, theirs, rtol=CUDA_TOLERANCE)


def test_bf16_losses(device: torch.device, smoke: Config, corpus: Corpus) -> None:
    """One loss and its gradients in bf16: within 2% of fp32, gradients in direction."""
    tokens = corpus.batch(0, 8).tokens.to(device)
    found = {}
    for precision in ("fp32", "bf16"):
        model = hooked_transformer(smoke, corpus.tokenizer, device)
        loss = training_loss(model, tokens, pad_token=0, precision=precision)
        loss.backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found[precision] = loss.item(), torch.cat(gradients)
    (wide, wide_gradient), (low, low_gradient) = found["fp32"], found["bf16"]
    assert low == pytest.approx(wide, rel=0.02)
    assert torch.cosine_similarity(wide_gradient, low_gradient, dim=0) > 0.99


def test_the_same_bytes_twice(device: torch.device, short: Config, tmp_path: Path) -> None:
    """Deterministic training, in the precision of the device."""
    config = short.with_settings(**{"training.device": str(device)})
    one, two = (interp.train(config, tmp_path / name, progress=False) for name in ("one", "two"))
    assert contents(one.path) == contents(two.path)


def test_graphs_move_no_byte(
    device: torch.device, short: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps run by CUDA graphs and kernel by kernel, in both precisions; on a CPU there are no graphs."""
    made: list[object] = []
    captured = graphs.GraphedSteps._captured

    def counted(self: graphs.GraphedSteps, inputs: list[torch.Tensor]) -> object:
        made.append(inputs[0].shape)
        return captured(self, inputs)

    monkeypatch.setattr(graphs.GraphedSteps, "_captured", counted)
    for precision in ("fp32", "bf16"):
        settings = {"training.device": str(device), "training.precision": precision}
        config, found = short.with_settings(**settings), []
        for most in (64, 0):
            made.clear()
            monkeypatch.setattr(graphs, "_MOST", most)
            run = interp.train(config, tmp_path / f"{precision}-{most}", progress=False)
            found.append(contents(run.path))
            assert bool(made) == (most > 0 and device.type == "cuda")
        assert found[0] == found[1]


def test_patched_attention(device: torch.device, smoke: Config, corpus: Corpus) -> None:
    """The loss with the attention of a reference, and its gradients, are those of the CPU."""
    found = []
    for place in (torch.device("cpu"), device):
        reference, model = (
            hooked_transformer(smoke.with_settings(**settings), corpus.tokenizer, place)
            for settings in ({"model.seed": 5, "model.init_std": 0.3}, {"model.init_std": 0.3})
        )
        tokens = corpus.batch(0, 8).tokens.to(place)
        plain = training_loss(model, tokens, pad_token=0).item()
        with AttentionPatch(reference.eval()).on(model):
            loss = training_loss(model, tokens, pad_token=0)
        loss.backward()
        gradient = model.blocks[0].mlp.out.weight.grad
        assert loss.item() != pytest.approx(plain, rel=CUDA_TOLERANCE), "the patch does nothing"
        found.append((loss.item(), gradient.cpu()))
    (wanted, wanted_gradient), (mine, gradient) = found
    assert mine == pytest.approx(wanted, rel=1e-4)
    atol = 1e-3 * wanted_gradient.abs().max().item()
    torch.testing.assert_close(gradient, wanted_gradient, rtol=0, atol=atol)


def test_activation_patching(device: torch.device, smoke_run: Run) -> None:
    """A grid of patches, of values of a few nats: within 0.1% of the largest of a column."""
    grid = Grid(("resid_pre", "z", "mlp_out"), ("last name", "predicts value"))
    pairs = swapped_people(smoke_run.corpus, n=6)
    mine = patch(smoke_run.model(device=device), pairs, grid)
    require_alike(mine, patch(smoke_run.model(), pairs, grid), 1e-3)


def test_attention_scores(device: torch.device, smoke_run: Run) -> None:
    mine = interp.attention_to_names(smoke_run, device=device)
    require_alike(mine, interp.attention_to_names(smoke_run), 1e-4)


def test_memory_measures(device: torch.device, smoke_run: Run) -> None:
    """Keys and values within 0.1% of the largest; accuracies of probes may flip for a few people."""
    last = smoke_run.steps[-1:]
    mine, theirs = (
        interp.measure_memory(smoke_run, last, device=place) for place in (device, None)
    )
    for name, tolerance in (("keys", 1e-3), ("values", 1e-3), ("probes", 0.1)):
        require_alike(getattr(mine, name), getattr(theirs, name), tolerance)
