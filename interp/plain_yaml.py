"""YAML as plain data: no tags, decimal numbers, every key once, and bounded in size and depth.

What a text costs is known before anything is built from it, so that no file can hang the reader.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from interp.errors import ConfigError, short

MAX_CHARACTERS = 1_000_000
MAX_VALUES = 50_000
"""Keys, values and lists of one text, each alias counted as all that it stands for."""
MAX_DEPTH = 20
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9_]{0,29})")
_Base: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """PyYAML's safe loader, which refuses what would be read as something else than was meant."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = key.value
            if key.tag not in (_TAG + "str", _TAG + "merge"):
                raise _error(key.start_mark, f"the key {short(str(name))} is no text; write a name")
            if name in seen:
                raise _error(key.start_mark, f"the key {short(name)} is given twice; leave one out")
            seen.add(name)
        made: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return made

    def decimal(self, node: yaml.ScalarNode) -> int:
        if not _DECIMAL.fullmatch(node.value):
            raise _error(
                node.start_mark,
                f"{short(node.value)} is no decimal number of at most 30 digits; write it as one, or in "
                "quotes where a text is meant",
            )
        return int(node.value)

    def number(self, node: yaml.ScalarNode) -> float:
        if ":" in node.value:  # a time, which YAML 1.1 counts in sixties
            return float(self.decimal(node))
        made: float = self.construct_yaml_float(node)
        return made


_TAG = "tag:yaml.org,2002:"
_Loader.add_constructor(_TAG + "int", _Loader.decimal)
_Loader.add_constructor(_TAG + "float", _Loader.number)
_Loader.add_constructor(_TAG + "timestamp", _Loader.construct_yaml_str)


def read_yaml(text: str) -> Any:
    """Plain data from a YAML text: mappings with texts as keys, lists, texts, numbers, booleans, None.

    Dates stay text. Aliases work as long as what they stand for is small.

    Raises:
        ConfigError: it is no YAML, is empty or too large, holds a tag, a key twice or a number that is
            not decimal; the line is named.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(
            f"It has {len(text):,} characters; settings have at most {MAX_CHARACTERS:,}. Give a file of "
            "settings."
        )
    try:
        if not _require_bounded(text):
            raise ConfigError("It is empty; write settings into it.")
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise _error(
            error.problem_mark or error.context_mark,
            f"no YAML ({short(error.problem or str(error.context), 80)})",
        ) from error
    except (yaml.YAMLError, ValueError) as error:  # characters or numbers that there are not
        raise ConfigError(f"It is no YAML ({short(' '.join(str(error).split()), 80)}).") from error


def _require_bounded(text: str) -> int:
    """How many values a text holds; refuses tags, and what is too large or too deep."""
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and how many values came before
    sizes: dict[str, int] = {}
    n_values = 0
    events: Iterator[Any] = yaml.parse(text, Loader=_Base)
    for event in events:
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = n_values - before
            continue
        if isinstance(event, yaml.AliasEvent):
            name = str(event.anchor)
            if name not in sizes:
                raise _error(event.start_mark, f"{short('*' + name)} stands for nothing before it")
            n_values += sizes[name]
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            if event.tag is not None:
                raise _error(event.start_mark, f"the tag {short(event.tag)}; give plain values")
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append((event.anchor, n_values))
            elif event.anchor is not None:
                sizes[event.anchor] = 1
            n_values += 1
        if n_values > MAX_VALUES or len(open_nodes) > MAX_DEPTH:
            raise _error(
                event.start_mark,
                f"more than {MAX_VALUES:,} values or {MAX_DEPTH} levels; settings have fewer",
            )
    return n_values


def _error(mark: Any, problem: str) -> ConfigError:
    place = "" if mark is None else f"Line {mark.line + 1}, column {mark.column + 1}: "
    return ConfigError(f"{place}{problem}.")
