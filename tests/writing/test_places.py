"""Places: which tokens have a key and a value vector of their own."""

import pytest
import torch

import interp
from interp.biographies import Corpus
from interp.errors import ArgumentError
from interp.run import Run
from interp.writing import Rewrites, TargetSettings
from interp.writing.keys import read_outputs


@pytest.fixture(scope="module")
def told(corpus: Corpus) -> Rewrites:
    """A date and a city of one person, a city of another."""
    new = []
    for person, attribute in ((3, "birth_date"), (3, "current_location"), (1, "birth_place")):
        own = corpus.population.facts(person)[attribute]
        pool = corpus.population.lexicon.values[attribute]
        new.append((person, attribute, next(value for value in pool if value != own)))
    return Rewrites.of_people(corpus, new, n_texts=2)


def test_every_token_of_a_new_value_is_predicted_at_a_place_of_its_own(told: Rewrites) -> None:
    places = told.places("predicts value")
    seen: dict[int, set[tuple[int, int]]] = {}
    for row, column in (told.wanted >= 0).nonzero().tolist():
        number = int(told.wanted[row, column])
        start = column
        while start and int(told.wanted[row, start - 1]) == number:
            start -= 1
        place = int(places.of_token[row, column - 1])
        assert int(places.subject[place]) == int(told.subject[row])
        seen.setdefault(place, set()).add((number, column - start))
    assert all(len(of) == 1 for of in seen.values())
    assert len({next(iter(of)) for of in seen.values()}) == len(seen) == len(places.subject)
    assert int((places.of_token >= 0).sum()) == int((told.wanted >= 0).sum())
    assert len([of for of in seen.values() if next(iter(of))[0] == 0]) == 3  # month, day, year


def test_a_place_for_each_part_of_a_name(told: Rewrites) -> None:
    names = ["first name", "middle name", "last name"]
    places = told.places(names)
    assert places.subject.tolist() == [0, 0, 0, 1, 1, 1]
    assert places.of_subjects([1, 0]) == [3, 4, 5, 0, 1, 2]
    for number, name in enumerate(names):
        alone = told.places(name).of_token
        expected = torch.where(alone >= 0, 3 * alone + number, -1)
        at = alone >= 0
        assert torch.equal(places.of_token[at], expected[at])


def test_a_subset_has_the_same_places_in_the_same_order(told: Rewrites) -> None:
    whole, part = told.places("predicts value"), told.of_subjects([1]).places("predicts value")
    own = whole.of_token[told.subject == 1]
    first = whole.of_subjects([1])[0]
    assert torch.equal(part.of_token, torch.where(own >= 0, own - first, -1))


def test_two_kinds_may_not_share_a_token(told: Rewrites) -> None:
    with pytest.raises(ArgumentError, match="shares a token"):
        told.places(["last name", "last subject token"])
    with pytest.raises(ArgumentError, match="no position"):
        told.places([])


def test_the_moment_of_mentions_by_hand(smoke_run: Run, told: Rewrites) -> None:
    model = smoke_run.model()
    places = told.places(["middle name", "last name"])
    outputs = read_outputs(model, told.texts, places.of_token, 0, 0)
    moment = torch.zeros_like(outputs.moment)
    for place in range(4):
        mentions = outputs.mentions[outputs.place_of == place]
        assert len(mentions) == int((places.of_token == place).sum())
        torch.testing.assert_close(outputs.keys[place], mentions.mean(0))
        moment += sum(torch.outer(one, one) for one in mentions) / len(mentions)
    torch.testing.assert_close(outputs.moment, moment)
    some = outputs.of_places([3, 0])
    torch.testing.assert_close(some.keys, outputs.keys[[3, 0]])
    assert torch.equal(some.mentions[some.place_of == 0], outputs.mentions[outputs.place_of == 3])


def test_all_name_tokens_are_written_together(
    smoke_run: Run, corpus: Corpus, told: Rewrites
) -> None:
    before = smoke_run.model()
    edit = interp.write_facts(
        before, told, 0, ["first name", "middle name", "last name"], corpus=corpus,
        targets=TargetSettings(n_steps=12, lr=0.2),
    )  # fmt: skip
    assert (edit.rank, edit.position) == (6, "first name, middle name, last name")
    assert edit.method == "memit"


def test_what_is_to_stay_stays(smoke_run: Run, corpus: Corpus, told: Rewrites) -> None:
    """With a large weight the outputs where other values are predicted do not move."""
    at = told.kept_at("predicts value")
    assert int((at >= 0).sum()) == int(told.kept.sum())
    for row, column in told.kept.nonzero().tolist():
        assert int(at[row, column - 1]) == int(told.subject[row])
    assert not bool((told.kept_at("middle name") >= 0).any())
    model, options = (
        smoke_run.model(),
        {"targets": TargetSettings(n_steps=12, lr=0.2), "weight": 1e-3},
    )
    last = model.cfg.n_layers - 1
    keys = read_outputs(model, told.texts, torch.where(at >= 0, 0, -1), last, last).mentions
    moved = [
        float((edit.factors[last].change @ keys.T).norm())
        for kept in (0.0, 1e6)
        for edit in [interp.write_facts(model, told, method="memit", kept=kept, **options)]  # type: ignore[arg-type]
    ]
    assert moved[1] < 0.05 * moved[0]


def test_an_edit_that_would_change_nothing_is_refused(smoke_run: Run) -> None:
    people = smoke_run.corpus.population
    own = people.facts(1)["major"]
    new = next(value for value in people.lexicon.values["major"] if value != own)
    settings = TargetSettings(n_steps=1, lr=10.0, kl=1e9)  # any step is worse than none
    with pytest.raises(ArgumentError, match=r"no output of layer 0 at 'middle name' makes.*nats"):
        interp.write_facts(
            smoke_run, [(people.name(1), "major", new)], 0, "middle name", targets=settings
        )
