"""Transplants: single parts of one model put into another, and how far weights moved between the two.

Meant for two checkpoints of one training, e.g. before and after fine-tuning: a part that alone takes
from the model before what it knew is where the damage is done, and so is a part that repairs the model
after when it is put back.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import Batch
from interp.errors import ArgumentError
from interp.knowledge import METRICS, is_missing, mean_metric, value_table
from interp.model import alone_with, at_least_single, require_normal_weights
from interp.torch_state import default_state

_ACCURACY = METRICS.index("attribute_accuracy")
ATTENTION_MATRICES = ("W_Q", "W_K", "W_V", "W_O")
MLP_MATRICES = ("W_in", "W_out")
PARTS: dict[str, tuple[str, ...]] = {
    "embeddings": ("embed.", "pos_embed.", "ln_final.", "unembed."),
    "attention": (".attn.", ".ln1."),
    "MLP": (".mlp.", ".ln2."),
}
"""The parts of a model, by what the names of their weights hold: each with the norm before it."""


@default_state()
def transplants(
    before: TransformerBridge, after: TransformerBridge, batches: Mapping[str, Batch]
) -> pd.DataFrame:
    """What a model knows with single parts exchanged between two states of it.

    Args:
        before: The model that parts are put into; left as it was.
        after: The model that they come from.
        batches: Biographies to be asked about, by split.

    Returns:
        Columns `transplant` ("none": the model before; "all": the model after; "only": this part is of
        the model after and the rest of the one before; "all but": the other way round), `part` (empty;
        of `PARTS`; with several layers also "MLP 0" and so on), `split`, `value`: attribute accuracy.

    Raises:
        ArgumentError: the models do not have the same weights.
    """
    require_normal_weights(before)
    old = {name: value.clone() for name, value in before.state_dict().items()}
    new = after.state_dict()
    _require_same_shapes(old, new)
    states: dict[tuple[str, str], Mapping[str, Tensor]] = {("none", ""): old, ("all", ""): new}
    for part, names in parts_of(before).items():
        own = {name: new[name] for name in names}
        states["only", part] = old | own
        states["all but", part] = new | {name: old[name] for name in names}
    rows = []
    with alone_with(before):
        try:
            for (how, part), state in states.items():
                before.load_state_dict(state)
                for split, batch in batches.items():
                    table = value_table(before, batch)
                    accuracy = table[_ACCURACY].mean()
                    if is_missing(table).any():
                        accuracy = mean_metric(table, "attribute_accuracy")
                    rows.append((how, part, split, float(accuracy)))
        finally:
            before.load_state_dict(old)
    return pd.DataFrame(rows, columns=["transplant", "part", "split", "value"])


def parts_of(model: TransformerBridge) -> dict[str, list[str]]:
    """The names of the weights of each part: of `PARTS`, and, with several layers, of the MLP of each."""
    words = dict(PARTS)
    if model.cfg.n_layers > 1:
        for layer in range(model.cfg.n_layers):
            words[f"MLP {layer}"] = tuple(f".blocks.{layer}{word}" for word in PARTS["MLP"])
    names = list(model.state_dict())
    return {
        part: [name for name in names if any(word in f".{name}" for word in of_part)]
        for part, of_part in words.items()
    }


@default_state()
def weight_changes(before: TransformerBridge, after: TransformerBridge) -> pd.DataFrame:
    """How far each weight matrix moved between two states of a model.

    Returns:
        Columns `layer` (Int64; NA: of no layer), `part` (`ATTENTION_MATRICES`, `MLP_MATRICES`, "W_E",
        "W_pos" where positions are learned, "W_U"), `value`: the norm (Frobenius) of the change, a share
        of the norm before.

    Raises:
        ArgumentError: the models do not have the same weights.
    """
    old, new = _matrices(before), _matrices(after)
    _require_same_shapes(old, new)
    rows = [
        (layer, part, float((new[layer, part] - matrix).norm() / matrix.norm()))
        for (layer, part), matrix in old.items()
    ]
    return pd.DataFrame(rows, columns=["layer", "part", "value"]).astype({"layer": "Int64"})


def _matrices(model: TransformerBridge) -> dict[tuple[int | None, str], Tensor]:
    learned = ("W_pos",) if model.cfg.positional_embedding_type == "standard" else ()
    found: dict[tuple[int | None, str], Tensor] = {
        (None, name): at_least_single(getattr(model, name).detach())
        for name in ("W_E", *learned, "W_U")
    }
    stacks = {name: getattr(model, name) for name in (*ATTENTION_MATRICES, *MLP_MATRICES)}
    for layer in range(model.cfg.n_layers):
        found |= {(layer, n): at_least_single(stack[layer].detach()) for n, stack in stacks.items()}
    return found


def _require_same_shapes(old: Mapping[Any, Tensor], new: Mapping[Any, Tensor]) -> None:
    shapes = [{name: value.shape for name, value in one.items()} for one in (old, new)]
    if shapes[0] != shapes[1]:
        raise ArgumentError(
            "The two models do not have the same weights; give two checkpoints of one training, e.g. "
            "run.model(0) and run.model()."
        )
