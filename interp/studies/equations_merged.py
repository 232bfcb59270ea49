"""What models made of runs from one base know: averaged, added up, switched; the line between two."""

from collections.abc import Mapping, Sequence
from math import nan

import numpy as np
import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from interp.asking import answers
from interp.biographies import Corpus
from interp.merging import add_adapters, loss_along_line, merge, task_vector
from interp.progress import silent
from interp.run import Run

BASE, BOTH, ADAPTER = "base", "both halves", "adapter"
HALVES = ("first half", "second half")
AVERAGE, SWITCHED = "average", "switched"
ADDED_ADAPTERS, SWITCHED_ADAPTERS = "adapters added", "adapters switched"
BETWEEN, ITSELF = "first and second half", "a run with itself"
Shares = Mapping[str, tuple[float, float]]


def scaled(scale: float) -> str:
    """What the sum of both task vectors is called."""
    return f"task vectors x {scale:g}"


def merged(runs: Mapping[str, Run], people: Shares, scales: Sequence[float]) -> pd.DataFrame:
    """Accuracy on old people and on both halves of new ones, of runs and of what is made of them.

    Args:
        runs: By `BASE`, `HALVES`, `BOTH` and the adapters' names; what needs a run that is missing is left
            out.
        people: By "old", `HALVES` and `BOTH`, which share of the people.
        scales: Of the sum of the task vectors.

    Returns:
        `model`, "old", "first half", "second half", and "new", the mean of both halves. "switched" takes for
        each half of new people the model that learned it, and the base for old ones.
    """
    rows: dict[str, dict[str, float]] = {}
    for name, run in runs.items():
        rows[name] = _known(run.model(), run.corpus, people)
    if all(name in runs for name in (BASE, *HALVES)):
        base, corpus = runs[BASE], runs[BASE].corpus
        halves = [runs[name] for name in HALVES]
        rows[AVERAGE] = _known(merge(halves), corpus, people)
        vector = task_vector(halves[0], base) + task_vector(halves[1], base)
        for scale in scales:
            rows[scaled(scale)] = _known(vector.apply(base, scale), corpus, people)
        rows[SWITCHED] = _switched(rows, HALVES)
    names = [f"{ADAPTER}, {half}" for half in HALVES]
    if all(name in runs for name in (BASE, *names)):
        model = runs[BASE].model()
        adapter = add_adapters(model, [runs[name] for name in names])
        rows[ADDED_ADAPTERS] = _known(model, runs[BASE].corpus, people)
        adapter.detach()
        rows[SWITCHED_ADAPTERS] = _switched(rows, names)
    found = pd.DataFrame([{"model": name, **row} for name, row in rows.items()])
    return found.assign(new=found[list(HALVES)].mean(axis=1))


def _known(model: TransformerBridge, corpus: Corpus, people: Shares) -> dict[str, float]:
    """Accuracy on each group of people."""
    found = answers(model, corpus, "biography", progress=silent)
    known = {}
    for name in ("old", *HALVES):
        first, n = corpus.people_of(people[name])
        own = found["individual"].between(first, first + n - 1)
        known[name] = float(found["right"][own].mean()) if own.any() else nan
    return known


def _switched(rows: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> dict[str, float]:
    """What is known where each group of people has the model that learned it."""
    halves = {half: rows[name][half] for half, name in zip(HALVES, names, strict=True)}
    return {"old": rows[BASE]["old"], **halves}


def line_of(runs: Mapping[str, Run], people: Shares, n: int) -> pd.DataFrame:
    """Losses along the line between both fine-tuned runs, and between the first and itself (the control).

    Returns:
        `pair`, `split` ("old", or "new": both halves), `alpha`, `attribute_loss` and `attribute_accuracy`;
        empty where a run is missing.
    """
    if any(name not in runs for name in HALVES):
        return pd.DataFrame()
    first, second = (runs[name] for name in HALVES)
    corpus, parts = first.corpus, []
    for pair, other, count in ((BETWEEN, second, n), (ITSELF, first, 3)):
        for split, share in (("old", people["old"]), ("new", people[BOTH])):
            start, size = corpus.people_of(share)
            texts = corpus.biographies(np.arange(start, start + size))
            line = loss_along_line(first, other, count, texts=texts)
            parts.append(line.assign(pair=pair, split=split))
    return pd.concat(parts, ignore_index=True)
