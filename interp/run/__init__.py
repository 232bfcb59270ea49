"""A run on disk: its settings, checkpoints and metrics."""

from interp.run.base import finetuned, resolve_base
from interp.run.checkpoints import (
    checkpoint_path,
    checkpoint_steps,
    fingerprint,
    load_checkpoint,
    write_checkpoint,
)
from interp.run.environment import describe_environment, resolve_device, resolve_precision
from interp.run.metrics import MetricsWriter, keep_until, observation, read_metrics
from interp.run.other_run import describe_other_run
from interp.run.reference import own_patch, reference_patch, resolve_reference
from interp.run.run import Run

__all__ = [
    "MetricsWriter",
    "Run",
    "checkpoint_path",
    "checkpoint_steps",
    "describe_environment",
    "describe_other_run",
    "finetuned",
    "fingerprint",
    "keep_until",
    "load_checkpoint",
    "observation",
    "own_patch",
    "read_metrics",
    "reference_patch",
    "resolve_base",
    "resolve_device",
    "resolve_precision",
    "resolve_reference",
    "write_checkpoint",
]
