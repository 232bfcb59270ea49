"""Fine-tuning on new people.

What becomes of what a model knew when it is fine-tuned on new people, what does replay save, and where is
the damage done? (paper, Fig. 5, N, O, P)

Command: interp batch finetuning --out artifacts/studies --workers 2
Duration: 18 runs of 500 steps (about half a minute each on one core), and 6 that they start from

A model that knows the people of its training goes on with new people only, or with old ones replayed
at several weights; another, trained on people of whom some come rarely, goes on with the rare. Beside
what is known of whom, three things are followed: attention to names, the keys of old people in MLP
layers, and the weights. Where the damage is done is seen by *transplanting*: single parts of the
fine-tuned model are put into the model before, and back.
All comparisons are with step 0 of the fine-tuned run itself, whose weights are the base's.
"""

from collections.abc import Callable, Sequence
from math import nan
from typing import Any, ClassVar

import pandas as pd
import plotly.graph_objects as go
from pydantic import Field, field_validator

from interp.attention.names import attention_to_names, by_layer
from interp.config import Config
from interp.errors import ConfigError
from interp.knowledge import measured_individuals, split_batch
from interp.memory.activations import cache_activations, draw_batches
from interp.memory.keys import key_turns
from interp.memory.transplant import transplants, weight_changes
from interp.plots import finetuning as plots
from interp.run import Run, finetuned
from interp.series import nearest_steps, table_over_steps
from interp.studies.collect import collect, complete
from interp.studies.distribution import DistributionSettings
from interp.studies.finetuning_claims import held_against
from interp.studies.finetuning_measured import READ
from interp.studies.rules import Claim
from interp.studies.study import Planned, Study, StudySettings, Tables, each_once

ATTENTION = ("name_to_name", "attribute_to_name", "name_sharpness", "attribute_sharpness")
"""Attention measures that are followed (see `interp.attention.names`)."""
_APART = ("seed", "variant", "replay_weight")
_COLUMNS = {
    "scale": (*_APART, "people", "old_people", "learning_rate", "base_learning_rate"),
    "curves": (*_APART, "step", "split", "metric", "value"),
    "attention": (*_APART, "step", "split", "layer", "metric", "value"),
    "keys": (*_APART, "step", "layer", "position", "value", "control"),
    "weights": (*_APART, "layer", "part", "value"),
    "transplants": (*_APART, "transplant", "part", "split", "value"),
}


