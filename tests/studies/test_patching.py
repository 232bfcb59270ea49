"""The study of attention patching: its grid, its table, and its command."""

from pathlib import Path

import pandas as pd
import pytest

import interp
from interp.cli import main
from interp.errors import CheckpointError, ConfigError, RunError
from interp.phases import Phases
from interp.run import Run
from interp.stages import reproduce, run_stages, summary
from interp.studies import comparison, default_reference_steps, patching, write_study
from interp.studies.cells import SAME, Cell, default_until, grid
from tests.helpers import few_pairs


class Checkpointed(Run):
    """A run of which only checkpoints and phases are known."""

    def __init__(self, steps: list[int], statistics_end: int | None, plateau_end: int | None):
        super().__init__("nowhere")
        self._steps = steps
        self._phases = Phases(statistics_end, plateau_end, baseline=5.0, delta=0.05)

    @property
    def steps(self) -> list[int]:
        return self._steps

    @property
    def phases(self) -> Phases:
        return self._phases


@pytest.mark.parametrize(
    ("statistics_end", "plateau_end", "expected", "until"),
    [
        (200, 300, (0, 100, 200, 225, 250, 275, 300, 600, 1500), 600),
        (200, None, (0, 100, 200, 1500), 1500),
        (None, None, (0, 1500), 1500),
        (200, 1000, (0, 100, 200, 400, 600, 800, 1000, 1500), 1500),
    ],
)
def test_reference_steps_follow_from_the_phases(
    statistics_end: int | None, plateau_end: int | None, expected: tuple[int, ...], until: int
) -> None:
    run = Checkpointed(list(range(0, 1501, 25)), statistics_end, plateau_end)
    assert default_reference_steps(run) == expected
    assert default_until(run) == until


def test_the_grid_has_every_combination_once() -> None:
    cells = grid([0, 4], [0, SAME], [None, (1,)])
    assert Cell(4, 4, (1,)) in cells
    assert len(cells) == len(set(cells)) == 6, "start 0 and same are one cell at reference step 0"
    assert Cell(4, 0, (0, 1), (1,)).name(2, 30) == (
        "seed2_reference000004_start000000_layers0-1_heads1_until000030"
    )


@pytest.fixture(scope="module")
def study(short_run: Run, tmp_path_factory) -> tuple[pd.DataFrame, Path]:
    out = tmp_path_factory.mktemp("study")
    table = patching([short_run], out, [0, 12], [0, SAME], [None, (0,)], until=8, progress=False)
    return table, out


def test_the_table_holds_patched_and_unpatched_curves(study, short_run: Run) -> None:
    table, _ = study
    assert list(table.columns) == [
        "seed", "reference_step", "start", "layers", "heads", "step", "metric", "value",
    ]  # fmt: skip
    unpatched = table[table["reference_step"].isna() & (table["metric"] == "attribute_loss")]
    assert list(unpatched["value"]) == list(short_run.curve())
    patched = table[table["reference_step"].notna()]
    runs = patched.groupby(["reference_step", "start", "layers"]).size()
    assert len(runs) == 4, "starting at step 12 of a run that ends at 8 is left out"
    assert set(patched["step"]) == {0, 2, 4, 6, 8}


def test_a_gain_is_the_loss_that_the_unpatched_run_has_more(study) -> None:
    compared = comparison(study[0])
    assert (compared["gain"] == compared["unpatched"] - compared["value"]).all()
    at_zero = compared[compared["step"] == 0]
    own = at_zero[at_zero["reference_step"] == 0]
    # At step 0 the untrained reference is the model itself.
    assert own["gain"].abs().max() < 1e-6
    assert at_zero[at_zero["reference_step"] == 12]["gain"].abs().min() > 0


def test_finished_runs_are_kept_and_grids_add_up(study, short_run: Run) -> None:
    table, out = study
    stamps = {p: p.stat().st_mtime_ns for p in out.glob("runs/*/finished.json")}
    again = patching([short_run], out, [0, 12], [0, SAME], [None, (0,)], until=8, progress=False)
    pd.testing.assert_frame_equal(table, again)
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    patching([short_run], out, [4], heads=[(1,)], until=8, progress=False)
    whole = write_study([short_run], out)
    assert len(whole) == len(table) + 10
    assert len(pd.read_csv(out / "table.csv")) == len(whole)
    assert len(pd.read_csv(out / "comparison.csv")) == 5 * 5


