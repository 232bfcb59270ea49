"""What each seed of the study of facts as equations says of its claims; None where it cannot tell."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from interp.equations.interference import ALL, SPECIFIC
from interp.merging import barrier
from interp.studies.equations_measured import A_THEN_B, CONTROL
from interp.studies.equations_merged import (
    ADAPTER,
    ADDED_ADAPTERS,
    AVERAGE,
    BETWEEN,
    BOTH,
    HALVES,
    ITSELF,
    SWITCHED,
)
from interp.studies.study import Tables

FIRST_ORDER, SECOND_ORDER = "one, two, both", "two, one, both"
_SCALES = "task vectors"


@dataclass(frozen=True)
class Seed:
    """What one seed measured.

    Attributes:
        tables: The study's tables, with its rows alone.
    """

    tables: Tables

    def halfway(self, low: float, high: float) -> pd.DataFrame:
        """Of each attribute, the residuals at the checkpoint whose mean is nearest to half the baseline.

        Attributes with no mean from `low` to `high` are left out.
        """
        found = self.tables["residuals"]
        found = found[(found["attribute"] != ALL) & found["mean"].between(low, high)]
        off = (found["mean"].astype(float) - 0.5).abs()
        return found.loc[off.groupby(found["attribute"]).idxmin()] if len(found) else found

    def agreement(self, by: str, phase: str) -> float | None:
        """How much what is specific to a group agrees with itself in other wordings, above the control."""
        found = self.tables["interference"]
        own = found[
            (found["by"] == by)
            & (found["phase"] == phase)
            & (found["metric"] == SPECIFIC)
            & (found["group"] == found["other"])
        ]
        return float((own["value"] - own["shuffled"]).mean()) if len(own) else None

    def held(self, exposures: int) -> dict[int, pd.DataFrame]:
        """What models of each width held after so many exposures, by number of people."""
        found = self.tables["capacity"]
        own = found[found["exposures"] == exposures].sort_values("n_individuals")
        return {int(str(width)): at for width, at in own.groupby("width")}

    def most(self, exposures: int, column: str = "bits_per_parameter") -> dict[int, float]:
        """The most that models of each width held for a parameter, over numbers of people."""
        return {width: float(at[column].max()) for width, at in self.held(exposures).items()}

    def both_values(self, condition: str) -> tuple[float, float] | None:
        """The mean probability of both values at the end."""
        found = self.tables["contradicted"]
        own = found[found["condition"] == condition].sort_values("step")
        return None if own.empty else (float(own["p_a"].iloc[-1]), float(own["p_b"].iloc[-1]))

    def mixed(self) -> dict[float, str]:
        """The conditions with mixed values by the share of one's own."""
        names = dict.fromkeys(self.tables["contradiction"]["condition"])
        shares = {float(name.split()[1]): name for name in names if str(name).startswith("mixed")}
        return dict(sorted(shares.items()))

    def until(self, condition: str, share: float) -> float | None:
        """Steps until a share of other facts was known; infinite if never, None where not measured."""
        found = self.tables["contradiction"]
        own = found[found["condition"] == condition].sort_values("step")
        if own.empty:
            return None
        reached = own[own["accuracy"] >= share]
        return float(reached["step"].iloc[0]) if len(reached) else float("inf")

    def known(self, condition: str, group: str) -> float | None:
        """Accuracy of a group of facts at the end."""
        found = self.tables["groups"]
        own = found[(found["condition"] == condition) & (found["group"] == group)]
        return None if own.empty else float(own["accuracy"].iloc[0])

    def after(self, order: str, stage: str) -> tuple[float, float] | None:
        """Accuracy on both subsystems at the end of a stage."""
        found = self.tables["order"]
        own = found[(found["order"] == order) & (found["stage"] == stage)].sort_values("step")
        return None if own.empty else (float(own["one"].iloc[-1]), float(own["two"].iloc[-1]))

    def model(self, name: str) -> dict[str, float] | None:
        """Accuracy of a model on "old" people, on both halves of new ones, and on all "new"."""
        found = self.tables["merge"]
        own = found[found["model"] == name]
        if own.empty:
            return None
        return {group: float(own[group].iloc[0]) for group in ("old", *HALVES, "new")}

    def added(self) -> dict[str, float]:
        """Accuracy on new people of the average and of task vectors at each scale."""
        names = dict.fromkeys(self.tables["merge"]["model"])
        made = [name for name in names if name == AVERAGE or str(name).startswith(_SCALES)]
        return {name: found["new"] for name in made if (found := self.model(name))}

    def barrier(self, pair: str, split: str) -> float | None:
        """The barrier of the loss between two models, in nats a value."""
        found = self.tables["line"]
        own = found[found["pair"] == pair]
        return barrier(own, split) if split in set(own["split"]) else None


def seeds_of(tables: Tables) -> list[Seed]:
    """What each seed measured, by seed."""
    numbers = sorted({int(seed) for table in tables.values() for seed in table["seed"]})
    return [Seed({n: t[t["seed"] == seed] for n, t in tables.items()}) for seed in numbers]


def all_or_nothing(seed: Seed, few: float, many: float, low: float, high: float) -> bool | None:
    """Whether few facts are halfway when the mean is."""
    found = seed.halfway(low, high)
    if found.empty:
        return None
    middle = float(found["middle"].mean())
    return True if middle <= few else False if middle >= many else None


def later(seed: Seed, by: str, more: float) -> bool | None:
    """Whether groups agree with themselves more once facts are known than in the plateau."""
    before, after = (seed.agreement(by, phase) for phase in ("plateau", "knowledge"))
    return None if before is None or after is None else after - before >= more


