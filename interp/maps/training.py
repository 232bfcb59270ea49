"""What is known of a training beside its models: phases, curves and the roles of heads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import pandas as pd

from interp.config import Config
from interp.phases import Phases
from interp.series import AnySeries, as_series

_SPLITS = ("evaluation", "held_out")
_CURVES = ("loss", "accuracy")


@runtime_checkable
class Recorded(Protocol):
    """A training that was recorded the way a run is."""

    @property
    def config(self) -> Config:
        """Its settings."""
        ...

    @property
    def metrics(self) -> pd.DataFrame:
        """What was measured: columns `step`, `split`, `metric`, `attribute`, `value`."""
        ...

    def result(self, stage: str, table: str) -> pd.DataFrame | None:
        """A table that a stage wrote; None if there is none."""
        ...


@dataclass(frozen=True)
class TrainingInfo:
    """What the attention view can say of a training; None where nobody knows.

    Attributes:
        title: What it is called.
        phases: Where its phases meet.
        curves: Of known people ("evaluation") and of held-out ones ("held_out"), the attribute "loss"
            (nats) and "accuracy" (a share), by step.
        roles: The role of a head, by step, layer and head.
    """

    title: str | None = None
    phases: Phases | None = None
    curves: Mapping[str, Mapping[str, Mapping[int, float]]] | None = None
    roles: Mapping[tuple[int, int, int], str] | None = None

    @classmethod
    def of(cls, series: AnySeries) -> "TrainingInfo":
        """What a series knows: its phases; of one that is recorded as a run, all."""
        series = as_series(series)
        if not isinstance(series, Recorded):
            return cls(phases=series.known_phases)
        return cls(
            f"{series.config.preset}, seed {series.config.seed}",
            series.known_phases,
            _curves(series.metrics),
            _roles(series.result("attention", "roles")),
        )


def _curves(table: pd.DataFrame) -> dict[str, dict[str, dict[int, float]]]:
    def curve(split: str, metric: str) -> dict[int, float]:
        chosen = table.query("metric == @metric and split == @split and attribute == 'all'")
        return dict(zip(chosen["step"], chosen["value"], strict=True))

    return {
        split: {name: curve(split, f"attribute_{name}") for name in _CURVES} for split in _SPLITS
    }


def _roles(table: pd.DataFrame | None) -> dict[tuple[int, int, int], str] | None:
    if table is None or table.empty:
        return None
    heads = zip(table["step"], table["layer"], table["head"], strict=True)
    return dict(zip(heads, map(str, table["role"]), strict=True))
