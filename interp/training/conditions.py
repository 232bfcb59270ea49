"""The conditions of a training: what its bytes depend on beside the settings and the code."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from interp.config import Config
from interp.errors import printable
from interp.run import Run, describe_environment, describe_other_run
from interp.run.base import base_step


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Makes GPU kernels deterministic for the training, and puts back what was set before."""
    if device.type != "cuda":
        yield
        return
    memory: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    filled = memory.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS wants it for the same bits
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Every tensor would be filled when it is made: a kernel more for each. Nothing here reads one unwritten.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warned)
        memory.fill_uninitialized_memory = filled


def describe_conditions(
    config: Config,
    device: torch.device,
    precision: str,
    n_processes: int,
    reference: Run | None,
    base: Run | None,
) -> dict[str, Any]:
    """What `environment.json` records of a training before it begins.

    `reference` and `base` are the runs that the settings take attention patterns and weights from.
    """
    environment = describe_environment(device, precision)
    if n_processes > 1:
        environment["processes"] = n_processes
    step = config.patching.reference_step
    if reference is not None and step is not None:
        environment |= describe_other_run("reference", reference, step)
    if base is not None:
        environment |= describe_other_run("base", base, base_step(config, base))
    return environment


def warn_of_changes(now: dict[str, Any], before: dict[str, Any]) -> None:
    """Warns where a resumed run goes on under other conditions (see `describe_conditions`) than before."""
    names = ("device", "precision", "threads", "packages")
    changed = [
        f"{n}: {before.get(n)} before, {now[n]} now" for n in names if before.get(n) != now[n]
    ]
    processes = [environment.get("processes", 1) for environment in (before, now)]
    if processes[0] != processes[1]:
        changed.append(f"processes: {processes[0]} before, {processes[1]} now")
    for role in ("reference", "base"):
        if before.get(role) != now.get(role):
            changed.append(f"the {role} checkpoint was trained anew and has other weights now")
    if changed:
        warnings.warn(
            f"The run goes on in another environment ({printable('; '.join(changed))}): its numbers will "
            "not be those of an uninterrupted run to the last bit.",
            stacklevel=8,
        )
