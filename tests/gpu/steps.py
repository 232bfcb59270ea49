"""Steps of training by themselves: against plain PyTorch, on long sequences, with patched attention."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from interp import Config, hooked_transformer
from interp.biographies import Corpus, TokenKind
from interp.model import AttentionPatch, training_loss
from interp.training.graphs import Counted, GraphedSteps
from interp.training.optimizer import adamw, learning_rate, set_rate
from tests.benchmarks.plain_gpt import PlainGPT, plain_loss
from tests.gpu.flops import flops_per_token, peak_tflops
from tests.gpu.setup import WARM_UP, Setup
from tests.gpu.table import Row, card_name

_BLOCK = 10
"""Steps between two looks at the clock, for each of which the card is waited for."""
_SHORT = 40  # tokens; few biographies are shorter
Step = Callable[[int], Tensor]
COMPILED = "compiled plain bf16"


def against_plain(setup: Setup, earlier: Sequence[Row]) -> Iterator[Row]:
    """Whole steps at `tiny`, all on the same batches, which travel to the device in the step."""
    part, config = "steps against plain PyTorch", setup.small
    corpus = Corpus.from_config(config)
    batches = [corpus.batch(i, config.training.batch_size).tokens for i in range(16)]
    candidates: dict[str, Step] = {
        f"{kind} {precision}": _step(setup, config, corpus, batches, kind, precision)
        for kind, precision in (("hooked", "bf16"), ("hooked", "fp32"), ("plain", "bf16"))
    }
    ours = f"hooked {setup.precision}"
    if setup.on_card:
        ours = "hooked bf16, graphs"
        candidates[ours] = _step(setup, config, corpus, batches, "graphs", "bf16")
        candidates[COMPILED] = _step(setup, config, corpus, batches, "compiled", "bf16")
        started = time.monotonic()
        for number in range(len(batches)):  # every width that there is
            candidates[COMPILED](number)
        setup.finish()
        yield Row(part, "compiling, first 16 steps", time.monotonic() - started, "s")
    median = {}
    for name, seconds in _in_turn(setup, candidates).items():
        low, median[name], high = statistics.quantiles(seconds, n=4)
        quartiles = f"quartiles {1e3 * low:.2f} to {1e3 * high:.2f}, of blocks of {_BLOCK} steps"
        yield Row(part, f"{name}: a step of {config.preset}", 1e3 * median[name], "ms", quartiles)
    for name in candidates:
        if not name.startswith("hooked"):
            ratio = median[name] / median[ours]
            yield Row(part, f"{name} against {ours}", ratio, "times the time")
    if not setup.on_card:
        reason = "left out: it takes minutes to compile for a CPU (see `make bench`)"
        yield Row(part, COMPILED, None, "", reason)


def _in_turn(setup: Setup, candidates: dict[str, Step]) -> dict[str, list[float]]:
    """Seconds of a step, by candidate, a number for each block, in alternating order."""
    for step in candidates.values():
        for number in range(WARM_UP + 16):  # every width that there is
            step(number)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for round_ in range(12 if setup.whole else 2):
        for name in list(candidates) if round_ % 2 else list(reversed(candidates)):
            numbers = range(_BLOCK * round_, _BLOCK * (round_ + 1))
            seconds[name].append(_seconds_a_step(setup, candidates[name], numbers))
    return seconds


def _seconds_a_step(setup: Setup, step: Step, numbers: range) -> float:
    setup.finish()
    started = time.perf_counter()
    for number in numbers:
        step(number)
    setup.finish()
    return (time.perf_counter() - started) / len(numbers)


def _step(
    setup: Setup,
    config: Config,
    corpus: Corpus,
    batches: list[Tensor],
    kind: str,
    precision: str,
    patch: AttentionPatch | None = None,
) -> Step:
    """A step of a hooked, plain or compiled model, by its number; gives the loss.

    `graphs` is the hooked model as a card trains it, `hooked` the same kernel by kernel.
    """
    device, pad = setup.torch_device, corpus.tokenizer.pad_token_id
    model: nn.Module
    hooked = kind in ("hooked", "graphs")
    if hooked:
        model = hooked_transformer(config, corpus.tokenizer, device)
        loss_of, optimizer = training_loss, adamw(dict(model.named_parameters()), config.optimizer)
    else:
        torch.manual_seed(0)
        model = PlainGPT(config, len(corpus.tokenizer)).to(device)
        loss_of, optimizer = plain_loss, torch.optim.AdamW(model.parameters(), fused=True)
    if kind == "compiled":
        model.compile(dynamic=True)

    def update(tokens: Tensor, counted: Counted = None) -> Tensor:
        with nullcontext() if patch is None else patch.on(model):
            loss = loss_of(model, tokens, pad_token=pad, precision=precision)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    graphed = GraphedSteps(update, device) if kind == "graphs" else None

    def step(number: int) -> Tensor:
        set_rate(optimizer, learning_rate(config, number))
        tokens = batches[number % len(batches)]
        return update(tokens.to(device)) if graphed is None else graphed(tokens, None)

    return step


def long_sequences(setup: Setup, earlier: Sequence[Row]) -> Iterator[Row]:
    """Steps of the paper's shape: rows of whole biographies behind one another, cut at their end."""
    part, (rows, width) = "long sequences", setup.shape
    config = setup.large.with_settings(**{"model.n_ctx": max(width, setup.large.model.n_ctx)})
    corpus = Corpus.from_config(config)
    batches = [_packed(corpus, number, rows, width) for number in range(8)]
    setup.forget_peak()
    kind = "graphs" if setup.on_card else "hooked"
    step = _step(setup, config, corpus, batches, kind, setup.precision)
    first = float(step(0))
    for number in range(1, 2 * WARM_UP):
        step(number)
    seconds = _seconds_a_step(setup, step, range(2 * WARM_UP, setup.steps - 1))
    last = float(step(setup.steps - 1))
    shape = f"{rows} x {width} tokens, {setup.steps} steps, {setup.precision}"
    yield from speed_rows(setup, part, config, corpus, seconds, rows * width, width, shape)
    yield Row(part, "training loss of the first step", first, "nats per token")
    yield Row(part, "training loss of the last step", last, "nats per token")


