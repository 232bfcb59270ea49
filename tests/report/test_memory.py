"""The sections about the memory of the MLPs."""

import shutil

import numpy as np
import pandas as pd
import pytest

from interp.phases import Phases
from interp.report import SECTIONS, LeftOut, write_report
from interp.report.glossary import GLOSSARY
from interp.report.memory import emergence_section, memory_section, swap_section, turning_points
from interp.run import Run

STEPS = [0, 4, 8, 12]
POSITIONS = ("last name", "predicts value")
RESIDUAL = [(site, la) for la in (0, 1) for site in ("resid_pre", "resid_mid", "resid_post")]


def store(run: Run, stage: str, **tables: pd.DataFrame) -> None:
    folder = run.results_path / stage
    folder.mkdir(parents=True)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    (folder / "summary.json").write_text("{}")


@pytest.fixture
def run(short_run, tmp_path) -> Run:
    shutil.copytree(short_run.path, tmp_path / "run")
    return Run.load(tmp_path / "run")


@pytest.fixture
def full(run) -> Run:
    """A run with results of all three stages; every number grows with the step."""
    keys = pd.DataFrame(
        [
            (step, la, position, split, metric, step / 16 + la / 4, 0.125)
            for step in STEPS for la in (0, 1) for position in POSITIONS
            for split in ("evaluation", "held_out")
            for metric in ("selectivity", "similarity_same", "similarity_other")
        ],
        columns=["step", "layer", "position", "split", "metric", "value", "control"],
    )  # fmt: skip
    values = pd.DataFrame(
        [
            (step, la, position, path, metric, "all", step / 32 + la / 4, 0.5)
            for step in STEPS for la in (0, 1) for position in POSITIONS
            for path in ("direct", "attention")
            for metric in ("value_share", "agreement", "layer_agreement") if not (la and path != "direct")
        ],
        columns=["step", "layer", "position", "path", "metric", "attribute", "value", "control"],
    )  # fmt: skip
    probes = pd.DataFrame(
        [
            (step, site, la, position, attribute, *(step / 16, 0.0625, step / 16 - 0.0625) * 2)
            for step in STEPS for site, la in RESIDUAL for position in POSITIONS
            for attribute in ("all", "major")
        ],
        columns=["step", "site", "layer", "position", "attribute", "accuracy", "control",
                 "selectivity", "accuracy_other_people", "control_other_people",
                 "selectivity_other_people"],
    )  # fmt: skip
    swaps = pd.DataFrame(
        [
            (step, site, la, position, told, 8, step / 16 + (site == "mlp_out") / 8 - la / 16,
             0.5, 0.03125)
            for step in STEPS for site in ("resid_post", "mlp_out") for la in (0, 1)
            for position, told in (("last name", "first"), ("last name", "any"),
                                   ("predicts value", "any"))
        ],
        columns=["step", "site", "layer", "position", "sentences", "n", "follows", "kept",
                 "control"],
    )  # fmt: skip
    ablations = pd.DataFrame(
        [
            (step, la, position, 5.0, 4.0, step / 4 + (0 if pd.isna(la) else la))
            for step in STEPS for la in (pd.NA, 0, 1) for position in ("name", "control")
        ],
        columns=["step", "layer", "position", "loss", "intact", "cost"],
    )  # fmt: skip
    strengths = pd.DataFrame(
        [
            (mechanism, step, step / 8, 0.0, step / 8 if mechanism != "knowledge" else 0.0)
            for mechanism in ("knowledge", "MLP swap at names", "extraction attention")
            for step in STEPS
        ],
        columns=["mechanism", "step", "value", "control", "strength"],
    )  # fmt: skip
    steps = pd.DataFrame(
        [
            ("knowledge", 0, np.nan, 0.0, 0.0, None),
            ("MLP swap at names", 0, 9.0, 0.0, 1.5, "plateau"),
            ("extraction attention", 0, 6.0, 0.0, 1.5, "statistics"),
        ],
        columns=["mechanism", "seed", "step", "start", "final", "phase"],
    )
    store(run, "memory", keys=keys, values=values, probes=probes)
    store(run, "interventions", swaps=swaps, ablations=ablations)
    store(run, "emergence", strengths=strengths, steps=steps)
    return run


