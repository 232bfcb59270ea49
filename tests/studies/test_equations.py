"""The study of facts as equations: its runs, measures, claims and figures."""

from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.asking import answers
from interp.charts.style import caption
from interp.engine.store import address_of
from interp.errors import ConfigError
from interp.knowledge import Baseline
from interp.run import Run
from interp.studies import equations
from interp.studies.equations_claims import STATEMENTS
from interp.studies.equations_measured import bimodality, distribution, phase_steps
from interp.studies.study import Planned
from tests.helpers import read_back

SETTINGS = equations.EquationsSettings(
    preset="smoke", seeds=(0,), n_steps=6, every=2, checkpoints=(0, 2, 4), interference_people=8,
    widths=(16,), people=(16, 24), capacity_list=4, exposures=(1,), capacity_batch=8, n_measured=12,
    shares=(0.5,), order_steps=6, tuning_steps=2, rank=4, n_alphas=3,
)  # fmt: skip
N = len(STATEMENTS)


def test_runs_of_the_study() -> None:
    settings = equations.EquationsSettings()
    plans = equations.planned(settings)
    assert f"{len(plans)} runs (42 of" in equations.STUDY.duration
    assert len({address_of(plan.config) for plan in plans}) == len(plans) == 66
    small = [plan.config for plan in plans if plan.config.training.batch_size == 256]
    assert len(small) == 24
    for config in small:
        examples = config.training.n_steps * 256
        assert examples in (
            100 * config.population.n_individuals,
            1000 * config.population.n_individuals,
        )
        assert config.training.checkpoint_steps() == {0, config.training.n_steps}
        assert config.model.d_head == 8
    parts = Counter(part for part, _, _ in equations.cells(settings))
    assert parts == {"residuals": 3, "capacity": 24, "contradiction": 15, "order": 9, "merge": 18}
    addresses = {address_of(plan.config) for plan in plans}
    bases = [plan.base for plan in plans if plan.base is not None]
    assert len(bases) == 15
    assert {address_of(base.config) for base in bases} < addresses


def test_a_part_can_be_left_out() -> None:
    parts = equations.EquationsSettings(parts=("order",), seeds=(0,), subsystems="attributes")
    plans = equations.planned(parts)
    stages = [plan.config.data.stages or () for plan in plans]
    asked = [[stage.forms[0].attributes for stage in of] for of in stages]
    one, two = asked[0][:2]
    assert asked == [[one, two, None], [two, one, None], [None]]
    assert len(set(one or ()) | set(two or ())) == 6
    no_adapter = equations.EquationsSettings(parts=("merge",), seeds=(0,), rank=None)
    assert len(equations.planned(no_adapter)) == 4


def test_what_cannot_be_trained_is_refused() -> None:
    for wrong, word in (
        ({"run": {"optimizer.learning_rate": 1e-3}}, "optimizer"),
        ({"widths": (12,)}, "multiples of 8"),
        ({"parts": ()}, "parts"),
        ({"people": (0, 16)}, "at least 1"),
        ({"most_examples": 10}, "most_examples"),
    ):
        with pytest.raises(ConfigError, match=word):
            equations.EquationsSettings(**wrong)


@pytest.fixture(scope="module")
def runs(trained: Callable[..., Run]) -> list[Run]:
    def of(plan: Planned) -> Run:
        if plan.base is None:
            return trained(plan.config)
        base = trained(plan.base.config)
        return trained(plan.config.with_settings(**{"finetuning.base": str(base.path)}))

    return [of(plan) for plan in equations.planned(SETTINGS)]


@pytest.fixture(scope="module")
def tables(runs: list[Run]) -> dict[str, pd.DataFrame]:
    return equations.tables(SETTINGS, runs)


def run_of(runs: list[Run], part: str, **apart: Any) -> Run:
    return next(
        run
        for run in runs
        if any(
            p == part and apart.items() <= of.items()
            for p, of in equations.described(SETTINGS, run)
        )
    )


def test_tables_of_runs(runs: list[Run], tables: dict[str, pd.DataFrame]) -> None:
    assert {name: tuple(table) for name, table in tables.items()} == equations.COLUMNS
    assert all(len(table) for table in tables.values())
    plain = run_of(runs, "residuals")
    assert equations.described(SETTINGS, plain)[1] == (
        "contradiction", {"seed": 0, "condition": "control"}
    )  # fmt: skip
    assert sorted(set(tables["residuals"]["step"])) == [0, 2, 4, 6]
    found = answers(plain.model(6), plain.corpus, "biography")
    levels = Baseline.of(plain.population).statistics
    share = found["loss"] / found["attribute"].map(levels)
    (row,) = tables["residuals"].query("step == 6 and attribute == 'all'").to_dict("records")
    assert row["mean"] == pytest.approx(share.mean(), abs=1e-4)
    assert row["q90"] == pytest.approx(share.quantile(0.9), abs=1e-4)
    assert row["known"] + row["between"] + row["unknown"] == pytest.approx(1, abs=2e-4)
    assert set(tables["interference"]["by"]) == {"attribute", "people"}
    assert set(tables["interference"]["step"]) == set(phase_steps(plain).values())
    others = tables["contradiction"].query("condition == 'control' and step == 6")["accuracy"]
    measured = [plain.curve("attribute_accuracy", attribute=a).loc[6]
                for a in plain.corpus.attributes if a != "company"]  # fmt: skip
    assert others.item() == pytest.approx(np.mean(measured), abs=1e-4)


