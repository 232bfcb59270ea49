"""The study of where in a name a person is known: its runs, measures, figures and rules."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from interp.biographies import Spans, TokenKind
from interp.charts.style import caption
from interp.engine.store import address_of
from interp.errors import ConfigError
from interp.interventions import cut_edges, swapped_people
from interp.model import measuring
from interp.run import Run
from interp.studies import name_tokens as study
from interp.studies.name_tokens_claims import CONFIRMATORY, STATEMENTS, TOLD
from interp.studies.name_tokens_measured import determined, name_token_masks, read_costs
from tests.helpers import read_back

SMOKE = {
    "preset": "smoke",
    "seeds": (0,),
    "confirmed_by": (),
    "n_pairs": 8,
    "run": {"training.n_steps": 8},
}


def test_runs_of_the_study(tmp_path: Path) -> None:
    settings = study.NameTokensSettings(folder=str(tmp_path))
    plans = study.planned(settings)
    assert f"{len(plans)} runs of `tiny`" in study.STUDY.duration
    assert len({address_of(plan.config) for plan in plans}) == len(plans) == 60
    elsewhere = study.NameTokensSettings(folder=str(tmp_path / "other"))
    assert [address_of(p.config) for p in plans] == [
        address_of(p.config) for p in study.planned(elsewhere)
    ]
    with pytest.raises(ConfigError, match="in confirmed_by others"):
        study.NameTokensSettings(seeds=(4, 5))
    with pytest.raises(ConfigError, match="population"):
        study.NameTokensSettings(run={"population.first_names": 5})


def test_names_are_what_the_condition_says(tmp_path: Path) -> None:
    config = study.NameTokensSettings(preset="smoke", folder=str(tmp_path)).config(0)
    ordinary = [name.split() for name in study.Population.of(config).full_names]
    assert [n.split()[::-1] for n in study.other_names(config, "reversed")] == ordinary
    four = [name.split() for name in study.other_names(config, "four tokens")]
    assert [own[:2] + own[3:] for own in four] == ordinary
    firsts = [name.split()[0] for name in study.other_names(config, "first name tells")]
    assert len(set(firsts)) == len(ordinary)
    two = study.other_names(config, "two tokens")
    assert len(set(two)) == len(ordinary)
    assert all(len(name.split()) == 2 for name in two)


@pytest.mark.parametrize(
    ("names", "token"), [("ordinary", 2), ("first name tells", 1), ("last name needed", 3)]
)
def test_conditions_differ_in_the_token_that_tells(names: study.Names, token: int) -> None:
    """At the default settings, as the study's rule counts it."""
    settings = study.NameTokensSettings()
    config = settings.of(0, names) if names != "first name tells" else settings.config(0)
    people = study.Population.of(config).full_names
    if names == "first name tells":
        people = study.other_names(config, names)
    own = pd.DataFrame([name.split() for name in people[: config.population.n_individuals]])
    told = [(~own.duplicated(list(range(k + 1)), keep=False)).mean() for k in range(3)]
    assert [share >= TOLD for share in told].index(True) + 1 == token


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> study.NameTokensSettings:
    return study.NameTokensSettings(**SMOKE, folder=str(tmp_path_factory.mktemp("names")))


@pytest.fixture(scope="module")
def runs(trained: Callable[..., Run], settings: study.NameTokensSettings) -> list[Run]:
    return [trained(plan.config) for plan in study.planned(settings)]


def test_tables_and_figures(settings: study.NameTokensSettings, runs: list[Run]) -> None:
    tables = study.tables(settings, runs)
    assert {name: tuple(table) for name, table in tables.items()} == study.COLUMNS
    places = tables["places"]
    n_tokens = places.groupby("names", sort=False)["n_tokens"].first().to_dict()
    assert n_tokens == dict.fromkeys(settings.names, 3) | {
        "one token": 1, "two tokens": 2, "four tokens": 4,
    }  # fmt: skip
    for _, own in places.groupby("names"):
        assert own["strongest"].sum() == pytest.approx(1, abs=1e-3)
        assert own["attention"].sum() == pytest.approx(1, abs=1e-3)
        assert own["determined"].is_monotonic_increasing
        assert own["determined"].iloc[-1] == 1.0
    assert set(tables["known"]["names"]) == set(settings.names)
    figures = study.figures(read_back(tables))
    assert list(figures) == ["name-tokens-places"]
    assert all("Look for" in caption(figure) for figure in figures.values())
    assert study.figures({}) == {}


def test_costs_of_reading_are_those_of_cut_edges(runs: list[Run]) -> None:
    """Told by cutting the edges in a forward pass of the whole model."""
    run = runs[0]
    model, pairs = run.model(), swapped_people(run.corpus, 4)
    masks = name_token_masks(pairs.spans)
    first, last = read_costs(model, pairs, masks)
    rows = torch.arange(len(pairs))

    def log_probability() -> float:
        with measuring(model):
            logits = model(pairs.base)[rows, pairs.read]
        return float(logits.log_softmax(dim=-1)[rows, pairs.base_answer].mean())

    whole = log_probability()
    for i, mask in enumerate(masks.values()):
        edges = torch.zeros(len(pairs), mask.shape[1], mask.shape[1], dtype=torch.bool)
        edges[rows, pairs.read] = mask
        for layer, found in ((0, first), (model.cfg.n_layers - 1, last)):
            with cut_edges(model, edges, layers=[layer]):
                assert whole - log_probability() == pytest.approx(found[i], abs=1e-4)


def test_no_loss_on_names_leaves_every_other_token(runs: list[Run]) -> None:
    run = runs[list(study.NameTokensSettings().names).index("no loss on names")]
    batch = run.corpus.batch(0, 4)
    counted = run.corpus.counted(batch, 0)
    assert counted is not None
    there, name = batch.kind != TokenKind.PADDING, batch.kind == TokenKind.NAME
    assert torch.equal(counted, there & ~name)
    assert name.any()


