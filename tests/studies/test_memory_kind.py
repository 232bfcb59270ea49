"""The study of kinds of memory: its runs, measures, claims and figures."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from interp.charts.style import caption
from interp.engine.store import address_of
from interp.errors import ConfigError
from interp.memory import memory_kind
from interp.run import Run
from interp.studies import memory_kind as study
from interp.studies.memory_kind_claims import STATEMENTS
from tests.helpers import read_back

SMOKE = {
    "preset": "smoke", "seeds": (0,), "checkpoints": (0,), "n_pairs": 6, "run": {"training.n_steps": 8},
}  # fmt: skip


def test_runs_of_the_study(tmp_path: Path) -> None:
    settings = study.MemoryKindSettings(folder=str(tmp_path))
    plans = study.planned(settings)
    assert f"{len(plans)} runs of `tiny`" in study.STUDY.duration
    assert len({address_of(plan.config) for plan in plans}) == len(plans) == 6
    elsewhere = study.MemoryKindSettings(folder=str(tmp_path / "other"))
    assert [address_of(p.config) for p in plans] == [
        address_of(p.config) for p in study.planned(elsewhere)
    ]
    for plan in plans:
        assert {
            0,
            250,
            1250,
            plan.config.training.n_steps,
        } < plan.config.training.checkpoint_steps()
    with pytest.raises(ConfigError, match="checkpoint_every"):
        study.MemoryKindSettings(run={"training.checkpoint_every": 5})


@pytest.fixture(scope="module")
def tables(
    trained: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, pd.DataFrame]:
    folder = str(tmp_path_factory.mktemp("people"))
    settings = study.MemoryKindSettings(**SMOKE, folder=folder)
    runs = [trained(plan.config) for plan in study.planned(settings)]
    assert [study.names_of(run) for run in runs] == ["three tokens", "one token"]
    found = study.tables(settings, runs)
    again = memory_kind(runs[1], steps=[8], n=6)
    row = found["kinds"].query("names == 'one token' and step == 8")
    assert row["mlp_share"].item() == pytest.approx(
        again["mlp_share"].item(), abs=1e-4, nan_ok=True
    )
    return found


def test_tables_and_figures(tables: dict[str, pd.DataFrame]) -> None:
    assert {name: tuple(table) for name, table in tables.items()} == study.COLUMNS
    assert tables["kinds"]["step"].tolist() == [0, 8] * 2
    assert set(tables["kinds"]["phase"]) <= {"statistics", "plateau", "knowledge"}
    figures = study.figures(read_back(tables))
    assert "memory-kind-alike" in figures
    assert all("Look for" in caption(figure) for figure in figures.values())
    assert study.figures({}) == {}


def made_up(
    names: str, seed: int, end: float, shares: list[float], alike: list[float]
) -> pd.DataFrame:
    """A curve over steps 0, 100, 200, 300: the share of embeddings, and how alike people are."""
    return pd.DataFrame(
        {
            "seed": seed, "names": names, "step": [0, 100, 200, 300], "phase": "plateau",
            "recalled": [0, 0, 0.5, 1], "associative": 1 - end, "geometric": end, "mlp": 1 - end,
            "late": 0.0, "together": 0.0, "embeddings": end, "embeddings_share": shares,
            "alike_at_name": alike, "alike_arriving": alike,
        }
    )  # fmt: skip


def test_every_figure_is_drawn() -> None:
    kinds = made_up("one token", 0, 0.9, [0.0, 0.1, 0.6, 0.9], [0.5, 0.5, 0.7, 0.8])
    kinds = kinds.assign(neither=0.0, control=0.0, mlp_share=0.1, late_share=0.0)
    ends = pd.DataFrame({"seed": [0], "names": "one token", "plateau_end": 250.0})
    figures = study.figures(read_back({"kinds": kinds, "phases": ends}))
    assert len(figures) == 3
    assert all("Look for" in caption(figure) for figure in figures.values())
    assert all("step 250" in caption(figure) for figure in figures.values())


def verdicts(kinds: list[pd.DataFrame], plateau_end: float | None = 250.0) -> list[str]:
    table = pd.concat(kinds, ignore_index=True)
    ends = table[["seed", "names"]].drop_duplicates().assign(plateau_end=plateau_end)
    claims = study.claims(read_back({"kinds": table, "phases": ends}))
    assert len(claims) == len(STATEMENTS)
    return [claim.verdict for claim in claims]


def test_claims() -> None:
    flat, early, late = [0.5] * 4, [0.5, 0.5, 0.7, 0.8], [0.5, 0.5, 0.5, 0.8]
    nan = float("nan")
    three = [made_up("three tokens", s, 0.0, [nan, 0.1, 0.1, 0.0], flat) for s in (0, 1)]
    one = [made_up("one token", s, 0.9, [nan, 0.1, 0.6, 0.9], early) for s in (0, 1)]
    assert verdicts([*three, *one]) == ["agree"] * 6 + ["disagree"]
    other = [made_up("one token", s, 0.1, [nan, 1.1, 0.9, 0.1], late) for s in (0, 1)]
    three = [made_up("three tokens", s, 0.6, [nan, 0.1, 0.1, 0.6], flat) for s in (0, 1)]
    assert verdicts([*three, *other], 220.0) == ["disagree"] * 7
    assert verdicts([*three, *one], None)[2:5] == ["cannot tell"] * 3
    joint = [of.assign(associative=0.2, mlp=0.2, together=0.8, embeddings=0.0) for of in three]
    assert verdicts(joint)[0] == "disagree"
    assert verdicts(joint)[5] == "agree"
    assert (
        verdicts([made_up("one token", 0, 0.6, [nan, nan, 0.6, 0.9], flat)]) == ["cannot tell"] * 7
    )


def test_what_is_said_of_seeds() -> None:
    one = [made_up("one token", s, 0.9, [0.0, 0.1, 0.6, 0.9], [0.5, 0.5, 0.7, 0.8]) for s in (0, 1)]
    ends = pd.DataFrame({"seed": [0, 1], "names": "one token", "plateau_end": 250.0})
    claims = study.claims({"kinds": pd.concat(one), "phases": ends})
    assert claims[0].measured == "nothing was measured"
    assert "geometric 0.90" in claims[1].measured
    assert "embeddings alone" in claims[3].measured
    assert "plateau ends at step 250" in claims[4].measured


def test_the_numbers_that_rules_read_are_those_of_the_tables() -> None:
    kinds = [
        made_up(names, seed, 0.9, [0.0, 0.1, 0.6, 0.9], [0.5, 0.5, 0.7, 0.6 + seed / 10])
        for names in ("three tokens", "one token")
        for seed in (0, 1, 2)
    ]
    table = pd.concat(kinds, ignore_index=True)
    table.loc[(table["seed"] == 1) & (table["step"] == 300), "alike_arriving"] = 0.9
    table.loc[table["seed"] == 2, "recalled"] = 0.1
    ends = table[["seed", "names"]].drop_duplicates().assign(plateau_end=250.0)
    claims = study.claims({"kinds": table, "phases": ends})
    read = [[(one.group, *one.values) for one in claim.readings] for claim in claims]
    assert read[0][0] == ("", pytest.approx(0.1), pytest.approx(0.1)), "the last recalls too little"
    assert read[1] == [("", 0.9, 0.9)]
    # Half of 0.9 is between steps 100 and 200.
    assert read[3][0][1:] == pytest.approx((80.0, 80.0))
    # Half of the way from 0.5 to 0.6, to 0.7 and to 0.8.
    assert read[4][0][1:] == pytest.approx((250 - 125, 250 - 150, 250 - 175))
    assert read[5] == [
        ("", pytest.approx(0.1), pytest.approx(0.1)), ("at names", 0.6, 0.7), ("where predicted", 0.6, 0.9),
    ]  # fmt: skip
    assert [one.limit for one in claims[5].readings] == [0.5, 0.75, 0.75]
