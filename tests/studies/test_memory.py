"""The memory study: its stages, its tables of several seeds, its page, and its command."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp.config import Config
from interp.errors import ConfigError, InterpError, RunError
from interp.files import folder_lock
from interp.memory import MECHANISMS, half_strength_step
from interp.memory.emergence import FAINT
from interp.phases import Phases
from interp.presets import preset
from interp.report.memory import HEADLINE, dated
from interp.report.memory_study import write_memory_report
from interp.run import Run
from interp.series import steps_around_plateau
from interp.stages import MEMORY_STAGES, STAGES, intervene, run_stages
from interp.studies import memory_tables, write_memory_study
from interp.studies.memory import TABLES
from tests.helpers import few_pairs, run_cli

COLUMNS = {
    "emergence": ["mechanism", "seed", "step", "start", "final", "phase"],
    "strengths": ["seed", "mechanism", "step", "value", "control", "strength"],
    "keys": ["seed", "step", "layer", "position", "split", "metric", "value", "control"],
    "values": [
        "seed", "step", "layer", "position", "path", "metric", "attribute", "value", "control",
    ],
    "probes": [
        "seed", "step", "site", "layer", "position", "attribute", "accuracy", "control",
        "selectivity", "accuracy_other_people", "control_other_people", "selectivity_other_people",
    ],
    "swaps": [
        "seed", "step", "sentences", "site", "layer", "position", "n", "follows", "kept",
        "unpatched", "control", "effect", "share", "control_share",
    ],
    "edges": [
        "seed", "step", "layer", "query", "key", "cost", "kept", "control", "share", "control_share",
    ],
    "ablations": ["seed", "step", "layer", "position", "loss", "intact", "cost"],
    "attribution": [
        "seed", "site", "layer", "head", "neurons", "position", "exact", "approximate", "error", "n",
    ],
}  # fmt: skip
FIGURES = (
    "emergence-order", "strength-curves", "swap-success", "swap-sites", "mlp-ablation",
    "key-selectivity", "promoted-values", "key-value-agreement", "probe-curves", "probe-sites",
)  # fmt: skip
STEPS = [0, 12]
TITLES = [stage.title for stage in STAGES if stage.name in MEMORY_STAGES]


def stamps(run: Run) -> dict[Path, int]:
    """When each file of a run's results was written."""
    files = [path for path in run.results_path.rglob("*") if path.is_file()]
    return {path.relative_to(run.path): path.stat().st_mtime_ns for path in files}


def copied(run: Run, to: Path) -> Run:
    """A copy that a test may change."""
    shutil.copytree(run.path, to)
    return Run.load(to)


@pytest.fixture(scope="module")
def bare(short: Config, trained) -> list[Run]:
    """Two seeds of twelve steps, trained and nothing else."""
    config = short.with_settings(**{"training.checkpoint_every": 12})
    return [trained(config.with_settings(seed=seed)) for seed in (0, 1)]


