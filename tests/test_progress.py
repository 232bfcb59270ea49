"""Progress: what is left of a job, how it is shown, and that everything long reports from start to end."""

import fcntl
import io
import os
import re
import shutil
import struct
import sys
import termios
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

import interp
from interp.attention import attention_to_names, knockout
from interp.config import Config
from interp.engine.kinds import share_done
from interp.errors import ConfigError
from interp.memory import ablations, measure_memory, recall_edges, swaps
from interp.progress import (
    Forecast,
    Job,
    LiveLine,
    LogLines,
    Progress,
    counted,
    in_words,
    part,
    parts,
    screen_for,
    showing,
    silent,
)
from interp.run import Run, checkpoint_path
from interp.stages import MEMORY_STAGES, STAGES, reproduce, run_stages
from interp.studies import patching, run_grid
from tests.conftest import MainJob
from tests.helpers import Recorder


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Paper:
    """A screen that keeps what is drawn."""

    interval = 3600.0

    def __init__(self) -> None:
        self.drawn: list[tuple[float, str]] = []
        self.closed = False

    def draw(self, share: float | int, text: str) -> None:
        self.drawn.append((share, text))

    def clear(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def test_parts_of_a_whole() -> None:
    whole = Recorder()
    first, second = parts(whole, (1, 3))
    first(0.5)
    first(1)
    part(second, 0.5, 1.0)(0.5, "late")
    assert whole.shares == [0.125, 0.25, 0.25 + 0.75 * 0.75]
    assert whole.notes[-1] == "late"


def test_counted_reports_what_is_done_not_what_has_begun() -> None:
    told = Recorder()
    for count, _ in enumerate(counted("abcd", 4, "letter", told)):
        assert told.shares[-1] == count / 4
    told.require_whole()
    assert told.notes[1:] == [f"letter {n} of 4" for n in (1, 2, 3, 4)]


def test_forecast_before_anything_is_seen_is_what_was_expected() -> None:
    forecast = Forecast([30, 60], Clock())
    forecast.begin(0)
    assert (forecast.left_of_task, forecast.left, forecast.share) == (30, 90, 0)


def test_forecast_learns_how_slow_the_machine_is() -> None:
    clock = Clock()
    forecast = Forecast([100, 100], clock)
    forecast.begin(0)
    forecast.reach(0)
    for share in (0.25, 0.5, 0.75, 1.0):
        clock.now += 75  # three times as slow as expected
        forecast.reach(share)
    assert forecast.left_of_task == 0
    forecast.finish()
    assert forecast.share == 0.5
    forecast.begin(1)
    assert 250 < forecast.left < 300, "nearly three times of what is expected"
    clock.now += 150
    forecast.reach(0.5)
    assert 135 < forecast.left < 150


def test_forecast_by_a_task_whose_cost_was_misjudged() -> None:
    clock = Clock()
    forecast = Forecast([1000, 10], clock)
    forecast.begin(0)
    forecast.reach(0)
    clock.now += 45
    forecast.reach(0.9)
    assert 5 <= forecast.left_of_task < 12, "its own pace counts more than the guess"


def test_forecast_counts_down_between_reports_and_never_below_nothing() -> None:
    clock = Clock()
    forecast = Forecast([100], clock)
    forecast.begin(0)
    forecast.reach(0)
    clock.now += 50
    forecast.reach(0.5)
    first = forecast.left
    clock.now += 10
    assert forecast.left == pytest.approx(first - 10)
    clock.now += 1000
    assert forecast.left == 0


def test_forecast_of_what_goes_on_after_a_kill() -> None:
    clock = Clock()
    forecast = Forecast([100, 50, 50], clock)
    forecast.skip(1)
    forecast.begin(0)
    forecast.reach(0.8)
    assert forecast.share == pytest.approx((80 + 50) / 200)
    clock.now += 10
    forecast.reach(0.9)
    # The first 80 took no time here; ten more took 10 s.
    assert forecast.left_of_task == pytest.approx(10)
    assert forecast.left == pytest.approx(60)


def test_forecast_never_goes_back() -> None:
    forecast = Forecast([10], Clock())
    forecast.begin(0)
    forecast.reach(0.6)
    forecast.reach(0.4)
    assert forecast.share_of_task == 0.6


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "a few seconds"),
        (12, "about 10 s"),
        (89, "about 90 s"),
        (95, "about 2 min"),
        (700, "about 12 min"),
        (5500, "about 1.5 h"),
    ],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_a_job_shows_the_stage_and_the_whole() -> None:
    clock, paper = Clock(), Paper()
    with Job({"one": 100.0, "two": 300.0}, screen=paper, clock=clock) as job:
        with job.task("one") as report:
            report(0.0)
            clock.now += 50
            report(0.5, "step 5 of 10")
            job.draw()
        with job.task("two") as report:
            job.draw()
        job.draw()
    assert paper.drawn[0] == (
        0.5,
        "about 50 s left | whole job 12%, about 6 min left | step 5 of 10",
    )
    assert paper.drawn[1][1].startswith("about 3 min left | whole job 25%")
    assert len(paper.drawn) == 2, "between tasks there is nothing to show"
    assert paper.closed


