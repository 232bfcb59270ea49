"""The sections about attention, and the page of the patching study."""

import math
import shutil

import pandas as pd
import pytest

from interp.errors import InterpError
from interp.phases import Phases
from interp.report import SECTIONS, LeftOut, write_report
from interp.report.attention import attention_section, knockout_section, patching_section
from interp.report.glossary import GLOSSARY
from interp.report.patching import write_patching_report
from interp.run import Run

STEPS = [0, 4, 8, 12]
METRICS = [
    "name_to_name", "attribute_to_name", "attribute_to_earlier_names", "attribute_to_any_name",
    "attribute_to_text", "attribute_to_type", "name_sharpness", "attribute_sharpness",
]  # fmt: skip


def store(run: Run, stage: str, **tables: pd.DataFrame) -> None:
    folder = run.results_path / stage
    folder.mkdir(parents=True)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    (folder / "summary.json").write_text("{}")


def curves(references: dict[int, float], seeds=(0,), steps=STEPS) -> pd.DataFrame:
    """Runs patched throughout, whose loss is that of the unpatched run and a constant."""
    return pd.DataFrame(
        [
            {"seed": seed, "reference_step": reference, "start": 0, "layers": "all",
             "heads": "all", "step": step, "metric": "attribute_loss",
             "value": 5 * math.exp(-step / 400) + seed + shift}
            for seed in seeds for reference, shift in ((pd.NA, 0.0), *references.items())
            for step in steps
        ]
    ).astype({"reference_step": "Int64"})  # fmt: skip


@pytest.fixture
def run(short_run, tmp_path) -> Run:
    shutil.copytree(short_run.path, tmp_path / "run")
    return Run.load(tmp_path / "run")


@pytest.fixture
def full(run) -> Run:
    """A run with results of all three stages."""
    heads = [(layer, head) for layer in (0, 1) for head in (0, 1)]
    scores = pd.DataFrame(
        [
            (step, layer, head, metric, 0.5 - abs(step - 4) / -100 + layer / 10, 0.125)
            for step in STEPS for layer, head in heads for metric in METRICS
        ],
        columns=["step", "layer", "head", "metric", "value", "chance"],
    )  # fmt: skip
    roles = pd.DataFrame(
        [
            (step, layer, head, "extraction" if layer else "none", "attribute_to_any_name",
             0.625, 0.125, 0.5)
            for step in STEPS for layer, head in heads
        ],
        columns=["step", "layer", "head", "role", "metric", "value", "chance", "excess"],
    )  # fmt: skip
    costs = pd.DataFrame(
        [
            (step, edge, layer, head, 6.0, 5.0, 1.25 * (edge != "control"))
            for step in (0, 12) for edge in ("attribute_to_name", "control")
            for layer, head in ((pd.NA, pd.NA), (0, pd.NA), (0, 0), (0, 1))
        ],
        columns=["step", "edge", "layer", "head", "loss", "intact", "cost"],
    )  # fmt: skip
    store(run, "attention", scores=scores, roles=roles)
    store(run, "knockout", costs=costs)
    store(run, "patching", curves=curves({0: 0.5, 8: -0.25}))
    return run


def test_sections_leave_themselves_out(run):
    for build in (attention_section, knockout_section, patching_section):
        assert build in SECTIONS
        assert isinstance(build(run), LeftOut)


def test_attention_section(full):
    section = attention_section(full)
    assert list(section.figures) == [
        "attention-to-names", "attention-by-head", "attention-sharpness", "head-roles"
    ]  # fmt: skip
    scores, roles = section.tables
    assert scores.header[:3] == ("score", "layer", "start (step 0)")
    row = {cells[:2]: cells[2:] for cells in scores.rows}[("attribute → name", "1")]
    assert row[0] == "0.640"
    assert row[scores.header.index("lowest (at step)") - 2] == "0.600 (4)"
    assert row[-2:] == ("0.680", "0.125")
    assert roles.rows[2] == ("1.0", "extraction", "attribute → any name", "0.625", "0.125")


