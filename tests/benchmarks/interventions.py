"""Batched patching against TransformerLens' own patching functions, on the same grids."""

# ruff: noqa: T201 - a program that prints

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge

from interp import hooked_transformer, preset
from interp.biographies import Corpus, TokenKind
from interp.interventions import LOGIT_DIFFERENCE, Grid, Pairs, patch, swapped_people
from interp.model import evaluating
from tests.benchmarks.memory import peak_mb

STOCK = {
    "resid_pre": patching.get_act_patch_resid_pre,
    "mlp_out": patching.get_act_patch_mlp_out,
    "z": patching.get_act_patch_attn_head_out_by_pos,
}
SITES = {8: tuple(STOCK), 64: ("resid_pre", "mlp_out")}
"""What is patched, by the number of pairs: heads of 64 pairs take TransformerLens minutes."""
SOURCES = ("another name", "other tokens everywhere")
Cells = Callable[[], np.ndarray]


def interventions(rounds: int) -> None:
    """Grids of layers by positions (by heads) at tiny, for 8 and 64 pairs, the answer asked for last.

    A source that is another name in the same sentences leaves the cells before the first name
    without an effect, and they are not run; one that differs everywhere leaves none out.
    """
    rounds = max(rounds, 1)
    print(
        f"\nActivation patching at tiny, fp32, {torch.get_num_threads()} threads, the fact told in "
        f"the last sentence; median of {rounds} rounds in turn"
    )
    with _no_progress_bars():
        for n in (8, 64):
            model, prompts = _model_and_pairs(n)
            cells = model.cfg.n_layers * prompts[SOURCES[0]].base.shape[1]
            for source, pairs in prompts.items():
                for site in SITES[n]:
                    ours, theirs = _candidates(model, pairs, site)
                    seconds: dict[Cells, list[float]] = {ours: [], theirs: []}
                    found: dict[Cells, np.ndarray] = {}
                    for round_ in range(rounds):
                        for grid in (ours, theirs) if round_ % 2 else (theirs, ours):
                            started = time.perf_counter()
                            found[grid] = grid()
                            seconds[grid].append(time.perf_counter() - started)
                    mine, stock = (statistics.median(seconds[grid]) for grid in (ours, theirs))
                    difference = np.abs(found[ours] - found[theirs]).max()
                    n_cells = cells * (model.cfg.n_heads if site == "z" else 1)
                    print(
                        f"  {n:2} pairs, {site:9} {n_cells:4} cells, {source:23}: {mine:6.2f} s against "
                        f"{stock:6.2f} s, {stock / mine:5.1f} times; largest difference {difference:.1e}",
                        flush=True,
                    )
    for n in (8, 64):
        for site in SITES[n]:
            peaks = [_peak_above_baseline(n, site, stock=stock) for stock in (False, True)]
            print(
                f"  peak memory above the model's, {n:2} pairs, {site:9}: "
                f"{peaks[0]:4.0f} MB against {peaks[1]:4.0f} MB",
                flush=True,
            )


def _model_and_pairs(n: int) -> tuple[TransformerBridge, dict[str, Pairs]]:
    """Random weights, large enough that patching matters, and pairs of equal width."""
    config = preset("tiny", **{"model.init_std": 0.1})
    corpus = Corpus.from_config(config)
    torch.manual_seed(0)
    model = hooked_transformer(config, corpus.tokenizer).eval()
    pairs = swapped_people(corpus, n=n, place="last")
    name = pairs.base.clone()
    is_name = pairs.spans.kind == TokenKind.NAME
    name[is_name] = pairs.source.gather(1, pairs.source_position.clamp(min=0))[is_name]
    # Shifted by less than the vocabulary, so that no token stays what it is.
    d_vocab = len(corpus.tokenizer)
    shift = torch.randint(1, d_vocab, name.shape, generator=torch.Generator().manual_seed(0))
    sources = dict(zip(SOURCES, (name, (pairs.base + shift) % d_vocab), strict=True))
    return model, {
        label: Pairs.of_tokens(
            pairs.base, source, pairs.spans, pairs.read, pairs.base_answer, pairs.source_answer
        )
        for label, source in sources.items()
    }


def _candidates(model: TransformerBridge, pairs: Pairs, site: str) -> tuple[Cells, Cells]:
    """The grid of mean logit differences, ours and TransformerLens'; layer, head, position."""
    rows = torch.arange(len(pairs))

    def metric(logits: Tensor) -> Tensor:
        read = logits[rows, pairs.read]
        return (read[rows, pairs.source_answer] - read[rows, pairs.base_answer]).mean()

    def ours() -> np.ndarray:
        values = patch(model, pairs, Grid(site, "each", aligned=True), metrics=LOGIT_DIFFERENCE)[
            "value"
        ]
        return np.asarray(values)

    def theirs() -> np.ndarray:
        with evaluating(model):
            _, cache = model.run_with_cache(pairs.source)
            grid = STOCK[site](model, pairs.base, cache, metric).numpy()
        return np.asarray(grid.swapaxes(1, 2) if site == "z" else grid).reshape(-1)

    return ours, theirs


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    bar = patching.tqdm
    patching.tqdm = lambda iterable, *_, **__: iterable
    try:
        yield
    finally:
        patching.tqdm = bar


def _peak_above_baseline(n: int, site: str, *, stock: bool) -> float:
    """Peak memory of a process that makes one grid, above that before it began, in MB."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_measure_peak, args=(its, n, site, stock))
    process.start()
    its.close()
    found: Any = ours.recv()
    process.join()
    return float(found)


def _measure_peak(connection: Connection, n: int, site: str, stock: bool) -> None:
    with _no_progress_bars():
        model, prompts = _model_and_pairs(n)
        pairs = prompts[SOURCES[1]]
        with evaluating(model):  # kernels and their buffers are the model's
            model(pairs.base[:1])
        before = peak_mb()
        _candidates(model, pairs, site)[int(stock)]()
        connection.send(peak_mb() - before)
