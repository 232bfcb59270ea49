"""Causal tests of the memory: activations swapped between people, MLP outputs ablated.

Tables of swaps have the columns `step`, `site`, `layer`, `position`, `sentences`, `n`, `follows`,
`kept`, `control` (shares of predictions); of ablations `step`, `layer` (NA: all), `position`,
`loss`, `intact`, `cost` (nats); of cut edges `step`, `layer`, `query`, `key`, `cost`, `kept`, `control`.
Source: Meng et al. 2022 (causal tracing).
"""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from interp.charts import (
    DASHES,
    PALETTE,
    ROOT_STEPS,
    SYMBOLS,
    Level,
    Look,
    at_step,
    chosen,
    curves,
    describe,
    looks_of,
    rows,
)
from interp.charts.tidy import by_step, values_of
from interp.errors import InterpError
from interp.phases import Phases
from interp.plots.sites import OUTPUTS, RESIDUAL, checked_maps, site_looks, site_name, sites_of

_SWAPS = ("step", "site", "layer", "position", "sentences", "n", "follows", "kept", "control")
_ABLATIONS = ("step", "layer", "position", "cost")
_EDGES = ("step", "layer", "query", "key", "cost", "control")
_QUERIES = {
    "every middle name": PALETTE["blue"],
    "every last name": PALETTE["green"],
    "predicts value": PALETTE["orange"],
}
_SINGLE = ("last name", "name")
_WORDS = {
    "first": "In first sentences, where the name was mentioned once",
    "any": "In any sentence",
}
_ABLATED = {
    "name": Look(PALETTE["blue"], name="at names"),
    "first name": Look(PALETTE["green"], "dash", symbol="square", name="at first names"),
    "middle name": Look(PALETTE["purple"], "dashdot", symbol="diamond", name="at middle names"),
    "last name": Look(PALETTE["blue"], "12px,3px", symbol="x", name="at last names"),
    "predicts value": Look(
        PALETTE["orange"], symbol="triangle-up", name="where values are predicted"
    ),
    "control": Look(PALETTE["grey"], "dot", symbol="cross", name="control"),
}
_KINDS = {"residual stream": RESIDUAL, "what a block adds": OUTPUTS}


def swap_rows(swaps: pd.DataFrame, sentences: str | None = None) -> pd.DataFrame:
    """The rows to show, one for each step, site and position.

    Args:
        swaps: See the module.
        sentences: "first" or "any". By default each position in the sentences that test it: a single
            mention of a name in first sentences, as later ones could draw on other mentions; all
            other positions in any sentence.

    Raises:
        InterpError: a column is missing, or no row remains.
    """
    table = rows(swaps, _SWAPS, "swaps")
    if sentences is None:
        measured = table.groupby("position")["sentences"].agg(set)
        preferred = [
            wanted if (wanted := "first" if p in _SINGLE else "any") in measured[p] else None
            for p in table["position"]
        ]
        kept = [p is None or p == s for p, s in zip(preferred, table["sentences"], strict=True)]
    else:
        kept = list(table["sentences"] == sentences)
    found = table[kept]
    if found.empty:
        raise InterpError(
            f"The table of swaps has no rows of sentences {sentences!r} to draw; it has "
            f"{sorted(set(table['sentences']))}."
        )
    return found


def swap_success(
    swaps: pd.DataFrame,
    phases: Phases | None = None,
    sentences: str | None = None,
    positions: Sequence[str] = (
        "last name",
        "every middle name",
        "every last name",
        "every name",
        "predicts value",
    ),
) -> go.Figure:
    """How often predictions follow an activation to another person, over training.

    What to look for: the first site at the name whose swap carries the fact along, and the phase
    from which it does.

    Args:
        swaps: See the module.
        phases: Of the training, to shade; None if nobody knows them.
        sentences: "first" or "any"; see `swap_rows`.
        positions: The positions to draw, as far as they were measured.

    Raises:
        InterpError: a column is missing, or there is no row to draw.
    """
    found = chosen(swap_rows(swaps, sentences), "swaps", position=positions)
    kinds = {words: sites_of(found, sites) for words, sites in _KINDS.items()}
    of_site = {site: words for words, sites in kinds.items() for site in sites}
    pairs = list(zip(found["site"], found["layer"].astype(int), strict=True))
    figure = curves(
        found.assign(
            named=[site_name(*pair) for pair in pairs], kind=[of_site.get(pair, "") for pair in pairs]
        ).query("kind != ''"),
        y="follows", line="named", facet="position", column="kind", axis="share", level="control",
        looks={name: look for sites in kinds.values() for name, look in site_looks(sites).items()},
        titles={words: words for words in kinds}, x_axis=ROOT_STEPS, phases=phases, what="swaps",
    )  # fmt: skip
    return describe(
        figure,
        "Predictions that follow a swap",
        f"""The share of predictions that change to the other person's value when an activation is
        swapped between two people in the same sentences, against training steps (square-root scale),
        a row of panels for each position that is swapped, a line for each site: left the residual
        stream, right what attention or an MLP adds to it. Dots in the same colour: the control, as
        many tokens of text swapped. {_told(found)} A swap before layer 0 exchanges the
        tokens themselves. Look for the first site at the name whose swap carries
        the fact along, for the MLP that does so by itself, and for the phase from which they do.""",
    )


