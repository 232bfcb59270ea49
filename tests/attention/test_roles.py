"""The rule that names the roles of heads, on scores made by hand."""

import numpy as np
import pandas as pd
import pytest

from interp.attention import REST_METRICS, ROLES, head_roles
from interp.errors import ConfigError

CANDIDATES = [metric for metrics in ROLES.values() for metric in metrics]


def scores(**values: float) -> pd.DataFrame:
    """One head at chance, 0.1, but for the given metrics."""
    rows = [(0, 0, m, values.get(m, 0.1), 0.1) for m in [*CANDIDATES, "attribute_sharpness"]]
    return pd.DataFrame(rows, columns=["layer", "head", "metric", "value", "chance"])


@pytest.mark.parametrize(
    ("metric", "role"), [(metric, role) for role, found in ROLES.items() for metric in found]
)
def test_every_role(metric: str, role: str) -> None:
    found = head_roles(scores(**{metric: 0.55, "attribute_sharpness": 1.0}))
    assert list(found.columns) == ["layer", "head", "role", "metric", "value", "chance", "excess"]
    assert found.iloc[0].tolist() == [0, 0, role, metric, 0.55, 0.1, pytest.approx(0.5)]


def test_the_largest_excess_decides() -> None:
    table = scores(name_to_name=0.6, previous_token=0.5, self_token=0.2)
    table.loc[table["metric"] == "name_to_name", "chance"] = 0.5  # an excess of 0.2
    found = head_roles(table)
    assert found[["role", "metric"]].iloc[0].tolist() == ["positional", "previous_token"]


def test_a_weak_head_has_no_role() -> None:
    table = scores(attribute_to_type=0.19)  # an excess of 0.1
    found = head_roles(table)
    assert found[["role", "metric"]].iloc[0].tolist() == ["none", "attribute_to_type"]
    assert found["excess"].item() == pytest.approx(0.1)
    assert head_roles(table, threshold=0.05)["role"].item() == "type propagation"


def test_every_step_layer_and_head_has_one() -> None:
    tables = []
    for step, layer, head in [(5, 1, 0), (0, 0, 1), (0, 0, 0), (5, 0, 0)]:
        metric = "name_to_name" if step else "attribute_to_any_name"
        table = scores(**{metric: 0.9}).assign(layer=layer, head=head)
        table.insert(0, "step", step)
        tables.append(table)
    found = head_roles(pd.concat(tables).sample(frac=1, random_state=0))
    assert list(found.columns)[:4] == ["step", "layer", "head", "role"]
    assert found[["step", "layer", "head"]].to_numpy().tolist() == [
        [0, 0, 0],
        [0, 0, 1],
        [5, 0, 0],
        [5, 1, 0],
    ]
    assert found["role"].tolist() == ["extraction"] * 2 + ["name grouping"] * 2


def test_missing_numbers_are_no_candidates() -> None:
    table = scores(name_to_name=np.nan, attribute_to_type=0.9)
    assert head_roles(table)["metric"].item() == "attribute_to_type"
    found = head_roles(table.assign(value=np.nan))
    assert found["role"].item() == "none"
    assert found[["metric", "value", "chance", "excess"]].isna().all(axis=None)
    assert head_roles(table.assign(chance=1.0))["role"].item() == "none"


def test_ties_go_to_the_first_role() -> None:
    table = scores(name_to_name=0.9, self_token=0.9)
    assert head_roles(table)["role"].item() == "name grouping"
    assert head_roles(table[::-1])["role"].item() == "name grouping"


FIRST = ["name_to_first_token", "attribute_to_first_token", "text_to_first_token"]


def with_rest(**values: float) -> pd.DataFrame:
    """One head that gives 0.9 to the first token at every kind of query, and else is at chance, 0.1."""
    metrics = [*CANDIDATES[:-1], *FIRST, *REST_METRICS]
    values = dict.fromkeys(FIRST, 0.9) | values
    rows = [(0, 0, m, values.get(m, 0.1), 0.1) for m in metrics]
    return pd.DataFrame(rows, columns=["layer", "head", "metric", "value", "chance"])


REST_ROLES = ["name grouping", "extraction", "type propagation", "positional", "positional"]


@pytest.mark.parametrize(("metric", "role"), list(zip(REST_METRICS, REST_ROLES, strict=True)))
def test_the_first_token_is_set_aside(metric: str, role: str) -> None:
    table = with_rest(**{metric: 0.55})
    found = head_roles(table).iloc[0].tolist()
    assert found == [0, 0, role, metric, 0.55, 0.1, pytest.approx(0.5)]
    assert head_roles(table, sink=True).iloc[0].tolist() == found
    plain = head_roles(table, sink=False)
    assert plain[["role", "metric"]].iloc[0].tolist() == ["positional", "text_to_first_token"]
    # Of 0.04 of its attention nothing is said.
    few = table.assign(value=table["value"].mask(table["metric"].isin(FIRST), 0.96))
    assert head_roles(few)["role"].item() == "sink"
    # Only the kind of query counts at which the score is measured.
    kind = metric.split("_")[0]
    others = [
        f for f in FIRST if not f.startswith(kind if kind in ("name", "attribute") else "text")
    ]
    few = table.assign(value=table["value"].mask(table["metric"].isin(others), 0.96))
    assert head_roles(few)["role"].item() == role


def test_a_sink() -> None:
    found = head_roles(with_rest(text_to_first_token=0.95))
    assert found[["role", "metric", "value"]].iloc[0].tolist() == [
        "sink",
        "text_to_first_token",
        0.95,
    ]
    two = head_roles(with_rest(text_to_first_token=0.1))
    assert two[["role", "metric"]].iloc[0].tolist() == ["sink", "name_to_first_token"]
    one = head_roles(with_rest(text_to_first_token=0.1, name_to_first_token=0.1))
    assert one["role"].item() == "none"
    # Of the kinds that were measured: one of one.
    only = with_rest(name_to_first_token=np.nan, attribute_to_first_token=np.nan)
    assert head_roles(only)["role"].item() == "sink"
    assert head_roles(with_rest().assign(value=np.nan))["role"].item() == "none"
    tables = [
        with_rest(**{"self_token_of_rest": 0.8} if head else {}).assign(layer=1, head=head, step=step)
        for step in (10, 0) for head in (1, 0)
    ]  # fmt: skip
    both = head_roles(pd.concat(tables))
    assert both[["step", "head", "role"]].to_numpy().tolist() == [
        [step, head, role] for step in (0, 10) for head, role in enumerate(("sink", "positional"))
    ]


def test_errors_of_roles() -> None:
    for threshold in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="threshold"):
            head_roles(scores(), threshold)
    with pytest.raises(ConfigError, match="no column 'head'"):
        head_roles(scores().drop(columns="head"))
    with pytest.raises(ConfigError, match=r"lack the metrics.*self_token"):
        head_roles(scores().query("metric != 'self_token'"))
    with pytest.raises(ConfigError, match=r"lack.*self_token_of_rest.*sink=True\) gives"):
        head_roles(scores(), sink=True)
