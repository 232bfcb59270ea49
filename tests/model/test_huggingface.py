"""Exported folders open with the transformers library alone, and give the same logits and tokens."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from interp.biographies import Corpus, load_tokenizer
from interp.config import Config
from interp.errors import ArgumentError, InterpError, RunError
from interp.model import export_huggingface, hooked_transformer
from interp.presets import preset

KINDS = {
    ("LN", "standard"): "GPT2LMHeadModel",
    ("LN", "rotary"): "GPTNeoXForCausalLM",
    ("RMS", "rotary"): "ArceeForCausalLM",
}


def scrambled(config: Config, tokenizer, **settings: object) -> TransformerBridge:
    """A model all of whose weights are far from what they start with, biases and norms too."""
    changed = {f"model.{name}": value for name, value in settings.items()}
    model = hooked_transformer(config.with_settings(**changed), tokenizer)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.15 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@pytest.mark.parametrize("kind", ["corpus", "bpe_corpus"])
@pytest.mark.parametrize(("normalization", "positions"), KINDS)
def test_logits_and_tokens_are_the_same(
    normalization: str,
    positions: str,
    kind: str,
    smoke: Config,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    corpus: Corpus = request.getfixturevalue(kind)
    shape = {"normalization": normalization, "positions": positions, "n_ctx": corpus.longest}
    for act_fn in ("gelu", "gelu_new", "relu", "silu"):
        model = scrambled(smoke, corpus.tokenizer, act_fn=act_fn, **shape)
        before = torch.get_rng_state()
        folder = export_huggingface(model, tmp_path / "export", f"a test of {act_fn}")
        assert torch.equal(torch.get_rng_state(), before)
        theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
        assert type(theirs).__name__ == KINDS[normalization, positions]
        batch = corpus.biographies(np.arange(6))
        with torch.no_grad():
            expected, found = model(batch.tokens), theirs(batch.tokens).logits
        assert float(expected.std()) > 0.3
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = corpus.texts(np.arange(6)) if hasattr(corpus, "texts") else []
    texts = texts or [model.tokenizer.decode(row, skip_special_tokens=True) for row in batch.tokens]
    assert tokenizer(texts)["input_ids"] == model.tokenizer(texts)["input_ids"]
    assert tokenizer.decode(batch.tokens[0]) == model.tokenizer.decode(batch.tokens[0])
    for special in ("bos", "eos", "pad", "unk"):
        name = f"{special}_token_id"
        assert getattr(tokenizer, name) == getattr(model.tokenizer, name)
        assert getattr(theirs.config, name, None) == getattr(model.tokenizer, name, None) or (
            special == "unk"
        )
    assert sorted(path.suffix for path in folder.iterdir() if path.suffix != ".json") == [
        ".md",
        ".safetensors",
    ]
    assert "a test of silu" in (folder / "README.md").read_text()
    # Back into TransformerLens, as any model from elsewhere.
    again = TransformerBridge.boot_transformers(
        str(folder), hf_model=theirs, tokenizer=load_tokenizer(folder)
    ).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(batch.tokens), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["smoke", "demo", "tiny"])
def test_presets(name: str, corpus: Corpus, tmp_path: Path) -> None:
    model = scrambled(preset(name), corpus.tokenizer)
    theirs = AutoModelForCausalLM.from_pretrained(export_huggingface(model, tmp_path)).eval()
    tokens = torch.randint(len(corpus.tokenizer), (2, model.cfg.n_ctx))
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, model(tokens), rtol=1e-4, atol=1e-4)
    heads = theirs.config.num_attention_heads
    assert (theirs.config.num_hidden_layers, heads) == (model.cfg.n_layers, model.cfg.n_heads)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"recurrence": "rg_lru"},
            r"recurrent \(model.recurrence\).*fits is model.recurrence=None",
        ),
        (
            {"normalization": "RMS"},
            r"model.normalization='RMS' with model.positions='standard'.*'LN'.*'RMS' with 'rotary'",
        ),
    ],
)
def test_settings_without_a_counterpart(
    settings: dict[str, str], message: str, smoke: Config, corpus: Corpus, tmp_path: Path
) -> None:
    changed = {f"model.{name}": value for name, value in settings.items()}
    model = hooked_transformer(smoke.with_settings(**changed), corpus.tokenizer)
    with pytest.raises(ArgumentError, match=message):
        export_huggingface(model, tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_what_is_not_that_model_is_refused(smoke: Config, corpus: Corpus, tmp_path: Path) -> None:
    model = scrambled(smoke, corpus.tokenizer)
    for name, value in (("act_fn", "solu"), ("attn_only", True), ("rotary_dim", 4)):
        rotary = scrambled(smoke, corpus.tokenizer, positions="rotary")
        setattr(rotary.cfg, name, value)
        with pytest.raises(ArgumentError, match=f"{name}={value!r} has no counterpart.*fits is"):
            export_huggingface(rotary, tmp_path / "export")
    handle = model.original_model.layers[0].register_forward_hook(lambda m, i, o: (2 * o[0],))
    with pytest.raises(ArgumentError):
        export_huggingface(model, tmp_path / "export")
    handle.remove()
    corpus.tokenizer.save_pretrained(tmp_path / "tokenizer")
    config = GPT2Config(
        n_layer=1, n_head=1, n_embd=8, vocab_size=len(corpus.tokenizer), n_positions=16,
        architectures=["GPT2LMHeadModel"],
    )  # fmt: skip
    foreign = TransformerBridge.boot_transformers(
        "gpt2", hf_model=GPT2LMHeadModel(config), tokenizer=load_tokenizer(tmp_path / "tokenizer")
    )
    with pytest.raises(ArgumentError, match="save_pretrained"):
        export_huggingface(foreign, tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_only_an_earlier_export_is_replaced(
    smoke: Config, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = scrambled(smoke, corpus.tokenizer)
    other = tmp_path / "mine"
    other.mkdir()
    (other / "README.md").write_text("mine")
    for place in (other, other / "README.md"):
        with pytest.raises(RunError):
            export_huggingface(model, place)
    assert [path.name for path in other.iterdir()] == ["README.md"]
    folder = tmp_path / "export"
    export_huggingface(model, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    export_huggingface(model, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    # What an interrupted export leaves is no model, and is replaced.
    import interp.model.huggingface as module

    def full(path: Path, content: bytes) -> None:
        raise InterpError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(module, "write_bytes", full)
        with pytest.raises(InterpError, match="full"):
            export_huggingface(model, folder)
    assert not (folder / "config.json").exists()
    export_huggingface(model, folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "gpt2"
