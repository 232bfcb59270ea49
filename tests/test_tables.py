"""Result tables: written and read by one declaration; damaged ones end in one message."""

import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp.cli import main
from interp.errors import ArgumentError, RunError
from interp.run import Run, read_metrics
from interp.run.tables import (
    PATCHING_COMPARISON,
    PATCHING_TABLE,
    RESULT_TABLES,
    documentation,
    result_table,
)
from interp.stages import order_of_emergence, summary
from interp.studies.found import read_tables
from interp.studies.patching import comparison, write_study
from interp.tables import Column, Table, for_spreadsheets, read_undeclared
from tests.fixtures import MainJob
from tests.helpers import without_digests

SMALL = Table(
    "small",
    "Anything.",
    (
        Column("step", "integer", "a step"),
        Column("layer", "integer", "a layer", missing="all layers"),
        Column("value", "number", "a value"),
        Column("chance", "number", "a chance", missing="unknown"),
        Column("name", "text", "a name"),
        Column("phase", "text", "a phase", missing="none"),
        Column("known", "boolean", "whether it is known"),
        Column("right", "boolean", "whether it is right", missing="unknown"),
        Column("note", "text", "a note", missing="none", needed=False),
    ),
    "nobody",
    "Delete {path}, make {folder} in {run} again.",
)
FRAME = pd.DataFrame(
    {
        "step": [0, 5, 2**53 + 1],
        "layer": pd.array([pd.NA, 0, 11], dtype="Int64"),
        "value": [0.1 + 0.2, -5e-324, np.inf],
        "chance": [np.nan, 1 / 3, 2.0],
        "name": ["NA", "None", "nan"],
        "phase": ["null", np.nan, 'a, "b"\nc'],
        "known": [True, False, True],
        "right": pd.array([True, pd.NA, False], dtype="boolean"),
        "note": ["1", "2.50", "True"],
    }
)


