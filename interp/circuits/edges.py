"""The graph of a model that circuits are found in: who writes into the residual stream, and who reads it.

The stream is a sum: what the embedding, every head and every MLP before a point wrote. A *sender* is one of
these; a *receiver* is an input that reads the stream before its norm: a head's queries, keys or values, an
MLP, or the final norm and the logits. An *edge* leads from a sender to a receiver that comes after it.

Whether a model is built like that is not looked up but measured, as models differ in where they norm,
scale or add up (`Graph.require_sum`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal, cast, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformer_lens.model_protocol import TransformerLensModel

from interp.errors import ArgumentError, require_known
from interp.interventions import SITES
from interp.interventions.sites import hook_flags, n_units, require_free_forks
from interp.model import alone_with, is_recurrent, measuring, of_this_thread
from interp.model.layout import require_wrapped
from interp.model.patterns import NO_ATTENTION, require_hooks
from interp.torch_state import default_state

Attention = Literal["heads", "layers"]
"""Whether each head is a node of its own, or the attention of a layer is one."""
EDGE_COLUMNS = (
    "sender", "sender_layer", "sender_head", "receiver", "receiver_layer", "receiver_head", "receiver_input",
)  # fmt: skip
"""What tells an edge apart in a table."""
INPUTS = ("q", "k", "v")
"""By what a head reads the stream."""
_TYPES = dict.fromkeys(
    ("sender_layer", "sender_head", "receiver_layer", "receiver_head"), "Int64"
) | {"receiver_input": "string"}
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
_BY_LAYERS = 'attention="layers", with the attention of a layer as one node'
_COARSE = 5e-2  # of half precision, whose streams are sums of rounded parts


@dataclass(frozen=True)
class Node:
    """Something that writes into the residual stream, or reads it.

    Attributes:
        kind: "embed", "head", "attn" (all heads of a layer), "mlp" or "logits".
        layer: Its layer; None for the embedding and the logits.
        head: Its head, if it is one.
        input: For a head that reads: "q", "k" or "v". Keys and values are counted as keys and values are,
            of which grouped-query attention has fewer than heads.
    """

    kind: str
    layer: int | None = None
    head: int | None = None
    input: str | None = None


@dataclass(frozen=True)
class Port:
    """A hook point through which the stream is read.

    Attributes:
        hook: Its name.
        receivers: Which receivers read there; one for each head where each has a copy of its own.
        by_head: Whether the value there is [pair, position, head, d_model].
        norm: The layer whose first norm has been applied to the value, where attention and MLP share it: a
            change of the stream is passed through that norm first.
    """

    hook: str
    receivers: tuple[int, ...]
    by_head: bool = False
    norm: int | None = None


@dataclass(frozen=True)
class Graph:
    """The senders, receivers and edges of a model.

    Attributes:
        n_layers: Layers.
        n_heads: Heads of a layer.
        n_groups: Keys and values of a layer.
        attention: Whether heads or layers of attention are nodes.
        has_mlp: Whether layers have an MLP.
        parallel: By layer, whether its MLP reads the stream before attention has written.
        shares_norm: Whether the norm before attention is also that of the MLP.
        has_norm: Whether there is a norm before attention.
    """

    n_layers: int
    n_heads: int
    n_groups: int
    attention: Attention
    has_mlp: bool
    parallel: tuple[bool, ...]
    shares_norm: bool
    has_norm: bool

    @cached_property
    def senders(self) -> list[Node]:
        """What writes, in the order of writing."""
        found = [Node("embed")]
        for layer in range(self.n_layers):
            if self.attention == "heads":
                found += [Node("head", layer, head) for head in range(self.n_heads)]
            else:
                found.append(Node("attn", layer))
            if self.has_mlp:
                found.append(Node("mlp", layer))
        return found

    @cached_property
    def receivers(self) -> list[Node]:
        """What reads, in the order of reading."""
        found = []
        for layer in range(self.n_layers):
            if self.attention == "heads":
                counts = (self.n_heads, self.n_groups, self.n_groups)
                found += [
                    Node("head", layer, head, which)
                    for which, n in zip(INPUTS, counts, strict=True)
                    for head in range(n)
                ]
            else:
                found.append(Node("attn", layer))
            if self.has_mlp:
                found.append(Node("mlp", layer))
        return [*found, Node("logits")]

    @cached_property
    def exists(self) -> Bool[np.ndarray, "sender receiver"]:
        """Whether there is an edge: the sender has written when the receiver reads."""
        there = np.zeros((len(self.senders), len(self.receivers)), dtype=bool)
        for j, receiver in enumerate(self.receivers):
            there[: self.n_before(receiver), j] = True
        return there

    def n_before(self, receiver: Node) -> int:
        """How many senders have written when a receiver reads: the first so many."""
        if receiver.layer is None:
            return len(self.senders)
        heads = self.n_heads if self.attention == "heads" else 1
        before = 1 + receiver.layer * (heads + self.has_mlp)
        reads_attention = receiver.kind == "mlp" and not self.parallel[receiver.layer]
        return before + (heads if reads_attention else 0)

    @cached_property
    def groups(self) -> list[int]:
        """Which keys and values each head reads."""
        return [head * self.n_groups // self.n_heads for head in range(self.n_heads)]

    @cached_property
    def ends_of_receivers(self) -> list[list[int]]:
        """Which senders a receiver is an input of: several heads where they share keys and values."""
        place = {(node.kind, node.layer, node.head): i for i, node in enumerate(self.senders)}
        found: list[list[int]] = []
        for node in self.receivers:
            if node.kind == "logits":
                found.append([])
            elif node.input in ("k", "v"):
                heads = [h for h, group in enumerate(self.groups) if group == node.head]
                found.append([place["head", node.layer, head] for head in heads])
            else:
                found.append([place[node.kind, node.layer, node.head]])
        return found

    @cached_property
    def edge_index(self) -> tuple[Any, Any]:
        """The edges as places of sender and receiver, in the order of tables."""
        receiver, sender = np.nonzero(self.exists.T)
        return sender, receiver

    def table(self, **columns: Sequence[Any] | np.ndarray) -> pd.DataFrame:
        """A row for every edge: `EDGE_COLUMNS`, and columns of values by sender and receiver, or by edge."""
        sender, receiver = self.edge_index
        rows = [
            (s.kind, s.layer, s.head, r.kind, r.layer, r.head, r.input)
            for s, r in ((self.senders[i], self.receivers[j]) for i, j in zip(sender, receiver, strict=True))
        ]  # fmt: skip
        found = pd.DataFrame(rows, columns=list(EDGE_COLUMNS)).astype(_TYPES)
        for name, values in columns.items():
            given = np.asarray(values)
            found[name] = given[sender, receiver] if given.ndim == 2 else given
        return found

    def values(self, table: pd.DataFrame, column: str) -> Float[np.ndarray, "sender receiver"]:
        """A column of a table of edges by sender and receiver; NaN where the table has no row.

        Raises:
            ArgumentError: a column is missing, or an edge is not of this model, there twice, or not finite.
        """
        missing = [name for name in (*EDGE_COLUMNS, column) if name not in table]
        if missing:
            raise ArgumentError(
                f"The table of edges has no column {missing[0]!r}; give what edge_attribution returns."
            )
        senders = {_key(node): i for i, node in enumerate(self.senders)}
        receivers = {_key(node): j for j, node in enumerate(self.receivers)}
        found = np.full(self.exists.shape, np.nan)
        columns = [table[name] for name in (*EDGE_COLUMNS, column)]
        for row in zip(*columns, strict=True):
            start, end = (row[0], *map(_plain, row[1:3])), (row[3], *map(_plain, row[4:7]))
            i, j = senders.get((*start, None)), receivers.get(end)
            if i is None or j is None or not self.exists[i, j]:
                raise ArgumentError(
                    f"The edge from {start} to {end} is not one of this model; give scores of the same model "
                    f"and attention={self.attention!r}."
                )
            if not np.isnan(found[i, j]):
                raise ArgumentError(
                    f"The edge from {start} to {end} is in the table twice; give the scores of one model "
                    "and step."
                )
            if not np.isfinite(row[7]):
                raise ArgumentError(f"The {column} of the edge from {start} to {end} is {row[7]}.")
            found[i, j] = row[7]
        return found

    @property
    def sender_hooks(self) -> list[tuple[str, slice]]:
        """The hook points of what senders write, each with the place of its senders."""
        found, place = [("blocks.0.hook_resid_pre", slice(0, 1))], 1
        site, width = ("result", self.n_heads) if self.attention == "heads" else ("attn_out", 1)
        for layer in range(self.n_layers):
            found.append((SITES[site].hook_name(layer), slice(place, place + width)))
            place += width
            if self.has_mlp:
                found.append((SITES["mlp_out"].hook_name(layer), slice(place, place + 1)))
                place += 1
        return found

    @cached_property
    def ports(self) -> list[Port]:
        """The hook points at which receivers read, in the order of the pass."""
        place = {node: j for j, node in enumerate(self.receivers)}
        found = []
        for layer in range(self.n_layers):
            if self.attention == "heads":
                counts = (self.n_heads, self.n_groups, self.n_groups)
                for which, n in zip(INPUTS, counts, strict=True):
                    ids = tuple(place[Node("head", layer, head, which)] for head in range(n))
                    hook = SITES[f"{which}_input"].hook_name(layer)
                    found.append(Port(hook, ids, by_head=True))
            else:
                own = (place[Node("attn", layer)],)
                if self.has_norm and not self.shares_norm:
                    found.append(Port(f"blocks.{layer}.ln1.hook_in", own))
                else:
                    norm = layer if self.shares_norm else None
                    found.append(Port(f"blocks.{layer}.attn.hook_in", own, norm=norm))
            if self.has_mlp:
                own = (place[Node("mlp", layer)],)
                if self.shares_norm:
                    found.append(Port(f"blocks.{layer}.mlp.hook_in", own, norm=layer))
                else:
                    found.append(Port(f"blocks.{layer}.hook_mlp_in", own))
        last = SITES["resid_post"].hook_name(self.n_layers - 1)
        return [*found, Port(last, (place[Node("logits")],))]

    @contextmanager
    def hooks(self, model: TransformerLensModel) -> Iterator[None]:
        """Switches on the hook points of senders and receivers for as long as this lasts."""
        sites = ["q_input", "result"] if self.attention == "heads" else []
        bridge = cast(Any, model)
        before = bool(getattr(model.cfg, "use_hook_mlp_in", False))
        with hook_flags(model, sites):
            try:
                bridge.set_use_hook_mlp_in(self.has_mlp and not self.shares_norm)
                yield
            finally:
                bridge.set_use_hook_mlp_in(before)

    def require_sum(
        self,
        written: Float[Tensor, "sender pair position d_model"],
        streams: dict[str, Float[Tensor, "pair position d_model"]],
        dtype: torch.dtype,
    ) -> None:
        """Checks that what receivers read is the sum of what senders before them wrote, and a constant.

        Args:
            written: What each sender wrote: on two prompts or more, or the difference of two runs.
            streams: What is read at each port.
            dtype: That of the model, on which roundings depend.

        Raises:
            ArgumentError: it is not.
        """
        for port in self.ports:
            n = self.n_before(self.receivers[port.receivers[0]])
            stream = streams[port.hook]
            rest = stream - written[:n].sum(0)
            # What belongs to no sender (a bias) is the same everywhere.
            rest = rest - rest.mean((0, 1), keepdim=True)
            scale = float(stream.norm()) + float(written[:n].flatten(1).norm(dim=1).sum())
            if float(rest.norm()) > _TOLERANCE.get(dtype, _COARSE) * scale:
                raise ArgumentError(
                    f"What is read at {port.hook!r} is not the sum of what was written before "
                    f"({float(rest.norm()) / scale:.2g} of it is missing): this model norms or scales "
                    "what its parts write, or adds something else. Use patch, which holds for any model."
                )


@default_state()
def edges(model: TransformerLensModel, attention: Attention = "heads") -> pd.DataFrame:
    """The edges of a model: from each sender to each receiver that comes after it.

    Args:
        model: One of ours, or a `TransformerBridge` of a transformers model.
        attention: Whether each head is a node with inputs for queries, keys and values, or the attention of
            a layer is one node with one input, as is needed where a head's part is not defined.

    Returns:
        A row for every edge with the columns `EDGE_COLUMNS`: `sender` ("embed", "head" or "attn", "mlp"),
        `sender_layer`, `sender_head`, `receiver` ("head" or "attn", "mlp", "logits"), `receiver_layer`,
        `receiver_head`, `receiver_input` ("q", "k" or "v"). With grouped queries, receivers of keys and
        values are counted as keys and values are. Where attention and MLP are parallel, there is no edge
        from the one to the other within a layer.

    Raises:
        ArgumentError: a model whose stream is no such sum, or without the hook points; with `heads`, one
            that norms or scales what heads write together.
    """
    return graph_of(model, attention).table()


def graph_of(model: TransformerLensModel, attention: Attention = "heads") -> Graph:
    """The graph of a model; see `edges`. A short prompt is run to see what the MLPs read."""
    require_known([attention], get_args(Attention), "attention")
    require_wrapped(model)
    if is_recurrent(model):
        raise ArgumentError(f"There are no edges between heads: {NO_ATTENTION}.")
    blocks = list(getattr(model, "blocks", ()))
    if not blocks or any(not hasattr(block, "attn") for block in blocks):
        raise ArgumentError("A layer of this model has no attention, so it has no graph of heads.")
    if attention == "heads":
        _require_heads(model)
    n_layers, cfg = model.cfg.n_layers, model.cfg
    has_mlp = not getattr(cfg, "attn_only", False)
    shares_norm = has_mlp and all(_shares_norm(block) for block in blocks)
    has_norm = all(hasattr(block, "ln1") for block in blocks)
    counts = int(cfg.n_heads), int(n_units(model, "k_input") or cfg.n_heads)
    norms = shares_norm, has_norm
    graph = Graph(n_layers, *counts, attention, has_mlp, (shares_norm,) * n_layers, *norms)
    names = [name for name, _ in graph.sender_hooks] + [port.hook for port in graph.ports]
    require_hooks(model, names)
    parallel = _probe(model, graph)
    return graph if shares_norm else replace(graph, parallel=parallel)


def _require_heads(model: TransformerLensModel) -> None:
    from transformer_lens.tools.analysis.attribution_patching import _attention_write_obstruction

    if reason := _attention_write_obstruction(model):
        raise ArgumentError(
            f"What a head writes is not what reaches the stream in this model: {reason}. Use "
            f"{_BY_LAYERS}."
        )
    require_free_forks(model, [("q_input", layer) for layer in range(model.cfg.n_layers)])
    try:
        with alone_with(model), hook_flags(model, ["q_input", "result"]):
            pass
    except ArgumentError as error:
        reason = "what single heads read and write has no hook point"
        raise ArgumentError(f"In this model {reason}. Use {_BY_LAYERS}.") from error


def _shares_norm(block: Any) -> bool:
    """Whether the MLP reads what the norm before attention gives."""
    parts = getattr(block, "submodules", None) or {}
    direct = getattr(block, "mlp_reads_resid_directly", False)
    return bool(parts) and "ln2" not in parts and "ln1" in parts and not direct


def _probe(model: TransformerLensModel, graph: Graph) -> tuple[bool, ...]:
    """By layer, whether the MLP reads the stream before attention has written; from runs of two prompts.

    A prompt with the embedding of another has to give what that other gives: tokens reach the stream in no
    other way.
    """
    seen: dict[str, Tensor] = {}

    def keep(value: Tensor, hook: Any, name: str) -> None:
        seen[name] = value.detach().clone()

    layers = range(graph.n_layers)
    before = [SITES["resid_pre"].hook_name(layer) for layer in layers]
    after = [f"blocks.{layer}.hook_mlp_in" for layer in layers]
    after = after if graph.has_mlp and not graph.shares_norm else []
    last = SITES["resid_post"].hook_name(graph.n_layers - 1)
    device = next(cast(nn.Module, model).parameters()).device
    n = min(4, model.cfg.n_ctx, model.cfg.d_vocab)
    tokens = torch.arange(n, device=device)[None]
    others = model.cfg.d_vocab - 1 - tokens
    names = [*before, *after, last]

    def run(prompt: Tensor, *more: tuple[str, Any]) -> dict[str, Tensor]:
        seen.clear()
        hooks = [*more, *((name, partial(keep, name=name)) for name in names)]
        cast(Any, model).run_with_hooks(prompt, fwd_hooks=of_this_thread(hooks))
        unseen = [name for name in names if name not in seen]
        if unseen:
            raise ArgumentError(
                f"The model lists the hook point {unseen[0]!r} and never passes it, so it is not known what "
                "its layers read."
            )
        return dict(seen)

    with measuring(model), graph.hooks(model):
        other, own = run(others), run(tokens)
        moved = run(tokens, (before[0], lambda value, hook: other[before[0]].clone()))
    # In half precision only a coarse difference is one.
    tolerance = _TOLERANCE.get(other[last].dtype, _COARSE)
    if float((moved[last] - other[last]).norm()) > tolerance * float(other[last].norm()):
        raise ArgumentError(
            "With the embedding of another prompt this model does not compute what that prompt gives: tokens "
            "reach its layers in another way than by the residual stream. Use patch."
        )
    if not after:
        return (False,) * graph.n_layers
    return tuple(torch.equal(own[a], own[b]) for a, b in zip(before, after, strict=True))


def _key(node: Node) -> tuple[Any, ...]:
    return node.kind, node.layer, node.head, node.input


def _plain(value: Any) -> Any:
    """An entry of a table: None for NA, int for a whole number, text as it is."""
    if pd.isna(value):
        return None
    return value if isinstance(value, str) else int(value)
