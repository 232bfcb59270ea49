"""What a setting may be, in words: for messages about a value that is something else."""

from collections.abc import Iterable, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

_ONE = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
_SEVERAL = {int: "whole numbers", float: "numbers", str: "texts", bool: "true or false"}


def expected(model: type, place: Sequence[int | str]) -> str | None:
    """What is expected at a place in settings, with its bounds; None where no words are known.

    Args:
        model: The settings.
        place: Names of groups and of a setting, then the number of an entry where it is in a list.
    """
    annotation: Any = model
    bounds: list[Any] = []
    for part in place:
        annotation = _without_none(annotation)
        if _is_model(annotation) and part in annotation.model_fields:
            field = annotation.model_fields[part]
            annotation, bounds = field.annotation, field.metadata
        elif isinstance(part, int) and get_args(annotation):
            annotation, bounds = get_args(annotation)[0], []
        else:
            return None
    annotation = _without_none(annotation)
    if get_origin(annotation) is Literal:
        *others, last = map(repr, get_args(annotation))
        return f"{', '.join(others)} or {last}" if others else last
    if _is_model(annotation) or (get_origin(annotation) or annotation) is dict:
        return "names with values"
    if get_origin(annotation) in (tuple, list):
        return f"a list of {_several(get_args(annotation)[0])}"
    words = _ONE.get(annotation)
    return None if words is None else " ".join([words, *_within(bounds)])


def _several(annotation: Any) -> str:
    if get_origin(annotation) in (tuple, list):
        return f"lists of {_several(get_args(annotation)[0])}"
    return _SEVERAL.get(annotation, "values")


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    options = [one for one in get_args(annotation) if one is not type(None)]
    return options[0] if len(options) == 1 else annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _within(bounds: Iterable[Any]) -> list[str]:
    """Bounds in words, such as "from 0 to 5" or "above 0 and below 1"."""
    known = {
        name: f"{getattr(bound, name):,}".removesuffix(".0")
        for bound in bounds
        for name in ("ge", "gt", "le", "lt")
        if getattr(bound, name, None) is not None
    }
    least, above = known.get("ge"), known.get("gt")
    most, below = known.get("le"), known.get("lt")
    low = f"from {least}" if least else f"above {above}" if above else ""
    high = f"to {most}" if most else f"below {below}" if below else ""
    if low and not high:
        return [f"{low} on" if least else low]
    if low and below:
        return [f"{low} and {high}"]
    return [part for part in (low, high) if part]
