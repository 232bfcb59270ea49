"""The order of emergence: does recall attention form before the memory?

Every *mechanism* has a *strength* at each checkpoint: what it has beyond its control. It emerges at
the step from which its strength stays at half of its final one or above, interpolated between
checkpoints. A mechanism whose final strength is below `FAINT` is absent: half of nothing is reached at
any time. What a mechanism is, is fixed at the last checkpoint (which head, site or layer has most of
it) and then followed back, so that a curve is of one thing; that favours no step, but a head that did
it early and something else at the end is not seen.

The question is the protocol's (Zucchet et al. 2025 argue from patching that attention comes first);
the measure by half-strength is this package's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from interp.errors import RunError
from interp.run import Run

FAINT = 0.05
"""Final strengths below this count as absent."""
STRENGTH_COLUMNS = ("mechanism", "step", "value", "control", "strength")

Tables = dict[tuple[str, str], pd.DataFrame]
"""The tables of stages that mechanisms are read from, by stage and name."""


@dataclass(frozen=True)
class Mechanism:
    """Something that a model comes to do.

    Attributes:
        table: The stage and table that it is read from.
        rows: Its rows in that table.
        value: The column of its value.
        control: The column of its control; None for zero.
        unit: The columns that tell candidates apart (heads, layers, sites), of which that with most
            strength at the last step is followed; none: their mean.
        meaning: What its strength is, for people.
    """

    table: tuple[str, str]
    rows: dict[str, object]
    value: str
    control: str | None
    unit: tuple[str, ...]
    meaning: str


_HEAD = ("layer", "head")
_ATTENTION = ("attention", "scores")
_PROBES, _SITE = ("memory", "probes"), ("site", "layer")
_VALUES = ("memory", "values")
_AGREEMENT = {"metric": "layer_agreement", "attribute": "all"}
_SWAPS = ("interventions", "swaps")
MECHANISMS: dict[str, Mechanism] = {
    "name grouping at last name": Mechanism(
        _ATTENTION, {"metric": "name_to_name"}, "value", "chance", _HEAD,
        "attention of one head from the last name token to the rest of the name, above chance",
    ),
    "name grouping at middle name": Mechanism(
        ("interventions", "edges"), {"query": "every middle name", "key": "every first name"},
        "cost", "control", ("layer",),
        "cost in nats of cutting attention from middle to first names in one layer",
    ),
    "type attention": Mechanism(
        _ATTENTION, {"metric": "attribute_to_type"}, "value", "chance", _HEAD,
        "attention of one head from the value position to type words, above chance",
    ),
    "extraction attention": Mechanism(
        _ATTENTION, {"metric": "attribute_to_any_name"}, "value", "chance", _HEAD,
        "attention of one head from the value position to name tokens, above chance",
    ),
    "probe at names": Mechanism(
        _PROBES, {"position": "middle name", "attribute": "all"},
        "accuracy_other_people", "control_other_people", _SITE,
        "accuracy of a linear probe at the middle name on people whom it was not fitted on, above "
        "shuffled facts",
    ),
    "probe at value position": Mechanism(
        _PROBES, {"position": "predicts value", "attribute": "all"},
        "accuracy_other_people", "control_other_people", _SITE,
        "the same where the value is predicted",
    ),
    "key-value agreement at names": Mechanism(
        _VALUES, {**_AGREEMENT, "position": "middle name", "path": "attention"},
        "value", "control", ("layer",),
        "rank of a person's own value in what an MLP writes at the middle name, taken through the "
        "heads of later layers, above shuffled facts",
    ),
    "key-value agreement at value": Mechanism(
        _VALUES, {**_AGREEMENT, "position": "predicts value", "path": "direct"},
        "value", "control", ("layer",),
        "rank of a person's own value in what an MLP writes where it is predicted, above shuffled "
        "facts",
    ),
    "MLP swap at names": Mechanism(
        _SWAPS, {"site": "mlp_out", "position": "every name", "sentences": "any"},
        "follows", "control", ("layer",),
        "predictions that follow a swap of one MLP's output at all name tokens",
    ),
    "attention swap at value": Mechanism(
        _SWAPS, {"site": "attn_out", "position": "predicts value", "sentences": "any"},
        "follows", "control", ("layer",),
        "predictions that follow a swap of one layer's attention output at the value position",
    ),
    "MLP swap at value": Mechanism(
        _SWAPS, {"site": "mlp_out", "position": "predicts value", "sentences": "any"},
        "follows", "control", ("layer",),
        "predictions that follow a swap of one MLP's output at the value position",
    ),
}  # fmt: skip
"""The mechanisms, by name."""


def mechanism_strengths(run: Run) -> pd.DataFrame:
    """The strength of every mechanism at the checkpoints at which it was measured.

    Args:
        run: A run whose stages attention, memory and interventions have finished.

    Returns:
        Columns `mechanism`, `step`, `value`, `control`, `strength` (value - control). Mechanisms are
        those of `MECHANISMS` and "knowledge": the attribute accuracy in new wordings.

    Raises:
        RunError: a stage has not finished.
    """
    parts = []
    for name, mechanism in MECHANISMS.items():
        table = run.result(*mechanism.table)
        if table is None:
            raise RunError(
                f"{run.path} has no result of the stage {mechanism.table[0]!r}, which {name!r} is "
                "read from. Run `interp memory` on it, which runs what is missing."
            )
        parts.append(strength_of(table, mechanism).assign(mechanism=name))
    accuracy = run.curve("attribute_accuracy")
    knowledge = pd.DataFrame({"step": accuracy.index, "value": accuracy.to_numpy(), "control": 0.0})
    parts.append(knowledge.assign(mechanism="knowledge"))
    strengths = pd.concat(parts, ignore_index=True)
    strengths["strength"] = strengths["value"] - strengths["control"]
    return strengths[list(STRENGTH_COLUMNS)]


def strength_of(table: pd.DataFrame, mechanism: Mechanism) -> pd.DataFrame:
    """One mechanism's curve in its table: columns `step`, `value`, `control`."""
    chosen = table
    for column, wanted in mechanism.rows.items():
        chosen = chosen[chosen[column] == wanted]
    control = 0.0 if mechanism.control is None else chosen[mechanism.control]
    chosen = chosen.assign(_control=control, _value=chosen[mechanism.value])
    chosen = chosen[chosen["_value"].notna()]
    if mechanism.unit and len(chosen):
        units = list(mechanism.unit)
        last = chosen[chosen["step"] == chosen["step"].max()]
        best = last.loc[(last["_value"] - last["_control"]).idxmax()]
        for unit in units:
            chosen = chosen[chosen[unit] == best[unit]]
    means = chosen.groupby("step", as_index=False)[["_value", "_control"]].mean()
    return means.rename(columns={"_value": "value", "_control": "control"})


