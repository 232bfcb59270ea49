"""Optional copies of the metrics in Weights & Biases; offline unless the settings say otherwise."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from interp.config import Config

MetricsLog = Callable[[Mapping[str, float], int], None]
"""Takes named values and their step."""


@contextmanager
def wandb_log(config: Config, folder: Path) -> Iterator[MetricsLog]:
    """A function that logs values at a step; one that does nothing where logging is disabled."""
    mode = config.logging.wandb
    if mode == "disabled":
        yield lambda values, step: None
        return
    import wandb  # only here: importing it takes a second and starts a service

    wandb_run = wandb.init(
        mode=mode, project=config.logging.wandb_project, dir=folder, name=folder.name,
        config=config.model_dump(mode="json"), settings=wandb.Settings(silent=True),
    )  # fmt: skip
    try:
        yield lambda values, step: wandb_run.log(dict(values), step=step)
    finally:
        wandb_run.finish()
