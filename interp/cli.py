"""The console script `interp`. Every setting of the config models is a flag.

Errors about input or environment end with one message and a non-zero exit code, without a traceback.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.table import Table

from interp.config import Config, flatten
from interp.errors import InterpError
from interp.phases import DELTA
from interp.presets import PRESETS, preset

if TYPE_CHECKING:
    from pandas import DataFrame

_OUT = Console()
_ERR = Console(stderr=True)

Settings = Annotated[Config, tyro.conf.arg(name="")]
RunPath = Annotated[Path, tyro.conf.Positional]

_HELP = """\
interp: watch a language model learn facts.

  interp reproduce [PRESET] --out DIR   train, find the phases, measure, write DIR/report.html
  interp train     [PRESET] --out DIR   train only
  interp phases    RUN                  the three phases of a run, and how they move with delta
  interp report    RUN                  write the run's report.html
  interp export    RUN --out DIR        a checkpoint for TransformerLens 2 and 3
  interp summary   RUN ... --csv FILE   one table of several finished runs
  interp patch     RUN ... --out DIR    train with attention patterns of a run's checkpoints
  interp memory    RUN ...              MLP memory: keys, values, probes, swaps, order of emergence
  interp scaling   [PRESET] --out DIR   how the plateau grows with the number of individuals

