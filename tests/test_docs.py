"""Examples in docstrings, the README and the tour run as they stand."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import interp

README = Path(__file__).parents[1] / "README.md"
TOUR = README.with_name("docs") / "tour.md"
MODULES = sorted(
    name
    for _, name, _ in pkgutil.walk_packages(interp.__path__, "interp.")
    if not name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    found = [
        e for m in MODULES for t in finder.find(importlib.import_module(m)) for e in t.examples
    ]
    assert len(found) >= 5


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120


def test_relative_links_lead_somewhere() -> None:
    pages = [README, *TOUR.parent.glob("*.md"), README.with_name("CONTRIBUTING.md")]
    broken = [
        (page.name, target)
        for page in pages
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not broken


def test_the_python_of_the_readme_and_the_tour_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = README.read_text(encoding="utf-8") + TOUR.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 4
    code = "\n".join(blocks)
    for tiny, smoke in {
        '"tiny"': '"smoke"',
        "step=300": "step=20",
        "step=250": "step=20",
        "1500": "40",
    }.items():
        code = code.replace(tiny, smoke)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("plotly.graph_objects.Figure.show", lambda figure: None)
    shared: dict[str, object] = {}
    exec(compile(code, str(README), "exec"), shared)
    pattern, to_names = shared["pattern"], shared["to_names"]
    assert to_names.shape == pattern.shape[:-1]  # type: ignore[attr-defined]
