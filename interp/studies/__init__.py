"""Studies: grids of runs, and what they show."""

from interp.studies.batch import Batch, run_batch
from interp.studies.grid import run_grid
from interp.studies.memory import memory_tables, require_comparable, write_memory_study
from interp.studies.patching import comparison, default_reference_steps, patching, write_study
from interp.studies.plateau import fit_of
from interp.studies.registry import STUDIES
from interp.studies.study import Claim, Planned, Study, StudySettings

__all__ = [
    "STUDIES",
    "Batch",
    "Claim",
    "Planned",
    "Study",
    "StudySettings",
    "comparison",
    "default_reference_steps",
    "fit_of",
    "memory_tables",
    "patching",
    "require_comparable",
    "run_batch",
    "run_grid",
    "write_memory_study",
    "write_study",
]