PRESET is {presets} (default tiny). `interp COMMAND --help` lists every setting.
"""


def _train(base: Config) -> Callable[..., None]:
    def train(
        config: Settings = base, *, out: Path, resume: bool = False, overwrite: bool = False
    ) -> None:
        """Train a model on synthetic biographies.

        Example: interp train tiny --out runs/tiny --seed 1 --model.n-layers 4

        Args:
            config: The settings.
            out: Folder of the run.
            resume: Go on with the run in that folder; a finished one is kept as it is.
            overwrite: Delete the run in that folder first.
        """
        from interp.training import train

        run = train(config, out, resume=resume, overwrite=overwrite)
        _OUT.print(repr(run), highlight=False, markup=False, soft_wrap=True)

    return train


def _reproduce(base: Config) -> Callable[..., None]:
    def reproduce(config: Settings = base, *, out: Path, overwrite: bool = False) -> None:
        """The main job: train the reference model, run every stage, write the report.

        Stages that are finished are not run again, so the same command goes on after a kill.
        Writes OUT/report.html and OUT/summary.json.

        Example: interp reproduce tiny --out runs/tiny

        Args:
            config: The settings.
            out: Folder of the run.
            overwrite: Delete the run in that folder first.
        """
        from interp.stages import reproduce, summary

        run = reproduce(config, out, overwrite=overwrite, announce=_announce)
        found = summary(run)
        _OUT.print(_summary_table(found))
        _OUT.print(f"report: {run.path / 'report.html'}", soft_wrap=True, markup=False)

    return reproduce


def _scaling(base: Config) -> Callable[..., None]:
    from interp.experiments.scaling import N_STEPS, SIZES  # the study's own defaults

    base = base.with_settings(**{"training.n_steps": N_STEPS})

    def scaling(
        config: Settings = base,
        *,
        out: Path,
        sizes: tuple[int, ...] = SIZES,
        seeds: tuple[int, ...] = (0, 1, 2),
        workers: int = 1,
    ) -> None:
        """Plateau length against the number of individuals, with a power-law fit.

        Example: interp scaling tiny --out runs/scaling --sizes 256 512 1024 --seeds 0 1 2

        Args:
            config: The settings that all runs share; the learning rate is constant.
            out: Folder of the study; finished runs in it are kept.
            sizes: Numbers of individuals, at least three.
            seeds: One run for each size and seed.
            workers: Runs at a time.
        """
        from interp.experiments import scaling, scaling_fits
        from interp.report.scaling import write_scaling_report

        table = scaling(config, out, sizes, seeds, workers)
        fits = scaling_fits(table)
        fits = fits[fits["delta"] == DELTA].drop(columns="delta")
        _OUT.print(_frame(fits, f"Power laws of the number of individuals, delta {DELTA}"))
        _OUT.print(f"tables: {out}", soft_wrap=True, markup=False)
        page = write_scaling_report(table, Path(out) / "report.html")
        _OUT.print(f"report: {page}", soft_wrap=True, markup=False)

    return scaling


def _phases(run: RunPath, *, delta: float = DELTA) -> None:
    """The three phases of a run, and how they move with the tolerance delta.

    Args:
        run: Folder of the run.
        delta: The plateau ends where the loss stays below (1 - delta) times the baseline.
    """
    from interp.run import Run

    opened = Run.load(run)
    phases = opened.phases_at(delta)
    last = int(opened.curve().index[-1])
    _OUT.print(
        f"baseline of the drawn people {phases.baseline:.3f} nats, delta {delta:g}\n"
        f"1. statistics end: {_or_never(phases.statistics_end)}\n"
        f"2. plateau ends:   {_or_never(phases.plateau_end)}\n"
        f"last measured:     step {last}, in the phase of {phases.at(last)}",
        highlight=False,
    )
    _OUT.print(_frame(opened.phase_sensitivity(), "Sensitivity to delta"))


def _report(run: RunPath) -> None:
    """Write the run's report.html: one file that opens with the network off.

    Args:
        run: Folder of the run.
    """
    from interp.report import write_report
    from interp.run import Run

    _OUT.print(str(write_report(Run.load(run))), soft_wrap=True, markup=False)


def _summary(runs: Annotated[tuple[Path, ...], tyro.conf.Positional], *, csv: Path) -> None:
    """One table of the summaries of several finished runs, e.g. of several seeds.

    Args:
        runs: Folders of runs that `interp reproduce` has finished.
        csv: The table to write, a row a run.
    """
    from interp.files import write_text
    from interp.stages import summary_table

    table = summary_table(runs)
    write_text(csv, table.to_csv(index=False))
    _OUT.print(_frame(table.set_index("seed").T.reset_index(), "Summaries, a column a seed"))
    _OUT.print(str(csv), soft_wrap=True, markup=False)


def _export(run: RunPath, *, out: Path, step: int | None = None) -> None:
    """Export a checkpoint in the property format of TransformerLens 2 and 3.

    Args:
        run: Folder of the run.
        out: Folder to write.
        step: A step with a checkpoint; the last by default.
    """
    from interp.model import export_model
    from interp.run import Run

    opened = Run.load(run)
    model = opened.model(step)
    description = f"seed {opened.config.seed}, step {opened.steps[-1] if step is None else step}"
    _OUT.print(str(export_model(model, out, description)), soft_wrap=True, markup=False)


def _patch(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    *,
    out: Path,
    reference_steps: tuple[int, ...] | None = None,
    start_steps: tuple[str, ...] = ("0",),
    layers: tuple[str, ...] = ("all",),
    heads: tuple[str, ...] = ("all",),
    seeds: tuple[int, ...] | None = None,
    until: int | None = None,
    workers: int = 1,
) -> None:
    """Attention patching: train again, with the attention patterns of a run's checkpoints.

    Every combination of reference step, start, layers and heads is one run, from the same initial
    weights and on the same samples as the reference of its seed. Writes OUT/table.csv,
    OUT/comparison.csv and OUT/report.html of all runs in OUT; finished ones are not trained again.

    Example: interp patch runs/tiny --out runs/patching --seeds 0 1 2 --layers all 0 1 --workers 2

    Args:
        runs: Folders of finished runs, one a seed, that differ in nothing else.
        out: Folder of the study.
        reference_steps: Checkpoints that give the patterns; chosen from the phases by default.
        start_steps: Steps from which patterns are patched; "same" stands for the reference step.
        layers: Sets of layers, each a run of its own: all, 0, 0,1 ...
        heads: Sets of heads of each of those layers: all, 0, 0,1 ...
        seeds: Seeds of the study; a run is trained for those that have none. Default: the runs' own.
        until: Step at which patched runs end; by default twice the end of the plateau.
        workers: Runs at a time.
    """
    from interp.experiments import patching, write_study
    from interp.report.patching import write_patching_report
    from interp.run import Run

    opened = [Run.load(path) for path in runs]
    patching(
        opened,
        out,
        reference_steps,
        [_start(word) for word in start_steps],
        [_parts(word, "layers") for word in layers],
        [_parts(word, "heads") for word in heads],
        seeds,
        until,
        workers,
    )
    table = write_study(opened, out)
    _OUT.print(f"tables: {out}", soft_wrap=True, markup=False)
    page = write_patching_report(table, opened[0].phases, out / "report.html")
    _OUT.print(f"report: {page}", soft_wrap=True, markup=False)


def _memory(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional], *, out: Path | None = None
) -> None:
    """MLP layers as key-value memory: keys, values, probes, causal tests, order of emergence.

    Runs the stages that a run has not finished yet (their tables are in RUN/results), shows the step
    at which each mechanism reaches half of its final strength, and puts several seeds together.

    Example: interp memory runs/seed0 runs/seed1 runs/seed2 --out runs/memory

    Args:
        runs: Folders of finished runs, one a seed, that differ in nothing else.
        out: Folder for the tables of all runs and a report.html; by default none is written.
    """
    from interp.experiments import memory_tables, require_comparable, write_memory_study
    from interp.report.memory_study import write_memory_report
    from interp.run import Run
    from interp.stages import MEMORY_STAGES, run_stages

    if not runs:
        raise InterpError("No run is given; name the folder of at least one finished run.")
    opened = [Run.load(path) for path in runs]
    require_comparable(opened)
    for run in opened:
        _announce(str(run.path))
        run_stages(run, MEMORY_STAGES, _announce)
    tables = memory_tables(opened) if out is None else write_memory_study(opened, out)
    steps = tables["emergence"].pivot_table("step", "mechanism", "seed", sort=False, dropna=False)
    steps.columns = [f"seed {seed}" for seed in steps.columns]
    _OUT.print(_frame(steps.reset_index(), "Step of half the final strength (nan: absent)"))
    if out is not None:
        _OUT.print(f"tables: {out}", soft_wrap=True, markup=False)
        page = write_memory_report(tables, [run.phases for run in opened], out / "report.html")
        _OUT.print(f"report: {page}", soft_wrap=True, markup=False)


def _start(word: str) -> int | str:
    """A start of patching: a step, or "same"."""
    if word == "same" or word.isdecimal():
        return word if word == "same" else int(word)
    raise InterpError(f"--start-steps {word!r}: give steps from 0 on, or the word same.")


def _parts(word: str, what: str) -> tuple[int, ...] | None:
    """A set of layers or heads: "all", or numbers with commas between them."""
    if word == "all":
        return None
    numbers = word.split(",")
    if not all(number.isdecimal() for number in numbers):
        raise InterpError(f"--{what} {word!r}: give all, a number, or numbers as in 0,1.")
    return tuple(sorted({int(number) for number in numbers}))


_WITH_PRESET = {"train": _train, "reproduce": _reproduce, "scaling": _scaling}
_ON_RUN: dict[str, Callable[..., None]] = {
    "phases": _phases,
    "report": _report,
    "export": _export,
    "patch": _patch,
    "memory": _memory,
    "summary": _summary,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; exits with 2 on bad input, 130 when interrupted."""
    # A link to pydantic's manual helps nobody who mistyped a flag.
    os.environ.setdefault("PYDANTIC_ERRORS_INCLUDE_URL", "0")
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _dispatch(words)
    except InterpError as error:
        _ERR.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _ERR.print("interrupted", style="red")
        sys.exit(130)


