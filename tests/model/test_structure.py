"""The fused forward pass runs only where it computes what the model does, whatever is done to a model."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2Config, GPT2LMHeadModel

from interp import preset
from interp.attention import cut_edges
from interp.biographies import Corpus, load_tokenizer
from interp.errors import ConfigError
from interp.interventions import Grid, Pairs, patch, read_activations, swapped_people
from interp.interventions.windowed import can_window
from interp.memory import cache_activations, draw_batches, promoted_logits
from interp.memory.values import output_weights
from interp.model import evaluating, has_fused_forward, logits_at, read_patterns, training_loss
from interp.model import forward as forward_module
from tests.model.test_fused import PAD, make_model, stock_loss

HEAVY = ("attn.q", "mlp", "ln2", "unembed", "0 attn.hook_out", "0 mlp.hook_out", "global hook")
"""Parts of names of modules at which everything is compared, not only losses and logits."""
SITES = [("resid_pre", 1), ("resid_mid", 0), ("attn_out", 0), ("q", 1), ("z", 1), ("resid_post", 1)]
HOOKS = ["hook_resid_pre", "hook_resid_mid", "hook_attn_out", "attn.hook_q", "hook_mlp_out"]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus.from_config(preset("smoke"))


@pytest.fixture(scope="module")
def model(corpus: Corpus):
    return make_model(corpus).eval()


@pytest.fixture(scope="module")
def tokens(corpus: Corpus) -> Tensor:
    return corpus.batch(step=0, size=2).tokens[:, :24]


@pytest.fixture(scope="module")
def pairs(corpus: Corpus) -> Pairs:
    return swapped_people(corpus, n=2)


@pytest.fixture(scope="module")
def draws(corpus: Corpus):
    return draw_batches(corpus, slice(0, 2), "train", [0])


def parts_of(model) -> dict[str, nn.Module]:
    """Every module of the bridge and of what it wraps that is no hook point, by its first name."""
    found: dict[int, tuple[str, nn.Module]] = {}
    for prefix, root in (("", model), ("original_model.", model.original_model)):
        for name, part in root.named_modules():
            if not isinstance(part, HookPoint):
                found.setdefault(id(part), (prefix + name, part))
    return dict(found.values())


def linears_of(model) -> dict[str, nn.Module]:
    """The bridges of all linear maps, by name."""
    return {
        name: part
        for name, part in parts_of(model).items()
        if isinstance(part._modules.get("_original_component"), nn.Linear)
    }


def changed(x: Any) -> Any:
    """A value like another, and different from it; of a tuple, the first differs."""
    if isinstance(x, tuple):
        return changed(x[0]), *x[1:]
    if not isinstance(x, Tensor):
        return x
    if x.is_floating_point():
        edited = x * 1.3
        edited[..., 0] = edited[..., 0] + 0.5
        return edited
    return (x + 1) % 7


class LowRank(nn.Module):
    """A linear map with a low-rank addition."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        generator = torch.Generator().manual_seed(0)
        self.down = nn.Parameter(torch.randn(2, base.in_features, generator=generator) * 0.3)
        self.up = nn.Parameter(torch.randn(base.out_features, 2, generator=generator) * 0.3)

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    @property
    def bias(self) -> Tensor:
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.down.T @ self.up.T


class Splice(nn.Module):
    """What stands in for a hook point: like an autoencoder, it reconstructs a value imperfectly."""

    def __init__(self, width: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(width, width, generator=generator) * 0.2)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(x @ self.weight)


