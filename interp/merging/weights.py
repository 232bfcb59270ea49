"""Weights of runs and models as points that can be added up: read, compared, written into a new model."""

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedModel

from interp.errors import ArgumentError, RunError, whole_number
from interp.model import alone_with
from interp.model.adapters import adapter_of
from interp.model.components import HookedBridge, native_model
from interp.model.forward import measuring
from interp.model.layout import require_wrapped
from interp.model.patterns import is_recurrent
from interp.model.weights import require_own_weights
from interp.pretrained import load_model
from interp.run import Run

Given = Run | TransformerBridge | str | Path
"""What weights are taken of: a run (or its folder), or a TransformerLens model."""

_INSIDE = (
    "_original_component"  # TransformerLens' wrappers, of which a copy has more than its original
)
_OF_NO_WEIGHT = {
    "attn_implementation", "checkpoint_index", "checkpoint_label_type", "checkpoint_value",
    "default_padding_side", "default_prepend_bos", "device", "dtype", "from_checkpoint", "init_mode",
    "init_weights", "initializer_range", "load_in_4bit", "model_name", "n_devices", "n_params",
    "original_architecture", "seed", "split_attention_weights", "tokenizer_appends_eos", "tokenizer_name",
    "tokenizer_prepends_bos", "trust_remote_code", "use_attn_in", "use_attn_result", "use_hook_mlp_in",
    "use_hook_tokens", "use_split_qkv_input",
}  # fmt: skip
"""Settings of TransformerLens by which two models of one architecture may differ."""
_OF_NO_ARCHITECTURE = (
    "drop",
    "token_id",
    "version",
    "dtype",
    "name",
    "output",
    "initializer",
    "cache",
)
"""Parts of names of transformers' settings by which they may differ, too."""
_MOST = 3  # differences that an error lists


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of one model, as they were when they were read.

    Attributes:
        name: What they are called in errors and notes: the run's folder, or the model's place.
        tensors: By name in the model inside, on the CPU.
        digest: SHA-256 of names, dtypes, shapes and bytes.
        model: A model with them, which is read only.
        run: The run they are of; None of a model.
        step: Its checkpoint; None of a model.
    """

    name: str
    tensors: Mapping[str, Tensor]
    digest: str
    model: TransformerBridge = field(repr=False)
    run: Run | None = None
    step: int | None = None

    def new_model(self) -> TransformerBridge:
        """A model of the same architecture, which shares nothing with this one; in eval mode."""
        return twin(self.model) if self.run is None else self.run.model(self.step)


def read_all(given: object, steps: object = None, least: int = 1, to: str = "") -> list[Weights]:
    """The weights of several runs or models, once it is known that they can be added up.

    Args:
        given: Runs, their folders, or models.
        steps: Of each the checkpoint, None for a run's last and for models; one number for all; by
            default the last of each.
        least: How many there have to be at least.
        to: What is done with them, for the error.

    Raises:
        ArgumentError: too few, other kinds, NaN, shapes, architectures or tokenizers that differ.
        CheckpointError: a run has no checkpoint at the step.
    """
    several = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if len(several) < least:
        raise ArgumentError(
            f"{len(several)} given: {to} takes at least {least} runs or models of one architecture, "
            "in a list."
        )
    if steps is None or isinstance(steps, int):
        chosen: list[Any] = [steps] * len(several)
    else:
        chosen = list(cast(Any, steps)) if isinstance(steps, Sequence) else [steps]
    if len(chosen) != len(several):
        raise ArgumentError(
            f"steps={steps!r}: give {len(several)} steps, one for each run (None: its last), or one for all."
        )
    read: list[Weights] = []
    for place, (one, step) in enumerate(zip(several, chosen, strict=True)):
        weights = read_weights(one, step, f"model {place + 1}")
        if read:
            require_alike(read[0], weights)
        read.append(weights)
    return read


def read_weights(given: object, step: int | None = None, name: str = "the model") -> Weights:
    """The weights of a run at a checkpoint, or of a model, copied.

    Of a run with an adapter they are those it computes with at that step (see `Run.model`).

    Raises:
        ArgumentError: it is neither, has an adapter on, or holds NaN or infinite numbers.
        RunError, CheckpointError: as `Run.model`.
    """
    if isinstance(given, str | Path):
        given = Run.load(given)
    if isinstance(given, Run):
        if step is None and given.steps:
            if not given.finished:
                raise RunError(
                    f"{given.given} is not finished, and its last checkpoint is not its last one for long. "
                    "Train it to its end (resume=True), or name a step."
                )
            step = given.steps[-1]
        model = given.model(None if step is None else whole_number(step, "step", 0))
        name = f"{given.given} at step {step}"
        return _read(name, model, given, step)
    require_wrapped(given)
    if not isinstance(given, TransformerBridge):
        raise ArgumentError(
            f"{name} is a {type(given).__name__}: give a run, or a TransformerBridge "
            "(interp.load_model, interp.hooked_transformer)."
        )
    if step is not None:
        raise ArgumentError(f"steps: {name} is a model, which has no step {step}; give None.")
    if adapter_of(given) is not None:
        raise ArgumentError(
            f"{name} has an adapter beside its weights. Take it off (adapter.detach()), or write it into "
            "them (adapter.merge())."
        )
    require_own_weights(given)
    return _read(name, given, None, None)


def _read(name: str, model: TransformerBridge, run: Run | None, step: int | None) -> Weights:
    tensors: dict[str, Tensor] = {}
    with alone_with(model), torch.no_grad():
        for key, tensor in weights_in(model):
            if key not in tensors:
                copied = tensor.detach().cpu().contiguous()
                tensors[key] = copied if run is not None else copied.clone()
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ArgumentError(
                f"The weights of {name} hold NaN or infinite numbers, in {key}: nothing can be added to "
                "them. Take another checkpoint; this training diverged, or the file is damaged."
            )
    return Weights(name, tensors, digest_of(tensors), model, run, step)


def weights_in(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and kept buffers by name in the model inside; a copy may hold several of one name."""
    for path, module in model.named_modules(remove_duplicate=False):
        for name, value in module.named_parameters(recurse=False, remove_duplicate=False):
            yield _plain(f"{path}.{name}"), value
        for name, value in module.named_buffers(recurse=False, remove_duplicate=False):
            if name not in module._non_persistent_buffers_set:
                yield _plain(f"{path}.{name}"), value


