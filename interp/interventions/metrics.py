"""What is read off the logits of a patched model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from interp.errors import ArgumentError, listed, require_known
from interp.model import at_least_single

Metric = Callable[[Float[Tensor, "cell vocab"], "Answers"], Float[Tensor, " cell"]]
"""From the logits at the position that is read, and the answers, to a number for each row."""
Metrics = str | Sequence[str] | Mapping[str, Metric]
"""Metrics by name, or your own by label."""


@dataclass(frozen=True)
class Answers:
    """The right tokens: in the run that is patched, and in the one that activations come from."""

    base: Int64[Tensor, " cell"]
    source: Int64[Tensor, " cell"]

    def __getitem__(self, cells: Int64[Tensor, " some"]) -> "Answers":
        return Answers(self.base[cells], self.source[cells])


def _at(logits: Tensor, token: Tensor) -> Tensor:
    return logits.gather(1, token[:, None])[:, 0]


LOGIT_DIFFERENCE = "logit_difference_source_minus_base"
"""The logit of the source's answer minus that of the base's, in logits."""
METRICS: dict[str, Metric] = {
    "log_probability": lambda logits, a: _at(logits.log_softmax(1), a.base),
    "source_log_probability": lambda logits, a: _at(logits.log_softmax(1), a.source),
    LOGIT_DIFFERENCE: lambda logits, a: _at(logits, a.source) - _at(logits, a.base),
    "follows": lambda logits, a: (logits.argmax(1) == a.source).to(logits.dtype),
    "stays": lambda logits, a: (logits.argmax(1) == a.base).to(logits.dtype),
}
"""The log-probability (nats) of the base's own value, and of the source's; the logit of the source's
value minus that of the base's (logits); whether the prediction has become the source's value, or is still the
base's (0 or 1). Of a value, always its first token."""


def resolve_metrics(metrics: Metrics) -> dict[str, Metric]:
    """The functions of some metrics, by name."""
    if isinstance(metrics, Mapping) and metrics:
        wrong = [name for name, metric in metrics.items() if not callable(metric)]
        if wrong:
            raise ArgumentError(
                f"The metric {wrong[0]!r} is {metrics[wrong[0]]!r}; give a function of logits and answers."
            )
        return dict(metrics)
    names = listed(metrics, "metrics")
    require_known(names, METRICS, "metric", "; or give functions by label")
    return {name: METRICS[name] for name in names}


def measured(
    measures: Mapping[str, Metric], logits: Float[Tensor, "row vocab"], answers: Answers
) -> Float[np.ndarray, "metric row"]:
    """Each metric of each row, in double precision."""
    columns = []
    logits = at_least_single(logits)
    for name, measure in measures.items():
        values = measure(logits, answers)
        if values.shape != (len(logits),):
            raise ArgumentError(
                f"The metric {name!r} returned the shape {tuple(values.shape)} for {len(logits)} rows "
                "of logits; it must return one number for each."
            )
        columns.append(values.double().cpu().numpy())
    return np.stack(columns)
