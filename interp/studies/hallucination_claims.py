"""What the paper says of hallucination, and the rules by which the study's tables agree or disagree."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from typing import Any

import pandas as pd

from interp.seeds import number_of, spread
from interp.studies.power import Number
from interp.studies.rules import Claim, Rule, Statement
from interp.studies.study import Tables

ABOVE = {"above": 0.05}
"""By what share the loss on held-out people has to lie above its level to count."""
EARLY, LATE = 0.75, 1.5
"""Between so many times the step at which the plateau ends, the loss has to rise."""
CONFIDENT, LESS, TELLS = 2.0, 0.1, 0.8
"""Thresholds of the rules that read one number: what each is, its rule says."""
_PEOPLE = {"evaluation": "known", "held_out": "unknown"}


@dataclass(frozen=True)
class _Seed:
    """What was measured in the run of one seed.

    Attributes:
        numbers: At the last step metrics ("entropy_known", "entropy_unknown"), and areas under the ROC
            curve by unit and score ("area_prediction_entropy"); "lowest", the lowest loss on held-out
            people; "baseline"; "top_on_plateau", the mean top probability on held-out people there.
        loss: On held-out people, by step.
        plateau_end: A step; None if the plateau did not end.
    """

    numbers: dict[str, float]
    loss: pd.Series
    plateau_end: int | None

    @classmethod
    def of(cls, phases: pd.Series, curves: pd.DataFrame, areas: pd.DataFrame) -> "_Seed":
        """From its rows of "phases", "curves" and "detector"."""
        start, end = (
            None if pd.isna(phases[n]) else int(phases[n])
            for n in ("statistics_end", "plateau_end")
        )
        by_step = curves.assign(name=curves["metric"] + "_" + curves["split"].map(_PEOPLE)).pivot(
            index="step", columns="name", values="value"
        )
        loss = by_step["attribute_loss_unknown"]
        on_plateau = by_step["top_probability_unknown"][
            (by_step.index >= (start or 0)) & (by_step.index < (end or 0))
        ]
        numbers = {
            "baseline": float(phases["baseline"]),
            "lowest": float(loss.min()),
            "top_on_plateau": nan if start is None else float(on_plateau.mean()),
            **by_step.iloc[-1],
        }
        for _, row in areas[areas["step"] == areas["step"].max()].iterrows():
            numbers[f"area_{row['unit']}_{row['score']}".replace(" ", "_")] = float(row["value"])
        return cls(numbers, loss, end)

    def rises_at(self, above: float) -> int | None:
        """The first measured step from which the loss stays above its level; None if it does not.

        The level is the baseline, or the lowest loss if that stays above.
        """
        level = max(self.numbers["baseline"], self.numbers["lowest"])
        low = self.loss.index[self.loss <= (1 + above) * level]
        later = self.loss.index[self.loss.index > low[-1]] if len(low) else self.loss.index
        return int(later[0]) if len(later) else None


def _rise(seed: _Seed, above: float) -> float:
    """Where the loss rises, in times the step at which the plateau ends; NaN where either never happens."""
    at = seed.rises_at(above)
    return nan if at is None or seed.plateau_end is None else at / seed.plateau_end


def _rises_after_plateau(seed: _Seed, above: float, early: float, late: float) -> bool | None:
    return None if seed.plateau_end is None else early <= _rise(seed, above) <= late


def _times_as_confident(seed: _Seed) -> float:
    return seed.numbers["top_probability_unknown"] / seed.numbers["top_on_plateau"]


def _is_confident(seed: _Seed, confident: float) -> bool | None:
    plateau, top = seed.numbers["top_on_plateau"], seed.numbers["top_probability_unknown"]
    return None if isnan(plateau) else bool(top >= confident * plateau)


def _less_confident(seed: _Seed) -> float:
    known, unknown = (seed.numbers[f"top_probability_{who}"] for who in _PEOPLE.values())
    return known - unknown


def _is_less_confident(seed: _Seed, less: float) -> bool | None:
    known, unknown = (seed.numbers[f"top_probability_{who}"] for who in _PEOPLE.values())
    return None if seed.plateau_end is None else bool(unknown <= known - less)


def _area(seed: _Seed) -> float:
    return seed.numbers["area_prediction_top_probability"]


def _tells(seed: _Seed, tells: float) -> bool | None:
    return None if seed.plateau_end is None else _area(seed) > tells


def _number(
    what: str, read: Callable[[_Seed], float], *against: float, **shown: Any
) -> Number[Sequence[_Seed]]:
    """A number of each seed whose plateau ended."""

    def values(seeds: Sequence[_Seed]) -> list[float]:
        return [float(read(seed)) for seed in seeds if seed.plateau_end is not None]

    return Number(what, values, against, **shown)


def _words(template: str) -> Callable[[Sequence[_Seed]], str]:
    """What was measured, in words that name numbers of the seeds."""

    def said(seeds: Sequence[_Seed]) -> str:
        return template.format_map(
            {
                name: spread(seed.numbers[name] for seed in seeds if not isnan(seed.numbers[name]))
                for name in seeds[0].numbers
            }
        )

    return said


def _measured_rise(seeds: Sequence[_Seed]) -> str:
    steps = [
        "{} (plateau ends at {})".format(
            *(
                "never" if step is None else f"{step:,}"
                for step in (seed.rises_at(**ABOVE), seed.plateau_end)
            )
        )
        for seed in seeds
    ]
    losses = _words(
        "lowest {lowest} nats, at the end {attribute_loss_unknown}, against {attribute_loss_known} on known "
        "people"
    )
    baseline = seeds[0].numbers["baseline"]
    return f"it stays above from step {', '.join(steps)}; {losses(seeds)} and a baseline of {baseline:.2f}"


def _rule(template: str, holds: Callable[..., bool | None], **numbers: Any) -> Rule[_Seed]:
    ending = (
        " Agree: in every seed; disagree: in none; else, or with fewer than {minimum} seeds whose plateau "
        "ended: cannot tell."
    )
    return Rule.each(template, holds, ending=ending, **numbers)


STATEMENTS = (
    Statement[_Seed](
        "The loss on people never seen rises above its level around the end of the plateau",
        "it rises above the baseline right after the plateau, 16,000 held-out people (Fig. 5 left, M)",
        # A loss leaves its level little by little, and two thresholds are crossed at different steps:
        # hence a while before the end, too.
        _rule(
            "The first measured step from which the attribute loss on held-out people stays more than "
            "{above:.0%} above its level is between {early:g} and {late:g} times the step at which the "
            "plateau ends. The level is the theoretical no-knowledge baseline, or the lowest loss where "
            "that is higher, as with few people, whose frequencies of values are not those of others.",
            _rises_after_plateau,
            early=EARLY,
            late=LATE,
            **ABOVE,
        ),
        _measured_rise,
        _number(
            "first step from which the loss stays above its level, in times the step of the plateau's end",
            lambda seed: _rise(seed, **ABOVE),
            EARLY,
            LATE,
            least=0.0,
        ),
    ),
    Statement[_Seed](
        "The model hallucinates: it is confident about people it has never seen",
        "so after the plateau (Fig. 5 left, M)",
        _rule(
            "At the last step the mean top probability on held-out people is at least {confident:g} "
            "times its mean on the plateau, where the model knows nothing but frequencies.",
            _is_confident,
            confident=CONFIDENT,
        ),
        _words(
            "top probability on held-out people {top_on_plateau} on the plateau, "
            "{top_probability_unknown} at the end, where {attribute_accuracy_unknown} of its answers about "
            "them are right"
        ),
        _number(
            "top probability on held-out people at the last step, in times its mean on the plateau",
            _times_as_confident,
            CONFIDENT,
            least=0.0,
        ),
    ),
    Statement[_Seed](
        "It is less confident about people it has never seen than about known ones",
        "so throughout training (Fig. 5 left, M); only its end is judged here",
        _rule(
            "At the last step the mean top probability on held-out people is at least {less:g} below "
            "that on known people in wordings never seen with them.",
            _is_less_confident,
            less=LESS,
        ),
        _words(
            "at the end top probability {top_probability_unknown} on held-out people, "
            "{top_probability_known} on known ones; entropy {entropy_unknown} and {entropy_known} nats"
        ),
        _number(
            "top probability on known people at the last step, less that on held-out ones",
            _less_confident,
            LESS,
            form="+.2f",
        ),
    ),
    Statement[_Seed](
        "Confidence tells known people from unknown ones",
        "not measured; that confidence stays below suggests it",
        _rule(
            "At the last step the area under the ROC curve of single predictions by their top "
            "probability is above {tells:g}.",
            _tells,
            tells=TELLS,
        ),
        _words(
            "area under the ROC curve at the last step, of single predictions: "
            "{area_prediction_top_probability} by top probability; {area_prediction_entropy} by entropy; of "
            "people, by the mean top probability of six predictions: {area_person_top_probability}"
        ),
        _number(
            "area under the ROC curve of single predictions by their top probability, at the last step",
            _area,
            TELLS,
            least=0.0,
            most=1.0,
        ),
    ),
)


def held_against(tables: Tables) -> list[Claim]:
    """The paper's statements about hallucination, held against all of the study's tables."""
    phases, curves, detector = (tables[name] for name in ("phases", "curves", "detector"))
    seeds = [
        _Seed.of(
            row, curves[curves["seed"] == row["seed"]], detector[detector["seed"] == row["seed"]]
        )
        for _, row in phases.sort_values("seed").iterrows()
    ]
    found = [statement.against(seeds) for statement in STATEMENTS]
    n_seeds = f"{number_of(len(seeds), 'seed')}: " if seeds else ""
    return [replace(claim, measured=n_seeds + claim.measured) for claim in found]
