"""Where in a name a person is known.

Is a person known at the middle name because the last name has to be predicted from there, or because that is
the first token that tells who it is?

Command: interp batch name_tokens --out artifacts/studies --workers 2
Duration: 60 runs of `tiny`, 1 to 2 minutes each on one thread, then a few seconds of measuring each

With ordinary names (100 first, 100 middle, 200 last ones, 512 people) MLP 0 holds people at the middle
name. Two things come together there: first and middle name tell nearly everybody apart, and what follows, the
last name, is a token that training wants predicted. The conditions take them apart: no loss on name tokens;
names of which the first token, or only the last one, tells who it is; names of one, two and four tokens; and
the order of names reversed. If prediction is the reason, the place moves to the last token where names have
no loss, and stays where it was otherwise. If telling people apart is, it goes with the first token that does,
whatever the loss.

"loss on values only" and what it costs to cut the value position from each token were added after the others
had been run: in none of them did the last token of a name count, whoever it told apart. Five more seeds of
three conditions were run after these, to hold a rule against that had been made of what they showed.
"""

import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from pydantic import Field, field_validator, model_validator

from interp.biographies import Population
from interp.biographies.lists import word_list
from interp.compiled import one_token_people, renamed_people
from interp.config import Config
from interp.errors import ConfigError
from interp.plots import name_tokens as plots
from interp.run import Run
from interp.studies.collect import collect, complete
from interp.studies.name_tokens_claims import CONFIRM_FROM, held_against
from interp.studies.name_tokens_measured import PLACES, places_of
from interp.studies.rules import Claim
from interp.studies.study import Planned, Study, StudySettings, Tables, each_once

Names = Literal[
    "ordinary", "no loss on names", "first name tells", "last name needed", "reversed", "one token",
    "two tokens", "four tokens", "loss on values only",
]  # fmt: skip
CONFIRMED: tuple[Names, ...] = ("ordinary", "no loss on names", "loss on values only")
"""The conditions of which more seeds are run."""
_LOSSES = {"no loss on names": "not names", "loss on values only": "values"}
_MORE = 100
"""How many words the fourth token of a name is drawn from."""
COLUMNS = {
    "places": ("seed", "names", "token", "n_tokens", *PLACES),
    "known": ("seed", "names", "n_tokens", "accuracy"),
}