def test_seeds_without_a_run_are_trained(short_run: Run, tmp_path: Path) -> None:
    table = patching([short_run], tmp_path, [12], seeds=[0, 3], until=2, progress=False)
    unpatched = Run.load(tmp_path / "runs" / "seed3_unpatched")
    assert unpatched.finished
    patched = Run.load(tmp_path / "runs" / "seed3_reference000012_start000000_until000002")
    assert patched.config.patching.reference == str(unpatched.path)
    assert patched.config.seed == 3
    assert set(table["seed"]) == {0, 3}


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"reference_steps": [3]}, CheckpointError, "no checkpoint at step 3"),
        ({"layers": [(2,)]}, ConfigError, "there is no layer 2"),
        ({"heads": [(0, 9)]}, ConfigError, "there is no head 9"),
        ({"start_steps": [8]}, ConfigError, "No cell is left"),
        ({"seeds": []}, ConfigError, "seeds is empty"),
        ({"workers": 0}, ConfigError, "workers=0: expected a whole number"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_before_training(
    short_run: Run, tmp_path: Path, arguments, error, says: str
) -> None:
    with pytest.raises(error, match=says):
        patching([short_run], tmp_path, **{"until": 8, "progress": False, **arguments})
    assert not list(tmp_path.glob("runs/*"))


def test_references_that_differ_are_refused(
    short_run: Run, smoke_run: Run, study, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"in more than its seed: .*training.n_steps"):
        patching([short_run, smoke_run], tmp_path)
    with pytest.raises(RunError, match="have the same seed"):
        patching([short_run, short_run], tmp_path)
    patched = next(study[1].glob("runs/*reference*"))
    with pytest.raises(RunError, match="itself a patched run"):
        patching([Run.load(patched)], tmp_path)


def test_the_command_writes_tables_and_a_page(
    short_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = str(short_run.path), str(tmp_path / "study")
    main(["train-patched", run, "--out", out, "--reference-steps", "0", "12", "--layers", "all", "0,1",
          "--start-steps", "0", "4", "--until", "8"])  # fmt: skip
    assert "report:" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "study" / "table.csv")
    assert set(table["layers"].dropna()) == {"all", "0 1"}
    page = (tmp_path / "study" / "report.html").read_text()
    assert "patching-curves" in page
    assert "Content-Security-Policy" in page


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--start-steps", "soon"], "word same"),
        (["--layers", "a"], "give all"),
        (["--reference-steps", "5"], "Steps: 0, 4, 8, 12"),
    ],
)
def test_the_command_explains_what_is_wrong(
    short_run: Run, tmp_path: Path, flags: list[str], says: str, capsys
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train-patched", str(short_run.path), "--out", str(tmp_path / "study"), *flags])
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err


@pytest.fixture
def patched_config(short_run: Run, short: interp.Config) -> interp.Config:
    return short.with_settings(
        **{
            "patching.reference": str(short_run.path),
            "patching.reference_step": 12,
            "training.checkpoint_every": 12,
            "evaluation.splits": ["evaluation"],
        }
    )


def require_stages_of_its_own(run: Run) -> None:
    found = summary(run)
    assert "skipped" in found["patching"]
    loss = run.curve().iloc[-1]
    assert found["knowledge"]["evaluation"]["attribute_loss"] == pytest.approx(loss, rel=1e-5)


def test_a_patched_run_has_stages_of_its_own(patched_config: interp.Config, tmp_path: Path) -> None:
    run = interp.train(patched_config, tmp_path / "run", progress=False)
    run_stages(run, ("phases", "knowledge", "attention", "patching"))
    require_stages_of_its_own(run)


@pytest.mark.slow
def test_a_patched_run_has_a_report_and_all_stages(
    patched_config: interp.Config, tmp_path: Path
) -> None:
    """The other stages measure it as any run: `over_steps` gives it the attention it was trained with."""
    with few_pairs():
        run = reproduce(patched_config, tmp_path / "run", progress=False)
    require_stages_of_its_own(run)
    assert (run.path / "report.html").exists()
