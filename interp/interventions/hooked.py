"""Edits through hooks, for any TransformerLens model: passes of the model's own modules.

Where it can be done, they begin at the edited layer (see `resumed`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformer_lens.model_protocol import TransformerLensModel

from interp.interventions.resumed import ResumedForward
from interp.interventions.sites import Key, by_position, hook_flags, read_activations, site_named
from interp.model import of_this_thread
from interp.model.forward import Hook

EMBEDDINGS = "hook_embed"
"""The hook point of what tokens are embedded as, without positions."""
Change = Callable[[Tensor], Tensor]
"""From what an activation is at some places in a pass to what it becomes, [cell, edited, unit...]."""

Reader = tuple[str, tuple[int, ...] | None]
"""Heads (None for all) that read, and by which input: q_input, k_input or v_input."""


class Hooked:
    """The unpatched runs of some prompts, and passes of edited ones.

    Args:
        model: Any TransformerLens model, in eval mode.
        tokens: The prompts.
        read: The position whose logits are asked for.
        keys: The sites and layers whose unpatched activations are wanted (`base`).
        noise: Added to the embeddings of the prompts, in every pass.
    """

    def __init__(
        self,
        model: TransformerLensModel,
        tokens: Int64[Tensor, "pair position"],
        read: Int64[Tensor, " pair"],
        keys: list[Key],
        noise: Float[Tensor, "pair position d_model"] | None = None,
    ) -> None:
        self.model = model
        self.tokens = tokens
        self.read = read
        self._noise = noise
        with noisy(model, noise):
            self.base = read_activations(model, tokens, keys)
        layers = (layer for _, layer in keys)
        self._passes = ResumedForward(model, tokens, read, layers, lambda: noisy(model, noise))
        self.reads_only = self._passes.reads_only

    def unpatched(self) -> Float[Tensor, "pair vocab"]:
        """The logits at the positions that are read, without an edit."""
        return self._passes.unpatched

    def logits(
        self,
        site: str,
        layer: int,
        row: Int64[Tensor, " cell"],
        place: Int64[Tensor, "cell edited"],
        edited: Float[Tensor, "cell edited *unit"],
    ) -> Float[Tensor, "cell vocab"]:
        """The logits at the positions that are read, after edits; see `WindowedForward.logits`."""
        cells = torch.arange(len(row), device=row.device)

        def replace(activation: Tensor, hook: Any) -> Tensor:
            # On models from elsewhere the hook point of resid_mid is the entrance of the MLP's norm; the
            # stream itself goes past it, and only an edit in place reaches both, as in TransformerLens'
            # own `patching`.
            changed = activation if site == "resid_mid" else activation.clone()
            view = by_position(changed, site)
            view[cells[:, None], place] = edited.to(view.dtype)
            return changed

        hooks = of_this_thread([(site_named(site).hook_name(layer), replace)])
        with (
            noisy(self.model, self._noise_of(row)),
            hook_flags(self.model, [site]),
            cast(Any, self.model).hooks(fwd_hooks=hooks),
        ):
            return self._passes.logits(layer, row)

    def _noise_of(self, row: Int64[Tensor, " cell"]) -> Tensor | None:
        return None if self._noise is None else self._noise[row]

    def logits_of_window(
        self,
        changes: Mapping[Key, Change],
        row: Int64[Tensor, " cell"],
        place: Int64[Tensor, "cell edited"],
    ) -> Float[Tensor, "cell vocab"]:
        """The logits after edits of several layers in one pass; see `WindowedForward.logits_of_window`."""
        cells = torch.arange(len(row), device=row.device)
        at = cells[:, None], place

        def replace(activation: Tensor, hook: Any, key: Key) -> Tensor:
            changed = activation if key[0] == "resid_mid" else activation.clone()  # as in `logits`
            view = by_position(changed, key[0])
            view[at] = changes[key](view[at]).to(view.dtype)
            return changed

        hooks = of_this_thread(
            (site_named(site).hook_name(layer), partial(replace, key=(site, layer)))
            for site, layer in changes
        )
        with (
            noisy(self.model, self._noise_of(row)),
            hook_flags(self.model, [site for site, _ in changes]),
            cast(Any, self.model).hooks(fwd_hooks=hooks),
        ):
            return self._passes.logits(min(layer for _, layer in changes), row)

    def logits_of_readers(
        self, layer: int, change: Float[Tensor, "pair position d_model"], readers: Sequence[Reader]
    ) -> Float[Tensor, "reader pair vocab"]:
        """The logits where heads read a changed stream; see `WindowedForward.logits_of_readers`."""
        n, pairs = len(readers), len(self.tokens)

        def replace(activation: Tensor, hook: Any, site: str) -> Tensor:
            changed = activation.clone()
            by_reader = changed.unflatten(0, (n, pairs))
            for index, (which, heads) in enumerate(readers):
                if which == site:
                    chosen = slice(None) if heads is None else list(heads)
                    run = by_reader[index, :, : change.shape[1]]
                    run[:, :, chosen] += change[:, :, None].to(run.dtype)
            return changed

        sites = dict.fromkeys(site for site, _ in readers)
        hooks = of_this_thread(
            (site_named(s).hook_name(layer), partial(replace, site=s)) for s in sites
        )
        row = torch.arange(pairs, device=self.read.device).repeat(n)
        with hook_flags(self.model, sites), cast(Any, self.model).hooks(fwd_hooks=hooks):
            logits = self._passes.logits(layer, row)
        by_reader: Tensor = logits.unflatten(0, (n, pairs))
        return by_reader


@contextmanager
def noisy(
    model: TransformerLensModel, noise: Float[Tensor, "row position d_model"] | None
) -> Iterator[None]:
    """While this lasts, noise (if any) is added to the embeddings of the rows that this thread runs."""
    if noise is None:
        yield
        return

    def add(embedded: Tensor, hook: Any) -> Tensor:
        return embedded + noise.to(embedded.dtype)

    hooks: list[tuple[str, Hook]] = of_this_thread([(EMBEDDINGS, add)])
    with cast(Any, model).hooks(fwd_hooks=hooks):
        yield
