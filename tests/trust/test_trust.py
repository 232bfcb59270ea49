"""The trust table counts hits, misses and false alarms against what was built in."""

import pytest

import interp
from interp.trust import COLUMNS, MEASURES, Mark, Measure, trust_table


@pytest.fixture(scope="module")
def compiled():
    return interp.compile_recall(interp.preset("smoke"), controls=("direction", "head", "neurons"))


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
    table = trust_table(compiled, MEASURES[:2]).set_index("measure")
    idle = compiled.key.heads.query("role == 'idle'").iloc[0]
    name = f"({idle['layer']}, {idle['head']})"
    assert name in table.loc["head_roles", "alarms"]
    assert name not in table.loc["patch z", "alarms"]
