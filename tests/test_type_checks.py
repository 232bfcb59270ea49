"""The tests' own checks of types: functions of the package are checked, arrays with their shapes."""

import jaxtyping
import numpy as np
import pytest
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation

from interp.charts.style import ramp
from interp.memory.confidence import area_under, suspicions
from tests import type_checks


def test_types_are_checked_and_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BeartypeCallHintViolation):
        ramp("2")
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(TypeError, match="'str' object"):
        ramp("2")


def test_results_are_checked() -> None:
    def half(number: int) -> int:
        return number / 2

    with pytest.raises(BeartypeCallHintViolation):
        type_checks.jaxtyped(half, typechecker=beartype)(1)


def test_shapes_are_checked() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        area_under(np.zeros((2, 2)), np.zeros(2))
    with pytest.raises(jaxtyping.TypeCheckError):
        suspicions(np.zeros((2, 2)), "person")
