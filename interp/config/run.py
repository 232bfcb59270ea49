"""The settings of one run, whole: its parts, and what each asks of the others."""

from typing import Annotated, Any, Literal

import tyro
from pydantic import Field, model_validator

from interp.config.base import MAX_SEED, RunConfig, changes, flatten
from interp.config.compiled import CompiledConfig
from interp.config.data import LIST_SIZES, PopulationConfig, SamplingConfig, TokenizerConfig
from interp.config.model import ModelConfig
from interp.config.other_runs import FinetuningConfig, MergingConfig, PatchingConfig
from interp.config.selection import SelectionConfig
from interp.config.stages import AdapterConfig, DataConfig
from interp.config.training import EvaluationConfig, LoggingConfig, OptimizerConfig, TrainingConfig
from interp.errors import ConfigError


class Config(RunConfig):
    """One run, whole: the same config on the same machine gives the same bytes."""

    preset: Annotated[str, tyro.conf.Suppress] = "tiny"
    """Name of the preset that this configuration started from."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Seed of everything that has no seed of its own."""
    population: PopulationConfig = PopulationConfig()
    """Who exists."""
    sampling: SamplingConfig = SamplingConfig()
    """Who comes next in training."""
    data: DataConfig = DataConfig()
    """In which forms and wordings people are met."""
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
    """Training that goes on from the weights of a finished run."""
    merging: Annotated[MergingConfig, tyro.conf.Suppress] = MergingConfig()
    """What the weights were made of, where they were not trained; filled in by `interp.save_merged`."""
    compiled: Annotated[CompiledConfig, tyro.conf.Suppress] = CompiledConfig()
    """How the weights were computed, where they were not trained; filled in by `interp.compile_recall`."""
    adapter: AdapterConfig = AdapterConfig()
    """A low-rank adapter beside the model's weights."""
    selection: SelectionConfig = SelectionConfig()
    """What of each step is trained on."""
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
        if finetuning.people == "same":
            return self
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
    def untrained(self) -> Literal["merged", "compiled"] | None:
        """How the weights were made where no training made them; None where training did."""
        return "merged" if self.merging.on else "compiled" if self.compiled.on else None

    @property
    def n_finetuned(self) -> int:
        """How many people fine-tuning is on; 0 without fine-tuning."""
        if not self.finetuning.on or self.finetuning.people == "same":
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

    @model_validator(mode="after")
    def _stages_fit(self) -> "Config":
        stages, last = self.data.stages or (), self.training.last_step
        if stages and stages[-1].start >= last:
            raise ConfigError(
                f"data.stages: the last stage begins at step {stages[-1].start}, but training ends at step "
                f"{last}; begin earlier or train for longer."
            )
        on_adapter = [stage.start for stage in stages if stage.weights == "adapter"]
        if on_adapter and not self.adapter.on:
            raise ConfigError(
                f"data.stages: the stage from step {on_adapter[0]} trains the adapter, but there is none; "
                "set adapter.rank."
            )
        if self.adapter.on and not on_adapter:
            raise ConfigError(
                "adapter: no stage trains it; give one of data.stages weights='adapter'."
            )
        if self.patching.on and on_adapter:
            raise ConfigError(
                "patching: attention patterns cannot be patched while an adapter is trained; leave "
                "patching.reference or adapter.rank out."
            )
        some = [form.form for stage in stages for form in stage.forms if form.people is not None]
        if some and self.finetuning.on and self.finetuning.people != "same":
            raise ConfigError(
                f"data.stages: the form {some[0]!r} is about a share of the people trained on, but "
                f"fine-tuning shows {self.finetuning.people} people; leave people out, or set "
                "finetuning.people to same."
            )
        return self

    @model_validator(mode="after")
    def _contradictions_fit(self) -> "Config":
        told, finetuning = self.data.contradictions, self.finetuning
        if told.on and finetuning.on and finetuning.people != "same":
            raise ConfigError(
                f"data.contradictions: they are about the people trained on, but fine-tuning shows "
                f"{finetuning.people} people; leave them out, or set finetuning.people to same."
            )
        if told.until is not None and told.until >= self.training.last_step:
            raise ConfigError(
                f"data.contradictions: until={told.until}, but training ends at step "
                f"{self.training.last_step}; give an earlier step or train for longer."
            )
        return self

    def seed_of(self, part: Literal["population", "model", "training"]) -> int:
        """The seed of one part: its own where it has one, else the run's."""
        seed: int | None = getattr(self, part).seed
        return self.seed if seed is None else seed

    def with_settings(self, **settings: Any) -> "Config":
        """See `RunConfig.with_settings`; where other files of people are named, these are read."""
        named = {name for name, _ in changes(settings)}
        if named & {"population.people", "population.templates"}:
            settings = {"population.people_digest": None, **settings}
        return super().with_settings(**settings)

    def identity(self) -> dict[str, Any]:
        """The settings that determine a run's bytes, by dotted name: all but logging.

        Settings that are off (None) are left out, so that one added later changes no old run. Another
        run (a reference, a base) counts by its own settings and not by the folder it happens to lie in, and
        people of a file by what it says.
        """
        values = self.model_dump(mode="json", exclude_none=True)
        del values["logging"], values["preset"]
        if "reference_run" in values["patching"]:
            del values["patching"]["reference"]
        if "base_run" in values["finetuning"]:
            values["finetuning"].pop("base", None)
        people = values["population"]
        if "people_digest" in people:
            # Nothing of the lists is in use.
            for name in ("people", "templates", *LIST_SIZES):
                del people[name]
        return flatten(values)
