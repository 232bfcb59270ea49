"""The sections about the memory of the MLPs: what is stored, whether it is used, when it forms."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import pandas as pd
import plotly.graph_objects as go

from interp import plots
from interp.phases import Phases
from interp.report.elements import Section, Table
from interp.report.overview import dated, emergence_sentence, memory_sentence, swap_sentence
from interp.report.run_tables import of_run
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


_Tables = Mapping[str, pd.DataFrame | None]


@of_run(
    "MLPs as a memory",
    "memory",
    uses=["memory/keys", "memory/values", "memory/probes"],
    folded=True,
)
def memory_section(
    run: Run, keys: pd.DataFrame | None, values: pd.DataFrame | None, probes: pd.DataFrame | None
) -> Section:
    """Keys, values and probes."""
    tables = {"keys": keys, "values": values, "probes": probes}
    steps = pd.concat([table["step"] for table in tables.values() if table is not None])
    points = turning_points(steps, run.phases)
    rows: list[Sequence[str]] = []
    for table, rows_of in ((keys, _key_rows), (values, _value_rows), (probes, _probe_rows)):
        rows += [] if table is None else rows_of(table, points)
    return Section(
        sentence="" if values is None else memory_sentence(values),
        text=[
            "At every checkpoint: which neurons of an MLP people fire at their name (keys), what "
            "the output of those neurons promotes (values), whether the two agree, and from where "
            "on a linear probe reads a person's facts. Each is held against a control."
        ],
        figures=memory_figures(tables, run.phases),
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


def memory_figures(tables: _Tables, phases: Phases) -> dict[str, go.Figure]:
    """The figures of keys, values and probes, of those tables that are there."""
    keys, values, probes = (tables.get(name) for name in ("keys", "values", "probes"))
    figures = {}
    if values is not None:
        figures["key-value-agreement"] = plots.key_value_agreement(values, phases)
        figures["promoted-values"] = plots.promoted_values(values, phases)
    if keys is not None:
        figures["key-selectivity"] = plots.key_selectivity(keys, phases)
        figures["key-similarity"] = plots.key_similarity(keys, phases)
    if probes is not None:
        figures["probe-curves"] = plots.probe_curves(probes, phases)
        figures["probe-sites"] = plots.probe_sites(probes)
    return figures


@of_run(
    "Interventions",
    "interventions",
    uses=[f"interventions/{name}" for name in ("swaps", "ablations", "edges", "attribution")],
    folded=True,
)
def swap_section(
    run: Run,
    swaps: pd.DataFrame | None,
    ablations: pd.DataFrame | None,
    edges: pd.DataFrame | None,
    attribution: pd.DataFrame | None,
) -> Section:
    """Swapped activations and ablated MLPs."""
    found = {"swaps": swaps, "ablations": ablations, "edges": edges, "attribution": attribution}
    tables = [] if swaps is None else [swap_table(swaps, run.phases)]
    tables += [] if ablations is None else [_ablation_table(ablations, run.phases)]
    return Section(
        sentence="" if swaps is None else swap_sentence(swaps),
        text=[
            "What is stored need not be used. So activations are swapped between two people in the "
            "same sentences, and the predictions that follow to the other person's value are "
            "counted; and outputs of MLPs are replaced with their mean."
        ],
        figures=intervention_figures(found, run.phases),
        tables=tables,
    )


def intervention_figures(tables: _Tables, phases: Phases) -> dict[str, go.Figure]:
    """The figures of interventions, of those tables that are there."""
    figures = {}
    if (swaps := tables.get("swaps")) is not None:
        figures["swap-success"] = plots.swap_success(swaps, phases)
        figures["swap-sites"] = plots.swap_sites(swaps)
    if (edges := tables.get("edges")) is not None:
        figures["recall-edges"] = plots.recall_edges(edges, phases)
    if (ablations := tables.get("ablations")) is not None:
        figures["mlp-ablation"] = plots.mlp_ablation(ablations, phases)
    if (attribution := tables.get("attribution")) is not None:
        figures["attribution-error"] = plots.attribution_error(attribution)
    return figures


@of_run(
    "The order of emergence",
    "emergence",
    ["emergence/steps"],
    ["emergence/strengths"],
    folded=True,
)
def emergence_section(run: Run, steps: pd.DataFrame, strengths: pd.DataFrame | None) -> Section:
    """The order in which mechanisms emerge."""
    figures = {"emergence-order": plots.emergence(steps, strengths, run.phases)}
    if strengths is not None:
        figures["strength-curves"] = plots.strength_curves(strengths, run.phases)
    return Section(
        sentence=emergence_sentence(steps),
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


def _where(table: pd.DataFrame, **wanted: str | int) -> pd.DataFrame:
    for column, value in wanted.items():
        table = table[table[column] == value]
    return table
