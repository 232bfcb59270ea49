"""What an edit changes, and nothing else: the quick way to the logits of a patched model of ours.

An edit at some positions of a layer cannot change earlier layers or, attention being causal, earlier
positions; and nothing is read after the position whose logits are asked for. So the rest of the
network runs on the window from the first edited position to the one that is read, with keys and
values of all other positions from the unpatched run; the last layer runs at the read position alone
and only that is unembedded. For a grid of layers by positions this is about a tenth of the arithmetic
of full passes.

No hook point is passed: a model that carries hooks has to go the long way (`hooked`).
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_protocol import TransformerLensModel

from interp.interventions.hooked import Hooked
from interp.interventions.sites import Key, is_hooked, read_activations, site_named
from interp.model import has_fused_forward
from interp.model.components import ATTENTION_FLAGS


def can_window(model: TransformerLensModel) -> bool:
    """Whether the rest of the network can be run on windows: our own models without any hook."""
    if not has_fused_forward(model) or is_hooked(model):
        return False
    if any(getattr(model.cfg, flag, False) for flag in ATTENTION_FLAGS):
        return False
    return model.original_model.rotary is None  # type: ignore[attr-defined]


WHOLE_PASSES = ("q_input", "k_input", "v_input", "q", "k", "v", "attn_scores", "result")
"""The sites whose edits go through whole passes."""


class WindowedForward:
    """The unpatched runs of some prompts, and what of them an edit changes.

    Args:
        model: A model for which `can_window`, in eval mode.
        tokens: The prompts.
        read: The position whose logits are asked for.
        keys: The sites and layers whose unpatched activations are wanted (`base`).
    """

    def __init__(
        self,
        model: TransformerBridge,
        tokens: Int64[Tensor, "pair position"],
        read: Int64[Tensor, " pair"],
        keys: list[Key],
    ) -> None:
        self.model = model
        self.read = read
        self.n_layers = model.cfg.n_layers
        layers = range(self.n_layers)
        # Positions after the last that is read are needed by nobody.
        tokens = tokens[:, : int(read.max()) + 1]
        own = [("resid_pre", layer) for layer in layers] + [("resid_post", self.n_layers - 1)]
        own += [("resid_mid", layer) for site, layer in keys if site in ("mlp_out", "post")]
        self._hooked = Hooked(model, tokens, read, [])
        costly = [key for key in keys if site_named(key[0]).flag]
        self.base = read_activations(model, tokens, [*(k for k in keys if k not in costly), *own])
        if costly:
            self.base |= read_activations(model, tokens, costly)
        self._stream = [self.base["resid_pre", layer] for layer in layers]
        self._stream.append(self.base["resid_post", self.n_layers - 1])
        self._queries, self._keys, self._values = [], [], []
        for layer in layers:
            attention = model.blocks[layer].attn
            normed = _norm(model.blocks[layer].ln1, self._stream[layer])
            self._queries.append(_project(attention, "q", normed))
            self._keys.append(_project(attention, "k", normed))
            self._values.append(_project(attention, "v", normed))

    def unpatched(self) -> Float[Tensor, "pair vocab"]:
        """The logits at the positions that are read, without an edit."""
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
        if site in WHOLE_PASSES:
            return self._hooked.logits(site, layer, row, place, edited)
        layer, stream = self._behind(site, layer, row, place, edited)
        read = self.read[row]
        start = place.amin(dim=1)
        width = int((read - start).max()) + 1
        window = torch.minimum(
            start[:, None] + torch.arange(width, device=row.device), read[:, None]
        )
        for later in range(layer, self.n_layers):
            last = later == self.n_layers - 1
            stream = self._block(later, row, place, stream, read[:, None] if last else window)
            place = read[:, None] if last else window
        rows = torch.arange(len(row), device=row.device)
        at_read = (place == read[:, None]).int().argmax(dim=1)
        final = torch.where(
            (place == read[:, None]).any(dim=1)[:, None],
            stream[rows, at_read],
            self._stream[-1][row, read],
        )
        return self._unembed(final)

    def _behind(
        self, site: str, layer: int, row: Tensor, place: Tensor, edited: Tensor
    ) -> tuple[int, Tensor]:
        """An edit as one of the residual stream: before which layer, and what it is there."""
        if site == "resid_pre":
            return layer, edited
        if site == "resid_post":
            return layer + 1, edited
        block, at = self.model.blocks[layer], (row[:, None], place)
        if site in ("mlp_out", "post"):
            out = block.mlp.out
            written = edited if site == "mlp_out" else F.linear(edited, out.weight, out.bias)
            return layer + 1, self.base["resid_mid", layer][at] + written
        middle = edited
        if site != "resid_mid":
            if site == "pattern":
                edited = _mix(edited.transpose(1, 2), self._values[layer][row])
            if site in ("pattern", "z"):
                out = block.attn.o
                edited = F.linear(edited.flatten(2), out.weight, out.bias)
            middle = self._stream[layer][at] + edited
        return layer + 1, middle + _mlp(block, middle)

    def _block(
        self, layer: int, row: Tensor, place: Tensor, stream: Tensor, queries: Tensor
    ) -> Tensor:
        """A layer, at some positions, of runs whose residual stream before it was edited.

        Args:
            layer: The layer.
            row: The prompt of each run.
            place: Where the stream differs from the unpatched one.
            stream: What it is there.
            queries: The positions whose result is wanted.
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
        places = torch.arange(width, device=row.device)
        visible = places <= queries[:, None, :, None]
        scale = 1 / attention.original_component.scale
        mixed = F.scaled_dot_product_attention(
            query, keys, values, attn_mask=visible, scale=scale
        ).transpose(1, 2)
        middle = before + F.linear(mixed.flatten(2), attention.o.weight, attention.o.bias)
        return middle + _mlp(block, middle)

    def _unembed(self, residual: Float[Tensor, "cell d_model"]) -> Float[Tensor, "cell vocab"]:
        normed = _norm(self.model.ln_final, residual)
        return F.linear(normed, self.model.unembed.weight, self.model.unembed.bias)


def _norm(bridge: Any, x: Tensor) -> Tensor:
    layer = bridge.original_component
    if isinstance(layer, nn.LayerNorm):
        return F.layer_norm(x, layer.normalized_shape, layer.weight, layer.bias, layer.eps)
    normed: Tensor = layer(x)
    return normed


def _project(
    attention: Any, name: str, normed: Tensor
) -> Float[Tensor, "row head position d_head"]:
    """Queries, keys or values of every head."""
    side, inner = getattr(attention, name), attention.original_component
    projected = F.linear(normed, side.weight, side.bias)
    by_head: Tensor = projected.unflatten(-1, (inner.n_heads, inner.d_head))
    return by_head.transpose(1, 2)


def _mix(
    pattern: Float[Tensor, "cell head query key"],
    values: Float[Tensor, "cell head position d_head"],
) -> Float[Tensor, "cell query head d_head"]:
    mixed = pattern[..., : values.shape[2]] @ values
    return mixed.transpose(1, 2)


def _mlp(block: Any, x: Tensor) -> Tensor:
    inner, normed = getattr(block.mlp, "in"), _norm(block.ln2, x)
    hidden = block.mlp.original_component.act(F.linear(normed, inner.weight, inner.bias))
    written: Tensor = F.linear(hidden, block.mlp.out.weight, block.mlp.out.bias)
    return written
