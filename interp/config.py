"""What to run: the settings of one run, as frozen pydantic models.

Each field's docstring is also its `--help` text. Unknown settings are refused. `presets.py` holds
ready-made values; `with_settings` changes any of them by dotted name.
"""

import math
from typing import Annotated, Any, Literal, TypeVar

import tyro
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from interp.errors import ConfigError, suggest

LIST_SIZES = {
    "first_names": 900,
    "middle_names": 900,
    "last_names": 1000,
    "cities": 800,
    "universities": 200,
    "majors": 100,
    "companies": 500,
    "years": 201,
}
"""How many entries each frozen list of the package has; birth years go from 1900 to 2100."""


class Settings(BaseModel):
    """Base of all settings: frozen, nothing unknown, docstrings as descriptions.

    Validators raise `ConfigError` themselves: it passes through pydantic with its message as it is.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )


class PopulationConfig(Settings):
    """Who exists: how many people, and how much of each list their facts are drawn from."""

    n_individuals: int = Field(default=512, ge=1)
    """People the model is trained on."""
    n_held_out: int = Field(default=128, ge=0)
    """People drawn from the same lists who never appear in training."""
    first_names: int = Field(default=100, ge=1, le=LIST_SIZES["first_names"])
    """How many first names are in use (the first so many of the frozen list; so for all below)."""
    middle_names: int = Field(default=100, ge=1, le=LIST_SIZES["middle_names"])
    """How many middle names are in use."""
    last_names: int = Field(default=200, ge=1, le=LIST_SIZES["last_names"])
    """How many last names are in use."""
    cities: int = Field(default=200, ge=1, le=LIST_SIZES["cities"])
    """How many cities are in use, for birth places and current locations."""
    universities: int = Field(default=100, ge=1, le=LIST_SIZES["universities"])
    """How many universities are in use."""
    majors: int = Field(default=50, ge=1, le=LIST_SIZES["majors"])
    """How many majors are in use."""
    companies: int = Field(default=150, ge=1, le=LIST_SIZES["companies"])
    """How many companies are in use."""
    years: int = Field(default=100, ge=1, le=LIST_SIZES["years"])
    """How many birth years are in use, from 1900 on."""
    seed: int | None = Field(default=None, ge=0)
    """Seed of the population; by default the run's seed."""

    @model_validator(mode="after")
    def _enough_names(self) -> "PopulationConfig":
        possible = self.first_names * self.middle_names * self.last_names
        wanted = self.n_individuals + self.n_held_out
        if wanted > possible:
            raise ConfigError(
                f"population: {wanted:,} people (n_individuals + n_held_out) need unique full names, but "
                f"{self.first_names} first x {self.middle_names} middle x {self.last_names} last "
                f"names allow only {possible:,}; ask for fewer people or use more of the lists "
                f"(at most {LIST_SIZES['first_names']}, {LIST_SIZES['middle_names']} and "
                f"{LIST_SIZES['last_names']})."
            )
        return self


