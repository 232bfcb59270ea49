"""What the heads are for, by a stated rule."""

from collections.abc import Iterable, Mapping
from numbers import Real

import numpy as np
import pandas as pd

from interp.attention.names import REST_METRICS
from interp.errors import ArgumentError, require_frame

ROLES: dict[str, tuple[str, ...]] = {
    "name grouping": ("name_to_name",),
    "extraction": ("attribute_to_any_name",),
    "type propagation": ("attribute_to_type",),
    "positional": ("previous_token", "self_token", "text_to_first_token"),
}
"""The roles, and the attention scores that speak for each; where several do, the strongest counts."""
SINK = "sink"
"""The role of a head that attends to the first token and, of the rest, to nothing that has a role."""
AT_ATTRIBUTE: dict[str, tuple[str, ...]] = {
    "extraction": ("attribute_to_any_name",),
    "type propagation": ("attribute_to_type",),
    SINK: ("attribute_to_first_token",),
}
"""The roles of a head where one attribute is asked for, and the attention scores that speak for each."""
_FIRST = ("name_to_first_token", "attribute_to_first_token", "text_to_first_token")
_OF_REST = {
    role: tuple(f"{metric}_of_rest" for metric in metrics if metric not in _FIRST)
    for role, metrics in ROLES.items()
}
NO_ROLE = "none"
"""The role of a head that no score speaks for."""
THRESHOLD = 0.2
"""The excess over chance from which on a head has a role, by default."""
LEAST_REST = 0.05
"""The least attention to other tokens than the first, by which a head can be named with the sink aside."""


def head_roles(
    scores: pd.DataFrame, threshold: float = THRESHOLD, *, sink: bool | None = None
) -> pd.DataFrame:
    """Names the role of every head, at every step, from its attention scores.

    The rule without a sink. A score's *excess* is how far it is above uniform attention, as a share
    of how far it could be: (value - chance) / (1 - chance). Candidates are the scores of `ROLES`. The
    head has the role of the candidate with the largest excess if that is at least the threshold, otherwise
    "none". Positional scores are measured at template text, where there is no name to be looked at.

    The rule with a sink, for language models, most of whose heads look at the first token. Attention to
    the first token is set aside: candidates are the scores of the rest (`REST_METRICS`), each a share of
    the attention that does not go there, at kinds of query (the last name token, the position that
    predicts a value, template text) at which at least `LEAST_REST` of the head's attention does not. The
    head has the role of the largest excess if that is at least the threshold. Otherwise it is a "sink" if
    attention to the first token has an excess of at least the threshold at most of the kinds of query that
    were measured, and else "none".

    The rule by attribute, for scores with a column `attribute` (`scores_by_attribute`): a head has a role at
    each attribute. Candidates are the scores of `AT_ATTRIBUTE`, all read where that attribute is asked for.
    A mean over attributes hides a head that recalls one of them, and what a head does at template text
    says nothing of what it does here. `sink` changes nothing in this rule.

    Its limits, as compiled models show them (docs/trust.md): by the first rule no head that recalls a single
    attribute is "extraction"; by attribute all are, and with them heads that copy the token so many places
    back, which may be a name, and a head that looks at names and whose output nothing reads. A head gets one
    role, though it may do several things for different queries: compare the scores themselves. A role says
    where a head looks, not that the model uses what it finds there (see `knockout`), and not that nothing
    else would explain it: with names of one token a head that attends to the previous token has no
    `name_to_name`, with names of three it may have both. One number for all thresholds and models is a
    convention. With the sink aside, a role says nothing of how much attention the head has left: one that
    gives a tenth to all but the first token is named by that tenth (compare `text_to_first_token` and its
    kin). And what stands at the first token is lost: the first token of a name there counts as the sink.

    Args:
        scores: What `attention_scores`, `attention_to_names` or `scores_by_attribute` returned.
        threshold: The least excess that makes a role, above 0 and at most 1.
        sink: Whether attention to the first token is set aside. By default where the scores have the
            `REST_METRICS` that this needs.

    Returns:
        Columns `step` and `attribute` (if the scores have them), `layer`, `head`, `role`, `metric` (the
        score that decided; for "sink" the strongest of those to the first token, for "none" the strongest
        candidate), its `value` and `chance`, and `excess`. Scores that are NaN are no candidates; if all are,
        `metric` is missing and the numbers are NaN.

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
    there = set(scores["metric"])
    roles = _OF_REST if sink or (sink is None and there.intersection(REST_METRICS)) else ROLES
    roles = AT_ATTRIBUTE if "attribute" in scores else roles
    role_of = {metric: role for role, metrics in roles.items() for metric in metrics}
    absent = [metric for metric in role_of if metric not in there]
    if absent:
        remedy = " attention_scores(..., sink=True) gives them." if roles is _OF_REST else ""
        raise ArgumentError(
            f"The scores lack the metrics that decide roles: {', '.join(absent)}.{remedy}"
        )
    keys = [key for key in ("step", "attribute", "layer", "head") if key in scores]
    aside = roles is _OF_REST
    best = _strongest(_with_rest(scores, keys) if aside else scores, keys, role_of)
    has_role = best["excess"] >= threshold
    best["role"] = best["metric"].map(role_of).where(has_role, NO_ROLE)
    if aside:
        first = _excesses(scores, keys, _FIRST).dropna(subset="excess")
        passed = first.assign(passed=first["excess"] >= threshold).groupby(keys)["passed"].mean()
        at_most = passed.reindex(pd.MultiIndex.from_frame(best[keys]), fill_value=0.0) > 0.5
        is_sink = at_most.to_numpy() & ~has_role.to_numpy()
        first = _strongest(scores, keys, dict.fromkeys(_FIRST, SINK)).assign(role=SINK)
        for column in ("role", "metric", "value", "chance", "excess"):
            best[column] = best[column].mask(is_sink, first[column])
    return best[[*keys, "role", "metric", "value", "chance", "excess"]]


def _with_rest(scores: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """The scores of the rest where enough attention is left, the others as NaN."""
    rests = scores[scores["metric"].isin(REST_METRICS)]
    kind = rests["metric"].str.extract("^(name|attribute)_")[0].fillna("text")
    first = scores.set_index([*keys, "metric"])["value"]
    here = pd.MultiIndex.from_frame(rests[keys].assign(metric=kind + "_to_first_token"))
    enough = 1 - first.reindex(here).to_numpy() >= LEAST_REST
    return rests.assign(value=rests["value"].where(enough))


def _excesses(scores: pd.DataFrame, keys: list[str], metrics: Iterable[str]) -> pd.DataFrame:
    """The rows of some metrics, with how far each is above chance."""
    table = scores.loc[scores["metric"].isin(list(metrics)), [*keys, "metric", "value", "chance"]]
    room = 1 - table["chance"]
    return table.assign(excess=(table["value"] - table["chance"]) / room.where(room > 0))


def _strongest(scores: pd.DataFrame, keys: list[str], role_of: Mapping[str, str]) -> pd.DataFrame:
    """The row of the largest excess of each head, at each step, in order."""
    table = _excesses(scores, keys, role_of)
    # Ties go to the earlier role, whatever the order of the rows.
    rank = table["metric"].map({metric: place for place, metric in enumerate(role_of)})
    table = table.assign(rank=rank).sort_values(
        ["excess", "rank"], ascending=[False, True], na_position="last", kind="stable"
    )
    best = table.drop_duplicates(keys).sort_values(keys, ignore_index=True)
    unknown = best["excess"].isna()
    best["metric"] = best["metric"].mask(unknown)
    best.loc[unknown, ["value", "chance"]] = np.nan
    return best
