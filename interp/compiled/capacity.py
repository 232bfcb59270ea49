"""How many facts a memory of so many neurons holds: computed, as theory has it, and trained."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from functools import partial
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
from interp.errors import ArgumentError, whole_number
from interp.torch_state import default_state

Shares = Float[np.ndarray, " attribute"]
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
_DRAWS, _DRAWS_STREAM = 200, 0x64726177
"""For each label, of what is left where directions overlap."""


@default_state()
def recall_capacity(
    config: Config, n_neurons: Sequence[int], *, n_steps: int = 0, d_code: int | None = None
) -> pd.DataFrame:
    """How many of a population's facts a memory of random features holds, by its number of neurons.

    The memory is MLP 0 of the distributed variant of `compile_recall`, by itself: from the tokens of a name
    to the tokens of the person's values, each a direction. A fact is held if, for each token of its value,
    the right direction is the one that the sum of all neurons agrees with most. (A whole compiled model reads
    first tokens out in one space in which directions overlap, and spells later tokens by neurons with a
    threshold: it needs more neurons.)

    Args:
        config: Whose people.
        n_neurons: Numbers of neurons.
        n_steps: Steps of gradient descent, from the same random features on, on all weights; 0 for none.
        d_code: Dimensions for directions, as in `compile_recall`.

    Returns:
        By number of neurons and `memory`, for `n_individuals` people, the `accuracy` (the share of facts
        held), the number of weights (`n_weights`: in and out, with biases), and `bits_per_weight`: of every
        attribute the share of values held x people x log2 of the number of values, together, over the
        weights; values that are held by chance count.

        "least squares" is the memory as it is compiled; "theory" what is to be expected of it, with no free
        number, if what others leave behind is Gaussian: with p = neurons / people, below 1, a person's own
        direction has the size p, and of any other one there is left, of the people who have it, a mean of
        1 - p times their share, and a variance of p (1 - p) times their share. Tokens of a value are taken as
        independent. So the same share of facts is held where neurons grow as people do: facts go by weights,
        as arXiv:2412.06538 has it. "gradient descent" is trained.

    Raises:
        ArgumentError: a number of neurons is no whole number of at least 1, steps are none of at least 0, or
            names cannot be told apart.

    Example:
        >>> import interp
        >>> held = interp.recall_capacity(interp.preset("smoke"), [2, 96])
        >>> held.query("memory == 'least squares'")["accuracy"].tolist()[-1]
        1.0
    """
    given = list(n_neurons) if isinstance(n_neurons, Iterable) else [n_neurons]
    if not given:
        raise ArgumentError("n_neurons is empty; give at least one number of neurons.")
    counts = [whole_number(n, "n_neurons", 1) for n in given]
    n_steps = whole_number(n_steps, "n_steps", 0)
    population = Population.of(config)
    corpus = Corpus.of(config, population, tokenizer_of(config, population.lexicon))
    facts = Knowledge.of(corpus)
    settings = CompiledConfig(variant="distributed", d_code=d_code)
    n_facts, bits = facts.facts().sum(axis=0), _bits(facts)
    found: list[tuple[int, int, Memory, float, float]] = []
    plan = Plan.of(facts, settings, config.model.n_ctx, config.seed_of("model"))
    seen, wanted = names_seen(plan), person_facts(plan, plan.d_stream)
    width = sum(space.width for a in plan.attributes for space in plan.fact_spaces(a))
    for n in counts:
        # A compiled model of so many neurons draws them from here on, too.
        features = Features.drawn(seen, n, deepcopy(plan.generator))
        active = features.active(seen)
        written = active @ least_squares(active, wanted)
        held: dict[Memory, Shares] = {
            "least squares": _held(plan, written),
            "theory": _expected(plan, n),
        }
        if n_steps:
            held["gradient descent"] = _held(plan, _trained(plan, features, seen, n_steps))
        n_weights = n * (seen.shape[1] + 1 + width)
        for name, shares in held.items():
            accuracy = float(np.average(shares, weights=n_facts))
            found.append((n, n_weights, name, accuracy, float(shares * n_facts @ bits) / n_weights))
    table = pd.DataFrame(found, columns=list(CAPACITY_COLUMNS[1:]))
    return table.assign(n_individuals=facts.known)[list(CAPACITY_COLUMNS)]


def _bits(facts: Knowledge) -> Float[np.ndarray, " attribute"]:
    """What a value of each attribute says, if all are as likely."""
    return np.log2([len({value for value in pool if value}) for pool in facts.pools])


def _steps(plan: Plan, attribute: int) -> list[tuple[Space, Int[np.ndarray, " individual"]]]:
    """The spaces of an attribute, and which of their directions is each person's; -1 for none."""
    own = [values[attribute] for values in plan.facts.values[: plan.facts.known]]
    return [
        (space, np.array([space.place[v[step]] if len(v) > step else -1 for v in own]))
        for step, space in enumerate(plan.fact_spaces(attribute))
    ]


