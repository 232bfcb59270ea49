"""Edits every hook point of an exported model, in TransformerLens 3 and in ours, and compares.

Two steps, in two environments, since TransformerLens 4 no longer has `HookedTransformer`:

    .venv/bin/python tests/check_hooked_transformer.py write EXPORT   # ours: logits into EXPORT
    OTHER/bin/python tests/check_hooked_transformer.py compare EXPORT  # transformer-lens 3

Each point is edited by itself, with the flag that switches it on where it has one. The second step
prints the largest difference of log-probabilities, and how far the edit moves them.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

TOLERANCE, IDLE = 1e-5, 1e-4
_FLAGS = {
    "hook_attn_in": "use_attn_in",
    "hook_q_input": "use_split_qkv_input",
    "hook_k_input": "use_split_qkv_input",
    "hook_v_input": "use_split_qkv_input",
    "hook_result": "use_attn_result",
    "hook_mlp_in": "use_hook_mlp_in",
}
_BLOCK = (
    *("hook_resid_pre", "hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input"),
    *("ln1.hook_scale", "ln1.hook_normalized", "attn.hook_q", "attn.hook_k", "attn.hook_v"),
    *("attn.hook_rot_q", "attn.hook_rot_k", "attn.hook_attn_scores", "attn.hook_pattern"),
    *("attn.hook_z", "attn.hook_result", "hook_attn_out", "hook_resid_mid", "hook_mlp_in"),
    *("ln2.hook_scale", "ln2.hook_normalized", "mlp.hook_pre", "mlp.hook_post"),
    *("hook_mlp_out", "hook_resid_post"),
)


def names_of(cfg: Any) -> list[str]:
    """The hook points of `HookedTransformer` on such a model."""
    rotary = cfg.positional_embedding_type == "rotary"
    block = [point for point in _BLOCK if rotary or "hook_rot" not in point]
    names = ["hook_embed"] if rotary else ["hook_embed", "hook_pos_embed"]
    names += [f"blocks.{layer}.{point}" for layer in range(cfg.n_layers) for point in block]
    names += ["ln_final.hook_scale", "ln_final.hook_normalized"]
    return [*names, "unembed.hook_in", "unembed.hook_out"]


@torch.no_grad()
def edited_logits(model: Any, name: str, tokens: torch.Tensor) -> torch.Tensor:
    """The logits while the point is edited."""

    def edit(value: torch.Tensor, hook: Any) -> torch.Tensor:
        if name.endswith("hook_attn_scores"):
            return value * 1.5  # -inf stays -inf
        return torch.cat((value[..., :1] * 1.5 + 0.1, value[..., 1:]), -1)

    flag = _FLAGS.get(name.split(".")[-1])
    if flag is not None:
        getattr(model, f"set_{flag}")(True)
    logits: torch.Tensor = model.run_with_hooks(tokens, fwd_hooks=[(name, edit)])
    if flag is not None:
        getattr(model, f"set_{flag}")(False)
    return logits


def write(folder: Path) -> None:
    from interp.model import import_model

    model = import_model(folder).eval()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, model.cfg.d_vocab, (8, 64), generator=generator)
    with torch.no_grad():
        saved = {"tokens": tokens, "plain": model(tokens)}
    saved |= {name: edited_logits(model, name, tokens) for name in names_of(model.cfg)}
    save_file(
        {name: value.contiguous() for name, value in saved.items()}, folder / "edits.safetensors"
    )


def compare(folder: Path) -> None:
    from importlib.metadata import version

    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = HookedTransformerConfig(**json.loads((folder / "config.json").read_text()))
    model = HookedTransformer(config).eval()
    loaded = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    buffers = (".mask", ".IGNORE", "rotary_sin", "rotary_cos")
    left = [name for name in loaded.missing_keys if not name.endswith(buffers)]
    ours = load_file(folder / "edits.safetensors")
    tokens = ours["tokens"]
    with torch.no_grad():
        plain = model(tokens).log_softmax(-1)
    names = names_of(config)
    unlisted = set(model.hook_dict) - set(names)
    print(f"transformer-lens {version('transformer-lens')}, {type(model).__name__}")
    print(f"weights not loaded: {left}, not known: {loaded.unexpected_keys}")
    print(f"hook points of HookedTransformer that are not compared: {sorted(unlisted) or 'none'}")
    print(f"{'hook point':<34}{'difference':>12}{'edit moves by':>16}")
    worst = (ours["plain"].log_softmax(-1) - plain).abs().max().item()
    print(f"{'(no edit)':<34}{worst:>12.1e}")
    idle = []
    for name in names:
        theirs = edited_logits(model, name, tokens).log_softmax(-1)
        difference = (ours[name].log_softmax(-1) - theirs).abs().max().item()
        moved = (theirs - plain).abs().max().item()
        idle += [name] if moved <= IDLE else []
        print(f"{name:<34}{difference:>12.1e}{moved:>16.1e}")
        worst = max(worst, difference) if difference == difference else float("inf")
    print(f"largest difference of log-probabilities: {worst:.1e} (tolerance {TOLERANCE:g})")
    print(f"points whose edit moves at most {IDLE:g}: {idle or 'none'}")
    wrong = (left, loaded.unexpected_keys, unlisted, idle)
    sys.exit(worst > TOLERANCE or any(map(bool, wrong)))


if __name__ == "__main__":
    {"write": write, "compare": compare}[sys.argv[1]](Path(sys.argv[2]))
