"""Whether the three phases of learning depend on how a model is trained (paper, section 3).

One setting is changed at a time: learning rate, weight decay, batch size, the model's size, and
recurrence in the place of attention. The learning rate is constant, so that how long a run was meant
to be does not matter, and a run ends once it has left its plateau well behind. Only the recurrent run
goes on to the last step with all checkpoints, since it is to be looked at whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field, field_validator, model_validator

from interp.config import Config
from interp.errors import ConfigError
from interp.experiments.study import Planned, StudySettings, each_once

DEFAULT = "default"
RECURRENT = "recurrent"
"""Names of two variants."""
STOP_BELOW = 0.5
"""The share of the baseline below which a run ends: the plateau is long over."""


class RobustnessSettings(StudySettings):
    """Settings of the study; a value that the preset has anyway is not trained twice."""

    learning_rate: tuple[float, ...] = (3.75e-4, 7.5e-4, 3e-3, 6e-3)
    """Learning rates to try beside the preset's."""
    weight_decay: tuple[float, ...] = (0.01, 1.0)
    """Weight decays to try."""
    batch_size: tuple[int, ...] = (16, 64, 128)
    """Biographies per step to try."""
    n_layers: tuple[int, ...] = (1, 4)
    """Numbers of layers to try."""
    d_model: tuple[int, ...] = (64, 256)
    """Widths to try; heads stay as wide as they are, and MLPs as many times wider than the stream."""
    recurrent_seeds: tuple[int, ...] = (0,)
    """Seeds of the recurrent variant; none leaves it out."""
    n_steps: int = Field(default=1500, ge=1)
    """The last step of a run that does not leave its plateau before, and of recurrent runs."""

    @field_validator("learning_rate", "weight_decay", "batch_size", "n_layers", "d_model")
    @classmethod
    def _values_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return each_once("values to try", values) if values else values

    @field_validator("recurrent_seeds")
    @classmethod
    def _recurrent_seeds_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return each_once("recurrent_seeds", seeds) if seeds else seeds

    @model_validator(mode="after")
    def _varied_settings_are_free(self) -> "RobustnessSettings":
        if fixed := sorted(set(self.run) & _VARIED):
            raise ConfigError(
                f"run: {', '.join(fixed)} is what this study varies or decides itself, so it cannot be "
                "the same for all runs; leave it out there."
            )
        return self

    def cell(self, seed: int, **changes: Any) -> Config:
        """The settings of one run: those that all share, then `changes`."""
        shared = {
            "optimizer.schedule": "constant",
            "training.n_steps": self.n_steps,
            "training.stop_below": STOP_BELOW,
            "training.early_checkpoints": (0,),
            "training.checkpoint_every": self.n_steps,
            "evaluation.every": 10,
            "evaluation.splits": ("evaluation",),
        }
        return self.config(seed, **(shared | changes))


_VARIED = {
    "optimizer.learning_rate",
    "optimizer.weight_decay",
    "training.batch_size",
    "training.stop_below",
    "model.n_layers",
    "model.d_model",
    "model.n_heads",
    "model.d_mlp",
    "model.recurrence",
}


@dataclass(frozen=True)
class Variant:
    """One cell of the study: what is changed, and the settings of its run.

    Attributes:
        family: What kind of setting is changed, e.g. "learning rate".
        variant: Its value in words, e.g. "learning rate 0.003".
        config: The run.
    """

    family: str
    variant: str
    config: Config


def variants(settings: RobustnessSettings) -> list[Variant]:
    """All cells, the preset's own values first."""
    found: list[Variant] = []
    for seed in settings.seeds:
        base = settings.cell(seed)
        found.append(Variant(DEFAULT, DEFAULT, base))
        for family, variant, changes in _changes(settings, base):
            config = settings.cell(seed, **changes)
            if config != base:
                found.append(Variant(family, variant, config))
    for seed in settings.recurrent_seeds:
        # Whole, and with the preset's checkpoints: this is the run that people open.
        preset = settings.config(seed).training
        whole = {
            "model.recurrence": "rg_lru",
            "training.stop_below": None,
            "training.early_checkpoints": preset.early_checkpoints,
            "training.checkpoint_every": preset.checkpoint_every,
        }
        found.append(Variant("recurrence", RECURRENT, settings.cell(seed, **whole)))
    return found


def _changes(
    settings: RobustnessSettings, base: Config
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for rate in settings.learning_rate:
        yield "learning rate", f"learning rate {rate:g}", {"optimizer.learning_rate": rate}
    for decay in settings.weight_decay:
        yield "weight decay", f"weight decay {decay:g}", {"optimizer.weight_decay": decay}
    for size in settings.batch_size:
        yield "batch size", f"batch size {size}", {"training.batch_size": size}
    for n in settings.n_layers:
        yield "model size", f"{n} layer{'s' if n > 1 else ''}", {"model.n_layers": n}
    for width in settings.d_model:
        model = base.model
        changes = {
            "model.d_model": width,
            "model.n_heads": max(1, width // model.d_head),
            "model.d_mlp": width * model.d_mlp // model.d_model,
        }
        yield "model size", f"width {width}", changes


def runs(settings: RobustnessSettings) -> Sequence[Planned]:
    """The runs that the settings ask for."""
    return [Planned(cell.config) for cell in variants(settings)]