def test_sections_leave_themselves_out(run):
    for build in (memory_section, swap_section, emergence_section):
        assert build in SECTIONS
        assert isinstance(build(run), LeftOut)


def test_memory_section(full):
    section = memory_section(full)
    assert list(section.figures) == [
        "key-value-agreement", "promoted-values", "key-selectivity", "key-similarity",
        "probe-curves", "probe-sites",
    ]  # fmt: skip
    table = section.tables[0]
    assert table.header[3] == "start (step 0)"
    assert table.header[-1] == "last (step 12)"
    rows = {cells[:3]: cells[3:] for cells in table.rows}
    assert len(rows) == len(table.rows)
    selective = rows["key selectivity, held-out people", "layer 1", "predicts value"]
    assert (selective[0], selective[-1]) == ("0.250 (0.125)", "1.000 (0.125)")
    assert rows["promoted values, direct path", "layer 1", ""][-1] == "0.625 (0.500)"
    agree = "key-value agreement, through attention"
    assert rows[agree, "layer 0", "last name"][-1] == "0.375 (0.500)"
    assert (agree, "layer 1", "last name") not in rows
    assert rows["probe accuracy", "after MLP 1", "last name"][-1] == "0.750 (0.062)"
    assert ("probe accuracy", "before layer 1", "last name") not in rows


def test_a_part_of_the_stage_is_shown(full):
    for name in ("keys", "values"):
        (full.results_path / "memory" / f"{name}.csv").unlink()
    section = memory_section(full)
    assert list(section.figures) == ["probe-curves", "probe-sites"]
    assert {row[0] for row in section.tables[0].rows} == {
        "probe accuracy", "probe accuracy, other people"
    }  # fmt: skip


def test_swap_section(full):
    section = swap_section(full)
    assert list(section.figures) == ["swap-success", "swap-sites", "mlp-ablation"]
    swaps, ablations = section.tables
    # The site that most predictions follow at the last step.
    assert [row[:3] for row in swaps.rows] == [
        ("last name", "first", "output of MLP 0"), ("predicts value", "any", "output of MLP 0")
    ]  # fmt: skip
    assert swaps.rows[0][-1] == "87.5% (3.1%)"
    assert [row[:2] for row in ablations.rows][:3] == [
        ("all", "name"), ("all", "control"), ("MLP 0", "name")
    ]  # fmt: skip
    assert ablations.rows[4][-1] == "+4.000"


def test_emergence_section(full):
    section = emergence_section(full)
    assert list(section.figures) == ["emergence-order", "strength-curves"]
    assert section.results == [
        ("Extraction attention", "step 6", "statistics"), ("MLP swap at names", "step 9", "plateau"),
        ("Knowledge", "absent", ""),
    ]  # fmt: skip
    table = section.tables[0]
    assert [row[:3] for row in table.rows] == [
        ("extraction attention", "step 6", "statistics"), ("MLP swap at names", "step 9", "plateau"),
        ("knowledge", "absent", ""),
    ]  # fmt: skip
    assert table.rows[0][-1] == "1.500"
    (full.results_path / "emergence" / "strengths.csv").unlink()
    bare = emergence_section(full)
    assert list(bare.figures) == ["emergence-order"]
    assert bare.tables[0].header == ("mechanism", "emerges at", "phase")


def test_the_report_holds_them(full, tmp_path):
    page = write_report(full, tmp_path / "report.html").read_text(encoding="utf-8")
    places = [
        page.index(f'<h2 id="{anchor}"')
        for anchor in ("attributes", "memory", "interventions", "emergence", "configuration")
    ]
    assert places == sorted(places)
    for anchor in ("probe-sites", "swap-success", "mlp-ablation", "emergence-order"):
        assert f'id="{anchor}-plot"' in page
    assert GLOSSARY["mean ablation"][:40] in page


def test_turning_points_are_measured_steps():
    points = turning_points([200, 0, 90, 110, 300], Phases(100, 280, 5.6, 0.05))
    assert [step for _, step in points] == [0, 90, 300, 300]
    assert points[1][0] == "end of statistics (step 90)"
    assert len(turning_points([0, 5], Phases(None, None, 5.6, 0.05))) == 2
