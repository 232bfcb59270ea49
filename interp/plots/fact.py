"""One fact at one step: where it sits, who gathered it, who reads it out.

Names, tokens and values come from data. Plotly reads some HTML in texts, so that everything of that
kind is escaped before it becomes part of a figure.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import sqrt
from typing import Any, cast

import pandas as pd
import plotly.graph_objects as go

from interp.charts.bands import shade_phases, spread_steps
from interp.charts.style import INK, PALETTE, describe, plain, see_through
from interp.memory.located_fact import NAME, VALUE, LocatedFact

_MOST_HEADS = 16  # rows of a heatmap; models with more show those that contribute most
_MOST_PARTS = 14
_N_NEURONS = 5
_N_CHARACTERS = 54  # of the line above a neuron's bar, which has to fit into 400 pixels
_TOP, _BOTTOM, _LEFT, _GAP, _LINE = 44, 96, 92, 44, 18  # pixels; a line is one of a panel's title
_INKS = {"name": PALETTE["blue"], "type": PALETTE["green"]}
_WRITERS = {
    "MLPs": (("mlp",), PALETTE["green"]),
    "heads": (("heads", "attention bias"), PALETTE["purple"]),
    "others": (("embedding", "position", "bias"), PALETTE["grey"]),
}


def located_fact(fact: LocatedFact) -> go.Figure:
    """Where one fact sits: attention, contributions, neurons, and its probability over training.

    What to look for: which heads look at the name where the value is predicted, whether the value
    comes from MLPs at name tokens, from MLPs after it, or both, and when the fact was learned.

    Args:
        fact: From `interp.locate_fact`.
    """
    panels: list[_Panel] = [_Attention(fact, VALUE)]
    if fact.heads["layer"].max() > 0:
        panels.append(_Attention(fact, NAME))
    panels += [_Parts(fact), _Carried(fact), _Neurons(fact, VALUE)]
    if (fact.neurons["at"] != VALUE).any():
        panels.append(_Neurons(fact, None))
    panels.append(_History(fact))
    titles = [8 + _LINE * (1 + panel.title.count("<br>")) for panel in panels]
    inside = sum(panel.height + panel.below for panel in panels) + sum(titles)
    height = _TOP + _BOTTOM + inside
    places, top = [], 0
    for panel, title in zip(panels, titles, strict=True):
        top += title
        places.append((1 - top / inside, 1 - (top + panel.height) / inside))
        top += panel.height + panel.below
    figure, texts = go.Figure(), list[dict[str, Any]]()
    # The history first, at the bottom: phases and the scale of steps are for all axes there are.
    for number, (panel, (high, low)) in enumerate(
        reversed(list(zip(panels, places, strict=True))), 1
    ):
        axis = "" if number == 1 else str(number)
        figure.update_layout(
            {
                f"xaxis{axis}": {"anchor": f"y{axis}", "domain": [0, 1]},
                f"yaxis{axis}": {
                    "anchor": f"x{axis}",
                    "domain": [max(low, 0), high],
                    "automargin": False,
                },
            }
        )
        texts += panel.draw(figure, axis)
        texts.append(_text(panel.title, high, "paper", 13, yanchor="bottom", yshift=4))
    # All at once: plotly looks at every one again whenever one is added.
    figure.update_layout(annotations=[*figure.layout.annotations, *texts])
    figure.update_layout(
        height=height, margin={"t": _TOP, "b": _BOTTOM, "l": _LEFT}, barmode="relative"
    )
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
        much each head (layer.head) looks at each token (a share; blue bold: name, green italic: words
        that tell the attribute), where the value is predicted, beside it the head's contribution, and
        at the last name token, in layers that later heads read; what each part adds to the logit of
        the true value against the mean of the attribute's other values, in nats; what heads carry
        over from the name tokens, by what had written it there; the neurons with the largest
        contributions and the tokens that they promote; the probability of the value at all
        checkpoints (the vertical line is this one). Look for heads that look at the name, for
        whether MLPs at the name tokens or where the value is predicted bring the value, and for when
        it was learned.""",
    )


class _Panel(ABC):
    """One panel: its size, its title, and how it is drawn on a pair of axes."""

    height: int
    title: str
    below = _GAP

    @abstractmethod
    def draw(self, figure: go.Figure, axis: str) -> list[dict[str, Any]]:
        """Adds everything to the figure but texts beside the data, which it returns."""


