"""In which forms people are met, and how that changes while a run is trained."""

from typing import Annotated, Literal

import tyro
from pydantic import Field, model_validator

from interp.config.base import Settings
from interp.errors import ConfigError


class FormConfig(Settings):
    """One of the forms that a stage of training mixes."""

    form: str
    """Its name, one of `interp.biographies.FORMS`: "biography", "question", "mnemonic", ..."""
    weight: float = Field(default=1.0, gt=0)
    """How likely a sequence has this form, against the weights of the others."""
    people: tuple[float, float] | None = None
    """About whom: from which share of the people trained on to which, e.g. (0, 0.5) for the first half;
    about all by default."""
    loss: Literal["values", "answers"] | None = None
    """On which tokens: on all by default, on those of "values", or on those of "answers" (in a question
    the value, in an inverse question the name)."""

    @model_validator(mode="after")
    def _people_exist(self) -> "FormConfig":
        if self.people is not None and not 0 <= self.people[0] < self.people[1] <= 1:
            raise ConfigError(
                f"data.stages: the form {self.form!r} has people={self.people}; give two shares, from "
                "and to, with 0 <= from < to <= 1, as in (0, 0.5)."
            )
        return self


class StageConfig(Settings):
    """What is trained on, from a step on until the next stage begins."""

    start: int = Field(default=0, ge=0)
    """The step at which it begins; the first stage begins at 0."""
    forms: tuple[FormConfig, ...] = (FormConfig(form="biography"),)
    """The forms that are mixed."""
    weights: Literal["adapter"] | None = None
    """What is trained: all weights of the model by default, or only the "adapter" (see `adapter`)."""
    learning_rate: float | None = Field(default=None, gt=0)
    """The learning rate at its beginning, from which the schedule runs anew until it ends; by default
    the run's schedule goes on."""

    @property
    def label(self) -> str:
        """Its forms, and whether it trains the adapter, in words for figures."""
        forms = " + ".join(dict.fromkeys(form.form.replace("_", " ") for form in self.forms))
        return f"{forms}, adapter" if self.weights == "adapter" else forms

    @model_validator(mode="after")
    def _forms_once(self) -> "StageConfig":
        names = [form.form for form in self.forms]
        if not names:
            raise ConfigError(
                f"data.stages: the stage from step {self.start} has no form; name at least one."
            )
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError(
                f"data.stages: the stage from step {self.start} has the form {twice[0]!r} twice, and "
                "its loss and people would be one for both; name each form once."
            )
        return self


class DataConfig(Settings):
    """In which forms and wordings people are met in training; biographies in 20 wordings by default."""

    wordings: int | None = Field(default=None, ge=1)
    """Wordings of each attribute that a person is met in, of those for training; all by default."""
    order: Literal["fixed"] | None = None
    """"fixed": the sentences of a biography come in the order of the attributes; in a new random order
    every time by default."""
    vocabulary: tuple[str, ...] | None = None
    """Forms whose words the tokenizer knows although no stage has them, so that the model can be asked in
    them, or trained on them later."""
    stages: Annotated[tuple[StageConfig, ...] | None, tyro.conf.Suppress] = None
    """Stages of training, each with its own forms, loss and trained weights; by default one, on biographies.
    To be set from Python or a YAML file."""

    @model_validator(mode="after")
    def _in_order(self) -> "DataConfig":
        if self.stages is None:
            return self
        starts = [stage.start for stage in self.stages]
        if not starts or starts[0] != 0 or sorted(set(starts)) != starts:
            raise ConfigError(
                f"data.stages: the stages begin at steps {starts}; the first begins at 0, and each other "
                "later than the one before."
            )
        return self

    @property
    def forms(self) -> tuple[str, ...]:
        """Every form that the tokenizer has to know, each once, in a fixed order."""
        trained = [form.form for stage in self.stages or () for form in stage.forms]
        return tuple(dict.fromkeys([*trained, *(self.vocabulary or ())]))

    def stage_at(self, step: int) -> StageConfig | None:
        """The stage of a step; None where a run has no stages."""
        begun = [stage for stage in self.stages or () if stage.start <= step]
        return begun[-1] if begun else None

    @property
    def boundaries(self) -> tuple[tuple[int, str], ...]:
        """The steps at which later stages begin, with the forms, and the adapter, that they train."""
        return tuple((stage.start, stage.label) for stage in (self.stages or ())[1:])

    def stage_end(self, stage: StageConfig, last_step: int) -> int:
        """The step at which a stage ends: the next one's beginning, or the last step of the run."""
        later = [other.start for other in self.stages or () if other.start > stage.start]
        return min([*later, last_step])


class AdapterConfig(Settings):
    """A low-rank adapter (LoRA) beside the model's own weights, which stay as they are meanwhile."""

    rank: int | None = Field(default=None, ge=1)
    """Its rank; no adapter without."""
    alpha: float | None = Field(default=None, gt=0)
    """Its scale is alpha / rank; by default alpha is twice the rank."""
    sites: tuple[str, ...] | None = None
    """Where it sits: some of "q", "k", "v", "o" (attention), "mlp_in", "mlp_out"; at all by default."""

    @property
    def on(self) -> bool:
        """Whether the run has an adapter."""
        return self.rank is not None

    @model_validator(mode="after")
    def _complete(self) -> "AdapterConfig":
        given = [name for name in ("alpha", "sites") if getattr(self, name) is not None]
        if not self.on and given:
            raise ConfigError(
                f"adapter: {', '.join(given)} given, but no rank; set adapter.rank to have an adapter."
            )
        return self
