"""In which forms people are met, and how that changes while a run is trained."""

from typing import Annotated, Any, Literal, get_args

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
    loss: Literal["values", "answers", "not names"] | None = None
    """On which tokens: on all by default, on those of "values", on those of "answers" (in a question the
    value, in an inverse question the name), or on all but those of names ("not names")."""
    attributes: tuple[str, ...] | None = None
    """Of values, on those of these attributes only: the others are read, and no loss is on them; on all
    by default."""

    @model_validator(mode="after")
    def _subsystem_exists(self) -> "FormConfig":
        if self.people is not None and not 0 <= self.people[0] < self.people[1] <= 1:
            raise ConfigError(
                f"data.stages: the form {self.form!r} has people={self.people}; give two shares, from "
                "and to, with 0 <= from < to <= 1, as in (0, 0.5)."
            )
        names = self.attributes
        if names is not None and (not names or len(set(names)) < len(names)):
            raise ConfigError(
                f"data.stages: the form {self.form!r} has attributes={names}; name each once, at least one, "
                "or leave it out for all."
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


class ContradictionConfig(Settings):
    """Contradictory facts: some people have another value of an attribute in some of their biographies."""

    attribute: str | None = None
    """Of which attribute; nothing is contradicted without."""
    share_of_people: float | None = Field(default=None, gt=0, le=1)
    """Of the people trained on who have the attribute, how many have a second value (B)."""
    share_of_biographies: float | None = Field(default=None, ge=0, le=1)
    """In which share of their biographies they have their own value (A), if A and B are mixed."""
    order: Literal["mixed", "A then B", "B then A"] | None = None
    """"mixed" (the default): A or B by chance in each biography; or one after the other."""
    until: int | None = Field(default=None, ge=1)
    """One after the other: the step from which on it is the second of them."""

    @property
    def on(self) -> bool:
        """Whether anything is contradicted."""
        return self.attribute is not None

    @model_validator(mode="before")
    @classmethod
    def _explicit_order(cls, values: Any) -> Any:
        """Contradictions always say in which order: one run, one set of settings."""
        if isinstance(values, dict) and values.get("attribute") is not None:
            return {**values, "order": values.get("order") or "mixed"}
        return values

    @model_validator(mode="after")
    def _complete(self) -> "ContradictionConfig":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if not self.on:
            if given:
                raise ConfigError(
                    f"data.contradictions: {', '.join(given)} given, but no attribute; set "
                    "data.contradictions.attribute."
                )
            return self
        mixed = self.order == "mixed"
        how, other = (
            ("share_of_biographies", "until") if mixed else ("until", "share_of_biographies")
        )
        if lacking := [n for n in ("share_of_people", how) if n not in given]:
            raise ConfigError(
                f"data.contradictions: order={self.order!r} needs "
                f"{' and '.join(f'data.contradictions.{n}' for n in lacking)}; set it."
            )
        if other in given:
            raise ConfigError(
                f"data.contradictions: {other} has no meaning with order={self.order!r}, which has "
                f"{how}; leave it out."
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
    contradictions: ContradictionConfig = ContradictionConfig()
    """Facts of which some biographies say something else; none by default."""

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


Order = Literal["one, two, both", "two, one, both", "both"]


def stages_in_order(
    one: FormConfig, two: FormConfig, order: Order, n_steps: int, both: FormConfig | None = None
) -> tuple[StageConfig, ...]:
    """The stages (`data.stages`) that solve two subsystems of facts in some order, at equal steps.

    "one, two, both" and "two, one, both" are three stages of a third of the steps each; "both" is one.

    Args:
        one: The first subsystem, e.g. `FormConfig(form="biography", people=(0, 0.5))`.
        two: The second, e.g. `FormConfig(form="biography", attributes=("major",))`.
        order: In which order.
        n_steps: Steps of the whole run, at least 3.
        both: Both together; by default biographies of everybody, with all attributes.

    Raises:
        ConfigError: another order, or fewer steps.

    Example:
        >>> halves = [FormConfig(form="biography", people=half) for half in ((0, 0.5), (0.5, 1))]
        >>> [stage.start for stage in stages_in_order(*halves, "one, two, both", 1500)]
        [0, 500, 1000]
    """
    if order not in get_args(Order):
        raise ConfigError(f"order={order!r}: give one of {', '.join(map(repr, get_args(Order)))}.")
    if isinstance(n_steps, bool) or not isinstance(n_steps, int) or n_steps < 3:
        raise ConfigError(
            f"n_steps={n_steps!r}: three stages need a whole number of steps, 3 or more."
        )
    every = FormConfig(form="biography") if both is None else both
    if order == "both":
        return (StageConfig(forms=(every,)),)
    forms = (one, two, every) if order == "one, two, both" else (two, one, every)
    starts = (0, n_steps // 3, 2 * n_steps // 3)
    return tuple(StageConfig(start=s, forms=(f,)) for s, f in zip(starts, forms, strict=True))


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