class SamplingConfig(Settings):
    """Who comes next in training. Individuals are counted in the order of the population."""

    kind: Literal["uniform", "power_law", "celebrities", "warm_up", "sequential", "adaptive"] = (
        "uniform"
    )
    """"uniform": everybody equally likely. "power_law": individual i (from 1) has probability
    proportional to i^-exponent. "celebrities": the first few are more likely than the rest. "warm_up":
    only the first few for some epochs, then everybody. "sequential": one group after the other.
    "adaptive": few people until the run itself shows that its plateau has ended, then more."""
    exponent: float | None = Field(default=None, ge=0.0, le=10.0)
    """The exponent α of the power law: 0 is uniform, 1 is Zipf ("power_law" only)."""
    n_celebrities: int | None = Field(default=None, ge=1)
    """How many people are celebrities ("celebrities" only)."""
    weight_celebrities: float | None = Field(default=None, gt=0)
    """How many times likelier a celebrity is than anybody else ("celebrities" only)."""
    indiv_warmup: int | None = Field(default=None, ge=1)
    """How many people are shown at first ("warm_up" and "adaptive" only)."""
    epochs_warmup: float | None = Field(default=None, ge=0)
    """For how many epochs only they are shown; an epoch has n_individuals / batch_size steps
    ("warm_up" only)."""
    n_groups: int | None = Field(default=None, ge=1)
    """Into how many groups the people are divided ("sequential" only)."""
    n_repeats: int | None = Field(default=None, ge=1)
    """How many times all groups come one after the other ("sequential" only)."""
    growth: Literal["at_once", "gradual"] | None = None
    """What follows the plateau: "at_once" everybody; "gradual" twice as many people each time that
    those shown are known ("adaptive" only)."""

    @model_validator(mode="after")
    def _settings_of_kind(self) -> "SamplingConfig":
        wanted = SAMPLING_SETTINGS[self.kind]
        given = {n for n in type(self).model_fields if n != "kind" and getattr(self, n) is not None}
        if foreign := sorted(given - set(wanted)):
            kinds = {
                n: [k for k, names in SAMPLING_SETTINGS.items() if n in names] for n in foreign
            }
            raise ConfigError(
                f"sampling: kind={self.kind!r} with "
                + "; ".join(
                    f"{n}={getattr(self, n)}, which belongs to {' and '.join(kinds[n])} only"
                    for n in foreign
                )
                + f". {self.kind!r} has {', '.join(wanted) or 'no settings'}."
            )
        if missing := [n for n in wanted if n not in given]:
            raise ConfigError(
                f"sampling: kind={self.kind!r} needs {', '.join(f'sampling.{n}' for n in missing)}; "
                "set it."
            )
        return self


SAMPLING_SETTINGS: dict[str, tuple[str, ...]] = {
    "uniform": (),
    "power_law": ("exponent",),
    "celebrities": ("n_celebrities", "weight_celebrities"),
    "warm_up": ("indiv_warmup", "epochs_warmup"),
    "sequential": ("n_groups", "n_repeats"),
    "adaptive": ("indiv_warmup", "growth"),
}
"""The settings that each kind of sampling has; all of them have to be given."""


class TokenizerConfig(Settings):
    """How text becomes tokens."""

    kind: Literal["word", "bpe"] = "word"
    """"word": a token per word. "bpe": subwords learned from the population's own vocabulary."""
    bpe_vocabulary: int = Field(default=1024, ge=128)
    """Number of tokens the subword tokenizer learns ("bpe" only)."""


class ModelConfig(Settings):
    """The transformer."""

    n_layers: int = Field(default=2, ge=1)
    """Number of blocks, each attention then MLP."""
    d_model: int = Field(default=128, ge=1)
    """Width of the residual stream."""
    n_heads: int = Field(default=4, ge=1)
    """Attention heads per block; d_head is d_model / n_heads."""
    d_mlp: int = Field(default=512, ge=1)
    """Neurons per MLP."""
    n_ctx: int = Field(default=128, ge=8)
    """Longest sequence, in tokens. The longest biography that can be drawn must fit."""
    normalization: Literal["LN", "RMS"] = "LN"
    """LayerNorm or RMSNorm, before each sublayer and before the unembedding."""
    positions: Literal["standard", "rotary"] = "standard"
    """Learned absolute positions ("standard") or rotary ones."""
    act_fn: Literal["gelu", "gelu_new", "relu", "silu"] = "gelu"
    """The MLP's activation function."""
    init_std: float = Field(default=0.02, gt=0)
    """Standard deviation of the initial weights; output projections are divided by sqrt(2 n_layers)."""
    seed: int | None = Field(default=None, ge=0)
    """Seed of the initial weights; by default the run's seed."""

    recurrence: Literal["rg_lru"] | None = None
    """None: attention. "rg_lru": RecurrentGemma's recurrent block in place of attention, which brings a
    gated MLP and RMSNorm and needs no positions: `normalization` and `positions` mean nothing then."""

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.d_model // self.n_heads

    @model_validator(mode="after")
    def _heads_divide(self) -> "ModelConfig":
        if self.d_model % self.n_heads:
            raise ConfigError(
                f"model: d_model={self.d_model} is not a multiple of n_heads={self.n_heads}; "
                "choose values where it is."
            )
        if self.recurrence is not None and self.positions == "rotary":
            raise ConfigError(
                f"model: recurrence={self.recurrence!r} with positions='rotary'; rotary positions are a "
                "part of attention, which it replaces. Leave one of them out."
            )
        if self.positions == "rotary" and self.d_head % 2:
            raise ConfigError(
                "model: rotary positions need an even head width, but d_model / n_heads = "
                f"{self.d_head}; change either."
            )
        return self


