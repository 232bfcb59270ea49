"""How time and memory grow with people, layers, the length of sequences and the vocabulary.

    python -m tests.benchmarks.growth --out FOLDER

writes `growth.csv`, `growth.md` and `growth.svg` in at most six minutes, on one thread. One thing grows at a
time, from the model and population of `tiny`:

- *people*: N, with the lists of `tiny`, which hold two million full names: the vocabulary stays as it is;
- *layers*;
- *tokens*: the padded width of a row. The same biographies are laid 1, 2, ... 32 to a row, so that tokens and
  targets of a step stay what they are, and only attention and the table of positions grow;
- *vocabulary*: more of the lists, at the N of `tiny`.

Every biography is padded to the longest that can be drawn, so that all steps are of one size. Each point is
measured in a process of its own, several times, each time in another random order: the machine's drift meets
all alike. Times are CPU time: on one thread, that of the clock without the waiting for other programs.
"""

# ruff: noqa: T201 - a program that prints

import argparse
import os
import random
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from interp import Config, preset
from interp.charts import Axis, Line, Panel, Part, describe, draw, looks_of, stack
from interp.config import LIST_SIZES
from interp.files import write_text
from tests.benchmarks.memory import Measured

PEOPLE = (512, 2048, 8192, 32_768, 131_072, 262_144)
LAYERS = (1, 2, 4, 8, 16)
TOGETHER = (1, 2, 4, 8, 16, 32)
LISTS = (1, 2, 16)
"""Times the lists of `tiny`, at most all of them."""
QUICK = {"people": (24, 96), "layers": (2, 3), "tokens": (1, 2), "vocabulary": (1, 2)}
"""In place of these, at `smoke`."""

ALONG = {
    "people": Axis("people N", form=",.0f", scale="log"),
    "layers": Axis("layers", form=",.0f", scale="log"),
    "tokens": Axis("tokens in a row (padded width)", form=",.0f", scale="log"),
    "vocabulary": Axis("vocabulary (tokens)", form=",.0f", scale="log"),
}
"""What grows."""
WHAT = {
    "corpus": "making the corpus",
    "batch": "batch assembly",
    "step": "training step",
    "evaluation": "evaluation",
}
"""What is timed, in the order in which a process does it."""
COLUMNS = ("along", "x", "what", "seconds", "quartile_1", "quartile_3", "peak_mb")

LIMIT = 340
"""Seconds that all of it may take: a further round that lasts longer is left out."""
BEGIN, END = "<!-- growth: made by tests.benchmarks.growth -->", "<!-- end of growth -->"
"""Between them stands the table in a page."""

Point = tuple[Config, int]
"""What one process measures: settings, and how many biographies stand in a row."""


def points(*, quick: bool = False) -> list[tuple[str, Point]]:
    """All points, by what grows; a point that stands in several lists is the same one."""
    base = preset("smoke" if quick else "tiny")
    grown = {"people": PEOPLE, "layers": LAYERS, "tokens": TOGETHER, "vocabulary": LISTS}
    found: list[tuple[str, Point]] = []
    for along, values in (QUICK if quick else grown).items():
        for value in values:
            settings = {
                "people": {"population.n_individuals": value},
                "layers": {"model.n_layers": value},
                "tokens": {"model.n_ctx": value * base.model.n_ctx},
                "vocabulary": {
                    f"population.{name}": min(value * getattr(base.population, name), most)
                    for name, most in LIST_SIZES.items()
                },
            }[along]
            found.append(
                (along, (base.with_settings(**settings), value if along == "tokens" else 1))
            )
    return found


def grow(rounds: int, *, quick: bool = False, seed: int = 0) -> pd.DataFrame:
    """Measures every point once a round and gives the table, with the columns `COLUMNS`."""
    asked = points(quick=quick)
    distinct = list(dict.fromkeys(point for _, point in asked))
    samples: dict[tuple[Point, str], list[float]] = {}
    peaks: dict[tuple[Point, str], list[float]] = {}
    sizes: dict[Point, dict[str, int]] = {}
    order = random.Random(seed)
    began = time.monotonic()
    for round_ in range(rounds):
        of_round: dict[Point, Measured] = {}
        for point in order.sample(distinct, len(distinct)):
            if round_ and time.monotonic() - began > LIMIT:
                break
            sizes[point], of_round[point] = _in_a_process(point, 2 if quick else 8)
        if len(of_round) < len(distinct):
            print(f"round {round_ + 1} did not end in time and does not count", flush=True)
            break
        print(f"round {round_ + 1} after {time.monotonic() - began:.0f} s", flush=True)
        for point, measured in of_round.items():
            for what, (times, peak) in measured.items():
                samples.setdefault((point, what), []).extend(times)
                peaks.setdefault((point, what), []).append(peak)
    rows = []
    for along, point in asked:
        for what in WHAT:
            low, median, high = np.quantile(samples[point, what], [0.25, 0.5, 0.75])
            peak = np.median(peaks[point, what])
            rows.append((along, sizes[point][along], what, median, low, high, peak))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.round({"peak_mb": 1} | dict.fromkeys(COLUMNS[3:6], 6))


