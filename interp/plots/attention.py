"""Where attention goes while a model learns, which heads do what, and what cutting it costs.

Tables of scores have the columns `step`, `layer`, `head`, `metric`, `value`, `chance` (shares of
attention; the chance level is what uniform attention gives); tables of roles a row for each step and
head; tables of knockouts a row for each step and cut edge. Source: paper, Fig. 3 (right) and
appendix F.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from interp.charts import (
    COLOURS,
    CROSSED,
    DASHES,
    PALETTE,
    ROOT_STEPS,
    SYMBOLS,
    Axis,
    Level,
    Look,
    at_step,
    curves,
    describe,
    has_missing,
    heatmap,
    looks_of,
    matrix,
    rows,
    timeline,
)
from interp.charts.style import see_through
from interp.charts.tidy import by_step, whole_numbers
from interp.errors import InterpError
from interp.phases import Phases

SCORE_NAMES = {
    "name_to_name": "name → name",
    "name_to_first_token": "name → first token",
    "name_sharpness": "sharpness at the last name token",
    "attribute_to_name": "attribute → name",
    "attribute_to_earlier_names": "attribute → earlier names",
    "attribute_to_any_name": "attribute → any name",
    "attribute_to_text": "attribute → text",
    "attribute_to_type": "attribute → type",
    "attribute_to_earlier_text": "attribute → earlier text",
    "attribute_to_earlier_values": "attribute → earlier values",
    "attribute_to_first_token": "attribute → first token",
    "attribute_to_punctuation": "attribute → punctuation",
    "attribute_sharpness": "sharpness where a value is predicted",
    "previous_token": "previous token",
    "self_token": "own token",
    "text_to_first_token": "text → first token",
    "name_to_name_of_rest": "name → name, of the rest",
    "attribute_to_any_name_of_rest": "attribute → any name, of the rest",
    "attribute_to_type_of_rest": "attribute → type, of the rest",
    "previous_token_of_rest": "previous token, of the rest",
    "self_token_of_rest": "own token, of the rest",
    "control": "control",
}
"""What a reader is told a score or a cut edge is."""

_ROLES = {
    "name grouping": Look(PALETTE["blue"], name="● name grouping"),
    "extraction": Look(PALETTE["orange"], symbol="square", name="■ extraction"),
    "type propagation": Look(PALETTE["green"], symbol="diamond", name="◆ type propagation"),
    "positional": Look(PALETTE["purple"], symbol="triangle-up", name="▲ positional"),
    "sink": Look(see_through(PALETTE["grey"], 0.6), symbol="x", name="✕ sink"),
    "none": Look(see_through(PALETTE["grey"], 0.16), symbol=""),
}
_MOST_ROWS = 36
"""With more heads than these, roles are drawn at one checkpoint: a row a layer, a cell a head."""
_TALLEST = 1_200
"""Pixels."""
_MANY_LAYERS = 12
"""With more layers than these, their panels stand side by side."""


def attention_to_names(scores: pd.DataFrame, phases: Phases | None = None) -> go.Figure:
    """Attention to names and to text over training, a panel for each layer (paper, Fig. 3 right).

    Of a table of one model, or one checkpoint, over layers.

    What to look for: name → name rises first, in the first layer; attribute → name drops, then rises
    through the plateau, in the last layers.

    Args:
        scores: Shares of attention; see the module.
        phases: Of the training, to shade; None if nobody knows them.

    Raises:
        InterpError: one of the scores is missing.
    """
    figure = _averages(
        scores,
        phases,
        ("name_to_name", "attribute_to_name", "attribute_to_earlier_names", "attribute_to_text"),
        "share of attention",
    )
    if _of_one(scores):
        return describe(
            figure,
            "Attention to names",
            """Attention, as a share, against layers: from the last name token to the other tokens of that
            name (name → name); and from the position that predicts the first token of a value to the name
            of its sentence, to names of earlier sentences, and to the words of its sentence. Lines: the
            mean over heads; bands: from the lowest to the highest head; dots in the same colour: chance,
            which is what uniform attention would give. Look for the layers in which some head is far above
            chance.""",
        )
    return describe(
        figure,
        "Attention to names",
        """Attention, as a share, against training steps, a panel for each layer: from the last name
        token to the other tokens of that name (name → name); and from the position that predicts
        the first token of a value to the name of its sentence, to names of earlier sentences, and to
        the words of its sentence, which tell the type of attribute. Lines: the mean over heads;
        bands: from the lowest to the highest head; dots in the same colour: chance, which is what
        uniform attention would give. Look for name → name rising first, in the first layer, and for
        attribute → name falling during the statistics phase (1), then rising through the plateau
        (2), in the last layers.""",
    )


def sharpness(scores: pd.DataFrame, phases: Phases | None = None) -> go.Figure:
    """Sharpness of attention over training, a panel for each layer; of one model over layers.

    What to look for: a rise at the end of the plateau.

    Args:
        scores: With `name_sharpness` and `attribute_sharpness`, between 0 and 1; see the module.
        phases: Of the training, to shade; None if nobody knows them.

    Raises:
        InterpError: one of the scores is missing.
    """
    figure = _averages(
        scores, phases, ("name_sharpness", "attribute_sharpness"), "sharpness (0 to 1)"
    )
    over = "training steps, a panel for each layer"
    look = "a rise at the end of the plateau"
    if _of_one(scores):
        over, look = "layers", "the layers in which heads attend to few tokens"
    return describe(
        figure,
        "Sharpness of attention",
        f"""Sharpness, 1 minus the entropy of the attention pattern as a share of the highest
        possible, against {over}: 0 is uniform attention, 1 attention
        to a single token. Measured at the last token of a name, and at the position that predicts
        the first token of a value. Lines: the mean over heads; bands: from the lowest to the highest
        head. Look for {look}.""",
    )


def attention_by_head(
    scores: pd.DataFrame,
    phases: Phases | None = None,
    metrics: Sequence[str] = ("name_to_name", "attribute_to_any_name", "attribute_to_type"),
) -> go.Figure:
    """Scores of single heads over training: a line a head, a panel for each score and layer.

    What to look for: heads that leave the others, and when.

    Args:
        scores: See the module.
        phases: Of the training, to shade; None if nobody knows them.
        metrics: The scores to draw.

    Raises:
        InterpError: one of the scores is missing.
    """
    _need(scores, metrics)
    found = scores[scores["metric"].isin(metrics)]
    tops = 1.2 * found.groupby("metric")["value"].max()
    figure = curves(
        found, line="head", looks=looks_of(whole_numbers(found["head"])), facet="metric",
        column="layer", n_columns=2, phases=phases,
        axis={m: Axis(f"{SCORE_NAMES.get(m, m)} (share)", range=(0, tops[m])) for m in metrics},
        levels=[Level("chance", by_step(own, "chance"), key)
                for key, own in found.dropna(subset="chance").groupby(["metric", "layer"])],
    )  # fmt: skip
    return describe(
        figure,
        "Attention of single heads",
        """Shares of attention against training steps, a line for each head, a panel for each layer
        and score. Dots: chance, which is what uniform attention would give. Look for heads that
        leave the others, and for the phase in which they do: heads that group names (name → name),
        heads that read the name where a value is predicted (attribute → any name, in this sentence
        or an earlier one), and heads that read which attribute is asked for (attribute → type).""",
    )


def head_roles(
    roles: pd.DataFrame, phases: Phases | None = None, step: int | None = None
) -> go.Figure:
    """What each head does: a row a head, a cell a checkpoint; or of many heads those of one checkpoint.

    What to look for: the order in which roles appear, and whether heads keep them; of one checkpoint, the
    layers in which each role is found.

    Args:
        roles: Columns `step`, `layer`, `head`, `role`, `metric`, `value`, `chance`, `excess`; without
            `step` they are of one model.
        phases: Of the training, to shade; None if nobody knows them.
        step: The checkpoint to draw, a row a layer and a cell a head; by default all, or the last if there
            are more than 36 heads.

    Raises:
        InterpError: the table is empty, has a role that is not known, or no such step.
    """
    unknown = sorted(set(roles["role"].fillna("none")) - set(_ROLES))
    if unknown or roles.empty:
        raise InterpError(
            f"There are no roles {unknown}; known are {', '.join(_ROLES)}."
            if unknown
            else "The table of roles is empty."
        )
    n_heads = len(roles[["layer", "head"]].drop_duplicates())
    if step is not None or n_heads > _MOST_ROWS or _of_one(roles):
        return _roles_of_one(roles, step)
    steps = whole_numbers(roles["step"])
    # The last checkpoint has no next one: its cell is as wide as the one before.
    root = [sqrt(step) for step in steps[-2:]]
    ends = dict(zip(steps, [*steps[1:], (root[-1] + (root[-1] - root[0] or 1)) ** 2], strict=True))
    held = roles.assign(role=roles["role"].fillna("none")).sort_values(["layer", "head", "step"])
    figure = timeline(
        held.assign(
            unit=[f"{layer}.{head}" for layer, head in _heads(held)],
            until=[ends[int(step)] for step in held["step"]],
            reason=[_reason(row) for _, row in held.iterrows()],
        ),
        place="unit", start="step", end="until", group="role", looks=_looks(held), words="reason",
        signs=True, place_axis="layer.head", x_axis=ROOT_STEPS, phases=phases, what="roles",
    )  # fmt: skip
    return describe(
        figure,
        "Roles of heads",
        """The role of each head (rows: layer.head) at each checkpoint, against training steps; a
        cell reaches to the next checkpoint. The axis goes with the square root, so that the first
        phases can be read. The score that decided, a share of attention, shows under the pointer
        with its chance level. Colours and
        signs: ● name grouping, ■ extraction, ◆ type propagation, ▲ positional. Look for the order
        in which roles appear, for the phases in which they do, and for heads that change theirs.""",
    )


def _looks(roles: pd.DataFrame) -> dict[str, Look]:
    """The roles of a legend; a sink only where one is."""
    there = set(roles["role"])
    return {role: look for role, look in _ROLES.items() if role != "sink" or role in there}


def _roles_of_one(roles: pd.DataFrame, step: int | None) -> go.Figure:
    """The roles of heads at one checkpoint: a row a layer, a cell a head."""
    when = ""
    if "step" in roles:
        roles, step = at_step(roles, step, "roles")
        when = f", step {step:,}"
    elif step is not None:
        raise InterpError(f"The table of roles has no steps to find step={step} among.")
    held = roles.assign(role=roles["role"].fillna("none")).sort_values(["layer", "head"])
    heads = whole_numbers(held["head"])
    figure = timeline(
        held.assign(
            begin=held["head"] - 0.46, end=held["head"] + 0.46,
            reason=[_reason(row) for _, row in held.iterrows()],
        ),
        place="layer", start="begin", end="end", group="role", looks=_looks(held), words="reason",
        signs=True, place_axis="layer", x_axis="head", what="roles",
        places={layer: f"{layer}" for layer in whole_numbers(held["layer"])},
    )  # fmt: skip
    figure.update_xaxes(dtick=max(1, len(heads) // 16))
    figure.update_layout(height=min(int(figure.layout.height), _TALLEST))
    return describe(
        figure,
        f"Roles of heads{when}",
        """The role of each head, a row for each layer, a cell for each head. The score that decided, a
        share of attention, shows under the pointer with its chance level. Colours and signs: ● name
        grouping, ■ extraction, ◆ type propagation, ▲ positional, ✕ sink (attention to the first token).
        Look for the layers in which a role is found, and for heads that stand alone in theirs.""",
    )


def knockout_costs(table: pd.DataFrame, phases: Phases | None = None) -> go.Figure:
    """What cutting attention edges costs (nats) over training, in all layers and in single ones.

    What to look for: the checkpoint from which cutting attention to names costs more than cutting
    as many other tokens.

    Args:
        table: Columns `step`, `edge`, `layer` (NA: all layers), `head` (NA: all heads), `cost`.
        phases: Of the training, to shade; None if nobody knows them.

    Raises:
        InterpError: no knockout of whole layers is in the table.
    """
    costs = knockout_rows(table)
    costs = costs[costs["head"].isna()]
    if costs.empty:
        raise InterpError("The table of knockouts has no rows of whole layers (head NA) to draw.")
    edges = [edge for edge in SCORE_NAMES if edge in set(costs["edge"]) and edge != "control"]
    looks = {
        edge: Look(COLOURS[i % 4], symbol=SYMBOLS[i % 6], name=SCORE_NAMES[edge])
        for i, edge in enumerate(edges)
    }
    looks["control"] = Look(PALETTE["grey"], "dash", symbol="cross", name="control")
    figure = curves(
        costs, y="cost", line="edge", looks=looks, facet="layer", axis="cost (nats)", unit="nats",
        phases=phases, marks=True, what="knockouts",
    )  # fmt: skip
    return describe(
        figure,
        "The cost of cutting attention",
        """How much the attribute loss rises, in nats, when attention edges are cut at a checkpoint,
        against its training step; above in all layers at once, below in one layer at a time. Grey
        dashes: as many other tokens cut, the control. Look for the step from which cutting the
        attention to names costs more than the control, for the phase it lies in, and for the layer
        that carries the cost.""",
    )


def knockout_by_head(table: pd.DataFrame, step: int | None = None) -> go.Figure:
    """What cutting the edges of single heads costs (nats) at one checkpoint.

    What to look for: heads whose own edges matter, against the control.

    Args:
        table: Columns `step`, `edge`, `layer`, `head`, `cost`.
        step: The checkpoint; by default the last with single heads.

    Raises:
        InterpError: no knockout of single heads is in the table, or none at that step.
    """
    costs = knockout_rows(table)
    costs = costs[costs["head"].notna() & costs["layer"].notna()]
    costs, step = at_step(costs, step, "knockouts of single heads")
    costs = costs.sort_values(["layer", "head"])
    names = {edge: name.replace(" → ", "<br>→ ") for edge, name in SCORE_NAMES.items()}
    grid = matrix(
        costs.assign(head=[f"{layer}.{head}" for layer, head in _heads(costs)]), row="head",
        column="edge", value="cost", what="knockouts",
    )  # fmt: skip
    figure = heatmap(
        grid[[edge for edge in names if edge in grid]].rename(columns=names), axis="cost (nats)",
        unit="nats", rows="layer.head", columns="edge that is cut (one head)",
        names={"": "head"},
    )  # fmt: skip
    return describe(
        figure,
        f"The cost of cutting single heads, step {step:,}",
        f"""How much the attribute loss rises, in nats, when an attention edge of one head is cut, at
        training step {step:,}; rows are heads (layer.head), columns are edges; blue is a cost,
        orange a gain, and the stronger the colour the larger. {CROSSED if has_missing(figure) else ""}
        Look for rows that stand out against
        their control, and compare with the cost of the whole layer: if it is far larger than the
        sum of its heads, they stand in for one another.""",
    )


def knockout_rows(table: pd.DataFrame) -> pd.DataFrame:
    """A table of knockouts with the types that a CSV file loses.

    Raises:
        InterpError: a column is missing, or an edge is not known.
    """
    columns = ("step", "edge", "layer", "head", "cost")
    typed = rows(table, columns, "knockouts", numbers=("layer", "head"))
    unknown = sorted(set(table["edge"]) - set(SCORE_NAMES))
    if unknown:
        raise InterpError(f"There are no edges {unknown}; known are {', '.join(SCORE_NAMES)}.")
    return typed


def _averages(
    scores: pd.DataFrame, phases: Phases | None, metrics: Sequence[str], axis: str
) -> go.Figure:
    """Means over heads with their range and the chance level, a panel for each layer."""
    _need(scores, metrics)
    looks = {
        metric: Look(COLOURS[i], DASHES[i], 2.5, name=SCORE_NAMES[metric])
        for i, metric in enumerate(metrics)
    }
    found = scores[scores["metric"].isin(metrics)]
    shared: dict[str, Any] = {
        "line": "metric",
        "looks": looks,
        "axis": axis,
        "seeds": "head",
        "level": "chance",
    }
    if _of_one(scores):
        return curves(found, x="layer", x_axis=Axis("layer", form=".0f"), marks=True, **shared)
    many = found["layer"].nunique() > _MANY_LAYERS
    return curves(found, facet="layer", phases=phases, n_columns=5 if many else None, **shared)


def _of_one(table: pd.DataFrame) -> bool:
    """Whether a table is of one checkpoint, or of a model without any."""
    return "step" not in table or table["step"].nunique() == 1


def _need(scores: pd.DataFrame, metrics: Sequence[str]) -> None:
    missing = [metric for metric in metrics if metric not in set(scores["metric"])]
    if missing or not metrics:
        raise InterpError(
            f"The table of attention scores has no {', '.join(missing) or 'metric to draw'}; it "
            f"has {sorted(set(scores['metric']))}."
        )


def _reason(row: pd.Series) -> str:
    """Why a head has its role, for the pointer."""
    role = "none" if pd.isna(row["role"]) else row["role"]
    when = f", step {int(row['step']):,}" if "step" in row else ""
    words = f"head {int(row['layer'])}.{int(row['head'])}{when}: {role}"
    if pd.isna(row["metric"]) or pd.isna(row["value"]):
        return words
    name = SCORE_NAMES.get(row["metric"], row["metric"])
    return f"{words}<br>{name} {row['value']:.3f}, chance {row['chance']:.3f}"


def _heads(table: pd.DataFrame) -> list[tuple[int, int]]:
    """Layer and head of every row."""
    return [(int(la), int(he)) for la, he in zip(table["layer"], table["head"], strict=True)]
