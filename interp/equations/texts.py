"""Facts as equations: texts, the tokens in which each fact is to be predicted, and which fact they tell."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from transformer_lens.model_protocol import TransformerLensModel

from interp.asking import NAME
from interp.biographies import FORMS, Batch, Corpus, SentenceForm, Wordings
from interp.biographies.forms import BIOGRAPHY, Individuals, form_number
from interp.errors import ArgumentError, NothingToMeasureError, whole_number
from interp.facts import Facts
from interp.knowledge import ValuePositions
from interp.model import logits_at, require_room

PEOPLE_OR_FACTS = "people of its own. Give corpus (run.corpus), or facts (interp.Facts)"
"""What a series of models without either is told (see `interp.series.corpus_of`)."""
_STREAM = 0x657175  # which wordings the halves have, apart from all that is drawn elsewhere


@dataclass(frozen=True)
class Equations:
    """Facts in texts. A text tells one fact or several; a fact is told in one text.

    Attributes:
        tokens: Token ids, padded on the right.
        row: Of every token that is to be predicted (an answer's), its text.
        position: Where it is predicted, the position before it.
        target: The token.
        fact: Which fact it is part of, a row of `facts`.
        facts: A row a fact; of a corpus `form`, `individual` and `attribute`, of `interp.Facts`
            `relation`, `subject` and `wording`.
        text: The text of each fact.
    """

    tokens: Int64[Tensor, "text position"]
    row: Int64[Tensor, " token"]
    position: Int64[Tensor, " token"]
    target: Int64[Tensor, " token"]
    fact: Int64[Tensor, " token"]
    facts: pd.DataFrame
    text: Int64[Tensor, " fact"]

    def __len__(self) -> int:
        """How many facts there are."""
        return len(self.facts)

    def select(self, chosen: Bool[np.ndarray, " fact"]) -> "Equations":
        """Some of the facts (at least one), in the texts that tell them; what else these tell stays text."""
        wanted = torch.from_numpy(np.asarray(chosen))
        number = wanted.long().cumsum(0) - 1
        told = torch.zeros(len(self.tokens), dtype=torch.bool)
        told[self.text[wanted]] = True
        place = told.long().cumsum(0) - 1
        keep = wanted[self.fact]
        last = int(self._lengths()[told].max())
        return Equations(
            self.tokens[told, :last], place[self.row[keep]], self.position[keep],
            self.target[keep], number[self.fact[keep]],
            self.facts[np.asarray(chosen)].reset_index(drop=True), place[self.text[wanted]],
        )  # fmt: skip

    def _lengths(self) -> Int64[Tensor, " text"]:
        """Tokens of each text up to the last that is to be predicted."""
        ends = torch.zeros(len(self.tokens), dtype=torch.int64)
        return ends.scatter_reduce(0, self.row, self.position + 2, "amax")

    def parts(self, size: int) -> Iterator["Equations"]:
        """The texts in parts of at most `size`, cut behind the last token that is to be predicted."""
        lengths = self._lengths()
        for start in range(0, len(self.tokens), size):
            here = (self.row >= start) & (self.row < start + size)
            if bool(here.any()):
                width = int(lengths[start : start + size].max())
                yield replace(
                    self,
                    tokens=self.tokens[start : start + size, :width],
                    row=self.row[here] - start,
                    position=self.position[here],
                    target=self.target[here],
                    fact=self.fact[here],
                )

    def token_losses(
        self, model: TransformerLensModel
    ) -> tuple[Float[Tensor, " token"], Bool[Tensor, " token"]]:
        """The cross-entropy of every token that is to be predicted, in nats, and whether it is right.

        Mode and gradients of the model are the caller's.
        """
        device = next(model.parameters()).device  # type: ignore[attr-defined]
        row, position, target = (x.to(device) for x in (self.row, self.position, self.target))
        logits = logits_at(model, self.tokens.to(device), row, position).float()
        losses = F.cross_entropy(logits, target, reduction="none")
        return losses, logits.detach().argmax(dim=-1) == target

    @classmethod
    def joined(cls, several: Sequence["Equations"]) -> "Equations":
        """Several systems as one, facts and texts one after the other."""
        if len(several) == 1:
            return several[0]
        width = max(one.tokens.shape[1] for one in several)
        texts = np.cumsum([0, *(len(one.tokens) for one in several)]).tolist()
        facts = np.cumsum([0, *(len(one) for one in several)]).tolist()
        padded = [F.pad(one.tokens, (0, width - one.tokens.shape[1])) for one in several]
        return cls(
            torch.cat(padded),
            torch.cat([one.row + first for one, first in zip(several, texts, strict=False)]),
            torch.cat([one.position for one in several]),
            torch.cat([one.target for one in several]),
            torch.cat([one.fact + first for one, first in zip(several, facts, strict=False)]),
            pd.concat([one.facts for one in several], ignore_index=True),
            torch.cat([one.text + first for one, first in zip(several, texts, strict=False)]),
        )


def equations_of(
    corpus: Corpus,
    individuals: Individuals,
    form: str = BIOGRAPHY,
    wordings: Wordings = "train",
    half: int = 0,
) -> Equations:
    """The facts of some people in one form; halves 0 and 1 tell the same facts in other wordings.

    Sentences have two different wordings of a person in the two halves (where the form has one wording, or a
    person one, only their order differs); lists have another order.

    Args:
        corpus: The people.
        individuals: Whom, as indices.
        form: One of `interp.biographies.FORMS`.
        wordings: Those of training, or those never seen with a person.
        half: 0 or 1.

    Raises:
        NothingToMeasureError: none of them has an answer in the form.
        ConfigError: there is no such form, or the tokenizer does not know its words.
    """
    made = corpus.form(form)
    pool = made.wordings(wordings) if isinstance(made, SentenceForm) else None
    if pool is None or not isinstance(made, SentenceForm):
        return equations_in(corpus.sequences(individuals, form, wordings, half), corpus)
    generator = np.random.default_rng([_STREAM, corpus.seed, crc32(form.encode())])
    size, n_attributes = len(individuals), len(corpus.attributes)
    own = generator.permuted(pool[individuals], axis=-1)
    chosen = own[..., half % own.shape[-1]].astype(np.int64)
    order = np.tile(np.arange(n_attributes), (2, size, 1))
    if not (made.is_prose and made.settings.order == "fixed"):
        generator.permuted(order, axis=-1, out=order)
    batch = made.exactly(individuals, order[half], chosen, form_number(form))
    return equations_in(batch, corpus)


def equations_in(batch: Batch, corpus: Corpus) -> Equations:
    """The facts that a batch of a corpus's sequences asks for, in the order of person, then attribute."""
    row, place = (batch.answer >= 0).nonzero(as_tuple=True)
    if not len(row):
        raise NothingToMeasureError(
            f"Nobody of {len(batch)} people has an answer in these sequences; choose other people."
        )
    attribute = batch.attribute[row, place].long()
    attribute[attribute < 0] = len(corpus.attributes)
    key = row * (len(corpus.attributes) + 1) + attribute
    keys, fact = torch.unique(key, return_inverse=True)
    text = torch.div(keys, len(corpus.attributes) + 1, rounding_mode="floor")
    names = np.array([*corpus.attributes, NAME], dtype=object)
    forms = np.array(list(FORMS), dtype=object)
    facts = pd.DataFrame(
        {
            "form": forms[batch.form[text].numpy()],
            "individual": batch.individuals[text].numpy(),
            "attribute": names[(keys % (len(corpus.attributes) + 1)).numpy()],
        }
    )
    return Equations(batch.tokens, row, place - 1, batch.tokens[row, place], fact, facts, text)


def equations_of_facts(facts: Facts) -> Equations:
    """The facts of common knowledge, one a text."""
    texts = facts.texts
    where = ValuePositions.of(texts)
    told = facts.table[["relation", "subject", "wording"]]
    every = torch.arange(len(facts))
    return Equations(texts.tokens, where.row, where.position, where.target, where.row, told, every)


def require_fit(model: TransformerLensModel, equations: Equations) -> None:
    """Refuses texts that a model cannot read (ArgumentError)."""
    remedy = "Give facts in the model's own tokens, or people whose texts fit."
    tokens = equations.tokens
    require_room(model, tokens.shape[1], int(tokens.max()), "The texts", remedy)


def require_facts(facts: Any) -> Facts:
    """Facts as such; an ArgumentError for anything else."""
    if not isinstance(facts, Facts):
        raise ArgumentError(
            f"facts is a {type(facts).__name__}; give interp.Facts, e.g. interp.Facts.from_csv(path, "
            "model.tokenizer)."
        )
    return facts


def batch_size_of(given: object) -> int:
    """How many texts are computed at a time."""
    return whole_number(given, "batch_size", 1)
