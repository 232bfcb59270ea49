"""Fine-tuning: what is forgotten and learned, attention, and which weights and keys move.

Tables are those of `interp.studies.finetuning`; tables read back from CSV will do. Every function raises
`InterpError` where a column is missing or there is nothing to draw. Source: paper, Fig. 5, N, O, P.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import isnan

import pandas as pd
import plotly.graph_objects as go

from interp.charts import (
    DASHES,
    PALETTE,
    ROOT_STEPS,
    Axis,
    Level,
    Look,
    bars,
    curves,
    describe,
    note,
    rows,
    scatter,
)
from interp.plots.associative_memory import weight_name

_STEPS = replace(ROOT_STEPS, title="fine-tuning (steps, square-root scale)")
_PEOPLE = {
    "evaluation": Look(PALETTE["blue"], width=2.5, name="old people"),
    "finetuned": Look(PALETTE["orange"], "dash", name="people fine-tuned on"),
}
_VARIANTS = {
    "new": Look(PALETTE["blue"], name="new people"),
    "rare": Look(PALETTE["orange"], symbol="diamond", name="rare people"),
}
_ATTENTION = {
    "name_to_name": "name → name",
    "attribute_to_name": "attribute → name",
    "name_sharpness": "sharpness, name",
    "attribute_sharpness": "sharpness, attribute",
}
_TRANSPLANTS = {
    "only": Look(PALETTE["orange"], name="only this part fine-tuned"),
    "all but": Look(PALETTE["blue"], name="only this part put back"),
}
_ROOT = (
    "The axis goes with the square root of steps, so that the first of them can be read. They are steps "
    "of fine-tuning."
)
_NOTHING = "No run of fine-tuning without replay has finished."
_OTHERS = "two different people"


def accuracy_curves(table: pd.DataFrame) -> go.Figure:
    """Accuracy on old people and on those of fine-tuning, a panel for each kind of fine-tuning.

    What to look for: without replay the solid line falls; with rare people it stays.

    Args:
        table: "curves" of the study.
    """
    found = _accuracy(table)
    figure = curves(
        found, line="split", looks=_PEOPLE, facet="kind", titles={k: k for k in _kinds(found)},
        axis=Axis("accuracy (share)", range=(-0.03, 1.08)), x_axis=_STEPS, seeds=True, n_columns=2,
    )  # fmt: skip
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
    """
    found = _accuracy(table)
    ends = found[found["step"] == found.groupby(["kind", "seed"])["step"].transform("max")]
    wide = ends.pivot_table("value", ["variant", "replay", "seed"], "split", sort=False)
    limits = (-0.1, 1.2)
    figure = scatter(
        wide.reindex(columns=list(_PEOPLE)).reset_index(),
        x="finetuned", y="evaluation", group="variant", label="replay", looks=_VARIANTS, text=True,
        path=True,        seeds=True, x_axis=Axis("accuracy on people fine-tuned on (share)", range=limits),
        axis=Axis("accuracy on old people (share)", range=limits), what="fine-tuning",
    )  # fmt: skip
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
    """
    found = _typed(table, ("step", "split", "layer", "metric", "value"), "attention")
    found = found[found["weight"].isna()]
    if found.empty:
        return _nothing("Attention while fine-tuning")
    shown = sorted({int(found["layer"].min()), int(found["layer"].max())})
    figure = curves(
        found[found["layer"].isin(shown)], line="variant", looks=_VARIANTS, dash="split",
        dashes={"evaluation": ("measured on old people", DASHES[0]),
                "finetuned": ("on those fine-tuned on", DASHES[1])},
        facet="metric", titles=_ATTENTION, column="layer", axis=Axis("share", range=(0, 1.05)),
        x_axis=_STEPS, seeds=True, marks=True,
    )  # fmt: skip
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
    """
    found = _typed(table, ("transplant", "part", "split", "value"), "transplants")
    found = found[(found["variant"] == "new") & found["weight"].isna()]
    old = found[found["split"] == "evaluation"]
    if old.empty:
        return _nothing("Where the damage is done")
    whole = old.groupby("transplant")["value"].mean()
    figure = bars(
        old[old["transplant"].isin(_TRANSPLANTS)], place="part", group="transplant", kind="bars",
        looks=_TRANSPLANTS, axis=Axis("accuracy on old people (share)", range=(0, 1.05)),
        upright=True, place_axis="part of the model",
        levels=[
            Level(f"{name} ({whole[how]:.2f})", float(whole[how]), dash=dash, width=2)
            for how, name, dash in (("none", "before fine-tuning", "dot"), ("all", "after it", "dash"))
            if how in whole
        ],
    )  # fmt: skip
    return describe(
        figure,
        "Where the damage is done",
        f"""Accuracy on old people (share) after fine-tuning on new ones without replay, when parts of the
        model are exchanged: only this part fine-tuned and the rest as before (orange), or only this part put
        back as it was (blue). Dotted: the model before; dashed: after fine-tuning. Each part includes the
        normalization before it; "embeddings" are those of tokens and positions and the unembedding.
        {_drawn(found, "Bars")} Look for a low orange bar, a part that does the harm alone, and for a high
        blue one, a part that repairs it when it is put back.""",
    )