def test_bits_of_a_small_model(runs: list[Run], tables: dict[str, pd.DataFrame]) -> None:
    run = run_of(runs, "capacity", n_individuals=24)
    (row,) = tables["capacity"].query("n_individuals == 24").to_dict("records")
    people = np.arange(0, 24, 2)
    found = answers(run.model(), run.corpus, "biography", people)
    gain = found["attribute"].map(Baseline.of(run.population).statistics) - found["loss"]
    assert row["loss"] == pytest.approx(found["loss"].mean(), abs=1e-4)
    assert row["bits"] == pytest.approx(max(0, 2 * gain.sum() / np.log(2)), abs=1e-3)
    n = sum(parameter.numel() for parameter in run.model().parameters())
    assert (row["parameters"], row["n_steps"]) == (n, 3)


def test_stages_and_groups(runs: list[Run], tables: dict[str, pd.DataFrame]) -> None:
    order = tables["order"].query("order == 'two, one, both'").set_index("step")
    assert order["stage"].to_dict() == {
        0: "two", 1: "two", 2: "two", 3: "one", 4: "one", 5: "both", 6: "both"
    }  # fmt: skip
    run = run_of(runs, "order", order="two, one, both")
    found = answers(run.model(4), run.corpus, "biography")
    assert order.loc[4, "one_loss"] == pytest.approx(
        found.query("individual < 12")["loss"].mean(), abs=1e-4
    )
    groups = tables["groups"].query("condition == 'mixed 0.5'").set_index("group")
    assert list(groups.index) == ["contradicted", "same attribute", "same people", "others"]
    noisy = run_of(runs, "contradiction", condition="mixed 0.5")
    about = noisy.corpus.contradictions.table(noisy.population)  # type: ignore[union-attr]
    asked = answers(noisy.model(), noisy.corpus, "biography").merge(
        about, on=["individual", "attribute"]
    )
    assert groups.loc["contradicted", "loss"] == pytest.approx(asked["loss"].mean(), abs=1e-4)
    last = run_of(runs, "contradiction", condition="A then B").config.data.contradictions
    assert (last.order, last.until) == ("A then B", 3)


def test_models_made_of_runs(runs: list[Run], tables: dict[str, pd.DataFrame]) -> None:
    first, second = (run_of(runs, "merge", model=f"{n} half") for n in ("first", "second"))
    weights = [run.model().state_dict() for run in (first, second)]
    model = first.model()
    model.load_state_dict({name: (of + weights[1][name]) / 2 for name, of in weights[0].items()})
    new = answers(model, first.corpus, "biography", np.arange(12, 24))
    line = tables["line"].query("split == 'new' and alpha == 0.5").set_index("pair")
    middle = line.loc["first and second half"]
    assert middle["attribute_loss"] == pytest.approx(new["loss"].mean(), abs=1e-3)
    assert line.loc["a run with itself", "attribute_loss"] != middle["attribute_loss"]
    merge = tables["merge"].set_index("model")
    assert merge.loc["average", "new"] == pytest.approx(new["right"].mean(), abs=1e-4)
    assert merge.loc["average"].tolist() == merge.loc["task vectors x 0.5"].tolist()
    for name, prefix in (("switched", ""), ("adapters switched", "adapter, ")):
        assert merge.loc[name, "first half"] == merge.loc[f"{prefix}first half", "first half"]
        assert merge.loc[name, "second half"] == merge.loc[f"{prefix}second half", "second half"]
        assert merge.loc[name, "old"] == merge.loc["base", "old"]
    shown = first.corpus.batch(0, 50).individuals
    assert set(shown.tolist()) == set(range(12, 18))


def test_distribution_of_residuals() -> None:
    generator = np.random.default_rng(0)
    even, two = generator.uniform(0, 1, 20_000), generator.normal(0, 0.01, 20_000)
    assert bimodality(even) == pytest.approx(5 / 9, abs=0.01)
    assert bimodality(two + np.arange(20_000) % 2) == pytest.approx(1, abs=0.01)
    assert bimodality(two) == pytest.approx(1 / 3, abs=0.01)
    assert np.isnan(bimodality(np.ones(100)))
    table = pd.DataFrame(
        {"loss": [0.05, 1.0, 2.0, 3.0, 4.0], "relative": [0.0125, 0.25, 0.5, 0.75, 1.0]}
    )
    found = distribution(table)
    assert [found[n] for n in ("known", "between", "unknown", "middle")] == [0.2, 0.6, 0.2, 0.6]