def _plain(path: str) -> str:
    return ".".join(part for part in path.split(".") if part and part != _INSIDE)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, dtypes, shapes and bytes."""
    state = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        state.update(f"\n{json.dumps([name, str(tensor.dtype), list(tensor.shape)])}\n".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


@torch.no_grad()
def write_weights(model: TransformerBridge, tensors: Mapping[str, Tensor]) -> None:
    """Writes weights into a model that has the same.

    Raises:
        ArgumentError: two of its weights are one tensor, and those written differ.
    """
    with alone_with(model):
        places = list(weights_in(model))
        for name, place in places:
            place.copy_(tensors[name])
        for name, place in places:
            if not torch.equal(place.cpu(), tensors[name]):
                raise ArgumentError(
                    f"{name} is one tensor with another weight in the first model, and not in all of them. "
                    "Tie the same weights in each."
                )


def twin(model: TransformerBridge) -> TransformerBridge:
    """A new model of the same architecture as a given one, with its weights; in eval mode, without hooks.

    A transformers model is built anew and wrapped: in a copy of the wrapped one, TransformerLens' functions
    would name the original's parts.

    Raises:
        ArgumentError: what is built gives other logits, as TransformerLens has folded weights into others, or
            somebody edits the given one.
    """
    weights = {name: tensor.detach().cpu().clone() for name, tensor in weights_in(model)}
    inside = model.original_model
    if isinstance(model, HookedBridge):
        made = native_model(model.cfg, model.tokenizer, next(model.parameters()).device).eval()
    elif isinstance(inside, PreTrainedModel) and not is_recurrent(model):
        with torch.random.fork_rng(devices=[]):
            plain = type(inside)(copy.deepcopy(cast(Any, inside).config))
        state = {name: tensor.detach().clone() for name, tensor in _unwrapped(inside)}
        plain.load_state_dict(state, strict=False, assign=True)
        plain.tie_weights()
        made = load_model(plain, tokenizer=cast(Any, model.tokenizer))
    else:
        with measuring(model):
            model(
                _few_tokens(model)
            )  # of a pass with its graph, a pattern is kept that cannot be copied
            made = copy.deepcopy(model).eval()
    write_weights(made, weights)
    with measuring(model), measuring(made):
        tokens = _few_tokens(model)
        if not torch.allclose(model(tokens), made(tokens), rtol=1e-3, atol=1e-3):
            raise ArgumentError(
                "A model built anew with the weights of the first one gives other logits. Take its hooks off "
                "(model.reset_hooks()), and load it without processing of weights (interp.load_model)."
            )
    return made


def _few_tokens(model: TransformerBridge) -> Tensor:
    n = min(4, model.cfg.n_ctx, model.cfg.d_vocab)
    return torch.arange(n, device=next(model.parameters()).device)[None]


def _unwrapped(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The state of a transformers model below TransformerLens' wrappers, by its own names."""
    while isinstance(module._modules.get(_INSIDE), nn.Module):
        module = cast(nn.Module, module._modules[_INSIDE])
    for name, value in (
        *module.named_parameters(recurse=False, remove_duplicate=False),
        *module.named_buffers(recurse=False, remove_duplicate=False),
    ):
        if name not in module._non_persistent_buffers_set:
            yield prefix + name, value
    for name, child in module._modules.items():
        if child is not None:
            yield from _unwrapped(child, f"{prefix}{name}.")


