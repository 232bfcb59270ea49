"""What `interp equations` writes, and how it is shown: tables, figures, the section of a report."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp import plots
from interp.charts import signed_graph
from interp.equations import bits_known, interference, interference_matrix, residuals
from interp.errors import ArgumentError, InterpError
from interp.model import parameter_counts
from interp.report import LeftOut, Section, write_report
from interp.report.equations import equations_section
from interp.run import Run
from interp.run.tables import ON_DEMAND_TABLES
from tests.helpers import run_cli


@pytest.fixture(scope="module")
def run(smoke_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on which the command has been called."""
    folder = tmp_path_factory.mktemp("equations") / "run"
    shutil.copytree(smoke_run.path, folder)
    arguments = ("--by", "people", "last_name", "--steps", "5,last", "--n-individuals", 4)
    assert run_cli("equations", folder, *arguments, "--n-groups", 2) == 0
    return Run.load(folder)


def test_the_command_writes_what_functions_return(run: Run) -> None:
    expected = residuals(run, [5, 40])
    table = run.result("equations", "residuals")
    assert table is not None
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)
    bits = run.result("equations", "capacity")
    n = parameter_counts(run.model())["total"]
    pd.testing.assert_frame_equal(bits, bits_known(expected, n, 24), check_dtype=False)
    pairs = run.result("equations", "interference")
    assert pairs is not None
    own = interference(run, [40], "last name", n_individuals=4, n_groups=2)
    pd.testing.assert_frame_equal(
        interference_matrix(pairs, 40, by="last name"), interference_matrix(own)
    )
    assert set(pairs["step"]) == {5, 40}
    names = {path.stem for path in (run.results_path / "equations").glob("*.csv")}
    assert names == {name for _, name in ON_DEMAND_TABLES}
    run.check_results()


def test_the_command_again_replaces_what_was_there(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run.path, folder)
    assert run_cli("equations", folder, "--steps", "last", "--by", "form") == 0
    said = capsys.readouterr().out
    assert "not measured: by form" in said
    table = Run.load(folder).result("equations", "residuals")
    assert table is not None
    assert set(table["step"]) == {40}
    assert run_cli("equations", folder, "--by", "frist name") == 2
    assert "Did you mean 'first name'" in capsys.readouterr().err


def test_the_section(run: Run, smoke_run: Run, tmp_path: Path) -> None:
    made = equations_section(run)
    assert isinstance(made, Section)
    assert "in between; at step 40 the model knows" in made.sentence
    assert {"residual-distribution", "interference-by-people", "interference-graph-by-last-name"} <= {
        *made.figures
    }  # fmt: skip
    text = write_report(run, tmp_path / "page.html", [equations_section]).read_text("utf-8")
    assert 'id="equations"' in text
    left_out = equations_section(smoke_run)
    assert isinstance(left_out, LeftOut)
    assert left_out.commands == ["interp equations RUN"]


def test_the_distribution_of_residuals() -> None:
    table = pd.DataFrame(
        {
            "step": np.repeat([0, 100], 10),
            "loss": [*[2.0] * 10, *[0.1] * 6, *[1.1] * 1, *[1.9] * 3],
            "baseline": 2.0,
        }
    )
    figure = plots.residual_distribution(table)
    cells = np.array(figure.data[0].z)
    assert figure.data[0].x == ("0", "100")
    assert cells[:, 0].tolist() == [0] * 10 + [1, 0]
    assert cells[0, 1] == pytest.approx(0.6)
    assert cells[5, 1] == pytest.approx(0.1)
    assert cells[9, 1] == pytest.approx(0.3)
    nats = plots.residual_distribution(table.drop(columns="baseline"))
    assert np.array(nats.data[0].z).sum(axis=0) == pytest.approx([1, 1])
    with pytest.raises(InterpError, match="no step"):
        plots.residual_distribution(table, [7])


def test_a_signed_graph() -> None:
    names = ["a", "b", "c", "d"]
    values = np.array(
        [[1.0, 0.8, -0.5, 0.01], [0.8, 1, 0.1, 0], [-0.5, 0.1, 1, 0], [0.01, 0, 0, 1]]
    )
    matrix = pd.DataFrame(values, index=names, columns=names)
    figure = signed_graph(matrix, axis="cosine", least=0.05)
    edges = [trace for trace in figure.data if trace.mode == "lines"]
    assert [trace.name for trace in edges] == ["positive", "negative", "positive"]
    assert edges[0].line.width > edges[1].line.width > edges[2].line.width
    assert [trace.showlegend for trace in edges] == [True, True, False]
    nodes = figure.data[-1]
    assert list(nodes.text) == names
    assert max(abs(p) for p in (*nodes.x, *nodes.y)) <= 1
    places = np.array([nodes.x, nodes.y]).T
    alone = signed_graph(matrix, axis="cosine", least=0.6).data[-1]  # one edge, from a to b
    assert alone.textposition[2:] == ("top center", "top center")
    for side, end, other in zip(alone.textposition, alone.y[:2], alone.y[1::-1], strict=False):
        assert side == ("bottom center" if other > end + 1e-3 else "top center")
    assert np.linalg.norm(places[0] - places[1]) < np.linalg.norm(places[0] - places[3])
    assert signed_graph(matrix, axis="cosine", least=0.05) == figure
    with pytest.raises(ArgumentError, match="square matrix"):
        signed_graph(matrix.iloc[:2], axis="cosine")
