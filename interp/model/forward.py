"""Forward passes for measuring: logits only where they are read, and the model left as it was."""

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_protocol import TransformerLensModel

from interp.errors import ArgumentError
from interp.model.fused import final_residual, has_fused_forward
from interp.model.layout import require_wrapped

Hook = Callable[..., Tensor | None]
"""Is given what passes a hook point, and the point as `hook`; returns what goes on, None for the same."""

_LOCKS: "weakref.WeakKeyDictionary[object, threading.RLock]" = weakref.WeakKeyDictionary()
_LOCKS_LOCK = threading.Lock()


@contextmanager
def alone_with(model: object) -> Iterator[None]:
    """While this lasts, no other thread is in here with the same model: it waits.

    For what puts hooks on a model, or changes its mode or weights, and takes that back: in two threads at
    once, each would measure the other's edits. Not for contexts in which a user's code runs, which may
    itself wait for another thread.
    """
    with _LOCKS_LOCK:
        lock = _LOCKS.setdefault(model, threading.RLock())
    with lock:
        yield


def of_this_thread(hooks: Iterable[tuple[str, Hook]]) -> list[tuple[str, Hook]]:
    """TransformerLens hooks that see and edit the forward passes of this thread only.

    A pass that another thread makes of the same model meanwhile goes through unseen and unchanged.
    """
    owner = threading.get_ident()

    def own(hook: Hook) -> Hook:
        def run(value: Tensor, **point: object) -> Tensor | None:
            return hook(value, **point) if threading.get_ident() == owner else None

        return run

    return [(name, own(hook)) for name, hook in hooks]


def require_numbers(given: Tensor | float, what: str) -> None:
    """Checks that what an unedited model gives are numbers: a measure of anything else would be of nothing.

    Raises:
        ArgumentError: some are NaN or infinite. `what` is said.
    """
    if not torch.as_tensor(given).isfinite().all():
        raise ArgumentError(
            f"The model's {what} are no numbers (NaN or infinite), before anything is edited. Its weights "
            "may be damaged, or too large for half precision: load it anew, or take float32."
        )


def require_room(
    model: TransformerLensModel, longest: int, highest: int, what: str, remedy: str
) -> None:
    """Checks that a model can read texts.

    Args:
        model: It.
        longest: Tokens of the longest text.
        highest: The highest token id.
        what: What the texts are called in the error, e.g. "The texts".
        remedy: A sentence that says what to do.

    Raises:
        ArgumentError: it has fewer positions, or another vocabulary.
    """
    if longest > model.cfg.n_ctx or highest >= model.cfg.d_vocab:
        raise ArgumentError(
            f"{what} have up to {longest} tokens with ids up to {highest}; this model reads "
            f"{model.cfg.n_ctx} tokens, ids below {model.cfg.d_vocab}. {remedy}"
        )


@contextmanager
def evaluating(model: TransformerLensModel) -> Iterator[None]:
    """Puts a model into eval mode, without gradients, and leaves it in the mode it was in."""
    module = cast(nn.Module, model)
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def measuring(model: TransformerLensModel) -> Iterator[None]:
    """`evaluating`, in one thread at a time (see `alone_with`): what an analysis computes in.

    Raises:
        ArgumentError: it is no TransformerLens model.
    """
    require_wrapped(model)
    with alone_with(model), evaluating(model):
        yield


def logits_at(
    model: TransformerLensModel,
    tokens: Int[Tensor, "batch position"],
    rows: Int[Tensor, " read"],
    positions: Int[Tensor, " read"],
) -> Float[Tensor, "read vocab"]:
    """The logits at chosen positions, as `model(tokens)[rows, positions]` gives them.

    A model of ours unembeds only those positions, which saves about half the work of a pass, and
    computes its last MLP and norm there alone where nobody's hook looks at them; its unembedding hooks
    see [read, ...] then. Any other model runs in full.
    """
    if not has_fused_forward(model):
        logits: Tensor = cast(nn.Module, model)(tokens)
        return logits[rows, positions]
    bridge = cast(TransformerBridge, model)
    residual = final_residual(bridge, tokens, bridge.W_E.dtype, (rows, positions))
    read: Tensor = bridge.unembed(residual)
    return read