def damaged(good: bytes, how: str) -> bytes:
    """A file's bytes after an accident."""
    first, _, rest = good.partition(b"\n")
    fields = rest.split(b"\n")[0].split(b",")
    return {
        "nothing": lambda: b"",
        "no row": lambda: first + b"\n",
        "cut in a row": lambda: good[: len(first) + len(rest) // 2].rpartition(b",")[0],
        "cut in the last number": lambda: good[:-3],
        "other columns": lambda: b"epoch,lr\n1,0.1\n",
        "binary": lambda: bytes(range(256)) + good,
        "zeros": lambda: good[:40] + bytes(200),
        "fewer fields": lambda: first + b"\n" + b",".join(fields[:-1]) + b"\n",
        "more fields": lambda: first + b"\n" + b",".join([*fields, b"1"]) + b"\n",
        "open quotation": lambda: first + b'\n"' + rest,
    }[how]()


DAMAGES = (
    "nothing", "no row", "cut in a row", "cut in the last number", "other columns", "binary", "zeros",
    "fewer fields", "more fields", "open quotation",
)  # fmt: skip
THROUGH_COMMANDS = ("nothing", "cut in a row", "other columns", "binary")


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    """A copy that a test may damage; the runs of the patching stage are left out."""
    skipped = shutil.ignore_patterns("runs", "checkpoints")
    folder = shutil.copytree(finished.path, tmp_path / "run", ignore=skipped)
    return Run.load(without_digests(folder))


def error_of(run: Run, capsys: pytest.CaptureFixture[str], command: str = "report") -> str:
    """The one line that a command ends with."""
    with pytest.raises(SystemExit) as exit_:
        main([command, str(run.path)])
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_types_survive(tmp_path: Path) -> None:
    path = tmp_path / "small.csv"
    SMALL.write(path, FRAME)
    assert path.read_text() == FRAME.to_csv(index=False)
    read = SMALL.read(path)
    pd.testing.assert_frame_equal(read, FRAME, check_exact=True)
    assert [str(read[name].dtype) for name in ("step", "layer", "value", "known", "right")] == [
        "int64", "Int64", "float64", "bool", "boolean"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda frame: frame.drop(columns="note"), "in this order"),
        (lambda frame: frame[[*frame.columns[::-1]]], "in this order"),
        (lambda frame: frame.assign(more=1), "in this order"),
        (lambda frame: frame[:0], "without a row"),
        (lambda frame: frame.assign(step=1.5), r"'step'.*float64.*whole"),
        (lambda frame: frame.assign(value=1), r"'value'.*int64"),
        (lambda frame: frame.assign(value=[0.0, 0.0, np.nan]), r"'value'.*missing \(row 2\)"),
        (lambda frame: frame.assign(name=["a", "", "b"]), r"'name'.*missing \(row 1\)"),
        (lambda frame: frame.assign(name=0), "'name'.*int64 is not text"),
        (lambda frame: frame.assign(known="True"), r"'known'.*True or False"),
    ],
)
def test_other_frames_are_not_written(
    change: Callable[[pd.DataFrame], pd.DataFrame], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match=says):
        SMALL.write(tmp_path / "small.csv", change(FRAME))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("step,layer\n", "without value"),
        ("{header}\n1,2.5,0.5,,a,,True,,\n", r"line 2.*'layer'.*'2.5'.*whole"),
        ("{header}\n1,,0.5,,a,,True,,\n2,,,,a,,True,,\n", r"line 3.*'value' is empty"),
        ("{header}\n1,,nan,,a,,True,,\n", r"'value'.*'nan'"),
        ("{header}\n1,,much,,a,,True,,\n", r"'value'.*'much'"),
        ("{header}\n1,,0.5,,,,True,,\n", "'name' is empty"),
        ("{header}\n1,,0.5,,a,,yes,,\n", r"'known'.*'yes'"),
        ("{header}\n99999999999999999999,,0.5,,a,,True,,\n", r"'step'.*'9+'.*whole"),
        ("{header},step\n1,,0.5,,a,,True,,,1\n", "'step' twice"),
    ],
)
def test_where_an_entry_is_wrong(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "results" / "stage" / "small.csv"
    path.parent.mkdir(parents=True)
    path.write_text(text.format(header=",".join(SMALL.column_names)))
    with pytest.raises(RunError, match=says) as error:
        SMALL.read(path)
    assert f"Delete {path}, make {path.parent} in {tmp_path} again." in str(error.value)


def test_tables_of_other_versions(tmp_path: Path) -> None:
    path = tmp_path / "small.csv"
    frame = FRAME.drop(columns="note").assign(later=1)
    path.write_text(frame.to_csv(index=False))
    pd.testing.assert_frame_equal(SMALL.read(path), frame.drop(columns="later"))
    path.write_text(frame.drop(columns="phase").to_csv(index=False))
    with pytest.raises(RunError, match="without phase"):
        SMALL.read(path)


def test_every_table_of_a_run_is_read_as_it_was_made(finished: Run, main_job: MainJob) -> None:
    run, frames = finished, main_job.tables
    assert {path.relative_to(run.results_path).with_suffix("").as_posix()
            for path in run.results_path.glob("*/*.csv")} == set(frames)  # fmt: skip
    assert set(frames) == {table.name for table in RESULT_TABLES.values()}
    for (stage, name), table in RESULT_TABLES.items():
        read, made = run.result(stage, name), frames[table.name]
        texts = [column.name for column in table.columns if column.kind == "text"]
        # Text has one type here; in a frame, "" and NA stand for a missing one.
        made = made.astype(dict.fromkeys(texts, object))
        made[texts] = made[texts].mask(made[texts].isna() | made[texts].eq(""))
        pd.testing.assert_frame_equal(read.astype(dict.fromkeys(texts, object)), made)


@pytest.mark.parametrize("key", RESULT_TABLES, ids="/".join)
def test_a_damaged_table_ends_the_report_with_one_message(
    key: tuple[str, str], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    table = RESULT_TABLES[key]
    path = run.results_path / key[0] / f"{key[1]}.csv"
    good = path.read_bytes()
    (run.path / "report.html").unlink()
    for how in DAMAGES:
        path.write_bytes(damaged(good, how))
        with pytest.raises(RunError, match="as it was written") as raised:
            run.check_results()
        message = str(raised.value)
        assert str(path) in message, how
        assert f"Delete its folder and run `interp reproduce --out {run.path}`" in message, how
        if how in THROUGH_COMMANDS:
            assert message in error_of(run, capsys)
    for column in [column for column in table.columns if column.kind != "text"]:
        rows = pd.read_csv(io.BytesIO(good), dtype=str, keep_default_na=False)
        rows.loc[len(rows) // 2, column.name] = "much"
        path.write_text(rows.to_csv(index=False))
        says = f"line {len(rows) // 2 + 2}, column {column.name!r} holds 'much'"
        with pytest.raises(RunError, match=says):
            run.result(*key)
    assert says in error_of(run, capsys)
    assert not (run.path / "report.html").exists()
    path.write_bytes(good)
    run.check_results()


def test_the_tables_of_a_patching_study(finished: Run, tmp_path: Path) -> None:
    run = finished
    (tmp_path / "runs").symlink_to((run.results_path / "patching" / "runs").resolve())
    table = write_study([run], tmp_path)
    for declared, made, name in (
        (PATCHING_TABLE, table, "table.csv"),
        (PATCHING_COMPARISON, comparison(table), "comparison.csv"),
    ):
        path = tmp_path / name
        assert path.read_text() == made.to_csv(index=False)
        read = declared.read(path).astype({"reference_step": "Int64"})  # never missing in one
        pd.testing.assert_frame_equal(read, made)
        good = path.read_bytes()
        for how in DAMAGES:
            path.write_bytes(damaged(good, how))
            with pytest.raises(RunError, match=r"interp train-patched --out") as error:
                declared.read(path)
            assert str(path) in str(error.value)


def test_emergence_refuses_tables_that_lack_what_it_reads(run: Run) -> None:
    path = run.results_path / "interventions" / "swaps.csv"
    swaps = run.result("interventions", "swaps")
    path.write_text(swaps.drop(columns=["share", "control_share"]).to_csv(index=False))
    run.check_results()  # the report does without
    with pytest.raises(RunError, match=r"swaps\.csv has no column 'share'.*Delete"):
        order_of_emergence(run)


def test_tables_that_no_stage_makes(run: Run) -> None:
    with pytest.raises(ArgumentError, match="Did you mean 'attention/scores'"):
        run.result("attention", "score")
    assert result_table("attention", "scores").name == "attention/scores"


def test_tables_of_a_study_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "rates" / "losses.csv"
    path.parent.mkdir()
    good = "rate,loss,note\n0.1,2.5,a\n0.2,,\n"
    path.write_text(good)
    pd.testing.assert_frame_equal(read_tables(path.parent)["losses"], pd.read_csv(path))
    for how in DAMAGES:
        if how in ("no row", "other columns"):
            continue
        path.write_bytes(damaged(good.encode(), how))
        with pytest.raises(RunError, match=r"settings\.yaml") as error:
            read_tables(path.parent)
        assert str(path) in str(error.value)
    path.write_text("rate,loss,note\n")
    with pytest.raises(RunError, match="no row below its columns"):
        read_tables(path.parent)
    (path.parent / "settings.yaml").write_text("study: rates\nwithout_rows: [losses]\n")
    assert list(read_tables(path.parent)["losses"]) == ["rate", "loss", "note"]
    with pytest.raises(RunError, match=r"it cannot be read.*Look\."):
        read_undeclared(tmp_path / "nowhere.csv", "Look.")


GOOD = b'{"step": 1, "split": "train", "metric": "loss", "attribute": "all", "value": 2.5}\n'


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe\x00\n", "line 1, column 1: a byte that is not UTF-8"),
        (GOOD + b'{"step": 1, "\xe9', ""),  # cut off by a kill
        (GOOD + b'{"\xe9": 1}\n', "line 2, column 3: a byte that is not UTF-8"),
        (GOOD + b"[1, 2]\n", "line 2: it holds a list"),
        (b"null\n", "line 1: it holds null"),
        (b"3\n", "line 1: it holds a number"),
        (GOOD + b"\n", "line 2, column 1: no JSON"),
        (b"step,value\n", "line 1, column 1: no JSON"),
        (b'{"step": 3}\n', "line 1: it lacks 'split'"),
        (
            GOOD.replace(b"1,", b'"a",', 1),
            "line 1: 'step' is \"'a'\": input should be a valid integer",
        ),
        (GOOD.replace(b"1,", b"1.0,", 1), "'step' is '1.0'"),
        (GOOD.replace(b"1,", b"true,", 1), "'step' is 'True'"),
        (GOOD.replace(b"1,", b"-1,", 1), "'step' is '-1'"),
        (GOOD.replace(b"1,", b"1" + b"0" * 30 + b",", 1), "'step' is '10000"),
        (
            GOOD.replace(b"1,", b"1" * 5000 + b",", 1),
            "line 1: it holds a number of thousands of digits",
        ),
        (GOOD.replace(b"2.5", b"null"), "'value' is 'None'"),
        (GOOD.replace(b"2.5", b"NaN"), "line 1: NaN is no number"),
        (GOOD.replace(b"2.5", b"1e999"), "line 1: '1e999' is too large"),
        (GOOD.replace(b"2.5", b"[" * 5000 + b"]" * 5000), "line 1: it is nested too deeply"),
        (GOOD.replace(b"2.5", b"[" * 50 + b"]" * 50), "line 1: it is nested too deeply"),
        (GOOD.replace(b"train", b"\\ud800"), "line 1: it holds half of a character"),
        (GOOD.replace(b"train", b"t" * 50), "'split'"),
        (GOOD + GOOD, "line 2 measures what line 1 does"),
        (GOOD.replace(b"1,", b"7,", 1) + GOOD, "line 2: step 1 after 7"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_damaged_metrics(
    content: bytes, says: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run.metrics_path.write_bytes(content)
    if not says:
        assert len(read_metrics(run.metrics_path)) == 1
        return
    with pytest.raises(RunError, match=re.escape(says)):
        read_metrics(run.metrics_path)
    assert f"{run.metrics_path} is damaged: line" in error_of(run, capsys)


def test_empty_metrics(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.metrics_path.write_bytes(b"")
    assert str(run.path) in error_of(run, capsys)


@pytest.mark.parametrize("content", [b"", b'{"a"', b"\xff", b"[1]", b"3"])
def test_a_damaged_summary(content: bytes, finished: Run, tmp_path: Path) -> None:
    run = Run.load(shutil.copytree(finished.path, tmp_path / "run"))
    path = run.results_path / "attention" / "summary.json"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"summary\.json is damaged.*interp reproduce --out"):
        summary(run)


def test_the_documentation_is_that_of_the_declarations() -> None:
    page = Path(__file__).parents[1] / "docs" / "tables.md"
    written = page.read_text(encoding="utf-8")
    assert written == documentation(), (
        "docs/tables.md is made from interp/run/tables.py; write "
        "interp.run.tables.documentation() into it"
    )
    for table in RESULT_TABLES.values():
        assert f"\n## {table.name}\n" in written


def test_a_row_that_stands_there_twice(tmp_path: Path) -> None:
    columns = (
        Column("step", "integer", "of training"),
        Column("value", "number", "what is measured"),
    )
    table = Table("stage/t", "Values.", columns, "nobody", "Make it again.")
    path = tmp_path / "results" / "stage" / "t.csv"
    path.parent.mkdir(parents=True)
    path.write_text("step,value\n0,1.0\n1,1.0\n0,1.0\n", encoding="utf-8")
    with pytest.raises(RunError, match="line 4 is line 2 again"):
        table.read(path)


def test_a_text_that_a_spreadsheet_would_compute_is_marked_as_text() -> None:
    table = pd.DataFrame({"run": ["=1+1", "a"], "many": [[1], [2]], "loss": [-1.0, 2.0]})
    safe = for_spreadsheets(table)
    assert safe.to_dict("list") == table.assign(run=["'=1+1", "a"]).to_dict("list")
    assert for_spreadsheets(table[["loss"]]).equals(table[["loss"]])