class OptimizerConfig(Settings):
    """AdamW and its learning rate."""

    learning_rate: float = Field(default=1.5e-3, gt=0)
    """Learning rate at the first step."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """"cosine": from the learning rate to 0 over the run, no warm-up. "constant": as it says."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW's β1."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """AdamW's β2."""
    weight_decay: float = Field(default=0.1, ge=0)
    """AdamW's weight decay, on weight matrices and embeddings (not on biases and norms)."""


class TrainingConfig(Settings):
    """The training loop."""

    n_steps: int = Field(default=1500, ge=1)
    """Optimizer steps."""
    batch_size: int = Field(default=32, ge=1)
    """Biographies per step."""
    seed: int | None = Field(default=None, ge=0)
    """Seed of who comes when, in which wording; by default the run's seed."""
    device: str = "auto"
    """"auto" takes CUDA, then MPS, then the CPU; or "cpu", "cuda", "cuda:1", "mps"."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """"bf16" computes under autocast; "auto" does where the hardware has bf16, else fp32."""
    early_checkpoints: tuple[int, ...] = (0, 5, 10, 20, 30, 40, 75, 125, 175, 225, 275)
    """Steps with a checkpoint beside the regular ones."""
    checkpoint_every: int = Field(default=50, ge=1)
    """A checkpoint every so many steps, and at the last one."""
    stop_below: float | None = Field(default=None, gt=0, lt=1)
    """Stop once the evaluation attribute loss is below this share of the no-knowledge baseline."""
    stop_at: int | None = Field(default=None, ge=1)
    """Stop at this step; the learning rate falls as if the run went on to n_steps."""

    @model_validator(mode="after")
    def _checkpoints_inside(self) -> "TrainingConfig":
        if any(step < 0 for step in self.early_checkpoints):
            raise ConfigError(
                f"training: early_checkpoints={self.early_checkpoints} holds a negative step; "
                "steps count from 0."
            )
        return self

    @property
    def last_step(self) -> int:
        """The step at which training ends: `stop_at` if that comes first, else `n_steps`."""
        return self.n_steps if self.stop_at is None else min(self.stop_at, self.n_steps)

    def checkpoint_steps(self) -> set[int]:
        """The steps with a checkpoint, if the run reaches its last step."""
        last = self.last_step
        regular = set(range(0, last + 1, self.checkpoint_every))
        return {s for s in self.early_checkpoints if s <= last} | regular | {last}


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
                else f"patching: reference_step is missing; name the checkpoint of {self.reference} "
                "that gives the attention patterns."
            )
        for name, chosen in (("layers", self.layers), ("heads", self.heads)):
            if chosen is not None and (not chosen or list(chosen) != sorted(set(chosen))):
                raise ConfigError(
                    f"patching: {name}={chosen}; name each once, in increasing order, or leave it "
                    "out for all."
                )
        return self


class FinetuningConfig(Settings):
    """Training that goes on from the weights of a finished run, on other people (paper, section 5)."""

    base: str | None = None
    """Folder of the run whose weights training starts from; fine-tuning is off without."""
    base_step: int | None = Field(default=None, ge=0)
    """Which checkpoint of it; the last by default."""
    people: Literal["new", "rare"] | None = None
    """On whom: "new" people, the first of those held out so far (the default), or "rare" ones, the
    last of those that the base was trained on."""
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
        if self.people == "rare" and self.n_individuals is None:
            raise ConfigError(
                "finetuning: people='rare' needs finetuning.n_individuals: how many of the last people "
                "that the base was trained on."
            )
        return self


class EvaluationConfig(Settings):
    """What is measured while training."""

    every: int = Field(default=25, ge=1)
    """Steps between measurements."""
    n_individuals: int = Field(default=256, ge=1)
    """People measured per split (the first so many; all, if fewer exist). One biography each."""
    log_every: int = Field(default=5, ge=1)
    """Steps between records of the training loss."""
    splits: tuple[Literal["train", "evaluation", "held_out", "finetuned"], ...] | None = None
    """What is measured while training; all by default. "evaluation" belongs to it always. "finetuned"
    are the people of fine-tuning, in wordings never seen with them; the others are without them."""

    @model_validator(mode="after")
    def _phases_can_be_found(self) -> "EvaluationConfig":
        if self.splits is not None and "evaluation" not in self.splits:
            raise ConfigError(
                f"evaluation: splits={self.splits} leaves out 'evaluation', on which the phases are "
                "found; add it."
            )
        return self


class LoggingConfig(Settings):
    """Where else the metrics go. Does not change the run."""

    wandb: Literal["disabled", "offline", "online"] = "disabled"
    """Weights & Biases: off, written into the run's folder, or sent to its server."""
    wandb_project: str = "interp"
    """The Weights & Biases project."""


