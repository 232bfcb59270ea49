"""Edits through hooks, for any TransformerLens model: passes of the model's own modules.

Where it can be done, they begin at the edited layer (see `resumed`).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformer_lens.model_protocol import TransformerLensModel

from interp.interventions.resumed import ResumedForward
from interp.interventions.sites import Key, by_position, hook_flags, read_activations, site_named
from interp.model import of_this_thread

Reader = tuple[str, tuple[int, ...] | None]
"""Heads (None for all) that read, and by which input: q_input, k_input or v_input."""


class Hooked:
    """The unpatched runs of some prompts, and passes of edited ones.

    Args:
        model: Any TransformerLens model, in eval mode.
        tokens: The prompts.
        read: The position whose logits are asked for.
        keys: The sites and layers whose unpatched activations are wanted (`base`).
    """

    def __init__(
        self,
        model: TransformerLensModel,
        tokens: Int64[Tensor, "pair position"],
        read: Int64[Tensor, " pair"],
        keys: list[Key],
    ) -> None:
        self.model = model
        self.tokens = tokens
        self.read = read
        self.base = read_activations(model, tokens, keys)
        self._passes = ResumedForward(model, tokens, read, (layer for _, layer in keys))
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
        with hook_flags(self.model, [site]), cast(Any, self.model).hooks(fwd_hooks=hooks):
            return self._passes.logits(layer, row)

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
