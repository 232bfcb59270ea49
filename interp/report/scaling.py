"""The page of the scaling study: plateau length against the number of individuals."""

from pathlib import Path

import pandas as pd

from interp import plots
from interp.experiments.scaling import fit_of, scaling_fits
from interp.files import write_text
from interp.phases import DELTA, PAPER_EXPONENT
from interp.report.html import render
from interp.report.sections import Section, Table


def write_scaling_report(table: pd.DataFrame, path: Path | str) -> Path:
    """Writes the page of a finished study.

    Args:
        table: What `experiments.scaling` returned.
        path: The HTML file.

    Raises:
        InterpError: fewer than three sizes have left the plateau.
    """
    end, length = fit_of(table), fit_of(table, "plateau_length")
    chosen = table[table["delta"] == DELTA]
    fits = scaling_fits(table)
    sizes = sorted(set(chosen["n_individuals"]))
    headline = (
        f"The plateau ends at a step that grows as N^{end.exponent:.2f} (95% interval {end.low:.2f} to "
        f"{end.high:.2f}; the paper: {PAPER_EXPONENT}); its length, counted from the end of the "
        f"statistics phase, as N^{length.exponent:.2f} ({length.low:.2f} to {length.high:.2f}), "
        f"for {sizes[0]:,} to {sizes[-1]:,} individuals, "
        f"{chosen['seed'].nunique()} seeds."
    )
    runs = Table(
        f"Every run, δ = {DELTA}.",
        ("individuals", "seed", "statistics end (step)", "plateau end (step)", "length (steps)"),
        [
            tuple("not reached" if pd.isna(v) else f"{v:,}" for v in row)
            for row in chosen.drop(columns="delta").itertuples(index=False)
        ],
    )
    of_delta = Table(
        "The exponent for other tolerances δ, of the step at which the plateau ends and of its length.",
        ("δ", "measure", "exponent", "95% interval", "R²", "runs"),
        [
            (
                f"{row['delta']:g}",
                str(row["measure"]).replace("_", " "),
                f"{row['exponent']:.2f}",
                f"{row['low']:.2f} to {row['high']:.2f}",
                f"{row['r_squared']:.3f}",
                str(row["n_points"]),
            )
            for _, row in fits.iterrows()
        ],
    )
    section = Section(
        "The plateau and the population",
        "plateau",
        figures={
            "plateau-end": plots.scaling(chosen, end),
            "plateau-length": plots.scaling(chosen, length, "plateau_length"),
        },
        tables=[runs, of_delta],
    )
    write_text(Path(path), render("How the plateau grows with the population", headline, [section]))
    return Path(path)
