"""The page that compares runs: labels, numbers, what is missing, and that hostile names stay text."""

import html
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import interp
from interp import plots
from interp.config import Config
from interp.errors import ConfigError, InterpError, RunError
from interp.phases import Phases
from interp.report import compared_overview, compared_sections
from interp.report.comparison import SECTIONS, Compared, attention_maps, compare, write_comparison
from interp.report.elements import LeftOut, Section
from interp.report.run_labels import differing_settings, run_labels, seed_groups
from interp.run import Run
from interp.training import train
from tests.helpers import without_digests
from tests.report.test_report import Page

HOSTILE = "<img src=x onerror=alert(1)>'"
EDGES = ("attribute_to_name", "name_to_name", "control")
MakeRun = Callable[..., Run]
Builder = Callable[[Compared], Section | LeftOut]


@pytest.fixture
def make(short_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRun:
    """Copies of one trained run under other names, settings changed in their file only.

    Their weights are the trained run's, so a copy with other settings has no maps to show.
    """
    own = short_run.config.identity()
    monkeypatch.setattr(
        "interp.report.compared_sections.no_maps",
        lambda run: "" if run.config.identity() == own else "its weights are another run's",
    )

    def copy(name: str, **settings: object) -> Run:
        folder = without_digests(Path(shutil.copytree(short_run.path, tmp_path / name)))
        config = short_run.config.with_settings(**settings)
        (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
        environment = json.loads((folder / "environment.json").read_text())
        del environment["population"]  # another seed has other people
        (folder / "environment.json").write_text(json.dumps(environment))
        return Run.load(folder)

    return copy


def store(run: Run, stage: str, **tables: pd.DataFrame) -> None:
    folder = run.results_path / stage
    folder.mkdir(parents=True)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    (folder / "summary.json").write_text("{}")


def fill(run: Run, add: float = 0.0, steps: tuple[int, ...] = (0, 6, 12)) -> None:
    """Results of every stage; numbers grow with the step, and by `add`."""
    layers = range(run.config.model.n_layers)
    metrics = ("name_to_name", "attribute_to_name", "attribute_to_any_name", "attribute_to_type",
               "attribute_sharpness")  # fmt: skip
    scores = pd.DataFrame(
        [(s, la, h, m, s / 16 + add, 0.1) for s in steps for la in layers for h in (0, 1)
         for m in metrics],
        columns=["step", "layer", "head", "metric", "value", "chance"],
    )  # fmt: skip
    roles = pd.DataFrame(
        [(s, la, h, "extraction" if la and s else "none", "attribute_to_name", 0.5, 0.1)
         for s in steps for la in layers for h in (0, 1)],
        columns=["step", "layer", "head", "role", "metric", "value", "chance"],
    )  # fmt: skip
    costs = pd.DataFrame(
        [(s, e, la, pd.NA, 5.0, s / 8 + add) for s in steps for e in EDGES
         for la in (pd.NA, *layers)],
        columns=["step", "edge", "layer", "head", "intact", "cost"],
    )  # fmt: skip
    emerged = pd.DataFrame(
        [("extraction attention", run.config.seed, 3.0 + add, 0.0, 1.0, "plateau"),
         ("knowledge", run.config.seed, None, 0.0, 0.0, None)],
        columns=["mechanism", "seed", "step", "start", "final", "phase"],
    )  # fmt: skip
    strengths = pd.DataFrame(
        [(m, s, s / 12, 0.0, s / 12) for m in emerged["mechanism"] for s in steps],
        columns=["mechanism", "step", "value", "control", "strength"],
    )
    swapped = pd.DataFrame(
        [(s, site, 0, p, "any", 8, s / 32 + add + (site == "mlp_out") / 64, 0.5, 0.0)
         for s in steps for site in ("mlp_out", "attn_out")
         for p in ("every name", "predicts value")],
        columns=["step", "site", "layer", "position", "sentences", "n", "follows", "kept",
                 "control"],
    )  # fmt: skip
    curves = pd.DataFrame(
        [(run.config.seed, ref, 0, "all", "all", s, "attribute_loss",
          5.0 - (0 if pd.isna(ref) else ref / 12 + add))
         for ref in (pd.NA, 0, 6) for s in steps],
        columns=["seed", "reference_step", "start", "layers", "heads", "step", "metric", "value"],
    )  # fmt: skip
    store(run, "attention", scores=scores, roles=roles)
    store(run, "knockout", costs=costs)
    store(run, "emergence", steps=emerged, strengths=strengths)
    store(run, "interventions", swaps=swapped)
    store(run, "patching", curves=curves)


def built(*runs: Run, builders: Sequence[Builder] = SECTIONS) -> list[Section | LeftOut]:
    compared = compare(runs)
    return [build(compared) for build in builders]


def sections(*runs: Run, builders: Sequence[Builder] = SECTIONS) -> dict[str, Section]:
    return {s.anchor: s for s in built(*runs, builders=builders) if isinstance(s, Section)}


def left_out(*runs: Run, builders: Sequence[Builder] = SECTIONS) -> dict[str, LeftOut]:
    return {s.title: s for s in built(*runs, builders=builders) if isinstance(s, LeftOut)}


def table(section, start: str) -> dict[str, dict[str, str]]:
    """The table whose caption begins so, as rows by their head."""
    found = next(t for t in section.tables if t.caption.startswith(start))
    return {row[0]: dict(zip(found.header[1:], row[1:], strict=True)) for row in found.rows}


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2),
        "model.n_layers": st.integers(1, 3),
        "optimizer.weight_decay": st.sampled_from([0.1, 0.01]),
        "training.early_checkpoints": st.lists(st.integers(0, 99), max_size=60).map(tuple),
        "population.seed": st.sampled_from([None, 0, 7]),
    },
)
PATCHED = st.one_of(
    st.just({}),
    st.just({"patching.reference": "self"}),
    st.builds(
        lambda step: {"patching.reference": "runs/a", "patching.reference_step": step},
        st.integers(0, 3),
    ),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(SETTINGS, PATCHED), min_size=2, max_size=12))
