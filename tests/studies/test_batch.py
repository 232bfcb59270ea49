"""Batches: a description, its runs, and what is written about them."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest
import yaml

from interp import finetuned, plots
from interp.batch import Work, report_batch, run_batch, work_left
from interp.cli import main
from interp.engine import Outcome, Store, run_jobs
from interp.errors import CheckpointError, ConfigError
from interp.report.batch import write_batch_report
from interp.run import Run
from interp.seeds import spread
from interp.studies import registry
from interp.studies.batch import Batch, batch_in, state
from interp.studies.found import Found, markdown, read_tables
from interp.studies.rules import Claim, verdict
from interp.studies.study import Planned, Study, StudySettings, Tables

SHORT = {
    "training.precision": "fp32",
    "training.n_steps": 6,
    "training.early_checkpoints": (0,),
    "training.checkpoint_every": 6,
    "evaluation.every": 3,
}


class RateSettings(StudySettings):
    preset: str = "smoke"
    rates: tuple[float, ...] = (1e-3, 2e-3)
    tuned: bool = False


def runs(settings: RateSettings) -> list[Planned]:
    planned = [
        Planned(settings.config(seed, **SHORT, **{"optimizer.learning_rate": rate}))
        for seed in settings.seeds
        for rate in settings.rates
    ]
    if settings.tuned:
        base = planned[0]
        short = {name: value for name, value in SHORT.items() if "early" not in name}
        planned.append(Planned(finetuned(base.config, **short), base))
    return planned


def tables(settings: RateSettings, runs: Sequence[Run]) -> Tables:
    rows = [
        {
            "seed": run.config.seed,
            "rate": run.config.optimizer.learning_rate,
            "value": float(run.curve().iloc[-1]),
        }
        for run in runs
    ]
    return {"losses": pd.DataFrame(rows)}


def figures(tables: Tables) -> dict[str, go.Figure]:
    figure = go.Figure(go.Scatter(x=tables["losses"]["rate"], y=tables["losses"]["value"]))
    return {"losses": plots.describe(figure, "Losses", "Look for a slope.")}


def claims(tables: Tables) -> list[Claim]:
    by_seed = tables["losses"].groupby("seed")["value"].mean()
    return [
        Claim(
            claim="The loss is finite.",
            paper="1 | 2",
            measured=spread(by_seed),
            verdict=verdict(by_seed < 100),
            rule="agree if it is below 100 nats in every seed.",
        )
    ]


DOC = """Rates.

Which rate?

