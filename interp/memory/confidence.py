"""Confidence as a detector: does it tell people that a model knows from those it has never seen?

A *case* is judged by how little confidence it shows, its *suspicion*. The ROC curve holds, for every
threshold, the share of the known that are taken for unknown (false alarms) against the share of the
unknown that are found. Source: Fawcett 2006, "An introduction to ROC analysis".
"""

import numpy as np
from jaxtyping import Float
from scipy.stats import mannwhitneyu

from interp.errors import NothingToMeasureError

SCORES = ("top probability", "entropy")
"""What the detector goes by, where the first token of a value is predicted: the lower the top
probability, or the higher the entropy, the likelier is the person unknown."""
UNITS = ("prediction", "person")
"""What is judged: a single prediction of a value's first token, or a person, by the mean of six."""


def suspicions(
    values: Float[np.ndarray, "score person attribute"], unit: str
) -> dict[str, Float[np.ndarray, "person case"]]:
    """How much each prediction, or each person, looks like one about somebody unknown, by score.

    Args:
        values: Top probability and entropy (nats) of every prediction.
        unit: One of `UNITS`; a person is one case, by the mean over her predictions.

    A case is NaN where there is no value to predict.
    """
    cases = values.astype(np.float64)
    if unit == "person":
        mean = np.nanmean if np.isnan(cases).any() else np.mean
        cases = mean(cases, axis=2, keepdims=True)
    return dict(zip(SCORES, (1 - cases[0], cases[1]), strict=True))


def area_under(
    unknown: Float[np.ndarray, " unknown_case"], known: Float[np.ndarray, " known_case"]
) -> float:
    """Area under the ROC curve: how often an unknown case looks more suspicious than a known one."""
    _require_cases(unknown, known)
    return float(mannwhitneyu(unknown, known).statistic) / (len(unknown) * len(known))


def thinned_roc(
    unknown: Float[np.ndarray, " unknown_case"],
    known: Float[np.ndarray, " known_case"],
    n_points: int = 60,
) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]:
    """An ROC curve of at most `n_points` points: false alarms, and the share that is found.

    Points are evenly spaced along the curve, as its sides are steep.
    """
    _require_cases(unknown, known)
    thresholds = np.unique(np.concatenate([unknown, known, [np.inf]]))[::-1]
    false_alarms, found = (
        1 - np.searchsorted(np.sort(cases), thresholds) / len(cases) for cases in (known, unknown)
    )
    along = (false_alarms + found) / 2
    kept = np.unique([np.abs(along - place).argmin() for place in np.linspace(0, 1, n_points)])
    return false_alarms[kept], found[kept]


def _require_cases(
    unknown: Float[np.ndarray, " unknown_case"], known: Float[np.ndarray, " known_case"]
) -> None:
    if not len(unknown) or not len(known):
        raise NothingToMeasureError(
            f"There are {len(unknown)} unknown cases and {len(known)} known ones; a detector is judged by at "
            "least one of each."
        )
