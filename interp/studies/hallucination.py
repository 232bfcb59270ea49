"""Hallucination.

What does a model say of people it has never seen, and does its confidence give them away? (paper, Fig. 5
left, M)

Command: interp batch hallucination --out artifacts/studies --workers 2
Duration: 3 runs of 1,500 steps, about 80 seconds each on one core

Held-out people are drawn from the same lists as those of training and told about in the same way. A
model that knew nothing of them would answer with the frequencies of values, at the no-knowledge
baseline. A loss above it is *hallucination*: confident and wrong. Whether confidence still tells known
people from unknown ones is asked of a detector that sees it and nothing else.

The baseline of held-out people is the theoretical one (every value of the lists is equally likely). With
few people in training their frequencies differ from the lists', and a model that has learned nothing
else is already above it on others: then the loss has to rise above the lowest that it reached.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from scipy.stats import mannwhitneyu
from transformer_lens.model_bridge import TransformerBridge

from interp.errors import ConfigError
from interp.knowledge import METRICS, split_batch, value_table
from interp.plots.hallucination import auc_curves, hallucination_curves, roc_curves
from interp.run import Run
from interp.seeds import spread
from interp.series import nearest_step, over_steps
from interp.studies.rules import Claim, verdict
from interp.studies.study import Planned, Study, StudySettings, Tables

ABOVE = 0.05
"""By what share the loss on held-out people has to lie above its level to count."""
EARLY, LATE = 0.75, 1.5
"""What "right after the plateau" means, in multiples of the step at which it ends. A loss leaves its
level little by little, and two thresholds are crossed at different steps: hence a while before, too."""
CONFIDENT = 2.0
"""Top probability on held-out people, in multiples of that on the plateau, that is confidence: on the
plateau a model knows nothing but frequencies."""
LESS = 0.1
"""By how much it has to lie below that on known people."""
TELLS = 0.8
"""Area under the ROC curve from which confidence tells known people from unknown ones."""
CURVE_POINTS = 60
"""Points of an ROC curve in the tables, at most."""
SPACING = 1.09
"""Ratio of steps, at least, between checkpoints at which the detector is tried."""
SCORES = ("top probability", "entropy")
"""What the detector goes by, where the first token of a value is predicted: the lower the top
probability, or the higher the entropy, the likelier is the person unknown."""
UNITS = ("prediction", "person")
"""What is judged: a single prediction of a value's first token, or a person, by the mean of six."""


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

    Args:
        settings: Of the study.
        runs: The finished runs.

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
    parts: dict[str, list[pd.DataFrame]] = {"curves": [], "phases": [], "detector": [], "roc": []}
    for run in sorted(runs, key=lambda run: run.config.seed):
        seed, phases = run.config.seed, run.phases
        every = run.metrics
        curves = every[
            (every["attribute"] == "all")
            & every["metric"].isin(METRICS)
            & every["split"].isin(["evaluation", "held_out"])
        ]
        parts["curves"].append(curves[["step", "split", "metric", "value"]].assign(seed=seed))
        parts["phases"].append(
            pd.DataFrame(
                {
                    "seed": [seed],
                    "baseline": run.baseline,
                    "phase_baseline": run.phase_baseline,
                    "statistics_end": pd.array([phases.statistics_end], dtype="Int64"),
                    "plateau_end": pd.array([phases.plateau_end], dtype="Int64"),
                }
            )
        )
        areas, points = detection(run)
        parts["detector"].append(areas.assign(seed=seed))
        parts["roc"].append(points.assign(seed=seed))
    found = {
        name: pd.concat(of_runs, ignore_index=True) for name, of_runs in parts.items() if of_runs
    }
    for name, table in found.items():
        found[name] = table[["seed", *(c for c in table if c != "seed")]].round(5)
    return found


