"""What forms first, attention or the memory: dates by several measures, and what compiled models say of them.

Tables are those of `interp.studies.recall_order`; tables read back from CSV will do. Every function raises
`InterpError` where a column is missing or there is nothing to draw.
"""

import pandas as pd
import plotly.graph_objects as go

from interp.charts import PALETTE, ROOT_STEPS, Axis, Look, bars, curves, describe, rows

_PARTS = {
    "attention": Look(PALETTE["blue"]),
    "memory": Look(PALETTE["orange"], symbol="square"),
}
_DOSED = {
    "attention": Look(PALETTE["blue"], name="attention is dosed"),
    "memory": Look(PALETTE["orange"], symbol="square", name="the memory is dosed"),
    "both": Look(PALETTE["grey"], symbol="diamond", dash="dot", name="both are"),
}


def dates(table: pd.DataFrame) -> go.Figure:
    """The step at which each measure is at half of its final strength, by size.

    What to look for: whether all blue marks are left of all orange ones.

    Args:
        table: "dates" of the study.
    """
    found = rows(table, ["size", "seed", "measure", "part", "step", "corrected"], "dates")
    corrected = found[found["corrected"].notna()]
    corrected = corrected.assign(
        step=corrected["corrected"], measure=corrected["measure"] + ", corrected"
    )
    found = pd.concat([found, corrected], ignore_index=True)
    order = found.groupby("measure")["step"].mean().sort_values()
    figure = bars(
        found, place="measure", y="step", group="part", facet="size", looks=_PARTS,
        titles={size: size for size in dict.fromkeys(found["size"])},
        places={name: name for name in order.index}, axis=ROOT_STEPS, zero=False, what="dates",
    )  # fmt: skip
    return describe(
        figure,
        "What forms first, by measure",
        """The step from which each measure stays at half of its final strength; corrected: at what it says
        of half a dose in compiled models, of measures that can tell that. Means over seeds, and each seed.
        "alone": what attention patterns of a step do in the last checkpoint, and what the step does with
        the last patterns. Look whether blue marks are left of orange ones whatever the measure.""",
    )


def doses(table: pd.DataFrame) -> go.Figure:
    """What each measure says of compiled models of which a part is there to a dose.

    What to look for: the line of a good measure rises with its own part alone, and not at once.

    Args:
        table: "doses" of the study.
    """
    found = rows(table, ["variant", "seed", "dosed", "dose", "measure", "strength"], "doses")
    names = list(dict.fromkeys(found["measure"]))
    full = found[found["dose"] == found["dose"].max()]
    by = ["variant", "seed", "dosed", "measure"]
    merged = found.merge(full[[*by, "strength"]], on=by, suffixes=("", "_full"))
    merged = merged.assign(
        share=merged["strength"] / merged["strength_full"],
        seed=merged["variant"] + " " + merged["seed"].astype(str),
    )
    figure = curves(
        merged, x="dose", y="share", line="dosed", looks=_DOSED, column="measure",
        titles={name: name for name in names}, n_columns=3, x_axis=Axis("dose"),
        axis=Axis("share of full", range=(-0.05, 1.3)), seeds=True, marks=True,
        heights=[150] * -(-len(names) // 3),
    )  # fmt: skip
    return describe(
        figure,
        "What measures say of models that are half there",
        """Strength of each measure, as a share of that at the full dose, over the dose of attention (the
        share of attention to the name), of the memory (the scale of what it writes) or of both, in compiled
        models. Means over populations and variants, and their range. Look for lines of the measure's own part
        that rise steadily, while the line of the other part stays at 1: only such a measure dates its own
        part.""",
    )
