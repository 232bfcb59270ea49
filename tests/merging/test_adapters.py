"""Several adapters on one model: sums against merged weights, and against peft's own sum."""

import copy
import warnings
from pathlib import Path

import peft
import pytest
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2LMHeadModel

import interp
from interp.config import Config
from interp.errors import ArgumentError, CheckpointError
from interp.merging import AdapterSwitch, add_adapters
from interp.model import has_fused_forward
from interp.model.adapters import Adapter, LoraSpec, adapter_of
from tests.merging.test_merging import gpt2, state

SPECS = {"first": LoraSpec(2, 6.0), "second": LoraSpec(3, 3.0, sites=("q", "mlp_in"), seed=1)}


def filled(model: TransformerBridge, spec: LoraSpec) -> Adapter:
    adapter = interp.attach_adapter(model, spec)
    generator = torch.Generator().manual_seed(spec.rank)
    for name, tensor in adapter.named_tensors().items():
        if name.endswith("B"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return adapter


@pytest.fixture(params=["ours", "gpt2"])
def model(request: pytest.FixtureRequest, smoke: Config) -> TransformerBridge:
    return interp.hooked_transformer(smoke).eval() if request.param == "ours" else gpt2(0)


@pytest.fixture
def folders(model: TransformerBridge, tmp_path: Path) -> dict[str, Path]:
    found = {}
    for name, spec in SPECS.items():
        adapter = filled(model, spec)
        found[name] = adapter.save(tmp_path / name)
        adapter.detach()
    return found


def merged_states(
    model: TransformerBridge, folders: dict[str, Path]
) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """The weights of the base, and what each adapter adds to them."""
    base = {name: tensor.clone() for name, tensor in state(model).items()}
    changes = []
    for folder in folders.values():
        adapter = interp.load_adapter(model, folder)
        adapter.merge()
        changes.append({n: t - base[n] for n, t in state(model).items()})
        adapter.unmerge()
        adapter.detach()
    return base, changes


def test_a_sum_is_the_sum_of_merged_weights(
    model: TransformerBridge, folders: dict[str, Path], tmp_path: Path
) -> None:
    base, (one, two) = merged_states(model, folders)
    adapter = add_adapters(model, list(folders.values()), [1, -0.5])
    tokens = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        on = model(tokens)
    saved = adapter.save(tmp_path / "sum")
    adapter.merge()
    for name, tensor in state(model).items():
        expected = base[name] + one[name] - 0.5 * two[name]
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), on, rtol=0, atol=1e-4)
    adapter.unmerge()
    adapter.detach()
    assert all(torch.equal(tensor, base[name]) for name, tensor in state(model).items())
    again = interp.load_adapter(model, saved)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), on, rtol=0, atol=1e-5)
    again.detach()


def test_the_sum_of_pefts_own(tmp_path: Path) -> None:
    model = gpt2(0)
    folders = []
    for name, spec in SPECS.items():
        adapter = filled(model, LoraSpec(spec.rank, spec.alpha, ("o", "mlp_out"), seed=spec.seed))
        folders.append(adapter.save(tmp_path / name))
        adapter.detach()
    tokens = torch.arange(10)[None]
    with torch.no_grad():
        add_adapters(model, folders, [1, 2])
        ours = model(tokens)
    torch.manual_seed(0)
    clean = GPT2LMHeadModel(copy.deepcopy(model.original_model.config)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers, about peft
        theirs = peft.PeftModel.from_pretrained(clean, folders[0], adapter_name="first")
        theirs.load_adapter(folders[1], adapter_name="second")
    theirs.add_weighted_adapter(["first", "second"], [1.0, 2.0], "sum", combination_type="cat")
    theirs.set_adapter("sum")
    with torch.no_grad():
        torch.testing.assert_close(ours, theirs(tokens).logits, rtol=0, atol=2e-5)


def test_adapters_are_switched(model: TransformerBridge, folders: dict[str, Path]) -> None:
    tokens = torch.arange(12).reshape(2, 6)

    @torch.no_grad()
    def logits() -> Tensor:
        return model(tokens)

    base = logits()
    alone = {}
    for name, folder in folders.items():
        adapter = interp.load_adapter(model, folder)
        alone[name] = logits()
        adapter.detach()
    modules = list(model.named_modules())
    switch = AdapterSwitch(model, folders)
    assert torch.equal(logits(), base)
    for name, expected in alone.items():
        assert switch.use(name) is adapter_of(model)
        torch.testing.assert_close(logits(), expected, rtol=0, atol=1e-5)
    with switch.using({"first": 1, "second": 0.5}):
        assert switch.weights == {"first": 1.0, "second": 0.5}
        assert not torch.allclose(logits(), alone["first"], atol=1e-3)
        with pytest.raises(ArgumentError, match="no adapter 'third'"):
            switch.use("third")
        with pytest.raises(ArgumentError, match="name an adapter once"):
            switch.use(["first", "first"])
        with switch.using(None):
            assert torch.equal(logits(), base)
    assert switch.weights == {"second": 1.0}
    switch.use(None)
    assert torch.equal(logits(), base)
    assert [(n, id(m)) for n, m in model.named_modules()] == [(n, id(m)) for n, m in modules]
    assert adapter_of(model) is None
    assert has_fused_forward(model) == (model.cfg.architecture == "TransformerLensNative")


def test_what_cannot_be_added(
    model: TransformerBridge, folders: dict[str, Path], short_run: interp.Run, tmp_path: Path
) -> None:
    both = list(folders.values())
    for adapters, weights, match in (
        ([], None, "at least one"),
        (both, [1], "1 given for 2"),
        (both, [0, 0], "nothing to add"),
        (both, [1, float("inf")], "no finite number"),
        (both * 10, None, "add up to 50"),
        ([short_run], None, "has no adapter"),
    ):
        with pytest.raises(ArgumentError, match=match):
            add_adapters(model, adapters, weights)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="no adapter"):
        add_adapters(model, [tmp_path / "nothing"])
    small = filled(
        interp.hooked_transformer(interp.preset("smoke", **{"model.d_mlp": 32})), LoraSpec(2)
    )
    with pytest.raises(ArgumentError, match="of another model"):
        add_adapters(model, [small])
    adapter = add_adapters(model, both[:1])
    with pytest.raises(ArgumentError, match="has an adapter already"):
        AdapterSwitch(model, folders)
    adapter.detach()
