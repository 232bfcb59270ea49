"""How a model learns: curves over training."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from interp.charts import PALETTE, ROOT_AXIS, ROOT_STEPS, Axis, Level, Look, curves, describe
from interp.errors import RunError
from interp.run import Run

_LOOKS = {
    "train": Look(PALETTE["green"], "dot", name="known people, training wordings"),
    "evaluation": Look(PALETTE["blue"], width=2.5, name="known people, new wordings (evaluation)"),
    "held_out": Look(PALETTE["orange"], "dash", name="held-out people"),
}
_LOSS = Axis("attribute loss (nats)", "nats")
_ACCURACY = Axis("accuracy (share)", range=(-0.02, 1.04))
_SCALES = "scales differ, as a birth date has three parts)"
_DRAWN, _THEORETICAL = "baseline of these people", "theoretical baseline"


def learning_curves(run: Run) -> go.Figure:
    """Attribute loss (nats) and attribute accuracy (share) over training, with the phases.

    What to look for: the loss falls to the no-knowledge baseline, stays there (the plateau), then
    falls below for good, and only then does accuracy rise. Held-out people leave the baseline
    upwards: confident and wrong.

    Args:
        run: A run with metrics.

    Raises:
        RunError: nothing has been measured yet.
    """
    figure = curves(
        _measured(run, ("attribute_loss", "attribute_accuracy")), line="split", looks=_LOOKS,
        facet="metric", axis={"attribute_loss": _LOSS, "attribute_accuracy": _ACCURACY},
        x_axis=ROOT_STEPS, phases=run.phases, heights=[264, 176],
        levels=[
            _level(_DRAWN, run.phase_baseline, "dash", "attribute_loss"),
            _level(_THEORETICAL, run.baseline, "dot", "attribute_loss"),
        ],
    )  # fmt: skip
    return describe(
        figure,
        "Three phases of learning",
        f"""Above: attribute loss, in nats, against training steps. Look for three phases: the loss
        falls to the no-knowledge baseline (1, statistics), stays there (2, plateau), then falls
        below for good (3, knowledge). Below: the share of values predicted entirely right, which
        stays near zero until the plateau ends. Held-out people, who are never trained on, part from
        the known: a loss above the baseline after the plateau is hallucination. The dashed
        baseline uses the values that these people have, and is the one the phases are held
        against; the dotted one takes every value of the lists as equally likely. {ROOT_AXIS}""",
    )


def attribute_curves(run: Run) -> go.Figure:
    """Attribute loss (nats) and accuracy (share) of each attribute on evaluation biographies.

    What to look for: whether all attributes leave their own baseline at the same step, and in
    which order they are learned.

    Args:
        run: A run with metrics.

    Raises:
        RunError: nothing has been measured yet.
    """
    attributes = run.population.attributes
    names = {attribute: attribute.replace("_", " ") for attribute in attributes}
    baselines = run.baselines
    levels = [
        Level(name, values[attribute], ("attribute_loss", attribute), dash)
        for name, values, dash in (
            (_DRAWN, baselines.statistics, "dash"), (_THEORETICAL, baselines.theoretical, "dot")
        )
        for attribute in attributes
    ]  # fmt: skip
    figure = curves(
        _measured(run, ("attribute_loss", "attribute_accuracy"), attributes, ["evaluation"]),
        line="split", looks=_LOOKS, facet="attribute", titles=names, column="metric",
        axis={"attribute_loss": _LOSS, "attribute_accuracy": _ACCURACY}, x_axis=ROOT_STEPS,
        levels=levels,
    )  # fmt: skip
    return describe(
        figure,
        f"The {'six' if len(attributes) == 6 else len(attributes)} attributes",
        f"""Evaluation biographies, a row for each attribute. Left: attribute loss, in nats, with the
        attribute's own no-knowledge baseline (dashed: of these people, dotted: theoretical; the
        {_SCALES if run.population.lexicon.dates else "scales differ)"}. Right: the share of values predicted
        entirely right. Look for whether the attributes leave their baseline together, and for the
        order in which they are learned. {ROOT_AXIS}""",
    )


def known_and_held_out(run: Run) -> go.Figure:
    """Known (evaluation) against held-out people: loss (nats), top probability, entropy (nats).

    What to look for: after the plateau the loss on held-out people rises above the baseline while
    the top probability rises and the entropy falls: hallucination. Confidence in known people
    should rise further, so that the gap could tell the two apart.

    Args:
        run: A run with metrics and held-out people.

    Raises:
        RunError: nothing has been measured yet, or the run has no held-out people.
    """
    if "held_out" not in _splits(run):
        raise RunError(
            f"{run.given} has no held-out people to compare with; train with "
            "population.n_held_out above 0."
        )
    figure = curves(
        _measured(
            run, ("attribute_loss", "top_probability", "entropy"), splits=["evaluation", "held_out"]
        ),
        line="split", looks=_LOOKS, facet="metric", phases=run.phases, x_axis=ROOT_STEPS,
        axis={
            "attribute_loss": _LOSS,
            "top_probability": Axis("top probability", range=(0, 1.04)),
            "entropy": Axis("entropy (nats)", "nats"),
        },
        levels=[_level(_DRAWN, run.phase_baseline, "dash", "attribute_loss")],
    )  # fmt: skip
    return describe(
        figure,
        "Known and held-out people",
        f"""Known people in new wordings (solid) against people never trained on (dashed), over
        training steps. From above: attribute loss in nats; mean probability of the top prediction,
        and entropy of the prediction in nats, both at the first token of the value. Look at the end
        of the plateau: a held-out loss that rises above the baseline while the top probability
        rises and the entropy falls is hallucination, confident and wrong. The gap between the two
        lines in the lower panels shows how much less sure the model is about people it does not
        know. {ROOT_AXIS}""",
    )


def _splits(run: Run) -> list[str]:
    """The splits that were measured, in the order of their lines."""
    metrics = run.metrics
    measured = set(metrics.loc[metrics["metric"] == "attribute_loss", "split"])
    return [split for split in _LOOKS if split in measured]


def _measured(
    run: Run,
    metrics: Sequence[str],
    attributes: Sequence[str] = ("all",),
    splits: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Curves of a run as a tidy table; by default of every split that was measured."""
    run.curve()  # says what to do where nothing is measured
    wanted: dict[str, Any] = {
        "metric": metrics, "attribute": attributes, "split": splits or _splits(run),
    }  # fmt: skip
    table = run.metrics
    for column, values in wanted.items():
        table = table[table[column].isin(list(values))]
    return table


def _level(name: str, value: float, dash: str, metric: str) -> Level:
    """A level in nats, which the legend tells."""
    return Level(f"{name} ({value:.2f} nats)", value, (metric,), dash)
