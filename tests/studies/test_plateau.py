"""The study of the plateau's length: its runs, its table, its verdicts and figures."""

from io import StringIO
from pathlib import Path

import pandas as pd
import pytest

import interp
from interp.errors import ConfigError, InterpError
from interp.phases import DELTA
from interp.plateau import fit_of, plateau_fits
from interp.plots import caption
from interp.studies.plateau import STUDY
from interp.studies.plateau_laws import OFFSET, STRAIGHT, plateau_laws
from interp.studies.sizes import PlateauSettings, plateau_table

GALLERY = Path(__file__).parents[2] / "artifacts" / "gallery"


def made_up(
    exponent: float = 0.5, scatter: float = 0.01, statistics_end: int = 100, delta: float = DELTA
) -> pd.DataFrame:
    """Plateaus that grow as 2 N^exponent, with a little scatter between seeds."""
    rows = [
        {
            "n_individuals": n,
            "seed": seed,
            "delta": delta,
            "statistics_end": statistics_end,
            "plateau_end": statistics_end + round(2 * n**exponent * (1 + scatter * (seed - 1))),
            "plateau_length": round(2 * n**exponent * (1 + scatter * (seed - 1))),
        }
        for n in (256, 1024, 4096)
        for seed in (0, 1, 2)
    ]
    steps = dict.fromkeys(("statistics_end", "plateau_end", "plateau_length"), "Int64")
    return pd.DataFrame(rows).astype(steps)


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.concat([made_up(), made_up(delta=0.1)], ignore_index=True)


def verdicts(table: pd.DataFrame) -> list[str]:
    """Of the three claims on the paper's power law."""
    tables = {"runs": table, "fits": plateau_fits(table)}
    return [claim.verdict for claim in STUDY.claims(tables)][:3]


def test_the_fit_finds_the_exponent(table: pd.DataFrame) -> None:
    fit = fit_of(table, "plateau_length")
    assert fit.low < 0.5 < fit.high
    assert fit.exponent == pytest.approx(0.5, abs=0.01)
    assert fit.coefficient == pytest.approx(2, rel=0.05)
    assert fit.n_points == 9


def test_runs_that_did_not_leave_the_plateau_are_left_out(table: pd.DataFrame) -> None:
    table.loc[table["seed"] == 1, ["plateau_end", "plateau_length"]] = pd.NA
    assert fit_of(table).n_points == 6
    fits = plateau_fits(table)
    assert set(fits["n_points"]) == {6}
    assert len(fits) == 4, "two tolerances, two measures"
    assert verdicts(table) == ["cannot tell"] * 3, "the longest plateaus might be missing"
    tables = {"runs": table, "fits": fits}
    assert "3 of 9 runs did not leave their plateau" in STUDY.claims(tables)[0].measured
    assert "3 of 9 runs" in caption(STUDY.figures(tables)["plateau-end"])


def test_too_few_sizes_for_a_fit(table: pd.DataFrame) -> None:
    small = table[table["n_individuals"] < 4096]
    assert plateau_fits(small).empty
    with pytest.raises(InterpError, match="at least 3 different x"):
        fit_of(small)
    tables = {"runs": small, "fits": plateau_fits(small)}
    assert {claim.verdict for claim in STUDY.claims(tables)} == {"cannot tell"}
    figures = STUDY.figures(tables)
    assert set(figures) == {"plateau-end", "plateau-length"}
    assert not any((trace.name or "").startswith("fit") for trace in figures["plateau-end"].data)
    assert "Too few sizes" in caption(figures["plateau-end"])


def test_all_verdicts_can_be_reached() -> None:
    # Length, end, and whether a power law.
    assert verdicts(made_up(0.81, statistics_end=0)) == ["agree", "agree", "agree"]
    assert verdicts(made_up(0.81, statistics_end=400)) == ["agree", "disagree", "agree"]
    assert verdicts(made_up(1.3)) == ["disagree", "disagree", "agree"]
    assert verdicts(made_up(0.81, scatter=0.5, statistics_end=0))[0] == "cannot tell"
    bent = made_up(1.0)
    bent.loc[bent["n_individuals"] == 1024, ["plateau_length", "plateau_end"]] = 30, 130
    assert verdicts(bent)[2] == "disagree"


def test_a_plateau_too_short_to_be_measured_decides_nothing() -> None:
    table = made_up(1.3)
    table.loc[0, "plateau_length"] = 0
    assert verdicts(table)[::2] == ["cannot tell", "cannot tell"]


def test_runs_of_the_study_end_after_the_plateau() -> None:
    """The committed table was measured with these settings."""
    planned = STUDY.runs(PlateauSettings())
    assert len(planned) == 18
    config = planned[4].config
    before, now = interp.preset("tiny").identity(), config.identity()
    assert {name: value for name, value in now.items() if before.get(name) != value} == {
        "seed": 1,
        "population.n_held_out": 0,
        "optimizer.schedule": "constant",
        "training.n_steps": 6000,
        "training.stop_below": 0.7,
        "training.early_checkpoints": [0],
        "training.checkpoint_every": 500,
        "evaluation.every": 10,
        "evaluation.n_individuals": 128,
    }


