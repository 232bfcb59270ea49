"""A corpus: people as token batches, in biographies or other forms, with the span of every name and value.

A batch is a pure function of (corpus, step): its random generator is seeded with both, so that a
resumed run, a patched run and a rerun see the same samples with no saved generator state.
"""

from threading import Lock
from typing import Any, get_args
from zlib import crc32

import numpy as np
import torch
from jaxtyping import Bool, Integer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from interp.biographies.batch import Batch, TokenKind
from interp.biographies.contradictions import Contradictions
from interp.biographies.forms import (
    BIOGRAPHY,
    Form,
    SentenceForm,
    Stock,
    Wordings,
    form_class,
    form_number,
    form_texts,
)
from interp.biographies.lexicon import Lexicon
from interp.biographies.pool import TokenPool
from interp.biographies.population import Population
from interp.biographies.sampling import (
    Individuals,
    Sampler,
    Uniform,
    finetuned_individuals,
    sampler,
)
from interp.biographies.tokenizer import build_tokenizer, encode_words
from interp.config import Config, ContradictionConfig, DataConfig, FormConfig, StageConfig
from interp.errors import ArgumentError, ConfigError, require_known, whole_number
from interp.torch_state import default_state

_TRAINING_STREAM, _MEASURING_STREAM = 1, 2


