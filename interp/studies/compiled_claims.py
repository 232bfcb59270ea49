"""What is claimed of compiled models, and the rules by which the study's tables agree or disagree.

The rules were written down before the study was run. Known were accuracies of the distributed variant at 64,
256 and 1,024 neurons for 512 and 2,048 people of seed 0, and, of seed 9, least squares and theory for 128 and
512 people, and gradient descent of 500 steps for 512 at 8, 16 and 32 neurons, from which its learning rate
was chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from interp.seeds import spread
from interp.studies.power import each_seed
from interp.studies.rules import Claim, Rule, Statement
from interp.studies.study import Tables

HELD = 0.9
"""The share of facts at which a memory holds a population."""
KNOWN, UNKNOWN, LOW, HIGH, OFF, TIMES = 0.99, 0.01, 0.85, 1.15, 0.05, 2.0
"""Thresholds: what each is, its rule says."""
BUILT, THEORY, DESCENT, TRANSFORMER = (
    "least squares", "theory", "gradient descent", "transformer",
)  # fmt: skip
_TRACR = "Tracr and InterpBench (arXiv:2301.05062, arXiv:2407.14494) do so for algorithmic tasks"
_LINEAR = (
    "Nichani, Lee & Bietti 2024 (arXiv:2412.06538): facts held grow in proportion to parameters"
)


@dataclass(frozen=True)
class Seed:
    """What one seed measured.

    Attributes:
        models: Rows of the table "models".
        capacity: Rows of the table "capacity".
        needed: By memory, neurons that hold nine facts in ten, by number of people.
    """

    models: pd.DataFrame
    capacity: pd.DataFrame
    needed: dict[str, dict[int, float]]

    def accuracy(self, split: str) -> dict[str, float]:
        """Of whole models, by variant and number of people."""
        rows = self.models[self.models["split"] == split].to_dict("records")
        return {
            f"{row['variant']} of {row['n_individuals']:,} people": float(row["accuracy"])
            for row in rows
        }

    def cells(self, one: str, other: str) -> pd.DataFrame:
        """Accuracies of two memories at the same people and neurons, as columns."""
        by = ["n_individuals", "n_neurons"]
        wide = self.capacity.pivot_table("accuracy", by, "memory")
        return wide.reindex(columns=[one, other]).dropna()

    @property
    def slope(self) -> float | None:
        """Of the logarithm of neurons needed on that of people, as computed."""
        found = self.needed.get(BUILT, {})
        if len(found) < 3:
            return None
        slope, _ = np.polyfit(np.log(list(found)), np.log(list(found.values())), 1)
        return float(slope)

    @property
    def off(self) -> float | None:
        """Mean absolute difference between theory and what was built."""
        cells = fewer_than_people(self.cells(BUILT, THEORY))
        return float((cells[BUILT] - cells[THEORY]).abs().mean()) if len(cells) else None

    @property
    def ahead(self) -> dict[str, float]:
        """Accuracy of the trained transformer less that of the computed memory, by people and neurons."""
        cells = self.cells(BUILT, TRANSFORMER).reset_index().to_dict("records")
        return {
            f"{cell['n_neurons']:,} neurons for {cell['n_individuals']:,} people": float(
                cell[TRANSFORMER] - cell[BUILT]
            )
            for cell in cells
        }

    @property
    def fewer(self) -> dict[int, float]:
        """By people: how many times more neurons the computed memory needs than the trained one.

        Empty where of some number of people one of both is not known.
        """
        built, trained = self.needed.get(BUILT, {}), self.needed.get(DESCENT, {})
        asked = self.capacity[self.capacity["memory"] == DESCENT]["n_individuals"]
        people = sorted(set(asked.astype(int)))
        known = all(n in built and n in trained for n in people)
        return {n: built[n] / trained[n] for n in people} if known else {}


def fewer_than_people(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells with fewer neurons than people: with as many everything is held, in theory by definition."""
    people, neurons = (cells.index.get_level_values(n) for n in ("n_individuals", "n_neurons"))
    return cells[neurons < people]


def seeds_of(tables: Tables) -> list[Seed]:
    """What each seed measured."""
    models, capacity, needed = (tables[name] for name in ("models", "capacity", "needed"))
    found = []
    for seed in sorted({*models["seed"], *capacity["seed"]}):
        own = needed[needed["seed"] == seed]
        by_memory = {
            str(memory): dict(zip(rows["n_individuals"].astype(int), rows["n_neurons"].astype(float),
                                  strict=True))
            for memory, rows in own.groupby("memory")
        }  # fmt: skip
        of_models, of_capacity = (t[t["seed"] == seed] for t in (models, capacity))
        found.append(Seed(of_models, of_capacity, by_memory))
    return found


def _recalls(seed: Seed, known: float, unknown: float) -> bool | None:
    asked, held_out = seed.accuracy("evaluation"), seed.accuracy("held_out")
    if not asked or not held_out:
        return None
    return min(asked.values()) >= known and max(held_out.values()) <= unknown


def _linear(seed: Seed, low: float, high: float) -> bool | None:
    return None if seed.slope is None else low <= seed.slope <= high


def _as_expected(seed: Seed, off: float) -> bool | None:
    return None if seed.off is None else seed.off <= off


def _trained_holds_more(seed: Seed, times: float) -> bool | None:
    return min(seed.fewer.values()) >= times if seed.fewer else None


def _transformer_holds_more(seed: Seed) -> bool | None:
    return min(seed.ahead.values()) > 0 if seed.ahead else None


