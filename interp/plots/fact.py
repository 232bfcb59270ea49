"""One fact at one step: where it sits, who gathered it, who reads it out.

Names, tokens and values come from data. Plotly reads some HTML in texts, so that everything of that
kind is escaped before it becomes part of a figure.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Any, cast

import pandas as pd
import plotly.graph_objects as go

from interp.charts import (
    INK,
    PALETTE,
    ROOT_STEPS,
    Axis,
    Look,
    Part,
    contributions,
    curves,
    describe,
    heatmap,
    plain,
    stack,
)
from interp.charts.contributions import signed
from interp.charts.style import see_through
from interp.memory.located_fact import NAME, VALUE, LocatedFact

_MOST_HEADS = 16  # rows of a heatmap; models with more show those that contribute most
_MOST_PARTS = 14
_N_NEURONS = 5
_N_CHARACTERS = 54  # of the line above a neuron's bar, which has to fit into 400 pixels
_INKS = {"name": PALETTE["blue"], "type": PALETTE["green"]}
_WRITERS = {"mlp": "MLPs", "heads": "heads", "attention bias": "heads"}  # "others" write the rest
_WRITTEN = {
    "MLPs": Look(PALETTE["green"], name="written by MLPs"),
    "heads": Look(PALETTE["purple"], name="written by heads"),
    "others": Look(PALETTE["grey"], name="written by others"),
    "any": Look(see_through(PALETTE["grey"], 0.5), name="written by any"),
}
_HISTORY = {
    "probability": Look(PALETTE["blue"], name="first token"),
    "value_probability": Look(PALETTE["orange"], "dash", name="whole value"),
}


def located_fact(fact: LocatedFact) -> go.Figure:
    """Where one fact sits: attention, contributions, neurons, and its probability over training.

    What to look for: which heads look at the name where the value is predicted, whether the value
    comes from MLPs at name tokens, from MLPs after it, or both, and when the fact was learned.

    Args:
        fact: From `interp.locate_fact`.
    """
    parts = [_attention(fact, VALUE)]
    if fact.heads["layer"].max() > 0:
        parts.append(_attention(fact, NAME))
    parts += [_added(fact), _carried(fact), _neurons(fact, VALUE)]
    if (fact.neurons["at"] != VALUE).any():
        parts.append(_neurons(fact, None))
    figure = stack([*parts, _history(fact)])
    # Titles of panels say what colours and dashes are; only phases are listed.
    figure.update_traces(showlegend=False, selector=lambda trace: trace.legend is None)
    what = plain(fact.attribute.replace("_", " "))
    whose = plain(fact.name) if fact.individual is None else f"individual {fact.individual}"
    kind = "subject" if fact.individual is None else "person"
    unseen = f" This {kind} was held out of training." if fact.held_out else ""
    again = (
        f" The same value was told earlier, as {', '.join(fact.told_earlier)}: it may be copied."
        if fact.told_earlier
        else ""
    )
    return describe(
        figure,
        f"Located: {what} of {whose}, step {fact.step:,}",
        f"""{fact.name}, {what}: {fact.value}. At step {fact.step:,} its first token is predicted
        with probability {fact.probability:.3f} (rank {fact.rank}).{unseen}{again} From the top: how
        much each head (layer.head) looks at each token (a share; blue bold: {fact.whose}, green italic:
        words that tell the attribute), where the value is predicted, beside it the head's contribution,
        and at the last {fact.whose} token, in layers that later heads read; what each part adds to the
        logit of the true value against the mean of the attribute's other values, in nats; what heads carry
        over from the {fact.whose} tokens, by what had written it there; the neurons with the largest
        contributions and the tokens that they promote; the probability of the value at all
        checkpoints (the vertical line is this one). Look for heads that look at the {fact.whose}, for
        whether MLPs at the {fact.whose} tokens or where the value is predicted bring the value, and for when
        it was learned.""",
    )


def _attention(fact: LocatedFact, at: str) -> Part:
    """A heatmap of attention: rows are heads, columns are tokens."""
    heads, here = fact.heads[fact.heads["at"] == at], fact.attention[fact.attention["at"] == at]
    if at == NAME:  # nobody reads what the last layer gathers there
        heads = heads[heads["layer"] < fact.heads["layer"].max()]
    strongest = heads["contribution"].abs().sort_values(ascending=False, kind="stable").index
    heads = heads.loc[sorted(strongest[:_MOST_HEADS])]
    columns, shares = _columns(fact), {}
    for row in heads.itertuples():
        own = here[(here["layer"] == row.layer) & (here["head"] == row.head)]
        paid = own.set_index("position")["attention"]
        name = f"{row.layer}.{row.head}"
        name = f"{name} {signed(cast(float, row.contribution))}" if at == VALUE else name
        shares[name] = [paid.reindex(places).sum(min_count=1) for _, _, places in columns]
    grid = pd.DataFrame.from_dict(shares, orient="index")
    figure = heatmap(
        grid, axis=Axis("attention (share)", range=(0, 1)), rows="", columns="", signed=False,
        bar=False, texts={"": [[_short(share) for share in row] for row in grid.to_numpy()]},
    )  # fmt: skip
    # Tokens may occur more than once: columns are numbers.
    labels = [_marked(label, kind) for label, kind, _ in columns]
    figure.update_xaxes(tickvals=list(range(len(labels))), ticktext=labels, tickangle=-90)
    title = f"Attention at the last {fact.whose} token, earlier layers"
    if at == VALUE:
        title = (
            f"{plain(fact.name)} → <b>{plain(fact.value)}</b>"
            "<br>Attention where the value is predicted"
        )
    longest = max(len(label) for label, _, _ in columns)
    return Part(figure, title, 22 * len(grid), 20 + 7 * min(longest, 14))


def _added(fact: LocatedFact) -> Part:
    """Bars: what embeddings, heads, MLPs and biases add, in the order of the model."""
    table = fact.components[fact.components["at"] == VALUE]
    table = table.assign(
        part=[_part_name(*row) for row in zip(table["component"], table["layer"], strict=True)]
    )
    order = table["contribution"].abs().sort_values(ascending=False, kind="stable").index
    rest = table.loc[order[_MOST_PARTS:]]
    shown = table.drop(rest.index)[["part", "contribution"]]
    if len(rest):
        others = {"part": f"{len(rest)} others", "contribution": rest["contribution"].sum()}
        shown = pd.concat([shown, pd.DataFrame([others])])
    title = (
        "What each part adds to the value's logit (nats),<br>"
        f"together {fact.logit_difference:+.2f} against the other values"
    )
    return Part(contributions(shown, part="part"), title, 20 * len(shown))


def _carried(fact: LocatedFact) -> Part:
    """Stacked bars: what heads carry over from each name token, by its writer."""
    table = fact.components[fact.components["at"] != VALUE]
    table = table.assign(writer=[_WRITERS.get(str(c), "others") for c in table["component"]])
    shown = table.groupby(["at", "writer"])["contribution"].sum().reset_index()
    shown = shown.set_index("at").loc[list(fact.name_tokens)].reset_index()
    shown["at"] = shown["at"].map(fact.said)
    rest = float(fact.carried()["contribution"].sum() - shown["contribution"].sum())
    others = {"at": "other tokens", "writer": "any", "contribution": rest}
    shown = pd.concat([shown, pd.DataFrame([others])])
    keys = " ".join(
        f'<span style="color:{_WRITTEN[writer].colour}">■</span> {writer}'
        for writer in ("MLPs", "heads", "others")
    )
    title = f"What heads carry over from the {fact.whose} (nats)<br>written there by {keys}"
    population = fact.population
    beside = None
    if population is not None:
        beside = dict(zip(population["at"].map(fact.said), population["contribution"], strict=True))
        title += f"; ◇ mean of {population['n_people'].iloc[0]} people"
    figure = contributions(shown, part="at", by="writer", looks=_WRITTEN, beside=beside)
    return Part(figure, title, 26 * shown["at"].nunique())


def _neurons(fact: LocatedFact, at: str | None) -> Part:
    """Bars of the strongest neurons, above each the tokens that it promotes."""
    lines, hover = [], []
    table = fact.strongest_neurons(at, _N_NEURONS)
    for row in table.itertuples():
        promotes = cast(tuple[str, ...], row.promotes)
        line = (
            f"{row.layer}.{row.neuron}{'' if at else f' ({fact.said(str(row.at)).split()[0]})'}: "
        )
        lines.append(line + _fitting(promotes, len(line)))
        hover.append(
            f" at {fact.said(str(row.at))}, activation {row.activation:.2f}<br>promotes "
            f"{' · '.join(map(plain, promotes))}<br>rank of the value: {row.value_rank:,}"
        )
    title = (
        "Neurons where the value is predicted (nats)<br>and the tokens that they promote"
        if at
        else f"Neurons at the {fact.whose}, read through attention<br>(nats), and what they promote"
    )
    shown = table.assign(line=lines, words=hover)
    return Part(
        contributions(shown, part="line", above=True, words="words"), title, 38 * len(table)
    )


def _history(fact: LocatedFact) -> Part:
    """The value's probability at every checkpoint, with the phases."""
    table = fact.history
    figure = curves(
        table.melt("step", list(_HISTORY), "of"), line="of", looks=_HISTORY, x_axis=ROOT_STEPS,
        axis=Axis("probability", range=(-0.03, 1.14)), phases=fact.phases, marks=len(table) < 2,
    )  # fmt: skip
    figure.add_shape(
        type="line", x0=sqrt(fact.step), x1=sqrt(fact.step), yref="y domain", y0=0, y1=1,
        name="this step", line={"color": INK, "width": 1.5, "dash": "dot"},
    )  # fmt: skip
    return Part(
        figure, "Probability over training<br>solid: first token; dashed: whole value", 150, 0
    )


