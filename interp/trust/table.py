"""The trust table: a row a measure, its hits, misses and false alarms against the key."""

import warnings
from collections.abc import Sequence

import pandas as pd

from interp.compiled import CompiledRecall
from interp.torch_state import default_state
from interp.trust.circuit import forget
from interp.trust.contract import Measure
from interp.trust.measures import MEASURES

COLUMNS = (
    "measure", "what", "variant", "seed", "hits", "misses", "false_alarms", "error", "unit", "alarms", "rule",
)  # fmt: skip


@default_state()
def trust_table(
    compiled: CompiledRecall, measures: Sequence[Measure] | None = None
) -> pd.DataFrame:
    """Measures of a compiled model, marked against its key.

    Args:
        compiled: A model of `interp.compile_recall`, best with all controls.
        measures: Which; `interp.trust.MEASURES` by default.

    Returns:
        A row a measure of whose subject the key says something: `measure`, `what` (what the key says is
        there), `variant`, `seed`, `hits`, `misses`, `false_alarms` (numbers of things), `error` in `unit` (NA
        where the key says no magnitude), `alarms` (the false alarms by name), `rule` (what counts as found).
    """
    forget(compiled)
    rows = []
    for measure in MEASURES if measures is None else measures:
        with warnings.catch_warnings():
            # People of one token have no names to be put together.
            warnings.filterwarnings("ignore", "Scores are NaN", UserWarning)
            mark = measure.mark(compiled)
        if mark is None:
            continue
        alarms = sorted(map(str, mark.found - mark.built))
        rows.append(
            {"measure": measure.name, "what": measure.what,
             "variant": compiled.config.compiled.variant, "seed": compiled.config.seed,
             "hits": len(mark.found & mark.built), "misses": len(mark.built - mark.found),
             "false_alarms": len(alarms), "error": mark.error, "unit": mark.unit,
             "alarms": "; ".join(alarms), "rule": measure.rule}
        )  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"error": "Float64"})
