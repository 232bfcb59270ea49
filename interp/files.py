"""Files on disk: written beside their place and moved in, locked while a process writes a folder.

Weights go through safetensors and everything else through text formats: nothing is ever unpickled. What
is deleted or replaced goes by the names that the toolkit writes (a `Layout`), never by place alone, and
a file that a user names is replaced only where it holds what the toolkit would write.
"""

import errno
import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor

from interp.errors import CheckpointError, FolderInUseError, RunError, StorageError, short
from interp.reading import DamageError, MissingError, parse_json, require_file

Layout = Mapping[str, str]
"""What the toolkit writes into a folder of its own: the names, as a regular expression, by the place in
it ("" for the folder itself). They are deleted in this order."""

_PART = ".part"  # the end of the name of a file that is being written
_DIGEST = "digest"
_LOCK = ".lock"
_LOCK_NOTE = re.compile(
    rb"(\d+\n[^\n]+\n(\d+\n)?|filelock/.*)?", re.DOTALL
)  # as filelock writes them
_BEGINNING = 65_536  # bytes of a file that tell what it is

_IN_THE_WAY = "Something else has that name there: move it away"
_FULL = "Free space"
_FORBIDDEN = "Fix the permissions"
_REMEDIES = {
    errno.ENOENT: "Its folder has been moved or removed: put it back",
    errno.ENAMETOOLONG: "The name is too long: choose a shorter one",
    errno.ELOOP: "A link on the way leads nowhere: remove it",
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY), _IN_THE_WAY),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _FULL),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _FORBIDDEN),
}
"""What to do about the causes that are common."""


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
            f"intact. {_remedy(error)}, then run the same command again (training: with resume=True)."
        ) from error


def file_error(error: OSError) -> StorageError:
    """What an `OSError` about a file or folder says to people: which one, why not, and what to do."""
    name = short(str(error.filename), 200)
    return StorageError(f"{name} cannot be used: {error.strerror or error}. {_remedy(error)}.")


def _remedy(error: OSError) -> str:
    return _REMEDIES.get(error.errno or 0, f"{_FULL} or {_FORBIDDEN.lower()}")


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


def place_to_write(path: Path | str) -> Path:
    """A path for output, with `~` expanded, once it is known that files can have such a name.

    Raises:
        RunError: it is no text, longer than the system allows, or below something that is no folder.
    """
    path = Path(path)
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = ascii(str(path))
        raise RunError(f"The name {shown} is not UTF-8 text. Choose another name.") from None
    try:
        path = path.expanduser()
        above = next(folder for folder in absolute(path).parents if folder.exists())
        path.exists()  # a name too long is an error here
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(
            f"{short(str(path), 80)} cannot be written to: {reason}. Choose another name."
        ) from None
    if not above.is_dir():
        raise RunError(f"{path} lies below {above}, which is a file. Choose another place.")
    return path


def with_ending(path: Path | str, ending: str) -> Path:
    """A file for output, with an ending (".csv") where its name has none; errors as `place_to_write`."""
    path = place_to_write(path)
    return path if path.suffix or path.is_dir() else path.with_name(path.name + ending)


def replaceable(path: Path | str, mark: re.Pattern[bytes], what: str) -> Path:
    """A file for output, once it is known that nothing but an older one of ours would be replaced.

    Args:
        path: The file; it need not exist.
        mark: What the beginning of a file of this kind matches.
        what: The kind in words, e.g. "a table of summaries".

    Returns:
        The path, as `place_to_write` gives it.

    Raises:
        RunError: something else lies there, or no file can.
    """
    path = place_to_write(path)
    if path.is_dir():
        raise RunError(f"{path} is a folder; give the name of a file.")
    if not path.exists():
        return path
    if not path.is_file():
        raise RunError(f"{path} is no file that could be replaced. Give the name of a file.")
    try:
        with path.open("rb") as file:
            beginning = file.read(_BEGINNING)
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}). Choose another name.") from error
    if beginning and not mark.match(beginning):
        raise RunError(
            f"{path} is there and is not {what} that interp wrote, so it is not replaced. Delete it "
            "yourself, or choose another name."
        )
    return path


def written_files(folder: Path, layout: Layout) -> Iterator[Path]:
    """The files of a folder that have a name of its layout, in the layout's order."""
    for place, names in layout.items():
        for path in _children(folder / place):
            if re.fullmatch(names, path.name) and not path.is_dir():
                yield path


