"""Weights averaged, and task vectors: differences of weights that are added, scaled and taken away.

A combination is a sum of factors times weights, added up in float64 and rounded once. Weights that occur
several times count once, with the sum of their factors; so what should be one of the given models is it
bit for bit: an average of a run with itself, base + (fine-tuned - base).

Sources: Wortsman et al. 2022, "Model soups", arXiv:2203.05482 (averages); Ilharco et al. 2023, "Editing
Models with Task Arithmetic", arXiv:2212.04089 (task vectors).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from interp.errors import ArgumentError
from interp.merging.weights import (
    Given,
    Weights,
    digest_of,
    read_all,
    require_alike,
    weights_in,
    write_weights,
)
from interp.run import Run
from interp.torch_state import default_state

_RECIPE = "made_of_weights"
_NOTHING = 1e-12  # a factor, or a difference from 1, that is left of rounding
_SUM = 1e-6  # by which weights of an average may miss 1


@dataclass(frozen=True)
class Part:
    """One of the weights that a model was made of.

    Attributes:
        name: Where from.
        run: The run; None of a model.
        step: Its checkpoint; None of a model.
        factor: What it counts with.
        digest: SHA-256 of the weights.
    """

    name: str
    run: Run | None
    step: int | None
    factor: float
    digest: str


@dataclass(frozen=True)
class Recipe:
    """What a model was made of.

    Attributes:
        parts: Of what; each weights once.
        like: The run that came first; None where a model did.
        step: Its checkpoint.
        digest: SHA-256 of the weights that came out.
    """

    parts: tuple[Part, ...]
    like: Run | None
    step: int | None
    digest: str


Terms = Sequence[tuple[Weights, float]]


def combined(terms: Terms) -> dict[str, Tensor]:
    """The sum of factors times weights, by name; in the dtype of the weights.

    Raises:
        ArgumentError: nothing is left of the sum, numbers become infinite, or whole numbers differ.
    """
    gathered = gathered_terms(terms)
    if not gathered:
        raise ArgumentError("All factors are 0, so nothing is added up. Give one that is not 0.")
    total = math.fsum(factor for _, factor in gathered)
    whole = abs(total - 1) < _SUM
    if len(gathered) == 1 and abs(total - 1) < _NOTHING:
        return {name: tensor.clone() for name, tensor in gathered[0][0].tensors.items()}
    return {
        name: _sum(name, [(one.tensors[name], factor) for one, factor in gathered], whole)
        for name in gathered[0][0].tensors
    }


def gathered_terms(terms: Terms) -> list[tuple[Weights, float]]:
    """Each weights once, with the sum of their factors, in an order that is theirs; without zeros."""
    by_digest: dict[str, tuple[Weights, list[float]]] = {}
    for weights, factor in terms:
        by_digest.setdefault(weights.digest, (weights, []))[1].append(factor)
    found = [(by_digest[key][0], math.fsum(by_digest[key][1])) for key in sorted(by_digest)]
    return [(weights, factor) for weights, factor in found if abs(factor) >= _NOTHING]


def _sum(name: str, terms: list[tuple[Tensor, float]], whole: bool) -> Tensor:
    first = terms[0][0]
    if not first.is_floating_point():
        if any(not torch.equal(first, other) for other, _ in terms):
            raise ArgumentError(
                f"{name} holds whole numbers that differ between the models, which no sum makes sense of."
            )
        return first.clone()
    total = torch.zeros(first.shape, dtype=torch.float64)
    same = torch.ones(first.shape, dtype=torch.bool)
    for tensor, factor in terms:
        total += factor * tensor.double()
        same &= tensor == first
    result = total.to(first.dtype)
    if whole:  # what all have they keep, to the sign of a zero
        result = torch.where(same, first, result)
    if not result.isfinite().all():
        raise ArgumentError(
            f"{name} becomes infinite: the factors are too large for {str(first.dtype)[6:]}."
        )
    return result


def made_from(first: Weights, terms: Terms) -> TransformerBridge:
    """A new model like the first one's with the sum of some terms, which knows what it was made of."""
    tensors = combined(terms)
    model = first.new_model()
    write_weights(model, tensors)
    factors = {one.digest: factor for one, factor in gathered_terms(terms)}
    each = {one.digest: one for one, _ in reversed(terms)}
    order = [key for key in dict.fromkeys(one.digest for one, _ in terms) if key in factors]
    parts = tuple(
        Part(each[key].name, each[key].run, each[key].step, factors[key], key) for key in order
    )
    model.__dict__[_RECIPE] = Recipe(parts, first.run, first.step, digest_of(tensors))
    return model


