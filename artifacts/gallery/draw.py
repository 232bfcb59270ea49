"""Draws the gallery's figures from finished runs in artifacts/ (needs a Chrome or Chromium)."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import plotly.graph_objects as go
from playwright.sync_api import sync_playwright

import interp
from interp.phases import DELTA, Phases
from interp.report import render
from interp.report.elements import Section
from interp.report.maps import maps_section

GALLERY = Path(__file__).parent


def main() -> None:
    """Writes every figure as SVG beside this file."""
    main_run = interp.Run.load(GALLERY.parent / "demo")
    run = interp.Run.load(GALLERY.parent / "tiny_seed0")
    figures = {
        "learning_curves": interp.plots.learning_curves(main_run),
        "known_and_held_out": interp.plots.known_and_held_out(main_run),
    }
    patched = pd.read_csv(GALLERY / "patching.csv")
    throughout = patched[
        (patched["start"] == 0) & (patched["layers"] == "all") & (patched["step"] <= 1500)
    ]
    complete = throughout.groupby(["seed", "reference_step"], dropna=False)["step"].transform("max")
    steps = [250, 300, 500, 1000]
    figures |= {
        "patching_curves": interp.plots.patching_curves(throughout, run.phases),
        "patching_by_reference": interp.plots.loss_by_reference(
            throughout[complete >= 1000], run.phases, steps
        ),
        "patching_freezing": interp.plots.freezing_curve(patched, run.phases),
        "patching_start": interp.plots.start_of_patching(patched, run.phases),
        "patching_parts": interp.plots.patched_parts(patched, run.phases),
    }
    for name in ("tiny", "small"):
        of_seed = {
            kind: pd.read_csv(GALLERY / f"{kind}_{name}.csv").query("seed == 0")
            for kind in ("attention", "roles", "knockout")
        }
        first = of_seed["attention"].iloc[0]
        phases = Phases(
            int(first["statistics_end"]), int(first["plateau_end"]), run.phase_baseline, DELTA
        )
        by_layer = of_seed["attention"].assign(head=0)
        figures |= {
            f"attention_{name}": interp.plots.attention_to_names(by_layer, phases),
            f"roles_{name}": interp.plots.head_roles(of_seed["roles"], phases),
            f"knockout_{name}": interp.plots.knockout_costs(of_seed["knockout"], phases),
            **memory(name, phases),
        }
    fact = interp.locate_fact(run, 0, "university")
    figures["trace_tiny"] = interp.plots.located_fact(fact)
    for name, figure in figures.items():
        # White paper: on a dark page a transparent figure's labels would be hard to read.
        figure.update_layout(paper_bgcolor="white", plot_bgcolor="white")
        figure.write_image(GALLERY / f"{name}.svg", width=860, height=figure.layout.height or 520)
    attention_maps(main_run)


def attention_maps(run: interp.Run) -> None:
    """A picture of the attention maps in the report, at the end of the plateau and at the last step."""
    section = maps_section(run)
    assert isinstance(section, Section)
    view = f"#attention-maps?person=2&step={run.phases.plateau_end}&compare={run.steps[-1]}"
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder) / "maps.html"
        page.write_text(render("Attention maps", "", [section]), encoding="utf-8")
        # Chromium's sandbox does not work for root, as which containers run.
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        tab = browser.new_page(viewport={"width": 1060, "height": 900}, device_scale_factor=1)
        tab.goto(page.as_uri() + view)
        tab.locator(".av-panel-title", has_text="head").nth(1).wait_for()
        tab.locator(".attention-view").screenshot(path=GALLERY / "attention_maps.png")
        browser.close()


def memory(name: str, phases: Phases) -> dict[str, go.Figure]:
    """The figures of the memory study of a preset; the bands of phases are those of seed 0."""
    folder = GALLERY / f"memory_{name}"
    tables = {path.stem: pd.read_csv(path) for path in folder.glob("*.csv")}
    plots = interp.plots
    return {
        f"memory_{name}/emergence": plots.emergence(
            tables["emergence"], tables["strengths"], phases
        ),
        f"memory_{name}/strengths": plots.strength_curves(tables["strengths"], phases),
        f"memory_{name}/keys": plots.key_selectivity(tables["keys"], phases),
        f"memory_{name}/similarity": plots.key_similarity(tables["keys"], phases),
        f"memory_{name}/promoted": plots.promoted_values(tables["values"], phases),
        f"memory_{name}/agreement": plots.key_value_agreement(tables["values"], phases),
        f"memory_{name}/probes": plots.probe_curves(tables["probes"], phases),
        f"memory_{name}/swaps": plots.swap_success(tables["swaps"], phases),
        f"memory_{name}/swap_sites": plots.swap_sites(tables["swaps"]),
        f"memory_{name}/edges": plots.recall_edges(tables["edges"], phases),
        f"memory_{name}/ablations": plots.mlp_ablation(tables["ablations"], phases),
        f"memory_{name}/attribution": plots.attribution_error(tables["attribution"]),
    }


if __name__ == "__main__":
    main()
