"""Worker processes end with the process that started them, however that ends."""

import os
import signal
import threading
import time

LOOK = 0.5
"""Seconds between two looks at whether the parent lives."""


def parent_gone(parent: int) -> bool:
    """Whether the process that started this one has ended: orphans are given another parent."""
    return os.getppid() != parent


def end_with_parent(parent: int) -> None:
    """From here on this process, which writes nothing, ends at once when its parent (a pid) is gone."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while not parent_gone(parent):
        time.sleep(LOOK)
    os.kill(os.getpid(), signal.SIGKILL)
