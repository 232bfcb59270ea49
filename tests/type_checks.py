"""Checks of types and shapes at a fraction of the price.

The tests' import hook puts `jaxtyping.jaxtyped` around every function of the package. It binds the
arguments by name and checks them twice, for names of dimensions that have to agree within one call: two
fifths of the tests' time. Here a function is wrapped when it is first called, so that those that no
test of a process calls are not compiled; one whose annotations name no array goes to beartype as it is;
and of the calls within a test the first of each function are checked, then every sixteenth.
"""

from collections.abc import Callable
from functools import partial, wraps
from inspect import isfunction, isgeneratorfunction
from typing import Any, get_args

import jaxtyping

FIRST = 3
"""So many calls of each function are checked in every test."""
EVERY = 16
"""And then each of so many."""

_jaxtyped = jaxtyping.jaxtyped
_test = 0


def install() -> None:
    """Lets modules that are imported from here on have these checks."""
    jaxtyping.jaxtyped = jaxtyped


def begin_test() -> None:
    """Counts the calls of every function anew."""
    global _test
    _test += 1


def jaxtyped(
    checked: Any = None, *, typechecker: Callable[[Any], Any] | None = None
) -> Callable[..., Any]:
    """Stands in for `jaxtyping.jaxtyped`, and hands on what may need it."""
    if checked is None:
        return partial(jaxtyped, typechecker=typechecker)
    if typechecker is None or not isfunction(checked) or isgeneratorfunction(checked):
        return _jaxtyped(checked, typechecker=typechecker)
    if "<locals>" in checked.__qualname__:
        return checked
    by_type: Callable[..., Any] | None = None
    test, calls = -1, 0

    @wraps(checked)
    def sampled(*args: Any, **kwargs: Any) -> Any:
        nonlocal by_type, test, calls
        if test != _test:
            test, calls = _test, 0
        calls += 1
        if (calls > FIRST and calls % EVERY) or jaxtyping.config.jaxtyping_disable:
            return checked(*args, **kwargs)
        if by_type is None:
            by_type = _with_checks(checked, typechecker)
        return by_type(*args, **kwargs)

    return sampled


def _with_checks(function: Any, typechecker: Callable[[Any], Any]) -> Callable[..., Any]:
    if any(map(_may_have_shape, function.__annotations__.values())):
        return _jaxtyped(function, typechecker=typechecker)  # type: ignore[no-any-return]
    return typechecker(function)  # type: ignore[no-any-return]


def _may_have_shape(annotation: Any) -> bool:
    """Whether it names an array, or is text, of which nobody knows yet what it names."""
    if isinstance(annotation, list | tuple):
        return any(map(_may_have_shape, annotation))
    if isinstance(annotation, str) or getattr(annotation, "__module__", "") == "jaxtyping":
        return True
    return any(map(_may_have_shape, get_args(annotation)))
