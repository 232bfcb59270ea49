"""Tables on terminals of any width: words and numbers stay whole, and nothing is left out."""

from collections.abc import Callable

import pandas as pd
import pytest

from interp.cli import printing
from interp.cli.tables import show, show_frame
from interp.run import Run
from tests.helpers import run_cli

NAMES = ("index", "name", "birth place", "value", "what it is about", "company")
ROWS = [
    ("7", "Bartholomew Quetzalcoatl Featherstone", "Constantinople", 3.14159, "of [bold]one", "a"),
    ("1,234,567 (held out)", "Wim Ferri", "Rome", -1234.5, "words\nof two lines", "Gazprom"),
]
WORDS = {"Bartholomew", "Constantinople", "3.142", "-1234.500", "1,234,567", "[bold]one", "Gazprom"}

Printed = Callable[[int, Callable[[], object]], list[str]]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Printed:
    """The lines that something prints on a terminal of some width."""

    def lines(width: int, action: Callable[[], object]) -> list[str]:
        monkeypatch.setattr(printing, "on_terminal", lambda: True)
        monkeypatch.setattr(printing.OUT, "_width", width)  # COLUMNS counts when it is made
        capsys.readouterr()
        action()
        return capsys.readouterr().out.splitlines()

    return lines


def words_in(lines: list[str]) -> set[str]:
    return {word for line in lines for word in line.replace("│", " ").replace("┃", " ").split()}


@pytest.mark.parametrize("width", [60, 80, 100, 400])
def test_words_and_numbers_stay_whole(printed: Printed, width: int) -> None:
    lines = printed(width, lambda: show("A title", NAMES, ROWS, right=("value",)))
    assert max(map(len, lines)) <= width
    given = {word for row in (NAMES, *ROWS) for text in row for word in str(text).split()}
    assert given - {"3.14159", "-1234.5"} | WORDS <= words_in(lines)


@pytest.mark.parametrize("width", [1, 10, 30])
def test_on_the_narrowest_terminal_no_character_is_lost(printed: Printed, width: int) -> None:
    lines = printed(width, lambda: show("T", ("a", "b"), [("x" * 100, "y" * 300)]))
    text = "".join(lines)
    assert text.count("x") >= 100
    assert text.count("y") == 300


def test_columns_that_do_not_fit_follow_below_with_the_first(printed: Printed) -> None:
    frame = pd.DataFrame({"quantity": ["loss"], **{str(s): [s + 0.5] for s in range(1000, 1020)}})
    lines = printed(60, lambda: show_frame(frame, "Summaries"))
    heads = [line for line in lines if "┃" in line]
    assert len(heads) > 2
    assert all("quantity" in head for head in heads)
    assert words_in(lines) >= {f"{seed + 0.5:.3f}" for seed in range(1000, 1020)}


@pytest.mark.parametrize("width", [60, 80])
def test_commands_keep_their_tables_whole(
    printed: Printed, width: int, smoke_run: Run, finished: Run, tmp_path
) -> None:
    people = smoke_run.population
    lines = printed(width, lambda: run_cli("people", smoke_run.path, "--limit", 0))
    facts = [f"{people.name(i)} {' '.join(people.facts(i).values())}" for i in range(len(people))]
    assert set(" ".join(facts).split()) <= words_in(lines)
    runs = [finished.path] * 6
    for command in (
        ("phases", smoke_run.path),
        ("studies",),
        ("summary", *runs, "--csv", tmp_path / "seeds.csv"),
        ("--help",),
    ):
        table = printed(width, lambda command=command: run_cli(*command))
        assert max(len(line) for line in table if not line.startswith(str(tmp_path))) <= width
        assert len(table) > 5
        assert not any("…" in line for line in table)
        if command[0] == "summary":
            assert "knowledge.evaluation.attribute_accuracy" in words_in(table)


def test_into_a_file_every_row_goes_on_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    show("A title", ("index", "text"), [(1, "word " * 200)])
    assert ("word " * 200).strip() in capsys.readouterr().out