def require_alike(first: Weights, other: Weights) -> None:
    """Checks that the weights of two models can be added: one architecture, one vocabulary, one attention.

    Raises:
        ArgumentError: naming what differs.
    """
    differing = [
        *_differing(_settings(first.model), _settings(other.model)),
        *_differing(_shapes(first.tensors), _shapes(other.tensors)),
    ]
    if not differing:
        words = [
            None if w.model.tokenizer is None else w.model.tokenizer.get_vocab()
            for w in (first, other)
        ]
        if None not in words and words[0] != words[1]:
            differing = [
                f"the tokenizer has {len(words[1] or ())} tokens there, {len(words[0] or ())} here, or in "
                "another order"
            ]
    if not differing and _attention(first) != _attention(other):
        differing = ["they were trained with attention patterns of other runs (patching.*)"]
    if differing:
        more = f", and {len(differing) - _MOST} more" if len(differing) > _MOST else ""
        raise ArgumentError(
            f"The weights of {other.name} do not fit those of {first.name}: {'; '.join(differing[:_MOST])}"
            f"{more}. Give runs or models of one architecture and one tokenizer."
        )


def _differing(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys([*first, *other])
    return [
        f"{name} is {other.get(name, 'not there')} there, {first.get(name, 'not there')} here"
        for name in names
        if first.get(name, None) != other.get(name, None)
    ]


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: f"{str(t.dtype)[6:]} {list(t.shape)}" for name, t in tensors.items()}


def _settings(model: TransformerBridge) -> dict[str, Any]:
    """What two models of one architecture have to share beside the shapes of their weights."""
    plain = (bool, int, float, str, list, tuple, type(None))
    found = {
        name: value
        for name, value in vars(model.cfg).items()
        if name not in _OF_NO_WEIGHT and not name.startswith("_") and isinstance(value, plain)
    }
    inside = getattr(model.original_model, "config", None)
    if isinstance(model.original_model, PreTrainedModel) and inside is not None:
        theirs = cast(Any, inside).to_dict()
        found |= {
            name: value
            for name, value in theirs.items()
            if not name.startswith("_")
            and not any(part in name for part in _OF_NO_ARCHITECTURE)
            and name not in ("architectures", "attn_implementation")
        }
    return found


def _attention(weights: Weights) -> tuple[Any, ...] | None:
    """Whose attention patterns a run's weights were trained with at their step; None: their own."""
    if weights.run is None or weights.step is None:
        return None
    patching = weights.run.config.patching
    if not patching.on or patching.own or weights.step < (patching.start or 0):
        return None
    return patching.reference_run, patching.reference_step, patching.layers, patching.heads
