"""Models without training.

Do weights that were computed from facts recall them; how many facts does a memory of so many neurons hold, as
computed, in theory and trained?

Command: interp batch compiled --out artifacts/studies --workers 2
Duration: 9 runs of `tiny` with narrow MLPs, a minute each on one thread; then 8 minutes of measuring

Every variant of compiled recall is asked about the people whom it knows, in wordings of evaluation, and about
people held out. The memory of the distributed variant, random features and least squares, is then built for
more and more people at more and more neurons, and compared with what theory expects of it, with the same
memory trained by gradient descent, and with trained transformers whose two MLPs together have as many
neurons.
"""

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from math import exp, log, log2
from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd
import plotly.graph_objects as go
from pydantic import Field, field_validator

from interp.compiled import CompiledRecall, compile_recall, one_token_people
from interp.compiled.capacity import CAPACITY_COLUMNS, recall_capacity
from interp.config import Config
from interp.knowledge import Split
from interp.plots import compiled as plots
from interp.run import Run
from interp.studies.collect import collect, complete
from interp.studies.compiled_claims import HELD, held_against
from interp.studies.rules import Claim
from interp.studies.study import Planned, Study, StudySettings, Tables, each_once

Built = tuple[Literal["local", "distributed", "geometric"], int]
TRANSFORMER = "transformer"
"""What `memory` is called of trained transformers."""
N_MLPS = 2
COLUMNS = {
    "models": ("seed", "variant", "n_individuals", "split", "accuracy", "n_parameters"),
    "capacity": ("seed", *CAPACITY_COLUMNS),
    "needed": ("seed", "memory", "n_individuals", "n_neurons"),
}


