"""The adapters of a run on disk, in peft's own format: one beside each checkpoint of its stages."""

import re
from pathlib import Path
from typing import Literal, get_args

from transformer_lens.model_bridge import TransformerBridge

from interp.errors import RunError, require_known
from interp.model.adapters import Adapter, load_adapter

AdapterUse = Literal["merged", "on", "off"]
"""Whether a run's adapter is in the model's weights, beside them, or not on the model."""

_FOLDER = "adapters"
_NAME = re.compile(r"step_(\d{8,})")


def adapter_folder(run: Path, step: int) -> Path:
    """Where the adapter of a step is, in a run's folder."""
    return run / _FOLDER / f"step_{step:08d}"


def adapter_folders(run: Path) -> list[Path]:
    """The folders of all adapters of a run, by step; no links."""
    within = run / _FOLDER
    found = within.iterdir() if within.is_dir() and not within.is_symlink() else ()
    return sorted(
        path
        for path in found
        if _NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
    )


def adapter_steps(run: Path) -> list[int]:
    """The steps that have an adapter, increasing."""
    return sorted(int(path.name[5:]) for path in adapter_folders(run))


def use_adapter(
    run: Path, step: int, model: TransformerBridge, use: AdapterUse | None
) -> Adapter | None:
    """Puts a run's adapter on a model that has the weights of a step, and returns it; None if none is put.

    Args:
        run: The run's folder.
        step: The step.
        model: The model, with the weights of that step.
        use: See `Run.model`.

    Raises:
        RunError: the run had no adapter until then.
    """
    if use is not None:
        require_known([use], get_args(AdapterUse), "use of the adapter")
    begun = [one for one in adapter_steps(run) if one <= step]
    if use is None:
        use = "merged" if step in begun else "off"
    if use == "off":
        return None
    if not begun:
        raise RunError(
            f"{run} had no adapter at step {step} (steps with one: "
            f"{', '.join(map(str, adapter_steps(run))) or 'none'}); choose a later step, or leave "
            "adapter out."
        )
    adapter = load_adapter(model, adapter_folder(run, begun[-1]))
    if use == "merged":
        adapter.merge()
    return adapter
