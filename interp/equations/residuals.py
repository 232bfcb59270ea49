"""Residuals: the loss of every single fact, over training.

A mean loss of half the baseline can be half of the facts known and the others not at all, or all facts known
by half: the distribution of residuals tells the two apart.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import nn
from transformer_lens.model_protocol import TransformerLensModel

from interp.asking import answers
from interp.biographies import Corpus, Wordings
from interp.biographies.forms import BIOGRAPHY, Individuals
from interp.equations.texts import (
    PEOPLE_OR_FACTS,
    Equations,
    batch_size_of,
    equations_of_facts,
    require_facts,
    require_fit,
)
from interp.errors import ArgumentError, require_frame, require_known
from interp.facts import Facts
from interp.interventions.arrays import named_array
from interp.knowledge import Baseline
from interp.model import measuring, require_numbers
from interp.progress import Progress, watched
from interp.series import AnySeries, Device, corpus_of, table_over_steps
from interp.torch_state import default_state

BASELINES = ("statistics", "population", "theoretical")
"""What a fact is held against; see `interp.knowledge.Baseline`."""
KNOWN, UNKNOWN = 0.2, 0.8
"""Shares of the baseline below which a fact counts as known, and above which as not known."""


@default_state()
def residuals(
    series: AnySeries,
    steps: Sequence[int] | None = None,
    individuals: Individuals | slice | None = None,
    *,
    facts: Facts | None = None,
    corpus: Corpus | None = None,
    form: str = BIOGRAPHY,
    wordings: Wordings = "evaluation",
    draw: int = 0,
    baseline: str = "statistics",
    adapter: str | None = None,
    batch_size: int = 128,
    device: Device = None,
    workers: int | None = None,
    progress: Progress = watched,
) -> pd.DataFrame:
    """The loss of every fact at checkpoints, a row each: the residuals of the equations.

    Args:
        series: A run, models by step, or one model; models stay as they are.
        steps: Which checkpoints; all by default.
        individuals: About whom; everybody trained on by default.
        facts: Facts of common knowledge in place of people, for any model.
        corpus: The people; those of the run by default.
        form: The form in which facts are asked for, one of `interp.biographies.FORMS`.
        wordings: Those never seen with a person, or those of training.
        draw: Another number gives other wordings in another order.
        baseline: What the column `baseline` holds, by attribute: the loss of a model that has learned the
            frequencies of values ("statistics": those of the drawn people, parts of dates apart;
            "population": those of the drawn people; "theoretical": of equally likely ones).
        adapter: Of a run that trains one, "merged", "on" or "off" (see `Run.model`).
        batch_size: Texts computed at a time.
        device: As in `series.over_steps`, as are workers and progress.
        workers: See there.
        progress: See there.

    Returns:
        Of people: `form`, `individual`, `attribute`, `loss` (nats, summed over the tokens of the value),
        `right` (all tokens are predicted), `probability` (of the first) and `baseline` (nats; NaN for
        what has none). Of `facts`: the columns `subject`, `relation`, `answer`, `wording`, then `loss` and
        `right`. In front `step`, unless one model is given.

    Raises:
        ArgumentError: as `interp.answers`; facts and people are both given; no such baseline.
        ConfigError: the texts do not fit into the model's context or are of another tokenizer.
        CheckpointError, RunError: as `interp.series.models_at`.

    Example:
        ```python
        table = interp.equations.residuals(run)
        table.groupby("step")["loss"].quantile([0.1, 0.5, 0.9])
        ```
    """
    size = batch_size_of(batch_size)
    require_known([baseline], BASELINES, "baseline")
    if facts is not None:
        if (
            individuals is not None
            or corpus is not None
            or adapter is not None
            or form != BIOGRAPHY
        ):
            raise ArgumentError(
                "facts is given with people of a corpus (individuals, corpus, form or adapter); give one or "
                "the other."
            )
        told = require_facts(facts)
        measure = partial(_of_facts, facts=told, equations=equations_of_facts(told), size=size)
        table = table_over_steps(series, measure, steps, device, workers=workers, progress=progress)
        return table.drop(columns="step") if isinstance(series, nn.Module) else table
    corpus = corpus_of(series, corpus, PEOPLE_OR_FACTS)
    table = answers(
        series, corpus, form, individuals, steps=steps, adapter=adapter, wordings=wordings, draw=draw,
        batch_size=size, device=device, workers=workers, progress=progress,
    )  # fmt: skip
    require_numbers(torch.from_numpy(table["loss"].to_numpy(dtype=np.float64)), "losses")
    levels = getattr(Baseline.of(corpus.population), baseline)
    place = {name: i for i, name in enumerate(corpus.attributes)}
    found = table.assign(
        baseline=table["attribute"].map(levels).astype(float),
        place=table["attribute"].map(place).fillna(len(place)),
    )
    keys = ["step", "individual", "place"] if "step" in found else ["individual", "place"]
    ordered: pd.DataFrame = found.sort_values(keys, kind="stable", ignore_index=True)
    return ordered.drop(columns="place")


def _of_facts(
    model: TransformerLensModel, facts: Facts, equations: Equations, size: int
) -> pd.DataFrame:
    require_fit(model, equations)
    loss, right = fact_losses(model, equations, size)
    return facts.table.loc[:, :"wording"].assign(loss=loss, right=right)


def fact_losses(
    model: TransformerLensModel, equations: Equations, batch_size: int = 128
) -> tuple[Float[np.ndarray, " fact"], np.ndarray]:
    """The loss of every fact (nats, summed over its tokens), and whether all its tokens are predicted."""
    loss = torch.zeros(len(equations), dtype=torch.float64)
    wrong = torch.zeros(len(equations), dtype=torch.int64)
    with measuring(model):
        for part in equations.parts(batch_size):
            losses, right = part.token_losses(model)
            loss.index_add_(0, part.fact, losses.double().cpu())
            wrong.index_add_(0, part.fact, (~right).long().cpu())
    require_numbers(loss, "losses")
    return loss.numpy(), (wrong == 0).numpy()


def residual_array(
    table: pd.DataFrame, step: int | None = None, value: str = "loss"
) -> Float[np.ndarray, "person attribute"]:
    """Residuals as an array, people by their number, attributes in the order of the table; NaN: no such fact.

    Args:
        table: From `residuals`; of people, or of facts (then [subject, relation], of the first wording).
        step: Which checkpoint, where the table has several.
        value: Another column: "right", "probability", "baseline".

    Raises:
        ArgumentError: a column is missing, or the table has several checkpoints and none is chosen.
    """
    require_frame(table, "residuals")
    axes = ("individual", "attribute") if "individual" in table else ("subject", "relation")
    where = {} if step is None else {"step": step}
    own = table
    if "wording" in table:
        own = table[table["wording"] == table["wording"].min()]
    if value in own and own[value].dtype == bool:
        own = own.assign(**{value: own[value].astype(float)})
    return named_array(own, *axes, value=value, **where)[0]


def relative_residuals(table: pd.DataFrame) -> Float[np.ndarray, " fact"]:
    """Each fact's loss as a share of its attribute's baseline: 1 knows frequencies only, 0 knows the fact.

    Raises:
        ArgumentError: the table has no baseline (facts of common knowledge have none).
    """
    require_frame(table, "residuals")
    lacking = [name for name in ("loss", "baseline") if name not in table]
    if lacking:
        raise ArgumentError(
            f"The table has no column {lacking[0]!r}; give what interp.equations.residuals returns for "
            "people of a corpus."
        )
    base = table["baseline"].to_numpy(dtype=float)
    loss = table["loss"].to_numpy(dtype=float)
    share = np.full(len(loss), np.nan)
    np.divide(loss, base, out=share, where=base > 0)
    return share


def between(table: pd.DataFrame) -> pd.DataFrame:
    """Of every checkpoint, the shares of facts that are known, in between, and not known.

    A fact counts as known below 0.2 of its baseline, as not known above 0.8. Where facts are learned all or
    nothing, few are in between when the mean has fallen by half; where all are learned a little, most are.

    Returns:
        `step` (if the table has it), `mean` (residual as a share of the baseline), `known`, `between` and
        `unknown` (shares that add up to 1).
    """
    share = relative_residuals(table)
    kept = np.isfinite(share)
    if not kept.any():
        raise ArgumentError("No fact of the table has a baseline; there is nothing to hold it to.")
    of = pd.DataFrame(
        {
            "step": table["step"].to_numpy() if "step" in table else 0,
            "mean": share,
            "known": share < KNOWN,
            "between": (share >= KNOWN) & (share <= UNKNOWN),
            "unknown": share > UNKNOWN,
        }
    )[kept]
    found = of.astype(dict.fromkeys(("known", "between", "unknown"), float))
    means: pd.DataFrame = found.groupby("step").mean().reset_index()
    return means if "step" in table else means.drop(columns="step")
