"""Hooked models against a plain PyTorch twin, and what hooks may and may not do."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

import interp
from interp.biographies import Batch, Corpus, load_tokenizer
from interp.config import Config
from interp.errors import CheckpointError, ConfigError, RunError
from interp.model import (
    export_model,
    hooked_transformer,
    import_model,
    logits_at,
    parameter_counts,
    property_state_dict,
)

KINDS = [("LN", "standard"), ("RMS", "standard"), ("LN", "rotary"), ("RMS", "rotary")]
IDS = ["-".join(kind) for kind in KINDS]


def build(smoke: Config, corpus: Corpus, kind: tuple[str, str]) -> TransformerBridge:
    """A model whose weights, norms and biases are all random, so that each of them matters."""
    settings = {"model.normalization": kind[0], "model.positions": kind[1]}
    model = hooked_transformer(smoke.with_settings(**settings), corpus.tokenizer).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture(scope="module", params=KINDS, ids=IDS)
def model(request: pytest.FixtureRequest, smoke: Config, corpus: Corpus) -> TransformerBridge:
    return build(smoke, corpus, request.param)


def plain_logits(model: TransformerBridge, tokens: Tensor) -> Tensor:
    """The same transformer in plain PyTorch: pre-norm blocks, attention and GELU spelled out."""
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    n_heads, d_head = model.cfg.n_heads, model.cfg.d_head
    width = tokens.shape[1]

    def norm(name: str, x: Tensor) -> Tensor:
        if f"{name}.bias" in weights:
            x = x - x.mean(-1, keepdim=True)
        x = x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return x * weights[f"{name}.weight"] + weights.get(f"{name}.bias", torch.zeros(()))

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def rotate(x: Tensor) -> Tensor:
        """Rotates the pair (2i, 2i+1) at position p by the angle p / 10000^(2i / d_head)."""
        angle = torch.arange(width)[:, None] / 10000 ** (torch.arange(0, d_head, 2) / d_head)
        even, odd = x[..., 0::2], x[..., 1::2]
        turned = torch.empty_like(x)
        turned[..., 0::2] = even * angle.cos() - odd * angle.sin()
        turned[..., 1::2] = even * angle.sin() + odd * angle.cos()
        return turned

    def attention(block: str, x: Tensor) -> Tensor:
        q, k, v = (linear(f"{block}.attn.{side}", x) for side in "qkv")
        heads = []
        for head in range(n_heads):
            part = slice(head * d_head, (head + 1) * d_head)
            query, key = q[..., part], k[..., part]
            if "pos_embed.weight" not in weights:
                query, key = rotate(query), rotate(key)
            scores = query @ key.transpose(1, 2) / math.sqrt(d_head)
            future = torch.ones(width, width, dtype=torch.bool).triu(1)
            heads.append(scores.masked_fill(future, -math.inf).softmax(-1) @ v[..., part])
        return linear(f"{block}.attn.o", torch.cat(heads, -1))

    x = weights["embed.weight"][tokens]
    if "pos_embed.weight" in weights:
        x = x + weights["pos_embed.weight"][:width]
    for layer in range(model.cfg.n_layers):
        block = f"blocks.{layer}"
        x = x + attention(block, norm(f"{block}.ln1", x))
        hidden = linear(f"{block}.mlp.in", norm(f"{block}.ln2", x))
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
        x = x + linear(f"{block}.mlp.out", hidden)
    return norm("ln_final", x) @ weights["unembed.weight"].T


def hooks_on(model: TransformerBridge) -> dict[str, int]:
    return {name: len(part._forward_hooks) for name, part in model.named_modules()}


@torch.no_grad()
def test_equals_a_plain_twin(model: TransformerBridge, batch: Batch) -> None:
    ours = model(batch.tokens)
    torch.testing.assert_close(ours, plain_logits(model, batch.tokens), rtol=1e-5, atol=1e-5)
    assert ours.std() > 0.1


@torch.no_grad()
def test_no_token_sees_the_future(model: TransformerBridge, batch: Batch) -> None:
    changed = batch.tokens.clone()
    changed[:, 30:] = 5
    before, after = model(batch.tokens)[:, :30], model(changed)[:, :30]
    torch.testing.assert_close(before, after)


@torch.no_grad()
def test_logits_at_equals_the_whole_pass(model: TransformerBridge, batch: Batch) -> None:
    rows, positions = torch.tensor([0, 0, 3, 5, 2]), torch.tensor([1, 40, 0, 7, 33])
    read = logits_at(model, batch.tokens, rows, positions)
    whole = model(batch.tokens)[rows, positions]
    torch.testing.assert_close(read, whole, rtol=1e-6, atol=1e-6 * float(whole.abs().max()))


@torch.no_grad()
def test_logits_at_obeys_hooks(model: TransformerBridge, batch: Batch) -> None:
    rows, positions = torch.tensor([0, 3]), torch.tensor([20, 30])

    def zeroed(x: Tensor, hook: object) -> Tensor:
        return torch.zeros_like(x)

    with model.hooks(fwd_hooks=[("blocks.0.mlp.hook_post", zeroed)]):
        read = logits_at(model, batch.tokens, rows, positions)
        whole = model(batch.tokens)[rows, positions]
    torch.testing.assert_close(read, whole, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(whole, model(batch.tokens)[rows, positions])


@torch.no_grad()
def test_logits_at_of_a_model_from_elsewhere(corpus: Corpus, batch: Batch, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    corpus.tokenizer.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=128, n_embd=32, n_layer=2, n_head=2,
        architectures=["GPT2LMHeadModel"],
    )  # fmt: skip
    foreign = TransformerBridge.boot_transformers(
        "gpt2", hf_model=GPT2LMHeadModel(config).eval(), tokenizer=tokenizer, device="cpu"
    ).eval()
    rows, positions = torch.tensor([0, 3, 5]), torch.tensor([1, 0, 33])
    read = logits_at(foreign, batch.tokens, rows, positions)
    torch.testing.assert_close(read, foreign(batch.tokens)[rows, positions], rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("layer", [0, 1])
def test_patching_the_pattern(model: TransformerBridge, batch: Batch, layer: int) -> None:
    """With its own value nothing changes, bit for bit; with zeros much does."""
    name = f"blocks.{layer}.attn.hook_pattern"
    plain, cache = model.run_with_cache(batch.tokens)

    def patched(value: Tensor) -> Tensor:
        def replace(pattern: Tensor, hook: object) -> Tensor:
            assert pattern.shape == value.shape
            return value

        return model.run_with_hooks(batch.tokens, fwd_hooks=[(name, replace)])

    assert torch.equal(patched(cache[name].clone()), plain)
    assert not torch.allclose(patched(torch.zeros_like(cache[name])), plain, atol=1e-3)


@torch.no_grad()
def test_patterns_are_causal_distributions(model: TransformerBridge, batch: Batch) -> None:
    _, cache = model.run_with_cache(batch.tokens)
    pattern = cache["blocks.1.attn.hook_pattern"]
    torch.testing.assert_close(pattern.sum(-1), torch.ones(pattern.shape[:-1]))
    assert pattern.triu(1).abs().max() == 0


@torch.no_grad()
def test_no_hook_stays(model: TransformerBridge, batch: Batch) -> None:
    before, plain = hooks_on(model), model(batch.tokens)
    seen: list[str] = []

    def look(x: Tensor, hook: object) -> None:
        seen.append(hook.name)

    model.run_with_hooks(batch.tokens, fwd_hooks=[("blocks.0.attn.hook_pattern", look)])
    model.run_with_cache(batch.tokens)
    assert seen == ["blocks.0.attn.hook_pattern"]
    assert hooks_on(model) == before
    assert torch.equal(model(batch.tokens), plain)
    assert len(seen) == 1


def test_seeds(smoke: Config) -> None:
    def weights(**settings: int) -> Tensor:
        model = hooked_transformer(smoke.with_settings(**settings))
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    torch.manual_seed(5)
    first = weights()
    assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(5))
    assert torch.equal(first, weights())
    assert torch.equal(first, weights(**{"training.seed": 9}))
    assert not torch.equal(first, weights(seed=1))
    assert not torch.equal(first, weights(**{"model.seed": 1}))


def test_initial_weights_are_small(smoke: Config, corpus: Corpus) -> None:
    model = hooked_transformer(smoke.with_settings(**{"model.init_std": 0.05}), corpus.tokenizer)
    weights = model.state_dict()
    assert weights["blocks.0.mlp.in.weight"].std() == pytest.approx(0.05, rel=0.1)
    assert weights["blocks.0.mlp.out.weight"].std() == pytest.approx(0.05 / 2, rel=0.1)
    assert weights["blocks.0.mlp.in.bias"].abs().max() == 0


def test_parameter_counts_of_tiny() -> None:
    model = hooked_transformer(interp.preset("tiny"))
    d_vocab, d, d_mlp, n_ctx, n_layers = len(model.tokenizer), 128, 512, 128, 2
    assert 1000 < d_vocab < 2000
    attention = 4 * (d * d + d)
    mlp = d * d_mlp + d_mlp + d_mlp * d + d
    norm = 2 * d
    non_embedding = n_layers * (attention + mlp + 2 * norm) + norm
    embedding = d_vocab * d + n_ctx * d + d * d_vocab
    assert parameter_counts(model) == {
        "total": embedding + non_embedding,
        "embedding": embedding,
        "non_embedding": non_embedding,
    }


@torch.no_grad()
def test_property_format_round_trip(model: TransformerBridge, batch: Batch, tmp_path: Path) -> None:
    export_model(model, tmp_path, "a test")
    again = import_model(tmp_path).eval()
    torch.testing.assert_close(again(batch.tokens), model(batch.tokens), rtol=1e-6, atol=1e-6)


def test_exported_tokenizer_fits_the_model(smoke: Config, corpus: Corpus, tmp_path: Path) -> None:
    """Also after it was read from a folder, as that of a run is: no token beyond the vocabulary."""
    corpus.tokenizer.save_pretrained(tmp_path / "run")
    model = hooked_transformer(smoke, load_tokenizer(tmp_path / "run"))
    export_model(model, tmp_path / "export")
    assert (
        load_tokenizer(tmp_path / "export" / "tokenizer").get_vocab()
        == corpus.tokenizer.get_vocab()
    )
    assert len(import_model(tmp_path / "export").tokenizer) == model.cfg.d_vocab


def test_property_format_has_one_axis_per_head(model: TransformerBridge) -> None:
    weights = property_state_dict(model)
    d_vocab = len(model.tokenizer)
    shapes = {
        "embed.W_E": (d_vocab, 32), "unembed.W_U": (32, d_vocab), "unembed.b_U": (d_vocab,),
        "blocks.1.attn.W_Q": (2, 32, 16), "blocks.1.attn.W_V": (2, 32, 16),
        "blocks.1.attn.W_O": (2, 16, 32), "blocks.1.attn.b_K": (2, 16), "blocks.1.attn.b_O": (32,),
        "blocks.1.mlp.W_in": (32, 64), "blocks.1.mlp.W_out": (64, 32), "ln_final.w": (32,),
    }  # fmt: skip
    assert {name: tuple(weights[name].shape) for name in shapes} == shapes
    for name in ("W_Q", "W_K", "W_V", "W_O"):
        torch.testing.assert_close(weights[f"blocks.1.attn.{name}"], getattr(model, name)[1])
    torch.testing.assert_close(weights["blocks.1.mlp.W_in"], model.W_in[1])


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def setting(name: str, value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(settings | {name: value}))

    return change


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "missing or damaged"),
        (lambda folder: (folder / "config.json").write_text("[]"), "missing or damaged"),
        (lambda folder: (folder / "config.json").write_text("{}"), "missing or damaged"),
        (lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe"), "missing or damaged"),
        (setting("d_mlp", 65), "do not fit its config.json"),
        (setting("n_layers", 3), "do not fit its config.json"),
        (setting("n_layers", "two"), "config.json"),
        (setting("act_fn", "gleu"), "config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "There is no file"),
        (truncated, "safetensors"),
    ],
)
def test_damaged_export(
    damage: Callable[[Path], object],
    complaint: str,
    smoke: Config,
    corpus: Corpus,
    tmp_path: Path,
) -> None:
    export_model(hooked_transformer(smoke, corpus.tokenizer), tmp_path)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=complaint) as caught:
        import_model(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="property format"):
        import_model(tmp_path / "nowhere")


def test_grouped_heads_cannot_be_exported(smoke: Config, corpus: Corpus) -> None:
    model = hooked_transformer(smoke, corpus.tokenizer)
    model.cfg.gated_mlp = True
    with pytest.raises(ConfigError, match="gated_mlp=True"):
        property_state_dict(model)


def test_untrained_predictions_are_near_uniform(smoke: Config, corpus: Corpus) -> None:
    model = hooked_transformer(smoke, corpus.tokenizer).eval()
    with torch.no_grad():
        log_p = model(corpus.biographies(np.arange(4)).tokens).log_softmax(-1)
    assert float(-log_p.mean()) == pytest.approx(math.log(len(corpus.tokenizer)), rel=0.01)


def test_export_into_a_folder_with_other_files_is_refused(model, tmp_path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(RunError, match="would be overwritten"):
        export_model(model, tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
