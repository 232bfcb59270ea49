"""What an edit changes, and nothing else: the quick way to the logits of a patched model of ours.

An edit at some positions of a layer cannot change earlier layers or, attention being causal, earlier
positions; and nothing is read after the position whose logits are asked for. So the rest of the
network runs on the window from the first edited position to the one that is read, with keys and
values of all other positions from the unpatched run; the last layer runs at the read position alone
and only that is unembedded. For a grid of layers by positions this is about a tenth of the arithmetic
of full passes.

No hook point is passed: a model that carries hooks has to go the long way (`hooked`).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_protocol import TransformerLensModel

from interp.interventions.hooked import Change, Hooked, Reader, noisy
from interp.interventions.sites import Key, is_hooked, read_activations, site_named
from interp.model import has_fused_forward
from interp.model.components import ATTENTION_FLAGS, project_heads, softmax

Seam = Callable[[Tensor, str], Tensor]
"""What an activation passes through on its way, by its site."""


def can_window(model: TransformerLensModel) -> bool:
    """Whether the rest of the network can be run on windows: our own models without any hook."""
    if not has_fused_forward(model) or is_hooked(model):
        return False
    if any(getattr(model.cfg, flag, False) for flag in ATTENTION_FLAGS):
        return False
    if model.original_model.rotary is not None:  # type: ignore[attr-defined]
        return False
    masks = [block.attn.original_component.causal_mask for block in model.blocks]  # type: ignore[attr-defined]
    return all(torch.equal(mask, torch.ones_like(mask).triu(1)) for mask in masks)


class WindowedForward:
    """The unpatched runs of some prompts, and what of them an edit changes; arguments as `Hooked`.

    The model is one for which `can_window`.
    """

    reads_only = True
    """Only the logits that are read are made."""

    def __init__(
        self,
        model: TransformerBridge,
        tokens: Int64[Tensor, "pair position"],
        read: Int64[Tensor, " pair"],
        keys: list[Key],
        noise: Float[Tensor, "pair position d_model"] | None = None,
    ) -> None:
        self.model = model
        self.read = read
        self.n_layers = model.cfg.n_layers
        layers = range(self.n_layers)
        # Positions after the last that is read are needed by nobody.
        tokens = tokens[:, : int(read.max()) + 1]
        own = [("resid_pre", layer) for layer in layers] + [("resid_post", self.n_layers - 1)]
        own += [("resid_mid", layer) for site, layer in keys if site in ("mlp_out", "post")]
        costly = [key for key in keys if site_named(key[0]).flag]
        with noisy(model, None if noise is None else noise[:, : tokens.shape[1]]):
            self.base = read_activations(
                model, tokens, [*(k for k in keys if k not in costly), *own]
            )
            if costly:
                self.base |= read_activations(model, tokens, costly)
        self._stream = [self.base["resid_pre", layer] for layer in layers]
        self._stream.append(self.base["resid_post", self.n_layers - 1])
        self._queries, self._keys, self._values = [], [], []
        for block, stream in zip(model.blocks, self._stream, strict=False):
            normed = _norm(block.ln1, stream)
            self._queries.append(_project(block.attn, "q", normed))
            self._keys.append(_project(block.attn, "k", normed))
            self._values.append(_project(block.attn, "v", normed))
        self._unpatched_z: dict[int, Tensor] = {}

    def unpatched(self) -> Float[Tensor, "pair vocab"]:
        """See `Hooked.unpatched`."""
        rows = torch.arange(len(self.read), device=self.read.device)
        return self._unembed(self._stream[-1][rows, self.read])

    def logits(
        self,
        site: str,
        layer: int,
        row: Int64[Tensor, " cell"],
        place: Int64[Tensor, "cell edited"],
        edited: Float[Tensor, "cell edited *unit"],
    ) -> Float[Tensor, "cell vocab"]:
        """The logits at the positions that are read, after edits.

        Args:
            site: The site that is edited.
            layer: Its layer.
            row: Which prompt each edit is made in.
            place: The edited positions, none after the one that is read; shorter lists repeat one of
                theirs, with equal edits.
            edited: What the site's activation becomes there.
        """
        return self._onwards(row, *self._behind(site, layer, row, place, edited))

    def logits_of_window(
        self,
        changes: Mapping[Key, Change],
        row: Int64[Tensor, " cell"],
        place: Int64[Tensor, "cell edited"],
    ) -> Float[Tensor, "cell vocab"]:
        """The logits after edits of several layers in one pass.

        Args:
            changes: By site (none that has to be switched on) and layer, what the activation becomes at
                the edited places, from what it is there after the edits of earlier layers.
            row: Which prompt each edit is made in.
            place: The edited positions; see `logits`.
        """
        window = self._window(row, place)
        start = window[:, :1]
        cells = torch.arange(len(row), device=row.device)[:, None]
        at, same = (cells, place - start), (cells, window - start)

        def edited(value: Tensor, site: str, layer: int) -> Tensor:
            if (site, layer) not in changes:
                return value
            value = value.clone()
            value[at] = changes[site, layer](value[at]).to(value.dtype)
            return value[same]  # narrower windows repeat the position that is read

        layers = sorted(layer for _, layer in changes)
        stream = self._stream[layers[0]][row[:, None], window]
        for layer in range(layers[0], layers[-1] + 1):
            stream = self._edited_block(layer, row, window, stream, partial(edited, layer=layer))
        return self._onwards(row, layers[-1] + 1, window, stream)

    def logits_of_readers(
        self, layer: int, change: Float[Tensor, "pair position d_model"], readers: Sequence[Reader]
    ) -> Float[Tensor, "reader pair vocab"]:
        """The logits where some heads of a layer, and nothing else, read a changed stream.

        Args:
            layer: The layer.
            change: What is added to the stream that they read, before the norm.
            readers: By which of their inputs, and which heads, in each run.
        """
        attention = self.model.blocks[layer].attn
        stream = self._stream[layer] + change
        row = torch.arange(len(stream), device=stream.device)
        wanted = self.read[:, None]
        if layer < self.n_layers - 1:
            wanted = torch.minimum(torch.arange(stream.shape[1], device=row.device), wanted)
        inputs = {
            "q_input": self._queries_at(layer, row, wanted),
            "k_input": self._keys[layer],
            "v_input": self._values[layer],
        }
        if layer not in self._unpatched_z:
            self._unpatched_z[layer] = self._attend(layer, wanted, *inputs.values())
        unpatched = self._unpatched_z[layer]
        before = self._stream[layer][row[:, None], wanted] + _write(attention, unpatched)
        normed = _norm(self.model.blocks[layer].ln1, stream)
        middles = []
        for site, heads in readers:
            chosen = list(range(attention.original_component.n_heads) if heads is None else heads)
            sides = {name: side[:, chosen] for name, side in inputs.items()}
            read = normed[row[:, None], wanted] if site == "q_input" else normed
            sides[site] = _project(attention, site[0], read, chosen)
            z = self._attend(layer, wanted, *sides.values())
            weight = attention.o.weight.unflatten(1, unpatched.shape[2:])[:, chosen].flatten(1)
            middles.append(before + F.linear((z - unpatched[:, :, chosen]).flatten(2), weight))
        middle = torch.cat(middles)
        middle = middle + _mlp(self.model.blocks[layer], middle)
        n = len(readers)
        logits = self._onwards(row.repeat(n), layer + 1, wanted.repeat(n, 1), middle)
        by_reader: Tensor = logits.unflatten(0, (n, len(stream)))
        return by_reader

    def _onwards(self, row: Tensor, layer: int, place: Tensor, stream: Tensor) -> Tensor:
        """The logits from the stream before a layer, at the places where it was changed."""
        read = self.read[row]
        window = self._window(row, place)
        for later in range(layer, self.n_layers):
            last = later == self.n_layers - 1
            stream = self._block(later, row, place, stream, read[:, None] if last else window)
            place = read[:, None] if last else window
        rows = torch.arange(len(row), device=row.device)
        is_read = place == read[:, None]
        final = stream[rows, is_read.int().argmax(dim=1)]
        unpatched = self._stream[-1][row, read]
        return self._unembed(torch.where(is_read.any(dim=1)[:, None], final, unpatched))

    def _window(self, row: Tensor, place: Tensor) -> Int64[Tensor, "cell position"]:
        """From the first edited position to the one that is read, which shorter windows repeat."""
        read, start = self.read[row], place.amin(dim=1)
        width = int((read - start).max()) + 1
        offsets = torch.arange(width, device=row.device)
        return torch.minimum(start[:, None] + offsets, read[:, None])

    def _behind(
        self, site: str, layer: int, row: Tensor, place: Tensor, edited: Tensor
    ) -> tuple[int, Tensor, Tensor]:
        """An edit as one of the residual stream: before which layer, where, and what it is there."""
        if site == "resid_pre":
            return layer, place, edited
        if site == "resid_post":
            return layer + 1, place, edited
        block, at = self.model.blocks[layer], (row[:, None], place)
        if site in ("mlp_out", "post"):
            out = block.mlp.out
            written = edited if site == "mlp_out" else F.linear(edited, out.weight, out.bias)
            return layer + 1, place, self.base["resid_mid", layer][at] + written
        middle = edited
        if site != "resid_mid":
            place, written = self._attention_output(site, layer, row, place, edited)
            middle = self._stream[layer][row[:, None], place] + written
        return layer + 1, place, middle + _mlp(block, middle)

    def _attention_output(
        self, site: str, layer: int, row: Tensor, place: Tensor, edited: Tensor
    ) -> tuple[Int64[Tensor, "cell position"], Float[Tensor, "cell position d_model"]]:
        """What attention writes after an edit of something inside it, and where that has changed."""
        if site == "attn_out":
            return place, edited
        attention = self.model.blocks[layer].attn
        if site == "result":
            bias = attention.o.bias
            return place, edited.sum(2) if bias is None else edited.sum(2) + bias
        if site == "z":
            return place, _write(attention, edited)
        if site in ("pattern", "attn_scores"):
            pattern = edited if site == "pattern" else softmax(edited)
            values = self._values[layer][row]
            mixed = pattern.transpose(1, 2)[..., : values.shape[2]] @ values
            return place, _write(attention, mixed.transpose(1, 2))
        side = site[0]
        if site.endswith("_input"):
            normed = _norm(self.model.blocks[layer].ln1, edited)
            inner = attention.original_component
            projected = project_heads(getattr(attention, side), normed, inner.d_head)
            edited = projected.unflatten(-1, (inner.n_heads, inner.d_head))
        if side == "q":
            keys, values = self._keys[layer][row], self._values[layer][row]
            z = self._attend(layer, place, edited.transpose(1, 2), keys, values)
            return place, _write(attention, z)
        window = self._window(row, place)
        width = int(window.max()) + 1
        keys, values = self._keys[layer][row, :, :width], self._values[layer][row, :, :width]
        cells = torch.arange(len(row), device=row.device)[:, None]
        (keys if side == "k" else values)[cells, :, place] = edited.to(keys.dtype)
        z = self._attend(layer, window, self._queries_at(layer, row, window), keys, values)
        return window, _write(attention, z)

    def _queries_at(self, layer: int, row: Tensor, place: Tensor) -> Tensor:
        """The unpatched queries at some places, [cell head query d_head]."""
        return self._queries[layer].transpose(1, 2)[row[:, None], place].transpose(1, 2)

    def _attend(
        self, layer: int, places: Tensor, query: Tensor, keys: Tensor, values: Tensor
    ) -> Float[Tensor, "cell query head d_head"]:
        """The heads' outputs of queries at some places."""
        visible = torch.arange(keys.shape[2], device=places.device) <= places[:, None, :, None]
        scale = 1 / self.model.blocks[layer].attn.original_component.scale
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=visible, scale=scale)
        return mixed.transpose(1, 2)

    def _block(
        self, layer: int, row: Tensor, place: Tensor, stream: Tensor, queries: Tensor
    ) -> Tensor:
        """A layer's output at some positions (`queries`), of runs whose stream before it was edited.

        `row` is the prompt of each run, `place` where its stream differs from the unpatched one.
        """
        block = self.model.blocks[layer]
        attention = block.attn
        width = int(queries.max()) + 1
        normed = _norm(block.ln1, stream)
        cells = torch.arange(len(row), device=row.device)[:, None]
        keys, values = self._keys[layer][row, :, :width], self._values[layer][row, :, :width]
        keys[cells, :, place] = _project(attention, "k", normed).transpose(1, 2)
        values[cells, :, place] = _project(attention, "v", normed).transpose(1, 2)
        if queries is place:
            query, before = _project(attention, "q", normed), stream
        else:
            # Of the wanted positions some, all or none were edited: those come over the others.
            query = self._queries[layer].transpose(1, 2)[row[:, None], queries]
            before = self._stream[layer][row[:, None], queries]
            same = place[:, None, :] == queries[:, :, None]  # [cell query edited]
            edited, which = same.any(dim=2)[..., None], same.int().argmax(dim=2)
            if queries.shape[1] < place.shape[1]:
                own = _project(attention, "q", normed[cells, which]).transpose(1, 2)
            else:
                own = _project(attention, "q", normed).transpose(1, 2)[cells, which]
            query = torch.where(edited[..., None], own, query).transpose(1, 2)
            before = torch.where(edited, stream[cells, which], before)
        z = self._attend(layer, queries, query, keys, values)
        middle = before + _write(attention, z)
        return middle + _mlp(block, middle)

    def _edited_block(
        self, layer: int, row: Tensor, window: Tensor, stream: Tensor, edited: Seam
    ) -> Tensor:
        """A layer's output in the windows, each activation passed through `edited` before it is used."""
        block = self.model.blocks[layer]
        attention = block.attn
        stream = edited(stream, "resid_pre")
        normed = _norm(block.ln1, stream)
        query, key, value = (
            edited(_project(attention, side, normed).transpose(1, 2), side) for side in "qkv"
        )
        cells = torch.arange(len(row), device=row.device)[:, None]
        keys, values = self._keys[layer][row], self._values[layer][row]
        keys[cells, :, window], values[cells, :, window] = key, value
        places = torch.arange(keys.shape[2], device=row.device)
        scale = attention.original_component.scale
        scores = query.transpose(1, 2) @ keys.transpose(2, 3) / scale
        scores = scores.masked_fill(places > window[:, None, :, None], -torch.inf)
        pattern = edited(softmax(edited(scores.transpose(1, 2), "attn_scores")), "pattern")
        z = edited((pattern.transpose(1, 2) @ values).transpose(1, 2), "z")
        middle = edited(stream + edited(_write(attention, z), "attn_out"), "resid_mid")
        return edited(middle + _mlp(block, middle, edited), "resid_post")

    def _unembed(self, residual: Float[Tensor, "cell d_model"]) -> Float[Tensor, "cell vocab"]:
        normed = _norm(self.model.ln_final, residual)
        return F.linear(normed, self.model.unembed.weight, self.model.unembed.bias)


