"""What this machine has."""

import os
from pathlib import Path


def memory_bytes() -> int | None:
    """The memory of this machine, or what its control group may use; None if the system does not tell."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # no such file, or the word "max"
        return total
    return min(total, limit)
