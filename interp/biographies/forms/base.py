"""What a form of text is: it says how one person becomes a sequence.

A form lays out pieces (`interp.biographies.pool`): names, values and texts, with what each is. A form of
one's own is a class: give it a `name`, the texts whose words the tokenizer has to know, and `pieces`.

Example:
    ```python
    class Motto(Form):
        name = "motto"

        @classmethod
        def texts(cls, lexicon, n_people):
            return ["always remember"]

        def __init__(self, stock, settings):
            super().__init__(stock, settings)
            self._remember = stock.pool.add_wording([("always remember", TokenKind.TEXT)])[0]

        @property
        def longest(self):
            return 3 + self.stock.longest_name + self.stock.longest_values[0]

        def pieces(self, generator, individuals, wordings):
            row = PieceRow(self.stock, individuals)
            row.add(self._remember, sentence=0)
            row.add_name(sentence=0, attribute=0, of=[0])
            row.add_value(attribute=0, sentence=0, answer=0)
            return row.pieces()
    ```
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Literal, TypedDict

import numpy as np
from jaxtyping import Integer

from interp.biographies.batch import Batch, TokenKind
from interp.biographies.lexicon import Lexicon
from interp.biographies.lists import NAME_PARTS
from interp.biographies.pool import Pieces, Slices, TokenPool, assembled
from interp.biographies.population import Population
from interp.config import DataConfig

Wordings = Literal["train", "evaluation"]
"""Which of a person's wordings to use: those of training, or those never seen with them."""

Individuals = Integer[np.ndarray, " batch"]
FIRST, MIDDLE, LAST = range(len(NAME_PARTS))


class Stock:
    """A population's names and values in a token pool: what the pieces of every form are made of.

    Args:
        population: Who there is.
        pool: The pool, to which they are added.
    """

    def __init__(self, population: Population, pool: TokenPool) -> None:
        self.population = population
        self.pool = pool
        lexicon = population.lexicon
        self._names = [pool.add(names, TokenKind.NAME) for names in lexicon.names]
        self._values = [pool.add(values, TokenKind.VALUE) for values in lexicon.values.values()]

    def name(self, individuals: Individuals, part: int) -> Slices:
        """One part of people's names, [batch, 2]."""
        own: Slices = self._names[part][self.population.names[individuals, part]]
        return own

    def value(self, individuals: Individuals, attribute: int) -> Slices:
        """People's values of an attribute, [batch, 2]; nothing where they have none."""
        return self.chosen(self._values[attribute], individuals, attribute)

    def chosen(self, of_values: Slices, individuals: Individuals, attribute: int) -> Slices:
        """Of slices for each value of an attribute, those of people's own values, [batch, 2]."""
        own = self.population.values[individuals, attribute]
        chosen: Slices = np.where((own >= 0)[:, None], of_values[own], self.pool.nothing)
        return chosen

    def value_slices(self, attribute: int) -> Slices:
        """Every value of an attribute, [value, 2]."""
        return self._values[attribute]

    @property
    def longest_name(self) -> int:
        """Tokens of the longest name that the pools allow."""
        return sum(int(part[:, 1].max()) for part in self._names)

    @property
    def longest_values(self) -> list[int]:
        """Tokens of the longest value of each attribute."""
        return [int(values[:, 1].max()) for values in self._values]


class Place(TypedDict, total=False):
    """Of a piece: the sentence that it belongs to, the attribute that it is about, and its answer."""

    sentence: np.ndarray | int
    attribute: np.ndarray | int
    answer: np.ndarray | int


