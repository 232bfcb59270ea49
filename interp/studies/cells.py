"""The grid of attention patching: reference checkpoints, starts, layers and heads."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from interp.config import CompiledConfig, Config
from interp.run import Run
from interp.series import nearest_steps

SAME = "same"
"""As a start of patching: the reference step itself, which freezes attention there."""
Parts = tuple[int, ...] | None
"""Layers or heads; None for all."""


@dataclass(frozen=True)
class Cell:
    """One point of the grid.

    Attributes:
        reference_step: The checkpoint that gives the patterns.
        start: The step from which they are patched.
        layers: Patched layers; None for all.
        heads: Patched heads of each of those layers; None for all.
    """

    reference_step: int
    start: int = 0
    layers: Parts = None
    heads: Parts = None

    def name(self, seed: int, until: int) -> str:
        """The folder of the cell's run."""
        parts = ""
        for what, chosen in (("layers", self.layers), ("heads", self.heads)):
            if chosen is not None:
                parts += f"_{what}{'-'.join(map(str, chosen))}"
        place = f"reference{self.reference_step:06d}_start{self.start:06d}"
        return f"seed{seed}_{place}{parts}_until{until:06d}"


def default_reference_steps(run: Run, inside_plateau: int = 3) -> tuple[int, ...]:
    """Checkpoints that tell the phases of a run apart, increasing.

    Initial; early statistics; end of statistics; so many inside the plateau; its end; twice its end;
    final. Each is the checkpoint nearest to the step meant; a phase that was not reached is left
    out.

    Args:
        run: A finished run.
        inside_plateau: How many of the plateau, evenly spaced.
    """
    steps = run.steps
    phases = run.phases
    wanted: list[float | int] = [steps[0], steps[-1]]
    begin, end = phases.statistics_end, phases.plateau_end
    if begin is not None:
        wanted += [begin / 2, begin]
        if end is not None:
            shares = ((i + 1) / (inside_plateau + 1) for i in range(inside_plateau))
            wanted += [begin + share * (end - begin) for share in shares]
    if end is not None:
        wanted += [end, 2 * end]
    return tuple(nearest_steps(steps, wanted))


def default_until(run: Run) -> int:
    """Where patched runs end by default: at twice the plateau's end, or with the reference."""
    last, end = run.steps[-1], run.phases.plateau_end
    return last if end is None else min(last, 2 * end)


def grid(
    reference_steps: Sequence[int],
    start_steps: Sequence[int | str] = (0,),
    layers: Sequence[Parts] = (None,),
    heads: Sequence[Parts] = (None,),
) -> list[Cell]:
    """All combinations; a start of `SAME` is the reference step itself."""
    cells = [
        Cell(reference, reference if start == SAME else int(start), of_layers, of_heads)
        for reference, start, of_layers, of_heads in product(
            reference_steps, start_steps, layers, heads
        )
    ]
    return list(dict.fromkeys(cells))


def patched_config(reference: Run, cell: Cell, until: int) -> Config:
    """The settings of a patched run: the reference's own, with its attention taken from it."""
    training = reference.config.training
    return reference.config.with_settings(
        **{
            "merging": {"of": None, "factors": None},
            "compiled": CompiledConfig(),
            "patching.reference": str(reference.path),
            "patching.reference_step": cell.reference_step,
            "patching.start": cell.start,
            "patching.layers": cell.layers,
            "patching.heads": cell.heads,
            "training.stop_at": until,
            "training.early_checkpoints": (),
            "training.checkpoint_every": max(training.checkpoint_every, until // 4),
            "evaluation.splits": ("evaluation",),
        }
    )


def parts_text(parts: Parts) -> str:
    """Layers or heads as text: "all", or their numbers."""
    return "all" if parts is None else " ".join(map(str, parts))
