"""Where the texts come from that a widget browses: the biographies of a corpus, or texts that are given."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import SupportsIndex

from interp.biographies import FORMS, Corpus
from interp.biographies.forms import BIOGRAPHY
from interp.errors import ArgumentError, ConfigError, suggest
from interp.maps.people import map_text
from interp.maps.texts import MapText


@dataclass(frozen=True)
class People:
    """One text about everybody in a population, in some form, wordings and draw (see `map_text`)."""

    corpus: Corpus
    wordings: str
    draw: int
    form: str = BIOGRAPHY

    def number(self, which: SupportsIndex | str) -> int:
        """The individual, by number or by name."""
        return self.corpus.population.individual(which)

    def matches(self, which: SupportsIndex | str) -> list[tuple[int, str]]:
        """Individuals and names of all whom a name can mean; none for a number."""
        population = self.corpus.population
        if not isinstance(which, str) or which.isdecimal():
            return []
        return [(number, population.name(number)) for number in population.matches(which)]

    def text(self, number: int) -> MapText:
        """An individual's biography."""
        return map_text(self.corpus, number, self.wordings, self.draw, self.form)

    def listed(self) -> None:
        """No list of all texts: people are looked up."""
        return

    def forms(self, number: int, n_ctx: int) -> list[str]:
        """The forms in which an individual can be shown to a model with this context."""
        return [form for form in FORMS if self._fits(replace(self, form=form), number, n_ctx)]

    @staticmethod
    def _fits(people: "People", number: int, n_ctx: int) -> bool:
        try:
            return len(people.text(number)) <= n_ctx
        except ConfigError:  # the tokenizer does not know its words
            return False

    def longest(self, number: int) -> MapText:
        """What the checkpoints are chosen by: the own biography, as all are of about one length."""
        return self.text(number)


class GivenTexts:
    """Texts that are given, numbered by their places.

    Raises:
        ArgumentError: there is none.
    """

    def __init__(self, texts: Sequence[MapText]) -> None:
        if not texts:
            raise ArgumentError("There is no text to browse; give at least one.")
        self._texts = [replace(text, number=number) for number, text in enumerate(texts)]

    def number(self, which: SupportsIndex | str) -> int:
        """The place of the text that is meant.

        Raises:
            ArgumentError: there is no such place, or not exactly one text of that name.
        """
        names = [text.name for text in self._texts]
        if isinstance(which, str) and not which.isdecimal():
            places = [number for number, name in enumerate(names) if name == which]
            if len(places) > 1:
                raise ArgumentError(
                    f"{len(places)} texts are called {which!r}: numbers {', '.join(map(str, places))}. Give "
                    "a number."
                )
            if not places:
                raise ArgumentError(
                    f"No text is called {which!r}.{suggest(which, names)} Give a name or a number, 0 to "
                    f"{len(names) - 1}."
                )
            return places[0]
        try:
            number = int(which)
        except (TypeError, ValueError) as error:  # ValueError: more digits than Python reads
            raise ArgumentError("Give a text by its number or its name.") from error
        if not 0 <= number < len(names):
            raise ArgumentError(
                f"There is no text {number}; the texts have the numbers 0 to {len(names) - 1}."
            )
        return number

    def matches(self, which: SupportsIndex | str) -> list[tuple[int, str]]:
        """Places and names of all texts of a name; none for a number."""
        return [(n, text.name) for n, text in enumerate(self._texts) if text.name == which]

    def text(self, number: int) -> MapText:
        """The text at a place."""
        return self._texts[number]

    def listed(self) -> list[MapText]:
        """All texts, to choose from."""
        return self._texts

    def longest(self, number: int) -> MapText:
        """What the checkpoints are chosen by: the longest text, whichever is begun with."""
        return max(self._texts, key=len)


TextSource = People | GivenTexts
"""Texts by number: both have `number`, `matches`, `text`, `listed` and `longest`."""
