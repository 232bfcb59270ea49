"""Forward and backward passes along edges.

What is written, how a metric changes with what is read, and what becomes of it where some edges carry what
their senders write on the source.

All stays [sender, pair, position, d_model] or [pair, position, head, d_model]: edges times positions
times d_model are never in memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from transformer_lens.model_protocol import TransformerLensModel

from interp.circuits.edges import Graph, Port
from interp.errors import ArgumentError, require_known
from interp.interventions import LOGIT_DIFFERENCE, METRICS, Answers, Pairs
from interp.interventions.memory_limit import budget
from interp.model import at_least_single, logits_at, of_this_thread

KL_DIVERGENCE = "kl_divergence"
"""How far the prediction is from that of the unpatched base: KL(base || patched), in nats."""
CIRCUIT_METRICS = (LOGIT_DIFFERENCE, KL_DIVERGENCE, *(m for m in METRICS if m != LOGIT_DIFFERENCE))
"""What circuits are measured by: `interventions.METRICS`, and the divergence from the base."""
_GRADIENTS_AGREE = {torch.float64: 1e-6, torch.float32: 1e-3}
_COARSE = 0.1
_FLOAT = 4
_ON_CPU = 2.0**28  # bytes: more rows at a time gain nothing there

Loss = Callable[[Float[Tensor, "row vocab"], Int64[Tensor, " row"]], Float[Tensor, " row"]]
"""From logits and the pair of each row to a number for each row."""


@dataclass(frozen=True)
class Written:
    """What a run of some prompts wrote into the stream, and what was read.

    Attributes:
        parts: What each sender wrote, in single precision.
        streams: What is read at each port, by its hook point.
    """

    parts: Float[Tensor, "sender pair position d_model"]
    streams: dict[str, Float[Tensor, "pair position d_model"]]


class Passes:
    """The passes of some pairs along the edges of a model; made within `measuring` and `graph.hooks`.

    Args:
        model: The model, in eval mode.
        graph: Its graph.
        pairs: The pairs, on the model's device.
        metric: Out of `CIRCUIT_METRICS`.

    Attributes:
        difference: What each sender writes on the source minus what it writes on the base; 0 where a
            position of the base has no counterpart.
    """

    def __init__(
        self, model: TransformerLensModel, graph: Graph, pairs: Pairs, metric: str
    ) -> None:
        self.model, self.graph, self.metric = model, graph, metric
        width = int(pairs.read.max()) + 1
        self.pairs, self.tokens = pairs, pairs.base[:, :width]
        self._row = torch.arange(len(pairs), device=pairs.base.device)
        self._has = (pairs.source_position[:, :width] >= 0)[..., None]
        self._counterpart = pairs.source_position[:, :width].clamp(min=0)
        base, source = (written(model, graph, tokens) for tokens in (self.tokens, pairs.source))
        dtype = next(cast(nn.Module, model).parameters()).dtype
        graph.require_sum(base.parts, base.streams, dtype)
        self._dtype = dtype
        self._source = source.parts[:, self._row[:, None], self._counterpart]
        self._streams = {
            name: stream[self._row[:, None], self._counterpart]
            for name, stream in source.streams.items()
        }
        self.difference = (self._source - base.parts) * self._has
        self._answers = Answers(pairs.base_answer, pairs.source_answer)
        self._base_log: Tensor | None = None
        if metric == KL_DIVERGENCE:
            logits = logits_at(model, self.tokens, self._row, pairs.read)
            self._base_log = at_least_single(logits).log_softmax(1)

    def _loss(self, logits: Tensor, pair: Int64[Tensor, " row"]) -> Float[Tensor, " row"]:
        logits = at_least_single(logits)
        if self._base_log is None:
            return METRICS[self.metric](logits, self._answers[pair])
        before = self._base_log[pair]
        return (before.exp() * (before - logits.log_softmax(1))).sum(1)

    def attribution(self, share: float) -> tuple[Float[np.ndarray, "sender receiver"], float]:
        """The change of the metric by each edge to first order, and the metric: sums over the pairs.

        Args:
            share: Where between base (0) and source (1) the embedding is when gradients are taken.
        """
        graph = self.graph
        scores = torch.zeros(graph.exists.shape, dtype=torch.float64, device=self.tokens.device)
        read = torch.zeros_like(self.difference[0])
        seen: set[str] = set()
        # At no point are all receivers' gradients in memory: each is used when it is known.
        hooks: list[tuple[str, Any]] = []
        leaf: list[Tensor] = []

        def embed(value: Tensor, hook: Any) -> Tensor:
            moved = value.detach() + (share * self.difference[0]).to(value.dtype)
            leaf.append(moved.requires_grad_(True))
            return leaf[0].clone()

        def arrived(gradient: Tensor, port: Port) -> None:
            slope = at_least_single(gradient)
            slope = slope if port.by_head else slope[:, :, None]
            seen.add(port.hook)
            n = graph.n_before(graph.receivers[port.receivers[0]])
            by_head = torch.einsum("sbpd,bphd->sh", self.difference[:n], slope)
            to = torch.tensor(port.receivers, device=scores.device)
            scores[:n].index_add_(1, to, by_head.double())
            read.add_(slope.sum(2))

        def fork(value: Tensor, hook: Any, port: Port) -> Tensor:
            copy = value.clone()
            copy.register_hook(partial(arrived, port=port))
            return copy

        hooks.append(("blocks.0.hook_resid_pre", embed))
        hooks += self._port_hooks(fork)
        weights = [w for w in cast(nn.Module, self.model).parameters() if w.requires_grad]
        for weight in weights:
            weight.requires_grad_(False)
        try:
            with torch.enable_grad(), cast(Any, self.model).hooks(fwd_hooks=of_this_thread(hooks)):
                logits = logits_at(self.model, self.tokens.clone(), self._row, self.pairs.read)
                total = self._loss(logits, self._row).sum()
                if not leaf or not total.requires_grad:
                    raise ArgumentError(
                        f"{self.metric} has no gradient with respect to the embedding of this model."
                    )
                (whole,) = torch.autograd.grad(total, leaf)
        finally:
            for weight in weights:
                weight.requires_grad_(True)
        self._require_gradients(read, at_least_single(whole), seen)
        return scores.cpu().numpy(), float(total)

    def _require_gradients(self, read: Tensor, whole: Tensor, seen: set[str]) -> None:
        """Checks that the receivers are all that read the stream: the embedding's gradient is their sum."""
        unseen = [port.hook for port in self.graph.ports if port.hook not in seen]
        if unseen:
            raise ArgumentError(
                f"What is read at {unseen[0]!r} has no effect in this model: TransformerLens shows it after "
                "the model has used it, or the model never passes that point."
            )
        scale = float(whole.norm()) + float(read.norm())
        off = float((whole - read).norm())
        if not off <= _GRADIENTS_AGREE.get(self._dtype, _COARSE) * scale:
            raise ArgumentError(
                f"The gradients at the receivers of this model do not add up to that at its embedding "
                f"({off / scale:.2g} of it is missing): something else reads the stream. Use attribution, "
                "which holds for any model."
            )

    def _port_hooks(self, act: Callable[..., Tensor]) -> list[tuple[str, Any]]:
        """Hooks that give `act(stream, hook, port=port)` of each port to who reads there."""
        streams: dict[int, Tensor] = {}
        hooks: list[tuple[str, Any]] = []
        for port in self.graph.ports:
            if port.norm is None:
                hooks.append((port.hook, partial(act, port=port)))
                continue

            def keep(value: Tensor, hook: Any, layer: int) -> None:
                streams[layer] = value

            def shared(value: Tensor, hook: Any, port: Port) -> Tensor:
                assert port.norm is not None
                stream = streams[port.norm]
                other = act(stream, hook, port=port)
                if other is stream:
                    return value
                norm = cast(Any, self.model).blocks[port.norm].ln1.original_component
                # The norm of attention, of another stream: what that changes reaches the MLP alone.
                changed: Tensor = value.detach() + (norm(other) - norm(stream).detach())
                return changed

            hooks.append((f"blocks.{port.norm}.hook_resid_pre", partial(keep, layer=port.norm)))
            hooks.append((port.hook, partial(shared, port=port)))
        return hooks

    def patched(
        self, removed: Bool[Tensor, "circuit sender receiver"]
    ) -> Float[Tensor, "circuit pair"]:
        """The metric of each pair where removed edges carry what their senders write on the source.

        All that is read later is computed anew. A receiver none of whose edges is removed reads the very
        stream, one all of whose are reads that of the source, bit for bit.
        """
        graph, n = self.graph, len(removed)
        shape = (len(graph.senders), n, *self.difference.shape[1:])
        changes = torch.zeros(shape, device=self.tokens.device, dtype=self.difference.dtype)
        done = np.zeros(len(graph.senders), dtype=bool)
        gone = removed.to(changes.device)
        weight = gone.to(changes.dtype)

        def write(value: Tensor, hook: Any, place: slice) -> None:
            parts = _by_sender(value, place).unflatten(1, (n, -1))
            changes[place] = (self._source[place][:, None] - parts) * self._has
            done[place] = True

        def read(value: Tensor, hook: Any, port: Port) -> Tensor:
            before = graph.n_before(graph.receivers[port.receivers[0]])
            if not done[:before].all():
                raise ArgumentError(
                    f"{port.hook!r} is passed before what it reads has been written."
                )
            own = list(port.receivers)
            chosen = gone[:, :before, own]  # [circuit, sender, head]
            if not chosen.any():
                return value
            each = torch.einsum(
                "csh,scbpd->cbphd", weight[:, :before, own], changes[:before]
            )  # fmt: skip
            stream = value if port.by_head else value[:, :, None]
            by_circuit = stream.unflatten(0, (n, -1))
            edited = by_circuit + each.to(value.dtype)
            every = chosen.all(1)[:, None, None, :, None] & self._has[None, :, :, None]
            whole = self._streams[port.hook][None, :, :, None].to(value.dtype)
            some = chosen.any(1)[:, None, None, :, None]
            edited = torch.where(every, whole, torch.where(some, edited, by_circuit)).flatten(0, 1)
            return edited if port.by_head else edited[:, :, 0]

        hooks: list[tuple[str, Any]] = [
            (name, partial(write, place=place)) for name, place in graph.sender_hooks
        ]
        hooks += self._port_hooks(read)
        pair = self._row.repeat(n)
        rows = torch.arange(len(pair), device=pair.device)
        with cast(Any, self.model).hooks(fwd_hooks=of_this_thread(hooks)):
            logits = logits_at(
                self.model, self.tokens.repeat(n, 1), rows, self.pairs.read.repeat(n)
            )
        values: Tensor = self._loss(logits, pair).unflatten(0, (n, -1))
        return values


