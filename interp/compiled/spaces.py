"""The residual stream divided into spaces, each with a direction for every thing that it can say."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from interp.errors import ArgumentError

_HIGHEST = 0.9
"""The largest inner product of two directions of one space that a threshold still tells from 1."""


@dataclass(frozen=True)
class Space:
    """Some dimensions of the residual stream, which nothing else is written into.

    Attributes:
        name: What it is called in the key.
        says: What it says, in words.
        start: Its first dimension.
        labels: What its directions stand for: tokens, people, attributes, ...
        codes: A unit vector for each label; each has a dimension of its own where there are few.
    """

    name: str
    says: str
    start: int
    labels: tuple[Any, ...]
    codes: Float[np.ndarray, "label width"]

    @property
    def width(self) -> int:
        """How many dimensions it has."""
        return int(self.codes.shape[1])

    @property
    def stop(self) -> int:
        """The dimension after its last."""
        return self.start + self.width

    @property
    def dims(self) -> slice:
        """Its dimensions."""
        return slice(self.start, self.stop)

    @property
    def place(self) -> dict[Any, int]:
        """Where each label stands among the labels."""
        return {label: i for i, label in enumerate(self.labels)}

    @property
    def overlap(self) -> float:
        """The largest inner product of two of its directions, at least 0."""
        return _overlap(self.codes)

    def code(self, label: Hashable) -> Float[np.ndarray, " width"]:
        """The direction of a label, in the space's own dimensions."""
        own: Float[np.ndarray, " width"] = self.codes[self.place[label]]
        return own


@dataclass
class Stream:
    """The residual stream while it is divided up.

    Attributes:
        generator: Where directions are drawn from.
        d_code: How many dimensions a space has at most whose labels have none of their own.
        spaces: The spaces by name, in order.
    """

    generator: np.random.Generator
    d_code: int
    spaces: dict[str, Space] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """How many dimensions are in use."""
        return max((space.stop for space in self.spaces.values()), default=0)

    def add(
        self,
        name: str,
        says: str,
        labels: Sequence[Hashable],
        codes: Float[np.ndarray, "label width"] | None = None,
        own_dimensions: bool = False,
    ) -> Space:
        """Gives labels directions in dimensions that are new.

        Args:
            name: What the space is called.
            says: What it says, in words.
            labels: What its directions stand for.
            codes: Their unit vectors; by default a dimension each, or random ones if there are more labels
                than `d_code`.
            own_dimensions: A dimension each, however many they are.
        """
        if codes is None:
            n = len(labels)
            codes = np.eye(n) if own_dimensions or n <= self.d_code else self._drawn(n)
        space = Space(name, says, self.width, tuple(labels), codes)
        self.spaces[name] = space
        return space

    def _drawn(self, n: int) -> Float[np.ndarray, "label width"]:
        codes = self.generator.standard_normal((n, self.d_code))
        codes /= np.linalg.norm(codes, axis=1, keepdims=True)
        if _overlap(codes) > _HIGHEST:
            raise ArgumentError(
                f"d_code={self.d_code} is too few dimensions to tell {n:,} tokens apart (two of their "
                f"directions have an inner product above {_HIGHEST}); give a larger d_code."
            )
        return codes


def _overlap(codes: Float[np.ndarray, "label width"]) -> float:
    if len(codes) == codes.shape[1] and np.array_equal(codes, np.eye(len(codes))):
        return 0.0
    largest = 0.0
    for first in range(0, len(codes), 1024):
        inner = codes[first : first + 1024] @ codes.T
        inner[np.arange(len(inner)), first + np.arange(len(inner))] = 0.0
        largest = max(largest, float(inner.max()))
    return largest
