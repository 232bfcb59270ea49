"""Examples in docstrings and the README run as they stand."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import interp

README = Path(__file__).parents[1] / "README.md"
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


def test_the_readme_s_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 2
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
