"""A folder with a pretrained model: whether it holds one, and how large it is.

Looked at before anything is loaded, so that what is missing is named at once and not after minutes.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from interp.errors import CheckpointError, ConfigError, printable, short
from interp.machine import memory_bytes
from interp.reading import DamageError, MissingError, names_in, parse_json, read_text

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "pytorch_model.pt")
_HEADER = 8  # bytes that hold the length of a safetensors header
_MOST_HEADER = 100_000_000
_FLOAT = 4
_GIB = 2**30


@dataclass(frozen=True)
class ModelFolder:
    """A folder with `config.json` and safetensors.

    Attributes:
        path: The folder.
        config: What `config.json` holds.
        n_weights: Numbers in all weights.
    """

    path: Path
    config: dict[str, Any]
    n_weights: int

    @classmethod
    def of(cls, path: Path) -> "ModelFolder":
        """Looks at a folder, and reads no weights.

        Raises:
            CheckpointError: it is no folder with a model, weights are missing, or there are only pickles.
        """
        if not path.is_dir():
            raise CheckpointError(
                f"There is no folder {printable(str(path))}. Give a folder with config.json and "
                "model.safetensors, as save_pretrained writes it."
            )
        config = _json(path, CONFIG)
        sizes = [_n_numbers(path, name) for name in _weight_files(path)]
        return cls(path, config, sum(sizes))

    @property
    def shape(self) -> dict[str, Any]:
        """What models have in common that are checkpoints of one training."""
        names = (
            "architectures", "model_type", "vocab_size", "hidden_size", "n_embd", "num_hidden_layers",
            "n_layer", "num_attention_heads", "n_head", "num_key_value_heads", "intermediate_size",
        )  # fmt: skip
        return {name: self.config[name] for name in names if name in self.config}

    def require_room(self) -> None:
        """Checks that the weights fit into this machine's memory in single precision.

        Raises:
            ConfigError: they do not.
        """
        there, needed = memory_bytes(), _FLOAT * self.n_weights
        if there is not None and needed > there:
            raise ConfigError(
                f"{self.path} has {self.n_weights / 1e9:.3g} billion weights, which need "
                f"{needed / _GIB:,.3g} GiB in single precision; this machine has {there / _GIB:,.3g} GiB. "
                "Take a smaller model, or a larger machine."
            )


def place(given: str | Path) -> Path:
    """A folder that is named, with `~` expanded.

    Raises:
        CheckpointError: there can be no folder of that name.
    """
    try:
        path = Path(given).expanduser()
        path.exists()  # a name too long is an error here
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"There is no folder {short(str(given), 80)} ({reason}). Give a folder with config.json and "
            "model.safetensors, as save_pretrained writes it."
        ) from None
    if not str(given).strip():
        raise CheckpointError(
            "The name of the model is empty. Give a folder, or a name on the hub."
        )
    return path


def _weight_files(path: Path) -> list[str]:
    """The names of the files that hold weights, all of which are there."""
    if (path / INDEX).exists():
        index = _json(path, INDEX).get("weight_map")
        if not isinstance(index, dict) or not index:
            raise CheckpointError(f"{path / INDEX} has no weight_map. Save or download it again.")
        shards = sorted({str(name) for name in index.values()})
        missing = [name for name in shards if not (path / name).exists()]
        if missing:
            raise CheckpointError(
                f"{path} lacks {missing[0]}, one of its {len(shards)} files of weights"
                f"{_and_more(missing)}. Download or copy the folder again."
            )
        return shards
    if (path / WEIGHTS).exists():
        return [WEIGHTS]
    there = names_in(path)
    pickles = [name for name in there if name in _PICKLES or name.endswith((".bin", ".pt", ".pth"))]
    if pickles:
        raise CheckpointError(
            f"{path} holds its weights in {pickles[0]}, a pickle, which can run code when it is read; this "
            "toolkit reads safetensors only. Convert it where you trust it: load it with transformers and "
            "call save_pretrained."
        )
    raise CheckpointError(
        f"{path} holds no weights: neither {WEIGHTS} nor {INDEX} is there"
        f"{_listed(there)}. Give the folder that save_pretrained has written."
    )


def _n_numbers(path: Path, name: str) -> int:
    """How many numbers a safetensors file holds, from its header."""
    try:
        with (path / name).open("rb") as file:
            length = int.from_bytes(file.read(_HEADER), "little")
            if not 0 < length < _MOST_HEADER:
                raise ValueError("its header has no sensible length")
            header = json.loads(file.read(length))
        tensors = {name: one for name, one in header.items() if name != "__metadata__"}
        end = max((one["data_offsets"][1] for one in tensors.values()), default=0)
        if (path / name).stat().st_size < _HEADER + length + end:
            raise ValueError("it is shorter than its header says")
        if (path / name).stat().st_size > _HEADER + length + end:
            raise ValueError("it is longer than its header says")
        return sum(prod(one["shape"]) for one in tensors.values())
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError
    ) as error:  # fmt: skip
        reason = short(" ".join(str(error).split()), 120)[1:-1]
        raise CheckpointError(
            f"{path / name} cannot be read as safetensors ({reason}). Download or copy it again."
        ) from None


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        found = parse_json(read_text(path / name, _MOST_HEADER))
        if not isinstance(found, dict):
            raise DamageError("it is not a set of names with values")
    except DamageError as error:
        what = (
            f"there is no {name} in it" if isinstance(error, MissingError) else f"{name}: {error}"
        )
        raise CheckpointError(
            f"{path} is no folder of a model ({what}). Give a folder with config.json and "
            "model.safetensors, as save_pretrained writes it."
        ) from None
    return found


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _listed(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    if not names:
        return " (it is empty)"
    more = ", …" if len(names) > most else ""
    return f" (it has {', '.join(short(name)[1:-1] for name in names[:most])}{more})"
