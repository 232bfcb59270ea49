"""Where in their names people are known: swaps of MLP 0 token by token, attention, and who is told apart."""

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import Spans, TokenKind
from interp.interventions import LOGIT_DIFFERENCE, Grid, Knockout, Pairs, patch, swapped_people
from interp.memory.swap import whole_effect
from interp.model import measuring, read_patterns
from interp.run import Run

PLACES = (
    "determined", "strongest", "follows", "effect", "attention", "read_first", "read_last",
)  # fmt: skip


def places_of(run: Run, n_pairs: int) -> pd.DataFrame:
    """Of every token of a name, counted from 1: the columns of `PLACES`."""
    model, pairs = run.model(), swapped_people(run.corpus, n_pairs)
    masks = name_token_masks(pairs.spans)
    moved = patch(
        model,
        pairs,
        Grid("mlp_out", masks, [0]),
        metrics=("follows", LOGIT_DIFFERENCE),
        per_pair=True,
    )
    changes = moved[moved["metric"] == LOGIT_DIFFERENCE].pivot(
        index="pair", columns="position", values="change"
    )[list(masks)]
    follows = moved[moved["metric"] == "follows"].groupby("position")["value"].mean()
    strongest = changes.idxmax(axis=1).value_counts(normalize=True)
    attention = attention_by_token(model, pairs, masks)
    told = determined(run)
    whole = whole_effect(model, pairs, LOGIT_DIFFERENCE)
    read_first, read_last = read_costs(model, pairs, masks)
    return pd.DataFrame(
        {
            "token": range(1, len(masks) + 1), "determined": told,
            "strongest": [float(strongest.get(name, 0.0)) for name in masks],
            "follows": [float(follows[name]) for name in masks],
            "effect": [float(changes[name].mean() / whole) for name in masks],
            "attention": [attention[name] for name in masks],
            "read_first": read_first, "read_last": read_last,
        }
    )  # fmt: skip


def read_costs(
    model: TransformerBridge, pairs: Pairs, masks: dict[str, Bool[Tensor, "text position"]]
) -> tuple[list[float], list[float]]:
    """What it costs to cut the value position from each token in the first and in the last layer, nats.

    The fall of the log-probability of the first value token, where no head of the layer looks at that token
    of any name from where the value is predicted.
    """
    query = "predicts value"
    grid = Grid("pattern", query, heads="all", edit=Knockout(masks))
    cells = patch(model, pairs, grid, metrics="log_probability").set_index(["layer", "position"])
    fall = cells["unpatched"] - cells["value"]
    layers = 0, model.cfg.n_layers - 1
    first, last = ([float(fall[layer, f"{query} → {name}"]) for name in masks] for layer in layers)
    return first, last


def name_token_masks(spans: Spans) -> dict[str, Bool[Tensor, "text position"]]:
    """By their number from 1, as text: the tokens that stand there in the name of their sentence."""
    name = spans.is_kind(TokenKind.NAME)
    number = torch.zeros(name.shape, dtype=torch.long)
    for sentence in range(int(spans.sentence.max()) + 1):
        here = name & (spans.sentence == sentence)
        number = torch.where(here, here.long().cumsum(1), number)
    return {str(n): number == n for n in range(1, int(number.max()) + 1)}


@torch.no_grad()
def attention_by_token(
    model: TransformerBridge, pairs: Pairs, masks: dict[str, Bool[Tensor, "text position"]]
) -> dict[str, float]:
    """Of the last layer's attention to names from the position that is read, the share of each token."""
    last, found = model.cfg.n_layers - 1, dict.fromkeys(masks, 0.0)
    rows = torch.arange(len(pairs))

    def read(layer: int, pattern: Tensor) -> None:
        from_there = pattern[rows, :, pairs.read].float().mean(dim=1)  # [pair, key]
        for name, mask in masks.items():
            found[name] += float((from_there * mask).sum())

    with measuring(model):
        read_patterns(model, pairs.base, read, [last])
    total = sum(found.values())
    return {name: value / total for name, value in found.items()}


def determined(run: Run) -> list[float]:
    """The share of people trained on whose first so many name tokens nobody else has, by their number."""
    n = run.config.population.n_individuals
    names = pd.DataFrame([name.split() for name in run.population.full_names[:n]])
    return [
        float((~names.duplicated(list(names.columns[:k]), keep=False)).mean())
        for k in range(1, names.shape[1] + 1)
    ]
