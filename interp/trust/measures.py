"""The measures that are marked, in the order of the table."""

from interp.trust import attention, edits, located, memory

MEASURES = (*attention.MEASURES, *edits.MEASURES, *memory.MEASURES, *located.MEASURES)
"""The measures that are marked, in the order of the table."""
