"""Sites of a transformer in words, in the order of the computation, and maps of them.

A site is a hook with its layer: the residual stream before a layer (`resid_pre`), between its
attention and its MLP (`resid_mid`), behind it (`resid_post`), or what attention (`attn_out`) or the
MLP (`mlp_out`) adds to it.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from interp.charts import Axis, Look, heatmap, looks_of

RESIDUAL = ("resid_pre", "resid_mid", "resid_post")
"""Sites of the residual stream, in order."""
OUTPUTS = ("attn_out", "mlp_out")
"""What is added to the residual stream, in order."""
_ORDER = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
_WORDS = {
    "resid_pre": "before layer {}",
    "attn_out": "output of attention {}",
    "resid_mid": "after attention {}",
    "mlp_out": "output of MLP {}",
    "resid_post": "after MLP {}",
}

Site = tuple[str, int]
"""A hook and its layer."""


def site_name(site: str, layer: int) -> str:
    """What a reader is told a site is.

    Example:
        >>> site_name("resid_mid", 1)
        'after attention 1'
    """
    return _WORDS.get(site, f"{site.replace('_', ' ')}, layer {{}}").format(layer)


def sites_of(table: pd.DataFrame, kinds: Sequence[str]) -> list[Site]:
    """The sites of a table in the order of the computation, each once.

    What lies before a layer is what lies behind the one below: of the two, only the latter is kept.

    Args:
        table: With the columns `site` and `layer`.
        kinds: The hooks to keep.
    """
    pairs = zip(table["site"], table["layer"], strict=True)
    found = {(str(site), int(layer)) for site, layer in pairs if site in kinds}
    distinct = [
        (site, layer)
        for site, layer in found
        if site != "resid_pre" or ("resid_post", layer - 1) not in found
    ]
    return sorted(distinct, key=lambda pair: (pair[1], _ORDER.index(pair[0])))


def residual_sites(table: pd.DataFrame) -> list[Site]:
    """The sites of the residual stream that a table has; see `sites_of`."""
    return sites_of(table, RESIDUAL)


def of_site(table: pd.DataFrame, site: Site) -> pd.DataFrame:
    """The rows of a site."""
    return table[(table["site"] == site[0]) & (table["layer"] == site[1])]


def site_looks(sites: Sequence[Site]) -> dict[str, Look]:
    """By the name of a site, from blue (first) to orange (last); neighbours differ in dashes too."""
    return looks_of([site_name(*site) for site in sites], ordered=True)


def checked_maps(
    maps: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]], measure: str, axis: str = ""
) -> go.Figure:
    """Maps of shares with their control: cells tell both in percent, colours the difference.

    Args:
        maps: By title: values and controls (shares), with the same rows and columns. The maps have
            the same columns too.
        measure: What the values are, for the pointer.
        axis: Title of the columns.
    """
    texts = {
        title: [
            [_cell(*both) for both in zip(*row, strict=True)]
            for row in zip(values.to_numpy(), controls.to_numpy(), strict=True)
        ]
        for title, (values, controls) in maps.items()
    }
    gains = {title: values - controls for title, (values, controls) in maps.items()}
    shares = Axis(measure, "percent", hover=measure)
    figure = heatmap(gains, axis=shares, rows="", columns=axis, texts=texts, told=True, bar=False)
    figure.update_xaxes(tickangle=-90)
    return figure


def _cell(value: float, control: float) -> str:
    """A share and its control in percent, the latter in brackets; what is missing is left out."""
    if pd.isna(value):
        return ""
    return f"<b>{100 * value:.0f}</b>" + ("" if pd.isna(control) else f"<br>({100 * control:.0f})")
