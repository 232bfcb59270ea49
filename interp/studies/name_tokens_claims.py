"""What is claimed of where in a name a person is known, and the rules by which tables agree or disagree.

The rules were written down before any run of the study. Known was that with ordinary names swaps of MLP 0
at the middle name are followed most (`artifacts/gallery/memory_tiny`), and that with 10 first and 10 middle
names the last name counts (`artifacts/gallery/memory_variants.csv`).

The rules about the last token of a name were written after eight of the nine conditions had been run and
the last token of a name had counted for at most 9% of the pairs of any, and before what they ask about was
measured. Those about loss on other tokens were made of seeds 0 to 4 and are held against seeds 5 to 9
alone, which were run after.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isnan

import pandas as pd

from interp.seeds import spread
from interp.studies.power import each_seed
from interp.studies.rules import Claim, Rule, Statement
from interp.studies.study import Tables

ORDINARY, NO_LOSS, REVERSED = "ordinary", "no loss on names", "reversed"
VALUES = "loss on values only"
KNOWN, TOLD = 0.9, 0.9
"""The share of facts that a run has to know, and of people that a name has to tell apart."""
CONFIRM_FROM = 5
"""The first seed that the rule about loss on other tokens was not made of."""
HALF, NEVER, HARDLY = 0.5, 0.1, 0.4
"""Thresholds: a share of pairs or of another share, hardly any pairs, hardly any effect."""
_FEWEST = 3
"""Conditions with names of several tokens without which a seed cannot tell."""
_OWN = "a question of this project, not measured before"
_PAPER = "names are grouped at their last token, 4,000 people and more (Zucchet et al. 2025)"


@dataclass(frozen=True)
class Seed:
    """What one seed measured, of runs that know people.

    Attributes:
        places: By kind of names, its rows of the table "places", by `token`.
        number: Which seed.
    """

    places: dict[str, pd.DataFrame]
    number: int = 0

    def share(self, names: str, token: int) -> float | None:
        """For how many pairs a token counts most."""
        own = self.places.get(names)
        return None if own is None else float(own["strongest"].get(token, 0.0))

    def place(self, names: str, column: str = "strongest") -> int | None:
        """The token at which something is largest."""
        own = self.places.get(names)
        return None if own is None else int(str(own[column].idxmax()))

    def first_that_tells(self, names: str, told: float) -> int:
        """The first token up to which a name tells at least so many people apart; else the last one."""
        own = self.places[names]["determined"]
        found = (own >= told).idxmax() if (own >= told).any() else own.index[-1]
        return int(str(found))

    def at_names(self, names: str) -> float | None:
        """The part of all that names do that swaps of MLP 0 at single tokens bring, in sum."""
        own = self.places.get(names)
        found = float("nan") if own is None else own["effect"].astype(float).sum(skipna=False)
        return None if isnan(found) else float(found)

    @property
    def several(self) -> list[str]:
        """Kinds of names of more than one token."""
        return [names for names, own in self.places.items() if len(own) > 1]


def seeds_of(tables: Tables, known: float = KNOWN) -> list[Seed]:
    """What each seed measured; runs that know fewer facts than `known` are left out."""
    places, of_runs = tables["places"], tables["known"]
    good = of_runs[of_runs["accuracy"].astype(float) >= known][["seed", "names"]]
    found = places.merge(good, on=["seed", "names"])
    return [
        Seed(
            {
                str(names): own.set_index("token")
                for names, own in rows.groupby("names", sort=False)
            },
            int(str(seed)),
        )
        for seed, rows in found.groupby("seed")
    ]


def _at_middle(seed: Seed, share: float) -> bool | None:
    found = seed.share(ORDINARY, 2)
    return None if found is None else found >= share


def _without_loss(seed: Seed) -> tuple[float, float, float] | None:
    """The share of the middle name with ordinary names; those of middle and last without loss on names."""
    control, without, at_last = (
        seed.share(ORDINARY, 2),
        seed.share(NO_LOSS, 2),
        seed.share(NO_LOSS, 3),
    )
    if control is None or without is None or at_last is None:
        return None
    return control, without, at_last


def _prediction(seed: Seed, share: float, last: float) -> bool | None:
    found = _without_loss(seed)
    return None if found is None else found[1] <= share * found[0] and found[2] >= last


def _left_in_middle(seed: Seed) -> float | None:
    found = _without_loss(seed)
    return found[1] / found[0] if found and found[0] else None


def _moved_to_last(seed: Seed) -> float | None:
    found = _without_loss(seed)
    return found[2] if found else None


def _share_of_conditions(
    seed: Seed, holds: Callable[[Seed, str], bool], fewest: int = _FEWEST
) -> float | None:
    """In how many conditions with names of several tokens something holds."""
    found = [holds(seed, names) for names in seed.several]
    return None if len(found) < fewest else sum(found) / len(found)


def _at_first_that_tells(seed: Seed, names: str, told: float = TOLD) -> bool:
    return seed.place(names) == seed.first_that_tells(names, told)


def _where_looked(seed: Seed, names: str) -> bool:
    return seed.place(names) == seed.place(names, "attention")


def _tells(seed: Seed, told: float, fewest: int) -> bool | None:
    found = _share_of_conditions(seed, partial(_at_first_that_tells, told=told), fewest)
    return None if found is None else found == 1


def _order(seed: Seed) -> bool | None:
    one, other = seed.place(ORDINARY), seed.place(REVERSED)
    return None if one is None or other is None else one == other


def _attention(seed: Seed, fewest: int) -> bool | None:
    found = _share_of_conditions(seed, _where_looked, fewest)
    return None if found is None else found == 1


def _free_without_duty(seed: Seed, last: float, never: float) -> bool | None:
    found = seed.share(VALUES, 3)
    if found is None or never < found < last:
        return None
    return found >= last


def _values_only(seed: Seed, first: int = CONFIRM_FROM) -> tuple[float, float] | None:
    """What MLP 0 brings at names with ordinary training and with loss on values only."""
    control, values = seed.at_names(ORDINARY), seed.at_names(VALUES)
    if seed.number < first or control is None or values is None:
        return None
    return control, values


def _drawn_by_loss(seed: Seed, first: int, hardly: float) -> bool | None:
    found = _values_only(seed, first)
    return None if found is None else found[1] <= hardly * found[0]


def _left_by_loss(seed: Seed) -> float | None:
    found = _values_only(seed)
    return found[1] / found[0] if found and found[0] > 0 else None


def _less_without(seed: Seed, first: int = CONFIRM_FROM) -> float | None:
    control, without = seed.at_names(ORDINARY), seed.at_names(NO_LOSS)
    if seed.number < first or control is None or without is None:
        return None
    return control - without


def _said_at_names(seeds: Sequence[Seed]) -> str:
    parts = []
    for which, own in (("seeds before", _before(seeds)), ("seeds since", _since(seeds))):
        said = ", ".join(
            f"{names} {spread([e for seed in own if (e := seed.at_names(names)) is not None])}"
            for names in (ORDINARY, NO_LOSS, VALUES)
        )
        parts.append(f"{which}: {said}")
    return f"part of all that names do that MLP 0 brings at single name tokens, {'; '.join(parts)}"


def _before(seeds: Sequence[Seed]) -> list[Seed]:
    return [seed for seed in seeds if seed.number < CONFIRM_FROM]


def _since(seeds: Sequence[Seed]) -> list[Seed]:
    return [seed for seed in seeds if seed.number >= CONFIRM_FROM]


def _later_costs(seed: Seed, names: str) -> tuple[float, float]:
    """By how much more the last token costs in the first layer, and those before, in sum, in the last."""
    own = seed.places[names][["read_first", "read_last"]].astype(float)
    last, before = own.iloc[-1], own.iloc[:-1].sum()
    return (
        float(last["read_first"] - last["read_last"]),
        float(before["read_last"] - before["read_first"]),
    )


def _costs(seed: Seed, which: int, fewest: int = _FEWEST) -> dict[str, float] | None:
    """One of both by kind of names."""
    if len(seed.several) < fewest:
        return None
    return {names: _later_costs(seed, names)[which] for names in seed.several}


def _last_read_early(seed: Seed, fewest: int) -> bool | None:
    last, before = (_costs(seed, which, fewest) for which in (0, 1))
    if last is None or before is None:
        return None
    return all(more > 0 for more in (*last.values(), *before.values()))


def _said_costs(seeds: Sequence[Seed]) -> str:
    parts = []
    for names in dict.fromkeys(n for seed in seeds for n in seed.several):
        own = [seed.places[names] for seed in seeds if names in seed.places]
        costs = []
        for column in ("read_first", "read_last"):
            means = [sum(float(one[column][t]) for one in own) / len(own) for t in own[0].index]
            costs.append(", ".join(f"{mean:.1f}" for mean in means))
        parts.append(f"{names}: {costs[0]} in the first layer, {costs[1]} in the last")
    return (
        f"nats that cutting each token costs, mean over seeds, {'; '.join(parts) or 'not measured'}"
    )


def _said_shares(*kinds: str) -> Callable[[Sequence[Seed]], str]:
    def words(seeds: Sequence[Seed]) -> str:
        parts = []
        for names in kinds or dict.fromkeys(n for seed in seeds for n in seed.several):
            own = [seed.places[names]["strongest"] for seed in seeds if names in seed.places]
            if own:
                tokens = own[0].index
                shares = ", ".join(spread([float(one[t]) for one in own]) for t in tokens)
                parts.append(f"{names}: {shares}")
        return (
            f"share of pairs for whom each token counts most, {'; '.join(parts) or 'not measured'}"
        )

    return words


def _said_places(seeds: Sequence[Seed]) -> str:
    parts = []
    for names in dict.fromkeys(n for seed in seeds for n in seed.several):
        there = [seed for seed in seeds if names in seed.places]
        tells = [str(seed.first_that_tells(names, TOLD)) for seed in there]
        found = [f"{seed.place(names)}" for seed in there]
        looked = [f"{seed.place(names, 'attention')}" for seed in there]
        parts.append(
            f"{names}: {', '.join(found)} (tells: {', '.join(tells)}; attention: {', '.join(looked)})"
        )
    return f"token that counts most, by seed, {'; '.join(parts) or 'not measured'}"


_KNOWN = f" Runs that know fewer than {KNOWN:.0%} of the facts do not count."
_OF_SEVERAL = " A seed with fewer than {fewest} such conditions cannot tell."
STATEMENTS: tuple[Statement[Seed], ...] = (
    Statement(
        "With ordinary names a person is known at the middle name",
        _PAPER,
        Rule.each(
            "With ordinary names, a swap of MLP 0's output at the middle name moves the answer more than at "
            "any other name token for at least {share:.0%} of the pairs." + _KNOWN,
            _at_middle,
            share=HALF,
        ),
        _said_shares(ORDINARY),
        each_seed(
            "share of pairs for whom it is the middle name", lambda seed: seed.share(ORDINARY, 2), HALF,
            least=0, most=1,
        ),
    ),
    Statement(
        "A person is known at the middle name because the last name has to be predicted there",
        _OWN,
        Rule.each(
            "With no loss on name tokens, the share of pairs for whom the middle name counts most is at most "
            "{share:g} times that with ordinary names, and for at least {last:.0%} it is the last name."
            + _KNOWN,
            _prediction,
            share=HALF, last=HALF,
        ),
        _said_shares(ORDINARY, NO_LOSS),
        (
            each_seed(
                "share of pairs for whom it is the middle name, times that with ordinary names",
                _left_in_middle, HALF, least=0,
            ),
            each_seed("share of pairs for whom it is the last name", _moved_to_last, HALF, least=0, most=1),
        ),
    ),
    Statement(
        "A person is known at the first token that tells who it is",
        _OWN,
        Rule.each(
            "In every condition with names of several tokens, the token at which a swap of MLP 0's output "
            "counts most for most pairs is the first up to which names tell {told:.0%} of the people apart "
            "(the last, if none does)." + _OF_SEVERAL + _KNOWN,
            _tells,
            told=TOLD, fewest=_FEWEST,
        ),
        _said_places,
        each_seed(
            "share of conditions in which it is the first token that tells",
            partial(_share_of_conditions, holds=_at_first_that_tells), 1, least=0, most=1,
        ),
    ),
    Statement(
        "The order of names makes no difference",
        _OWN,
        Rule.each(
            "With names in reversed order, the token that counts most for most pairs is in the same place as "
            "with ordinary ones." + _KNOWN,
            _order,
        ),
        _said_shares(ORDINARY, REVERSED),
    ),
    Statement(
        "Attention goes to the token at which a person is known",
        _OWN,
        Rule.each(
            "In every condition with names of several tokens, the name token that gets most of the last "
            "layer's attention from where the value is predicted is the one at which swaps count most."
            + _OF_SEVERAL
            + _KNOWN,
            _attention,
            fewest=_FEWEST,
        ),
        _said_places,
        each_seed(
            "share of conditions in which both are the same token",
            partial(_share_of_conditions, holds=_where_looked), 1, least=0, most=1,
        ),
    ),
    Statement(
        "The last token of a name holds nobody because it has to predict the sentence",
        f"{_OWN}; rule added after the other conditions were seen",
        Rule.each(
            "With loss on values only, the last name counts most for at least {last:.0%} of the pairs. With "
            "{never:.0%} or fewer it does not hold; seeds between cannot tell." + _KNOWN,
            _free_without_duty,
            last=HALF, never=NEVER,
        ),
        _said_shares(ORDINARY, VALUES),
        each_seed(
            "share of pairs for whom it is the last name", lambda seed: seed.share(VALUES, 3), HALF, NEVER,
            least=0, most=1,
        ),
    ),
    Statement(
        "The last token of a name is read in the first layer, those before it in the last",
        f"{_OWN}; rule added after the other conditions were seen",
        Rule.each(
            "In every condition with names of several tokens, cutting the value position from the last name "
            "token costs more in the first layer than in the last, and cutting it from those before costs "
            "more, in sum, in the last layer." + _OF_SEVERAL + _KNOWN,
            _last_read_early,
            fewest=_FEWEST,
        ),
        _said_costs,
        (
            each_seed(
                "nats that cutting the last name token costs more in the first layer than in the last",
                partial(_costs, which=0), 0,
            ),
            each_seed(
                "nats that cutting those before, in sum, costs more in the last layer than in the first",
                partial(_costs, which=1), 0,
            ),
        ),
    ),
)  # fmt: skip
CONFIRMATORY: tuple[Statement[Seed], ...] = (
    Statement(
        "It is loss on tokens that are no values that brings the memory to names",
        f"{_OWN}; rule made of seeds 0 to 4",
        Rule.each(
            "What swaps of MLP 0 at single name tokens bring of all that names do, in sum over tokens, is "
            "with loss on values only at most {hardly:g} times what it is with ordinary training. Seeds "
            "below {first} cannot tell." + _KNOWN,
            _drawn_by_loss,
            first=CONFIRM_FROM, hardly=HARDLY,
        ),
        _said_at_names,
        each_seed(
            "with loss on values only, times what it is with ordinary training", _left_by_loss, HARDLY
        ),
    ),
    Statement(
        "Loss on name tokens has a part in that",
        f"{_OWN}; rule made of seeds 0 to 4",
        Rule.interval(
            "The same sum with ordinary training less that with no loss on names, of seeds from {first} on."
            + _KNOWN,
            _less_without,
            above=0, first=CONFIRM_FROM,
        ),
        _said_at_names,
        each_seed("ordinary less no loss on names", _less_without, 0),
    ),
)  # fmt: skip
"""Held against all seeds; the others against those before `CONFIRM_FROM`."""


def held_against(tables: Tables) -> list[Claim]:
    """All claims, held against the study's tables."""
    seeds = seeds_of(tables)
    found = [statement.against(_before(seeds)) for statement in STATEMENTS]
    found += [statement.against(seeds) for statement in CONFIRMATORY]
    if seeds or tables["known"].empty:
        return found
    none = f"no run knows {KNOWN:.0%} of its facts"
    return [replace(claim, measured=none) for claim in found]
