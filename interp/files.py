"""Files on disk: written beside their place and moved in, locked while a process writes a folder.

Weights go through safetensors and everything else through text formats: nothing is ever unpickled.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor

from interp.errors import CheckpointError, FolderInUseError, RunError, StorageError, short
from interp.reading import DamageError, MissingError, parse_json, require_file

_PART = ".part"  # the end of the name of a file that is being written
_DIGEST = "digest"


def absolute(path: Path | str) -> Path:
    """A path that names the same place after `os.chdir`, and in other processes.

    Raises:
        RunError: it is relative to a folder that is gone.
    """
    try:
        return Path(path).absolute()
    except FileNotFoundError as error:
        raise RunError(
            f"{path} is relative to the working directory, which has been deleted. Change to another "
            "one, or give an absolute path."
        ) from error


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns an `OSError` (disk full, no permission) while writing `path` into a `StorageError`."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"Could not write {path}: {error.strerror or error}. Files that were complete before are "
            "intact. Free space or fix the permissions, then run the same command again "
            "(`interp train`: with --resume)."
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` to `path` atomically: readers see the old file or the new one, never a part.

    Raises:
        StorageError: the disk is full or the folder cannot be written. `path` is unchanged then.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_PART)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes files private; a result is as readable as the umask says.
            Path(temporary).chmod(0o666 & ~_umask())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def remove_parts(folder: Path) -> None:
    """Deletes what a kill left, below a folder, of files that were being written.

    Only for who holds the folder (`folder_lock`): somebody else may be writing them.
    """
    for part in folder.rglob(f".*{_PART}"):
        part.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, content: str) -> None:
    """`write_bytes` for text, in UTF-8."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Writes `content` as indented JSON, atomically; NaN and infinity are refused."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes named tensors and text metadata as a safetensors file, with their digest, atomically."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    noted = {**metadata, _DIGEST: _digest_of(contiguous, metadata)}
    # One entry: safetensors writes several in an order that changes from call to call.
    note = {"interp": json.dumps(noted, sort_keys=True)}
    write_bytes(path, safetensors.torch.save(contiguous, note))


_REMEDY = "Choose another checkpoint, or make the file again (a run: train it with --overwrite)."


def read_tensors(
    path: Path, device: str = "cpu", remedy: str = _REMEDY
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads what `write_tensors` wrote: the tensors by name, and the metadata.

    Files of versions that wrote no digest are taken as they are.

    Raises:
        CheckpointError: the file is missing, truncated, damaged, or not a safetensors file; `remedy` says
            what to do then.
    """
    try:
        require_file(path)
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = _metadata((file.metadata() or {}).get("interp", "{}"))
        written = metadata.pop(_DIGEST, None)
        if written not in (None, _digest_of(tensors, metadata)):
            raise DamageError(
                "its digest is not that of what it holds, so a byte has changed since"
            )
    except MissingError as error:
        raise CheckpointError(f"There is no file {path}.") from error
    except DamageError as damage:
        raise CheckpointError(f"{path} is damaged: {damage}. {remedy}") from None
    except (SafetensorError, OSError) as error:
        reason = short(" ".join(str(error).split()), 160)[1:-1]
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({reason}): it is truncated or comes from another "
            f"program. {remedy}"
        ) from error
    return {name: tensor.to(device) for name, tensor in tensors.items()}, metadata


def _metadata(text: str) -> dict[str, str]:
    found = parse_json(text)
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise DamageError("its metadata is not names with texts")
    return found


def _digest_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of metadata, and of the names, dtypes, shapes and bytes of all tensors (on the CPU)."""
    state = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        state.update(f"\n{json.dumps([name, str(tensor.dtype), list(tensor.shape)])}\n".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def refuse_foreign(out: Path, ours: Collection[str] = ()) -> set[str]:
    """The names in a folder for a run; refuses one with files that are no run's (`ours` may be there)."""
    present = {path.name for path in out.iterdir()} if out.is_dir() else set()
    foreign = [n for n in present - set(ours) if not n.endswith(_PART) and not n.startswith(".")]
    if "config.yaml" not in present and foreign:
        raise RunError(
            f"{out} holds files but no run ({', '.join(sorted(foreign)[:4])}). Choose an empty or new "
            "folder with --out."
        )
    return present


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Holds a folder for one writing process; the system lets go of it when the process dies.

    Raises:
        FolderInUseError: another process holds the folder.
        RunError: it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; --out needs a folder.")
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise FolderInUseError(
                f"Another process is writing to {folder}. Wait until it has finished, stop it, or "
                "choose another folder with --out."
            ) from error
    try:
        yield
    finally:
        lock.release()
