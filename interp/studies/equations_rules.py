"""What each seed of the study of facts as equations says of its claims; None where it cannot tell.

Before each rule stands the number that it reads, of which claims have intervals.
"""

from collections.abc import Callable
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


def middle(seed: Seed, low: float, high: float) -> float | None:
    """The share of facts from 0.2 to 0.8 of the baseline when the mean is about half of it."""
    found = seed.halfway(low, high)
    return None if found.empty else float(found["middle"].mean())


def all_or_nothing(seed: Seed, few: float, many: float, low: float, high: float) -> bool | None:
    """Whether few facts are halfway when the mean is."""
    found = middle(seed, low, high)
    if found is None:
        return None
    return True if found <= few else False if found >= many else None


def how_much_later(seed: Seed, by: str) -> float | None:
    """By how much more groups agree with themselves once facts are known than in the plateau."""
    before, after = (seed.agreement(by, phase) for phase in ("plateau", "knowledge"))
    return None if before is None or after is None else after - before


def later(seed: Seed, by: str, more: float) -> bool | None:
    """Whether that is so much."""
    found = how_much_later(seed, by)
    return None if found is None else found >= more


def most_bits(seed: Seed, exposures: int, full: float) -> dict[str, float]:
    """The most bits a parameter of models that were told too much, by width."""
    told = _told_too_much(seed, exposures, full)
    return {width: float(at["bits_per_parameter"].max()) for width, at in told.items()}


def holds(seed: Seed, exposures: int, low: float, high: float, full: float) -> bool | None:
    """Whether they hold so many bits a parameter."""
    most = most_bits(seed, exposures, full).values()
    return all(low <= bits <= high for bits in most) if most else None


def kept_bits(seed: Seed, exposures: int, full: float) -> dict[str, float]:
    """What a model of the most people holds, as a share of the most it ever does, by width."""
    told = _told_too_much(seed, exposures, full).items()
    bits = {width: (float(at["bits"].iloc[-1]), float(at["bits"].max())) for width, at in told}
    return {width: last / most if most else 1.0 for width, (last, most) in bits.items()}


def keeps(seed: Seed, exposures: int, kept: float, full: float) -> bool | None:
    """Whether that is about as many bits."""
    shares = kept_bits(seed, exposures, full).values()
    return all(share >= kept for share in shares) if shares else None


def _told_too_much(seed: Seed, exposures: int, full: float) -> dict[str, pd.DataFrame]:
    """The widths at which a model of the most people does not hold a part of what it was told."""
    ends = [(width, at, at.iloc[-1]) for width, at in seed.held(exposures).items()]
    return {
        f"width {width}": at
        for width, at, last in ends
        if 1 - last["loss"] / last["baseline"] < full
    }


def least_sure(seed: Seed) -> float | None:
    """The smallest p(A) + p(B) of all mixtures."""
    found = [seed.both_values(name) for name in seed.mixed().values()]
    return min((sum(both) for both in found if both is not None), default=None)


def off_share(seed: Seed, sure: float) -> dict[str, float] | None:
    """How far p(A) is from the share of A, by mixture."""
    least = least_sure(seed)
    if least is None or least < sure:
        return None
    found = {share: seed.both_values(name) for share, name in seed.mixed().items()}
    return {f"A in {s:g}": abs(both[0] - s) for s, both in found.items() if both is not None}


def averages(seed: Seed, within: float, sure: float) -> bool | None:
    """Whether p(A) is the share of A in every mixture."""
    found = off_share(seed, sure)
    return None if found is None else all(off <= within for off in found.values())


def _until(seed: Seed, share: float) -> tuple[float, float] | None:
    """Steps until other facts are known without contradictions, and where there are most."""
    names = list(seed.mixed().values())
    control = seed.until(CONTROL, share)
    found = seed.until(names[0], share) if names else None
    if control is None or found is None or control == float("inf"):
        return None
    return control, found


def as_soon(seed: Seed, share: float) -> float | None:
    """The first as a share of the second; 0 where that is never."""
    found = _until(seed, share)
    return found[0] / found[1] if found and found[1] else None


def slows(seed: Seed, more: float, share: float) -> bool | None:
    """Whether other facts are known later where facts contradict each other most."""
    found = _until(seed, share)
    return None if found is None else found[1] >= (1 + more) * found[0]


def share_of_last(seed: Seed, sure: float) -> float | None:
    """What the last one has of the probability of both values."""
    both = seed.both_values(A_THEN_B)
    return None if both is None or sum(both) < sure else both[1] / sum(both)


def last_wins(seed: Seed, most: float, sure: float) -> bool | None:
    """Whether of both values the last one is believed."""
    found = share_of_last(seed, sure)
    return None if found is None else found >= most


