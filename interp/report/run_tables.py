"""What the sections of a run's report are made from: the tables of its stages."""

from functools import partial

import pandas as pd

from interp.model import NO_ATTENTION
from interp.report.elements import LeftOut, section
from interp.run import Run


def nothing_to_measure(why: str) -> LeftOut:
    """What a page says of a table that a measure gave this reason for."""
    reason = f"{why[0].lower()}{why[1:].removesuffix('.')}"
    return LeftOut(f"nothing to measure: {reason}", nothing_there=True)


def find_table(run: Run, name: str) -> pd.DataFrame | LeftOut:
    """A stage's table by its name, `stage/table`; where it is missing or empty, why."""
    stage, table = name.split("/")
    found = run.result(stage, table)
    if found is not None and not found.empty:
        return found
    if stage == "equations" and run.finished and not run.not_measured.get(name):
        return LeftOut("not measured yet", ["interp equations RUN"])
    if stage != "equations" and run.config.model.recurrence is not None:
        return LeftOut(NO_ATTENTION)
    if not run.finished:
        return LeftOut("not measured yet, as training has not ended")
    if why := run.not_measured.get(name):
        return nothing_to_measure(why)
    if found is not None or (run.results_path / stage / "summary.json").exists():
        return LeftOut("the stage has run and has nothing to show for this run")
    if stage in ("attention", "memory", "interventions", "emergence"):
        return LeftOut("not measured yet", ["interp memory RUN"])
    return LeftOut(
        "not measured yet; give the settings that RUN was trained with",
        ["interp reproduce PRESET --out RUN"],
    )


of_run = partial(section, find_table)
"""Makes a builder of a function that takes a run and the tables that are named (see `section`)."""
