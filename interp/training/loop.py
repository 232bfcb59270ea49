"""The training loop.

State `s` is the model after `s` updates. At each state, in this order: measure if due, write a
checkpoint if due, then update with the batch of step `s`. A batch is a pure function of the step and
nothing else is random, so weights, optimizer moments and the step are the whole state: a run that is
killed and resumed gives the same bytes.

Several processes can train one run together (see `parallel`). Then all of them make the updates, and
the main one does everything else.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import NoReturn

import torch
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import Batch, Corpus, save_tokenizer
from interp.config import Config
from interp.ending import write_ending
from interp.errors import ConfigError, DivergedError, InterruptedRunError
from interp.files import (
    absolute,
    folder_lock,
    place_to_write,
    remove_parts,
    write_json,
    write_text,
)
from interp.knowledge import (
    SPLITS,
    Split,
    measured_individuals,
    split_batch,
    summarise,
    value_table,
)
from interp.model import (
    AttentionPatch,
    hooked_transformer,
    parameter_counts,
)
from interp.phases import detect_phases
from interp.progress import Progress, showing, silent
from interp.run import (
    MetricsWriter,
    Run,
    keep_until,
    observation,
    own_patch,
    reference_patch,
    resolve_base,
    resolve_precision,
    resolve_reference,
    write_checkpoint,
)
from interp.run.base import load_base
from interp.run.kept import kept_files
from interp.run.layout import RUN, keep_people, remove_training
from interp.run.other_run import find_other_run
from interp.run.readme import write_readme
from interp.torch_state import default_state
from interp.training.adaptive import AdaptiveSchedule
from interp.training.ahead import DrawnAhead
from interp.training.conditions import describe_conditions, deterministic, warn_of_changes
from interp.training.folder import find_run, nothing_left, open_folder, require_trained
from interp.training.interruption import StopRequest, stop_request
from interp.training.optimizer import adamw, learning_rate, set_rate
from interp.training.parallel import Ranks, Status, gather
from interp.training.size import require_memory
from interp.training.state import load_state, write_state
from interp.training.trained import TrainedWeights
from interp.training.updates import Updates
from interp.training.wandb import MetricsLog, require_login, wandb_log


@default_state()
def train(
    config: Config,
    out: Path | str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | Progress = True,
) -> Run:
    """Trains a model and returns the run.

    Where a launcher has started several processes (`accelerate launch`), all have to call this with
    the same arguments and see the same folder: they train the run together.

    Args:
        config: What to train, e.g. `interp.preset("tiny", seed=1)`.
        out: The run's folder.
        resume: Go on with the run in `out`; one that is finished is returned as it is.
        overwrite: Delete the run in `out` first.
        progress: Show progress on standard error; or where to report it to.

    Raises:
        RunError: the folder is in use, or holds something else (see `open_folder`).
        ConfigError: `resume` and `overwrite` together; the longest biography does not fit the
            context; an unusable device; fewer biographies in a batch than processes.
        DivergedError: the loss became NaN or infinite; the last good checkpoint is kept.
        InterruptedRunError: Ctrl-C or SIGTERM; the state is saved.
        StorageError: a file could not be written; complete files are intact.
        LostProcessError: another of several processes ended without a word.
        SystemExit: another of several processes raised one of the above, and shows it.
    """
    out = place_to_write(out)
    trained = Run(
        out
    )  # its path is absolute from here on, should a progress change the working directory
    ranks = gather(config)
    asked = config, out, resume, overwrite
    plan = ranks.main_first(lambda: _resolved(*asked))
    if plan is None:
        _ = trained.config
        return trained
    trainer = ranks.main_first(lambda: Trainer(*plan, ranks))  # before anything is written
    with ExitStack() as stack:
        opened = _opened(trainer.config, out, resume, overwrite)
        run = ranks.on_main(lambda: stack.enter_context(opened)) or Run.load(out)
        if not run.finished:
            name = f"{config.preset} seed {config.seed}"
            shown = progress if ranks.is_main else False
            with showing(name, expected_seconds(config), shown) as report:
                ranks.main_first(lambda: trainer.open(run))
                trainer.run_to_end(report)
        ranks.on_main(lambda: run.state_path.unlink(missing_ok=True))
        _ = trained.config
        return trained


def _resolved(
    config: Config, out: Path, resume: bool, overwrite: bool
) -> tuple[Config, Corpus, Run | None, Run | None] | None:
    """The settings once they are known to work, their corpus, and the runs they refer to.

    None where the run is finished and nothing is left to do.
    """
    if resume and overwrite:
        raise ConfigError(
            "Both resume and overwrite were asked for; resume keeps the run in the folder, overwrite "
            "deletes it. Choose one."
        )
    finetuning = config.finetuning
    reference = find_other_run(config, "reference", absolute(out))
    if finetuning.on and finetuning.base is None:
        raise ConfigError(
            "finetuning: these settings start from another run, but not from which folder; set "
            "finetuning.base."
        )
    base = find_other_run(config, "base", absolute(out))
    for name, other in (("patching.reference", reference), ("finetuning.base", base)):
        if other is not None and other.path.resolve() == out.resolve():
            raise ConfigError(
                f"{name} and the run to train are the same folder, {out}: training there would delete the "
                f"{name.split('.')[1]}. Choose another folder."
            )
    config = resolve_base(resolve_reference(config, reference), base)
    run = find_run(config, out, resume=resume, overwrite=overwrite)
    if resume and run is not None:
        if nothing_left(run):
            return None
        config = run.config  # the same but for what decides about no byte
    require_trained(config)
    require_memory(config)
    require_login(config)
    return config, Corpus.from_config(config), reference, base


@contextmanager
def _opened(config: Config, out: Path, resume: bool, overwrite: bool) -> Iterator[Run]:
    """The run in a folder that is locked for this process."""
    with folder_lock(out):
        run = open_folder(config, out, resume=resume, overwrite=overwrite)
        remove_parts(out, RUN)
        yield run


def expected_seconds(config: Config) -> float:
    """About how long training takes on 2 CPU cores: a first guess, until its pace is seen.

    Measured at `tiny`: 30 ms for a step, 0.2 ms for each biography that is evaluated.
    """
    model, training, evaluation = config.model, config.training, config.evaluation
    per_token = model.n_layers * model.d_model * (4 * model.d_model + 2 * model.d_mlp)
    size = (per_token + 150_000) / (393_216 + 150_000)  # what does not grow with the layers
    steps = training.last_step
    people = min(config.population.n_individuals, evaluation.n_individuals or 10**9)
    splits = len(evaluation.splits or SPLITS)
    measured = steps / evaluation.every * splits * people
    return size * (0.03 * steps * training.batch_size / 32 + 0.0002 * measured)


class Trainer:
    """Trains one run, once its locked folder has been given to `open`.

    Args:
        config: The settings.
        corpus: What it is trained on.
        reference: The run that attention patterns come from, if any.
        base: The run whose weights a fine-tuning starts from.
        ranks: The processes that train it, of which only the main one writes and measures.
    """

    run: Run

    def __init__(
        self,
        config: Config,
        corpus: Corpus,
        reference: Run | None,
        base: Run | None,
        ranks: Ranks,
    ) -> None:
        self.corpus = corpus
        self.config = config
        self.ranks = ranks
        self.device = ranks.device
        self.precision = resolve_precision(self.config.training, self.device)
        self.model: TransformerBridge = hooked_transformer(
            self.config, corpus.tokenizer, self.device
        )
        self._reference, self._base = reference, base
        self.patch = self._patch(reference)
        if base is not None:
            load_base(self.config, base, self.model)
        self.trained = TrainedWeights(self.model, self.config)
        self.trained.begin(0)
        self.optimizer = adamw(self.trained.parameters(), self.config.optimizer)
        self.updates = Updates(
            self.config, corpus, self.model, self.precision, ranks, self.patch is not None
        )
        self.checkpoint_steps = self.config.training.checkpoint_steps()
        self.losses: dict[int, float] = {}  # attribute loss on the evaluation split, by step
        self.step = 0
        self.measured = False  # whether the state at this step has been measured
        self.measurement = ""  # the last one, in words
        self._batches = self._measured_batches() if ranks.is_main else {}

    def open(self, run: Run) -> None:
        """Takes the run's folder: writes what training begins with, or loads the state it had reached."""
        self.run = run
        if self.ranks.is_main:
            self._prepare_folder(self._reference, self._base)
        self.metrics = MetricsWriter(run.metrics_path)
        self.baseline = run.phase_baseline
        if run.state_path.exists():
            self._resume()
        self.schedule: AdaptiveSchedule | None = None
        if self.config.sampling.kind == "adaptive":
            self.schedule = AdaptiveSchedule(self.config, self.corpus, run)

    def _measured_batches(self) -> dict[Split, Batch]:
        people = self.config.evaluation.n_individuals
        return {
            split: split_batch(self.corpus, split, people)
            for split in self.config.evaluation.splits or (*SPLITS, "finetuned")
            if split == "evaluation" or len(measured_individuals(self.corpus, split, people))
        }

    def _prepare_folder(self, reference: Run | None, base: Run | None) -> None:
        run = self.run
        save_tokenizer(self.corpus.tokenizer, run.tokenizer_path)  # whatever may lie there
        keep_people(run.path, self.corpus.population)
        environment = describe_conditions(
            self.config, self.device, self.precision, self.ranks.count, reference, base
        )
        if run.environment and run.state_path.exists():
            warn_of_changes(environment, run.environment)
        else:
            environment["parameters"] = parameter_counts(self.model)
            environment["population"] = self.corpus.population.fingerprint()
            write_json(run.path / "environment.json", environment)
        if not run.state_path.exists():
            remove_training(run.path)  # an earlier one, should there have been one
            write_text(run.metrics_path, "")

    def _patch(self, reference: Run | None) -> AttentionPatch | None:
        if reference is not None:
            return reference_patch(self.config, reference, self.device)
        return own_patch(self.config, self.model) if self.config.patching.own else None

    def _attending(self) -> AbstractContextManager[object]:
        """While this lasts, the model attends as the settings say for the step it is at."""
        start = self.config.patching.start
        if self.patch is None or start is None or self.step < start:
            return nullcontext()
        return self.patch.on(self.model)

    def run_to_end(self, progress: Progress = silent) -> None:
        """Trains until the last step, or until the settings say to stop."""
        ranks = self.ranks
        with ExitStack() as stack:
            stack.enter_context(deterministic(self.device))
            request = stack.enter_context(stop_request())
            logging = wandb_log(self.config, self.run.path)
            log = ranks.on_main(lambda: stack.enter_context(logging)) or _no_log
            self.updates.begin(self.optimizer)
            ahead = DrawnAhead(self.updates.draw, self._drawn_until())
            self.batches = stack.enter_context(ahead)
            while True:
                status = ranks.all_reduce(partial(self._look, progress, log, request))
                if status.end:
                    break
                if status.asked:
                    ranks.on_main(self._interrupted)
                if self.schedule is not None:
                    self.schedule.follow(self.step, status.shown)
                self._update(log)
            ranks.on_main(self._finish)

    def _look(self, progress: Progress, log: MetricsLog, request: StopRequest) -> Status:
        """This process's status at a state; the main one measures and saves it first."""
        if not self.ranks.is_main:
            return Status(asked=request.asked)
        last_step = self.config.training.last_step
        progress(self.step / last_step, self._note())
        if not self.measured:
            self._measure_and_save(log)
        return Status(
            end=self.step == last_step or self._low_enough(),
            shown=self.schedule.shown if self.schedule is not None else 0,
            asked=request.asked,
        )

    def _finish(self) -> None:
        config = self.config.training
        if self.step not in self.checkpoint_steps:
            self._write_checkpoint()
        self.metrics.flush()
        planned = "n_steps" if config.last_step == config.n_steps else "stop_at"
        reason = "stop_below" if self._low_enough() else planned
        write_readme(self.run)
        write_ending(
            self.run.path, {"step": self.step, "reason": reason}, kept_files(self.run.path)
        )

    def _note(self) -> str:
        done = f"step {self.step:,} of {self.config.training.last_step:,}"
        return f"{done}, {self.measurement}" if self.measurement else done

    def _update(self, log: MetricsLog) -> None:
        step = self.step
        config = self.config
        if self.trained.begin(step):
            self.optimizer = adamw(self.trained.parameters(), config.optimizer)
            self.updates.begin(self.optimizer)
        rate = learning_rate(config, step)
        set_rate(self.optimizer, rate)
        if step == config.patching.start:
            self.optimizer.state.clear()
        with self._attending():
            loss = self.updates.make(self.batches.at(step), step)
        if step % config.evaluation.log_every == 0:
            self.ranks.on_main(partial(self._record, log, step, loss.item(), rate))
        self.step, self.measured = step + 1, False

    def _drawn_until(self) -> int:
        """Until where batches are known ahead: an adaptive schedule decides step by step."""
        return self.config.training.last_step if self.schedule is None else 0

    def _record(self, log: MetricsLog, step: int, loss: float, rate: float) -> None:
        if not math.isfinite(loss):
            self._diverged(f"the training loss is {loss} at step {step}")
        self.metrics.add([observation(step, "train", "loss", loss)])
        log({"loss": loss, "learning_rate": rate}, step)

    def _measure_and_save(self, log: MetricsLog) -> None:
        step = self.step
        last = step == self.config.training.last_step
        checkpoint = step in self.checkpoint_steps
        if step % self.config.evaluation.every == 0 or checkpoint or last:
            with self._attending():
                tables = {s: value_table(self.model, b) for s, b in self._batches.items()}
                shown = self.schedule.measured(self.model, step) if self.schedule else []
            for split, table in tables.items():
                loss = float(table[0][self._batches[split].has_value.numpy()].mean())
                if not math.isfinite(loss):
                    self._diverged(f"the attribute loss ({split}) is {loss} at step {step}")
            self.metrics.add([*shown, *self.updates.costs(step)])
            for split, table in tables.items():
                summary = summarise(table, split, self.corpus.attributes).assign(step=step)
                rows = summary.itertuples(index=False)
                self.metrics.add(dict(zip(summary.columns, row, strict=True)) for row in rows)
                overall = summary[summary["attribute"] == "all"].set_index("metric")["value"]
                log({f"{split}/{name}": value for name, value in overall.items()}, step)
                if split == "evaluation":
                    self.losses[step] = float(overall["attribute_loss"])
            phases = detect_phases(list(self.losses), list(self.losses.values()), self.baseline)
            self.measurement = f"attribute loss {self.losses[step]:.2f}, {phases.at(step)}"
            self.metrics.flush()
        self.measured = True
        if checkpoint:
            self._write_checkpoint()
            self._save_state()

    def _low_enough(self) -> bool:
        share = self.config.training.stop_below
        return share is not None and self.losses.get(self.step, math.inf) < share * self.baseline

    def _save_state(self) -> None:
        """Everything needed to go on, after the measurement of its step."""
        metrics = self.metrics.flushed_digest()
        path, trained, more = self.run.state_path, self.trained, self.updates.state
        write_state(
            path, self.config, self.step, self.model, trained, self.optimizer, metrics, more
        )

    def _resume(self) -> None:
        """Loads the saved state; the main process drops what was recorded after it."""
        self.step, self.optimizer, metrics = load_state(
            self.run.state_path, self.config, self.model, self.trained, self.updates.load
        )
        self.measured = True
        if not self.ranks.is_main:
            return
        keep_until(self.run.metrics_path, self.step, metrics)
        curve = self.run.curve()
        self.losses = dict(zip(map(int, curve.index), map(float, curve), strict=True))

    def _write_checkpoint(self) -> None:
        if not all(bool(torch.isfinite(p).all()) for p in self.model.parameters()):
            self._diverged(f"weights are not finite at step {self.step}")
        self.trained.save(
            self.run.path, self.step
        )  # first: a checkpoint says that all of it is there
        write_checkpoint(self.run.path, self.step, self.model, self.config)

    def _diverged(self, what: str) -> NoReturn:
        self.metrics.flush()
        steps = self.run.steps
        last = (
            f"The last good checkpoint is step {steps[-1]}"
            if steps
            else "No checkpoint was written"
        )
        raise DivergedError(
            f"Training of {self.run.given} diverged: {what}. {last}. Try a lower "
            f"optimizer.learning_rate (now {self.config.optimizer.learning_rate:g}) or "
            "training.precision fp32, in a new folder or with overwrite=True."
        )

    def _interrupted(self) -> NoReturn:
        self._save_state()
        raise InterruptedRunError(
            f"Stopped at step {self.step} of {self.config.training.last_step}; everything is saved in "
            f"{self.run.given}. The same command goes on from there (training: with resume=True)."
        )


def _no_log(values: Mapping[str, float], step: int) -> None:
    pass
