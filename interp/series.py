"""Models over training: a series of checkpoints, and what is measured of them.

A measure takes a model and texts. What follows it over training takes a *series*: steps, the model at
each, and the phases if they are known. A `Run` is one; `{step: model}` is another; a class of yours with
the three attributes of `Checkpoints` is a third.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from numbers import Integral
from operator import itemgetter
from pickle import PicklingError
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from torch import nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_protocol import TransformerLensModel

from interp.biographies import AnyTexts, Batch, Corpus, Texts
from interp.errors import ArgumentError, CheckpointError, RunError, require_known, whole_number
from interp.model import alone_with
from interp.model.layout import require_wrapped
from interp.phases import Phases
from interp.progress import Progress, counted, seen, watched
from interp.threads import using_threads
from interp.torch_state import default_state
from interp.workers import end_with_parent

T = TypeVar("T")
Device = torch.device | str | None
_CHUNKS = 4  # of checkpoints for each worker: few models are built, and none waits long at the end
_SECONDS = 2.0  # that a checkpoint is expected to take, until its pace is seen
_N_INFORMATIVE = 8  # how many checkpoints `informative_steps` aims at


@runtime_checkable
class Checkpoints(Protocol):
    """Checkpoints of one training."""

    @property
    def steps(self) -> list[int]:
        """The steps that have a model, increasing."""

    @property
    def known_phases(self) -> Phases | None:
        """The phases of the training; None if nobody knows them."""

    def models(
        self, steps: Sequence[int], device: Device = None
    ) -> Iterator[tuple[int, TransformerBridge]]:
        """The models at increasing steps, in eval mode; each is good until the next is asked for."""


@dataclass(frozen=True)
class Models:
    """A series out of models that are there already, by step.

    Attributes:
        by_step: The models; they stay as they are.
        known_phases: The phases of their training, if they are known.
    """

    by_step: Mapping[int, TransformerLensModel]
    known_phases: Phases | None = None

    @property
    def steps(self) -> list[int]:
        """The steps, increasing."""
        return sorted(self.by_step)

    def models(
        self, steps: Sequence[int], device: Device = None
    ) -> Iterator[tuple[int, TransformerBridge]]:
        """The models, where they are; on another device while they are measured."""
        for step in steps:
            model = cast(TransformerBridge, self.by_step[step])
            here = next(cast(nn.Module, model).parameters()).device
            if device is None or torch.device(device) == here:
                yield step, model
                continue
            with alone_with(model):
                model.to(device)
                try:
                    yield step, model
                finally:
                    model.to(here)


AnySeries = Checkpoints | Mapping[int, TransformerLensModel] | TransformerBridge
"""Checkpoints, models by step, or a single model, which is at step 0."""


def as_series(given: AnySeries) -> Checkpoints:
    """A series as such: what is one already, models by step (whole numbers), or one model, as step 0.

    Raises:
        ArgumentError: it is neither, a step is no whole number, or a model no TransformerLens model.
    """
    if isinstance(given, nn.Module):
        require_wrapped(given)
        return Models({0: cast(TransformerLensModel, given)})
    if isinstance(given, Mapping):
        wrong = [step for step in given if isinstance(step, bool) or not isinstance(step, Integral)]
        if wrong:
            raise ArgumentError(
                f"A series has models by step; {wrong[0]!r} is no whole number. Give numbers as keys, as in "
                "{0: model, 100: model}."
            )
        for model in given.values():
            require_wrapped(model)
        return Models(given)
    if not isinstance(given, Checkpoints):
        raise ArgumentError(
            f"A {type(given).__name__} is no series of checkpoints. Give a run (interp.Run.load), models "
            "by step ({0: model, 100: model}), or an object with steps, known_phases and models."
        )
    return given


@dataclass(frozen=True)
class _WithAdapter:
    """The checkpoints of a run, its adapter used in one way at all of them."""

    run: Any
    use: str

    @property
    def path(self) -> Any:
        return self.run.path

    @property
    def steps(self) -> list[int]:
        return list(self.run.steps)

    @property
    def known_phases(self) -> Phases | None:
        phases: Phases | None = self.run.known_phases
        return phases

    def models(
        self, steps: Sequence[int], device: Device = None
    ) -> Iterator[tuple[int, TransformerBridge]]:
        for step in steps:
            model = self.run.model(step, "cpu" if device is None else device, adapter=self.use)
            with self.run.patched(model, step):
                yield step, model


def using_adapter(series: AnySeries, use: str | None) -> AnySeries:
    """A run's checkpoints with its adapter used as `Run.model` says; as in training by default (None).

    Raises:
        ArgumentError: the series is no run.
    """
    if use is None:
        return series
    if not hasattr(series, "patched"):
        raise ArgumentError(
            f"adapter={use!r} is about the adapter that a run has trained, and models have none on disk. "
            "Leave adapter out; interp.model.adapters puts adapters on models."
        )
    return _WithAdapter(series, use)


def models_at(
    series: AnySeries, steps: Sequence[int] | None = None, device: Device = None
) -> Iterator[tuple[int, TransformerBridge]]:
    """The models of a series at some steps (all by default), increasing; one at a time.

    Weights stay where they are unless a device is given; those of a run are on the CPU.

    Raises:
        CheckpointError: there is no checkpoint at a step; known before the first is handed out.
        ArgumentError: no step is named.
        RunError: there is no checkpoint at all.
    """
    series = as_series(series)
    return series.models(chosen_steps(series, steps), device)


def texts_of(
    series: AnySeries, texts: AnyTexts | None, split: str, n_individuals: int | None
) -> AnyTexts:
    """The texts that are given, or else those that a run measures a split on."""
    if texts is not None:
        if not isinstance(texts, Texts | Batch):
            raise ArgumentError(
                f"texts are {type(texts).__name__}; give interp.Texts(tokens, spans), or a batch of "
                "biographies."
            )
        return texts
    remedy = "texts of its own. Give texts: interp.Texts(tokens, spans)"
    drawn: AnyTexts = of_run(as_series(series), "texts", remedy)(split, n_individuals)
    return drawn


def of_run(series: AnySeries, name: str, remedy: str) -> Any:
    """What a run has beyond its models: its `corpus`, its `texts`.

    Raises:
        ArgumentError: the series is no run. `remedy` says what it lacks, and what to give instead.
    """
    found = getattr(series, name, None)
    if found is None:
        raise ArgumentError(f"A series of models has no {remedy}.")
    return found


def corpus_of(
    series: AnySeries,
    corpus: Corpus | None = None,
    remedy: str = "people of its own. Give corpus: that of the run that they are from (run.corpus)",
) -> Corpus:
    """The people that are given, or else those of a run.

    Raises:
        ArgumentError: what is given is no corpus; or nothing is, and the series is no run.
    """
    found = of_run(series, "corpus", remedy) if corpus is None else corpus
    if not isinstance(found, Corpus):
        raise ArgumentError(
            f"corpus is a {type(found).__name__}; give the people and texts of a run (run.corpus), or "
            "interp.biographies.Corpus.from_config(config)."
        )
    return found


def chosen_steps(series: Checkpoints, steps: Sequence[int] | None) -> list[int]:
    """The chosen steps, increasing, each of them there; all by default. Errors as `models_at`."""
    there = steps_of(series)
    if steps is None:
        return there
    if not isinstance(steps, Iterable) or isinstance(steps, str | bytes):
        raise ArgumentError(f"steps={steps!r}: give steps in a list, such as [0].")
    steps = [whole_number(step, "step") for step in steps]
    if not steps:
        raise ArgumentError("steps=[] names no checkpoint; leave it out to read all of them.")
    unknown = sorted(set(steps) - set(there))
    if unknown:
        path = getattr(series, "path", None)
        raise CheckpointError(
            f"There is no checkpoint at step {unknown[0]}{'' if path is None else f' in {path}'}. "
            f"Steps: {', '.join(map(str, there))}."
        )
    return sorted(set(steps))


def steps_of(series: Checkpoints) -> list[int]:
    """The steps of a series, of which there has to be one."""
    steps = list(series.steps)
    if not steps:
        path = getattr(series, "path", None)
        raise RunError(
            "The series has no checkpoint; give at least one." if path is None else
            f"{path} has no checkpoint yet; train it with resume=True."
        )  # fmt: skip
    return steps


@default_state()
def over_steps(
    series: AnySeries,
    measure: Callable[[TransformerBridge], T],
    steps: Sequence[int] | None = None,
    device: Device = None,
    *,
    workers: int | None = None,
    progress: Progress = watched,
) -> list[tuple[int, T]]:
    """What is measured of a series' models, in the order of the steps.

    A run that was trained with patched attention is measured with the attention it was trained with.

    Args:
        series: The checkpoints.
        measure: From a model to what is measured; sent to the workers.
        steps: Which checkpoints; all by default.
        device: Where to compute; where the models are by default, those of a run on the CPU.
        workers: So many processes, each with one thread; the result does not depend on their number,
            to the last bit. By default this process, with the threads that it has. Small models gain
            little from a second thread, and nearly twice the speed from a second process.
        progress: Told after each checkpoint; by default a bar where somebody watches.

    Raises:
        CheckpointError, RunError: as `models_at`.
        ArgumentError: as `models_at`, no worker, or something that cannot be sent to workers.
    """
    workers = None if workers is None else whole_number(workers, "workers", 1)
    series = as_series(series)
    chosen = chosen_steps(series, steps)
    with seen(progress, "checkpoints", len(chosen) * _SECONDS) as report:
        return _over(series, measure, chosen, device, workers, report)


def _over(
    series: Checkpoints,
    measure: Callable[[TransformerBridge], T],
    chosen: Sequence[int],
    device: Device,
    workers: int | None,
    progress: Progress,
) -> list[tuple[int, T]]:
    if workers in (None, 1) or len(chosen) < 2:
        with nullcontext() if workers is None else using_threads(1):
            measured = ((step, measure(model)) for step, model in series.models(chosen, device))
            return list(counted(measured, len(chosen), "checkpoint", progress))
    size = max(1, len(chosen) // (_CHUNKS * int(workers or 1)))
    chunks = [chosen[start : start + size] for start in range(0, len(chosen), size)]
    progress(0.0)
    jobs = (delayed(_in_worker)(series, measure, chunk, device) for chunk in chunks)
    results: list[tuple[int, T]] = []
    with warnings.catch_warnings():
        # A worker that has grown is replaced by a fresh one, and nothing is lost.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        try:
            for chunk in Parallel(
                n_jobs=workers,
                backend="loky",
                return_as="generator_unordered",
                initializer=end_with_parent,
                initargs=(os.getpid(),),
            )(jobs):
                results += chunk
                done = len(results)
                progress(done / len(chosen), f"checkpoint {done:,} of {len(chosen):,}")
        except PicklingError as error:
            raise ArgumentError(
                f"workers={workers}: this series or measure cannot be sent to another process ({error}). "
                "Leave workers out, or give a series that reads its models from disk."
            ) from error
    return sorted(results, key=itemgetter(0))


def table_over_steps(
    series: AnySeries,
    measure: Callable[[TransformerBridge], pd.DataFrame],
    steps: Sequence[int] | None = None,
    device: Device = None,
    *,
    workers: int | None = None,
    progress: Progress = watched,
) -> pd.DataFrame:
    """The tables that `over_steps` measures, one below the other, with `step` in front."""
    tables = over_steps(series, measure, steps, device, workers=workers, progress=progress)
    return stacked(tables)


def stacked(tables: Iterable[tuple[int, pd.DataFrame]]) -> pd.DataFrame:
    """Tables by step, one below the other, with `step` in front."""
    parts = []
    for step, table in tables:
        table.insert(0, "step", step)
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def nearest_step(steps: Sequence[int], wanted: float | int) -> int:
    """The checkpoint nearest to a step; of two, the earlier."""
    return min(steps, key=lambda step: (abs(step - wanted), step))


def nearest_steps(steps: Sequence[int], wanted: Sequence[float | int]) -> list[int]:
    """The checkpoints nearest to some steps, increasing and without repeats."""
    return sorted({nearest_step(steps, one) for one in wanted})


def named_steps(series: AnySeries, names: Sequence[str]) -> list[int]:
    """Checkpoints by number or by name, increasing.

    Args:
        series: The checkpoints.
        names: "first", "middle" and "last" of them; "statistics" and "plateau" for those nearest to the
            end of these phases; or steps.

    Raises:
        ArgumentError: there is no such name, or none is given.
        CheckpointError: there is no checkpoint at a step.
        RunError: a phase has no end, or there is no checkpoint.
    """
    series = as_series(series)
    every, phases = steps_of(series), series.known_phases
    ends = {
        "statistics": None if phases is None else phases.statistics_end,
        "plateau": None if phases is None else phases.plateau_end,
    }
    places = {"first": every[0], "middle": every[len(every) // 2], "last": every[-1]}
    chosen: list[int] = []
    for name in names:
        if name.isdecimal() and len(name) <= 12:
            chosen.append(int(name))
            continue
        require_known([name], [*places, *ends], "step", "; or give its number")
        end = places.get(name, ends.get(name))
        if end is None:
            raise RunError(
                f"The end of the phase {name!r} is not known: the training has not left it, or it was not "
                "measured. Give a step by its number."
            )
        chosen.append(nearest_step(every, end))
    if not chosen:
        raise ArgumentError("No step is named; leave steps out for the last checkpoint.")
    return chosen_steps(series, chosen)


def informative_steps(series: AnySeries) -> list[int]:
    """About eight checkpoints that show the course of a training.

    The first; those nearest to the end of the statistics phase, the middle of the plateau, its end,
    one and a half times, twice and three times that; the last. Where the plateau has not been left,
    or nobody knows of one, the rest evenly spaced between the phases that are known and the last.
    """
    series = as_series(series)
    steps, phases = steps_of(series), series.known_phases
    statistics_end = None if phases is None else phases.statistics_end
    plateau_end = None if phases is None else phases.plateau_end
    targets: list[float] = [steps[0], steps[-1]]
    begins = steps[0] if statistics_end is None else statistics_end
    if plateau_end is None:
        targets += list(np.linspace(begins, steps[-1], _N_INFORMATIVE - 1))
    else:
        targets += [begins, (begins + plateau_end) / 2]
        targets += [factor * plateau_end for factor in (1, 1.5, 2, 3)]
    return nearest_steps(steps, targets)


def steps_around_plateau(series: AnySeries) -> list[int]:
    """The checkpoints that date what happens: all of them around the plateau, fewer elsewhere.

    All from half of the statistics phase to twice the plateau's end; before and after that, those
    that are at least a quarter later than the one before, and the first and the last. Where the
    plateau has not been left, or nobody knows of one: all.
    """
    series = as_series(series)
    steps, phases = steps_of(series), series.known_phases
    if phases is None or phases.statistics_end is None or phases.plateau_end is None:
        return steps
    kept: list[int] = []
    for step in steps:
        around = phases.statistics_end / 2 <= step <= 2 * phases.plateau_end
        if around or not kept or step >= 1.25 * kept[-1] or step == steps[-1]:
            kept.append(step)
    return kept


@default_state()
def _in_worker(
    series: Checkpoints,
    measure: Callable[[TransformerBridge], T],
    steps: Sequence[int],
    device: Device,
) -> list[tuple[int, T]]:
    with using_threads(1):
        return [(step, measure(model)) for step, model in series.models(steps, device)]