class NameTokensSettings(StudySettings):
    """Settings of the study of where in a name a person is known."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """One run of each kind for each seed."""
    names: tuple[Names, ...] = get_args(Names)
    """What names are like, or the loss on them."""
    confirmed_by: tuple[int, ...] = (5, 6, 7, 8, 9)
    """Seeds of the conditions that `CONFIRMED` names, run after a rule about these had been written."""
    n_pairs: int = Field(default=192, ge=1)
    """Pairs of people that are swapped."""
    folder: str | None = None
    """Where people with other names are written before training; by default among temporary files. A run
    keeps a copy of its own."""

    varies: ClassVar[frozenset[str]] = frozenset(
        {"population", "data", "training.early_checkpoints", "training.checkpoint_every"}
    )

    @field_validator("names")
    @classmethod
    def _once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return each_once("names", values)

    @model_validator(mode="after")
    def _other_seeds(self) -> "NameTokensSettings":
        if (
            max(self.seeds) >= CONFIRM_FROM
            or min(self.confirmed_by, default=CONFIRM_FROM) < CONFIRM_FROM
        ):
            raise ConfigError(
                f"seeds={list(self.seeds)}, confirmed_by={list(self.confirmed_by)}: a rule that was made of "
                f"seeds 0 to {CONFIRM_FROM - 1} is held against those from {CONFIRM_FROM} on; name seeds "
                "below that, and in confirmed_by others."
            )
        return self

    def of(self, seed: int, names: Names) -> Config:
        """The run of a seed with some names; people with other names are written to a folder."""
        plain = self.config(seed)
        settings: dict[str, Any] = {
            "training.early_checkpoints": (0,), "training.checkpoint_every": plain.training.n_steps,
            "evaluation.splits": ("evaluation",),
        }  # fmt: skip
        if names in _LOSSES:
            told = {"form": "biography", "loss": _LOSSES[names]}
            settings["data.stages"] = ({"start": 0, "forms": (told,)},)
        elif names == "last name needed":
            few = max(2, plain.population.first_names // 10)
            settings |= {"population.first_names": few, "population.middle_names": few}
        config = self.config(seed, **settings)
        if names in ("ordinary", "last name needed", *_LOSSES):
            return config
        people = config.population
        folder = Path(self.folder or Path(tempfile.gettempdir()) / "interp_name_tokens")
        words = f"{self.preset}_{people.n_individuals}_{people.n_held_out}_seed{seed}_{names}"
        folder = folder / words.replace(" ", "_")
        if names == "one token":
            return one_token_people(config, folder)
        return renamed_people(config, other_names(config, names), folder)


def other_names(config: Config, names: Names) -> list[str]:
    """Everybody's name, changed.

    "reversed"; "first name tells": everybody has a first name of their own; "two tokens": first and last
    names drawn anew, no pair twice; "four tokens": another word put in before the last name.

    Raises:
        ConfigError: there are fewer first names than people.
    """
    population = Population.of(config)
    parts = [name.split() for name in population.full_names]
    generator = np.random.default_rng([0x6E616D65, config.seed])
    if names == "reversed":
        return [" ".join(reversed(own)) for own in parts]
    if names == "first name tells":
        every = word_list("first_names")
        if len(every) < len(parts):
            raise ConfigError(
                f"names: there are {len(every)} first names for {len(parts):,} people, and with 'first name "
                "tells' everybody has one of their own; leave that out, or take a smaller preset."
            )
        own_first = generator.permutation(len(every))[: len(parts)]
        return [" ".join([every[i], *own[1:]]) for i, own in zip(own_first, parts, strict=True)]
    if names == "four tokens":
        first = config.population.first_names
        more = word_list("first_names")[first : first + _MORE]
        drawn = generator.integers(len(more), size=len(parts))
        return [
            " ".join([*own[:2], more[i], *own[2:]]) for own, i in zip(parts, drawn, strict=True)
        ]
    pools = [sorted({own[at] for own in parts}) for at in (0, -1)]
    pairs = generator.permutation(len(pools[0]) * len(pools[1]))[: len(parts)]
    return [f"{pools[0][i // len(pools[1])]} {pools[1][i % len(pools[1])]}" for i in pairs]


def planned(settings: NameTokensSettings) -> list[Planned]:
    """The runs that settings ask for."""
    cells = [*product(settings.seeds, settings.names), *product(settings.confirmed_by, CONFIRMED)]
    return [Planned(settings.of(seed, names)) for seed, names in cells]


def names_of(run: Run, settings: NameTokensSettings) -> str:
    """What the names of a run are like."""
    seed, identity = run.config.seed, run.config.identity()
    kinds = settings.names if seed in settings.seeds else CONFIRMED
    return next(n for n in kinds if settings.of(seed, n).identity() == identity)


def tables(settings: NameTokensSettings, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """What the finished runs measured.

    Returns:
        Tables that begin with `seed` and `names`, of the last checkpoint:

        "places": by `token` of the name, counted from 1, of `n_tokens`: the share of people whom the name
        tells apart from everybody else up to there (`determined`); the share of pairs for whom a swap of
        MLP 0's output there moves the answer most (`strongest`), how often the prediction follows it
        (`follows`), its part of all that names do for the answer (`effect`); and the share of the last
        layer's attention from where the value is predicted to names that goes there (`attention`, mean over
        heads); and what it costs to cut the value position from that token in the first layer or in the last
        (`read_first`, `read_last`, nats).
        "known": attribute `accuracy` in wordings never seen with a person.
    """

    def of_run(run: Run) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
        places = places_of(run, settings.n_pairs)
        n_tokens = len(places)
        known = float(run.curve("attribute_accuracy").iloc[-1])
        apart = {"seed": run.config.seed, "names": names_of(run, settings), "n_tokens": n_tokens}
        return apart, {"places": places, "known": pd.DataFrame([{"accuracy": known}])}

    return {name: table.round(4) for name, table in collect(runs, of_run, COLUMNS).items()}


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The study's figures, by anchor."""
    places = complete(tables, COLUMNS)["places"]
    several = places[(places["n_tokens"] > 1) & (places["seed"] < CONFIRM_FROM)]
    return {"name-tokens-places": plots.places(several)} if len(several) else {}


def claims(tables: Tables) -> list[Claim]:
    """What is claimed of names, held against tables as made or read back from CSV."""
    return held_against(complete(tables, COLUMNS))


STUDY = Study("name_tokens", __doc__, NameTokensSettings, planned, tables, figures, claims)
