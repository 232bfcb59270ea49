"""Export as an ordinary folder of Hugging Face's transformers, which opens without this toolkit.

    AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

The architecture is the one of that library that computes the same: GPT-2 (LayerNorm, learned positions),
GPT-NeoX with blocks one after the other (LayerNorm, rotary positions), or Arcee (RMSNorm, rotary positions:
a Llama whose MLP has no gate). Rotary positions turn neighbours in pairs here, and the two halves of a head
there, so the rows of queries and keys are put in that order.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    ArceeConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from interp.biographies.tokenizer import save_tokenizer
from interp.errors import ArgumentError, RunError
from interp.files import place_to_write, refuse_run, storage_errors, write_bytes, write_text
from interp.model.components import HookedBridge
from interp.model.forward import measuring
from interp.model.patterns import NO_ATTENTION, is_recurrent
from interp.model.weights import require_own_weights
from interp.torch_state import default_state

_HEADING = "# A model in the format of Hugging Face's transformers, written by interp\n"
_README = (
    _HEADING
    + """
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(".")
tokenizer = AutoTokenizer.from_pretrained(".")
```
"""
)
_TOLERANCE = 1e-4
"""The largest difference of logits, as a share of the largest logit, that rounding explains."""

Weights = dict[str, Tensor]


@default_state()
def export_huggingface(model: TransformerBridge, folder: Path | str, description: str = "") -> Path:
    """Writes a model as a folder that `AutoModelForCausalLM` and `AutoTokenizer` open, offline.

    Logits and tokens are the same, up to rounding; they are compared before anything is written. Weights are
    a safetensors file in single precision. `config.json` is written last, so that what an interrupted
    export leaves is no model.

    Args:
        model: A model from `hooked_transformer` or a run.
        folder: Where to; made if needed. An earlier export is replaced.
        description: Where the model comes from, noted in `README.md`.

    Returns:
        The folder.

    Raises:
        ArgumentError: a setting of the model has no counterpart; it is named with its value.
        RunError: the folder holds something else, or belongs to a run.
    """
    settings, weights = _counterpart(model)
    with torch.random.fork_rng(devices=[]):  # the library's own weights are drawn, and thrown away
        theirs = AutoModelForCausalLM.from_config(settings, attn_implementation="eager").eval()
    theirs.load_state_dict(weights, strict=True)
    _require_same(model, theirs)
    folder = _own_folder(folder)
    config = folder / "config.json"
    with storage_errors(folder), tempfile.TemporaryDirectory() as elsewhere:
        with _without_progress():
            theirs.save_pretrained(elsewhere)
        write_text(folder / "README.md", f"{_README}\n{description}".rstrip() + "\n")
        with suppress(FileNotFoundError):
            config.unlink()
        written = sorted(Path(elsewhere).iterdir(), key=lambda path: path.name == config.name)
        if isinstance(model.tokenizer, PreTrainedTokenizerFast):
            save_tokenizer(model.tokenizer, folder)
        for path in written:
            write_bytes(folder / path.name, path.read_bytes())
    return folder


@contextmanager
def _without_progress() -> Iterator[None]:
    """Keeps the library from drawing bars for a file that is there in an instant."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _own_folder(folder: Path | str) -> Path:
    folder = place_to_write(folder)
    refuse_run(folder)
    if folder.is_file():
        raise RunError(f"{folder} is a file; give a folder.")
    present = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    note = folder / "README.md"
    is_ours = note.is_file() and note.read_bytes()[: len(_HEADING)] == _HEADING.encode()
    if present and not is_ours:
        raise RunError(
            f"{folder} holds other files ({', '.join(present[:4])}); they would be overwritten. Export into "
            "a new or empty folder, or over an earlier export."
        )
    return folder


def _counterpart(model: TransformerBridge) -> tuple[PreTrainedConfig, Weights]:
    """The settings and weights of the model of the library that computes the same."""
    if is_recurrent(model):
        raise ArgumentError(
            f"This model has no counterpart in transformers: {NO_ATTENTION}. What fits is "
            "model.recurrence=None."
        )
    if not isinstance(model, HookedBridge):
        raise ArgumentError(
            f"A {type(model).__name__} that was not built here is exported by the library it comes from: "
            "model.original_model.save_pretrained(folder)."
        )
    require_own_weights(model)
    cfg: Any = model.cfg
    norm, positions = str(cfg.normalization_type), str(cfg.positional_embedding_type)
    makers: dict[tuple[str, str], Callable[[Any, Weights], tuple[PreTrainedConfig, Weights]]] = {
        ("LN", "standard"): _gpt2,
        ("LN", "rotary"): _neox,
        ("RMS", "rotary"): _arcee,
    }
    if (norm, positions) not in makers:
        raise ArgumentError(
            f"model.normalization={norm!r} with model.positions={positions!r} has no counterpart in "
            "transformers. What fits is 'LN' with either positions ('standard', 'rotary'), or 'RMS' with "
            "'rotary'."
        )
    head = cfg.d_model // cfg.n_heads
    rotary = cfg.rotary_dim if positions == "rotary" else None
    fitting = {
        "act_fn": (cfg.act_fn, ("gelu", "gelu_new", "relu", "silu")),
        "d_head": (cfg.d_head, (head,)),
        "rotary_dim": (rotary, (None, head)),
        "rope_scaling": (getattr(cfg, "rope_scaling", None), (None,)),
        "n_key_value_heads": (cfg.n_key_value_heads, (None, cfg.n_heads)),
        "d_vocab_out": (cfg.d_vocab_out, (-1, cfg.d_vocab)),
        "attention_dir": (cfg.attention_dir, ("causal",)),
        "attn_only": (bool(cfg.attn_only), (False,)),
        "gated_mlp": (bool(cfg.gated_mlp), (False,)),
        "final_rms": (bool(cfg.final_rms), (False, norm == "RMS")),
        "use_attn_scale": (bool(cfg.use_attn_scale), (True,)),
    }
    for name, (value, fits) in fitting.items():
        if value not in fits:
            raise ArgumentError(
                f"{name}={value!r} has no counterpart in transformers with model.normalization={norm!r} and "
                f"model.positions={positions!r}. What fits is {' or '.join(map(repr, fits))}."
            )
    ours = {
        name: value.detach().float().cpu().clone() for name, value in model.state_dict().items()
    }
    if ours.pop("unembed.bias", torch.zeros(1)).any():
        raise ArgumentError(
            "The unembedding has a bias, which has no counterpart in transformers. What fits is none."
        )
    settings, weights = makers[norm, positions](cfg, ours)
    tokenizer = model.tokenizer
    for kind in ("bos", "eos", "pad"):
        setattr(settings, f"{kind}_token_id", getattr(tokenizer, f"{kind}_token_id", None))
    settings.dtype = "float32"
    return settings, weights


def _gpt2(cfg: Any, ours: Weights) -> tuple[PreTrainedConfig, Weights]:
    settings = GPT2Config(
        vocab_size=cfg.d_vocab, n_positions=cfg.n_ctx, n_embd=cfg.d_model, n_layer=cfg.n_layers,
        n_head=cfg.n_heads, n_inner=cfg.d_mlp, activation_function=cfg.act_fn,
        layer_norm_epsilon=cfg.eps, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        tie_word_embeddings=False,
    )  # fmt: skip
    theirs = {
        "transformer.wte.weight": ours["embed.weight"],
        "transformer.wpe.weight": ours["pos_embed.weight"],
        "lm_head.weight": ours["unembed.weight"],
        **_norm(ours, "ln_final", "transformer.ln_f"),
    }
    for layer in range(cfg.n_layers):
        here, there = f"blocks.{layer}", f"transformer.h.{layer}"
        theirs |= _norm(ours, f"{here}.ln1", f"{there}.ln_1")
        theirs |= _norm(ours, f"{here}.ln2", f"{there}.ln_2")
        for part, axis in (("weight", 1), ("bias", 0)):
            sides = [_turned(ours[f"{here}.attn.{side}.{part}"]) for side in "qkv"]
            theirs[f"{there}.attn.c_attn.{part}"] = torch.cat(sides, axis)
            for mine, name in (
                ("attn.o", "attn.c_proj"), ("mlp.in", "mlp.c_fc"), ("mlp.out", "mlp.c_proj")
            ):  # fmt: skip
                theirs[f"{there}.{name}.{part}"] = _turned(ours[f"{here}.{mine}.{part}"])
    return settings, theirs


def _neox(cfg: Any, ours: Weights) -> tuple[PreTrainedConfig, Weights]:
    settings = GPTNeoXConfig(
        vocab_size=cfg.d_vocab, max_position_embeddings=cfg.n_ctx, hidden_size=cfg.d_model,
        num_hidden_layers=cfg.n_layers, num_attention_heads=cfg.n_heads, intermediate_size=cfg.d_mlp,
        hidden_act=cfg.act_fn, layer_norm_eps=cfg.eps, use_parallel_residual=False,
        rope_parameters=_rope(cfg) | {"partial_rotary_factor": 1.0}, attention_bias=True,
        tie_word_embeddings=False,
    )  # fmt: skip
    theirs = {
        "gpt_neox.embed_in.weight": ours["embed.weight"],
        "lm_head.weight": ours["unembed.weight"],
        **_norm(ours, "ln_final", "gpt_neox.final_layer_norm"),
    }
    for layer in range(cfg.n_layers):
        here, there = f"blocks.{layer}", f"gpt_neox.layers.{layer}"
        theirs |= _norm(ours, f"{here}.ln1", f"{there}.input_layernorm")
        theirs |= _norm(ours, f"{here}.ln2", f"{there}.post_attention_layernorm")
        for part in ("weight", "bias"):
            q, k, v = (
                ours[f"{here}.attn.{side}.{part}"].unflatten(0, (cfg.n_heads, cfg.d_head))
                for side in "qkv"
            )
            together = torch.cat([_halves(q), _halves(k), v], dim=1)
            theirs[f"{there}.attention.query_key_value.{part}"] = together.flatten(0, 1)
            for mine, name in (
                ("attn.o", "attention.dense"),
                ("mlp.in", "mlp.dense_h_to_4h"),
                ("mlp.out", "mlp.dense_4h_to_h"),
            ):
                theirs[f"{there}.{name}.{part}"] = ours[f"{here}.{mine}.{part}"]
    return settings, theirs


def _arcee(cfg: Any, ours: Weights) -> tuple[PreTrainedConfig, Weights]:
    settings = ArceeConfig(
        vocab_size=cfg.d_vocab, max_position_embeddings=cfg.n_ctx, hidden_size=cfg.d_model,
        num_hidden_layers=cfg.n_layers, num_attention_heads=cfg.n_heads,
        num_key_value_heads=cfg.n_heads, intermediate_size=cfg.d_mlp, hidden_act=cfg.act_fn,
        rms_norm_eps=cfg.eps, rope_parameters=_rope(cfg), attention_bias=True, mlp_bias=True,
        tie_word_embeddings=False,
    )  # fmt: skip
    theirs = {
        "model.embed_tokens.weight": ours["embed.weight"],
        "lm_head.weight": ours["unembed.weight"],
        **_norm(ours, "ln_final", "model.norm"),
    }
    for layer in range(cfg.n_layers):
        here, there = f"blocks.{layer}", f"model.layers.{layer}"
        theirs |= _norm(ours, f"{here}.ln1", f"{there}.input_layernorm")
        theirs |= _norm(ours, f"{here}.ln2", f"{there}.post_attention_layernorm")
        for part in ("weight", "bias"):
            for side in "qkvo":
                found = ours[f"{here}.attn.{side}.{part}"]
                if side in "qk":
                    found = _halves(found.unflatten(0, (cfg.n_heads, cfg.d_head))).flatten(0, 1)
                theirs[f"{there}.self_attn.{side}_proj.{part}"] = found
            for mine, name in (("mlp.in", "mlp.up_proj"), ("mlp.out", "mlp.down_proj")):
                theirs[f"{there}.{name}.{part}"] = ours[f"{here}.{mine}.{part}"]
    return settings, theirs


def _rope(cfg: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": float(cfg.rotary_base)}


def _norm(ours: Weights, here: str, there: str) -> Weights:
    return {
        f"{there}.{part}": ours[f"{here}.{part}"]
        for part in ("weight", "bias")
        if f"{here}.{part}" in ours
    }


def _turned(weights: Tensor) -> Tensor:
    """A matrix as [in, out], a bias as it is."""
    return weights.T.contiguous() if weights.ndim == 2 else weights


def _halves(rows: Tensor) -> Tensor:
    """The rows of each head, [head, d_head, ...]: first those of even index, then of odd."""
    return torch.cat([rows[:, 0::2], rows[:, 1::2]], dim=1)


def _require_same(model: TransformerBridge, theirs: Any) -> None:
    """Checks that both models give the same logits."""
    cfg = model.cfg
    width = min(cfg.n_ctx, 64)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(cfg.d_vocab, (2, width), generator=generator)
    device = next(model.parameters()).device
    with measuring(model), torch.no_grad():
        expected = model(tokens.to(device)).float().cpu()
        found = theirs(tokens).logits
    largest = float((found - expected).abs().max())
    # A model in bfloat16 rounds otherwise than the same weights in single precision.
    exact = next(model.parameters()).dtype == torch.float32
    if exact and not largest <= _TOLERANCE * max(1.0, float(expected.abs().max())):
        raise ArgumentError(
            f"The exported model would give other logits, by up to {largest:.2g}: something in this model "
            "computes otherwise than its settings say (a hook, a replaced module). Take it off first."
        )