def test_labels_are_unique_and_short(drawn) -> None:
    configs = [interp.preset("smoke", **settings, **patched) for settings, patched in drawn]
    paths = [f"/runs/{i // 2}/run{i % 2}" for i in range(len(configs))]
    labels = run_labels(configs, paths)
    assert len(set(labels)) == len(configs)
    assert all(0 < len(label) <= 70 for label in labels)
    assert labels == run_labels(configs, paths)
    if len({json.dumps(config.identity()) for config in configs}) == len(configs):
        others = run_labels(configs, [f"/elsewhere/{path}" for path in paths])
        assert len(set(others)) == len(configs)


@pytest.mark.parametrize(
    ("settings", "labels"),
    [
        ([{}, {"seed": 1}], ["seed 0", "seed 1"]),
        ([{}, {"model.n_layers": 4}], ["n_layers 2", "n_layers 4"]),
        (
            [{}, {"seed": 1}, {"model.n_layers": 4}, {"model.n_layers": 4, "seed": 1}],
            [
                "n_layers 2, seed 0",
                "n_layers 2, seed 1",
                "n_layers 4, seed 0",
                "n_layers 4, seed 1",
            ],
        ),
        ([{}, {"model.n_layers": 4, "seed": 1}], ["n_layers 2", "n_layers 4"]),
        ([{}, {"model.seed": 3}], ["model seed not set", "model seed 3"]),
        ([{}, {}], ["run0", "run1"]),
        (
            [
                {},
                {"patching.reference": "a", "patching.reference_step": 4, "training.stop_at": 9},
                {"patching.reference": "a", "patching.reference_step": 4, "patching.start": 2},
                {"patching.reference": "self"},
            ],
            [
                "unpatched",
                "attention of step 4",
                "attention of step 4, from step 2",
                "own attention",
            ],
        ),
    ],
)
def test_labels_say_what_differs(settings, labels) -> None:
    configs = [interp.preset("smoke", **one) for one in settings]
    assert run_labels(configs, [f"runs/run{i}" for i in range(len(configs))]) == labels


def test_equal_folder_names_are_told_apart_by_their_parents() -> None:
    same = [Config()] * 3
    assert run_labels(same, ["/a/x/run", "/b/x/run", "/c/other"]) == ["a/x/run", "b/x/run", "other"]