class Corpus:
    """Draws sequences about the people of a population as token batches.

    Args:
        population: Who they are about.
        tokenizer: The population's tokenizer.
        sampler: Who comes next in training; everybody equally likely by default.
        seed: Together with the step it determines a batch.
        finetuned: Whom fine-tuning is on; nobody by default.
        data: In which forms and wordings people are met; by default in biographies.

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
        data: DataConfig | None = None,
    ) -> None:
        self.population = population
        self.tokenizer = tokenizer
        self.seed = whole_number(seed, "seed", 0)
        self.sampler: Sampler = sampler or Uniform(population.config.n_individuals)
        self.finetuned: Individuals = np.arange(0) if finetuned is None else finetuned
        self.data = DataConfig() if data is None else data
        self._stock = Stock(population, TokenPool(tokenizer))
        self._forms: dict[str, Form] = {}
        self._making = Lock()  # a batch is drawn in another thread than the one that measures
        self.biography: SentenceForm = self._sentences(BIOGRAPHY)
        trained = [form.form for stage in self.data.stages or () for form in stage.forms]
        self.longest = max(self.form(name).longest for name in {BIOGRAPHY, *trained})
        """Tokens of the longest biography that can be drawn, or of the longest other form in training."""
        self._require_attributes()
        self.contradictions = Contradictions.of(population, self.data.contradictions, self.seed)
        """Who has a second value (B) of an attribute in training; None by default."""
        self.contrary: Corpus | None = None
        """The corpus in which these people have their second value; None without contradictions."""
        if self.contradictions is not None:
            same = tokenizer, self.sampler, seed, self.finetuned
            told = self.data.model_copy(update={"contradictions": ContradictionConfig()})
            self.contrary = Corpus(self.contradictions.population(population), *same, told)

    def __getstate__(self) -> dict[str, Any]:
        """What a worker process gets; a lock cannot be sent, and holds nothing."""
        return {name: value for name, value in vars(self).items() if name != "_making"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _making=Lock())

    @classmethod
    def from_config(cls, config: Config) -> "Corpus":
        """The corpus of a run: population and tokenizer are made from its settings.

        Raises:
            ConfigError: the longest sequence does not fit the model's context, or there is no such form.
        """
        population = Population.of(config)
        corpus = cls.of(config, population, tokenizer_of(config, population.lexicon))
        corpus.require_context(config.model.n_ctx)
        return corpus

    @classmethod
    def of(
        cls,
        config: Config,
        population: Population,
        tokenizer: PreTrainedTokenizerFast,
        shown: list[tuple[int, int]] | None = None,
    ) -> "Corpus":
        """The corpus of a run whose population and tokenizer are at hand.

        Args:
            config: The run's settings.
            population: Who there is.
            tokenizer: The run's tokenizer.
            shown: When an adaptive schedule showed more people, and how many.
        """
        seed, people = config.seed_of("training"), finetuned_individuals(config)
        return cls(population, tokenizer, sampler(config, shown or ()), seed, people, config.data)

    def require_context(self, n_ctx: int) -> None:
        """Refuses (ConfigError) a context that is shorter than the longest sequence of training."""
        if self.longest > n_ctx:
            what = "sequence of its forms" if self.data.stages else "biography of this population"
            raise ConfigError(
                f"The longest {what} has {self.longest} tokens, but the model's context is {n_ctx} "
                f"tokens. Set model.n_ctx to {self.longest} or more."
            )

    def form(self, name: str) -> Form:
        """The form of this name, about this population.

        Raises:
            ConfigError: there is none, or the population or the tokenizer does not allow it.
        """
        with self._making:
            if name not in self._forms:
                kind = form_class(name)
                self._require_words(kind)
                self._forms[name] = kind(self._stock, self.data)
            return self._forms[name]

    def _sentences(self, name: str) -> SentenceForm:
        form = self.form(name)
        assert isinstance(form, SentenceForm)
        return form

    def _require_words(self, kind: type[Form]) -> None:
        """Refuses a form that has words which the tokenizer does not know."""
        people = self.population
        texts = list(kind.texts(people.lexicon, len(people)))
        unknown = self.tokenizer.unk_token_id
        encoded = zip(texts, encode_words(self.tokenizer, texts), strict=True)
        lacking = next((text for text, ids in encoded if unknown in ids), None)
        if lacking is not None:
            raise ConfigError(
                f"The tokenizer does not know the words of the form {kind.name!r} ({lacking!r}): the "
                "model was not made for it. Name the form in data.vocabulary, or in a stage, when training."
            )

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes, in the order of every axis named `attribute`."""
        return self.population.attributes

    def value_tokens(self, attribute: str) -> list[list[int]]:
        """The token ids of every value of an attribute, in the order of its pool."""
        require_known([attribute], self.attributes, "attribute")
        slices = self._stock.value_slices(self.attributes.index(attribute))
        tokens = self._stock.pool.tokens
        return [tokens[start : start + length].tolist() for start, length in slices]

    def batch(self, step: int, size: int) -> Batch:
        """The `size` sequences of a training step: a pure function of the corpus and `step`."""
        step, size = whole_number(step, "step", 0), whole_number(size, "size", 1)
        batch = self._drawn(step, size)
        if self.contradictions is None or self.contrary is None:
            return batch
        says_b = torch.from_numpy(self.contradictions.says_b(batch.individuals.numpy(), step))
        told = [(~says_b, batch), (says_b, self.contrary._drawn(step, size))]
        there = [(where.nonzero()[:, 0], of) for where, of in told if where.any()]
        rows, parts = [r for r, _ in there], [of.take(r) for r, of in there]
        return Batch.mixed(parts, rows, self.tokenizer.pad_token_id)

    def _drawn(self, step: int, size: int) -> Batch:
        """The sequences of a training step, with the values that the population has."""
        generator = np.random.default_rng([_TRAINING_STREAM, self.seed, step])
        individuals = self.sampler.draw(generator, step, size)
        stage = self.data.stage_at(step)
        if stage is None:
            return self.biography.draw(generator, individuals, "train")
        return self._mixed(generator, individuals, stage)

    def _mixed(
        self, generator: np.random.Generator, individuals: Individuals, stage: StageConfig
    ) -> Batch:
        """Sequences in the forms of a stage, as likely as their weights say."""
        weights = np.array([form.weight for form in stage.forms])
        chosen = generator.choice(len(weights), size=len(individuals), p=weights / weights.sum())
        parts, rows = [], []
        for index, settings in enumerate(stage.forms):
            here = np.flatnonzero(chosen == index)
            if not len(here):
                continue
            people = self._among(individuals[here], settings)
            form = self.form(settings.form)
            parts.append(form.draw(generator, people, "train", form_number(settings.form)))
            rows.append(torch.from_numpy(here))
        if len(parts) == 1:
            return parts[0]
        return Batch.mixed(parts, rows, self.tokenizer.pad_token_id)

    def _among(self, individuals: Individuals, settings: FormConfig) -> Individuals:
        """The people that a form is about: everybody's place in the population, moved into its share.

        Frequent people stay frequent, as places keep their order.
        """
        if settings.people is None:
            return individuals
        first, n = self.people_of(settings.people)
        return first + individuals * n // self.population.config.n_individuals

    def people_of(self, share: tuple[float, float]) -> tuple[int, int]:
        """The first, and the number, of the people trained on that a share of them means."""
        n = self.population.config.n_individuals
        first, stop = (round(part * n) for part in share)
        if stop <= first:
            raise ConfigError(
                f"data.stages: of {n} people trained on, nobody is in the share from {share[0]} to "
                f"{share[1]}; make it larger."
            )
        return first, stop - first

    def counted(self, batch: Batch, step: int) -> Bool[Tensor, "batch position"] | None:
        """On which tokens of a training step's batch the loss is; None: on all."""
        stage = self.data.stage_at(step)
        if stage is None or all(f.loss is None and f.attributes is None for f in stage.forms):
            return None
        there = batch.kind != TokenKind.PADDING
        wanted = {
            None: there,
            "values": batch.kind == TokenKind.VALUE,
            "answers": batch.answer >= 0,
            "not names": there & (batch.kind != TokenKind.NAME),
        }
        counted = there
        for settings in stage.forms:
            of_form = (batch.form == form_number(settings.form))[:, None]
            counted = torch.where(of_form, wanted[settings.loss], counted)
            if settings.attributes is not None:
                chosen = torch.tensor([self.attributes.index(name) for name in settings.attributes])
                other = (batch.kind == TokenKind.VALUE) & ~torch.isin(batch.attribute, chosen)
                counted = counted & ~(of_form & other)
        return counted

    def _require_attributes(self) -> None:
        """Refuses a form of a stage with the values of attributes that there are not."""
        for form in (form for stage in self.data.stages or () for form in stage.forms):
            if form.attributes is not None:
                try:
                    require_known(form.attributes, self.attributes, "attribute")
                except ArgumentError as error:
                    raise ConfigError(f"data.stages: the form {form.form!r}: {error}") from None

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
        return self.sequences(individuals, BIOGRAPHY, wordings, draw)

    @default_state()
    def sequences(
        self,
        individuals: Integer[np.ndarray, " batch"] | slice,
        form: str = BIOGRAPHY,
        wordings: Wordings = "evaluation",
        draw: int = 0,
    ) -> Batch:
        """One sequence about each given individual in some form, for measuring.

        Args:
            individuals: Who, at least one, as indices or a slice of the population.
            form: One of `interp.biographies.FORMS`.
            wordings: Those of training, or those never seen with a person (forms with one wording have the
                same).
            draw: Another number, from 0, gives other wordings in another order.

        Raises:
            ArgumentError: nobody, somebody who does not exist, or other wordings or draws than these.
            ConfigError: there is no such form, or the tokenizer does not know its words.
        """
        chosen = self.population.chosen(individuals)
        require_known([wordings], get_args(Wordings), "kind of wordings")
        draw = whole_number(draw, "draw", 0)
        made = self.form(form)
        stream = [_MEASURING_STREAM, self.seed, draw]
        if form != BIOGRAPHY:
            stream.append(crc32(form.encode()))
        generator = np.random.default_rng(stream)
        return made.draw(generator, chosen, wordings, form_number(form))

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
        n_attributes, n_templates = len(self.attributes), self.biography.n_templates
        shape = (len(people), n_attributes)
        if order.shape != shape or (np.sort(order, axis=1) != np.arange(n_attributes)).any():
            raise ArgumentError(
                f"order has the shape {order.shape}; give for each of {len(people)} biographies the numbers "
                f"0 to {n_attributes - 1} in some order."
            )
        if wordings.shape != shape or ((wordings < 0) | (wordings >= n_templates)).any():
            raise ArgumentError(
                f"wordings has the shape {wordings.shape}; give for each of {len(people)} biographies and "
                f"{n_attributes} attributes a template from 0 to {n_templates - 1}."
            )
        return self.biography.exactly(people, order, wordings)


def tokenizer_of(config: Config, lexicon: Lexicon) -> PreTrainedTokenizerFast:
    """The tokenizer of a run's population, and of the forms that its settings name.

    Raises:
        ConfigError: there is no such form, or it needs a token per word.
    """
    people = config.population
    forms = sorted(config.data.forms, key=form_number)
    whole = [name for name in forms if form_class(name).needs_words]
    if whole and config.tokenizer.kind != "word":
        raise ConfigError(
            f"The form {whole[0]!r} has words of its own, which need a token each; set tokenizer.kind to "
            f"word (it is {config.tokenizer.kind})."
        )
    n_people = people.n_individuals + people.n_held_out
    return build_tokenizer(lexicon, config.tokenizer, form_texts(forms, lexicon, n_people))
