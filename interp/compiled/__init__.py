"""Compiled recall: models whose weights are computed from people and wordings, and whose circuit is known."""

from interp.compiled.capacity import recall_capacity
from interp.compiled.key import Key
from interp.compiled.one_token import one_token_people, renamed_people
from interp.compiled.recall import CompiledRecall, compile_recall

__all__ = [
    "CompiledRecall",
    "Key",
    "compile_recall",
    "one_token_people",
    "recall_capacity",
    "renamed_people",
]
