"""What the bytes of a run depend on beside its settings: versions, device, precision, threads."""

import platform
from importlib.metadata import version
from typing import Any

import torch

from interp.config import TrainingConfig
from interp.errors import ArgumentError, ConfigError

_PACKAGES = ("torch", "transformer-lens", "transformers", "tokenizers", "numpy", "safetensors")


def usable_device(wanted: torch.device | str) -> torch.device:
    """A device that this machine has.

    Raises:
        ArgumentError: there is no such device here.
    """
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0][:200]
        raise ArgumentError(
            f"device={wanted!r} cannot be used here ({reason}). Use cpu, cuda, cuda:N or mps."
        ) from error
    return device


def resolve_device(wanted: str) -> torch.device:
    """The device to compute on; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: this machine has no such device.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError(f"no {device.type} support")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"training.device={wanted!r} cannot be used here ({str(error).splitlines()[0]}). "
            "Use auto, cpu, cuda, cuda:N or mps."
        ) from error
    return device


def has_bf16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        cpu = torch.backends.cpu.get_cpu_capability() if hasattr(torch.backends, "cpu") else ""
        return bool(torch.cpu._is_avx512_bf16_supported()) if "AVX512" in cpu else False
    return False


def resolve_precision(config: TrainingConfig, device: torch.device) -> str:
    """The precision, bf16 or fp32: what the settings say, or what the hardware has."""
    if config.precision == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    return config.precision


def describe_environment(device: torch.device, precision: str) -> dict[str, Any]:
    """What `environment.json` records of a run."""
    return {
        "interp": version("interp"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: version(name) for name in _PACKAGES},
        "device": device.type,
        "precision": precision,
        "threads": torch.get_num_threads(),
    }