def _held(plan: Plan, written: Float[np.ndarray, "individual d_model"]) -> Shares:
    """Of each attribute, the share of facts of which every token is told."""
    right = np.ones((plan.facts.known, len(plan.attributes)), dtype=bool)
    for attribute in plan.attributes:
        for space, wanted in _steps(plan, attribute):
            said = (written[:, space.dims] @ space.codes.T).argmax(axis=1)
            right[:, attribute] &= (said == wanted) | (wanted < 0)
    there = plan.facts.facts()
    shares: Shares = (right & there).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    return shares


def _expected(plan: Plan, n_neurons: int) -> Shares:
    """The same to be expected, if what others leave behind is Gaussian and tokens are independent."""
    kept = n_neurons / plan.facts.known
    shares = []
    for attribute in plan.attributes:
        share, there = 1.0, 0.0
        for step, (space, wanted) in enumerate(_steps(plan, attribute)):
            counts = np.bincount(wanted[wanted >= 0], minlength=len(space.labels))
            present = counts.sum() / plan.facts.known
            there = there if step else present
            told = _told if space.overlap == 0 else partial(_told_of_drawn, codes=space.codes)
            if there:
                share *= 1 - present / there * (1 - told(counts, plan.facts.known, kept))
        shares.append(share)
    return np.array(shares)


def _left(
    counts: Int[np.ndarray, " label"], n_people: int, kept: float
) -> tuple[Float[np.ndarray, " label"], Float[np.ndarray, " label"], float]:
    """What is left of every direction: its mean and variance over people, and the mean of one's own."""
    shares = counts / n_people
    mean = (1 - kept) * counts / (n_people - 1)
    # The person is none of the others.
    own = kept - (1 - kept) / (n_people - 1)
    return mean, kept * (1 - kept) * shares * (1 - shares), own


def _told(counts: Int[np.ndarray, " label"], n_people: int, kept: float) -> float:
    """How often the right direction is the largest, of directions with a dimension each.

    Args:
        counts: How many people have each label.
        n_people: How many people there are.
        kept: Neurons / people: what is left of a person's own direction, all from 1 on.
    """
    if kept >= 1 or len(counts) < 2:
        return 1.0
    mean, variance, own = _left(counts, n_people, kept)
    spread = np.sqrt(variance)
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    sums = (own + mean)[:, None] + spread[:, None] * nodes
    below = np.log(np.maximum(ndtr((sums[:, :, None] - mean) / spread), 1e-300))
    every = below.sum(axis=2) - np.einsum("knk->kn", below)
    told = np.exp(every) @ (weights / weights.sum())
    return float(np.average(told, weights=counts))


def _told_of_drawn(
    counts: Int[np.ndarray, " label"],
    n_people: int,
    kept: float,
    codes: Float[np.ndarray, "label width"],
) -> float:
    """The same of directions that overlap, from draws of what is left of them; arguments as `_told`."""
    if kept >= 1 or len(counts) < 2:
        return 1.0
    mean, variance, own = _left(counts, n_people, kept)
    generator, right = np.random.default_rng(_DRAWS_STREAM), np.empty(len(counts))
    inner = codes @ codes.T
    for label in range(len(counts)):
        left = mean + np.sqrt(variance) * generator.standard_normal((_DRAWS, len(counts)))
        left[:, label] += own
        right[label] = ((left @ inner).argmax(axis=1) == label).mean()
    return float(np.average(right, weights=counts))


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
