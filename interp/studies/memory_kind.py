"""Which memory is it.

Are facts in MLPs, which look people up (associative), or in the embeddings of people, from which MLPs only
select (geometric); and is that settled during the plateau or after it?

Command: interp batch memory_kind --out artifacts/studies --workers 2
Duration: 6 runs of `tiny`, 1 to 2 minutes each on one thread, then half a minute of measuring each

Half of the runs have ordinary names of three tokens, which by themselves say nothing of a person; in the
other half the same people have names of one token, so that an embedding can hold a person's facts. With
`--set preset=small` there are 6 runs of 8 to 9 minutes each. The measure is `interp.memory_kind`; its
thresholds come from compiled models, whose memory is known.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import pandas as pd
import plotly.graph_objects as go
from pydantic import Field, field_validator

from interp.compiled import one_token_people
from interp.config import Config
from interp.memory.kind import KIND_COLUMNS, kinds, memory_kind
from interp.plots import memory_kind as plots
from interp.run import Run
from interp.studies.collect import collect, complete
from interp.studies.memory_kind_claims import held_against
from interp.studies.rules import Claim
from interp.studies.study import Planned, Study, StudySettings, Tables, each_once

Names = Literal["three tokens", "one token"]
COLUMNS = {
    "kinds": ("seed", "names", "step", "phase", "associative", "geometric", *KIND_COLUMNS),
    "phases": ("seed", "names", "statistics_end", "plateau_end", "accuracy"),
}


class MemoryKindSettings(StudySettings):
    """Settings of the study of kinds of memory."""

    names: tuple[Names, ...] = get_args(Names)
    """In how many tokens people are named."""
    checkpoints: tuple[int, ...] = (
        0, 50, 100, 150, 200, 225, 250, 275, 300, 325, 350, 400, 450, 500, 600, 700, 800, 900, 1000, 1250,
    )  # fmt: skip
    """Checkpoints beside the last one; dense where plateaus of `tiny` and `small` are."""
    n_pairs: int = Field(default=192, ge=1)
    """Pairs of people that are swapped at each checkpoint."""
    folder: str | None = None
    """Where people of one token are written before training; by default among temporary files. A run keeps
    a copy of its own."""

    varies: ClassVar[frozenset[str]] = frozenset(
        {
            "population.people", "population.templates", "training.early_checkpoints",
            "training.checkpoint_every",
        }
    )  # fmt: skip

    @field_validator("names")
    @classmethod
    def _once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return each_once("names", values)

    def of(self, seed: int, names: Names) -> Config:
        """The run of a seed with some names. For names of one token, people are written to a folder."""
        config = self.config(
            seed,
            **{
                "training.early_checkpoints": self.checkpoints,
                "training.checkpoint_every": self.config(seed).training.n_steps,
                "evaluation.splits": ("evaluation",),
            },
        )
        if names == "three tokens":
            return config
        people = config.population
        folder = Path(self.folder or Path(tempfile.gettempdir()) / "interp_one_token_people")
        words = f"{self.preset}_{people.n_individuals}_{people.n_held_out}_seed{seed}"
        return one_token_people(config, folder / words)


def planned(settings: MemoryKindSettings) -> list[Planned]:
    """The runs that settings ask for."""
    return [Planned(settings.of(seed, n)) for seed in settings.seeds for n in settings.names]


def names_of(run: Run) -> Names:
    """In how many tokens a run's people are named."""
    return "three tokens" if run.config.population.people is None else "one token"


def tables(settings: MemoryKindSettings, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """What the finished runs measured.

    Returns:
        Tables that begin with `seed` and `names` ("three tokens", "one token"):

        "kinds": by `step`, with the `phase` it is in ("statistics", "plateau", "knowledge"), the columns of
        `interp.memory_kind`, and the shares of the recalled pairs that are `associative` and `geometric`.
        "phases": where phases end (steps; missing where they do not), and the attribute `accuracy` at the
        last step, in wordings never seen with a person.
    """

    def of_run(run: Run) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
        found = memory_kind(run, n=settings.n_pairs)
        shares = [kinds(row) for _, row in found.iterrows()]
        found["associative"], found["geometric"] = zip(*shares, strict=True)
        ends = {"statistics_end": run.phases.statistics_end, "plateau_end": run.phases.plateau_end}
        accuracy = float(run.curve("attribute_accuracy").iloc[-1])
        apart = {"seed": run.config.seed, "names": names_of(run)}
        return apart, {
            "kinds": found.assign(phase=[run.phases.at(step) for step in found["step"]]),
            "phases": pd.DataFrame([ends | {"accuracy": accuracy}]).astype(float),
        }

    return {name: table.round(4) for name, table in collect(runs, of_run, COLUMNS).items()}


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The study's figures, by anchor."""
    there = complete(tables, COLUMNS)
    kinds, phases = there["kinds"], there["phases"]
    drawn: dict[str, tuple[str, Callable[[pd.DataFrame, pd.DataFrame], go.Figure]]] = {
        "memory-kind-shares": ("mlp", plots.shares),
        "memory-kind-logits": ("mlp_share", plots.shares_of_effect),
        "memory-kind-alike": ("alike_at_name", plots.alike),
    }
    return {
        anchor: draw(kinds, phases)
        for anchor, (needed, draw) in drawn.items()
        if kinds[needed].notna().any()
    }


def claims(tables: Tables) -> list[Claim]:
    """What is claimed of kinds of memory, held against tables as made or read back from CSV."""
    return held_against(complete(tables, COLUMNS))


STUDY = Study("memory_kind", __doc__, MemoryKindSettings, planned, tables, figures, claims)
