"""A pretrained model as a TransformerLens model, from a folder, the hub, or transformers."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from logging import ERROR
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from interp.errors import ArgumentError, CheckpointError, printable, short
from interp.pretrained.folder import CONFIG, INDEX, WEIGHTS, ModelFolder, place
from interp.torch_state import default_state

_HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
"""What is asked for of a repository: settings, tokenizer, safetensors; no pickles."""
_LAYER = re.compile(r"\.\d+\.")  # the number of a layer in a weight's name


@default_state()
def load_model(
    model: str | Path | PreTrainedModel,
    *,
    tokenizer: PreTrainedTokenizerBase | str | Path | None = None,
    revision: str | None = None,
    device: torch.device | str | None = None,
) -> TransformerBridge:
    """A pretrained language model with TransformerLens' hooks, in eval mode and single precision.

    Nothing about the weights is changed: logits are those of the transformers model with eager attention. So
    is the tokenizer as it was: texts begin with a beginning-of-sequence token only if it by itself puts one
    there (`boot_transformers` has it always do so).

    Args:
        model: A folder as `save_pretrained` writes it, a name on the hub such as
            "EleutherAI/pythia-160m" (taken from the local cache where it is there), or a transformers model.
        tokenizer: Of the model; by default that in the folder.
        revision: On the hub: a branch, tag or commit.
        device: Where to; by default the CPU, and where it is for a transformers model.

    Raises:
        CheckpointError: the folder holds no whole model in safetensors, or the hub is out of reach.
        ConfigError: the weights do not fit into this machine's memory; known before they are read.
        ArgumentError: an architecture that TransformerLens does not know, or no tokenizer.

    Example:
        ```python
        model = interp.load_model("weights/smollm2")
        logits, cache = model.run_with_cache("The capital of France is")
        ```
    """
    if isinstance(model, PreTrainedModel):
        name = model.config.name_or_path or type(model).__name__
        if tokenizer is None:
            raise ArgumentError(
                f"{type(model).__name__} comes without its tokenizer. Give tokenizer=, or the folder or name "
                "that the model is loaded from."
            )
        return _bridge(model, _tokenizer(tokenizer), str(name), device)
    if not isinstance(model, str | Path):
        raise ArgumentError(
            f"model is {type(model).__name__}; give a folder, a name on the hub, or a transformers model."
        )
    folder = ModelFolder.of(model_path(model, revision))
    folder.require_room()
    loaded = _loaded(folder)
    return _bridge(loaded, _tokenizer(tokenizer or folder.path), str(folder.path), device)


def _loaded(folder: ModelFolder) -> PreTrainedModel:
    """The transformers model of a folder, all of whose weights come from its files.

    Raises:
        CheckpointError: transformers cannot load it, or its files and its `config.json` do not belong
            together: transformers would fill weights that are missing with random numbers.
    """
    with _quiet():
        try:
            both: Any = AutoModelForCausalLM.from_pretrained(
                folder.path, attn_implementation="eager", dtype=torch.float32, use_safetensors=True,
                local_files_only=True, trust_remote_code=False, ignore_mismatched_sizes=True,
                output_loading_info=True,
            )  # fmt: skip
        except Exception as error:  # of no common type: a damaged config.json fails anywhere
            raise CheckpointError(
                f"transformers cannot load {folder.path}: {type(error).__name__}: {_reason(error)}"
            ) from error
    loaded: PreTrainedModel
    info: dict[str, Any]
    loaded, info = both
    own = {_LAYER.sub(".*.", name) for name in loaded.state_dict()}
    beyond = [name for name in info["unexpected_keys"] if _LAYER.sub(".*.", name) in own]
    sizes = [str(one[0]) for one in info["mismatched_keys"]]
    for what, names in (
        ("lacks", info["missing_keys"]), ("has in another size", sizes), ("has beyond that", beyond)
    ):  # fmt: skip
        if names:
            first, *more = sorted(names)
            raise CheckpointError(
                f"The weights in {folder.path} are not those of the {type(loaded).__name__} that its "
                f"{CONFIG} describes: the folder {what} {short(first, 80)}"
                f"{f' and {len(more)} more' if more else ''}. Download or copy the folder again."
            )
    if not any(_LAYER.search(name) for name in loaded.state_dict()):
        raise CheckpointError(f"The {CONFIG} in {folder.path} describes a model without layers.")
    return loaded


def model_path(model: str | Path, revision: str | None = None) -> Path:
    """The folder of a model: itself, or where the hub's cache has it, downloaded if it is not there.

    Raises:
        CheckpointError: neither a folder nor a model on the hub that can be reached.
    """
    path = place(model)
    if isinstance(model, Path) or path.exists() or not _is_hub_name(model):
        if revision is not None:
            raise ArgumentError(
                f"revision={revision!r} is of a model on the hub, and {printable(str(model))} is a folder."
            )
        return path
    asked: dict[str, Any] = {"repo_id": model, "revision": revision, "allow_patterns": _HUB_FILES}
    cached = _cached(asked)
    if cached is not None:
        return cached
    try:
        return Path(snapshot_download(**asked))
    except Exception as error:  # of many types, by library and kind of failure
        at = "" if revision is None else f" at the revision {revision!r}"
        raise CheckpointError(
            f"There is no folder {model!r}, and the hub gave no model of that name{at} "
            f"({type(error).__name__}: {_reason(error)}). It is not in the local cache either. Check the "
            "name and the network, or give a folder."
        ) from error


def _cached(asked: dict[str, Any]) -> Path | None:
    """The snapshot in the local cache, if it is whole as far as its own index tells."""
    try:
        path = Path(snapshot_download(**asked, local_files_only=True))
    except Exception:  # not there, or not of this library's form
        return None
    return path if (path / WEIGHTS).exists() or (path / INDEX).exists() else None


def _is_hub_name(model: str | Path) -> bool:
    """Whether a text has the form of a name on the hub: "owner/name", or a bare name."""
    parts = str(model).split("/")
    return len(parts) <= 2 and all(part and not part.startswith(".") for part in parts)


def _tokenizer(given: PreTrainedTokenizerBase | str | Path) -> PreTrainedTokenizerBase:
    if isinstance(given, PreTrainedTokenizerBase):
        return given
    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(given, local_files_only=True)
    except Exception as error:  # of no common type
        raise ArgumentError(
            f"{given} holds no tokenizer that transformers can read ({_reason(error)}). Give tokenizer=."
        ) from error
    # Without files transformers makes up a tokenizer that knows no word.
    if set(found.get_vocab()) <= {*found.all_special_tokens, *found.get_added_vocab()}:
        raise ArgumentError(f"{given} holds no tokenizer with a vocabulary. Give tokenizer=.")
    return found


def _on_device(model: PreTrainedModel, device: torch.device | str | None) -> PreTrainedModel:
    """A model where it is asked for; `boot_transformers` only notes a device."""
    if device is None:
        return model
    try:
        moved: PreTrainedModel = model.to(torch.device(device))  # type: ignore[arg-type]
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ArgumentError(
            f"device={str(device)!r} cannot take the model ({_reason(error)}). Give a device that torch has "
            "here, such as 'cpu'."
        ) from error
    return moved


def _bridge(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    device: torch.device | str | None,
) -> TransformerBridge:
    model = _on_device(model, device)
    _require_finite(model, name)
    if not model.config.architectures:
        model.config.architectures = [type(model).__name__]
    with _quiet(), tempfile.TemporaryDirectory() as scratch:
        # The bridge loads a tokenizer again from where it came from; what it makes of it is set aside.
        tokenizer.save_pretrained(scratch)
        again = AutoTokenizer.from_pretrained(scratch, local_files_only=True)
        try:
            bridge = TransformerBridge.boot_transformers(
                name, hf_model=model, tokenizer=again, device=str(next(model.parameters()).device)
            )
        except Exception as error:  # of no common type
            raise ArgumentError(
                f"TransformerLens has no hooks for {type(model).__name__} ({_reason(error)})."
            ) from error
        own = AutoTokenizer.from_pretrained(scratch, local_files_only=True)
    own.name_or_path = name
    if own.pad_token is None:
        own.pad_token = bridge.tokenizer.pad_token
    bridge._tokenizer = own  # type: ignore[assignment]  # its setter would load it anew, as the constructor does
    bridge.cfg.tokenizer_prepends_bos = bridge.cfg.default_prepend_bos = adds_bos(own)
    bridge.eval()
    return bridge


def _require_finite(model: PreTrainedModel, name: str) -> None:
    """Checks that all weights are numbers: one NaN makes every logit one, and "never follows" of every patch.

    Raises:
        CheckpointError: one is not.
    """
    for weight, values in model.named_parameters():
        if values.is_floating_point() and not values.detach().sum(dtype=torch.float64).isfinite():
            raise CheckpointError(
                f"The weights of {printable(name)} hold NaN or infinite numbers, in {weight}. Take another "
                "checkpoint; this training diverged, or the file is damaged."
            )


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer by itself puts its beginning-of-sequence token before a text."""
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and list(ids)[:1] == [tokenizer.bos_token_id]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars of transformers, one for every checkpoint, and its report of weights."""
    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(max(verbosity, ERROR))
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def _reason(error: Exception) -> str:
    return short(" ".join(str(error).split()), 160)[1:-1]
