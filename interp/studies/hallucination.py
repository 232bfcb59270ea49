"""Hallucination.

What does a model say of people it has never seen, and does its confidence give them away? (paper, Fig. 5
left, M)

Command: interp batch hallucination --out artifacts/studies --workers 2
Duration: 3 runs of 1,500 steps (about 80 seconds each on one core)

Held-out people are drawn from the same lists as those of training and told about in the same way. A
model that knew nothing of them would answer with the frequencies of values, at the no-knowledge
baseline. A loss above it is *hallucination*: confident and wrong. Whether confidence still tells known
people from unknown ones is asked of a detector that sees it and nothing else.

The baseline of held-out people is the theoretical one (every value of the lists is equally likely). With
few people in training their frequencies differ from the lists', and a model that has learned nothing
else is already above it on others: then the loss has to rise above the lowest that it reached.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from transformer_lens.model_bridge import TransformerBridge

from interp.errors import ConfigError
from interp.knowledge import METRICS, Split, split_batch, value_table
from interp.memory.confidence import UNITS, area_under, suspicions, thinned_roc
from interp.plots.hallucination import auc_curves, hallucination_curves, roc_curves
from interp.run import Run
from interp.series import nearest_step, over_steps
from interp.studies.collect import collect, complete
from interp.studies.hallucination_claims import held_against
from interp.studies.rules import Claim
from interp.studies.study import Planned, Study, StudySettings, Tables

READ: tuple[Split, Split] = ("evaluation", "held_out")
"""Whom it is asked of: known people and those never seen, in wordings never seen with them."""
_COLUMNS = {
    "curves": ("seed", "step", "split", "metric", "value"),
    "phases": ("seed", "baseline", "phase_baseline", "statistics_end", "plateau_end"),
    "detector": ("seed", "step", "unit", "score", "value"),
    "roc": ("seed", "moment", "step", "unit", "score", "false_alarms", "found"),
}


class HallucinationSettings(StudySettings):
    """Settings of the study of people whom a model has never seen."""


def planned(settings: HallucinationSettings) -> list[Planned]:
    """The runs that settings ask for: the preset as it is, everything measured.

    Raises:
        ConfigError: the runs hold nobody out, or do not measure them.
    """
    runs = [Planned(settings.config(seed)) for seed in settings.seeds]
    for config in (run.config for run in runs):
        splits = config.evaluation.splits
        if config.population.n_held_out < 1 or (splits is not None and "held_out" not in splits):
            raise ConfigError(
                "hallucination: what a model says of people it has never seen needs some of them, "
                f"but population.n_held_out={config.population.n_held_out} and evaluation.splits="
                f"{splits}; hold more people out, and measure 'held_out'."
            )
    return runs


def tables(settings: HallucinationSettings, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """What the finished runs measured.

    Returns:
        "curves": columns `seed`, `step`, `split` ("evaluation": known people, "held_out"), `metric`
        (`knowledge.METRICS`), `value` (nats, share, probability, nats).
        "phases": a row a seed: `seed`, `baseline` (nats, theoretical), `phase_baseline` (nats, of the
        drawn people), `statistics_end` and `plateau_end` (steps; NA where not reached).
        "detector": columns `seed`, `step`, `unit` (`UNITS`), `score` (`SCORES`), `value`: the area
        under the ROC curve, 0.5 by chance, at checkpoints over training.
        "roc": the curves behind it at three checkpoints: `seed`, `moment` ("end of the plateau",
        "midway", "last step"), `step`, `unit`, `score`, `false_alarms` (share of the known who are
        taken for unknown), `found` (share of the unknown who are).
    """

    def of_run(run: Run) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
        every = run.metrics
        whole = (every["attribute"] == "all") & every["metric"].isin(METRICS)
        ends = pd.DataFrame(
            {
                "statistics_end": [run.phases.statistics_end],
                "plateau_end": [run.phases.plateau_end],
            },
            dtype="Int64",
        )
        areas, points = detection(run)
        return {"seed": run.config.seed}, {
            "curves": every[whole & every["split"].isin(READ)],
            "phases": ends.assign(baseline=run.baseline, phase_baseline=run.phase_baseline),
            "detector": areas,
            "roc": points,
        }

    found = collect(sorted(runs, key=lambda run: run.config.seed), of_run, _COLUMNS)
    return {name: table.round(5) for name, table in found.items()}


def detection(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables "detector" and "roc" of `tables`, of one run with held-out people."""
    most = run.config.evaluation.n_individuals
    batches = [split_batch(run.corpus, split, most) for split in READ]
    n_known = len(batches[0])
    chosen = [METRICS.index("top_probability"), METRICS.index("entropy")]

    def confidence(model: TransformerBridge) -> Float[np.ndarray, "score person attribute"]:
        return np.concatenate([value_table(model, batch) for batch in batches], axis=1)[chosen]

    moments = _moments(run)
    areas, points = [], []
    for step, values in over_steps(run, confidence, spaced(run.steps, moments.values())):
        for unit in UNITS:
            for score, suspicion in suspicions(values, unit).items():
                both = suspicion[n_known:].ravel(), suspicion[:n_known].ravel()
                cases = both[0][~np.isnan(both[0])], both[1][~np.isnan(both[1])]
                own = {"step": step, "unit": unit, "score": score}
                areas.append(own | {"value": area_under(*cases)})
                for moment in (name for name, at in moments.items() if at == step):
                    false_alarms, found = thinned_roc(*cases)
                    curve = {"moment": moment, **own, "false_alarms": false_alarms, "found": found}
                    points.append(pd.DataFrame(curve))
    return pd.DataFrame(areas), pd.concat(points, ignore_index=True)


def spaced(steps: Sequence[int], always: Iterable[int]) -> list[int]:
    """Steps each at least 9% later than the one before, and some that are always among them."""
    kept = [steps[0]]
    for step in steps:
        if step >= 1.09 * kept[-1] and step > kept[-1]:
            kept.append(step)
    return sorted({*kept, *always})


def _moments(run: Run) -> dict[str, int]:
    """Checkpoints worth a curve: nearest to the plateau's end, midway from there to the last, last."""
    steps, end = run.steps, run.phases.plateau_end
    last = {"last step": steps[-1]}
    if end is None:
        return last
    midway = nearest_step(steps, (end + steps[-1]) / 2)
    return {"end of the plateau": nearest_step(steps, end), "midway": midway} | last


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The study's figures, by anchor; none of what was not measured."""
    curves, phases, detector, roc = complete(tables, _COLUMNS).values()
    found: dict[str, go.Figure] = {}
    if len(curves) and len(phases):
        found["hallucination-curves"] = hallucination_curves(curves, phases)
    if len(roc):
        found["hallucination-roc"] = roc_curves(roc)
    if len(detector) and len(phases):
        found["hallucination-detector"] = auc_curves(detector, phases)
    return found


def claims(tables: Tables) -> list[Claim]:
    """The paper's statements about hallucination, held against tables as made or read back from CSV."""
    return held_against(complete(tables, _COLUMNS))


STUDY = Study("hallucination", __doc__, HallucinationSettings, planned, tables, figures, claims)
