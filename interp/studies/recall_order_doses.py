"""Doses: compiled models of which attention or the memory is there in part.

Measures can be held against what is so there. A dose of the memory scales what the neurons that hold facts
write. The full dose is what brings `ENOUGH` of all nats that first value tokens can bring, since compiled
weights write far more than that. A dose of attention is how much of the way from uniform attention to its
own a head that recalls has gone, in the share of attention that it gives to the name. At a dose of both,
attention and memory have come equally far: whatever order a measure finds there is its own.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from interp.compiled import CompiledRecall, compile_recall
from interp.compiled.memory import RECALLING_ROLES
from interp.config import Config, Variant
from interp.memory.emergence import half_strength_step
from interp.model import measuring
from interp.studies.recall_order_measured import PARTS, Read, first_tokens, known_with, strengths
from interp.trust.circuit import LAST_NAME, recalling_heads

Dosed = Literal["attention", "memory", "both"]
ENOUGH = 0.95
"""The share of all nats that the full dose of the memory brings, with attention as it was compiled."""
SATURATED = 0.95
"""A measure that says more than that at half a dose cannot tell half a dose from a full one."""
APART = 0.9
"""A measure that says less than that while the other part is at a quarter of a dose is not about its own."""
_HALVINGS = 14


def dose_table(
    config: Config,
    variant: Variant,
    doses: Sequence[float],
    n_pairs: int,
    dosed: Sequence[Dosed] = get_args(Dosed),
) -> pd.DataFrame:
    """Every measure at every dose of one compiled model.

    Args:
        config: Whose people are built in.
        variant: Where facts are; one in which MLPs hold them.
        doses: From 0 to 1, increasing; the last one is what measures compare with.
        n_pairs: Pairs of people that are swapped.
        dosed: What is there to a dose.

    Returns:
        Columns `dosed`, `dose`, then those of `strengths` but `step`.
    """
    compiled = compile_recall(config, variant)
    read = Read.of(compiled.corpus, config.population.n_individuals, n_pairs)
    _scale_memory(compiled, compiled.model, full_dose(compiled, read))
    parts = []
    for part in dosed:
        series = {i: with_dose(compiled, part, dose, read) for i, dose in enumerate(doses)}
        found = strengths(series, series[len(doses) - 1], read, LAST_NAME)
        found.insert(0, "dose", [doses[step] for step in found["step"]])
        found.insert(0, "dosed", part)
        parts.append(found.drop(columns="step"))
    return pd.concat(parts, ignore_index=True)


def corrections(doses: pd.DataFrame) -> pd.DataFrame:
    """What compiled models say of each measure: whether its dates are of its own part, and of which strength.

    Args:
        doses: Columns `dosed`, `dose`, `measure`, `strength`; means over everything else are taken.

    Returns:
        Columns `measure`, `part`; `half_dose`, the dose of its own part from which its strength stays at
        half; in shares of the strength at the full dose `at_half`, its strength at half a dose of its part,
        and `without`, that while the other part is at a quarter of a dose; `usable`: whether `at_half` is at
        most `SATURATED` and `without` at least `APART`. Without doses, no rows.
    """
    means = doses.pivot_table("strength", "dose", ["measure", "dosed"])
    rows = []
    for measure in dict.fromkeys(doses["measure"]):
        part = PARTS[measure]
        own = means[(measure, part)]
        other = means[(measure, "memory" if part == "attention" else "attention")]
        full = own.iloc[-1]
        at_half = _at(own, 0.5) / full
        without = _at(other, 0.25) / other.iloc[-1]
        usable = at_half <= SATURATED and without >= APART
        half = reached(list(own.index), list(own))
        rows.append((measure, part, half, at_half, without, usable))
    columns = ["measure", "part", "half_dose", "at_half", "without", "usable"]
    return pd.DataFrame(rows, columns=columns)


def reached(
    steps: Sequence[int | float], strengths: Sequence[float | int], share: float = 0.5
) -> float:
    """The step from which a strength stays at a share of its final one, as `half_strength_step`.

    NaN also where the first strength that is known is at the share already, and is not that of the first
    step: it was reached at a step that nobody knows.

    Example:
        >>> reached([0, 100, 200], [float("nan"), 0.9, 1.0])
        nan
    """
    found = half_strength_step(steps, strengths, share=share)
    known = [step for step, value in zip(steps, strengths, strict=True) if value == value]
    return float("nan") if known and found == known[0] > steps[0] else found


def _at(curve: pd.Series, dose: float) -> float:
    known = curve.dropna()
    return float(np.interp(dose, known.index.to_numpy(dtype=float), known.to_numpy()))


def with_dose(compiled: CompiledRecall, dosed: Dosed, dose: float, read: Read) -> TransformerBridge:
    """A copy of a compiled model of which a part is there to a dose."""
    model = deepcopy(compiled.model)
    if dosed in ("memory", "both"):
        _scale_memory(compiled, model, dose)
    if dosed in ("attention", "both"):
        _scale_attention(compiled, model, dose, read)
    return model


def full_dose(compiled: CompiledRecall, read: Read) -> float:
    """The scale of the memory that brings `ENOUGH` of all nats."""

    def gain(scale: float) -> float:
        model = deepcopy(compiled.model)
        _scale_memory(compiled, model, scale)
        return known_with(model, model, read)["gain"]

    return _scale_of(gain, ENOUGH * gain(1.0))


@torch.no_grad()
def _scale_memory(compiled: CompiledRecall, model: TransformerBridge, dose: float) -> None:
    neurons = compiled.key.neurons
    state = model.state_dict()
    for layer, own in neurons[neurons["role"].isin(RECALLING_ROLES)].groupby("layer"):
        state[f"blocks.{layer}.mlp.out.weight"][:, own["neuron"].to_list()] *= dose


@torch.no_grad()
def _scale_attention(
    compiled: CompiledRecall, model: TransformerBridge, dose: float, read: Read
) -> None:
    """Scales queries until attention to the name has gone so far from uniform to its own."""
    logits, key = _asked_logits(compiled, model, read)

    def share(scale: float) -> float:
        pattern = torch.where(logits.isinf(), logits, logits * scale).softmax(dim=1)
        return float(pattern[torch.arange(len(key)), key].mean())

    nothing, everything = share(0.0), share(1.0)
    scale = _scale_of(share, nothing + dose * (everything - nothing)) if 0 < dose < 1 else dose
    state, d_head = model.state_dict(), model.cfg.d_head
    for layer, head in sorted(set(recalling_heads(compiled).values())):
        for kind in ("weight", "bias"):
            state[f"blocks.{layer}.attn.q.{kind}"][head * d_head : (head + 1) * d_head] *= scale


def _scale_of(value: Callable[[float], float], wanted: float) -> float:
    """The scale from 0 to 1 at which something that grows with it reaches what is wanted."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if value(middle) < wanted else (low, middle)
    return high


def _asked_logits(
    compiled: CompiledRecall, model: TransformerBridge, read: Read
) -> tuple[Float[Tensor, "value key"], Int[Tensor, " value"]]:
    """Attention logits from where values are predicted, of the head that recalls each (-inf: not seen).

    And the position of the last name token of each value's sentence.
    """
    batch = read.biographies
    where = first_tokens(batch)
    row, position, asked = where.row, where.position, where.attribute
    recalls = recalling_heads(compiled)
    places = torch.tensor([recalls[name] for name in compiled.corpus.attributes])[asked]
    names = [f"blocks.{layer}.attn.hook_attn_scores" for layer in range(model.cfg.n_layers)]
    with measuring(model):
        _, cache = model.run_with_cache(batch.tokens, names_filter=names)
    scores = torch.stack([cache[name] for name in names])[places[:, 0], row, places[:, 1], position]
    later = torch.arange(scores.shape[1]) > position[:, None]
    return scores.masked_fill(later, -torch.inf), batch.name_end[row, asked]