@pytest.fixture(scope="module")
def runs(bare: list[Run], tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """The same with the stages of the memory study; read-only."""
    folder = tmp_path_factory.mktemp("studied")
    found = [copied(run, folder / run.path.name) for run in bare]
    for run in found:
        announced: list[str] = []
        with few_pairs():
            run_stages(run, tuple(reversed(MEMORY_STAGES)), announced.append)
        assert announced == TITLES, "stages run in their own order, each once"
    return found


def test_finished_stages_are_kept_and_missing_ones_run(runs: list[Run], tmp_path: Path) -> None:
    run = copied(runs[0], tmp_path / "run")
    before, announced = stamps(run), []
    run_stages(run, MEMORY_STAGES, announced.append)
    assert announced == []
    assert stamps(run) == before
    # Tables without a summary are what a killed stage leaves.
    (run.results_path / "emergence" / "summary.json").unlink()
    assert run.result("emergence", "steps") is None
    run_stages(run, MEMORY_STAGES, announced.append)
    assert announced == ["Find the order in which mechanisms emerge"]
    after = stamps(run)
    assert after.keys() == before.keys()
    changed = {path.parts[1] for path in after if after[path] != before[path]}
    assert changed == {"emergence"}
    assert run.result("emergence", "steps").equals(runs[0].result("emergence", "steps"))


def test_stages_that_are_not_named_do_not_run(bare: list[Run], tmp_path: Path) -> None:
    run = copied(bare[0], tmp_path / "run")
    run_stages(run, ("phases",))
    assert [path.name for path in run.results_path.iterdir()] == ["phases"]


def test_an_unfinished_run_is_refused(bare: list[Run], tmp_path: Path) -> None:
    run = copied(bare[0], tmp_path / "run")
    (run.path / "finished.json").unlink()
    with pytest.raises(RunError, match=r"trained to its end.*--resume"):
        run_stages(run, MEMORY_STAGES)
    assert not run.results_path.exists()


def test_a_run_that_is_being_written_is_refused(bare: list[Run], tmp_path: Path) -> None:
    run = copied(bare[0], tmp_path / "run")
    with folder_lock(run.path), pytest.raises(RunError, match="Another process is writing"):
        run_stages(run, ("phases",))
    assert not run.results_path.exists()


def test_emergence_names_the_stage_that_it_lacks(bare: list[Run], tmp_path: Path) -> None:
    run = copied(bare[0], tmp_path / "run")
    says = f"of the stage 'attention', which '{next(iter(MECHANISMS))}' is read from"
    with pytest.raises(RunError, match=says):
        run_stages(run, ("emergence",))
    assert not (run.results_path / "emergence" / "summary.json").exists()


def test_results_cover_all_checkpoints(runs: list[Run]) -> None:
    for run in runs:
        for stage, table in TABLES.values():
            found = run.result(stage, table)
            if "step" in found and table != "steps":
                own = (
                    found if "mechanism" not in found else found[found["mechanism"] != "knowledge"]
                )
                assert sorted(set(own["step"])) == STEPS, table


def test_summaries_follow_from_the_tables(runs: list[Run]) -> None:
    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    run = runs[1]
    found = {
        name: json.loads(
            (run.results_path / name / "summary.json").read_text(), parse_constant=refuse
        )
        for name in MEMORY_STAGES
    }
    probes = run.result("memory", "probes")
    assert found["memory"]["step"] == found["interventions"]["step"] == 12
    best: dict[str, float] = {}
    for row in probes.itertuples():
        if row.step == 12 and row.attribute == "all":
            best[row.position] = max(best.get(row.position, -1), row.selectivity_other_people)
    assert found["memory"]["probe_selectivity"] == pytest.approx(best)

    follows: dict[str, float] = {}
    for row in run.result("interventions", "swaps").itertuples():
        given = row.site == "resid_pre" and row.layer == 0
        if row.step == 12 and row.sentences == "any" and not given:
            follows[row.position] = max(follows.get(row.position, 0), row.follows)
    assert found["interventions"]["follows"] == pytest.approx(follows)
    costs = {
        row.position: row.cost
        for row in run.result("interventions", "ablations").itertuples()
        if row.step == 12 and pd.isna(row.layer)
    }
    assert found["interventions"]["ablation_cost"] == pytest.approx(costs)
    grid = run.result("interventions", "attribution")
    correlation = np.corrcoef(grid["exact"], grid["approximate"])[0, 1]
    assert found["interventions"]["attribution_correlation"] == pytest.approx(correlation)


def test_the_summary_leaves_out_swaps_of_the_tokens_themselves(
    runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs[1]
    swaps = run.result("interventions", "swaps")
    given = (swaps["site"] == "resid_pre") & (swaps["layer"] == 0)
    best = (swaps["site"] == "mlp_out") & (swaps["layer"] == 1)
    follows = np.select([swaps["step"] == 0, given, best], [0.8, 0.9, 0.5], 0.1)
    follows[(swaps["step"] == 12) & (swaps["sentences"] == "first")] = 0.7
    made = {
        "swaps": swaps.assign(follows=follows),
        "recall_edges": run.result("interventions", "edges"),
    }
    made |= {name: run.result("interventions", name) for name in ("ablations", "attribution")}
    grid = made["attribution"].rename(columns={"neurons": "group"})
    made["attribution"] = grid.assign(neuron=pd.NA, token=pd.NA)  # as it is measured
    for name, table in made.items():
        monkeypatch.setattr(f"interp.stages.measures.{name}", lambda *_, found=table, **__: found)
    assert intervene(run).summary["follows"] == dict.fromkeys(set(swaps["position"]), 0.5)


def test_dates_follow_from_strengths_and_absent_is_nan(runs: list[Run]) -> None:
    for run in runs:
        steps = run.result("emergence", "steps").set_index("mechanism")
        strengths = run.result("emergence", "strengths")
        assert list(steps.index) == [*MECHANISMS, "knowledge"]
        assert set(steps["seed"]) == {run.config.seed}
        summary = json.loads((run.results_path / "emergence" / "summary.json").read_text())
        for mechanism, curve in strengths.groupby("mechanism"):
            if curve["strength"].isna().all():  # could not be measured at any step
                assert pd.isna(steps.loc[mechanism, "step"])
                continue
            assert list(curve["strength"]) == list(curve["value"] - curve["control"])
            expected = half_strength_step(list(curve["step"]), list(curve["strength"]))
            row = steps.loc[mechanism]
            assert row["step"] == pytest.approx(expected, nan_ok=True)
            assert row["start"] == curve["strength"].iloc[0]
            assert row["final"] == curve["strength"].iloc[-1]
            dated = summary["half_strength_step"][mechanism]
            assert dated == (None if np.isnan(expected) else pytest.approx(expected))
            # Twelve steps teach nothing, and what is not there has no date and no phase.
            assert np.isnan(expected) == (row["final"] < FAINT)
            assert pd.isna(row["phase"]) == np.isnan(expected)
    assert np.isnan(steps.loc["knowledge", "step"])


def test_tables_have_the_seed_and_lose_nothing(runs: list[Run]) -> None:
    tables = memory_tables(runs)
    assert list(tables) == list(TABLES) == list(COLUMNS)
    for name, table in tables.items():
        assert list(table.columns) == COLUMNS[name]
        assert list(table.index) == list(range(len(table)))
        for run in runs:
            own = table[table["seed"] == run.config.seed].drop(columns="seed")
            alone = run.result(*TABLES[name]).drop(columns="seed", errors="ignore")
            pd.testing.assert_frame_equal(own.reset_index(drop=True), alone, check_dtype=False)
    turned = memory_tables(runs[::-1])["keys"]
    assert list(dict.fromkeys(turned["seed"])) == [1, 0]


def test_tables_are_written_as_they_are(runs: list[Run], tmp_path: Path) -> None:
    tables = write_memory_study(runs, tmp_path / "new" / "study")
    folder = tmp_path / "new" / "study"
    assert {path.stem for path in folder.iterdir()} == set(TABLES)
    for name, table in tables.items():
        read = pd.read_csv(folder / f"{name}.csv")
        numbers = [column for column in ("layer", "head") if column in read]
        typed = read.astype({column: table[column].dtype for column in numbers})
        pd.testing.assert_frame_equal(typed, table, rtol=1e-4, check_dtype=False)


def test_runs_that_are_no_seeds_of_one_study_are_refused(
    runs: list[Run], smoke_run: Run, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="No run is given"):
        memory_tables([])
    with pytest.raises(ConfigError, match=r"\[0, 1, 0\].*once"):
        memory_tables([*runs, runs[0]])
    with pytest.raises(RunError, match=r"in more than its seed: .*training.n_steps"):
        write_memory_study([runs[1], smoke_run], tmp_path / "study")
    assert not (tmp_path / "study").exists(), "a refused study leaves nothing behind"


@pytest.mark.parametrize("stage", sorted({stage for stage, _ in TABLES.values()}))
def test_a_missing_stage_is_named(runs: list[Run], tmp_path: Path, stage: str) -> None:
    lacking = copied(runs[1], tmp_path / "lacking")
    (lacking.results_path / stage / "summary.json").unlink()
    with pytest.raises(
        RunError, match=f"lacking has no table .* of the stage '{stage}'.*interp memory"
    ):
        write_memory_study([runs[0], lacking], tmp_path / "study")
    assert not (tmp_path / "study").exists()


class Checkpointed(Run):
    """A run of which only checkpoints and phases are known."""

    def __init__(self, steps: list[int], phases: Phases | None):
        super().__init__("nowhere")
        self._steps, self._phases = steps, phases

    @property
    def steps(self) -> list[int]:
        return self._steps

    @property
    def metrics(self) -> pd.DataFrame:
        return pd.DataFrame({"step": [] if self._phases is None else [0]})

    @property
    def config(self) -> Config:  # type: ignore[override]
        return preset("smoke")

    @property
    def phases(self) -> Phases:
        assert self._phases is not None
        return self._phases


def around(steps: list[int], statistics_end: int, plateau_end: int) -> list[int]:
    """The rule as a search: the only choice that has too few and too many steps nowhere."""
    inside = {s for s in steps if 2 * s >= statistics_end and s <= 2 * plateau_end}
    kept = set(steps)
    for step in steps:  # from the first to the last: who is too near to somebody kept, goes
        before = max((s for s in kept if s < step), default=None)
        near = before is not None and 4 * step < 5 * before
        if near and step not in inside and step != max(steps):
            kept.remove(step)
    return sorted(kept)


@pytest.mark.parametrize("statistics_end", [50, 100, 210, 400])
@pytest.mark.parametrize("plateau", [0, 25, 190, 800])
@pytest.mark.parametrize(
    "steps",
    [
        list(range(0, 1501, 25)),
        [0, 5, 10, *range(20, 400, 7), 1000, 1001, 1500],
        [0],
        [30, 31, 32, 1500],
    ],
)
def test_steps_around_the_plateau(steps: list[int], statistics_end: int, plateau: int) -> None:
    phases = Phases(statistics_end, statistics_end + plateau, baseline=5.0, delta=0.05)
    found = steps_around_plateau(Checkpointed(steps, phases))
    assert found == around(steps, statistics_end, statistics_end + plateau)
    assert {steps[0], steps[-1]} <= set(found)


def test_steps_around_the_plateau_of_tiny() -> None:
    run = Checkpointed(list(range(0, 1501, 25)), Phases(200, 300, baseline=5.0, delta=0.05))
    assert steps_around_plateau(run) == [
        0, 25, 50, 75, *range(100, 601, 25), 750, 950, 1200, 1500,
    ]  # fmt: skip


@pytest.mark.parametrize("ends", [(None, None), (200, None), None])
def test_without_a_plateau_all_steps_are_taken(ends: tuple[int | None, int | None] | None) -> None:
    phases = None if ends is None else Phases(*ends, baseline=5.0, delta=0.05)
    steps = list(range(0, 1501, 25))
    assert steps_around_plateau(Checkpointed(steps, phases)) == steps


def test_a_run_without_checkpoints_has_no_steps() -> None:
    with pytest.raises(RunError, match="has no checkpoint yet"):
        steps_around_plateau(Checkpointed([], None))


class Page(HTMLParser):
    """What a browser would load from a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))


def opens_offline(source: str) -> Page:
    """Checks that a page asks for nothing, and says so to the browser."""
    page = Page(source)
    for tag, attrs in page.elements:
        assert not attrs.keys() & {"src", "srcset", "data", "poster", "action"}, (tag, attrs)
        if tag == "link":
            assert attrs["href"] == "data:,"
        if tag == "a":
            assert attrs["href"].startswith(("#", "https://arxiv.org/"))
    policies = [a["content"] for t, a in page.elements if "Policy" in a.get("http-equiv", "")]
    assert len(policies) == 1
    assert "default-src 'none'" in policies[0]
    assert "connect-src" not in policies[0]
    for style in re.findall(r"<style>(.*?)</style>", source, flags=re.DOTALL):
        assert "url(" not in style
        assert "@import" not in style
    return page


@pytest.fixture(scope="module")
def page(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of both seeds."""
    target = tmp_path_factory.mktemp("page") / "new" / "page.html"
    assert write_memory_report(memory_tables(runs), [run.phases for run in runs], target) == target
    return target


def test_the_page_of_two_seeds(runs: list[Run], page: Path) -> None:
    source = page.read_text(encoding="utf-8")
    seen = opens_offline(source)
    plotted = [attrs["data-figure"] for _, attrs in seen.elements if "data-figure" in attrs]
    assert set(plotted) >= {f"{name}-data" for name in FIGURES}
    assert len(plotted) == len(set(plotted))
    sections = [attrs["id"] for tag, attrs in seen.elements if tag == "h2" and "id" in attrs]
    assert sections[:3] == ["emergence", "interventions", "memory"]
    assert "MLP memory: 2 seeds" in source
    dates = memory_tables(runs)["emergence"]
    headline = "; ".join(f"{mechanism}: {dated(dates, mechanism)[0]}" for mechanism in HEADLINE)
    assert headline in source
    assert "knowledge: absent" in headline
    assert str(runs[0].path) not in source


def test_the_page_of_one_seed(runs: list[Run], tmp_path: Path) -> None:
    tables = memory_tables(runs[:1])
    chosen = tables["emergence"]["mechanism"] == "knowledge"
    tables["emergence"].loc[chosen, "step"] = 7.0
    written = write_memory_report(tables, [runs[0].phases], tmp_path / "one.html")
    source = written.read_text(encoding="utf-8")
    assert "MLP memory: one seed" in source
    assert "knowledge: step 7" in source


def test_a_page_of_tables_that_lack_a_column_is_refused(runs: list[Run], tmp_path: Path) -> None:
    tables = memory_tables(runs[:1])
    lacking = {**tables, "swaps": tables["swaps"].drop(columns="follows")}
    with pytest.raises(InterpError, match="follows"):
        write_memory_report(lacking, [runs[0].phases], tmp_path / "lacking.html")
    assert not (tmp_path / "lacking.html").exists()


def test_the_headline_gives_the_mean_of_the_dates() -> None:
    dates = pd.DataFrame(
        {
            "mechanism": ["a", "b", "a", "a", "c"],
            "step": [4.0, 1.0, 10.0, np.nan, np.nan],
            "phase": ["statistics", "statistics", "plateau", None, None],
        }
    )
    assert dated(dates, "a") == ("step 7", "statistics or plateau")
    assert dated(dates, "c") == ("absent", "")


def test_the_command_writes_tables_and_a_page(
    runs: list[Run], page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The seed of the second run is made where a stage is missing.
    second = copied(runs[1], tmp_path / "second")
    shutil.rmtree(second.results_path / "emergence")
    before = stamps(runs[0])
    assert run_cli("memory", runs[0].path, second.path, "--out", tmp_path / "study") == 0
    printed = capsys.readouterr()
    assert printed.err.count(TITLES[-1]) == 1
    assert not any(title in printed.err for title in TITLES[:-1])
    assert stamps(runs[0]) == before
    assert "seed 0" in printed.out
    assert "seed 1" in printed.out
    for mechanism in (*MECHANISMS, "knowledge"):
        assert mechanism in printed.out
    assert "nan" in printed.out
    made = {path.name for path in (tmp_path / "study").iterdir()}
    assert made == {f"{name}.csv" for name in TABLES} | {"report.html"}
    assert f"report: {tmp_path / 'study' / 'report.html'}" in printed.out
    written = (tmp_path / "study" / "report.html").read_bytes()
    assert written == page.read_bytes(), "the same tables give the same page"


def test_without_a_folder_the_command_only_shows(
    runs: list[Run], tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli("memory", runs[0].path) == 0
    printed = capsys.readouterr().out
    assert "Step of half the final strength" in printed
    assert "report:" not in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ((), "No run is given"),
        (("nowhere",), "nowhere. Train"),
        (("empty",), "empty holds no run"),
        (("run", "copy"), "seeds [0, 0]"),
        (("unfinished",), "unfinished has not been trained"),
        (("run", "smoke"), "in more than its seed: "),
    ],
)
def test_the_command_explains_what_is_wrong(
    runs: list[Run], smoke_run: Run, tmp_path: Path, monkeypatch, named: tuple[str, ...], says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in set(named) & {"run", "copy", "unfinished"}:
        copied(runs[0], tmp_path / name)
    if "unfinished" in named:
        (tmp_path / "unfinished" / "finished.json").unlink()
    if "smoke" in named:  # with the tables of another run: its settings alone are what is wrong
        smoke = shutil.copytree(smoke_run.path, tmp_path / "smoke")
        config = Path(smoke) / "config.yaml"
        config.write_text(re.sub(r"(?m)^seed: 0$", "seed: 5", config.read_text()))
        shutil.copytree(runs[0].results_path, Path(smoke) / "results", dirs_exist_ok=True)
    assert run_cli("memory", *named, "--out", "study") == 2
    error = capsys.readouterr().err
    assert says in error.replace("\n", " ")
    assert "Traceback" not in error
    assert not (tmp_path / "study").exists(), "a refused study leaves nothing behind"
