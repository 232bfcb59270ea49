"""The plateau as a measure: what a curve shows of it, and how it grows with the number of individuals.

Where the phases meet is found by `interp.phases`. Source: paper, section 3 and Fig. 2.
"""

from dataclasses import asdict, fields
from typing import Any

import pandas as pd

from interp.phases import DELTA, PowerLawFit, detect_phases, fit_power_law

MEASURES = ("plateau_end", "plateau_length")
"""What is fitted, in steps: from the start of training, or from the end of the statistics phase."""
WHOLE_FACTS = (
    "last_step", "statistics_end", "plateau_end", "plateau_length", "biographies", "measured",
)  # fmt: skip
"""The whole numbers of `plateau_facts`."""
FACTS = (
    *WHOLE_FACTS, "within", "accuracy", "speed_before", "speed_on_plateau", "speed_after", "last_loss",
    "last_accuracy",
)  # fmt: skip
"""What `plateau_facts` finds, in order."""


def plateau_facts(curve: pd.DataFrame, batch_size: int, delta: float = DELTA) -> dict[str, Any]:
    """What a curve shows of the three phases.

    Args:
        curve: `loss` (a share of the baseline) and `accuracy` (a share), indexed by step.
        batch_size: Biographies per step.
        delta: The tolerance δ of the phases.

    Returns:
        `last_step`; `statistics_end`, `plateau_end`, `plateau_length` in steps and `biographies` up to
        the plateau's end, None where not reached; of the measurements from the statistics phase's
        end to before the plateau's end their number (`measured`) and the share `within` δ of the
        baseline; the highest `accuracy` up to the plateau's end; how fast the loss falls, in baselines
        per 100 steps, on the plateau (`speed_on_plateau`) and in as many steps as it has before
        (`speed_before`) and after (`speed_after`), or in fewer where the curve has no more; the
        `last_loss`, a share of the baseline, and `last_accuracy`.
    """
    loss = curve["loss"]
    steps = [int(step) for step in curve.index]
    phases = detect_phases(steps, list(loss), 1.0, delta)
    start, end, length = phases.statistics_end, phases.plateau_end, phases.plateau_length
    facts: dict[str, Any] = dict.fromkeys(FACTS) | {
        "last_step": steps[-1],
        "statistics_end": start,
        "plateau_end": end,
        "plateau_length": length,
        "last_loss": float(loss.iloc[-1]),
        "last_accuracy": float(curve["accuracy"].iloc[-1]),
    }
    if start is None or end is None or length is None:
        return facts
    on_plateau = loss[(loss.index >= start) & (loss.index < end)]
    return facts | {
        "biographies": end * batch_size,
        "measured": len(on_plateau),
        "within": float(((on_plateau - 1).abs() <= delta).mean()) if len(on_plateau) else None,
        "accuracy": float(curve["accuracy"][curve.index <= end].max()),
        "speed_before": _speed(loss, start - length, start),
        "speed_on_plateau": _speed(loss, start, end),
        "speed_after": _speed(loss, end, end + length),
    }


def _speed(loss: pd.Series, first: int, last: int) -> float | None:
    inside = loss[(loss.index >= first) & (loss.index <= last)]
    if len(inside) < 2:
        return None
    return float((inside.iloc[0] - inside.iloc[-1]) / (inside.index[-1] - inside.index[0]) * 100)


def fit_of(table: pd.DataFrame, measure: str = "plateau_end", delta: float = DELTA) -> PowerLawFit:
    """The power law of one measure, `plateau_end` or `plateau_length`, at one δ.

    Args:
        table: A run and δ a row: `n_individuals`, `delta`, and the measure (steps; NA where not
            reached). Rows where it is not above 0 are left out.
        measure: One of `MEASURES`.
        delta: The tolerance δ.

    Raises:
        InterpError: fewer than three sizes have left the plateau.
    """
    chosen = _reached(table[table["delta"] == delta], measure)
    return fit_power_law(chosen["n_individuals"].tolist(), chosen[measure].tolist())


def plateau_fits(table: pd.DataFrame) -> pd.DataFrame:
    """A power law of N for every δ and measure that at least three sizes have.

    Args:
        table: As for `fit_of`, with both measures.

    Returns:
        Columns `delta`, `measure` (one of `MEASURES`), and those of `PowerLawFit`.
    """
    rows = [
        {"delta": delta, "measure": measure, **asdict(fit_of(table, measure, delta))}
        for delta in sorted(map(float, table["delta"].unique()))
        for measure in MEASURES
        if _reached(table[table["delta"] == delta], measure)["n_individuals"].nunique() >= 3
    ]
    columns = ["delta", "measure", *(field.name for field in fields(PowerLawFit))]
    return pd.DataFrame(rows, columns=columns)


def _reached(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    return table[(table[measure] > 0).fillna(value=False)]
