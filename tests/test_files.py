import json
import stat
from pathlib import Path

import pytest
import torch

from interp.errors import CheckpointError, RunError, StorageError
from interp.files import (
    folder_lock,
    read_tensors,
    remove_parts,
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


def test_what_a_kill_left_is_deleted_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs.part").touch()
    write_bytes(tmp_path / "deep" / "x", b"old")
    with monkeypatch.context() as killed:
        killed.setattr(Path, "replace", lambda *_: None)  # never moved into its place
        write_bytes(tmp_path / "deep" / "x", b"new")
    assert len(names(tmp_path)) == 4
    remove_parts(tmp_path)
    assert names(tmp_path) == {"theirs.part", "deep", "x"}


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


def test_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), folder_lock(tmp_path):
        raise ZeroDivisionError
    with folder_lock(tmp_path):
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
