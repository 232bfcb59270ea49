"""Export to and import from the property format of TransformerLens 2 and 3.

`HookedTransformer`, removed in TransformerLens 4, kept weights under names such as
`blocks.0.attn.W_Q` with one axis per head. An exported folder holds `config.json` (for
`HookedTransformerConfig`), `model.safetensors`, the tokenizer, and a note on how to open it.
"""

from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.utilities.tl_checkpoint_conversion import convert_tl_checkpoint

from interp.biographies.tokenizer import load_tokenizer, save_tokenizer
from interp.errors import ArgumentError, CheckpointError, RunError
from interp.files import (
    place_to_write,
    read_tensors,
    write_json,
    write_tensors,
    write_text,
)
from interp.model.components import native_model
from interp.model.patterns import NO_ATTENTION, is_recurrent
from interp.model.weights import require_own_weights
from interp.reading import MAX_DOCUMENT, parse_json, read_text
from interp.torch_state import default_state

_SHARED_SETTINGS = (
    "n_layers", "d_model", "n_ctx", "d_head", "n_heads", "d_mlp", "d_vocab", "d_vocab_out",
    "act_fn", "normalization_type", "positional_embedding_type", "rotary_dim", "rotary_base",
    "rotary_adjacent_pairs", "eps", "attention_dir", "attn_only", "final_rms", "gated_mlp",
)  # fmt: skip

_README = """\
# A model in the property format of TransformerLens 2 and 3

```python
import json, torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast
from transformer_lens import HookedTransformer, HookedTransformerConfig  # TransformerLens 2 or 3

config = HookedTransformerConfig(**json.load(open("config.json")))
tokenizer = PreTrainedTokenizerFast.from_pretrained("tokenizer")
model = HookedTransformer(config, tokenizer=tokenizer)
model.load_state_dict(load_file("model.safetensors"), strict=False)  # the rest are mask buffers
```
"""


def property_state_dict(model: TransformerBridge) -> dict[str, Tensor]:
    """The weights of a native bridge under property-format names.

    Shapes: `W_Q`, `W_K`, `W_V` (head, d_model, d_head), `W_O` (head, d_head, d_model), `b_Q`
    (head, d_head), `W_in` (d_model, d_mlp), `W_U` (d_model, d_vocab).

    Raises:
        ArgumentError: the model has grouped heads or a gated MLP, which this format spells otherwise,
            is recurrent, or has an adapter on.
    """
    require_own_weights(model)
    cfg = model.cfg
    if is_recurrent(model):
        raise ArgumentError(
            f"This model cannot be exported: {NO_ATTENTION}, which this format is made for. Its weights "
            "are in its run's checkpoints."
        )
    if cfg.n_key_value_heads not in (None, cfg.n_heads) or cfg.gated_mlp:
        raise ArgumentError(
            "Only models with as many key as query heads and a plain MLP can be exported; this one "
            f"has n_key_value_heads={cfg.n_key_value_heads}, gated_mlp={cfg.gated_mlp}."
        )
    ours = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    theirs = {"embed.W_E": ours["embed.weight"], "unembed.W_U": ours["unembed.weight"].T}
    theirs["unembed.b_U"] = ours.get("unembed.bias", torch.zeros(theirs["unembed.W_U"].shape[1]))
    if "pos_embed.weight" in ours:
        theirs["pos_embed.W_pos"] = ours["pos_embed.weight"]
    norms = ["ln_final"]
    for layer in range(cfg.n_layers):
        block = f"blocks.{layer}"
        attn = f"{block}.attn"
        norms += [f"{block}.ln1", f"{block}.ln2"]
        for side in ("q", "k", "v"):
            theirs[f"{attn}.W_{side.upper()}"] = rearrange(
                ours[f"{attn}.{side}.weight"], "(h d_head) m -> h m d_head", h=cfg.n_heads
            )
            theirs[f"{attn}.b_{side.upper()}"] = rearrange(
                ours[f"{attn}.{side}.bias"], "(h d_head) -> h d_head", h=cfg.n_heads
            )
        theirs[f"{attn}.W_O"] = rearrange(
            ours[f"{attn}.o.weight"], "m (h d_head) -> h d_head m", h=cfg.n_heads
        )
        theirs[f"{attn}.b_O"] = ours[f"{attn}.o.bias"]
        for side in ("in", "out"):
            theirs[f"{block}.mlp.W_{side}"] = ours[f"{block}.mlp.{side}.weight"].T
            theirs[f"{block}.mlp.b_{side}"] = ours[f"{block}.mlp.{side}.bias"]
    for norm in norms if cfg.normalization_type is not None else ():
        theirs[f"{norm}.w"] = ours[f"{norm}.weight"]
        if f"{norm}.bias" in ours:
            theirs[f"{norm}.b"] = ours[f"{norm}.bias"]
    return {name: tensor.contiguous() for name, tensor in theirs.items()}


@default_state()
def export_model(model: TransformerBridge, folder: Path, description: str = "") -> Path:
    """Writes a model so that TransformerLens 2 and 3 (and `import_model`) can open it.

    Args:
        model: A model from `hooked_transformer` or a run.
        folder: Where to; made if needed.
        description: Where the model comes from, noted in the file's metadata.

    Raises:
        RunError: the folder holds files that are no export.
        ArgumentError: the model has features that the format spells otherwise.
    """
    folder = place_to_write(folder)
    weights = folder / "model.safetensors"
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if folder.is_file() or (present and not _is_export(weights)):
        raise RunError(
            f"{folder} holds other files ({', '.join(sorted(present)[:4])}); they would be overwritten. "
            "Export into a new or empty folder, or over an earlier export."
        )
    settings = {name: getattr(model.cfg, name) for name in _SHARED_SETTINGS}
    settings |= {"device": "cpu", "init_weights": False, "default_prepend_bos": True}
    write_tensors(weights, property_state_dict(model), {"from": description})
    write_json(folder / "config.json", settings)
    write_text(folder / "README.md", _README)
    if model.tokenizer is not None:
        save_tokenizer(model.tokenizer, folder / "tokenizer")
    return folder


def _is_export(weights: Path) -> bool:
    try:
        return "from" in read_tensors(weights)[1]
    except CheckpointError:
        return False


@default_state()
def import_model(folder: Path | str) -> TransformerBridge:
    """Opens a folder in the property format as a `TransformerBridge`, the inverse of `export_model`.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights do not fit the configuration.
    """
    folder = Path(folder)
    try:
        settings = parse_json(read_text(folder / "config.json", MAX_DOCUMENT))
        cfg = TransformerBridgeConfig(**{k: settings[k] for k in _SHARED_SETTINGS})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder} is not a model in the property format: config.json is missing or damaged "
            f"({error!r}). Expected a folder written by `interp export`."
        ) from error
    weights, _ = read_tensors(folder / "model.safetensors")
    saved = folder / "tokenizer"
    tokenizer = load_tokenizer(saved) if saved.is_dir() else None
    try:
        model = native_model(cfg, tokenizer)
        model.load_state_dict(convert_tl_checkpoint(weights, cfg), strict=True)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"The weights in {folder} do not fit its config.json: {error}"
        ) from error
    return model
