"""Every hook point of `HookedTransformer` against a forward pass written out by hand.

The table of the differences, one row a hook point:

    python -m tests.model.test_hook_points > artifacts/gallery/hook_points_by_hand.txt
"""

import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from interp import preset
from interp.attention import cut_edges
from interp.biographies import Corpus
from interp.model import final_residual, has_fused_forward
from tests.model.test_fused import make_model

# TransformerLens warns where an edit or a gradient takes RMSNorm off PyTorch's own kernel.
pytestmark = pytest.mark.filterwarnings("ignore:.*native-autograd path:UserWarning")

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "LN": {},
    "RMS": {"model.normalization": "RMS"},
    "rotary": {"model.positions": "rotary"},
}
FORKS = ("hook_q_input", "hook_k_input", "hook_v_input")
BLOCK = (
    *("hook_resid_pre", "hook_attn_in", *FORKS, "ln1.hook_scale", "ln1.hook_normalized"),
    *("attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_attn_scores", "attn.hook_pattern"),
    *("attn.hook_z", "attn.hook_result", "hook_attn_out", "hook_resid_mid", "hook_mlp_in"),
    *("ln2.hook_scale", "ln2.hook_normalized", "mlp.hook_pre", "mlp.hook_post", "hook_mlp_out"),
    "hook_resid_post",
)
LAYERS = 2
STREAM = [
    f"blocks.{layer}.hook_resid_{place}"
    for layer in range(LAYERS)
    for place in ("pre", "mid", "post")
]


def names_of(kind: str) -> list[str]:
    """The hook points of `HookedTransformer` on a model of these settings."""
    rotary = kind == "rotary"
    block = (*BLOCK, "attn.hook_rot_q", "attn.hook_rot_k") if rotary else BLOCK
    names = ["hook_embed"] if rotary else ["hook_embed", "hook_pos_embed"]
    names += [f"blocks.{layer}.{point}" for layer in range(LAYERS) for point in block]
    names += ["ln_final.hook_scale", "ln_final.hook_normalized"]
    return [*names, "unembed.hook_in", "unembed.hook_out"]


def by_hand(weights, cfg, tokens: Tensor, edit=None) -> tuple[Tensor, dict[str, Tensor]]:
    """The logits, and the value at each hook point; edit = (hook name, function of the value)."""
    w, values = weights, {}
    forks = edit is not None and edit[0].endswith(("hook_attn_in", *FORKS))
    width = tokens.shape[1]
    future = torch.ones(width, width, dtype=torch.bool).triu(1)

    def at(name: str, value: Tensor) -> Tensor:
        values[name] = value
        return edit[1](value) if edit is not None and edit[0] == name else value

    def normed(x: Tensor, name: str, at=at) -> Tensor:
        if cfg.normalization_type == "LN":
            x = x - x.mean(-1, keepdim=True)
        x = x / at(f"{name}.hook_scale", (x.pow(2).mean(-1, keepdim=True) + cfg.eps).sqrt())
        return at(f"{name}.hook_normalized", x) * w[f"{name}.w"] + w[f"{name}.b"]

    def rotated(x: Tensor) -> Tensor:  # [batch, position, head, d_head]; pairs (0, 1), (2, 3), ...
        speeds = cfg.rotary_base ** (-torch.arange(0, cfg.d_head, 2) / cfg.d_head)
        angles = (torch.arange(width)[:, None] * speeds)[:, None]
        even, odd = x[..., ::2], x[..., 1::2]
        cos, sin = angles.cos(), angles.sin()
        return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)

    x = at("hook_embed", w["W_E"][tokens])
    if "W_pos" in w:
        x = x + at("hook_pos_embed", w["W_pos"][:width].expand(len(tokens), -1, -1))
    for layer in range(cfg.n_layers):
        b = f"blocks.{layer}"
        part = {name: w[name][layer] for name in ATTENTION_AND_MLP}
        x = at(f"{b}.hook_resid_pre", x)
        shared = normed(x, f"{b}.ln1")
        copies = at(f"{b}.hook_attn_in", x[:, :, None].expand(-1, -1, cfg.n_heads, -1))
        sides = {}
        for side in "qkv":
            copy = at(f"{b}.hook_{side}_input", copies)
            if forks:
                read = normed(copy, f"{b}.ln1", at=lambda name, value: value)
            else:
                read = shared[:, :, None].expand_as(copy)
            side_w, side_b = part[f"W_{side.upper()}"], part[f"b_{side.upper()}"]
            projected = torch.einsum("bphm,hmd->bphd", read, side_w) + side_b
            sides[side] = at(f"{b}.attn.hook_{side}", projected)
        q, k, v = sides.values()
        if cfg.positional_embedding_type == "rotary":
            q = at(f"{b}.attn.hook_rot_q", rotated(q))
            k = at(f"{b}.attn.hook_rot_k", rotated(k))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / cfg.d_head**0.5
        scores = at(f"{b}.attn.hook_attn_scores", scores.masked_fill(future, float("-inf")))
        pattern = at(f"{b}.attn.hook_pattern", scores.softmax(-1))
        z = at(f"{b}.attn.hook_z", torch.einsum("bhqk,bkhd->bqhd", pattern, v))
        result = torch.einsum("bphd,hdm->bphm", z, part["W_O"])
        written = at(f"{b}.attn.hook_result", result).sum(2) + part["b_O"]
        x = at(f"{b}.hook_resid_mid", x + at(f"{b}.hook_attn_out", written))
        entry = normed(at(f"{b}.hook_mlp_in", x), f"{b}.ln2")
        pre = at(f"{b}.mlp.hook_pre", entry @ part["W_in"] + part["b_in"])
        post = at(f"{b}.mlp.hook_post", F.gelu(pre))
        x = x + at(f"{b}.hook_mlp_out", post @ part["W_out"] + part["b_out"])
        x = at(f"{b}.hook_resid_post", x)
    final = at("unembed.hook_in", normed(x, "ln_final"))
    return at("unembed.hook_out", final @ w["W_U"] + w["b_U"]), values


