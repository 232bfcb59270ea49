"""The trust table counts hits, misses and false alarms against what was built in."""

from importlib.resources import files
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest
import torch

import interp
from interp.attention import head_roles, scores_by_attribute
from interp.errors import ArgumentError
from interp.plots import describe
from interp.report import Section, render
from interp.report.trust import _MARKED, trust_note, trust_section
from interp.trust import COLUMNS, MEASURES, Mark, Measure, in_words, record, summary, trust_table

GALLERY = Path(__file__).parents[2] / "artifacts" / "gallery" / "trust.csv"
BY_NAME = {measure.name: measure for measure in MEASURES}


@pytest.fixture(scope="module")
def compiled():
    return interp.compile_recall(interp.preset("smoke"), controls=("direction", "head", "neurons"))


def marked(compiled, *names):
    return trust_table(compiled, [BY_NAME[name] for name in names]).set_index("measure")


def test_hits_misses_and_false_alarms_are_counted(compiled):
    given = Measure("mine", "things", "given", lambda _: Mark({1, 2, 3}, {2, 3, 9}, 0.25, "nats"))
    row = trust_table(compiled, [given]).iloc[0]
    assert (row["hits"], row["misses"], row["false_alarms"]) == (2, 1, 1)
    assert (row["alarms"], row["error"], row["unit"], row["variant"]) == (
        "9",
        0.25,
        "nats",
        "local",
    )


def test_a_measure_without_a_magnitude_has_no_error(compiled):
    table = trust_table(compiled, [Measure("mine", "things", "given", lambda _: Mark({1}, {1}))])
    assert list(table.columns) == list(COLUMNS)
    assert bool(table["error"].isna().all())


def test_the_control_head_is_a_false_alarm_of_attention_and_not_of_patching(compiled):
    table = marked(compiled, "head_roles", "patch z")
    idle = compiled.key.heads.query("role == 'idle'").iloc[0]
    name = f"({idle['layer']}, {idle['head']})"
    assert name in table.loc["head_roles", "alarms"]
    assert name not in table.loc["patch z", "alarms"]


def test_what_the_key_says_nothing_of_has_no_row(compiled):
    assert trust_table(compiled, [Measure("mine", "things", "given", lambda _: None)]).empty


def test_by_attribute_heads_that_recall_are_found_and_the_control_head_is_no_less(compiled):
    scores = scores_by_attribute(
        compiled.model, compiled.corpus.biographies(slice(0, 2)), compiled.corpus.attributes
    )
    roles = head_roles(scores).set_index(["attribute", "layer", "head"])["role"]
    for attribute, layer, head in compiled.key.heads.query("layer == 1")[
        ["attribute", "layer", "head"]
    ].itertuples(index=False):
        if attribute and head < 6:
            assert roles[attribute, layer, head] == "extraction"
            others = [a for a in compiled.corpus.attributes if a != attribute]
            assert {roles[a, layer, head] for a in others} == {"sink"}
    idle = compiled.key.heads.query("role == 'idle'").iloc[0]
    assert set(roles.xs(idle["head"], level="head").xs(1, level="layer")) == {"extraction"}
    with pytest.raises(ArgumentError, match="attributes"):
        scores_by_attribute(compiled.model, compiled.corpus.biographies(slice(0, 2)), ["one"])


def test_keys_values_and_single_facts_of_the_local_variant(compiled):
    table = marked(compiled, "keys", "values", "layer_agreement", "agreement", "locate_fact")
    n_people, n_facts = 24, 12
    assert table.loc["keys", ["hits", "misses", "false_alarms"]].tolist() == [n_people, 0, n_people]
    assert table.loc["values", "hits"] > 4 * table.loc["values", "misses"]
    assert (table.loc[["layer_agreement", "agreement"], "hits"] == 1).all()
    found = table.loc["locate_fact"]
    assert (found["hits"], found["misses"], found["false_alarms"]) == (3 * n_facts, 0, 0)
    assert found["error"] < 1e-4


def test_marks_are_added_up_over_populations():
    row = dict.fromkeys(COLUMNS, "") | {"measure": "m", "variant": "local", "hits": 3, "misses": 1}
    numbers = ((0, 0, 0.1), (1, 2, 0.3))
    rows = [row | dict(zip(("seed", "false_alarms", "error"), of, strict=True)) for of in numbers]
    found = summary(pd.DataFrame(rows)).iloc[0]
    assert (found["models"], found["hits"], found["misses"], found["false_alarms"]) == (2, 6, 2, 2)
    assert found["error"] == pytest.approx(0.2)


def test_the_record_of_the_package_is_that_of_the_gallery_and_of_these_rules():
    committed = summary(pd.read_csv(GALLERY)).round({"error": 4}).to_csv(index=False)
    shipped = files("interp.trust").joinpath("marks.csv").read_text(encoding="utf-8")
    assert shipped.splitlines() == committed.splitlines()
    rules = dict(zip(record()["measure"], record()["rule"], strict=True))
    assert rules == {measure.name: measure.rule for measure in MEASURES}


def test_figures_say_what_was_found_on_compiled_models():
    patched = record().query("measure == 'patch z'")
    n = int(patched["hits"].sum())
    assert in_words(["patch z"]) == f"patch z {n} of {n} found, no false alarm"
    assert trust_note("swap-success").startswith("On compiled models: swaps ")
    assert trust_note("fact-university-100") == trust_note("located-fact")
    assert trust_note("learning-curves") == ""
    assert {name for names in _MARKED.values() for name in names} <= set(BY_NAME)


def test_a_page_has_the_marks_beside_its_figures_and_as_a_section():
    figure = describe(go.Figure(go.Scatter(y=[1])), "Swaps", "Look.")
    section = trust_section(None)
    page = render("t", "h", [Section("S", "s", figures={"swap-success": figure}), section])
    assert f"Look. {trust_note('swap-success')}</figcaption>" in page
    assert [row[0] for row in section.tables[0].rows] == list(record()["measure"])
    assert "nan" not in {cell for row in section.tables[0].rows for cell in row}


def test_a_model_that_was_edited_is_read_again(compiled):
    (measure,) = [one for one in MEASURES if one.name == "attention to names"]
    keys = compiled.model.blocks[1].attn.k.original_component.weight
    before = trust_table(compiled, [measure])["hits"].item()
    kept = keys.detach().clone()
    with torch.no_grad():
        keys.zero_()
        after = trust_table(compiled, [measure])["hits"].item()
        keys.copy_(kept)
    assert (before, after) == (6, 0)
    assert trust_table(compiled, [measure])["hits"].item() == 6
