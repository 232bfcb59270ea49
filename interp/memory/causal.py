"""Causal tests of the memory: swaps between two people, and MLPs replaced by their mean.

A *swap* puts an activation of one person's biography into the same place of another's, told in the
same sentences; the prediction follows it if the model now gives the value of the person whom the
activation comes from. It says that the activation decides whose value comes out: not that the value
is stored there. Source: Geiger et al. 2021 (interchange interventions), Meng et al. 2022.

*Mean-ablation* replaces the output of an MLP at some tokens by its mean over them, so that the output
no longer tells those tokens apart; what is lost is what it told. Source: Wang et al. 2022, section 2.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_protocol import TransformerLensModel

from interp.attention import Spans, informative_steps
from interp.attention.checkpoints import models_at
from interp.biographies import ATTRIBUTES, Batch, TokenKind
from interp.errors import ConfigError, suggest
from interp.interventions import (
    Pairs,
    control_positions,
    patch,
    resolve_positions,
    swapped_people,
)
from interp.knowledge import ValuePositions, split_batch, summed_loss
from interp.model import evaluating
from interp.model.patterns import require_hooks
from interp.run import Run

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
ABLATION_POSITIONS = (
    "name",
    "first name",
    "middle name",
    "last name",
    "predicts value",
    "control",
)
"""Where MLPs are ablated, in all sentences: at all tokens of names, at the first, those between, the
last; at positions that predict a token of a value; and at as many tokens as names have, drawn from
those that hold neither names nor type words."""


def swap_pairs(run: Run, n: int = 96, seed: int = 0) -> dict[str, Pairs]:
    """The pairs of people on which swaps are measured, by the sentence that tells the value.

    "first": the value is told in the first sentence of its biography, so the name has been mentioned
    once; "any": in any of the six.
    """
    return {
        "first": swapped_people(run.corpus, n, place="first", seed=seed),
        "any": swapped_people(run.corpus, n, place="any", seed=seed),
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
        standard errors above 0) and `control_share`.

        Predictions can follow no more often than the model knows the other person: `follows` cannot
        rise before knowledge does. `share` has no such bound.
    """
    masks = resolve_positions(pairs, SWAP_POSITIONS)
    masks["control"] = control_positions(pairs, masks["every name"], seed)
    table = patch(model, pairs, sites, masks, metrics=("follows", "stays", "logit_difference"))
    keys = ["site", "layer", "position"]
    wide = table.pivot(index=keys, columns="metric", values="value").reset_index()
    before = table.pivot(index=keys, columns="metric", values="unpatched").reset_index()
    counts = table[table["metric"] == "stays"][[*keys, "n"]]
    found = wide.merge(counts, on=keys).rename(columns={"stays": "kept"}).rename_axis(columns=None)
    found = found.assign(
        unpatched=before["stays"], effect=wide["logit_difference"] - before["logit_difference"]
    )
    found["share"] = found["effect"] / whole_effect(model, pairs, "logit_difference")
    control = found[found["position"] == "control"].set_index(["site", "layer"])
    cell = pd.MultiIndex.from_frame(found[["site", "layer"]])
    found["control"] = control["follows"].reindex(cell).to_numpy()
    found["control_share"] = control["share"].reindex(cell).to_numpy()
    found = found[found["position"] != "control"]
    # In the order of the network, not of the alphabet.
    ranks = {name: rank for names in (sites, SWAP_POSITIONS) for rank, name in enumerate(names)}
    found = found.sort_values(
        ["layer", "site", "position"], key=lambda c: c.map(ranks) if c.dtype == object else c
    )
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
    table = patch(model, pairs, "resid_pre", "every name", [0], metrics=metric, per_pair=True)
    change = (table["value"] - table["unpatched"]).to_numpy()
    error = change.std(ddof=1) / np.sqrt(len(change)) if len(change) > 1 else np.inf
    return float(change.mean()) if abs(change.mean()) > 2 * error else float("nan")