def made_up(good: bool = True, sure: bool = True) -> dict[str, pd.DataFrame]:
    """Tables of three seeds that say what is claimed, its contrary, or (not `sure`) nothing of it."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in equations.COLUMNS}
    quantiles = {"q10": 0.1, "q25": 0.2, "q50": 0.5, "q75": 0.8, "q90": 1.0}
    known = 0.95 if sure else 0.3
    for seed in (0, 1, 2):
        for attribute, (step, mean) in product(
            ("all", "major", "company"), ((0, 1.1), (300, 0.5 if sure else 0.9), (1500, 0.01))
        ):
            middle = 0.2 if good else 0.7
            rows["residuals"].append({
                "seed": seed, "step": step, "attribute": attribute, "mean": mean, "known": 0.4,
                "between": 0.2, "unknown": 0.4, "bimodality": 0.8, "middle": middle, **quantiles,
            })  # fmt: skip
        for phase, by, metric, other in product(
            ("statistics", "plateau", "knowledge") if sure else ("statistics",),
            ("attribute", "people"), ("cosine", "specific"), ("a", "b"),
        ):  # fmt: skip
            value = 0.5 if (phase == "knowledge" and good) else 0.05
            rows["interference"].append({
                "seed": seed, "phase": phase, "step": 10, "by": by, "group": "a", "other": other,
                "metric": metric, "value": value, "ceiling": 0.5, "shuffled": 0.01, "error": 0.0,
            })  # fmt: skip
            if other == "b":
                rows["interference"].append({**rows["interference"][-1], "group": "b"})
        for width, exposures, n in product((16, 32), (100, 1000), (512, 1024, 2048)):
            bits = {
                512: 0.3,
                1024: exposures**0.5 / 16 if good else 4.0,
                2048: 1.9 if good else 0.1,
            }[n]
            bits = min(bits, 1.0) if exposures == 100 and good else bits
            rows["capacity"].append({
                "seed": seed, "width": width, "exposures": exposures, "n_individuals": n, "n_steps": 10,
                "parameters": 1000, "non_embedding": 200, "loss": 2.0 if sure else 0.1, "baseline": 5.0,
                "accuracy": 0.5, "bits": 1000 * bits, "bits_per_parameter": bits,
                "bits_per_non_embedding": 5 * bits,
            })  # fmt: skip
        for condition, p_a in (
            ("control", 1.0),
            ("mixed 0.5", 0.45),
            ("mixed 0.9", 0.9),
            ("A then B", 0.05),
        ):
            until = 800 if condition == "control" or not good else 1000
            for step in (0, 800, 1000):
                rows["contradiction"].append({
                    "seed": seed, "condition": condition, "step": step,
                    "accuracy": 0.95 if sure and step >= until else 0.1,
                })  # fmt: skip
            p_a = p_a if good else 1 - p_a / 2
            rows["groups"].append({
                "seed": seed, "condition": condition, "group": "others", "accuracy": 0.9, "loss": 0.1,
            })  # fmt: skip
            if condition != "control":
                rows["contradicted"].append({
                    "seed": seed, "condition": condition, "step": 1500, "p_a": p_a * sure,
                    "p_b": (1 - p_a) * sure,
                })  # fmt: skip
        for order in equations.ORDERS:
            places = {"one": (known, 0.0), "two": (0.1 if good else 0.9, known)}
            for place, stage in enumerate(order.split(", ")):
                one, two = places.get(stage, (known - 0.3 * (order == "both" and not good), known))
                if order.startswith("two") and stage != "both":
                    # The same with the subsystems' parts exchanged.
                    two, one = places["two" if stage == "one" else "one"]
                rows["order"].append({
                    "seed": seed, "order": order, "step": 1000 * (place + 1), "stage": stage, "one": one,
                    "two": two, "one_loss": 1.0, "two_loss": 1.0,
                })  # fmt: skip
        low = 0.93 if good else 0.2
        models = {
            "base": (0.99, 0.0, 0.0), "first half": (0.5, known, 0.0), "second half": (0.5, 0.0, known),
            "both halves": (0.4, known, known), "average": (0.7, low / 2, low / 2),
            "task vectors x 0.5": (0.7, low / 2, low / 2), "task vectors x 1": (0.4, low, low),
            "switched": (0.99 if good else 0.1, known, known), "adapter, first half": (0.5, known, 0.0),
            "adapter, second half": (0.5, 0.0, known), "adapters added": (0.4, low, low),
            "adapters switched": (0.99, known, known),
        }  # fmt: skip
        for model, (old, first, second) in models.items():
            rows["merge"].append({
                "seed": seed, "model": model, "old": old, "first half": first, "second half": second,
                "new": (first + second) / 2,
            })  # fmt: skip
        for pair, split, alpha in product(
            ("first and second half", "a run with itself"), ("old", "new"), (0.0, 0.5, 1.0)
        ):
            hill = (0.5 if alpha == 0.5 and not good else 0.0) * (sure or pair.startswith("first"))
            rows["line"].append({
                "seed": seed, "pair": pair, "split": split, "alpha": alpha, "attribute_loss": 1 + hill,
                "attribute_accuracy": 0.5,
            })  # fmt: skip
    return {name: pd.DataFrame(of)[list(equations.COLUMNS[name])] for name, of in rows.items()}


def verdicts(tables: dict[str, pd.DataFrame]) -> list[str]:
    return [claim.verdict for claim in equations.claims(tables)]


def test_what_is_claimed_agrees_and_its_contrary_disagrees() -> None:
    agrees = made_up()
    one = agrees["capacity"]["exposures"] == 100
    agrees["capacity"].loc[one, "bits_per_parameter"] = 1.0
    assert verdicts(agrees) == ["agree"] * N
    assert verdicts(made_up(good=False)) == ["disagree"] * N


def test_the_numbers_that_rules_read_are_those_of_the_tables() -> None:
    tables = made_up()
    never = (tables["contradiction"]["condition"] == "mixed 0.5") & (
        tables["contradiction"]["seed"] == 2
    )
    tables["contradiction"].loc[never, "accuracy"] = 0.1
    unlearned = (tables["merge"]["model"] == "first half") & (tables["merge"]["seed"] == 1)
    tables["merge"].loc[unlearned, "first half"] = 0.1
    claims = equations.claims(tables)
    assert all(one.values for claim in claims for one in claim.readings)

    def read(number: int) -> dict[str, list[float]]:
        return {one.group: list(one.values) for one in claims[number - 1].readings}

    most = 1000**0.5 / 16
    assert read(1) == {"": [0.2] * 3}
    assert read(2)[""] == pytest.approx([0.45] * 3)
    assert read(3) == {"width 16": [most] * 3, "width 32": [most] * 3}
    assert read(5)["width 32"] == pytest.approx([1.9 / most] * 3)
    assert read(6)["A in 0.5"] == pytest.approx([0.05] * 3)
    assert read(7) == {"": [0.8, 0.8, 0.0]}, "where it is never, all of the steps are too few"
    assert read(9)["two before one"] == pytest.approx([1 - 0.1 / 0.95] * 3)
    assert read(11)[""] == pytest.approx([0.93 / 0.95] * 2), "both halves have to be learned"
    assert read(13)["old"] == pytest.approx([0.4 - 0.99] * 3)
    assert read(14) == {"old people": [0.0] * 2, "new people": [0.0] * 2}
    assert [one.limit for one in claims[6].readings] == [1 / 1.1]
    hills = equations.claims(made_up(good=False))[13].readings
    assert [one.values for one in hills] == [(0.5,) * 3] * 2


def test_nothing_learned_tells_nothing() -> None:
    # Only the control of the line needs nothing learned.
    assert verdicts(made_up(sure=False)) == ["cannot tell"] * (N - 1) + ["agree"]
    assert verdicts({}) == ["cannot tell"] * N
    assert {claim.measured for claim in equations.claims({})} == {"nothing was measured"}


def test_a_width_that_holds_all_does_not_count() -> None:
    tables = made_up()
    wide = (tables["capacity"]["width"] == 32) & (tables["capacity"]["exposures"] == 1000)
    tables["capacity"].loc[wide, ["loss", "bits_per_parameter"]] = (0.1, 0.9)
    claim = equations.claims(tables)[2]
    assert claim.verdict == "agree"
    assert "it holds 98%" in claim.measured


def test_one_part_alone_has_verdicts_and_figures() -> None:
    tables = {"order": made_up()["order"]}
    assert Counter(verdicts(tables)) == {"agree": 2, "cannot tell": N - 2}
    assert list(equations.figures(tables)) == ["equations-order"]


def test_tables_read_back_say_and_draw_the_same(tables: dict[str, pd.DataFrame]) -> None:
    for given in (made_up(), tables):
        again = read_back(given)
        assert equations.claims(again) == equations.claims(given)
        figures = equations.figures(again)
        assert len(figures) == 10
        assert all("Look" in caption(figure) for figure in figures.values())
    assert equations.figures({}) == {}
    bits = equations.figures(made_up())["equations-capacity"]
    assert {float(y) for trace in bits.data if "GPT-2" in str(trace.name) for y in trace.y} == {
        1.0,
        2.0,
    }