def written(
    model: TransformerLensModel, graph: Graph, tokens: Int64[Tensor, "pair position"]
) -> Written:
    """What senders write on some prompts, and what receivers read."""
    n_rows, width = tokens.shape
    weight = next(cast(nn.Module, model).parameters())
    dtype = torch.promote_types(weight.dtype, torch.float32)
    shape = (len(graph.senders), n_rows, width, model.cfg.d_model)
    parts = torch.zeros(shape, device=tokens.device, dtype=dtype)
    streams: dict[str, Tensor] = {}
    done = np.zeros(len(graph.senders), dtype=bool)

    def write(value: Tensor, hook: Any, place: slice) -> None:
        parts[place] = _by_sender(value.detach(), place)
        done[place] = True

    def read(value: Tensor, hook: Any, name: str) -> None:
        stream = value.detach()
        streams[name] = (stream[:, :, 0] if stream.ndim == 4 else stream).clone()

    hooks: list[tuple[str, Any]] = [
        (name, partial(write, place=place)) for name, place in graph.sender_hooks
    ]
    for port in graph.ports:
        at = port.hook if port.norm is None else f"blocks.{port.norm}.hook_resid_pre"
        hooks.append((at, partial(read, name=port.hook)))
    with cast(Any, model).hooks(fwd_hooks=of_this_thread(hooks)):
        row = torch.arange(n_rows, device=tokens.device)
        logits_at(model, tokens, row, torch.full_like(row, width - 1))
    unseen = [port.hook for port in graph.ports if port.hook not in streams]
    unseen += [name for name, place in graph.sender_hooks if not done[place].all()]
    if unseen:
        raise ArgumentError(
            f"The model lists the hook point {unseen[0]!r} and never passes it, so nothing is known there "
            "(for attention: wrap the model with eager attention)."
        )
    return Written(parts, streams)


