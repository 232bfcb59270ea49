"""Path patching: what one part of a model tells another directly, along the residual stream alone.

The *sender* (a head, or an MLP) writes into the residual stream what it writes on the source; of all
that read the stream, only the *receivers* (what heads' queries, keys or values read) notice. Everything
after the receivers is computed anew, everything else stays as in the base. Many paths go through the
model together, and ours on windows, which is why this is not a loop over TransformerLens' function.

Source: Wang et al. 2022, "Interpretability in the wild: a circuit for indirect object identification in
GPT-2 small", section 3.1. With one receiver this is TransformerLens' exact `get_act_patch_direct_path`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from transformer_lens.model_protocol import TransformerLensModel

from interp.errors import ArgumentError, listed, require_known
from interp.interventions.grid import Units, unit_groups
from interp.interventions.memory_limit import blocks_of, budget, rows_at_a_time
from interp.interventions.metrics import Answers, Metric, Metrics, measured, resolve_metrics
from interp.interventions.pairs import Pairs
from interp.interventions.patch import DEFAULT_METRICS
from interp.interventions.sites import (
    Key,
    n_units,
    read_activations,
    require_live_sites,
    site_named,
)
from interp.interventions.windowed import can_window, unpatched_runs
from interp.model import at_least_single, measuring, require_numbers, valid_indices
from interp.model.layout import require_wrapped
from interp.torch_state import default_state

SENDERS = ("result", "mlp_out")
"""What can send: what a head writes, or what an MLP writes."""
RECEIVERS = ("q_input", "k_input", "v_input")
"""What can receive: what a head's queries, keys or values read."""


@default_state()
def path_patch(
    model: TransformerLensModel,
    pairs: Pairs,
    senders: str | Sequence[str] = "result",
    receivers: str | Sequence[str] = RECEIVERS,
    sender_layers: Sequence[int] | None = None,
    receiver_layers: Sequence[int] | None = None,
    *,
    sender_heads: Units = "each",
    receiver_heads: Units = "each",
    metrics: Metrics = DEFAULT_METRICS,
    max_memory_gb: float | int | None = None,
) -> pd.DataFrame:
    """Patches the direct path from each sender to each receiver, at all positions.

    Bases are run with what senders write on the sources; a position of the base without a counterpart
    keeps what it has. Senders are out of `SENDERS`, receivers out of `RECEIVERS`, in all layers by
    default, of which those after a sender count. Heads: "each" by itself, "all" together, some together,
    or groups by label. With grouped-query attention, receivers of keys and values are counted as keys and
    values are. Other arguments as in `patch`.

    Returns:
        A row for every sender, receiver in a later layer, and metric. Columns `sender` ("result" or
        "mlp_out"), `sender_layer`, `sender_head` (NA unless it is a single head), `sender_group` (the
        label of several heads), `receiver`, `layer`, `head` and `group` (the receiver's), `metric`,
        `value` (mean over pairs), `unpatched`, `change` (value - unpatched) and `n`.

    Raises:
        ArgumentError: no receiver after any sender, a model without these hook points, or one that norms
            or scales what attention writes before it is added to the stream.

    Example:
        ```python
        pairs = swapped_people(run.corpus, n=64)
        table = path_patch(run.model(), pairs, sender_layers=[0], receiver_layers=[1])
        ```
    """
    require_wrapped(model)
    device = next(model.parameters()).device  # type: ignore[attr-defined]
    pairs = pairs.to(device)
    sending = _ends(model, senders, SENDERS, sender_layers, sender_heads)
    receiving = _ends(model, receivers, RECEIVERS, receiver_layers, receiver_heads)
    paths = [(s, r) for s in sending for r in receiving if r[0][1] > s[0][1]]
    if not paths:
        raise ArgumentError(
            f"No receiver comes after a sender: senders are in layers "
            f"{sorted({s[0][1] for s in sending})}, receivers in {sorted({r[0][1] for r in receiving})}. "
            "A path leads to a later layer."
        )
    _require_additive(model, sorted({key[1] for key, *_ in sending if key[0] == "result"}))
    measures = resolve_metrics(metrics)
    written = list(dict.fromkeys(s[0] for s, _ in paths))
    read = list(dict.fromkeys(r[0] for _, r in paths))
    require_live_sites(model, [*written, *read], pairs.base[:1])
    limit = budget(max_memory_gb, device)
    outcome = np.empty((len(measures), len(paths), len(pairs)))
    unpatched = np.empty((len(measures), len(pairs)))
    with measuring(model):
        for block in blocks_of(model, pairs, written, limit):
            unpatched[:, block], outcome[:, :, block] = _measure(
                model, pairs[block], paths, measures, limit
            )
    rows = [
        (*s[0], *_label(s), *r[0], *_label(r), name, float(outcome[i, j].mean()),
         float(unpatched[i].mean()))
        for j, (s, r) in enumerate(paths)
        for i, name in enumerate(measures)
    ]  # fmt: skip
    sender = ["sender", "sender_layer", "sender_head", "sender_group"]
    columns = [*sender, "receiver", "layer", "head", "group", "metric", "value", "unpatched"]
    table = pd.DataFrame(rows, columns=columns)
    table = table.assign(change=table["value"] - table["unpatched"], n=len(pairs))
    types = {"sender_head": "Int64", "sender_group": "string", "head": "Int64", "group": "string"}
    return table.astype(types)


