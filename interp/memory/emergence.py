"""The order of emergence: does recall attention form before the memory?

Every *mechanism* has a *strength* at each checkpoint: what it has beyond its control. It emerges at
the step from which its strength stays at half of its final one or above, interpolated between
checkpoints. A mechanism whose final strength is below `FAINT` is absent: half of nothing is reached at
any time. What a mechanism is, is fixed at the last checkpoint (which site or layer has most of it) and
then followed back, so that a curve is of one thing; what another layer did before is not seen.

Dates of different measures have to be compared with care. A prediction cannot follow a swap before the
model knows the other person, and nats and accuracies grow with knowledge: such a mechanism cannot be
dated before knowledge. Shares of what names do for the answer can, but are noisy while names do little
(see the share of their control). Ranks saturate and rise before accuracies.

Several mechanisms are read at the middle name. Where facts are written at the last one, as in compiled
models, they are absent, and say nothing of the memory. "probe at names" is a false alarm there: a head
carries facts to later names, where nothing reads them, and with few people `FAINT` is within the noise of
probes (docs/trust.md). Without a training curve all dates are the only step there is.

Zucchet et al. 2025 argue from patching that attention comes first; the measure by half-strength is ours.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from interp.errors import ArgumentError, require_frame

FAINT = 0.05
"""Final strengths below this count as absent."""
STRENGTH_COLUMNS = ("mechanism", "step", "value", "control", "strength")
"""The columns of `mechanism_strengths`."""


@dataclass(frozen=True)
class Mechanism:
    """Something that a model comes to do.

    It is read from a `table` (of a stage), from some of its `rows`, as the column `value` less the column
    `control` (None: 0), or less `value` in `control_rows`. Of the candidates that the columns `unit` tell
    apart (layers, sites), that with most strength at the last step is followed. `meaning` is for people.
    """

    table: tuple[str, str]
    rows: Mapping[str, object]
    value: str
    control: str | None
    unit: tuple[str, ...]
    meaning: str
    control_rows: Mapping[str, object] | None = None


_LAYER, _SITE = ("layer",), ("site", "layer")
_ATTENTION, _PROBES = ("attention", "scores"), ("memory", "probes")
_KEYS, _VALUES = ("memory", "keys"), ("memory", "values")
_SWAPS, _EDGES = ("interventions", "swaps"), ("interventions", "edges")
_AGREEMENT = {"metric": "layer_agreement", "attribute": "all"}
_AT_NAMES = {"site": "mlp_out", "position": "every name", "sentences": "any"}
_AT_VALUE = {"position": "predicts value", "sentences": "any"}
MECHANISMS: dict[str, Mechanism] = {
    "name grouping at last name": Mechanism(
        _ATTENTION, {"metric": "name_to_name"}, "value", "chance", _LAYER,
        "attention from the last name token to the rest of the name, above chance; mean over the "
        "heads of a layer",
    ),
    "name grouping at middle name": Mechanism(
        _EDGES, {"query": "every middle name", "key": "every first name"},
        "share", "control_share", _LAYER,
        "share of what names do for the answer that is lost when middle names are cut off from first "
        "names in a layer",
    ),
    "type attention": Mechanism(
        _ATTENTION, {"metric": "attribute_to_type"}, "value", "chance", _LAYER,
        "attention from the value position to type words, above chance; mean over the heads of a layer",
    ),
    "extraction attention": Mechanism(
        _ATTENTION, {"metric": "attribute_to_any_name"}, "value", "chance", _LAYER,
        "attention from the value position to name tokens of its sentence and those before, above "
        "chance; mean over the heads of a layer",
    ),
    "key selectivity": Mechanism(
        _KEYS, {"metric": "selectivity", "position": "middle name", "split": "evaluation"},
        "value", None, _LAYER,
        "share of the variance of a layer's neurons at the middle name that is between people, above "
        "that of held-out people",
        control_rows={"metric": "selectivity", "position": "middle name", "split": "held_out"},
    ),
    "key-value agreement at names": Mechanism(
        _VALUES, {**_AGREEMENT, "position": "middle name", "path": "attention"},
        "value", "control", _LAYER,
        "rank of a person's own value in what an MLP writes at the middle name, taken through the "
        "heads of later layers, above shuffled facts",
    ),
    "key-value agreement at value": Mechanism(
        _VALUES, {**_AGREEMENT, "position": "predicts value", "path": "direct"},
        "value", "control", _LAYER,
        "rank of a person's own value in what an MLP writes where it is predicted (its direct effect "
        "on the logits), above shuffled facts",
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
    "MLP share at names": Mechanism(
        _SWAPS, _AT_NAMES, "share", "control_share", _LAYER,
        "share of what names do for the answer that a swap of one MLP's output at all name tokens "
        "brings along",
    ),
    "MLP swap at names": Mechanism(
        _SWAPS, _AT_NAMES, "follows", "control", _LAYER,
        "predictions that follow that swap",
    ),
    "attention swap at value": Mechanism(
        _SWAPS, {"site": "attn_out", **_AT_VALUE}, "follows", "control", _LAYER,
        "predictions that follow a swap of one layer's attention output at the value position",
    ),
    "MLP swap at value": Mechanism(
        _SWAPS, {"site": "mlp_out", **_AT_VALUE}, "follows", "control", _LAYER,
        "predictions that follow a swap of one MLP's output at the value position",
    ),
}  # fmt: skip
"""The mechanisms, by name."""


def mechanism_strengths(
    tables: Mapping[tuple[str, str], pd.DataFrame], accuracy: pd.Series
) -> pd.DataFrame:
    """The strength of every mechanism at the checkpoints at which it was measured.

    Args:
        tables: What it is read from, by topic and name as in a run's results (`Mechanism.table`):
            ("attention", "scores") from `attention_to_names`, ("memory", "keys"), "values" and "probes"
            from `measure_memory`, ("interventions", "swaps") from `swaps` and "edges" from
            `recall_edges`.
        accuracy: What is known, a share by step; of a run `run.curve("attribute_accuracy")`.

    Returns:
        Columns `mechanism`, `step`, `value`, `control`, `strength` (value - control). Mechanisms are
        those of `MECHANISMS` and "knowledge". A mechanism without its table, or whose tokens the texts
        do not have (names of one token have no middle), is listed once, with NaN.
    """
    steps = [int(table["step"].max()) for table in tables.values() if len(table)]
    if not steps:
        raise ArgumentError(
            "There is no table to read mechanisms from; give at least one with rows."
        )
    parts = []
    for name, mechanism in MECHANISMS.items():
        table = tables.get(mechanism.table)
        curve = pd.DataFrame() if table is None else strength_of(table, mechanism)
        if curve.empty:  # never measurable: listed all the same
            last = max(steps) if table is None else int(table["step"].max())
            curve = pd.DataFrame({"step": [last], "value": [np.nan], "control": [np.nan]})
        parts.append(curve.assign(mechanism=name))
    knowledge = pd.DataFrame({"step": accuracy.index, "value": accuracy.to_numpy(), "control": 0.0})
    parts.append(knowledge.assign(mechanism="knowledge"))
    strengths = pd.concat(parts, ignore_index=True)
    strengths["strength"] = strengths["value"] - strengths["control"]
    return strengths[list(STRENGTH_COLUMNS)]


def strength_of(table: pd.DataFrame, mechanism: Mechanism) -> pd.DataFrame:
    """One mechanism's curve in its table: columns `step`, `value`, `control`."""
    needed = [*mechanism.rows, mechanism.value, *mechanism.unit, mechanism.control]
    lacking = [name for name in needed if name is not None and name not in table]
    if lacking:
        raise ArgumentError(
            f"The table {'/'.join(mechanism.table)} has no column {lacking[0]!r}. Columns: "
            f"{', '.join(map(str, table.columns))}."
        )
    units = list(mechanism.unit)
    chosen = _rows(table, mechanism.rows)
    control = 0.0 if mechanism.control is None else chosen[mechanism.control]
    chosen = chosen.assign(_control=control, _value=chosen[mechanism.value])
    if mechanism.control_rows is not None:
        others = _rows(table, mechanism.control_rows).rename(columns={mechanism.value: "_control"})
        others = others[["step", *units, "_control"]]
        chosen = chosen.drop(columns="_control").merge(others, on=["step", *units])
    chosen = chosen[chosen["_value"].notna()]
    if units and len(chosen):
        chosen = chosen.groupby(["step", *units], as_index=False)[["_value", "_control"]].mean()
        last = chosen[chosen["step"] == chosen["step"].max()].reset_index(drop=True)
        strength = (last["_value"] - last["_control"]).fillna(-np.inf)
        best = last.loc[int(strength.argmax())]
        for unit in units:
            chosen = chosen[chosen[unit] == best[unit]]
    means = chosen.groupby("step", as_index=False)[["_value", "_control"]].mean()
    return means.rename(columns={"_value": "value", "_control": "control"})


