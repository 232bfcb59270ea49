"""What a model answers when it is asked for a fact in one form or another.

Knowledge does not depend on the form of the question; memory is the reproduction of a trained sentence
(Allen-Zhu & Li 2023, arXiv:2309.14316). Every answer of a sequence is read with what precedes it given:
its loss, whether all its tokens are predicted, and how sure the model is of its first one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64
from torch import Tensor
from transformer_lens.model_protocol import TransformerLensModel

from interp.biographies import FORMS, Batch, Corpus, Wordings
from interp.biographies.forms import Individuals, Mnemonic
from interp.errors import ArgumentError, NothingToMeasureError, listed
from interp.model.forward import logits_at, measuring
from interp.torch_state import default_state

ANSWER_COLUMNS = ("form", "individual", "attribute", "loss", "right", "probability")
"""Columns of `answers`: nats, whether all tokens are predicted, probability of the first token."""

NAME = "name"
"""As an attribute: what an inverse question asks for."""


@default_state()
def answers(
    model: TransformerLensModel,
    corpus: Corpus,
    forms: str | Sequence[str] = ("biography", "question"),
    individuals: Individuals | slice | None = None,
    *,
    wordings: Wordings = "evaluation",
    draw: int = 0,
    batch_size: int = 128,
) -> pd.DataFrame:
    """Every answer about some people in some forms, one row each.

    In forms that tell nothing of which value comes next (mnemonic, fused, polyglot), an answer is right
    where the model predicts the first token of any value of the person that has not been told yet (in
    any language), and then the rest of the one that comes.

    Args:
        model: A model over the corpus's tokens; it is left as it was.
        corpus: The people.
        forms: Names out of `interp.biographies.FORMS`.
        individuals: About whom; everybody trained on by default.
        wordings: Those of training, or those never seen with a person.
        draw: Another number gives other wordings in another order.
        batch_size: Sequences computed at a time.

    Returns:
        Columns `form`, `individual`, `attribute` ("name" for an inverse question), `loss` (nats, summed
        over the tokens of the answer), `right` and `probability` (of its first token).

    Raises:
        ArgumentError: no form, nobody, or people who do not exist.
        ConfigError: no such form, or the tokenizer does not know its words.
        NothingToMeasureError: nobody of them has an answer in a form.
    """
    asked = listed(forms, "forms")
    if not asked:
        raise ArgumentError(f"No form is named; forms are {', '.join(FORMS)}.")
    people = corpus.population.trained if individuals is None else individuals
    tables = []
    for form in asked:
        batch = corpus.sequences(people, form, wordings, draw)
        if not bool((batch.answer >= 0).any()):
            raise NothingToMeasureError(
                f"Nobody of {len(batch)} people has an answer in the form {form!r}; choose other people."
            )
        table = answers_in(model, batch, corpus, batch_size)
        table.insert(0, "form", form)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def accuracy_by_form(table: pd.DataFrame) -> pd.DataFrame:
    """The mean over people of what `answers` returns.

    Columns `form`, `attribute` (and "all", their mean), `accuracy` (share), `loss` (nats) and
    `probability`.
    """
    by = table.assign(accuracy=table["right"].astype(float))
    columns = ["accuracy", "loss", "probability"]
    means = by.groupby(["form", "attribute"], sort=False)[columns].mean().reset_index()
    overall = means.groupby("form", sort=False)[columns].mean().reset_index()
    overall.insert(1, "attribute", "all")
    return pd.concat([overall, means], ignore_index=True)


def form_independence(accuracy: Mapping[str, float], trained: str) -> float:
    """Mean accuracy over the forms never trained, divided by that in the trained form; NaN if that is 0."""
    others = [value for form, value in accuracy.items() if form != trained]
    if not others or trained not in accuracy:
        raise ArgumentError(
            f"Form independence needs the accuracy in the trained form ({trained!r}) and in at least one "
            f"other; there are {', '.join(accuracy) or 'none'}."
        )
    return float(np.mean(others)) / accuracy[trained] if accuracy[trained] else float("nan")


def answers_in(
    model: TransformerLensModel, batch: Batch, corpus: Corpus, batch_size: int = 128
) -> pd.DataFrame:
    """The answers of a batch of one form: the columns of `answers` but for `form`."""
    parts = []
    device = next(model.parameters()).device  # type: ignore[attr-defined]
    form = corpus.form(list(FORMS)[int(batch.form[0])])
    with measuring(model):
        for part in batch.split(batch_size):
            if not bool((part.answer >= 0).any()):
                continue
            firsts = None
            if isinstance(form, Mnemonic):
                firsts = torch.from_numpy(form.first_tokens(part.individuals.numpy())).to(device)
            part = part.to(device)
            row, place = (part.answer >= 0).nonzero(as_tuple=True)
            logits = logits_at(model, part.tokens, row, place - 1)
            parts.append(_of_part(logits, part, row, place, firsts))
    table = pd.concat(parts, ignore_index=True)
    names = np.array([*corpus.attributes, NAME], dtype=object)
    return table.assign(attribute=names[table["attribute"]])


def _of_part(
    logits: Float[Tensor, "token vocab"],
    part: Batch,
    row: Int[Tensor, " token"],
    place: Int[Tensor, " token"],
    firsts: Int64[Tensor, "batch attribute language"] | None,
) -> pd.DataFrame:
    """The answers of one part, from the logits that predict their tokens (at `row` and `place`)."""
    target = part.tokens[row, place]
    log_probabilities = logits.float().log_softmax(dim=-1)
    loss = F.nll_loss(log_probabilities, target, reduction="none")
    number = part.answer[row, place].long()
    first = torch.ones_like(row, dtype=torch.bool)
    first[1:] = (row[1:] != row[:-1]) | (number[1:] != number[:-1])
    predicted = log_probabilities.argmax(dim=-1)
    right = predicted == target
    if firsts is not None:
        begins = (firsts[row] == predicted[:, None, None]).any(dim=-1)
        not_told = part.value_start[row] >= place[:, None]
        right = torch.where(first, (begins & not_told).any(dim=-1), right)
    which = first.long().cumsum(0) - 1
    n = int(which[-1]) + 1
    summed = torch.zeros(n, device=loss.device, dtype=loss.dtype).index_add_(0, which, loss)
    wrong = torch.zeros(n, device=loss.device).index_add_(0, which, (~right).float())
    columns: dict[str, Any] = {
        "individual": part.individuals[row[first]],
        "attribute": part.attribute[row[first], place[first]].long(),
        "loss": summed,
        "right": wrong == 0,
        "probability": (-loss[first]).exp(),
    }
    return pd.DataFrame({name: value.cpu().numpy() for name, value in columns.items()})
