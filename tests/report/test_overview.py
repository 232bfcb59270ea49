"""The sentences of the overview: they say what the tables say, also when that is unexpected."""

import shutil

import pandas as pd
import pytest

from interp.phases import Phases
from interp.report import Table, write_report
from interp.report.attention import knockout_section, patching_section
from interp.report.memory import memory_section
from interp.report.overview import (
    attention_sentence,
    emergence_sentence,
    fact_sentence,
    knockout_sentence,
    memory_sentence,
    patching_sentence,
    phases_sentence,
    swap_sentence,
)
from interp.run import Run


@pytest.mark.parametrize(
    ("phases", "says"),
    [
        (Phases(200, 300, 5.6, 0.05), "stays within 5% of it for 100 steps, and falls below it"),
        (Phases(200, 200, 5.6, 0.05), "there is no plateau at δ = 0.05"),
        (Phases(200, None, 5.6, 0.05), "at step 200 and has not left it by step 1,500"),
        (Phases(None, None, 5.6, 0.05), "By step 1,500 the attribute loss has not come down"),
    ],
)
def test_phases(phases, says):
    assert says in phases_sentence(phases, 1500)


@pytest.mark.parametrize(
    ("curve", "says"),
    [
        (
            (0.3, 0.1, 0.5),
            "first falls from 0.30 to 0.10 at step 10, then rises to 0.50 at step 20",
        ),
        ((0.3, 0.1, 0.105), "first falls from 0.30 to 0.10 at step 10, and ends at 0.10"),
        ((0.1, 0.3, 0.5), "rises from 0.10 at step 0 to 0.50 at step 20 without falling first"),
        ((0.5, 0.3, 0.1), "falls from 0.50 at step 0 to 0.10 at step 20."),
        ((0.1, 0.1, 0.1), "stays from 0.10 at step 0 to 0.10 at step 20."),
    ],
)
def test_attention(curve, says):
    # Two heads around the curve in layer 1; layer 0 ends with less.
    scores = pd.DataFrame(
        [
            (step, layer, head, "attribute_to_name", value + shift - (1 - layer) / 20)
            for step, value in zip((0, 10, 20), curve, strict=True)
            for layer in (0, 1) for head, shift in ((0, -0.01), (1, 0.01))
        ],
        columns=["step", "layer", "head", "metric", "value"],
    )  # fmt: skip
    found = attention_sentence(scores)
    assert "(layer 1, mean over heads)" in found
    assert says in found


def test_knockout():
    costs = pd.DataFrame(
        [
            (10, "attribute_to_name", pd.NA, 9.0), (20, "attribute_to_name", pd.NA, 0.5),
            (20, "name_to_name", pd.NA, 0.75), (20, "name_to_name", 0, 3.0), (20, "control", pd.NA, 1.0),
        ],
        columns=["step", "edge", "layer", "cost"],
    )  # fmt: skip
    found = knockout_sentence(costs)
    # The control costs more here, and the sentence does not hide it.
    assert "At step 20" in found
    assert "name → name costs most: the attribute loss changes by +0.75 nats" in found
    assert "as many other tokens changes it by +1.00 nats" in found
    assert "other tokens" not in knockout_sentence(costs[costs["edge"] != "control"])


def test_memory():
    values = pd.DataFrame(
        [
            (20, 0, "middle name", "direct", 0.5, 0.5), (20, 0, "middle name", "attention", 0.9, 0.4),
            (20, 1, "predicts value", "direct", 0.99, 0.5), (10, 1, "last name", "direct", 1.0, 0.5),
        ],
        columns=["step", "layer", "position", "path", "value", "control"],
    ).assign(metric="layer_agreement", attribute="all")  # fmt: skip
    assert memory_sentence(values) == (
        "At step 20, MLP 0 at the middle name, read through attention, ranks the person's own value "
        "above 90% of the attribute's values (40% with facts shuffled among people) and MLP 1 where a "
        "value is predicted above 99% of the attribute's values (50%)."
    )


