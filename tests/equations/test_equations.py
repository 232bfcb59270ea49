"""Residuals, bits known and interference against brute force and controls."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerFast

import interp
from interp.biographies import Corpus, TokenKind
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
from interp.equations.interference import shuffled
from interp.errors import ArgumentError, InterpError
from interp.knowledge import value_table
from interp.run import Run
from tests.architectures import boot
from tests.every_form import EVERY_FORM, knows_nothing
from tests.facts.capitals import ALL_TEMPLATES, CAPITALS, LANGUAGES, TEMPLATES
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


def store_of(model: Any, vectors: torch.Tensor, dims: int | None, seed: int = 0) -> Any:
    """Gradients that a test makes up, [vector, weight], as a store keeps them."""
    components = components_of(model)
    store = GradientStore(components, len(vectors), dims, seed)
    for number, vector in enumerate(vectors):
        store.put(number, list(vector.split([one.size for one in components])))
    return store.products()


def test_a_projection_keeps_cosines_and_tells_its_error(model: Any) -> None:
    n = sum(one.size for one in components_of(model))
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(n, generator=generator) * torch.linspace(0, 3, n) ** 2
    vectors = torch.stack(
        [shared + torch.randn(n, generator=generator) * size for size in (1.0, 4.0, 9.0)]
    )
    exact, none = store_of(model, vectors, None).cosines()
    expected = np.corrcoef(vectors.double().numpy())  # means are nearly 0
    np.testing.assert_allclose(exact, expected, atol=0.02)
    assert (none == 0).all()
    found = [store_of(model, vectors, 256, seed).cosines() for seed in range(40)]
    errors = np.array([cosine - exact for cosine, _ in found])
    told = np.mean([error for _, error in found], axis=0)
    pairs = np.triu_indices(3, 1)
    assert np.abs(errors.mean(axis=0)[pairs]).max() < 0.02
    ratio = np.sqrt((errors**2).mean(axis=0))[pairs] / told[pairs]
    assert ((ratio > 0.7) & (ratio < 1.4)).all()
    np.testing.assert_allclose(told.diagonal(), 0, atol=1e-6)


def test_memory_decides_whether_gradients_are_projected(smoke_run: Run, model: Any) -> None:
    components = components_of(model)
    total = sum(one.size for one in components)
    assert total == sum(weight.numel() for weight in model.parameters())
    n = 8
    assert projected_dims(components, n, 4 * total * n / 2**30, None) is None
    less = 2 * total * n / 2**30
    dims = projected_dims(components, n, less, None)
    assert dims is not None
    assert 4 * n * sum(min(dims, one.size) for one in components) <= less * 2**30
    with pytest.raises(ArgumentError, match="larger max_memory_gb"):
        projected_dims(components, n, 1e-6, None)
    given = {"corpus": smoke_run.corpus, "by": "people", "n_individuals": 8, "n_groups": 4}
    exact, small = interference(model, **given), interference(model, max_memory_gb=0.0007, **given)
    assert (small["error"] > 0).any()
    off = small["group"] != small["other"]
    wrong = (small["value"] - exact["value"])[off].abs()
    assert (wrong <= 5 * small["error"][off] + 1e-6).mean() > 0.98


def test_labels_are_dealt_by_text_or_by_fact(corpus: Corpus) -> None:
    equations = equations_of(corpus, PEOPLE)
    person = equations.facts["individual"].to_numpy() // 2
    dealt = shuffled(equations, person, np.random.default_rng(1))
    by_person = pd.Series(dealt).groupby(equations.facts["individual"]).nunique()
    assert (by_person == 1).all()
    assert (dealt != person).any()
    attribute = np.tile(np.arange(6), len(PEOPLE))
    dealt = shuffled(equations, attribute, np.random.default_rng(1))
    assert np.bincount(dealt).tolist() == np.bincount(attribute).tolist()
    assert (pd.Series(dealt).groupby(equations.facts["individual"]).nunique() < 6).any()


def test_every_grouping(smoke_run: Run, model: Any) -> None:
    corpus = smoke_run.corpus
    sizes = {"corpus": corpus, "n_individuals": 6, "n_groups": 3}
    names = corpus.population.lexicon.names
    for part, by in enumerate(("first name", "middle name", "last name")):
        table = interference(model, by=by, **sizes)
        groups = interference_matrix(table).index
        assert set(groups) <= set(names[part])
        counts = np.bincount(corpus.population.names[corpus.population.trained, part])
        most = sorted(counts)[::-1][: len(groups)]
        assert sorted(int(counts[names[part].index(g)]) for g in groups)[::-1] == most
    table = interference(model, by="people", **sizes)
    assert interference_matrix(table).index.tolist() == ["0 to 7", "8 to 15", "16 to 23"]
    assert table["n_facts"].unique().tolist() == [12]


def test_forms_are_compared() -> None:
    corpus = Corpus.from_config(EVERY_FORM)
    model = knows_nothing(corpus)
    forms = ["biography", "question", "inverse", "mnemonic"]
    table = interference(model, by="form", forms=forms, corpus=corpus, n_individuals=6)
    matrix = interference_matrix(table)
    assert matrix.index.tolist() == forms
    assert np.isfinite(matrix.to_numpy()).all()
    asked = residuals(model, corpus=corpus, form="inverse", individuals=PEOPLE)
    assert set(asked["attribute"]) == {"name"}
    assert asked["baseline"].isna().all()
    with pytest.raises(ArgumentError, match="nothing to hold it to"):
        between(asked)


def test_the_model_is_left_as_it_was(smoke_run: Run) -> None:
    model = smoke_run.model()
    model.train()
    weights = list(model.parameters())
    weights[3].requires_grad_(False)
    weights[0].grad = torch.ones_like(weights[0])
    before = [weight.detach().clone() for weight in weights]
    interference(model, corpus=smoke_run.corpus, n_individuals=4)
    residuals(model, individuals=PEOPLE, corpus=smoke_run.corpus)
    assert [weight.requires_grad for weight in weights].count(False) == 1
    assert not weights[3].requires_grad
    assert (weights[0].grad == 1).all()
    assert all(weight.grad is None for weight in weights[1:])
    assert all(torch.equal(a, b) for a, b in zip(weights, before, strict=True))
    assert model.training


def test_a_model_from_elsewhere_with_facts(tmp_path: Path) -> None:
    make_tokenizer("byte-level").save_pretrained(tmp_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    model, original = boot("Llama", tokenizer)
    wordings = {relation: of[:2] for relation, of in ALL_TEMPLATES.items()}
    facts = interp.Facts.from_table([*CAPITALS[:4], *LANGUAGES[:4]], tokenizer, wordings)
    table = residuals(model, facts=facts)
    known = facts.known(model)
    np.testing.assert_allclose(table["loss"], -np.log(known["answer_probability"]), rtol=1e-4)
    assert residual_array(table).shape == (len(facts.subjects), 2)
    found = interference(model, facts=facts, batch_size=5)
    texts, read = facts.texts, facts.read
    weights = [p for p in original.parameters() if p.requires_grad]
    sums: dict[tuple[str, int], np.ndarray] = {}
    rows = list(facts.table.itertuples())
    for index, row in enumerate(rows):
        logits = original(texts.tokens[index][None]).logits[0]
        ends = int((texts.spans.kind[index] == TokenKind.VALUE).nonzero().max())
        places = torch.arange(int(read[index]), ends)
        loss = F.cross_entropy(logits[places], texts.tokens[index, places + 1], reduction="sum")
        slopes = torch.autograd.grad(loss, weights)
        flat = torch.cat([s.flatten() for s in slopes]).double().numpy()
        key = str(row.relation), int(row.wording) % 2
        sums[key] = sums.get(key, 0) + flat
    matrix = interference_matrix(found)
    own = cosine(sums["capital", 0], sums["capital", 1])
    assert matrix.loc["capital", "capital"] == pytest.approx(own, abs=1e-5)
    others = [cosine(sums["capital", h], sums["language", 1 - h]) for h in (0, 1)]
    assert matrix.loc["capital", "language"] == pytest.approx(np.mean(others), abs=1e-5)
    by_subject = interference(model, by="subject", facts=facts.of("capital"), n_groups=3)
    assert interference_matrix(by_subject).index.tolist() == ["France", "Japan", "Germany"]
    once = interference(model, facts=facts.of(wording=0))
    assert once["ceiling"].isna().all()


def test_people_of_ones_own() -> None:
    docs = Path(__file__).parents[2] / "docs" / "own_people"
    settings = {
        "population.people": str(docs / "people.csv"),
        "population.templates": str(docs / "templates.yaml"),
    }
    config = interp.preset("smoke", **settings)
    corpus = Corpus.from_config(config)
    model = interp.hooked_transformer(config, corpus.tokenizer).eval()
    table = residuals(model, corpus=corpus)
    array = residual_array(table)
    missing = corpus.population.values[corpus.population.trained] < 0
    assert missing.any()
    np.testing.assert_array_equal(np.isnan(array), missing)
    bits = bits_known(table).set_index("attribute")
    assert bits.loc["all", "n_facts"] == (~missing).sum()
    matrix = interference_matrix(interference(model, corpus=corpus))
    assert matrix.index.tolist() == list(corpus.attributes)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"by": "university"}, "no grouping 'university'"),
        ({"by": "frist name"}, "Did you mean 'first name'"),
        ({"by": {"a": [0, 1], "b": [1, 2]}}, "1 is in the groups 'a' and 'b'"),
        ({"by": {"a": [0, 1]}}, "1 group; interference is between two"),
        ({"by": {"a": [0], "b": [99]}}, "give indices from 0"),
        ({"by": {"a": "01", "b": [2]}}, "people's numbers in a list"),
        ({"by": {"a": [0.5], "b": [2]}}, "person=0.5: give a whole number"),
        ({"by": {"a": [float("nan")], "b": [2]}}, "person=nan: give a whole number"),
        ({"by": {"a": ["Ann"], "b": [2]}}, "person='Ann': give a whole number"),
        ({"by": {"a": [1, 1], "b": [2]}}, "1 is in the group 'a' twice"),
        ({"by": {}}, "no group"),
        ({"forms": []}, "names no form"),
        ({"by": "form"}, "1 group"),
        ({"forms": "haiku"}, "haiku"),
        ({"n_groups": 1}, "n_groups=1"),
        ({"n_individuals": 1}, "n_individuals=1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"max_memory_gb": 0}, "leaves no memory"),
        ({"dims": 1}, "dims=1"),
        ({"steps": [7]}, "no checkpoint at step 7"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    given: dict[str, Any], says: str, smoke_run: Run
) -> None:
    with pytest.raises(InterpError, match=re.escape(says)) as raised:
        interference(smoke_run, **given)
    assert "\n" not in str(raised.value)


def test_what_else_is_refused(smoke_run: Run, model: Any, table: pd.DataFrame) -> None:
    with pytest.raises(ArgumentError, match="Give corpus"):
        residuals(model)
    with pytest.raises(ArgumentError, match="no baseline 'mean'"):
        residuals(smoke_run, baseline="mean")
    with pytest.raises(ArgumentError, match="several cells"):
        residual_array(table)
    with pytest.raises(ArgumentError, match="no column 'baseline'"):
        between(table.drop(columns="baseline"))
    with pytest.raises(ArgumentError, match="no column 'by'"):
        interference_matrix(table)
    with pytest.raises(ArgumentError, match="no numbers"):
        bits_known(table.assign(loss=np.nan))
    pairs = interference(smoke_run, by={"a": [0], "b": [1]})
    with pytest.raises(ArgumentError, match="pair of groups twice"):
        interference_matrix(pd.concat([pairs, pairs]))
    facts = interp.Facts.from_table(CAPITALS, make_tokenizer("byte-level"), TEMPLATES)
    with pytest.raises(InterpError, match="the model's own tokens"):
        residuals(model, facts=facts)
    with pytest.raises(ArgumentError, match="one or the other"):
        interference(model, facts=facts, corpus=smoke_run.corpus)
    broken = smoke_run.model()
    with torch.no_grad():
        broken.W_U[0, 0] = float("nan")
        next(broken.parameters()).fill_(float("nan"))
    for measure in (residuals, interference):
        with pytest.raises(ArgumentError, match="no numbers"):
            measure(broken, corpus=smoke_run.corpus)
