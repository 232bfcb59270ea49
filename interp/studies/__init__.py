"""Studies: grids of runs, and what they show."""

from interp.plateau import fit_of
from interp.studies.batch import Batch
from interp.studies.cells import default_reference_steps
from interp.studies.collect import collect
from interp.studies.grid import run_grid
from interp.studies.memory import memory_tables, require_comparable, write_memory_study
from interp.studies.patching import comparison, patching, write_study
from interp.studies.registry import STUDIES
from interp.studies.rules import Claim, Rule, Statement, verdict
from interp.studies.study import Planned, Study, StudySettings, Tables

__all__ = [
    "STUDIES",
    "Batch",
    "Claim",
    "Planned",
    "Rule",
    "Statement",
    "Study",
    "StudySettings",
    "Tables",
    "collect",
    "comparison",
    "default_reference_steps",
    "fit_of",
    "memory_tables",
    "patching",
    "require_comparable",
    "run_grid",
    "verdict",
    "write_memory_study",
    "write_study",
]
