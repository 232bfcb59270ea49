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
from interp.progress import Progress, silent
from interp.series import AnySeries, Device, table_over_steps

SWAP_POSITIONS = (
    "last name",
    "name",
    "every first name",
    "every middle name",
    "every last name",
    "every name",
    "type word",
    "predicts value",
)
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

    Raises:
        ArgumentError: the series has no people of its own.
    """
    corpus = getattr(series, "corpus", None)
    if corpus is None:
        raise ArgumentError(
            "A series of models has no people of its own to swap. Give pairs (interp.interventions.Pairs)."
        )
    return {
        "first": swapped_people(corpus, n, place="first", seed=seed),
        "any": swapped_people(corpus, n, place="any", seed=seed),
    }


def swap_success(
    model: TransformerLensModel, pairs: Pairs, sites: Sequence[str] = SWAP_SITES, seed: int = 0
) -> pd.DataFrame:
    """How often predictions follow a swap, for every site, layer and kind of position.

    Args:
        model: Any TransformerLens model; it is left as it was.
        pairs: Two people in the same sentences.
        sites: What is swapped.
        seed: Of the control's draw.

    Returns:
        Columns `site`, `layer`, `position` (`SWAP_POSITIONS`), `n` (pairs), `follows` (share of the
        predictions that become the other person's first value token), `kept` (share that stays the
        own one), `unpatched` (share that is the own one without a swap), `control` (share that
        follows a swap at as many text tokens as names have up to there), `effect` (change of the
        logit difference between the two values, in logits), `share` (of the effect of swapping all
        names before layer 0, which is all that tells people apart; NaN while that is less than two
        standard errors from 0) and `control_share` (by which early shares, of a small effect, are to
        be judged).

        Predictions can follow no more often than the model knows the other person: `follows` cannot
        rise before knowledge does. `share` has no such bound.
    """
    masks = resolve_positions(pairs, SWAP_POSITIONS)
    masks["control"] = control_positions(pairs, masks["every name"], seed)
    grid = Grid(sites, masks)
    table = patch(model, pairs, grid, metrics=("follows", "stays", LOGIT_DIFFERENCE))
    keys = ["site", "layer", "position"]
    wide = table.pivot(index=keys, columns="metric", values="value").reset_index()
    before, change = (
        table.pivot(index=keys, columns="metric", values=which).reset_index()
        for which in ("unpatched", "change")
    )
    counts = table[table["metric"] == "stays"][[*keys, "n"]]
    found = wide.merge(counts, on=keys).rename(columns={"stays": "kept"}).rename_axis(columns=None)
    found = found.assign(unpatched=before["stays"], effect=change[LOGIT_DIFFERENCE])
    found["share"] = found["effect"] / whole_effect(model, pairs, LOGIT_DIFFERENCE)
    control = found[found["position"] == "control"].set_index(["site", "layer"])
    cell = pd.MultiIndex.from_frame(found[["site", "layer"]])
    found["control"] = control["follows"].reindex(cell).to_numpy()
    found["control_share"] = control["share"].reindex(cell).to_numpy()
    found = found[found["position"] != "control"]
    found = found.sort_values(["layer", "site", "position"])
    return found[list(SWAP_COLUMNS)].reset_index(drop=True)


def whole_effect(model: TransformerLensModel, pairs: Pairs, metric: str) -> float:
    """What swapping all name tokens before layer 0 changes: all that names do for an answer.

    Args:
        model: Any TransformerLens model; it is left as it was.
        pairs: Two people in the same sentences.
        metric: A name out of `interventions.METRICS`.

    Returns:
        The mean change of the metric; NaN where it is less than two standard errors from 0.
    """
    grid = Grid("resid_pre", "every name", [0])
    change = patch(model, pairs, grid, metrics=metric, per_pair=True)["change"].to_numpy()
    error = change.std(ddof=1) / np.sqrt(len(change)) if len(change) > 1 else np.inf
    return float(change.mean()) if abs(change.mean()) > 2 * error else float("nan")


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
    progress: Progress = silent,
) -> pd.DataFrame:
    """How often predictions follow a swap between two people, over training.

    Args:
        series: A run, models by step, or another series (see `interp.series`).
        steps: Which checkpoints; all by default.
        n: Of a run, pairs of people, each asked for one attribute.
        sites: What is swapped.
        device: Where to compute; where the models are by default, those of a run on the CPU.
        seed: Of the pairs and the control.
        pairs: Pairs by what their sentences are called, in place of a run's people.
        workers: Processes of one thread each; see `series.over_steps`.
        progress: Told after each checkpoint.

    Returns:
        Columns `step`, `sentences` ("first": the value is told in the first sentence of its
        biography; "any": in any; or as `pairs` call them), then those of `swap_success`.

    Raises:
        CheckpointError: there is no checkpoint at a step.
        ArgumentError: no step is named, or nobody to swap with.
    """
    chosen = swap_pairs(series, n, seed) if pairs is None else pairs
    measure = partial(_swaps_of, pairs=chosen, sites=sites, seed=seed)
    return table_over_steps(series, measure, steps, device, workers=workers, progress=progress)


def _swaps_of(
    model: TransformerBridge, pairs: Mapping[str, Pairs], sites: Sequence[str], seed: int
) -> pd.DataFrame:
    """The swaps of one checkpoint, in biographies of every kind."""
    tables = [
        swap_success(model, of_place, sites, seed).assign(sentences=sentences)
        for sentences, of_place in pairs.items()
    ]
    return pd.concat(tables, ignore_index=True)[["sentences", *SWAP_COLUMNS]]
