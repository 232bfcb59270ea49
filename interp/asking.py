"""What a model answers when it is asked for a fact in one form or another.

Knowledge does not depend on the form of the question; memory is the reproduction of a trained sentence
(Allen-Zhu & Li 2023, arXiv:2309.14316). Every answer of a sequence is read with what precedes it given:
its loss, whether all its tokens are predicted, and how sure the model is of its first one.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn
from transformer_lens.model_protocol import TransformerLensModel

from interp.biographies import FORMS, Batch, Corpus, Wordings
from interp.biographies.forms import Individuals, Mnemonic
from interp.errors import ArgumentError, ConfigError, NothingToMeasureError, listed
from interp.model.forward import logits_at, measuring
from interp.progress import Progress, watched
from interp.series import AnySeries, Device, corpus_of, table_over_steps, using_adapter
from interp.torch_state import default_state

ANSWER_COLUMNS = ("form", "individual", "attribute", "loss", "right", "probability")
"""Columns of `answers`: nats, whether all tokens are predicted, probability of the first token."""

NAME = "name"
"""As an attribute: what an inverse question asks for."""


@default_state()
def answers(
    series: AnySeries,
    corpus: Corpus | None = None,
    forms: str | Sequence[str] = ("biography", "question"),
    individuals: Individuals | slice | None = None,
    *,
    steps: Sequence[int] | None = None,
    adapter: str | None = None,
    wordings: Wordings = "evaluation",
    draw: int = 0,
    batch_size: int = 128,
    device: Device = None,
    workers: int | None = None,
    progress: Progress = watched,
) -> pd.DataFrame:
    """Every answer about some people in some forms, one row each; over checkpoints, with their `step`.

    In forms that tell nothing of which value comes next (mnemonic, fused, polyglot), an answer is right
    where the model predicts the first token of any value of the person that has not been told yet (in
    any language), and then the rest of the one that comes.

    Args:
        series: A run, models by step, or one model over the corpus's tokens; models stay as they are.
        corpus: The people; those of the run by default.
        forms: Names out of `interp.biographies.FORMS`.
        individuals: About whom; everybody trained on by default.
        steps: Which checkpoints; all by default.
        adapter: Of a run that trains one, "merged", "on" or "off" (see `Run.model`); by default as in
            training.
        wordings: Those of training, or those never seen with a person.
        draw: Another number gives other wordings in another order.
        batch_size: Sequences computed at a time.
        device: As in `series.over_steps`, as are workers and progress.
        workers: See there.
        progress: See there.

    Returns:
        Columns `form`, `individual`, `attribute` ("name" for an inverse question), `loss` (nats, summed
        over the tokens of the answer), `right` and `probability` (of its first token); in front `step`,
        unless one model is given.

    Raises:
        ArgumentError: no form, nobody, people who do not exist, or no corpus for models.
        ConfigError: no such form, the tokenizer does not know its words, or its sequences are longer
            than the model's context.
        NothingToMeasureError: nobody of them has an answer in a form.
        CheckpointError: there is no checkpoint at a step.
        RunError: the run had no adapter at a step.
    """
    asked = listed(forms, "forms")
    if not asked:
        raise ArgumentError(f"No form is named; forms are {', '.join(FORMS)}.")
    corpus = corpus_of(series, corpus)
    people = corpus.population.trained if individuals is None else individuals
    batches = {form: corpus.sequences(people, form, wordings, draw) for form in asked}
    for form, batch in batches.items():
        if not bool((batch.answer >= 0).any()):
            raise NothingToMeasureError(
                f"Nobody of {len(batch)} people has an answer in the form {form!r}; choose other people."
            )
    measure = partial(_answers_of, batches=batches, corpus=corpus, batch_size=batch_size)
    table = table_over_steps(
        using_adapter(series, adapter), measure, steps, device, workers=workers, progress=progress
    )
    return table.drop(columns="step") if isinstance(series, nn.Module) else table


def _answers_of(
    model: TransformerLensModel, batches: Mapping[str, Batch], corpus: Corpus, batch_size: int
) -> pd.DataFrame:
    """The answers of a batch of each form."""
    tables = []
    for form, batch in batches.items():
        table = answers_in(model, batch, corpus, batch_size)
        table.insert(0, "form", form)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def accuracy_by_form(table: pd.DataFrame) -> pd.DataFrame:
    """The mean over people of what `answers` returns.

    Columns `form`, `attribute` (and "all", their mean), `accuracy` (share), `loss` (nats) and
    `probability`; in front `step`, where the table has it.

    Raises:
        ArgumentError: it is no such table, or has no row.
    """
    lacking = [name for name in ANSWER_COLUMNS if name not in table]
    if lacking or table.empty:
        raise ArgumentError(
            f"The table has {f'no column {lacking[0]!r}' if lacking else 'no row'}; give what "
            "interp.answers returns."
        )
    keys = [*(["step"] if "step" in table else []), "form"]
    by = table.assign(accuracy=table["right"].astype(float))
    columns = ["accuracy", "loss", "probability"]
    means = by.groupby([*keys, "attribute"], sort=False)[columns].mean().reset_index()
    overall = means.groupby(keys, sort=False)[columns].mean().reset_index()
    overall.insert(len(keys), "attribute", "all")
    return pd.concat([overall, means], ignore_index=True)


def form_independence(accuracy: Mapping[str, float], trained: str) -> float:
    """Mean accuracy over the forms never trained, divided by that in the trained form; NaN if that is 0.

    1 means that what is known in one form is known in every form; 0, that only the trained form is
    recalled.

    Args:
        accuracy: The accuracy by form, a share.
        trained: The form that was trained.

    Raises:
        ArgumentError: the trained form, or every other one, is missing.

    Example:
        >>> form_independence({"biography": 0.8, "question": 0.2, "triple": 0.6}, trained="biography")
        0.5
    """
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
    length, n_ctx = batch.tokens.shape[1], model.cfg.n_ctx
    if length > n_ctx:
        raise ConfigError(
            f"Sequences of the form {form.name!r} have up to {length} tokens, but the model's context is "
            f"{n_ctx} tokens; leave the form out, or train with a larger model.n_ctx."
        )
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
