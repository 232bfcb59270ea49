"""What the heads are for, by a stated rule."""

from numbers import Real

import numpy as np
import pandas as pd

from interp.errors import ArgumentError, require_frame

ROLES: dict[str, tuple[str, ...]] = {
    "name grouping": ("name_to_name",),
    "extraction": ("attribute_to_any_name",),
    "type propagation": ("attribute_to_type",),
    "positional": ("previous_token", "self_token", "text_to_first_token"),
}
"""The roles, and the attention scores that speak for each; where several do, the strongest counts."""
NO_ROLE = "none"
"""The role of a head that no score speaks for."""
THRESHOLD = 0.2
"""The excess over chance from which on a head has a role, by default."""


def head_roles(scores: pd.DataFrame, threshold: float = THRESHOLD) -> pd.DataFrame:
    """Names the role of every head, at every step, from its attention scores.

    The rule. A score's *excess* is how far it is above uniform attention, as a share of how far it
    could be: (value - chance) / (1 - chance). Candidates are the scores of `ROLES`. The head has the
    role of the candidate with the largest excess if that is at least the threshold, otherwise "none".
    Positional scores are measured at template text, where there is no name to be looked at.

    Its limits. A head gets one role, though it may do several things for different queries: compare
    the scores themselves. A role says where a head looks, not that the model uses what it finds there
    (see `knockout`), and not that nothing else would explain it: with names of one token a head that
    attends to the previous token has no `name_to_name`, with names of three it may have both. One
    number for all thresholds and models is a convention.

    Args:
        scores: What `attention_scores` or `attention_to_names` returned.
        threshold: The least excess that makes a role, above 0 and at most 1.

    Returns:
        Columns `step` (if the scores have it), `layer`, `head`, `role`, `metric` (the score that
        decided; for "none" the strongest candidate), its `value` and `chance`, and `excess`. Scores
        that are NaN are no candidates; if all are, `metric` is missing and the numbers are NaN.

    Raises:
        ArgumentError: a threshold out of range, or a table without the columns or candidates.

    Example:
        >>> table = pd.DataFrame(
        ...     [(0, 0, m, 0.9 if m == "self_token" else 0.1, 0.1) for ms in ROLES.values() for m in ms],
        ...     columns=["layer", "head", "metric", "value", "chance"],
        ... )
        >>> head_roles(table)["role"].tolist()
        ['positional']
    """
    require_frame(scores, "attention scores")
    if not isinstance(threshold, Real) or not 0 < threshold <= 1:
        raise ArgumentError(
            f"threshold={threshold} is not above 0 and at most 1; it is a share of what can be above "
            "chance."
        )
    missing = [c for c in ("layer", "head", "metric", "value", "chance") if c not in scores]
    if missing:
        raise ArgumentError(
            f"The scores have no column {missing[0]!r}; roles need the table of single heads that "
            f"attention_scores returns. Columns: {', '.join(map(str, scores.columns))}."
        )
    role_of = {metric: role for role, metrics in ROLES.items() for metric in metrics}
    absent = [metric for metric in role_of if metric not in set(scores["metric"])]
    if absent:
        raise ArgumentError(f"The scores lack the metrics that decide roles: {', '.join(absent)}.")
    keys = [key for key in ("step", "layer", "head") if key in scores]
    table = scores.loc[scores["metric"].isin(list(role_of)), [*keys, "metric", "value", "chance"]]
    room = 1 - table["chance"]
    table = table.assign(excess=(table["value"] - table["chance"]) / room.where(room > 0))
    # Ties go to the earlier role of `ROLES`, whatever the order of the rows.
    rank = table["metric"].map({metric: place for place, metric in enumerate(role_of)})
    table = table.assign(rank=rank).sort_values(
        ["excess", "rank"], ascending=[False, True], na_position="last", kind="stable"
    )
    best = table.drop_duplicates(keys).sort_values(keys, ignore_index=True)
    unknown = best["excess"].isna()
    best["metric"] = best["metric"].mask(unknown)
    best.loc[unknown, ["value", "chance"]] = np.nan
    has_role = (best["excess"] >= threshold) & ~unknown
    best["role"] = best["metric"].map(role_of).where(has_role, NO_ROLE)
    return best[[*keys, "role", "metric", "value", "chance", "excess"]]
