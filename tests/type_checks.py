"""Checks of types where no shape is to be checked, at a tenth of the price.

The tests' import hook puts `jaxtyping.jaxtyped` around every function of the package. It binds the
arguments by name and checks them twice, for names of dimensions that have to agree within one call;
that was a quarter of the tests' time. A function whose annotations name no array goes to beartype as
it is.
"""

from collections.abc import Callable
from functools import partial, wraps
from inspect import isfunction, isgeneratorfunction
from typing import Any, get_args

import jaxtyping

_jaxtyped = jaxtyping.jaxtyped


def install() -> None:
    """Lets modules that are imported from here on have these checks."""
    jaxtyping.jaxtyped = jaxtyped


def jaxtyped(
    checked: Any = None, *, typechecker: Callable[[Any], Any] | None = None
) -> Callable[..., Any]:
    """Stands in for `jaxtyping.jaxtyped`, and hands on what may need it."""
    if checked is None:
        return partial(jaxtyped, typechecker=typechecker)
    if typechecker is None or not isfunction(checked) or isgeneratorfunction(checked):
        return _jaxtyped(checked, typechecker=typechecker)
    if any(map(_may_have_shape, checked.__annotations__.values())):
        return _jaxtyped(checked, typechecker=typechecker)
    by_type = typechecker(checked)

    @wraps(checked)
    def switched(*args: Any, **kwargs: Any) -> Any:
        function = checked if jaxtyping.config.jaxtyping_disable else by_type
        return function(*args, **kwargs)

    return switched


def _may_have_shape(annotation: Any) -> bool:
    """Whether it names an array, or is text, of which nobody knows yet what it names."""
    if isinstance(annotation, list | tuple):
        return any(map(_may_have_shape, annotation))
    if isinstance(annotation, str) or getattr(annotation, "__module__", "") == "jaxtyping":
        return True
    return any(map(_may_have_shape, get_args(annotation)))
