"""What is installed elsewhere: the wheel is the package, the source archive what builds and tests it."""

import re
import tarfile
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

import interp

ROOT = Path(__file__).parents[1]
PACKAGE = Path(interp.__file__).parent
INSIDE = {"LICENSE", "METADATA", "WHEEL", "RECORD", "entry_points.txt"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Wheel and source archive, made as `make dist` makes them."""
    pytest.importorskip("hatchling", reason="no hatchling: pip install 'interp[dev]'")
    from hatchling.builders.sdist import SdistBuilder
    from hatchling.builders.wheel import WheelBuilder

    out = tmp_path_factory.mktemp("dist")
    wheel, archive = (
        Path(next(builder(str(ROOT)).build(directory=str(out), versions=["standard"])))
        for builder in (WheelBuilder, SdistBuilder)
    )
    return wheel, archive


@pytest.fixture(scope="module")
def wheel(built: tuple[Path, Path]) -> dict[str, bytes]:
    with zipfile.ZipFile(built[0]) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


@pytest.fixture(scope="module")
def archived(built: tuple[Path, Path]) -> list[str]:
    with tarfile.open(built[1]) as opened:
        return [name.partition("/")[2] for name in opened.getnames()]


def files_of_the_package() -> dict[str, bytes]:
    paths = [path for path in PACKAGE.rglob("*") if path.is_file()]
    return {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for path in paths
        if "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def metadata(wheel: dict[str, bytes]) -> Message:
    name = next(name for name in wheel if name.endswith("/METADATA"))
    return message_from_bytes(wheel[name])


def test_the_wheel_holds_the_package_and_nothing_else(wheel: dict[str, bytes]) -> None:
    within = {name: content for name, content in wheel.items() if ".dist-info/" not in name}
    assert within == files_of_the_package()
    assert {Path(name).name for name in {*wheel} - {*within}} == INSIDE


def test_what_is_no_code_is_there_too(wheel: dict[str, bytes]) -> None:
    endings = {Path(name).suffix for name in wheel if name.startswith("interp/")}
    # Word lists, templates, what pages and attention maps are made of, the marks of the measures.
    assert {".txt", ".yaml", ".css", ".js", ".j2", ".csv", ".typed"} <= endings


def test_the_wheel_says_what_it_is(wheel: dict[str, bytes]) -> None:
    said = metadata(wheel)
    assert (said["Name"], said["Version"]) == ("interp", interp.__version__)
    assert said["Requires-Python"] == ">=3.11"
    assert "License-Expression" in said
    entry = next(content for name, content in wheel.items() if name.endswith("entry_points.txt"))
    assert b"interp = interp.__main__:main" in entry


def test_the_archive_has_what_builds_and_tests_the_package(archived: list[str]) -> None:
    assert {*files_of_the_package()} <= {*archived}
    wanted = (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CITATION.cff",
        "tests/conftest.py",
        "Makefile",
    )
    assert {*wanted, "constraints.txt", "tests/lowest.txt", "docs/tour.md"} <= {*archived}


def test_the_archive_has_no_outputs_and_no_weights(archived: list[str]) -> None:
    top = {name.partition("/")[0] for name in archived}
    assert not top & {"artifacts", "notebooks", "runs", "weights", ".venv", ".github"}
    foreign = re.compile(r"node_modules|__pycache__|\.pyc$|\.safetensors$|\.part$")
    assert not [name for name in archived if foreign.search(name)]


def test_neither_is_large(built: tuple[Path, Path]) -> None:
    assert [path.stat().st_size < 3e6 for path in built] == [True, True]


def test_lowest_versions_are_the_lower_bounds() -> None:
    """`tests/lowest.txt` pins what `pyproject.toml` allows at the least; torch is the one exception."""
    pinned = dict(
        line.split("==")
        for line in (ROOT / "tests" / "lowest.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    assert needed is not None
    bounds = dict(re.findall(r'"([\w-]+)>=([\d.]+)', needed[1]))
    assert pinned.keys() == bounds.keys()
    differing = [
        name for name in bounds if not (f"{pinned[name]}." + "0.0").startswith(f"{bounds[name]}.")
    ]
    assert differing == ["torch"]
