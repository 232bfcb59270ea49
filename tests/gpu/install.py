"""Makes the environment of `make gpu`: one whose PyTorch sees the card.

    python3 tests/gpu/install.py .venv-gpu

Where the Python that is called has such a PyTorch (an image that came with one), that is used, with the
packages around it. Otherwise torch comes from where pip is set up to look, and from the index in the
variable TORCH_INDEX, of builds for an older driver say, if that one does not see the card. Other packages
have the versions of constraints.txt. Needs nothing but Python and an NVIDIA driver.
"""

import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = ("beartype>=0.20", "pytest>=8.3")
"""What the tests need beside the package."""
_LOOK = """
import importlib.metadata, torch
print(importlib.metadata.version("torch"))  # torch's own word may add a build that pip does not know
raise SystemExit(not torch.cuda.is_available())
"""


def main(folder: Path) -> None:
    """Makes the environment; ends with one message where no PyTorch sees a card."""
    here = torch_that_sees_a_card(Path(sys.executable))
    if here is None:
        require_driver(driver())
    python = folder / "bin" / "python"
    venv.create(folder, clear=True, with_pip=True)
    constraints = folder / "constraints.txt"
    if here is not None:
        print(f"torch {here} of {sys.executable} sees the card and is used")
        paths = sysconfig.get_paths()
        site = next((folder / "lib").glob("python*/site-packages"))
        (site / "of_the_image.pth").write_text(f"{paths['purelib']}\n{paths['platlib']}\n")
        constraints.write_text(f"torch=={here}\n")
    else:
        pinned = (ROOT / "constraints.txt").read_text()
        latest = re.search(r"^torch==(\S+)\n", pinned, re.MULTILINE)
        assert latest is not None
        version = install_torch(python, latest[1])
        constraints.write_text(pinned.replace(latest[0], f"torch=={version}\n"))
    pip(python, "--constraint", str(constraints), "--editable", str(ROOT), *TOOLS)
    if torch_that_sees_a_card(python) is None:
        raise SystemExit(
            f"torch in {folder} no longer sees the card after the other packages came."
        )


def install_torch(python: Path, latest: str) -> str:
    """Installs the first build of torch that sees the card, no later than `latest`; its version."""
    index = os.environ.get("TORCH_INDEX")
    for place in (None, index) if index else (None,):
        # A build that has been tried is in the way, under the same version maybe.
        where = () if place is None else ("--index-url", place, "--force-reinstall")
        pip(python, *where, f"torch>=2.6,<={latest}")
        version = torch_that_sees_a_card(python)
        if version is not None:
            return version
        print("This build of torch does not see the card.")
    raise SystemExit(
        "There is a driver, and the build of torch that pip finds does not see the card: it is for CPUs, or "
        "for a later driver. Look up which builds fit yours (`nvidia-smi` says its CUDA version) and name "
        "the index that has them: make gpu TORCH_INDEX=..."
    )


def require_driver(banner: str) -> None:
    """Checks what `nvidia-smi` prints: torch needs a driver with CUDA 12 or later."""
    found = re.search(r"CUDA Version: *(\d+)\.(\d+)", banner)
    if found is None:
        raise SystemExit("nvidia-smi does not say which CUDA the driver has; install a driver.")
    if int(found[1]) < 12:
        raise SystemExit(
            f"The driver has CUDA {found[1]}.{found[2]}, and torch needs 12 or later; install a newer "
            "driver (525 or later)."
        )


def driver() -> str:
    """What `nvidia-smi` prints."""
    try:
        return subprocess.run(["nvidia-smi"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(
            f"There is no NVIDIA driver here ({error}). On a CPU the same parts run, short, with "
            "`.venv/bin/python -m tests.gpu --device cpu --preset smoke`."
        ) from error


def torch_that_sees_a_card(python: Path) -> str | None:
    """The version of a Python's torch; None without one that sees a card."""
    looked = subprocess.run([python, "-c", _LOOK], capture_output=True, text=True, check=False)
    return looked.stdout.strip() if looked.returncode == 0 else None


def pip(python: Path, *arguments: str) -> None:
    """Installs; pip says itself what went wrong."""
    command = [python, "-m", "pip", "install", "--quiet", *arguments]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit("pip could not install what `make gpu` needs; it says why above.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
