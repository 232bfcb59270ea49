"""Biographies as token batches, with the span of every name and value.

A batch is a pure function of (corpus, step): its random generator is seeded with both, so that a
resumed run, a patched run and a rerun see the same samples with no saved generator state.

Assembly is one gather. All token sequences that a sentence can be made of (template texts, name
parts, values) lie behind one another in a flat pool; a sentence is seven slices of it
(text, first, middle, last name, text, value, text), a biography is `<bos>` and six sentences.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import IntEnum
from itertools import chain
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Int8, Int64, Integer, UInt8
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from interp.biographies.lists import ATTRIBUTES, NAME_PARTS, name_pools, value_pools
from interp.biographies.population import Population
from interp.biographies.sampling import (
    Individuals,
    Sampler,
    Uniform,
    finetuned_individuals,
    sampler,
)
from interp.biographies.templates import N_TEMPLATES, templates
from interp.biographies.tokenizer import (
    PUNCTUATION,
    build_tokenizer,
    encode_words,
    set_words,
    words,
)
from interp.config import Config
from interp.errors import ArgumentError, ConfigError, require_known, whole_number
from interp.torch_state import default_state

_TRAINING_STREAM, _MEASURING_STREAM = 1, 2
_N_ATTRIBUTES = len(ATTRIBUTES)
_FIRST_NAME, _VALUE = 1, 5  # places of the seven slices of a sentence
_N_SLICES = 7

Wordings = Literal["train", "evaluation"]
"""Which of a person's templates to use: the 20 of training, or the 5 never seen with them."""


class TokenKind(IntEnum):
    """What a token is."""

    PADDING = 0
    SPECIAL = 1
    """`<bos>`."""
    NAME = 2
    VALUE = 3
    TEXT = 4
    """Template text that does not reveal the attribute."""
    TYPE = 5
    """Template text that reveals the attribute."""
    PUNCTUATION = 6


@dataclass(frozen=True)
class Batch:
    """Biographies of one batch, padded on the right to the longest.

    Attributes:
        individuals: Who each biography is about.
        tokens: Token ids.
        kind: A `TokenKind` per token.
        attribute: Which attribute the token's sentence is about (index in `ATTRIBUTES`), -1
            outside of sentences.
        sentence: Which sentence of the biography (0 to 5), -1 outside of sentences.
        part: In a name, 0, 1, 2 for first, middle, last; in a value, 0 for its first token, then
            1, 2, ...; elsewhere -1.
        templates: Which template each attribute is told in.
        name_start: Position of the name's first token in each attribute's sentence.
        name_length: Tokens of the name.
        value_start: Position of the value's first token in each attribute's sentence.
        value_length: Tokens of the value.
    """

    individuals: Int64[Tensor, " batch"]
    tokens: Int64[Tensor, "batch position"]
    kind: UInt8[Tensor, "batch position"]
    attribute: Int8[Tensor, "batch position"]
    sentence: Int8[Tensor, "batch position"]
    part: Int8[Tensor, "batch position"]
    templates: Int64[Tensor, "batch attribute"]
    name_start: Int64[Tensor, "batch attribute"]
    name_length: Int64[Tensor, "batch attribute"]
    value_start: Int64[Tensor, "batch attribute"]
    value_length: Int64[Tensor, "batch attribute"]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def name_end(self) -> Int64[Tensor, "batch attribute"]:
        """Position of the name's last token in each attribute's sentence."""
        return self.name_start + self.name_length - 1

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        return Batch(*(getattr(self, field.name).to(device) for field in fields(self)))

    def __getitem__(self, rows: slice) -> "Batch":
        """Some of the biographies, at least one, cut to the longest of them."""
        if not isinstance(rows, slice) or not len(self.tokens[rows]):
            raise ArgumentError(
                f"{rows!r} names none of {len(self)} biographies; give a slice, as in batch[0:8]."
            )
        width = int((self.kind[rows] != TokenKind.PADDING).sum(dim=1).max())
        per_token = ("tokens", "kind", "attribute", "sentence", "part")
        return Batch(
            *(
                getattr(self, f.name)[rows, :width]
                if f.name in per_token
                else getattr(self, f.name)[rows]
                for f in fields(self)
            )
        )

    def split(self, size: int) -> Iterable["Batch"]:
        """The biographies in batches of at most `size`."""
        size = whole_number(size, "batch_size", 1)
        return (self[start : start + size] for start in range(0, len(self), size))


