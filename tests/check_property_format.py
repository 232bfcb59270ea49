"""Opens an exported model in TransformerLens 2 or 3 and compares its logits with ours.

Two steps, in two environments, since TransformerLens 4 no longer has `HookedTransformer`:

    .venv/bin/python tests/check_property_format.py write EXPORT   # ours: logits into EXPORT
    OTHER/bin/python tests/check_property_format.py compare EXPORT  # transformer-lens<4

Not a test dependency: the committed output is artifacts/gallery/property_format.txt.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

TOLERANCE = 1e-4


def write(folder: Path) -> None:
    from interp.model import import_model

    model = import_model(folder).eval()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, model.cfg.d_vocab, (8, 64), generator=generator)
    with torch.no_grad():
        save_file({"tokens": tokens, "logits": model(tokens)}, folder / "logits.safetensors")


def compare(folder: Path) -> None:
    import transformer_lens
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformers import PreTrainedTokenizerFast

    config = HookedTransformerConfig(**json.loads((folder / "config.json").read_text()))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
    model = HookedTransformer(config, tokenizer=tokenizer).eval()
    loaded = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    buffers = (".mask", ".IGNORE", "rotary_sin", "rotary_cos")
    left = [name for name in loaded.missing_keys if not name.endswith(buffers)]
    ours = load_file(folder / "logits.safetensors")
    with torch.no_grad():
        largest = (model(ours["tokens"]) - ours["logits"]).abs().max().item()
    from importlib.metadata import version

    print(
        f"transformer-lens {version('transformer-lens')}, {transformer_lens.HookedTransformer.__name__}"
    )
    print(f"weights not loaded: {left}, not known: {loaded.unexpected_keys}")
    print(f"largest difference of logits: {largest:.2e} (tolerance {TOLERANCE:g})")
    print(f"largest logit: {ours['logits'].abs().max().item():.2f}")
    sys.exit(largest > TOLERANCE or bool(left) or bool(loaded.unexpected_keys))


if __name__ == "__main__":
    {"write": write, "compare": compare}[sys.argv[1]](Path(sys.argv[2]))