def test_differing_settings_and_seeds() -> None:
    configs = [
        interp.preset("smoke"),
        interp.preset("smoke", seed=1, preset="other", **{"logging.wandb_project": "p"}),
        interp.preset("smoke", **{"model.seed": 3}),
    ]
    assert differing_settings(configs) == {
        "model.seed": ["not set", "not set", "3"],
        "seed": ["0", "1", "0"],
    }
    assert seed_groups(configs) == [[0, 1]]
    assert seed_groups([configs[0], configs[0]]) == [], "twice the same seed shows no spread"


def test_numbers_are_the_runs_own(make: MakeRun) -> None:
    a, b = make("a"), make("b", seed=1)
    lines = b.metrics_path.read_text().splitlines()
    shifted = [json.dumps({**row, "value": row["value"] + 0.25}) for row in map(json.loads, lines)]
    b.metrics_path.write_text("\n".join(shifted) + "\n")
    found = sections(a, b)
    assert list(found) == ["compared", "learning", "held-out", "maps"]
    final = table(found["compared"], "What each run knows")
    phases = table(found["compared"], "Phases of each run")
    losses = table(found["learning"], "Attribute loss at steps")
    for label, run in (("seed 0", a), ("seed 1", b)):
        loss = run.curve()
        assert final[label]["attribute loss (nats)"] == f"{loss.iloc[-1]:.3f}"
        accuracy = run.curve("attribute_accuracy").iloc[-1]
        assert final[label]["accuracy"] == f"{accuracy:.1%}"
        held_out = run.curve("attribute_loss", "held_out").iloc[-1]
        assert final[label]["held-out attribute loss (nats)"] == f"{held_out:.3f}"
        assert phases[label]["baseline"] == f"{run.phase_baseline:.3f}"
        assert phases[label]["last measured"] == "12"
        for title, cell in losses[label].items():
            assert cell == f"{loss[int(title.split()[1])]:.3f}"
    both = [a.curve().iloc[-1], b.curve().iloc[-1]]
    assert losses["mean (range)"]["step 12"] == (
        f"{sum(both) / 2:.3f} ({min(both):.3f} to {max(both):.3f})"
    )
    assert [name for name, *_ in found["compared"].results] == [
        "Attribute accuracy", "Attribute loss", "Held-out attribute loss",
    ]  # fmt: skip
    drawn = found["learning"].figures["curves"]
    curve = next(t for t in drawn.data if t.name == "seed 1")
    assert list(curve.y) == list(b.curve())
    mean = next(t for t in drawn.data if t.name == "mean")
    assert mean.y[-1] == pytest.approx(sum(both) / 2)


def test_every_stage_of_two_runs(make: MakeRun) -> None:
    a, b = make("a"), make("b", **{"model.n_layers": 1})
    fill(a)
    fill(b, 0.125, steps=(0, 6))
    found = sections(a, b)
    assert list(found) == [
        "compared", "learning", "held-out", "attention", "maps", "knockout", "emergence", "swaps", "patching",
    ]  # fmt: skip
    assert found["compared"].results == [], "no mean over different configurations"
    roles = table(found["attention"], "The role of every head")
    assert roles["1.0"] == {"n_layers 2 (step 12)": "■ extraction", "n_layers 1 (step 6)": ""}
    costs = table(found["knockout"], "Cost of cutting")
    assert "step 6" in found["knockout"].tables[0].caption, "the last step that both have"
    assert costs["name → name"] == {"n_layers 2": "+0.750", "n_layers 1": "+0.875"}
    dates = table(found["emergence"], "The step at which")
    assert dates["extraction attention"] == {"n_layers 2": "3", "n_layers 1": "3"}
    assert dates["knowledge"] == {"n_layers 2": "absent", "n_layers 1": "absent"}
    swaps = table(found["swaps"], "Share of predictions")
    assert swaps["every name"]["n_layers 2"] == "39.1%, control 0.0% (output of MLP 0, step 12)"
    gains = table(found["patching"], "Gain in attribute loss at step 6")
    assert gains["step 6"] == {"n_layers 2": "+0.500", "n_layers 1": "+0.625"}


