"""Ridge probes against a solver from scratch, and on streams that hold known facts."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from interp.biographies import ATTRIBUTES, Corpus
from interp.config import Config
from interp.errors import ConfigError, NothingToMeasureError
from interp.memory import (
    POSITIONS,
    CachedActivations,
    FactLabels,
    FirstTokens,
    RidgeProbe,
    probe_accuracies,
    sums_of_inputs,
)
from interp.memory.probes import _STRENGTH_OTHER_PEOPLE, _of_other_people

WIDTH = 48


@pytest.fixture(scope="module")
def many(smoke: Config) -> Corpus:
    """A population that is large enough to find people who share values."""
    return Corpus.from_config(
        smoke.with_settings(**{"population.n_individuals": 200, "population.n_held_out": 0})
    )


def slow_ridge(x: np.ndarray, labels: np.ndarray, n_classes: int, penalty: float) -> np.ndarray:
    """Ridge regression on one-hot targets as least squares with extra rows; [d_model + 1, class].

    The last row is the intercept, which is not penalised.
    """
    n, width = x.shape
    design = np.hstack([x, np.ones((n, 1))])
    extra = np.hstack([np.sqrt(n * penalty) * np.eye(width), np.zeros((width, 1))])
    targets = np.vstack([np.eye(n_classes)[labels], np.zeros((width, n_classes))])
    return np.linalg.lstsq(np.vstack([design, extra]), targets, rcond=None)[0]


@pytest.mark.parametrize("strength", [1e-3, 0.1, 1.0])
def test_a_probe_equals_least_squares(strength: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 40, 8) * torch.linspace(0.1, 2, 8) + 0.5
    labels = torch.randint(5, (2, 3, 40))
    gram, by_class = sums_of_inputs(x, labels, 5)
    tested = torch.randn(30, 8)
    for groups in ([0], [0, 2], [0, 1, 2]):
        probe = RidgeProbe(gram[groups].sum(0), by_class[groups].sum(0))
        inputs = x[groups].flatten(0, 1).double().numpy()
        covariance = np.cov(inputs.T, bias=True)
        np.testing.assert_allclose(probe.covariance, covariance, rtol=1e-3, atol=1e-5)
        penalty = strength * np.trace(covariance) / 8
        weights = probe.weights(strength).unflatten(1, (2, 5))
        for task in range(2):
            chosen = labels[task][groups].flatten().numpy()
            slow = slow_ridge(inputs, chosen, 5, penalty)
            np.testing.assert_allclose(weights[:, task], slow[:-1], rtol=1e-3, atol=1e-4)
            scores = tested.double().numpy() @ slow[:-1] + slow[-1]
            expected = scores.argmax(axis=1)
            assert probe.predict(tested, strength)[task].tolist() == expected.tolist()


def test_a_stream_without_variance_predicts_the_most_frequent_class() -> None:
    gram, by_class = sums_of_inputs(torch.zeros(1, 6, 4), torch.tensor([[[0, 2, 2, 2, 1, 0]]]), 3)
    probe = RidgeProbe(gram[0], by_class[0])
    assert probe.predict(torch.zeros(3, 4), 0.1).tolist() == [[2, 2, 2]]


def streams(
    corpus: Corpus, kind: str, noise: float = 0.1
) -> tuple[CachedActivations, CachedActivations]:
    """Made-up residual streams that hold nothing, the person, or the person's facts."""
    generator = torch.Generator().manual_seed(1)
    n = len(corpus.population)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    if kind == "facts":
        means = [
            drawn(len(first.tokens), WIDTH)[first.of_individual]
            for first in FirstTokens.of(corpus).values()
        ]
        mean = torch.stack(means)
    else:
        mean = drawn(n, WIDTH).expand(len(ATTRIBUTES), -1, -1) * (kind == "person")

    def one(n_draws: int) -> CachedActivations:
        noises = noise * drawn(len(POSITIONS), len(ATTRIBUTES), n_draws, n, WIDTH)
        stream = 3 + mean[None, :, None] + noises
        templates = torch.zeros(n_draws, n, len(ATTRIBUTES), dtype=torch.int64)
        return CachedActivations(torch.arange(n), templates, {("resid_pre", 0): stream}, {})

    return one(3), one(2)


