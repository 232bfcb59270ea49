"""The heads: in layer 0 each copies the token so many places back, in layer 1 each recalls an attribute."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from interp.compiled.plan import Plan
from interp.compiled.spaces import Space

_APART = 40.0
"""By how much a score exceeds the next: the rest of the pattern is below e^-40."""
_PER_POSITION = 16.0
"""How much higher the score of a name is for each position that it stands later: the last one is read."""


@dataclass
class Head:
    """The matrices of one head, and what it is for.

    Attributes:
        layer, head: Which head.
        role: "copies", "recalls", "idle" or "unused".
        attends: What it attends to, in words.
        back: How far back, of a head that copies.
        attribute: Which attribute a head recalls, or carries.
        moves: The spaces that it reads at the key, and those that it writes at the query.
    """

    layer: int
    head: int
    role: str
    attends: str
    shape: tuple[int, int]
    back: int | None = None
    attribute: int | None = None
    moves: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.W_Q, self.W_K, self.W_V = (np.zeros(self.shape) for _ in "QKV")
        self.W_O = np.zeros(self.shape[::-1])
        self.b_Q = np.zeros(self.shape[1])
        self._used = 0

    def carry(self, source: Space, target: Space) -> None:
        """Has the head write into a space what another one says at the key."""
        here = slice(self._used, self._used + source.width)
        self._used = here.stop
        self.W_V[source.dims, here] = np.eye(source.width)
        self.W_O[here, target.dims] = translation(source, target)
        self.moves.append((source.name, target.name))


def translation(source: Space, target: Space) -> Float[np.ndarray, "source target"]:
    """The map that takes the directions of one space to those of another with the same labels."""
    if source.codes.shape == target.codes.shape and source.labels == target.labels:
        return np.eye(source.width)
    if len(source.labels) == source.width:  # a dimension each
        known = target.place
        rows = [
            target.codes[known[label]] if label in known else np.zeros(target.width)
            for label in source.labels
        ]
        return np.stack(rows)
    return np.eye(source.width)  # directions taken from the target


def heads(plan: Plan) -> list[Head]:
    """All heads of both layers, in their order."""
    n, shape = plan.n_heads, (plan.n_heads * plan.d_head, plan.d_head)
    own = [_copying(plan, shape, head, back) for head, back in enumerate(plan.backs)]
    recalling = [_recalling(plan, shape, attribute) for attribute in plan.attributes]
    if plan.controls("head"):
        recalling.append(_idle(plan, shape))
    layers = (own, recalling)
    unused = [
        Head(layer, head, "unused", "everything alike", shape)
        for layer, used in enumerate(layers)
        for head in range(len(used), n)
    ]
    return sorted([*own, *recalling, *unused], key=lambda head: (head.layer, head.head))


def _copying(plan: Plan, shape: tuple[int, int], number: int, back: int) -> Head:
    """A head that attends to the token `back` places before, or to the first where there is none."""
    head = Head(0, number, "copies", f"the token {back} back", shape, back=back)
    positions, width = plan.spaces["position"], shape[1]
    if plan.n_ctx <= width:
        codes = np.eye(plan.n_ctx, width)
    else:
        codes = np.random.default_rng([0x706F73, width]).standard_normal((plan.n_ctx, width))
        codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    inner = codes @ codes.T - np.eye(plan.n_ctx)
    scale = np.sqrt(_APART / (1 - inner.max()) * np.sqrt(width))
    head.W_K[positions.dims] = scale * codes
    head.W_Q[positions.dims] = scale * codes[np.maximum(np.arange(plan.n_ctx) - back, 0)]
    for what in ("word", "name", "part"):
        target = plan.back(what, back)
        if target is not None:
            head.carry(plan.spaces[what], target) if what == "name" else _select(
                head, plan.spaces[what], target
            )
    return head


def _select(head: Head, source: Space, target: Space) -> None:
    """As `Head.carry`, of the labels of the target only."""
    here = np.arange(head._used, head._used + target.width)
    head._used += target.width
    place = source.place
    head.W_V[[source.start + place[label] for label in target.labels], here] = 1.0
    head.W_O[here, target.start + np.arange(target.width)] = 1.0
    head.moves.append((source.name, target.name))


def _recalling(plan: Plan, shape: tuple[int, int], attribute: int) -> Head:
    """A head that looks at the latest name where its attribute is asked for, and at <bos> elsewhere."""
    name = plan.facts.attributes[attribute]
    attends = f"the last token of the latest name where {name} is asked for, else <bos>"
    head = Head(1, attribute, "recalls", attends, shape, attribute=attribute)
    asked = plan.spaces["asked"]
    head.W_Q[asked.start + attribute, 0] = 1.0
    head.b_Q[1] = 1.0
    _latest_name(plan, head)
    for step, source in enumerate(plan.fact_spaces(attribute)):
        head.carry(source, plan.recalled(step))
    return head


def _idle(plan: Plan, shape: tuple[int, int]) -> Head:
    """A control: a head that always looks at the latest name, and whose output nothing reads."""
    attends = "the last token of the latest name, everywhere; <bos> before there is one"
    head = Head(1, len(plan.attributes), "idle", attends, shape, attribute=0)
    head.b_Q[:2] = 1.0
    _latest_name(plan, head)
    head.carry(plan.fact(0, 0), plan.spaces["carried"])
    return head


def _latest_name(plan: Plan, head: Head) -> None:
    """Keys: along the first dimension the end of a name, a later one more; along the second <bos>."""
    root = np.sqrt(head.shape[1])
    beginning = _PER_POSITION * plan.n_ctx + _APART
    head.W_K[plan.spaces["position"].dims, 0] = root * _PER_POSITION * np.arange(plan.n_ctx)
    head.W_K[plan.spaces["name end"].dims, 0] = root * (beginning + _APART)
    head.W_K[plan.spaces["beginning"].dims, 1] = root * beginning