def test_seeds_share_the_figure_of_emergence(make: MakeRun) -> None:
    runs = [make(f"r{seed}", seed=seed) for seed in (0, 1)]
    for run in runs:
        fill(run, run.config.seed / 8)
    emergence = [compared_sections.emergence]
    figure = sections(*runs, builders=emergence)["emergence"].figures["emergence-rows"]
    assert plots.title(figure) == "The order of emergence"
    assert "2 seeds" in plots.caption(figure)


@pytest.mark.parametrize(
    ("stage", "build", "command"),
    [
        ("attention", compared_sections.attention, "interp memory"),
        ("knockout", compared_sections.knockout, "interp reproduce smoke --out"),
        ("emergence", compared_sections.emergence, "interp memory"),
        ("interventions", compared_sections.swaps, "interp memory"),
        ("patching", compared_sections.patching, "interp reproduce smoke --out"),
    ],
)
def test_a_missing_stage_is_said_with_its_command(
    make: MakeRun, stage: str, build: Builder, command: str
) -> None:
    runs = [make(f"r{seed}", seed=seed) for seed in (0, 1, 2)]
    for run in runs:
        fill(run)
    shutil.rmtree(runs[2].results_path / stage)
    [two] = built(*runs, builders=[build])
    assert isinstance(two, Section)
    lacks = two.lacks[-1]
    assert lacks.title == f"{two.title} of seed 2"
    assert lacks.commands[0].startswith(command)
    assert str(runs[2].path) in lacks.commands[0]
    shutil.rmtree(runs[1].results_path / stage)
    [one] = built(*runs, builders=[build])
    assert isinstance(one, LeftOut)
    assert one.title == two.title
    assert "only seed 0 has been measured" in one.why
    assert len(one.commands) == 2


def test_the_command_gives_the_run_back(make: MakeRun) -> None:
    run = make("a", seed=4, **{"training.stop_at": 12})
    knockout = [compared_sections.knockout]
    commands = left_out(run, make("b"), builders=knockout)["Attention knockout"].commands
    command = next(line for line in commands if str(run.path) in line)
    assert "--seed 4" in command
    assert "--training.stop-at 12" in command
    assert "--training.n-steps 12" in command
    assert "n-layers" not in command, "as in the preset"


def test_patched_runs(short_run: Run, tmp_path: Path) -> None:
    config = short_run.config.with_settings(
        **{
            "patching.reference": str(short_run.path),
            "patching.reference_step": 8,
            "training.stop_at": 8,
            "evaluation.splits": ["evaluation"],
        }
    )
    patched = train(config, tmp_path / "patched", progress=False)
    found = sections(short_run, patched)
    settings = table(found["compared"], "The settings")
    assert settings["patching.reference_step"] == {
        "unpatched": "not set", "attention of step 8": "8",
    }  # fmt: skip
    assert str(short_run.path) not in str(settings), "the fingerprint tells a reference"
    assert "held-out" not in found
    assert list(table(found["learning"], "Attribute loss at steps")["unpatched"])[-1] == "step 8"
    page = write_comparison([short_run, patched], tmp_path / "a.html").read_text(encoding="utf-8")
    assert "Accuracy at step 8, the last that all of them have, is" in page
    patching = left_out(short_run, patched, builders=[compared_sections.patching])
    assert "a patched run has none" in patching["Attention patching"].why


def test_baselines_that_differ_give_shares(make: MakeRun) -> None:
    a, b = make("a"), make("b", **{"population.cities": 3})
    (b.path / "environment.json").unlink()
    found = sections(a, b, builders=[compared_overview.overview, compared_overview.learning])
    section = found["learning"]
    assert "as a share" in section.text[0]
    drawn = section.figures["curves"]
    shares = [t for t in drawn.data if t.name == "cities 3" and t.yaxis == "y2"]
    assert list(shares[0].y) == pytest.approx(list(b.curve() / b.phase_baseline))
    final = table(found["compared"], "What each run knows")
    assert final["cities 3"]["parameters"] == "not recorded"


def test_no_common_step(make: MakeRun) -> None:
    a, b = make("a"), make("b", seed=1)
    fill(a)
    fill(b, steps=(1, 5))
    stages = [compared_sections.knockout, compared_sections.patching]
    found = left_out(a, b, builders=stages)
    for title in ("Attention knockout", "Attention patching"):
        assert "no common axis" in found[title].why


