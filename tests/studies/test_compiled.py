"""The study of compiled models: its runs, tables, figures and rules."""

from collections.abc import Callable

import pandas as pd
import pytest

from interp.charts.style import caption
from interp.engine.store import address_of
from interp.errors import ConfigError
from interp.run import Run
from interp.studies import compiled as study
from interp.studies.compiled_claims import STATEMENTS
from tests.helpers import read_back

SMOKE = {
    "preset": "smoke", "seeds": (0,), "models": (("local", 24), ("geometric", 24)), "n_measured": 8,
    "people": (12, 24, 48), "n_neurons": (2, 12, 48), "descent_people": (24,), "descent_neurons": (2, 16),
    "descent_steps": 60, "d_mlp": (6,), "run": {"training.n_steps": 8},
}  # fmt: skip


def test_runs_of_the_study() -> None:
    plans = study.planned(study.CompiledSettings())
    assert f"{len(plans)} runs of `tiny`" in study.STUDY.duration
    assert len({address_of(plan.config) for plan in plans}) == len(plans) == 9
    assert {plan.config.model.d_mlp for plan in plans} == {8, 32, 128}
    with pytest.raises(ConfigError, match="d_mlp"):
        study.CompiledSettings(run={"model.d_mlp": 5})
    with pytest.raises(ConfigError, match="each once"):
        study.CompiledSettings(people=(64, 64))


@pytest.fixture(scope="module")
def tables(trained: Callable[..., Run]) -> dict[str, pd.DataFrame]:
    settings = study.CompiledSettings(**SMOKE)
    return study.tables(settings, [trained(plan.config) for plan in study.planned(settings)])


def test_tables_and_figures(tables: dict[str, pd.DataFrame]) -> None:
    assert {name: tuple(table) for name, table in tables.items()} == study.COLUMNS
    models, capacity = tables["models"], tables["capacity"]
    known = models.query("split == 'evaluation'").set_index("variant")["accuracy"]
    assert known.to_dict() == {"local": 1.0, "geometric": 1.0}
    assert models.query("split == 'held_out'")["accuracy"].max() < 0.2
    transformer = capacity[capacity["memory"] == "transformer"].iloc[0]
    assert (transformer["n_neurons"], transformer["n_individuals"]) == (12, 24)
    assert transformer["n_weights"] == 2 * (2 * 6 * 32 + 6 + 32)
    held = capacity.query("memory == 'least squares' and n_individuals == 24")["accuracy"].tolist()
    assert held == sorted(held)
    assert held[-1] == 1.0
    figures = study.figures(read_back(tables))
    assert list(figures) == ["compiled-capacity", "compiled-needed"]
    assert all("Look for" in caption(figure) for figure in figures.values())
    assert study.figures({}) == {}


def test_neurons_needed() -> None:
    assert study.neurons_needed([4, 16, 64], [0.1, 0.8, 1.0]) == pytest.approx(32.0)
    assert study.neurons_needed([4, 16], [0.1, 0.8]) is None
    assert study.neurons_needed([4, 16], [0.95, 1.0]) is None
    assert study.neurons_needed([4, 16, 64], [0.95, 0.8, 1.0]) is None


def made_up(
    seed: int, slope: float, off: float, times: float, ahead: float
) -> dict[str, pd.DataFrame]:
    people = (128, 256, 512, 1024)
    needed = [(seed, "least squares", n, 0.5 * n**slope) for n in people]
    needed += [(seed, "gradient descent", n, 0.5 * n**slope / times) for n in people[:2]]
    cells = [(seed, n, m, m, "least squares", 0.5, 1.0) for n in people for m in (16, 64)]
    cells += [(seed, n, m, m, "theory", 0.5 + off, 1.0) for n in people for m in (16, 64)]
    cells += [(seed, n, 4, 4, "gradient descent", 0.5, 1.0) for n in people[:2]]
    cells += [(seed, 512, 16, 16, "transformer", 0.5 + ahead, 1.0)]
    models = [(seed, "local", 512, "evaluation", 1.0, 5), (seed, "local", 512, "held_out", 0.0, 5)]
    rows = {"models": models, "capacity": cells, "needed": needed}
    return {name: pd.DataFrame(rows[name], columns=list(study.COLUMNS[name])) for name in rows}


def test_rules_decide() -> None:
    good = [made_up(seed, 1.0, 0.02, 4.0, 0.3) for seed in (0, 1)]
    bad = [made_up(seed, 0.5, 0.2, 1.0, -0.1) for seed in (0, 1)]
    for several, verdict in ((good, "agree"), (bad, "disagree")):
        together = {name: pd.concat([one[name] for one in several]) for name in several[0]}
        if verdict == "disagree":
            together["models"]["accuracy"] = 0.5
        found = study.claims(read_back(together))
        assert [claim.verdict for claim in found] == [verdict] * len(STATEMENTS)
    mixed = {name: pd.concat([good[0][name], bad[1][name]]) for name in good[0]}
    assert [claim.verdict for claim in study.claims(mixed)][1:] == ["cannot tell"] * 4


def test_the_numbers_that_rules_read_are_those_of_the_tables() -> None:
    several = [made_up(0, 1.0, 0.02, 4.0, 0.3), made_up(1, 0.9, 0.04, 3.0, 0.2)]
    together = {name: pd.concat([one[name] for one in several]) for name in several[0]}
    wrong = (together["models"]["seed"] == 1) & (together["models"]["split"] == "held_out")
    together["models"].loc[wrong, "accuracy"] = 0.02
    claims = study.claims(together)
    read = [{one.what: one.values for one in claim.readings} for claim in claims]
    assert list(read[0].values()) == [(1.0, 1.0), (0.0, 0.02)]
    assert [one.group for one in claims[0].readings] == ["local of 512 people"] * 2
    assert read[1]["slope"] == pytest.approx((1.0, 0.9))
    assert list(read[2].values()) == [pytest.approx((0.02, 0.04))]
    assert [one.group for one in claims[3].readings] == ["128 people", "256 people"]
    assert all(one.values == pytest.approx((4.0, 3.0)) for one in claims[3].readings)
    (ahead,) = claims[4].readings
    assert ahead.group == "16 neurons for 512 people"
    assert ahead.values == pytest.approx((0.3, 0.2))
    assert claims[4].power.endswith(
        "+0.25, 95% interval -0.39 to +0.89 (2 seeds), held against +0.00, which lies in it"
    )


def test_numbers_of_people_that_are_not_held_cannot_tell() -> None:
    tables = made_up(0, 1.0, 0.02, 4.0, 0.3)
    needed = tables["needed"]
    lost = (needed["memory"] == "gradient descent") & (needed["n_individuals"] == 256)
    tables["needed"] = needed[~lost]
    both = {n: pd.concat([t, made_up(1, 1.0, 0.02, 4.0, 0.3)[n]]) for n, t in tables.items()}
    assert [claim.verdict for claim in study.claims(both)][3] == "cannot tell"


def test_nothing_measured_tells_nothing() -> None:
    assert {claim.verdict for claim in study.claims({})} == {"cannot tell"}
