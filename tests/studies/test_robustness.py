"""The robustness study: its runs, the rule of three phases, and its verdicts and figures."""

from io import StringIO

import numpy as np
import pandas as pd
import pytest

import interp
from interp.errors import ConfigError
from interp.plateau import plateau_facts
from interp.plots import caption
from interp.studies.robustness import PHASES, STUDY, shows_phases
from interp.studies.variants import DEFAULT, FAMILIES, RECURRENT, RobustnessSettings, variants

SMALL = {
    "preset": "smoke",
    "run": {"training.precision": "fp32"},
    "learning_rate": (1e-3,),
    "weight_decay": (),
    "batch_size": (16,),
    "n_layers": (),
    "d_model": (16,),
    "n_steps": 20,
}


def curve(slow: float = 1.0, plateau: bool = True, last: int = 600) -> pd.DataFrame:
    """A loss that falls to the baseline and, after a plateau or without one, on to nothing."""
    steps = np.arange(0, last + 1, 10)
    time = steps / slow
    if plateau:
        loss = 0.9 * np.exp(-time / 60) + 1 / (1 + np.exp((time - 420) / 40))
    else:
        loss = np.maximum(1.9 - time / 150, 0.05)
    accuracy = np.clip(1 - loss, 0, 1) * (0.5 if plateau else 1)
    return pd.DataFrame({"loss": loss, "accuracy": accuracy}, index=pd.Index(steps, name="step"))


def tables_of(change: dict[str, pd.DataFrame | None] | None = None) -> dict[str, pd.DataFrame]:
    """Tables of the default settings, made up; `change` gives other curves, or none, to variants."""
    rows, curves = [], []
    pace = {"learning rate 0.000375": 2.0, "batch size 128": 0.5, "4 layers": 1.2, RECURRENT: 1.5}
    for cell in variants(RobustnessSettings()):
        made = curve(pace.get(cell.variant, 1.0) * (1 + 0.03 * cell.config.seed), last=900)
        made = (change or {}).get(cell.variant, made)
        row = {
            "family": cell.family,
            "variant": cell.variant,
            "seed": cell.config.seed,
            "n_individuals": cell.config.population.n_individuals,
            "batch_size": cell.config.training.batch_size,
        }
        rows.append(row)
        if made is None:
            continue
        if cell.variant != RECURRENT:
            made = made[made["loss"].shift(fill_value=1.0) >= 0.5]
        row |= plateau_facts(made, cell.config.training.batch_size)
        tagged = made.assign(variant=cell.variant, seed=cell.config.seed).reset_index()
        curves.append(tagged[["variant", "seed", "step", "loss", "accuracy"]])
    return {"runs": pd.DataFrame(rows).round(5), "curves": pd.concat(curves).round(4)}


def verdicts(tables: dict[str, pd.DataFrame]) -> dict[str, str]:
    return dict(zip(FAMILIES, (claim.verdict for claim in STUDY.claims(tables)), strict=True))


def test_one_setting_is_changed_at_a_time() -> None:
    cells = variants(RobustnessSettings())
    assert len(cells) == len({str(cell.config.identity()) for cell in cells}) == 14 * 3 + 1
    base = cells[0].config.identity()
    for cell in cells:
        if cell.config.seed == 0 and cell.family in FAMILIES[:-1]:
            identity = cell.config.identity()
            changed = {name for name, value in identity.items() if value != base[name]}
            width = {"model.d_model", "model.n_heads", "model.d_mlp"}
            assert changed == width if "width" in cell.variant else len(changed) == 1, cell
    wide = next(cell.config.model for cell in cells if cell.variant == "width 256")
    assert (wide.n_heads, wide.d_mlp) == (8, 1024)


def test_only_the_recurrent_run_is_kept_whole() -> None:
    recurrent = next(c.config for c in variants(RobustnessSettings()) if c.variant == RECURRENT)
    assert recurrent.training.stop_below is None
    assert (
        recurrent.training.checkpoint_steps() == interp.preset("tiny").training.checkpoint_steps()
    )
    others = [c.config.training for c in variants(RobustnessSettings()) if c.variant != RECURRENT]
    assert {t.stop_below for t in others} == {0.5}
    assert all(t.checkpoint_steps() == {0, t.n_steps} for t in others)