def test_the_page(make: MakeRun, tmp_path: Path) -> None:
    runs = [make(HOSTILE), make("plain"), make("$x$ %{y}")]
    for run in runs[:2]:
        (run.path / "config.yaml").write_text(
            run.config.with_settings(preset=HOSTILE).to_yaml(), encoding="utf-8"
        )
        fill(run)
    runs = [Run.load(run.path) for run in runs]
    page = write_comparison(runs, tmp_path / "a.html")
    source = page.read_text(encoding="utf-8")
    again = write_comparison([run.path for run in runs], tmp_path / "b.html")
    assert again.read_bytes() == page.read_bytes()
    seen = Page(source)
    assert "img" not in {tag for tag, _ in seen.elements}
    assert HOSTILE in seen.text
    assert HOSTILE not in source
    learning = sections(*runs, builders=[compared_overview.learning])["learning"]
    names = {t.name for t in learning.figures["curves"].data}
    assert html.escape(HOSTILE, quote=False) in names
    assert "&#36;x&#36; %&#123;y}" in names
    assert "3 runs compared" in seen.text
    assert "None of the 3 runs has left its plateau." in seen.text
    assert "They have the same settings" in seen.text


def test_errors_write_nothing(make: MakeRun, tmp_path: Path) -> None:
    run, empty, other = make("run"), make("empty"), make("other", seed=1)
    empty.metrics_path.unlink()
    out = tmp_path / "out.html"
    for runs, error, words in (
        ([run, run.path / ".." / "run"], ConfigError, "given twice"),
        ([run], ConfigError, "two runs or more"),
        ([run, tmp_path / "nowhere"], RunError, "There is no folder"),
        ([run, tmp_path], RunError, "holds no run"),
        ([run, other, empty], RunError, "no measurements yet"),
    ):
        with pytest.raises(error, match=words):
            write_comparison(runs, out)
    assert not out.exists()


def test_a_dozen_runs_look_different() -> None:
    labels = [f"run {i}" for i in range(12)]
    curve = pd.DataFrame(
        [(label, step, 1.0) for label in labels for step in (0, 5)],
        columns=["run", "step", "value"],
    )
    phases = {label: Phases(2, 4 if label != "run 3" else None, 5.0, 0.05) for label in labels}
    figure = plots.compared_curves({"loss": curve}, phases)
    lines = [t for t in figure.data if t.name in labels and t.yaxis == "y"]
    assert len({(t.line.color, t.line.dash) for t in lines}) == 12
    ends = [t for t in figure.data if t.name and t.name.endswith(", end of the plateau")]
    assert len(ends) == 11
    assert all(t.x[0] == pytest.approx(2.0) for t in ends)
    with pytest.raises(InterpError, match="no value to draw"):
        plots.compared_rows(
            pd.DataFrame({"run": ["a"], "row": ["b"], "value": [float("nan")]}),
            ["a"],
            "x",
            "t",
            "l",
        )
    with pytest.raises(InterpError, match="no row to draw"):
        plots.compared_gains(pd.DataFrame(columns=["run", "reference_step", "gain"]), ["a"], 1)
    with pytest.raises(InterpError, match="curve of"):
        plots.compared_curves({"loss": curve[:0]}, phases)


def test_attention_maps_of_runs_that_have_checkpoints(make: MakeRun) -> None:
    runs = [make("a"), make("b"), make("without", seed=7)]
    section = attention_maps(compare(runs))
    assert isinstance(section, Section)
    assert [view.anchor for view in section.embeds] == ["attention-maps-1", "attention-maps-2"]
    assert section.embeds[0].settings["fragment"] == "attention-maps-1"
    assert section.embeds[0].packed == section.embeds[1].packed  # the same weights
    assert len(section.lacks) == 1
    assert isinstance(attention_maps(compare([*runs[2:], make("too", seed=8)])), LeftOut)


def test_the_maps_of_many_runs_share_the_room(make: MakeRun) -> None:
    section = attention_maps(compare([make(f"r{number}") for number in range(8)]))
    assert isinstance(section, Section)
    assert len(section.embeds) == 6
    assert [one.title.split()[-1] for one in section.lacks] == ["r6", "r7"]
