"""Which memory: what predictions follow over training, and how alike people with the same value are.

Tables are those of `interp.studies.memory_kind`; tables read back from CSV will do. Every function raises
`InterpError` where a column is missing or there is nothing to draw.
"""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from interp.charts import PALETTE, ROOT_AXIS, ROOT_STEPS, Axis, Level, Look, curves, describe, rows
from interp.errors import InterpError

_SHARES = {
    "mlp": Look(PALETTE["blue"], name="MLPs at names"),
    "late": Look(PALETTE["green"], "dash", name="MLPs at other tokens"),
    "together": Look(PALETTE["green"], "dot", name="both together"),
    "embeddings": Look(PALETTE["orange"], name="embeddings alone"),
    "neither": Look(PALETTE["grey"], "dot", name="neither person's value"),
    "control": Look(PALETTE["purple"], "dot", name="a third person's value (control)"),
}
_ALIKE = {
    "alike_at_name": Look(PALETTE["blue"], name="at names"),
    "alike_arriving": Look(PALETTE["orange"], "dash", name="where the value is predicted"),
}
_TITLES = {"three tokens": "names of three tokens", "one token": "names of one token"}


def shares(kinds: pd.DataFrame, phases: pd.DataFrame) -> go.Figure:
    """What predictions follow where embeddings and MLPs are of two people, over training.

    What to look for: which line is at the top at the end, and whether another one was before.

    Args:
        kinds: "kinds" of the study.
        phases: "phases" of the study.
    """
    figure = _curves(kinds, phases, _SHARES, Axis("recalled pairs (share)", range=(-0.03, 1.05)))
    return describe(
        figure,
        "What predictions follow",
        f"""Two people in the same sentence, with the MLP outputs of the other person at names, or everywhere:
        the share of the recalled pairs whose prediction follows MLPs at names; stays then and follows
        MLPs everywhere; is neither's then and follows MLPs everywhere (both together); or stays with the
        tokens both times. Means over seeds and their range{_ends(phases)}.
        {ROOT_AXIS} Look for which line ends at the top. Before the end of the plateau few pairs are
        recalled, and shares are of these few.""",
    )


def shares_of_effect(kinds: pd.DataFrame, phases: pd.DataFrame) -> go.Figure:
    """The same in logits, as shares of all that names do for the answer.

    What to look for: from which step on lines are where they end.

    Args:
        kinds: "kinds" of the study.
        phases: "phases" of the study.
    """
    looks = {f"{name}_share": _SHARES[name] for name in ("mlp", "late", "embeddings")}
    figure = _curves(kinds, phases, looks, Axis("effect of names (share)"))
    return describe(
        figure,
        "What names do for the answer, and through what",
        f"""Of the change of the logit difference between two people's values when their names are swapped,
        the shares that MLPs at names, MLPs at other tokens, and embeddings without MLPs bring along; they
        add up to 1. Steps at which names do nothing (within two standard errors) are left out. Means over
        seeds and their range{_ends(phases)}. {ROOT_AXIS} Look for whether lines are where they end before
        the plateau ends.""",
    )


def alike(kinds: pd.DataFrame, phases: pd.DataFrame) -> go.Figure:
    """How alike people with the same value are where no MLP tells them apart, over training.

    What to look for: lines well above 0.5, which mean that MLPs read what embeddings say already.

    Args:
        kinds: "kinds" of the study.
        phases: "phases" of the study.
    """
    levels = [Level("a value says nothing of who is alike", 0.5)]
    axis = Axis("alike (AUC)", range=(0.4, 1.03))
    figure = _curves(kinds, phases, _ALIKE, axis, levels)
    return describe(
        figure,
        "Do embeddings say the value?",
        f"""With the MLP outputs of one and the same person everywhere: how often two people with the same
        value are more alike than two with different ones, at a name token, and where the value is
        predicted. In compiled models it is about 0.5 where MLPs look people up, and 0.8 to 1 where the
        facts are in embeddings. Means over seeds and their range{_ends(phases)}. {ROOT_AXIS} Look for
        lines that rise towards 1.""",
    )


def _curves(
    kinds: pd.DataFrame,
    phases: pd.DataFrame,
    looks: Mapping[str, Look],
    axis: Axis,
    levels: list[Level] | None = None,
) -> go.Figure:
    found = rows(kinds, ["seed", "names", "step", *looks], "kinds")
    if found.empty:
        raise InterpError("The table of kinds of memory has no rows.")
    table = found.melt(["seed", "names", "step"], list(looks), "line")
    titles = {names: words for names, words in _TITLES.items() if names in set(table["names"])}
    return curves(
        table, line="line", looks=looks, facet="names", titles=titles, axis=axis, x_axis=ROOT_STEPS,
        seeds=True, marks=True, levels=levels or (),
    )  # fmt: skip


def _ends(phases: pd.DataFrame) -> str:
    """Where plateaus end, for captions."""
    found = rows(phases, ["seed", "names", "plateau_end"], "phases")
    found = found[found["plateau_end"].notna()]
    parts = [
        f"{_TITLES.get(str(names), names)}: step {ends.mean():.0f} ({ends.min():.0f} to {ends.max():.0f})"
        for names, ends in found.groupby("names", sort=False)["plateau_end"]
    ]
    return f"; plateaus end, {', '.join(parts)}" if parts else ""
