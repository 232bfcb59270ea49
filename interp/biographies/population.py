"""The population: unique people, their facts, and the wordings in which each is met."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Integer, UInt8

from interp.biographies.lists import ATTRIBUTES, name_pools, value_pools
from interp.biographies.templates import N_TEMPLATES, N_TRAIN_TEMPLATES, templates
from interp.config import PopulationConfig
from interp.errors import RunError, suggest

_POPULATION_STREAM = 0x706F70  # keeps this random stream apart from those of batches


@dataclass(frozen=True)
class Population:
    """People with unique names and six facts each; those held out come last.

    Attributes:
        config: How it was drawn.
        names: Index of each name part in its pool.
        values: Index of each attribute's value in the attribute's pool.
        wordings: For each person and attribute, all templates in an order of their own: the first
            20 are for training, the last 5 for evaluation.
    """

    config: PopulationConfig
    names: Integer[np.ndarray, "individual part"]
    values: Integer[np.ndarray, "individual attribute"]
    wordings: UInt8[np.ndarray, "individual attribute template"]

    @classmethod
    def draw(cls, config: PopulationConfig, seed: int) -> "Population":
        """Draws a population; the same config and seed give the same people.

        Values are independent and uniform, so that nothing but the person tells a value.
        """
        generator = np.random.default_rng([_POPULATION_STREAM, seed])
        n = config.n_individuals + config.n_held_out
        pools = name_pools(config)
        sizes = tuple(len(pool) for pool in pools)
        codes = generator.choice(int(np.prod(sizes)), size=n, replace=False)
        names = np.stack(np.unravel_index(codes, sizes), axis=1).astype(np.int32)
        value_counts = [len(pool) for pool in value_pools(config).values()]
        values = generator.integers(0, value_counts, size=(n, len(ATTRIBUTES)), dtype=np.int32)
        wordings = np.tile(np.arange(N_TEMPLATES, dtype=np.uint8), (n, len(ATTRIBUTES), 1))
        generator.permuted(wordings, axis=-1, out=wordings)
        return cls(config, names, values, wordings)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def trained(self) -> slice:
        """The individuals that training draws from."""
        return slice(0, self.config.n_individuals)

    @property
    def held_out(self) -> slice:
        """The individuals that training never shows."""
        return slice(self.config.n_individuals, len(self))

    @property
    def is_held_out(self) -> Bool[np.ndarray, " individual"]:
        """Which individuals training never shows."""
        return np.arange(len(self)) >= self.config.n_individuals

    @property
    def train_wordings(self) -> UInt8[np.ndarray, "individual attribute train_template"]:
        """The 20 templates of each person and attribute that training uses."""
        return self.wordings[..., :N_TRAIN_TEMPLATES]

    @property
    def evaluation_wordings(self) -> UInt8[np.ndarray, "individual attribute eval_template"]:
        """The 5 templates of each person and attribute that training never shows with them."""
        return self.wordings[..., N_TRAIN_TEMPLATES:]

    def name(self, individual: int) -> str:
        """A person's full name."""
        pools = name_pools(self.config)
        return " ".join(pool[i] for pool, i in zip(pools, self.names[individual], strict=True))

    def facts(self, individual: int) -> dict[str, str]:
        """A person's six attribute values."""
        pools = value_pools(self.config)
        return {a: pools[a][i] for a, i in zip(ATTRIBUTES, self.values[individual], strict=True)}

    def find(self, name: str) -> int:
        """The individual with this full name.

        Raises:
            RunError: nobody has that name.
        """
        names = [self.name(i) for i in range(len(self))]
        if name not in names:
            raise RunError(
                f"Nobody in this population is called {name!r}.{suggest(name, names)} "
                "population.table() lists everybody."
            )
        return names.index(name)

    def table(self) -> pd.DataFrame:
        """Everybody, one row each: `individual`, `name`, `held_out` and the six attributes."""
        names = np.array(
            [
                np.array(pool, dtype=object)[self.names[:, part]]
                for part, pool in enumerate(name_pools(self.config))
            ]
        )
        columns: dict[str, object] = {
            "individual": np.arange(len(self)),
            "name": [" ".join(parts) for parts in names.T],
            "held_out": self.is_held_out,
        }
        for index, (attribute, pool) in enumerate(value_pools(self.config).items()):
            columns[attribute] = np.array(pool, dtype=object)[self.values[:, index]]
        return pd.DataFrame(columns)

    def fingerprint(self) -> str:
        """A hash of everybody's names, facts and wordings: equal only for equal populations."""
        pools = [*name_pools(self.config), *value_pools(self.config).values()]
        wordings = [[t.source for t in group] for group in templates().values()]
        told = json.dumps([self.config.n_individuals, pools, wordings])
        digest = hashlib.sha256(told.encode())
        for array in (self.names, self.values, self.wordings):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()