class CompiledSettings(StudySettings):
    """Settings of the study of compiled models."""

    models: tuple[Built, ...] = (
        ("local", 512), ("distributed", 512), ("geometric", 512), ("local", 4096),
    )  # fmt: skip
    """Whole models: the variant, and how many people it knows."""
    n_measured: int = Field(default=256, ge=1)
    """Of at most how many people whole models are asked."""
    people: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    """For how many people memories are computed."""
    n_neurons: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024)
    """With how many neurons."""
    descent_people: tuple[int, ...] = (128, 256, 512)
    """For how many people memories are trained."""
    descent_neurons: tuple[int, ...] = (4, 8, 16, 32, 64)
    """With how many neurons."""
    descent_steps: int = Field(default=1000, ge=1)
    """Steps of gradient descent, all people at once."""
    d_mlp: tuple[int, ...] = (8, 32, 128)
    """Neurons of each of the two MLPs of trained transformers."""

    varies: ClassVar[frozenset[str]] = frozenset(
        {
            "population.n_individuals", "model.n_layers", "model.d_mlp", "training.early_checkpoints",
            "training.checkpoint_every",
        }
    )  # fmt: skip

    @field_validator("models", "people", "n_neurons", "descent_people", "descent_neurons", "d_mlp")
    @classmethod
    def _once(cls, values: tuple[Any, ...], info: Any) -> tuple[Any, ...]:
        return each_once(info.field_name, values)

    def trained(self, seed: int, d_mlp: int) -> Config:
        """A trained transformer with narrow MLPs."""
        n_steps = self.config(seed).training.n_steps
        return self.config(
            seed,
            **{
                "model.n_layers": N_MLPS, "model.d_mlp": d_mlp, "training.early_checkpoints": (0,),
                "training.checkpoint_every": n_steps, "evaluation.every": max(1, n_steps // 10),
                "evaluation.splits": ("evaluation",),
            },
        )  # fmt: skip

    def of(self, seed: int, n_individuals: int) -> Config:
        """The settings whose people are built in."""
        return self.config(seed, **{"population.n_individuals": n_individuals})


def planned(settings: CompiledSettings) -> list[Planned]:
    """The runs that settings ask for."""
    return [Planned(settings.trained(seed, d)) for seed in settings.seeds for d in settings.d_mlp]


def tables(settings: CompiledSettings, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """What was built, and what the finished runs measured.

    Returns:
        Tables that begin with `seed`:

        "models": of every whole model by `split`: attribute `accuracy` in wordings of evaluation (known
        people) or of all (people held out), and how many parameters the model has.
        "capacity": the columns of `interp.recall_capacity`; `memory` is also "transformer", a trained one,
        whose `n_neurons` and `n_weights` are those of both MLPs together and whose accuracy is that in
        wordings never seen with a person.
        "needed": by `memory` and number of people, how many neurons hold nine facts in ten, between two
        measured numbers of neurons by their logarithms.
    """

    def of_run(run: Run) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
        return {"seed": run.config.seed}, {"capacity": _of_transformer(run)}

    trained = collect(runs, of_run, {"capacity": COLUMNS["capacity"]})["capacity"]
    held = [trained] if len(trained) else []
    held += [table for seed in settings.seeds for table in _memories(settings, seed)]
    capacity = pd.concat(held, ignore_index=True)[list(COLUMNS["capacity"])].sort_values(
        ["seed", "memory", "n_individuals", "n_neurons"], ignore_index=True
    )
    models = pd.concat([_models(settings, seed) for seed in settings.seeds], ignore_index=True)
    found = {"models": models, "capacity": capacity, "needed": _needed(capacity)}
    return {name: table.round(4) for name, table in found.items()}


def _of_transformer(run: Run) -> pd.DataFrame:
    own = run.config.model
    people, n_neurons = run.config.population.n_individuals, N_MLPS * own.d_mlp
    n_weights = N_MLPS * (2 * own.d_mlp * own.d_model + own.d_mlp + own.d_model)
    accuracy = float(run.curve("attribute_accuracy").iloc[-1])
    bits = sum(
        float(run.curve("attribute_accuracy", attribute=name).iloc[-1]) * people * log2(len(pool))
        for name, pool in run.population.lexicon.values.items()
    )
    row = (people, n_neurons, n_weights, TRANSFORMER, accuracy, bits / n_weights)
    return pd.DataFrame([row], columns=list(CAPACITY_COLUMNS))


def _memories(settings: CompiledSettings, seed: int) -> Iterator[pd.DataFrame]:
    for people in settings.people:
        yield recall_capacity(settings.of(seed, people), settings.n_neurons).assign(seed=seed)
    for people in settings.descent_people:
        found = recall_capacity(
            settings.of(seed, people), settings.descent_neurons, n_steps=settings.descent_steps
        )
        yield found[found["memory"] == "gradient descent"].assign(seed=seed)


def _models(settings: CompiledSettings, seed: int) -> pd.DataFrame:
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        for variant, people in settings.models:
            config = settings.of(seed, people)
            if variant == "geometric":
                config = one_token_people(config, Path(folder) / str(people))
            compiled = compile_recall(config, variant)
            n_parameters = sum(weight.numel() for weight in compiled.model.parameters())
            asked = _asked(compiled, settings.n_measured)
            parts.append(
                asked.assign(variant=variant, n_individuals=people, n_parameters=n_parameters)
            )
    return pd.concat(parts, ignore_index=True).assign(seed=seed)[list(COLUMNS["models"])]


def _asked(compiled: CompiledRecall, n: int) -> pd.DataFrame:
    splits: tuple[Split, ...] = ("evaluation", "held_out")
    rows = [compiled.measure(split, n) for split in splits]
    found = pd.concat(rows).query("metric == 'attribute_accuracy' and attribute == 'all'")
    return found.rename(columns={"value": "accuracy"})[["split", "accuracy"]]


def _needed(capacity: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for key, cells in capacity.groupby(["seed", "memory", "n_individuals"], sort=True):
        own = cells.sort_values("n_neurons")
        if (n := neurons_needed(list(own["n_neurons"]), list(own["accuracy"]))) is not None:
            rows.append((*key, n))
    return pd.DataFrame(rows, columns=list(COLUMNS["needed"]))


def neurons_needed(n_neurons: Sequence[int], accuracy: Sequence[float]) -> float | None:
    """At how many neurons accuracy first reaches nine in ten, by logarithms between two measured numbers.

    Returns:
        None where no number reaches it, or the smallest one does already.
    """
    pairs = list(zip(n_neurons, accuracy, strict=True))
    if accuracy[0] >= HELD:
        return None
    for (few, low), (many, high) in itertools.pairwise(pairs):
        if low < HELD <= high:
            share = (HELD - low) / (high - low)
            return exp(log(few) + share * (log(many) - log(few)))
    return None


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The study's figures, by anchor."""
    there = complete(tables, COLUMNS)
    found = {}
    if len(there["capacity"]):
        found["compiled-capacity"] = plots.capacity(there["capacity"])
    if len(there["needed"]):
        found["compiled-needed"] = plots.needed(there["needed"])
    return found


def claims(tables: Tables) -> list[Claim]:
    """What is claimed of compiled models, held against tables as made or read back from CSV."""
    return held_against(complete(tables, COLUMNS))


STUDY = Study("compiled", __doc__, CompiledSettings, planned, tables, figures, claims)
