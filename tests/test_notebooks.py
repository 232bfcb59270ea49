"""The notebooks run from start to end, and what is committed of them is what they showed at demo."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
from jupyter_client import KernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from tests.weights import real_weights

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PLOTLY, PICTURE = "application/vnd.plotly.v1+json", "image/svg+xml"
WIDGET = "application/vnd.jupyter.widget-view+json"
REAL = FOLDER / "06_facts_in_a_real_model.ipynb"
COMPILED = FOLDER / "07_a_model_built_by_hand.ipynb"
SLOW = ("02", "03")  # what they show is also shown, and tested, elsewhere
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
every_notebook_on_a_run = pytest.mark.parametrize(
    "path", [path for path in NOTEBOOKS if path not in (REAL, COMPILED)], ids=lambda path: path.stem
)


@cache
def read(path: Path) -> NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(path: Path) -> list[NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def outputs(path: Path) -> list[NotebookNode]:
    return [output for cell in code_cells(path) for output in cell.outputs]


def shown(output: NotebookNode) -> str:
    """The text of an output."""
    return str(output.get("text") or output.get("data", {}).get("text/plain", ""))


def prose(path: Path) -> str:
    return "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


# Execution


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the notebooks' run lies: the first to come trains it."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelManager]:
    """One kernel for all of them: to import the package costs more than a notebook does."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PLOTLY_RENDERER", "plotly_mimetype")
        patched.setenv("TQDM_DISABLE", "1")
        started = KernelManager(kernel_name="python3")
        started.start_kernel(cwd=FOLDER)
    yield started
    started.shutdown_kernel(now=True)


def execute(path: Path, given: dict[str, str], kernel: KernelManager) -> list[NotebookNode]:
    """Executes a notebook; the error of a cell that fails is raised. Returns all outputs."""
    notebook = parameterize_notebook(load_notebook_node(str(path)), given)
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    client = NotebookClient(notebook, km=kernel)
    client.execute()
    client.kc.stop_channels()
    return [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.slow] if path.stem[:2] in SLOW else [], id=path.stem)
        for path in NOTEBOOKS
        if path != REAL
    ],
)
def test_it_runs_from_start_to_end(path: Path, runs: Path, kernel: KernelManager) -> None:
    found = execute(path, {"PRESET": "smoke", "RUNS": str(runs)}, kernel)
    assert any("preset smoke" in shown(output) for output in found), "parameters are heeded"
    assert not [output.text for output in found if output.get("name") == "stderr"], "no warnings"
    committed = outputs(path)
    drawn = [output for output in found if PLOTLY in output.get("data", {})]
    assert len(drawn) == sum(PLOTLY in output.get("data", {}) for output in committed)


@pytest.mark.slow
@every_notebook_on_a_run
def test_it_runs_at_demo(path: Path, runs: Path, kernel: KernelManager) -> None:
    found = execute(path, {"PRESET": "demo", "RUNS": str(runs)}, kernel)
    assert any("preset demo" in shown(output) for output in found)
    assert not [output.text for output in found if output.get("name") == "stderr"]


@pytest.mark.slow
def test_it_runs_on_real_weights(kernel: KernelManager) -> None:
    found = execute(REAL, {"MODEL": str(real_weights("smollm2"))}, kernel)
    assert any("16 of 22 capitals" in shown(output) for output in found)
    assert not [output.text for output in found if output.get("name") == "stderr"]


# What is committed


def test_they_are_numbered_and_listed() -> None:
    assert [path.name[:3] for path in NOTEBOOKS] == [f"0{n}_" for n in range(1, 8)]
    for number, path in enumerate(NOTEBOOKS, 1):
        assert read(path).cells[0].source.startswith(f"# {number} · ")
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\((0\d_\w+\.ipynb)\)", index) == [path.name for path in NOTEBOOKS]


@every_notebook
def test_it_says_what_it_is_about_and_where_to_go_next(path: Path) -> None:
    cells = read(path).cells
    assert "*Time:*" in cells[0].source
    assert "## Where to go next" in cells[-1].source
    assert re.findall(r"\((0\d_\w+\.ipynb)\)", cells[-1].source), "a link to another notebook"


@every_notebook
def test_links_resolve(path: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", prose(path))
    for link in links:
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = FOLDER / name
        assert target.is_file(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings]
            assert anchor in slugs, link


@every_notebook
def test_it_was_executed_once_from_top_to_bottom(path: Path) -> None:
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))


