"""How far measures can be trusted: each is run on a compiled model and marked against its key."""

from interp.trust.contract import Mark, Measure
from interp.trust.measures import MEASURES
from interp.trust.table import COLUMNS, trust_table

__all__ = ["COLUMNS", "MEASURES", "Mark", "Measure", "trust_table"]
