"""A pretrained model as a TransformerLens model, from a folder, the hub, or transformers."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
from interp.pretrained.folder import INDEX, WEIGHTS, ModelFolder
from interp.torch_state import default_state

_HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
"""What is asked for of a repository: settings, tokenizer, safetensors; no pickles."""


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
        device: Where to; the CPU by default.

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
    with _quiet():
        try:
            loaded = AutoModelForCausalLM.from_pretrained(
                folder.path, attn_implementation="eager", dtype=torch.float32, use_safetensors=True,
                local_files_only=True,
            )  # fmt: skip
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            raise CheckpointError(
                f"transformers cannot load {folder.path}: {_reason(error)}"
            ) from error
    return _bridge(loaded, _tokenizer(tokenizer or folder.path), str(folder.path), device)


def model_path(model: str | Path, revision: str | None = None) -> Path:
    """The folder of a model: itself, or where the hub's cache has it, downloaded if it is not there.

    Raises:
        CheckpointError: neither a folder nor a model on the hub that can be reached.
    """
    path = Path(model).expanduser()
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
    return found


def _bridge(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    device: torch.device | str | None,
) -> TransformerBridge:
    if not model.config.architectures:
        model.config.architectures = [type(model).__name__]
    with _quiet(), tempfile.TemporaryDirectory() as scratch:
        # The bridge loads a tokenizer again from where it came from; what it makes of it is set aside.
        tokenizer.save_pretrained(scratch)
        again = AutoTokenizer.from_pretrained(scratch, local_files_only=True)
        try:
            bridge = TransformerBridge.boot_transformers(
                name, hf_model=model, tokenizer=again, device=str(device or "cpu")
            )
        except (ValueError, KeyError, AttributeError, NotImplementedError) as error:
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


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer by itself puts its beginning-of-sequence token before a text."""
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and list(ids)[:1] == [tokenizer.bos_token_id]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars of transformers, one for every checkpoint."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _reason(error: Exception) -> str:
    return short(" ".join(str(error).split()), 160)[1:-1]
