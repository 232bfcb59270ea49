"""Commands on several runs: studies, and batches of them."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from interp.cli.printing import announce, complain, say, say_not_measured
from interp.cli.runs import RunPaths
from interp.cli.tables import show, show_frame
from interp.errors import ConfigError, InterpError, short
from interp.plain_yaml import read_yaml
from interp.reading import MAX_DOCUMENT, DamageError, read_text

if TYPE_CHECKING:
    from interp.studies.batch import Batch


def train_patched(
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
    from interp.report.html import page_to_write
    from interp.report.patching import write_patching_report
    from interp.run import Run
    from interp.studies import patching, write_study
    from interp.studies.patching import require_study_folder

    require_study_folder(out)
    page_to_write(out / "report.html")
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
    say(f"tables: {out}")
    page = write_patching_report(table, opened[0].phases, out / "report.html")
    say(f"report: {page}")


def memory(runs: RunPaths, *, out: Path | None = None) -> None:
    """MLP layers as key-value memory: keys, values, probes, causal tests, order of emergence.

    Runs the stages that a run has not finished yet (their tables are in RUN/results), shows the step
    at which each mechanism reaches half of its final strength, and puts several seeds together.

    Example: interp memory runs/seed0 runs/seed1 runs/seed2 --out runs/memory

    Args:
        runs: Folders of finished runs, one a seed, that differ in nothing else.
        out: Folder for the tables of all runs and a report.html; by default none is written.
    """
    from interp.report.html import page_to_write
    from interp.report.memory_study import write_memory_report
    from interp.run import Run
    from interp.stages import MEMORY_STAGES, run_stages
    from interp.studies import memory_tables, require_comparable, write_memory_study
    from interp.studies.memory import require_memory_folder

    if not runs:
        raise InterpError("No run is given; name the folder of at least one finished run.")
    if out is not None:
        require_memory_folder(out)
        page_to_write(out / "report.html")
    opened = [Run.load(path) for path in runs]
    require_comparable(opened)
    for run in opened:
        announce(str(run.given))
        run_stages(run, MEMORY_STAGES, announce)
        say_not_measured(run.not_measured)
    tables = memory_tables(opened) if out is None else write_memory_study(opened, out)
    steps = tables["emergence"].pivot_table("step", "mechanism", "seed", sort=False, dropna=False)
    steps.columns = [f"seed {seed}" for seed in steps.columns]
    show_frame(steps.reset_index(), "Step of half the final strength (nan: absent)")
    if out is not None:
        say(f"tables: {out}")
        page = write_memory_report(tables, [run.phases for run in opened], out / "report.html")
        say(f"report: {page}")


def studies(
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
    found = state(batch, out).to_dict("records")
    columns, rows = ["name", "what it is about", "runs"], []
    for row in found:
        finished, runs = int(row["finished"]), int(row["runs"])
        done = "yes" if finished == runs else f"{finished} of {runs}"
        rows.append([row["label"], row["title"], runs, *([done] if out is not None else [])])
    if out is not None:
        columns.append("finished")
    show("Studies" if out is None else f"Studies in {out}", columns, rows, right=("runs",))


def store(
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")],
    *,
    prune: bool = False,
    yes: bool = False,
) -> None:
    """The runs of a batch: how large, how old, and which study needs each.

    With --prune, those that no study of the batch needs any more (since its settings are others now) are
    listed, and with --yes deleted. Runs that a process trains are left alone.

    Example: interp store runs/studies

    Example: interp store runs/studies --prune --yes

    Args:
        out: Folder of a batch (--out of `interp batch`).
        prune: List only what nothing needs, and say how to delete it.
        yes: With --prune: delete it.
    """
    from interp.seeds import number_of
    from interp.studies.stored import prune as delete
    from interp.studies.stored import stored_runs

    if yes and not prune:
        raise InterpError(
            "--yes goes with --prune; nothing was deleted. Give both to delete, --prune alone to look."
        )
    found = stored_runs(out)
    if prune:
        found = [one for one in found if not one.needed_by]
    rows = [
        (one.folder.name, f"{one.size / 2**20:,.1f}", _age(one.changed), one.state,
         ", ".join(one.needed_by) or "nothing")
        for one in found
    ]  # fmt: skip
    title = f"Runs in {out} that nothing needs" if prune else f"Runs in {out}"
    show(title, ["run", "MiB", "age", "state", "needed by"], rows, right=("MiB", "age"))
    unneeded = [one for one in found if not one.needed_by and one.state != "in use"]
    size = sum(one.size for one in unneeded) / 2**20
    if prune and yes:
        say(f"deleted: {number_of(len(delete(unneeded)), 'run')}, {size:,.1f} MiB")
    elif unneeded:
        how = "add --yes" if prune else f"interp store {out} --prune"
        runs = number_of(len(unneeded), "run")
        say(f"needed by nothing: {runs}, {size:,.1f} MiB; to delete: {how}")


def _age(changed: float) -> str:
    """How long ago, in the largest unit of which there is one at least."""
    seconds = max(0.0, time.time() - changed)
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def batch(
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
    from interp.batch import REPORT, run_batch, work_left
    from interp.engine import EngineSettings
    from interp.progress import in_words

    batch = _described_batch(studies, seeds, set)
    settings = EngineSettings(
        kind=engine, workers=workers, threads=threads, address=address,
        cpus_per_run=cpus_per_run, gpus_per_run=gpus_per_run, retry=retry,
    )  # fmt: skip
    work = work_left(batch, out)
    if work.n_left:
        announce(
            f"{work.n_left:,} of {work.n_runs:,} runs are to be trained: {in_words(work.seconds)}, "
            "up to half as much again, on 2 CPU cores with --workers 2; less on more"
        )
    found = run_batch(batch, out, settings)
    claims = [(study.label, claim) for study in found for claim in study.claims]
    columns = ("study", "claim", "measured here", "verdict")
    rows = [(label, claim.claim, claim.measured, claim.verdict) for label, claim in claims]
    show("Claims and verdicts", columns, rows)
    failures = {str(failure): None for of_study in found for failure in of_study.failures}
    problems = [*failures, *(f"{f.label}: {f.error}" for f in found if f.error)]
    if problems:
        listed = "\n".join(problems)
        complain(
            f"Not everything could be finished:\n{listed}\nRemove the cause and run the same command "
            "again: finished runs are kept, and the others go on from their last checkpoint."
        )
    say(f"report: {out / REPORT}")
    if problems:
        sys.exit(1)


def _described_batch(
    studies: Sequence[str], seeds: Sequence[int] | None, changes: Sequence[str]
) -> "Batch":
    """The batch that a command line describes: a YAML file, or names of studies."""
    from interp.studies.batch import Batch

    named = [word for word in studies if not word.endswith(".py")]
    files = [word for word in named if word.endswith((".yaml", ".yml")) or _is_file(word)]
    if not studies or (files and len(studies) > 1):
        raise InterpError(
            "Give names of studies, or one YAML file; `interp studies` lists the names."
        )
    if files:
        if seeds is not None or changes:
            raise InterpError(
                f"--seeds and --set belong to studies that are named; {files[0]} says its own. "
                "Leave them out, or change them in the file."
            )
        try:
            text = read_text(Path(files[0]), MAX_DOCUMENT)
        except DamageError as damage:
            raise InterpError(f"{files[0]}: {damage}. Give a YAML file.") from None
        try:
            return Batch.from_yaml(text, Path(files[0]).resolve().parent)
        except ConfigError as error:
            raise ConfigError(f"{files[0]}: {error}") from error
    if changes and len(studies) > 1:
        raise InterpError(
            "--set belongs to one study; with several, describe the batch in a YAML file."
        )
    settings = {}
    for change in changes:
        name, sign, value = change.partition("=")
        if not sign:
            raise InterpError(f"--set {short(change)}: give NAME=VALUE, e.g. n_steps=500.")
        try:
            settings[name] = read_yaml(value)
        except ConfigError as error:
            raise InterpError(f"--set {short(change, 80)}: {error}") from error
    entries = [{"study": name, "seeds": seeds, "settings": settings} for name in studies]
    return Batch.parse({"studies": entries})


def _is_file(word: str) -> bool:
    try:
        return Path(word).is_file()
    except (OSError, ValueError):  # no file can have such a name
        return False


def _is_number(word: str) -> bool:
    return word.isdecimal() and len(word) < 19  # more digits than any step has


def _start(word: str) -> int | str:
    """A start of patching: a step, or "same"."""
    if word == "same" or _is_number(word):
        return word if word == "same" else int(word)
    raise InterpError(f"--start-steps {short(word)}: give steps from 0 on, or the word same.")


def _parts(word: str, what: str) -> tuple[int, ...] | None:
    """A set of layers or heads: "all", or numbers with commas between them."""
    if word == "all":
        return None
    numbers = word.split(",")
    if not all(map(_is_number, numbers)):
        raise InterpError(f"--{what} {short(word)}: give all, a number, or numbers as in 0,1.")
    return tuple(sorted({int(number) for number in numbers}))
