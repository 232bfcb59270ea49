"""Models that were not trained here, and their checkpoints."""

from interp.pretrained.checkpoints import HubSeries, Series
from interp.pretrained.folder import ModelFolder
from interp.pretrained.load import adds_bos, load_model, model_path

__all__ = ["HubSeries", "ModelFolder", "Series", "adds_bos", "load_model", "model_path"]
