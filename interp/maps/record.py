"""The attention of a series of models on a text, checkpoint by checkpoint, in one byte a weight.

A post-softmax weight a is kept as q = round(255 √a) and shown as (q / 255)²: the root gives small
weights, of which there are many, finer steps. The error is below 0.004 everywhere, and below 0.0009
for weights up to 0.05. Only weights that causal attention allows are kept (key ≤ query), and of each
checkpoint the difference from the one before, modulo 256: late in training little changes, and
differences of nearly zero take little room once compressed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformer_lens.model_bridge import TransformerBridge

from interp.errors import ArgumentError
from interp.maps.texts import MapText
from interp.model import logits_at, measuring, of_this_thread, pattern_hook
from interp.model.patterns import require_hooks, require_passed
from interp.phases import Phases
from interp.series import AnySeries, Device, as_series, models_at, nearest_step, steps_of
from interp.torch_state import default_state

BUDGET = 16_000_000
"""Bytes that the maps of one page may take before compression, by default."""


@dataclass(frozen=True)
class MapRecord:
    """What a series' models do with one text, at some checkpoints.

    Attributes:
        text: The text.
        steps: The checkpoints, increasing.
        patterns: Attention weights in one byte each (see the module): differences from the checkpoint
            before; the lower triangle is stored row by row.
        own: Probability of the token that comes next, in steps of 1/255, at every position; 0 at the
            last, which nothing follows.
        top: The token that is predicted to come next at every position, as its id.
        top_probability: Its probability, in steps of 1/255.
    """

    text: MapText
    steps: tuple[int, ...]
    patterns: UInt8[np.ndarray, "step layer head triangle"]
    own: UInt8[np.ndarray, "step position"]
    top: Int64[np.ndarray, "step position"]
    top_probability: UInt8[np.ndarray, "step position"]

    def packed(self, words: Sequence[int]) -> dict[str, bytes]:
        """The bytes that the view reads.

        Args:
            words: Token ids of the view's list of words, in its order; with every id of `top`.

        Returns:
            `patterns` as they are; `predictions`: of every checkpoint one after the other `own`,
            `top_probability` (a byte a position) and `top` as places in `words` (two bytes a
            position, the lower first).
        """
        place = {token: index for index, token in enumerate(words)}
        top = np.vectorize(place.__getitem__, otypes=[np.uint16])(self.top)
        rows = zip(self.own, self.top_probability, top.astype("<u2"), strict=True)
        parts = [part.tobytes() for row in rows for part in row]
        return {"patterns": self.patterns.tobytes(), "predictions": b"".join(parts)}


@default_state()
def map_steps(
    series: AnySeries, texts: Sequence[MapText], budget: int = BUDGET, device: Device = None
) -> list[int]:
    """The checkpoints whose maps fit into a number of bytes.

    All of them if they do. Otherwise the first, the last, those nearest to the ends of the phases (if
    they are known), and of the others as many as fit, evenly spaced in their order.

    Args:
        series: A run, models by step, or another series (see `interp.series`). Layers and heads are
            counted on its first model.
        texts: The texts that are to be recorded.
        budget: Bytes that all maps together may take, before compression. The checkpoints that are
            always kept may take more.
        device: Where the first model goes; see `models_at`.

    Raises:
        RunError: there is no checkpoint.
        ArgumentError: this is no series.
    """
    series = as_series(series)
    steps = steps_of(series)
    triangles = sum(len(text) * (len(text) + 1) // 2 for text in texts)
    heads = [m.cfg.n_layers * m.cfg.n_heads for _, m in models_at(series, steps[:1], device)]
    fit = budget // max(1, triangles * heads[0])
    if fit >= len(steps):
        return steps
    kept = {steps[0], steps[-1], *_phase_ends(series.known_phases, steps)}
    others = [step for step in steps if step not in kept]
    n_more = max(0, min(len(others), fit - len(kept)))
    places = np.linspace(0, len(others) - 1, n_more + 2)[1:-1].round().astype(int)
    kept |= {others[place] for place in places}
    return sorted(kept)


@default_state()
def record_maps(
    series: AnySeries,
    texts: Sequence[MapText],
    steps: Sequence[int] | None = None,
    device: Device = None,
) -> list[MapRecord]:
    """Reads the attention and predictions of a series on some texts, at some checkpoints.

    A run that was trained with patched attention is read with the attention it was trained with.

    Args:
        series: A run, models by step, or another series (see `interp.series`).
        texts: The texts; there is a record of each, in their order.
        steps: The checkpoints; all by default.
        device: Where to compute; where the models are by default, those of a run on the CPU.

    Raises:
        CheckpointError: there is no checkpoint at a step.
        ArgumentError: no text is given, no step is named, or a text does not fit a model: it is longer
            than the context, or has token ids beyond the vocabulary.
        RunError: there is no checkpoint at all.
    """
    if not texts:
        raise ArgumentError("There is no text to read attention on; give at least one.")
    chosen: list[int] = []
    readings: list[list[_Reading]] = []
    # Padding on the right, whatever it is, is seen by no token of the text.
    tokens = pad_sequence([text.ids for text in texts], batch_first=True)
    lengths = [len(text) for text in texts]
    for step, model in models_at(series, steps, device):
        _require_fit(model, texts)
        tokens = tokens.to(next(cast(nn.Module, model).parameters()).device)
        chosen.append(step)
        with measuring(model):
            readings.append(_read(model, tokens, lengths))
    records = []
    for text, of_text in zip(texts, zip(*readings, strict=True), strict=True):
        levels, *predictions = (np.stack(parts) for parts in zip(*of_text, strict=True))
        levels[1:] -= levels[:-1].copy()  # modulo 256
        records.append(MapRecord(text, tuple(chosen), levels, *predictions))
    return records


def unpack_maps(record: MapRecord) -> Float[np.ndarray, "step layer head query key"]:
    """The attention weights of a record, as the view shows them; 0 above the diagonal.

    Example:
        ```python
        maps = unpack_maps(record_maps(run, [map_text(run, 0)])[0])
        ```
    """
    n = len(record.text)
    levels = np.cumsum(record.patterns, axis=0, dtype=np.uint8)
    maps = np.zeros((*levels.shape[:-1], n, n))
    maps[..., *np.tril_indices(n)] = (levels / 255) ** 2
    return maps


class _Reading(NamedTuple):
    """What one model does with one text."""

    pattern: UInt8[np.ndarray, "layer head triangle"]
    own: UInt8[np.ndarray, " position"]
    top: Int64[np.ndarray, " position"]
    top_probability: UInt8[np.ndarray, " position"]


def _read(
    model: TransformerBridge, tokens: Int64[Tensor, "batch position"], lengths: Sequence[int]
) -> list[_Reading]:
    patterns: dict[str, Tensor] = {}

    def keep(pattern: Tensor, hook: Any, name: str) -> None:
        patterns[name] = pattern.float()

    row = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    position = torch.cat([torch.arange(length) for length in lengths])
    row, position = row.to(tokens.device), position.to(tokens.device)
    names = [pattern_hook(layer) for layer in range(model.cfg.n_layers)]
    require_hooks(model, names)
    with model.hooks(fwd_hooks=of_this_thread((name, partial(keep, name=name)) for name in names)):
        probabilities = logits_at(model, tokens, row, position).float().softmax(-1)
    require_passed(model, [name for name in names if name not in patterns])
    following = torch.roll(tokens, -1, dims=1)[row, position, None]
    own = probabilities.gather(1, following)[:, 0].cpu().numpy()
    top = probabilities.max(-1)
    top_value, top_token = top.values.cpu().numpy(), top.indices.cpu().numpy()
    by_layer = [patterns[name] for name in names]
    stacked = torch.stack(by_layer, dim=1).cpu().numpy()  # batch layer head query key
    readings = []
    for index, (end, length) in enumerate(zip(np.cumsum(lengths), lengths, strict=True)):
        of_text = slice(end - length, end)
        own[end - 1] = 0  # nothing follows
        readings.append(
            _Reading(
                _levels(np.sqrt(stacked[index][..., *np.tril_indices(length)])),
                _levels(own[of_text]),
                top_token[of_text],
                _levels(top_value[of_text]),
            )
        )
    return readings


def _levels(shares: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Shares from 0 to 1 in steps of 1/255; bf16 attention may exceed 1 by rounding."""
    rounded: UInt8[np.ndarray, "*shape"] = np.rint(255 * np.clip(shares, 0, 1)).astype(np.uint8)
    return rounded


def _phase_ends(phases: Phases | None, steps: Sequence[int]) -> list[int]:
    ends = [phases.statistics_end, phases.plateau_end] if phases else []
    return [nearest_step(steps, end) for end in ends if end is not None]


def _require_fit(model: TransformerBridge, texts: Sequence[MapText]) -> None:
    n_ctx, d_vocab = model.cfg.n_ctx, model.cfg.d_vocab
    for text in texts:
        if len(text) > n_ctx:
            raise ArgumentError(
                f"The text {text.name!r} has {len(text)} tokens, but the model's context is {n_ctx} tokens. "
                "Give shorter texts."
            )
        if len(text) and not 0 <= int(text.ids.min()) <= int(text.ids.max()) < d_vocab:
            raise ArgumentError(
                f"The text {text.name!r} has token ids {int(text.ids.min())} to {int(text.ids.max())}, but "
                f"the model's vocabulary has ids 0 to {d_vocab - 1}. Give the ids of the model's tokenizer."
            )
