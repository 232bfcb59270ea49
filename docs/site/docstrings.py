"""What Griffe, which reads the docstrings, does not know of how they are written here."""

import ast
import re
from typing import Any

import griffe


class AsWritten(griffe.Extension):
    """A section `Example:` is one of examples, and a paragraph that is Python is code."""

    def on_object(self, *, obj: griffe.Object, **_others: Any) -> None:
        """Changes the text of a docstring before it is parsed."""
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = "\n\n".join(map(_fenced_if_code, text.split("\n\n")))


def _fenced_if_code(paragraph: str) -> str:
    """A paragraph of a docstring, in a fence if it is a few lines of Python that stand by themselves."""
    try:
        is_code = "(" in paragraph and bool(ast.parse(paragraph).body)
    except SyntaxError:  # prose, or text that is set in
        return paragraph
    return f"```python\n{paragraph}\n```" if is_code else paragraph
