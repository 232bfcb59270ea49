"""Attribute loss, accuracy and confidence, against a slow reference and models that know."""

from collections import Counter
from math import log

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import ATTRIBUTES, Batch, Corpus, Population
from interp.config import LIST_SIZES, Config, PopulationConfig
from interp.errors import InterpError
from interp.knowledge import METRICS, SPLITS, Baseline, measure, split_batch, value_table
from interp.model import evaluating, hooked_transformer


@pytest.fixture(scope="module")
def model(smoke: Config, corpus: Corpus) -> TransformerBridge:
    """Random weights, large enough that predictions are far from uniform."""
    return hooked_transformer(smoke.with_settings(**{"model.init_std": 0.3}), corpus.tokenizer)


class Scripted(nn.Module):
    """Stands in for a model: says what a function of the tokens says."""

    def __init__(self, d_vocab: int, logit: float = 100.0) -> None:
        super().__init__()
        self.cfg = None
        self.logit = nn.Parameter(torch.tensor(logit))
        self.d_vocab = d_vocab
        self.wrong: list[tuple[int, int]] = []

    def forward(self, tokens: Tensor) -> Tensor:
        """Predicts every next token, but for the `wrong` (row, position)."""
        said = tokens.roll(-1, dims=1)
        for row, position in self.wrong:
            said[row, position - 1] = 0
        return self.logit * nn.functional.one_hot(said, self.d_vocab)

    def run_with_cache(self) -> None: ...
    def run_with_hooks(self) -> None: ...
    def to_tokens(self) -> None: ...


def slow_table(model: nn.Module, batch: Batch) -> np.ndarray:
    """The metrics of every value, one at a time, in double precision."""
    table = np.zeros((4, len(batch), 6))
    with torch.no_grad():
        log_p = model(batch.tokens).double().log_softmax(-1)
    for row in range(len(batch)):
        for attribute in range(6):
            start = int(batch.value_start[row, attribute])
            loss, right = 0.0, True
            for position in range(start, start + int(batch.value_length[row, attribute])):
                predicted = log_p[row, position - 1]
                token = int(batch.tokens[row, position])
                loss -= float(predicted[token])
                right = right and int(predicted.argmax()) == token
            first = log_p[row, start - 1].exp()
            entropy = -sum(float(p) * log(float(p)) for p in first if p > 0)
            table[:, row, attribute] = loss, right, float(first.max()), entropy
    return table


@pytest.mark.parametrize("kind", ["corpus", "bpe_corpus"])
def test_value_table_equals_the_slow_reference(
    kind: str, smoke: Config, request: pytest.FixtureRequest
) -> None:
    corpus: Corpus = request.getfixturevalue(kind)
    settings = {"model.init_std": 0.3, "model.n_ctx": corpus.longest}
    model = hooked_transformer(smoke.with_settings(**settings), corpus.tokenizer)
    batch = corpus.biographies(np.array([0, 5, 5, 30, 11]))
    table = value_table(model, batch, batch_size=2)
    np.testing.assert_allclose(table, slow_table(model, batch), rtol=1e-4, atol=1e-5)
    assert table[0].std() > 0.1  # a comparison of different numbers


@pytest.mark.parametrize("split", SPLITS)
def test_measure_is_the_mean_over_people(
    split: str, model: TransformerBridge, corpus: Corpus
) -> None:
    n = 5
    table = slow_table(model, split_batch(corpus, split, n))
    measured = measure(model, corpus, split, n)
    assert list(measured.columns) == ["split", "metric", "attribute", "value"]
    assert set(measured["split"]) == {split}
    assert len(measured) == 4 * 7
    values = measured.set_index(["metric", "attribute"])["value"]
    for m, metric in enumerate(METRICS):
        assert values[metric, "all"] == pytest.approx(table[m].mean(), rel=1e-4)
        for a, attribute in enumerate(ATTRIBUTES):
            assert values[metric, attribute] == pytest.approx(table[m, :, a].mean(), rel=1e-4)


def test_batch_size_does_not_matter(model: TransformerBridge, batch: Batch) -> None:
    np.testing.assert_allclose(
        value_table(model, batch, batch_size=1), value_table(model, batch), rtol=1e-4
    )


def test_splits(corpus: Corpus) -> None:
    people = corpus.population
    for split in SPLITS:
        batch = split_batch(corpus, split)
        held_out = people.is_held_out[batch.individuals.numpy()]
        assert held_out.all() if split == "held_out" else not held_out.any()
        pool = people.train_wordings if split == "train" else people.evaluation_wordings
        allowed = pool[batch.individuals.numpy()]
        assert (allowed == batch.templates.numpy()[..., None]).any(-1).all()
    assert len(split_batch(corpus, "evaluation", 1000)) == 24
    assert split_batch(corpus, "evaluation", 3).individuals.tolist() == [0, 1, 2]


