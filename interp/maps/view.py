"""What the attention view is given: plain data, the same for the report and for Jupyter."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from interp.biographies import TokenKind
from interp.errors import ArgumentError
from interp.maps.record import MapRecord
from interp.maps.texts import MapText, Vocabulary, words_by_id
from interp.maps.training import TrainingInfo
from interp.phases import Phases, phase_bands


def view_settings(
    records: Sequence[MapRecord],
    words: Sequence[int],
    vocabulary: Vocabulary,
    training: TrainingInfo | None = None,
    texts: Sequence[MapText] | None = None,
) -> dict[str, Any]:
    """The settings of the view, ready for JSON.

    Args:
        records: The texts that it begins with, recorded at the checkpoints that it shows.
        words: Token ids that predictions point to (see `words_of`).
        vocabulary: A tokenizer, or the words in the order of their ids.
        training: What is known of the training; nothing by default.
        texts: All texts that it lists, where it can ask for those that are not recorded yet; those of
            the records by default.

    Returns:
        `title` (null where there is none), `steps`, `n_layers`, `n_heads`; `phases` (`name`, `number`,
        `start`, `end` in steps; none where they are not known); `curves` (of known people,
        `evaluation`, and `held_out` ones: attribute `loss` in nats and `accuracy`, per checkpoint; null
        where it was not measured, or all null); `roles` (checkpoint, layer, head; null where they are
        not known); `words` (as text); and `texts` (see `view_text`).

    Raises:
        ArgumentError: there is no record, or the records differ in their checkpoints.
    """
    if not records:
        raise ArgumentError("There is no record to show; give at least one.")
    if len({record.steps for record in records}) > 1:
        raise ArgumentError(
            "The records are of different checkpoints; record all texts of a view at the same ones."
        )
    training = training or TrainingInfo()
    steps = records[0].steps
    _, n_layers, n_heads, _ = records[0].patterns.shape
    return {
        "title": training.title,
        "steps": list(steps),
        "n_layers": n_layers,
        "n_heads": n_heads,
        "phases": _phases(training.phases, steps),
        "curves": None if training.curves is None else {
            split: {name: _at_steps(curve, steps) for name, curve in curves.items()}
            for split, curves in training.curves.items()
        },
        "roles": None if training.roles is None else [
            [
                [training.roles.get((step, layer, head), "") for head in range(n_heads)]
                for layer in range(n_layers)
            ]
            for step in steps
        ],
        "words": words_by_id(vocabulary, words),
        "texts": [view_text(text) for text in texts or [record.text for record in records]],
    }  # fmt: skip


def view_text(text: MapText) -> dict[str, Any]:
    """A text for the view.

    Returns:
        `person` (its number), `name`, `held_out`, `wordings` (null if it is no biography); per token
        `tokens`, `marks` (what it is) and `parts` (of a name or value); `facts`: in the order of the
        text the `attribute` (the relation), its `value`, the `position` that predicts the value's first
        token, and the value's `length` in tokens.
    """
    return {
        "person": text.number,
        "name": text.name,
        "held_out": text.held_out,
        "wordings": text.wordings,
        "tokens": list(text.tokens),
        "marks": [TokenKind(kind).name.lower() for kind in text.spans.kind[0].tolist()],
        "parts": list(text.parts),
        "facts": [
            {"attribute": f.relation, "value": f.value, "position": f.position, "length": f.length}
            for f in text.facts
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


def _phases(phases: Phases | None, steps: Sequence[int]) -> list[dict[str, Any]]:
    if phases is None:
        return []
    bands = phase_bands(phases, steps[0], steps[-1])
    return [
        {"name": band.name, "number": band.number, "start": band.start, "end": band.end}
        for band in bands
    ]


def _at_steps(curve: Mapping[int, float], steps: Sequence[int]) -> list[float | None]:
    return [round(float(curve[step]), 4) if step in curve else None for step in steps]
