"""A dataset as a system of equations: every fact is an equation, the weights are the unknowns.

    table = residuals(run)                       # the loss of every fact at every checkpoint
    residual_array(table, step=1000)             # [person, attribute], nats
    bits_known(table, n_parameters=n)            # bits, and bits per parameter
    interference(run, by="first name")           # do gradients of groups of facts agree or conflict?

All take a run, models by step or one model; with `facts=interp.Facts(...)` any model.
"""

from interp.equations.capacity import CAPACITY_COLUMNS, bits_known
from interp.equations.groups import GROUPINGS
from interp.equations.interference import INTERFERENCE_COLUMNS, interference, interference_matrix
from interp.equations.residuals import (
    between,
    relative_residuals,
    residual_array,
    residuals,
)
from interp.equations.texts import Equations, equations_in, equations_of

__all__ = [
    "CAPACITY_COLUMNS",
    "GROUPINGS",
    "INTERFERENCE_COLUMNS",
    "Equations",
    "between",
    "bits_known",
    "equations_in",
    "equations_of",
    "interference",
    "interference_matrix",
    "relative_residuals",
    "residual_array",
    "residuals",
]
