"""MLP layers as key-value memory over training: which people fire which neurons, and what those say.

Tables of keys have the columns `step`, `layer`, `position`, `split`, `metric`, `value`, `control`;
of values `step`, `layer`, `position`, `path`, `metric`, `attribute`, `value`, `control`. They come
from an analysis or back from CSV. The x axes go with the square root of steps, since the first
phases are short. Source: Geva et al. 2021 and 2023.
"""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from interp.charts import ROOT_AXIS, ROOT_STEPS, chosen, curves, describe, looks_of, rows
from interp.charts.looks import COLOURS, Look
from interp.charts.tidy import in_order
from interp.phases import Phases

_KEYS = ("step", "layer", "position", "split", "metric", "value", "control")
_VALUES = ("step", "layer", "position", "path", "metric", "attribute", "value", "control")
_SPLITS = {
    "evaluation": ("known people", "solid"),
    "held_out": ("held-out people", "dash"),
    "known against held-out": ("known against held-out", "dashdot"),
}
_SELECTIVITIES = {
    "selectivity": "all people",
    "selectivity_within_last_name": "within a last name",
}
_SIMILARITIES = {
    "similarity_same": "same person",
    "similarity_namesake": "namesakes",
    "similarity_other": "different people",
}
_PATHS = {"direct": ("direct path", "solid"), "attention": ("through attention", "dash")}
_AGREEMENTS = {"agreement": "single neurons", "layer_agreement": "the layer as a whole"}


def key_selectivity(keys: pd.DataFrame, phases: Phases | None = None) -> go.Figure:
    """How selective an MLP's neurons are for people, over training, a row of panels a layer.

    What to look for: the step from which known people part from held-out ones.

    Args:
        keys: See the module; drawn are the metrics "selectivity" and, beside it,
            "selectivity_within_last_name".
        phases: Of the training, to shade; None if nobody knows them.

    Raises:
        InterpError: a column is missing, or both metrics.
    """
    found = chosen(rows(keys, _KEYS, "keys"), "keys", metric=tuple(_SELECTIVITIES))
    figure = curves(
        found, line="position", looks=_colours(_positions(found)), dash="split", dashes=_SPLITS,
        facet="layer", column="metric", titles=_SELECTIVITIES, level="control", axis="selectivity",
        x_axis=ROOT_STEPS, phases=phases,
    )  # fmt: skip
    return describe(
        figure,
        "Keys: how selective neurons are for people",
        f"""Selectivity of the MLP's neurons: the share of a neuron's variance that is between people
        and not between sentences about one person (1: it depends on the person alone, 0: it does not
        tell people apart), mean over neurons, against training steps, a row of panels for each
        layer, at the middle and the last name token and at the position that predicts the first token of a
        value.
        Where there is a right column: among people with the same last name, so that the name token
        alone explains nothing. Dashes: held-out people; dots in the same colour: the control, people
        shuffled. {ROOT_AXIS} Look for the phase in which known people part from held-out ones, whose
        names are made of the same parts: what both have needs no memory of single people.""",
    )


def key_similarity(keys: pd.DataFrame, phases: Phases | None = None) -> go.Figure:
    """How alike the key vectors of people are, over training, a panel for each layer and position.

    What to look for: keys of the same person staying alike while those of different people part.

    Args:
        keys: See the module; drawn are the metrics "similarity_same", "similarity_namesake" and
            "similarity_other".
        phases: Of the training, to shade; None if nobody knows them.

    Raises:
        InterpError: a column is missing, or every one of the metrics.
    """
    # Different people are the control of the other two: a line of their own.
    found = chosen(rows(keys, _KEYS, "keys"), "keys", metric=tuple(_SIMILARITIES))
    figure = curves(
        found, line="metric", looks=_colours(_SIMILARITIES), dash="split", dashes=_SPLITS,
        facet="layer", column="position", titles=_positions(found), axis="similarity",
        x_axis=ROOT_STEPS, phases=phases,
    )  # fmt: skip
    return describe(
        figure,
        "Keys: how alike those of people are",
        f"""Mean cosine of two key vectors (the MLP's neurons at a position, less their mean; 1: the
        same direction), against training steps, a panel for each layer and position: of the same
        person in two wordings, of namesakes, who share a last name, and of any different people,
        which is the level to compare with. Solid: known people; dashes: held-out people; dashes and
        dots: a known against a held-out person. {ROOT_AXIS} Look for a gap that opens between the same
        person and namesakes: from there on a key stands for one person and not for a name token.
        What known and held-out people share needs no memory of single people.""",
    )