ATTENTION_AND_MLP = (
    *("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O"),
    *("W_in", "b_in", "W_out", "b_out"),
)


def weights_of(model) -> dict[str, Tensor]:
    names = ["W_E", "W_U", "b_U", *ATTENTION_AND_MLP]
    if model.cfg.positional_embedding_type != "rotary":
        names.append("W_pos")
    weights = {name: getattr(model, name).detach() for name in names}
    norms = {"ln_final": model.ln_final}
    for layer, block in enumerate(model.blocks):
        norms |= {f"blocks.{layer}.ln1": block.ln1, f"blocks.{layer}.ln2": block.ln2}
    for name, norm in norms.items():
        weights[f"{name}.w"] = norm.weight.detach()
        has_bias = model.cfg.normalization_type == "LN"
        weights[f"{name}.b"] = norm.bias.detach() if has_bias else torch.tensor(0.0)
    return weights


def stock(model, tokens: Tensor) -> Tensor:
    return model(tokens)


def fused(model, tokens: Tensor) -> Tensor:
    assert has_fused_forward(model)
    return model.unembed(final_residual(model, tokens, torch.float32))


@pytest.fixture(params=[stock, fused], ids=["model", "fused"])
def forward(request):
    return request.param


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus.from_config(preset("smoke"))


@pytest.fixture(scope="module")
def tokens(corpus: Corpus) -> Tensor:
    return corpus.batch(step=0, size=3).tokens[:, :40]


@pytest.fixture(scope="module")
def other_tokens(corpus: Corpus) -> Tensor:
    return corpus.batch(step=1, size=3).tokens[:, :40]


@pytest.fixture(scope="module")
def models(corpus: Corpus) -> dict:
    return {kind: make_model(corpus, **settings).eval() for kind, settings in SETTINGS.items()}


@pytest.fixture(scope="module")
def recurrent(corpus: Corpus):
    return make_model(corpus, **{"model.recurrence": "rg_lru"}).eval()


@pytest.fixture(scope="module")
def plain(models, tokens) -> dict[str, tuple[Tensor, dict[str, Tensor]]]:
    """Logits and values by hand, where nothing is edited."""
    return {kind: by_hand(weights_of(m), m.cfg, tokens) for kind, m in models.items()}


@contextmanager
def switched_on(model, name: str):
    """While this lasts, the costly hook point fires."""
    switches = {
        "hook_attn_in": model.set_use_attn_in,
        "hook_result": model.set_use_attn_result,
        "hook_mlp_in": model.set_use_hook_mlp_in,
    } | dict.fromkeys(FORKS, model.set_use_split_qkv_input)
    switch = switches.get(name.split(".")[-1], lambda on: None)
    switch(True)
    try:
        yield
    finally:
        switch(False)


def edited(name: str, value: Tensor) -> Tensor:
    """The value with a change that depends on it; -inf stays -inf."""
    if name.endswith("hook_attn_scores"):
        return value * 1.5
    first = value[..., :1] * 1.5 + 0.1
    return torch.cat((first, value[..., 1:]), -1)


