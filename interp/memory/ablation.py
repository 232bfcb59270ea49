"""Mean-ablation: what is lost when an MLP writes its mean over all tokens of a kind at each of them.

Source: Wang et al. 2022, section 2.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, cast

import pandas as pd
import torch
from torch import Tensor
from transformer_lens.model_protocol import TransformerLensModel

from interp.biographies import AnyTexts, control_mask, position_masks, spans_of
from interp.errors import ArgumentError, listed
from interp.knowledge import ValuePositions, n_values, summed_loss
from interp.model import RunningMean, measuring, of_this_thread, require_numbers
from interp.model.layout import require_wrapped
from interp.model.live import require_live
from interp.model.patterns import require_hooks
from interp.progress import Progress, watched
from interp.series import AnySeries, Device, informative_steps, table_over_steps, texts_of
from interp.torch_state import default_state

ABLATION_POSITIONS = ("name", "first name", "middle name", "last name", "predicts value", "control")
"""Where MLPs are ablated by default, in all sentences: at all tokens of names, at the first, those
between, the last; at positions that predict a token of a value; and the control (`ablation_costs`)."""


@default_state()
def ablation_costs(
    model: TransformerLensModel,
    texts: AnyTexts,
    positions: Sequence[str] = ABLATION_POSITIONS,
    batch_size: int = 64,
    seed: int = 0,
) -> pd.DataFrame:
    """What it costs to replace MLP outputs at some tokens by their mean over these tokens.

    Positions are names out of `interp.biographies.POSITIONS`, in all sentences of texts with values, or
    "control": as many tokens as names have, drawn (with `seed`) from other words.

    Returns:
        Columns `layer` (NA: all layers), `position`, `loss` (attribute loss with the ablation, in
        nats), `intact` (without) and `cost` (loss - intact).
    """
    positions = listed(positions, "positions")
    if not positions:
        raise ArgumentError(f"No position is named; by default {', '.join(ABLATION_POSITIONS)}.")
    require_wrapped(model)
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
    n = n_values(texts)
    means = {(position, layer): RunningMean() for position in positions for layer in layers}
    rows: list[tuple[int | None, str, float]] = []

    def add(activation: Tensor, hook: Any, mask: dict[str, Tensor], layer: int) -> None:
        for position in positions:
            means[position, layer].add(activation[mask[position]])

    def ablate(
        activation: Tensor, hook: Any, mask: dict[str, Tensor], layer: int, position: str
    ) -> Tensor:
        mean = means[position, layer].mean.to(activation.dtype)
        return torch.where(mask[position][..., None], mean, activation)

    def loss(edit: Callable[..., Tensor | None], chosen: Sequence[int] = layers) -> float:
        total = 0.0
        parts: Iterable[AnyTexts] = texts.split(batch_size)
        for number, part in enumerate(parts):
            part = part.to(device)
            batch = slice(number * batch_size, (number + 1) * batch_size)
            width = part.tokens.shape[1]
            mask = {name: every[batch, :width].to(device) for name, every in masks.items()}
            edits = of_this_thread(
                (hooks[layer], partial(edit, mask=mask, layer=layer)) for layer in chosen
            )
            with cast(Any, model).hooks(fwd_hooks=edits):
                total += summed_loss(model, part, ValuePositions.of(part))
        return total / n

    with measuring(model):
        intact = loss(add)
        require_numbers(intact, "logits")
        for position in positions:
            for layer in (None, *layers):
                ablated = loss(
                    partial(ablate, position=position), layers if layer is None else [layer]
                )
                rows.append((layer, position, ablated))
    table = pd.DataFrame(rows, columns=["layer", "position", "loss"])
    table = table.assign(intact=intact, cost=table["loss"] - intact)
    return table.astype({"layer": "Int64"})


@default_state()
def ablations(
    series: AnySeries,
    steps: Sequence[int] | None = None,
    n_individuals: int | None = 128,
    device: Device = None,
    seed: int = 0,
    *,
    texts: AnyTexts | None = None,
    workers: int | None = None,
    progress: Progress = watched,
) -> pd.DataFrame:
    """What mean-ablating MLPs costs over training: columns `step`, then those of `ablation_costs`.

    Read are `texts`, or of a run the evaluation biographies of `n_individuals` (None: all). Steps are
    those of `series.informative_steps` by default; other arguments and errors as `series.over_steps`.
    """
    read = texts_of(series, texts, "evaluation", n_individuals)
    steps = informative_steps(series) if steps is None else steps
    measure = partial(ablation_costs, texts=read, seed=seed)
    return table_over_steps(series, measure, steps, device, workers=workers, progress=progress)