class PieceRow:
    """The row of pieces that all sequences of a batch have, filled from left to right.

    Args:
        stock: The names and values.
        individuals: Who the sequences are about.
    """

    def __init__(self, stock: Stock, individuals: Individuals) -> None:
        self.stock = stock
        self.individuals = individuals
        n_attributes = len(stock.population.attributes)
        self._slices: list[np.ndarray] = []
        self._about: list[dict[str, np.ndarray | int]] = []
        self._name = np.full((len(individuals), n_attributes, 2), -1)
        self._value = np.full((len(individuals), n_attributes), -1)
        self._templates = np.full((len(individuals), n_attributes), -1)

    def add(
        self,
        slices: Slices,
        *,
        sentence: np.ndarray | int = -1,
        attribute: np.ndarray | int = -1,
        part: int = -1,
        answer: np.ndarray | int = -1,
        is_value: bool = False,
    ) -> int:
        """Adds a piece: one for all sequences ([2]), or for each its own ([batch, 2]). Its number."""
        self._slices.append(np.broadcast_to(slices, (len(self.individuals), 2)))
        self._about.append(
            {"sentence": sentence, "attribute": attribute, "part": part, "answer": answer,
             "is_value": int(is_value)}
        )  # fmt: skip
        return len(self._slices) - 1

    def add_name(
        self,
        *,
        sentence: np.ndarray | int,
        attribute: np.ndarray | int = -1,
        answer: np.ndarray | int = -1,
        of: Iterable[np.ndarray | int] = (),
        parts: Iterable[int] = (FIRST, MIDDLE, LAST),
        where: np.ndarray | None = None,
    ) -> None:
        """Adds a name: of the sentence, and the one that the attributes `of` are asked of.

        Args:
            sentence: Which sentence.
            attribute: Which attribute the sentence is about, of all sequences or of each.
            answer: Where the name is to be recalled, the number of the answer.
            of: Attributes whose name it is.
            parts: The parts of the name, in their order.
            where: In which sequences; in all by default.
        """
        about: Place = {"sentence": sentence, "attribute": attribute, "answer": answer}
        first = last = len(self._slices)
        for part in parts:
            slices = self.stock.name(self.individuals, part)
            if where is not None:
                slices = np.where(where[:, None], slices, self.stock.pool.nothing)
            last = self.add(slices, part=part, **about)
        self.mark_name(first, last, of)

    def mark_name(self, first: int, last: int, of: Iterable[np.ndarray | int]) -> None:
        """Says that these pieces are the name that some attributes are asked of."""
        rows = np.arange(len(self.individuals))
        for attribute in of:
            self._name[rows, attribute] = first, last

    def add_value(
        self,
        attribute: np.ndarray | int,
        *,
        sentence: np.ndarray | int,
        answer: np.ndarray | int = -1,
        slices: Slices | None = None,
    ) -> None:
        """Adds people's values of an attribute (of all, or one of each), or of other slices [batch, 2]."""
        if slices is None:
            slices = self.of_attributes(self.stock.value, attribute)
        piece = self.add(
            slices, sentence=sentence, attribute=attribute, answer=answer, is_value=True
        )
        self._value[np.arange(len(self.individuals)), attribute] = piece

    def of_attributes(self, slices_of: object, attribute: np.ndarray | int) -> Slices:
        """For each sequence what `slices_of(individuals, attribute)` gives for its own attribute."""
        attributes = np.broadcast_to(attribute, self.individuals.shape)
        found = np.empty((len(self.individuals), 2), dtype=np.int64)
        for one in np.unique(attributes):
            rows = attributes == one
            found[rows] = slices_of(self.individuals[rows], int(one))  # type: ignore[operator]
        return found

    def set_template(self, attribute: np.ndarray | int, template: np.ndarray) -> None:
        """Notes in which template an attribute is told."""
        self._templates[np.arange(len(self.individuals)), attribute] = template

    def pieces(self) -> Pieces:
        """What has been added."""
        size = len(self.individuals)

        def column(name: str) -> np.ndarray:
            values = [np.broadcast_to(about[name], (size,)) for about in self._about]
            return np.stack(values, axis=1)

        return Pieces(
            slices=np.stack(self._slices, axis=1),
            sentence=column("sentence"),
            attribute=column("attribute"),
            part=column("part"),
            is_value=column("is_value") == 1,
            answer=column("answer"),
            name=self._name,
            value=self._value,
            templates=self._templates,
        )


class Form(ABC):
    """How one person becomes a sequence.

    Args:
        stock: The names and values, in the pool to which the form adds its texts.
        settings: In how many wordings each person is met, and in which order.
    """

    name: ClassVar[str]
    """What settings call it."""
    needs_words: ClassVar[bool] = False
    """Whether it needs a tokenizer with a token per word."""

    def __init__(self, stock: Stock, settings: DataConfig) -> None:
        self.stock = stock
        self.settings = settings

    @classmethod
    def texts(cls, lexicon: Lexicon, n_people: int) -> Iterable[str]:
        """Texts beside those of biographies whose words the tokenizer has to know."""
        return ()

    @property
    @abstractmethod
    def longest(self) -> int:
        """Tokens of the longest sequence that can be drawn, `<bos>` included."""

    @abstractmethod
    def pieces(
        self, generator: np.random.Generator, individuals: Individuals, wordings: Wordings
    ) -> Pieces:
        """The pieces of a sequence about each of some people, from this generator's stream only."""

    def draw(
        self,
        generator: np.random.Generator,
        individuals: Individuals,
        wordings: Wordings,
        number: int = 0,
    ) -> Batch:
        """A sequence about each of some people; `number` is that of the form (`Batch.form`)."""
        pieces = self.pieces(generator, individuals, wordings)
        return assembled(self.stock.pool, pieces, individuals, number)
