import errno
import json
import os
import re
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from interp.errors import CheckpointError, FolderInUseError, RunError, StorageError
from interp.files import (
    folder_lock,
    place_to_write,
    read_tensors,
    remove_files,
    remove_parts,
    replaceable,
    require_own_places,
    storage_errors,
    write_bytes,
    write_json,
    write_tensors,
)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


def test_tensors_round_trip(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4).T, "b": torch.arange(3)}  # one of them not contiguous
    write_tensors(tmp_path / "deep" / "x.safetensors", tensors, {"step": "3"})
    read, metadata = read_tensors(tmp_path / "deep" / "x.safetensors")
    assert metadata == {"step": "3"}
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_missing_tensors(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no file"):
        read_tensors(tmp_path / "x.safetensors")


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"not a safetensors file at all"])
def test_damaged_tensors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.safetensors is not a readable"):
        read_tensors(path)


def test_files_are_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_bytes(tmp_path / "ours", b"")
    mode = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "ours")]
    assert mode[0] == mode[1]


LAYOUT = {"": "x", "deep": r"y\d"}


def test_what_a_kill_left_is_deleted_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = [tmp_path / "x", tmp_path / "deep" / "y1"]
    theirs = [
        ".x.part",
        ".x.abc.part",
        ".MINE.12345678.part",
        "deep/.x.12345678.part",
        "c/.x.12345678.part",
    ]
    for path in (*ours, *(tmp_path / name for name in theirs)):
        write_bytes(path, b"old")
    (tmp_path / ".x.abcdefgh.part").mkdir()
    before = names(tmp_path)
    with monkeypatch.context() as killed:
        killed.setattr(Path, "replace", lambda *_: None)  # never moved into its place
        for path in ours:
            write_bytes(path, b"new")
    assert len(names(tmp_path)) == len(before) + 2
    remove_parts(tmp_path, LAYOUT)
    assert names(tmp_path) == before


def test_files_are_deleted_by_name_and_folders_only_when_empty(tmp_path: Path) -> None:
    for name in ("x", "MINE", "deep/y1", "deep/MINE"):
        write_bytes(tmp_path / name, b"")
    remove_files(tmp_path, LAYOUT)
    assert names(tmp_path) == {"MINE", "deep"}
    (tmp_path / "deep/MINE").unlink()
    remove_files(tmp_path, LAYOUT)
    assert names(tmp_path) == {"MINE"}


def test_nothing_is_deleted_through_a_link(tmp_path: Path) -> None:
    write_bytes(tmp_path / "theirs" / "y1", b"")
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "deep").symlink_to(tmp_path / "theirs")
    with pytest.raises(RunError, match=r"ours/deep is a link to .*theirs"):
        require_own_places(tmp_path / "ours", LAYOUT)


MARK = re.compile(b"ours")


@pytest.mark.parametrize("content", [None, b"", b"ours, older"])
def test_a_file_of_ours_is_replaceable(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "x"
    if content is not None:
        path.write_bytes(content)
    assert replaceable(path, MARK, "a table") == path


@pytest.mark.parametrize("name", ["theirs", "folder", "pipe", "theirs/x", "a" * 256, "x\udcff"])
def test_what_is_not_ours_is_not_replaced(name: str, tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("a,b\n")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RunError) as refused:
        replaceable(tmp_path / name, MARK, "a table")
    assert len(str(refused.value)) < 500
    assert (tmp_path / "theirs").read_text() == "a,b\n"


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert place_to_write("~/x") == tmp_path / "x"


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Free space"),
        (errno.EROFS, "permissions"),
        (errno.ENOENT, "removed"),
        (errno.EISDIR, "Something else"),
        (errno.ENAMETOOLONG, "shorter"),
        (errno.EIO, "Free space or fix the permissions"),
    ],
)
def test_a_cause_and_its_remedy(number: int, remedy: str) -> None:
    with pytest.raises(StorageError, match=f"{remedy}.*, then run"), storage_errors(Path("x")):
        raise OSError(number, os.strerror(number))


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    write_bytes(path, b"old")

    def fails(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(StorageError, match=rf"Could not write {path}: No space left on device"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"x"}


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Could not write"):
        write_bytes(tmp_path / "file" / "x", b"")


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert names(tmp_path) == set()
    write_json(tmp_path / "x.json", {"loss": 1.5})
    assert json.loads((tmp_path / "x.json").read_text()) == {"loss": 1.5}


def test_lock_is_held_and_given_back(tmp_path: Path) -> None:
    with folder_lock(tmp_path / "run"):  # makes the folder
        second = folder_lock(tmp_path / "run")
        with pytest.raises(RunError, match="Another process is writing"):
            second.__enter__()
    with folder_lock(tmp_path / "run"):
        pass


def test_lock_is_waited_for(tmp_path: Path) -> None:
    """By so many that each would see another's work half done without it."""
    inside: list[int] = []
    most: list[int] = []

    def write() -> None:
        for _ in range(5):
            with folder_lock(tmp_path, wait=60):
                inside.append(1)
                time.sleep(0.002)
                most.append(len(inside))
                inside.pop()

    with ThreadPoolExecutor(4) as writers:
        for writer in [writers.submit(write) for _ in range(4)]:
            writer.result()
    assert most == [1] * 20
    with folder_lock(tmp_path), pytest.raises(FolderInUseError), folder_lock(tmp_path, wait=0.1):
        pass


def test_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), folder_lock(tmp_path):
        raise ZeroDivisionError
    with folder_lock(tmp_path):
        pass


def test_a_lock_is_removed(tmp_path: Path) -> None:
    with folder_lock(tmp_path):
        assert names(tmp_path) == {".lock"}
    assert names(tmp_path) == set()


@pytest.mark.parametrize("kind", ["a folder", "somebody else's", "no file"])
def test_a_lock_of_somebody_else(kind: str, tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    if kind == "a folder":
        lock.mkdir()
    elif kind == "no file":
        lock.symlink_to(tmp_path / "elsewhere")
    else:
        lock.write_text("my notes")
    before = lock.lstat()
    with pytest.raises(RunError, match=rf"\.lock is {kind}.*Move it away"), folder_lock(tmp_path):
        pass
    assert lock.lstat() == before


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a lock is a file that exists: it goes with the hold, and one that was copied can be deleted."""

    def missing(*_: object) -> None:
        raise OSError(errno.ENOSYS, "no flock")

    monkeypatch.setattr("fcntl.flock", missing)
    with pytest.warns(UserWarning, match="flock"), folder_lock(tmp_path):
        pass
    assert names(tmp_path) == set()
    (tmp_path / ".lock").touch()
    with (
        pytest.warns(UserWarning, match="flock"),
        pytest.raises(FolderInUseError, match=r"delete .*\.lock"),
        folder_lock(tmp_path),
    ):
        pass


def test_lock_keeps_other_processes_out(child, tmp_path: Path) -> None:
    with folder_lock(tmp_path):
        other = child(
            "from pathlib import Path\n"
            "from interp.files import folder_lock\n"
            "with folder_lock(Path(out)): pass\n",
            tmp_path,
        )
        assert other.wait() == 1
    assert other.error.startswith(f"FolderInUseError: Another process is writing to {tmp_path}")
