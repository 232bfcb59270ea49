"""What a model knows: attribute loss and accuracy, confidence, and the no-knowledge baseline.

Definitions (paper, section 2): the *attribute loss* is the cross-entropy summed over the tokens of a
value, averaged over the values (six of drawn people) and the people, in nats; a value that somebody does
not have counts for nothing. The *attribute accuracy* is the share of values whose tokens are all predicted
right. Confidence is read where the first token of the value
is predicted: the probability of the top prediction, and the entropy of the prediction in nats.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor
from transformer_lens.model_protocol import TransformerLensModel

from interp.biographies import ATTRIBUTES, AnyTexts, Batch, Corpus, Population, Texts
from interp.biographies.sampling import Uniform
from interp.errors import ArgumentError, NothingToMeasureError, require_known, whole_number
from interp.model.forward import logits_at, measuring
from interp.torch_state import default_state

Split = Literal["train", "evaluation", "held_out", "finetuned"]
"""train: known people in training wordings; evaluation: known people in wordings never seen with
them; held_out: people never seen; finetuned: those whom fine-tuning is on, in wordings never seen with
them (the other splits are without them)."""
SPLITS: tuple[Split, ...] = ("train", "evaluation", "held_out")
"""The splits of a run that is not fine-tuned."""

METRICS = ("attribute_loss", "attribute_accuracy", "top_probability", "entropy")
"""What `measure` reports, in this order. Units: nats, share, probability, nats."""
_ACCURACY = METRICS[1]


@dataclass(frozen=True)
class ValuePositions:
    """Where the tokens of values are predicted, for every value token of some texts.

    `row` is the text, `position` that whose logits predict the token, the one before it; `attribute` the
    index of the attribute (of texts that are no biographies, of the sentence); `first` says whether the
    token (`target`) is the first of its value.
    """

    row: Int[Tensor, " token"]
    position: Int[Tensor, " token"]
    attribute: Int[Tensor, " token"]
    target: Int[Tensor, " token"]
    first: Bool[Tensor, " token"]

    @classmethod
    def of(cls, texts: AnyTexts) -> "ValuePositions":
        """The value tokens of texts: by text, then attribute or sentence, then token."""
        if isinstance(texts, Texts):
            spans = texts.spans
            row, before = spans.predicts_value.nonzero(as_tuple=True)
            sentence = spans.sentence[row, before + 1].long()
            first = spans.value_start[row, sentence] == before + 1
            return cls(row, before, sentence, texts.tokens[row, before + 1], first)
        n_attributes = texts.value_start.shape[1]
        lengths = texts.value_length.flatten()
        value = torch.repeat_interleave(lengths)  # which value each token belongs to
        begins = torch.cumsum(lengths, 0) - lengths
        within = torch.arange(len(value), device=value.device) - begins[value]
        row = value // n_attributes
        position = texts.value_start.flatten()[value] + within
        target = texts.tokens[row, position]
        return cls(row, position - 1, value % n_attributes, target, within == 0)


def value_statistics(
    logits: Float[Tensor, "token vocab"],
    where: ValuePositions,
    n_biographies: int,
    n_attributes: int = len(ATTRIBUTES),
) -> Float[Tensor, "metric batch attribute"]:
    """The four metrics of every value, from the logits that predict its tokens (at `where`).

    `METRICS` along the first axis: summed cross-entropy (nats), whether all tokens are right (0 or 1), top
    probability and entropy (nats) at the first token. All are NaN where there is no value.
    """
    log_probabilities = logits.float().log_softmax(dim=-1)
    loss = -log_probabilities.gather(1, where.target[:, None])[:, 0]
    wrong = (log_probabilities.argmax(dim=-1) != where.target).float()
    at_first = log_probabilities[where.first]
    value = where.row * n_attributes + where.attribute
    summed = log_probabilities.new_zeros(2, n_biographies * n_attributes)
    summed.index_add_(1, value, torch.stack([loss, wrong]))
    top = at_first.amax(dim=-1).exp()
    entropy = -(at_first.exp() * at_first).sum(dim=-1)
    right = (summed[1] == 0).float()
    if len(top) == summed.shape[1]:
        flat = torch.stack([summed[0], right, top, entropy])
    else:
        there = value[where.first]
        flat = summed.new_full((len(METRICS), summed.shape[1]), float("nan"))
        flat[:, there] = torch.stack([summed[0, there], right[there], top, entropy])
    return rearrange(
        flat, "metric (batch attribute) -> metric batch attribute", attribute=n_attributes
    )


def split_batch(corpus: Corpus, split: Split, n_individuals: int | None = None) -> Batch:
    """The biographies on which a split is measured: of `measured_individuals`, the same every time.

    Raises:
        NothingToMeasureError: there is nobody in it.
        ArgumentError: an unknown split, or a number of people that is none.
    """
    people = corpus.population
    individuals = measured_individuals(corpus, split, n_individuals)
    if not len(individuals):
        raise NothingToMeasureError(
            f"There is nobody to measure on the split {split!r}: population.n_held_out="
            f"{people.config.n_held_out}, n_individuals={n_individuals}, {len(corpus.finetuned)} people "
            "of fine-tuning. Choose another split, or a population that holds (more) people out."
        )
    return corpus.biographies(individuals, "train" if split == "train" else "evaluation")


def measured_individuals(
    corpus: Corpus, split: Split, n_individuals: int | None = None
) -> Integer[np.ndarray, " individual"]:
    """Whom a split is measured on: all, or at most `n_individuals`.

    Where all are equally likely the first, else evenly spaced ones, so that frequent and rare people are
    measured alike.
    """
    require_known([split], get_args(Split), "split")
    if n_individuals is not None:
        n_individuals = whole_number(n_individuals, "n_individuals", 0)
    people = corpus.population
    if split == "finetuned":
        individuals = corpus.finetuned
    else:
        chosen = people.held_out if split == "held_out" else people.trained
        individuals = np.setdiff1d(np.arange(len(people))[chosen], corpus.finetuned)
    return chosen_evenly(individuals, n_individuals, isinstance(corpus.sampler, Uniform))


def chosen_evenly(
    individuals: Integer[np.ndarray, " individual"], n: int | None, alike: bool
) -> Integer[np.ndarray, " chosen"]:
    """At most `n` people: the first where all are equally likely (`alike`), else evenly spaced ones."""
    if n is None or n >= len(individuals):
        return individuals
    return individuals[:n] if alike else individuals[np.arange(n) * len(individuals) // n]


@default_state()
def value_table(
    model: TransformerLensModel, batch: Batch, batch_size: int = 128
) -> Float[np.ndarray, "metric batch attribute"]:
    """The metrics of every single value of a batch (see `value_statistics`); NaN where there is none."""
    parts = []
    device = next(model.parameters()).device  # type: ignore[attr-defined]
    with measuring(model):
        for part in batch.split(batch_size):
            part = part.to(device)
            where = ValuePositions.of(part)
            logits = logits_at(model, part.tokens, where.row, where.position)
            parts.append(value_statistics(logits, where, *part.value_start.shape))
    return torch.cat(parts, dim=1).cpu().numpy()


def n_values(texts: AnyTexts) -> int:
    """How many values some texts have; there has to be one."""
    n = int(ValuePositions.of(texts).first.sum())
    if not n:
        raise ArgumentError(
            "The texts have no value, so nothing is recalled in them. Name the tokens that the model is to "
            "recall as values (`Spans.from_lists`), each after its name."
        )
    return n


def summed_loss(model: TransformerLensModel, batch: AnyTexts, where: ValuePositions) -> float:
    """The cross-entropy of all value tokens (`where`) of texts together, in nats.

    Hooks on the model take effect; its mode and gradients are the caller's.
    """
    logits = logits_at(model, batch.tokens, where.row, where.position)
    losses = F.cross_entropy(logits.float(), where.target, reduction="none")
    return float(losses.double().sum())


@default_state()
def measure(
    model: TransformerLensModel,
    corpus: Corpus,
    split: Split = "evaluation",
    n_individuals: int | None = None,
    batch_size: int = 128,
) -> pd.DataFrame:
    """What a model over a corpus's tokens knows of a split, as a tidy table.

    Columns `split`, `metric` (`METRICS`), `attribute` (a name, or "all" for their mean) and `value`; the
    model is left as it was. People are those of `measured_individuals`.
    """
    batch = split_batch(corpus, split, n_individuals)
    return summarise(value_table(model, batch, batch_size), split, corpus.attributes)


def is_missing(
    table: Float[np.ndarray, "metric batch attribute"],
) -> Bool[np.ndarray, "batch attribute"]:
    """Which values of a table of single values are not there; whether a value is right is known else."""
    missing: Bool[np.ndarray, "batch attribute"] = np.isnan(table[METRICS.index(_ACCURACY)])
    return missing


def mean_metric(table: Float[np.ndarray, "metric batch attribute"], metric: str) -> float:
    """The mean of a metric over a table of single values: over attributes, of those who have a value."""
    values = table[METRICS.index(metric)]
    if not is_missing(table).any():
        return float(values.mean(dtype=np.float64))
    summary = summarise(table, "", [str(i) for i in range(table.shape[2])])
    chosen = (summary["metric"] == metric) & (summary["attribute"] == "all")
    return float(summary.loc[chosen, "value"].iloc[0])


def summarise(
    table: Float[np.ndarray, "metric batch attribute"],
    split: str,
    attributes: Sequence[str] = ATTRIBUTES,
) -> pd.DataFrame:
    """Means over people of a table of single values, in the form that `measure` returns.

    Values that are not there are left out, as is an attribute that nobody has.
    """
    missing = is_missing(table)
    if missing.any():
        told = ~np.asarray(missing.all(axis=0))
        table, missing = table[:, :, told], missing[:, told]
        attributes = [name for name, of in zip(attributes, told, strict=True) if of]
        by_attribute = table.mean(axis=1, dtype=np.float64, where=~missing)
    else:
        by_attribute = table.mean(axis=1, dtype=np.float64)
    rows = [
        {"split": split, "metric": metric, "attribute": attribute, "value": float(value)}
        for metric, values in zip(METRICS, by_attribute, strict=True)
        for attribute, value in [("all", values.mean()), *zip(attributes, values, strict=True)]
    ]
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Baseline:
    """The loss of a model that knows how values are distributed, but no individual; in nats.

    Attributes:
        theoretical: Per attribute, the log of the number of values.
        population: Per attribute, the entropy of the values that the drawn people have.
        statistics: What a model can reach that learned the drawn frequencies without telling people
            apart: as `population`, but with day, month and year of a birth date independent. (The joint
            entropy of N dates is at most log N: to reach it is to know them by heart.)

    People without a value are left out; NaN where nobody has one.
    """

    theoretical: dict[str, float]
    population: dict[str, float]
    statistics: dict[str, float]

    @classmethod
    def of(cls, population: Population, n_individuals: int | None = None) -> "Baseline":
        """The baseline of a population's trained people, or of the first `n_individuals` of them."""
        values = population.values[population.trained][:n_individuals]
        pools = population.lexicon.values
        theoretical = {name: float(np.log(len(pool))) for name, pool in pools.items()}
        own = {name: values[values[:, i] >= 0, i] for i, name in enumerate(pools)}
        exact = {name: entropy(of) for name, of in own.items()}
        independent = {
            name: float(sum(entropy(part) for part in _words_of_dates(pools[name], own[name])))
            for name in population.lexicon.dates
        }
        return cls(theoretical, exact, exact | independent)

    @staticmethod
    def overall(by_attribute: dict[str, float]) -> float:
        """The mean over attributes, in nats."""
        values = list(by_attribute.values())
        return float(np.nanmean(values) if np.isnan(values).any() else np.mean(values))


def entropy(values: Integer[np.ndarray, " individual"]) -> float:
    """Entropy of the empirical distribution of some values, in nats; NaN of none."""
    if not len(values):
        return float("nan")
    _, counts = np.unique(values, return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _words_of_dates(
    pool: Sequence[str], values: Integer[np.ndarray, " individual"]
) -> list[Integer[np.ndarray, " individual"]]:
    """Of some dates, given by their places in a pool, the day, the month and the year, as numbers."""
    parts = []
    for words in zip(*(date.split() for date in pool), strict=True):
        number = {word: i for i, word in enumerate(dict.fromkeys(words))}
        parts.append(np.array([number[word] for word in words])[values])
    return parts
