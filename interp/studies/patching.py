"""Attention patching from reference checkpoints (paper, section 3.2, Fig. 3 left and middle, D).

A *reference* is a finished run. Modified models start from its initial weights, see its samples, and
take their attention patterns from one of its checkpoints, from step `start` on. If the patterns of
late checkpoints remove the plateau, attention is what the plateau is spent on.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from interp.errors import ConfigError, RunError
from interp.files import place_to_write, refuse_run, replaceable
from interp.model import valid_indices
from interp.progress import Progress, parts, showing
from interp.run import Run
from interp.run.tables import PATCHING_COMPARISON, PATCHING_TABLE
from interp.studies.cells import (
    Parts,
    default_reference_steps,
    default_until,
    grid,
    parts_text,
    patched_config,
)
from interp.studies.grid import require_same_but_seed, run_grid
from interp.training.loop import expected_seconds

METRICS = ("attribute_loss", "attribute_accuracy")
"""What the study's table holds: nats, share."""


def curves(run: Run) -> Iterator[pd.DataFrame]:
    """The measured curves of a run of the study in the form of `patching_table`."""
    patching = run.config.patching
    for metric in METRICS:
        curve = run.curve(metric)
        yield pd.DataFrame(
            {
                "seed": run.config.seed,
                "reference_step": patching.reference_step,
                "start": patching.start or 0,
                "layers": parts_text(patching.layers),
                "heads": parts_text(patching.heads),
                "step": curve.index.astype(int),
                "metric": metric,
                "value": curve.to_numpy(),
            }
        ).astype({"reference_step": "Int64"})


def patching_table(runs: Sequence[Run]) -> pd.DataFrame:
    """The curves of unpatched and patched runs in one tidy table.

    Returns:
        Columns `seed`, `reference_step` (NA: unpatched), `start`, `layers` and `heads` ("all", or
        numbers), `step`, `metric` (`METRICS`, on evaluation biographies) and `value`.
    """
    return pd.concat([part for run in runs for part in curves(run)], ignore_index=True)


def comparison(table: pd.DataFrame, metric: str = "attribute_loss") -> pd.DataFrame:
    """Every patched run against the unpatched one of its seed, at every common step.

    Returns:
        Columns `seed`, `reference_step`, `start`, `layers`, `heads`, `step`, `value` (the
        metric's unit), `unpatched` and `gain` (`unpatched - value`: positive where the patched
        model has the smaller loss).
    """
    of_metric = table[table["metric"] == metric].drop(columns="metric")
    bare = of_metric["reference_step"].isna()
    unpatched = of_metric[bare].set_index(["seed", "step"])["value"].rename("unpatched")
    joined = of_metric[~bare].join(unpatched, on=["seed", "step"], how="inner")
    return joined.assign(gain=joined["unpatched"] - joined["value"]).reset_index(drop=True)


def patching(
    runs: Sequence[Run],
    out: Path | str,
    reference_steps: Sequence[int] | None = None,
    start_steps: Sequence[int | str] = (0,),
    layers: Sequence[Parts] = (None,),
    heads: Sequence[Parts] = (None,),
    seeds: Sequence[int] | None = None,
    until: int | None = None,
    workers: int = 1,
    *,
    progress: bool | Progress = True,
) -> pd.DataFrame:
    """Runs the study: a grid of patched runs against unpatched ones; finished runs are kept.

    Each seed is a study of its own: its reference is the run of that seed, and its patched runs
    share that run's initial weights and samples.

    Args:
        runs: Finished reference runs, which differ in nothing but their seed.
        out: Folder in which `runs/` is made.
        reference_steps: Checkpoints that give the patterns; chosen from the first run's phases by
            default (see `default_reference_steps`).
        start_steps: Steps from which patterns are patched; "same" stands for the reference step.
        layers: Sets of layers to patch; None is all of them.
        heads: Sets of heads to patch in each of those layers; None is all.
        seeds: Seeds of the study; those for which no run is given are trained first. By default the
            seeds of the runs.
        until: Step at which patched runs end; by default twice the end of the first run's plateau.
        workers: Runs at a time.
        progress: Show progress on standard error; or where to report it to.

    Returns:
        The table of `patching_table`.

    Raises:
        RunError: a run is unfinished or itself patched, or the runs differ in more than their seed.
        ConfigError: a layer, head or step that cannot be.
        CheckpointError: a reference has no checkpoint at a step.
    """
    out = place_to_write(out)
    refuse_run(out, below=False)  # a stage of the main job keeps its runs in the reference's folder
    first = _first(runs)
    until = default_until(first) if until is None else until
    chosen = default_reference_steps(first) if reference_steps is None else tuple(reference_steps)
    model = first.config.model
    for part in layers:
        valid_indices(part, model.n_layers, "layer")
    for part in heads:
        valid_indices(part, model.n_heads, "head")
    cells = [c for c in grid(chosen, start_steps, layers, heads) if c.start < until]
    if not cells:
        raise ConfigError(
            f"No cell is left of the grid: every start of patching is at or after step {until}, where "
            "the patched runs end. Give an earlier start, or a later end (until)."
        )
    for step in chosen:
        first.model(step)  # a missing one is better found before hours of training
    n_missing = len(set(seeds or ()) - {run.config.seed for run in runs})
    n_patched = len(cells) * len(runs if seeds is None else set(seeds))
    work = [
        n_missing * expected_seconds(first.config),
        n_patched * expected_seconds(patched_config(first, cells[0], until)),
    ]
    with showing("patching", sum(work) / max(workers, 1) ** 0.8, progress) as report:
        of_references, of_patched = parts(report, work)
        references = _references(runs, out, seeds, workers, of_references)
        configs = {
            cell.name(seed, until): patched_config(reference, cell, until)
            for seed, reference in references.items()
            for cell in cells
        }
        patched = run_grid(configs, out / "runs", workers, progress=of_patched)
    return patching_table([*references.values(), *patched.values()])