def swaps(
    run: Run,
    steps: Sequence[int] | None = None,
    n: int = 96,
    sites: Sequence[str] = SWAP_SITES,
    device: torch.device | str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """How often predictions follow a swap between two people, over a run's training.

    Args:
        run: The run.
        steps: Which checkpoints; all by default.
        n: Pairs of people, each asked for one attribute.
        sites: What is swapped.
        device: Where to compute; the CPU by default.
        seed: Of the pairs and the control.

    Returns:
        Columns `step`, `sentences` ("first": the value is told in the first sentence of its
        biography; "any": in any), then those of `swap_success`.

    Raises:
        CheckpointError: there is no checkpoint at a step.
        ConfigError: no step is named, or nobody to swap with.
    """
    pairs = swap_pairs(run, n, seed)
    tables = []
    for step, model in models_at(run, steps, "cpu" if device is None else device):
        with run.patched(model, step):
            for sentences, of_place in pairs.items():
                table = swap_success(model, of_place, sites, seed)
                table.insert(0, "sentences", sentences)
                table.insert(0, "step", step)
                tables.append(table)
    return pd.concat(tables, ignore_index=True)


RECALL_EDGES = (
    ("every middle name", "every first name"),
    ("every last name", "every first name"),
    ("every last name", "every middle name"),
    ("predicts value", "every first name"),
    ("predicts value", "every middle name"),
    ("predicts value", "every last name"),
)
"""The edges of attention between name tokens, and from where the value is predicted to them."""


def edge_costs(model: TransformerLensModel, pairs: Pairs, seed: int = 0) -> pd.DataFrame:
    """What cutting each of the `RECALL_EDGES` in one layer costs.

    The attention of all heads from the one kind of token to the other, in the sentence that tells the
    value and those before it, is set to 0, and the rest of the row shares the whole again.

    Args:
        model: Any TransformerLens model; it is left as it was.
        pairs: Of which the bases are measured.
        seed: Of the control's draw.

    Returns:
        Columns `layer`, `query`, `key`, `cost` (fall of the log-probability of the first value token,
        in nats), `kept` (share of predictions that stay right), `control` (the cost of cutting the
        query from as many text tokens as the key has in that biography), and `share` and
        `control_share` (of what swapping all names before layer 0 costs: what names do for the
        answer; NaN while that is less than two standard errors above 0).
    """
    kinds = list(dict.fromkeys(key for _, key in RECALL_EDGES))
    keys = resolve_positions(pairs, kinds)
    keys |= {f"as many as {kind}": control_positions(pairs, keys[kind], seed) for kind in kinds}
    queries = list(dict.fromkeys(query for query, _ in RECALL_EDGES))
    table = patch(
        model, pairs, "pattern", queries, how="cut", keys=keys, heads="all",
        metrics=("log_probability", "stays"),
    )  # fmt: skip
    names = zip(table["metric"], table["layer"], table["position"], strict=True)
    values = zip(table["value"].astype(float), table["unpatched"].astype(float), strict=True)
    cells = dict(zip(names, values, strict=True))
    rows: list[tuple[object, ...]] = []
    for layer in range(model.cfg.n_layers):
        for query, key in RECALL_EDGES:
            edge, control = f"{query} → {key}", f"{query} → as many as {key}"
            cost, of_control = (
                before - after
                for after, before in (
                    cells["log_probability", layer, position] for position in (edge, control)
                )
            )
            rows.append((layer, query, key, cost, cells["stays", layer, edge][0], of_control))
    found = pd.DataFrame(rows, columns=["layer", "query", "key", "cost", "kept", "control"])
    whole = -whole_effect(model, pairs, "log_probability")
    return found.assign(share=found["cost"] / whole, control_share=found["control"] / whole)


def recall_edges(
    run: Run,
    steps: Sequence[int] | None = None,
    n: int = 96,
    device: torch.device | str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """What cutting attention among names, and from the value to names, costs over training.

    Args:
        run: The run.
        steps: Which checkpoints; all by default.
        n: Known people, each asked for one attribute in an evaluation wording.
        device: Where to compute; the CPU by default.
        seed: Of the biographies and the control.

    Returns:
        Columns `step`, then those of `edge_costs`.

    Raises:
        CheckpointError: there is no checkpoint at a step.
        ConfigError: no step is named.
    """
    pairs = swap_pairs(run, n, seed)["any"]
    tables = []
    for step, model in models_at(run, steps, "cpu" if device is None else device):
        with run.patched(model, step):
            table = edge_costs(model, pairs, seed)
        table.insert(0, "step", step)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def ablation_mask(spans: Spans, position: str, seed: int = 0) -> Bool[Tensor, "batch position"]:
    """The tokens of a biography at which MLPs are ablated, by name (`ABLATION_POSITIONS`).

    Raises:
        ConfigError: an unknown name.
    """
    if position not in ABLATION_POSITIONS:
        raise ConfigError(
            f"There is no position {position!r}.{suggest(position, ABLATION_POSITIONS)} Positions: "
            f"{', '.join(ABLATION_POSITIONS)}."
        )
    name = spans.is_kind(TokenKind.NAME)
    if position == "name":
        return name
    if position == "predicts value":
        return spans.predicts_value
    if position != "control":
        before, after = torch.zeros_like(name), torch.zeros_like(name)
        same = spans.sentence[:, 1:] == spans.sentence[:, :-1]
        before[:, 1:], after[:, :-1] = name[:, :-1] & same, name[:, 1:] & same
        parts = {"first name": ~before, "middle name": before & after, "last name": ~after}
        return name & parts[position]
    possible = spans.is_kind(TokenKind.TEXT, TokenKind.PUNCTUATION) & ~spans.predicts_value
    draw = torch.rand(possible.shape, generator=torch.Generator().manual_seed(seed))
    rank = draw.to(possible.device).masked_fill(~possible, -1).argsort(1, descending=True)
    return possible & (rank.argsort(1) < name.sum(1, keepdim=True))


def ablation_costs(
    model: TransformerLensModel,
    batch: Batch,
    positions: Sequence[str] = ABLATION_POSITIONS,
    batch_size: int = 64,
    seed: int = 0,
) -> pd.DataFrame:
    """What it costs to replace MLP outputs at some tokens by their mean over these tokens.

    Args:
        model: Any TransformerLens model over the corpus's tokens; it is left as it was.
        batch: The biographies.
        positions: At which tokens, names out of `ABLATION_POSITIONS`.
        batch_size: Biographies per forward pass.
        seed: Of the control's draw.

    Returns:
        Columns `layer` (NA: all layers), `position`, `loss` (attribute loss with the ablation, in
        nats), `intact` (without) and `cost` (loss - intact).

    Raises:
        ConfigError: an unknown position, or a model without the hook points.
    """
    layers = range(model.cfg.n_layers)
    hooks = {layer: f"blocks.{layer}.hook_mlp_out" for layer in layers}
    require_hooks(model, list(hooks.values()))
    device = next(model.parameters()).device  # type: ignore[attr-defined]
    spans = Spans.of(batch)
    masks = {position: ablation_mask(spans, position, seed) for position in positions}
    parts = [
        (slice(start, start + batch_size), batch[start : start + batch_size].to(device))
        for start in range(0, len(batch), batch_size)
    ]
    n_values = len(batch) * len(ATTRIBUTES)
    sums: dict[tuple[str, int], Tensor] = {}
    rows: list[tuple[int | None, str, float]] = []
    handle = cast(Any, model)

    def loss(hooks_of: Any) -> float:
        total = 0.0
        for rows_of, part in parts:
            with handle.hooks(fwd_hooks=hooks_of(rows_of, part)):
                total += summed_loss(model, part, ValuePositions.of(part))
        return total / n_values

    def mask_of(position: str, rows_of: slice, part: Batch) -> Bool[Tensor, "batch position"]:
        return masks[position][rows_of, : part.tokens.shape[1]].to(device)

    def summing(rows_of: slice, part: Batch) -> list[tuple[str, Any]]:
        def add(activation: Tensor, hook: Any, layer: int) -> None:
            for position in positions:
                chosen = activation[mask_of(position, rows_of, part)]
                before = sums.get((position, layer), torch.zeros((), device=device))
                sums[position, layer] = before + chosen.sum(dim=0)

        return [(name, partial(add, layer=layer)) for layer, name in hooks.items()]

    def ablating(
        rows_of: slice, part: Batch, position: str, chosen: Sequence[int]
    ) -> list[tuple[str, Any]]:
        mask = mask_of(position, rows_of, part)[..., None]

        def replace(
            activation: Tensor, hook: Any, layer: int
        ) -> Float[Tensor, "batch pos d_model"]:
            mean = sums[position, layer] / max(int(masks[position].sum()), 1)
            return torch.where(mask, mean.to(activation.dtype), activation)

        return [(hooks[layer], partial(replace, layer=layer)) for layer in chosen]

    with evaluating(model):
        intact = loss(summing)
        for position in positions:
            for layer in (None, *layers):
                chosen = list(layers) if layer is None else [layer]
                ablated = loss(partial(ablating, position=position, chosen=chosen))
                rows.append((layer, position, ablated))
    table = pd.DataFrame(rows, columns=["layer", "position", "loss"])
    table = table.assign(intact=intact, cost=table["loss"] - intact)
    return table.astype({"layer": "Int64"})


def ablations(
    run: Run,
    steps: Sequence[int] | None = None,
    n_individuals: int | None = 128,
    device: torch.device | str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """What mean-ablating MLPs costs over a run's training, on evaluation biographies.

    Args:
        run: The run.
        steps: Which checkpoints; by default those of `attention.informative_steps`.
        n_individuals: On biographies of so many people; None for all.
        device: Where to compute; the CPU by default.
        seed: Of the control's draw.

    Returns:
        Columns `step`, then those of `ablation_costs`.

    Raises:
        CheckpointError: there is no checkpoint at a step.
        ConfigError: no step is named.
    """
    batch = split_batch(run.corpus, "evaluation", n_individuals)
    chosen = informative_steps(run) if steps is None else steps
    tables = []
    for step, model in models_at(run, chosen, "cpu" if device is None else device):
        with run.patched(model, step):
            table = ablation_costs(model, batch, seed=seed)
        table.insert(0, "step", step)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