def test_swaps():
    swaps = pd.DataFrame(
        [
            (20, "mlp_out", 0, "every name", "any", 0.625, 0.01),
            (20, "mlp_out", 1, "last name", "any", 0.5, 0.0),
            (20, "mlp_out", 1, "predicts value", "any", 0.9, 0.0),
            (20, "resid_mid", 1, "every name", "any", 1.0, 0.0),
            (20, "mlp_out", 0, "last name", "first", 1.0, 0.0),
            (10, "mlp_out", 0, "every name", "any", 1.0, 0.0),
        ],
        columns=["step", "site", "layer", "position", "sentences", "follows", "control"],
    ).assign(n=96)  # fmt: skip
    found = swap_sentence(swaps)
    assert "swapping the output of MLP 0 at every name" in found
    assert "62% of 96 predictions follow" in found
    assert "(the same swap at text: 1%)" in found


def test_emergence():
    dates = {
        "extraction attention": 265.0, "MLP share at names": 240.0,
        "key-value agreement at names": 302.0, "MLP swap at names": None, "knowledge": 533.0,
    }  # fmt: skip
    steps = pd.DataFrame(
        [(name, 0, date, "plateau") for name, date in dates.items()],
        columns=["mechanism", "seed", "step", "phase"],
    )
    found = emergence_sentence(steps)
    assert "at step 265, before 1 of 3 measures" in found
    assert "MLP swap at names: absent" in found
    faint = steps.assign(step=steps["step"].where(steps["mechanism"] != "extraction attention"))
    assert "stays faint in this run" in emergence_sentence(faint)


def test_patching():
    table = pd.DataFrame(
        [
            (reference, step, 5.0 + shift)
            for reference, shift in ((pd.NA, 0.0), (0, -0.25), (250, 1.0), (1500, 0.5))
            for step in (0, 300, 450, 600)
        ],
        columns=["reference_step", "step", "value"],
    ).assign(seed=0, start=0, layers="all", heads="all", metric="attribute_loss")
    table = table.astype({"reference_step": "Int64"})
    found = patching_sentence(table, Phases(200, 300, 5.6, 0.05))
    assert "loss at step 450: that of step 0 (the untrained model) by -0.25 nats" in found
    assert "that of step 250 (plateau) by +1.00 nats, the worst" in found


def test_fact():
    header = ("fact", "step", "probability", "rank", "logit difference", "heads", "MLPs",
              "from first name", "from last name", "strongest head")  # fmt: skip
    rows = [
        ("major: Law", "10 (end of plateau)", "0.100", "9", "+1.00", "+9.00", "-8.00", "+0.10", "+0.20", ""),
        ("major: Law", "20 (last)", "0.990", "1", "+9.00", "+1.00", "+8.00", "-0.10", "+0.90", ""),
        ("company: A", "20 (last)", "0.500", "1", "+5.00", "+1.00", "+4.00", "+0.10", "+0.20", ""),
    ]  # fmt: skip
    found = fact_sentence(Table("Facts of Ada B. Probability of.", header, rows))
    assert found.startswith("Ada B, major Law: at step 20 the model gives it 99%")
    assert "heads add +1.00 and MLPs +8.00" in found
    assert "most from last name (+0.90)" in found


@pytest.fixture
def run(short_run, tmp_path) -> Run:
    shutil.copytree(short_run.path, tmp_path / "run")
    return Run.load(tmp_path / "run")


def test_missing_stages_are_left_out_with_their_command(run):
    built = [build(run) for build in (knockout_section, memory_section, patching_section)]
    assert [one.title for one in built] == [
        "Attention knockout", "MLPs as a memory", "Attention patching"
    ]  # fmt: skip
    assert [one.commands for one in built] == [
        ["interp reproduce PRESET --out RUN"], ["interp memory RUN"], ["interp reproduce PRESET --out RUN"]
    ]  # fmt: skip
    (run.results_path / "patching").mkdir(parents=True)
    (run.results_path / "patching" / "summary.json").write_text("{}")
    again = patching_section(run)
    assert "nothing to show" in again.why
    assert not again.commands


def test_the_page_says_in_one_place_what_is_left_out(run, tmp_path):
    page = write_report(run, tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count("Left out: ") == 1
    for title in ("Attention knockout", "MLPs as a memory", "Single facts"):
        assert title in page.split("Left out: ")[1].split("</details>")[0]


def test_a_run_in_training_names_no_command(run):
    run.finished_path.unlink()
    found = memory_section(run)
    assert not found.commands
    assert "training has not ended" in found.why
