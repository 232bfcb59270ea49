"""How many facts a memory of so many neurons holds: computed, as theory has it, and trained."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy.special import ndtr
from torch.nn.functional import cross_entropy

from interp.biographies import Corpus, Population, tokenizer_of
from interp.compiled.facts import Knowledge
from interp.compiled.features import Features, least_squares, names_seen
from interp.compiled.memory import person_facts
from interp.compiled.plan import Plan
from interp.compiled.spaces import Space
from interp.config import CompiledConfig, Config
from interp.errors import ArgumentError
from interp.torch_state import default_state

Memory = Literal["least squares", "theory", "gradient descent"]
CAPACITY_COLUMNS = (
    "n_individuals",
    "n_neurons",
    "n_weights",
    "memory",
    "accuracy",
    "bits_per_weight",
)
_RATE = 3e-2
"""Learning rate of Adam on all weights of the memory, all people at once; it falls to 0 by a cosine. Of
0.003, 0.01 and 0.03 this one held most of 512 people of seed 9 at 8, 16 and 32 neurons, after 500 steps."""
_NODES = 48
"""Of Gauss-Hermite quadrature."""


@default_state()
def recall_capacity(
    config: Config, n_neurons: Sequence[int], *, n_steps: int = 0, d_code: int | None = None
) -> pd.DataFrame:
    """How many of a population's facts a memory of random features holds, by its number of neurons.

    The memory is MLP 0 of the distributed variant of `compile_recall`, by itself: from the tokens of a name
    to the tokens of the person's values, each a direction. A fact is held if, for each token of its value,
    the right direction is the one that the sum of all neurons agrees with most. (A whole compiled model also
    has to spell later tokens of a value, by neurons with a threshold, and forgets these before.)

    Args:
        config: Whose people.
        n_neurons: Numbers of neurons.
        n_steps: Steps of gradient descent, from the same random features on, on all weights; 0 for none.
        d_code: Dimensions for directions, as in `compile_recall`.

    Returns:
        By number of neurons and `memory`, the `accuracy` (the share of facts held), the number of weights
        (`n_weights`: in and out, with biases), and the bits held per weight, `bits_per_weight` (accuracy x
        facts x log2 of the number of values). "least squares" is the memory as it is compiled; "theory" the
        expectation of the same, with no free number, if what other people leave behind is Gaussian: with
        p = neurons / people, the right direction has p of its size left, and any other one a share of p of
        the rest in variance (arXiv:2412.06538 has the order, facts in proportion to weights); "gradient
        descent" is trained.

    Raises:
        ArgumentError: a number of neurons is below 1, steps are below 0, or names cannot be told apart.

    Example:
        >>> import interp
        >>> held = interp.recall_capacity(interp.preset("smoke"), [2, 96])
        >>> held.query("memory == 'least squares'")["accuracy"].tolist()[-1]
        1.0
    """
    if not n_neurons or min(n_neurons) < 1 or n_steps < 0:
        raise ArgumentError(
            f"n_neurons={list(n_neurons)}, n_steps={n_steps}: give at least one number of neurons, each of "
            "at least 1, and no negative number of steps."
        )
    population = Population.of(config)
    corpus = Corpus.of(config, population, tokenizer_of(config, population.lexicon))
    facts = Knowledge.of(corpus)
    settings = CompiledConfig(variant="distributed", d_code=d_code)
    found: list[tuple[int, int, Memory, float, float]] = []
    n_bits = _bits(facts)
    for n in n_neurons:
        plan = Plan.of(facts, settings, config.model.n_ctx, config.seed_of("model"))
        seen, wanted = names_seen(plan), person_facts(plan, plan.d_stream)
        features = Features.drawn(seen, n, plan.generator)
        active = features.active(seen)
        written = active @ least_squares(active, wanted)
        held: dict[Memory, float] = {
            "least squares": _held(plan, written),
            "theory": _expected(plan, n),
        }
        if n_steps:
            held["gradient descent"] = _held(plan, _trained(plan, features, seen, n_steps))
        width = sum(space.width for a in plan.attributes for space in plan.fact_spaces(a))
        n_weights = n * (seen.shape[1] + 1 + width)
        found.extend((n, n_weights, name, share, share * n_bits / n_weights)
                     for name, share in held.items())  # fmt: skip
    table = pd.DataFrame(found, columns=list(CAPACITY_COLUMNS[1:]))
    return table.assign(n_individuals=facts.known)[list(CAPACITY_COLUMNS)]


def _bits(facts: Knowledge) -> float:
    """What all facts together say, if all values are as likely."""
    there = facts.facts().sum(axis=0)
    sizes = [len({value for value in pool if value}) for pool in facts.pools]
    return float(there @ np.log2(sizes))


def _steps(plan: Plan, attribute: int) -> list[tuple[Space, Int[np.ndarray, " individual"]]]:
    """The spaces of an attribute, and which of their directions is each person's; -1 for none."""
    own = [values[attribute] for values in plan.facts.values[: plan.facts.known]]
    return [
        (space, np.array([space.place[v[step]] if len(v) > step else -1 for v in own]))
        for step, space in enumerate(plan.fact_spaces(attribute))
    ]