def _said_models(seeds: Sequence[Seed]) -> str:
    parts = []
    for split, words in (("evaluation", "known people"), ("held_out", "people held out")):
        values = [value for seed in seeds for value in seed.accuracy(split).values()]
        parts.append(f"{words}: {min(values):.4f} to {max(values):.4f}" if values else words)
    n = sum(len(seed.accuracy("evaluation")) for seed in seeds)
    return f"accuracy of {n} models, {'; '.join(parts)}"


def _said_needed(seeds: Sequence[Seed]) -> str:
    people = sorted({n for seed in seeds for n in seed.needed.get(BUILT, {})})
    each = [
        f"{n:,} people: "
        + spread([s.needed[BUILT][n] for s in seeds if n in s.needed.get(BUILT, {})], ",.0f")
        for n in people
    ]
    slopes = [seed.slope for seed in seeds if seed.slope is not None]
    return f"neurons that hold nine facts in ten, {'; '.join(each)}; slope {spread(slopes)}"


def _said_theory(seeds: Sequence[Seed]) -> str:
    values = [seed.off for seed in seeds if seed.off is not None]
    cells = pd.concat([fewer_than_people(seed.cells(BUILT, THEORY)) for seed in seeds])
    above = (cells[THEORY] - cells[BUILT]).max() if len(cells) else float("nan")
    below = (cells[BUILT] - cells[THEORY]).max() if len(cells) else float("nan")
    return (
        f"mean absolute difference {spread(values, '.3f')} over {len(cells)} cells; theory is at most "
        f"{above:.2f} too high and {below:.2f} too low"
    )


def _said_fewer(seeds: Sequence[Seed]) -> str:
    people = sorted({n for seed in seeds for n in seed.fewer})
    each = [f"{n:,} people: {spread([s.fewer[n] for s in seeds if n in s.fewer], '.1f')}"
            for n in people]  # fmt: skip
    return f"times more neurons as computed, {'; '.join(each) or 'not measured'}"


def _said_transformer(seeds: Sequence[Seed]) -> str:
    cells = pd.concat([seed.cells(BUILT, TRANSFORMER) for seed in seeds])
    each = [
        f"{n:,} neurons: {spread(list(own[TRANSFORMER]))} against {spread(list(own[BUILT]))}"
        for n, own in cells.groupby(level="n_neurons")
    ]
    return f"accuracy trained against computed, {'; '.join(each) or 'not measured'}"


STATEMENTS: tuple[Statement[Seed], ...] = (
    Statement(
        "Weights that were computed recall the facts they were computed from, and nothing of others",
        _TRACR,
        Rule.each(
            "Accuracy of every whole model is at least {known:g} on known people, in wordings of evaluation, "
            "and at most {unknown:g} on people held out.",
            _recalls,
            known=KNOWN, unknown=UNKNOWN,
        ),
        _said_models,
        (
            each_seed(
                "accuracy on known people", lambda seed: seed.accuracy("evaluation"), KNOWN, form=".4f",
                least=0, most=1,
            ),
            each_seed(
                "accuracy on people held out", lambda seed: seed.accuracy("held_out"), UNKNOWN, form=".4f",
                least=0, most=1,
            ),
        ),
    ),
    Statement(
        "A distributed memory holds facts in proportion to its neurons",
        _LINEAR,
        Rule.each(
            "The slope of the logarithm of neurons that hold nine facts in ten on the logarithm of people, "
            "as computed, is from {low:g} to {high:g}, over three numbers of people or more.",
            _linear,
            low=LOW, high=HIGH,
        ),
        _said_needed,
        each_seed("slope", lambda seed: seed.slope, LOW, HIGH),
    ),
    Statement(
        "How much it holds is known beforehand",
        "a Gaussian approximation with no free number (`interp.recall_capacity`)",
        Rule.each(
            "Accuracy as theory has it is on average, in absolute difference, at most {off:g} from that of "
            "the memory as computed, over all numbers of people and of fewer neurons than people.",
            _as_expected,
            off=OFF,
        ),
        _said_theory,
        each_seed(
            "mean absolute difference in accuracy", lambda seed: seed.off, OFF, form=".3f", least=0, most=1
        ),
    ),
    Statement(
        "The same memory, trained, needs fewer neurons",
        "not measured",
        Rule.each(
            "For every number of people, the computed memory needs at least {times:g} times as many neurons "
            "for nine facts in ten as the one trained by gradient descent. Seeds in which of some number of "
            "people one of both is not between two measured numbers of neurons cannot tell.",
            _trained_holds_more,
            times=TIMES,
        ),
        _said_fewer,
        each_seed(
            "times more neurons as computed",
            lambda seed: {f"{n:,} people": times for n, times in seed.fewer.items()},
            TIMES, form=".1f", least=0,
        ),
    ),
    Statement(
        "A trained transformer holds more than a computed memory of as many neurons",
        "not measured",
        Rule.each(
            "Accuracy of the trained transformer, in wordings never seen with a person, is above that of the "
            "computed memory for as many people with as many neurons as both MLPs have, at every number.",
            _transformer_holds_more,
        ),
        _said_transformer,
        each_seed(
            "accuracy of the trained transformer less that of the computed memory",
            lambda seed: seed.ahead, 0, form="+.2f", least=-1, most=1,
        ),
    ),
)  # fmt: skip


def held_against(tables: Tables) -> list[Claim]:
    """All claims, held against the study's tables."""
    seeds = seeds_of(tables)
    return [statement.against(seeds) for statement in STATEMENTS]
