"""Two runs at once in two processes, against one after the other: from the command line and a notebook.

Two processes with two threads each on two cores have more threads than cores. Where threads that wait spin,
both stand still; see `interp/process.py`.
"""

# ruff: noqa: T201 - a program that prints

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS = 200
_NOTEBOOK = """
import sys, interp
settings = {"training.n_steps": int(sys.argv[2]), "training.early_checkpoints": ()}
interp.train(interp.preset("tiny", seed=int(sys.argv[3]), **settings), sys.argv[1], progress=False)
"""


def two_runs(rounds: int) -> None:
    """Measures and prints one table; a round is about two minutes."""
    print(f"\nTwo runs of {STEPS} steps at tiny, together against in turn; {rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("command line", "notebook"):
            ratios = []
            for round_ in range(rounds):
                seconds = {}
                for together in (True, False) if round_ % 2 else (False, True):
                    place = Path(folder) / f"{name.split()[0]}{round_}{together}"
                    seconds[together] = _seconds(name, place, together=together)
                ratios.append(seconds[True] / seconds[False])
                print(f"  {name}: {seconds[True]:.1f} s against {seconds[False]:.1f} s")
            print(
                f"  {name}: {statistics.median(ratios):.2f} times the time of one after the other"
            )


def _seconds(name: str, place: Path, *, together: bool) -> float:
    started = time.perf_counter()
    processes = []
    for seed in (0, 1):
        out = str(place / str(seed))
        if name == "notebook":
            command = [sys.executable, "-c", _NOTEBOOK, out, str(STEPS), str(seed)]
        else:
            command = [
                sys.executable, "-m", "interp", "train", "tiny", "--out", out, "--seed", str(seed),
                "--training.n-steps", str(STEPS), "--training.early-checkpoints",
            ]  # fmt: skip
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        processes.append(process)
        if not together:
            _require_done(process)
    for process in processes if together else ():
        _require_done(process)
    return time.perf_counter() - started


def _require_done(process: "subprocess.Popen[str]") -> None:
    _, error = process.communicate()
    if process.returncode:
        raise SystemExit(f"a run ended with {process.returncode}: {error.strip().splitlines()[-1]}")


if __name__ == "__main__":
    two_runs(rounds=3)
