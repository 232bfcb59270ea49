"""A trained associative memory on disk.

Folder layout:

    config.yaml                the settings
    metrics.jsonl              one observation a line
    pretrained.safetensors     weights after pre-training
    finetuned.safetensors      weights after fine-tuning
    finished.json              written last: present once training has ended
"""

from functools import cached_property
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from interp.associative_memory.config import AssociativeMemoryConfig
from interp.associative_memory.model import AssociativeMemory
from interp.associative_memory.pairs import Pairs
from interp.ending import require_unchanged
from interp.errors import CheckpointError, ConfigError, RunError
from interp.files import Layout, absolute, read_tensors
from interp.reading import MAX_DOCUMENT, DamageError, read_json_lines, read_text
from interp.torch_state import default_state

PHASES = ("pretraining", "finetuning")
COLUMNS = ("phase", "step", "split", "metric", "value")
"""The columns of a table of metrics."""
_WEIGHTS = {"pretraining": "pretrained.safetensors", "finetuning": "finetuned.safetensors"}
LAYOUT: Layout = {
    "": r"config\.yaml|metrics\.jsonl|(pretrained|finetuned)\.safetensors|finished\.json"
}
"""Everything that is written into a run's folder."""


class _Observation(BaseModel):
    """A line of the metrics."""

    model_config = ConfigDict(strict=True)

    phase: Literal["pretraining", "finetuning"]
    step: int = Field(ge=0)
    split: Literal["old", "new"]
    metric: Literal["accuracy", "loss"]
    value: float = Field(allow_inf_nan=False)


class AssociativeMemoryRun:
    """A run's settings, measurements and weights in the folder `path`."""

    def __init__(self, path: Path | str) -> None:
        self.given = Path(path)
        self.path = absolute(path)
        self.config_path = self.path / "config.yaml"
        self.metrics_path = self.path / "metrics.jsonl"
        self.finished_path = self.path / "finished.json"

    @classmethod
    def load(cls, path: Path | str) -> "AssociativeMemoryRun":
        """Opens the run in a folder.

        Raises:
            RunError: the folder is missing, or holds no run of an associative memory.
        """
        run = cls(path)
        if not run.config_path.is_file():
            raise RunError(
                f"{run.given} holds no run (config.yaml is missing). Give the folder that an "
                "associative memory was trained into."
            )
        _ = run.config
        return run

    def weights_path(self, phase: str) -> Path:
        """The file of the weights at the end of a phase, "pretraining" or "finetuning"."""
        return self.path / _WEIGHTS[phase]

    @property
    def finished(self) -> bool:
        """Whether training has ended and its files are there."""
        needed = [self.metrics_path, *(self.weights_path(phase) for phase in PHASES)]
        return self.finished_path.is_file() and all(path.is_file() for path in needed)

    @cached_property
    def config(self) -> AssociativeMemoryConfig:
        """The run's settings."""
        try:
            return AssociativeMemoryConfig.from_yaml(read_text(self.config_path, MAX_DOCUMENT))
        except (ConfigError, DamageError) as error:
            raise RunError(
                f"{self.config_path} is not of an associative memory of this version. {error}"
            ) from error

    @property
    def metrics(self) -> pd.DataFrame:
        """All that was measured, on all pairs: the columns `COLUMNS`.

        `phase` is "pretraining" or "finetuning", and `step` counts from the beginning of the phase;
        `split` is "old" or "new" pairs; `metric` is "accuracy" (share of keys whose value has the
        highest logit) or "loss" (nats). A RunError if the file is missing or damaged.
        """
        again = f"Delete {self.finished_path} and train the run again."
        try:
            rows = [vars(row) for *_, row in read_json_lines(self.metrics_path, _Observation)]
            if not rows:
                raise DamageError("it holds no observation")
        except DamageError as damage:
            raise RunError(f"{self.metrics_path} is damaged: {damage}. {again}") from None
        require_unchanged(self.path, self.metrics_path.name, again)
        return pd.DataFrame(rows, columns=list(COLUMNS))

    @cached_property
    @default_state()
    def pairs(self) -> Pairs:
        """The old and new pairs."""
        return Pairs.draw(self.config)

    @default_state()
    def model(
        self, phase: Literal["pretraining", "finetuning"] = "finetuning"
    ) -> AssociativeMemory:
        """The memory as it was at the end of a phase.

        Raises:
            CheckpointError: the weights are missing, damaged, or of another size.
        """
        path = self.weights_path(phase)
        tensors, _ = read_tensors(path)
        model = AssociativeMemory(self.config.model, self.config.seed)
        wanted = {name: value.shape for name, value in model.state_dict().items()}
        if {name: tensor.shape for name, tensor in tensors.items()} != wanted:
            raise CheckpointError(
                f"{path} does not hold the weights of this run's model. Delete {self.finished_path} "
                "and train the run again."
            )
        model.load_state_dict(tensors)
        return model.eval()

    @default_state()
    def movement(self) -> pd.DataFrame:
        """How far fine-tuning moved each hidden unit's key and value.

        Returns:
            Columns `neuron`, `part` ("key": input weights, "value": output weights), `value`: the
            norm of the change as a share of the norm before.
        """
        before, after = self.model("pretraining"), self.model("finetuning")
        tables = []
        for part in ("key", "value"):
            old, new = getattr(before, f"{part}s"), getattr(after, f"{part}s")
            moved = ((new - old).norm(dim=1) / old.norm(dim=1)).tolist()
            tables.append(pd.DataFrame({"neuron": range(len(moved)), "part": part, "value": moved}))
        return pd.concat(tables, ignore_index=True)
