"""PyTorch as a new process finds it, whatever the caller has set.

A notebook may begin with `torch.set_grad_enabled(False)`, have float64 or a GPU as its default, or call
from inside `torch.inference_mode()` or an autocast. All that is state of the process or the thread, and
none of it is an argument: what trains, builds or measures runs in `default_state`.

Left to the caller are the number of threads, on which the last bits of sums depend (`threads`), the
demand for deterministic kernels, which changes no number on a CPU, and warning filters.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

_DEVICE_TYPES = ("cpu", "cuda", "mps", "xpu")
_FINE_PRECISIONS = ("cuda", "mkldnn")
_SMALLEST = 5e-324  # a denormal number


def _matmul_precision() -> str | tuple[str, ...]:
    """What products of float32 are computed in: by PyTorch's older setting, or by each backend's."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # backends were set by themselves, which the older setting cannot say
        return tuple(getattr(torch.backends, b).matmul.fp32_precision for b in _FINE_PRECISIONS)


def _set_matmul_precision(precision: str | tuple[str, ...]) -> None:
    if isinstance(precision, str):
        torch.set_float32_matmul_precision(precision)
        return
    for name, value in zip(_FINE_PRECISIONS, precision, strict=True):
        backend = getattr(torch.backends, name)
        inherited = getattr(backend, "fp32_precision", None) == value
        backend.matmul.fp32_precision = "none" if inherited else value


_OF_PROCESS: tuple[tuple[Callable[[], Any], Callable[[Any], Any], Any], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    (_matmul_precision, _set_matmul_precision, "highest"),
    (
        lambda: torch.backends.mkldnn.enabled,
        lambda on: setattr(torch.backends.mkldnn, "enabled", on),
        True,
    ),
    # `scaled_dot_product_attention` adds up in another order by another kernel.
    (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp, True),
    (torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp, True),
    (torch.backends.cuda.mem_efficient_sdp_enabled, torch.backends.cuda.enable_mem_efficient_sdp, True),
    (torch.backends.cuda.cudnn_sdp_enabled, torch.backends.cuda.enable_cudnn_sdp, True),
)  # fmt: skip
"""Settings that all threads share: how to read and to set each, and what a new process has."""


class _OfProcess:
    """Settings that all threads share: put back when the last that computes has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._undo: list[Callable[[], Any]] = []

    @contextmanager
    def as_new(self) -> Iterator[None]:
        with self._lock:
            self._inside += 1
            for read, put, wanted in _OF_PROCESS:
                if (before := read()) != wanted:
                    put(wanted)
                    self._undo.append(partial(put, before))
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                while not self._inside and self._undo:
                    self._undo.pop()()


_of_process = _OfProcess()


@contextmanager
def _without_autocast() -> Iterator[None]:
    # What an autocast inside another one has cast, its weights for one, would be kept until the outer
    # one ends: a training would go on with the weights of its first step.
    depth = torch.autocast_increment_nesting() - 1
    torch.autocast_decrement_nesting()
    enabled = [kind for kind in _DEVICE_TYPES if torch.is_autocast_enabled(kind)]
    kept = torch.is_autocast_cache_enabled()
    if not depth and not enabled and kept:
        yield
        return
    for kind in enabled:
        torch.set_autocast_enabled(kind, False)
    for _ in range(depth):
        torch.autocast_decrement_nesting()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(True)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(kept)
        for _ in range(depth):
            torch.autocast_increment_nesting()
        for kind in enabled:
            torch.set_autocast_enabled(kind, True)


@contextmanager
def default_state() -> Iterator[None]:
    """While this lasts PyTorch computes as in a new process; the caller's settings are put back then.

    Gradients are recorded, numbers are float32 on the CPU unless something else is said, there is no
    autocast, and products are exact to the type's last bits. Also a decorator. It costs some 25 µs.

    Example:
        ```python
        @default_state()
        def measure(model): ...
        ```
    """
    with ExitStack() as stack:
        stack.enter_context(_of_process.as_new())
        stack.enter_context(_without_autocast())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        if torch.empty(0).device.type != "cpu":  # quicker than `torch.get_default_device`
            stack.enter_context(torch.device("cpu"))
        flushing = _SMALLEST * 1.0 == 0.0  # the processor's, of this thread
        if flushing:
            torch.set_flush_denormal(False)
            stack.callback(torch.set_flush_denormal, True)
        yield