class Scaled(nn.Module):
    """A parametrization."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.4 * x


@contextmanager
def output_changed(part: nn.Module) -> Iterator[None]:
    handle = part.register_forward_hook(lambda module, args, output: changed(output))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def input_changed(part: nn.Module) -> Iterator[None]:
    def before(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (changed(args[0]), *args[1:]), kwargs
        first = next((k for k, v in kwargs.items() if isinstance(v, Tensor)), None)
        return args, kwargs if first is None else kwargs | {first: changed(kwargs[first])}

    handle = part.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def forward_replaced(part: nn.Module) -> Iterator[None]:
    own = part.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        return changed(own(*args, **kwargs))

    part.__dict__["forward"] = forward  # `setattr` of a bridge component may go elsewhere
    try:
        yield
    finally:
        del part.__dict__["forward"]


@contextmanager
def low_rank_added(bridge: Any) -> Iterator[None]:
    linear = bridge._modules["_original_component"]
    bridge._modules["_original_component"] = LowRank(linear)
    try:
        yield
    finally:
        bridge._modules["_original_component"] = linear


@contextmanager
def parametrized(bridge: Any) -> Iterator[None]:
    linear = bridge._modules["_original_component"]
    parametrize.register_parametrization(linear, "weight", Scaled())
    try:
        yield
    finally:
        # The original weight is left as it was.
        parametrize.remove_parametrizations(linear, "weight", leave_parametrized=False)


@contextmanager
def spliced(parent: nn.Module, name: str, width: int) -> Iterator[None]:
    point = getattr(parent, name)
    setattr(parent, name, Splice(width))
    try:
        yield
    finally:
        setattr(parent, name, point)


@contextmanager
def global_hook() -> Iterator[None]:
    def scale(module: nn.Module, args: tuple, output: Any) -> Any:
        return 1.2 * output if isinstance(module, nn.Linear) else None

    handle = torch.nn.modules.module.register_module_forward_hook(scale)
    try:
        yield
    finally:
        handle.remove()


def site_hook(site: str, layer: int) -> str:
    return f"blocks.{layer}.{'attn.' if site in ('q', 'z') else ''}hook_{site}"


def agrees(model, tokens: Tensor, what: str) -> Tensor:
    """Compares loss and logits with those of the model itself; returns the latter."""
    with torch.no_grad():
        logits = model(tokens)
        torch.testing.assert_close(
            training_loss(model, tokens, pad_token=PAD), stock_loss(model, tokens), msg=what
        )
        rows, places = torch.tensor([0, 1, 1]), torch.tensor([3, 0, 17])
        read = logits_at(model, tokens, rows, places)
        torch.testing.assert_close(read, logits[rows, places], rtol=1e-4, atol=1e-4, msg=what)
    return logits


def agrees_in_everything(model, tokens: Tensor, pairs: Pairs, draws, what: str) -> None:
    """Compares all that reads a model with TransformerLens' cache and with plain logits."""

    def close(a: Tensor, b: Tensor) -> None:
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, msg=what)

    patterns: dict[int, Tensor] = {}
    with evaluating(model):
        _, cache = model.run_with_cache(tokens)
        read_patterns(model, tokens, patterns.__setitem__)
        for layer, pattern in patterns.items():
            close(pattern, cache[f"blocks.{layer}.attn.hook_pattern"])
        # Where a splice is, TransformerLens finds no hook point.
        present = [key for key in SITES if key[0] != "attn_out" or not what.startswith("splice")]
        for key, value in read_activations(model, tokens, present).items():
            close(value, cache[site_hook(*key)])
        logits = model(pairs.base)
        rows = torch.arange(len(pairs))
        expected = logits[rows, pairs.read].log_softmax(-1)[rows, pairs.base_answer]
    assert len(patterns) == model.cfg.n_layers
    table = patch(
        model,
        pairs,
        Grid("resid_pre", ["predicts value"]),
        metrics=["log_probability"],
        per_pair=True,
    )
    for _, part in table.groupby("layer"):
        unpatched = torch.tensor(part.sort_values("pair").unpatched.to_numpy())
        close(unpatched.float(), expected), layer
    found = cache_activations(model, draws)
    with evaluating(model):
        _, cache = model.run_with_cache(draws[0].tokens)
    where = draws[0].value_start - 1
    for (site, layer), stream in found.residual.items():
        own = cache[f"blocks.{layer}.hook_{site}"][rows[:, None], where].transpose(0, 1)
        close(stream[-1, :, 0], own)


Change = tuple[str, Callable[[], Any]]


