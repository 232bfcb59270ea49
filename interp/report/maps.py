"""The section of attention maps: real biographies, token by token, at every checkpoint."""

from interp.errors import RunError
from interp.maps import (
    asset,
    map_steps,
    map_text,
    record_maps,
    view_settings,
    words_of,
)
from interp.report.elements import Embed, Section
from interp.run import Run

_KNOWN, _HELD_OUT = 3, 1
_ANCHOR = "attention-maps"


def maps_section(run: Run) -> Section | None:
    """Attention maps of a few people; None if the run has no checkpoint.

    None also where the run was trained with the attention of a reference that is no longer where it
    was: it cannot be read with the attention it was trained with.
    """
    if not run.steps:
        return None
    try:
        _ = run.reference
    except RunError:
        return None
    people = run.config.population
    known = range(min(_KNOWN, people.n_individuals))
    held_out = range(people.n_individuals, people.n_individuals + min(_HELD_OUT, people.n_held_out))
    texts = [map_text(run, individual) for individual in (*known, *held_out)]
    steps = map_steps(run, texts)
    records = record_maps(run, texts, steps)
    words = words_of(records)
    every = (
        f"all {len(steps)}" if len(steps) == len(run.steps) else f"{len(steps)} of {len(run.steps)}"
    )
    return Section(
        "Attention maps",
        "maps",
        text=[
            f"What every head looks at in biographies in wordings that were never seen with these "
            f"people, at {every} checkpoints. Move through training with the slider (arrow keys move "
            "it) or Play; choose a head; point at a token, tap it or move with the arrow keys. "
            "Everybody else's maps: interp.explore(run) in Jupyter."
        ],
        embeds=[
            Embed(
                _ANCHOR,
                "Attention, token by token",
                "Choose a fact below the text: the token that predicts it is chosen then, and the fact "
                "shows how likely the model holds its first token. Look for heads of the last layer "
                "that come to attend to the name there while the plateau lasts, and for heads of layer "
                "0 that tie the tokens of a name together or carry the type word along. Compare the "
                "end of the plateau with the last step; compare known people with the held-out one. "
                "Attention shows where a head looks, not what it uses of it.",
                view="attention",
                settings=view_settings(run, steps, records, words) | {"fragment": _ANCHOR},
                packed={
                    f"{kind}-{record.text.individual}": data
                    for record in records
                    for kind, data in record.packed(words).items()
                },
                script=asset("attention.js"),
                style=asset("attention.css"),
                fallback=(
                    "Attention maps need JavaScript. Attention to names over training stands as numbers "
                    "in the section on attention."
                ),
            )
        ],
    )