def require_study_folder(out: Path | str) -> Path:
    """A folder for a study, once it is known that none of its files would replace somebody else's.

    Raises:
        RunError: the folder is a run's, or holds another table.csv or comparison.csv.
    """
    out = place_to_write(out)
    refuse_run(out)
    for name, table in (("table", PATCHING_TABLE), ("comparison", PATCHING_COMPARISON)):
        replaceable(out / f"{name}.csv", table.mark(), "a table of a patching study")
    return out


def write_study(runs: Sequence[Run], out: Path | str) -> pd.DataFrame:
    """Writes `table.csv` and `comparison.csv` of all finished runs of a study, of every grid in it.

    Args:
        runs: The reference runs that were given.
        out: The study's folder.

    Returns:
        The table of `patching_table`.

    Raises:
        RunError: as `require_study_folder`.
        StorageError: a file could not be written.
    """
    out = require_study_folder(out)
    found = [Run.load(path.parent) for path in sorted(out.glob("runs/*/finished.json"))]
    given = {run.config.seed for run in runs}
    unpatched = [r for r in found if not r.config.patching.on and r.config.seed not in given]
    patched = [r for r in found if r.config.patching.on]
    table = patching_table([*runs, *unpatched, *patched])
    PATCHING_TABLE.write(out / "table.csv", table)
    PATCHING_COMPARISON.write(out / "comparison.csv", comparison(table))
    return table


def _first(runs: Sequence[Run]) -> Run:
    if not runs:
        raise ConfigError("No reference run is given; name the folder of at least one.")
    _require_reference(runs[0], runs[0])
    return runs[0]


def _references(
    runs: Sequence[Run],
    out: Path,
    seeds: Sequence[int] | None,
    workers: int,
    progress: Progress,
) -> dict[int, Run]:
    """The reference run of every seed, in the order of the seeds."""
    by_seed: dict[int, Run] = {}
    for run in runs:
        _require_reference(run, runs[0])
        if run.config.seed in by_seed:
            raise RunError(
                f"{by_seed[run.config.seed].given} and {run.given} have the same seed, "
                f"{run.config.seed}; give one run a seed."
            )
        by_seed[run.config.seed] = run
    wanted = list(dict.fromkeys(by_seed if seeds is None else seeds))
    if not wanted:
        raise ConfigError("seeds is empty: name at least one seed.")
    missing = {
        f"seed{seed}_unpatched": runs[0].config.with_settings(seed=seed)
        for seed in wanted
        if seed not in by_seed
    }
    for run in run_grid(missing, out / "runs", workers, progress=progress).values():
        by_seed[run.config.seed] = run
    return {seed: by_seed[seed] for seed in wanted}


def _require_reference(run: Run, first: Run) -> None:
    if not run.finished:
        raise RunError(
            f"{run.given} has not finished training; go on with it (resume=True) before patching from it."
        )
    if run.config.patching.on:
        raise RunError(f"{run.given} is itself a patched run; give an unpatched one as reference.")
    require_same_but_seed(run, first)