def detection(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How well confidence tells the known people of a run from those never seen, at each checkpoint.

    Both are told about in wordings that training did not show with them.

    Args:
        run: A finished run with held-out people.

    Returns:
        The tables "detector" and "roc" of `tables`, of this run.
    """
    most = run.config.evaluation.n_individuals
    batches = [split_batch(run.corpus, split, most) for split in ("evaluation", "held_out")]
    n_known = len(batches[0])
    chosen = [METRICS.index("top_probability"), METRICS.index("entropy")]

    def confidence(model: TransformerBridge) -> Float[np.ndarray, "score person attribute"]:
        return np.concatenate([value_table(model, batch) for batch in batches], axis=1)[chosen]

    moments = _moments(run)
    areas, points = [], []
    steps = spaced(run.steps, moments.values())
    for step, values in over_steps(run, confidence, steps):
        for unit in UNITS:
            for score, suspicion in suspicions(values, unit).items():
                cases = suspicion[n_known:].ravel(), suspicion[:n_known].ravel()
                own = {"step": step, "unit": unit, "score": score}
                areas.append(own | {"value": area_under(*cases)})
                for moment in (name for name, at in moments.items() if at == step):
                    false_alarms, found = thinned_roc(*cases)
                    curve = {"moment": moment, **own, "false_alarms": false_alarms, "found": found}
                    points.append(pd.DataFrame(curve))
    return pd.DataFrame(areas), pd.concat(points, ignore_index=True)


def suspicions(
    values: Float[np.ndarray, "score person attribute"], unit: str
) -> dict[str, Float[np.ndarray, "person case"]]:
    """How much each prediction, or each person, looks like one about somebody unknown, by score.

    Args:
        values: Top probability and entropy of every prediction.
        unit: One of `UNITS`; a person is one case, by the mean over her predictions.
    """
    cases = values.astype(np.float64)
    if unit == "person":
        cases = cases.mean(axis=2, keepdims=True)
    return dict(zip(SCORES, (1 - cases[0], cases[1]), strict=True))


def area_under(
    unknown: Float[np.ndarray, " unknown_case"], known: Float[np.ndarray, " known_case"]
) -> float:
    """Area under the ROC curve: how often an unknown case looks more suspicious than a known one."""
    return float(mannwhitneyu(unknown, known).statistic) / (len(unknown) * len(known))


def thinned_roc(
    unknown: Float[np.ndarray, " unknown_case"], known: Float[np.ndarray, " known_case"]
) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]:
    """An ROC curve of at most `CURVE_POINTS` points: false alarms, and the share that is found.

    Points are evenly spaced along the curve, as its sides are steep.
    """
    thresholds = np.unique(np.concatenate([unknown, known, [np.inf]]))[::-1]
    false_alarms, found = (
        1 - np.searchsorted(np.sort(cases), thresholds) / len(cases) for cases in (known, unknown)
    )
    along = (false_alarms + found) / 2
    kept = np.unique([np.abs(along - place).argmin() for place in np.linspace(0, 1, CURVE_POINTS)])
    return false_alarms[kept], found[kept]


def spaced(steps: Sequence[int], always: Iterable[int]) -> list[int]:
    """Steps each a good deal later than the one before, and some that are always among them."""
    kept = [steps[0]]
    for step in steps:
        if step >= SPACING * kept[-1] and step > kept[-1]:
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
    """The study's figures, by anchor."""
    found: dict[str, go.Figure] = {}
    phases = tables.get("phases")
    if "curves" in tables and phases is not None:
        found["hallucination-curves"] = hallucination_curves(tables["curves"], phases)
    if "roc" in tables:
        found["hallucination-roc"] = roc_curves(tables["roc"])
    if "detector" in tables and phases is not None:
        found["hallucination-detector"] = auc_curves(tables["detector"], phases)
    return found


class _Seed:
    """What was measured in the run of one seed."""

    def __init__(self, tables: Tables, seed: int) -> None:
        phases, curves, detector = (tables[name] for name in ("phases", "curves", "detector"))
        own = phases[phases["seed"] == seed].iloc[0]
        self.baseline = float(own["baseline"])
        ends = (own["statistics_end"], own["plateau_end"])
        self.statistics_end, self.plateau_end = (None if pd.isna(s) else int(s) for s in ends)
        self.curves = curves[curves["seed"] == seed]
        self.areas = detector[detector["seed"] == seed]

    def curve(self, metric: str, split: str) -> pd.Series:
        """A metric of known or held-out people, by step."""
        found = self.curves.query("metric == @metric and split == @split")
        return found.set_index("step")["value"].sort_index()

    @property
    def level(self) -> float:
        """What the loss on held-out people rises from: the baseline, or its lowest if it stays above."""
        return max(self.baseline, float(self.curve("attribute_loss", "held_out").min()))

    @property
    def rises_at(self) -> int | None:
        """The first measured step from which the loss on held-out people stays above its level."""
        loss = self.curve("attribute_loss", "held_out")
        low = loss.index[loss <= (1 + ABOVE) * self.level]
        later = loss.index[loss.index > low[-1]] if len(low) else loss.index
        return int(later[0]) if len(later) else None

    def rises_after_plateau(self) -> bool | None:
        """Whether that is right after the plateau; None if it never ended."""
        if self.plateau_end is None:
            return None
        at = self.rises_at
        return at is not None and EARLY <= at / self.plateau_end <= LATE

    @property
    def on_plateau(self) -> float | None:
        """Top probability on held-out people on the plateau; None if nothing was measured on it."""
        if self.statistics_end is None or self.plateau_end is None:
            return None
        curve = self.curve("top_probability", "held_out")
        mean = curve[(curve.index >= self.statistics_end) & (curve.index < self.plateau_end)].mean()
        return None if pd.isna(mean) else float(mean)

    def last(self, metric: str, split: str) -> float:
        """A metric at the last step."""
        return float(self.curve(metric, split).iloc[-1])

    def is_confident(self) -> bool | None:
        """Whether the model is surer of held-out people than frequencies justify."""
        if self.on_plateau is None:
            return None
        return self.last("top_probability", "held_out") >= CONFIDENT * self.on_plateau

    def less_confident(self) -> bool | None:
        """Whether it is less sure of them than of known people; None without a plateau's end."""
        if self.plateau_end is None:
            return None
        known, held_out = (self.last("top_probability", s) for s in ("evaluation", "held_out"))
        return held_out <= known - LESS

    def area(self, unit: str = "prediction", score: str = SCORES[0]) -> pd.Series:
        """The area under the ROC curve, by step."""
        found = self.areas.query("unit == @unit and score == @score")
        return found.set_index("step")["value"].sort_index()

    def tells(self) -> bool | None:
        """Whether confidence tells known people from unknown ones at the last step."""
        return None if self.plateau_end is None else bool(self.area().iloc[-1] > TELLS)


def claims(tables: Tables) -> list[Claim]:
    """The paper's statements about hallucination, held against the tables by stated rules.

    Args:
        tables: Those of `tables`, as made or read back from CSV.
    """
    complete = all(name in tables for name in ("phases", "curves", "detector"))
    seeds = sorted(int(s) for s in tables["phases"]["seed"]) if complete else []
    runs = [_Seed(tables, seed) for seed in seeds]

    def claim(
        statement: str, paper: str, rule: str, holds: Callable[[_Seed], bool | None],
        measured: Callable[[], str],
    ) -> Claim:  # fmt: skip
        common = (
            " Agree: in every seed; disagree: in none; else, or with fewer than 2 seeds whose plateau "
            "ended: cannot tell."
        )
        said = f"{len(runs)} seeds: {measured()}" if runs else "nothing was measured"
        return Claim(statement, paper, said, verdict(map(holds, runs)), rule + common)

    def last(metric: str, split: str) -> str:
        return spread(run.last(metric, split) for run in runs)

    def rises() -> str:
        steps = [
            f"{_step(run.rises_at)} (plateau ends at {_step(run.plateau_end)})" for run in runs
        ]
        lowest = spread(run.curve("attribute_loss", "held_out").min() for run in runs)
        return (
            f"it stays above from step {', '.join(steps)}; lowest {lowest} nats, at the end "
            f"{last('attribute_loss', 'held_out')}, against {last('attribute_loss', 'evaluation')} on "
            f"known people and a baseline of {runs[0].baseline:.2f}"
        )

    def confident() -> str:
        plateau = spread(run.on_plateau for run in runs if run.on_plateau is not None)
        return (
            f"top probability on held-out people {plateau} on the plateau, "
            f"{last('top_probability', 'held_out')} at the end, where "
            f"{last('attribute_accuracy', 'held_out')} of its answers about them are right"
        )

    def less() -> str:
        return (
            f"at the end top probability {last('top_probability', 'held_out')} on held-out people, "
            f"{last('top_probability', 'evaluation')} on known ones; entropy "
            f"{last('entropy', 'held_out')} and {last('entropy', 'evaluation')} nats"
        )

    def told() -> str:
        of_score = [
            f"{spread(run.area('prediction', score).iloc[-1] for run in runs)} by {score}"
            for score in SCORES
        ]
        person = spread(run.area("person").iloc[-1] for run in runs)
        return (
            f"area under the ROC curve at the last step, of single predictions: "
            f"{'; '.join(of_score)}; of people, by the mean top probability of six predictions: {person}"
        )

    return [
        claim(
            "The loss on people never seen rises above its level around the end of the plateau",
            "it rises above the baseline right after the plateau, 16,000 held-out people (Fig. 5 left, M)",
            f"The first measured step from which the attribute loss on held-out people stays more than "
            f"{ABOVE:.0%} above its level is between {EARLY:g} and {LATE:g} times the step at which the "
            "plateau ends. The level is the theoretical no-knowledge baseline, or the lowest loss where "
            "that is higher, as with few people, whose frequencies of values are not those of others.",
            _Seed.rises_after_plateau,
            rises,
        ),
        claim(
            "The model hallucinates: it is confident about people it has never seen",
            "so after the plateau (Fig. 5 left, M)",
            f"At the last step the mean top probability on held-out people is at least {CONFIDENT:g} "
            "times its mean on the plateau, where the model knows nothing but frequencies.",
            _Seed.is_confident,
            confident,
        ),
        claim(
            "It is less confident about people it has never seen than about known ones",
            "so throughout training (Fig. 5 left, M); only its end is judged here",
            f"At the last step the mean top probability on held-out people is at least {LESS:g} below "
            "that on known people in wordings never seen with them.",
            _Seed.less_confident,
            less,
        ),
        claim(
            "Confidence tells known people from unknown ones",
            "not measured; that confidence stays below suggests it",
            f"At the last step the area under the ROC curve of single predictions by their top "
            f"probability is above {TELLS:g}.",
            _Seed.tells,
            told,
        ),
    ]


def _step(step: int | None) -> str:
    return "never" if step is None else f"{step:,}"


STUDY = Study(
    name="hallucination",
    doc=__doc__,
    settings=HallucinationSettings,
    runs=planned,
    tables=tables,
    figures=figures,
    claims=claims,
)