def _columns(fact: LocatedFact) -> list[tuple[str, str, list[int]]]:
    """Label, kind and positions of each column: the fact's sentence, all before it as one."""
    tokens = fact.tokens
    here = int(tokens["sentence"].iloc[-1])
    found: list[tuple[str, str, list[int]]] = []
    earlier = [int(p) for p in tokens["position"][1:][tokens["sentence"][1:] != here]]
    found.append((str(tokens["token"].iloc[0]), str(tokens["kind"].iloc[0]), [0]))
    if earlier:
        found.append(("earlier text", "text", earlier))
    own = tokens[(tokens["sentence"] == here) & (tokens["position"] > 0)]
    for row in own.itertuples():
        found.append((str(row.token), str(row.kind), [cast(int, row.position)]))
    return found


def _part_name(component: str, layer: Any) -> str:
    name = {"mlp": "MLP", "attention bias": "attn bias", "bias": "final bias"}.get(
        component, component
    )
    return name if pd.isna(layer) else f"{name} {layer}"


def _short(share: float) -> str:
    """A share in few characters, .17 or 1; nothing for little."""
    if not share >= 0.095:  # nor for none
        return ""
    return "1" if share >= 0.995 else f"{share:.2f}"[1:]


def _marked(label: str, kind: str) -> str:
    """A token as the label of a column; names and words that tell the attribute stand out."""
    text = plain(label if len(label) <= 14 else label[:13] + "…")
    if kind not in _INKS:
        return text
    style = "b" if kind == "name" else "i"
    return f'<span style="color:{_INKS[kind]}"><{style}>{text}</{style}></span>'


def _fitting(tokens: Sequence[str], used: int) -> str:
    """As many tokens as fit behind what a line holds already; at least one, cut if need be."""
    room, taken = _N_CHARACTERS - used, 0
    chosen: list[str] = []
    for token in tokens:
        taken += len(token) + 3
        if chosen and taken > room:
            break
        chosen.append(plain(token if len(token) <= room else token[: max(room - 1, 1)] + "…"))
    return " · ".join(chosen)
