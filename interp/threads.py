"""How many threads this process computes with: the last bits of a sum depend on it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def using_threads(n: int) -> Iterator[None]:
    """While this lasts, PyTorch computes on `n` threads; the number before is put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