def _held(plan: Plan, written: Float[np.ndarray, "individual d_model"]) -> float:
    """The share of facts of which every token is told."""
    right = np.ones((plan.facts.known, len(plan.attributes)), dtype=bool)
    for attribute in plan.attributes:
        for space, wanted in _steps(plan, attribute):
            said = (written[:, space.dims] @ space.codes.T).argmax(axis=1)
            right[:, attribute] &= (said == wanted) | (wanted < 0)
    return float(right[plan.facts.facts()].mean())


def _expected(plan: Plan, n_neurons: int) -> float:
    """The share of facts held, if what others leave behind is Gaussian and tokens are independent."""
    kept = min(1.0, n_neurons / plan.facts.known)
    shares, weights = [], []
    for attribute in plan.attributes:
        share, there = 1.0, 1.0
        for step, (space, wanted) in enumerate(_steps(plan, attribute)):
            counts = np.bincount(wanted[wanted >= 0], minlength=len(space.labels))
            present = counts.sum() / plan.facts.known
            there = there if step else present
            told = _told(counts, plan.facts.known, kept, 1 / space.width if space.overlap else 0.0)
            share *= 1 - present / there * (1 - told) if there else 1.0
        shares.append(share)
        weights.append(there)
    return float(np.average(shares, weights=weights))


def _told(counts: Int[np.ndarray, " label"], n_people: int, kept: float, code: float) -> float:
    """How often the right direction of a space is the largest.

    Args:
        counts: How many people have each label.
        n_people: How many people there are.
        kept: Neurons / people, at most 1: what is left of a person's own direction.
        code: Mean squared inner product of two directions.
    """
    if kept >= 1 or len(counts) < 2:
        return 1.0
    shares, rest = counts / n_people, kept * (1 - kept)
    mean = (1 - kept) * counts / (n_people - 1)
    spread = rest * (shares * (1 - shares) + code)
    others = spread + code * (kept**2 + (1 - kept) ** 2 * float((shares**2).sum()))
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    own = kept + mean - (1 - kept) / (n_people - 1)  # the person is none of the others
    sums = own[:, None] + np.sqrt(spread)[:, None] * nodes
    below = np.log(np.maximum(ndtr((sums[:, :, None] - mean) / np.sqrt(others)), 1e-300))
    every = below.sum(axis=2) - np.einsum("knk->kn", below)
    told = np.exp(every) @ (weights / weights.sum())
    return float(np.average(told, weights=counts))


def _trained(
    plan: Plan, features: Features, seen: Float[np.ndarray, "individual input"], n_steps: int
) -> Float[np.ndarray, "individual d_model"]:
    """What the memory says after gradient descent on all of its weights, by the loss of a language model."""
    single = torch.float32
    inputs = torch.from_numpy(seen).to(single)
    weights = (
        torch.from_numpy(features.weights / np.sqrt(seen.shape[1])).to(single).requires_grad_()
    )
    bias = torch.from_numpy(features.bias / np.sqrt(seen.shape[1])).to(single).requires_grad_()
    out = torch.zeros(len(features.bias), plan.d_stream, requires_grad=True)
    steps = [step for attribute in plan.attributes for step in _steps(plan, attribute)]
    codes = [torch.from_numpy(space.codes).to(single) for space, _ in steps]
    wanted = [torch.from_numpy(labels) for _, labels in steps]
    optimizer = torch.optim.Adam([weights, bias, out], lr=_RATE)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)

    def say() -> torch.Tensor:
        said: torch.Tensor = torch.relu(inputs @ weights.T + bias) @ out
        return said

    for _ in range(n_steps):
        optimizer.zero_grad()
        said = say()
        losses = [
            cross_entropy(said[:, space.dims] @ code.T, labels, ignore_index=-1, reduction="sum")
            for (space, _), code, labels in zip(steps, codes, wanted, strict=True)
        ]
        (torch.stack(losses).sum() / len(inputs)).backward()
        optimizer.step()
        falling.step()
    with torch.no_grad():
        return say().double().numpy()
