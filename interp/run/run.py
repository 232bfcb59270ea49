"""A run on disk, and everything that an analysis wants from it.

Folder layout:

    config.yaml                      the settings
    environment.json                 versions, device, precision, threads
    tokenizer/                       a transformers fast tokenizer
    people.csv, templates.yaml       people that a user brought, and their wordings
    metrics.jsonl                    one observation a line
    checkpoints/step_00000250.safetensors
    training_state.safetensors       weights and optimizer of an unfinished run, to resume from
    README.md                        what the run is, how it was made and opened
    finished.json                    present once training has ended: last step, and why
    results/                         one folder for each stage that has run (see `stages`)
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedTokenizerFast

from interp.biographies import Batch, Corpus, Population
from interp.config import Config
from interp.ending import noted_digests
from interp.errors import ArgumentError, ConfigError, RunError, whole_number
from interp.files import absolute
from interp.knowledge import Baseline, Split, measure, split_batch
from interp.model import hooked_transformer
from interp.model.adapters import Adapter
from interp.phases import DELTA, Phases, detect_phases, sensitivity
from interp.reading import (
    MAX_DOCUMENT,
    DamageError,
    MissingError,
    read_text,
    require_file,
)
from interp.run.adapters import AdapterUse, use_adapter
from interp.run.checkpoints import checkpoint_steps, load_checkpoint
from interp.run.environment import usable_device
from interp.run.kept import (
    read_environment,
    read_tokenizer,
    require_own_people,
    with_own_people,
)
from interp.run.metrics import read_metrics
from interp.run.other_run import find_other_run
from interp.run.reference import reference_patch
from interp.run.stage_summary import DIGESTS, NOT_MEASURED, read_stage_summary
from interp.run.tables import ALL_TABLES, result_table
from interp.torch_state import default_state


class Run:
    """A training run: where every analysis starts.

    Attributes:
        path: Its folder, absolute; the other paths are those of what lies in it (see the module).
        given: The folder as it was given, to be shown.

    Example:
        ```python
        run = interp.Run.load("runs/tiny")
        run.phases                          # where statistics, plateau and knowledge meet
        run.metrics                         # a tidy table of everything measured
        model = run.model(step=250)         # a TransformerBridge with all its hooks
        batch = run.corpus.biographies(slice(0, 8))
        logits, cache = model.run_with_cache(batch.tokens)
        ```
    """

    def __init__(self, path: Path | str) -> None:
        self.given = Path(path)
        self.path = absolute(path)
        self.config_path = self.path / "config.yaml"
        self.metrics_path = self.path / "metrics.jsonl"
        self.tokenizer_path = self.path / "tokenizer"
        self.state_path = self.path / "training_state.safetensors"
        self.finished_path = self.path / "finished.json"
        self.results_path = self.path / "results"

    @classmethod
    def load(cls, path: Path | str) -> "Run":
        """Opens the run in a folder.

        Raises:
            RunError: the folder is missing or holds no run.
            ConfigError: its settings cannot be read.
            ArgumentError: it is no path.
        """
        if not isinstance(path, str | os.PathLike):
            raise ArgumentError(f"path={path!r}: give the path of a run's folder.")
        run = cls(path)
        try:
            if not run.path.is_dir():
                raise RunError(
                    f"There is no folder {run.given}. Train a run with `interp train --out DIR`."
                )
            require_file(run.config_path)
        except MissingError:
            raise RunError(
                f"{run.given} holds no run (config.yaml is missing). Give the folder that a "
                "run was trained in."
            ) from None
        except (OSError, DamageError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RunError(
                f"The run in {run.given} cannot be opened; config.yaml: {reason}. Give a folder that you "
                "may read, one that a run was trained in."
            ) from None
        _ = run.config
        return run

    @cached_property
    def config(self) -> Config:
        """The run's settings; people that a user brought are those of the run's own copy."""
        try:
            config = Config.from_yaml(read_text(self.config_path, MAX_DOCUMENT))
        except (ConfigError, DamageError) as error:
            raise ConfigError(f"{self.config_path} cannot be read. {error}") from error
        return with_own_people(config, self.path)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The population's tokenizer.

        Raises:
            RunError: it is missing, damaged, or not what it was when training ended.
        """
        return read_tokenizer(self.path)

    @cached_property
    @default_state()
    def corpus(self) -> Corpus:
        """Draws biographies as token batches with spans.

        Raises:
            RunError: the population drawn now is not the one of the run.
        """
        config = self.config
        require_own_people(config, self.path)
        population = Population.of(config)
        recorded = self.environment.get("population")
        if recorded not in (None, population.fingerprint()):
            raise RunError(
                f"The population drawn now differs from the one {self.given} was trained on: the "
                "package's word lists or NumPy's random streams have changed since. Install the "
                f"versions that environment.json names (NumPy "
                f"{self.environment.get('packages', {}).get('numpy', 'not named')}), or train the run again."
            )
        return Corpus.of(config, population, self.tokenizer, self.stages)

    @property
    def stages(self) -> list[tuple[int, int]]:
        """Of an adaptive schedule, the steps at which more people were shown, and how many from then."""
        if self.config.sampling.kind != "adaptive" or not self.metrics_path.exists():
            return []
        shown = self.metrics.query("split == 'shown' and metric == 'individuals'")
        count = shown["value"].astype(int)
        changed = count != count.shift(fill_value=self.config.sampling.indiv_warmup)
        return [
            (int(s), int(n)) for s, n in zip(shown["step"][changed], count[changed], strict=True)
        ]

    @property
    def population(self) -> Population:
        """The people, their facts and wordings."""
        return self.corpus.population

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, device, precision and threads of the training; empty if not recorded.

        Other versions record less, or more. A RunError if the file is damaged.
        """
        return read_environment(self.path)

    @property
    def metrics(self) -> pd.DataFrame:
        """All that was measured: columns `step`, `split`, `metric`, `attribute`, `value`.

        Metrics are `attribute_loss` (nats), `attribute_accuracy`, `top_probability` and `entropy`
        (nats) for every split and attribute, and the training `loss` (nats per token).
        """
        return read_metrics(self.metrics_path, noted_digests(self.path).get("metrics.jsonl"))

    def curve(
        self, metric: str = "attribute_loss", split: str = "evaluation", attribute: str = "all"
    ) -> pd.Series:
        """One metric over training, indexed by `step`.

        Raises:
            RunError: nothing of that kind was measured.
        """
        table = self.metrics
        chosen = table[
            (table["metric"] == metric)
            & (table["split"] == split)
            & (table["attribute"] == attribute)
        ]
        if chosen.empty:
            known = {
                name: sorted(table[name].unique()) for name in ("metric", "split", "attribute")
            }
            raise RunError(
                f"{self.given} has no metric {metric!r} of split {split!r} and attribute {attribute!r}. "
                f"Metrics: {known['metric']}; splits: {known['split']}; attributes: {known['attribute']}."
            )
        return chosen.set_index("step")["value"].rename(metric)

    @cached_property
    def baselines(self) -> Baseline:
        """The no-knowledge baseline in its three forms, per attribute."""
        return Baseline.of(self.population)

    @cached_property
    def baseline(self) -> float:
        """The no-knowledge baseline in nats: the loss of knowing every value's frequency only."""
        return Baseline.overall(self.baselines.theoretical)

    @property
    def phases(self) -> Phases:
        """The three phases by `phase_baseline`: `statistics_end` and `plateau_end` in steps, or None.

        Raises:
            RunError: the weights were compiled, so there is no training curve.
        """
        return self.phases_at(DELTA)

    @property
    def known_phases(self) -> Phases | None:
        """The phases; None as long as nothing has been measured, and of weights that were compiled."""
        return None if self.config.compiled.on or self.metrics.empty else self.phases

    def phases_at(self, delta: float) -> Phases:
        """The phases for another tolerance δ, a share between 0 and 1; raises as `phases`."""
        curve = self._training_curve()
        found = detect_phases(list(curve.index), list(curve), self.phase_baseline, delta)
        return replace(found, stages=self.config.data.boundaries)

    def phase_sensitivity(self) -> pd.DataFrame:
        """How the phases move with δ: columns `delta`, `statistics_end`, `plateau_end`."""
        curve = self._training_curve()
        return sensitivity(list(curve.index), list(curve), self.phase_baseline)

    def _training_curve(self) -> pd.Series:
        """The attribute loss over training; a RunError of weights that were not trained."""
        if self.config.compiled.on:
            raise RunError(
                f"{self.given} was compiled and not trained, so it has no training curve and no phases. What "
                "needs a model, texts or people works on it; for phases, give a run that was trained."
            )
        return self.curve()

    @cached_property
    def phase_baseline(self) -> float:
        """The level of the plateau that phases are held against, in nats.

        The frequencies of the drawn people, not the theoretical ones: with few people the two
        differ by as much as δ, and the plateau lies at the former.
        """
        return Baseline.overall(self.baselines.statistics)

    @property
    def steps(self) -> list[int]:
        """The steps that have a checkpoint."""
        return checkpoint_steps(self.path)

    @property
    def finished(self) -> bool:
        """Whether training has ended."""
        return self.finished_path.exists() and bool(self.steps)

    @default_state()
    def model(
        self,
        step: int | None = None,
        device: torch.device | str = "cpu",
        *,
        adapter: AdapterUse | None = None,
    ) -> TransformerBridge:
        """The model at a checkpoint, in eval mode.

        Of a run with patched attention these are the trained weights with the model's own attention;
        `patched` gives it the attention it was trained with.

        Args:
            step: A step with a checkpoint (see `steps`); the last by default.
            device: Where the weights go.
            adapter: "merged": the adapter that was trained last is in the weights; "on": it stands beside
                them (`interp.model.adapters.adapter_of` finds it); "off": the model without it. By default
                as in training: merged in stages that train the adapter, else off.

        Raises:
            RunError: no checkpoint at all, or no adapter until then.
            CheckpointError: none at that step, or a file that is damaged or foreign.
            ArgumentError: a step that is no whole number, or a device that this machine does not have.
        """
        if step is None and not self.steps:
            raise RunError(f"{self.given} has no checkpoint yet; train it with resume=True.")
        step = self.steps[-1] if step is None else whole_number(step, "step")
        model = hooked_transformer(self.config, self.tokenizer, usable_device(device))
        load_checkpoint(self.path, step, model, self.config)
        use_adapter(self.path, step, model, adapter)
        return model.eval()

    def models(
        self, steps: Sequence[int], device: torch.device | str | None = None
    ) -> Iterator[tuple[int, TransformerBridge]]:
        """The models at some checkpoints, one at a time: built once, then only its weights change.

        Each attends as it did in training (see `patched`). Raises as `model`.

        Args:
            steps: Steps with a checkpoint.
            device: Where the weights go; the CPU by default.
        """
        if not isinstance(steps, Iterable):
            raise ArgumentError(f"steps={steps!r}: give steps in a list, such as [0].")
        model: TransformerBridge | None = None
        merged: Adapter | None = None
        for step in (whole_number(one, "step") for one in steps):
            if model is None:
                model = self.model(step, "cpu" if device is None else device, adapter="off")
            else:
                if merged is not None:
                    merged.unmerge()
                    merged.detach()
                load_checkpoint(self.path, step, model, self.config)
            merged = use_adapter(self.path, step, model, None)
            with self.patched(model, step):
                yield step, model

    @default_state()
    def texts(self, split: Split = "evaluation", n_individuals: int | None = None) -> Batch:
        """The biographies that a split is measured on (see `knowledge.split_batch`)."""
        return split_batch(self.corpus, split, n_individuals)

    @cached_property
    def reference(self) -> "Run | None":
        """The run whose attention patterns this one was trained with; None if with its own.

        Raises:
            RunError: it is not found where the settings say, nor near this run (see `find_other_run`).
        """
        return find_other_run(self.config, "reference", self.path)

    @cached_property
    def base(self) -> "Run | None":
        """The run whose weights this one's training started from; None if from random ones.

        Raises as `reference`.
        """
        return find_other_run(self.config, "base", self.path)

    def patched(
        self, model: TransformerBridge, step: int | None = None
    ) -> AbstractContextManager[TransformerBridge]:
        """While this lasts, a model of this run attends as it did in training at a step.

        Where patterns came from a reference, the reference gives them; otherwise nothing changes.

        Args:
            model: A model of this run, e.g. `run.model(step)`.
            step: The step; the last one by default. Before `patching.start` a run attends by itself.

        Example:
            ```python
            with run.patched(run.model(500), 500) as model:
                logits = model(tokens)
            ```
        """
        step = None if step is None else whole_number(step, "step", 0)
        patching = self.config.patching
        early = step is not None and patching.start is not None and step < patching.start
        if self.reference is None or early:
            return nullcontext(model)
        device = next(model.parameters()).device
        return reference_patch(self.config, self.reference, device).on(model)

    @default_state()
    def measure(
        self,
        step: int | None = None,
        split: Split = "evaluation",
        n_individuals: int | None = None,
        device: torch.device | str = "cpu",
    ) -> pd.DataFrame:
        """What the model at a checkpoint knows, of everybody by default (see `knowledge.measure`)."""
        with self.patched(self.model(step, device), step) as model:
            return measure(model, self.corpus, split, n_individuals)

    def result(self, stage: str, table: str) -> pd.DataFrame | None:
        """A table that a stage of `interp reproduce` wrote.

        None if it has not finished here, or had nothing to measure (see `not_measured`).

        Args:
            stage: The stage, e.g. "attention".
            table: The table's name, e.g. "scores"; `docs/tables.md` has all of them.

        Raises:
            ArgumentError: no stage makes such a table.
            RunError: the file is damaged, or holds another table.
        """
        declared = result_table(stage, table)
        path = self.results_path / stage / f"{table}.csv"
        if not (path.parent / "summary.json").exists() or not os.path.lexists(path):
            return None
        written = read_stage_summary(path.parent).get(DIGESTS, {}).get(table)
        return declared.read(path, written)

    @property
    def not_measured(self) -> dict[str, str]:
        """Of the tables for which finished stages had nothing to measure, why; by "stage/table".

        Raises:
            RunError: a stage's summary is damaged.
        """
        found: dict[str, str] = {}
        for stage in dict.fromkeys(stage for stage, _ in ALL_TABLES):
            reasons = read_stage_summary(self.results_path / stage).get(NOT_MEASURED, {})
            found |= {f"{stage}/{table}": why for table, why in reasons.items()}
        return found

    def check_results(self) -> None:
        """Reads every table of the stages that have finished; raises as `result`."""
        for stage, table in ALL_TABLES:
            self.result(stage, table)

    def __repr__(self) -> str:
        config, steps = self.config, self.steps
        model, people = config.model, config.population
        lines = [
            f"Run({str(self.given)!r})",
            f"  preset {config.preset}, seed {config.seed}, {people.n_individuals:,} individuals "
            f"+ {people.n_held_out:,} held out",
            f"  {model.n_layers} layers, d_model {model.d_model}, {model.n_heads} heads, "
            f"d_mlp {model.d_mlp}",
        ]
        patching = config.patching
        if patching.on:
            lines.insert(2, f"  attention of {patching.reference}, step {patching.reference_step}")
        for part in reversed(self.environment.get("merged", [])):
            lines.insert(2, f"  merged: {part['factor']:+g} × {part['run']}, step {part['step']}")
        if n := self.environment.get("parameters"):
            lines[-1] += f": {n['non_embedding']:,} parameters + {n['embedding']:,} of embeddings"
        unfinished = f"not finished ({config.training.last_step} steps asked)"
        lines.append(
            f"  {len(steps)} checkpoints, last step {steps[-1] if steps else 'none'}, "
            + ("finished" if self.finished else unfinished)
        )
        if config.compiled.on:
            lines.insert(2, f"  compiled, not trained: {config.compiled.variant}")
            lines[-1] = "  1 checkpoint, at step 0"
            if not self.metrics.empty:
                accuracy = self.curve("attribute_accuracy")
                lines.append(f"  attribute accuracy {accuracy.iloc[-1]:.3f}")
        elif not self.metrics.empty:
            phases, accuracy = self.phases, self.curve("attribute_accuracy")
            lines.append(
                f"  statistics end {_step(phases.statistics_end)}, "
                f"plateau ends {_step(phases.plateau_end)}, "
                f"attribute accuracy {accuracy.iloc[-1]:.3f} at step {accuracy.index[-1]}"
            )
        return "\n".join(lines)


def _step(step: int | None) -> str:
    return "not reached" if step is None else f"at step {step}"