def _packed(corpus: Corpus, number: int, rows: int, width: int) -> Tensor:
    batch = corpus.batch(number, rows * width // _SHORT)
    flat = batch.tokens[batch.kind != TokenKind.PADDING]
    return flat[: rows * width].view(rows, width)


def speed_rows(
    setup: Setup, part: str, config: Config, corpus: Corpus,
    seconds: float, tokens: float, width: float, how: str,
) -> Iterator[Row]:  # fmt: skip
    """Step time, throughput, utilisation and memory of steps of so many tokens in rows of `width`."""
    yield Row(part, "a step", 1e3 * seconds, "ms", how)
    yield Row(part, "throughput", tokens / seconds, "tokens/s", "without padding")
    flops = flops_per_token(config, len(corpus.tokenizer), width) * tokens / seconds
    yield Row(part, "model FLOPs", flops / 1e12, "TFLOP/s", "formula in tests/gpu/flops.py")
    card = card_name(setup.device)
    peak = peak_tflops(card)
    if setup.precision != "bf16" or peak is None:
        why = "the peak is one of bf16" if peak else f"no peak is on file for {card}"
        yield Row(part, "model-FLOPs utilisation", None, "%", f"left out: {why}")
    else:
        share = 100 * flops / 1e12 / peak
        yield Row(part, "model-FLOPs utilisation", share, "%", f"of {peak:g} TFLOP/s")
    if (memory := setup.peak()) is not None:
        yield Row(part, "peak memory of tensors", memory, "GiB")


def patched_step(setup: Setup, earlier: Sequence[Row]) -> Iterator[Row]:
    """A step with the attention of a reference in all layers and heads, against one without."""
    part, config = "patched step", setup.large
    corpus = Corpus.from_config(config)
    batches = [corpus.batch(i, config.training.batch_size).tokens for i in range(16)]
    other = config.with_settings(**{"model.seed": config.seed_of("model") + 1})
    reference = hooked_transformer(other, corpus.tokenizer, setup.torch_device)
    patch = AttentionPatch(reference.eval().requires_grad_(False))
    how = (setup, config, corpus, batches, "hooked", setup.precision)
    candidates = {"unpatched": _step(*how), "patched": _step(*how, patch)}
    median = {n: statistics.median(s) for n, s in _in_turn(setup, candidates).items()}
    for name, seconds in median.items():
        yield Row(part, f"{name}: a step of {config.preset}", 1e3 * seconds, "ms", setup.precision)
    ratio = median["patched"] / median["unpatched"]
    yield Row(part, "patched against unpatched", ratio, "times the time")
