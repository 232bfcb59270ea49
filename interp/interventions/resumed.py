"""Passes of models from elsewhere that begin at the edited layer and unembed only what is read.

An edit changes nothing before its layer. So the blocks before it are left out, and the unpatched residual
stream goes in where they end; the model computes positions and masks as in any pass. Of the logits, only
those that are read are made. Both come out as in a whole pass, up to the order in which a product adds up.

Not every model can be run so: one whose layers share more than the stream (keys and values, or a state)
cannot. Each layer is tried on a prompt of its own, and what does not come out the same goes the whole way.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformer_lens.model_bridge.generalized_components import UnembeddingBridge
from transformer_lens.model_protocol import TransformerLensModel

from interp.interventions.sites import HOOK_KINDS
from interp.model import has_fused_forward, logits_at

_ROUNDING = 16  # times the smallest difference that numbers of the model's type have


class ResumedForward:
    """The unpatched run of some prompts, and passes of them from a layer on.

    Where somebody's hooks are on the model, or it cannot be run so, every pass is a whole one.

    Args:
        model: Any TransformerLens model, in eval mode.
        tokens: The prompts.
        read: The position whose logits are asked for.
        layers: Where passes may begin. Of each, the unpatched stream is kept.
        during: What the unpatched run is made in, such as noise on the embeddings.

    Attributes:
        unpatched: The logits at the positions that are read, without an edit.
        reads_only: Whether only those logits are made.
        begins: The layers at which passes do begin.
    """

    def __init__(
        self,
        model: TransformerLensModel,
        tokens: Int64[Tensor, "pair position"],
        read: Int64[Tensor, " pair"],
        layers: Iterable[int],
        during: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._model, self._tokens, self._read = model, tokens, read
        self.reads_only, self.begins = False, frozenset[int]()
        self._streams: dict[int, _Stream] = {}
        if not _is_plain(model):
            with during():
                self.unpatched = self._run(tokens, read)
            return
        wanted = sorted({layer for layer in layers if layer > 0})
        # Tried on another prompt and before the unpatched run, so that what a module keeps of its latest
        # pass does not pass for what the trial computes.
        trial, at = tokens[:1].flip(1), read[:1]
        with _capturing(model, wanted) as of_trial:
            expected = self._run(trial, at)
        self.reads_only = True
        self.reads_only = _comes_out(lambda: self._run(trial, at), expected)
        with during(), _capturing(model, wanted) as self._streams:
            self.unpatched = self._run(tokens, read)
        self.begins = frozenset(
            layer
            for layer in wanted
            if layer in of_trial
            and layer in self._streams
            and _comes_out(partial(self._run, trial, at, layer, of_trial[layer]), expected)
        )
        self._streams = {layer: self._streams[layer] for layer in self.begins}

    def logits(self, layer: int, row: Int64[Tensor, " cell"]) -> Float[Tensor, "cell vocab"]:
        """The logits at the positions that are read, where nothing is edited before a layer.

        `row` is the prompt of each run. Hooks of the caller's in that layer and later ones take effect.
        """
        stream = self._streams[layer].of(row) if layer in self.begins else None
        return self._run(self._tokens[row], self._read[row], layer, stream)

    def _run(
        self,
        tokens: Int64[Tensor, "cell position"],
        read: Int64[Tensor, " cell"],
        layer: int = 0,
        stream: "_Stream | None" = None,
    ) -> Float[Tensor, "cell vocab"]:
        cells = torch.arange(len(tokens), device=read.device)
        with ExitStack() as changed:
            if stream is not None:
                changed.enter_context(_beginning(self._model, layer, stream))
            if not self.reads_only:
                return logits_at(self._model, tokens, cells, read)
            changed.enter_context(_unembedding(self._model, cells, read))
            logits: Tensor = cast(nn.Module, self._model)(tokens)
            return logits[:, 0]


@dataclass(frozen=True)
class _Stream:
    """The residual stream before a layer, and what the block before it returns beside it."""

    value: Float[Tensor, "row position d_model"]
    kind: type[Any] | None
    n_more: int

    @classmethod
    def returned(cls, output: Any) -> "_Stream | None":
        """From what a block returns."""
        if isinstance(output, Tensor):
            return cls(output.detach(), None, 0)
        if type(output) in (tuple, list) and output and isinstance(output[0], Tensor):
            return cls(output[0].detach(), type(output), len(output) - 1)
        return None

    def of(self, row: Int64[Tensor, " cell"]) -> "_Stream":
        """That of some prompts: a copy, which may be edited in place."""
        return replace(self, value=self.value[row])

    def as_returned(self) -> Any:
        """As a block returns it."""
        if self.kind is None:
            return self.value
        return self.kind([self.value, *[None] * self.n_more])


def _is_plain(model: TransformerLensModel) -> bool:
    """Whether nothing but the model itself has a part in its passes, as far as can be seen."""
    if has_fused_forward(model) or _is_hooked_by_others(model):
        return False
    blocks, unembed = getattr(model, "blocks", None), getattr(model, "unembed", None)
    if not isinstance(blocks, nn.ModuleList) or not isinstance(unembed, UnembeddingBridge):
        return False
    return not any("forward" in part.__dict__ for part in (*blocks, unembed))


def _is_hooked_by_others(model: TransformerLensModel) -> bool:
    """Whether there is a hook that TransformerLens has not put there to show shapes of its own."""
    for point in getattr(model, "hook_dict", {}).values():
        shaping = [
            handle
            for handle in point.fwd_hooks
            if str(getattr(handle.user_hook, "__module__", "")).startswith("transformer_lens.")
        ]
        if sum(len(getattr(point, kind)) for kind in HOOK_KINDS) > len(shaping):
            return True
    return False


def _comes_out(run: Callable[[], Tensor], expected: Tensor) -> bool:
    """Whether a run gives the expected logits, up to rounding."""
    try:
        found = run()
    except Exception:  # whatever a model does that cannot be run so
        return False
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    near = _ROUNDING * torch.finfo(expected.dtype).eps * max(1.0, float(expected.abs().max()))
    return bool((found - expected).abs().max() <= near)


@contextmanager
def _capturing(model: TransformerLensModel, layers: Sequence[int]) -> Iterator[dict[int, _Stream]]:
    """Keeps the streams before some layers, of this thread's passes."""
    owner, kept = threading.get_ident(), dict[int, _Stream]()

    def keep(layer: int, module: nn.Module, args: Any, output: Any) -> None:
        stream = _Stream.returned(output) if threading.get_ident() == owner else None
        if stream is not None:
            kept[layer] = replace(stream, value=stream.value.clone())

    blocks = cast(Any, model).blocks
    handles = [blocks[i - 1].register_forward_hook(partial(keep, i)) for i in layers]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _beginning(model: TransformerLensModel, layer: int, stream: _Stream) -> Iterator[None]:
    """While this lasts, blocks before a layer compute nothing, and the last hands on a stream."""
    with _replaced(cast(Any, model).blocks[:layer], lambda *_, **__: stream.as_returned()):
        yield


@contextmanager
def _unembedding(
    model: TransformerLensModel, rows: Int64[Tensor, " cell"], read: Int64[Tensor, " cell"]
) -> Iterator[None]:
    """While this lasts, the logits of each row are those at one position, [cell, 1, vocab]."""
    unembed = cast(Any, model).unembed
    whole = unembed.forward

    def chosen(stream: Tensor, *args: Any, **kwargs: Any) -> Any:
        return whole(stream[rows, read][:, None], *args, **kwargs)

    with _replaced([unembed], chosen):
        yield


@contextmanager
def _replaced(modules: Iterable[nn.Module], forward: Callable[..., Any]) -> Iterator[None]:
    """While this lasts, modules compute something else in this thread."""
    owner = threading.get_ident()

    def switched(own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return (forward if threading.get_ident() == owner else own)(*args, **kwargs)

    modules = list(modules)
    for module in modules:
        module.__dict__["forward"] = partial(switched, module.forward)
    try:
        yield
    finally:
        for module in modules:
            del module.__dict__["forward"]
