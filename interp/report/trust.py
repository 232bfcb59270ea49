"""How far measures can be trusted: the marks on compiled models, beside figures and as a section."""

import pandas as pd

from interp.report.elements import Section, Table
from interp.report.run_tables import of_run
from interp.trust import in_words, record

_MARKED = {
    "attention-to-names": ("attention to names",),
    "attention-by-head": ("attention to names",),
    "head-roles": ("head_roles", "head_roles by attribute"),
    "knockout-costs": ("knockout",),
    "knockout-by-head": ("knockout",),
    "swap-success": ("swaps",),
    "swap-sites": ("swaps",),
    "attribution-error": ("attribution",),
    "key-selectivity": ("key selectivity",),
    "key-value-agreement": ("layer_agreement", "agreement"),
    "promoted-values": ("values",),
    "probe-curves": ("probes, by site",),
    "probe-sites": ("probes, by site",),
    "strength-curves": ("strengths of mechanisms",),
    "located-fact": ("locate_fact",),
}
"""The measures that a figure shows, by its anchor."""


def trust_note(anchor: str) -> str:
    """What is known of the measure behind a figure, as a sentence; "" if it was not marked."""
    measures = _MARKED.get(anchor)
    if measures is None and anchor.startswith("fact-"):
        measures = _MARKED["located-fact"]
    return f"On compiled models: {in_words(measures)}." if measures else ""


@of_run("How far can each measure be trusted?", "trust", folded=True)
def trust_section(run: object) -> Section:
    """The marks of all measures that have any; the same for every run."""
    table = record()
    error = [f"{one:.3f} ({unit})" for one, unit in zip(table["error"], table["unit"], strict=True)]
    cells = table.assign(
        error=pd.Series(error, table.index).where(table["error"].notna(), ""),
        found=table["hits"].astype(str) + " of " + (table["hits"] + table["misses"]).astype(str),
        false_alarms=table["false_alarms"].astype(str),
    )
    columns = ["measure", "variant", "what", "rule", "found", "false_alarms", "error"]
    return Section(
        text=[
            "In a compiled model every head and neuron is known: its weights are computed from the people, "
            "with controls built in that do nothing. Here is what each measure found of what is there, and "
            "what it found that is not (false alarms), on models of other people than this run's. They are "
            "clean models, with sharp attention and one place for every fact: what fails there fails, what "
            "works there may still fail in a trained model."
        ],
        tables=[
            Table(
                "What measures find in compiled models, summed over populations; the error is the mean "
                "distance from what was built in.",
                ("measure", "variant", "what is built in", "found when", "found", "false alarms", "error"),
                cells[columns].to_numpy(str).tolist(),
            )
        ],
    )  # fmt: skip