def test_an_oracle_knows_everything(corpus: Corpus, batch: Batch) -> None:
    loss, accuracy, top, entropy = value_table(Scripted(len(corpus.tokenizer)), batch)
    np.testing.assert_allclose(loss, 0, atol=1e-6)
    np.testing.assert_array_equal(accuracy, 1)
    np.testing.assert_allclose(top, 1)
    np.testing.assert_allclose(entropy, 0, atol=1e-6)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_wrong_token_makes_a_value_wrong(place: int, corpus: Corpus, batch: Batch) -> None:
    """A birth date has three tokens."""
    row, date = 2, ATTRIBUTES.index("birth_date")
    assert batch.value_length[row, date] == 3
    oracle = Scripted(len(corpus.tokenizer))
    oracle.wrong = [(row, int(batch.value_start[row, date]) + place)]
    loss, accuracy, _, _ = value_table(oracle, batch)
    expected = np.ones((len(batch), 6))
    expected[row, date] = 0
    np.testing.assert_array_equal(accuracy, expected)
    np.testing.assert_allclose(loss, 100 * (1 - expected), atol=1e-4)


def test_a_wrong_token_elsewhere_does_not_matter(corpus: Corpus, batch: Batch) -> None:
    oracle = Scripted(len(corpus.tokenizer))
    ends = batch.value_start + batch.value_length
    oracle.wrong = [(row, int(ends[row, a])) for row in range(len(batch)) for a in range(6)
                    if ends[row, a] < batch.tokens.shape[1]]  # fmt: skip
    assert (value_table(oracle, batch)[1] == 1).all()


def test_uniform_predictions(corpus: Corpus, batch: Batch) -> None:
    d_vocab = len(corpus.tokenizer)
    loss, accuracy, top, entropy = value_table(Scripted(d_vocab, logit=0.0), batch)
    np.testing.assert_allclose(loss, batch.value_length.numpy() * log(d_vocab), rtol=1e-5)
    np.testing.assert_array_equal(accuracy, 0)
    np.testing.assert_allclose(top, 1 / d_vocab, rtol=1e-5)
    np.testing.assert_allclose(entropy, log(d_vocab), rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_the_model_as_it_was(
    training: bool, smoke: Config, corpus: Corpus
) -> None:
    model = hooked_transformer(smoke, corpus.tokenizer)
    model.train(training)
    model.original_model.layers[1].eval()
    modes = {name: module.training for name, module in model.named_modules()}
    hooks = {name: len(module._forward_hooks) for name, module in model.named_modules()}
    measure(model, corpus, n_individuals=2)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert {name: len(m._forward_hooks) for name, m in model.named_modules()} == hooks
    assert torch.is_grad_enabled()


def test_evaluating_gives_the_mode_back_after_an_error(model: TransformerBridge) -> None:
    model.train()
    with pytest.raises(ZeroDivisionError), evaluating(model):
        1 / (model.training + 0)
    assert model.training
    assert torch.is_grad_enabled()


def test_measuring_nobody_is_refused(smoke: Config, model: TransformerBridge) -> None:
    nobody = Corpus.from_config(smoke.with_settings(**{"population.n_held_out": 0}))
    with pytest.raises(InterpError, match="held"):
        measure(model, nobody, "held_out")


def brute_force_entropy(values: list[object]) -> float:
    return -sum(n / len(values) * log(n / len(values)) for n in Counter(values).values())


def test_baseline_equals_a_brute_force_count(corpus: Corpus) -> None:
    people = corpus.population
    facts = [people.facts(i) for i in range(24)]  # trained people only
    baseline = Baseline.of(people)
    for attribute in ATTRIBUTES:
        told = [fact[attribute] for fact in facts]
        expected = brute_force_entropy(told)
        assert baseline.population[attribute] == pytest.approx(expected)
        if attribute == "birth_date":
            parts = zip(*(date.split() for date in told), strict=True)
            expected = sum(brute_force_entropy(list(part)) for part in parts)
        assert baseline.statistics[attribute] == pytest.approx(expected)
    counts = {
        "birth_place": 12, "birth_date": 31 * 12 * 10, "current_location": 12,
        "university": 8, "major": 8, "company": 8,
    }  # fmt: skip
    assert baseline.theoretical == pytest.approx({a: log(n) for a, n in counts.items()})
    mean = sum(baseline.population.values()) / 6
    assert Baseline.overall(baseline.population) == pytest.approx(mean)


def test_baseline_of_the_full_lists() -> None:
    """The paper prints 6.785 nats."""
    people = Population.draw(PopulationConfig(**LIST_SIZES), seed=0)
    assert Baseline.overall(Baseline.of(people).theoretical) == pytest.approx(6.785, abs=5e-4)


def test_under_a_power_law_people_of_all_ranks_are_measured(smoke) -> None:
    """The first people are the frequent ones there; a measurement of them alone would flatter."""
    skewed = smoke.with_settings(**{"sampling.kind": "power_law", "sampling.exponent": 1.0})
    batch = split_batch(Corpus.from_config(skewed), "evaluation", 6)
    assert batch.individuals.tolist() == [0, 4, 8, 12, 16, 20]
