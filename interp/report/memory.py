"""The sections about the memory of the MLPs: what is stored, whether it is used, when it forms."""

from collections.abc import Iterable, Sequence
from itertools import product

import pandas as pd
import plotly.graph_objects as go

from interp import plots
from interp.phases import Phases
from interp.report.elements import Section, Table
from interp.run import Run
from interp.series import nearest_step

_POSITIONS = ("middle name", "last name", "predicts value")
_PATHS = {"direct": "direct path", "attention": "through attention"}
HEADLINE = (
    "extraction attention",
    "key-value agreement at names",
    "MLP swap at names",
    "knowledge",
)
_Point = tuple[str, int]
"""A turning point of training: its title, its step."""


def memory_section(run: Run) -> Section | None:
    """Keys, values and probes; None if the stage has not run."""
    keys, values, probes = (run.result("memory", name) for name in ("keys", "values", "probes"))
    figures: dict[str, go.Figure] = {}
    found = [table for table in (keys, values, probes) if table is not None]
    if not found:
        return None
    points = turning_points(pd.concat([table["step"] for table in found]), run.phases)
    rows: list[Sequence[str]] = []
    if keys is not None:
        figures["key-selectivity"] = plots.key_selectivity(keys, run.phases)
        figures["key-similarity"] = plots.key_similarity(keys, run.phases)
        rows += _key_rows(keys, points)
    if values is not None:
        figures["promoted-values"] = plots.promoted_values(values, run.phases)
        figures["key-value-agreement"] = plots.key_value_agreement(values, run.phases)
        rows += _value_rows(values, points)
    if probes is not None:
        figures["probe-curves"] = plots.probe_curves(probes, run.phases)
        figures["probe-sites"] = plots.probe_sites(probes)
        rows += _probe_rows(probes, points)
    return Section(
        "MLPs as a memory",
        "memory",
        text=[
            "At every checkpoint: which neurons of an MLP people fire at their name (keys), what "
            "the output of those neurons promotes (values), whether the two agree, and from where "
            "on a linear probe reads a person's facts. Each is held against a control."
        ],
        figures=figures,
        tables=[
            Table(
                "Keys, values and probes over training, in brackets their control. Share of "
                "neurons' variance that is between people; cosine of two keys; share of values "
                "among the ten tokens that neurons promote most; rank of a person's own value, as a "
                "share, in what the layer writes for them; accuracy of probes, as a share, mean "
                "over attributes.",
                ("measure", "where", "position", *(title for title, _ in points)),
                rows,
            )
        ],
    )


def swap_section(run: Run) -> Section | None:
    """Swapped activations and ablated MLPs; None if the stage has not run."""
    swaps, ablations, edges = (
        run.result("interventions", name) for name in ("swaps", "ablations", "edges")
    )
    if swaps is None and ablations is None:
        return None
    figures, tables = {}, []
    if swaps is not None:
        figures["swap-success"] = plots.swap_success(swaps, run.phases)
        figures["swap-sites"] = plots.swap_sites(swaps)
        tables.append(swap_table(swaps, run.phases))
    if ablations is not None:
        figures["mlp-ablation"] = plots.mlp_ablation(ablations, run.phases)
        tables.append(_ablation_table(ablations, run.phases))
    if edges is not None:
        figures["recall-edges"] = plots.recall_edges(edges, run.phases)
    grid = run.result("interventions", "attribution")
    if grid is not None:
        figures["attribution-error"] = plots.attribution_error(grid)
    return Section(
        "Interventions",
        "interventions",
        text=[
            "What is stored need not be used. So activations are swapped between two people in the "
            "same sentences, and the predictions that follow to the other person's value are "
            "counted; and outputs of MLPs are replaced with their mean."
        ],
        figures=figures,
        tables=tables,
    )


