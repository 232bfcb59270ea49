"""Forms without prose: mnemonic, fused, polyglot; and forms that ask otherwise: inverse, a part."""

from collections.abc import Iterable
from zlib import crc32

import numpy as np
from jaxtyping import Integer

from interp.biographies.batch import TokenKind
from interp.biographies.forms.base import Form, Individuals, PieceRow, Place, Stock, Wordings
from interp.biographies.lexicon import Lexicon
from interp.biographies.pool import Pieces, Slices
from interp.biographies.templates import N_QUESTIONS
from interp.biographies.tokenizer import PUNCTUATION, encode_words, words
from interp.config import DataConfig
from interp.errors import ConfigError

N_LANGUAGES = 3
"""Languages of the polyglot form; the first is that of prose."""
_PART_STREAM = 0x70617274
_MONTH = 1  # the word of a date, "27 May 1953", that the form "part" asks for


class Mnemonic(Form):
    """The name, then the values in random order: no template text, no type words.

    Nothing tells which value comes next, so the loss of a value does not reach zero.
    """

    name = "mnemonic"

    @property
    def longest(self) -> int:
        """See `Form.longest`."""
        return 1 + self._longest_name + sum(self.stock.longest_values)

    @property
    def _longest_name(self) -> int:
        return self.stock.longest_name

    def pieces(
        self, generator: np.random.Generator, individuals: Individuals, wordings: Wordings
    ) -> Pieces:
        """See `Form.pieces`; `wordings` makes no difference, as there are none."""
        n_attributes = len(self.stock.population.attributes)
        order = np.tile(np.arange(n_attributes), (len(individuals), 1))
        generator.permuted(order, axis=1, out=order)
        row = PieceRow(self.stock, individuals)
        self._add_name(row, order[:, 0])
        for place, attribute in enumerate(order.T):
            slices = self._values(generator, row, attribute)
            row.add_value(attribute, sentence=place, answer=place, slices=slices)
        return row.pieces()

    def first_tokens(
        self, individuals: Individuals
    ) -> Integer[np.ndarray, "batch attribute language"]:
        """The tokens that each value can begin with, one in each language; -1 where there is no value."""
        has = self.stock.population.values[individuals] >= 0
        starts = [[s[..., 0] for s in self._versions(individuals, a)] for a in range(has.shape[1])]
        tokens = self.stock.pool.tokens[np.moveaxis(np.array(starts), 2, 0)]
        return np.where(has[..., None], tokens, -1)

    def value_tokens(self, attribute: int) -> list[list[list[int]]]:
        """The token ids of every value of an attribute, in each language: [language][value]."""
        tokens = self.stock.pool.tokens
        return [
            [tokens[start : start + length].tolist() for start, length in slices]
            for slices in self._value_slices(attribute)
        ]

    def _value_slices(self, attribute: int) -> list[Slices]:
        """Every value of an attribute, in each language."""
        return [self.stock.value_slices(attribute)]

    def _versions(self, individuals: Individuals, attribute: int) -> list[Slices]:
        """People's values of an attribute in each language."""
        every = self._value_slices(attribute)
        return [self.stock.chosen(slices, individuals, attribute) for slices in every]

    def _add_name(self, row: PieceRow, first: np.ndarray) -> None:
        everything = range(len(self.stock.population.attributes))
        row.add_name(sentence=0, attribute=first, of=everything)

    def _values(
        self, generator: np.random.Generator, row: PieceRow, attribute: np.ndarray
    ) -> Slices | None:
        return None  # their own words


class Fused(Mnemonic):
    """The mnemonic form in which each person is one token."""

    name = "fused"
    needs_words = True

    def __init__(self, stock: Stock, settings: DataConfig) -> None:
        super().__init__(stock, settings)
        tokens = [person_word(i) for i in range(len(stock.population))]
        self._people = stock.pool.add(tokens, TokenKind.NAME)

    @classmethod
    def texts(cls, lexicon: Lexicon, n_people: int) -> Iterable[str]:
        """See `Form.texts`."""
        return [person_word(i) for i in range(n_people)]

    @property
    def _longest_name(self) -> int:
        return 1

    def _add_name(self, row: PieceRow, first: np.ndarray) -> None:
        piece = row.add(self._people[row.individuals], sentence=0, attribute=first, part=0)
        row.mark_name(piece, piece, range(len(self.stock.population.attributes)))


