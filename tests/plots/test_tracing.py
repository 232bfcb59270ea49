"""Figures of causal traces and of the logit lens hold the numbers of their tables."""

import io

import numpy as np
import pandas as pd
import pytest

from interp import plots
from interp.errors import InterpError

PLACES = ["first name", "last name", "predicts value"]


@pytest.fixture(params=["as made", "read back"])
def stored(request):
    if request.param == "as made":
        return lambda table: table
    return lambda table: pd.read_csv(io.StringIO(table.to_csv(index=False)))


@pytest.fixture
def traces(stored) -> pd.DataFrame:
    table = pd.DataFrame(
        [
            {"site": site, "layer": layer, "window": f"{max(0, layer - 1)}-{min(11, layer + 1)}",
             "head": pd.NA, "group": pd.NA, "position": place, "noised": noised, "clean": 0.5,
             "corrupted": 0.1, "restored": 0.1 + (effect := layer / 100 + i / 1000),
             "indirect_effect": effect * (1 if noised == "subject" else -1), "n": 4}
            for site in ("attn_out", "mlp_out") for layer in range(12)
            for i, place in enumerate(PLACES) for noised in ("subject", "control")
        ]
    )  # fmt: skip
    return stored(table.astype({"head": "Int64", "group": "string", "window": "string"}))


def test_a_causal_trace(traces):
    figure = plots.causal_trace(traces)
    assert [trace.name for trace in figure.data] == ["attention output", "MLP output"]
    expected = [[layer / 100 + i / 1000 for i in range(3)] for layer in range(12)]
    for trace in figure.data:
        np.testing.assert_allclose(np.array(trace.z, dtype=float), expected)
        assert list(trace.x) == PLACES
        assert list(trace.y) == [str(layer) for layer in range(12)]
    assert "3 layers at once" in plots.caption(figure)
    assert "0.100 in place of 0.500" in plots.caption(figure)
    control = plots.causal_trace(traces, noised="control")
    np.testing.assert_allclose(np.array(control.data[0].z, dtype=float), -np.array(expected))
    assert "control" in plots.title(control)
    restored = plots.causal_trace(traces.drop(columns="window"), "restored")
    assert restored.data[0].z[0][0] == pytest.approx(0.1)
    assert "layers at once" not in plots.caption(restored)
    with pytest.raises(InterpError, match="value="):
        plots.causal_trace(traces, "clean")
    with pytest.raises(InterpError, match="noised"):
        plots.causal_trace(traces.drop(columns="noised"))
    with pytest.raises(InterpError, match="more than once"):
        plots.causal_trace(pd.concat([traces, traces]))


def test_the_logit_lens(stored):
    states = [(i, site) for i in range(50) for site in ("resid_pre", "resid_mid")]
    states.append((49, "resid_post"))
    table = stored(
        pd.DataFrame(
            [
                {"step": step, "layer": layer, "site": site, "probability": step / 1e4 + i / 1e3,
                 "rank": 1000.0 - i, "first": 0.0, "n": 6}
                for step in (0, 1000) for i, (layer, site) in enumerate(states)
            ]
        )
    )  # fmt: skip
    figure = plots.logit_lens(table)
    before, after = figure.data
    assert list(before.x) == [*map(str, range(50)), "end"]
    assert list(before.y) == ["0", "1,000"]
    np.testing.assert_allclose(before.z[1][:3], [0.1, 0.102, 0.104])
    assert before.z[0][-1] == pytest.approx(0.1)
    np.testing.assert_allclose(after.z[0][:2], [0.001, 0.003])
    assert figure.layout.height < 500, "as high as there are checkpoints, not layers"
    assert "6 facts" in plots.caption(figure)
    assert plots.logit_lens(table, "rank").data[0].z[0][0] == 1000
    parallel = plots.logit_lens(table[table["site"] != "resid_mid"])
    assert len(parallel.data) == 1
    with pytest.raises(InterpError, match="value="):
        plots.logit_lens(table, "loss")
    with pytest.raises(InterpError, match="logit_difference_base_minus_source"):
        plots.logit_lens(table, "logit_difference_base_minus_source")
