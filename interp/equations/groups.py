"""Groups of facts: by attribute, by people, by a shared name, by form; by relation or subject."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int64

from interp.biographies import Corpus
from interp.biographies.forms import BIOGRAPHY, Individuals
from interp.biographies.lists import NAME_PARTS
from interp.errors import (
    ArgumentError,
    NothingToMeasureError,
    listed,
    require_known,
    suggest,
    whole_number,
)
from interp.knowledge import chosen_evenly

ATTRIBUTE, PEOPLE, FORM, RELATION, SUBJECT = "attribute", "people", "form", "relation", "subject"
NAMES = tuple(f"{part} name" for part in NAME_PARTS)
GROUPINGS = (ATTRIBUTE, PEOPLE, *NAMES, FORM)
"""How facts about people are grouped."""
OF_FACTS = (RELATION, SUBJECT)
"""How facts of common knowledge are."""
Labels = Int64[np.ndarray, " fact"]


class Grouping:
    """Which group every fact is in, by a column of the facts.

    Attributes:
        name: What the groups are by.
        names: The groups.
        individuals: Whose facts they are (of people).
        forms: In which forms (of people).
    """

    def __init__(
        self,
        name: str,
        column: str,
        groups: Mapping[str, Iterable[Any]],
        individuals: Individuals | None = None,
        forms: Sequence[str] = (BIOGRAPHY,),
    ) -> None:
        self.name, self.individuals, self.forms = name, individuals, tuple(forms)
        self.names = list(groups)
        self._column = column
        self._of = {key: i for i, keys in enumerate(groups.values()) for key in keys}

    def of(self, facts: pd.DataFrame) -> Labels:
        """The group of each fact, -1 for none."""
        found: Labels = np.array(
            [self._of.get(key, -1) for key in facts[self._column]], dtype=np.int64
        )
        return found

    def require(self, labels: Labels) -> None:
        """Checks that there are two groups, and that each has facts."""
        counts = np.bincount(labels[labels >= 0], minlength=len(self.names))
        if len(self.names) < 2:
            raise NothingToMeasureError(
                f"By {self.name} there is {len(self.names) or 'no'} group; interference is between two or "
                "more. Group by something else."
            )
        if not counts.all():
            raise NothingToMeasureError(
                f"The group {self.names[int(counts.argmin())]!r} has no fact that is asked for; leave it out."
            )


def grouping_of(
    corpus: Corpus,
    by: str | Mapping[str, Any],
    n_individuals: int,
    n_groups: int,
    forms: Sequence[str] | None,
) -> Grouping:
    """A grouping of facts about the people trained on.

    Raises:
        ArgumentError: no such grouping, or people in two groups or none.
        NothingToMeasureError: there are no two groups.
    """
    told = [BIOGRAPHY] if forms is None else listed(forms, "forms")
    if not told:
        raise ArgumentError("forms names no form; leave it out for the biography.")
    if not isinstance(by, str):
        groups = _people_given(corpus, by)
        return Grouping("groups", "individual", groups, _everybody(groups), told)
    require_known([by], GROUPINGS, "grouping", ", or give people by the name of their group")
    n = corpus.population.config.n_individuals
    if by in (ATTRIBUTE, FORM):
        people = np.unique(np.linspace(0, n - 1, min(n, n_individuals)).astype(np.int64))
        if by == FORM:
            every = _forms_known(corpus) if forms is None else told
            return Grouping(by, "form", {form: [form] for form in every}, people, every)
        names = {one: [one] for one in corpus.attributes}
        return Grouping(by, "attribute", names, people, told)
    each = max(2, n_individuals // n_groups)
    if by == PEOPLE:
        groups = {
            f"{part[0]} to {part[-1]}": chosen_evenly(part, each, False).tolist()
            for part in np.array_split(np.arange(n), min(n_groups, n // 2))
            if len(part)
        }
    else:
        groups = _sharing(corpus, NAMES.index(by), each, n_groups)
    return Grouping(by, "individual", groups, _everybody(groups), told)


def _forms_known(corpus: Corpus) -> list[str]:
    """The forms that the run's settings name, the biography first."""
    return list(dict.fromkeys([BIOGRAPHY, *sorted(corpus.data.forms)]))


