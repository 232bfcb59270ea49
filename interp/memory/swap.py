"""Swaps: does a prediction follow an activation from one person to another?

A *swap* puts an activation of one person's biography into the same place of another's, told in the
same sentences; the prediction follows it if the model now gives the value of the person whom the
activation comes from. It says that the activation decides whose value comes out: not that the value
is stored there. Each swap equals TransformerLens' `SubspaceInterchange` in the whole space; here sites,
layers and positions are batched, with a control. Source: Geiger et al. 2021 (interchange interventions),
Meng et al. 2022.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_protocol import TransformerLensModel

from interp.errors import ArgumentError
from interp.interventions import (
    LOGIT_DIFFERENCE,
    Grid,
    Pairs,
    control_positions,
    patch,
    resolve_positions,
    swapped_people,
)
from interp.interventions.swapped import Place
from interp.progress import Progress, watched
from interp.series import AnySeries, Device, corpus_of, table_over_steps
from interp.torch_state import default_state

SWAP_POSITIONS = (
    "last name", "name", "every first name", "every middle name", "every last name", "every name",
    "type word", "predicts value",
)  # fmt: skip
"""Where activations are swapped: at the last name token or all name tokens of the sentence that tells
the value; at one name token, or all, of this sentence and those before it; at the last word that tells
the attribute; where the value is predicted."""
SWAP_COLUMNS = (
    "site", "layer", "position", "n", "follows", "kept", "unpatched", "control", "effect", "share",
    "control_share",
)  # fmt: skip
"""The columns of `swap_success`."""
SWAP_SITES = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
"""What is swapped."""


def swap_pairs(series: AnySeries, n: int = 96, seed: int = 0) -> dict[str, Pairs]:
    """The pairs of people on which a run's swaps are measured, by the sentence that tells the value.

    "first": the value is told in the first sentence of its biography, so the name has been mentioned
    once; "any": in any of the six.
    """
    remedy = "people of its own to swap. Give pairs (interp.interventions.Pairs)"
    corpus = corpus_of(series, remedy=remedy)
    places: tuple[Place, ...] = ("first", "any")
    return {place: swapped_people(corpus, n, place=place, seed=seed) for place in places}


@default_state()
def swap_success(
    model: TransformerLensModel, pairs: Pairs, sites: Sequence[str] = SWAP_SITES, seed: int = 0
) -> pd.DataFrame:
    """How often predictions follow a swap, for every site, layer and kind of position.

    `pairs` are two people in the same sentences; `seed` is of the control's draw.

    Returns:
        Columns `site`, `layer`, `position` (`SWAP_POSITIONS`), `n` (pairs), `follows` (share of the
        predictions that become the other person's first value token), `kept` (share that stays the
        own one), `unpatched` (share that is the own one without a swap), `control` (share that
        follows a swap at as many text tokens as names have up to there), `effect` (change of the
        logit difference between the two values, in logits), `share` (of `whole_effect`, which is all
        that tells people apart) and `control_share` (by which early shares, of a small effect, are to
        be judged).

        `follows` cannot rise before knowledge of the other person does; `share` has no such bound.
    """
    masks = resolve_positions(pairs, SWAP_POSITIONS)
    masks["control"] = control_positions(pairs, masks["every name"], seed)
    grid = Grid(sites, masks)
    table = patch(model, pairs, grid, metrics=("follows", "stays", LOGIT_DIFFERENCE))
    wide = table.pivot(index=["site", "layer", "position"], columns="metric")
    stays, effect = wide.xs("stays", axis=1, level=1), wide["change"][LOGIT_DIFFERENCE]
    cells = pd.DataFrame(
        {
            "n": stays["n"], "follows": wide["value"]["follows"], "kept": stays["value"],
            "unpatched": stays["unpatched"], "effect": effect,
            "share": effect / whole_effect(model, pairs, LOGIT_DIFFERENCE),
        }
    ).reset_index()  # fmt: skip
    is_control = cells["position"] == "control"
    control = cells.loc[is_control, ["site", "layer", "follows", "share"]]
    control = control.rename(columns={"follows": "control", "share": "control_share"})
    cells = cells[~is_control].merge(control, on=["site", "layer"])
    cells = cells.sort_values(["layer", "site", "position"], ignore_index=True)
    return cells[list(SWAP_COLUMNS)]


def whole_effect(model: TransformerLensModel, pairs: Pairs, metric: str) -> float:
    """What swapping all name tokens before layer 0 changes: all that names do for an answer.

    The mean change of a metric out of `interventions.METRICS`; NaN where it is less than two standard
    errors from 0.
    """
    grid = Grid("resid_pre", "every name", [0])
    change = patch(model, pairs, grid, metrics=metric, per_pair=True)["change"].to_numpy()
    error = change.std(ddof=1) / np.sqrt(len(change)) if len(change) > 1 else np.inf
    return float(change.mean()) if abs(change.mean()) > 2 * error else float("nan")


@default_state()
def swaps(
    series: AnySeries,
    steps: Sequence[int] | None = None,
    n: int = 96,
    sites: Sequence[str] = SWAP_SITES,
    device: Device = None,
    seed: int = 0,
    *,
    pairs: Mapping[str, Pairs] | None = None,
    workers: int | None = None,
    progress: Progress = watched,
) -> pd.DataFrame:
    """How often predictions follow a swap between two people, over training.

    Columns `step`, `sentences`, then those of `swap_success`. Pairs are given by what their sentences are
    called; those of a run are `swap_pairs` of `n` people, each asked for one attribute. Other arguments
    and errors as `series.over_steps`.
    """
    pairs = swap_pairs(series, n, seed) if pairs is None else pairs
    if not pairs:
        raise ArgumentError(
            "pairs are empty; give at least one group, by what its sentences are called."
        )
    measure = partial(_swaps_of, pairs=pairs, sites=sites, seed=seed)
    return table_over_steps(series, measure, steps, device, workers=workers, progress=progress)


def _swaps_of(
    model: TransformerBridge, pairs: Mapping[str, Pairs], sites: Sequence[str], seed: int
) -> pd.DataFrame:
    tables = [
        swap_success(model, some, sites, seed).assign(sentences=sentences)
        for sentences, some in pairs.items()
    ]
    return pd.concat(tables, ignore_index=True)[["sentences", *SWAP_COLUMNS]]
