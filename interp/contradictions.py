"""What a model makes of contradictory facts: the probability of either value, person by person.

Claims to be held against it: the model averages (p(A) is A's share of the biographies); the last seen
wins, where A and B come one after the other.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from torch import nn
from transformer_lens.model_protocol import TransformerLensModel

from interp.biographies import Batch, Corpus, Wordings
from interp.errors import NothingToMeasureError
from interp.knowledge import value_table
from interp.progress import Progress, watched
from interp.series import AnySeries, Device, corpus_of, table_over_steps
from interp.torch_state import default_state


@default_state()
def contradiction_table(
    series: AnySeries,
    steps: int | Sequence[int] | None = None,
    corpus: Corpus | None = None,
    *,
    wordings: Wordings = "evaluation",
    draw: int = 0,
    batch_size: int = 128,
    device: Device = None,
    workers: int | None = None,
    progress: Progress = watched,
) -> pd.DataFrame:
    """The probability of both values (A: one's own, B: the second) of everybody who is contradicted.

    Both are asked in the same biography, up to the value.

    Args:
        series: A run, models by step, or one model over the corpus's tokens; models stay as they are.
        steps: Which checkpoints, or one; all by default.
        corpus: The people, contradicted in training (`corpus.contradictions`); those of the run by default.
        wordings: Those of training, or those never seen with a person.
        draw: Another number gives other wordings in another order.
        batch_size: Biographies computed at a time.
        device: As in `series.over_steps`, as are workers and progress.
        workers: See there.
        progress: See there.

    Returns:
        Columns `individual`, `attribute`, `value_a`, `value_b`, `p_a` and `p_b`, the probability of all
        tokens of a value; in front `step`, unless one model is given.

    Raises:
        NothingToMeasureError: nobody is contradicted.
        ArgumentError: no corpus for models, or an argument as of `Corpus.biographies`.
        CheckpointError: there is no checkpoint at a step.
    """
    corpus = corpus_of(series, corpus)
    told, contrary = corpus.contradictions, corpus.contrary
    if told is None or contrary is None:
        raise NothingToMeasureError(
            "Nobody is contradicted in this corpus; train a run with data.contradictions."
        )
    batches = [of.biographies(told.individuals, wordings, draw) for of in (corpus, contrary)]
    people = told.table(corpus.population)
    measure = partial(_probabilities, batches, told.attribute, people, batch_size)
    chosen = [steps] if isinstance(steps, int | np.integer) else steps
    table = table_over_steps(series, measure, chosen, device, workers=workers, progress=progress)
    return table.drop(columns="step") if isinstance(series, nn.Module) else table


def _probabilities(
    batches: Sequence[Batch],
    attribute: int,
    people: pd.DataFrame,
    batch_size: int,
    model: TransformerLensModel,
) -> pd.DataFrame:
    """The table of one model."""
    losses = [value_table(model, batch, batch_size)[0][:, attribute] for batch in batches]
    p_a, p_b = (np.exp(-loss.astype(np.float64)) for loss in losses)
    return people.assign(p_a=p_a, p_b=p_b)