def recipe_of(model: object) -> Recipe:
    """What a model was made of.

    Raises:
        ArgumentError: it was not made here, or its weights have been changed since.
    """
    found = getattr(model, "__dict__", {}).get(_RECIPE)
    if not isinstance(found, Recipe) or not isinstance(model, TransformerBridge):
        raise ArgumentError(
            f"This {type(model).__name__} was not made of others: give what interp.merge or "
            "TaskVector.apply returned."
        )
    now = {name: tensor.detach().cpu().contiguous() for name, tensor in weights_in(model)}
    if digest_of(now) != found.digest:
        raise ArgumentError(
            "The weights of this model have been changed since it was merged, so what it was made of does "
            "not say what it is. Merge anew."
        )
    return found


def made_of(model: TransformerBridge) -> pd.DataFrame:
    """What a merged model was made of: columns `source`, `step`, `factor`, `weights` (SHA-256).

    Args:
        model: What `merge` or `TaskVector.apply` returned.

    Raises:
        ArgumentError: it was not merged, or its weights have been changed since.
    """
    rows = [(p.name, p.step, p.factor, p.digest) for p in recipe_of(model).parts]
    found = pd.DataFrame(rows, columns=["source", "step", "factor", "weights"])
    return found.astype({"step": "Int64"})


@default_state()
def merge(
    runs_or_models: Sequence[Given],
    weights: Sequence[float | int] | None = None,
    *,
    steps: Sequence[int | None] | int | None = None,
) -> TransformerBridge:
    """A model whose weights are the weighted average of several runs' or models'.

    What all of them have comes out bit for bit, so a run merged with itself has the same bytes. The order in
    which they are given does not matter to the numbers. Given models are read, not changed.

    Args:
        runs_or_models: At least two runs (or their folders) or models, of one architecture and tokenizer.
        weights: Of each one, adding up to 1 (they may be negative); by default all alike.
        steps: Of each run the checkpoint, or one for all; by default its last.

    Returns:
        A new model in eval mode, built like the first one; `interp.save_merged` makes a run of it.

    Raises:
        ArgumentError: one model only; weights that do not match in number, are no numbers, or do not add up
            to 1; another architecture, shape or tokenizer; NaN among the weights; an adapter that is on.
        CheckpointError: a run has no checkpoint at the step.

    Example:
        ```python
        model = interp.merge([first, second], weights=[0.3, 0.7])
        run = interp.save_merged(model, "runs/merged")
        ```
    """
    read = read_all(runs_or_models, steps, 2, "merging")
    factors = numbers(weights, len(read), "weights", 1 / len(read))
    if abs(math.fsum(factors) - 1) > _SUM:
        raise ArgumentError(
            f"weights={list(weights or ())} add up to {math.fsum(factors):g}, and those of an average to 1. "
            "To add what runs learned, use interp.task_vector."
        )
    return made_from(read[0], list(zip(read, factors, strict=True)))


def numbers(given: object, n: int, argument: str, default: float) -> list[float]:
    """As many finite numbers as there are models, or the default for each.

    Raises:
        ArgumentError: another number of them, or one that is none.
    """
    if given is None:
        return [default] * n
    several: list[Any] = (
        list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    )
    for one in several:
        right = isinstance(one, Real) and not isinstance(one, bool)
        if not right or not math.isfinite(one):
            raise ArgumentError(f"{argument}: {one!r} is no finite number.")
    if len(several) != n:
        raise ArgumentError(
            f"{argument}: {len(several)} given for {n} runs or models; give one for each."
        )
    return [float(one) for one in several]