def remove_files(folder: Path, layout: Layout) -> None:
    """Deletes the files of a layout, and those of its places that are empty then; nothing else.

    Raises:
        StorageError: a file cannot be deleted.
    """
    remove_parts(folder, layout)
    with storage_errors(folder):
        for path in written_files(folder, layout):
            path.unlink(missing_ok=True)
        for place in sorted((p for p in layout if p), key=len, reverse=True):
            remove_if_empty(folder / place)


def remove_if_empty(folder: Path) -> None:
    """Deletes a folder that holds nothing."""
    if folder.is_dir() and not folder.is_symlink() and not _children(folder):
        folder.rmdir()


def require_own_places(folder: Path, layout: Layout) -> None:
    """Refuses to delete files of a layout by way of a link, which leads to what may be somebody else's.

    Raises:
        RunError: a place of the layout is a link, or no folder.
    """
    for place in layout:
        path = folder / place
        if place and path.is_symlink():
            raise RunError(
                f"{path} is a link to {path.readlink()}, and files are deleted only in the folder itself. "
                "Remove the link, or choose another folder."
            )
        if path.exists() and not path.is_dir():
            raise RunError(f"{path} is no folder. Move it away, or choose another folder.")


def remove_parts(folder: Path, layout: Layout) -> None:
    """Deletes what a kill left of files of a layout that were being written.

    Only for who holds the folder (`folder_lock`): somebody else may be writing them.
    """
    with storage_errors(folder):
        for place, names in layout.items():
            for path in _children(folder / place):
                # The eight characters are those of `tempfile`.
                if (
                    re.fullmatch(rf"\.({names})\.[a-z0-9_]{{8}}\{_PART}", path.name)
                    and path.is_file()
                ):
                    path.unlink(missing_ok=True)


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


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


_REMEDY = "Choose another checkpoint, or make the file again (a run: train it with overwrite=True)."


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


def refuse_foreign(out: Path) -> set[str]:
    """The names in a folder for a run; refuses one with files and no config.yaml, which marks a run.

    Raises:
        RunError: the folder holds something else; nothing has been touched.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file; a folder is needed.")
    try:
        present = {path.name for path in _children(out)}
    except OSError as error:
        raise RunError(
            f"{out} cannot be read ({error.strerror}). Choose another folder."
        ) from error
    foreign = [name for name in present if not name.startswith(".")]
    if "config.yaml" not in present and foreign:
        raise RunError(
            f"{out} holds files but no run ({', '.join(sorted(foreign)[:4])}). Choose an empty or new "
            "folder."
        )
    return present


def refuse_run(out: Path, *, below: bool = True) -> None:
    """Refuses a run's folder for something else, whose files would be put among the run's own.

    Args:
        out: A folder for output.
        below: Also refuse the folders within a run's.

    Raises:
        RunError: a run of any kind is there.
    """
    for folder in (out, *(absolute(out).parents if below else ())):
        if (folder / "config.yaml").exists() and (folder / "metrics.jsonl").exists():
            where = "is" if folder == out else "is within"
            raise RunError(
                f"{out} {where} the folder of a run, and these files would be put among its own. Choose "
                "another folder."
            )


@contextmanager
def folder_lock(folder: Path, wait: float | int = 0) -> Iterator[None]:
    """Holds a folder for one writing process; the system lets go of it when the process dies.

    The lock file goes with the hold: on a file system without locks its being there is the lock.

    Args:
        folder: The folder.
        wait: For so many seconds, while another process holds it.

    Raises:
        FolderInUseError: another process holds the folder.
        RunError: it is a file, or its lock is somebody else's file.
        StorageError: it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; a folder is needed.")
    path = folder / _LOCK
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _require_lock_file(path)
        lock = FileLock(path, timeout=wait)
        while not lock.is_locked:
            try:
                lock.acquire()
            except Timeout as error:
                if not path.exists():
                    continue  # who held it has just let go
                raise FolderInUseError(
                    f"Another process is writing to {folder}. Wait until it has finished, stop it, or "
                    f"choose another folder. (If there is none, because the folder was copied "
                    f"or its system knows no locks, delete {path}.)"
                ) from error
    try:
        yield
    finally:
        # Before it is let go of: who comes next makes another file, and who has opened this one sees
        # that it is gone.
        with suppress(OSError):
            path.unlink()
        lock.release()


def _require_lock_file(path: Path) -> None:
    try:
        found = path.lstat()
        note = path.read_bytes() if stat.S_ISREG(found.st_mode) and found.st_size <= 1024 else None
    except FileNotFoundError:
        return  # who held it may let go at any moment
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no file"
    elif note is None or not _LOCK_NOTE.fullmatch(note):
        kind = "somebody else's file"
    else:
        return
    raise RunError(
        f"{path} is {kind}, where a lock has to be. Move it away, or choose another folder."
    )