def weight_movement(table: pd.DataFrame) -> go.Figure:
    """How far fine-tuning moved each weight matrix, layer by layer.

    What to look for: whether MLPs moved further than attention.

    Args:
        table: "weights" of the study.
    """
    found = _typed(table, ("layer", "part", "value"), "weights", ["layer"])
    layers = ["" if pd.isna(layer) else f" {layer}" for layer in found["layer"]]
    figure = bars(
        found.assign(place=found["part"] + layers), place="place", group="kind", upright=True,
        looks=_looks(found), axis="change (share of the norm)", place_axis="weights, and the layer",
    )  # fmt: skip
    return describe(
        figure,
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
    """
    columns = ("step", "layer", "position", "value", "control")
    found = _typed(table, columns, "keys")
    found = found[found["step"] == found["step"].max()]
    found = found.sort_values(["position", "layer"], kind="stable")
    found["place"] = found["position"] + ", " + found["layer"].astype(str)
    others = found.assign(kind=_OTHERS, value=found["control"])
    control = {_OTHERS: Look(PALETTE["grey"], symbol="line-ew-open")}
    figure = bars(
        pd.concat([found, others]), place="place", group="kind", upright=True,
        looks={**_looks(found), **control}, axis="1 - cosine", place_axis="position, and the layer",
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


def _accuracy(table: pd.DataFrame) -> pd.DataFrame:
    found = _typed(table, ("step", "split", "metric", "value"), "fine-tuning")
    return found[found["metric"] == "attribute_accuracy"]


def _typed(
    table: pd.DataFrame, columns: Sequence[str], what: str, numbers: Sequence[str] = ()
) -> pd.DataFrame:
    """The table with replay weights as numbers (`weight`; NaN: none), and in words (`replay`, `kind`)."""
    found = rows(table, ("seed", "variant", "replay_weight", *columns), what, numbers)
    weights = pd.to_numeric(found["replay_weight"]).astype(float)
    words = [
        ("rare", "rare people") if variant == "rare"
        else (weight_name(weight), f"new people, {weight_name(weight)}") if isnan(weight)
        else (weight_name(weight), f"new, replay {weight_name(weight)}")
        for variant, weight in zip(found["variant"], weights, strict=True)
    ]  # fmt: skip
    replay, kinds = zip(*words, strict=True) if words else ((), ())
    return found.assign(weight=weights, replay=list(replay), kind=list(kinds))


def _kinds(table: pd.DataFrame) -> list[str]:
    """The kinds of fine-tuning: new people by increasing replay, then rare ones."""
    return list(table.sort_values(["variant", "weight"], na_position="first")["kind"].unique())


def _looks(table: pd.DataFrame) -> dict[str, Look]:
    colours = [PALETTE[name] for name in ("purple", "green", "orange", "blue", "grey")]
    symbols = ("circle", "square", "diamond", "x", "triangle-up")
    kinds = zip(_kinds(table), colours * 2, symbols * 2, strict=False)
    return {kind: Look(colour, symbol=symbol) for kind, colour, symbol in kinds}


def _nothing(title: str) -> go.Figure:
    figure = describe(go.Figure(), title, _NOTHING)
    note(figure, _NOTHING)
    return figure


def _drawn(table: pd.DataFrame, what: str = "Lines") -> str:
    """What lines (or points, or bars) and their ranges are."""
    n_seeds = table["seed"].nunique()
    if n_seeds < 2:
        return "One seed."
    ranges = "bands" if what == "Lines" else "thin bars"
    return f"{what} are means over {n_seeds} seeds, {ranges} reach from the lowest to the highest."
