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
from tests.benchmarks.plain_gpt import PlainGPT, plain_loss


def training_steps(rounds: int) -> None:
    """Whole steps (forward, backward, fused AdamW) of the hooked model against a plain loop."""
    config = preset("tiny")
    corpus = Corpus.from_config(config)
    size, pad = config.training.batch_size, corpus.tokenizer.pad_token_id
    batches = [corpus.batch(step, size).tokens for step in range(16)]
    tokens = statistics.mean(int((b != pad).sum()) for b in batches)
    default = resolve_precision(config.training, resolve_device("auto"))

    def candidate(hooked: bool, precision: str) -> Callable[[torch.Tensor], None]:
        torch.manual_seed(0)
        model = (
            hooked_transformer(config, corpus.tokenizer)
            if hooked
            else PlainGPT(config, len(corpus.tokenizer))
        )
        loss = training_loss if hooked else plain_loss
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
        )

        def step(batch: torch.Tensor) -> None:
            loss(model, batch, pad_token=pad, precision=precision).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return step

    candidates = {
        (kind, precision): candidate(kind == "hooked", precision)
        for precision in ("fp32", "bf16")
        for kind in ("hooked", "plain")
    }
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in candidates}
    for round_ in range(rounds + 2):
        order = list(candidates) if round_ % 2 else list(reversed(candidates))
        for key in order:
            for repeat in range(3):
                batch = batches[(3 * round_ + repeat) % len(batches)]
                started = time.perf_counter()
                candidates[key](batch)
                # The first of three warms this candidate's memory up again; so do two rounds.
                if repeat and round_ >= 2:
                    seconds[key].append(time.perf_counter() - started)
    print(
        f"\nTraining at tiny, {size} x {batches[0].shape[1]} tokens, {torch.get_num_threads()} threads"
    )
    for (kind, precision), times in seconds.items():
        low, median, high = statistics.quantiles(times, n=4)
        print(
            f"  {kind:6} {precision}  {1e3 * median:6.1f} ms a step (quartiles {1e3 * low:.1f} to "
            f"{1e3 * high:.1f})  {tokens / median:8,.0f} tokens/s"
        )
    median = {key: statistics.median(times) for key, times in seconds.items()}

    def ratio(ours: tuple[str, str], theirs: tuple[str, str]) -> float:
        return median[theirs] / median[ours]

    print(f"  hooked fp32 against plain fp32: {ratio(('hooked', 'fp32'), ('plain', 'fp32')):.2f}")
    print(f"  hooked bf16 against plain bf16: {ratio(('hooked', 'bf16'), ('plain', 'bf16')):.2f}")
    print(
        f"  default precision ({default}) against plain fp32: "
        f"{ratio(('hooked', default), ('plain', 'fp32')):.2f}"
    )

    assembly = []
    for step in range(300):
        started = time.perf_counter()
        corpus.batch(step, size)
        assembly.append(time.perf_counter() - started)
    share = statistics.median(assembly) / median["hooked", default]
    print(
        f"\nBatch assembly at tiny: {1e3 * statistics.median(assembly):.2f} ms, "
        f"{100 * share:.1f}% of a step in the default precision"
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
    arguments = parser.parse_args()
    large_population()
    attention_analysis()
    engine(max(3, arguments.rounds // 8))
    interventions(max(3, arguments.rounds // 8))
    patched_steps(arguments.rounds // 2)
    training_steps(arguments.rounds)