def _dispatch(words: list[str]) -> None:
    known = [*_WITH_PRESET, *_ON_RUN]
    if not words or words[0] in ("-h", "--help", "help"):
        _OUT.print(_HELP.format(presets=", ".join(PRESETS)), highlight=False, markup=False)
        return
    if words[0] == "--version":
        from interp import __version__

        _OUT.print(__version__, highlight=False)
        return
    command, *rest = words
    if command in _WITH_PRESET:
        name = rest.pop(0) if rest and not rest[0].startswith("-") else "tiny"
        function = _WITH_PRESET[command](preset(name))
    elif command in _ON_RUN:
        function = _ON_RUN[command]
    else:
        from interp.errors import suggest

        raise InterpError(
            f"There is no command {command!r}.{suggest(command, known)} Commands: {', '.join(known)}."
        )
    tyro.cli(function, prog=f"interp {command}", args=rest, use_underscores=False)


def _announce(title: str) -> None:
    _ERR.print(title, style="bold", highlight=False, markup=False)


def _or_never(step: int | None) -> str:
    return "not reached" if step is None else f"step {step}"


def _frame(frame: "DataFrame", title: str) -> Table:
    table = Table(title=title)
    for name in frame.columns:
        table.add_column(str(name), justify="right")
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row))
    return table


def _summary_table(found: dict[str, object]) -> Table:
    table = Table(title="Summary", show_header=False)
    table.add_column("quantity")
    table.add_column("value", justify="right")
    for name, value in flatten(found).items():
        table.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
    return table