class FinetuningSettings(StudySettings):
    """Settings of the study of fine-tuning.

    `run` changes the base runs; fine-tuned runs have their base's settings but for those named here.
    """

    n_steps: int = Field(default=500, ge=1)
    """Steps of fine-tuning."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """The constant learning rate of fine-tuning."""
    checkpoints: tuple[int, ...] = (0, 2, 5, 10, 20, 50, 100, 200)
    """Steps of fine-tuning with a checkpoint, beside the last one."""
    every: int = Field(default=10, ge=1)
    """Steps of fine-tuning between measurements."""
    replay_weights: tuple[float | None, ...] = (None, 1 / 32, 1 / 8, 1 / 2, 2.0)
    """How likely each old person is, against 1 for a new one; None: no replay."""
    rare_exponent: float = Field(default=0.6, ge=0)
    """Exponent of the power law that the base of fine-tuning on rare people was trained with: such that
    these are known about half, as in the paper."""
    rare_population: int = Field(default=512, ge=2)
    """How many people that base was trained on."""
    rare_base_steps: int = Field(default=1000, ge=1)
    """Steps of that base."""
    n_rare: int = Field(default=128, ge=1)
    """How many of these people, the rarest, fine-tuning is on."""

    varies: ClassVar[frozenset[str]] = frozenset(
        {"sampling", "finetuning", "population.n_individuals"}
    )

    @field_validator("replay_weights")
    @classmethod
    def _weights_once(cls, weights: tuple[float | None, ...]) -> tuple[float | None, ...]:
        return each_once("replay_weights", weights)

    def rare_base(self, seed: int) -> Config:
        """The run that fine-tuning on rare people starts from: one of the study of power laws."""
        settings = DistributionSettings(
            preset=self.preset, seeds=self.seeds, run=self.run, n_steps=self.rare_base_steps
        )
        sampling = {"kind": "power_law", "exponent": self.rare_exponent}
        return settings.distribution(seed, self.rare_population, sampling)

    def finetuning(self, base: Config, **changes: Any) -> Planned:
        """A run that goes on from the last checkpoint of another."""
        every = {
            "sampling": {"kind": "uniform"},
            "optimizer.schedule": "constant",
            "optimizer.learning_rate": self.learning_rate,
            "training.n_steps": self.n_steps,
            "training.stop_at": None,
            "training.stop_below": None,
            "training.early_checkpoints": self.checkpoints,
            "training.checkpoint_every": self.n_steps,
            "evaluation.every": self.every,
            "evaluation.splits": ("evaluation", "finetuned"),
        }
        return Planned(finetuned(base, **(every | changes)), Planned(base))


def planned(settings: FinetuningSettings) -> list[Planned]:
    """The runs that settings ask for: on new people with each replay weight, and on rare ones.

    Raises:
        ConfigError: the model has no attention to be read, or there are too few people.
    """
    if (recurrence := settings.config(settings.seeds[0]).model.recurrence) is not None:
        raise ConfigError(
            f"finetuning: model.recurrence={recurrence!r} has no attention, which this study reads; leave "
            "it out."
        )
    new = {"finetuning.people": "new"}
    runs = [
        settings.finetuning(settings.config(seed), **new, **{"finetuning.replay_weight": weight})
        for weight in settings.replay_weights
        for seed in settings.seeds
    ]
    rare = {"finetuning.people": "rare", "finetuning.n_individuals": settings.n_rare}
    return runs + [settings.finetuning(settings.rare_base(s), **rare) for s in settings.seeds]


def tables(settings: FinetuningSettings, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """What the finished runs measured.

    Returns:
        Tables that begin with `seed`, `variant` ("new" or "rare" people), `replay_weight` (NaN: none):

        "scale": `people` of fine-tuning and `old_people`, `learning_rate` and `base_learning_rate`.
        "curves": `step`, `split` ("evaluation": old people, "finetuned"), `metric` ("attribute_loss" in
        nats, "attribute_accuracy", a share), `value`.
        "attention": `step`, `split`, `layer`, `metric` (`ATTENTION`), `value`, the mean over heads.
        "keys": `step`, and of old people against step 0 the columns of `memory.key_turns`.
        "weights": of the last step against step 0 the columns of `memory.weight_changes`.
        "transplants": the columns of `memory.transplants`, between the same two.
    """

    def of_run(run: Run) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
        weight = run.config.finetuning.replay_weight
        apart = {
            "seed": run.config.seed,
            "variant": run.config.finetuning.people,
            "replay_weight": nan if weight is None else weight,
        }
        return apart, measures(run)

    found = collect(runs, of_run, _COLUMNS)
    return {name: table if name == "scale" else table.round(5) for name, table in found.items()}


def measures(run: Run) -> dict[str, pd.DataFrame]:
    """The tables of one fine-tuned run, without the columns that tell runs apart."""
    config, base = run.config, run.base
    assert base is not None  # what these studies train starts from one
    rare = config.finetuning.people == "rare"
    scale = {
        "people": config.n_finetuned,
        "old_people": config.population.n_individuals - (config.n_finetuned if rare else 0),
        "learning_rate": config.optimizer.learning_rate,
        "base_learning_rate": base.config.optimizer.learning_rate,
    }
    most = config.evaluation.n_individuals
    # All old people may be among those of fine-tuning.
    splits = [split for split in READ if len(measured_individuals(run.corpus, split))]
    few = nearest_steps(run.steps, [share * run.steps[-1] for share in (0, 0.1, 0.4, 1)])
    attention = [
        by_layer(attention_to_names(run, few, most, split)).assign(split=split) for split in splits
    ]
    read = pd.concat(attention, ignore_index=True)
    old = measured_individuals(run.corpus, "evaluation", most)
    batches = draw_batches(run.corpus, old, "evaluation", (0,))
    before, after = (run.model(run.steps[i]) for i in (0, -1))
    keys = cache_activations(before, batches, sites=[])
    return {
        "scale": pd.DataFrame([scale]),
        "curves": run.metrics.query(
            "attribute == 'all' and split in @READ and metric in ('attribute_loss', 'attribute_accuracy')"
        ),
        "attention": read[read["metric"].isin(ATTENTION)],
        "keys": table_over_steps(
            run, lambda model: key_turns(keys, cache_activations(model, batches, sites=[])), few
        ),
        "weights": weight_changes(before, after),
        "transplants": transplants(
            before, after, {split: split_batch(run.corpus, split, most) for split in splits}
        ),
    }


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The study's figures, by anchor."""
    drawn: dict[str, tuple[str, Callable[[pd.DataFrame], go.Figure]]] = {
        "finetuning-curves": ("curves", plots.accuracy_curves),
        "finetuning-tradeoff": ("curves", plots.old_against_new),
        "finetuning-attention": ("attention", plots.attention_curves),
        "finetuning-transplants": ("transplants", plots.transplants),
        "finetuning-weights": ("weights", plots.weight_movement),
        "finetuning-keys": ("keys", plots.key_movement),
    }
    there = complete(tables, _COLUMNS)
    return {anchor: draw(there[n]) for anchor, (n, draw) in drawn.items() if len(there[n])}


def claims(tables: Tables) -> list[Claim]:
    """The paper's statements about fine-tuning, held against tables as made or read back from CSV."""
    return held_against(complete(tables, _COLUMNS))


STUDY = Study("finetuning", __doc__, FinetuningSettings, planned, tables, figures, claims)
