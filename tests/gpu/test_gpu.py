"""`make gpu` at its smallest, on a CPU: every part runs, and one that fails loses no other."""

import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from interp import preset
from tests.benchmarks.plain_gpt import PlainGPT
from tests.gpu import install, parts
from tests.gpu.__main__ import main
from tests.gpu.flops import flops_per_token, peak_tflops
from tests.gpu.setup import Setup
from tests.gpu.table import Row


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    out = tmp_path_factory.mktemp("gpu") / "table"
    code = main(["--device", "cpu", "--preset", "smoke", "--minutes", "30", "--out", str(out)])
    found = pd.read_csv(out.with_suffix(".csv"))
    assert code == 0, found[found["value"].isna()].to_string()
    assert {path.name for path in out.parent.iterdir()} == {"table.md", "table.csv"}
    markdown = out.with_suffix(".md").read_text()
    assert markdown.count("\n| ") == len(found) + 1
    for name in ("card", "torch", "commit"):
        assert found[name].nunique() == 1
        assert found[name][0] in markdown
    return found


def test_every_part_measures_something(table: pd.DataFrame) -> None:
    assert list(table["part"].unique()) == list(parts.PARTS)
    measured = table[table["value"].notna() & (table["measured"] != parts.TIME)]
    assert set(measured["part"]) == set(parts.PARTS)
    assert not table["remark"].fillna("").str.startswith(parts.FAILED).any()


def test_what_has_no_number_says_why(table: pd.DataFrame) -> None:
    without = table[table["value"].isna()]
    assert set(without["measured"]) == {
        "compiled plain bf16",
        "model-FLOPs utilisation",
        "against the compiled plain loop, one seed after the other",
    }
    assert without["remark"].str.startswith(parts.LEFT_OUT).all()


def test_the_tests_that_need_a_device_are_run(table: pd.DataFrame) -> None:
    rows = table[table["part"] == "device tests"].set_index("measured")["value"]
    assert rows["passed"] >= 7
    assert rows["not passed"] == 0


def _fails(setup: Setup, earlier: list[Row]):
    yield Row("one", "a number", 1.0)
    raise ValueError("bad kernel\nand more")


def _dies(setup: Setup, earlier: list[Row]):
    yield Row("two", "a number", 2.0)
    raise SystemExit(3)


def _hangs(setup: Setup, earlier: list[Row]):
    yield Row("three", "a number", 3.0)
    time.sleep(60)


def _sees(setup: Setup, earlier: list[Row]):
    yield Row("four", "numbers before", len([row for row in earlier if row.value is not None]))


def test_a_part_that_fails_loses_no_other(tmp_path: Path) -> None:
    setup, told = Setup("cpu", "paper", tmp_path), []  # limits hold at full size
    broken = {
        "one": (_fails, 30.0),
        "two": (_dies, 30.0),
        "three": (_hangs, 3.0),
        "four": (_sees, 30.0),
    }
    rows = parts.run_parts(setup, 300, told.append, broken)
    assert len(told) == len(broken)
    numbers = {
        row.part: row.value for row in rows if row.value is not None and row.measured != parts.TIME
    }
    assert numbers == {"one": 1, "two": 2, "three": 3, "four": 6}
    remarks = {row.part: row.remark for row in parts.failed(rows)}
    assert remarks == {
        "one": "failed: ValueError: bad kernel",
        "two": "failed: its process ended with code 3",
        "three": "failed: not done in 3 s",
    }


def test_without_time_a_part_is_left_out(tmp_path: Path) -> None:
    rows = parts.run_parts(
        Setup("cpu", "smoke", tmp_path), 0, lambda rows: None, {"one": (_fails, 30)}
    )
    assert [row.remark for row in rows] == ["left out: 0 s were over"]


def test_a_missing_device_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cuda:99", "--out", str(tmp_path / "table")]) == 2
    assert "cuda:99" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("card", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L4", 121), ("NVIDIA L40S", 362), ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None), ("NVIDIA T1000", None), ("NVIDIA L40", None),
    ],
)  # fmt: skip
def test_the_peak_of_a_card(card: str, peak: float | None) -> None:
    assert peak_tflops(card) == peak


def test_flops_are_those_of_the_products() -> None:
    """Counted by PyTorch, which leaves the masked half of attention in as the formula does."""
    config = preset("smoke")
    n_vocab, rows, width = 100, 2, 16
    model = PlainGPT(config, n_vocab)
    tokens = torch.zeros((rows, width), dtype=torch.long)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(tokens).sum().backward()
    expected = flops_per_token(config, n_vocab, width) * rows * width
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("banner", "says"),
    [
        ("CUDA Version: 11.4", r"CUDA 11\.4.*12"),
        ("no devices were found", "nvidia-smi does not say"),
    ],
)
def test_a_driver_that_does_not_do_is_said(banner: str, says: str) -> None:
    with pytest.raises(SystemExit, match=says):
        install.require_driver(banner)
    install.require_driver("Driver Version: 550.54  CUDA Version: 12.4 ")


def test_builds_of_torch_are_tried_until_one_sees_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed: list[tuple[str, ...]] = []
    monkeypatch.setattr(install, "pip", lambda python, *arguments: installed.append(arguments))
    seen = iter([None, "2.13.0+cu130"])
    monkeypatch.setattr(install, "torch_that_sees_a_card", lambda python: next(seen))
    monkeypatch.setenv("TORCH_INDEX", "the-index/cu126")
    assert install.install_torch(tmp_path, "2.13.0") == "2.13.0+cu130"
    assert [arguments[-1] for arguments in installed] == 2 * ["torch>=2.6,<=2.13.0"]
    assert "--index-url" not in installed[0]
    assert installed[1][1] == "the-index/cu126"
    monkeypatch.setattr(install, "torch_that_sees_a_card", lambda python: None)
    monkeypatch.delenv("TORCH_INDEX")
    with pytest.raises(SystemExit, match="make gpu TORCH_INDEX="):
        install.install_torch(tmp_path, "2.13.0")
