"""The main job as stages: train, find the phases, measure, report."""

from interp.stages.equations import measure_equations
from interp.stages.job import (
    MEMORY_STAGES,
    STAGES,
    reproduce,
    run_stages,
    summary,
    summary_table,
)
from interp.stages.measures import intervene, order_of_emergence

__all__ = [
    "MEMORY_STAGES",
    "STAGES",
    "intervene",
    "measure_equations",
    "order_of_emergence",
    "reproduce",
    "run_stages",
    "summary",
    "summary_table",
]
