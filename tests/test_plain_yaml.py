"""YAML from outside: plain data, or one line that says what is wrong, in no time."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.config import Config
from interp.errors import ConfigError, InterpError
from interp.plain_yaml import read_yaml

_BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(f'*{before}' for _ in range(10))}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("a: 1\nb: 2\na: 3", "Line 3, column 1: the key 'a' is given twice"),
        ("x: {b: 1, b: 2}", "Line 1, column 11: the key 'b'"),
        ("seed: 010", "Line 1, column 7: '010' is no decimal number"),
        ("seed: 0x1F", "no decimal"),
        ("seed: 1:30", "no decimal"),
        ("rate: 1:30.5", "no decimal"),
        ("seed: " + "9" * 5000, "at most 30 digits"),
        ("x: !!int abc", "Line 1, column 4: the tag"),
        ("x: !!python/object/apply:os.system [ls]", "the tag"),
        ("1: 2", "the key '1' is no text"),
        ("? [a]\n: 1", "is no text"),
        ("&a [*a]", "stands for nothing"),
        (_BOMB, "more than 50,000 values"),
        ("[" * 5000, "20 levels"),
        ("{a: " * 5000, "20 levels"),
        ("a: [" + "1, " * 200_000 + "]", "50,000 values"),
        ("a: [" + "1, " * 1_000_000 + "]", "characters"),
        ("\n".join(f"k{i}: 1" for i in range(60_000)), "50,000 values"),
        ("a: [1", "no YAML"),
        ("a: \x00", "no YAML"),
        ("a: \ud800", "no YAML"),
        ("--- 1\n--- 2", "no YAML"),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        read_yaml(text)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None),
        ("a: 2020-99-99", {"a": "2020-99-99"}),
        ("a: [1, -2, 1_000, 1.5, .5, '010']", {"a": [1, -2, 1000, 1.5, 0.5, "010"]}),
        ("a: &s {p: 1, q: 2}\nb: {<<: *s, p: 3}", {"a": {"p": 1, "q": 2}, "b": {"p": 3, "q": 2}}),
        ("x: true\ny: ä", {"x": True, "y": "ä"}),
    ],
)
def test_what_is_read(text: str, value: object) -> None:
    assert read_yaml(text) == value


def test_settings_come_back() -> None:
    assert Config.from_yaml(Config().to_yaml()) == Config()


@given(st.one_of(st.text(max_size=80), st.text("a:[]{}&*!-?#|>'\" \n0123", max_size=60)))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_text_is_settings_or_one_error(text: str) -> None:
    said = ""
    try:
        Config.from_yaml(text)
    except InterpError as error:
        said = str(error)
    assert len(said) < 500
