"""How much memory a process has held."""

import re
import resource
from pathlib import Path

Measured = dict[str, tuple[list[float], float]]
"""By what is timed: seconds of each time, and the peak of the process until then in MB."""


def peak_mb() -> float:
    """The most memory that this process has held, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux ru_maxrss begins with the parent's
        found = re.search(r"VmHWM:\s+(\d+)", status.read_text())
        if found:
            return int(found[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
