"""The console script `interp`. Every setting of the config models is a flag.

Errors about input or environment end with one message and a non-zero exit code, without a traceback.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from interp.config import Config, flatten
from interp.errors import InterpError
from interp.phases import DELTA
from interp.presets import PRESETS, preset

if TYPE_CHECKING:
    from pandas import DataFrame

    from interp.studies.batch import Batch

_OUT = Console()
_ERR = Console(stderr=True)
_PIPE_WIDTH = 240

Settings = Annotated[Config, tyro.conf.arg(name="")]
RunPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
RunPaths = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")]

_HELP = """\
interp: watch a language model learn facts.

  interp reproduce [PRESET] --out DIR   train, find the phases, measure, write DIR/report.html
  interp train     [PRESET] --out DIR   train only
  interp phases    RUN                  the three phases of a run, and how they move with delta
  interp report    RUN                  write the run's report.html
  interp report    RUN1 RUN2 ...        one page that compares runs: seeds, patched runs, settings
  interp people    RUN                  who is in it, with their six facts: names to ask about
  interp locate    RUN PERSON ATTRIBUTE where one fact sits in the model
  interp export    RUN --out DIR        a checkpoint for TransformerLens 2 and 3
  interp summary   RUN ... --csv FILE   one table of several finished runs
  interp train-patched RUN --out DIR    train with attention patterns of a run's checkpoints
  interp memory    RUN ...              MLP memory: keys, values, probes, swaps, order of emergence
  interp studies   [DIR]                the studies, and what of them is finished
  interp batch     STUDY ... --out DIR  train and evaluate studies, or a batch described in YAML

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


def _phases(run: RunPath, *, delta: float = DELTA) -> None:
    """The three phases of a run, and how they move with the tolerance delta.

    Example: interp phases runs/tiny --delta 0.1

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


def _report(runs: RunPaths, *, out: Path | None = None) -> None:
    """Write a run's report.html, one page that compares several runs, or the page of a batch.

    Every page is one file that opens with the network off. Compared can be seeds, patched runs, runs
    of other sizes: what they have in common is put on one axis, what only some have is said.

    Example: interp report runs/seed0 runs/seed1 runs/seed2 --out runs/seeds.html

    Args:
        runs: Folders of one run or more, each with measurements; training need not have ended. Or the
            folder of a batch (--out of `interp batch`).
        out: The file. Default: RUN/report.html; of several runs, comparison.html in the folder that
            holds the first.
    """
    from interp.batch import report_batch
    from interp.report import write_comparison, write_report
    from interp.run import Run
    from interp.studies.batch import BATCH_FILE

    if not runs:
        raise InterpError("No run is given; name the folder of at least one run.")
    if len(runs) == 1 and (runs[0] / BATCH_FILE).exists():
        _OUT.print(str(report_batch(runs[0], out)), soft_wrap=True, markup=False)
        return
    opened = [Run.load(path) for path in runs]
    if len(opened) == 1:
        page = write_report(opened[0], out)
    else:
        beside_first = opened[0].path.resolve().parent / "comparison.html"
        page = write_comparison(opened, beside_first if out is None else out)
    _OUT.print(str(page), soft_wrap=True, markup=False)


def _people(run: RunPath, *, search: str = "", limit: int = 20, held_out: bool = False) -> None:
    """A run's people with their six facts: whom `interp locate` can be asked about.

    Example: interp people runs/tiny --search physics --limit 5

    Args:
        run: Folder of the run.
        search: Show only people whose name or facts hold this text, in upper or lower case.
        limit: Show at most so many; 0 for all.
        held_out: Show only people who are never trained on.
    """
    from interp.biographies import ATTRIBUTES
    from interp.run import Run

    if limit < 0:
        raise InterpError(f"--limit {limit}: give 0 for all, or how many people to show.")
    everybody = Run.load(run).population.table()
    shown = everybody[everybody["held_out"]] if held_out else everybody
    words = shown[["name", *ATTRIBUTES]].agg("\n".join, axis=1).str.casefold()
    found = shown[words.str.contains(search.casefold(), regex=False)]
    listed = found.head(limit) if limit else found
    n_held_out = int(everybody["held_out"].sum())
    table = Table(
        title=f"{len(listed):,} of {len(found):,} people found, of {len(everybody):,} in all "
        f"({n_held_out:,} held out)"
    )
    table.add_column("index", justify="right")
    for name in ("name", *ATTRIBUTES):
        # A name is there to be copied: never cut off, and broken between its parts only.
        longest = max((len(p) for n in listed["name"] for p in n.split()), default=0)
        table.add_column(
            name.replace("_", " "), overflow="fold", min_width=longest if name == "name" else None
        )
    for row in listed.itertuples(index=False):
        index = f"{row.individual}{' (held out)' if row.held_out else ''}"
        # Text, not strings: brackets in a name are no markup.
        table.add_row(*(Text(str(cell)) for cell in (index, row.name, *row[3:])))
    # Into a file or a pipe every person goes on one line.
    (_OUT if _OUT.is_terminal else Console(width=_PIPE_WIDTH)).print(table)


def _locate(
    run: RunPath,
    person: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PERSON")],
    attribute: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ATTRIBUTE")],
    *,
    step: int | None = None,
    wordings: Literal["evaluation", "train"] = "evaluation",
    context: Literal["first", "biography"] = "first",
    out: Path | None = None,
) -> None:
    """Where one fact of a person sits: which heads and MLPs bring it, and from which token.

    Example: interp locate runs/tiny 12 university --step 300 --out fact.html

    Args:
        run: Folder of the run.
        person: A full name, an index, or a part of a name that nobody else has (`interp people RUN`
            lists them).
        attribute: birth place, birth date, current location, university, major or company; words
            joined by _ or -, or in quotation marks.
        step: A step with a checkpoint; the last by default.
        wordings: evaluation: a sentence never seen with this person; train: one seen in training.
        context: first: the fact is told first; biography: after the sentences that come before it.
        out: A file for the figure: .html (opens with the network off), .svg or .png.
    """
    from interp.memory.locate import locate_fact
    from interp.report.one_fact import require_format, write_fact
    from interp.run import Run

    if out is not None:
        require_format(out)  # before a model is read
    found = locate_fact(Run.load(run), person, attribute, step, wordings, context=context)
    _OUT.print(repr(found), highlight=False, markup=False, soft_wrap=True)
    if out is not None:
        _OUT.print(str(write_fact(found, out)), soft_wrap=True, markup=False)


def _summary(runs: RunPaths, *, csv: Path) -> None:
    """One table of the summaries of several finished runs, e.g. of several seeds.

    Example: interp summary runs/seed0 runs/seed1 --csv seeds.csv

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

    Example: interp export runs/tiny --out exported --step 500

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


