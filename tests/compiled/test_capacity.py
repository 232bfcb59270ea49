"""How many facts a memory holds: as compiled, in theory, trained."""

import jaxtyping
import numpy as np
import pytest

import interp
from interp.biographies import Corpus, Population, tokenizer_of
from interp.compiled.capacity import CAPACITY_COLUMNS, _held, _told, _told_of_drawn
from interp.compiled.facts import Knowledge
from interp.compiled.features import Features, least_squares, names_seen
from interp.compiled.memory import person_facts
from interp.compiled.plan import Plan
from interp.config import CompiledConfig, Config
from interp.errors import ArgumentError


def people(n: int, seed: int = 0) -> Config:
    return interp.preset("smoke", seed=seed).with_settings(population={"n_individuals": n})


def test_memory_as_compiled_says_what_the_compiled_model_says() -> None:
    config = people(48)
    for n in (12, 96):
        held = interp.recall_capacity(config, [n]).set_index("memory")["accuracy"]
        compiled = interp.compile_recall(config, "distributed", n_neurons=n)
        asked = compiled.measure().query("metric == 'attribute_accuracy'").set_index("attribute")
        corpus = Corpus.of(config, pop := Population.of(config), tokenizer_of(config, pop.lexicon))
        facts = Knowledge.of(corpus)
        if n == 96:
            assert held["least squares"] == asked.loc["all", "value"] == 1.0
        else:
            # Later tokens of values are spelled by thresholds, which a memory that forgets does not reach.
            assert asked.loc["all", "value"] <= held["least squares"] < 1.0
            seed = config.seed_of("model")
            plan = Plan.of(facts, CompiledConfig(variant="distributed"), config.model.n_ctx, seed)
            seen = names_seen(plan)
            active = Features.drawn(seen, n, plan.generator).active(seen)
            shares = _held(plan, active @ least_squares(active, person_facts(plan, plan.d_stream)))
            one_token = [a for a in plan.attributes if facts.longest(a) == 1]
            assert one_token
            for a in one_token:
                # All first tokens are read out in one space, where directions overlap.
                said = asked.loc[facts.attributes[a], "value"]
                assert said - 1e-6 <= shares[a] <= said + 0.15


def test_columns_and_bits() -> None:
    found = interp.recall_capacity(people(24), [1, 48], n_steps=3)
    assert tuple(found) == CAPACITY_COLUMNS
    assert found["memory"].tolist() == ["least squares", "theory", "gradient descent"] * 2
    assert set(found["n_individuals"]) == {24}
    whole = found.query("n_neurons == 48 and memory == 'least squares'").iloc[0]
    pools = Population.of(people(24)).lexicon.values.values()
    bits = 24 * sum(np.log2(len(pool)) for pool in pools)
    assert whole["bits_per_weight"] * whole["n_weights"] == pytest.approx(bits)
    assert found["n_weights"].iloc[-1] == 48 * found["n_weights"].iloc[0]


def test_the_same_settings_give_the_same_numbers() -> None:
    one, two = (interp.recall_capacity(people(24), [4], n_steps=20) for _ in range(2))
    assert one.equals(two)
    assert not one.equals(interp.recall_capacity(people(24, seed=1), [4], n_steps=20))


def test_training_holds_more_than_least_squares() -> None:
    held = interp.recall_capacity(people(64), [8], n_steps=300).set_index("memory")["accuracy"]
    assert held["gradient descent"] > held["least squares"] + 0.3


def test_theory_against_random_projections() -> None:
    """Values told from a random projection that keeps as much of everybody: what theory speaks of."""
    rng = np.random.default_rng(0)
    n_people, n_values = 400, 20
    angles = 2 * np.pi * np.arange(n_people)[:, None] / n_people
    for n in (41, 81, 161):
        right = []
        for _ in range(20):
            waves = angles * (1 + rng.permutation(n_people // 2 - 1)[: n // 2])
            features = np.hstack([np.ones((n_people, 1)), np.cos(waves), np.sin(waves)])
            q, _ = np.linalg.qr(features)
            values = rng.permutation(n_people) % n_values
            said = q @ (q.T @ np.eye(n_values)[values])
            right.append((said.argmax(axis=1) == values).mean())
        expected = _told(np.full(n_values, n_people // n_values), n_people, n / n_people)
        assert expected == pytest.approx(np.mean(right), abs=0.015)


def test_theory_of_directions_that_overlap_is_that_of_directions_with_a_dimension_each() -> None:
    counts = np.array([60, 20, 80, 40])
    for kept in (0.02, 0.1, 0.3):
        expected = _told(counts, 200, kept)
        assert _told_of_drawn(counts, 200, kept, np.eye(4)) == pytest.approx(expected, abs=0.05)


def test_theory_against_least_squares_with_more_values_than_dimensions() -> None:
    config = people(200).with_settings(population={"cities": 40, "companies": 40})
    for d_code in (32, 64):
        held = interp.recall_capacity(config, [75, 125], d_code=d_code)
        wide = held.pivot(index="n_neurons", columns="memory", values="accuracy")
        assert (wide["theory"] - wide["least squares"]).abs().max() < 0.1
        assert wide["least squares"].iloc[0] < wide["least squares"].iloc[1]


def test_what_cannot_be_is_refused() -> None:
    for given in ({"n_neurons": []}, {"n_neurons": [0]}, {"n_neurons": [4], "n_steps": -1},
                  {"n_neurons": [2.5]}, {"n_neurons": [4], "n_steps": 1.5}):  # fmt: skip
        with pytest.raises((ArgumentError, jaxtyping.TypeCheckError)):
            interp.recall_capacity(people(24), **given)  # type: ignore[arg-type]
