"""The page on selection runs as it stands."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "selection.md"


@pytest.mark.slow
def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    shared: dict[str, object] = {}
    exec(
        compile("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), PAGE.name, "exec"),
        shared,
    )
    run, table = shared["run"], shared["table"]
    assert run.finished  # type: ignore[attr-defined]
    assert len(table) == 12  # type: ignore[arg-type]
