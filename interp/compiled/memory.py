"""MLP 0: the memory of people, the end of a name, and which attribute is asked for. MLP 1: the spelling."""

import numpy as np
from jaxtyping import Float

from interp.compiled.features import Features, least_squares, names_seen
from interp.compiled.neurons import Neurons, rows
from interp.compiled.plan import LONGER, Plan, shifted
from interp.compiled.spaces import Space

_FEWEST = 64
"""Random features by default, however few people there are: each has to fire several."""
RECALLING_ROLES = ("person", "random feature")


def first_mlp(plan: Plan, d_model: int) -> Neurons:
    """The neurons of MLP 0."""
    neurons = Neurons(0, d_model)
    people = np.arange(plan.facts.known)
    if plan.settings.variant == "local":
        _add_people(plan, neurons, people, "person", person_facts(plan, d_model))
    elif plan.settings.variant == "distributed":
        _add_features(plan, neurons)
    if plan.controls("neurons"):
        _add_people(plan, neurons, people, "idle", rows(len(people), d_model))
    _add_name_ends(plan, neurons)
    _add_asked(plan, neurons)
    return neurons


def person_facts(plan: Plan, d_model: int) -> Float[np.ndarray, "individual d_model"]:
    """What the last name token of each known person has to say: the directions of their values."""
    facts = rows(plan.facts.known, d_model)
    for attribute in plan.attributes:
        for step, space in enumerate(plan.fact_spaces(attribute)):
            _write_tokens(plan, facts, space, attribute, step)
    if plan.controls("direction"):
        _write_tokens(plan, facts, plan.spaces["unread"], 0, 0)
    return facts


def _write_tokens(
    plan: Plan,
    facts: Float[np.ndarray, "individual d_model"],
    space: Space,
    attribute: int,
    step: int,
) -> None:
    place = space.place
    for person, own in enumerate(plan.facts.values[: plan.facts.known]):
        if len(own[attribute]) > step:
            facts[person, space.dims] = space.codes[place[own[attribute][step]]]


def _add_people(
    plan: Plan,
    neurons: Neurons,
    people: np.ndarray,
    role: str,
    writes: Float[np.ndarray, "neuron d_model"],
) -> None:
    """A neuron a person: fires where all tokens of the name stand in their places, the last one here."""
    reads = rows(len(people), neurons.d_model)
    lengths = np.array([len(plan.facts.names[person]) for person in people])
    overlap = plan.spaces["name"].overlap
    for row, person in enumerate(people):
        name = plan.facts.names[person]
        for back, token in enumerate(reversed(name)):
            space = _there(plan, "name", back)
            reads[row, space.dims] = space.code(token)
        _unless_longer(plan, reads[row], len(name))
    neurons.add_gates(
        role, reads, lengths.astype(float), overlap, writes, individual=people, n_read=lengths
    )


def _unless_longer(plan: Plan, reads: Float[np.ndarray, " d_model"], length: int) -> None:
    """A name is not meant where the token before it makes it the end of a longer one."""
    space = plan.back("part", length)
    if space is not None and (LONGER, length) in space.place:
        reads[space.start + space.place[LONGER, length]] = -float(length)


def _add_features(plan: Plan, neurons: Neurons) -> None:
    """Random features of names, and by least squares from them to the values of everybody."""
    n = plan.settings.n_neurons or max(_FEWEST, 2 * plan.facts.known)
    seen = names_seen(plan)
    features = Features.drawn(seen, n, plan.generator)
    reads, width = rows(n, neurons.d_model), plan.spaces["name"].width
    for back in range(max(plan.facts.name_lengths)):
        space = _there(plan, "name", back)
        reads[:, space.dims] = features.weights[:, back * width : (back + 1) * width]
    writes = least_squares(features.active(seen), person_facts(plan, neurons.d_model))
    n_read = [max(plan.facts.name_lengths)] * n
    neurons.add("random feature", reads, features.bias, writes, n_read=n_read)


def _add_name_ends(plan: Plan, neurons: Neurons) -> None:
    """A neuron for each length of names: fires at the last token of any name, also of people unknown."""
    lengths = plan.facts.name_lengths
    reads, writes = rows(len(lengths), neurons.d_model), rows(len(lengths), neurons.d_model)
    for row, length in enumerate(lengths):
        for back in range(length):
            space = _there(plan, "part", back)
            reads[row, space.start + space.place[length, back]] = 1.0
        _unless_longer(plan, reads[row], length)
    writes[:, plan.spaces["name end"].start] = 1.0
    neurons.add_gates("name end", reads, np.array(lengths, float), 0.0, writes, n_read=lengths)


def _add_asked(plan: Plan, neurons: Neurons) -> None:
    """A neuron for each pattern of words and each token of a value: which attribute, which token."""
    asked, step_space = plan.spaces["asked"], plan.spaces.get("step")
    each = [
        (pattern, *shift)
        for pattern in plan.patterns
        for shift in shifted(plan.facts, pattern)
    ]  # fmt: skip
    reads, writes = rows(len(each), neurons.d_model), rows(len(each), neurons.d_model)
    for row, (pattern, step, holds, ended) in enumerate(each):
        for check in holds:
            space = _there(plan, "word", check.back)
            reads[row, space.start + space.place[check.feature]] = 1.0
        for check in ended:
            space = _there(plan, "word", check.back)
            reads[row, space.start + space.place[check.feature]] = -float(len(holds))
        writes[row, asked.start + pattern.attribute] = 1.0
        if step and step_space is not None:
            writes[row, step_space.start + step - 1] = 1.0
    full = np.array([len(holds) for _, _, holds, _ in each], float)
    neurons.add_gates(
        "asks", reads, full, 0.0, writes,
        attribute=[plan.facts.attributes[pattern.attribute] for pattern, *_ in each],
        token=[step for _, step, *_ in each], n_read=full.astype(int),
    )  # fmt: skip


def second_mlp(plan: Plan, d_model: int) -> Neurons:
    """The neurons of MLP 1: later tokens of values are written, and the first one taken away there."""
    neurons, steps = Neurons(1, d_model), plan.spaces.get("step")
    if steps is None:
        return neurons
    output, facts = plan.spaces["output"], plan.facts
    for step in range(1, facts.n_steps):
        space = plan.recalled(step)
        reads, writes = rows(len(space.labels), d_model), rows(len(space.labels), d_model)
        reads[:, space.dims] = space.codes
        reads[:, steps.start + step - 1] = 1.0
        writes[:, output.dims] = [output.code(token) for token in space.labels]
        neurons.add_gates(
            "spells", reads, np.full(len(reads), 2.0), space.overlap, writes,
            token=[step] * len(reads), says_token=space.labels, n_read=[2] * len(reads),
        )  # fmt: skip
    several = [a for a in plan.attributes if facts.longest(a) > 1]
    firsts = sorted(set().union(*(facts.tokens_at(a, 0) for a in several)))
    reads, writes = rows(len(firsts), d_model), rows(len(firsts), d_model)
    reads[:, output.dims] = [output.code(token) for token in firsts]
    reads[:, steps.dims] = 1.0
    writes[:, output.dims] = -reads[:, output.dims]
    neurons.add_gates(
        "erases", reads, np.full(len(firsts), 2.0), output.overlap, writes,
        token=[0] * len(firsts), says_token=firsts, n_read=[2] * len(firsts),
    )  # fmt: skip
    return neurons


def _there(plan: Plan, what: str, back: int) -> Space:
    space = plan.back(what, back)
    assert space is not None  # the plan has a space for whatever is looked at
    return space