def share_lost(seed: Seed, known: float) -> dict[str, float] | None:
    """What of the first subsystem is lost in the stage of the second, by order, as a share."""
    found = {}
    for order, first, second, place in (
        (FIRST_ORDER, "one", "two", 0),
        (SECOND_ORDER, "two", "one", 1),
    ):
        before, after = seed.after(order, first), seed.after(order, second)
        if before is None or after is None or before[place] < known:
            return None
        found[f"{first} before {second}"] = 1 - after[place] / before[place]
    return found


def lost(seed: Seed, less: float, known: float) -> bool | None:
    """Whether what was solved first is known less after the second stage, in both orders."""
    found = {share >= less for share in (share_lost(seed, known) or {}).values()}
    return found.pop() if len(found) == 1 else None


def spans(seed: Seed, known: float) -> dict[str, float] | None:
    """By how much accuracy on each subsystem differs between orders at the end."""
    ends = [seed.after(order, "both") for order in (FIRST_ORDER, SECOND_ORDER, "both")]
    there = [end for end in ends if end is not None]
    if len(there) < len(ends) or max(sum(end) / 2 for end in there) < known:
        return None
    every = (("one", [end[0] for end in there]), ("two", [end[1] for end in there]))
    return {f"subsystem {name}": max(own) - min(own) for name, own in every}


def same_end(seed: Seed, within: float, known: float) -> bool | None:
    """Whether both subsystems are known equally well at the end of all orders."""
    found = spans(seed, known)
    return None if found is None else max(found.values()) <= within


def learned(seed: Seed, prefix: str = "") -> Callable[[float], bool]:
    """Whether both fine-tuned runs know a share of the people that they were trained on."""
    found = [(half, seed.model(f"{prefix}{half}")) for half in HALVES]
    return lambda known: all(of is not None and of[half] >= known for half, of in found)


def share_added(seed: Seed, known: float) -> float | None:
    """What the average or the best sum knows of new people, as a share of what a run on both halves does."""
    together, made = seed.model(BOTH), seed.added()
    if together is None or not made or together["new"] < known or not learned(seed)(known):
        return None
    return max(made.values()) / together["new"]


def adds_up(seed: Seed, kept: float, known: float) -> bool | None:
    """Whether the average or the best sum of task vectors knows both halves."""
    found = share_added(seed, known)
    return None if found is None else found >= kept


def adapters_keep(seed: Seed, known: float) -> dict[str, float] | None:
    """What the sum of two adapters knows of each half, as a share of what that half's own does."""
    added, prefix = seed.model(ADDED_ADAPTERS), f"{ADAPTER}, "
    if added is None or not learned(seed, prefix)(known):
        return None
    own = {half: seed.model(prefix + half) for half in HALVES}
    return {half: added[half] / of[half] for half, of in own.items() if of is not None}


def adapters_add_up(seed: Seed, kept: float, known: float) -> bool | None:
    """Whether the sum of two adapters knows what each of them does."""
    found = adapters_keep(seed, known)
    return None if found is None else all(share >= kept for share in found.values())


def lost_by_switching(seed: Seed, known: float) -> dict[str, float] | None:
    """By how much switched models are below one trained on both, by group of people."""
    together, switched = seed.model(BOTH), seed.model(SWITCHED)
    if together is None or switched is None or together["new"] < known:
        return None
    return {group: together[group] - switched[group] for group in ("old", *HALVES)}


def switches(seed: Seed, less: float, known: float) -> bool | None:
    """Whether models that are switched know no less than one trained on both."""
    found = lost_by_switching(seed, known)
    return None if found is None else all(below <= less for below in found.values())


def barriers(seed: Seed, pair: str = ITSELF) -> dict[str, float] | None:
    """How far the loss rises between two models, by people; None where it is not known of both kinds."""
    found = {split: seed.barrier(pair, split) for split in ("old", "new")}
    there = {f"{split} people": one for split, one in found.items() if one is not None}
    return there if len(there) == len(found) else None


def barriers_between(seed: Seed, known: float) -> dict[str, float] | None:
    """The same between both fine-tuned runs."""
    return barriers(seed, BETWEEN) if learned(seed)(known) else None


def no_barrier(seed: Seed, most: float, known: float) -> bool | None:
    """Whether the loss does not rise between both fine-tuned runs."""
    found = barriers_between(seed, known)
    return None if found is None else all(one <= most for one in found.values())


def no_own_barrier(seed: Seed, most: float) -> bool | None:
    """Whether a run has no barrier with itself."""
    found = barriers(seed)
    return None if found is None else all(one <= most for one in found.values())
