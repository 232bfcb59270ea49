"""Facts in many forms: accuracy by form, questions about other people, and what answers them inside.

Tables are those of `interp.studies.forms`; tables read back from CSV will do. Every function raises
`InterpError` where a column is missing or there is nothing to draw.
Source: Allen-Zhu & Li 2023, arXiv:2309.14316.
"""

import pandas as pd
import plotly.graph_objects as go

from interp.charts import PALETTE, Axis, Look, bars, describe, ramp, rows
from interp.errors import InterpError

_FORMS = {
    "before": "wording seen,<br>before questions",
    "wording seen": "wording seen<br>with the person",
    "wording unseen": "wording seen with<br>others only",
    "question": "question",
    "part": "the month<br>of the birth date",
    "reordered name": "Last, First Middle",
    "inverse": "inverse question",
}
_QUESTIONS = {
    "mixed": "questions mixed in from the start",
    "all weights": "questions afterwards, all weights",
    "adapter": "questions afterwards, an adapter",
}
_SHARE = Axis("accuracy (share)", range=(0, 1.05))


def accuracy_by_form(table: pd.DataFrame) -> go.Figure:
    """Accuracy on people of whom no question was trained, by form; a panel for when questions are seen.

    What to look for: which forms are answered with few wordings, and which with many.

    Args:
        table: "accuracy" of the study.
    """
    found = _others(table)
    figure = bars(
        found, y="accuracy", place="form", group="run", facet="questions", axis=_SHARE, upright=True,
        looks=_looks(found), places={n: t for n, t in _FORMS.items() if n in set(found["form"])},
        titles={n: t for n, t in _QUESTIONS.items() if n in set(found["questions"])},
        place_axis="form of asking",
    )  # fmt: skip
    return describe(
        figure,
        "One fact in many forms",
        f"""Accuracy (share of answers right) on people of whom no question was ever seen in training, by the
        form in which they are asked; {_population(table)}. Colours: in how many wordings (k) of each
        attribute a person was met, and whether sentences came in a fixed order. Panels: when questions
        about the other people were seen, and which weights learned them. Points are means over seeds,
        with each seed. Look at how far a colour falls from the left to the right: what stays up is
        known, what falls was the memory of a sentence.""",
    )


def questions_of_others(table: pd.DataFrame) -> go.Figure:
    """Questions about people of whom none was trained, against the number of wordings.

    What to look for: where accuracy rises, and how much of it is the order of sentences.

    Args:
        table: "accuracy" of the study.
    """
    found = _others(table)
    found = found[found["form"] == "question"].sort_values(["wordings", "order"])
    if found.empty:
        raise InterpError("The table of accuracy has no questions about other people.")
    found = found.assign(when=found["questions"].map(_QUESTIONS))
    looks = {
        text: Look(PALETTE[colour], name=text)
        for (name, text), colour in zip(
            _QUESTIONS.items(), ("blue", "orange", "green"), strict=True
        )
        if name in set(found["questions"])
    }
    figure = bars(
        found, y="accuracy", place="run", group="when", axis=_SHARE, upright=True, looks=looks,
        place_axis="wordings of each attribute, and order of sentences",
    )  # fmt: skip
    return describe(
        figure,
        "Questions about people of whom none was trained",
        f"""Accuracy on questions about the half of the people of whom no question was seen, by the
        wordings of their biographies; {_population(table)}. Means over seeds, and each seed. Allen-Zhu &
        Li 2023 report 9.7% for one wording in fixed order and 96.6% for five shuffled ones with
        questions afterwards, and 86.6% for one wording with questions mixed in. Look for the number of
        wordings from which questions afterwards are answered, and whether mixing them in helps before
        that.""",
    )


def inside(table: pd.DataFrame) -> go.Figure:
    """Swaps at names in biographies and questions; neurons and heads that both forms share.

    What to look for: whether a question is answered by what answers in a biography.

    Args:
        table: "inside" of the study.
    """
    found = rows(
        table, ["measure", "form", "layer", "value", "control", "wordings", "order"], "inside"
    )
    found = found[found["questions"] == "mixed"]
    if found.empty:
        raise InterpError("The table of the inside has no run with questions mixed in.")
    best = found.loc[
        found.groupby(["seed", "wordings", "order", "measure", "form"])["value"].idxmax()
    ]
    named = {
        ("swap", "biography"): "follows a swap at names,<br>biography",
        ("swap", "question"): "follows a swap at names,<br>question",
        ("neurons", "question"): "same neurons fire<br>(cosine)",
        ("heads", "question"): "same heads look<br>(correlation)",
    }
    places = [named.get((m, f), "") for m, f in zip(best["measure"], best["form"], strict=True)]
    best = best.assign(place=places, run=_runs(best)).query("place != ''")
    order = {text: text for text in named.values() if text in set(best["place"])}
    controls = best.assign(value=best["control"], run="control")
    looks = {**_looks(best), "control": Look(PALETTE["grey"], symbol="x", name="control")}
    figure = bars(
        pd.concat([best, controls]), place="place", group="run", looks=looks, places=order,
        axis=Axis("share, cosine or correlation"), upright=True,
    )  # fmt: skip
    return describe(
        figure,
        "What answers a question inside",
        """Of people of whom no question was trained, with questions mixed in from the start; of each run the
        layer with the largest value. The share of predictions that follow when the residual stream at
        all tokens of names is swapped with another person's, in biographies and in questions
        (control: at as many text tokens). The cosine of a person's neuron activations at the last
        name token between both forms (control: two people). The correlation over heads of attention to
        the name between both forms (control: heads in another order). Look for whether swaps carry
        answers to questions as they do in biographies, and for runs in which neurons are the same but nothing
        is answered.""",
    )


def _others(table: pd.DataFrame) -> pd.DataFrame:
    columns = ["seed", "wordings", "order", "questions", "group", "form", "attribute", "accuracy"]
    found = rows(table, columns, "accuracy")
    found = found[(found["group"] == "others") & (found["attribute"] == "all")]
    if found.empty:
        raise InterpError("The table of accuracy has nobody of whom no question was trained.")
    for name in ("people", "steps"):
        if name in found:
            found = found[found[name] == found[name].min()]
    return found.assign(run=_runs(found)).sort_values(["wordings", "order"])


def _runs(table: pd.DataFrame) -> list[str]:
    return [f"k = {k}, {o}" for k, o in zip(table["wordings"], table["order"], strict=True)]


def _looks(table: pd.DataFrame) -> dict[str, Look]:
    """A colour for each number of wordings; diamonds where the order of sentences is fixed."""
    numbers = sorted(table["wordings"].unique())
    colours = dict(zip(numbers, ramp(len(numbers)), strict=True))
    runs = table.sort_values(["wordings", "order"]).drop_duplicates("run")
    symbols = {"fixed": "diamond", "shuffled": "circle"}
    looks = zip(map(str, runs["run"]), runs["wordings"], runs["order"], strict=True)
    return {run: Look(colours[k], symbol=symbols[order], name=run) for run, k, order in looks}


def _population(table: pd.DataFrame) -> str:
    return (
        f"{int(table['people'].min()):,} people, {int(table['steps'].min()):,} steps on biographies"
    )