def test_a_value_of_the_preset_is_not_trained_twice() -> None:
    settings = RobustnessSettings(learning_rate=(1.5e-3, 3e-3), seeds=(0,))
    names = [cell.variant for cell in variants(settings)]
    assert "learning rate 0.0015" not in names
    assert "learning rate 0.003" in names


def test_settings_that_are_varied_cannot_be_fixed() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.learning_rate.*varies"):
        RobustnessSettings(run={"optimizer.learning_rate": 1e-3})
    with pytest.raises(ConfigError, match="each once"):
        RobustnessSettings(n_layers=(1, 1))


def test_a_plateau_is_told_from_a_steady_fall() -> None:
    facts = plateau_facts(curve(), batch_size=32)
    assert facts["biographies"] == 32 * facts["plateau_end"]
    assert shows_phases(facts, **PHASES) is True
    steady = plateau_facts(curve(plateau=False), batch_size=32)
    assert steady["plateau_length"] >= 10, "it crosses the band, too"
    assert steady["speed_before"] == pytest.approx(steady["speed_after"])
    assert shows_phases(steady, **PHASES) is False


@pytest.mark.parametrize(
    ("name", "value"),
    [("measured", 2), ("within", 0.89), ("accuracy", 0.1), ("speed_before", None)],
)
def test_each_condition_counts(name: str, value: float | None) -> None:
    assert shows_phases(plateau_facts(curve(), 32) | {name: value}, **PHASES) is False


def test_a_run_that_ends_on_its_plateau_cannot_tell() -> None:
    short = plateau_facts(curve(last=250), 32)
    assert short["statistics_end"] is not None
    assert short["plateau_end"] is None
    assert shows_phases(short, **PHASES) is None
    end = plateau_facts(curve(), 32)["plateau_end"]
    assert shows_phases(plateau_facts(curve(last=end), 32), **PHASES) is None


def test_all_verdicts_can_be_reached() -> None:
    assert set(verdicts(tables_of()).values()) == {"agree"}
    steady = tables_of({"width 64": curve(plateau=False), RECURRENT: curve(plateau=False)})
    assert verdicts(steady) == dict.fromkeys(FAMILIES, "agree") | {
        "model size": "disagree",
        "recurrence": "disagree",
    }
    stuck = tables_of({"learning rate 0.006": curve(last=250), "batch size 16": None})
    found = {claim.claim: claim for claim in STUDY.claims(stuck)}
    rate = found["The three phases are there whatever the learning rate"]
    assert rate.verdict == "cannot tell"
    assert "learning rate 0.006: plateau's end not reached by step 250" in rate.measured
    size = found["The three phases are there whatever the batch size"]
    assert size.verdict == "cannot tell"
    assert "batch size 16: not trained, shown by 0 of 3" in size.measured


def test_one_seed_that_differs_cannot_tell() -> None:
    tables = tables_of()
    runs = tables["runs"]
    runs.loc[(runs["variant"] == "1 layer") & (runs["seed"] == 2), "within"] = 0.5
    assert verdicts(tables)["model size"] == "cannot tell"


