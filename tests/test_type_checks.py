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


def half(number: int) -> int:
    return number / 2  # type: ignore[return-value]


def test_results_are_checked_in_the_first_calls_and_every_sixteenth() -> None:
    checked = type_checks.jaxtyped(half, typechecker=beartype)
    refused = []
    for call in range(1, 33):
        try:
            checked(1)
        except BeartypeCallHintViolation:
            refused.append(call)
    assert refused == [1, 2, 3, 16, 32]


def test_a_function_inside_another_is_left_alone() -> None:
    def inner(number: int) -> int:
        return number

    assert type_checks.jaxtyped(inner, typechecker=beartype) is inner


def test_shapes_are_checked() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        area_under(np.zeros((2, 2)), np.zeros(2))
    with pytest.raises(jaxtyping.TypeCheckError):
        suspicions(np.zeros((2, 2)), "person")
