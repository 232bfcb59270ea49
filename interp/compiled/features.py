"""The distributed memory: random ReLU features of names, and what they have to write."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import linalg

from interp.compiled.plan import Plan

_FIRING = 0.1
"""For which share of people a random feature fires."""
_RIDGE = 1e-8
"""Of least squares, as a share of the mean squared activation of the features."""


def names_seen(plan: Plan) -> Float[np.ndarray, "individual input"]:
    """What the last name token of every known person knows of the name: a code for each token, last first."""
    facts, space = plan.facts, plan.spaces["name"]
    seen = np.zeros((facts.known, max(facts.name_lengths) * space.width))
    for person, name in enumerate(facts.names[: facts.known]):
        for back, token in enumerate(reversed(name)):
            seen[person, back * space.width : (back + 1) * space.width] = space.code(token)
    return seen


@dataclass(frozen=True)
class Features:
    """Random ReLU features.

    Attributes:
        weights: What each reads.
        bias: Below 0, so that nothing fires where there is no name.
    """

    weights: Float[np.ndarray, "neuron input"]
    bias: Float[np.ndarray, " neuron"]

    @classmethod
    def drawn(
        cls, seen: Float[np.ndarray, "individual input"], n: int, generator: np.random.Generator
    ) -> "Features":
        """So many features, each of which fires for a tenth of the people."""
        weights = generator.standard_normal((n, seen.shape[1]))
        bias = -np.maximum(np.quantile(seen @ weights.T, 1 - _FIRING, axis=0), 0.1)
        return cls(weights, bias)

    def active(
        self, seen: Float[np.ndarray, "individual input"]
    ) -> Float[np.ndarray, "individual neuron"]:
        """How much each fires for everybody."""
        active: Float[np.ndarray, "individual neuron"] = np.maximum(
            seen @ self.weights.T + self.bias, 0
        )
        return active


def least_squares(
    active: Float[np.ndarray, "individual neuron"], wanted: Float[np.ndarray, "individual d_model"]
) -> Float[np.ndarray, "neuron d_model"]:
    """What neurons have to write so that everybody's sum comes nearest to what is wanted."""
    n_people, n_neurons = active.shape
    ridge = _RIDGE * float((active**2).mean()) * n_people
    if n_neurons <= n_people:
        gram = active.T @ active + ridge * np.eye(n_neurons)
        found: Float[np.ndarray, "neuron d_model"] = linalg.solve(
            gram, active.T @ wanted, assume_a="pos"
        )
        return found
    gram = active @ active.T + ridge * np.eye(n_people)
    return np.asarray(active.T @ linalg.solve(gram, wanted, assume_a="pos"))
