"""Marks of measures of attention: roles of heads, and to whom they attend where an attribute is asked for."""

import pandas as pd

from interp.attention import attention_to_names, head_roles, scores_by_attribute
from interp.biographies import Batch, Spans, Texts
from interp.compiled import CompiledRecall
from interp.trust.circuit import read_once, recalling_heads
from interp.trust.contract import Mark, Measure

_LOOKS = 0.5
N_PEOPLE = 8
"""People in whose biographies attention is read."""


def _batch(compiled: CompiledRecall) -> Batch:
    return compiled.corpus.biographies(slice(0, N_PEOPLE))


def _roles(compiled: CompiledRecall) -> Mark:
    batch = _batch(compiled)
    texts = Texts(batch.tokens, Spans.of(batch))
    roles = head_roles(attention_to_names({0: compiled.model}, texts=texts))
    own = roles[roles["role"] == "extraction"]
    found = set(zip(own["layer"], own["head"], strict=True))
    return Mark(set(recalling_heads(compiled).values()), found)


def _built(compiled: CompiledRecall) -> set[tuple[str, int, int]]:
    return {(attribute, *head) for attribute, head in recalling_heads(compiled).items()}


def _by_attribute(compiled: CompiledRecall) -> pd.DataFrame:
    def read() -> pd.DataFrame:
        attributes = compiled.corpus.attributes
        return scores_by_attribute(compiled.model, _batch(compiled), attributes)

    return read_once(compiled, "scores by attribute", read)


def _roles_by_attribute(compiled: CompiledRecall) -> Mark:
    scores = _by_attribute(compiled)
    roles = head_roles(scores)
    own = roles[roles["role"] == "extraction"]
    found = set(zip(own["attribute"], own["layer"], own["head"], strict=True))
    return Mark(_built(compiled), found)


def _to_names(compiled: CompiledRecall) -> Mark:
    scores = _by_attribute(compiled)
    own = scores[scores["metric"] == "attribute_to_name"]
    share = own.set_index(["attribute", "layer", "head"])["value"]
    built = _built(compiled)
    error = float(sum(abs(share[cell] - 1) for cell in built)) / len(built)
    return Mark(built, set(share[share >= _LOOKS].index), error, "share of attention, absolute")


MEASURES = (
    Measure(
        "head_roles", "heads that recall", "head_roles calls the head 'extraction'", _roles
    ),
    Measure(
        "head_roles by attribute", "heads that recall, and what",
        "head_roles of scores by attribute calls the head 'extraction' at that attribute",
        _roles_by_attribute,
    ),
    Measure(
        "attention to names", "heads that recall, and what",
        "where the attribute is asked for, at least half of the head's attention goes to the name",
        _to_names,
    ),
)  # fmt: skip
