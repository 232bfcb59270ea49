"""Facts of common knowledge: from rows and wordings to texts, pairs and prompts of a model's own tokens."""

from interp.facts.facts import Facts
from interp.facts.rows import FactRow
from interp.facts.tokens import FactTokens

__all__ = ["FactRow", "FactTokens", "Facts"]
