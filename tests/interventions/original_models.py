"""Small models with what they were before TransformerLens wrapped them, to be hooked by plain PyTorch."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from interp import hooked_transformer
from interp.biographies import Corpus, load_tokenizer
from interp.config import Config

N_LAYERS = 4
KINDS = ("ours", "GPT-2", "Llama")
_PARTS = {
    "ours": ("tok_embed", "layers", "attn"),
    "GPT-2": ("transformer.wte", "transformer.h", "attn"),
    "Llama": ("model.embed_tokens", "model.layers", "self_attn"),
}


@dataclass(frozen=True, eq=False)
class Original:
    """A bridge, and a copy of the model that was never wrapped (of ours, of the modules inside)."""

    bridge: TransformerBridge
    inner: Any
    kind: str

    def module(self, site: str, layer: int = 0) -> nn.Module:
        """What computes the value at a site; `hook_embed` is that of token embeddings."""
        embeddings, layers, attention = _PARTS[self.kind]
        if site == "hook_embed":
            return self.inner.get_submodule(embeddings)
        block = self.inner.get_submodule(layers)[layer]
        part = {"attn_out": attention, "mlp_out": "mlp"}
        return getattr(block, part[site]) if site in part else block

    def logits(self, tokens: Tensor) -> Tensor:
        """The logits of all positions."""
        out = self.inner(tokens)
        return out if isinstance(out, Tensor) else out.logits

    @contextmanager
    def writing(self, changes: Mapping[tuple[str, int], Any]) -> Iterator[None]:
        """While this lasts, values go through functions (a function that gives None reads them)."""

        def hook(module: nn.Module, args: Any, out: Any, change: Any) -> Any:
            first = out[0] if isinstance(out, tuple) else out
            changed = change(first)
            if changed is None:
                return None
            return (changed, *out[1:]) if isinstance(out, tuple) else changed

        handles = [
            self.module(*key).register_forward_hook(
                lambda m, args, out, change=change: hook(m, args, out, change)
            )
            for key, change in changes.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def original(kind: str, smoke: Config, corpus: Corpus, folder: Path) -> Original:
    """Four layers of random weights, attention far from uniform."""
    d_vocab = len(corpus.tokenizer)
    if kind == "ours":
        settings = {"model.n_layers": N_LAYERS, "model.init_std": 0.3, "model.n_ctx": 64}
        config = smoke.with_settings(**settings)
        ours = [hooked_transformer(config, corpus.tokenizer).eval() for _ in range(2)]
        ours[1].load_state_dict(ours[0].state_dict())
        return Original(ours[0], ours[1].original_model, kind)
    corpus.tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    if kind == "GPT-2":
        inner: Any = GPT2LMHeadModel(
            GPT2Config(
                n_layer=N_LAYERS, n_head=2, n_embd=32, n_positions=64, vocab_size=d_vocab,
                initializer_range=0.3, architectures=["GPT2LMHeadModel"],
            )
        )  # fmt: skip
        name = "gpt2"
    else:
        inner = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=d_vocab, hidden_size=32, num_hidden_layers=N_LAYERS,
                num_attention_heads=4, num_key_value_heads=2, intermediate_size=64,
                max_position_embeddings=64, initializer_range=0.3,
                architectures=["LlamaForCausalLM"],
            )
        )  # fmt: skip
        name = "meta-llama/Llama-2-7b-hf"
    pristine = copy.deepcopy(inner).eval()
    bridge = TransformerBridge.boot_transformers(
        name, hf_model=inner, tokenizer=load_tokenizer(folder)
    ).eval()
    return Original(bridge, pristine, kind)
