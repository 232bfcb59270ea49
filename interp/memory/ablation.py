"""Mean-ablation: what is lost when an MLP writes the same at all tokens of a kind.

The output of an MLP at some tokens is replaced by its mean over them, so that it no longer tells those
tokens apart; what is lost is what it told. Source: Wang et al. 2022, section 2.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_protocol import TransformerLensModel

from interp.biographies import AnyTexts, control_mask, position_masks, spans_of
from interp.knowledge import ValuePositions, n_values, summed_loss
from interp.model import RunningMean, evaluating
from interp.model.live import require_live
from interp.model.patterns import require_hooks
from interp.progress import Progress, silent
from interp.series import AnySeries, Device, informative_steps, table_over_steps, texts_of

ABLATION_POSITIONS = (
    "name",
    "first name",
    "middle name",
    "last name",
    "predicts value",
    "control",
)
"""Where MLPs are ablated by default, in all sentences: at all tokens of names, at the first, those
between, the last; at positions that predict a token of a value; and the control (`ablation_costs`)."""


def ablation_costs(
    model: TransformerLensModel,
    texts: AnyTexts,
    positions: Sequence[str] = ABLATION_POSITIONS,
    batch_size: int = 64,
    seed: int = 0,
) -> pd.DataFrame:
    """What it costs to replace MLP outputs at some tokens by their mean over these tokens.

    Args:
        model: Any TransformerLens model; it is left as it was.
        texts: Texts or biographies, with values.
        positions: At which tokens of all sentences: names out of `interp.biographies.POSITIONS`, or
            "control": as many tokens as names have, drawn from those that hold neither names nor type
            words.
        batch_size: Texts per forward pass.
        seed: Of the control's draw.

    Returns:
        Columns `layer` (NA: all layers), `position`, `loss` (attribute loss with the ablation, in
        nats), `intact` (without) and `cost` (loss - intact).

    Raises:
        ArgumentError: an unknown position, or a model without the hook points, or without effect of an
            edit there.
    """
    layers = range(model.cfg.n_layers)
    hooks = {layer: f"blocks.{layer}.hook_mlp_out" for layer in layers}
    require_hooks(model, list(hooks.values()))
    device = next(model.parameters()).device  # type: ignore[attr-defined]
    require_live(model, list(hooks.values()), texts.tokens[:1].to(device))
    spans = spans_of(texts)
    named = [position for position in positions if position != "control"]
    masks = position_masks(spans, named) if named else {}
    if "control" in positions:
        masks["control"] = control_mask(spans, position_masks(spans, "name")["name"], seed=seed)
    parts = [
        (slice(start, start + batch_size), texts[start : start + batch_size].to(device))
        for start in range(0, len(texts), batch_size)
    ]
    n = n_values(texts)
    means = {(position, layer): RunningMean() for position in positions for layer in layers}
    rows: list[tuple[int | None, str, float]] = []
    handle = cast(Any, model)

    def loss(hooks_of: Any) -> float:
        total = 0.0
        for rows_of, part in parts:
            with handle.hooks(fwd_hooks=hooks_of(rows_of, part)):
                total += summed_loss(model, part, ValuePositions.of(part))
        return total / n

    def mask_of(position: str, rows_of: slice, part: AnyTexts) -> Bool[Tensor, "batch position"]:
        return masks[position][rows_of, : part.tokens.shape[1]].to(device)

    def summing(rows_of: slice, part: AnyTexts) -> list[tuple[str, Any]]:
        def add(activation: Tensor, hook: Any, layer: int) -> None:
            for position in positions:
                means[position, layer].add(activation[mask_of(position, rows_of, part)])

        return [(name, partial(add, layer=layer)) for layer, name in hooks.items()]

    def ablating(
        rows_of: slice, part: AnyTexts, position: str, chosen: Sequence[int]
    ) -> list[tuple[str, Any]]:
        mask = mask_of(position, rows_of, part)[..., None]

        def replace(
            activation: Tensor, hook: Any, layer: int
        ) -> Float[Tensor, "batch pos d_model"]:
            mean = means[position, layer].mean.to(activation.dtype)
            return torch.where(mask, mean, activation)

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
    series: AnySeries,
    steps: Sequence[int] | None = None,
    n_individuals: int | None = 128,
    device: Device = None,
    seed: int = 0,
    *,
    texts: AnyTexts | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> pd.DataFrame:
    """What mean-ablating MLPs costs over training; of a run, on evaluation biographies.

    Args:
        series: A run, models by step, or another series (see `interp.series`).
        steps: Which checkpoints; by default those of `series.informative_steps`.
        n_individuals: Of a run, on biographies of so many people; None for all.
        device: Where to compute; where the models are by default, those of a run on the CPU.
        seed: Of the control's draw.
        texts: What is read, in place of a run's biographies.
        workers: Processes of one thread each; see `series.over_steps`.
        progress: Told after each checkpoint.

    Returns:
        Columns `step`, then those of `ablation_costs`.

    Raises:
        CheckpointError: there is no checkpoint at a step.
        ArgumentError: no step is named.
    """
    read = texts_of(series, texts, "evaluation", n_individuals)
    chosen = informative_steps(series) if steps is None else steps
    return table_over_steps(
        series,
        lambda model: ablation_costs(model, read, seed=seed),
        chosen,
        device,
        workers=workers,
        progress=progress,
    )
