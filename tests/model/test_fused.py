"""The quick training forward against TransformerLens' own: numbers, hooks, bits."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformer_lens.model_bridge.sources import boot_native

from interp import hooked_transformer, preset
from interp.biographies import Corpus
from interp.model import bridge_config, has_fused_forward, training_loss

PAD = 0
_GATED = ("hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input", "hook_result")
_INTEGER = ("embed.hook_in", "pos_embed.hook_in")


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus.from_config(preset("smoke"))


@pytest.fixture(scope="module")
def tokens(corpus: Corpus) -> Tensor:
    return corpus.batch(step=0, size=6).tokens


def make_model(corpus: Corpus, **settings):
    """A model away from its symmetric start: biases, norms and attention that matter."""
    model = hooked_transformer(preset("smoke", **settings), corpus.tokenizer)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.1 if parameter.ndim == 1 else 0.2
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


@pytest.fixture(scope="module")
def model(corpus: Corpus):
    model = make_model(corpus)
    model.set_use_hook_mlp_in(True)
    return model


@pytest.fixture(scope="module")
def points(model) -> list[str]:
    return [n for n in model.hook_dict if not n.endswith(_GATED)]


def stock_loss(model, tokens: Tensor, precision: str = "fp32") -> Tensor:
    """What TransformerLens and PyTorch compute by themselves."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        logits = model(tokens)
    targets = tokens[:, 1:].flatten()
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets, ignore_index=PAD)


def quick_loss(model, tokens: Tensor, precision: str = "fp32") -> Tensor:
    return training_loss(model, tokens, pad_token=PAD, precision=precision)


def run(model, tokens, loss=quick_loss, precision="fp32", forward=(), backward=()):
    """The loss and all gradients, with hooks installed for the time being."""
    model.zero_grad(set_to_none=True)
    with model.hooks(fwd_hooks=list(forward), bwd_hooks=list(backward)):
        value = loss(model, tokens, precision)
        value.backward()
    return value.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}


def same_bits(a, b) -> bool:
    return torch.equal(a[0], b[0]) and all(torch.equal(a[1][n], b[1][n]) for n in a[1])


def gradient_distance(a, b) -> float:
    """Largest difference of any parameter's gradient, against the size of them all."""
    size = torch.cat([g.flatten() for g in a[1].values()]).norm()
    return max(float((a[1][n] - b[1][n]).norm() / size) for n in a[1])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"model.normalization": "RMS"},
        {"model.positions": "rotary"},
        {"model.act_fn": "relu", "model.n_layers": 3},
    ],
)
def test_loss_and_gradients_equal_the_stock_ones(corpus, tokens, settings) -> None:
    model = make_model(corpus, **settings)
    assert has_fused_forward(model)
    stock, quick = run(model, tokens, stock_loss), run(model, tokens)
    torch.testing.assert_close(quick[0], stock[0], rtol=2e-6, atol=0)
    assert gradient_distance(stock, quick) < 2e-6


def test_bf16_is_as_near_to_fp32_as_stock_autocast(model, tokens) -> None:
    exact = run(model, tokens, stock_loss)
    stock = gradient_distance(exact, run(model, tokens, stock_loss, "bf16"))
    assert gradient_distance(exact, run(model, tokens, precision="bf16")) < 1.3 * stock


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_idle_hooks_move_no_bit(model, tokens, points, precision) -> None:
    base = run(model, tokens, precision=precision)
    assert same_bits(base, run(model, tokens, precision=precision)), "from run to run"

    def idle(value, hook):
        return None

    def identity(value, hook):
        return value

    differentiable = [n for n in points if n not in _INTEGER]
    for hook in (idle, identity):
        forward = [(n, hook) for n in points]
        assert same_bits(base, run(model, tokens, precision=precision, forward=forward))
    backward = [(n, idle) for n in differentiable]
    assert same_bits(base, run(model, tokens, precision=precision, backward=backward))
    for name in points:
        alone = run(model, tokens, precision=precision, forward=[(name, identity)])
        assert same_bits(base, alone), name


def test_every_point_fires_with_the_stock_value(model, tokens, points) -> None:
    def collect(loss) -> dict[str, Tensor]:
        seen: dict[str, Tensor] = {}
        run(
            model,
            tokens,
            loss,
            forward=[
                (n, lambda value, hook: seen.__setitem__(hook.name, value.detach().clone()))
                for n in points
            ],
        )
        return seen

    stock, quick = collect(stock_loss), collect(quick_loss)
    assert stock.keys() == quick.keys()
    for name, value in stock.items():
        torch.testing.assert_close(quick[name], value, rtol=1e-5, atol=1e-5, msg=name)


def test_edits_act_as_in_the_stock_model(model, tokens, points) -> None:
    def scale_first(value, hook):
        edited = value.clone()
        edited[..., 0] = edited[..., 0] * 1.5 + 0.1
        return edited

    def halve(gradient, hook):
        return gradient * 0.5

    base = run(model, tokens)
    tested = 0
    for name in points:
        if name in _INTEGER or name.endswith("hook_attn_scores"):
            continue
        for hooks in ({"forward": [(name, scale_first)]}, {"backward": [(name, halve)]}):
            stock, quick = run(model, tokens, stock_loss, **hooks), run(model, tokens, **hooks)
            if same_bits(stock, run(model, tokens, stock_loss)):
                continue  # a point that this kind of hook never reaches in the stock model
            torch.testing.assert_close(quick[0], stock[0], rtol=5e-6, atol=0, msg=name)
            assert gradient_distance(stock, quick) < 1e-5, name
            assert not same_bits(base, quick), name
            tested += 1
    assert tested > 80


def test_a_model_with_other_features_runs_as_transformer_lens_runs_it(corpus, tokens) -> None:
    cfg = bridge_config(preset("smoke"), d_vocab=len(corpus.tokenizer))
    cfg.gated_mlp = True
    model = boot_native(cfg, tokenizer=corpus.tokenizer)
    assert not has_fused_forward(model)
    torch.testing.assert_close(quick_loss(model, tokens), stock_loss(model, tokens))