class Polyglot(Mnemonic):
    """The mnemonic form in which each value is in one of three languages, drawn anew every time.

    Every word of a value has a word of its own in each language; the first is that of prose.
    """

    name = "polyglot"
    needs_words = True

    def __init__(self, stock: Stock, settings: DataConfig) -> None:
        super().__init__(stock, settings)
        self._translated = [
            np.stack(
                [
                    stock.value_slices(index),
                    *(
                        stock.pool.add([translated(v, i) for v in pool], TokenKind.VALUE)
                        for i in range(1, N_LANGUAGES)
                    ),
                ]
            )
            for index, pool in enumerate(stock.population.lexicon.values.values())
        ]

    @classmethod
    def texts(cls, lexicon: Lexicon, n_people: int) -> Iterable[str]:
        """See `Form.texts`."""
        for language in range(1, N_LANGUAGES):
            for attribute, pool in lexicon.values.items():
                each = pool if attribute not in lexicon.dates else _words_of(pool)
                yield from (translated(value, language) for value in each)

    def _value_slices(self, attribute: int) -> list[Slices]:
        return list(self._translated[attribute])

    def _values(
        self, generator: np.random.Generator, row: PieceRow, attribute: np.ndarray
    ) -> Slices | None:
        languages = generator.integers(0, N_LANGUAGES, size=len(row.individuals))
        found = np.empty((len(row.individuals), 2), dtype=np.int64)
        for language in range(N_LANGUAGES):
            for index in np.unique(attribute):
                rows = (languages == language) & (attribute == index)
                slices = self._translated[index][language]
                found[rows] = self.stock.chosen(slices, row.individuals[rows], int(index))
        return found


class Inverse(Form):
    """The inverse question, from the values to the name.

    "Who has the birth place VALUE, the major VALUE, ... ? Answer: NAME.", the values in random order.
    """

    name = "inverse"

    def __init__(self, stock: Stock, settings: DataConfig) -> None:
        super().__init__(stock, settings)
        text, kind = TokenKind.TEXT, TokenKind.TYPE
        pool, attributes = stock.pool, stock.population.attributes
        self._who, self._comma, self._asks, self._end = pool.add_wording(
            [("Who has", text), (",", text), ("? Answer:", text), (".", text)]
        )
        self._the = pool.add_wording([("the", text)])[0]
        self._types = pool.add_wording([(a.replace("_", " "), kind) for a in attributes])

    @classmethod
    def texts(cls, lexicon: Lexicon, n_people: int) -> Iterable[str]:
        """See `Form.texts`."""
        names = (name.replace("_", " ") for name in lexicon.attributes)
        return ["Who has the", ",", *names, "? Answer:", "."]

    @property
    def longest(self) -> int:
        """See `Form.longest`."""
        n = len(self._types)
        told = int(self._types[:, 1].sum()) + n * 2 - 1 + sum(self.stock.longest_values)
        return 1 + 2 + told + 3 + self.stock.longest_name + 1

    def pieces(
        self, generator: np.random.Generator, individuals: Individuals, wordings: Wordings
    ) -> Pieces:
        """See `Form.pieces`; there is one wording."""
        stock = self.stock
        n_attributes = len(self._types)
        order = np.tile(np.arange(n_attributes), (len(individuals), 1))
        generator.permuted(order, axis=1, out=order)
        own = stock.population.values[individuals]
        row = PieceRow(stock, individuals)
        row.add(self._who, sentence=0)
        begun = np.zeros(len(individuals), dtype=bool)
        for attribute in order.T:
            has = np.take_along_axis(own, attribute[:, None], axis=1)[:, 0] >= 0
            about: Place = {"sentence": 0, "attribute": attribute}
            row.add(_where(has & begun, self._comma, stock), **about)
            row.add(_where(has, self._the, stock), **about)
            row.add(_where(has, self._types[attribute], stock), **about)
            row.add_value(attribute, sentence=0)
            begun |= has
        row.add(self._asks, sentence=0)
        row.add_name(sentence=0, answer=0)
        row.add(self._end, sentence=0)
        return row.pieces()


