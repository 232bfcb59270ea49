"""Interference: whether the loss gradients of two groups of facts agree or conflict.

A step against the gradient of one group lowers the loss of another where their cosine is positive, and
raises it where it is negative (Lopez-Paz & Ranzato 2017, arXiv:1706.08840; Yu et al. 2020,
arXiv:2001.06782). All groups of facts share much (the words, the frequencies of values), so beside the
cosine itself there is that of what is specific to a group: its gradient, at length 1, less the mean of
all groups'.

Every fact is told twice, in other wordings. Cosines are between one half of one group and the other half of
another, so that a group against itself is measured like any other pair: that is the ceiling. The control
deals facts to groups at random, in each half anew.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import nn
from transformer_lens.model_protocol import TransformerLensModel

from interp.biographies import Corpus, Wordings
from interp.equations.components import components_of
from interp.equations.gradients import GradientStore, Products, mean_gradients, projected_dims
from interp.equations.groups import Grouping, Labels, grouping_of, grouping_of_facts
from interp.equations.texts import (
    PEOPLE_OR_FACTS,
    Equations,
    batch_size_of,
    equations_of,
    equations_of_facts,
    require_facts,
    require_fit,
)
from interp.errors import ArgumentError, require_frame, require_known, whole_number
from interp.facts import Facts
from interp.progress import Progress, watched
from interp.series import (
    AnySeries,
    Device,
    as_series,
    corpus_of,
    steps_of,
    table_over_steps,
    using_adapter,
)
from interp.torch_state import default_state

COSINE, SPECIFIC = "cosine", "specific"
METRICS = (COSINE, SPECIFIC)
ALL = "all"
INTERFERENCE_COLUMNS = (
    "by", "component", "layer", "group", "other", "metric", "value", "ceiling", "shuffled", "error",
    "n_facts", "n_other",
)  # fmt: skip
"""Columns of `interference`, after `step`."""


@default_state()
def interference(
    series: AnySeries,
    steps: Sequence[int] | None = None,
    by: str | Mapping[str, Any] | None = None,
    *,
    facts: Facts | None = None,
    corpus: Corpus | None = None,
    forms: str | Sequence[str] | None = None,
    wordings: Wordings = "train",
    n_individuals: int = 96,
    n_groups: int = 8,
    adapter: str | None = None,
    max_memory_gb: float | int | None = 1.0,
    dims: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    device: Device = None,
    workers: int | None = None,
    progress: Progress = watched,
) -> pd.DataFrame:
    """Cosines of the loss gradients of groups of facts, for all weights, by layer and by component.

    Args:
        series: A run, models by step, or one model; models stay as they are.
        steps: Which checkpoints; the last by default.
        by: What facts are grouped by. Of people "attribute" (the default), "people" (in as many parts as
            there are groups), "first name", "middle name", "last name" (the names that most people
            share), "form"; or people by the name of their group. Of `facts` "relation" (the default),
            "subject", or subjects by the name of their group.
        facts: Facts of common knowledge in place of people, for any model. Where relations have two wordings
            or more, even ones are the first half and odd ones the second.
        corpus: The people; those of the run by default.
        forms: In which forms facts are told; the biography by default. By "form": which are compared, by
            default those of the run's settings.
        wordings: Those of training, or those never seen with a person.
        n_individuals: Of at most how many people, all groups together.
        n_groups: How many groups of people or names there are at most.
        adapter: Of a run that trains one, "merged", "on" or "off" (see `Run.model`).
        max_memory_gb: What gradients may take, in GiB; None: a quarter of what is free. Where they take
            more, they are projected at random, and `error` is not 0.
        dims: To how many numbers each component is projected; None: as many as memory allows.
        seed: Of the projection and of the control.
        batch_size: Texts computed at a time.
        device: As in `series.over_steps`, as are workers and progress.
        workers: See there.
        progress: See there.

    Returns:
        A row for each pair of groups (also of a group with itself), component and metric: `by`, `component`
        ("all", "embedding", "attention", "mlp", "norm", "unembedding", "other"), `layer` (missing: of all
        layers), `group`, `other`, `metric` ("cosine", or "specific": of gradients less the mean of all
        groups', where groups that are alike in nothing else have -1 / (groups - 1)), `value`, `ceiling`
        (the root of the product of both groups' cosines with themselves in other wordings; NaN where one is
        not above 0 or there is one wording), `shuffled` (the mean cosine of a group with itself, when facts
        are dealt to groups at random in each half), `error` (standard error of the projection; 0 if
        exact), `n_facts` and `n_other`. In front `step`, unless one model is given.

    Raises:
        ArgumentError: no such grouping, people in two groups, or numbers that are none.
        NothingToMeasureError: there are no two groups with facts.
        ConfigError: the texts do not fit into the model's context or are of another tokenizer.
        CheckpointError, RunError: as `interp.series.models_at`.

    Example:
        ```python
        table = interp.equations.interference(run, by="first name")
        interp.equations.interference_matrix(table)
        ```
    """
    require_known([wordings], ("train", "evaluation"), "kind of wordings")
    counts = {
        "n_individuals": whole_number(n_individuals, "n_individuals", 2),
        "n_groups": whole_number(n_groups, "n_groups", 2),
        "seed": whole_number(seed, "seed", 0),
    }
    if dims is not None:
        dims = whole_number(dims, "dims", 2)
    if facts is not None:
        if corpus is not None or forms is not None or adapter is not None:
            raise ArgumentError(
                "facts is given with people of a corpus (corpus, forms or adapter); give one or the other."
            )
        told = equations_of_facts(require_facts(facts))
        grouping = grouping_of_facts(
            told.facts, "relation" if by is None else by, counts["n_groups"]
        )
        halves = _halves_of_facts(told)
    else:
        corpus = corpus_of(series, corpus, PEOPLE_OR_FACTS)
        named = None if forms is None or isinstance(forms, str) else tuple(forms)
        grouping = grouping_of(
            corpus,
            "attribute" if by is None else by,
            counts["n_individuals"],
            counts["n_groups"],
            forms if named is None else named,
        )
        assert grouping.individuals is not None
        people = grouping.individuals
        halves = [
            Equations.joined([equations_of(corpus, people, f, wordings, h) for f in grouping.forms])
            for h in (0, 1)
        ]
    for half in halves:
        grouping.require(grouping.of(half.facts))
    measure = partial(
        _interference_of, halves=halves, grouping=grouping, max_memory_gb=max_memory_gb, dims=dims,
        seed=counts["seed"], batch_size=batch_size_of(batch_size),
    )  # fmt: skip
    chosen = using_adapter(series, adapter)
    if steps is None:
        steps = [steps_of(as_series(chosen))[-1]]
    table = table_over_steps(chosen, measure, steps, device, workers=workers, progress=progress)
    return table.drop(columns="step") if isinstance(series, nn.Module) else table


def _halves_of_facts(told: Equations) -> list[Equations]:
    """Facts in even and in odd wordings, of those that have both; all of them alone where none has."""
    odd = told.facts["wording"].to_numpy() % 2 == 1
    keys = list(zip(told.facts["relation"], told.facts["subject"], strict=True))
    both = {k for k, o in zip(keys, odd, strict=True) if o} & {
        k for k, o in zip(keys, odd, strict=True) if not o
    }
    kept = np.array([key in both for key in keys])
    if not kept.any():
        return [told]
    return [told.select(kept & ~odd), told.select(kept & odd)]


def _interference_of(
    model: TransformerLensModel,
    halves: Sequence[Equations],
    grouping: Grouping,
    max_memory_gb: float | int | None,
    dims: int | None,
    seed: int,
    batch_size: int,
) -> pd.DataFrame:
    for half in halves:
        require_fit(model, half)
    n = len(grouping.names)
    generator = np.random.default_rng(seed)
    labels = [grouping.of(half.facts) for half in halves]
    pairs = list(zip(halves, labels, strict=True))
    dealt = [
        (half, shuffled(half, own, generator)) for half, own in [pairs[0], pairs[-1]]
    ]  # in each half anew, also where there is one
    systems = [(*system, i * n) for i, system in enumerate([*pairs, *dealt])]
    components = components_of(model)
    total = len(systems) * n
    size = projected_dims(components, total, max_memory_gb, dims)
    store = GradientStore(components, total, size, seed)
    mean_gradients(model, store, systems, batch_size)
    products = store.products()
    counts = np.bincount(labels[0][labels[0] >= 0], minlength=n)
    tables = []
    for (kind, layer), chosen in _parts(products).items():
        for metric in METRICS:
            table = _pairs_of(products.of(chosen), metric, n, len(halves), grouping.names)
            table.insert(0, "component", kind)
            table.insert(1, "layer", pd.Series([layer] * len(table), dtype="Int64"))
            tables.append(table)
    found = pd.concat(tables, ignore_index=True)
    found.insert(0, "by", grouping.name)
    of = dict(zip(grouping.names, counts.tolist(), strict=True))
    found["n_facts"], found["n_other"] = found["group"].map(of), found["other"].map(of)
    return found


def shuffled(equations: Equations, labels: Labels, generator: np.random.Generator) -> Labels:
    """The same labels, dealt out anew: to texts, where all facts of a text are in one group, or to facts."""
    text = equations.text.numpy()
    of_text = np.full(len(equations.tokens), -1, dtype=np.int64)
    of_text[text] = labels
    if (of_text[text] == labels).all():
        used = np.unique(text)
        of_text[used] = generator.permutation(of_text[used])
        dealt: Labels = of_text[text]
        return dealt
    return generator.permutation(labels)


def _parts(products: Products) -> dict[tuple[str, int | None], list[int]]:
    """What is told apart: all weights, each kind, each layer, each kind in each layer."""
    parts: dict[tuple[str, int | None], list[int]] = {(ALL, None): list(range(len(products.dims)))}
    for index, (kind, layer) in enumerate(products.components):
        keys = [(kind, None)] if layer is None else [(kind, None), (ALL, layer), (kind, layer)]
        for key in keys:
            parts.setdefault(key, []).append(index)
    return parts


def _pairs_of(
    products: Products, metric: str, n: int, n_halves: int, names: Sequence[str]
) -> pd.DataFrame:
    """The rows of one component and metric: every pair of groups once, a group with itself too."""
    if metric == SPECIFIC:
        products = products.normed().mapped(_centring(n, n_halves + 2))
    cosine, error = products.cosines()
    first, second = slice(0, n), slice((n_halves - 1) * n, n_halves * n)
    value = (cosine[first, second] + cosine[first, second].T) / 2
    errors = (error[first, second] + error[first, second].T) / 2
    own = value.diagonal()
    square = np.outer(own, own)
    positive = (own > 0)[:, None] & (own > 0)[None, :] & (n_halves == 2)
    ceiling = np.sqrt(np.where(positive, square, np.nan))
    dealt = cosine[n_halves * n : (n_halves + 1) * n, (n_halves + 1) * n :].diagonal().mean()
    rows = [
        (
            names[i], names[j], metric, float(value[i, j]), float(ceiling[i, j]), float(dealt),
            float(errors[i, j]),
        )
        for i in range(n)
        for j in range(i, n)
    ]  # fmt: skip
    return pd.DataFrame(
        rows, columns=["group", "other", "metric", "value", "ceiling", "shuffled", "error"]
    )


def _centring(n: int, n_blocks: int) -> Float[np.ndarray, "vector vector"]:
    """Takes the mean of its block from every gradient."""
    return np.kron(np.eye(n_blocks), np.eye(n) - 1.0 / n)


def interference_matrix(
    table: pd.DataFrame,
    step: int | None = None,
    *,
    component: str = ALL,
    layer: int | None = None,
    metric: str = COSINE,
    by: str | None = None,
    value: str = "value",
) -> pd.DataFrame:
    """One matrix of `interference`: groups against groups, symmetric.

    Args:
        table: From `interference`.
        step: Which checkpoint; the last by default.
        component: Which weights.
        layer: Of which layer; None for all of them.
        metric: "cosine" or "specific".
        by: By what facts are grouped, where the table has several.
        value: Another column: "ceiling", "shuffled", "error".

    Raises:
        ArgumentError: a column is missing, no row fits, or several groupings do.
    """
    require_frame(table, "interference")
    lacking = [c for c in (*INTERFERENCE_COLUMNS[:7], value) if c not in table]
    if lacking:
        raise ArgumentError(
            f"The table has no column {lacking[0]!r}; give what interp.equations.interference returns."
        )
    own = table
    for name, wanted in (("by", by), ("component", component), ("metric", metric)):
        if wanted is not None:
            require_known([wanted], dict.fromkeys(own[name]), name)
            own = own[own[name] == wanted]
    if own["by"].nunique() > 1:
        raise ArgumentError(
            f"The table has groups by {', '.join(own['by'].unique())}; choose one: by=..."
        )
    own = own[own["layer"].isna() if layer is None else (own["layer"] == layer).fillna(False)]
    if "step" in own and len(own):
        own = own[own["step"] == (own["step"].max() if step is None else step)]
    if own.empty:
        raise ArgumentError(
            f"The table has no row of component {component!r}, layer {layer} and step {step}."
        )
    if own.duplicated(["group", "other"]).any():
        raise ArgumentError(
            "The table has a pair of groups twice; give what one call of interp.equations.interference "
            "returned."
        )
    names = list(dict.fromkeys([*own["group"], *own["other"]]))
    upper = own.pivot(index="group", columns="other", values=value).reindex(names)[names]
    found = upper.to_numpy(dtype=float)
    return pd.DataFrame(np.where(np.isnan(found), found.T, found), index=names, columns=names)