def half_strength_step(
    steps: Sequence[int | float], strengths: Sequence[float | int], faint: float = FAINT
) -> float:
    """The step from which a strength stays at half of its final value or above.

    Args:
        steps: Measured steps, increasing.
        strengths: The strength at each.
        faint: Final strengths below this count as absent.

    Returns:
        The step, interpolated between the last measurement below half and the next; NaN where the
        mechanism is absent in the end.

    Example:
        >>> half_strength_step([0, 100, 200, 300], [0.0, 0.0, 0.8, 1.0])
        162.5
    """
    values = np.asarray(strengths, dtype=float)
    if not len(values) or not values[-1] >= faint:
        return float("nan")
    half = values[-1] / 2
    below = np.flatnonzero(values < half)
    if not len(below):
        return float(steps[0])
    before = int(below[-1])
    low, high = values[before], values[before + 1]
    return float(steps[before] + (half - low) / (high - low) * (steps[before + 1] - steps[before]))


def emergence_steps(
    strengths: pd.DataFrame, phase_at: Callable[[int], str] | None = None
) -> pd.DataFrame:
    """The step at which each mechanism emerges.

    Args:
        strengths: What `mechanism_strengths` returned.
        phase_at: The phase of a step, e.g. `run.phases.at`.

    Returns:
        Columns `mechanism`, `step` (NaN: absent in the end), `start` and `final` (strength at the
        first and the last measured step), and `phase` in which the step lies.
    """
    rows = []
    for mechanism, curve in strengths.groupby("mechanism", sort=False):
        ordered = curve.sort_values("step")
        step = half_strength_step(list(ordered["step"]), list(ordered["strength"]))
        phase = "" if np.isnan(step) or phase_at is None else phase_at(int(step))
        ends = ordered["strength"].iloc[[0, -1]]
        rows.append((mechanism, step, float(ends.iloc[0]), float(ends.iloc[1]), phase))
    return pd.DataFrame(rows, columns=["mechanism", "step", "start", "final", "phase"])
