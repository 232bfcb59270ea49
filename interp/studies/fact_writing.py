"""Facts written in.

How many new facts can be written into a trained model in closed form, at which token, what else do they
change, and what does fine-tuning on the same facts do?

Command: interp batch fact_writing --out artifacts/studies --workers 2
Duration: 3 runs of 1,500 steps, 2 minutes each on one thread, and an estimated 15 minutes of edits on each

New values of drawn attributes are written into the last checkpoint of plain runs, one fact a person, in
groups of growing size (`interp.edit_scores`): by MEMIT and ROME where the last layer predicts the value;
by MEMIT in layer 0 at the middle name (where swaps find these people), at all tokens of the name, and at
the last one, the control; and by fine-tuning of all weights, alone or beside biographies of other people.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from pydantic import Field, field_validator

from interp.plots import fact_writing as plots
from interp.run import Run
from interp.studies.collect import collect, complete
from interp.studies.fact_writing_claims import BEST, CONTROL, TUNED, TUNED_BESIDE, held_against
from interp.studies.rules import Claim
from interp.studies.study import Planned, Study, StudySettings, Tables, each_once
from interp.writing import edit_scores

COLUMNS = {
    "scores": (
        "seed", "method", "place", "n_edits", "metric", "attribute", "value", "before", "n", "n_repeats",
    )
}  # fmt: skip
AT_NAMES = {
    "middle name": "middle name",
    "all name tokens": ("first name", "middle name", "last name"),
    CONTROL: "last name",
}
"""Places in layer 0, and the positions that they are."""


class FactWritingSettings(StudySettings):
    """Settings of the study of facts written in."""

    n_edits: tuple[int, ...] = (1, 4, 16, 64)
    """How many facts are written at a time."""
    n_facts: int = Field(default=48, ge=1)
    """How many facts of each size at least."""
    n_others: int = Field(default=128, ge=1)
    """Other people whose facts are to stay."""
    n_texts: int = Field(default=8, ge=1)
    """Biographies of each person that edits and fine-tuning are made of."""
    draw: int = Field(default=1, ge=0)
    """Which facts are drawn. Settings were chosen on one run of seed 0 with draws 100, 101, 200, 201."""
    most_steps: int = Field(default=400, ge=1)
    """Updates of fine-tuning at most."""
    replay: int = Field(default=32, ge=1)
    """Biographies of others in each update of fine-tuning with replay."""

    @field_validator("n_edits")
    @classmethod
    def _once(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        return each_once("n_edits", values)


def planned(settings: FactWritingSettings) -> list[Planned]:
    """A plain run for each seed."""
    return [Planned(settings.config(seed)) for seed in settings.seeds]


def tables(settings: FactWritingSettings, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """How well facts hold that were written into the last checkpoint of each run.

    Returns:
        "scores": by `seed`, `method` ("memit", "rome", and two ways of fine-tuning), `place` and number of
        edits, the `metric`s of `interp.edit_scores`, in biographies, by `attribute` and of "all".
    """

    def of_run(run: Run) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
        return {"seed": run.config.seed}, {"scores": _scores(settings, run)}

    return {name: table.round(4) for name, table in collect(runs, of_run, COLUMNS).items()}


def _scores(settings: FactWritingSettings, run: Run) -> pd.DataFrame:
    shared: dict[str, Any] = {
        "n_facts": settings.n_facts, "n_others": settings.n_others, "n_texts": settings.n_texts,
        "forms": "biography", "seed": settings.draw,
    }  # fmt: skip
    tuning = {"most_steps": settings.most_steps, "seed": settings.draw}
    late = (run.config.model.n_layers - 1, "predicts value")
    best = edit_scores(
        run, settings.n_edits, [late], **shared,
        finetuning={TUNED: tuning, TUNED_BESIDE: tuning | {"replay": settings.replay}},
    )  # fmt: skip
    best["place"] = best["method"].map(
        lambda name: BEST if name in ("rome", "memit") else "all weights"
    )
    parts = [best]
    for name, position in AT_NAMES.items():
        found = edit_scores(run, settings.n_edits, [(0, position)], methods=["memit"], **shared)
        parts.append(found.assign(place=name))
    return pd.concat(parts, ignore_index=True)


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The study's figures, by anchor."""
    scores = complete(tables, COLUMNS)["scores"]
    if scores.empty:
        return {}
    return {
        "fact-writing-scores": plots.scores(scores),
        "fact-writing-attributes": plots.attributes(scores),
        "fact-writing-costs": plots.costs(scores),
    }


def claims(tables: Tables) -> list[Claim]:
    """What is claimed of facts written in, held against tables as made or read back from CSV."""
    return held_against(complete(tables, COLUMNS))


STUDY = Study("fact_writing", __doc__, FactWritingSettings, planned, tables, figures, claims)