Command: interp batch rates --out runs/rates
Duration: 4 runs, seconds
"""
RATES = Study("rates", DOC, RateSettings, runs, tables, figures, claims)


@pytest.fixture(autouse=True)
def with_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.STUDIES, "rates", RATES)


def described(*entries: dict[str, Any]) -> Batch:
    return Batch.parse({"studies": list(entries)})


def test_studies_share_runs_and_find_them_again(tmp_path: Path) -> None:
    batch = described(
        {"study": "rates", "seeds": [0, 1]},
        {"study": "rates", "name": "one", "seeds": [0], "settings": {"rates": [2e-3]}},
    )
    whole, one = run_batch(batch, tmp_path, progress=False)
    assert (whole.n_runs, whole.n_finished, one.n_runs) == (4, 4, 1)
    assert len(list((tmp_path / "runs").iterdir())) == 4, "the shared run is there once"
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/*/finished.json")}
    before = (tmp_path / "rates/losses.csv").read_bytes()
    run_batch(batch, tmp_path, progress=False)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/*/finished.json")} == stamps
    assert (tmp_path / "rates/losses.csv").read_bytes() == before
    pd.testing.assert_frame_equal(read_tables(tmp_path / "rates")["losses"], whole.tables["losses"])
    written = pd.read_csv(tmp_path / "rates/claims.csv")
    assert list(written["verdict"]) == ["agree"]
    assert yaml.safe_load((tmp_path / "one/settings.yaml").read_text())["settings"]["rates"] == [
        2e-3
    ]
    assert batch_in(tmp_path) == batch


def test_a_base_is_trained_before_what_starts_from_it(tmp_path: Path) -> None:
    batch = described({"study": "rates", "seeds": [0], "settings": {"tuned": True}})
    [found] = run_batch(batch, tmp_path, progress=False)
    assert found.n_finished == 3
    tuned = runs(RateSettings(seeds=(0,), tuned=True))[-1]
    base = Store(tmp_path / "runs").folder(tuned.base.config)
    run = Store(tmp_path / "runs").run(tuned.config)
    assert Path(run.config.finetuning.base) == base
    start, end = run.model(0).state_dict(), Run.load(base).model().state_dict()
    assert all((start[name] == end[name]).all() for name in end)


def test_a_failed_run_is_told_and_the_rest_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b.yaml").write_text(
        "studies:\n- {study: rates, seeds: [0], settings: {rates: [1.0e-3, 1.0e+30]}}\n"
    )
    with pytest.raises(SystemExit) as ended:
        main(["batch", str(tmp_path / "b.yaml"), "--out", str(tmp_path / "out")])
    assert ended.value.code == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "Not everything could be finished" in error
    assert "DivergedError" in error
    assert len(pd.read_csv(tmp_path / "out/rates/losses.csv")) == 1
    page = (tmp_path / "out/report.html").read_text()
    assert "1 runs are not finished" in page
    assert "DivergedError" in page


def test_a_study_that_cannot_read_its_runs_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def damaged(settings: RateSettings, runs: Sequence[Run]) -> Tables:
        raise CheckpointError("step 6 is damaged")

    monkeypatch.setitem(registry.STUDIES, "broken", replace(RATES, name="broken", tables=damaged))
    with pytest.raises(SystemExit) as ended:
        main(["batch", "broken", "rates", "--seeds", "0", "--out", str(tmp_path)])
    assert ended.value.code == 1
    assert "broken: step 6 is damaged" in capsys.readouterr().err
    assert (tmp_path / "rates/losses.csv").exists()
    assert "step 6 is damaged" in (tmp_path / "report.html").read_text()


def test_another_batch_in_the_same_folder_is_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = described({"study": "rates", "seeds": [0]})
    before = work_left(first, tmp_path)
    run_batch(first, tmp_path, progress=False)
    assert (before.n_runs, before.n_left) == (2, 2)
    assert before.seconds > 0
    assert work_left(first, tmp_path) == Work(n_runs=2, n_left=0, seconds=0)
    more = {"study": "rates", "name": "more", "seeds": [0], "settings": {"rates": [1e-3, 3e-3]}}
    run_batch(described(more), tmp_path, progress=False)
    assert len(list((tmp_path / "runs").iterdir())) == 3
    both = batch_in(tmp_path)
    assert both is not None
    assert [entry.label for entry in both.studies] == ["rates", "more"]
    main(["studies", str(tmp_path)])
    assert "more" in capsys.readouterr().out


def sections(folder: Path) -> list[str]:
    """The studies on a batch's page, by the headings of their sections."""
    page = (folder / "report.html").read_text()
    return re.findall(r'<section aria-labelledby="(?!summary|overview)([^"]+)"', page)


def one(name: str) -> Batch:
    return described({"study": "rates", "name": name, "seeds": [0], "settings": {"rates": [1e-3]}})


def test_the_page_shows_every_study_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of batches one after the other and at the same time, whoever writes last."""
    run_batch(one("first"), tmp_path, progress=False)
    alone = (tmp_path / "report.html").read_bytes()
    assert sections(tmp_path) == ["first"]
    run_batch(one("second"), tmp_path, progress=False)
    assert sections(tmp_path) == ["first", "second"]

    def meanwhile(*arguments: Any, **options: Any) -> Outcome:
        monkeypatch.setattr("interp.batch.run_jobs", run_jobs)
        run_batch(one("inner"), tmp_path, progress=False)
        assert "outer" not in sections(tmp_path), "nothing is found yet"
        return run_jobs(*arguments, **options)

    monkeypatch.setattr("interp.batch.run_jobs", meanwhile)
    [found] = run_batch(one("outer"), tmp_path, progress=False)
    assert found.label == "outer"
    assert sections(tmp_path) == ["first", "second", "outer", "inner"]
    whole = (tmp_path / "report.html").read_bytes()
    run_batch(one("first"), tmp_path / "alone", progress=False)
    assert (tmp_path / "alone/report.html").read_bytes() == alone
    report_batch(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == whole


def test_batches_of_one_name_leave_what_belongs_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The description has the settings of the tables, those of whoever wrote last."""
    ours = described({"study": "rates", "seeds": [0], "settings": {"rates": [2e-3]}})

    def meanwhile(*arguments: Any, **options: Any) -> Outcome:
        monkeypatch.setattr("interp.batch.run_jobs", run_jobs)
        run_batch(described({"study": "rates", "seeds": [0]}), tmp_path, progress=False)
        return run_jobs(*arguments, **options)

    monkeypatch.setattr("interp.batch.run_jobs", meanwhile)
    run_batch(ours, tmp_path, progress=False)
    assert batch_in(tmp_path) == ours
    assert list(read_tables(tmp_path / "rates")["losses"]["rate"]) == [2e-3]