def promoted_values(values: pd.DataFrame, phases: Phases | None = None) -> go.Figure:
    """The share of neurons that promote attribute values, over training, a panel for each layer.

    What to look for: the step from which the share exceeds that of random directions.

    Args:
        values: See the module; drawn is the metric "value_share".
        phases: Of the training, to shade; None if nobody knows them.

    Raises:
        InterpError: a column or the metric is missing.
    """
    table = rows(values, _VALUES, "values")
    found = chosen(table, "values", metric="value_share", attribute="all")
    looks = {
        path: Look(colour, dash, name=name)
        for (path, (name, dash)), colour in zip(_PATHS.items(), COLOURS, strict=False)
    }
    figure = curves(
        found.rename(columns={"control": "random directions"}), line="path", looks=looks,
        facet="layer", level="random directions", axis="share of tokens", x_axis=ROOT_STEPS,
        phases=phases,
    )  # fmt: skip
    return describe(
        figure,
        "Values: neurons that promote attribute values",
        f"""Of the ten tokens that a neuron's output promotes most, the share that belongs to attribute
        values, mean over the MLP's neurons, against training steps, a panel for each layer: directly
        through the unembedding, or through the attention of the layers above, which carries it to
        where a value is predicted. Dots in the same colour: random directions.
        {ROOT_AXIS} Look for the path and the phase in which neurons
        exceed random directions. Promoting values is what an associative memory does, but so does
        a model that only knows which values are common: see the agreement with the keys.""",
    )


def key_value_agreement(values: pd.DataFrame, phases: Phases | None = None) -> go.Figure:
    """Whether neurons promote the facts of the people who fire them, over training.

    What to look for: the step from which the rank leaves 0.5, and its control does not.

    Args:
        values: See the module; drawn are the metrics "agreement" and "layer_agreement" of all
            attributes.
        phases: Of the training, to shade; None if nobody knows them.

    Raises:
        InterpError: a column is missing, or both metrics.
    """
    table = rows(values, _VALUES, "values")
    found = chosen(table, "values", metric=tuple(_AGREEMENTS), attribute="all")
    figure = curves(
        found, line="metric", looks=_colours(_AGREEMENTS), dash="path", dashes=_PATHS,
        facet="layer", column="position", titles=_positions(found), level="control",
        axis="rank (0 to 1)", x_axis=ROOT_STEPS, phases=phases,
    )  # fmt: skip
    return describe(
        figure,
        "Agreement of keys and values",
        f"""The rank of a person's own value among all values of the attribute, as a share (1: first,
        0.5: chance), in what neurons promote: neuron by neuron, for the people who fire it most; and
        in what the layer as a whole writes for a person beyond its average. Against training steps,
        a panel for each layer and position; solid: directly through the
        unembedding; dashes: through the attention of the layers above; dots in
        the same colour: the control, the same with the facts shuffled among people. {ROOT_AXIS} Look
        for the layer, position and phase in which the rank rises above its control: there keys and
        values form a memory of facts.""",
    )


def _positions(table: pd.DataFrame) -> dict[str, str]:
    return {position: position for position in in_order(table["position"])}


def _colours(names: Mapping[str, str]) -> dict[str, Look]:
    """Looks that differ in colour alone: dashes tell another column."""
    return {value: Look(look.colour, name=names[value]) for value, look in looks_of(names).items()}
