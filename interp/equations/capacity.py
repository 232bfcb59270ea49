"""Bits known: how much of a population a model holds, and how much for each of its parameters."""

import numpy as np
import pandas as pd

from interp.errors import ArgumentError, require_frame, whole_number

CAPACITY_COLUMNS = ("attribute", "n_facts", "loss", "baseline", "bits", "bits_per_parameter")
"""Columns of `bits_known`, after `step`."""


def bits_known(
    table: pd.DataFrame, n_parameters: int | None = None, n_individuals: int | None = None
) -> pd.DataFrame:
    """The bits of facts that a model knows: facts times (baseline - loss) / ln 2, not below 0.

    Known of language models: about 2 bits a parameter at 1,000 exposures, 1 at 100 (Allen-Zhu & Li 2024,
    arXiv:2404.05405).

    Args:
        table: From `residuals`, of people.
        n_parameters: Of the model, for bits per parameter.
        n_individuals: Of how many people those of the table are a sample; of themselves by default.

    Returns:
        A row for each attribute and "all" (whose bits are those of all facts together, so they can be
        less than the sum where an attribute is worse than its baseline): `step`, if the table has it,
        `attribute`, `n_facts`, mean `loss` and `baseline` (nats), `bits`, `bits_per_parameter` (NaN without
        `n_parameters`).

    Raises:
        ArgumentError: no such table, no fact with a baseline, or numbers that are none.
    """
    require_frame(table, "residuals")
    lacking = [c for c in ("individual", "attribute", "loss", "baseline") if c not in table]
    if lacking:
        raise ArgumentError(
            f"The table has no column {lacking[0]!r}; give what interp.equations.residuals returns for "
            "people of a corpus."
        )
    if "form" in table and table["form"].nunique() > 1:
        raise ArgumentError("The table has several forms, which tell the same facts; choose one.")
    own = table[table["baseline"].notna()]
    if own.empty:
        raise ArgumentError("No fact of the table has a baseline; there is nothing to hold it to.")
    if not np.isfinite(own["loss"].to_numpy(dtype=float)).all():
        raise ArgumentError("The table has losses that are no numbers (NaN or infinite).")
    measured = int(own["individual"].nunique())
    people = (
        measured
        if n_individuals is None
        else whole_number(n_individuals, "n_individuals", measured)
    )
    weights = None if n_parameters is None else whole_number(n_parameters, "n_parameters", 1)
    steps = own["step"] if "step" in own else pd.Series(0, index=own.index)
    rows = []
    for step, at in own.groupby(steps, sort=True):
        groups = [("all", at), *at.groupby("attribute", sort=False)]
        for name, part in groups:
            gain = float((part["baseline"] - part["loss"]).sum()) * people / measured
            bits = max(0.0, gain / float(np.log(2)))
            rows.append(
                (
                    step, str(name), round(len(part) * people / measured),
                    float(part["loss"].mean()), float(part["baseline"].mean()), bits,
                    np.nan if weights is None else bits / weights,
                )
            )  # fmt: skip
    found = pd.DataFrame(rows, columns=["step", *CAPACITY_COLUMNS])
    return found if "step" in table else found.drop(columns="step")