def test_tokens_of_names_are_numbered() -> None:
    spans = Spans.from_lists(9, sentences=[(1, 5), (5, 9)], names=[(1, 3), (6, 9)])
    masks = name_token_masks(spans)
    assert {name: mask.nonzero()[:, 1].tolist() for name, mask in masks.items()} == {
        "1": [1, 6], "2": [2, 7], "3": [8],
    }  # fmt: skip


def test_determined_by_hand(runs: list[Run]) -> None:
    run = runs[0]
    names = [name.split() for name in run.population.full_names[:24]]
    firsts = [own[0] for own in names]
    assert determined(run)[0] == sum(firsts.count(one) == 1 for one in firsts) / 24


def made_up(seed: int, without: int, tells: bool) -> dict[str, pd.DataFrame]:
    """Ordinary names are known at token 2, without loss at `without`, "last name needed" at 3 or 2."""
    places = []
    for names, at, told in (
        ("ordinary", 2, 2), ("reversed", 2 if tells else 3, 2), ("no loss on names", without, 2),
        ("last name needed", 3 if tells else 2, 3), ("loss on values only", without, 2),
    ):  # fmt: skip
        for token in (1, 2, 3):
            known = 1.0 if token >= told else 0.4
            share = 0.9 if token == at else 0.05
            attention = share if tells else 0.3 + (token == 1)
            early = 3.0 * (token == 3) if tells else 1.0
            row = (seed, names, token, 3, known, share, share, share, attention, early, 1.0)
            places.append(row)
    known = [(seed, names, 3, 1.0) for names in dict.fromkeys(row[1] for row in places)]
    rows = {"places": places, "known": known}
    return {name: pd.DataFrame(rows[name], columns=list(study.COLUMNS[name])) for name in rows}


@pytest.mark.parametrize(
    ("without", "tells", "verdicts"),
    [
        (
            2,
            True,
            [
                "agree",
                "disagree",
                "agree",
                "agree",
                "agree",
                "disagree",
                "agree",
                *["cannot tell"] * 2,
            ],
        ),
        (
            3,
            False,
            [
                "agree",
                "agree",
                "disagree",
                "disagree",
                "disagree",
                "agree",
                "disagree",
                *["cannot tell"] * 2,
            ],
        ),
    ],
)
def test_rules_decide(without: int, tells: bool, verdicts: list[str]) -> None:
    several = [made_up(seed, without, tells) for seed in (0, 1)]
    together = {name: pd.concat([one[name] for one in several]) for name in several[0]}
    found = study.claims(read_back(together))
    assert [claim.verdict for claim in found] == verdicts
    together["known"]["accuracy"] = 0.5
    forgotten = study.claims(together)
    assert {claim.verdict for claim in forgotten} == {"cannot tell"}
    assert {claim.measured for claim in forgotten} == {"no run knows 90% of its facts"}


@pytest.mark.parametrize(
    ("effect", "verdicts"),
    [(0.1, ["agree", "agree"]), (0.9, ["disagree", "agree"]), (1.1, ["disagree", "disagree"])],
)
def test_what_was_made_of_some_seeds_is_held_against_others(
    effect: float, verdicts: list[str]
) -> None:
    def with_effects(seed: int) -> dict[str, pd.DataFrame]:
        found = made_up(seed, 2, True)
        ordinary = found["places"]["names"] == "ordinary"
        found["places"]["effect"] = ordinary.map({True: 1.0, False: effect + 0.01 * (seed % 2)})
        return found

    def last(*seeds: int) -> list[str]:
        several = [with_effects(seed) for seed in seeds]
        together = {name: pd.concat([one[name] for one in several]) for name in several[0]}
        return [claim.verdict for claim in study.claims(read_back(together))[-2:]]

    assert last(0, 1, 2, 3, 4) == ["cannot tell", "cannot tell"]
    assert last(4, 5, 6, 7, 8, 9) == verdicts


def test_the_numbers_that_rules_read_are_those_of_the_tables() -> None:
    several = [made_up(seed, 2, True) for seed in (0, 1, 5)]
    several[1]["places"].loc[
        lambda t: (t["names"] == "reversed") & (t["token"] == 1), "strongest"
    ] = 1.0
    several[1]["places"].loc[
        lambda t: (t["names"] == "no loss on names") & (t["token"] == 2), "strongest"
    ] = 0.45
    together = {name: pd.concat([one[name] for one in several]) for name in several[0]}
    places = together["places"]
    places.loc[(places["names"] == "ordinary") & (places["token"] == 1), "read_last"] = 4.0
    claims = study.claims(together)

    def read(number: int) -> list[tuple[float, ...]]:
        return [one.values for one in claims[number - 1].readings]

    assert read(1) == [(0.9, 0.9)], "seeds from 5 on confirm"
    assert read(2) == [pytest.approx((1.0, 0.5)), (0.05, 0.05)]
    assert read(3) == [(1.0, 0.8)], "one of five kinds of names is known elsewhere"
    assert read(4) == []
    # In the first layer the last token costs 3 nats, all others none; in the last layer each 1, but one.
    assert read(7) == [(2.0, 2.0)] * 5 + [(5.0, 5.0)] + [(2.0, 2.0)] * 4
    assert [one.group for one in claims[6].readings][:2] == ["ordinary", "reversed"]
    assert read(8) == [(1.0,)]
    assert read(9) == [(0.0,)]


def test_nothing_measured_tells_nothing() -> None:
    n = len(STATEMENTS) + len(CONFIRMATORY)
    assert [claim.verdict for claim in study.claims({})] == ["cannot tell"] * n
