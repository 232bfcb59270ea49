"""Probes: which facts a linear classifier reads from the residual stream, and which it learns itself.

A probe is trained on a person's training wordings and tested on wordings that the model never saw
with that person. Two probes answer two questions:

- *The same people*, in training and test. Such a probe may learn people by heart from any stream that
  tells them apart: with 512 people in 128 dimensions it does so for most of them. The control task
  measures that: the same probe learns facts shuffled among people, which the model cannot know.
  Selectivity, real minus control accuracy, is what the stream holds of the facts themselves; it
  cannot exceed what the control leaves, and is small wherever people are told apart well.
- *Other people*: trained on four fifths of the people and tested on the last, in turn. There is
  nothing to learn by heart, and the control is at chance. Such a probe is right where the model
  writes a value in the same direction for everybody who has it. Tested are the people whose value
  some person of training shares.

Neither says that anything reads the facts: in compiled models a probe finds a direction that nothing
reads, and facts at the name after the last layer that reads them. And a probe of other people that learns
from few people in many dimensions may miss a direction for each value (docs/trust.md).

TransformerLens' `fit_sparse_probe` asks which few coordinates tell two classes apart; these ask what all
of them tell of many classes, in closed form, so that facts and control tasks share a factorisation.

Source: Hewitt & Liang 2019, "Designing and interpreting probes with control tasks".
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from interp.errors import ArgumentError, NothingToMeasureError, whole_number
from interp.memory.activations import CachedActivations, require_relations
from interp.memory.facts import AnyFacts, FactLabels
from interp.model import at_least_single
from interp.torch_state import default_state

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
"""Ridge penalties to choose from, relative to the mean eigenvalue of the inputs' covariance."""
# Of 0.01, 0.1, 1 and 10 the best where `tiny` predicts values; no fold is held back to choose.
_STRENGTH_OTHER_PEOPLE = 1.0
_N_FOLDS = 5
_N_SHUFFLES = 2


class RidgeProbe:
    """Least-squares classifiers with an intercept and a ridge penalty, in closed form.

    Targets are one-hot, all inputs count the same, the class with the highest score is predicted.
    Several sets of labels for the same inputs share the factorisation of their covariance. A probe is
    made from sums over its inputs (`sums_of_inputs`), so that probes on parts of the data are made from
    parts of sums: `gram` of the products of inputs, each followed by a 1, `by_class` of the inputs.
    """

    def __init__(
        self, gram: Float[Tensor, "width width"], by_class: Float[Tensor, "set class width"]
    ) -> None:
        count = gram[-1, -1]
        if not count > 0:
            raise ArgumentError("A probe learns from at least one input; there is none.")
        self.mean = gram[-1, :-1] / count
        self.covariance = gram[:-1, :-1] / count - torch.outer(self.mean, self.mean)
        self.frequencies = by_class[..., -1] / count
        # One-hot targets need no centring where inputs are centred.
        centred = by_class[..., :-1] / count - self.frequencies[..., None] * self.mean
        self._targets = centred.flatten(0, 1).T

    def weights(self, strength: float) -> Float[Tensor, "d_model set_class"]:
        """The classifiers' weights, at a penalty relative to the covariance's mean eigenvalue.

        Raises:
            ArgumentError: an input was infinite or NaN.
        """
        penalty = (strength * self.covariance.diagonal().mean()).clamp_min(1e-30)
        eye = torch.eye(len(self.covariance), device=self.covariance.device)
        ridge = self.covariance + penalty * eye
        try:
            factor = torch.linalg.cholesky(ridge.double()).to(ridge.dtype)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            return self._weights_by_eigenvalues(ridge, penalty)
        weights: Tensor = torch.cholesky_solve(self._targets, factor)
        return weights

    def _weights_by_eigenvalues(
        self, ridge: Float[Tensor, "d_model d_model"], penalty: Float[Tensor, ""]
    ) -> Float[Tensor, "d_model set_class"]:
        """The weights where rounding has made an eigenvalue of the covariance negative.

        So it does where all inputs are nearly the same (at a token that everybody's texts begin with):
        their covariance is then what sums in single precision round to. No covariance has a negative
        eigenvalue, so all below zero are set to zero, and the penalty is raised to the lowest of them,
        which says how far any may be off.
        """
        if not ridge.isfinite().all():
            raise ArgumentError("Inputs of a probe are infinite or NaN; it learns from numbers.")
        values, vectors = torch.linalg.eigh(ridge.double())
        values -= penalty
        along = vectors.T @ self._targets.double()
        raised = penalty.double().maximum(-values[0])
        solved: Tensor = vectors @ (along / (values.clamp_min(0) + raised)[:, None])
        return solved.to(self._targets.dtype)

    def predict(
        self, x: Float[Tensor, "sample d_model"], strength: float
    ) -> Int64[Tensor, "set sample"]:
        """The class of each input, by each set's classifier."""
        scores = (x - self.mean) @ self.weights(strength)
        scores = scores.unflatten(1, self.frequencies.shape) + self.frequencies
        predicted: Tensor = scores.argmax(dim=-1).T
        return predicted