def test_a_folder_that_holds_no_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["studies", str(tmp_path)])
    assert ended.value.code == 2
    assert "holds no batch" in capsys.readouterr().err


def test_a_batch_without_a_finished_run_has_a_report(tmp_path: Path) -> None:
    batch = described({"study": "rates", "seeds": [0], "settings": {"rates": [1e30]}})
    found = run_batch(batch, tmp_path, progress=False)
    page = write_batch_report(found, tmp_path / "report.html").read_text()
    assert "nothing to show yet" in page


def test_the_report_says_claim_paper_measured_verdict_and_rule(tmp_path: Path) -> None:
    found = run_batch(described({"study": "rates"}), tmp_path, progress=False)
    page = write_batch_report(found, tmp_path / "report.html").read_text()
    for text in ("The loss is finite", "1 | 2", "agree", "below 100 nats", "Which rate?"):
        assert text in page
    assert "What was measured agrees".lower() in page.lower()
    assert "3 claims" not in page
    assert "1 claims of 1 studies" in page


def test_what_is_finished(tmp_path: Path) -> None:
    batch = described({"study": "rates", "seeds": [0]}, {"study": "rates", "name": "b"})
    assert list(state(batch)["finished"]) == [0, 0]
    run_batch(described({"study": "rates", "seeds": [0]}), tmp_path, progress=False)
    found = state(batch, tmp_path)
    assert list(found["runs"]) == [2, 6]
    assert list(found["finished"]) == [2, 2]


def test_the_readme_table() -> None:
    claim = Claim("A | b.", "1", "2", "cannot tell", "r")
    text = markdown({"Rates": [claim]})
    assert text.splitlines()[2] == "| Rates | A / b. | 1 | 2 | **cannot tell** |"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("studies: [", ["no YAML"]),
        ("- a", ["a mapping with the key `studies`", "list"]),
        ("studies: []", ["no study"]),
        ("studies: [{study: rate}]", ["no study 'rate'", "Did you mean 'rates'?"]),
        ("studies: [{stdy: rates}]", ["stdy", "Did you mean 'study'?"]),
        ("stdies: []", ["stdies", "Did you mean 'studies'?"]),
        ("studies: [{study: rates, seeds: [0, 0]}]", ["seeds=[0, 0]", "each once"]),
        ("studies: [{study: rates, seeds: []}]", ["at least one"]),
        (
            "studies: [{study: rates, settings: {ratse: [1]}}]",
            ["rates", "ratse", "Did you mean 'rates'?"],
        ),
        ("studies: [{study: rates, settings: {rates: [fast]}}]", ["rates.0", "fast"]),
        ("studies: [{study: rates, seeds: [1], settings: {seeds: [0]}}]", ["given twice"]),
        ("studies: [{study: rates}, {study: rates}]", ["'rates' twice", "`name`"]),
        ("studies: [{study: rates, name: ../up}]", ["'../up'", "letters"]),
        ("studies: [{study: rates, name: runs}]", ["'runs'", "where the runs lie"]),
        (
            "studies: [{study: rates, settings: {run: {seed: 3}}}]",
            ["run: seed is what this study varies"],
        ),
    ],
)
def test_a_description_that_cannot_work(text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        Batch.from_yaml(text)
    for word in words:
        assert word in str(error.value)


def test_run_settings_that_cannot_work_are_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    batch = described({"study": "rates", "settings": {"run": {"training.n_stepz": 3}}})
    with pytest.raises(ConfigError, match=r"training\.n_steps"):
        run_batch(batch, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("holds", "expected"),
    [
        ([True, True, True], "agree"),
        ([False, False], "disagree"),
        ([True, False, True], "cannot tell"),
        ([True], "cannot tell"),
        ([True, None, True], "agree"),
        ([], "cannot tell"),
    ],
)
def test_seeds_have_to_say_the_same(holds: list[bool | None], expected: str) -> None:
    assert verdict(holds) == expected


def test_found_without_runs_has_no_tables() -> None:
    found = Found("rates", RATES, RateSettings(), 2, 0, {}, [])
    assert not found.failures
