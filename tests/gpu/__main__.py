"""`make gpu`: what a card does, in one table of at most eight minutes.

Tests that need a device, golden losses, steps against plain PyTorch compiled, the paper's shape with its
model-FLOPs utilisation, its measures, patched steps, many seeds at once. A part that fails is a row of
the table, and the others go on.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from interp.errors import InterpError
from interp.presets import PRESETS
from interp.run import resolve_device
from tests.gpu.parts import failed, run_parts
from tests.gpu.setup import Setup
from tests.gpu.table import Origin, Row, write_table


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all parts and writes the table; 1 if a part failed, 2 if there is no such device."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument(
        "--preset",
        default="paper",
        choices=PRESETS,
        help="the large model; smoke: everything short",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("artifacts/gpu"), help="the table, with .md and .csv"
    )
    parser.add_argument("--minutes", type=float, default=7.5, help="for all parts together")
    asked = parser.parse_args(arguments)
    try:
        resolve_device(asked.device)
    except InterpError as error:
        print(error, file=sys.stderr)
        return 2
    origin = Origin.here(asked.device, asked.preset)

    def show(rows: list[Row]) -> None:
        write_table(asked.out, origin, rows)
        print(f"done: {rows[-1].part}", flush=True)

    with TemporaryDirectory(prefix="interp-gpu-", ignore_cleanup_errors=True) as folder:
        setup = Setup(asked.device, asked.preset, Path(folder))
        rows = run_parts(setup, 60 * asked.minutes, show)
    written = write_table(asked.out, origin, rows)
    print(written[0].read_text(encoding="utf-8"), *written, sep="\n")
    return 1 if failed(rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