def test_a_power_law_needs_three_sizes() -> None:
    with pytest.raises(ConfigError, match="at least 3 different sizes"):
        PlateauSettings(sizes=(256, 512))
    with pytest.raises(ConfigError, match="each once"):
        PlateauSettings(sizes=(256, 256, 512, 1024))


def test_the_committed_tables_can_be_read() -> None:
    tables = {
        "runs": pd.read_csv(GALLERY / "studies/plateau/runs.csv"),
        "fits": pd.read_csv(GALLERY / "studies/plateau/fits.csv"),
    }
    assert set(STUDY.figures(tables)) == {"plateau-end", "plateau-length"}
    tables["laws"] = pd.read_csv(GALLERY / "studies/plateau/laws.csv")
    assert [claim.verdict for claim in STUDY.claims(tables)] == [
        "disagree", "cannot tell", "agree", "agree",
    ]  # fmt: skip
    length, end, *_ = STUDY.claims(tables)
    assert "N^1.33" in length.measured
    assert "N^0.86" in end.measured
    pd.testing.assert_frame_equal(plateau_fits(tables["runs"]).round(5), tables["fits"])


def test_tables_of_real_runs(trained) -> None:
    settings = PlateauSettings(
        preset="smoke",
        sizes=(12, 16, 20),
        seeds=(3,),
        n_steps=20,
        run={"training.precision": "fp32"},
    )
    planned = [planned.config for planned in STUDY.runs(settings)]
    runs = [trained(config) for config in planned[:2]]
    tables = STUDY.tables(settings, runs[::-1])
    table = tables["runs"]
    assert list(table["n_individuals"].unique()) == [12, 16]
    assert set(table["delta"]) == {0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2}, (
        "not 0.3: they stop at 0.7"
    )
    assert table["plateau_end"].isna().all()
    for found in (
        tables,
        {name: pd.read_csv(StringIO(t.to_csv(index=False))) for name, t in tables.items()},
    ):
        assert {claim.verdict for claim in STUDY.claims(found)} == {"cannot tell"}
        assert dict(STUDY.figures(found)) == {}
    assert {claim.verdict for claim in STUDY.claims({})} == {"cannot tell"}


def test_a_run_that_goes_on_can_tell_about_every_tolerance(smoke_run: interp.Run) -> None:
    assert list(plateau_table([smoke_run], deltas=(0.05, 0.5))["delta"]) == [0.05, 0.5]


def bent(constant: float, exponent: float = 1.0) -> pd.DataFrame:
    """Plateaus that end after a constant number of steps and a power law of N."""
    rows = [
        (n, seed, DELTA, round((constant + 0.4 * n**exponent) * (1 + 0.01 * (seed - 1))))
        for n in (256, 512, 1024, 2048, 4096)
        for seed in (0, 1, 2)
    ]
    return pd.DataFrame(rows, columns=["n_individuals", "seed", "delta", "plateau_end"])


def test_laws_are_told_apart_by_what_they_predict() -> None:
    laws = plateau_laws(bent(150)).set_index("law")
    assert laws["off"].idxmin() == OFFSET
    assert laws["off"][OFFSET] < 0.03 < laws["off"][STRAIGHT]
    assert laws["constant"][OFFSET] == pytest.approx(150, rel=0.1)
    assert laws["exponent_low"][OFFSET] < 1.0 < laws["exponent_high"][OFFSET]
    assert laws["measured"].nunique() == 1
    straight = plateau_laws(bent(0, 0.8)).set_index("law")
    assert straight["exponent"][STRAIGHT] == pytest.approx(0.8, abs=0.01)
    assert straight["off"][STRAIGHT] < 0.02


@pytest.mark.parametrize(("constant", "verdict"), [(150, "agree"), (0, "not")])
def test_the_rule_about_laws_decides(constant: float, verdict: str) -> None:
    table = bent(constant)
    lengths = table.assign(statistics_end=1, plateau_length=table["plateau_end"] - 1)
    tables = {"runs": lengths, "fits": plateau_fits(lengths), "laws": plateau_laws(table)}
    found = STUDY.claims(tables)[-1]
    assert (found.verdict == "agree") == (verdict == "agree")
    assert "fitted to fewer people, for N = 4,096" in found.measured


def test_laws_need_five_sizes_that_have_left_their_plateau() -> None:
    table = bent(150)
    assert plateau_laws(table[table["n_individuals"] > 256]).empty
    table["plateau_end"] = table["plateau_end"].astype("Int64")
    table.loc[0, "plateau_end"] = pd.NA
    assert plateau_laws(table).empty
