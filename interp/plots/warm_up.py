"""Warm-up and adaptive schedules: where they end, how they get there, when they show more people.

Tables are those of `interp.studies.warm_up`; read back from CSV they will do. Every function raises
`InterpError` where a column is missing or there is nothing to draw.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from interp.charts import (
    INK,
    PALETTE,
    Axis,
    Look,
    bars,
    curves,
    describe,
    looks_of,
    rows,
    timeline,
)
from interp.charts.tidy import whole_numbers

_LOOKS = {
    "uniform": Look(INK, "dash", symbol="square"),
    "power law": Look(PALETTE["orange"], "dashdot", symbol="diamond"),
    "warm-up": Look(PALETTE["blue"]),
    "adaptive": Look(PALETTE["green"], "12px,3px", symbol="triangle-up"),
    "fewer people": Look(PALETTE["purple"], "dash", symbol="x"),
}
"""Of each family of schedules."""
_VALUES = {
    "accuracy_of_everybody": (Axis("final accuracy (share)"), "accuracy", False),
    "attribute_loss": (Axis("final attribute loss (nats)", "nats"), "attribute loss", True),
}
"""Axis, name, and whether less is better, of what `final_values` draws."""


def final_values(table: pd.DataFrame, column: str = "accuracy_of_everybody") -> go.Figure:
    """The final accuracy or loss of every schedule, the best first, a point for each seed.

    What to look for: which family of schedules stands above uniform sampling, and by more than its
    seeds differ.

    Args:
        table: "learned": `schedule`, `family`, `seed` and the column.
        column: `accuracy_of_everybody` (a share) or `attribute_loss` (nats).
    """
    found = rows(table, ("schedule", "family", "seed", column), "schedules")
    axis, name, ascending = _VALUES[column]
    means = found.groupby("schedule")[column].mean().sort_values(ascending=ascending)
    figure = bars(
        found, place="schedule", y=column, group="family", looks=_LOOKS, axis=axis, zero=False,
        place_axis="schedule",
        places={str(schedule): str(schedule) for schedule in means.index}, what="schedules",
    )  # fmt: skip
    counted = (
        """People left out of training count as not known, so that the control, trained on fewer people
        only, cannot end higher than its share of them."""
        if column == "accuracy_of_everybody"
        else """The control with fewer people is left out: its loss says nothing of the others."""
    )
    return describe(
        figure,
        f"Final {name} of every schedule",
        f"""The {name} at the last step on evaluation biographies, one row a schedule, the best on top; an
        open mark for each seed ({found["seed"].nunique()}), a filled one at their mean; colours and marks
        are families. Warm-ups are named by how
        many people are shown at first and for how many epochs, adaptive schedules by how many at first
        and how they grow. {counted} Look for whether warm-ups and adaptive schedules stand above uniform
        sampling and above the power laws by more than seeds differ.""",
    )


def schedule_curves(
    table: pd.DataFrame, stages: pd.DataFrame, schedules: Sequence[str]
) -> go.Figure:
    """Attribute loss and accuracy over training of some schedules, with when they show more people.

    What to look for: a warm-up leaves the plateau earlier; the loss jumps up when everybody is shown,
    and then falls faster than it does with uniform sampling.

    Args:
        table: `schedule`, `family`, `seed`, `step`, `metric`, `value`.
        stages: `schedule`, `seed`, `step`, `people`.
        schedules: Those to draw, e.g. the best of each family.
    """
    found = rows(table, ("schedule", "family", "seed", "step", "metric", "value"), "curves")
    found = found[found["schedule"].isin(schedules)]
    grown = rows(stages, ("schedule", "seed", "step", "people"), "stages")
    families = dict(zip(found["schedule"], found["family"], strict=True))
    looks = {
        schedule: replace(_LOOKS[families[schedule]], name=schedule)
        for schedule in schedules
        if schedule in families
    }
    axes = {
        "attribute_loss": Axis("attribute loss (nats)", "nats"),
        "attribute_accuracy": Axis("attribute accuracy (share)"),
    }
    figure = curves(found, line="schedule", looks=looks, facet="metric", axis=axes, seeds=True)
    for row, metric in enumerate(axes, 1):
        for schedule, look in looks.items():
            own = found[(found["schedule"] == schedule) & (found["metric"] == metric)]
            moments = grown[(grown["schedule"] == schedule) & (grown["step"] > 0)]
            mean = own.pivot_table("value", "step", "seed").dropna().mean(axis=1)
            if moments.empty or mean.empty:
                continue
            steps = moments["step"].astype(float).to_numpy()
            figure.add_scatter(
                x=steps.tolist(), name=schedule, legendgroup=schedule, showlegend=False,
                y=np.interp(steps, mean.index.to_numpy(float), mean.to_numpy(float)).tolist(),
                mode="markers", row=row, col=1, marker={
                    "symbol": f"{look.symbol}-open", "size": 11, "color": look.colour, "line_width": 2,
                },
                customdata=moments[["seed", "people"]].astype(int).to_numpy().tolist(),
                hovertemplate="%{customdata[1]:,d} people from step %{x:,d}, seed %{customdata[0]}"
                f"<extra>{schedule}</extra>",
            )  # fmt: skip
    return describe(
        figure,
        "Learning curves of the best schedules",
        f"""Attribute loss in nats (above) and accuracy, a share (below), on evaluation biographies of
        everybody, over training: uniform sampling, and of each family the schedule that ends with the highest
        accuracy as a mean over seeds (chosen afterwards). Lines are means over seeds, bands reach from
        the lowest to the highest ({found["seed"].nunique()} seeds). Open marks on a line show when a
        schedule began to show more people, in each seed. Look for an earlier end of the plateau with few
        people, and for how fast the rest is learned once everybody is shown.""",
    )


def shown_people(stages: pd.DataFrame, n_steps: int) -> go.Figure:
    """How many people each schedule shows when, a bar for each seed.

    What to look for: whether adaptive schedules switch at about the same step in every seed, and
    sooner or later than fixed warm-ups.

    Args:
        stages: `schedule`, `seed`, `step` (from which on), `people`.
        n_steps: The last step.

    """
    found = rows(stages, ("schedule", "seed", "step", "people"), "stages")
    found = found.astype({"step": int, "people": int, "seed": int})
    schedules = {name: name for name in sorted(found["schedule"].unique(), key=_natural)}
    seeds, sizes = whole_numbers(found["seed"]), whole_numbers(found["people"])
    found = found.sort_values(["seed", "step"])
    until = found.groupby(["schedule", "seed"])["step"].shift(-1).fillna(n_steps).astype(int)
    told = [
        f"{row.schedule}, seed {row.seed}: {row.people:,} people, steps {row.step:,} to {end:,}"
        for row, end in zip(found.itertuples(), until, strict=True)
    ]
    figure = timeline(
        found.assign(until=until, told=told), place="schedule", lane="seed", start="step",
        end="until", group="people", words="told", places=schedules, what="stages",
        looks=looks_of(sizes, {n: f"{n:,} people" for n in sizes}, ordered=True),
    )  # fmt: skip
    figure.update_layout(legend={"xref": "container", "x": 0.02, "entrywidth": 104})
    return describe(
        figure,
        "Who is shown when",
        f"""How many people (colours) each schedule draws from, over training in steps; a bar for each
        seed ({len(seeds)}), seed {seeds[0] if seeds else 0} on top. Fixed warm-ups switch where their
        settings say, adaptive schedules where the run itself shows that those shown are known. Look for
        whether adaptive schedules switch at about the same step in every seed, and whether they
        come to show everybody sooner or later than the fixed warm-ups.""",
    )


def _natural(name: str) -> list[Any]:
    """Sorts names by their words, and numbers in them by size."""
    return [
        (1, float(w), "") if _is_number(w) else (0, 0.0, w) for w in name.replace(",", "").split()
    ]


def _is_number(word: str) -> bool:
    return word.replace(".", "", 1).isdigit()
