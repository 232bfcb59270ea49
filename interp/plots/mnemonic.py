"""Mnemonic phrases and prose: knowledge over training, recall, adapters, and where the memory is.

Tables are those of `interp.studies.mnemonic`; tables read back from CSV will do. Every function raises
`InterpError` where a column is missing or there is nothing to draw.
"""

import pandas as pd
import plotly.graph_objects as go

from interp.charts import PALETTE, Axis, Look, bars, curves, describe, ramp, rows
from interp.errors import InterpError

_BUDGETS = {"steps": "as many steps in all", "prose": "as many steps of prose"}
_FORMS = {
    "biography": Look(PALETTE["blue"], name="prose"),
    "mnemonic": Look(PALETTE["orange"], symbol="diamond", name="mnemonic phrases"),
    "polyglot": Look(PALETTE["green"], symbol="square", name="polyglot phrases"),
    "fused": Look(PALETTE["purple"], symbol="x", name="fused phrases"),
}
_SHARE = Axis("accuracy (share)", range=(-0.03, 1.05))


def prose_curves(table: pd.DataFrame) -> go.Figure:
    """Knowledge in prose over the steps of prose, a line for each condition; a panel for each budget.

    What to look for: which line rises first, and which ends lower.

    Args:
        table: "curves" of the study.
    """
    found = rows(table, ["seed", "condition", "budget", "prose_step", "accuracy"], "curves")
    if found.empty:
        raise InterpError("The table of curves has no rows.")
    # Of stages without prose, the last state stands where prose begins.
    found = found.groupby(["seed", "condition", "budget", "prose_step"], as_index=False).last()
    names = list(dict.fromkeys(table["condition"]))
    looks = {n: Look(c, name=n) for n, c in zip(names, ramp(len(names)), strict=True)}
    figure = curves(
        found, x="prose_step", y="accuracy", line="condition", looks=looks, facet="budget",
        titles={b: t for b, t in _BUDGETS.items() if b in set(found["budget"])},
        axis=_SHARE, x_axis=Axis("steps of prose"), seeds=True,
    )  # fmt: skip
    return describe(
        figure,
        "What is known in prose",
        """Accuracy (share of values right) in biographies, in wordings never seen with a person, over
        the steps of prose that there had been; of a mixture half of its steps are prose. Means over
        seeds, and each seed. Panels: all conditions with as many steps in all, or with as many steps of
        prose. "mnemonic, prose": mnemonic phrases first. Look for whether lines with mnemonic phrases
        before prose rise sooner than the line of prose alone, and for how far lines fall that end with
        mnemonic phrases.""",
    )


def recall(table: pd.DataFrame) -> go.Figure:
    """What is answered in prose and in phrases, at the end of the first stage and of training.

    What to look for: phrases that are known at the boundary and no longer at the end.

    Args:
        table: "recall" of the study.
    """
    found = rows(table, ["seed", "condition", "budget", "when", "form", "accuracy"], "recall")
    found = found[found["budget"] == found["budget"].iloc[0]] if len(found) else found
    if found.empty:
        raise InterpError("The table of recall has no rows.")
    figure = bars(
        found, y="accuracy", place="condition", group="form", looks=_looks(found), facet="when",
        titles={"boundary": "end of the first stage", "end": "end of training"}, axis=_SHARE, upright=True,
    )  # fmt: skip
    return describe(
        figure,
        "What is recalled, in prose and in phrases",
        f"""Accuracy (share of answers right) in biographies (wordings never seen with a person) and in
        phrases without other words, at the end of the first stage and of training; {_budget(found)}. In
        phrases an answer is right where the model begins any value of the person that has not been told,
        and finishes the one that comes. Means over seeds, and each seed. Look for phrases that are
        trampled by prose after them, and for prose that phrases after it trample.""",
    )


def adapters(table: pd.DataFrame) -> go.Figure:
    """What is answered with the adapter on and off.

    What to look for: whether the core without the adapter is what it was.

    Args:
        table: "adapters" of the study.
    """
    found = rows(table, ["seed", "condition", "budget", "adapter", "form", "accuracy"], "adapters")
    found = found[found["budget"] == found["budget"].iloc[0]] if len(found) else found
    if found.empty:
        raise InterpError("No run with an adapter has finished.")
    places = [
        f"{c},<br>adapter {a}" for c, a in zip(found["condition"], found["adapter"], strict=True)
    ]
    figure = bars(
        found.assign(place=places), y="accuracy", place="place", group="form", looks=_looks(found),
        axis=_SHARE, upright=True,
    )  # fmt: skip
    return describe(
        figure,
        "What the adapter carries",
        f"""Accuracy at the end of training with the adapter that was trained last on and off;
        {_budget(found)}. Look at phrases with the adapter off, which the core alone recalls, and at
        prose with it on.""",
    )


def memory(table: pd.DataFrame) -> go.Figure:
    """At which tokens the stream after the first layer carries facts in prose, for each condition.

    What to look for: conditions in which it is at another place than with prose alone.

    Args:
        table: "memory" of the study.
    """
    needed = ["seed", "condition", "budget", "layer", "site", "position", "follows", "control"]
    found = rows(table, needed, "memory")
    found = found[found["budget"] == found["budget"].iloc[0]] if len(found) else found
    found = found[(found["site"] == "resid_post") & (found["layer"] == found["layer"].min())]
    if found.empty:
        raise InterpError("The table of memory has no rows of the stream after the first layer.")
    order = list(dict.fromkeys(found["position"]))
    looks = {name: Look(c, name=name) for name, c in zip(order, ramp(len(order)), strict=True)}
    looks["control"] = Look(PALETTE["grey"], symbol="x", name="control")
    controls = found[found["position"] == order[-1]]
    controls = controls.assign(follows=controls["control"], position="control")
    figure = bars(
        pd.concat([found, controls]), y="follows", place="condition", group="position", looks=looks,
        axis=Axis("predictions that follow (share)", range=(-0.03, 1.05)), upright=True,
    )  # fmt: skip
    return describe(
        figure,
        "Where the memory of prose is",
        f"""The share of predictions in biographies that become another person's when the residual stream
        after the first layer is swapped with that person's, at one token of every name, at all of them,
        or where the value is predicted; {_budget(found)}. Control: at as many text tokens as names
        have. A model that has the facts at names follows there; one that puts them together only where it
        predicts follows there alone. Look for conditions that differ from prose alone.""",
    )


def _looks(table: pd.DataFrame) -> dict[str, Look]:
    return {form: look for form, look in _FORMS.items() if form in set(table["form"])}


def _budget(table: pd.DataFrame) -> str:
    return _BUDGETS.get(str(table["budget"].iloc[0]), "")
