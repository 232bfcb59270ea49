"""Forms that are a sentence for every attribute: biography, question, triple, another written name."""

from collections.abc import Iterable, Mapping
from typing import ClassVar
from zlib import crc32

import numpy as np
from jaxtyping import Integer, UInt8

from interp.biographies.batch import Batch, TokenKind
from interp.biographies.forms.base import FIRST, LAST, MIDDLE, Form, Individuals, Stock, Wordings
from interp.biographies.lexicon import Lexicon
from interp.biographies.pool import Pieces, assembled
from interp.biographies.templates import Template
from interp.config import DataConfig
from interp.errors import ConfigError

_WORDINGS_STREAM = 0x666F726D  # who has which wordings of a form, apart from who exists


class SentenceForm(Form):
    """A sentence for every attribute in some order, each with the name, type words and the value."""

    name_order: ClassVar[tuple[int, ...]] = (FIRST, MIDDLE, LAST)
    has_comma: ClassVar[bool] = False
    """Whether a comma follows the first part of the name that is written."""
    is_prose: ClassVar[bool] = True
    """Whether its wordings are those of biographies, and `data.wordings` and `data.order` are about it."""
    n_evaluation: ClassVar[int] = 1
    """Of wordings of its own, how many a person does not meet in training; none if there is one."""

    def __init__(self, stock: Stock, settings: DataConfig) -> None:
        super().__init__(stock, settings)
        population, pool = stock.population, stock.pool
        groups = self.templates(population.lexicon)
        self.n_templates = len(next(iter(groups.values())))
        self._texts = np.stack([pool.add_templates(group) for group in groups.values()])
        self._comma = pool.add([","], TokenKind.PUNCTUATION)[0] if self.has_comma else pool.nothing
        if self.is_prose:
            most = population.lexicon.n_train_templates
            if (settings.wordings or 0) > most:
                raise ConfigError(
                    f"data.wordings={settings.wordings}: a person has {most} wordings of an attribute for "
                    "training; ask for at most so many."
                )
            self._train = population.train_wordings[..., : settings.wordings]
            self._evaluation = population.evaluation_wordings
        else:
            self._train, self._evaluation = self._wordings_of_everybody()

    @classmethod
    def templates(cls, lexicon: Lexicon) -> Mapping[str, tuple[Template, ...]]:
        """The wordings of every attribute, equally many of each."""
        return lexicon.templates

    @classmethod
    def texts(cls, lexicon: Lexicon, n_people: int) -> Iterable[str]:
        """See `Form.texts`."""
        if cls.is_prose:
            return [","] if cls.has_comma else []
        return [
            text for group in cls.templates(lexicon).values() for t in group for _, text in t.parts
        ]

    def _wordings_of_everybody(self) -> tuple[np.ndarray, np.ndarray]:
        """Which of the form's own wordings each person has in training, and which for evaluation."""
        people = self.stock.population
        every = np.arange(self.n_templates, dtype=np.uint8)
        wordings = np.tile(every, (len(people), len(people.attributes), 1))
        generator = np.random.default_rng([_WORDINGS_STREAM, crc32(self.name.encode())])
        generator.permuted(wordings, axis=-1, out=wordings)
        if self.n_templates == 1:
            return wordings, wordings
        return wordings[..., : -self.n_evaluation], wordings[..., -self.n_evaluation :]

    @property
    def longest(self) -> int:
        """See `Form.longest`."""
        stock = self.stock
        n_attributes = len(self._texts)
        texts = self._texts[..., 1].sum(axis=2).max(axis=1).sum()
        names = n_attributes * (stock.longest_name + int(self._comma[1]))
        return int(1 + names + texts + sum(stock.longest_values))

    def wordings(self, which: Wordings) -> UInt8[np.ndarray, "individual attribute wording"]:
        """The wordings of everybody in training, or those for evaluation."""
        return self._train if which == "train" else self._evaluation

    def pieces(
        self, generator: np.random.Generator, individuals: Individuals, wordings: Wordings
    ) -> Pieces:
        """See `Form.pieces`."""
        size, n_attributes = len(individuals), len(self._texts)
        order = np.tile(np.arange(n_attributes), (size, 1))
        if not (self.is_prose and self.settings.order == "fixed"):
            generator.permuted(order, axis=1, out=order)
        pool = self.wordings(wordings)
        choice = generator.integers(0, pool.shape[-1], size=(size, n_attributes))
        chosen = np.take_along_axis(pool[individuals], choice[..., None], axis=2)[..., 0]
        return self.pieces_of(individuals, order, chosen)

    def exactly(
        self,
        individuals: Individuals,
        order: Integer[np.ndarray, "batch sentence"],
        wordings: Integer[np.ndarray, "batch attribute"],
        number: int = 0,
    ) -> Batch:
        """The sequences with exactly these people, sentence orders and templates."""
        pieces = self.pieces_of(individuals, order, wordings)
        return assembled(self.stock.pool, pieces, individuals, number)

    def pieces_of(
        self,
        individuals: Individuals,
        order: Integer[np.ndarray, "batch sentence"],
        wordings: Integer[np.ndarray, "batch attribute"],
    ) -> Pieces:
        """The pieces: of every sentence a text, the name, a text, the value, a text."""
        stock = self.stock
        size, n_attributes = order.shape
        rows = np.arange(size)[:, None]
        names = self._name_places()
        value = names[-1][0] + 2  # behind the name and the text between
        n_pieces = value + 2
        slices = np.empty((size, n_attributes, n_pieces, 2), dtype=np.int64)
        slices[:, :, (0, value - 1, value + 1)] = self._texts[order, wordings[rows, order]]
        for place, part in names:
            of_person = self._commas(individuals) if part < 0 else stock.name(individuals, part)
            slices[:, :, place] = of_person[:, None]
        place_of = np.argsort(order, axis=1)  # the sentence that tells each attribute
        missing = stock.population.values[individuals] < 0
        for index in range(n_attributes):
            at = np.arange(size), place_of[:, index]
            slices[(*at, value)] = stock.value(individuals, index)
            if missing[:, index].any():
                gone = missing[:, index]
                slices[at[0][gone], at[1][gone]] = stock.pool.nothing
        sentence = np.repeat(np.arange(n_attributes), n_pieces)
        parts = np.full(n_pieces, -1)
        for place, part in names:
            parts[place] = part
        is_value = np.tile(np.arange(n_pieces) == value, n_attributes)
        first = place_of * n_pieces
        return Pieces(
            slices=slices.reshape(size, -1, 2),
            sentence=sentence,
            attribute=np.repeat(order, n_pieces, axis=1),
            part=np.tile(parts, n_attributes),
            is_value=is_value,
            answer=np.where(is_value, sentence, -1),
            name=np.stack([first + names[0][0], first + names[-1][0]], axis=-1),
            value=first + value,
            templates=wordings,
        )

    def _name_places(self) -> list[tuple[int, int]]:
        """The pieces of a sentence that are its name, with the part that each is; -1 for the comma."""
        parts = [*self.name_order[:1], *([-1] if self.has_comma else []), *self.name_order[1:]]
        return list(enumerate(parts, start=1))

    def _commas(self, individuals: Individuals) -> Integer[np.ndarray, "batch 2"]:
        """A comma where another part of the name follows it."""
        rest = sum(self.stock.name(individuals, part)[:, 1] for part in self.name_order[1:])
        return np.where((np.asarray(rest) > 0)[:, None], self._comma, self.stock.pool.nothing)


class Biography(SentenceForm):
    """A sentence of prose for every attribute, in random order: the paper's form."""

    name = "biography"


class ReorderedName(SentenceForm):
    """A biography in which the name is written "Last, First Middle"."""

    name = "reordered_name"
    name_order = (LAST, FIRST, MIDDLE)
    has_comma = True


class Question(SentenceForm):
    """A question for every attribute, each with its answer: "What is the major of NAME? Answer: VALUE."."""

    name = "question"
    is_prose = False

    @classmethod
    def templates(cls, lexicon: Lexicon) -> Mapping[str, tuple[Template, ...]]:
        """See `SentenceForm.templates`."""
        return lexicon.questions


class Triple(SentenceForm):
    """Name, attribute and value with nothing between: "NAME birth place VALUE."."""

    name = "triple"
    is_prose = False

    @classmethod
    def templates(cls, lexicon: Lexicon) -> Mapping[str, tuple[Template, ...]]:
        """See `SentenceForm.templates`."""
        return {
            name: (Template.parse(f"{{name}} <{name.replace('_', ' ')}> {{value}}."),)
            for name in lexicon.attributes
        }