class TaskVector:
    """What training has changed: a difference of weights, which can be added, scaled and taken away.

    `interp.task_vector` makes one. `a + b`, `a - b`, `-a`, `0.5 * a` are task vectors again.

    Example:
        ```python
        vector = interp.task_vector(finetuned, base) + 0.5 * interp.task_vector(other, base)
        model = vector.apply(base)
        forgot = (-vector).apply(base)
        ```
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = tuple(terms)

    def __repr__(self) -> str:
        words = [f"{factor:+g} × {w.name}" for w, factor in gathered_terms(self._terms)]
        return f"TaskVector({', '.join(words) or '0'}; norm {self.norm():.4g})"

    def __add__(self, other: object) -> "TaskVector":
        if not isinstance(other, TaskVector):
            return NotImplemented
        require_alike(self._terms[0][0], other._terms[0][0])
        return TaskVector([*self._terms, *other._terms])

    def __neg__(self) -> "TaskVector":
        return -1.0 * self

    def __sub__(self, other: object) -> "TaskVector":
        return self + (-other) if isinstance(other, TaskVector) else NotImplemented

    def __mul__(self, scale: float | int) -> "TaskVector":
        (scale,) = numbers([scale], 1, "scale", 1.0)
        return TaskVector([(weights, scale * factor) for weights, factor in self._terms])

    __rmul__ = __mul__

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The difference of each weight by name in the model inside, in float64; on the CPU."""
        terms = gathered_terms(self._terms)
        first = self._terms[0][0]
        return {
            name: sum(
                (factor * w.tensors[name].double() for w, factor in terms),
                torch.zeros(tensor.shape, dtype=torch.float64),
            )
            for name, tensor in first.tensors.items()
            if tensor.is_floating_point()
        }

    @default_state()
    def norm(self) -> float:
        """The length of the difference: the root of the sum of squares over all weights."""
        return math.sqrt(math.fsum(float(t.square().sum()) for t in self.tensors.values()))

    @default_state()
    def cosine(self, other: "TaskVector") -> float:
        """The cosine similarity with another task vector (near 0 for unrelated tasks).

        Raises:
            ArgumentError: one of them is 0, or they are of models of other shapes.
        """
        if not isinstance(other, TaskVector):
            raise ArgumentError(f"{type(other).__name__} is no TaskVector.")
        require_alike(self._terms[0][0], other._terms[0][0])
        norms = self.norm() * other.norm()
        if norms == 0:
            raise ArgumentError("A task vector that is 0 has no direction to compare.")
        theirs = other.tensors
        return math.fsum(float((t * theirs[n]).sum()) for n, t in self.tensors.items()) / norms

    @default_state()
    def apply(
        self, base: Given, scale: float | int = 1.0, *, step: int | None = None
    ) -> TransformerBridge:
        """A new model: base + scale × this vector.

        With the vector's own base and scale 1 it is the fine-tuned model, bit for bit; with 0 the base.

        Args:
            base: A run (or its folder) or a model of the same architecture; it is not changed.
            scale: What the vector is multiplied by.
            step: The run's checkpoint; by default its last.

        Raises:
            ArgumentError: another architecture, shape or tokenizer; a scale that is no number.
        """
        (scale,) = numbers([scale], 1, "scale", 1.0)
        (read,) = read_all([base], None if step is None else [step])
        require_alike(read, self._terms[0][0])
        scaled = [(weights, scale * factor) for weights, factor in self._terms]
        return made_from(read, [(read, 1.0), *scaled])


@default_state()
def task_vector(
    finetuned: Given,
    base: Given,
    *,
    steps: Sequence[int | None] | int | None = None,
) -> TaskVector:
    """What fine-tuning has changed: the weights of one model minus those of the one it started from.

    Args:
        finetuned: A run (or its folder) or a model.
        base: The one it started from, or any other of the same architecture.
        steps: Of the two runs the checkpoints, or one for both; by default the last.

    Raises:
        ArgumentError, CheckpointError: as `merge`.

    Source: Ilharco et al. 2023, arXiv:2212.04089, section 2.
    """
    tuned, start = read_all([finetuned, base], steps)
    return TaskVector([(tuned, 1.0), (start, -1.0)])
