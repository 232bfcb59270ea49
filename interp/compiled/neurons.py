"""The neurons of both MLPs: each fires at 1 where all that it reads is there, and else not at all."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float

COLUMNS = ("layer", "neuron", "role", "individual", "attribute", "token", "says_token", "n_read")
"""The columns of the key's table of neurons."""


@dataclass
class Neurons:
    """The neurons of one MLP while they are put together, from the first on.

    Attributes:
        layer: Which MLP.
        d_model: Width of the residual stream.
    """

    layer: int
    d_model: int
    _in: list[Float[np.ndarray, "neuron d_model"]] = field(default_factory=list)
    _bias: list[Float[np.ndarray, " neuron"]] = field(default_factory=list)
    _out: list[Float[np.ndarray, "neuron d_model"]] = field(default_factory=list)
    _about: list[pd.DataFrame] = field(default_factory=list)

    def add(
        self,
        role: str,
        reads: Float[np.ndarray, "neuron d_model"],
        bias: Float[np.ndarray, " neuron"],
        writes: Float[np.ndarray, "neuron d_model"],
        **about: Iterable[object],
    ) -> None:
        """Adds neurons: what they read, their bias, what they write, and what they are for."""
        first = len(self)
        self._in.append(reads)
        self._bias.append(bias)
        self._out.append(writes)
        numbers = np.arange(first, first + len(reads))
        values = {name: pd.Series(list(column), dtype="object") for name, column in about.items()}
        self._about.append(
            pd.DataFrame({"layer": self.layer, "neuron": numbers, "role": role, **values})
        )

    def add_gates(
        self,
        role: str,
        reads: Float[np.ndarray, "neuron d_model"],
        full: Float[np.ndarray, " neuron"],
        overlap: float,
        writes: Float[np.ndarray, "neuron d_model"],
        **about: Iterable[object],
    ) -> None:
        """Adds neurons that are 1 where what they read sums up to `full`, and 0 at `full` - 1 + `overlap`."""
        gain = 2 / (1 - overlap)
        threshold = full - 1 / gain
        self.add(role, gain * reads, -gain * threshold, writes, **about)

    def __len__(self) -> int:
        return sum(map(len, self._in))

    def matrices(
        self, d_mlp: int
    ) -> tuple[
        Float[np.ndarray, "d_mlp d_model"],
        Float[np.ndarray, " d_mlp"],
        Float[np.ndarray, "d_mlp d_model"],
    ]:
        """What neurons read, their biases and what they write; those that are left over nothing."""
        shape = (d_mlp, self.d_model)
        reads, bias, writes = np.zeros(shape), np.zeros(d_mlp), np.zeros(shape)
        if len(self):
            n = len(self)
            reads[:n], bias[:n], writes[:n] = map(np.concatenate, (self._in, self._bias, self._out))
        return reads, bias, writes

    def table(self, d_mlp: int) -> pd.DataFrame:
        """What each neuron is for; those that are left over are "unused"."""
        left = np.arange(len(self), d_mlp)
        unused = pd.DataFrame({"layer": self.layer, "neuron": left, "role": "unused"})
        parts = [part for part in (*self._about, unused) if len(part)]
        return pd.concat(parts, ignore_index=True)


def rows(n: int, d_model: int) -> Float[np.ndarray, "neuron d_model"]:
    """Nothing read or written yet, by so many neurons."""
    return np.zeros((n, d_model))
