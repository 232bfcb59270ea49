"""A run on disk: its settings, checkpoints and metrics."""

from interp.run.checkpoints import (
    checkpoint_path,
    checkpoint_steps,
    fingerprint,
    load_checkpoint,
    write_checkpoint,
)
from interp.run.environment import describe_environment, resolve_device, resolve_precision
from interp.run.metrics import MetricsWriter, keep_until, read_metrics
from interp.run.run import Run

__all__ = [
    "MetricsWriter",
    "Run",
    "checkpoint_path",
    "checkpoint_steps",
    "describe_environment",
    "fingerprint",
    "keep_until",
    "load_checkpoint",
    "read_metrics",
    "resolve_device",
    "resolve_precision",
    "write_checkpoint",
]
