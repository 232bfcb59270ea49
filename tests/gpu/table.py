"""The one table that `make gpu` writes, and what stands above it: card, versions, commit."""

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch

from interp.files import write_text

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Row:
    """One number, or why there is none.

    Attributes:
        part: Which part measured it.
        measured: What it is.
        value: The number; None where the part failed or was left out.
        unit: Its unit; empty for a number or a ratio.
        remark: How it was measured, or why there is no number.
    """

    part: str
    measured: str
    value: float | None
    unit: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Origin:
    """What the numbers of a table depend on beside the code of the parts."""

    card: str
    torch: str
    commit: str
    preset: str

    @classmethod
    def here(cls, device: str, preset: str) -> "Origin":
        """Of this machine, with the code as it lies there."""
        return cls(card_name(device), torch.__version__, commit(), preset)


def card_name(device: str) -> str:
    """The card's name as the driver gives it, or that it is a CPU."""
    if device == "cpu":
        return f"no card: CPU ({platform.machine()}, {os.cpu_count()} cores)"
    return torch.cuda.get_device_name(device)


def commit() -> str:
    """The commit of the code, and whether files were changed since."""
    try:
        named = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=, with changes"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown (no git)"
    return named.stdout.strip()


def write_table(out: Path, origin: Origin, rows: Sequence[Row]) -> list[Path]:
    """Writes `out` with the endings .md and .csv; the files, of which each holds everything."""
    markdown, comma = (out.with_suffix(ending) for ending in (".md", ".csv"))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(markdown, _markdown(origin, rows))
    frame = pd.DataFrame([asdict(row) | asdict(origin) for row in rows])
    write_text(comma, frame.to_csv(index=False))
    return [markdown, comma]


def _markdown(origin: Origin, rows: Sequence[Row]) -> str:
    lines = [
        f"**{origin.card}**; torch {origin.torch}; commit {origin.commit}; preset {origin.preset}",
        "",
        "| part | measured | value | unit | remark |",
        "|---|---|---:|---|---|",
    ]
    for row in rows:
        value = "" if row.value is None else f"{row.value:.4g}"
        cells = row.part, row.measured, value, row.unit, row.remark
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
