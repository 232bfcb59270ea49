"""The losses of the smoke run, on file: a refactoring must not move them.

A change that is meant to (other templates, another preset) writes them anew:

    pytest tests/training/test_golden_losses.py --write-golden-losses
"""

import json

import pytest

from interp.files import write_json
from interp.run import Run
from tests.golden import GOLDEN, N_STEPS, TOLERANCE, golden_losses


@pytest.fixture(scope="module")
def losses(smoke_run: Run) -> dict[str, list[float]]:
    return golden_losses(smoke_run)


def test_losses_are_those_on_file(
    losses: dict[str, list[float]], request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--write-golden-losses"):
        write_json(GOLDEN, losses)
    golden = json.loads(GOLDEN.read_text())
    assert losses.keys() == golden.keys()
    assert len(losses["training loss"]) == N_STEPS
    for name, values in golden.items():
        assert losses[name] == pytest.approx(values, rel=TOLERANCE), name


def test_the_run_learns(smoke_run: Run) -> None:
    """The golden losses are those of a model that moves."""
    curve = smoke_run.curve("loss", "train")
    assert curve.iloc[-1] < 0.95 * curve.iloc[0]