def test_a_job_tells_its_share_of_the_whole_to_who_asks() -> None:
    told = Recorder()
    with Job({"one": 1.0, "two": 3.0}, told) as job:
        job.skip("one")
        with job.task("two") as report:
            report(0.5, "half")
    assert told.shares == [0.25 + 0.375, 1.0]


def test_a_task_that_fails_closes_the_screen() -> None:
    paper = Paper()
    job = Job({"one": 1.0}, screen=paper)
    with pytest.raises(ValueError, match="no"), job, job.task("one"):
        raise ValueError("no")
    assert paper.closed


def test_a_title_is_said_with_the_line_out_of_the_way() -> None:
    said = []
    with Job({"one": 1.0}, False) as job, job.task("one", lambda: said.append("one")):
        assert said == ["one"]


def test_a_log_gets_lines_without_control_characters() -> None:
    log = io.StringIO()
    screen = screen_for(log)
    assert isinstance(screen, LogLines)
    assert 10 <= screen.interval <= 30
    with Job({"one": 100.0, "two": 1.0}, screen=screen) as job, job.task("one") as report:
        report(0.25, "checkpoint 1 of 4")
        job.draw()
    line = log.getvalue()
    assert re.fullmatch(
        r"   25%  about \d+ s left \| whole job 25%, about \d+ s left \| checkpoint 1 of 4\n", line
    )
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", line)


@pytest.mark.parametrize(("rows", "screen"), [(0, LogLines), (24, LiveLine)])
def test_a_terminal_is_drawn_on_if_it_says_how_large_it_is(rows: int, screen: type) -> None:
    main, other = os.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 80, 0, 0))
    with os.fdopen(main), os.fdopen(other, "w") as terminal:
        found = screen_for(terminal)
        found.close()
    assert isinstance(found, screen)


def test_the_line_is_drawn_in_time_without_a_report() -> None:
    log = io.StringIO()
    screen = LogLines(log)
    screen.interval = 0.01
    with Job({"one": 100.0}, screen=screen) as job, job.task("one"):
        for _ in range(500):
            if log.getvalue().count("\n") > 2:
                break
            time.sleep(0.01)
    assert "left" in log.getvalue()


def test_a_terminal_gets_one_line_that_moves() -> None:
    terminal = io.StringIO()
    with Job({"one": 10.0}, screen=LiveLine(terminal)) as job, job.task("one") as report:
        for share in (0.25, 0.5):
            report(share, f"at {share}")
            job.draw()
    shown = terminal.getvalue()
    assert "\n" not in shown.rstrip("\n")
    assert shown.index(" 25% |") < shown.index(" 50% |")
    assert "at 0.5" in shown


def test_showing_hands_on_what_it_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    told = Recorder()
    with showing("x", 1.0, told) as report:
        assert report is told
    with showing("x", 1.0, False) as report:
        assert report is silent
    assert capsys.readouterr() == ("", "")


ANALYSES = {
    "attention_to_names": lambda run, **how: attention_to_names(run, **how),
    "knockout": lambda run, **how: knockout(run, n_individuals=4, **how),
    "memory": lambda run, **how: measure_memory(run, n_individuals=8, **how).probes,
    "swaps": lambda run, **how: swaps(run, n=6, **how),
    "edges": lambda run, **how: recall_edges(run, n=6, **how),
    "ablations": lambda run, **how: ablations(run, n_individuals=4, **how),
}