class Corpus:
    """Draws biographies of a population as token batches.

    Args:
        population: Who they are about.
        tokenizer: The population's tokenizer.
        sampler: Who comes next in training; everybody equally likely by default.
        seed: Together with the step it determines a batch.
        finetuned: Whom fine-tuning is on; nobody by default.

    Example:
        >>> from interp import preset
        >>> corpus = Corpus.from_config(preset("smoke"))
        >>> corpus.batch(step=0, size=4).tokens.shape[0]
        4
    """

    def __init__(
        self,
        population: Population,
        tokenizer: PreTrainedTokenizerFast,
        sampler: Sampler | None = None,
        seed: int = 0,
        finetuned: Individuals | None = None,
    ) -> None:
        self.population = population
        self.tokenizer = tokenizer
        self.seed = whole_number(seed, "seed", 0)
        self.sampler: Sampler = sampler or Uniform(population.config.n_individuals)
        self.finetuned: Individuals = np.arange(0) if finetuned is None else finetuned
        self._fill_pool()

    @classmethod
    def from_config(cls, config: Config) -> "Corpus":
        """The corpus of a run: population and tokenizer are made from its settings.

        Raises:
            ConfigError: the longest biography does not fit the model's context.
        """
        population = Population.draw(config.population, config.seed_of("population"))
        tokenizer = build_tokenizer(config.population, config.tokenizer)
        seed = config.seed_of("training")
        corpus = cls(population, tokenizer, sampler(config), seed, finetuned_individuals(config))
        corpus.require_context(config.model.n_ctx)
        return corpus

    def require_context(self, n_ctx: int) -> None:
        """Refuses (ConfigError) a context that is shorter than the longest biography."""
        if self.longest > n_ctx:
            raise ConfigError(
                f"The longest biography of this population has {self.longest} tokens, but the "
                f"model's context is {n_ctx} tokens. Set model.n_ctx to {self.longest} or more."
            )

    def _fill_pool(self) -> None:
        """Lays out the flat pool: every template text, name part and value, token by token."""
        texts: list[list[int]] = [[self.tokenizer.bos_token_id]]
        kinds: list[list[int]] = [[TokenKind.SPECIAL]]
        all_templates = [template for group in templates().values() for template in group]
        known = set_words(text for template in all_templates for _, text in template.parts)
        ids_of = dict(zip(known, encode_words(self.tokenizer, known), strict=True))
        for template in all_templates:
            places: list[tuple[list[int], list[int]]] = [([], [])]
            for kind, text in template.parts:
                if kind in ("name", "value"):
                    places.append(([], []))
                    continue
                for word in words(text):
                    ids = ids_of[word]
                    places[-1][0].extend(ids)
                    of_kind = TokenKind.TYPE if kind == "type" else TokenKind.TEXT
                    if word in PUNCTUATION:
                        of_kind = TokenKind.PUNCTUATION
                    places[-1][1].extend([of_kind] * len(ids))
            texts += [ids for ids, _ in places]
            kinds += [of_kind for _, of_kind in places]
        config = self.population.config
        pools = [*name_pools(config), *value_pools(config).values()]
        encoded = [encode_words(self.tokenizer, pool) for pool in pools]
        for index, pool in enumerate(encoded):
            of_kind = TokenKind.NAME if index < len(NAME_PARTS) else TokenKind.VALUE
            texts += pool
            kinds += [[of_kind] * len(ids) for ids in pool]
        lengths = np.array([len(ids) for ids in texts])
        starts = np.cumsum(lengths) - lengths
        self._tokens = np.fromiter(chain.from_iterable(texts), np.int64)
        self._kinds = np.fromiter(chain.from_iterable(kinds), np.uint8)
        n_texts = 1 + _N_ATTRIBUTES * N_TEMPLATES * 3
        self._text_slices = np.stack([starts, lengths], -1)[1:n_texts].reshape(
            _N_ATTRIBUTES, N_TEMPLATES, 3, 2
        )
        self._pool_slices: list[Integer[np.ndarray, "entry 2"]] = []
        place = n_texts
        for pool in encoded:
            entries = slice(place, place + len(pool))
            self._pool_slices.append(np.stack([starts[entries], lengths[entries]], -1))
            place += len(pool)
        longest_name = sum(s[:, 1].max() for s in self._pool_slices[: len(NAME_PARTS)])
        longest_texts = self._text_slices[..., 1].sum(axis=2).max(axis=1)
        longest_values = [s[:, 1].max() for s in self._pool_slices[len(NAME_PARTS) :]]
        self.longest = int(
            1 + _N_ATTRIBUTES * longest_name + longest_texts.sum() + sum(longest_values)
        )
        """Tokens of the longest biography that can be drawn."""

    def value_tokens(self, attribute: str) -> list[list[int]]:
        """The token ids of every value of an attribute, in the order of its pool."""
        require_known([attribute], ATTRIBUTES, "attribute")
        slices = self._pool_slices[len(NAME_PARTS) + ATTRIBUTES.index(attribute)]
        return [self._tokens[start : start + length].tolist() for start, length in slices]

    def batch(self, step: int, size: int) -> Batch:
        """The `size` biographies of a training step: a pure function of the corpus and `step`."""
        step, size = whole_number(step, "step", 0), whole_number(size, "size", 1)
        generator = np.random.default_rng([_TRAINING_STREAM, self.seed, step])
        individuals = self.sampler.draw(generator, step, size)
        return self._draw(generator, individuals, "train")

    @default_state()
    def biographies(
        self,
        individuals: Integer[np.ndarray, " batch"] | slice,
        wordings: Wordings = "evaluation",
        draw: int = 0,
    ) -> Batch:
        """One biography of each given individual, for measuring.

        Args:
            individuals: Who, at least one, as indices or a slice of the population.
            wordings: Sentences from the training templates, or from those never seen with them.
            draw: Another number, from 0, gives other sentences in another order.

        Raises:
            ArgumentError: nobody, somebody who does not exist, or other wordings or draws than these.
        """
        chosen = self.population.chosen(individuals)
        require_known([wordings], get_args(Wordings), "kind of wordings")
        draw = whole_number(draw, "draw", 0)
        generator = np.random.default_rng([_MEASURING_STREAM, self.seed, draw])
        return self._draw(generator, chosen, wordings)

    def _draw(
        self,
        generator: np.random.Generator,
        individuals: Integer[np.ndarray, " batch"],
        which: Wordings,
    ) -> Batch:
        size = len(individuals)
        order = np.tile(np.arange(_N_ATTRIBUTES), (size, 1))
        generator.permuted(order, axis=1, out=order)
        people = self.population
        pool = people.train_wordings if which == "train" else people.evaluation_wordings
        choice = generator.integers(0, pool.shape[-1], size=(size, _N_ATTRIBUTES))
        wordings = np.take_along_axis(pool[individuals], choice[..., None], axis=2)[..., 0]
        return self._assembled(individuals, order, wordings)

    def assemble(
        self,
        individuals: Integer[np.ndarray, " batch"],
        order: Integer[np.ndarray, "batch sentence"],
        wordings: Integer[np.ndarray, "batch attribute"],
    ) -> Batch:
        """The biographies with exactly these people, sentence orders and templates.

        Args:
            individuals: Who each biography is about.
            order: Which attribute each sentence tells, a permutation in every row.
            wordings: Which template each attribute is told in.

        Raises:
            ArgumentError: nobody, people or templates that do not exist, or no permutations.
        """
        people = self.population.chosen(individuals)
        shape = (len(people), _N_ATTRIBUTES)
        if order.shape != shape or (np.sort(order, axis=1) != np.arange(_N_ATTRIBUTES)).any():
            raise ArgumentError(
                f"order has the shape {order.shape}; give for each of {len(people)} biographies the numbers "
                f"0 to {_N_ATTRIBUTES - 1} in some order."
            )
        if wordings.shape != shape or ((wordings < 0) | (wordings >= N_TEMPLATES)).any():
            raise ArgumentError(
                f"wordings has the shape {wordings.shape}; give for each of {len(people)} biographies and "
                f"{_N_ATTRIBUTES} attributes a template from 0 to {N_TEMPLATES - 1}."
            )
        return self._assembled(people, order, wordings)

    def _assembled(
        self,
        individuals: Integer[np.ndarray, " batch"],
        order: Integer[np.ndarray, "batch sentence"],
        wordings: Integer[np.ndarray, "batch attribute"],
    ) -> Batch:
        size = len(individuals)
        rows = np.arange(size)[:, None]
        slices = np.empty((size, _N_ATTRIBUTES, _N_SLICES, 2), dtype=np.int64)
        slices[:, :, (0, 4, 6)] = self._text_slices[order, wordings[rows, order]]
        for part in range(len(NAME_PARTS)):
            of_person = self._pool_slices[part][self.population.names[individuals, part]]
            slices[:, :, _FIRST_NAME + part] = of_person[:, None]
        place_of = np.argsort(order, axis=1)  # the sentence that tells each attribute
        for index in range(_N_ATTRIBUTES):
            values = self._pool_slices[len(NAME_PARTS) + index]
            value = values[self.population.values[individuals, index]]
            slices[np.arange(size), place_of[:, index], _VALUE] = value
        row = slices.reshape(size, -1, 2)  # behind <bos>, the pool's first token
        lengths = np.concatenate([np.ones((size, 1), np.int64), row[..., 1]], axis=1)
        starts = np.concatenate([np.zeros((size, 1), np.int64), row[..., 0]], axis=1)
        columns = np.cumsum(lengths, axis=1) - lengths  # where each slice begins in its row
        row_lengths = lengths.sum(axis=1)
        width = int(row_lengths.max())

        flat_lengths = lengths.ravel()
        total = int(flat_lengths.sum())
        flat_starts = np.cumsum(flat_lengths) - flat_lengths
        within = np.arange(total) - np.repeat(flat_starts, flat_lengths)
        source = np.repeat(starts.ravel(), flat_lengths) + within
        row_starts = np.arange(size) * width - (np.cumsum(row_lengths) - row_lengths)
        target = np.arange(total) + np.repeat(row_starts, row_lengths)

        in_name = range(len(NAME_PARTS))
        sentence = np.repeat(np.arange(_N_ATTRIBUTES), _N_SLICES)
        parts = np.tile([-1, *in_name, -1, -1, -1], _N_ATTRIBUTES)
        value = np.tile(np.arange(_N_SLICES) == _VALUE, _N_ATTRIBUTES).astype(int)

        def per_slice(values: np.ndarray) -> np.ndarray:
            """A number of every slice, at every token of it; `<bos>` has -1."""
            rows = np.broadcast_to(values, (size, _N_ATTRIBUTES * _N_SLICES))
            with_bos = np.concatenate([np.full((size, 1), -1), rows], axis=1).astype(np.int8)
            return np.repeat(with_bos.ravel(), flat_lengths)

        def padded(values: np.ndarray, fill: int) -> Tensor:
            out = np.full(size * width, fill, dtype=values.dtype)
            out[target] = values
            return torch.from_numpy(out.reshape(size, width))

        def by_attribute(values: Integer[np.ndarray, "batch slice"], place: int) -> Tensor:
            by_sentence = values[:, 1:].reshape(size, _N_ATTRIBUTES, _N_SLICES)[..., place]
            return torch.from_numpy(np.take_along_axis(by_sentence, place_of, axis=1))

        name_length = sum(by_attribute(lengths, _FIRST_NAME + part) for part in in_name)
        return Batch(
            individuals=torch.from_numpy(np.asarray(individuals, dtype=np.int64)),
            tokens=padded(self._tokens[source], self.tokenizer.pad_token_id),
            kind=padded(self._kinds[source], TokenKind.PADDING),
            attribute=padded(per_slice(np.repeat(order, _N_SLICES, axis=1)), -1),
            sentence=padded(per_slice(sentence), -1),
            part=padded(
                np.where(per_slice(value) == 1, within, per_slice(parts)).astype(np.int8), -1
            ),
            templates=torch.from_numpy(wordings.astype(np.int64)),
            name_start=by_attribute(columns, _FIRST_NAME),
            name_length=torch.as_tensor(name_length, device="cpu"),
            value_start=by_attribute(columns, _VALUE),
            value_length=by_attribute(lengths, _VALUE),
        )