def sums_of_inputs(
    x: Float[Tensor, "group sample d_model"],
    labels: Int64[Tensor, "set group sample"],
    n_classes: int,
) -> tuple[Float[Tensor, "group width width"], Float[Tensor, "group set class width"]]:
    """What probes are made from, for each group of inputs; sums over groups make a probe on them.

    Inputs `x` are not far from 0 on average (sums are kept in single precision at least); `labels` are
    the class of each input in each set, of `n_classes` in every set.
    """
    x = at_least_single(x)
    extended = F.pad(x, (0, 1), value=1.0)
    by_class = x.new_zeros(len(labels), len(x) * n_classes, extended.shape[-1])
    offsets = torch.arange(len(x), device=x.device)[:, None] * n_classes
    for sums, classes in zip(by_class, labels, strict=True):
        sums.index_add_(0, (classes + offsets).flatten(), extended.flatten(0, 1))
    by_group = by_class.unflatten(1, (len(x), n_classes)).transpose(0, 1)
    return extended.transpose(1, 2) @ extended, by_group


@default_state()
def probe_accuracies(
    facts: AnyFacts,
    train: CachedActivations,
    test: CachedActivations,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> pd.DataFrame:
    """How well linear probes tell each attribute's value from every site of the residual stream.

    The class is the value's first token (see `FirstTokens`). For the same people the penalty is
    chosen for each site, position and attribute on the last draw of `train`, by the sum of real and
    control accuracy, so that choosing favours neither; then the probe learns from all draws.

    Args:
        facts: The corpus, or labels of yours.
        train: Residual streams on training wordings, in at least two draws.
        test: Of the same people on evaluation wordings, at the same sites.
        strengths: Penalties to choose from, relative to the covariance's mean eigenvalue.
        seed: Of the shuffled facts (the same wrong facts at every site) and of who is left out.

    Returns:
        Columns `site`, `layer`, `position`, `attribute` (a name, or "all" for the mean); for the same
        people `accuracy`, `control` (mean over two shuffles of facts) and `selectivity` (their
        difference); for other people `accuracy_other_people`, `control_other_people` and
        `selectivity_other_people`. The last three are NaN for fewer than five people, or where no
        two people share a value. People without a value are left out. All are NaN for an attribute of
        which all people have the same value, which every probe tells; it is left out of the mean.

    Raises:
        NothingToMeasureError: of no attribute two people have different values.
        ArgumentError: other people or sites in `test`, a single draw, or no penalty.
    """
    same_people = torch.equal(train.individuals, test.individuals)
    if not same_people or list(train.residual) != list(test.residual):
        raise ArgumentError(
            "Probes are tested on the people and at the sites they were trained on; read both "
            "with the same individuals and sites."
        )
    n_draws = len(train.templates)
    if n_draws < 2 or not len(strengths) or min(strengths) <= 0:
        raise ArgumentError(
            f"Probes have {n_draws} draw(s) of training wordings and the penalties "
            f"{list(strengths)} to choose from; they need at least two draws, the last one to choose "
            "with, and penalties above 0."
        )
    people = train.individuals
    generator = np.random.default_rng(whole_number(seed, "seed", 0))
    shuffles = [generator.permutation(len(people)) for _ in range(_N_SHUFFLES)]
    order = torch.from_numpy(generator.permutation(len(people)))
    first = FactLabels.of(facts).relations
    require_relations(train, first)
    own = [one.of_individual[people] for one in first.values()]
    told_apart = [len(facts_of[facts_of >= 0].unique()) > 1 for facts_of in own]
    if not any(told_apart):
        raise NothingToMeasureError(
            "A probe tells values apart, and no two people have values that begin with different tokens."
        )
    rows: list[tuple[object, ...]] = []
    for (site, layer), stream in train.residual.items():
        for place, position in enumerate(train.positions):
            if position not in test.positions:
                continue
            tested_at = test.positions.index(position)
            accuracies = []
            for index, one in enumerate(first.values()):
                if not told_apart[index]:
                    accuracies.append((float("nan"),) * 4)
                    continue
                # People without a value are left out.
                facts_of, has = own[index], own[index] >= 0
                shuffled = [torch.from_numpy(shuffle)[has[shuffle]] for shuffle in shuffles]
                labels = torch.stack([facts_of[has], *(facts_of[some] for some in shuffled)])
                labels = labels.to(stream.device)
                fit = stream[place, index][:, has]
                tested = test.residual[site, layer][tested_at, index][:, has]
                origin = fit.mean(dim=(0, 1))
                cell = fit - origin, tested - origin, labels, len(one.tokens)
                accuracies.append(
                    (
                        *_of_same_people(*cell, strengths),
                        *_of_other_people(*cell, _folds(order, has)),
                    )
                )
            told = [one for one, differ in zip(accuracies, told_apart, strict=True) if differ]
            mean = np.mean(told, axis=0).tolist()
            for attribute, values in zip(("all", *first), [mean, *accuracies], strict=True):
                rows.append((site, layer, position, attribute, *values))
    columns = ["site", "layer", "position", "attribute", "accuracy", "control"]
    columns += ["accuracy_other_people", "control_other_people"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(6, "selectivity", table["accuracy"] - table["control"])
    return table.assign(
        selectivity_other_people=table["accuracy_other_people"] - table["control_other_people"]
    )


def _folds(
    order: Int64[Tensor, " individual"], has: Bool[Tensor, " individual"]
) -> Int64[Tensor, "fold fold_individual"]:
    """Of those who have a value, counted among themselves, who is left out in which fold.

    Folds are of one size, so that their sums are made together; up to four people are in none of them.
    """
    place = has.cumsum(0) - 1
    chosen = place[order[has[order]]]
    size = len(chosen) // _N_FOLDS
    return chosen[: _N_FOLDS * size].view(_N_FOLDS, size)


def _of_same_people(
    fit: Float[Tensor, "draw individual d_model"],
    tested: Float[Tensor, "test_draw individual d_model"],
    labels: Int64[Tensor, "task individual"],
    n_classes: int,
    strengths: Sequence[float],
) -> tuple[float, float]:
    """Real and control accuracy at the penalty that the last draw of `fit` favours."""
    every_draw = labels[:, None].expand(-1, len(fit), -1)
    gram, by_class = sums_of_inputs(fit, every_draw, n_classes)

    def accuracies(probe: RidgeProbe, x: Tensor, strength: float) -> tuple[float, float]:
        right = probe.predict(x.flatten(0, 1), strength) == labels.repeat(1, len(x))
        each = right.double().mean(dim=1)
        return float(each[0]), float(each[1:].mean())

    strength = strengths[0]
    if len(strengths) > 1:
        probe = RidgeProbe(gram[:-1].sum(0), by_class[:-1].sum(0))
        sums = [sum(accuracies(probe, fit[-1:], one)) for one in strengths]
        strength = strengths[int(np.argmax(sums))]
    return accuracies(RidgeProbe(gram.sum(0), by_class.sum(0)), tested, strength)


def _of_other_people(
    fit: Float[Tensor, "draw individual d_model"],
    tested: Float[Tensor, "test_draw individual d_model"],
    labels: Int64[Tensor, "task individual"],
    n_classes: int,
    folds: Int64[Tensor, "fold fold_individual"],
) -> tuple[float, float]:
    """Real and control accuracy on people whom the probe was not trained on."""
    if not folds.numel():
        return float("nan"), float("nan")
    folds, tasks = folds.to(fit.device), labels[:2]
    n_draws, n_test_draws = len(fit), len(tested)
    by_fold = fit[:, folds].transpose(0, 1).flatten(1, 2)  # [fold (draw fold_individual) d_model]
    own = tasks[:, folds]  # [task fold fold_individual]
    gram, by_class = sums_of_inputs(by_fold, own.repeat(1, 1, n_draws), n_classes)
    all_gram, all_by_class = gram.sum(0), by_class.sum(0)
    right, counted = torch.zeros(2, 2, dtype=torch.float32, device=fit.device)
    for fold, left_out in enumerate(folds):
        probe = RidgeProbe(all_gram - gram[fold], all_by_class - by_class[fold])
        x = tested[:, left_out].flatten(0, 1)
        truth = own[:, fold].repeat(1, n_test_draws)
        possible = probe.frequencies.gather(1, truth) > 0.5 / len(fit) / fit.shape[1]
        predicted = probe.predict(x, _STRENGTH_OTHER_PEOPLE)
        right += ((predicted == truth) & possible).sum(dim=1)
        counted += possible.sum(dim=1)
    real, control = torch.where(counted > 0, right / counted, float("nan")).tolist()
    return real, control
