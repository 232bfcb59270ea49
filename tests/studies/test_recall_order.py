"""The study of what forms first: its runs, measures, doses, figures and rules."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch

import interp
from interp.charts.style import caption
from interp.compiled import CompiledRecall, compile_recall
from interp.engine.store import address_of
from interp.errors import ConfigError
from interp.memory.emergence import half_strength_step
from interp.model import measuring
from interp.model.forward import logits_at
from interp.run import Run
from interp.studies import recall_order as study
from interp.studies.recall_order_claims import PAIRS
from interp.studies.recall_order_doses import (
    ENOUGH,
    corrections,
    dose_table,
    full_dose,
    reached,
    with_dose,
)
from interp.studies.recall_order_measured import (
    PARTS,
    Read,
    first_tokens,
    known_with,
    looking_as,
    recalling,
)
from interp.trust.circuit import recalling_heads
from tests.helpers import read_back


def test_runs_of_the_study() -> None:
    assert f"{len(study.planned(study.RecallOrderSettings()))} runs" in study.STUDY.duration
    tiny, small = study.RecallOrderSettings(), study.RecallOrderSettings(preset="small")
    plans = [*study.planned(tiny), *study.planned(small)]
    assert len({address_of(plan.config) for plan in plans}) == len(plans) == 20
    early = plans[0].config.training.early_checkpoints
    assert early == tuple(s for s in tiny.checkpoints if s < 1500)
    assert plans[-1].config.population.n_individuals == 2048
    assert plans[-1].config.training.early_checkpoints == small.checkpoints
    alone = study.RecallOrderSettings(run={"training.precision": "fp32"})
    assert {plan.config.training.precision for plan in study.planned(alone)} == {"fp32"}
    with pytest.raises(ConfigError, match="checkpoint_every"):
        study.RecallOrderSettings(run={"training.checkpoint_every": 5})


def test_half_strength_at_another_share() -> None:
    steps, strengths = [0, 100, 200], [0.0, 0.5, 1.0]
    assert half_strength_step(steps, strengths) == 100
    assert half_strength_step(steps, strengths, share=0.75) == 150
    assert half_strength_step([0, 100], [1.0, 1.0], share=0.9) == 0
    nan = float("nan")
    assert np.isnan(reached([0, 100, 200], [nan, 0.9, 1.0])), "reached nobody knows when"
    assert reached([0, 100, 200], [nan, 0.0, 1.0]) == 150
    assert reached([0, 100, 200], [0.9, 0.9, 1.0]) == 0


def test_what_was_at_half_before_it_was_known_has_no_date() -> None:
    curve = {"share through MLP": {20: 0.9, 30: 1.0}, "memory alone": {0: 0.0, 20: 0.5, 30: 1.0}}
    rows = [(name, step, value) for name, own in curve.items() for step, value in own.items()]
    table = pd.DataFrame(rows, columns=["measure", "step", "strength"])
    none = pd.DataFrame(columns=list(study.COLUMNS["corrections"]))
    found = study.dates(table, none).set_index("measure")
    assert np.isnan(found["step"]["share through MLP"])
    assert found["step"]["memory alone"] == 20


@pytest.fixture(scope="module")
def compiled() -> CompiledRecall:
    return compile_recall(interp.preset("smoke"))


@pytest.fixture(scope="module")
def read(compiled: CompiledRecall) -> Read:
    return Read.of(compiled.corpus, 12, 12)


def test_what_recalls_is_found_by_swaps(compiled: CompiledRecall, read: Read) -> None:
    heads = recalling(compiled.model, read)
    assert heads.groupby("attribute")["weight"].sum().to_numpy() == pytest.approx(1)
    best = heads.loc[heads.groupby("attribute")["weight"].idxmax()].set_index("attribute")
    assert (best["weight"] > 0.95).all()
    found = {name: (row["layer"], row["head"]) for name, row in best.iterrows()}
    assert found == recalling_heads(compiled)


def test_a_model_that_looks_as_itself_is_unchanged(compiled: CompiledRecall, read: Read) -> None:
    model, texts = compiled.model, read.biographies
    where = first_tokens(texts)
    rows = torch.zeros(texts.tokens.shape, dtype=torch.bool)
    rows[where.row, where.position] = True
    with measuring(model):
        own = logits_at(model, texts.tokens, where.row, where.position)
        with looking_as(model, model, texts, rows):
            same = logits_at(model, texts.tokens, where.row, where.position)
    torch.testing.assert_close(own, same, atol=1e-4, rtol=1e-4)
    known = known_with(model, model, read)
    assert known["accuracy"] == 1.0
    assert known["gain"] == pytest.approx(read.baseline, abs=1e-3)


def test_a_dose_of_attention_is_a_share_of_its_way(compiled: CompiledRecall, read: Read) -> None:
    before = {name: w.clone() for name, w in compiled.model.state_dict().items()}
    shares = [
        _share_to_names(compiled, with_dose(compiled, "attention", dose, read), read)
        for dose in (0.0, 0.5, 1.0)
    ]
    assert shares[1] == pytest.approx((shares[0] + shares[2]) / 2, abs=0.01)
    assert shares[2] > 0.99
    after = compiled.model.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())


def _share_to_names(compiled: CompiledRecall, model: torch.nn.Module, read: Read) -> float:
    texts = read.biographies
    where = first_tokens(texts)
    recalls = recalling_heads(compiled)
    _, cache = model.run_with_cache(texts.tokens)  # type: ignore[operator]
    found = []
    for row, position, asked in zip(where.row, where.position, where.attribute, strict=True):
        layer, head = recalls[compiled.corpus.attributes[int(asked)]]
        pattern = cache["pattern", layer][row, head, position]
        found.append(float(pattern[texts.name_end[row, asked]]))
    return float(np.mean(found))


@pytest.fixture(scope="module")
def doses() -> pd.DataFrame:
    return dose_table(
        interp.preset("smoke"), "local", (0.5, 1.0), 12, dosed=("attention", "memory")
    )


def test_what_one_part_can_do_does_not_depend_on_the_other(doses: pd.DataFrame) -> None:
    wide = doses.pivot_table("strength", ["dosed", "measure"], "dose")
    for dosed, other in (("attention", "memory alone"), ("memory", "attention alone")):
        assert wide.loc[(dosed, other), 0.5] == pytest.approx(wide.loc[(dosed, other), 1.0])
    half = wide[0.5] / wide[1.0]
    assert 0.2 < half["memory", "memory alone"] < 0.9
    # Shares and followed swaps are all there at half a memory.
    assert half["memory", "share through MLP"] == pytest.approx(1, abs=0.05)
    assert half["memory", "answers follow MLP"] == 1
    found = corrections(doses).set_index("measure")
    assert list(found.index) == list(dict.fromkeys(doses["measure"]))
    assert set(found.index) == set(PARTS)
    assert found["usable"]["memory alone"]
    assert not found["usable"]["values promoted"]
    assert not found["usable"]["attention to names"]


def test_the_full_dose_brings_enough(compiled: CompiledRecall, read: Read) -> None:
    scale = full_dose(compiled, read)
    assert 0 < scale < 0.6
    model = with_dose(compiled, "memory", scale, read)
    gain = known_with(model, model, read)["gain"]
    assert gain == pytest.approx(ENOUGH * read.baseline, rel=0.01)


def test_tables_and_figures(
    doses: pd.DataFrame, trained: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = doses.assign(variant="local", seed=0)[list(study.COLUMNS["doses"])]
    monkeypatch.setattr(study, "_doses", lambda settings: iter([given]))
    settings = study.RecallOrderSettings(
        preset="smoke", seeds=(0,), n_people=8, n_pairs=12, checkpoints=(0, 4),
        run={"training.n_steps": 8},
    )  # fmt: skip
    runs = [trained(plan.config) for plan in study.planned(settings)]
    tables = study.tables(settings, runs)
    assert {name: tuple(table) for name, table in tables.items()} == study.COLUMNS
    strengths = tables["strengths"]
    assert set(strengths["measure"]) <= set(PARTS)
    assert set(strengths.loc[strengths["measure"] == "memory alone", "step"]) == {0, 4, 8}
    assert set(strengths["size"]) == {"smoke"}
    last = strengths[strengths["step"] == 8].set_index("measure")["strength"]
    # At the last step both are the model itself.
    assert last["attention alone, right"] == last["memory alone, right"]
    figures = study.figures(read_back(tables))
    assert "recall-order-doses" in figures
    assert all("Look" in caption(figure) for figure in figures.values())
    assert study.figures({}) == {}


def made_up(later: float, usable: bool = True) -> pd.DataFrame:
    """Dates of six seeds: all of attention at step 100, all of the memory so much later."""
    rows = []
    for seed in range(6):
        for measure, part in PARTS.items():
            step = 100.0 + seed + (later + seed % 2 if part == "memory" else 0)
            corrected = step if usable else float("nan")
            rows.append(("tiny", seed, measure, part, step, corrected, 0.0, 1.0))
    return pd.DataFrame(rows, columns=list(study.COLUMNS["dates"]))


@pytest.mark.parametrize(
    ("later", "verdict"), [(50, "agree"), (-50, "disagree"), (-0.5, "cannot tell")]
)
def test_rules_decide(later: float, verdict: str) -> None:
    found = study.claims(read_back({"dates": made_up(later)}))
    assert [claim.verdict for claim in found] == [verdict] * len(PAIRS) + ["cannot tell"]
    assert all(("would" in c.power) == (verdict == "cannot tell") for c in found[:-1])
    assert all("95% interval" in claim.power for claim in found[:-1])
    assert {one.values for claim in found for one in claim.readings} == {(later, later + 1) * 3}, (
        "an odd seed's memory is a step later"
    )
    without = study.claims({"dates": made_up(later, usable=False)})
    assert [c.verdict for c in without[-3:-1]] == ["cannot tell", "cannot tell"]


@pytest.mark.parametrize(("dose", "verdict"), [(0.05, "disagree"), (0.6, "agree")])
def test_the_rule_about_strength_decides(dose: float, verdict: str) -> None:
    rows = [
        ("local", seed, "memory", at, measure, 0.0 if at < dose else 1.0)
        for seed in (0, 1)
        for measure in PARTS
        for at in (0.0, 0.05, 0.5, 0.6, 1.0)
    ]
    table = pd.DataFrame(rows, columns=list(study.COLUMNS["doses"]))
    (claim,) = study.claims({"doses": table})
    assert claim.verdict == verdict
    # Half of the strength is between 0.05 and none, or between 0.6 and 0.5.
    half = {0.05: 0.025, 0.6: 0.55}[dose]
    assert [(one.group, one.limit) for one in claim.readings] == [
        (name, 0.25)
        for name in (
            "share through attention", "share through MLP", "answers follow attention", "answers follow MLP",
        )
    ]  # fmt: skip
    assert all(one.values == pytest.approx((half, half)) for one in claim.readings)
