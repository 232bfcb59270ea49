"""What runs on differences cost and know, and what each seed says of it."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from interp.asking import answers
from interp.contradictions import contradiction_table
from interp.run import Run
from interp.studies.study import Tables
from interp.training.costs import costs_until_known, training_costs

SHARES = (0.9, 0.99)
"""Shares of the facts until which costs are told."""
COUNTS = ("step", "examples", "values", "arithmetic")
PLAIN, RANDOM, LARGEST, SMALLEST = "plain", "random of 4", "largest loss of 4", "smallest loss of 4"
WRONG, CONTRAST = "wrong values", "contrast"
UNIFORM, UNEVEN, CONTRADICTORY = "uniform", "uneven", "contradictory"
COMMON, RARE, CONTRADICTED, OTHERS = "common half", "rare half", "contradicted", "other values"
EVERYTHING, ALL_WEIGHTS = "everything", "all weights"


def curves(run: Run) -> pd.DataFrame:
    """What a run cost until each measurement (`COUNTS`), and its `accuracy` there."""
    found = training_costs(run).rename(columns={"attribute_accuracy": "accuracy"})
    return found[[*COUNTS, "accuracy"]]


def costs(run: Run) -> pd.DataFrame:
    """What a run cost until each of `SHARES` was known; missing where it never was."""
    return costs_until_known(run, SHARES)[["share", *COUNTS]]


def groups(run: Run) -> pd.DataFrame:
    """What is known at the end: `group`, `accuracy`, `loss`, `p_a` and `p_b`.

    Groups: "all"; where some people are rare, the "common half" and the "rare half" of the people; where
    some are contradicted, the values that are ("contradicted"; right is a person's own) and the "other
    values".
    """
    model, corpus = run.model(), run.corpus
    found = answers(model, corpus, "biography")
    told = corpus.contradictions
    if told is not None:
        attribute = corpus.population.attributes[told.attribute]
        about = found["individual"].isin(told.individuals) & (found["attribute"] == attribute)
        parts = {CONTRADICTED: found[about], OTHERS: found[~about]}
    elif run.config.sampling.kind == "power_law":
        rare = found["individual"] >= run.config.population.n_individuals // 2
        parts = {COMMON: found[~rare], RARE: found[rare]}
    else:
        parts = {"all": found}
    rows = [
        {"group": name, "accuracy": of["right"].mean(), "loss": of["loss"].mean()}
        for name, of in parts.items()
    ]
    table = pd.DataFrame(rows).assign(p_a=float("nan"), p_b=float("nan"))
    if told is not None:
        either = contradiction_table(model, corpus=corpus)[["p_a", "p_b"]].mean()
        table.loc[table["group"] == CONTRADICTED, ["p_a", "p_b"]] = either.to_numpy()
    return table


def tuned(run: Run) -> pd.DataFrame:
    """What fine-tuning cost until each measurement (`COUNTS`), and accuracy on `old` and `new` people."""
    found = training_costs(run).rename(columns={"attribute_accuracy": "old"})
    new = run.curve("attribute_accuracy", split="finetuned")
    return found.assign(new=new.reindex(found["step"]).to_numpy())[[*COUNTS, "old", "new"]]


@dataclass(frozen=True)
class Seed:
    """What one seed measured.

    Attributes:
        ends: By data and condition, examples in all.
        until: By data, condition and share, what it cost until then; None where it was never known.
        known: By data, condition and group, the accuracy at the end.
        tuned: By weights, what was trained on and whether with replay: accuracy on old people at the
            beginning, and on old and on new ones at the end.
    """

    ends: dict[tuple[str, str], float]
    until: dict[tuple[str, str, float], dict[str, float] | None]
    known: dict[tuple[str, str, str], float]
    tuned: dict[tuple[str, str, bool], tuple[float, float, float]]

    def cost(
        self, condition: str, share: float, data: str = UNIFORM, of: str = "examples"
    ) -> float | None:
        """What a share cost; infinite where it was never known, None where nothing was measured."""
        if (data, condition, share) not in self.until:
            return None
        found = self.until[data, condition, share]
        return float("inf") if found is None else found[of]

    def times(
        self, condition: str, share: float, data: str = UNIFORM, of: str = "examples"
    ) -> float | None:
        """How many times less than plain training a share cost; None where plain never knew it.

        0 where only the condition never knew it.
        """
        plain, other = (self.cost(name, share, data, of) for name in (PLAIN, condition))
        if plain is None or other is None or plain == float("inf"):
            return None
        return plain / other if other else None

    def at_least(self, condition: str, share: float, data: str) -> float | None:
        """The same where plain training may never know it: all of its cost then stands for that."""
        plain, other = (self.cost(name, share, data) for name in (PLAIN, condition))
        if plain is None or other is None or plain != float("inf") or other == float("inf"):
            return self.times(condition, share, data)
        return self.ends[data, PLAIN] / other

    def largest(self) -> list[str]:
        """The conditions that select the largest loss, where everybody is equally likely."""
        return sorted(n for data, n in self.ends if data == UNIFORM and n.startswith("largest"))

    def best(self, share: float) -> str | None:
        """The one of them that needs the fewest examples; None where nothing can be compared."""
        there = [(found, name) for name in self.largest() if (found := self.times(name, share))]
        return max(there)[1] if there else None

    def ranks(self, told: str, replay: bool) -> list[tuple[str, float, float, float]]:
        """What adapters of each rank ended with: their name, old before, old and new."""
        return [
            (weights, *found)
            for (weights, what, replayed), found in self.tuned.items()
            if weights != ALL_WEIGHTS and (what, replayed) == (told, replay)
        ]


def seeds_of(tables: Tables) -> list[Seed]:
    """What each seed measured."""
    numbers = sorted({int(seed) for table in tables.values() for seed in table["seed"]})
    return [_seed({n: t[t["seed"] == seed] for n, t in tables.items()}) for seed in numbers]


def _seed(tables: Tables) -> Seed:
    ends: dict[tuple[str, str], float] = {}
    until: dict[tuple[str, str, float], dict[str, float] | None] = {}
    after: dict[tuple[str, str, bool], tuple[float, float, float]] = {}
    for row in _records(tables["curves"].sort_values("step", kind="stable")):
        ends[row["data"], row["condition"]] = float(row["examples"])
    for row in _records(tables["costs"]):
        found = {name: row[name] for name in COUNTS}
        there = not any(pd.isna(value) for value in found.values())
        key = row["data"], row["condition"], float(row["share"])
        until[key] = {name: float(value) for name, value in found.items()} if there else None
    known = {
        (row["data"], row["condition"], row["group"]): float(row["accuracy"])
        for row in _records(tables["groups"])
    }
    for row in _records(tables["tuned"].sort_values("step", kind="stable")):
        run = row["weights"], row["told"], not pd.isna(row["replay_weight"])
        old, new = float(row["old"]), float(row["new"])
        after[run] = after.get(run, (old, old, new))[0], old, new
    return Seed(ends, until, known, after)


def _records(table: pd.DataFrame) -> list[dict[Any, Any]]:
    return table.to_dict("records")