def overall(corpus: Corpus, kind: str) -> pd.Series:
    table = probe_accuracies(corpus, *streams(corpus, kind))
    columns = ["site", "layer", "position", "attribute", "accuracy", "control", "selectivity"]
    assert list(table.columns[:7]) == columns
    assert len(table) == len(POSITIONS) * (1 + len(ATTRIBUTES))
    single = table[table["attribute"] != "all"]
    means = single.groupby("position", sort=False)[list(table.columns[4:])].mean()
    rows = table[table["attribute"] == "all"].set_index("position")
    pd.testing.assert_frame_equal(rows[list(table.columns[4:])], means, check_names=False)
    selectivity = table["accuracy"] - table["control"]
    np.testing.assert_allclose(table["selectivity"], selectivity)
    return rows.loc["predicts value"]


def test_what_the_control_task_finds(many: Corpus) -> None:
    nothing, person, facts = (overall(many, kind) for kind in ("nothing", "person", "facts"))
    assert abs(nothing["selectivity"]) < 0.05
    assert nothing["accuracy"] < 0.3
    # A probe can learn people by heart, and is no better at their facts than at false ones.
    assert person["accuracy"] > 0.6
    assert abs(person["selectivity"]) < 0.06
    assert abs(person["selectivity_other_people"]) < 0.06
    assert person["accuracy_other_people"] < 0.2
    # Facts are read from people whom the probe has never met; false facts are not.
    assert facts["accuracy"] > 0.95
    assert facts["selectivity"] > 0.3
    assert facts["accuracy_other_people"] > 0.95
    assert facts["control_other_people"] < 0.25


def test_other_people_equal_a_loop_over_folds() -> None:
    torch.manual_seed(2)
    n_classes, n_people = 12, 23
    fit, tested = torch.randn(3, n_people, 6), torch.randn(2, n_people, 6)
    labels = torch.randint(n_classes, (3, n_people))
    fit, tested = (x + 0.3 * labels[0][:, None] for x in (fit, tested))
    folds = torch.randperm(n_people)[:20].view(5, 4)
    found = _of_other_people(fit, tested, labels, n_classes, folds)
    for task in range(2):
        right = counted = 0
        for left_out in folds.tolist():
            kept = [i for i in folds.flatten().tolist() if i not in left_out]
            inputs = fit[:, kept].flatten(0, 1).double().numpy()
            penalty = _STRENGTH_OTHER_PEOPLE * np.trace(np.cov(inputs.T, bias=True)) / 6
            chosen = labels[task, kept].repeat(3).numpy()
            slow = slow_ridge(inputs, chosen, n_classes, penalty)
            for draw in range(2):
                for person in left_out:
                    own = int(labels[task, person])
                    if own not in chosen:
                        continue
                    scores = tested[draw, person].double().numpy() @ slow[:-1] + slow[-1]
                    right += int(scores.argmax() == own)
                    counted += 1
        assert 0 < counted < 40
        assert found[task] == pytest.approx(right / counted)


def test_too_few_people_to_leave_some_out(corpus: Corpus) -> None:
    train, test = streams(corpus, "person")
    few = [
        CachedActivations(
            one.individuals[:4],
            one.templates[:, :4],
            {site: x[:, :, :, :4] for site, x in one.residual.items()},
            {},
        )
        for one in (train, test)
    ]
    table = probe_accuracies(corpus, *few)
    assert table["accuracy_other_people"].isna().all()
    assert not table["accuracy"].isna().any()


def test_one_value_is_told_by_no_probe(corpus: Corpus) -> None:
    """An attribute of which all have one value is left out of the mean."""
    train, test = streams(corpus, "person")
    labels = FactLabels.of(corpus)
    name, *others = labels.relations
    same = {n: replace(r, of_individual=r.of_individual * 0) for n, r in labels.relations.items()}
    one = FactLabels(labels.relations | {name: same[name]}, labels.namesakes)
    table = probe_accuracies(one, train, test)
    of_one = table[table["attribute"] == name].drop(
        columns=["site", "layer", "position", "attribute"]
    )
    assert of_one.isna().all(axis=None)
    means = table[table["attribute"].isin(others)].groupby(["site", "layer", "position"])[
        "accuracy"
    ]
    expected = means.mean().to_numpy()
    found = table[table["attribute"] == "all"].sort_values(["site", "layer", "position"])
    assert found["accuracy"].to_numpy() == pytest.approx(expected)
    with pytest.raises(NothingToMeasureError, match="no two people"):
        probe_accuracies(FactLabels(same), train, test)