def difference(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    assert actual.shape == expected.shape
    assert torch.equal(actual.isneginf(), expected.isneginf())
    finite = expected.isfinite()
    return float((actual - expected)[finite].abs().max() / expected[finite].abs().max())


def assert_near(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert difference(actual, expected) <= tolerance


def read(model, name: str, tokens: Tensor, forward=stock) -> tuple[Tensor, Tensor]:
    """The value at a hook point, and the logits of a pass that is read there."""
    seen = []
    hooks = [(name, lambda value, hook: seen.append(value.clone()))]
    with torch.no_grad(), switched_on(model, name), model.hooks(fwd_hooks=hooks):
        logits = forward(model, tokens)
    (value,) = seen
    return value, logits


def edit(model, name: str, tokens: Tensor, forward=stock) -> tuple[Tensor, Tensor]:
    """The logits after an edit, and as the pass by hand has them."""
    with torch.no_grad(), switched_on(model, name):
        with model.hooks(fwd_hooks=[(name, lambda value, hook: edited(name, value))]):
            logits = forward(model, tokens)
        change = (name, lambda value: edited(name, value))
        expected, _ = by_hand(weights_of(model), model.cfg, tokens, change)
    return logits, expected


def gradient(model, name: str, tokens: Tensor, forward=stock) -> tuple[Tensor, Tensor]:
    """The gradient of some logits at a hook point, and of the pass by hand."""
    seen = []

    def some(logits: Tensor) -> Tensor:
        return logits[:, ::3, ::7].sum()

    hooks = [(name, lambda value, hook: seen.append(value.clone()))]
    with switched_on(model, name), model.hooks(bwd_hooks=hooks):
        some(forward(model, tokens)).backward()
    model.zero_grad(set_to_none=True)
    _, values = by_hand(weights_of(model), model.cfg, tokens)
    nothing = torch.zeros(values[name].shape, requires_grad=True)
    logits, _ = by_hand(weights_of(model), model.cfg, tokens, (name, lambda v: v + nothing))
    (expected,) = torch.autograd.grad(some(logits), nothing)
    (found,) = seen
    return found, expected


every_point = pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in SETTINGS for name in names_of(kind)]
)


@every_point
def test_the_value_is_the_one_by_hand(models, plain, tokens, kind, name, forward) -> None:
    value, logits = read(models[kind], name, tokens, forward)
    assert_near(value, plain[kind][1][name], 1e-5)
    assert_near(logits, plain[kind][0], 1e-5)
    with torch.no_grad():  # a hook that is only there changes nothing
        unhooked = forward(models[kind], tokens)
    assert (logits - unhooked).abs().max() <= 1e-6


@every_point
def test_an_edit_acts_as_by_hand(models, plain, tokens, kind, name, forward) -> None:
    logits, expected = edit(models[kind], name, tokens, forward)
    assert_near(logits, expected, 1e-4)
    assert (expected - plain[kind][0]).abs().max() > 1e-3


@every_point
def test_the_gradient_is_the_one_by_hand(models, tokens, kind, name, forward) -> None:
    found, expected = gradient(models[kind], name, tokens, forward)
    assert expected.abs().max() > 0
    assert_near(found, expected, 1e-4)


def test_the_committed_table_has_every_point() -> None:
    lines = (ROOT / "artifacts" / "gallery" / "hook_points_by_hand.txt").read_text().splitlines()
    rows = [line.split() for line in lines if line.startswith(tuple(SETTINGS))]
    assert [tuple(row[:2]) for row in rows] == [(k, n) for k in SETTINGS for n in names_of(k)]
    assert all(float(value) <= 1e-4 for row in rows for value in row[2:5])
    assert all(float(row[5]) > 1e-3 for row in rows)


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("layer", range(LAYERS))
def test_minus_infinity_cuts_an_edge(models, tokens, kind, layer, forward) -> None:
    mask = torch.zeros((*tokens.shape, tokens.shape[1]), dtype=torch.bool)
    mask[:, 5:, 2:4] = True
    cut = (
        f"blocks.{layer}.attn.hook_attn_scores",
        lambda scores, hook: scores.masked_fill(mask[:, None], float("-inf")),
    )
    with torch.no_grad():
        with models[kind].hooks(fwd_hooks=[cut]):
            by_scores = forward(models[kind], tokens)
        with cut_edges(models[kind], mask, layers=[layer]):
            by_pattern = forward(models[kind], tokens)
        assert (by_pattern - forward(models[kind], tokens)).abs().max() > 1e-3
    assert_near(by_scores, by_pattern, 1e-5)


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_query_without_keys_attends_to_nothing(models, tokens, kind, forward) -> None:
    model, patterns = models[kind], []

    def cut(scores, hook):
        scores = scores.clone()
        scores[:, 1, 7] = float("-inf")
        return scores

    hooks = [
        ("blocks.0.attn.hook_attn_scores", cut),
        ("blocks.0.attn.hook_pattern", lambda value, hook: patterns.append(value.detach().clone())),
    ]
    with model.hooks(fwd_hooks=hooks):
        logits = forward(model, tokens)
        logits[:, ::3, ::7].sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    model.zero_grad(set_to_none=True)
    assert torch.equal(patterns[0][:, 1, 7], torch.zeros_like(patterns[0][:, 1, 7]))
    torch.testing.assert_close(patterns[0][:, 0].sum(-1), torch.ones(tokens.shape))
    assert logits.isfinite().all()
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", STREAM)
@pytest.mark.parametrize("kind", [*SETTINGS, "rg_lru"])
def test_the_whole_stream_of_another_run_gives_its_logits(
    models, recurrent, tokens, other_tokens, kind, name
) -> None:
    model = (models | {"rg_lru": recurrent})[kind]
    with torch.no_grad():
        logits, cache = model.run_with_cache(other_tokens)
        assert not torch.equal(logits, model(tokens))
        patch = (name, lambda value, hook: cache[name].clone())
        assert torch.equal(model.run_with_hooks(tokens, fwd_hooks=[patch]), logits)


