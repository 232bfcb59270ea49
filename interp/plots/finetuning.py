"""Fine-tuning: what is forgotten and learned, attention, and which weights and keys move.

Tables are those of `interp.studies.finetuning`; tables read back from CSV will do. Source: paper,
Fig. 5, N, O, P.
"""

from collections.abc import Sequence
from math import isnan, sqrt
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from interp.charts.style import DASHES, INK, PALETTE, describe, note
from interp.plots.associative_memory import weight_name
from interp.plots.panels import SYMBOLS, Line, Panel, over_steps, rows

_PEOPLE: dict[str, tuple[str, dict[str, Any]]] = {
    "evaluation": ("old people", {"color": PALETTE["blue"], "width": 2.5}),
    "finetuned": (
        "people fine-tuned on",
        {"color": PALETTE["orange"], "dash": "dash", "width": 2},
    ),
}
_ATTENTION = {
    "name_to_name": "name → name",
    "attribute_to_name": "attribute → name",
    "name_sharpness": "sharpness, name",
    "attribute_sharpness": "sharpness, attribute",
}
_ROOT = (
    "The axis goes with the square root of steps, so that the first of them can be read. They are steps "
    "of fine-tuning."
)
_NOTHING = "No run of fine-tuning without replay has finished."
Kind = tuple[str, float]
"""A variant and its replay weight (NaN: none)."""


def accuracy_curves(table: pd.DataFrame) -> go.Figure:
    """Accuracy on old people and on those of fine-tuning, a panel for each kind of fine-tuning.

    What to look for: without replay the solid line falls; with rare people it stays.

    Args:
        table: "curves" of the study.

    Raises:
        InterpError: a column is missing, or there is no row.
    """
    found = _typed(table, ("step", "split", "metric", "value"), "fine-tuning")
    found = found[found["metric"] == "attribute_accuracy"]
    panels = []
    for kind in _kinds(found):
        own = _of_kind(found, kind)
        lines = [
            _line(own[own["split"] == split], name, style)
            for split, (name, style) in _PEOPLE.items()
            if (own["split"] == split).any()
        ]
        panels.append(Panel(_kind_name(kind), lines))
    figure = over_steps(
        panels, None, "accuracy (share)", n_columns=2, place=sqrt, band="range of seeds"
    )
    figure.update_yaxes(range=[-0.03, 1.08], tickvals=[0, 0.5, 1])
    _steps_of_finetuning(figure)
    return describe(
        figure,
        "What fine-tuning makes a model forget",
        f"""Accuracy (share of values right, in wordings never seen with a person) on old people and on
        those whom fine-tuning is on, over its steps. Panels: new people, without replay and with old people
        replayed at a weight (against 1 for a new one); and people who were rare in training.
        {_drawn(found)} {_ROOT} Look at the first panel: how fast old people are forgotten, and how much of
        the new is known by then. Then for what replay keeps, and whether rare people do any harm.""",
    )


