"""Causal traces, and what the residual stream predicts on its way (`interp.causal_trace`, `logit_lens`)."""

import pandas as pd
import plotly.graph_objects as go

from interp.charts import CROSSED, chosen, describe, has_missing, heatmap, matrix, rows
from interp.charts.tidy import unit_label
from interp.errors import InterpError
from interp.interventions import SITES
from interp.plots.interventions import unit_of

_MANY = 24
"""With more layers than these not every one of them is named at the axis."""
_EFFECTS = {
    "indirect_effect": "indirect effect (probability)",
    "restored": "restored probability of the answer (probability)",
}
_READ = {
    "probability": "probability of the answer (probability)",
    "rank": "rank of the answer, 1 the highest (rank)",
    "first": "share of answers ranked first (share)",
    "logit_difference_base_minus_source": "logit difference, base minus source (logits)",
}


def causal_trace(
    table: pd.DataFrame, value: str = "indirect_effect", noised: str = "subject"
) -> go.Figure:
    """What restoring each clean state gives back of the answer: layers upward, positions, a map a site.

    What to look for: an early site, where MLPs of middle layers restore the answer at the subject's last
    token, and a late one, where attention does at the position that is read (Meng et al. 2022).

    Args:
        table: From `interp.causal_trace`, over facts.
        value: "indirect_effect", or "restored" (the probability itself).
        noised: "subject", or "control" (noise on as many other tokens).

    Raises:
        InterpError: a column or value is missing, or a cell is there more than once.
    """
    if value not in _EFFECTS:
        raise InterpError(f"value={value!r} is not drawn; give one of {', '.join(_EFFECTS)}.")
    columns = ["site", "layer", "head", "position", "noised", "clean", "corrupted", value]
    found = rows(table, columns, "causal traces", numbers=("layer",))
    found = chosen(found, "causal traces", noised=noised)
    grouped = "group" in found and found["group"].notna().any()
    unit = found["group"] if grouped else found["head"]
    parts = [
        f"{int(layer)}{'' if pd.isna(one) else '.' + unit_label(one)}"
        for layer, one in zip(found["layer"], unit, strict=True)
    ]
    found = found.assign(part=parts)
    titles = {s: SITES[s].meaning if s in SITES else s for s in dict.fromkeys(found["site"])}
    maps = {
        f"<b>{title}</b>": matrix(
            found[found["site"] == site].sort_values("layer", kind="stable"), row="part",
            column="position", value=value, what="causal traces",
        ).dropna(axis="columns", how="all")
        for site, title in titles.items()
    }  # fmt: skip
    name = _EFFECTS[value]
    figure = heatmap(
        maps,
        axis=unit_of(name),
        rows="layer",
        columns="position that is restored",
        signed=value == "indirect_effect",
        upward=True,
        names={f"<b>{title}</b>": title for title in titles.values()},
    )
    figure.update_xaxes(tickangle=-90 if len(set(found["position"])) > 12 else None)
    windows = list(found["window"].dropna()) if "window" in found else []
    widest = max(map(_width, windows), default=1)
    together = f" (with those around it, {widest} layers at once)" if widest > 1 else ""
    who = "the subject's tokens" if noised == "subject" else "as many other tokens (the control)"
    clean, corrupted = (found[c].mean() for c in ("clean", "corrupted"))
    return describe(
        figure,
        f"Causal trace: {name.split(' (')[0]}" + ("" if noised == "subject" else ", control"),
        f"""With noise on the embeddings of {who} the probability of the answer is
        {corrupted:.3f} in place of {clean:.3f}. Each cell: the {name.split(" (")[0]} where one state
        of a layer{together} is set to what it is without noise; rows are layers, the first at the
        bottom, columns what stands at the positions, a map for each site; all share one scale.
        {CROSSED if has_missing(figure) else ""}
        Look for an early site at the last token of the subject, in MLPs of middle layers, where the fact
        is recalled, and a late one where the answer is predicted.""",
    )


def logit_lens(table: pd.DataFrame, value: str = "probability") -> go.Figure:
    """What each state of the residual stream would predict: layers along, checkpoints upward.

    What to look for: from which layer on the answer is there, and when in training it comes.

    Args:
        table: From `interp.logit_lens`.
        value: "probability", "rank", "first" or "logit_difference_base_minus_source".

    Raises:
        InterpError: a column or value is missing, or a state is there more than once at a step.
    """
    if value not in _READ:
        raise InterpError(f"value={value!r} is not drawn; give one of {', '.join(_READ)}.")
    found = rows(table, ["step", "layer", "site", value], "logit lens", numbers=("step", "layer"))
    found = found.sort_values(["step", "layer"], kind="stable")
    last = int(found["layer"].max())
    found = found.assign(
        at=[f"{int(step):,}" for step in found["step"]],
        before=[
            str(int(layer)) if site != "resid_post" else "end"
            for site, layer in zip(found["site"], found["layer"], strict=True)
        ],
    )
    named = {
        "before each layer": ("resid_pre", "resid_post"),
        "after its attention": ("resid_mid",),
    }
    maps = {
        f"<b>{title}</b>": matrix(here, row="at", column="before", value=value, what="logit lens")
        for title, sites in named.items()
        if len(here := found[found["site"].isin(sites)])
    }
    name = _READ[value]
    figure = heatmap(
        maps,
        axis=unit_of(name),
        rows="step",
        columns="layer",
        signed=value.startswith("logit_difference"),
        upward=True,
        names={f"<b>{title}</b>": title for title in named},
    )
    figure.update_xaxes(tickangle=0, dtick=-(-(last + 1) // 16) if last >= _MANY else None)
    n = f" over {int(table['n'].max()):,} facts" if "n" in table else ""
    return describe(
        figure,
        f"Logit lens: {name.split(' (')[0]}",
        f"""The {name.split(" (")[0]}, mean{n}, when the residual stream is read through the final norm and
        the unembedding as if no later part followed: columns are layers, before each (at the end: what the
        model predicts) and, where a model has such a stream, after its attention; rows are checkpoints, the
        first at the bottom. {CROSSED if has_missing(figure) else ""} Look for the layer from which on the
        answer is there, and when it comes.""",
    )


def _width(window: str) -> int:
    first, last = map(int, str(window).split("-"))
    return last - first + 1
