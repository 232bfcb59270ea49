"""A mechanistic-interpretability toolkit for watching a language model learn facts.

    run = interp.train(interp.preset("tiny", seed=1), "runs/tiny")
    run.phases                     # where statistics, plateau and knowledge meet
    model = run.model(step=250)    # a TransformerBridge with all its hooks

Names are loaded when first used, so that `interp --help` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp import plots
    from interp.config import Config
    from interp.errors import InterpError
    from interp.maps.widget import explore
    from interp.memory.trace import trace
    from interp.model import hooked_transformer
    from interp.presets import preset
    from interp.run import Run, finetuned
    from interp.training import train

_HOMES = {
    "Config": "interp.config",
    "InterpError": "interp.errors",
    "Run": "interp.run",
    "explore": "interp.maps.widget",
    "finetuned": "interp.run",
    "hooked_transformer": "interp.model",
    "plots": "",
    "preset": "interp.presets",
    "trace": "interp.memory.trace",
    "train": "interp.training",
}

__all__ = [
    "Config",
    "InterpError",
    "Run",
    "explore",
    "finetuned",
    "hooked_transformer",
    "plots",
    "preset",
    "trace",
    "train",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'interp' has no attribute {name!r}")
    home = _HOMES[name]
    return getattr(import_module(home), name) if home else import_module(f"interp.{name}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
