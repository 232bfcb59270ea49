"""Merging runs, and the loss along the straight line between two."""

from pathlib import Path

from interp.cli.printing import note, say
from interp.cli.runs import RunPaths
from interp.cli.tables import show_frame
from interp.errors import ArgumentError, InterpError


def merge(
    runs: RunPaths,
    *,
    out: Path | None = None,
    weights: tuple[float, ...] = (),
    steps: tuple[int, ...] = (),
    base: Path | None = None,
    line: bool = False,
    n: int = 11,
    csv: Path | None = None,
    figure: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Average the weights of runs, add what runs learned, or measure the loss along the line between two.

    Runs have to be of one architecture and one tokenizer. The merged run is a run like any other, with
    settings and people of the first.

    Example: interp merge runs/seed0 runs/seed1 --out runs/merged --weights 0.3 0.7

    Example: interp merge runs/new runs/rare --base runs/tiny --out runs/both

    Example: interp merge runs/seed0 runs/seed1 --line --csv line.csv

    Args:
        runs: Folders of runs, at least two.
        out: Folder of the merged run.
        weights: Of each run, adding up to 1; all alike by default. With --base: of each task vector, 1 by
            default.
        steps: Of each run the checkpoint; the last by default.
        base: Folder of the run that the others were fine-tuned from: BASE + the sum of RUN - BASE.
        line: Measure loss and accuracy along the straight line between two runs, and its barrier.
        n: How many models on that line, both ends included.
        csv: A file for the line as a table; .csv is added to a name without an ending.
        figure: A file for the line as a figure: .html, which opens with the network off.
        overwrite: Delete the run in OUT first.
    """
    from interp.files import replaceable, with_ending, write_text
    from interp.merging import barrier, loss_along_line, save_merged, task_vector
    from interp.merging import merge as merged
    from interp.merging.line import COLUMNS
    from interp.tables import for_spreadsheets, header_mark

    if out is None and not line:
        raise InterpError("Nothing is asked for: give --out DIR for a merged run, or --line.")
    if (csv is not None or figure is not None) and not line:
        raise InterpError("--csv and --figure are of the line between two runs; add --line.")
    if line and (len(runs) != 2 or base is not None):
        without = "" if base is None else ", without --base"
        raise InterpError(f"--line is between two runs; {len(runs)} are given. Give two{without}.")
    chosen = steps or None
    if csv is not None:
        csv = replaceable(
            with_ending(csv, ".csv"), header_mark(COLUMNS), "a table of losses along a line"
        )
    if figure is not None:
        from interp.report.html import page_to_write

        figure = page_to_write(with_ending(figure, ".html"))
    if line:
        table = loss_along_line(runs[0], runs[1], n, steps=chosen)
        show_frame(table, "Along the straight line between two runs")
        for split in dict.fromkeys(table["split"]):
            say(f"barrier ({split.replace('_', ' ')}): {barrier(table, split):.4f} nats")
        if csv is not None:
            write_text(csv, for_spreadsheets(table).to_csv(index=False))
            say(csv)
        if figure is not None:
            from interp.report.line import write_line

            say(write_line(table, figure, [str(run) for run in runs]))
    if out is None:
        return
    if base is None:
        model = merged(runs, weights or None, steps=chosen)
    else:
        factors = weights or (1.0,) * len(runs)
        if len(factors) != len(runs) or len(steps) not in (0, len(runs)):
            raise ArgumentError(
                f"--weights and --steps: give one for each of the {len(runs)} runs, or none."
            )
        at: list[int | None] = [*steps] or [None] * len(runs)
        pairs = zip(runs, factors, at, strict=True)
        first, *others = (task_vector(run, base, steps=[s, None]) * f for run, f, s in pairs)
        model = sum(others, first).apply(base)
    run = save_merged(model, out, overwrite=overwrite)
    say(repr(run), highlight=False)
    note("`interp reproduce` with --config of its config.yaml measures everything on it.")
