"""`make bench`: the speed of training, also with patched attention, of attention analysis, patching.

Candidates run in turn in one process, in alternating order, so that the machine's drift meets all
alike; medians and ratios of medians are printed, with the quartiles of each.
"""

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch

from interp import hooked_transformer, preset, train
from interp.attention import attention_to_names
from interp.biographies import Corpus, Population
from interp.config import LIST_SIZES, PopulationConfig
from interp.model import AttentionPatch, training_loss
from interp.run import resolve_device, resolve_precision
from tests.benchmarks.engine import engine
from tests.benchmarks.interventions import interventions
from tests.benchmarks.steps import Candidate, print_steps, time_steps
from tests.benchmarks.two_runs import two_runs


def batch_assembly(rounds: int) -> None:
    """What drawing the next batch takes, beside the step of training that waits for it."""
    config = preset("tiny")
    corpus = Corpus.from_config(config)
    own = Candidate("hooked", resolve_precision(config.training, resolve_device("auto")), 1)
    step = statistics.median(time_steps([own], rounds)[own])
    seconds = []
    for number in range(300):
        started = time.perf_counter()
        corpus.batch(number, config.training.batch_size)
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds)
    print(
        f"\nBatch assembly at tiny: {1e3 * median:.2f} ms, {100 * median / step:.1f}% of a step on one "
        f"thread ({own.precision})"
    )


def large_population() -> None:
    """A population of 256,000 people from the full lists."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    population = Population.draw(
        PopulationConfig(n_individuals=256_000, n_held_out=16_000, **LIST_SIZES), seed=0
    )
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"\nPopulation of {len(population):,} people: {seconds:.2f} s, peak memory of the process "
        f"{peak / 2**20:.2f} GB ({(peak - before) / 2**20:.2f} GB above that before)"
    )


def patched_steps(rounds: int) -> None:
    """Whole training steps with the attention of a reference, against unpatched ones."""
    config = preset("tiny")
    corpus = Corpus.from_config(config)
    size, pad = config.training.batch_size, corpus.tokenizer.pad_token_id
    batches = [corpus.batch(step, size).tokens for step in range(16)]
    precision = resolve_precision(config.training, resolve_device("auto"))
    reference = hooked_transformer(config, corpus.tokenizer).eval().requires_grad_(False)
    patches = {
        "unpatched": None,
        "all layers and heads": AttentionPatch(reference),
        "layer 0": AttentionPatch(reference, layers=[0]),
        "layer 1": AttentionPatch(reference, layers=[1]),
        "heads 0 and 1": AttentionPatch(reference, heads=[0, 1]),
    }

    def candidate(patch: AttentionPatch | None) -> Callable[[torch.Tensor], None]:
        model = hooked_transformer(config, corpus.tokenizer)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

        def step(batch: torch.Tensor) -> None:
            with nullcontext() if patch is None else patch.on(model):
                training_loss(model, batch, pad_token=pad, precision=precision).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return step

    candidates = {name: candidate(patch) for name, patch in patches.items()}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for round_ in range(rounds + 2):
        for name in list(candidates) if round_ % 2 else list(reversed(candidates)):
            for repeat in range(3):
                started = time.perf_counter()
                candidates[name](batches[(3 * round_ + repeat) % len(batches)])
                if repeat and round_ >= 2:
                    seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"\nPatched training steps at tiny, {precision}")
    for name, value in median.items():
        print(f"  {name:21} {1e3 * value:6.1f} ms a step, {value / median['unpatched']:.2f} times")


def attention_analysis() -> None:
    """Every score of attention, for 30 checkpoints of a tiny model on 512 biographies."""
    config = preset(
        "tiny",
        **{
            "training.n_steps": 29,
            "training.early_checkpoints": (),
            "training.checkpoint_every": 1,
            "evaluation.every": 100,
            "evaluation.n_individuals": 1,
        },
    )
    with tempfile.TemporaryDirectory() as folder:
        run = train(config, Path(folder) / "run", progress=False)
        started = time.perf_counter()
        table = attention_to_names(run, n_individuals=512)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"\nAttention analysis of {table['step'].nunique()} tiny checkpoints on 512 biographies: "
        f"{seconds:.1f} s; peak memory of the process, training included: {peak:.2f} GB"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="rounds of three steps a candidate")
    parser.add_argument(
        "--compiled", action="store_true", help="torch.compile of the plain model too: minutes"
    )
    arguments = parser.parse_args()
    large_population()
    attention_analysis()
    engine(max(3, arguments.rounds // 8))
    interventions(max(3, arguments.rounds // 8))
    patched_steps(arguments.rounds // 2)
    two_runs(max(1, arguments.rounds // 20))
    for threads in (1, 2):
        print_steps(arguments.rounds, threads, compiled=arguments.compiled and threads == 1)
    batch_assembly(arguments.rounds // 2)
