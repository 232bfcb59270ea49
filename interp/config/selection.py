"""What of each step is trained on: some of several candidates, or only what is predicted wrong."""

from typing import Literal

from pydantic import Field, model_validator

from interp.config.base import Settings
from interp.errors import ConfigError


class SelectionConfig(Settings):
    """What of each step is trained on; all of its batch, with the plain loss, by default."""

    kind: Literal["largest_loss", "smallest_loss", "random", "wrong_values"] | None = None
    """Of k times batch_size candidates: those with the "largest_loss" of what they have to recall, those
    with the "smallest_loss", or "random" ones. "wrong_values": the plain batch, with the loss on values
    that are predicted wrong only."""
    k: int | None = Field(default=None, ge=1, le=1000)
    """How many candidates are drawn for each biography trained on (not with "wrong_values")."""
    contrast: float | None = Field(default=None, gt=0, le=1000)
    """β: for each value predicted wrong, -log σ(β (log p(true) - log p(predicted))) is added to the loss."""

    @property
    def on(self) -> bool:
        """Whether training differs from the plain one in its batches or its loss."""
        return self.kind is not None or self.contrast is not None

    @property
    def by_loss(self) -> bool:
        """Whether candidates are scored by the model."""
        return self.kind in ("largest_loss", "smallest_loss") and (self.k or 1) > 1

    @property
    def candidates(self) -> int:
        """How many candidates are drawn for each biography trained on."""
        return self.k or 1

    @model_validator(mode="after")
    def _k_where_there_are_candidates(self) -> "SelectionConfig":
        of_candidates = self.kind in ("largest_loss", "smallest_loss", "random")
        if of_candidates and self.k is None:
            raise ConfigError(
                f"selection: kind={self.kind!r} needs selection.k: how many candidates are drawn for each "
                "biography trained on."
            )
        if self.k is not None and not of_candidates:
            what = "no kind" if self.kind is None else f"kind={self.kind!r}"
            raise ConfigError(
                f"selection: k={self.k} with {what}, which has no candidates to choose from; leave k out, or "
                "set selection.kind to largest_loss, smallest_loss or random."
            )
        return self
