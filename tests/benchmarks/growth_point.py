"""One point of `growth`: times and memory of a process that makes a corpus, batches, steps, evaluations."""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from interp import Config, Corpus, hooked_transformer, preset
from interp.biographies import Batch
from interp.knowledge import ValuePositions, split_batch, value_statistics
from interp.model import logits_at, measuring, training_loss
from interp.run import resolve_precision
from interp.training.optimizer import adamw
from tests.benchmarks.memory import Measured, peak_mb

EVALUATED = 128
"""People of an evaluation: one forward pass, as in training."""


def above_baseline(config: Config, together: int, n_steps: int) -> tuple[dict[str, int], Measured]:
    """As `measure`, on one thread, with peaks above what the process held before."""
    torch.set_num_threads(1)
    measure(preset("smoke"), 1, 1)  # what is loaded late and set up once is no growth
    before = peak_mb()
    sizes, measured = measure(config, together, n_steps)
    return sizes, {what: (times, peak - before) for what, (times, peak) in measured.items()}


def measure(config: Config, together: int, n_steps: int) -> tuple[dict[str, int], Measured]:
    """Times what a training does, in the order in which it does it.

    Args:
        config: Of model, population and batches.
        together: Biographies in a row.
        n_steps: Steps that are timed, and a third as many evaluations, ten times as many batches: a
            fixed number, on which the memory depends that a process keeps.

    Returns:
        Sizes, by what can grow; by what is timed, seconds of CPU time of each time, and the peak of
        the process until then in MB.
    """
    started = time.process_time()
    corpus = Corpus.from_config(config)
    measured: Measured = {"corpus": ([time.process_time() - started], peak_mb())}
    model = hooked_transformer(config, corpus.tokenizer)
    optimizer = adamw(dict(model.named_parameters()), config.optimizer)
    precision = resolve_precision(config.training, torch.device("cpu"))
    size, pad = config.training.batch_size, corpus.tokenizer.pad_token_id
    rows = [in_rows(corpus, corpus.batch(step, size), together) for step in range(16)]

    def step(number: int) -> None:
        tokens = rows[number % len(rows)]
        training_loss(model, tokens, pad_token=pad, precision=precision).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def evaluation(number: int) -> None:
        batch = split_batch(corpus, "evaluation", EVALUATED)
        where = ValuePositions.of(batch)
        row, position = place_in_rows(corpus, where, together)
        with measuring(model):
            logits = logits_at(model, in_rows(corpus, batch, together), row, position)
            value_statistics(logits, where, len(batch))

    works: dict[str, tuple[Callable[[int], object], int]] = {
        "batch": (lambda number: corpus.batch(number, size), 10 * n_steps),
        "step": (step, n_steps),
        "evaluation": (evaluation, -(-n_steps // 3)),
    }
    for what, (work, times) in works.items():
        measured[what] = _times(work, times), peak_mb()
    sizes = {
        "people": config.population.n_individuals,
        "layers": config.model.n_layers,
        "tokens": rows[0].shape[1],
        "vocabulary": len(corpus.tokenizer),
    }
    return sizes, measured


def in_rows(corpus: Corpus, batch: Batch, together: int) -> Tensor:
    """The tokens of biographies padded to the longest that can be drawn, some `together` in a row."""
    missing = corpus.longest - batch.tokens.shape[1]
    padded = F.pad(batch.tokens, (0, missing), value=corpus.tokenizer.pad_token_id)
    return padded.reshape(-1, together * corpus.longest)


def place_in_rows(corpus: Corpus, where: ValuePositions, together: int) -> tuple[Tensor, Tensor]:
    """Row and position of what predicts values, where `in_rows` has put it."""
    return where.row // together, where.row % together * corpus.longest + where.position


def _times(work: Callable[[int], object], times: int) -> list[float]:
    """Seconds of CPU time of each repetition, after one that warms up."""
    work(0)
    found = []
    for number in range(1, times + 1):
        started = time.process_time()
        work(number)
        found.append(time.process_time() - started)
    return found