def how_much_later(seeds: Sequence[Seed], by: str) -> list[float]:
    """What `later` holds against its margin, of each seed that has it."""
    pairs = [[seed.agreement(by, phase) for phase in ("plateau", "knowledge")] for seed in seeds]
    return [after - before for before, after in pairs if before is not None and after is not None]


def least_sure(seeds: Sequence[Seed]) -> list[float]:
    """Of each seed the smallest p(A) + p(B) of its mixtures."""
    every = [[seed.both_values(name) for name in seed.mixed().values()] for seed in seeds]
    return [min(sum(both) for both in own if both is not None) for own in every if any(own)]


def holds(seed: Seed, exposures: int, low: float, high: float, full: float) -> bool | None:
    """Whether models that were told too much hold so many bits a parameter."""
    most = [float(at["bits_per_parameter"].max()) for at in _told_too_much(seed, exposures, full)]
    return all(low <= bits <= high for bits in most) if most else None


def keeps(seed: Seed, exposures: int, kept: float, full: float) -> bool | None:
    """Whether a model of the most people holds about as many bits as it ever does."""
    bits = [at["bits"] for at in _told_too_much(seed, exposures, full)]
    return all(float(of.iloc[-1]) >= kept * float(of.max()) for of in bits) if bits else None


def _told_too_much(seed: Seed, exposures: int, full: float) -> list[pd.DataFrame]:
    """The widths at which a model of the most people does not hold a part of what it was told."""
    held = seed.held(exposures).values()
    ends = [(at, at.iloc[-1]) for at in held]
    return [at for at, last in ends if 1 - last["loss"] / last["baseline"] < full]


def averages(seed: Seed, within: float, sure: float) -> bool | None:
    """Whether p(A) is the share of A in every mixture."""
    found = {share: seed.both_values(name) for share, name in seed.mixed().items()}
    there = {share: both for share, both in found.items() if both is not None}
    if not there or any(sum(both) < sure for both in there.values()):
        return None
    return all(abs(both[0] - share) <= within for share, both in there.items())


def slows(seed: Seed, more: float, share: float) -> bool | None:
    """Whether other facts are known later where facts contradict each other most."""
    names = list(seed.mixed().values())
    control = seed.until(CONTROL, share)
    found = seed.until(names[0], share) if names else None
    if control is None or found is None or control == float("inf"):
        return None
    return found >= (1 + more) * control


def last_wins(seed: Seed, most: float, sure: float) -> bool | None:
    """Whether of both values the last one is believed."""
    both = seed.both_values(A_THEN_B)
    if both is None or sum(both) < sure:
        return None
    return both[1] / sum(both) >= most


def lost(seed: Seed, less: float, known: float) -> bool | None:
    """Whether what was solved first is known less after the second stage, in both orders."""
    found = []
    for order, first, second, place in (
        (FIRST_ORDER, "one", "two", 0),
        (SECOND_ORDER, "two", "one", 1),
    ):
        before, after = seed.after(order, first), seed.after(order, second)
        if before is None or after is None or before[place] < known:
            return None
        found.append(after[place] <= (1 - less) * before[place])
    return found[0] if found[0] == found[1] else None


def same_end(seed: Seed, within: float, known: float) -> bool | None:
    """Whether both subsystems are known equally well at the end of all orders."""
    ends = [seed.after(order, "both") for order in (FIRST_ORDER, SECOND_ORDER, "both")]
    there = [end for end in ends if end is not None]
    if len(there) < len(ends) or max(sum(end) / 2 for end in there) < known:
        return None
    spans = [max(end[i] for end in there) - min(end[i] for end in there) for i in (0, 1)]
    return max(spans) <= within


def learned(seed: Seed, prefix: str = "") -> Callable[[float], bool]:
    """Whether both fine-tuned runs know a share of the people that they were trained on."""
    found = [(half, seed.model(f"{prefix}{half}")) for half in HALVES]
    return lambda known: all(of is not None and of[half] >= known for half, of in found)


def adds_up(seed: Seed, kept: float, known: float) -> bool | None:
    """Whether the average or the best sum of task vectors knows both halves."""
    together, made = seed.model(BOTH), seed.added()
    if together is None or not made or together["new"] < known or not learned(seed)(known):
        return None
    return max(made.values()) >= kept * together["new"]


def adapters_add_up(seed: Seed, kept: float, known: float) -> bool | None:
    """Whether the sum of two adapters knows what each of them does."""
    added, prefix = seed.model(ADDED_ADAPTERS), f"{ADAPTER}, "
    if added is None or not learned(seed, prefix)(known):
        return None
    return all(
        (own := seed.model(prefix + half)) is not None and added[half] >= kept * own[half]
        for half in HALVES
    )


def switches(seed: Seed, less: float, known: float) -> bool | None:
    """Whether models that are switched know no less than one trained on both."""
    together, switched = seed.model(BOTH), seed.model(SWITCHED)
    if together is None or switched is None or together["new"] < known:
        return None
    return all(switched[group] >= together[group] - less for group in ("old", *HALVES))


def no_barrier(seed: Seed, most: float, known: float) -> bool | None:
    """Whether the loss does not rise between both fine-tuned runs."""
    found = [seed.barrier(BETWEEN, split) for split in ("old", "new")]
    if any(one is None for one in found) or not learned(seed)(known):
        return None
    return all(one is not None and one <= most for one in found)


def no_own_barrier(seed: Seed, most: float) -> bool | None:
    """Whether a run has no barrier with itself."""
    found = [seed.barrier(ITSELF, split) for split in ("old", "new")]
    if any(one is None for one in found):
        return None
    return all(one is not None and one <= most for one in found)
