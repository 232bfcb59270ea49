"""What the attention view is given: plain data, the same for the report and for Jupyter."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from interp.biographies import ATTRIBUTES, NAME_PARTS, TokenKind
from interp.maps.record import MapRecord, MapText
from interp.plots import phase_bands
from interp.run import Run

_MARKS = {
    TokenKind.SPECIAL: "special",
    TokenKind.NAME: "name",
    TokenKind.VALUE: "value",
    TokenKind.TEXT: "text",
    TokenKind.TYPE: "type",
    TokenKind.PUNCTUATION: "punctuation",
}


def view_settings(
    run: Run, steps: Sequence[int], records: Sequence[MapRecord], words: Sequence[int]
) -> dict[str, Any]:
    """The settings of the view, ready for JSON.

    Args:
        run: The run.
        steps: The checkpoints that it shows.
        records: The biographies that it begins with, recorded at those checkpoints.
        words: Token ids that predictions point to (see `words_of`).

    Returns:
        `title`, `steps`, `n_layers`, `n_heads`; `phases` (`name`, `number`, `start`, `end` in steps);
        `curves` (of known people, `evaluation`, and `held_out` ones: attribute `loss` in nats and
        `accuracy`, per checkpoint; null where it was not measured); `roles` (checkpoint, layer,
        head; null without the attention stage); `words` (as text); and `texts` (see `view_text`).
    """
    config = run.config
    return {
        "title": f"{config.preset}, seed {config.seed}",
        "steps": list(steps),
        "n_layers": config.model.n_layers,
        "n_heads": config.model.n_heads,
        "phases": _phases(run, steps),
        "curves": {split: _curves(run, split, steps) for split in ("evaluation", "held_out")},
        "roles": _roles(run, steps),
        "words": run.tokenizer.convert_ids_to_tokens(list(words)),
        "texts": [view_text(run, record.text) for record in records],
    }


def view_text(run: Run, text: MapText) -> dict[str, Any]:
    """A biography for the view.

    Returns:
        `person` (their number), `name`, `held_out`, `wordings`; per token `tokens`, `marks` (what it
        is) and `parts` (of a name or value); `facts`: in the order of the text the `attribute`, its
        `value`, the `position` that predicts the value's first token, and the value's `length` in
        tokens.
    """
    batch, values = text.batch, run.population.facts(text.individual)
    starts, lengths = batch.value_start[0].tolist(), batch.value_length[0].tolist()
    told = sorted(zip(starts, lengths, ATTRIBUTES, strict=True))
    kinds = [TokenKind(kind) for kind in batch.kind[0].tolist()]
    return {
        "person": text.individual,
        "name": text.name,
        "held_out": text.held_out,
        "wordings": text.wordings,
        "tokens": list(text.tokens),
        "marks": [_MARKS[kind] for kind in kinds],
        "parts": [
            _part(kind, part) for kind, part in zip(kinds, batch.part[0].tolist(), strict=True)
        ],
        "facts": [
            {
                "attribute": name.replace("_", " "),
                "value": values[name],
                "position": start - 1,
                "length": length,
            }
            for start, length, name in told
        ],
    }


def words_of(records: Sequence[MapRecord], known: Sequence[int] = ()) -> list[int]:
    """The token ids that the predictions of some records name; those known before keep their place."""
    new = {int(token) for record in records for token in set(record.top.flat)} - set(known)
    return [*known, *sorted(new)]


@cache
def asset(name: str) -> str:
    """The text of a file in `assets/`."""
    return files("interp.maps").joinpath("assets", name).read_text(encoding="utf-8")


def _part(kind: TokenKind, part: int) -> str:
    if kind == TokenKind.NAME:
        return f"{NAME_PARTS[part]} name"
    return {TokenKind.VALUE: "first token" if part == 0 else "later token"}.get(kind, "")


def _phases(run: Run, steps: Sequence[int]) -> list[dict[str, Any]]:
    if run.metrics.empty:
        return []
    bands = phase_bands(run.phases, steps[0], steps[-1])
    return [
        {"name": band.name, "number": band.number, "start": band.start, "end": band.end}
        for band in bands
    ]


def _curves(run: Run, split: str, steps: Sequence[int]) -> dict[str, list[float | None]]:
    """Loss and accuracy at the checkpoints; None where nothing was measured."""
    table = run.metrics
    found = {}
    for name in ("loss", "accuracy"):
        chosen = (table["metric"] == f"attribute_{name}") & (table["split"] == split)
        curve = table[chosen & (table["attribute"] == "all")].set_index("step")["value"]
        found[name] = [
            round(float(curve[step]), 4) if step in curve.index else None for step in steps
        ]
    return found


def _roles(run: Run, steps: Sequence[int]) -> list[list[list[str]]] | None:
    """The role of every head at every checkpoint; empty text where it was not determined."""
    table = run.result("attention", "roles")
    if table is None or table.empty:
        return None
    role = {(row.step, row.layer, row.head): str(row.role) for row in table.itertuples(index=False)}
    model = run.config.model
    return [
        [
            [role.get((step, layer, head), "") for head in range(model.n_heads)]
            for layer in range(model.n_layers)
        ]
        for step in steps
    ]