def require_metric(metric: str, *, gradient: bool = False) -> None:
    """Checks that circuits are measured by this, and that it has a gradient where one is needed."""
    if not isinstance(metric, str):
        raise ArgumentError(
            f"metric={metric!r}: give the name of one: {', '.join(CIRCUIT_METRICS)}."
        )
    require_known([metric], CIRCUIT_METRICS, "metric")
    if gradient and metric in ("follows", "stays"):
        raise ArgumentError(
            f"The metric {metric!r} counts predictions and has no gradient. Attribute another, such as "
            f"{LOGIT_DIFFERENCE}; exact_edges and faithfulness_curve take it."
        )


def blocks_of_pairs(
    model: TransformerLensModel, graph: Graph, pairs: Pairs, max_memory_gb: float | int | None
) -> list[slice]:
    """The pairs in blocks whose writes, sources and one backward pass fit into the memory."""
    width = max(pairs.base.shape[1], pairs.source.shape[1])
    each = 5 * _row_bytes(model, graph, width)
    size = max(1, int(0.5 * budget(max_memory_gb, pairs.base.device) / each))
    return [slice(start, start + size) for start in range(0, len(pairs), size)]


def circuits_at_a_time(
    model: TransformerLensModel, graph: Graph, pairs: Pairs, max_memory_gb: float | int | None
) -> int:
    """How many circuits of some pairs go through the model together; at least one."""
    limit = 0.5 * budget(max_memory_gb, pairs.base.device)
    if pairs.base.device.type == "cpu":
        limit = min(limit, _ON_CPU)
    row = _row_bytes(model, graph, int(pairs.read.max()) + 1)
    return max(1, int(limit / (row * len(pairs))))


def _row_bytes(model: TransformerLensModel, graph: Graph, width: int) -> float:
    cfg = model.cfg
    heads = 3 * (graph.n_heads + 2 * graph.n_groups)  # copies of the stream in one layer
    each = (len(graph.senders) + heads + 10) * cfg.d_model + 2 * (cfg.d_mlp or 4 * cfg.d_model)
    return float(_FLOAT * width * (each + 2 * cfg.n_heads * width + cfg.d_vocab))


def _by_sender(value: Tensor, place: slice) -> Float[Tensor, "sender row position d_model"]:
    """What is seen at a sender's hook point, senders first."""
    if value.ndim == 4:
        return at_least_single(value.movedim(2, 0))
    assert place.stop - place.start == 1
    return at_least_single(value)[None]
