"""The runs of the robustness study, one setting changed at a time, and its tables."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
from pydantic import Field, field_validator

from interp.config import Config
from interp.plateau import FACTS, WHOLE_FACTS, plateau_facts
from interp.run import Run
from interp.studies.collect import collect
from interp.studies.study import Planned, StudySettings, each_once

DEFAULT, RECURRENT = "default", "recurrent"
"""Names of two variants."""
FAMILIES = ("learning rate", "weight decay", "batch size", "model size", "recurrence")
"""What is varied."""


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

    varies: ClassVar[frozenset[str]] = frozenset(
        {"optimizer.learning_rate", "optimizer.weight_decay", "training.batch_size"}
        | {"training.stop_below", "model.n_layers", "model.d_model", "model.n_heads"}
        | {"model.d_mlp", "model.recurrence"}
    )

    @field_validator(
        "learning_rate", "weight_decay", "batch_size", "n_layers", "d_model", "recurrent_seeds"
    )
    @classmethod
    def _values_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return each_once("values to try", values) if values else values

    def cell(self, seed: int, **changes: Any) -> Config:
        """The settings of one run: those that all share, then `changes`."""
        shared = {
            "optimizer.schedule": "constant",
            "training.n_steps": self.n_steps,
            "training.stop_below": 0.5,  # of the baseline: the plateau is long over
            "training.early_checkpoints": (0,),
            "training.checkpoint_every": self.n_steps,
            "evaluation.every": 10,
            "evaluation.splits": ("evaluation",),
        }
        return self.config(seed, **(shared | changes))


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
    cells: list[Variant] = []
    for seed in settings.seeds:
        base = settings.cell(seed)
        cells.append(Variant(DEFAULT, DEFAULT, base))
        for family, variant, changes in _changes(settings, base):
            config = settings.cell(seed, **changes)
            if config != base:
                cells.append(Variant(family, variant, config))
    for seed in settings.recurrent_seeds:
        # Whole, and with the preset's checkpoints: this is the run that people open.
        preset = settings.config(seed).training
        whole = {
            "model.recurrence": "rg_lru",
            "training.stop_below": None,
            "training.early_checkpoints": preset.early_checkpoints,
            "training.checkpoint_every": preset.checkpoint_every,
        }
        cells.append(Variant("recurrence", RECURRENT, settings.cell(seed, **whole)))
    return cells


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


_VARIED = (
    "family", "variant", "seed", "n_individuals", "learning_rate", "weight_decay", "batch_size",
    "n_layers", "d_model", "recurrence",
)  # fmt: skip
_CURVES = ("variant", "seed", "step", "loss", "accuracy")


def tables(settings: RobustnessSettings, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """What each run's curve shows, and the curves.

    Args:
        settings: Those that the runs were planned with.
        runs: The finished ones, in any order.

    Returns:
        `runs`: a row for each planned run, NA where it is missing: `family`, `variant`, `seed`,
        `n_individuals`, what is varied (`learning_rate`, `weight_decay`, `batch_size`, `n_layers`,
        `d_model`, `recurrence`), and the columns of `plateau_facts`. `curves`: `variant`, `seed`,
        `step`, `loss` (a share of the baseline) and `accuracy` (a share) on evaluation biographies.
    """
    finished = {_key(run.config): run for run in runs}
    cells = variants(settings)
    measured = [cell for cell in cells if _key(cell.config) in finished]

    def curve(cell: Variant) -> pd.DataFrame:
        run = finished[_key(cell.config)]
        loss = run.curve() / run.phase_baseline
        accuracy = run.curve("attribute_accuracy")
        return pd.DataFrame({"loss": loss, "accuracy": accuracy}).rename_axis("step")

    def row(cell: Variant) -> dict[str, Any]:
        config = cell.config
        parts = (config.population, config.optimizer, config.training, config.model)
        known = {name: value for part in parts for name, value in part if name in _VARIED}
        known |= {"family": cell.family, "variant": cell.variant, "seed": config.seed}
        known["recurrence"] = config.model.recurrence or "none"
        facts = plateau_facts(curve(cell), config.training.batch_size) if cell in measured else {}
        return known | facts

    def of_cell(cell: Variant) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
        apart = {"variant": cell.variant, "seed": cell.config.seed}
        return apart, {"curves": curve(cell).reset_index()}

    table = pd.DataFrame([row(cell) for cell in cells], columns=[*_VARIED, *FACTS])
    return {
        "runs": table.round(5).astype(dict.fromkeys(WHOLE_FACTS, "Int64")),
        "curves": collect(measured, of_cell, {"curves": _CURVES})["curves"].round(4),
    }


def _key(config: Config) -> str:
    return repr(sorted(config.identity().items()))
