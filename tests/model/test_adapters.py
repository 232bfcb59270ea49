"""LoRA adapters: off and detached a model is its base bit for bit, on it is peft's, and hooks see it."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge

from interp import hooked_transformer, load_model
from interp.biographies import Corpus, Spans
from interp.config import Config
from interp.errors import ArgumentError, CheckpointError, RunError
from interp.interventions import SITES, Grid, Pairs, attribution, patch
from interp.memory import promoted_logits
from interp.model import evaluating, export_huggingface, has_fused_forward, training_loss
from interp.model.adapters import Adapter, LoraSpec, adapter_of, attach_adapter, load_adapter
from interp.model.live import dead_hooks
from interp.model.property_format import property_state_dict
from tests.architectures import boot, small_tokenizer

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing`:FutureWarning"
)  # peft's

PEFT_FORMAT = ("Llama", "GPT-2", "NeoX", "Phi 3")
KINDS = ("ours", "recurrent", *PEFT_FORMAT)
ATTENTION, MLP = ("q", "k", "v", "o"), ("mlp_in", "mlp_out")
WITH_GATE = ("mlp_in", "gate", "mlp_out")
HAS = {
    "ours": ATTENTION + MLP, "recurrent": WITH_GATE, "Llama": ATTENTION + WITH_GATE,
    "GPT-2": ATTENTION + MLP, "NeoX": ATTENTION + MLP, "Phi 3": ATTENTION + WITH_GATE,
}  # fmt: skip
TOKENS = torch.randint(5, 60, (3, 8), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def make(
    smoke: Config, corpus: Corpus
) -> Callable[[str], tuple[TransformerBridge, nn.Module | None]]:
    def made(kind: str) -> tuple[TransformerBridge, nn.Module | None]:
        if kind in PEFT_FORMAT:
            return boot(kind, small_tokenizer())
        recurrence = "rg_lru" if kind == "recurrent" else None
        settings = smoke.with_settings(**{"model.recurrence": recurrence})
        return hooked_transformer(settings, corpus.tokenizer).eval(), None

    return made


def logits(model: Any, tokens: Tensor = TOKENS) -> Tensor:
    with evaluating(model):
        found: Tensor = model(tokens)
    return found


def logits_of(original: nn.Module) -> Tensor:
    """Those of a model of transformers."""
    with torch.no_grad():
        found: Tensor = original.eval()(TOKENS).logits
    return found


def fill(adapter: Adapter, std: float = 0.1, seed: int = 1) -> Adapter:
    """As if it had been trained."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in adapter.named_tensors().items():
        if name.endswith("lora_B"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * std)
    return adapter


def state(model: nn.Module) -> tuple[list[tuple[str, int, bool]], list[tuple[str, int, bool]]]:
    """Modules and parameters: which objects, in which mode, trainable or not."""
    modules = [(name, id(m), m.training) for name, m in model.named_modules()]
    weights = [(name, id(p), p.requires_grad) for name, p in model.named_parameters()]
    return modules, weights


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("kind", KINDS)
def test_a_life(kind: str, make: Any, tmp_path: Path) -> None:
    """On, off, copied, saved, merged, taken out of the weights again, detached, loaded."""
    model, original = make(kind)
    next(model.parameters()).requires_grad_(False)
    model.blocks[0].train()
    before, base = state(model), logits(model)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    fused = has_fused_forward(model)
    assert fused == (kind == "ours")

    adapter = attach_adapter(model, LoraSpec(rank=3, alpha=6))
    assert {place.site for place in adapter.places} == set(HAS[kind])
    assert len(adapter.places) == 2 * len(HAS[kind])
    assert adapter_of(model) is adapter
    assert torch.equal(logits(model), base)  # B is 0
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    assert trainable == {id(p) for p in adapter.parameters()}
    assert len(trainable) == 2 * len(adapter.places)

    fill(adapter)
    on = logits(model)
    assert (on - base).abs().max() > 0.05
    assert adapter.on
    assert not has_fused_forward(model)
    with adapter.disabled():
        assert not adapter.on
        assert torch.equal(logits(model), base)
        assert has_fused_forward(model) == fused
    assert torch.equal(logits(model), on)
    assert same(model.state_dict(), weights)
    model.load_state_dict(model.state_dict())
    assert torch.equal(logits(model), on)

    twin = copy.deepcopy(model)
    other = adapter_of(twin)
    assert other is not None
    assert other is not adapter
    assert torch.equal(logits(twin), on)
    other.detach()
    assert torch.equal(logits(twin), base)
    assert torch.equal(logits(model), on)

    adapter.save(tmp_path / "adapter")
    if original is not None:
        theirs = peft.PeftModel.from_pretrained(copy.deepcopy(original), tmp_path / "adapter")
        torch.testing.assert_close(logits_of(theirs), on, rtol=0, atol=1e-5)

    adapter.merge()
    # Weights of a standard deviation of 0.3 make logits of up to 8: their last bits.
    torch.testing.assert_close(logits(model), on, rtol=0, atol=1e-5 * max(1, on.abs().max()))
    assert (logits(model) - base).abs().max() > 0.05
    assert has_fused_forward(model) == fused
    assert state(model) == before
    adapter.unmerge()
    assert torch.equal(logits(model), on)
    adapter.detach()
    assert adapter_of(model) is None
    assert state(model) == before
    assert torch.equal(logits(model), base)
    assert same(model.state_dict(), weights)

    loaded = load_adapter(model, tmp_path / "adapter")
    assert loaded.spec == adapter.spec
    assert same(loaded.named_tensors(), adapter.named_tensors())
    assert torch.equal(logits(model), on)
    with loaded.disabled():
        assert torch.equal(logits(model), base)


