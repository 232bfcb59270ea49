"""Mnemonic first, language after.

Does a model that first learned bare lists of facts learn the same facts in prose faster, and is its core
another than that of a model that began with prose?

Command: interp batch interp/studies/mnemonic.py --out artifacts/studies --workers 2
Duration: 45 runs of 750 to 3,000 steps (some minutes each on one thread)

A mnemonic phrase is a person's name and then the values in random order, with no other word; in the
polyglot form each value is in one of three languages, in the fused form each person is one token. A
sequence of any form tells a person's facts once, so that as many steps are as many exposures of every
fact. Two budgets: all conditions have the same steps in all; or the same steps of prose, with what
precedes prose coming on top.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import pandas as pd
import plotly.graph_objects as go
from pydantic import Field, field_validator

from interp.config import Config
from interp.plots import mnemonic as plots
from interp.run import Run
from interp.studies.collect import collect, complete
from interp.studies.mnemonic_claims import held_against
from interp.studies.mnemonic_measured import adapters, curves, memory, recall
from interp.studies.rules import Claim
from interp.studies.study import Planned, Study, StudySettings, Tables, each_once

Condition = Literal[
    "prose", "mnemonic, prose", "mixed", "prose, mnemonic", "mnemonic, prose in an adapter",
    "mnemonic in an adapter, prose", "polyglot, prose", "fused, prose",
]  # fmt: skip
Budget = Literal["steps", "prose"]
CONDITIONS: tuple[Condition, ...] = (
    "prose", "mnemonic, prose", "mixed", "prose, mnemonic", "mnemonic, prose in an adapter",
    "mnemonic in an adapter, prose", "polyglot, prose", "fused, prose",
)  # fmt: skip
_APART = ("seed", "condition", "budget")
COLUMNS = {
    "curves": (*_APART, "step", "stage", "prose_step", "accuracy", "loss"),
    "recall": (*_APART, "when", "form", "accuracy", "loss"),
    "adapters": (*_APART, "adapter", "form", "accuracy", "loss"),
    "memory": (*_APART, "layer", "site", "follows", "control"),
}


class MnemonicSettings(StudySettings):
    """Settings of the study of mnemonic phrases."""

    conditions: tuple[Condition, ...] = CONDITIONS
    """What is trained on, one after the other; "mixed": both from the start, alternating at random."""
    budgets: tuple[Budget, ...] = ("steps", "prose")
    """"steps": all conditions have the preset's steps in all, halves where there are two stages. "prose":
    prose has the preset's steps, and a mnemonic stage half as many on top."""
    adapter_rank: int = Field(default=16, ge=1)
    """The rank of the adapter."""
    adapter_learning_rate: float = Field(default=5e-3, gt=0)
    """The learning rate at the beginning of a stage that trains the adapter."""

    varies: ClassVar[frozenset[str]] = frozenset({"data", "adapter", "training.n_steps"})

    @field_validator("conditions", "budgets")
    @classmethod
    def _once(cls, values: tuple[Any, ...], info: Any) -> tuple[Any, ...]:
        return each_once(info.field_name, values)

    def condition(self, seed: int, condition: Condition, budget: Budget) -> Config:
        """The run of one condition."""
        steps = self.config(seed).training.n_steps
        prose_steps = steps if budget == "prose" else steps // 2
        parts = [part.strip() for part in condition.split(",")]
        stages: list[dict[str, Any]]
        if condition == "prose":
            stages, total = [_stage(0, "biography")], steps
        elif condition == "mixed":
            total = 2 * prose_steps
            stages = [_stage(0, "mnemonic", "biography")]
        else:
            before = steps // 2 if "prose" in parts[1] else prose_steps
            total = before + (prose_steps if "prose" in parts[1] else steps // 2)
            stages = [
                self._part(start, part) for start, part in zip((0, before), parts, strict=True)
            ]
        boundary = stages[-1]["start"] or total // 2
        adapter = {"adapter.rank": self.adapter_rank} if "adapter" in condition else {}
        return self.config(
            seed,
            **{
                "data.vocabulary": self._vocabulary(),
                "data.stages": tuple(stages),
                "training.n_steps": total,
                "training.early_checkpoints": (0, boundary),
                "training.checkpoint_every": total,
                **adapter,
            },
        )

    def _vocabulary(self) -> tuple[str, ...]:
        """Forms that some condition needs: all runs know their tokens, so that all have one shape."""
        needed = {part.split()[0] for condition in self.conditions for part in condition.split(", ")}
        return ("mnemonic", *(form for form in ("polyglot", "fused") if form in needed))

    def _part(self, start: int, part: str) -> dict[str, Any]:
        """A stage with a schedule of its own, so that each begins at the full learning rate."""
        form = "biography" if part.startswith("prose") else part.split()[0]
        stage = _stage(start, form)
        if "adapter" in part:
            return {**stage, "weights": "adapter", "learning_rate": self.adapter_learning_rate}
        return {**stage, "learning_rate": self.config(self.seeds[0]).optimizer.learning_rate}


def _stage(start: int, *forms: str) -> dict[str, Any]:
    return {"start": start, "forms": [{"form": form} for form in forms]}


def planned(settings: MnemonicSettings) -> list[Planned]:
    """The runs that settings ask for; prose alone has one budget."""
    return [
        Planned(settings.condition(seed, condition, budget))
        for seed in settings.seeds
        for budget in settings.budgets
        for condition in settings.conditions
        if condition != "prose" or budget == settings.budgets[0]
    ]


def described(run: Run, settings: MnemonicSettings) -> list[dict[str, Any]]:
    """What tells a run of this study apart; prose alone counts for every budget."""
    seed = run.config.seed
    return [
        {"seed": seed, "condition": condition, "budget": budget}
        for budget in settings.budgets
        for condition in settings.conditions
        if settings.condition(seed, condition, budget).identity() == run.config.identity()
    ]


def tables(settings: MnemonicSettings, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """What the finished runs measured.

    Returns:
        Tables that begin with `seed`, `condition` and `budget` ("steps" or "prose"):

        "curves": over `step`, of prose in wordings never seen with a person: `accuracy` (share) and
        `loss` (attribute loss, nats); the number of the `stage`, and `prose_step`, how many steps of
        prose there had been until then.
        "recall": `when` ("boundary": at the end of the first stage, "end"), in each `form` ("biography"
        in wordings never seen with a person, "mnemonic", and the condition's own): `accuracy`, `loss`
        (nats an answer).
        "adapters": of conditions with one, at the end, with the last `adapter` "on" and "off".
        "memory": at the end, of biographies: the share of predictions that follow when what a `site`
        of a `layer` gives at the last token of every name is swapped with another person's, and
        `control`, at as many text tokens.
    """
    found = [(run, apart) for run in runs for apart in described(run, settings)]

    def of_run(of: tuple[Run, dict[str, Any]]) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
        run, apart = of
        return apart, {
            "curves": curves(run),
            "recall": recall(run),
            "adapters": adapters(run),
            "memory": memory(run),
        }

    return {name: table.round(4) for name, table in collect(found, of_run, COLUMNS).items()}


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The study's figures, by anchor."""
    drawn: dict[str, tuple[str, Callable[[pd.DataFrame], go.Figure]]] = {
        "mnemonic-prose": ("curves", plots.prose_curves),
        "mnemonic-recall": ("recall", plots.recall),
        "mnemonic-adapters": ("adapters", plots.adapters),
        "mnemonic-memory": ("memory", plots.memory),
    }
    there = complete(tables, COLUMNS)
    return {anchor: draw(there[n]) for anchor, (n, draw) in drawn.items() if len(there[n])}


def claims(tables: Tables) -> list[Claim]:
    """What is claimed of mnemonic phrases, held against tables as made or read back from CSV."""
    return held_against(complete(tables, COLUMNS))


STUDY = Study("mnemonic", __doc__, MnemonicSettings, planned, tables, figures, claims)
