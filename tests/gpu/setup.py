"""What the parts measure: the device, the settings, and how much of it."""

from dataclasses import dataclass
from pathlib import Path

import torch

from interp import Config, preset
from interp.run import resolve_device, resolve_precision

WARM_UP = 3
"""Steps before the first that is timed."""


@dataclass(frozen=True)
class Setup:
    """What is measured, and where.

    Attributes:
        device: "cuda", "cuda:1" or "cpu".
        preset: The large model: `paper`, or `smoke` to see that everything runs.
        folder: For runs, which are deleted in the end.
    """

    device: str
    preset: str
    folder: Path

    @property
    def whole(self) -> bool:
        """Whether sizes are those that the numbers are about; else everything is as short as it can be."""
        return self.preset != "smoke"

    @property
    def large(self) -> Config:
        """The settings of the large model, on the device."""
        return preset(self.preset, **{"training.device": self.device})

    @property
    def small(self) -> Config:
        """The settings of the small one."""
        return preset("tiny" if self.whole else "smoke", **{"training.device": self.device})

    @property
    def steps(self) -> int:
        """Steps of a training that is timed."""
        return 300 if self.whole else 8

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and tokens of the paper's batches."""
        return (128, 512) if self.whole else (4, 64)

    @property
    def on_card(self) -> bool:
        """Whether the device is a card."""
        return self.torch_device.type == "cuda"

    @property
    def torch_device(self) -> torch.device:
        """The device as PyTorch has it."""
        return torch.device(self.device)

    @property
    def precision(self) -> str:
        """The precision in which runs are trained there, bf16 or fp32."""
        return resolve_precision(self.large.training, resolve_device(self.device))

    def finish(self) -> None:
        """Waits until the card has done what it was given."""
        if self.on_card:
            torch.cuda.synchronize(self.torch_device)

    def forget_peak(self) -> None:
        """Begins to look for the peak of the card's memory anew."""
        if self.on_card:
            torch.cuda.reset_peak_memory_stats(self.torch_device)

    def peak(self) -> float | None:
        """The most memory of the card that tensors took, in GiB; None without a card."""
        if not self.on_card:
            return None
        return torch.cuda.max_memory_allocated(self.torch_device) / 2**30