@pytest.mark.parametrize("kind", KINDS)
def test_in_double_precision_merged_is_on(kind: str, make: Any) -> None:
    """What differs in single precision is rounding alone."""
    model = make(kind)[0].to(torch.float64)
    adapter = fill(attach_adapter(model, LoraSpec(rank=3, alpha=6)))
    on = logits(model)
    assert on.dtype == torch.float64
    adapter.merge()
    torch.testing.assert_close(logits(model), on, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", PEFT_FORMAT)
def test_an_adapter_made_by_peft(kind: str, make: Any, tmp_path: Path) -> None:
    """Patterns of rank and alpha, rank-stabilised scaling, one A for queries, keys and values."""
    model, original = make(kind)
    names = {
        "Llama": ["q_proj", "down_proj"], "GPT-2": ["c_attn", "c_fc"],
        "NeoX": ["query_key_value", "dense"], "Phi 3": ["qkv_proj", "gate_up_proj"],
    }[kind]  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = peft.LoraConfig(
            r=4, lora_alpha=6, target_modules=names, rank_pattern={names[1]: 2},
            alpha_pattern={names[1]: 3}, use_rslora=True, init_lora_weights=False,
            fan_in_fan_out=kind == "GPT-2",
        )  # fmt: skip
        theirs = peft.get_peft_model(original, config).eval()
        # Where peft would ask the hub for the base by its name, which it has none of.
        theirs.save_pretrained(tmp_path / "theirs", save_embedding_layers=False)
    adapter = load_adapter(model, tmp_path / "theirs")
    expected = logits_of(theirs)
    torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-4)
    assert {len(t) for n, t in adapter.named_tensors().items() if n.endswith("A")} == {2, 4}
    adapter.save(tmp_path / "ours")
    adapter.detach()
    again = load_adapter(model, tmp_path / "ours")
    assert same(again.named_tensors(), adapter.named_tensors())
    torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-4)
    with pytest.raises(RunError, match="not an adapter that interp wrote"):
        again.save(tmp_path / "theirs")


def test_training_changes_the_adapter_only(make: Any, corpus: Corpus) -> None:
    model, _ = make("ours")
    base = {name: value.clone() for name, value in model.state_dict().items()}
    tokens = corpus.batch(step=0, size=8).tokens
    before = logits(model, tokens)
    adapter = attach_adapter(model, LoraSpec(rank=4, sites=("q", "v", "mlp_out"), layers=[1]))
    assert [p.name for p in adapter.places] == [
        f"blocks.1.{name}" for name in ("attn.q", "attn.v", "mlp.out")
    ]
    first = {name: tensor.clone() for name, tensor in adapter.named_tensors().items()}
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = training_loss(model, tokens, pad_token=corpus.tokenizer.pad_token_id)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05
    assert not any(torch.equal(t, first[name]) for name, t in adapter.named_tensors().items())
    assert all(p.grad is None for n, p in model.named_parameters() if "lora" not in n)
    assert same(model.state_dict(), base)
    adapter.on = False
    assert torch.equal(logits(model, tokens), before)
    adapter.on = True
    trained = logits(model, tokens)
    twin, _ = make("ours")
    other = attach_adapter(twin, adapter.spec)
    parameters = other.parameters()
    other.load_tensors(adapter.named_tensors())
    assert all(a is b for a, b in zip(parameters, other.parameters(), strict=True))
    assert torch.equal(logits(twin, tokens), trained)


