"""The parts of `make gpu`, each in a process of its own, and what becomes of one that fails.

A card whose kernel failed is of no use to the process that met it. So each part has its own, forked from
a server that has imported the package and never touched a card; it hands over its rows one by one, and
those that it had measured before it failed, hung or died are kept.
"""

import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection

from tests.gpu.runs import device_tests, golden, measures, paper_run, seeds
from tests.gpu.setup import Setup
from tests.gpu.steps import against_plain, long_sequences, patched_step
from tests.gpu.table import Row

Part = Callable[[Setup, Sequence[Row]], Iterator[Row]]

PARTS: dict[str, tuple[Part, float]] = {
    "device tests": (device_tests, 90),
    "golden losses": (golden, 45),
    "steps against plain PyTorch": (against_plain, 90),
    "training": (paper_run, 90),
    "measures": (measures, 90),
    "long sequences": (long_sequences, 90),
    "patched step": (patched_step, 45),
    "seeds at once": (seeds, 90),
}
"""By name: what measures it (given the rows so far), and the seconds that it may take at full size."""
FAILED, LEFT_OUT = "failed", "left out"
"""How the remark of a row without a number begins."""
TIME = "time of this part"


def run_parts(
    setup: Setup,
    seconds: float,
    show: Callable[[list[Row]], None],
    parts: Mapping[str, tuple[Part, float]] = PARTS,
) -> list[Row]:
    """Runs parts in turn.

    Args:
        setup: What is measured, and where.
        seconds: Of all parts together; one for which no time is left is left out.
        show: Told all rows so far after each part.
        parts: As `PARTS`.
    """
    # What the server imports may ask whether there is a card: by NVML, after which a fork can use it.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    context = get_context("forkserver")
    context.set_forkserver_preload(["interp.training", "tests.gpu.parts"])
    forkserver.ensure_running()
    last = time.monotonic() + seconds
    rows: list[Row] = []
    for name, (part, limit) in parts.items():
        left = last - time.monotonic()
        if left > 0:
            rows += _run_part(name, part, setup, rows, min(limit, left) if setup.whole else left)
        else:
            rows.append(Row(name, "", None, "", f"{LEFT_OUT}: {seconds:.0f} s were over"))
        show(rows)
    return rows


def _run_part(name: str, part: Part, setup: Setup, earlier: list[Row], limit: float) -> list[Row]:
    context = get_context("forkserver")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(part, setup, earlier, send))
    started = time.monotonic()
    process.start()
    send.close()
    rows: list[Row] = []
    try:
        while isinstance(found := _next(receive, started + limit), Row):
            rows.append(found)
    except TimeoutError:
        found = f"not done in {limit:.0f} s"
    except EOFError:
        process.join(10)
        found = f"its process ended with code {process.exitcode}"
    finally:
        process.kill()  # it has said all that it had to say
        process.join()
    if found is not None:
        rows.append(Row(name, "", None, "", f"{FAILED}: {found}"))
    rows.append(Row(name, TIME, time.monotonic() - started, "s"))
    return rows


def _next(receive: Connection, last: float) -> Row | str | None:
    """What a part says next; it has until `last` for it."""
    if not receive.poll(max(0.0, last - time.monotonic())):
        raise TimeoutError
    found: Row | str | None = receive.recv()
    return found


def _work(part: Part, setup: Setup, earlier: list[Row], send: Connection) -> None:
    """Sends the rows of a part; then None, or what went wrong."""
    failure = None
    try:
        for row in part(setup, earlier):
            send.send(row)
    except Exception as error:
        traceback.print_exc()
        lines = f"{type(error).__name__}: {error}".splitlines()
        failure = lines[0][:300]
    send.send(failure)


def failed(rows: Sequence[Row]) -> list[Row]:
    """The rows of parts that failed."""
    return [row for row in rows if row.remark.startswith(FAILED)]