@every_notebook
def test_every_cell_that_shows_something_has_it_saved(path: Path) -> None:
    for cell in code_cells(path):
        body = ast.parse(cell.source).body
        calls = [
            node.func for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)
        ]
        shows = isinstance(body[-1], ast.Expr) or any(
            isinstance(call, ast.Name) and call.id == "print" for call in calls
        )
        # A widget without its kernel would be dead: it is not saved.
        is_widget = any(
            isinstance(call, ast.Attribute) and call.attr == "explore" for call in calls
        )
        assert bool(cell.outputs) == (shows and not is_widget), cell.source


@every_notebook_on_a_run
def test_outputs_are_those_of_demo(path: Path) -> None:
    parameters = [
        cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", [])
    ]
    assert len(parameters) == 1
    values: dict[str, Any] = {}
    exec(parameters[0].source, values)
    assert (values["PRESET"], values["RUNS"]) == ("demo", "../artifacts")
    run = code_cells(path)[1].outputs[-1]
    assert "preset demo, seed 0, 1,024 individuals" in shown(run)
    assert "step 2000, finished" in shown(run)


def test_outputs_of_a_compiled_model_are_those_of_smoke() -> None:
    run = code_cells(COMPILED)[1].outputs[-1]
    assert "preset smoke, seed 0, 24 individuals" in shown(run)
    assert "compiled, not trained: local" in shown(run)
    found = [shown(output) for output in outputs(COMPILED)]
    assert any(re.search(r"found: neuron (\S+); built: neuron \1$", text.strip()) for text in found)


@every_notebook
def test_outputs_hold_no_error_and_no_warning(path: Path) -> None:
    for output in outputs(path):
        assert output.output_type != "error"
        assert output.get("name") != "stderr"
        assert WIDGET not in output.get("data", {})


@every_notebook
def test_figures_are_saved_as_pictures_on_white(path: Path) -> None:
    figures = [o.data for o in outputs(path) if PLOTLY in o.get("data", {})]
    assert len(figures) >= 2
    for data in figures:
        svg = data[PICTURE]
        assert svg.startswith("<svg")
        paper = re.search(r'<rect[^>]*style="fill: rgb\((\d+, \d+, \d+)\); fill-opacity: 1;"', svg)
        assert paper is not None
        assert paper[1] == "255, 255, 255"
        assert svg.count("<text") > 5, "axes and labels"


@every_notebook
def test_nothing_of_a_machine_is_saved(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"/(home|root|tmp|work|mnt|Users|var|opt)/", text)
    assert not re.search(r"0x[0-9a-f]{8,}", text), "no address of an object"
    notebook = read(path)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert set(notebook.metadata.language_info) == {"name"}
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells), "no timings"


def test_they_are_small_enough_to_read_online() -> None:
    sizes = [path.stat().st_size for path in NOTEBOOKS]
    assert max(sizes) < 1.5e6
    assert sum(sizes) < 5e6


@pytest.mark.parametrize("command", [("check",), ("format", "--check")], ids=["lint", "format"])
def test_code_is_clean(command: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--no-cache", *NOTEBOOKS],
        cwd=FOLDER.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


# How they are saved


@pytest.fixture(scope="module")
def saving() -> ModuleType:
    spec = importlib.util.spec_from_file_location("execute", FOLDER / "execute.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_saving_adds_pictures_and_drops_widgets_and_progress(
    saving: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "picture", lambda figure: f"<svg>{json.dumps(figure)}</svg>")
    text = nbformat.v4.new_output("stream", name="stdout", text="0.5\n")
    figure = nbformat.v4.new_output("display_data", {PLOTLY: {"data": [], "layout": {}}})
    widget = nbformat.v4.new_output("display_data", {WIDGET: {"model_id": "1"}, "text/plain": "w"})
    bar = nbformat.v4.new_output("display_data", {"text/plain": ""})
    kept = list(saving.saved_outputs([text, figure, widget, bar]))
    assert kept == [text, figure]
    assert kept[1].data[PICTURE].startswith("<svg>")


def test_saving_refuses_warnings(saving: ModuleType) -> None:
    warning = nbformat.v4.new_output("stream", name="stderr", text="careful\n")
    with pytest.raises(RuntimeError, match="careful"):
        list(saving.saved_outputs([warning]))
