"""The page of the memory study over several seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from interp import plots
from interp.files import write_text
from interp.phases import Phases
from interp.report.elements import LeftOut, Section, section
from interp.report.html import page_to_write, render
from interp.report.memory import (
    HEADLINE,
    emergence_table,
    intervention_figures,
    memory_figures,
    swap_table,
)
from interp.report.overview import dated


@dataclass(frozen=True)
class _Study:
    tables: Mapping[str, pd.DataFrame]
    phases: Sequence[Phases]

    @property
    def mean(self) -> str:
        return ", mean of the seeds" if len(self.phases) > 1 else ""


def _find(study: _Study, name: str) -> pd.DataFrame | LeftOut:
    return study.tables.get(name, LeftOut("not measured", ["interp memory RUN RUN --out DIR"]))


_of_study = partial(section, _find)


def write_memory_report(
    tables: Mapping[str, pd.DataFrame], phases: Sequence[Phases], path: Path | str
) -> Path:
    """Writes the page of the memory study of one or several seeds.

    Args:
        tables: What `studies.memory_tables` returned.
        phases: Of the runs, in the order of their seeds.
        path: The HTML file.

    Returns:
        The path of the file.

    Raises:
        InterpError: a table lacks what a figure needs.
        StorageError: the file cannot be written.
    """
    target = page_to_write(path)
    emergence = tables["emergence"]
    n_seeds = emergence["seed"].nunique()
    seeds = "one seed" if n_seeds == 1 else f"{n_seeds} seeds"
    mean = seeds if n_seeds == 1 else f"mean of {seeds}"
    headline = "; ".join(f"{mechanism}: {dated(emergence, mechanism)[0]}" for mechanism in HEADLINE)
    study = _Study(tables, phases)
    page = render(
        f"MLP memory: {seeds}",
        f"Half of its final strength ({mean}) is reached by {headline}.",
        [_order(study), _causal(study), _stored(study)],
    )
    write_text(target, page)
    return target


@_of_study("The order of emergence", "emergence", ["emergence", "strengths"])
def _order(study: _Study, emergence: pd.DataFrame, strengths: pd.DataFrame) -> Section:
    return Section(
        text=[
            "Does the attention that recalls a person form before the memory it reads? Each "
            "mechanism is dated, in every seed, by the step at which it reaches half of its final "
            "strength."
        ],
        figures={
            "emergence-order": plots.emergence(emergence, strengths, study.phases),
            "strength-curves": plots.strength_curves(strengths, study.phases[0]),
        },
        tables=[emergence_table(emergence, strengths, study.phases[0])],
    )


@_of_study("Interventions", "interventions", ["swaps", "edges", "ablations"])
def _causal(study: _Study, swaps: pd.DataFrame, *_: pd.DataFrame) -> Section:
    return Section(
        text=[f"Swaps between two people and ablated MLPs{study.mean}."],
        figures=intervention_figures(study.tables, study.phases[0]),
        tables=[swap_table(swaps, study.phases[0])],
    )


@_of_study("MLPs as a memory", "memory", ["keys", "values", "probes"])
def _stored(study: _Study, *_: pd.DataFrame) -> Section:
    return Section(
        text=[f"Keys, values and probes{study.mean}."],
        figures=memory_figures(study.tables, study.phases[0]),
    )