def swap_sites(
    swaps: pd.DataFrame, step: int | None = None, sentences: str | None = None
) -> go.Figure:
    """How often predictions follow a swap at one checkpoint, for every site and position.

    What to look for: where the fact sits on its way from the name to the value.

    Args:
        swaps: See the module.
        step: The checkpoint; by default the last.
        sentences: "first" or "any"; see `swap_rows`.

    Raises:
        InterpError: a column is missing, or there is no swap at that step.
    """
    found, step = at_step(swap_rows(swaps, sentences), step, "swaps")
    places = list(dict.fromkeys(found["position"]))
    maps = {}
    for title, kinds in _KINDS.items():
        sites = sites_of(found, kinds)
        if not sites:
            continue
        grids = []
        for column in ("follows", "control"):
            grid = found.pivot_table(column, ["site", "layer"], "position", dropna=False)
            grid = grid.reindex(index=sites, columns=places)
            grid.index = pd.Index([site_name(*site) for site in sites])
            grids.append(grid)
        maps[title] = (grids[0], grids[1])
    figure = checked_maps(maps, "follows (control)", "position that is swapped")
    return describe(
        figure,
        f"Predictions that follow a swap, step {step:,}",
        f"""The share of predictions that change to the other person's value when an activation is
        swapped between two people, at training step {step:,}, in percent; in brackets the control,
        as many tokens of text swapped; rows are sites in the order of the computation, columns the positions
        that are swapped. The stronger the blue, the larger the difference. {_told(found)} Look for the
        site from which a swap at the name carries the fact, and for the site at which the position
        that predicts the value takes it over.""",
    )


def mlp_ablation(ablations: pd.DataFrame, phases: Phases | None = None) -> go.Figure:
    """What ablating MLPs costs (nats) over training, all of them and each alone.

    What to look for: the MLP at names that facts depend on, and the phase from which they do.

    Args:
        ablations: See the module.
        phases: Of the training, to shade; None if nobody knows them.

    Raises:
        InterpError: a column is missing, or the table is empty.
    """
    table = rows(ablations, _ABLATIONS, "ablations", numbers=("layer",))
    others = [p for p in values_of(table["position"]) if p not in _ABLATED]
    figure = curves(
        table, y="cost", line="position", facet="layer", axis="cost (nats)", unit="nats",
        looks={**_ABLATED, **looks_of(others, {p: f"at {p}" for p in others})}, marks=True,
        titles={at: "all MLPs" if at is None else f"MLP {at}" for at in values_of(table["layer"])},
        x_axis=ROOT_STEPS, phases=phases, what="ablations",
    )  # fmt: skip
    return describe(
        figure,
        "The cost of ablating MLPs",
        """How much the attribute loss rises, in nats, when the output of an MLP is replaced at
        some tokens with its mean over them, against training steps (square-root scale); above in
        all layers at once, below in one layer at a time. Grey dots: at as many tokens of text, the
        control. Look
        for the MLP whose output at names costs more than the control, and for the phase from which
        it does: facts depend on it from there on.""",
    )


def recall_edges(edges: pd.DataFrame, phases: Phases | None = None) -> go.Figure:
    """What cutting attention among names, and from the value to names, costs over training.

    What to look for: which name token the others are gathered at, and from when on.

    Args:
        edges: Columns `step`, `layer`, `query`, `key`, `cost` (nats), `control`.
        phases: Of the training, to shade; None if nobody knows them.

    Raises:
        InterpError: a column is missing, or the table is empty.
    """
    table = rows(edges, _EDGES, "edges", numbers=("layer",))
    pairs = list(zip(table["query"], table["key"], strict=True))
    # Colour tells the query, dashes and signs the key.
    looks = {
        (query, key): Look(
            _QUERIES.get(query, PALETTE["purple"]), DASHES[i % len(DASHES)],
            symbol=SYMBOLS[i % len(SYMBOLS)],
            name=f"{query} → {key}".replace("every ", "").replace("predicts value", "value"),
        )
        for i, (query, key) in enumerate(dict.fromkeys(pairs))
    }  # fmt: skip
    controls = table[table["query"] == "predicts value"].groupby("layer")
    figure = curves(
        table.assign(edge=[str(looks[pair].name) for pair in pairs]), y="cost", line="edge",
        facet="layer", axis="cost (nats)", unit="nats", marks=True, x_axis=ROOT_STEPS,
        looks={look.name: look for look in looks.values()}, phases=phases, what="edges",
        levels=[Level("value → text, control", by_step(own, "control"), (layer,), width=2)
                for layer, own in controls],
    )  # fmt: skip
    return describe(
        figure,
        "The edges of recall",
        """How much the log-probability of the first value token falls, in nats, when all heads of a
        layer are cut off from one kind of token to another, against training steps (square-root
        scale): between the tokens of a name, and from the position that predicts the value to each
        of them. Grey dots: the same position cut off from as many tokens of text, the control. Look
        for the token of the name at which the others are gathered, for the one that the value is
        read from, and for which of the two comes first.""",
    )


def _told(found: pd.DataFrame) -> str:
    """In which sentences each position is swapped."""
    lists = {
        told: ", ".join(dict.fromkeys(of_told["position"]))
        for told, of_told in found.groupby("sentences", sort=False)
    }
    return " ".join(f"{_WORDS.get(str(told), told)}: {names}." for told, names in lists.items())