class _Attention(_Panel):
    """A heatmap of attention: rows are heads, columns are tokens."""

    def __init__(self, fact: LocatedFact, at: str) -> None:
        heads = fact.heads[fact.heads["at"] == at]
        if at == NAME:  # nobody reads what the last layer gathers there
            heads = heads[heads["layer"] < fact.heads["layer"].max()]
        strongest = heads["contribution"].abs().sort_values(ascending=False, kind="stable").index
        self._heads = heads.loc[sorted(strongest[:_MOST_HEADS])]
        self._fact, self._at = fact, at
        self._columns = _columns(fact)
        if at == VALUE:
            self.title = (
                f"{plain(fact.name)} → <b>{plain(fact.value)}</b>"
                "<br>Attention where the value is predicted"
            )
        else:
            self.title = "Attention at the last name token, earlier layers"
        self.height = 22 * len(self._heads)
        longest = max(len(label) for label, _, _ in self._columns)
        self.below = 20 + 7 * min(longest, 14)

    def draw(self, figure: go.Figure, axis: str) -> list[dict[str, Any]]:
        table = self._fact.attention[self._fact.attention["at"] == self._at]
        shares, words, labels = [], [], []
        for row in self._heads.itertuples():
            own = table[(table["layer"] == row.layer) & (table["head"] == row.head)]
            paid = dict(zip(own["position"], own["attention"], strict=True))
            of_row = [
                sum(paid[p] for p in positions if p in paid) if any(p in paid for p in positions)
                else None
                for _, _, positions in self._columns
            ]  # fmt: skip
            shares.append(of_row)
            name = f"{row.layer}.{row.head}"
            labels.append(
                f"{name} {_signed(cast(float, row.contribution))}" if self._at == VALUE else name
            )
            words.append(
                [
                    f"head {name} → {plain(label)}: {0 if share is None else share:.3f}"
                    for (label, _, _), share in zip(self._columns, of_row, strict=True)
                ]
            )
        figure.add_heatmap(
            z=shares, zmin=0, zmax=1, showscale=False, xgap=1, ygap=1, name="attention",
            xaxis=f"x{axis}", yaxis=f"y{axis}", customdata=words,
            # Opacity carries the value, so that numbers stay readable on light and dark pages.
            colorscale=[[0, see_through(PALETTE["blue"], 0.04)],
                        [1, see_through(PALETTE["blue"], 0.42)]],
            text=[["" if v is None or v < 0.095 else _short(v) for v in row] for row in shares],
            texttemplate="%{text}", textfont={"color": INK, "size": 11},
            hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
        figure.update_layout(
            {
                f"xaxis{axis}": {
                    "tickvals": list(range(len(self._columns))), "showgrid": False, "tickangle": -90,
                    "ticktext": [_marked(label, kind) for label, kind, _ in self._columns],
                    "tickfont_size": 12, "range": [-0.5, len(self._columns) - 0.5],
                    "automargin": False,
                },
                f"yaxis{axis}": {
                    "tickvals": list(range(len(labels))), "ticktext": labels, "showgrid": False,
                    "range": [len(labels) - 0.5, -0.5], "tickfont_size": 11,
                },
            }
        )  # fmt: skip
        return []


class _Parts(_Panel):
    """Bars: what embeddings, heads, MLPs and biases add, in the order of the model."""

    def __init__(self, fact: LocatedFact) -> None:
        table = fact.components[fact.components["at"] == VALUE]
        parts = [
            (_part_name(component, layer), share)
            for component, layer, share in zip(
                table["component"], table["layer"], table["contribution"], strict=True
            )
        ]
        strongest = sorted(parts, key=lambda part: -abs(part[1]))[:_MOST_PARTS]
        rest = [part for part in parts if part not in strongest]
        self._parts = [part for part in parts if part in strongest]
        if rest:
            self._parts.append((f"{len(rest)} others", sum(share for _, share in rest)))
        self.title = (
            "What each part adds to the value's logit (nats),<br>"
            f"together {fact.logit_difference:+.2f} against the other values"
        )
        self.height = 20 * len(self._parts)

    def draw(self, figure: go.Figure, axis: str) -> list[dict[str, Any]]:
        shares = [share for _, share in self._parts]
        figure.add_bar(
            orientation="h", x=shares, y=list(range(len(shares))), name="contribution",
            xaxis=f"x{axis}", yaxis=f"y{axis}", showlegend=False, width=0.7,
            marker={"color": [_sign(share) for share in shares], "line_width": 0},
            text=[_signed(share) for share in shares], textposition="outside",
            cliponaxis=False, textfont={"size": 11, "color": INK}, textangle=0,
            customdata=[f"{name}: {share:+.3f} nats" for name, share in self._parts],
            hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
        _bar_axes(figure, axis, [name for name, _ in self._parts], shares)
        return []


class _Carried(_Panel):
    """Stacked bars: what heads carry over from each name token, by its writer."""

    def __init__(self, fact: LocatedFact) -> None:
        self._fact = fact
        keys = " ".join(
            f'<span style="color:{colour}">■</span> {writer}'
            for writer, (_, colour) in _WRITERS.items()
        )
        self.title = f"What heads carry over from the name (nats)<br>written there by {keys}"
        self._rows = [*fact.name_tokens, "other tokens"]
        self.height = 26 * len(self._rows)

    def draw(self, figure: go.Figure, axis: str) -> list[dict[str, Any]]:
        table, rows = self._fact.components, self._rows
        names = rows[:-1]
        total = pd.Series(0.0, index=rows)
        low, high = total.copy(), total.copy()
        for writer, (components, colour) in _WRITERS.items():
            own = table[table["component"].isin(components)].groupby("at")["contribution"].sum()
            shares = own.reindex(names)
            total[names] += shares
            self._add(figure, axis, writer, colour, shares)
            low = low.add(shares.clip(upper=0), fill_value=0)
            high = high.add(shares.clip(lower=0), fill_value=0)
        everything = float(self._fact.carried()["contribution"].sum())
        rest = pd.Series({"other tokens": everything - total.sum()})
        self._add(figure, axis, "any", see_through(PALETTE["grey"], 0.5), rest)
        total = total.add(rest, fill_value=0)
        ends = [float(v) for v in [*low, *high, *rest]]
        figure.add_scatter(
            x=[max(float(high.get(row, 0)), total[row], 0) for row in rows],
            y=list(range(len(rows))), mode="text", text=[f" {_signed(total[row])}" for row in rows],
            textposition="middle right", textfont={"size": 11, "color": INK}, cliponaxis=False,
            xaxis=f"x{axis}", yaxis=f"y{axis}", hoverinfo="skip", showlegend=False,
        )  # fmt: skip
        _bar_axes(figure, axis, rows, ends)
        return []

    def _add(
        self, figure: go.Figure, axis: str, writer: str, colour: str, shares: pd.Series
    ) -> None:
        figure.add_bar(
            orientation="h", x=[float(share) for share in shares], name=writer, width=0.7,
            y=[self._rows.index(str(at)) for at in shares.index], xaxis=f"x{axis}", yaxis=f"y{axis}",
            showlegend=False, marker={"color": colour, "line_width": 0},
            customdata=[f"{at}, written by {writer}: {share:+.3f} nats"
                        for at, share in shares.items()],
            hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip


class _Neurons(_Panel):
    """Bars of the strongest neurons, above each the tokens that it promotes."""

    def __init__(self, fact: LocatedFact, at: str | None) -> None:
        self._neurons = fact.strongest_neurons(at, _N_NEURONS)
        self._at = at
        self.title = (
            "Neurons where the value is predicted (nats)<br>and the tokens that they promote"
            if at
            else "Neurons at the name, read through attention<br>(nats), and what they promote"
        )
        self.height = 38 * len(self._neurons)

    def draw(self, figure: go.Figure, axis: str) -> list[dict[str, Any]]:
        lines, hover = [], []
        shares = [float(share) for share in self._neurons["contribution"]]
        for row in self._neurons.itertuples():
            where = "" if self._at else f" ({str(row.at).split()[0]})"
            promoted = [plain(token) for token in cast(tuple[str, ...], row.promotes)]
            line = f"{row.layer}.{row.neuron}{where} {_signed(cast(float, row.contribution))}: "
            lines.append(line + _fitting(cast(tuple[str, ...], row.promotes), len(line)))
            hover.append(
                f"neuron {row.layer}.{row.neuron} at {row.at}: {row.contribution:+.3f} nats, "
                f"activation {row.activation:.2f}<br>promotes {' · '.join(promoted)}"
                f"<br>rank of the value: {row.value_rank:,}"
            )
        places = list(range(len(shares)))
        figure.add_bar(
            orientation="h", x=shares, y=[place + 0.2 for place in places], width=0.34,
            xaxis=f"x{axis}", yaxis=f"y{axis}", showlegend=False, name="neurons",
            marker={"color": [_sign(share) for share in shares], "line_width": 0},
            customdata=hover, hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
        _bar_axes(figure, axis, [""] * len(shares), shares)
        figure.update_layout(
            {
                f"yaxis{axis}": {"showticklabels": False},
                f"xaxis{axis}": {"showgrid": False, "zeroline": False},
            }
        )
        # From the figure's left edge, below the title; no line of the panel crosses the text.
        return [
            _text(line, place - 0.22, f"y{axis}", 12)
            for place, line in zip(places, lines, strict=True)
        ]


class _History(_Panel):
    """The value's probability at every checkpoint, with the phases."""

    def __init__(self, fact: LocatedFact) -> None:
        self._fact = fact
        self.title = "Probability over training<br>solid: first token; dashed: whole value"
        self.height, self.below = 150, 0

    def draw(self, figure: go.Figure, axis: str) -> list[dict[str, Any]]:
        table = self._fact.history
        steps = [int(step) for step in table["step"]]
        for column, name, colour, dash in (
            ("probability", "first token", PALETTE["blue"], "solid"),
            ("value_probability", "whole value", PALETTE["orange"], "dash"),
        ):
            figure.add_scatter(
                x=[sqrt(step) for step in steps], y=list(table[column]), name=name,
                mode="lines" if len(steps) > 1 else "markers",
                line={"color": colour, "dash": dash, "width": 2}, showlegend=False,
                customdata=steps,
                hovertemplate=f"{name}: %{{y:.3f}} at step %{{customdata:,d}}<extra></extra>",
            )  # fmt: skip
        phases = self._fact.phases
        if phases is not None:
            shade_phases(figure, phases, steps[0], steps[-1], "y domain", place=sqrt)
            figure.update_shapes(yref="y domain")
        spread_steps(figure, steps, phases)
        here = sqrt(self._fact.step)
        figure.add_shape(
            type="line", xref="x", x0=here, x1=here, yref="y domain", y0=0, y1=1, name="this step",
            line={"color": INK, "width": 1.5, "dash": "dot"},
        )  # fmt: skip
        figure.update_layout(
            xaxis={"title_text": "training (steps, square-root scale)", "showgrid": False},
            yaxis={"title_text": "probability", "range": [-0.03, 1.14], "tickvals": [0, 0.5, 1]},
            legend2={"yref": "container", "y": 0, "yanchor": "bottom"},
        )
        return []


def _text(text: str, y: float, yref: str, size: int, **settings: Any) -> dict[str, Any]:
    """An annotation that begins at the left edge of the figure."""
    return {
        "text": text, "x": 0, "xref": "paper", "xanchor": "left", "xshift": 8 - _LEFT, "y": y,
        "yref": yref, "showarrow": False, "align": "left", "font": {"size": size}, **settings,
    }  # fmt: skip


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


def _bar_axes(figure: go.Figure, axis: str, names: Sequence[str], shares: Sequence[float]) -> None:
    low, high = min(0.0, *shares), max(0.0, *shares)
    space = (high - low) or 1.0
    left = low - (0.2 * space if low < 0 else 0)
    figure.update_layout(
        {
            f"xaxis{axis}": {
                "range": [left, high + 0.2 * space], "zeroline": True, "nticks": 6,
                "zerolinecolor": INK, "zerolinewidth": 1, "tickfont_size": 11,
            },
            f"yaxis{axis}": {
                "tickvals": list(range(len(names))), "ticktext": list(names), "showgrid": False,
                "range": [len(names) - 0.5, -0.5], "tickfont_size": 12, "showline": False,
                "ticks": "",
            },
        }
    )  # fmt: skip


def _part_name(component: str, layer: Any) -> str:
    name = {"mlp": "MLP", "attention bias": "attn bias", "bias": "final bias"}.get(
        component, component
    )
    return name if pd.isna(layer) else f"{name} {layer}"


def _signed(share: float) -> str:
    """With its sign, and none for what rounds to zero."""
    return f"{share:+.2f}" if abs(share) >= 0.005 else "0.00"


def _sign(share: float) -> str:
    return PALETTE["blue"] if share >= 0 else PALETTE["orange"]


def _short(share: float) -> str:
    """A share in few characters: .07, 1."""
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