def old_against_new(table: pd.DataFrame) -> go.Figure:
    """Accuracy on old against accuracy on new people at the end of fine-tuning, by replay weight.

    What to look for: whether any weight reaches the upper right corner.

    Args:
        table: "curves" of the study.

    Raises:
        InterpError: a column is missing.
    """
    found = _typed(table, ("step", "split", "metric", "value"), "fine-tuning")
    found = found[found["metric"] == "attribute_accuracy"]
    last = found.groupby(["variant", "seed", "weight"], dropna=False)["step"].transform("max")
    ends = found[found["step"] == last]
    figure = go.Figure()
    for variant, name, colour, symbol in (
        ("new", "new people, by replay weight", PALETTE["blue"], "circle"),
        ("rare", "rare people", PALETTE["orange"], "diamond"),
    ):
        x, y, spreads, texts = [], [], [], []
        for kind in _kinds(ends[ends["variant"] == variant]):
            own = _of_kind(ends, kind).pivot_table(values="value", index="seed", columns="split")
            if set(_PEOPLE) <= set(own):
                x.append(own["finetuned"].mean())
                y.append(own["evaluation"].mean())
                spreads.append((own.max() - own.mean(), own.mean() - own.min()))
                texts.append("rare" if variant == "rare" else weight_name(kind[1]))

        def bars(split: str) -> dict[str, object]:
            return {
                "type": "data", "symmetric": False, "thickness": 1, "width": 3,
                "array": [above[split] for above, _ in spreads],  # noqa: B023
                "arrayminus": [below[split] for _, below in spreads],  # noqa: B023
            }  # fmt: skip

        places = ("top right", "bottom left", "bottom right", "top left")
        figure.add_scatter(
            x=x, y=y, mode="lines+markers+text" if len(x) > 1 else "markers+text", text=texts,
            textposition=[places[i % len(places)] for i in range(len(x))], name=name,
            textfont={"size": 11, "color": INK}, marker={"size": 9, "symbol": symbol},
            line={"color": colour, "width": 1.5},
            error_x=bars("finetuned"), error_y=bars("evaluation"),
            hovertemplate="%{text}: fine-tuned on %{x:.3f}, old %{y:.3f}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title_text="accuracy on people fine-tuned on (share)", range=[-0.1, 1.2])
    figure.update_yaxes(title_text="accuracy on old people (share)", range=[-0.1, 1.2])
    figure.update_layout(height=480, showlegend=True)
    return describe(
        figure,
        "What replay keeps, and what it costs",
        f"""Accuracy on old people against accuracy on the people whom fine-tuning is on, both shares, at the
        end of fine-tuning. The numbers are replay weights: of each old person, against 1 for a new one.
        {_drawn(ends, "Points")} Look for a weight in the upper right corner, where nothing is forgotten and
        everything new is known: if there is none, replay helps only in part.""",
    )


def attention_curves(table: pd.DataFrame) -> go.Figure:
    """Attention to names and its sharpness during fine-tuning, without replay.

    What to look for: lines that stay level while old knowledge is lost.

    Args:
        table: "attention" of the study.

    Raises:
        InterpError: a column is missing, or there is no row.
    """
    found = _typed(table, ("step", "split", "layer", "metric", "value"), "attention")
    found = found[found["weight"].isna()]
    layers = sorted({int(layer) for layer in found["layer"]})
    shown = sorted({layers[0], layers[-1]}) if layers else []
    colours = {"new": PALETTE["blue"], "rare": PALETTE["orange"]}
    words = {"evaluation": "old people", "finetuned": "those fine-tuned on"}
    panels = []
    for metric, title in _ATTENTION.items():
        for layer in shown:
            lines = []
            own = found[(found["metric"] == metric) & (found["layer"] == layer)]
            for variant, colour in colours.items():
                for i, (split, word) in enumerate(words.items()):
                    part = own[(own["variant"] == variant) & (own["split"] == split)]
                    if len(part):
                        style = {"color": colour, "dash": DASHES[i], "width": 2}
                        name = f"{variant} people: measured on {word}"
                        lines.append(_line(part, name, style, symbol=SYMBOLS[i]))
            panels.append(Panel(f"{title}<br>layer {layer}", lines))
    if not panels:
        figure = describe(go.Figure(), "Attention while fine-tuning", _NOTHING)
        note(figure, _NOTHING)
        return figure
    figure = over_steps(panels, None, "", n_columns=len(shown) or 1, place=sqrt, band="range")
    figure.update_yaxes(range=[0, 1.05], tickvals=[0, 0.5, 1])
    figure.update_yaxes(title_text="share", col=1)
    _steps_of_finetuning(figure)
    figure.update_layout(height=figure.layout.height + 40)
    return describe(
        figure,
        "Attention while fine-tuning",
        f"""Mean over heads, in the {"layer" if len(shown) == 1 else "first and the last layer"} of the model;
        fine-tuning on new people (blue) and on rare ones (orange), without replay. Shares of attention: from
        the last name token to the rest of the name (name → name), and from the position that predicts a
        value to the name (attribute → name); and how sharp attention is from these two positions, 0 for
        uniform, 1 for a single token. {_drawn(found)} {_ROOT} Look for lines that stay level, while the
        accuracy of the figure above falls: then it is not attention that was lost.""",
    )


def transplants(table: pd.DataFrame) -> go.Figure:
    """Accuracy on old people with single parts of the model exchanged, without replay.

    What to look for: which part alone does the harm, and which put back repairs it.

    Args:
        table: "transplants" of the study.

    Raises:
        InterpError: a column is missing.
    """
    found = _typed(table, ("transplant", "part", "split", "value"), "transplants")
    found = found[(found["variant"] == "new") & found["weight"].isna()]
    old = found[found["split"] == "evaluation"].assign(part=found["part"].fillna(""))
    figure = go.Figure()
    parts = [part for part in dict.fromkeys(old["part"]) if part]
    for how, name, colour in (
        ("only", "only this part fine-tuned", PALETTE["orange"]),
        ("all but", "only this part put back", PALETTE["blue"]),
    ):
        of_part = {
            part: rows["value"] for part, rows in old[old["transplant"] == how].groupby("part")
        }
        values = [of_part[part] for part in parts]
        figure.add_bar(
            x=parts, y=[v.mean() for v in values], name=name, marker={"color": colour},
            error_y={
                "type": "data", "symmetric": False, "thickness": 1, "width": 3, "color": INK,
                "array": [v.max() - v.mean() for v in values],
                "arrayminus": [v.mean() - v.min() for v in values],
            },
            hovertemplate="%{x}: %{y:.3f}",
        )  # fmt: skip
    for how, name, dash in (("none", "before fine-tuning", "dot"), ("all", "after it", "dash")):
        level = old.loc[old["transplant"] == how, "value"].mean()
        if parts and not isnan(level):
            figure.add_scatter(
                x=parts, y=[level] * len(parts), mode="lines", name=f"{name} ({level:.2f})",
                line={"color": PALETTE["grey"], "dash": dash, "width": 2},
                hovertemplate="%{y:.3f}",
            )  # fmt: skip
    if not parts:
        note(figure, _NOTHING)
    figure.update_xaxes(title_text="part of the model")
    figure.update_yaxes(title_text="accuracy on old people (share)", range=[0, 1.05])
    figure.update_layout(height=440, barmode="group")
    return describe(
        figure,
        "Where the damage is done",
        f"""Accuracy on old people (share) after fine-tuning on new ones without replay, when parts of the
        model are exchanged: only this part fine-tuned and the rest as before (orange), or only this part put
        back as it was (blue). Dotted: the model before; dashed: after fine-tuning. Each part includes the
        normalization before it; "embeddings" are those of tokens and positions and the unembedding. {
            _drawn(found, "Bars")
        } Look for a low orange bar, a part that does the harm alone, and for a high blue one, a part
        that repairs it when it is put back.""",
    )


def weight_movement(table: pd.DataFrame) -> go.Figure:
    """How far fine-tuning moved each weight matrix, layer by layer.

    What to look for: whether MLPs moved further than attention.

    Args:
        table: "weights" of the study.

    Raises:
        InterpError: a column is missing.
    """
    found = _typed(table, ("layer", "part", "value"), "weights", ["layer"])
    place = [
        f"{part}" if pd.isna(layer) else f"{part} {layer}"
        for part, layer in zip(found["part"], found["layer"], strict=True)
    ]
    found = found.assign(place=place)
    return describe(
        _moved(found, "change (share of the norm)", "weights, and the layer"),
        "How far weights move",
        f"""The norm (Frobenius) of the change of each weight matrix in fine-tuning, as a share of its norm
        before: embedding, positions and unembedding, then for each layer attention (W_Q, W_K, W_V, W_O) and
        MLP (W_in holds its keys, W_out its values). {_drawn(found, "Points")} AdamW takes steps of about the
        learning rate in every weight, so that matrices of small weights move further in this measure. Look
        for whether MLPs move further than attention, and for whether replay and rare people, which harm
        less, move them less.""",
    )


def key_movement(table: pd.DataFrame) -> go.Figure:
    """How far the keys of old people turned, by layer and position.

    What to look for: the layer and position whose keys turned most, against different people.

    Args:
        table: "keys" of the study.

    Raises:
        InterpError: a column is missing.
    """
    columns = ("step", "layer", "position", "value", "control")
    found = _typed(table, columns, "keys")
    found = found[found["step"] == found["step"].max()]
    place = [
        f"{position}, {layer}"
        for position, layer in zip(found["position"], found["layer"], strict=True)
    ]
    found = found.assign(place=place).sort_values(["position", "layer"], kind="stable")
    figure = _moved(found, "1 - cosine", "position, and the layer")
    control = found.groupby("place", sort=False)["control"].mean()
    figure.add_scatter(
        x=list(control.index), y=list(control), mode="markers", name="two different people",
        marker={"symbol": "line-ew", "size": 22, "line": {"color": PALETTE["grey"], "width": 2}},
        hovertemplate="two different people: %{y:.3f}<extra></extra>",
    )  # fmt: skip
    return describe(
        figure,
        "Whose keys turn",
        f"""How far the key vectors of old people (activations of an MLP layer's neurons, in the same
        sentences) turned in fine-tuning: 1 - cosine with those before, for each position where an MLP reads
        a person, and each layer. 0: nothing changed. {_drawn(found, "Points")} Grey bars: 1 - cosine between
        two different people before fine-tuning; a key that turned as far is another person's. Look for the
        layer and position that turn most, and for which kind of fine-tuning turns them.""",
    )


def _moved(table: pd.DataFrame, axis: str, places: str) -> go.Figure:
    """Points for each kind of fine-tuning over named places, with the range of seeds."""
    figure = go.Figure()
    order = list(dict.fromkeys(table["place"]))
    palette = [PALETTE[name] for name in ("purple", "green", "orange", "blue", "grey")]
    kinds = _kinds(table)
    for i, kind in enumerate(kinds):
        own = _of_kind(table, kind).groupby("place")["value"].agg(["mean", "min", "max"])
        own = own.reindex(order)
        figure.add_scatter(
            x=order, y=list(own["mean"]), mode="markers", name=_kind_name(kind),
            marker={"color": palette[i % len(palette)], "size": 9, "symbol": SYMBOLS[i % len(SYMBOLS)]},
            error_y={
                "type": "data", "symmetric": False, "thickness": 1, "width": 3,
                "array": list(own["max"] - own["mean"]),
                "arrayminus": list(own["mean"] - own["min"]),
            },
            hovertemplate=f"{_kind_name(kind)}: %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title_text=places, tickangle=-60)
    figure.update_yaxes(title_text=axis, rangemode="tozero")
    figure.update_layout(height=500)
    return figure


def _typed(
    table: pd.DataFrame, columns: Sequence[str], what: str, numbers: Sequence[str] = ()
) -> pd.DataFrame:
    """The table with its replay weights as numbers, in the column `weight` (NaN: no replay)."""
    found = rows(table, ("seed", "variant", "replay_weight", *columns), what, numbers)
    return found.assign(weight=pd.to_numeric(found["replay_weight"]).astype(float))


def _kinds(table: pd.DataFrame) -> list[Kind]:
    """The kinds of fine-tuning: new people by increasing replay, then rare ones."""
    kinds = table[["variant", "weight"]].drop_duplicates()
    pairs = zip(kinds["variant"], kinds["weight"], strict=True)
    return sorted(
        ((str(v), float(w)) for v, w in pairs), key=lambda k: (k[0], -1 if isnan(k[1]) else k[1])
    )


def _of_kind(table: pd.DataFrame, kind: Kind) -> pd.DataFrame:
    variant, weight = kind
    same = table["weight"].isna() if isnan(weight) else table["weight"] == weight
    return table[(table["variant"] == variant) & same]


def _kind_name(kind: Kind) -> str:
    variant, weight = kind
    if isnan(weight):
        return "rare people" if variant == "rare" else "new people, no replay"
    return f"{variant}, replay {weight_name(weight)}"


def _line(table: pd.DataFrame, name: str, style: dict[str, Any], symbol: str | None = None) -> Line:
    """The mean over seeds, between the lowest and the highest, at steps that all seeds have."""
    curves = table.pivot_table(values="value", index="step", columns="seed").dropna()
    low = high = None
    if curves.shape[1] > 1:
        low, high = curves.min(axis=1), curves.max(axis=1)
    return Line(name, curves.mean(axis=1), style, low=low, high=high, symbol=symbol)


def _steps_of_finetuning(figure: go.Figure) -> None:
    for axis in figure.select_xaxes():
        if axis.title.text:
            axis.title.text = "fine-tuning (steps)"
    figure.update_layout(margin_t=72)  # no phases are listed above


def _drawn(table: pd.DataFrame, what: str = "Lines") -> str:
    """What lines (or points, or bars) and their ranges are."""
    n_seeds = table["seed"].nunique()
    if n_seeds < 2:
        return "One seed."
    ranges = "bands" if what == "Lines" else "thin bars"
    return f"{what} are means over {n_seeds} seeds, {ranges} reach from the lowest to the highest."