AnyConfig = TypeVar("AnyConfig", bound="RunConfig")


class RunConfig(Settings):
    """Base of the settings of one run, whole: read from YAML, written as such, changed by dotted name."""

    def with_settings(self: AnyConfig, **settings: Any) -> AnyConfig:
        """A copy with settings replaced, each by its dotted name.

        Example:
            >>> Config().with_settings(seed=1, **{"model.n_layers": 4}).model.n_layers
            4

        Raises:
            ConfigError: a name is unknown, or a value cannot work.
        """
        values = self.model_dump(mode="json")
        known = set(flatten(values))
        for name, value in settings.items():
            *groups, leaf = name.split(".")
            place: Any = values
            for group in groups:
                place = place.get(group) if isinstance(place, dict) else None
            if not isinstance(place, dict) or leaf not in place:
                raise ConfigError(
                    f"There is no setting {name!r}.{suggest(name, known | set(values))} "
                    f"Settings: {', '.join(sorted(known))}."
                )
            if isinstance(value, BaseModel):
                value = value.model_dump(mode="json")
            place[leaf] = value
        return self.parse(values)

    @classmethod
    def parse(cls: type[AnyConfig], values: Any) -> AnyConfig:
        """A config from plain values (as read from YAML), with a readable error.

        Raises:
            ConfigError: an unknown setting or a value that cannot work.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(describe(cls, error)) from error

    def to_yaml(self) -> str:
        """The settings as YAML text, in their order."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls: type[AnyConfig], text: str) -> AnyConfig:
        """The inverse of `to_yaml`.

        Raises:
            ConfigError: not YAML, an unknown setting, or a value that cannot work.
        """
        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"Not a YAML file: {error}") from error
        return cls.parse(values)


