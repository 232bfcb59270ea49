"""What this machine and installation have, and what each thing means (`interp doctor`)."""

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median

import torch
from packaging.requirements import Requirement

from interp.machine import memory_bytes
from interp.run.environment import has_bf16, resolve_device
from interp.seeds import number_of

_GIB = 2**30
_LITTLE_MEMORY, _LITTLE_DISK = 4 * _GIB, 2 * _GIB
_SIZE, _TIMES = 768, 9
"""Of the products that are timed."""
_FASTER = 1.2
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_OPTIONAL = {
    "jupyterlab": ("notebooks and the attention explorer", "pip install 'interp[notebooks]'"),
    "anywidget": ("the attention explorer in notebooks", "pip install 'interp[notebooks]'"),
    "ray": ("batches on a cluster", "pip install 'interp[ray]'"),
    "kaleido": ("figures as SVG or PNG", "pip install kaleido"),
    "gguf": ("models in GGUF files", "pip install gguf"),
}
"""Distributions that something needs and most do not: for what, and how to have them."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: What it is.
        found: What is there, with units.
        means: What follows from it, or what to do.
        good: False where nothing will work until it is mended.
    """

    what: str
    found: str
    means: str
    good: bool = True


def examine(folder: Path | str = ".") -> list[Finding]:
    """Looks at versions, processor, memory, device, bfloat16, what is optional, and the disk.

    Args:
        folder: Where runs are to be written.

    Returns:
        One finding each, in that order. Products in both precisions are timed, which takes a moment.
    """
    device = resolve_device("auto")
    return [
        _python(), _packages(), _processor(), _memory(), _device(device), _bf16(device), _optional(),
        _pictures(), _disk(Path(folder)),
    ]  # fmt: skip


def _python() -> Finding:
    return Finding("Python", platform.python_version(), f"at {sys.executable}")


def _packages() -> Finding:
    """Everything that is required, with the versions that are here."""
    if (own := _version("interp")) is None:
        means = "its requirements are not known: install it (make, or pip install --editable .)"
        return Finding("packages", "interp is not installed", means, good=False)
    there, wrong, needed = [], [], []
    for text in metadata.requires("interp") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement} is missing")
            needed.append(f"'{requirement}'")
            continue
        there.append(f"{requirement.name} {version}")
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
            needed.append(f"'{requirement}'")
    found = f"interp {own}; {', '.join(there)}"
    means = "all are in the ranges that are needed"
    if wrong:
        means = f"{'; '.join(wrong)}: pip install {' '.join(needed)}"
    return Finding("packages", found, means, not wrong)


def _processor() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = torch.get_num_threads()
    return Finding(
        "processor",
        f"{number_of(usable or 1, 'core')} usable, {number_of(threads, 'thread')}",
        "a run computes on that many threads (OMP_NUM_THREADS sets them); with another number its last "
        "bits differ, and workers of a batch take one each",
    )


def _memory() -> Finding:
    size = memory_bytes()
    if size is None:
        return Finding(
            "memory", "not known", "a worker that trains `tiny` or `small` takes 1 to 2 GiB"
        )
    means = "enough for several workers, which take 1 to 2 GiB each at `tiny` and `small`"
    if size < _LITTLE_MEMORY:
        means = "a worker that trains `tiny` or `small` takes 1 to 2 GiB: one at a time"
    return Finding("memory", f"{size / _GIB:.1f} GiB", means)


def _device(device: torch.device) -> Finding:
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        found = f"cuda: {about.name}, {about.total_memory / _GIB:.0f} GiB"
        return Finding("device", found, "runs and measures go there (training.device auto)")
    if device.type == "mps":
        return Finding("device", "mps", "runs and measures go to the GPU of this Mac")
    means = "runs compute on the CPU, a `tiny` one in a minute or two"
    if shutil.which("nvidia-smi"):
        cpu_only = torch.version.cuda is None
        why = "is for the CPU" if cpu_only else "does not find it: the driver may be too old"
        means += (
            f"; there is an NVIDIA driver, but this build of torch {why} (pytorch.org/get-started)"
        )
    return Finding("device", "cpu, no CUDA device and no GPU of a Mac", means)


def _bf16(device: torch.device) -> Finding:
    hardware = has_bf16(device)
    if device.type == "mps":
        return Finding("bfloat16", "not used on this device", "training computes in float32")
    times = {d: _seconds(device, d) for d in (torch.float32, torch.bfloat16)}
    ratio = times[torch.float32] / times[torch.bfloat16]
    found = f"{'in hardware' if hardware else 'emulated'}, products {ratio:.1f} times as fast as float32's"
    if not hardware:
        return Finding("bfloat16", found, "training.precision auto computes in float32")
    means = "training.precision auto computes in bfloat16"
    if ratio < _FASTER:
        means += "; here training.precision fp32 may be as fast, and is more exact"
    return Finding("bfloat16", found, means)


def _seconds(device: torch.device, dtype: torch.dtype) -> float:
    """The median time of a product, after one that warms up."""
    one = torch.ones(_SIZE, _SIZE, device=device, dtype=dtype)
    wait: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    taken = []
    for _ in range(_TIMES):
        start = time.perf_counter()
        _ = one @ one
        wait()
        taken.append(time.perf_counter() - start)
    return median(taken[1:])


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _optional() -> Finding:
    versions = {name: _version(name) for name in _OPTIONAL}
    found = ", ".join(f"{name} {version or 'not there'}" for name, version in versions.items())
    lacking = [
        f"{name} is for {_OPTIONAL[name][0]} ({_OPTIONAL[name][1]})"
        for name, version in versions.items()
        if version is None
    ]
    return Finding("optional", found, "; ".join(lacking) or "all of it is there")


def _pictures() -> Finding:
    browser = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        means = "figures as SVG or PNG need Chrome or Chromium (kaleido may know another place); pages do not"
        return Finding("browser", "none on PATH", means)
    return Finding("browser", browser, "draws figures as SVG or PNG, with kaleido")


def _disk(folder: Path) -> Finding:
    there = folder.expanduser().resolve()
    while not there.exists():
        there = there.parent
    free, writable = shutil.disk_usage(there).free, there.is_dir() and os.access(there, os.W_OK)
    means = "a run of `tiny` takes about 3 MB a checkpoint"
    if not writable:
        means = "nothing can be written there: give another folder by --out"
    elif free < _LITTLE_DISK:
        means = f"little: {means}"
    return Finding("disk", f"{there}: {free / _GIB:.0f} GiB free", means, writable)