class Part(Form):
    """The question for a part of a value: the month of a date.

    Raises:
        ConfigError: no attribute of the population is a date.
    """

    name = "part"

    def __init__(self, stock: Stock, settings: DataConfig) -> None:
        super().__init__(stock, settings)
        lexicon, people = stock.population.lexicon, stock.population
        if not lexicon.dates:
            raise ConfigError(
                "The form 'part' asks for the month of a date (27 May 1953), but of this population "
                f"none of {', '.join(lexicon.attributes)} is one; leave the form out."
            )
        self._attribute = lexicon.attributes.index(lexicon.dates[0])
        name = lexicon.dates[0].replace("_", " ")
        text, kind = TokenKind.TEXT, TokenKind.TYPE
        asked = self._wordings(name)
        self._before = stock.pool.add_wording([(before, text) for before, _, _ in asked])
        self._types = stock.pool.add_wording([(what, kind) for _, what, _ in asked])
        self._of = stock.pool.add_wording([(of, text) for _, _, of in asked])
        self._asks, self._end = stock.pool.add_wording([("? Answer:", text), (".", text)])
        self._months = self._slices_of_months(lexicon.values[lexicon.dates[0]])
        every = np.tile(np.arange(N_QUESTIONS, dtype=np.uint8), (len(people), 1))
        generator = np.random.default_rng([_PART_STREAM, crc32(self.name.encode())])
        self._of_person = generator.permuted(every, axis=-1)

    def _slices_of_months(self, dates: Iterable[str]) -> Slices:
        """Where the month of every date lies in the pool."""
        split = [date.split() for date in dates]
        known = list(dict.fromkeys(word for parts in split for word in parts))
        encoded = zip(known, encode_words(self.stock.pool.tokenizer, known), strict=True)
        length = {word: len(ids) for word, ids in encoded}
        before = [sum(length[word] for word in parts[:_MONTH]) for parts in split]
        starts = self.stock.value_slices(self._attribute)[:, 0]
        return np.stack([starts + before, [length[parts[_MONTH]] for parts in split]], axis=-1)

    @staticmethod
    def _wordings(name: str) -> list[tuple[str, str, str]]:
        """The wordings: text, type words, and what stands before the name."""
        return [
            ("What is the", f"month of the {name}", "of"),
            ("In which month is the", name, "of"),
            ("Tell me the", f"month of the {name}", "of"),
            ("Which month has the", name, "of"),
            ("Name the", f"month of the {name}", "of"),
        ]

    @classmethod
    def texts(cls, lexicon: Lexicon, n_people: int) -> Iterable[str]:
        """See `Form.texts`."""
        names = [name.replace("_", " ") for name in lexicon.dates[:1]]
        asked = (text for name in names for wording in cls._wordings(name) for text in wording)
        return [*asked, "? Answer:", "."]

    @property
    def longest(self) -> int:
        """See `Form.longest`."""
        asked = (self._before[:, 1] + self._types[:, 1] + self._of[:, 1]).max()
        return int(1 + asked + self.stock.longest_name + 3 + self._months[:, 1].max() + 1)

    def pieces(
        self, generator: np.random.Generator, individuals: Individuals, wordings: Wordings
    ) -> Pieces:
        """See `Form.pieces`; nothing but `<bos>` about a person who has no such date."""
        stock = self.stock
        about: Place = {"sentence": 0, "attribute": self._attribute}
        n_train = N_QUESTIONS - 1
        own = self._of_person[individuals]
        choice = generator.integers(0, n_train, size=len(individuals))
        chosen = own[np.arange(len(own)), choice] if wordings == "train" else own[:, n_train]
        has = stock.population.values[individuals, self._attribute] >= 0
        row = PieceRow(stock, individuals)
        for texts in (self._before, self._types, self._of):
            row.add(_where(has, texts[chosen], stock), **about)
        row.add_name(of=[self._attribute], where=has, **about)
        row.add(_where(has, self._asks, stock), **about)
        months = stock.chosen(self._months, individuals, self._attribute)
        row.add_value(self._attribute, sentence=0, answer=0, slices=months)
        row.add(_where(has, self._end, stock), **about)
        row.set_template(self._attribute, np.where(has, chosen, -1))
        return row.pieces()


def person_word(individual: int) -> str:
    """The word that stands for a person in the fused form."""
    return f"person#{individual}"


def translated(value: str, language: int) -> str:
    """A value in another language: every word has a word of its own; punctuation stays."""
    if language == 0:
        return value
    return " ".join(w if w in PUNCTUATION else f"{w}~{language + 1}" for w in words(value))


def _words_of(pool: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(word for text in pool for word in text.split()))


def _where(has: np.ndarray, slices: Slices, stock: Stock) -> Slices:
    """Slices where something is true of a person, nothing elsewhere."""
    return np.where(has[:, None], slices, stock.pool.nothing)