def test_a_score_without_queries_is_left_out_of_the_table(full):
    path = full.results_path / "attention" / "scores.csv"
    scores = pd.read_csv(path)
    scores.loc[scores["metric"] == "name_to_name", ["value", "chance"]] = float("nan")
    scores.to_csv(path, index=False)
    section = attention_section(full)
    assert {row[0] for row in section.tables[0].rows} == {
        "attribute → name", "attribute → earlier names", "attribute → type"
    }  # fmt: skip


def test_knockout_section(full):
    section = knockout_section(full)
    assert list(section.figures) == ["knockout-costs", "knockout-by-head"]
    table = section.tables[0]
    assert table.header == ("checkpoint", "intact loss", "attribute → name", "control")
    assert table.rows == [
        ("step 0", "5.000", "+1.250", "+0.000"), ("step 12", "5.000", "+1.250", "+0.000")
    ]  # fmt: skip


def test_patching_section(full):
    section = patching_section(full)
    assert list(section.figures) == ["patching-curves", "patching-by-reference"]
    table = section.tables[0]
    assert [row[0] for row in table.rows] == ["unpatched", "step 0", "step 8"]
    last = 5 * math.exp(-12 / 400)
    assert table.header[-1] == "at step 12"
    assert table.rows[0][-1] == f"{last:.2f}"
    assert table.rows[2][-1] == f"{last - 0.25:.2f} (-0.25)"


def test_the_report_holds_them(full, tmp_path):
    page = write_report(full, tmp_path / "report.html").read_text(encoding="utf-8")
    places = [
        page.index(f'<h2 id="{anchor}"')
        for anchor in ("attributes", "attention", "knockout", "patching", "configuration")
    ]
    assert places == sorted(places)
    for anchor in ("head-roles", "knockout-by-head", "patching-by-reference"):
        assert f'id="{anchor}-plot"' in page
    assert GLOSSARY["attention patching"][:40] in page


STUDY = [0, 100, 200, 250, 300, 450, 600, 1500]
PHASES = Phases(200, 300, 5.6, 0.05)


def test_headline_follows_the_numbers(tmp_path):
    table = curves({0: 0.3, 50: 0.5, 100: 0.7, 250: -0.125, 400: -1.0, 1500: -1.5}, (0, 1), STUDY)
    # The seeds disagree about the plateau's only reference.
    table.loc[(table["reference_step"] == 250) & (table["seed"] == 1), "value"] += 0.25
    path = write_patching_report(table, PHASES, tmp_path / "page.html")
    page = path.read_text(encoding="utf-8")
    assert (
        "change the attribute loss at step 450 (mean of 2 seeds): those of the untrained model "
        "raise it by 0.30 nats; those of the statistics phase raise it by 0.60 nats; for those of "
        "the plateau the seeds disagree (+0.00 nats); those from after the plateau lower it by 1.25 "
        "nats. The best reference is step 1,500 (-1.50 nats)."
    ) in page
    assert 'id="patching-by-reference-plot"' in page
    assert "-0.12 to +0.12" in page
    assert "1 of 2" in page


def test_a_plateau_without_end_compares_at_the_last_step(tmp_path):
    table = curves({0: 0.25, 400: -0.5}, steps=STUDY)
    path = write_patching_report(table, Phases(200, None, 5.6, 0.05), tmp_path / "page.html")
    page = path.read_text(encoding="utf-8")
    assert "at step 1,500 (1 seed): those of the untrained model raise it by 0.25" in page


def test_a_study_without_the_unpatched_run_is_refused(tmp_path):
    table = curves({0: 0.3, 400: -1.0}, steps=STUDY)
    with pytest.raises(InterpError, match="unpatched run and a run patched"):
        write_patching_report(table[table["reference_step"].notna()], PHASES, tmp_path / "p.html")
    assert not (tmp_path / "p.html").exists()