def test_numbers_are_those_that_the_rule_reads() -> None:
    tables = tables_of({"learning rate 0.006": curve(last=250)})
    runs = tables["runs"]
    chosen = runs["variant"] == "1 layer"
    runs.loc[chosen, ["speed_before", "speed_on_plateau", "speed_after"]] = [0.4, 0.1, 0.3]
    runs.loc[chosen & (runs["seed"] == 1), "speed_before"] = 0.12
    runs.loc[chosen & (runs["seed"] == 2), "measured"] = 2  # of such a run nothing else is read
    runs.loc[chosen, "within"], runs.loc[chosen, "accuracy"] = 0.95, 0.04
    rate, *_, size, _ = STUDY.claims(tables)
    own = [one for one in size.readings if one.group == "1 layer"]
    assert [one.limit for one in own] == [3, 0.9, 0.1, 1.5]
    n_measured = runs.loc[chosen, "measured"].astype(float).tolist()
    assert own[0].values == (n_measured[0], n_measured[1], 2)
    assert own[1].values == (0.95, 0.95)
    assert own[2].values == (0.04, 0.04)
    assert own[3].values == pytest.approx((3.0, 1.2))
    stuck = [one.values for one in rate.readings if one.group == "learning rate 0.006"]
    assert stuck == [()] * 4, "runs that do not get that far have no numbers"


def test_tables_read_back_say_the_same() -> None:
    tables = tables_of({"batch size 16": None, "learning rate 0.006": curve(last=250)})
    again = {name: pd.read_csv(StringIO(t.to_csv(index=False))) for name, t in tables.items()}
    assert STUDY.claims(again) == STUDY.claims(tables)
    for name, figure in STUDY.figures(again).items():
        assert figure.to_json() == STUDY.figures(tables)[name].to_json()


def test_figures_draw_every_run() -> None:
    figures = STUDY.figures(tables_of({"learning rate 0.006": curve(last=250)}))
    assert list(figures) == [
        "robustness-ends", "robustness-biographies", "robustness-learning-rate",
        "robustness-weight-decay", "robustness-batch-size", "robustness-model-size",
        "robustness-recurrence",
    ]  # fmt: skip
    lines = figures["robustness-learning-rate"].data
    assert len(lines) == 5 * 3, "four rates and the default, three seeds"
    assert sum(bool(line.showlegend) for line in lines) == 5
    stuck = [t for t in figures["robustness-ends"].data if t.name == "not ended by the last step"]
    assert list(stuck[0].x) == [250] * 3
    seen = next(t for t in figures["robustness-biographies"].data if t.name == "plateau end")
    runs = tables_of()["runs"].set_index(["variant", "seed"])["biographies"]
    assert figures["robustness-biographies"].layout.yaxis.ticktext[0] == DEFAULT
    default = [x for x, y in zip(seen.x, seen.y, strict=True) if round(y) == 0]
    assert default == list(runs[DEFAULT])
    assert "not comparable" in caption(figures["robustness-batch-size"])
    assert "not comparable" not in caption(figures["robustness-model-size"])


def test_without_runs_nothing_is_drawn_and_nothing_told() -> None:
    settings = RobustnessSettings(**SMALL)
    empty = dict(STUDY.tables(settings, []))
    assert len(empty["runs"]) == len(variants(settings))
    for tables in (empty, {}):
        assert STUDY.figures(tables) == {}
        assert set(verdicts(tables).values()) == {"cannot tell"}


def test_tables_of_real_runs(trained) -> None:
    settings = RobustnessSettings(**SMALL, seeds=(0,))
    cells = variants(settings)
    assert [c.variant for c in cells] == [
        DEFAULT, "learning rate 0.001", "batch size 16", "width 16", RECURRENT,
    ]  # fmt: skip
    chosen = [cells[i] for i in (4, 3, 0)]
    runs = [trained(cell.config) for cell in chosen]
    tables = STUDY.tables(settings, runs)
    table = tables["runs"].set_index("variant")
    assert set(table.index[table["last_step"].notna()]) == {c.variant for c in chosen}
    assert table.loc["width 16", "d_model"] == 16
    assert table.loc[RECURRENT, "recurrence"] == "rg_lru"
    own = tables["curves"][tables["curves"]["variant"] == DEFAULT]
    assert list(own["step"]) == [0, 10, 20]
    expected = runs[2].curve() / runs[2].phase_baseline
    assert list(own["loss"]) == pytest.approx(list(expected), abs=1e-4)
    assert "robustness-recurrence" in STUDY.figures(tables)
    assert set(verdicts(dict(tables)).values()) == {"cannot tell"}