def test_the_beginning_is_determined_by_the_seed(make: Any) -> None:
    random = torch.get_rng_state()
    found = {}
    for name, seed, sites in (("a", 3, None), ("b", 3, None), ("c", 4, None), ("d", 3, "k")):
        torch.manual_seed(len(found))
        model, _ = make("ours")
        state = torch.get_rng_state()
        adapter = attach_adapter(model, LoraSpec(rank=2, sites=sites, seed=seed))
        assert torch.equal(torch.get_rng_state(), state)
        found[name] = {key: t.clone() for key, t in adapter.named_tensors().items()}
    torch.set_rng_state(random)
    assert same(found["a"], found["b"])
    key = "blocks.1.attn.k.lora_A"
    assert torch.equal(found["a"][key], found["d"][key])
    assert not torch.equal(found["a"][key], found["c"][key])
    assert set(found["d"]) == {f"blocks.{n}.attn.k.lora_{x}" for n in (0, 1) for x in "AB"}
    bound = 32**-0.5
    assert found["a"][key].abs().max() <= bound
    assert found["a"][key].std() == pytest.approx(bound / 3**0.5, rel=0.3)


def pairs() -> Pairs:
    generator = torch.Generator().manual_seed(2)
    base, source = torch.randint(5, 60, (2, 3, 8), generator=generator)
    spans = Spans.from_lists(8, sentences=[(1, 8)], names=[(1, 4)])
    return Pairs.of_tokens(base, source, Spans.stack([spans] * 3), 7, [5, 6, 7], [10, 11, 12])


@pytest.mark.parametrize("kind", ["ours", "Llama", "GPT-2"])
def test_hooks_see_and_edit_the_adapted_model(kind: str, make: Any) -> None:
    """Every site is live, has the values of the merged model, and is patched as in it."""
    model, _ = make(kind)
    adapter = fill(attach_adapter(model, LoraSpec(rank=3)))
    names = [site.hook_name(1) for site in SITES.values() if site.flag is None]
    names = [name for name in names if name in model.hook_dict]
    assert len(names) >= 9
    assert dead_hooks(model, names, TOKENS) == []
    everywhere = {"all": torch.ones(3, 8, dtype=torch.bool)}
    sites = ["q", "k", "v", "z", "pattern", "result", "q_input", "post", "mlp_out", "resid_post"]
    grid = Grid(sites, everywhere, heads="all")

    def measured() -> tuple[Any, list[float], list[float], list[float]]:
        with evaluating(model):
            _, cache = model.run_with_cache(TOKENS)
        table = patch(model, pairs(), grid, metrics="log_probability")
        slopes = attribution(model, pairs(), grid)["approximate"]
        return cache, table["value"].tolist(), table["unpatched"].tolist(), slopes.tolist()

    on, patched, unpatched, slopes = measured()
    assert max(abs(a - b) for a, b in zip(patched, unpatched, strict=True)) > 1e-3
    assert all(factor.grad is None for factor in adapter.parameters())
    adapter.merge()
    merged, wanted, _, wanted_slopes = measured()
    adapter.unmerge()
    for name in names:
        torch.testing.assert_close(on[name], merged[name], rtol=1e-4, atol=1e-4, msg=name)
    assert patched == pytest.approx(wanted, abs=2e-4)
    assert slopes == pytest.approx(wanted_slopes, rel=1e-3, abs=1e-4)

    # By hand: the queries of a head, through plain hooks.
    hook = "blocks.1.attn.hook_q"
    places = torch.zeros(3, 8, dtype=torch.bool)
    places[:, 7] = True
    table = patch(
        model, pairs(), Grid("q", {"last": places}, [1], heads="all"), metrics="log_probability",
        per_pair=True,
    )  # fmt: skip
    with evaluating(model):
        _, source = model.run_with_cache(pairs().source, names_filter=hook)

        def replace(value: Tensor, hook: Any) -> Tensor:
            value = value.clone()
            value[:, 7] = source[hook.name][:, 7]
            return value

        edited = model.run_with_hooks(pairs().base, fwd_hooks=[(hook, replace)])[:, 7]
    by_hand = edited.log_softmax(-1)[torch.arange(3), pairs().base_answer]
    assert table["value"].tolist() == pytest.approx(by_hand.tolist(), abs=1e-5)
    adapter.detach()


