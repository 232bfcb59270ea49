"""Residuals, bits known and interference against brute force and controls."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

import interp
from interp.biographies import Corpus, spans_of
from interp.biographies.forms import FORMS
from interp.config import Config
from interp.equations import (
    Equations,
    between,
    bits_known,
    equations_of,
    interference,
    interference_matrix,
    relative_residuals,
    residual_array,
    residuals,
)
from interp.equations.components import components_of
from interp.equations.gradients import GradientStore, projected_dims
from interp.equations.interference import _centring, shuffled
from interp.errors import ArgumentError, NothingToMeasureError
from interp.knowledge import value_table
from interp.run import Run
from tests.facts.capitals import CAPITALS, LANGUAGES, TEMPLATES
from tests.facts.conftest import make_tokenizer

PEOPLE = np.arange(6)


@pytest.fixture(scope="module")
def model(smoke_run: Run) -> Any:
    return smoke_run.model()


@pytest.fixture(scope="module")
def table(smoke_run: Run) -> pd.DataFrame:
    return residuals(smoke_run)


def one_by_one(model: Any, equations: Equations) -> tuple[np.ndarray, np.ndarray]:
    """Loss and gradient of every fact by a whole pass of its own, [fact] and [fact, weight]."""
    losses, gradients = [], []
    weights = [p for c in components_of(model) for p in c.weights]
    for fact in range(len(equations)):
        own = equations.fact == fact
        text = equations.tokens[equations.text[fact]][None]
        logits = model(text)[0, equations.position[own]]
        loss = F.cross_entropy(logits, equations.target[own], reduction="sum")
        slopes = torch.autograd.grad(loss, weights, allow_unused=True)
        flat = [
            torch.zeros_like(w) if s is None else s for w, s in zip(weights, slopes, strict=True)
        ]
        losses.append(loss.item())
        gradients.append(torch.cat([s.flatten() for s in flat]).double().numpy())
    return np.array(losses), np.stack(gradients)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_residuals_are_those_of_the_metrics(smoke_run: Run, table: pd.DataFrame) -> None:
    n = smoke_run.config.population.n_individuals
    assert table.groupby("step").size().unique().tolist() == [6 * n]
    last = smoke_run.steps[-1]
    array = residual_array(table, step=last)
    assert array.shape == (n, 6)
    batch = smoke_run.corpus.biographies(np.arange(n))
    expected = value_table(smoke_run.model(), batch)
    np.testing.assert_allclose(array, expected[0], rtol=1e-5)
    np.testing.assert_array_equal(residual_array(table, last, "right"), expected[1])
    curve = smoke_run.curve()
    means = table.groupby("step")["loss"].mean()
    np.testing.assert_allclose(means, curve[means.index], rtol=1e-5)
    held_out = residuals(smoke_run.model(), individuals=np.array([n]), corpus=smoke_run.corpus)
    assert "step" not in held_out
    assert residual_array(held_out).shape == (1, 6)


def test_shares_of_the_baseline(smoke_run: Run, table: pd.DataFrame) -> None:
    share = relative_residuals(table)
    levels = smoke_run.baselines.statistics
    row = table.iloc[17]
    assert share[17] == pytest.approx(row["loss"] / levels[row["attribute"]])
    found = between(table)
    np.testing.assert_allclose(found[["known", "between", "unknown"]].sum(axis=1), 1)
    own = share[(table["step"] == 20).to_numpy()]
    assert found.set_index("step").loc[20, "between"] == np.mean((own >= 0.2) & (own <= 0.8))


def test_bits_known() -> None:
    rows = [(5, p, a, loss, 2.0) for p in range(4) for a, loss in (("x", 0.5), ("y", 2.5))]
    table = pd.DataFrame(rows, columns=["step", "individual", "attribute", "loss", "baseline"])
    bits = bits_known(table, n_parameters=10, n_individuals=40).set_index("attribute")
    assert bits.loc["x", "bits"] == pytest.approx(40 * 1.5 / np.log(2))
    assert bits.loc["y", "bits"] == 0
    assert bits.loc["all", "bits"] == pytest.approx(40 * 2 * (2.0 - 1.5) / np.log(2))
    assert bits.loc["all", "bits_per_parameter"] == pytest.approx(bits.loc["all", "bits"] / 10)
    assert bits.loc["all", "n_facts"] == 80
    assert np.isnan(bits_known(table)["bits_per_parameter"]).all()
    with pytest.raises(ArgumentError, match="at least 4"):
        bits_known(table, n_individuals=3)


def test_the_halves_tell_the_same_facts_in_other_wordings(corpus: Corpus) -> None:
    halves = [equations_of(corpus, PEOPLE, half=half) for half in (0, 1)]
    pd.testing.assert_frame_equal(halves[0].facts, halves[1].facts)
    values = [[h.target[h.fact == fact].tolist() for fact in range(len(h))] for h in halves]
    assert values[0] == values[1]
    assert len(values[0]) == 6 * len(PEOPLE)
    words = [
        {
            (row["individual"], row["attribute"]): half.tokens[text].tolist()
            for row, text in zip(half.facts.to_dict("records"), half.text, strict=True)
        }
        for half in halves
    ]
    assert all(words[0][key] != words[1][key] for key in words[0])
    # Every sentence is in a wording of training, and in another one in each half.
    train = corpus.biography.wordings("train")
    for half, other in (halves, halves[::-1]):
        assert not torch.equal(half.tokens, other.tokens)
    assert train.shape[-1] >= 2


def test_interference_is_that_of_one_backward_pass_a_fact(smoke_run: Run, model: Any) -> None:
    groups = {"first": [0, 1], "second": [2, 3, 4]}
    found = interference(model, by=groups, corpus=smoke_run.corpus, batch_size=2)
    people = np.array([0, 1, 2, 3, 4])
    means = []
    for half in (0, 1):
        equations = equations_of(smoke_run.corpus, people, half=half)
        _, gradients = one_by_one(model, equations)
        of = equations.facts["individual"].isin([0, 1]).to_numpy()
        means.append((gradients[of].mean(axis=0), gradients[~of].mean(axis=0)))
    (a, b), (c, d) = means
    matrix = interference_matrix(found)
    assert matrix.loc["first", "first"] == pytest.approx(cosine(a, c), abs=1e-5)
    between_groups = (cosine(a, d) + cosine(b, c)) / 2
    assert matrix.loc["second", "first"] == pytest.approx(between_groups, abs=1e-5)
    row = found[
        (found["component"] == "all") & found["layer"].isna() & (found["metric"] == "cosine")
    ]
    ceiling = np.sqrt(cosine(a, c) * cosine(b, d))
    assert row["ceiling"].to_numpy()[1] == pytest.approx(ceiling, abs=1e-5)
    assert (found["error"] == 0).all()
    start = 0
    for part in components_of(model):  # each component is a piece of the gradient
        own = slice(start, start + part.size)
        start += part.size
        piece = interference_matrix(found, component=part.kind, layer=part.layer)
        if part.layer is not None or part.kind == "unembedding":
            expected = cosine(a[own], c[own])
            assert piece.loc["first", "first"] == pytest.approx(expected, abs=1e-5)
    unit = [v / np.linalg.norm(v) for v in (a, b, c, d)]
    low = unit[0] - (unit[0] + unit[1]) / 2, unit[2] - (unit[2] + unit[3]) / 2
    specific = interference_matrix(found, metric="specific")
    assert specific.loc["first", "first"] == pytest.approx(cosine(*low), abs=1e-4)


def test_a_group_agrees_with_itself_and_random_groups_with_nothing(smoke_run: Run) -> None:
    found = interference(smoke_run, by="attribute", n_individuals=24)
    own = found[(found["group"] == found["other"]) & found["layer"].isna()]
    own = own[own["component"] == "all"].set_index(["metric", "group"])
    assert own.loc["cosine", "value"].min() > 0.85
    assert own.loc["specific", "value"].min() > 0.85
    assert own.loc["specific", "shuffled"].abs().max() < 0.35
    assert (own["ceiling"] - own["value"]).abs().max() < 1e-12
