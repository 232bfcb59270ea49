"""Fine-tuning a model that knows people on others, and what becomes of what it knew (paper, Fig. 5)."""

from typing import Any

from pydantic import Field, field_validator

from interp.config import Config
from interp.experiments.distribution import DistributionSettings
from interp.experiments.study import Planned, StudySettings, each_once
from interp.run import finetuned


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
    """How likely each old person is in fine-tuning on new people, against 1 for a new one; None: no
    replay."""
    rare_exponent: float = Field(default=1.0, ge=0)
    """Exponent of the power law that the base of fine-tuning on rare people was trained with."""
    rare_population: int = Field(default=1024, ge=2)
    """How many people that base was trained on."""
    rare_base_steps: int = Field(default=1000, ge=1)
    """Steps of that base."""
    n_rare: int = Field(default=256, ge=1)
    """How many of these people, the rarest, fine-tuning is on."""

    @field_validator("replay_weights")
    @classmethod
    def _weights_once(cls, weights: tuple[float | None, ...]) -> tuple[float | None, ...]:
        return each_once("replay_weights", weights)

    def base(self, seed: int) -> Config:
        """The run that fine-tuning on new people starts from: the preset as it is."""
        return self.config(seed)

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
    """The runs that settings ask for: on new people with each replay weight, and on rare ones."""
    runs = [
        settings.finetuning(
            settings.base(seed),
            **{"finetuning.people": "new", "finetuning.replay_weight": weight},
        )
        for weight in settings.replay_weights
        for seed in settings.seeds
    ]
    rare = {"finetuning.people": "rare", "finetuning.n_individuals": settings.n_rare}
    return runs + [settings.finetuning(settings.rare_base(s), **rare) for s in settings.seeds]