def changes(model, kind: str) -> list[Change]:
    """All changes of a kind: what each is, and a context in which the model has it."""
    ways = {
        "output hook": (output_changed, parts_of),
        "input hook": (input_changed, parts_of),
        "forward": (forward_replaced, parts_of),
        "low rank": (low_rank_added, linears_of),
        "parametrization": (parametrized, linears_of),
    }
    if kind in ways:
        way, parts = ways[kind]
        return [(name, lambda part=part: way(part)) for name, part in parts(model).items()]
    if kind == "global hook":
        return [("global hook", global_hook)]
    found = []
    for layer, block in enumerate(model.blocks):
        for name in (
            "attn.hook_out",
            "mlp.hook_out",
            "hook_out",
            "hook_resid_mid",
            "attn.q.hook_out",
        ):
            *path, last = name.split(".")
            parent = block
            for step in path:
                parent = getattr(parent, step)
            found.append(
                (f"{layer} {name}", lambda p=parent, n=last: spliced(p, n, model.cfg.d_model))
            )
    return found


KINDS = {
    "output hook": 49,
    "input hook": 49,
    "forward": 49,
    "low rank": 13,
    "parametrization": 13,
    "splice": 10,
    "global hook": 1,
}
"""The kinds of changes, and of how many of each the logits must show an effect.

A list of blocks is never called, nor are the LayerNorms inside: TransformerLens' bridge spells them out.
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_model_runs_as_it_is(model, tokens, pairs, draws, kind) -> None:
    if kind == "splice":  # TransformerLens does not list a hook point again that has been away
        model = copy.deepcopy(model)
    before = agrees(model, tokens, "before")
    loss = training_loss(model, tokens, pad_token=PAD)
    effective, heavy = 0, set()
    for name, change in changes(model, kind):
        assert has_fused_forward(model), name
        with change():
            assert not has_fused_forward(model), name
            assert not can_window(model), name
            logits = agrees(model, tokens, name)
            effective += not torch.equal(logits, before)
            wanted = {part for part in HEAVY if name.endswith(part)} - heavy
            if wanted:
                heavy |= wanted
                agrees_in_everything(model, tokens, pairs, draws, f"{kind} at {name}")
        assert has_fused_forward(model), name
        assert torch.equal(training_loss(model, tokens, pad_token=PAD), loss), name
    assert heavy
    assert effective >= KINDS[kind]
    assert torch.equal(agrees(model, tokens, "after"), before)
    if kind != "splice":
        agrees_in_everything(model, tokens, pairs, draws, "after")


def test_a_copy_is_fused_and_independent(model, tokens) -> None:
    twin = copy.deepcopy(model)
    loss = training_loss(model, tokens, pad_token=PAD)
    assert has_fused_forward(twin)
    assert torch.equal(training_loss(twin, tokens, pad_token=PAD), loss)
    with output_changed(twin.blocks[0].mlp):
        assert not has_fused_forward(twin)
        assert has_fused_forward(model)
        agrees(twin, tokens, "the copy")
    with output_changed(model.blocks[0].mlp):
        assert not has_fused_forward(model)
        assert has_fused_forward(twin)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.1)
    assert torch.equal(training_loss(model, tokens, pad_token=PAD), loss)
    assert not torch.equal(training_loss(twin, tokens, pad_token=PAD), loss)
    agrees(twin, tokens, "the copy")


def test_hook_points_keep_the_fused_way(model, tokens, monkeypatch) -> None:
    passes = []
    own = forward_module.final_residual

    def counted(*args: Any) -> Tensor:
        passes.append(args)
        return own(*args)

    monkeypatch.setattr(forward_module, "final_residual", counted)
    assert has_fused_forward(model)
    before = agrees(model, tokens, "untouched")
    assert len(passes) == 1
    for number, name in enumerate(HOOKS):
        hook = (f"blocks.{number % 2}.{name}", lambda x, hook: changed(x))
        with model.hooks(fwd_hooks=[hook]):
            assert has_fused_forward(model), name
            assert not torch.equal(agrees(model, tokens, name), before), name
        assert len(passes) == number + 2, name
    with output_changed(model.ln_final):
        agrees(model, tokens, "a PyTorch hook")
    assert len(passes) == len(HOOKS) + 1


@pytest.mark.parametrize(
    "path", ["ln_final", "blocks.0.ln1", "blocks.1.ln2"], ids=lambda path: path
)
def test_another_epsilon_in_a_norm(corpus, tokens, path) -> None:
    model = make_model(corpus).eval()
    bridge = model.get_submodule(path)
    bridge.original_component.eps = 3.0
    agrees(model, tokens, path)


def reads_and_edits(model, tokens, pairs, draws) -> dict[str, Callable[[], Any]]:
    mask = torch.zeros(*tokens.shape, tokens.shape[1], dtype=torch.bool)
    return {
        "attn_out": lambda: read_activations(model, tokens, [("attn_out", 0)]),
        "mlp_out": lambda: patch(model, pairs, Grid("mlp_out", "predicts value", layers=[0])),
        "attention": lambda: cut_edges(model, mask).__enter__(),
        "pattern": lambda: read_patterns(model, tokens, lambda layer, pattern: None),
        "resid_mid": lambda: cache_activations(model, draws),
        "post": lambda: cache_activations(model, draws),
    }


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("attn.hook_out", ["attn_out"]),
        ("mlp.hook_out", ["mlp_out"]),
        ("attn.hook_pattern", ["pattern", "attention"]),
        ("hook_resid_mid", ["resid_mid"]),
        ("mlp.out.hook_in", ["post"]),
    ],
)
def test_a_hook_point_that_is_away_is_neither_read_nor_edited(
    model, tokens, pairs, draws, place, what
) -> None:
    model = copy.deepcopy(model)
    *path, last = place.split(".")
    parent = model.blocks[0]
    for step in path:
        parent = getattr(parent, step)
    calls = reads_and_edits(model, tokens, pairs, draws)
    with spliced(parent, last, 1):
        for name in what:
            with pytest.raises(ConfigError, match=r"hook_\w+' has been replaced"):
                calls[name]()


def test_weights_that_a_model_does_not_compute_with_are_refused(model) -> None:
    """Of every linear map, with an adapter inside its bridge or in its bridge's place."""

    def refused() -> None:
        for read in (lambda: promoted_logits(model, 0), lambda: output_weights(model, 0)):
            with pytest.raises(ConfigError, match=r"Merge the adapter"):
                read()

    before = promoted_logits(model, 0)
    for name, bridge in linears_of(model).items():
        with low_rank_added(bridge):
            refused()
        with forward_replaced(bridge._modules["_original_component"]):
            refused()
        assert torch.equal(promoted_logits(model, 0), before), name
    inner = model.original_model.layers[0].attn
    own = inner._modules["o"]
    inner._modules["o"] = LowRank(own.original_component)
    refused()
    inner._modules["o"] = own
    assert torch.equal(promoted_logits(model, 0), before)


def test_weights_of_a_model_from_elsewhere_with_an_adapter_are_refused(
    corpus: Corpus, tmp_path: Path
) -> None:
    corpus.tokenizer.save_pretrained(tmp_path)
    config = GPT2Config(
        n_layer=2, n_head=2, n_embd=32, n_positions=64, vocab_size=len(corpus.tokenizer),
        architectures=["GPT2LMHeadModel"],
    )  # fmt: skip
    model = TransformerBridge.boot_transformers(
        "gpt2", hf_model=GPT2LMHeadModel(config), tokenizer=load_tokenizer(tmp_path)
    )
    before = promoted_logits(model, 0, path="attention")
    inside = model.blocks[1].mlp.out
    inside._modules["_original_component"] = wrapped = nn.Sequential(inside.original_component)
    wrapped.weight = inside.original_component[0].weight
    with pytest.raises(ConfigError, match=r"blocks.1.mlp.*Sequential"):
        promoted_logits(model, 0)
    inside._modules["_original_component"] = wrapped[0]
    assert torch.equal(promoted_logits(model, 0, path="attention"), before)
