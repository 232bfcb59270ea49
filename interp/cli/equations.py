"""Measuring a run's facts as equations."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from interp.cli.models import require_run
from interp.cli.printing import announce, note, say, say_not_measured
from interp.cli.runs import RunPath
from interp.cli.tables import show, show_frame

if TYPE_CHECKING:
    from pandas import DataFrame


def equations(
    run: RunPath,
    *,
    by: tuple[str, ...] = ("attribute", "first name", "last name"),
    steps: tuple[str, ...] = (),
    people: int = 1024,
    n_individuals: int = 96,
    n_groups: int = 8,
    max_memory_gb: float = 1.0,
) -> None:
    """Facts as equations: the loss of every fact, bits known, and which groups of facts interfere.

    Writes RUN/results/equations (residuals.csv, capacity.csv, interference.csv), in place of what an earlier
    call has written; `interp report RUN` shows it.

    Example: interp equations runs/tiny --by attribute "first name" --steps plateau last

    Args:
        run: Folder of a finished run.
        by: What facts are grouped by: attribute, people, first name, middle name, last name, form.
        steps: Checkpoints by number or name: first, statistics, plateau (the checkpoints at the end of these
            phases), middle, last. Default: about eight for residuals; the ends of the phases and the
            last for interference.
        people: The loss of the facts of at most so many people.
        n_individuals: Gradients of the facts of at most so many people, all groups together.
        n_groups: At most so many groups of people or names.
        max_memory_gb: What gradients may take, in GiB; where they take more, they are projected at random.
    """
    from interp.equations import between
    from interp.run import Run
    from interp.series import named_steps
    from interp.stages import measure_equations

    require_run(run)
    opened = Run.load(run)
    words = [word for given in steps for word in given.split(",") if word]
    chosen = named_steps(opened, words) if steps else None
    summary = measure_equations(
        opened, tuple(name.replace("_", " ").replace("-", " ") for name in by), steps=chosen,
        people=people, n_individuals=n_individuals, n_groups=n_groups, max_memory_gb=max_memory_gb,
        announce=announce,
    )  # fmt: skip
    table, bits = opened.result("equations", "residuals"), opened.result("equations", "capacity")
    if table is not None and bits is not None:
        found = between(table).merge(bits[bits["attribute"] == "all"], on="step")
        columns = ["step", "mean", "known", "between", "unknown", "bits", "bits_per_parameter"]
        show_frame(found[columns], "Facts by their loss (share of the baseline), and bits known")
        note(
            "known: below 0.2 of the baseline; unknown: above 0.8; between: facts that are half known."
        )
    pairs = opened.result("equations", "interference")
    if pairs is not None:
        whole = pairs[(pairs["component"] == "all") & pairs["layer"].isna()]
        groups = cast(Any, whole.groupby(["by", "step"], sort=False))
        rows = [(one, f"{step:,}", *_means(own)) for (one, step), own in groups]
        show(
            "Cosine of gradients, mean over groups (all weights)",
            ("by", "step", "with itself", "with others", "shuffled",
             "specific: with itself", "with others (specific)", "shuffled (specific)"),
            rows,
            right=("step",),
        )  # fmt: skip
    for one, why in summary.get("left_out", {}).items():
        say(f"not measured: by {one}: {why}", highlight=False)
    say_not_measured(
        {n: why for n, why in opened.not_measured.items() if n.startswith("equations/")}
    )
    say(f"tables: {Path(run) / 'results' / 'equations'}")


def _means(own: "DataFrame") -> list[float]:
    """With itself, with others, shuffled; of the cosine, then of what is specific."""
    cells = []
    for metric in ("cosine", "specific"):
        part = own[own["metric"] == metric]
        same = part["group"] == part["other"]
        cells += [
            float(part.loc[same, "value"].mean()),
            float(part.loc[~same, "value"].mean()),
            float(part["shuffled"].mean()),
        ]
    return cells
