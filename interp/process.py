"""What this process asks of the machine: no thread that waits noisily, memory that is kept for the next step.

Set when the package is imported, so that a notebook has it as the command line does. None of it changes a
result.
"""

import ctypes
import os

SPINS = "GOMP_SPINCOUNT"
"""How often a thread of OpenMP looks for the others before it sleeps; read when torch is imported."""
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # of malloc.h
_KEPT = 2**29
_LARGEST_KEPT = 2**25  # the most that glibc takes


def share_the_machine() -> None:
    """Lets other processes have the cores while threads of this one wait for each other.

    Threads that wait spin for a while before they sleep. Where other programs want the cores too, long
    spinning makes everything stand still; this little costs a quiet machine nothing. What the user has
    set stays.
    """
    if not any(name in os.environ for name in (SPINS, "OMP_WAIT_POLICY")):
        os.environ[SPINS] = "5000"


def keep_freed_memory() -> None:
    """Has the C library keep up to 512 MB that was freed, in place of giving it back at every step.

    A step of training makes and drops some hundred megabytes of tensors. glibc gives large ones back to
    the system, which then has to clear every page that it hands out again: about a tenth of a step's time
    on a CPU. Other C libraries, and what the user has set by `MALLOC_...`, are left alone.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
        ctypes.CDLL(None).gnu_get_libc_version  # noqa: B018 - is it glibc?
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
    mallopt(_M_TRIM_THRESHOLD, _KEPT)
    mallopt(_M_TOP_PAD, _LARGEST_KEPT)
