"""Training a run: the loop, its optimizer, and its folder."""

from interp.training.loop import train
from interp.training.optimizer import learning_rate

__all__ = ["learning_rate", "train"]