def _in_a_process(point: Point, n_steps: int) -> tuple[dict[str, int], Measured]:
    # A server imports everything once; every process is a fork of it, as it was after that.
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.benchmarks.growth_point"])
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, *point, n_steps))
    process.start()
    there.close()
    try:
        found: tuple[dict[str, int], Measured] = here.recv()
    except EOFError:
        process.join()
        raise SystemExit(f"A process that measures ended with {process.exitcode}.") from None
    process.join()
    return found


def _serve(connection: Connection, config: Config, together: int, n_steps: int) -> None:
    from tests.benchmarks.growth_point import above_baseline  # only the processes need torch

    connection.send(above_baseline(config, together, n_steps))


def figure(table: pd.DataFrame) -> go.Figure:
    """Times and memory against what grows, each divided by its value at the smallest point."""
    looks = looks_of([*WHAT, "memory"])
    names = WHAT | {"memory": "peak memory of training"}
    parts = []
    for along, axis in ALONG.items():
        own = table[table["along"] == along].set_index("x")
        lines = []
        for what, name in names.items():
            if what == "corpus" and along != "people":
                continue
            of_what = own[own["what"] == ("step" if what == "memory" else what)]
            columns = ["peak_mb"] * 3 if what == "memory" else ["seconds", *COLUMNS[4:6]]
            middle, low, high = (of_what[c] / of_what[columns[0]].iloc[0] for c in columns)
            look = looks[what]
            band = {} if what == "memory" else {"low": low, "high": high}
            lines.append(Line(name, middle, look.line, symbol=look.symbol, **band))
        times = Axis("times the smallest", form=".2f", scale="log")
        made = draw([Panel("", lines)], times, x=axis, band="quartiles")
        if parts:  # the legend is that of the first
            made.update_traces(showlegend=False)
        parts.append(Part(made, f"Against {axis.title}", 170))
    return describe(
        stack(parts),
        "Growth of time and memory",
        "CPU time and peak memory of `tiny` on one thread as one thing grows, divided by what they are at "
        "the smallest point (log scales, bands are quartiles). Look for lines that stay at 1: they do not "
        "depend on what grows.",
    )


def markdown(table: pd.DataFrame) -> str:
    """The table for a page: CPU times in ms (those of steps with quartiles), memory in MB."""
    lines = [
        "| what grows | to | training step (ms) | evaluation (ms) | batch (ms) | corpus (ms) "
        "| peak of training (MB) |",
        "|---|---|---|---|---|---|---|",
    ]
    for (along, x), rows in table.groupby(["along", "x"], sort=False):
        of = rows.set_index("what")
        step = of.loc["step"]
        ms = {what: f"{1e3 * of.loc[what, 'seconds']:,.{digits}f}" for what, digits in
              {"step": 1, "evaluation": 0, "batch": 2, "corpus": 0}.items()}  # fmt: skip
        quartiles = f"{1e3 * step['quartile_1']:,.1f} to {1e3 * step['quartile_3']:,.1f}"
        lines.append(
            f"| {along} | {x:,} | {ms['step']} ({quartiles}) | {ms['evaluation']} | {ms['batch']} "
            f"| {ms['corpus']} | {step['peak_mb']:,.0f} |"
        )
    return "\n".join(lines) + "\n"


def put_into(page: Path, text: str) -> None:
    """Replaces what stands between `BEGIN` and `END` in a page."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    write_text(page, f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.growth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for table and figure")
    parser.add_argument("--rounds", type=int, default=4, help="processes a point, time permitting")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the points")
    parser.add_argument("--page", type=Path, help="a page whose growth table is replaced")
    parser.add_argument(
        "--quick", action="store_true", help="two sizes of smoke each, one round, no figure"
    )
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes
    table = grow(1 if chosen.quick else chosen.rounds, quick=chosen.quick, seed=chosen.seed)
    chosen.out.mkdir(parents=True, exist_ok=True)
    write_text(chosen.out / "growth.csv", table.to_csv(index=False))
    text = markdown(table)
    write_text(chosen.out / "growth.md", text)
    print(text)
    if not chosen.quick:
        drawn = figure(table)
        drawn.update_layout(paper_bgcolor="white", plot_bgcolor="white")
        drawn.write_image(chosen.out / "growth.svg", width=860, height=drawn.layout.height)
    if chosen.page:
        link = Path(os.path.relpath(chosen.out / "growth.svg", chosen.page.parent)).as_posix()
        picture = (
            f"![Time and memory against people, layers, tokens in a row, vocabulary]({link})\n"
        )
        put_into(chosen.page, text if chosen.quick else f"{text}\n{picture}")


if __name__ == "__main__":
    main()
