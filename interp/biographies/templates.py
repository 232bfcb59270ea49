"""The 150 sentence templates: 25 wordings for each of the six attributes.

A template is written `"{name} was <born in> {value}."`: the words in angle brackets reveal the
attribute's type. The full name and those words always come before the value, so that a model which
knows the person can predict the value from what precedes it (paper, section 2). For the same reason
the wording before a value is never the beginning of a longer one: beside "was born in the city of
{value}", nobody could tell whether "was born in" is followed by a value or by text.
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from interp.biographies.lists import ATTRIBUTES
from interp.errors import ConfigError
from interp.plain_yaml import read_yaml

N_TEMPLATES = 25
"""Wordings per attribute."""
N_TRAIN_TEMPLATES = 20
"""Wordings of an attribute that a person has in training; the other five are for evaluation."""
N_QUESTIONS = 5
"""Wordings of an attribute's question, of which a person has all but one in training."""

_PART = re.compile(r"(\{name\}|\{value\}|<[^<>]+>)")


@dataclass(frozen=True)
class Template:
    """One wording, cut into its parts.

    Attributes:
        source: The text as written.
        parts: (kind, text) in order; kind is "text", "type" (reveals the attribute), "name" or
            "value", and the text of the latter two is empty.
    """

    source: str
    parts: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, source: str) -> "Template":
        """Cuts a written template into its parts.

        Raises:
            ConfigError: not exactly one name and one value, no type words, or the value before
                either of them.
        """
        parts: list[tuple[str, str]] = []
        for piece in _PART.split(source):
            if piece in ("{name}", "{value}"):
                parts.append((piece[1:-1], ""))
            elif piece.startswith("<"):
                parts.append(("type", piece[1:-1]))
            elif piece.strip():
                parts.append(("text", piece.strip()))
        kinds = [kind for kind, _ in parts]
        if kinds.count("name") != 1 or kinds.count("value") != 1 or "type" not in kinds:
            raise ConfigError(
                f"Template {source!r} needs {{name}} once, {{value}} once, and the words that reveal "
                "the attribute in <angle brackets>."
            )
        before = kinds[: kinds.index("value")]
        if "name" not in before or before.count("type") != kinds.count("type"):
            raise ConfigError(
                f"Template {source!r} has its value before the name or before the words that reveal "
                "the attribute; put the value last."
            )
        return cls(source, tuple(parts))

    def render(self, name: str, value: str) -> str:
        """The sentence about one person, as plain text."""
        return re.sub("[<>]", "", self.source).format(name=name, value=value)

    @property
    def type_phrases(self) -> tuple[str, ...]:
        """The phrases that reveal the attribute."""
        return tuple(text for kind, text in self.parts if kind == "type")

    @property
    def before_value(self) -> str:
        """The wording up to the value, with the name left as a placeholder."""
        return re.sub("[<>]", "", self.source.split("{value}")[0]).strip()


@cache
def templates() -> dict[str, tuple[Template, ...]]:
    """The templates of every attribute, `N_TEMPLATES` each."""
    return _written("templates.yaml")


@cache
def question_templates() -> dict[str, tuple[Template, ...]]:
    """The wordings of every attribute's question, each with its answer, `N_QUESTIONS` each."""
    return _written("questions.yaml")


def _written(file: str) -> dict[str, tuple[Template, ...]]:
    text = files("interp.biographies").joinpath("data", file).read_text("utf-8")
    written = read_yaml(text)
    return {name: tuple(Template.parse(t) for t in written[name]) for name in ATTRIBUTES}