def _train_patched(
    runs: RunPaths,
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

    Example: interp train-patched runs/tiny --out runs/patching --seeds 0 1 2 --layers all 0 1 --workers 2

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
    from interp.report.patching import write_patching_report
    from interp.run import Run
    from interp.studies import patching, write_study

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


def _memory(runs: RunPaths, *, out: Path | None = None) -> None:
    """MLP layers as key-value memory: keys, values, probes, causal tests, order of emergence.

    Runs the stages that a run has not finished yet (their tables are in RUN/results), shows the step
    at which each mechanism reaches half of its final strength, and puts several seeds together.

    Example: interp memory runs/seed0 runs/seed1 runs/seed2 --out runs/memory

    Args:
        runs: Folders of finished runs, one a seed, that differ in nothing else.
        out: Folder for the tables of all runs and a report.html; by default none is written.
    """
    from interp.report.memory_study import write_memory_report
    from interp.run import Run
    from interp.stages import MEMORY_STAGES, run_stages
    from interp.studies import memory_tables, require_comparable, write_memory_study

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


def _studies(
    out: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")] = None,
) -> None:
    """The studies, and which of their runs are finished.

    Example: interp studies artifacts/studies

    Args:
        out: Folder of a batch (--out of `interp batch`): what of it is finished. Default: every study
            with its own settings.
    """
    from interp.studies.batch import batch_in, everything, state

    if out is not None and not out.is_dir():
        raise InterpError(f"There is no folder {out}. Give the folder that was --out of a batch.")
    batch = everything() if out is None else batch_in(out)
    if batch is None:
        raise InterpError(f"{out} holds no batch (batch.yaml is missing). Give --out of a batch.")
    found = state(batch, out)
    table = Table(title="Studies" if out is None else f"Studies in {out}")
    for name in ("name", "what it is about", "runs", *(() if out is None else ("finished",))):
        table.add_column(name, overflow="fold")
    for row in found.to_dict("records"):
        finished, runs = int(row["finished"]), int(row["runs"])
        done = "yes" if finished == runs else f"{finished} of {runs}"
        cells = (row["label"], row["title"], str(runs), *(() if out is None else (done,)))
        table.add_row(*(Text(str(cell)) for cell in cells))
    _OUT.print(table)


def _batch(
    studies: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="STUDY|FILE")],
    *,
    out: Path,
    seeds: tuple[int, ...] | None = None,
    set: tuple[str, ...] = (),
    workers: int = 1,
    threads: int = 1,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    cpus_per_run: float = 1.0,
    gpus_per_run: float = 0.0,
    retry: int = 0,
) -> None:
    """Studies as a batch: trains the runs that are missing, writes tables, verdicts and a report.

    A run that two studies need is trained once, a finished one never again: the same command goes on
    after a kill. A run that fails stops no other; it is named at the end, and exit code 1 says so.
    Writes OUT/<study>/*.csv and OUT/report.html.

    Example: interp batch power_law warm_up --out runs/studies --workers 2 --seeds 0 1 2
    Example: interp batch my_study.py --out runs/mine
    Example: interp batch batch.yaml --out runs/studies --engine ray --address auto --gpus-per-run 0.5

    Args:
        studies: Names of studies (`interp studies` lists them), Python files with studies of your own,
            or one YAML file that describes a batch.
        out: Folder of the batch.
        seeds: Seeds of the named studies; the studies' own by default.
        set: Settings of the one study that is named, as NAME=VALUE with the value in YAML, e.g. --set
            "sizes=[256, 512]" run="{training.n_steps: 500}".
        workers: Runs at a time on this machine.
        threads: Threads of each run; its last bits depend on it.
        engine: local: on this machine; ray: on a Ray cluster.
        address: The cluster: auto, ray://host:port or host:port; one is started here by default.
        cpus_per_run: CPUs that each run asks the cluster for.
        gpus_per_run: GPUs that each run asks the cluster for.
        retry: How many times a run that fails is tried again.
    """
    from interp.batch import REPORT, run_batch
    from interp.engine import EngineSettings

    batch = _described_batch(studies, seeds, set)
    settings = EngineSettings(
        kind=engine, workers=workers, threads=threads, address=address,
        cpus_per_run=cpus_per_run, gpus_per_run=gpus_per_run, retry=retry,
    )  # fmt: skip
    found = run_batch(batch, out, settings)
    table = Table(title="Claims and verdicts")
    for name in ("study", "claim", "measured here", "verdict"):
        table.add_column(name, overflow="fold")
    for of_study in found:
        for claim in of_study.claims:
            cells = (of_study.label, claim.claim, claim.measured, claim.verdict)
            table.add_row(*map(Text, cells))
    _OUT.print(table)
    failures = {str(failure): None for of_study in found for failure in of_study.failures}
    problems = [*failures, *(f"{f.label}: {f.error}" for f in found if f.error)]
    if problems:
        listed = "\n".join(problems)
        _ERR.print(
            f"Not everything could be finished:\n{listed}\nRemove the cause and run the same command "
            "again: finished runs are kept, and the others go on from their last checkpoint.",
            style="red", highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    _OUT.print(f"report: {out / REPORT}", soft_wrap=True, markup=False)
    if problems:
        sys.exit(1)


def _described_batch(
    studies: Sequence[str], seeds: Sequence[int] | None, changes: Sequence[str]
) -> "Batch":
    """The batch that a command line describes: a YAML file, or names of studies."""
    import yaml

    from interp.studies.batch import Batch

    named = [word for word in studies if not word.endswith(".py")]
    files = [word for word in named if word.endswith((".yaml", ".yml")) or Path(word).is_file()]
    if not studies or (files and len(studies) > 1):
        raise InterpError(
            "Give names of studies, or one YAML file; `interp studies` lists the names."
        )
    if files:
        if seeds is not None or changes:
            raise InterpError(
                f"--seeds and --set belong to studies that are named; {files[0]} says its own."
            )
        try:
            text = Path(files[0]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InterpError(f"{files[0]} cannot be read ({error}). Give a YAML file.") from error
        return Batch.from_yaml(text, Path(files[0]).resolve().parent)
    if changes and len(studies) > 1:
        raise InterpError(
            "--set belongs to one study; with several, describe the batch in a YAML file."
        )
    settings = {}
    for change in changes:
        name, sign, value = change.partition("=")
        if not sign:
            raise InterpError(f"--set {change!r}: give NAME=VALUE, e.g. n_steps=500.")
        try:
            settings[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InterpError(f"--set {change!r}: the value is not YAML ({error}).") from error
    entries = [{"study": name, "seeds": seeds, "settings": settings} for name in studies]
    return Batch.parse({"studies": entries})


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


_WITH_PRESET = {"train": _train, "reproduce": _reproduce}
_ON_RUN: dict[str, Callable[..., None]] = {
    "phases": _phases,
    "report": _report,
    "people": _people,
    "locate": _locate,
    "export": _export,
    "train-patched": _train_patched,
    "memory": _memory,
    "summary": _summary,
    "studies": _studies,
    "batch": _batch,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; exits with 2 on bad input, 130 when interrupted."""
    # A link to pydantic's manual helps nobody who mistyped a flag.
    os.environ.setdefault("PYDANTIC_ERRORS_INCLUDE_URL", "0")
    # Threads that wait for each other spin for a while before they sleep. Where other programs want the
    # cores too, long spinning makes everything stand still; this little costs a quiet machine nothing.
    # It is read when torch is first imported, and changes no result.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if os.environ.get("WORLD_SIZE", "") not in ("", "1"):
            _one_of_several(words)
        _dispatch(words)
    except InterpError as error:
        _ERR.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _ERR.print("interrupted", style="red")
        sys.exit(130)


def _one_of_several(words: list[str]) -> None:
    """A launcher started this command several times: only training can be shared, and one speaks."""
    first = os.environ.get("RANK", "0") == "0"
    _OUT.quiet = not first
    if words[:1] != ["train"]:
        if not first:
            sys.exit(InterpError.exit_code)
        raise InterpError(
            "Only `interp train` can be shared by several processes. Train the run like that, then use "
            "the other commands on its folder without the launcher (`interp reproduce` goes on from a "
            "trained run)."
        )


_MOVED = {"trace": "locate", "patch": "train-patched"}
"""Commands that have another name now."""


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
    elif command in _MOVED:
        raise InterpError(
            f"`interp {command}` is now `interp {_MOVED[command]}`; what follows it is as before."
        )
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
