"""How the attribute is told: the fewest words to look at, found so that no other place of any text has them.

A *check* asks whether some token stands so many places back. A *pattern* is a set of checks that all hold
at the last token before the value, in wordings of one attribute, and never all hold anywhere else in a
biography. As all wordings are known, that is a search and not a fit: `patterns` tries every place of every
sentence, with every length of name and value, and whatever may precede it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from interp.compiled.facts import NAME, Knowledge, Wording
from interp.errors import ArgumentError, short

END = -1
"""A token that ends a sentence, `<bos>` included."""
A_NAME = -2
"""A token of a name."""
_ANYTHING = frozenset({-3})

Features = frozenset[int]
"""What may be true of a token: its id, `END`, `A_NAME`; `_ANYTHING` of one that nothing is known of."""


@dataclass(frozen=True, order=True)
class Check:
    """Whether a token (or `END`, `A_NAME`) stands `back` places before."""

    back: int
    feature: int


@dataclass(frozen=True)
class Pattern:
    """Checks that all hold where the value of an attribute begins, and nowhere else."""

    attribute: int
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class _Window:
    """What may stand at the last places of a text, the latest first; None as label: no value follows."""

    label: int | None
    features: tuple[Features, ...]
    certain: tuple[Features, ...]
    wording: int


def patterns(facts: Knowledge) -> tuple[Pattern, ...]:
    """The patterns of all wordings: exactly one of them holds wherever a value begins.

    Raises:
        ArgumentError: no words before a value tell it from another place.
    """
    windows = list(dict.fromkeys(_windows(facts)))
    may = _table(windows)
    labels = np.array([-1 if w.label is None else w.label for w in windows])
    found: list[Pattern] = []
    covered = np.zeros(len(windows), dtype=bool)
    for index, window in enumerate(windows):
        if window.label is None or covered[index]:
            continue
        others = (labels != window.label) | covered
        checks = _fewest(window, may, others)
        if checks is None:
            source = facts.wordings[window.wording]
            raise ArgumentError(
                f"Wording {_text(facts, source)} of {facts.attributes[source.attribute]!r}: no words before "
                "its value tell the place from all others in biographies, so no model can be compiled. "
                "Change the wording."
            )
        found.append(Pattern(window.label, tuple(sorted(checks))))
        held = np.logical_and.reduce([may[check] for check in checks])
        covered |= held & (labels == window.label)
    return tuple(found)


def _fewest(
    window: _Window, may: dict[Check, np.ndarray], others: np.ndarray
) -> list[Check] | None:
    """Few checks of a window that no other one passes: greedily, then without those not needed."""
    available = [
        Check(back, feature)
        for back, features in enumerate(window.certain)
        for feature in sorted(features)
    ]
    alive, chosen = others.copy(), list[Check]()
    while alive.any():
        left = [int((alive & may[check]).sum()) for check in available]
        if not available or min(left) == alive.sum():
            return None
        best = available[left.index(min(left))]
        chosen.append(best)
        alive &= may[best]
    for check in list(chosen):
        rest = [may[one] for one in chosen if one != check]
        if rest and not (np.logical_and.reduce(rest) & others).any():
            chosen.remove(check)
    return chosen


def _table(windows: list[_Window]) -> dict[Check, np.ndarray]:
    """For every check that a value's place can pass, the windows that may pass it."""
    checks = {
        Check(back, feature)
        for window in windows
        if window.label is not None
        for back, features in enumerate(window.certain)
        for feature in features
    }
    longest = max(len(window.features) for window in windows)
    by_place: dict[tuple[int, int], list[int]] = {}
    unknown = np.zeros((longest, len(windows)), dtype=bool)
    for index, window in enumerate(windows):
        unknown[len(window.features) :, index] = True
        for back, features in enumerate(window.features):
            if features == _ANYTHING:
                unknown[back, index] = True
            for feature in features:
                by_place.setdefault((back, feature), []).append(index)
    table = {}
    for check in checks:
        table[check] = unknown[check.back].copy()
        table[check][by_place.get((check.back, check.feature), [])] = True
    return table


def _windows(facts: Knowledge) -> Iterator[_Window]:
    """Every place of every sentence; places before the sentence's start are anything."""
    names, nothing = frozenset(facts.name_tokens), frozenset[int]()
    start = (
        (frozenset({END, *facts.ends}), frozenset({END})) if facts.ends else (_ANYTHING, nothing)
    )

    def one(token: int) -> Features:
        extra = {END} if token in facts.ends else set()
        return frozenset({token, *extra, *({A_NAME} if token in names else ())})

    def some(tokens: frozenset[int]) -> Features:
        return frozenset().union(*map(one, tokens))

    values = [_value_places(facts, a) for a in range(len(facts.attributes))]
    for number, wording in enumerate(facts.wordings):
        for length in facts.name_lengths:
            places = [facts.name_places[length, back] for back in reversed(range(length))]
            prefix: list[tuple[Features, Features]] = []  # what may hold, and what is certain to
            for symbol in wording.before:
                if symbol == NAME:
                    prefix += [(some(place), frozenset({A_NAME})) for place in places]
                else:
                    prefix.append((one(int(symbol)), one(int(symbol))))
            for n_tokens, of_value in values[wording.attribute].items():
                rest = [*map(some, of_value), *map(one, wording.after)]
                sentence = [*prefix, *((features, nothing) for features in rest)]
                for place in range(len(sentence)):
                    label = wording.attribute if place == len(prefix) - 1 else None
                    if place < len(prefix) and n_tokens != min(values[wording.attribute]):
                        continue  # the same for every length of the value
                    seen = [*reversed(sentence[: place + 1]), start]
                    may, certain = zip(*seen, strict=True)
                    yield _Window(label, may, certain, number)


def _value_places(facts: Knowledge, attribute: int) -> dict[int, list[frozenset[int]]]:
    """By length of a value, the tokens that stand at each of its places."""
    places: dict[int, list[set[int]]] = {}
    for value in dict.fromkeys(facts.pools[attribute]):
        own = places.setdefault(len(value), [set() for _ in value])
        for place, token in zip(own, value, strict=True):
            place.add(token)
    return {n: [frozenset(place) for place in own] for n, own in places.items()}


def _text(facts: Knowledge, wording: Wording) -> str:
    parts = ["NAME" if s == NAME else facts.token_text[int(s)] for s in wording.before]
    return short(" ".join(parts), 60)
