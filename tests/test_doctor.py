"""`interp doctor`: what is there, what it means, and what is wrong."""

import os
from importlib import metadata
from pathlib import Path

import pytest
import torch

from interp import doctor
from tests.helpers import run_cli


def named(found: list[doctor.Finding]) -> dict[str, doctor.Finding]:
    return {one.what: one for one in found}


def test_everything_is_looked_at(tmp_path: Path) -> None:
    found = named(doctor.examine(tmp_path / "not" / "there"))
    assert list(found) == [
        "Python", "packages", "processor", "memory", "device", "bfloat16", "optional", "browser", "disk",
    ]  # fmt: skip
    assert all(one.good and one.found and one.means for one in found.values())
    assert f"torch {metadata.version('torch')}" in found["packages"].found
    assert str(tmp_path) in found["disk"].found
    assert ("in hardware" in found["bfloat16"].found) == doctor.has_bf16(torch.device("cpu"))


def test_what_is_missing_or_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = ["numpy>=99", "no-such-package>=1", "einops", "ray>=99; extra == 'ray'"]
    monkeypatch.setattr(metadata, "requires", lambda name: needed)
    found = doctor._packages()
    assert not found.good
    assert f"numpy {metadata.version('numpy')} is not >=99" in found.means
    assert "no-such-package>=1 is missing" in found.means
    assert "ray" not in found.means
    assert found.means.endswith("pip install 'numpy>=99' 'no-such-package>=1'")
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    assert "not installed" in doctor._packages().found


def test_a_folder_that_cannot_be_written_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    found = doctor._disk(tmp_path)
    assert not found.good
    assert "give another folder" in found.means
    monkeypatch.undo()
    assert doctor._disk(tmp_path).good
    (tmp_path / "file").write_text("")
    assert not doctor._disk(tmp_path / "file").good


@pytest.mark.parametrize(
    ("cuda", "why"), [(None, "is for the CPU"), ("12.8", "driver may be too old")]
)
def test_a_card_that_torch_does_not_find_is_said(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, why: str
) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    found = doctor._device(torch.device("cpu"))
    assert found.good
    assert why in found.means


def test_optional_packages_say_what_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "gguf" else "1")
    found = doctor._optional()
    assert found.good
    assert found.means == "gguf is for models in GGUF files (pip install gguf)"


def test_the_command_ends_with_what_it_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = doctor.Finding("disk", "much", "enough")
    bad = doctor.Finding("device", "none", "buy one", good=False)
    monkeypatch.setattr(doctor, "examine", lambda folder: [good])
    assert run_cli("doctor") == 0
    assert capsys.readouterr().out.splitlines() == ["ok  disk: much", "    enough"]
    monkeypatch.setattr(doctor, "examine", lambda folder: [good, bad])
    assert run_cli("doctor") == 1
    assert capsys.readouterr().out.splitlines()[2:] == ["no  device: none", "    buy one"]


def test_interp_alone_says_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli() == 0
    alone = capsys.readouterr().out
    assert alone.startswith("To begin:\n\n  interp doctor")
    assert run_cli("--help") == 0
    assert alone.endswith(commands := capsys.readouterr().out)
    assert commands.startswith("interp: watch a language model learn facts.")