@pytest.mark.parametrize("kind", SETTINGS)
def test_edits_of_the_shared_norm_reach_every_head(models, tokens, kind) -> None:
    model = models[kind]
    for point in ("ln1.hook_scale", "ln1.hook_normalized"):
        name = f"blocks.1.{point}"
        hooks = [(name, lambda value, hook: edited(hook.name, value))]
        with torch.no_grad(), model.hooks(fwd_hooks=hooks):
            together = model(tokens)
            for flag in ("hook_q_input", "hook_attn_in"):
                with switched_on(model, flag):
                    assert_near(model(tokens), together, 1e-5)


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_pass_starts_and_stops_at_a_layer(models, tokens, kind) -> None:
    model = models[kind]
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens)
        streams = {
            0: cache["blocks.0.hook_resid_pre"],
            1: cache["blocks.1.hook_resid_pre"],
            LAYERS: cache[f"blocks.{LAYERS - 1}.hook_resid_post"],
            -1: cache[f"blocks.{LAYERS - 1}.hook_resid_pre"],
        }
        for layer, stream in streams.items():
            assert torch.equal(model(tokens, stop_at_layer=layer), stream), layer
            if 0 <= layer < LAYERS:
                assert torch.equal(model(stream, start_at_layer=layer), logits), layer


@pytest.mark.parametrize("kind", SETTINGS)
def test_the_cache_takes_the_stream_apart(models, tokens, kind) -> None:
    model = models[kind]
    with torch.no_grad(), switched_on(model, "hook_result"):
        _, cache = model.run_with_cache(tokens)
    last = cache[f"blocks.{LAYERS - 1}.hook_resid_post"]
    parts, labels = cache.decompose_resid(return_labels=True)
    assert len(labels) == len(parts)
    assert_near(parts.sum(0), last, 1e-5)
    streams = cache.accumulated_resid(incl_mid=True)
    assert torch.equal(streams[-1], last)
    assert torch.equal(streams[1], cache["blocks.0.hook_resid_mid"])
    heads = cache.stack_head_results(incl_remainder=True)
    assert len(heads) == LAYERS * model.cfg.n_heads + 1
    assert torch.equal(heads[0], cache["blocks.0.attn.hook_result"][:, :, 0])
    assert_near(heads.sum(0), last, 1e-5)


@pytest.mark.parametrize("kind", SETTINGS)
def test_logit_attributions_add_up(models, tokens, kind) -> None:
    model = models[kind]
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
        parts = cache.decompose_resid()
        attributions = cache.logit_attrs(parts, tokens)
        normalized = cache["ln_final.hook_normalized"]
        whole = (normalized * model.W_U.T[tokens]).sum(-1)
    assert_near(attributions.sum(0), whole, 1e-5)


def print_table() -> None:
    """Prints the differences, one row a hook point."""
    corpus = Corpus.from_config(preset("smoke"))
    tokens = corpus.batch(step=0, size=3).tokens[:, :40]
    print("Against a forward pass by hand: the largest difference as a share of the largest value.")
    print(f"{'':9}{'hook point':33}{'value':>10}{'edit':>10}{'gradient':>10}{'edit moves by':>15}")
    for kind, settings in SETTINGS.items():
        model = make_model(corpus, **settings).eval()
        logits, values = by_hand(weights_of(model), model.cfg, tokens)
        for name in names_of(kind):
            value, _ = read(model, name, tokens)
            after, expected = edit(model, name, tokens)
            shares = (
                difference(value, values[name]),
                difference(after, expected),
                difference(*gradient(model, name, tokens)),
            )
            moved = (expected - logits).abs().max()
            print(f"{kind:9}{name:33}", *(f"{x:9.1e}" for x in shares), f"{moved:14.2f}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print_table()