def unpatched_runs(
    model: TransformerLensModel,
    tokens: Int64[Tensor, "pair position"],
    read: Int64[Tensor, " pair"],
    keys: list[Key],
    noise: Float[Tensor, "pair position d_model"] | None = None,
    *,
    several: bool = False,
) -> WindowedForward | Hooked:
    """The unpatched runs of some prompts, on windows where that is possible; arguments as `Hooked`.

    `several`: several layers are edited in one pass.
    """
    switched_on = several and any(site_named(site).flag for site, _ in keys)
    if can_window(model) and not switched_on:
        return WindowedForward(cast(TransformerBridge, model), tokens, read, keys, noise)
    return Hooked(model, tokens, read, keys, noise)


def _norm(bridge: Any, x: Tensor) -> Tensor:
    normed: Tensor = bridge.original_component(x)
    return normed


def _project(
    attention: Any, name: str, normed: Tensor, heads: Sequence[int] | None = None
) -> Float[Tensor, "row head position d_head"]:
    """Queries, keys or values of every head, or of some."""
    side, inner = getattr(attention, name), attention.original_component
    weight, bias = side.weight, side.bias
    if heads is not None:
        weight, bias = (
            None if p is None else p.unflatten(0, (-1, inner.d_head))[heads].flatten(0, 1)
            for p in (weight, bias)
        )
    by_head: Tensor = F.linear(normed, weight, bias).unflatten(-1, (-1, inner.d_head))
    return by_head.transpose(1, 2)


def _write(attention: Any, z: Float[Tensor, "cell position head d_head"]) -> Tensor:
    """What attention writes into the stream, [cell, position, d_model]."""
    return F.linear(z.flatten(2), attention.o.weight, attention.o.bias)


def _mlp(block: Any, x: Tensor, edited: Seam = lambda value, site: value) -> Tensor:
    inner, normed = getattr(block.mlp, "in"), _norm(block.ln2, x)
    hidden = block.mlp.original_component.act(F.linear(normed, inner.weight, inner.bias))
    hidden = edited(hidden, "post")
    return edited(F.linear(hidden, block.mlp.out.weight, block.mlp.out.bias), "mlp_out")
