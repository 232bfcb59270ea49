from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from interp.biographies import ATTRIBUTES, N_TEMPLATES, N_TRAIN_TEMPLATES, Population, value_pools
from interp.biographies import lists as lists_module
from interp.config import Config, PopulationConfig
from interp.errors import ConfigError, RunError

SMALL_POOLS = {
    "first_names": 60, "middle_names": 60, "last_names": 60,
    "cities": 12, "universities": 8, "majors": 8, "companies": 9, "years": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def people(smoke: Config) -> Population:
    return Population.draw(smoke.population, seed=0)


@pytest.fixture(scope="module")
def crowd() -> Population:
    """Enough people for their statistics."""
    config = PopulationConfig(n_individuals=20_000, n_held_out=0, **SMALL_POOLS)
    return Population.draw(config, seed=0)


def test_names_are_unique(people: Population, crowd: Population) -> None:
    for population in (people, crowd):
        assert len(np.unique(population.names, axis=0)) == len(population)
    assert len({people.name(i) for i in range(len(people))}) == len(people)


def test_all_possible_names_can_be_used() -> None:
    config = PopulationConfig(
        n_individuals=7, n_held_out=1, first_names=2, middle_names=2, last_names=2
    )
    population = Population.draw(config, seed=0)
    assert len({population.name(i) for i in range(8)}) == 8


def test_deterministic(people: Population, smoke: Config) -> None:
    again = Population.draw(smoke.population, seed=0)
    np.testing.assert_array_equal(again.names, people.names)
    np.testing.assert_array_equal(again.values, people.values)
    np.testing.assert_array_equal(again.wordings, people.wordings)
    assert again.fingerprint() == people.fingerprint()


def test_another_seed_draws_other_people(people: Population, smoke: Config) -> None:
    other = Population.draw(smoke.population, seed=1)
    assert not np.array_equal(other.names, people.names)
    assert not np.array_equal(other.values, people.values)
    assert not np.array_equal(other.wordings, people.wordings)


def test_held_out_people_are_apart(people: Population) -> None:
    everyone = np.arange(len(people))
    trained, held_out = everyone[people.trained], everyone[people.held_out]
    assert len(trained) == 24
    assert len(held_out) == 8
    assert set(trained) | set(held_out) == set(everyone)
    np.testing.assert_array_equal(everyone[people.is_held_out], held_out)
    assert not {people.name(int(i)) for i in trained} & {people.name(int(i)) for i in held_out}


def test_wordings_are_a_split_of_all_templates(people: Population) -> None:
    train, evaluation = people.train_wordings, people.evaluation_wordings
    assert train.shape == (32, 6, N_TRAIN_TEMPLATES)
    assert evaluation.shape == (32, 6, N_TEMPLATES - N_TRAIN_TEMPLATES)
    both = np.sort(np.concatenate([train, evaluation], axis=-1), axis=-1)
    np.testing.assert_array_equal(both, np.broadcast_to(np.arange(N_TEMPLATES), both.shape))


def test_splits_differ_between_people_and_attributes(people: Population) -> None:
    splits = np.sort(people.evaluation_wordings, axis=-1).reshape(-1, 5)
    assert len(np.unique(splits, axis=0)) > 0.95 * len(splits)


def test_every_template_is_trained_with_someone(people: Population) -> None:
    for attribute in range(len(ATTRIBUTES)):
        seen = np.unique(people.train_wordings[people.trained, attribute])
        np.testing.assert_array_equal(seen, np.arange(N_TEMPLATES))


def test_values_are_within_their_pools(people: Population) -> None:
    sizes = [len(pool) for pool in value_pools(people.config).values()]
    assert people.values.min() >= 0
    assert (people.values < sizes).all()


def test_facts_and_table_agree(people: Population) -> None:
    table = people.table()
    assert list(table.columns) == ["individual", "name", "held_out", *ATTRIBUTES]
    for i in (0, 7, 31):
        row = table.iloc[i]
        assert row["name"] == people.name(i)
        assert bool(row["held_out"]) == (i >= 24)
        assert {a: row[a] for a in ATTRIBUTES} == people.facts(i)


def test_find(people: Population) -> None:
    assert people.find(people.name(13)) == 13


def test_find_by_a_part_of_the_name(people: Population) -> None:
    names = [people.name(i) for i in range(len(people))]
    for individual, name in enumerate(names):
        first, middle, last = name.split()
        assert people.find(f"  {name.upper()} ") == individual
        for part in (f"{first} {middle}", f"{first} {last}", f"{middle} {last}", name[2:-2]):
            holders = [
                i for i, other in enumerate(names)
                if set(part.split()) <= set(other.split()) or part in other
            ]  # fmt: skip
            if len(holders) == 1:
                assert people.find(part) == individual


def test_a_whole_name_goes_before_letters() -> None:
    config = PopulationConfig(n_individuals=60, n_held_out=0, **SMALL_POOLS)
    population = Population.draw(config, seed=0)
    object.__setattr__(population, "full_names", ["Ann Bo Li", "Joann Cy Lind", "Dee Annabel Ko"])
    assert population.find("ann") == 0
    assert population.find("li") == 0
    assert population.find("annabel") == 2
    assert population.find("joann lind") == 1
    assert population.find("y l") == 1
    with pytest.raises(RunError, match=r"3 people.*'nn'"):
        population.find("nn")


def test_an_ambiguous_part_names_who_has_it(people: Population, crowd: Population) -> None:
    first = crowd.name(0).split()[0]
    holders = [i for i in range(len(crowd)) if first in crowd.name(i).split()]
    with pytest.raises(RunError, match="more of the name") as caught:
        crowd.find(first)
    message = str(caught.value)
    assert f"{len(holders):,} people" in message
    assert f"{crowd.name(holders[0])} ({holders[0]})" in message
    assert f"and {len(holders) - 8:,} more" in message
    with pytest.raises(RunError, match=f"{len(people)} people"):
        people.find("")


def test_find_suggests_a_name(people: Population) -> None:
    wrong = people.name(5)[:-1] + "qq"
    with pytest.raises(RunError, match="Did you mean") as caught:
        people.find(wrong)
    assert repr(wrong) in str(caught.value)
    assert repr(people.name(5)) in str(caught.value)
    first = people.name(7).split()[0]
    with pytest.raises(RunError, match=f"Did you mean .*'{first}'"):
        people.find(first + "q")


@pytest.mark.parametrize("part", ["names", "values", "wordings"])
def test_fingerprint_changes_with_every_number(people: Population, part: str) -> None:
    changed = getattr(people, part).copy()
    changed.flat[-1] += 1
    assert replace(people, **{part: changed}).fingerprint() != people.fingerprint()


def test_fingerprint_changes_with_who_is_held_out(people: Population, smoke: Config) -> None:
    """The same 32 people, but 12 of them held out instead of 8."""
    config = smoke.population.model_copy(update={"n_individuals": 20, "n_held_out": 12})
    assert Population.draw(config, seed=0).fingerprint() != people.fingerprint()


@pytest.mark.parametrize("changed", ["first_names", "cities"])
def test_fingerprint_changes_with_a_word_list(
    people: Population, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People are indices into the lists, so an edited list means other people."""
    before = Population.draw(people.config, 0).fingerprint()
    original = lists_module.word_list

    def edited(name: str) -> tuple[str, ...]:
        entries = original(name)
        return (*entries[1::-1], *entries[2:]) if name == changed else entries

    monkeypatch.setattr(lists_module, "word_list", edited)
    assert Population.draw(people.config, 0).fingerprint() != before


def test_too_many_people_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"9 people .* allow only 8") as caught:
        Config().with_settings(
            population={
                "n_individuals": 8, "n_held_out": 1,
                "first_names": 2, "middle_names": 2, "last_names": 2,
            }
        )  # fmt: skip
    assert "fewer people" in str(caught.value)


@pytest.mark.parametrize("part", ["population", "model", "training"])
def test_negative_seeds_are_refused(part: str) -> None:
    with pytest.raises(ConfigError, match=rf"{part}\.seed"):
        Config().with_settings(**{f"{part}.seed": -1})


@pytest.mark.parametrize("attribute", range(len(ATTRIBUTES)), ids=ATTRIBUTES)
def test_values_are_uniform(crowd: Population, attribute: int) -> None:
    size = len(list(value_pools(crowd.config).values())[attribute])
    counts = np.bincount(crowd.values[:, attribute], minlength=size)
    assert len(counts) == size
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("part", range(3))
def test_names_are_uniform(crowd: Population, part: int) -> None:
    assert stats.chisquare(np.bincount(crowd.names[:, part], minlength=60)).pvalue > 1e-3


PAIRS = [(a, b) for a in range(6) for b in range(a) if 1 not in (a, b)]


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_values_are_independent(crowd: Population, a: int, b: int) -> None:
    """Also birth place and current location, which share one list; dates have too many values."""
    table = np.zeros(crowd.values.max(axis=0)[[a, b]] + 1, dtype=int)
    np.add.at(table, (crowd.values[:, a], crowd.values[:, b]), 1)
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_values_are_independent_of_names(crowd: Population) -> None:
    table = np.zeros((60, 8), dtype=int)
    np.add.at(table, (crowd.names[:, 2], crowd.values[:, ATTRIBUTES.index("major")]), 1)
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_a_person_is_meant_by_index_or_name(people: Population) -> None:
    name = people.name(3)
    for person in (3, np.int64(3), "3", name, name.upper()):
        assert people.individual(person) == 3
    last = len(people) - 1
    for wrong in (-1, last + 1, str(last + 1)):
        with pytest.raises(ConfigError, match=f"individuals 0 to {last}"):
            people.individual(wrong)
    with pytest.raises(RunError, match="Nobody"):
        people.individual("9" * 5000)