def test_results_depend_on_the_seed_alone(corpus: Corpus) -> None:
    train, test = streams(corpus, "person", noise=1.5)
    table = probe_accuracies(corpus, train, test)
    pd.testing.assert_frame_equal(probe_accuracies(corpus, train, test), table)
    other = probe_accuracies(corpus, train, test, strengths=[0.1], seed=1)
    assert (other["control"] != table["control"]).any()


def test_errors_of_probes(corpus: Corpus) -> None:
    train, test = streams(corpus, "nothing")
    other = CachedActivations(test.individuals.flip(0), test.templates, test.residual, {})
    with pytest.raises(ConfigError, match="the people and at the sites"):
        probe_accuracies(corpus, train, other)
    elsewhere = {("resid_post", 1): test.residual["resid_pre", 0]}
    with pytest.raises(ConfigError, match="the people and at the sites"):
        probe_accuracies(
            corpus, train, CachedActivations(test.individuals, test.templates, elsewhere, {})
        )
    single = CachedActivations(
        train.individuals,
        train.templates[:1],
        {site: x[:, :, :1] for site, x in train.residual.items()},
        {},
    )
    with pytest.raises(ConfigError, match="at least two draws"):
        probe_accuracies(corpus, single, test)
    for strengths in ([], [0.0]):
        with pytest.raises(ConfigError, match="penalties above 0"):
            probe_accuracies(corpus, train, test, strengths=strengths)
    with pytest.raises(ConfigError, match="at least one input"):
        RidgeProbe(torch.zeros(3, 3), torch.zeros(1, 2, 3))


@pytest.mark.parametrize(("noise", "shift"), [(0.0, 1.0), (1e-4, 1.0)])
def test_inputs_that_are_all_the_same_leave_the_frequencies(noise: float, shift: float) -> None:
    """Their covariance is what sums round to, of which an eigenvalue is negative."""
    torch.manual_seed(0)
    x = torch.randn(2, 8, 576) * noise + shift * torch.randn(576)
    labels = torch.tensor([3, 1, 3, 2, 3, 0, 3, 4]).expand(1, 2, 8)
    gram, by_class = sums_of_inputs(x, labels, 5)
    probe = RidgeProbe(gram.sum(0), by_class.sum(0))
    penalty = (1e-3 * probe.covariance.diagonal().mean()).clamp_min(1e-30)
    with pytest.raises(torch.linalg.LinAlgError):
        torch.linalg.cholesky((probe.covariance + penalty * torch.eye(576)).double())
    assert probe.weights(1e-3).isfinite().all()
    assert (probe.predict(x.flatten(0, 1), 1e-3) == 3).all()


def test_a_singular_cell_leaves_the_others(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    people = torch.arange(8)

    def streams(n_draws: int, *, same: bool) -> CachedActivations:
        generator = torch.Generator().manual_seed(n_draws)
        stream = torch.randn(len(POSITIONS), len(ATTRIBUTES), n_draws, 8, 576, generator=generator)
        if same:  # in the first cell nothing of the person, and something of the draw
            stream[0, 0] = (
                stream[0, 0, :1, :1] * torch.tensor([1.0, 1.0, 5.0])[:n_draws, None, None]
            )
        templates = torch.zeros(n_draws, 8, len(ATTRIBUTES), dtype=torch.int64)
        return CachedActivations(people, templates, {("resid_pre", 0): stream}, {})

    by_eigenvalues = []
    original = RidgeProbe._weights_by_eigenvalues
    monkeypatch.setattr(
        RidgeProbe, "_weights_by_eigenvalues",
        lambda *given: by_eigenvalues.append(1) or original(*given),
    )  # fmt: skip
    plain = probe_accuracies(corpus, streams(3, same=False), streams(2, same=False))
    assert not by_eigenvalues
    table = probe_accuracies(corpus, streams(3, same=True), streams(2, same=True))
    assert by_eigenvalues
    here = (table["position"] == POSITIONS[0]) & table["attribute"].isin(["all", ATTRIBUTES[0]])
    assert table.loc[here, "accuracy"].notna().all()
    pd.testing.assert_frame_equal(table[~here], plain[~here])


def test_infinite_inputs_are_refused() -> None:
    x = torch.randn(1, 6, 4)
    x[0, 0, 0] = float("inf")
    gram, by_class = sums_of_inputs(x, torch.zeros(1, 1, 6, dtype=torch.int64), 2)
    with pytest.raises(ConfigError, match="infinite or NaN"):
        RidgeProbe(gram.sum(0), by_class.sum(0)).weights(0.1)
