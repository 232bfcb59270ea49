"""What Griffe, which reads the docstrings, does not know of how they are written here."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """A section `Example:` is one of examples, and text set in below a sentence is code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Writes the section's name as Griffe knows it."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.M)
