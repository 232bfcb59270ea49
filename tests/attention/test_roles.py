"""The rule that names the roles of heads, on scores made by hand."""

import numpy as np
import pandas as pd
import pytest

from interp.attention import ROLES, head_roles
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


def test_errors_of_roles() -> None:
    for threshold in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="threshold"):
            head_roles(scores(), threshold)
    with pytest.raises(ConfigError, match="no column 'head'"):
        head_roles(scores().drop(columns="head"))
    with pytest.raises(ConfigError, match=r"lack the metrics.*self_token"):
        head_roles(scores().query("metric != 'self_token'"))
