"""What attention and memory do for recall, step by step, each by several measures.

Some measures read one part of a model (where heads look, what MLPs write), others what an intervention
does to an answer. "attention alone" and "memory alone" put two checkpoints together: the last one with the
attention patterns of a step, and that step with the patterns of the last one, in the rows from which values
are predicted. So each is asked what it can do while the other is finished. "Memory" is then all of the step's
weights but these rows of its patterns: MLPs and embeddings, attention among names, and what heads write.
Both are read in the loss of first value tokens among those of the attribute: statistics, such as that a
company comes here, have no part in it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from interp.attention import attention_to_names, scores_by_attribute
from interp.biographies import Batch, Corpus, Spans, Texts
from interp.interventions import LOGIT_DIFFERENCE, Grid, Pairs, patch, swapped_people
from interp.knowledge import (
    ValuePositions,
    entropy,
    mean_metric,
    split_batch,
    value_statistics,
)
from interp.memory import (
    MECHANISMS,
    FactLabels,
    cache_activations,
    draw_batches,
    key_measures,
    swaps,
    value_measures,
)
from interp.memory.emergence import Mechanism, strength_of
from interp.model import measuring, pattern_hook, read_patterns
from interp.model.forward import logits_at
from interp.series import AnySeries, over_steps, stacked, table_over_steps

Part = Literal["attention", "memory"]
ALONE: dict[str, tuple[Part, str]] = {
    "attention alone": ("attention", "gain"),
    "attention alone, right": ("attention", "accuracy"),
    "memory alone": ("memory", "gain"),
    "memory alone, right": ("memory", "accuracy"),
}
"""Measures of two checkpoints put together: whose state at the step is asked about, and the number."""
_SWAPPED_ATTENTION = {"site": "attn_out", "position": "predicts value", "sentences": "any"}
PARTS: dict[str, Part] = {
    "attention to names": "attention",
    "attention of recalling heads": "attention",
    "share through attention": "attention",
    "answers follow attention": "attention",
    "keys tell people apart": "memory",
    "share through MLP": "memory",
    "answers follow MLP": "memory",
    "values promoted": "memory",
    **{name: part for name, (part, _) in ALONE.items()},
}
"""All measures, and which part each is about."""
_DRAWS = range(2)


def mechanisms(at: str) -> dict[str, Mechanism]:
    """The measures that are read from tables, where people are known `at` a token of their names."""
    keys, values = MECHANISMS["key selectivity"], MECHANISMS["key-value agreement at names"]
    follows = MECHANISMS["attention swap at value"]
    there = {"position": at}
    return {
        "attention to names": MECHANISMS["extraction attention"],
        "share through attention": replace(
            follows, rows=_SWAPPED_ATTENTION, value="share", control="control_share"
        ),
        "answers follow attention": follows,
        "keys tell people apart": replace(
            keys, rows={**keys.rows, **there}, control_rows={**(keys.control_rows or {}), **there}
        ),
        "share through MLP": MECHANISMS["MLP share at names"],
        "answers follow MLP": MECHANISMS["MLP swap at names"],
        "values promoted": replace(values, rows={**values.rows, **there}),
    }


@dataclass(frozen=True)
class Read:
    """What models are read on: known people in evaluation wordings, and people held out.

    Attributes:
        biographies: Of known people; attention and knowledge are read there.
        pairs: Pairs of people that are swapped.
        labels: Who has which values.
        known: Two draws of sentences about the known people.
        held_out: The same about people held out.
        asked: By attribute, pairs that are swapped in what each head says, to find those that recall it.
    """

    biographies: Batch
    pairs: Pairs
    labels: FactLabels
    known: Sequence[Batch]
    held_out: Sequence[Batch]
    asked: dict[str, Pairs]

    @classmethod
    def of(cls, corpus: Corpus, n_people: int, n_pairs: int) -> "Read":
        """Of a corpus, at most `n_people` of each kind.

        Raises:
            NothingToMeasureError: no people are held out.
        """
        batch = split_batch(corpus, "evaluation", n_people)
        known = batch.individuals.numpy()
        others = split_batch(corpus, "held_out", n_people).individuals.numpy()
        return cls(
            batch, swapped_people(corpus, n_pairs), FactLabels.of(corpus),
            draw_batches(corpus, known, "evaluation", _DRAWS),
            draw_batches(corpus, others, "evaluation", _DRAWS),
            {
                name: swapped_people(corpus, max(2, n_pairs // len(corpus.attributes)), attribute=name)
                for name in corpus.attributes
            },
        )  # fmt: skip

    def among(self, vocab: int) -> Bool[Tensor, "attribute vocab"]:
        """Which of so many tokens begin a value of an attribute."""
        found = torch.zeros(len(self.asked), vocab, dtype=torch.bool)
        for row, name in enumerate(self.asked):
            found[row, self.labels.relations[name].tokens] = True
        return found

    @cached_property
    def baseline(self) -> float:
        """The loss of the first value token if statistics alone are known: its entropy, nats."""
        where = first_tokens(self.biographies)
        told = pd.DataFrame({"attribute": where.attribute, "token": where.target})
        of_each = told.groupby("attribute")["token"].apply(lambda t: entropy(t.to_numpy()))
        return float(of_each.mean())


def strengths(
    series: AnySeries,
    last: TransformerBridge,
    read: Read,
    at: str,
    steps: Sequence[int] | None = None,
    workers: int | None = None,
) -> pd.DataFrame:
    """Every measure of a series of models.

    Args:
        series: The models, by step.
        last: That of the last step.
        read: What they are read on.
        at: The kind of name token at which people are known, e.g. "middle name".
        steps: Which of them; all by default.
        workers: Processes for the swaps.

    Returns:
        Columns `measure`, `step`, `value`, `control` (NaN where a measure needs none) and `strength`: what
        it has beyond its control. Of the layers, that with most strength at the last step is followed.
    """
    texts = Texts(read.biographies.tokens, Spans.of(read.biographies))
    in_memory = over_steps(series, partial(_memory, read=read), steps)
    tables = {
        ("attention", "scores"): attention_to_names(series, steps, texts=texts),
        ("interventions", "swaps"): swaps(
            series, steps, sites=("attn_out", "mlp_out"), pairs={"any": read.pairs}, workers=workers
        ),
        **{
            ("memory", name): stacked([(step, found[name]) for step, found in in_memory])
            for name in ("keys", "values")
        },
    }
    heads = recalling(last, read)
    looks = table_over_steps(series, partial(_looks, heads=heads, read=read), steps)
    parts = [looks]
    parts += [
        strength_of(tables[mechanism.table], mechanism).assign(measure=name)
        for name, mechanism in mechanisms(at).items()
    ]
    alone = table_over_steps(series, partial(_alone, last=last, read=read), steps)
    parts.append(alone.assign(control=np.nan))
    found = pd.concat(parts, ignore_index=True)
    found["strength"] = found["value"] - found["control"].fillna(0.0)
    return found[["measure", "step", "value", "control", "strength"]]


def _memory(model: TransformerBridge, read: Read) -> dict[str, pd.DataFrame]:
    known = cache_activations(model, read.known)
    foreign = cache_activations(model, read.held_out, sites=[])
    return {
        "keys": key_measures(read.labels, known, foreign),
        "values": value_measures(model, read.labels, known),
    }


def recalling(model: TransformerBridge, read: Read) -> pd.DataFrame:
    """How much of what is recalled each head brings, by a swap of what it says where the value is predicted.

    Columns `attribute`, `layer`, `head`, `weight`: its part of the change of the logit difference that heads
    bring, of those that bring something; they add up to 1 for an attribute, and are NaN where none brings
    anything.
    """
    parts = []
    for name, pairs in read.asked.items():
        moved = patch(model, pairs, Grid("z", "predicts value"), metrics=LOGIT_DIFFERENCE)
        weight = moved["change"].clip(lower=0.0)
        own = moved[["layer", "head"]].astype(int)
        parts.append(own.assign(attribute=name, weight=weight / weight.sum()))
    return pd.concat(parts, ignore_index=True)


def _looks(model: TransformerBridge, heads: pd.DataFrame, read: Read) -> pd.DataFrame:
    scores = scores_by_attribute(model, read.biographies, list(read.asked))
    own = scores[scores["metric"] == "attribute_to_any_name"]
    found = own.merge(heads, on=["attribute", "layer", "head"])
    weights = found["weight"] / len(read.asked)
    value, control = ((found[column] * weights).sum(skipna=False) for column in ("value", "chance"))
    row = ("attention of recalling heads", float(value), float(control))
    return pd.DataFrame([row], columns=["measure", "value", "control"])


def _alone(model: TransformerBridge, last: TransformerBridge, read: Read) -> pd.DataFrame:
    known = {
        "attention": known_with(last, model, read),
        "memory": known_with(model, last, read),
    }
    rows = [(name, known[part][number]) for name, (part, number) in ALONE.items()]
    return pd.DataFrame(rows, columns=["measure", "value"])


@torch.no_grad()
def known_with(
    model: TransformerBridge, patterns_of: TransformerBridge, read: Read, batch_size: int = 64
) -> dict[str, float]:
    """What a model knows while it looks, from where values are predicted, where another one does.

    Returns:
        "gain": by how much the loss of first value tokens, among those of the attribute, is below the
        baseline, nats, at least 0; "accuracy": the share of them that get most of these.
    """
    parts = []
    for some in read.biographies.split(batch_size):
        where = first_tokens(some)
        rows = torch.zeros(some.tokens.shape, dtype=torch.bool)
        rows[where.row, where.position] = True
        with measuring(model), measuring(patterns_of), looking_as(model, patterns_of, some, rows):
            logits = logits_at(model, some.tokens, where.row, where.position)
        logits = logits.masked_fill(~read.among(logits.shape[1])[where.attribute], -torch.inf)
        parts.append(value_statistics(logits, where, len(some)))
    table = torch.cat(parts, dim=1).numpy()
    loss, accuracy = (mean_metric(table, f"attribute_{name}") for name in ("loss", "accuracy"))
    return {"gain": max(0.0, read.baseline - loss), "accuracy": accuracy}


def first_tokens(texts: Batch) -> ValuePositions:
    """Where the first tokens of values are predicted."""
    where = ValuePositions.of(texts)
    columns = (where.row, where.position, where.attribute, where.target, where.first)
    return ValuePositions(*(column[where.first] for column in columns))


@contextmanager
def looking_as(
    model: TransformerBridge,
    patterns_of: TransformerBridge,
    texts: Batch,
    rows: Bool[Tensor, "text position"],
) -> Iterator[None]:
    """While this lasts, a model that reads these texts attends from some positions as another one does."""
    given: dict[int, Tensor] = {}
    read_patterns(patterns_of, texts.tokens, given.__setitem__)

    def replaced(own: Tensor, hook: Any, layer: int) -> Tensor:
        return torch.where(rows[:, None, :, None], given[layer].to(own.dtype), own)

    hooks = [(pattern_hook(layer), partial(replaced, layer=layer)) for layer in given]
    with model.hooks(fwd_hooks=hooks):
        yield