def _rows(table: pd.DataFrame, wanted: Mapping[str, object]) -> pd.DataFrame:
    for column, value in wanted.items():
        table = table[table[column] == value]
    return table


def half_strength_step(
    steps: Sequence[int | float],
    strengths: Sequence[float | int],
    faint: float = FAINT,
    share: float = 0.5,
) -> float:
    """The step from which a strength stays at half of its final value (or another `share`) or above.

    Interpolated between the last measurement below that and the next, of increasing steps; NaN where the
    final strength is below `faint` (the mechanism is absent in the end) or NaN (it was not measured). Where
    the first strength that is known is at the share already, the step of that one, by which it was reached.

    Example:
        >>> half_strength_step([0, 100, 200, 300], [0.0, 0.0, 0.8, 1.0])
        162.5
    """
    if len(steps) != len(strengths):
        raise ArgumentError(f"{len(steps)} steps but {len(strengths)} strengths; give one each.")
    values = np.asarray(strengths, dtype=float)
    if not len(values) or not values[-1] >= faint:
        return float("nan")
    known = ~np.isnan(values)  # a strength need not be defined at every step
    steps, values = np.asarray(steps)[known], values[known]
    half = values[-1] * share
    below = np.flatnonzero(values < half)
    if not len(below):
        return float(steps[0])
    before = int(below[-1])
    low, high = values[before], values[before + 1]
    return float(steps[before] + (half - low) / (high - low) * (steps[before + 1] - steps[before]))


def emergence_steps(
    strengths: pd.DataFrame, phase_at: Callable[[int], str] | None = None
) -> pd.DataFrame:
    """The step at which each mechanism of `mechanism_strengths` emerges.

    Columns `mechanism`, `step` (NaN: absent in the end, or not measured), `start` and `final` (strength at
    the first and the last measured step), and `phase` in which the step lies, by `phase_at` (such as
    `run.phases.at`).
    """
    require_frame(strengths, "strengths")
    lacking = [name for name in ("mechanism", "step", "strength") if name not in strengths]
    if lacking:
        raise ArgumentError(
            f"The table of strengths has no column {lacking[0]!r}; give what `mechanism_strengths` returned."
        )
    rows = []
    for mechanism, curve in strengths.groupby("mechanism", sort=False):
        ordered = curve.sort_values("step")
        step = half_strength_step(list(ordered["step"]), list(ordered["strength"]))
        phase = "" if np.isnan(step) or phase_at is None else phase_at(int(step))
        start, final = map(float, ordered["strength"].iloc[[0, -1]])
        rows.append((mechanism, step, start, final, phase))
    return pd.DataFrame(rows, columns=["mechanism", "step", "start", "final", "phase"])