class Config(RunConfig):
    """One run, whole: the same config on the same machine gives the same bytes."""

    preset: Annotated[str, tyro.conf.Suppress] = "tiny"
    """Name of the preset that this configuration started from."""
    seed: int = Field(default=0, ge=0)
    """Seed of everything that has no seed of its own."""
    population: PopulationConfig = PopulationConfig()
    """Who exists."""
    sampling: SamplingConfig = SamplingConfig()
    """Who comes next in training."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """How text becomes tokens."""
    model: ModelConfig = ModelConfig()
    """The transformer."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """AdamW and its learning rate."""
    training: TrainingConfig = TrainingConfig()
    """The training loop."""
    patching: PatchingConfig = PatchingConfig()
    """Attention patterns taken from a reference run while training."""
    finetuning: FinetuningConfig = FinetuningConfig()
    """Training that goes on from the weights of a finished run, on other people."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """What is measured while training."""
    logging: LoggingConfig = LoggingConfig()
    """Where else the metrics go."""

    @model_validator(mode="after")
    def _enough_people(self) -> "Config":
        people, sampling, finetuning = self.population, self.sampling, self.finetuning
        for name in ("n_celebrities", "indiv_warmup", "n_groups"):
            wanted = getattr(sampling, name)
            if wanted is not None and wanted > people.n_individuals:
                raise ConfigError(
                    f"sampling: {name}={wanted}, but there are {people.n_individuals} people to train "
                    "on (population.n_individuals); use fewer, or more people."
                )
        if not finetuning.on:
            if self.evaluation.splits is not None and "finetuned" in self.evaluation.splits:
                raise ConfigError(
                    "evaluation: the split 'finetuned' exists only where training starts from another "
                    "run; set finetuning.base or leave the split out."
                )
            return self
        if sampling.kind != "uniform":
            raise ConfigError(
                f"finetuning: sampling.kind={sampling.kind!r} is about everybody, but fine-tuning shows "
                "its own people and those that finetuning.replay_weight replays; use uniform."
            )
        source, most = (
            ("held out (population.n_held_out)", people.n_held_out)
            if finetuning.people == "new"
            else ("trained on (population.n_individuals)", people.n_individuals - 1)
        )
        count = finetuning.n_individuals or people.n_held_out
        if not 1 <= count <= most:
            raise ConfigError(
                f"finetuning: {count} {finetuning.people} people are asked for, but at most {most} of "
                f"those {source} can be used; change finetuning.n_individuals."
            )
        return self

    @property
    def n_finetuned(self) -> int:
        """How many people fine-tuning is on; 0 without fine-tuning."""
        if not self.finetuning.on:
            return 0
        return self.finetuning.n_individuals or self.population.n_held_out

    @model_validator(mode="after")
    def _patched_parts_exist(self) -> "Config":
        for what, count in (("layers", self.model.n_layers), ("heads", self.model.n_heads)):
            wrong = [i for i in getattr(self.patching, what) or () if not 0 <= i < count]
            if wrong:
                raise ConfigError(
                    f"patching: {what} {wrong} do not exist; the model has {what} 0 to {count - 1}."
                )
        if self.patching.on and self.model.recurrence is not None:
            raise ConfigError(
                f"patching: model.recurrence={self.model.recurrence!r} has no attention to patch; leave "
                "patching.reference or model.recurrence out."
            )
        start = self.patching.start
        if start is not None and start >= self.training.last_step:
            raise ConfigError(
                f"patching: start={start}, but training ends at step {self.training.last_step}; "
                "start earlier or train for longer."
            )
        return self

    def seed_of(self, part: Literal["population", "model", "training"]) -> int:
        """The seed of one part: its own where it has one, else the run's."""
        own = {
            "population": self.population.seed,
            "model": self.model.seed,
            "training": self.training.seed,
        }[part]
        return self.seed if own is None else own

    def identity(self) -> dict[str, Any]:
        """The settings that determine a run's bytes, by dotted name: all but logging.

        Settings that are off (None) are left out, so that one added later changes no old run. Another
        run (a reference, a base) counts by its own settings and not by the folder it happens to lie in.
        """
        values = self.model_dump(mode="json", exclude_none=True)
        del values["logging"], values["preset"]
        if "reference_run" in values["patching"]:
            del values["patching"]["reference"]
        if "base_run" in values["finetuning"]:
            values["finetuning"].pop("base", None)
        return flatten(values)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, keyed by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def differences(ours: Config, theirs: Config) -> list[str]:
    """One line for each setting in which two configs would give different runs."""
    a, b = ours.identity(), theirs.identity()
    return [
        f"{name}: {b.get(name, 'not set')} there, {a.get(name, 'not set')} asked for"
        for name in sorted(a.keys() | b.keys())
        if a.get(name, math.nan) != b.get(name, math.nan)
    ]


def describe(model: type[Settings], error: ValidationError) -> str:
    """A pydantic error in one line a setting.

    Args:
        model: What was to be read; its default values name the settings that there are.
        error: What pydantic says.
    """
    lines = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            known = flatten(model().model_dump(mode="json"))
            lines.append(f"There is no setting {name!r}.{suggest(name, known)}")
            continue
        lines.append(f"{name}: {item['msg']} (got {item['input']!r}).")
    return "\n".join(lines)
