"""How well facts are recalled in each form of text, over training."""

import pandas as pd
import plotly.graph_objects as go

from interp.charts import (
    DASHES,
    PALETTE,
    ROOT_AXIS,
    ROOT_STEPS,
    SYMBOLS,
    Axis,
    Look,
    curves,
    describe,
)
from interp.charts.tidy import rows
from interp.phases import Phases

TRAINED, NOT_TRAINED = "people met in this form", "people not met in this form"
"""Groups of people: those whose facts a stage of training tells in the form, and the others."""
_COLUMNS = ("step", "form", "group", "accuracy")
_COLOURS = ("blue", "orange", "green", "purple", "grey")


def form_curves(accuracy: pd.DataFrame, phases: Phases | None = None) -> go.Figure:
    """Accuracy in each form over training, of people met in that form and of the others.

    What to look for: whether the others' accuracy in a form rises with that of the people met in it:
    then facts are known, not sentences.

    Args:
        accuracy: Columns `step`, `form`, `group` ("people met in this form" or "people not met in this
            form") and `accuracy` (share).
        phases: Of the training, with its stages; None if nobody knows them.

    Raises:
        InterpError: a column is missing, or there is no row.
    """
    found = rows(accuracy, _COLUMNS, "accuracy by form")
    forms = list(dict.fromkeys(found["form"]))
    looks = {
        form: Look(
            PALETTE[_COLOURS[i % len(_COLOURS)]], DASHES[i // len(_COLOURS) % len(DASHES)],
            symbol=SYMBOLS[i % len(SYMBOLS)], name=form.replace("_", " "),
        )
        for i, form in enumerate(forms)
    }  # fmt: skip
    groups = [group for group in (TRAINED, NOT_TRAINED) if group in set(found["group"])]
    figure = curves(
        found, y="accuracy", line="form", looks=looks, facet="group", x_axis=ROOT_STEPS, marks=True,
        titles={group: group for group in groups}, phases=phases,
        axis=Axis("accuracy (share)", range=(-0.02, 1.16)),
    )  # fmt: skip
    return describe(
        figure,
        "Asked in every form",
        f"""The share of answers that are predicted entirely right, with the tokens before each given,
        against training steps; a line for each form of text in which the model is asked. Above: people
        whose facts training tells in that form. Below: people met in other forms only, or in none.
        Dashed vertical lines: where a stage of training begins. Look for forms that rise below as well:
        what is recalled there is known, and not a sentence learned by heart. Forms that tell
        nothing of which value comes next (mnemonic, fused, polyglot) count any value that is left.
        {ROOT_AXIS}""",
    )