_End = tuple[Key, str | None, tuple[int, ...] | None]
"""A sender or receiver: its site and layer, its heads' label, and its heads."""


def _ends(
    model: TransformerLensModel,
    names: str | Sequence[str],
    known: Sequence[str],
    layers: Sequence[int] | None,
    heads: Units,
) -> list[_End]:
    what = "sender" if known is SENDERS else "receiver"
    chosen = list(dict.fromkeys(listed(names, f"{what}s")))
    require_known(chosen, known, what)
    return [
        ((name, layer), label, units)
        for name in chosen
        for layer in valid_indices(layers, model.cfg.n_layers, f"{what}_layer")
        for label, units in unit_groups(
            heads, n_units(model, name), site_named(name).unit, f"{what}_head"
        )
    ]


def _require_additive(model: TransformerLensModel, layers: Sequence[int]) -> None:
    """Checks that what heads write is added to the stream as it is."""
    from transformer_lens.tools.analysis.attribution_patching import _attention_write_obstruction

    if layers and (reason := _attention_write_obstruction(model, set(layers))):
        raise ArgumentError(
            f"What a head writes is not what reaches the stream in this model: {reason}. Send from "
            "mlp_out, or patch z or attn_out."
        )


def _label(end: _End) -> tuple[int | None, str | None]:
    """Its head, if it is a single one, and what its heads are called together."""
    _, group, heads = end
    return heads[0] if heads is not None and len(heads) == 1 else None, group


def _measure(
    model: TransformerLensModel,
    pairs: Pairs,
    paths: Sequence[tuple[_End, _End]],
    measures: Mapping[str, Metric],
    limit: float,
) -> tuple[Float[np.ndarray, "metric pair"], Float[np.ndarray, "metric path pair"]]:
    """The metrics of some pairs as they are, and with each path patched."""
    width = int(pairs.read.max()) + 1
    tokens, counterpart = pairs.base[:, :width], pairs.source_position[:, :width]
    written = list(dict.fromkeys(sender[0] for sender, _ in paths))
    runs = unpatched_runs(model, tokens, pairs.read, written)
    source = read_activations(model, pairs.source, written)
    row = torch.arange(len(pairs), device=tokens.device)
    answers = Answers(pairs.base_answer, pairs.source_answer)
    unpatched = runs.unpatched()
    require_numbers(unpatched, "logits")
    plain = measured(measures, unpatched, answers)
    outcome = np.empty((len(plain), len(paths), len(pairs)))
    windowed = can_window(model)
    # Each sender's write is read together by the receivers of a layer.
    together: dict[tuple[Key, tuple[int, ...] | None, int], list[int]] = {}
    for index, ((key, _, heads), (read, *_)) in enumerate(paths):
        together.setdefault((key, heads, read[1]), []).append(index)
    for (key, heads, layer), indices in together.items():
        change = source[key][row[:, None], counterpart.clamp(min=0)] - runs.base[key]
        if change.ndim == 4:
            by_head = change[:, :, slice(None) if heads is None else list(heads)]
            change = at_least_single(by_head).sum(2).to(change.dtype)
        change = change * (counterpart >= 0)[..., None]
        computed = 1 if windowed and layer == model.cfg.n_layers - 1 else width
        rows = rows_at_a_time(model, computed, width, limit, whole=not windowed)
        at_once = max(1, rows // len(pairs))
        for begin in range(0, len(indices), at_once):
            part = indices[begin : begin + at_once]
            receivers = [paths[index][1] for index in part]
            readers = [(site, to_heads) for (site, _), _, to_heads in receivers]
            logits = runs.logits_of_readers(layer, change, readers).flatten(0, 1)
            values = measured(measures, logits, answers[row.repeat(len(part))])
            outcome[:, part] = values.reshape(len(plain), len(part), len(pairs))
    return plain, outcome