@pytest.mark.parametrize("name", ANALYSES)
def test_analyses_report_from_start_to_end(smoke_run: Run, name: str) -> None:
    told = Recorder()
    ANALYSES[name](smoke_run, progress=told)
    told.require_whole()
    assert re.match(r"checkpoint \d of \d", told.notes[-1])


@pytest.mark.parametrize("name", ["attention_to_names", "memory", "swaps"])
def test_several_processes_give_the_bits_of_one(smoke_run: Run, name: str) -> None:
    told = Recorder()
    one = ANALYSES[name](smoke_run, workers=1)
    two = ANALYSES[name](smoke_run, workers=2, progress=told)
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    told.require_whole()


def test_workers_leave_the_number_of_threads(smoke_run: Run) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        attention_to_names(smoke_run, [0], workers=1)
        with pytest.raises(ConfigError, match="workers=0"):
            attention_to_names(smoke_run, [0], workers=0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_stage_expects_more_of_a_larger_run(stage) -> None:
    tiny, small = interp.preset("tiny"), interp.preset("small")
    assert 0 < stage.expected_seconds(tiny) <= stage.expected_seconds(small)


def test_training_reports_from_start_to_end(short: Config, tmp_path: Path) -> None:
    told = Recorder()
    interp.train(short, tmp_path, progress=told)
    told.require_whole()
    assert len(told.shares) == 13
    assert re.fullmatch(r"step 12 of 12, attribute loss \d+\.\d\d, \w+", told.notes[-1])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_grid_reports_its_runs_together(
    short: Config, short_run: Run, tmp_path: Path, workers: int
) -> None:
    told = Recorder()
    configs = {f"seed{seed}": short.with_settings(seed=seed) for seed in (0, 1)}
    runs = run_grid(configs, tmp_path, workers, progress=told)
    told.require_whole()
    assert runs["seed0"].metrics_path.read_bytes() == short_run.metrics_path.read_bytes()
    before = runs["seed1"].finished_path.stat().st_mtime_ns
    again = Recorder()
    runs = run_grid(configs, tmp_path, workers, progress=again)
    assert again.shares[-1] == pytest.approx(1)
    assert runs["seed1"].finished_path.stat().st_mtime_ns == before, "each run is trained once"


def test_how_far_a_run_of_another_process_is(short: Config, short_run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert share_done(short, folder) == 0
    folder.mkdir()
    lines = short_run.metrics_path.read_bytes().splitlines(keepends=True)
    half = [line for line in lines if b'"step": 6,' in line]
    (folder / "metrics.jsonl").write_bytes(b"".join([*half, lines[-1][:20]]))
    assert share_done(short, folder) == 0.5
    assert share_done(short, short_run.path) == 1


def test_the_patching_study_reports_references_and_patched_runs(
    short_run: Run, tmp_path: Path
) -> None:
    told = Recorder()
    patching([short_run], tmp_path, [0], seeds=[0, 3], until=4, progress=told)
    told.require_whole()


def test_the_main_job_reports_every_stage_and_counts_what_is_finished(
    finished: Run, main_job: MainJob, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    main_job.told.require_whole()
    assert len(np.unique(main_job.told.shares)) > 40
    assert len(main_job.titles) == len(STAGES) + 2

    run = Run.load(shutil.copytree(finished.path, tmp_path / "run"))
    shutil.rmtree(run.results_path / "knowledge")
    again = Recorder()
    reproduce(run.config, run.path, progress=again)
    assert again.shares[0] > 0.05, "what was finished before counts from the start"
    assert again.shares == sorted(again.shares)
    assert again.shares[-1] == pytest.approx(1)

    reproduce(run.config, run.path, progress=False)
    assert capfd.readouterr() == ("", ""), "nothing is printed"


def test_the_memory_stages_report(short_run: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(short_run.path, tmp_path / "run"))
    for step in (4, 8):
        checkpoint_path(run.path, step).unlink()
    told = Recorder()
    run_stages(run, MEMORY_STAGES, progress=told)
    told.require_whole()


def test_recorders_are_progress() -> None:
    assert isinstance(silent, Progress)
    assert isinstance(Recorder(), Progress)


def test_a_notebook_is_drawn_in_and_a_mere_import_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shell:
        kernel = object()

    for shell, screen in ((Shell(), LiveLine), (object(), LogLines), (None, LogLines)):
        ipython = ModuleType("IPython")
        ipython.get_ipython = lambda shell=shell: shell  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
        assert isinstance(screen_for(io.StringIO()), screen)
