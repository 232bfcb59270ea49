"""The loss along the straight line between two models' weights, and its barrier.

θ(α) = (1 - α) θ_first + α θ_second. Two models that training has brought to one basin are connected
without a barrier; models from other seeds have one, unless their neurons are permuted first.

Sources: Frankle et al. 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis",
arXiv:1912.05671, section 2; Entezari et al. 2022, "The Role of Permutation Invariance in Linear Mode
Connectivity of Neural Networks", arXiv:2110.06296, definition 1.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import AnyTexts, Batch, Corpus, Texts
from interp.errors import ArgumentError, listed, require_frame, require_known, whole_number
from interp.knowledge import (
    METRICS,
    Split,
    ValuePositions,
    measured_individuals,
    n_values,
    split_batch,
    summarise,
    value_statistics,
    value_table,
)
from interp.merging.combine import combined
from interp.merging.weights import Given, Weights, read_all, write_weights
from interp.model.forward import logits_at, measuring
from interp.progress import Progress, silent
from interp.torch_state import default_state

COLUMNS = ("alpha", "split", "attribute_loss", "attribute_accuracy")
"""The columns of `loss_along_line`."""
TEXTS = "texts"
"""What `split` is where texts are given."""
_LOSS, _ACCURACY = METRICS[0], METRICS[1]


@default_state()
def loss_along_line(
    first: Given,
    second: Given,
    n: int = 11,
    *,
    steps: Sequence[int | None] | int | None = None,
    splits: Sequence[Split] | Split | None = None,
    corpus: Corpus | None = None,
    texts: AnyTexts | None = None,
    n_individuals: int | None = None,
    batch_size: int = 128,
    progress: Progress = silent,
) -> pd.DataFrame:
    """What models on the straight line between two models' weights know.

    The ends are the given models, bit for bit. Of a run with patched attention models attend as in training.

    Args:
        first: A run (or its folder) or a model, at α = 0.
        second: One of the same architecture and tokenizer, at α = 1.
        n: How many models, both ends included; at least 2.
        steps: Of runs, the two checkpoints, or one for both; by default the last.
        splits: Which splits of the run's people; all that there are by default.
        corpus: Whose people; by default those of the runs.
        texts: Measure on these texts instead (`interp.Facts(...).texts`, `interp.Texts`, a batch); needed
            where neither a run nor a corpus is given.
        n_individuals: People measured per split; by default as in the run's training, and all of a corpus.
        batch_size: Texts in one forward pass.
        progress: Is told how far it is.

    Returns:
        Columns `alpha`, `split` ("texts" where texts are given), `attribute_loss` (nats per value) and
        `attribute_accuracy` (share of values).

    Raises:
        ArgumentError: models that do not fit together (see `merge`); runs about other people without
            corpus; no texts; a loss that is NaN.
    """
    n = whole_number(n, "n", 2)
    batch_size = whole_number(batch_size, "batch_size", 1)
    if n_individuals is not None:
        n_individuals = whole_number(n_individuals, "n_individuals", 1)
    ends = read_all([first, second], steps)
    batches = _batches(ends, splits, corpus, texts, n_individuals)
    model = ends[0].new_model()
    rows: list[tuple[Any, ...]] = []
    for place in range(n):
        alpha = place / (n - 1)
        progress(place / n, f"α = {alpha:.2f}")
        write_weights(model, combined([(ends[0], 1 - alpha), (ends[1], alpha)]))
        with _attending(ends[0], model):
            for split, batch in batches.items():
                loss, accuracy = _measured(model, batch, batch_size)
                if not np.isfinite(loss):
                    raise ArgumentError(
                        f"The attribute loss ({split}) at alpha={alpha:g} is no number (NaN or infinite), so "
                        "the line has no barrier that could be told. Take other checkpoints."
                    )
                rows.append((alpha, split, loss, accuracy))
    progress(1.0, "")
    return pd.DataFrame(rows, columns=list(COLUMNS))


def barrier(line: pd.DataFrame, split: str | None = None) -> float:
    """The largest excess of the loss over the straight line between the losses at the ends, in nats.

    max over α of L(θ(α)) - ((1 - α) L(θ(0)) + α L(θ(1))); at least 0, as the ends have none. Between the α of
    the table it may be higher.

    Args:
        line: What `loss_along_line` returned.
        split: Which split; by default "evaluation", or the only one there is.

    Raises:
        ArgumentError: another table, an unknown split, or ends that are missing.
    """
    table = with_straight(line)
    known = list(dict.fromkeys(table["split"]))
    if split is None:
        split = known[0] if len(known) == 1 else "evaluation"
    require_known([split], known, "split in this table")
    own = table[table["split"] == split]
    return max(0.0, float((own["attribute_loss"] - own["straight"]).max()))


def with_straight(line: pd.DataFrame) -> pd.DataFrame:
    """A line with the column `straight`: of each split, the loss on the straight line between its ends.

    Raises:
        ArgumentError: it is no such table, or lacks an end.
    """
    require_frame(line, "losses along a line")
    missing = [name for name in COLUMNS if name not in line]
    if missing or line.empty:
        raise ArgumentError(
            f"This table lacks {f'the column {missing[0]!r}' if missing else 'rows'}; give what "
            "interp.loss_along_line returned."
        )
    parts = []
    for split, own in line.groupby("split", sort=False):
        at = own.set_index("alpha")["attribute_loss"]
        if not {0.0, 1.0} <= set(at.index) or not at.index.is_unique or not np.isfinite(at).all():
            raise ArgumentError(
                f"The line of the split {split!r} needs one finite loss at each alpha, with 0 and 1 "
                "among them."
            )
        start, end = float(at[0.0]), float(at[1.0])
        straight = start + own["alpha"] * (end - start)
        parts.append(own.assign(straight=straight.where(own["alpha"] < 1, end)))
    return pd.concat(parts).sort_index()


def _attending(first: Weights, model: TransformerBridge) -> AbstractContextManager[object]:
    return nullcontext() if first.run is None else first.run.patched(model, first.step)


def _batches(
    ends: list[Weights],
    splits: Sequence[Split] | Split | None,
    corpus: Corpus | None,
    texts: AnyTexts | None,
    n_individuals: int | None,
) -> dict[str, AnyTexts]:
    """What is measured on, by split."""
    if texts is not None:
        if corpus is not None or splits is not None or n_individuals is not None:
            raise ArgumentError(
                "texts are given, and corpus, splits or n_individuals beside them; give one or the other."
            )
        return {TEXTS: _usable(texts, ends[0])}
    runs = [end.run for end in ends if end.run is not None]
    if corpus is None:
        if not runs:
            raise ArgumentError(
                "Two models say nothing of the texts that they are measured on: give texts= (such as "
                "interp.Facts(...).texts) or corpus=."
            )
        corpus = runs[0].corpus
        if runs[0].population.fingerprint() != runs[-1].population.fingerprint():
            raise ArgumentError(
                f"{runs[0].given} and {runs[-1].given} were trained on other people, so say on whom the line "
                "is measured: corpus=run.corpus of one of them."
            )
        if n_individuals is None:
            n_individuals = runs[0].config.evaluation.n_individuals
    tokenizer = ends[0].model.tokenizer
    if tokenizer is not None and tokenizer.get_vocab() != corpus.tokenizer.get_vocab():
        raise ArgumentError(
            f"The corpus has {len(corpus.tokenizer)} tokens and the models {len(tokenizer)}, or in another "
            "order: give a corpus in the models' own tokens."
        )
    return {
        split: split_batch(corpus, split, n_individuals)
        for split in splits_of(corpus, splits, n_individuals)
    }


def splits_of(
    corpus: Corpus, splits: Sequence[Split] | Split | None, n_individuals: int | None
) -> list[Split]:
    """The splits that are asked for; by default all in which there is anybody."""
    every: tuple[Split, ...] = get_args(Split)
    if splits is None:
        return [s for s in every if len(measured_individuals(corpus, s, n_individuals))]
    named = listed(splits, "splits")
    require_known(named, every, "split")
    return [split for split in every if split in named]


def _usable(texts: object, first: Weights) -> AnyTexts:
    if not isinstance(texts, Texts | Batch):
        raise ArgumentError(
            f"texts is {type(texts).__name__}: give interp.Texts, a batch of biographies, or "
            "interp.Facts(...).texts."
        )
    n_values(texts)
    if int(texts.tokens.max()) >= first.model.cfg.d_vocab:
        raise ArgumentError(
            f"The texts hold the token {int(texts.tokens.max())}, and the models have "
            f"{first.model.cfg.d_vocab}: give texts in their own tokens."
        )
    return texts


def _measured(model: TransformerBridge, batch: AnyTexts, batch_size: int) -> tuple[float, float]:
    if isinstance(batch, Batch):
        of_all = value_table(model, batch, batch_size)
        table = summarise(of_all, "", [str(i) for i in range(of_all.shape[2])])  # as in training
        overall = table[table["attribute"] == "all"].set_index("metric")["value"]
        return float(overall[_LOSS]), float(overall[_ACCURACY])
    device = next(model.parameters()).device
    sentences = int(batch.spans.sentence.max()) + 1
    parts = []
    with measuring(model):
        for start in range(0, len(batch), batch_size):
            part = batch[start : start + batch_size].to(device)
            where = ValuePositions.of(part)
            if not len(where.row):
                continue
            logits = logits_at(model, part.tokens, where.row, where.position)
            statistics = value_statistics(logits, where, len(part), sentences)[:2]
            parts.append(statistics.flatten(1).double().cpu())
    values = torch.cat(parts, dim=1)
    there = values[:, ~values[1].isnan()]
    loss, accuracy = (float(of.mean()) for of in there)
    return loss, accuracy
