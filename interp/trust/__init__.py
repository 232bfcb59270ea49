"""How far measures can be trusted: each is run on a compiled model and marked against its key."""

from interp.trust.contract import Mark, Measure
from interp.trust.measures import MEASURES
from interp.trust.record import RECORD_COLUMNS, in_words, record, summary
from interp.trust.table import COLUMNS, trust_table

__all__ = [
    "COLUMNS", "MEASURES", "RECORD_COLUMNS", "Mark", "Measure", "in_words", "record", "summary",
    "trust_table",
]  # fmt: skip
