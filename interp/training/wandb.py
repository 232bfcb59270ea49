"""Optional copies of the metrics in Weights & Biases; offline unless the settings say otherwise."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from interp.config import Config
from interp.errors import ConfigError, short

MetricsLog = Callable[[Mapping[str, float], int], None]
"""Takes named values and their step."""


def require_login(config: Config) -> None:
    """Checks that metrics can be sent, where they are to be sent.

    Raises:
        ConfigError: nobody is logged in.
    """
    if config.logging.wandb != "online":
        return
    import wandb

    if not wandb.login(prompt=False):
        raise ConfigError(
            "logging.wandb=online, but nobody is logged in to Weights & Biases. Run `wandb login`, set "
            "WANDB_API_KEY, or choose offline."
        )


@contextmanager
def wandb_log(config: Config, folder: Path) -> Iterator[MetricsLog]:
    """A function that logs values at a step; one that does nothing where logging is disabled."""
    mode = config.logging.wandb
    if mode == "disabled":
        yield lambda values, step: None
        return
    import wandb  # only here: importing it takes a second and starts a service

    try:
        wandb_run = wandb.init(
            mode=mode, project=config.logging.wandb_project, dir=folder, name=folder.name,
            config=config.model_dump(mode="json"), settings=wandb.Settings(silent=True),
        )  # fmt: skip
    except wandb.errors.Error as error:
        raise ConfigError(
            f"Weights & Biases cannot be used ({short(str(error), 200)}). Set logging.wandb to offline or "
            "disabled; `interp train --resume` goes on from here."
        ) from error
    try:
        yield lambda values, step: wandb_run.log(dict(values), step=step)
    finally:
        wandb_run.finish()
