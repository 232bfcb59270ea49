"""Whole training steps (forward, backward, fused AdamW) of the hooked model against a plain loop.

Every candidate has a process of its own, and they take turns: what one sets for its process (how memory
is kept, what is compiled) does not help another, and the machine's drift meets all alike.
"""

# ruff: noqa: T201 - a program that prints

import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

STEPS = 3
"""Steps a turn, of which the first, which warms the caches, does not count."""


@dataclass(frozen=True)
class Candidate:
    """Who makes the steps.

    Attributes:
        kind: "hooked", "plain", or "compiled" (the plain model by `torch.compile`).
        precision: "fp32" or "bf16".
        threads: Of PyTorch.
        preset: The settings of model and batches.
    """

    kind: str
    precision: str
    threads: int
    preset: str = "tiny"


def time_steps(candidates: list[Candidate], rounds: int) -> dict[Candidate, list[float]]:
    """Seconds of every step that counts, by candidate, in alternating order."""
    with _processes(candidates) as connections:
        seconds: dict[Candidate, list[float]] = {candidate: [] for candidate in candidates}
        for round_ in range(rounds + 2):
            order = list(candidates) if round_ % 2 else list(reversed(candidates))
            for candidate in order:
                connections[candidate].send(round_)
                found = connections[candidate].recv()
                if round_ >= 2:
                    seconds[candidate] += found[1:]
        return seconds


def print_steps(rounds: int, threads: int, *, compiled: bool = False) -> None:
    """Measures and prints one table."""
    kinds = ["hooked", "plain", *(["compiled"] if compiled else [])]
    candidates = [
        Candidate(kind, precision, threads) for precision in ("fp32", "bf16") for kind in kinds
    ]
    seconds = time_steps(candidates, rounds)
    print(f"\nTraining steps at tiny, a process each, in turn; {threads} threads")
    median = {}
    for candidate, times in seconds.items():
        low, median[candidate], high = statistics.quantiles(times, n=4)
        print(
            f"  {candidate.kind:8} {candidate.precision}  {1e3 * median[candidate]:6.1f} ms a step "
            f"(quartiles {1e3 * low:.1f} to {1e3 * high:.1f})"
        )
    ours = median[Candidate("hooked", "bf16", threads)]
    for candidate in candidates:
        if candidate.kind != "hooked":
            print(
                f"  hooked bf16 against {candidate.kind} {candidate.precision}: "
                f"{median[candidate] / ours:.2f} times as fast"
            )


@contextmanager
def _processes(candidates: list[Candidate]) -> Iterator[dict[Candidate, Connection]]:
    context = get_context("spawn")
    started = {}
    for candidate in candidates:
        here, there = context.Pipe()
        # The plain loop is without what this package sets for its process: any name that begins so
        # keeps its hands off, and this one is as it is by default.
        before = os.environ.pop("MALLOC_ARENA_TEST", None)
        if candidate.kind != "hooked":
            os.environ["MALLOC_ARENA_TEST"] = "8"
        process = context.Process(target=_serve, args=(candidate, there), daemon=True)
        process.start()
        os.environ.pop("MALLOC_ARENA_TEST", None)
        if before is not None:
            os.environ["MALLOC_ARENA_TEST"] = before
        started[candidate] = (process, here)
    try:
        yield {candidate: connection for candidate, (_, connection) in started.items()}
    finally:
        for process, connection in started.values():
            connection.send(None)
            process.join()


def _serve(candidate: Candidate, connection: Connection) -> None:
    step = _stepper(candidate)
    while (round_ := connection.recv()) is not None:
        seconds = []
        for repeat in range(STEPS):
            started = time.perf_counter()
            step(STEPS * round_ + repeat)
            seconds.append(time.perf_counter() - started)
        connection.send(seconds)


def _stepper(candidate: Candidate) -> Callable[[int], None]:
    import torch

    from interp import hooked_transformer, preset
    from interp.biographies import Corpus
    from interp.model import training_loss
    from tests.benchmarks.plain_gpt import PlainGPT, plain_loss

    torch.set_num_threads(candidate.threads)
    config = preset(candidate.preset)
    corpus = Corpus.from_config(config)
    pad = corpus.tokenizer.pad_token_id
    batches = [corpus.batch(step, config.training.batch_size).tokens for step in range(16)]
    torch.manual_seed(0)
    hooked = candidate.kind == "hooked"
    model = (
        hooked_transformer(config, corpus.tokenizer)
        if hooked
        else PlainGPT(config, len(corpus.tokenizer))
    )
    loss = training_loss if hooked else plain_loss
    if candidate.kind == "compiled":
        model.compile(dynamic=True)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )

    def step(number: int) -> None:
        batch = batches[number % len(batches)]
        loss(model, batch, pad_token=pad, precision=candidate.precision).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compiled", action="store_true")
    arguments = parser.parse_args()
    print_steps(arguments.rounds, arguments.threads, compiled=arguments.compiled)
    print(
        f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB"
    )
