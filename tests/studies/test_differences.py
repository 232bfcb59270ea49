"""The study of training on differences: its runs, measures, claims and figures."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.asking import answers
from interp.charts.style import caption
from interp.errors import ConfigError
from interp.plots.differences import costs, learning_curves
from interp.run import Run
from interp.studies import differences
from interp.studies.differences_claims import STATEMENTS
from interp.training.costs import training_costs
from tests.helpers import read_back

SETTINGS = differences.DifferencesSettings(
    preset="smoke", seeds=(0,), n_steps=4, tuning_steps=2, every=2
)
N = len(STATEMENTS)


def test_runs_of_the_study() -> None:
    plans = differences.planned(differences.DifferencesSettings())
    assert f"{len(plans)} runs" in differences.STUDY.duration
    identities = [str(plan.config.identity()) for plan in plans]
    assert len(set(identities)) == len(plans)
    tuned = [plan for plan in plans if plan.base is not None]
    assert len(tuned) == 36
    assert {str(plan.base.config.identity()) for plan in tuned if plan.base} < set(identities)
    assert {plan.config.data.contradictions.share_of_biographies for plan in plans} == {None, 0.75}
    by_kind = {(p.config.selection.kind, p.config.selection.k, p.config.selection.contrast)
               for p in plans}  # fmt: skip
    assert len(by_kind) == len(differences.CONDITIONS)
    for plan in tuned:
        stages = plan.config.data.stages or ()
        assert [stage.weights for stage in stages] == ["adapter"] * plan.config.adapter.on
        assert plan.config.optimizer.learning_rate == (3e-3 if plan.config.adapter.on else 3e-4)


def test_what_varies_cannot_be_fixed() -> None:
    with pytest.raises(ConfigError, match="selection"):
        differences.DifferencesSettings(run={"selection.kind": "wrong_values"})
    with pytest.raises(ConfigError, match="conditions"):
        differences.DifferencesSettings(conditions=())


def test_tables_of_runs(trained: Callable[..., Run]) -> None:
    base = trained(SETTINGS.trained(0, "uniform", "plain"))
    noisy = trained(SETTINGS.trained(0, "contradictory", "largest loss of 4"))
    plan = SETTINGS.tuned(0, 4, "wrong values", 0.25).config
    tuned = trained(plan.with_settings(**{"finetuning.base": str(base.path)}))
    tables = differences.tables(SETTINGS, [base, noisy, tuned])
    assert {name: tuple(table) for name, table in tables.items()} == differences.COLUMNS
    own = tables["curves"].query("data == 'contradictory'")
    assert set(own["condition"]) == {"largest loss of 4"}
    assert own["examples"].tolist() == [0, 16, 32]
    assert own["arithmetic"].tolist() == training_costs(noisy)["arithmetic"].tolist()
    groups = tables["groups"].set_index(["data", "group"])
    asked = answers(noisy.model(), noisy.corpus, "biography").merge(
        noisy.corpus.contradictions.table(noisy.population),
        on=["individual", "attribute"],  # type: ignore[union-attr]
    )
    assert len(asked) == 12
    told = groups.loc[("contradictory", "contradicted")]
    assert told["accuracy"] == pytest.approx(asked["right"].mean(), abs=1e-4)
    assert told["p_a"] == pytest.approx(np.exp(-asked["loss"]).mean(), abs=1e-4)
    assert np.isnan(groups.loc[("uniform", "all"), "p_a"])
    (row,) = tables["tuned"].query("step == 2").to_dict("records")
    assert (row["weights"], row["told"], row["replay_weight"]) == ("rank 4", "wrong values", 0.25)
    new = tuned.curve("attribute_accuracy", split="finetuned")
    assert row["new"] == pytest.approx(new.loc[2], abs=1e-4)


def test_rare_people_are_the_second_half(trained: Callable[..., Run]) -> None:
    run = trained(SETTINGS.trained(0, "uneven", "plain"))
    table = differences.groups(run).set_index("group")
    found = answers(run.model(), run.corpus, "biography").query("individual >= 12")
    assert table.loc["rare half", "loss"] == pytest.approx(found["loss"].mean(), rel=1e-6)
    assert (differences.described(run)["data"], len(table)) == ("uneven", 2)


Until = dict[tuple[str, str], float | None]
UNTIL: Until = {
    ("uniform", "plain"): 600,
    ("uniform", "random of 4"): 600,
    ("uniform", "largest loss of 2"): 200,
    ("uniform", "largest loss of 4"): 40,
    ("uniform", "smallest loss of 4"): None,
    ("uniform", "wrong values"): 600,
    ("uniform", "contrast"): 400,
    ("uneven", "plain"): None,
    ("uneven", "largest loss of 4"): 40,
    ("contradictory", "plain"): 600,
    ("contradictory", "largest loss of 4"): 600,
}
"""Steps until 90% and 99% are known, with which everything but the cost in arithmetic agrees."""
ENDS = {"adapter": (0.97, 0.95), "all weights": (0.5, 0.98)}
"""Old and new people known at the end of fine-tuning on wrong values."""


def made_up(
    until: Until, ends: dict[str, tuple[float, float]] = ENDS, contradicted: float = 0.6
) -> dict[str, pd.DataFrame]:
    """Tables of three seeds with these steps until most is known."""
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in differences.COLUMNS}
    for seed, ((data, condition), step) in product((0, 1, 2), until.items()):
        apart = {"seed": seed, "data": data, "condition": condition}
        k = int(condition.split()[-1]) if "largest" in condition else 0

        def cost(
            at: float | None, k: int = k, wrong: bool = "wrong" in condition
        ) -> dict[str, Any]:
            if at is None:
                return dict.fromkeys(("step", "examples", "values", "arithmetic"))
            return {"step": at, "examples": 32 * at, "values": (96 if wrong else 192) * at,
                    "arithmetic": (k + 3) * 2500 * at}  # fmt: skip

        for at in (0, step or 500, 1000):
            known = 0.0 if step is None or at < step else 0.99
            tables["curves"].append(apart | cost(at) | {"accuracy": known})
        tables["costs"] += [apart | {"share": share} | cost(step) for share in (0.9, 0.99)]
        names = {"uneven": ("common half", "rare half"),
                 "contradictory": ("contradicted", "other values")}.get(data, ("all",))  # fmt: skip
        for group in names:
            low = group == "contradicted" and condition != "plain"
            found = {"group": group, "accuracy": contradicted if low else 0.9, "loss": 0.1}
            tables["groups"].append(apart | found | {"p_a": None, "p_b": None})
    ways = product((0, 1, 2), ("all weights", "rank 4", "rank 16"), (False, True), (None, 0.25))
    for seed, weights, wrong, replay in ways:
        old, new = ends["all weights" if weights == "all weights" else "adapter"]
        tuned = {"seed": seed, "weights": weights, "told": "wrong values" if wrong else "everything",
                 "replay_weight": replay}  # fmt: skip
        for at, values in ((0, (0.99, 0.0)), (400, (old if wrong else 0.3, new))):
            counts = {"examples": 32 * at, "values": 192 * at, "arithmetic": 7500 * at}
            tables["tuned"].append(
                tuned | {"step": at, "old": values[0], "new": values[1]} | counts
            )
    return {name: pd.DataFrame(rows) for name, rows in tables.items()}


def verdicts(tables: dict[str, pd.DataFrame]) -> list[str]:
    return [claim.verdict for claim in differences.claims(tables)]


def test_what_is_claimed_agrees() -> None:
    found = verdicts(made_up(UNTIL))
    # A saving of 15 times at 7/3 of the arithmetic saves arithmetic, too.
    assert found == ["agree", "disagree"] + ["agree"] * (N - 2)
    dearer = made_up(UNTIL | {("uniform", "largest loss of 4"): 400,
                              ("uniform", "largest loss of 2"): None})  # fmt: skip
    claim = differences.claims(dearer)[1]
    assert claim.verdict == "agree"
    assert "a saving in examples that costs more arithmetic" in claim.measured
    assert "largest loss of 2: not known in every seed" in claim.measured


CONTRARY: Until = {
    ("uniform", "plain"): 600,
    ("uniform", "random of 4"): 400,
    ("uniform", "largest loss of 4"): 580,
    ("uniform", "smallest loss of 4"): 400,
    ("uniform", "wrong values"): 800,
    ("uniform", "contrast"): None,
    ("uneven", "plain"): 600,
    ("uneven", "largest loss of 4"): 600,
    ("contradictory", "plain"): 600,
    ("contradictory", "largest loss of 4"): 300,
}


def test_the_numbers_that_rules_read_are_those_of_the_tables() -> None:
    claims = differences.claims(made_up(UNTIL))
    plain = UNTIL["uniform", "plain"]
    assert plain is not None
    best = plain / min(UNTIL["uniform", f"largest loss of {k}"] or 1e9 for k in (2, 4))
    assert f"{best:.2f}, 95% interval" in claims[0].power
    assert "held against 10.00" in claims[0].power
    faster = plain / (UNTIL["uniform", "contrast"] or 1e9)
    assert f"times fewer examples: {faster:.2f}, 95% interval" in claims[7].power
    without = [n for n, claim in enumerate(claims) if not claim.power]
    assert without == [4], (
        "where plain training never gets there, its cost is a bound and no number"
    )

    def read(number: int) -> list[tuple[str, float]]:
        return [(one.group, one.values[0]) for one in claims[number - 1].readings]

    assert read(4) == [("", 0.0)], "the smallest loss never gets there"
    assert read(6) == [("", pytest.approx(0.9 - 0.6))]
    # Wrong values are half of all, in as many steps.
    assert [(one.what, one.values[0]) for one in claims[8].readings] == [
        ("times fewer values", 2.0), ("times fewer steps", 1.0),
    ]  # fmt: skip
    assert read(10) == [
        ("rank 4", 0.95), ("rank 16", 0.95),
        ("rank 4", pytest.approx(0.97 / 0.99)), ("rank 16", pytest.approx(0.97 / 0.99)),
    ]  # fmt: skip
    (smallest,) = differences.claims(made_up(CONTRARY))[3].readings
    assert smallest.values == (1.0, 1.0, 1.0)
    assert smallest.limit == pytest.approx(1 / 1.1)


def test_the_contrary_disagrees() -> None:
    tables = made_up(CONTRARY, {"adapter": (0.1, 0.95), "all weights": (0.2, 0.95)}, 0.9)
    found = verdicts(tables)
    # So small a saving in examples has no cost to ask for.
    assert found == ["disagree", "cannot tell"] + ["disagree"] * (N - 2)


def test_nothing_known_tells_nothing() -> None:
    nothing = made_up(dict.fromkeys(UNTIL), {"adapter": (0.9, 0.1), "all weights": (0.9, 0.1)})
    nothing["groups"]["accuracy"] = 0.1
    nothing["tuned"].loc[nothing["tuned"]["step"] == 0, "old"] = 0.1
    assert set(verdicts(nothing)) == {"cannot tell"}
    assert verdicts({}) == ["cannot tell"] * N
    assert {claim.measured for claim in differences.claims({})} == {"nothing was measured"}


def test_with_uneven_data_never_is_a_bound() -> None:
    """Plain training that never gets there may have saved more: no disagreement."""
    late: Until = {("uneven", "plain"): None, ("uneven", "largest loss of 4"): 900}
    assert verdicts(made_up(UNTIL | late))[4] == "cannot tell"
    assert verdicts(made_up(UNTIL | {("uneven", "largest loss of 4"): None}))[4] == "cannot tell"


def test_tables_read_back_say_and_draw_the_same() -> None:
    tables = made_up(UNTIL)
    again = read_back(tables)
    assert differences.claims(again) == differences.claims(tables)
    figures = differences.figures(again)
    assert len(figures) == 6
    assert all("Look" in caption(figure) for figure in figures.values())
    ratios = {point for trace in figures["differences-costs"].data if "plain" not in trace.name
              for point in trace.x or ()}  # fmt: skip
    assert min(ratios) == pytest.approx(40 / 600)
    never = costs(made_up(dict.fromkeys(UNTIL))["costs"])
    assert "No plain run" in caption(never)
    assert "No plain run" in caption(
        learning_curves(tables["curves"].query("condition != 'plain'"))
    )
    assert differences.figures({}) == {}