def _everybody(groups: Mapping[str, Sequence[int]]) -> Individuals:
    every: Individuals = np.array([i for own in groups.values() for i in own], dtype=np.int64)
    return every


def _sharing(corpus: Corpus, part: int, each: int, n_groups: int) -> dict[str, list[int]]:
    """The people who share one part of their names, for the names that most have."""
    population = corpus.population
    own = population.names[population.trained, part]
    pool = population.lexicon.names[part]
    values, counts = np.unique(own, return_counts=True)
    order = np.lexsort((values, -counts))
    chosen = [int(values[i]) for i in order if counts[i] >= 2 and pool[values[i]]][:n_groups]
    if len(chosen) < 2:
        raise NothingToMeasureError(
            f"No two {NAMES[part]}s are each shared by two people trained on; group by something else."
        )
    return {pool[value]: np.flatnonzero(own == value)[:each].tolist() for value in chosen}


def _people_given(corpus: Corpus, by: Any) -> dict[str, list[int]]:
    """People by the name of their group, as a caller gives them."""
    if not isinstance(by, Mapping):
        raise ArgumentError(
            f"by={by!r}: give one of {', '.join(GROUPINGS)}, or people by the name of their group, as in "
            '{"first": [0, 1], "second": [2, 3]}.'
        )
    if not by:
        raise ArgumentError("by has no group of people; give two or more, or leave it out.")
    groups = {}
    for name, people in by.items():
        if isinstance(people, str) or not isinstance(people, Iterable | slice):
            raise ArgumentError(
                f"The group {name!r} holds {people!r}; give people's numbers in a list."
            )
        given = (
            people
            if isinstance(people, slice)
            else np.array([whole_number(i, f"group {name!r}: person") for i in people], np.int64)
        )
        groups[str(name)] = corpus.population.chosen(given).tolist()
    _require_apart(groups)
    return groups


def _require_apart(groups: Mapping[str, Sequence[Any]]) -> None:
    """Refuses a member of two groups."""
    seen: dict[Any, str] = {}
    for name, members in groups.items():
        for member in members:
            if seen.get(member) == name:
                raise ArgumentError(f"{member!r} is in the group {name!r} twice; give it once.")
            if member in seen:
                raise ArgumentError(
                    f"{member!r} is in the groups {seen[member]!r} and {name!r}; groups share nobody."
                )
            seen[member] = name


def grouping_of_facts(facts: pd.DataFrame, by: str | Mapping[str, Any], n_groups: int) -> Grouping:
    """A grouping of facts of common knowledge: by relation, by subject, or subjects by group."""
    if isinstance(by, str):
        if by == ATTRIBUTE:
            by = RELATION
        require_known([by], OF_FACTS, "grouping", ", or give subjects by the name of their group")
        most = facts[by].value_counts(sort=True)
        names = [str(name) for name in dict.fromkeys(facts[by])]
        if by == SUBJECT:
            names = [name for name in names if name in set(most.index[:n_groups])]
        return Grouping(by, by, {name: [name] for name in names})
    if not isinstance(by, Mapping):
        raise ArgumentError(
            f"by={by!r}: give relation, subject, or subjects by the name of their group."
        )
    groups = {str(name): listed(subjects, f"group {name!r}") for name, subjects in by.items()}
    known = set(facts["subject"])
    for name, subjects in groups.items():
        unknown = [one for one in subjects if one not in known]
        if unknown or not subjects:
            what = f"no subject {unknown[0]!r}" if unknown else "nobody"
            near = suggest(unknown[0], known) if unknown else ""
            raise ArgumentError(
                f"The group {name!r} has {what} of the facts.{near} See facts.subjects."
            )
    _require_apart(groups)
    return Grouping("groups", SUBJECT, groups)