@pytest.mark.parametrize("kind", ["ours", "Llama", "GPT-2", "NeoX"])
def test_weights_that_are_shown_are_the_effective_ones(
    kind: str, make: Any, tmp_path: Path
) -> None:
    model, _ = make(kind)
    base = promoted_logits(model, 0)
    adapter = fill(attach_adapter(model, LoraSpec(rank=3)))
    weights = {n: getattr(model, n).detach() for n in ("W_Q", "W_K", "W_V", "W_O", "W_out", "W_in")}
    for path in ("direct", "attention"):
        on = promoted_logits(model, 0, path)
        adapter.merge()
        torch.testing.assert_close(on, promoted_logits(model, 0, path), rtol=1e-4, atol=1e-5)
        for name, found in weights.items():
            expected = getattr(model, name)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, msg=name)
        adapter.unmerge()
    assert not torch.allclose(promoted_logits(model, 0), base)
    part = model.blocks[0].mlp.out
    handle = part.original_component.base_layer.register_forward_hook(lambda *_: None)
    with pytest.raises(ArgumentError, match="hook"):
        promoted_logits(model, 0)
    handle.remove()
    with adapter.disabled():
        assert torch.equal(promoted_logits(model, 0), base)
    if kind == "ours":  # what is exported is the state, which is the base's
        with pytest.raises(ArgumentError, match="Merge the adapter"):
            export_huggingface(model, tmp_path / "export")
        with pytest.raises(ArgumentError, match="Merge the adapter"):
            property_state_dict(model)


def test_a_joint_matrix_is_merged_too(make: Any) -> None:
    """TransformerLens does not compute with it, and whoever saves the model writes it."""
    model, original = make("NeoX")
    whole = model.blocks[0].attn.qkv.original_component.weight
    before = whole.clone()
    adapter = fill(attach_adapter(model, LoraSpec(rank=2)))
    on = logits(model)
    adapter.merge()
    expected = copy.deepcopy(original)
    for layer, block in zip(expected.gpt_neox.layers, model.blocks, strict=True):
        layer.attention.query_key_value.weight.data = block.attn.qkv.original_component.weight.data
        layer.attention.dense.weight.data = block.attn.o.original_component.weight.data
        layer.mlp.dense_h_to_4h.weight.data = getattr(
            block.mlp, "in"
        ).original_component.weight.data
        layer.mlp.dense_4h_to_h.weight.data = block.mlp.out.original_component.weight.data
    torch.testing.assert_close(logits_of(expected), on, rtol=0, atol=1e-5)
    adapter.unmerge()
    assert torch.equal(whole, before)


