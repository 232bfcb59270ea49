"""What a run takes from others: attention patterns (patching), first weights (fine-tuning), all (merging)."""

from typing import Annotated, Any, Literal

import tyro
from pydantic import Field, model_validator

from interp.config.base import Settings
from interp.errors import ConfigError, short

OWN_PATTERNS = "self"
"""As a reference: the model itself."""


class PatchingConfig(Settings):
    """Attention patterns taken from a reference run while training (paper, section 3.2)."""

    reference: str | None = None
    """Folder of the run whose attention patterns are used; patching is off without. "self" is the
    control: the model is given its own patterns by the same machinery, which must change nothing."""
    reference_step: int | None = Field(default=None, ge=0)
    """Which checkpoint of the reference gives the patterns."""
    start: int | None = Field(default=None, ge=0)
    """Step from which patterns are patched, 0 by default; the optimizer's state is reset there."""
    layers: tuple[int, ...] | None = None
    """Layers to patch; all by default."""
    heads: tuple[int, ...] | None = None
    """Heads to patch in each of those layers; all by default."""
    other_people: bool | None = None
    """Allow a reference that was trained on other people (with the same vocabulary)."""
    reference_run: Annotated[str | None, tyro.conf.Suppress] = None
    """Fingerprint of the reference's settings; filled in when training begins."""

    @property
    def on(self) -> bool:
        """Whether patterns are patched at all."""
        return self.reference is not None

    @property
    def own(self) -> bool:
        """Whether the model is given its own patterns."""
        return self.reference == OWN_PATTERNS

    @model_validator(mode="before")
    @classmethod
    def _explicit_start(cls, values: Any) -> Any:
        """A patched run always says from which step: one run, one set of settings."""
        if isinstance(values, dict) and values.get("reference") is not None:
            return {**values, "start": values.get("start") or 0}
        return values

    @model_validator(mode="after")
    def _complete(self) -> "PatchingConfig":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if not self.on and given:
            raise ConfigError(
                f"patching: {', '.join(given)} given, but no reference; set patching.reference to "
                "the folder of the run that gives the attention patterns."
            )
        if self.on and self.own == (self.reference_step is not None):
            raise ConfigError(
                "patching: reference 'self' has no reference_step: the model's own patterns are "
                "those of the step it is at."
                if self.own
                else "patching: reference_step is missing; name the checkpoint of "
                f"{short(str(self.reference), 80)} that gives the attention patterns."
            )
        for name, chosen in (("layers", self.layers), ("heads", self.heads)):
            if chosen is not None and (not chosen or list(chosen) != sorted(set(chosen))):
                raise ConfigError(
                    f"patching: {name}={chosen}; name each once, in increasing order, or leave it "
                    "out for all."
                )
        return self


class FinetuningConfig(Settings):
    """Training that goes on from the weights of a finished run (paper, section 5)."""

    base: str | None = None
    """Folder of the run whose weights training starts from; fine-tuning is off without."""
    base_step: int | None = Field(default=None, ge=0)
    """Which checkpoint of it; the last by default."""
    people: Literal["new", "rare", "same"] | None = None
    """On whom: "new" people, the first of those held out so far (the default); "rare" ones, the last of
    those that the base was trained on; or the "same" as the base, in other forms (`data.stages`)."""
    n_individuals: int | None = Field(default=None, ge=1)
    """How many of them; all held-out people by default ("new")."""
    replay_weight: float | None = Field(default=None, gt=0)
    """Replay: how likely each other known person is, against 1 for each of those people; without, only
    those people are shown."""
    base_run: Annotated[str | None, tyro.conf.Suppress] = None
    """Fingerprint of the base run's settings; filled in when training begins."""

    @property
    def on(self) -> bool:
        """Whether training starts from the weights of another run."""
        return self.base is not None or self.base_run is not None

    @model_validator(mode="before")
    @classmethod
    def _explicit_people(cls, values: Any) -> Any:
        """A fine-tuned run always says on whom: one run, one set of settings."""
        if isinstance(values, dict) and (values.get("base") or values.get("base_run")):
            return {**values, "people": values.get("people") or "new"}
        return values

    @model_validator(mode="after")
    def _complete(self) -> "FinetuningConfig":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if not self.on and given:
            raise ConfigError(
                f"finetuning: {', '.join(given)} given, but no base; set finetuning.base to the folder "
                "of the run whose weights training starts from."
            )
        whom = [n for n in ("n_individuals", "replay_weight") if getattr(self, n) is not None]
        if self.people == "same" and whom:
            raise ConfigError(
                f"finetuning: people='same' is everybody that the base was trained on, so {whom[0]} has no "
                "meaning; leave it out."
            )
        if self.people == "rare" and self.n_individuals is None:
            raise ConfigError(
                "finetuning: people='rare' needs finetuning.n_individuals: how many of the last people "
                "that the base was trained on."
            )
        return self


class MergingConfig(Settings):
    """Weights that were not trained, but added up from those of other runs (`interp.merge`)."""

    of: tuple[str, ...] | None = None
    """SHA-256 of the weights that were added up; none were by default."""
    factors: tuple[float, ...] | None = None
    """What each of them was multiplied by."""

    @property
    def on(self) -> bool:
        """Whether the run was made of others."""
        return self.of is not None

    @model_validator(mode="after")
    def _complete(self) -> "MergingConfig":
        if len(self.of or ()) != len(self.factors or ()) or (self.of is not None and not self.of):
            raise ConfigError(
                f"merging: {len(self.of or ())} weights and {len(self.factors or ())} factors; "
                "interp.save_merged fills both in."
            )
        return self
