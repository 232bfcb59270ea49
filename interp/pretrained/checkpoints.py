"""Checkpoints of a training that was not ours, as a series: folders by step, or revisions on the hub."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from interp.errors import ArgumentError, CheckpointError, whole_number
from interp.phases import Phases
from interp.pretrained.folder import ModelFolder, place
from interp.pretrained.load import load_model, model_path
from interp.series import Device


@dataclass(frozen=True)
class Series:
    """Checkpoints of one training, one model in memory at a time.

    Attributes:
        checkpoints: For each step a folder as `save_pretrained` writes it.
        known_phases: The phases of the training, if they are known.

    Raises:
        ArgumentError: there is no checkpoint, a step is no whole number from 0, or the models differ in
            architecture or size.
        CheckpointError: a folder holds no whole model.

    Example:
        ```python
        series = interp.Series({100: "out/checkpoint-100", 200: "out/checkpoint-200"})
        interp.attention_to_names(series, texts=facts.texts)
        ```
    """

    checkpoints: Mapping[int, Any]
    known_phases: Phases | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.checkpoints, Mapping) or not self.checkpoints:
            raise ArgumentError(
                f"checkpoints={self.checkpoints!r}: give at least one folder by its step, such as "
                "{100: 'out/checkpoint-100'}."
            )
        by_step = {}
        for step, folder in self.checkpoints.items():
            if not isinstance(folder, str | Path):
                raise ArgumentError(
                    f"The checkpoint of step {step!r} is {type(folder).__name__}; give a folder. Models that "
                    "are in memory are a series as {step: model}, without interp.Series."
                )
            by_step[whole_number(step, "a step", 0)] = place(folder).absolute()
        object.__setattr__(self, "checkpoints", dict(sorted(by_step.items())))
        self._require_alike()

    def _require_alike(self) -> None:
        """Checks that the folders hold models of one architecture and size."""
        found = {step: ModelFolder.of(Path(at)).shape for step, at in self.checkpoints.items()}
        first = min(found)
        for step, shape in found.items():
            for name in {**found[first], **shape}:
                if shape.get(name) != found[first].get(name):
                    raise ArgumentError(
                        f"The models are not of one training: {name} is {found[first].get(name)} at step "
                        f"{first} and {shape.get(name)} at step {step}. Give checkpoints of one model."
                    )

    @classmethod
    def of_folder(cls, folder: str | Path, known_phases: Phases | None = None) -> "Series":
        """The checkpoints in one folder, as transformers' Trainer writes them (`checkpoint-500`).

        Those are the folders in it whose names end with a number, the step.

        Raises:
            CheckpointError: there is none.
        """
        path = place(folder)
        below = path.iterdir() if path.is_dir() else []
        found: dict[int, Path] = {}
        for one in below:
            digits = one.name[len(one.name.rstrip("0123456789")) :]
            if digits and one.is_dir():
                if int(digits) in found:
                    raise CheckpointError(
                        f"{path} has two folders of step {int(digits)}: {found[int(digits)].name} and "
                        f"{one.name}. Give interp.Series({{step: folder, ...}})."
                    )
                found[int(digits)] = one
        if not found:
            raise CheckpointError(
                f"{path} has no folder whose name ends with a step, such as checkpoint-500. Give "
                "interp.Series({step: folder, ...})."
            )
        return cls(found, known_phases)

    @staticmethod
    def of_hub(
        name: str,
        steps: Sequence[int],
        revision: str = "step{}",
        known_phases: Phases | None = None,
    ) -> "HubSeries":
        """Checkpoints that are revisions of one model on the hub; see `HubSeries`."""
        if isinstance(steps, str) or not isinstance(steps, Iterable):
            raise ArgumentError(f"steps={steps!r}: give steps in a list, such as [1000, 4000].")
        return HubSeries(name, tuple(steps), revision, known_phases)

    @property
    def steps(self) -> list[int]:
        """The steps, increasing."""
        return list(self.checkpoints)

    def models(
        self, steps: Sequence[int], device: Device = None
    ) -> Iterator[tuple[int, TransformerBridge]]:
        """The models, loaded one after the other; each is dropped when the next is asked for."""
        for step in steps:
            yield step, load_model(self.checkpoints[step], device=device)


@dataclass(frozen=True)
class HubSeries:
    """Checkpoints that are revisions of one model on the hub, such as those of Pythia.

    Each is downloaded when it is first needed and stays in the hub's local cache, so that a job that was
    cut off goes on where it was, and all works offline with what is there.

    Attributes:
        name: The model, such as "EleutherAI/pythia-160m".
        at: The steps.
        revision: How a revision is called, with {} for the step.
        known_phases: The phases of the training, if they are known.

    Raises:
        ArgumentError: no step, or a step that is no whole number from 0.
        CheckpointError: (when a model is asked for) it is not in the cache and cannot be downloaded.
    """

    name: str
    at: Sequence[int]
    revision: str = "step{}"
    known_phases: Phases | None = None
    _shape: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.at:
            raise ArgumentError("steps=[] names no checkpoint; give at least one step.")
        try:
            fits = self.revision.format(0) != self.revision.format(1)
        except (
            AttributeError,
            IndexError,
            KeyError,
            ValueError,
        ):  # no text, or no format of a number
            fits = False
        if not fits:
            raise ArgumentError(
                f"revision={self.revision!r} has no {{}} for the step, such as 'step{{}}'."
            )
        steps = sorted({whole_number(step, "a step", 0) for step in self.at})
        object.__setattr__(self, "at", tuple(steps))

    @property
    def steps(self) -> list[int]:
        """The steps, increasing."""
        return list(self.at)

    def models(
        self, steps: Sequence[int], device: Device = None
    ) -> Iterator[tuple[int, TransformerBridge]]:
        """The models, one after the other; each is dropped when the next is asked for."""
        for step in steps:
            folder = model_path(self.name, self.revision.format(step))
            shape = ModelFolder.of(folder).shape
            if self._shape and shape != self._shape:
                raise ArgumentError(
                    f"The model of {self.name} at step {step} has another architecture or size than at the "
                    "steps before. Give checkpoints of one model."
                )
            self._shape.update(shape)
            yield step, load_model(folder, device=device)
