"""What linear probes read from the residual stream, over training and at one checkpoint.

Tables have the columns `step`, `site`, `layer`, `position`, `attribute`, `accuracy`, `control`,
`selectivity` and, where probes were tested on other people than they were fitted on too,
`accuracy_other_people`, `control_other_people`, `selectivity_other_people`. Source: Hewitt and Liang
2019 (control tasks).
"""

from itertools import product

import pandas as pd
import plotly.graph_objects as go

from interp.charts import ROOT_AXIS, ROOT_STEPS, Level, curves, describe, looks_of
from interp.charts.tidy import at_step, chosen, in_order, rows
from interp.phases import Phases
from interp.plots.sites import checked_maps, of_site, residual_sites, site_name

_PROBES = (
    "step", "site", "layer", "position", "attribute", "accuracy", "control", "selectivity",
)  # fmt: skip
_PEOPLE = """On the same people as fitted, a probe can learn people by heart, and so can the control;
on other people, where measured, it can only read what is written alike for all who share a value."""


def probe_curves(probes: pd.DataFrame, phases: Phases | None = None) -> go.Figure:
    """Selectivity of linear probes for all attributes over training, a line for each site.

    What to look for: the first site, and the phase, at which facts can be read.

    Args:
        probes: See the module; drawn are the rows of attribute "all".
        phases: Of the training, to shade; None if nobody knows them.

    Raises:
        InterpError: a column is missing, or the rows of attribute "all".
    """
    found = chosen(rows(probes, _PROBES, "probes"), "probes", attribute="all")
    sites, people = residual_sites(found), _people(found)
    columns = {f"selectivity{suffix}": words for suffix, words in people.items()}
    drawn = pd.concat([of_site(found, site).assign(at=site_name(*site)) for site in sites])
    figure = curves(
        drawn.melt(["step", "at", "position"], list(columns), "people"), line="at",
        looks=looks_of([site_name(*site) for site in sites], ordered=True), facet="position",
        column="people" if len(people) > 1 else None, axis="selectivity", x_axis=ROOT_STEPS,
        titles={**{p: p for p in in_order(found["position"])}, **columns}, phases=phases,
        levels=[Level("as good as the control", 0.0, legend=False)],
    )  # fmt: skip
    return describe(
        figure,
        "What linear probes read",
        f"""Selectivity of linear probes that read a person's values from the residual stream, as a
        share: their accuracy in wordings they were not fitted on, less that of the control task, in
        which facts are shuffled among people (dotted: 0, where the two are equal); mean over all
        attributes, against training steps, a row of panels for each position, a line for each site.
        {_PEOPLE} {ROOT_AXIS} Look for the first site from which facts can be read at a name
        token, for the phase in which it happens, and for whether they can be read there before they
        can where the value is predicted.""",
    )


def probe_sites(probes: pd.DataFrame, step: int | None = None) -> go.Figure:
    """Accuracy of probes against their control at one checkpoint, for every site and attribute.

    What to look for: the site at which an attribute becomes readable.

    Args:
        probes: See the module.
        step: The checkpoint; by default the last.

    Raises:
        InterpError: a column is missing, or there is no probe at that step.
    """
    found, step = at_step(rows(probes, _PROBES, "probes"), step, "probes")
    sites = residual_sites(found)
    attributes = in_order(found["attribute"], first="all")
    maps, people = {}, _people(found)
    for position, suffix in product(in_order(found["position"]), people):
        of_position = found[found["position"] == position]
        own = [site for site in sites if len(of_site(of_position, site))]
        grids = []
        for column in (f"accuracy{suffix}", f"control{suffix}"):
            cells = of_position.pivot_table(column, ["site", "layer"], "attribute", dropna=False)
            grid = cells.reindex(index=own, columns=attributes)
            grid.index = pd.Index([site_name(*site) for site in own])
            grid.columns = pd.Index([a.replace("_", " ") for a in attributes])
            grids.append(grid)
        title = f"{position}, {people[suffix]}" if len(people) > 1 else position
        maps[title] = (grids[0], grids[1])
    figure = checked_maps(maps, "accuracy (control)", "attribute")
    figure.update_xaxes(tickangle=-90)
    return describe(
        figure,
        f"What linear probes read, step {step:,}",
        f"""Accuracy of linear probes, in percent of people, at training step {step:,}, in wordings
        they were not fitted on; in brackets the control task, in which facts are shuffled among
        people; rows are sites of the residual stream, from first to last, columns are attributes,
        a map for each position. {_PEOPLE} The stronger the blue, the larger the difference. Look for the site
        from which an attribute can be read, and for sites whose control is as good: there the probe
        has learned the people by heart, and shows nothing about the model.""",
    )


def _people(probes: pd.DataFrame) -> dict[str, str]:
    """On whom probes were tested: the suffix of the columns, and what a reader is told."""
    other = "selectivity_other_people"
    if other in probes and probes[other].notna().any():
        return {"": "same people", "_other_people": "other people"}
    return {"": "same people"}