def emergence_section(run: Run) -> Section | None:
    """The order in which mechanisms emerge; None if the stage has not run."""
    steps, strengths = run.result("emergence", "steps"), run.result("emergence", "strengths")
    if steps is None or steps.empty:
        return None
    figures = {"emergence-order": plots.emergence(steps, strengths, run.phases)}
    if strengths is not None:
        figures["strength-curves"] = plots.strength_curves(strengths, run.phases)
    return Section(
        "The order of emergence",
        "emergence",
        text=[
            "Does the attention that recalls a person form before the memory it reads? Each "
            "mechanism is dated by the step at which it reaches half of its final strength, and "
            "held against the phases. One run gives an order, not its spread: that takes several "
            "seeds."
        ],
        results=[
            (mechanism[0].upper() + mechanism[1:], *dated(steps, mechanism))
            for mechanism in HEADLINE
            if mechanism in set(steps["mechanism"])
        ],
        figures=figures,
        tables=[emergence_table(steps, strengths, run.phases)],
    )


def turning_points(measured: Iterable[int], phases: Phases) -> list[tuple[str, int]]:
    """The start, the ends of the phases and the last step: titles, and the nearest measured steps.

    Args:
        measured: Steps that were measured, in any order.
        phases: Of the run; an end that was not reached is left out.

    Example:
        >>> from interp.phases import Phases
        >>> turning_points([0, 90, 200], Phases(100, None, 5.6, 0.05))
        [('start (step 0)', 0), ('end of statistics (step 90)', 90), ('last (step 200)', 200)]
    """
    steps = sorted({int(step) for step in measured})
    ends = [("end of statistics", phases.statistics_end), ("end of plateau", phases.plateau_end)]
    points = [("start", steps[0])]
    for title, end in ends:
        if end is not None:
            points.append((title, nearest_step(steps, end)))
    points.append(("last", steps[-1]))
    return [(f"{title} (step {step:,})", step) for title, step in points]


def _cells(
    table: pd.DataFrame,
    points: Sequence[_Point],
    column: str = "value",
    control: str | None = "control",
    form: str = ".3f",
) -> list[str] | None:
    """The means at the turning points, with their control in brackets; None without rows."""
    if table.empty:
        return None
    grouped = table.groupby("step")
    means = dict(grouped[column].mean().dropna())
    levels = dict(grouped[control].mean().dropna()) if control else {}
    cells = []
    for _, step in points:
        against = f" ({levels[step]:{form}})" if step in levels else ""
        cells.append(f"{means[step]:{form}}{against}" if step in means else "")
    return cells if any(cells) else None


def _key_rows(keys: pd.DataFrame, points: Sequence[_Point]) -> list[Sequence[str]]:
    measures = {
        "selectivity": "key selectivity",
        "selectivity_within_last_name": "key selectivity within a last name",
        "similarity_same": "key similarity, same person",
        "similarity_namesake": "key similarity, namesakes",
    }
    rows: list[Sequence[str]] = []
    splits = {"evaluation": "known people", "held_out": "held-out people"}
    for (metric, measure), (split, words), position, layer in product(
        measures.items(), splits.items(), _POSITIONS, sorted(set(keys["layer"]))
    ):
        own = _where(keys, metric=metric, split=split, position=position, layer=layer)
        if cells := _cells(own, points):
            rows.append((f"{measure}, {words}", f"layer {layer}", position, *cells))
    return rows


def _value_rows(values: pd.DataFrame, points: Sequence[_Point]) -> list[Sequence[str]]:
    every = values[values["attribute"] == "all"]
    rows: list[Sequence[str]] = []
    for (path, words), layer in product(_PATHS.items(), sorted(set(every["layer"]))):
        # What a neuron promotes is a matter of its weights: the same at all positions.
        own = _where(every, metric="value_share", path=path, layer=layer)
        if cells := _cells(own, points):
            rows.append((f"promoted values, {words}", f"layer {layer}", "", *cells))
    for (path, words), position, layer in product(
        _PATHS.items(), _POSITIONS, sorted(set(every["layer"]))
    ):
        own = _where(every, metric="layer_agreement", path=path, layer=layer, position=position)
        if cells := _cells(own, points):
            rows.append((f"key-value agreement, {words}", f"layer {layer}", position, *cells))
    return rows