def test_a_model_from_load_model_and_in_bfloat16(make: Any, tmp_path: Path) -> None:
    _, original = make("Llama")
    model = load_model(original, tokenizer=small_tokenizer()).to(torch.bfloat16)
    base = logits(model)
    adapter = fill(attach_adapter(model))
    assert {t.dtype for t in adapter.named_tensors().values()} == {torch.float32}
    on = logits(model)
    assert on.dtype == torch.bfloat16
    assert not torch.equal(on, base)
    adapter.merge()
    adapter.unmerge()
    assert torch.equal(logits(model), on)
    adapter.save(tmp_path)
    adapter.detach()
    assert torch.equal(logits(model), base)
    load_adapter(model, tmp_path)
    assert torch.equal(logits(model), on)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rank": 0}, "rank=0.*at least 1"),
        ({"rank": 2.5}, "whole number"),
        ({"alpha": 0}, "alpha=0.*above 0"),
        ({"alpha": float("nan")}, "above 0"),
        ({"sites": "qkv"}, "no site 'qkv'.*q, k, v, o"),
        ({"sites": []}, "No site is named"),
        ({"layers": []}, "layers is empty"),
        ({"layers": [-1]}, "at least 0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_specs_that_cannot_work(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        plain_spec(**given)


def plain_spec(**given: Any) -> LoraSpec:
    """Not checked for types by the tests' own checks, as a user's is not."""
    spec = object.__new__(LoraSpec)
    for name, value in (vars(LoraSpec()) | given).items():
        object.__setattr__(spec, name, value)
    spec.__post_init__()
    return spec


def test_what_is_refused(make: Any) -> None:
    model, _ = make("ours")
    for spec, said in (
        (LoraSpec(sites="gate"), "no site 'gate'.*has q, k, v, o, mlp_in, mlp_out"),
        (LoraSpec(layers=[2]), "2 is none of the model's, 0 to 1"),
        (LoraSpec(rank=40), "rank=40.*is at most 32"),
    ):
        with pytest.raises(ArgumentError, match=said):
            attach_adapter(model, spec)
    recurrent, _ = make("recurrent")
    with pytest.raises(ArgumentError, match=r"no site 'q'.*has mlp_in, gate, mlp_out"):
        attach_adapter(recurrent, LoraSpec(sites=["q"]))
    with pytest.raises(ArgumentError, match="wrap it"):
        attach_adapter(boot("Llama", small_tokenizer())[1])
    before = state(model)
    adapter = attach_adapter(model)
    with pytest.raises(ArgumentError, match="has an adapter already"):
        attach_adapter(model)
    tensors = adapter.named_tensors()
    with pytest.raises(ArgumentError, match=r"lacks 'blocks\.0\.attn\.k\.lora_A'"):
        adapter.load_tensors({n: t for n, t in tensors.items() if "attn.k" not in n})
    with pytest.raises(ArgumentError, match="the shape"):
        adapter.load_tensors(tensors | {"blocks.0.attn.q.lora_A": torch.zeros(1, 2)})
    with pytest.raises(ArgumentError, match="on, not merged"):
        adapter.unmerge()
    fill(adapter).merge()
    with pytest.raises(ArgumentError, match=r"is merged.*unmerge\(\)"):
        adapter.on = True
    with pytest.raises(ArgumentError, match="unmerge"):
        adapter.detach()
    weight = model.blocks[0].attn.q.weight
    merged = weight.detach().clone()
    with torch.no_grad():
        weight[0, 0] += 1
    with pytest.raises(ArgumentError, match="have changed since"):
        adapter.unmerge()
    with torch.no_grad():
        weight.copy_(merged)
    adapter.unmerge()
    adapter.detach()
    assert state(model) == before
    with pytest.raises(ArgumentError, match="is detached"):
        adapter.merge()


def test_a_map_that_the_model_does_not_call_is_refused(make: Any) -> None:
    model, _ = make("ours")
    before, base = state(model), logits(model)
    attention = model.blocks[1].attn
    attention.__dict__["forward"] = lambda x, **kwargs: (torch.zeros_like(x), None)
    with pytest.raises(ArgumentError, match=r"without calling blocks\.1\.attn"):
        attach_adapter(model)
    del attention.__dict__["forward"]
    assert state(model) == before
    assert torch.equal(logits(model), base)


def test_files_that_are_no_adapter(make: Any, tmp_path: Path) -> None:
    model, _ = make("Llama")
    with pytest.raises(CheckpointError, match="holds no adapter"):
        load_adapter(model, tmp_path / "nothing")
    adapter = attach_adapter(model, LoraSpec(rank=2, sites="q"))
    folder = adapter.save(tmp_path / "adapter")
    adapter.save(folder)  # over its own
    adapter.detach()
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["target_modules"] == [f"model.layers.{n}.self_attn.q_proj" for n in (0, 1)]
    for change, error, said in (
        ({"peft_type": "IA3"}, ArgumentError, "peft_type='IA3'"),
        ({"use_dora": True}, ArgumentError, "use_dora"),
        ({"bias": "all"}, ArgumentError, "bias='all'"),
        ({"init_lora_weights": "pissa"}, ArgumentError, "pissa"),
        ({"r": 0}, CheckpointError, "'r' is '0'"),
        ({"lora_alpha": None}, CheckpointError, "'lora_alpha' is 'None'"),
        ({"alpha_pattern": {"(": 1}}, CheckpointError, "alpha_pattern"),
    ):
        (folder / "adapter_config.json").write_text(json.dumps(settings | change))
        with pytest.raises(error, match=said):
            load_adapter(model, folder)
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    other, _ = make("ours")
    with pytest.raises(CheckpointError, match="another model"):
        load_adapter(other, folder)
    whole = (folder / "adapter_model.safetensors").read_bytes()
    for damaged in (whole[:-8], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        (folder / "adapter_model.safetensors").write_bytes(damaged)
        with pytest.raises(CheckpointError, match="adapter_model"):
            load_adapter(model, folder)
    assert adapter_of(model) is None
