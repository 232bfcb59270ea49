"""Studies: grids of runs, and what they show."""

from interp.experiments.grid import run_grid
from interp.experiments.scaling import fit_of, scaling, scaling_fits, scaling_table

__all__ = ["fit_of", "run_grid", "scaling", "scaling_fits", "scaling_table"]