def _probe_rows(probes: pd.DataFrame, points: Sequence[_Point]) -> list[Sequence[str]]:
    every = probes[probes["attribute"] == "all"]
    rows: list[Sequence[str]] = []
    for position, (site, layer) in product(_POSITIONS, plots.residual_sites(every)):
        own = _where(every, site=site, layer=layer, position=position)
        for suffix, people in (("", ""), ("_other_people", ", other people")):
            if f"accuracy{suffix}" not in own:
                continue
            if cells := _cells(own, points, f"accuracy{suffix}", f"control{suffix}"):
                where = plots.site_name(site, layer)
                rows.append((f"probe accuracy{people}", where, position, *cells))
    return rows


def swap_table(swaps: pd.DataFrame, phases: Phases) -> Table:
    """For every position, the site that carries most in the end."""
    shown = plots.swap_rows(swaps)
    # Before layer 0 a swap exchanges the tokens themselves, which says nothing about the model.
    shown = shown[(shown["site"] != "resid_pre") | (shown["layer"] != 0)]
    points = turning_points(shown["step"], phases)
    rows = []
    for position in dict.fromkeys(shown["position"]):
        own = shown[shown["position"] == position]
        last = own[own["step"] == own["step"].max()]
        best = last.loc[last["follows"].idxmax()] if last["follows"].notna().any() else None
        if best is None:
            continue
        site, layer = str(best["site"]), int(best["layer"])
        cells = _cells(_where(own, site=site, layer=layer), points, "follows", form=".1%")
        told = ", ".join(sorted(set(own["sentences"])))
        rows.append((str(position), told, plots.site_name(site, layer), *(cells or [])))
    return Table(
        "Share of predictions that follow a swap to the other person, in brackets the control. Of "
        "the sites behind the embedding, the one that most follow at the last step is shown (the "
        "first of equals): the figures have all.",
        ("position", "sentences", "site", *(title for title, _ in points)),
        rows,
    )


def _ablation_table(ablations: pd.DataFrame, phases: Phases) -> Table:
    layers = pd.to_numeric(ablations["layer"]).astype("Int64")
    points = turning_points(ablations["step"], phases)
    rows = []
    parts: list[int | None] = [None] if layers.isna().any() else []
    for layer in [*parts, *sorted({int(layer) for layer in layers.dropna()})]:
        of_layer = ablations[layers.isna() if layer is None else (layers == layer).fillna(False)]
        for position in dict.fromkeys(ablations["position"]):
            own = of_layer[of_layer["position"] == position]
            if cells := _cells(own, points, "cost", control=None, form="+.3f"):
                rows.append(("all" if layer is None else f"MLP {layer}", str(position), *cells))
    return Table(
        "Cost of replacing an MLP's output with its mean: the rise of the attribute loss, in nats.",
        ("MLP", "position", *(title for title, _ in points)),
        rows,
    )


def emergence_table(steps: pd.DataFrame, strengths: pd.DataFrame | None, phases: Phases) -> Table:
    """Each mechanism's date and strengths, from first to last."""
    points = turning_points(strengths["step"], phases) if strengths is not None else []
    means = steps.groupby("mechanism", sort=False)["step"].mean()
    rows = []
    for mechanism in means.sort_values(na_position="last", kind="stable").index:
        date, phase = dated(steps, mechanism)
        cells = []
        if strengths is not None:
            own = strengths[strengths["mechanism"] == mechanism]
            cells = _cells(own, points, "strength", control=None) or [""] * len(points)
        rows.append((str(mechanism), date, phase, *cells))
    return Table(
        "The step at which each mechanism reaches half of its final strength, the phase it lies in, "
        "and its strength (what it has beyond its control; knockouts in nats, all else as shares).",
        ("mechanism", "emerges at", "phase", *(title for title, _ in points)),
        rows,
    )


def dated(steps: pd.DataFrame, mechanism: str) -> tuple[str, str]:
    """When a mechanism emerges and in which phase, in words; of several seeds the mean."""
    own = steps[(steps["mechanism"] == mechanism) & steps["step"].notna()]
    if own.empty:
        return "absent", ""
    phases = dict.fromkeys(str(phase) for phase in own["phase"].dropna())
    return f"step {own['step'].mean():,.0f}", " or ".join(phases)


def _where(table: pd.DataFrame, **wanted: str | int) -> pd.DataFrame:
    for column, value in wanted.items():
        table = table[table[column] == value]
    return table
