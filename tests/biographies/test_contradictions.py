"""Contradictory facts and subsystems of facts: who, how often, when; and what they leave as it was."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.biographies import Batch, Corpus, TokenKind
from interp.config import Config, FormConfig, stages_in_order
from interp.contradictions import contradiction_table
from interp.errors import ArgumentError, ConfigError, NothingToMeasureError
from interp.model import evaluating
from interp.presets import PRESETS
from interp.run import Run, finetuned, fingerprint
from tests.biographies.test_own_people import PEOPLE, TEMPLATES

MIXED = {"attribute": "major", "share_of_people": 0.5, "share_of_biographies": 0.7}
THEN = {"attribute": "university", "share_of_people": 0.25, "order": "A then B", "until": 20}


def corpus_with(config: Config, contradictions: dict[str, Any]) -> Corpus:
    return Corpus.from_config(config.with_settings(**{"data.contradictions": contradictions}))


def told(batch: Batch, corpus: Corpus, row: int, attribute: str) -> str:
    """The value that a biography tells, in words."""
    index = corpus.attributes.index(attribute)
    start, length = int(batch.value_start[row, index]), int(batch.value_length[row, index])
    tokens = batch.tokens[row, start : start + length].tolist()
    pool = corpus.population.lexicon.values[attribute]
    return pool[corpus.value_tokens(attribute).index(tokens)]


def test_addresses_are_what_they_were() -> None:
    """Of the version before these settings."""
    assert {name: fingerprint(config)[:16] for name, config in PRESETS.items()} == {
        "smoke": "8f9cabb9e6fb75ea", "tiny": "a06ae349a4e36d53", "demo": "41c8a2dcb1ee66ea",
        "small": "2b1e654e8e9e5f28", "paper": "af32f2c8e2ab45d9",
    }  # fmt: skip


def test_shares_of_mixed_contradictions(smoke: Config, corpus: Corpus) -> None:
    contrary = corpus_with(smoke, MIXED)
    contradictions = contrary.contradictions
    assert contradictions is not None
    people = contradictions.table(contrary.population)
    assert len(people) == 12
    assert people["individual"].is_monotonic_increasing
    assert people["individual"].max() < 24, "nobody who is held out"
    assert (people["value_a"] != people["value_b"]).all()
    values = dict(
        zip(
            people["individual"],
            zip(people["value_a"], people["value_b"], strict=True),
            strict=True,
        )
    )
    second = []
    for step in range(4):
        batch, plain = contrary.batch(step, 64), corpus.batch(step, 64)
        assert torch.equal(batch.individuals, plain.individuals)
        assert torch.equal(batch.templates, plain.templates)
        for row, person in enumerate(batch.individuals.tolist()):
            facts = corpus.population.facts(person)
            value = told(batch, contrary, row, "major")
            assert told(batch, contrary, row, "company") == facts["company"]
            if person in values:
                assert value in values[person]
                assert values[person][0] == facts["major"]
                second.append(value == values[person][1])
            else:
                assert value == facts["major"]
    assert abs(np.mean(second) - 0.3) < 4 * np.sqrt(0.3 * 0.7 / len(second))
    again = pickle.loads(pickle.dumps(contrary)).batch(3, 8)
    assert torch.equal(again.tokens, contrary.batch(3, 8).tokens), "a function of the step"


@pytest.mark.parametrize(("order", "first"), [("A then B", "value_a"), ("B then A", "value_b")])
def test_one_value_after_the_other(order: str, first: str, smoke: Config) -> None:
    contrary = corpus_with(smoke, THEN | {"order": order})
    assert contrary.contradictions is not None
    people = contrary.contradictions.table(contrary.population).set_index("individual")
    later = "value_b" if first == "value_a" else "value_a"
    for step, column in ((0, first), (19, first), (20, later), (39, later)):
        batch = contrary.batch(step, 64)
        rows = [r for r, i in enumerate(batch.individuals.tolist()) if i in people.index]
        assert len(rows) > 5
        for row in rows:
            person = int(batch.individuals[row])
            assert told(batch, contrary, row, "university") == people.loc[person, column]


def test_more_people_are_the_same_ones_and_others(smoke: Config) -> None:
    tables = []
    for share in (0.25, 0.75):
        found = corpus_with(smoke, MIXED | {"share_of_people": share})
        assert found.contradictions is not None
        tables.append(found.contradictions.table(found.population).set_index("individual"))
    assert len(tables[0]) == 6
    assert tables[1].loc[tables[0].index].equals(tables[0])


def test_in_every_form(smoke: Config) -> None:
    """What is drawn in stages has the second value too, and all else as without contradictions."""
    stages = {"data.stages": [{"forms": [{"form": "question"}, {"form": "mnemonic"}]}]}
    plain = Corpus.from_config(smoke.with_settings(**stages))
    contrary = corpus_with(smoke.with_settings(**stages), MIXED | {"share_of_biographies": 0.0})
    batch, other = contrary.batch(1, 32), plain.batch(1, 32)
    assert contrary.contradictions is not None
    assert torch.equal(batch.form, other.form)
    values = contrary.contradictions.table(plain.population).set_index("individual")
    for row, person in enumerate(batch.individuals.tolist()):
        own = plain.population.facts(person)["major"]
        expected = values.loc[person, "value_b"] if person in values.index else own
        assert told(batch, contrary, row, "major") == expected
        assert told(batch, plain, row, "company") == told(other, plain, row, "company")


def test_people_of_ones_own() -> None:
    config = interp.preset("smoke", **{
        "population.people": str(PEOPLE), "population.templates": str(TEMPLATES), "model.n_ctx": 256,
    })  # fmt: skip
    attribute = Corpus.from_config(config).attributes[0]
    contrary = corpus_with(config, MIXED | {"attribute": attribute, "share_of_people": 1.0})
    assert contrary.contradictions is not None
    table = contrary.contradictions.table(contrary.population)
    own = contrary.population.table().set_index("individual")[attribute]
    assert (own.loc[table["individual"]].to_numpy() == table["value_a"].to_numpy()).all()
    assert not (table["value_a"] == table["value_b"]).any()


def test_the_probability_of_both_values(smoke: Config, smoke_run: Run) -> None:
    contrary = corpus_with(smoke, MIXED)
    model = smoke_run.model()
    table = contradiction_table(smoke_run, 40, contrary)
    assert list(table.columns) == [
        "step", "individual", "attribute", "value_a", "value_b", "p_a", "p_b"
    ]  # fmt: skip
    assert contradiction_table(model, corpus=contrary).equals(table.drop(columns="step"))
    batch = contrary.biographies(table["individual"].to_numpy())
    tokens_of = dict(
        zip(
            contrary.population.lexicon.values["major"],
            contrary.value_tokens("major"),
            strict=True,
        )
    )
    major = contrary.attributes.index("major")
    with evaluating(model):
        for row, person in table.iterrows():
            for column in ("a", "b"):
                before = batch.tokens[row, : int(batch.value_start[row, major])]
                value = torch.tensor(tokens_of[person[f"value_{column}"]])
                probable = model(torch.cat([before, value])[None])[0].softmax(-1)
                expected = 1.0
                for place, token in enumerate(value.tolist(), start=len(before) - 1):
                    expected *= float(probable[place, token])
                assert person[f"p_{column}"] == pytest.approx(expected, rel=1e-4)


def test_a_run_with_contradictions_finds_its_own(
    short: Config, trained: Callable[[Config], Run]
) -> None:
    brief = {"training.n_steps": 2, "training.checkpoint_every": 2, "evaluation.n_individuals": 4}
    run = trained(short.with_settings(**brief, **{"data.contradictions": MIXED}))
    table = contradiction_table(run)
    assert table["step"].unique().tolist() == [0, 2]
    assert len(table) == 24
    assert not finetuned(run.config, **{"training.n_steps": 2}).data.contradictions.on


def test_nobody_is_contradicted(smoke_run: Run, smoke: Config) -> None:
    with pytest.raises(NothingToMeasureError, match=r"data\.contradictions"):
        contradiction_table(smoke_run)
    with pytest.raises(ArgumentError, match="corpus"):
        contradiction_table(smoke_run.model())


@pytest.mark.parametrize(
    ("contradictions", "words"),
    [
        ({"share_of_people": 0.5}, ["no attribute"]),
        ({"attribute": "major"}, ["share_of_people", "share_of_biographies"]),
        ({"attribute": "major", "share_of_people": 0.5}, ["share_of_biographies", "mixed"]),
        (MIXED | {"until": 5}, ["until", "mixed"]),
        (THEN | {"share_of_biographies": 0.5}, ["share_of_biographies", "A then B"]),
        (THEN | {"until": None}, ["until"]),
        (THEN | {"until": 40}, ["until=40", "40"]),
        (MIXED | {"order": "A, B"}, ["order='A, B'", "'mixed'"]),
        (MIXED | {"share_of_people": 0}, ["share_of_people=0", "above 0"]),
        (MIXED | {"share_of_people": 0.001}, ["nobody", "0.001"]),
        (MIXED | {"attribute": "mayor"}, ["'mayor'", "major"]),
    ],
)  # fmt: skip
def test_bad_contradictions(
    contradictions: dict[str, Any], words: list[str], smoke: Config
) -> None:
    with pytest.raises(ConfigError) as caught:
        corpus_with(smoke, contradictions)
    said = str(caught.value)
    assert "\n" not in said
    for word in words:
        assert word in said


def test_the_loss_is_on_some_attributes(smoke: Config) -> None:
    """Values of other attributes are read, and have no loss; with and without `loss`."""
    some = {"form": "biography", "attributes": ("major", "company")}
    for loss in (None, "values"):
        stages = [{"forms": [some | {"loss": loss}, {"form": "question"}]}]
        corpus = Corpus.from_config(smoke.with_settings(**{"data.stages": stages}))
        batch = corpus.batch(0, 16)
        counted = corpus.counted(batch, 0)
        assert counted is not None
        for row, position in np.ndindex(*batch.tokens.shape):
            kind, attribute = int(batch.kind[row, position]), int(batch.attribute[row, position])
            if kind == TokenKind.PADDING:
                expected = False
            elif batch.form[row] != 0:
                expected = True
            elif kind == TokenKind.VALUE:
                expected = corpus.attributes[attribute] in ("major", "company")
            else:
                expected = loss is None
            assert bool(counted[row, position]) == expected


def test_subsystems_in_order(smoke: Config) -> None:
    halves = [FormConfig(form="biography", people=half) for half in ((0, 0.5), (0.5, 1))]
    shown = {}
    for order in ("one, two, both", "two, one, both", "both"):
        stages = stages_in_order(*halves, order, 40)
        corpus = Corpus.from_config(smoke.with_settings(**{"data.stages": stages}))
        shown[order] = [
            {int(i) // 12 for i in corpus.batch(step, 64).individuals} for step in (0, 12, 13, 30)
        ]
    assert shown == {
        "one, two, both": [{0}, {0}, {1}, {0, 1}],
        "two, one, both": [{1}, {1}, {0}, {0, 1}],
        "both": [{0, 1}] * 4,
    }
    with pytest.raises(ConfigError, match=r"n_steps=2"):
        stages_in_order(*halves, "both", 2)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [((), "at least one"), (("major", "major"), "once"), (("mayor",), "'mayor'")],
)
def test_bad_attributes(attributes: tuple[str, ...], words: str, smoke: Config) -> None:
    stages = [{"forms": [{"form": "biography", "attributes": attributes}]}]
    with pytest.raises(ConfigError, match=words) as caught:
        Corpus.from_config(smoke.with_settings(**{"data.stages": stages}))
    assert "\n" not in str(caught.value)
