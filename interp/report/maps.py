"""Attention maps in reports: real biographies, token by token, at every checkpoint."""

from collections.abc import Sequence

from interp.biographies import DATES_ARE_DRAWN, FORMS
from interp.biographies.forms import BIOGRAPHY
from interp.errors import CheckpointError, ConfigError, RunError
from interp.knowledge import measured_individuals
from interp.maps import (
    BUDGET,
    MapText,
    TrainingInfo,
    asset,
    map_steps,
    map_text,
    record_maps,
    view_settings,
    words_of,
)
from interp.model import NO_ATTENTION
from interp.report.elements import Embed, LeftOut, Section
from interp.report.run_tables import of_run
from interp.run import Run

_N_KNOWN, _N_HELD_OUT = 3, 1
_ANCHOR = "attention-maps"
_CHOOSE = (
    "Choose a fact below the text: the token that predicts it is chosen then, and the fact shows how "
    "probable its value is, each token given those before. "
)
_NOT_USED = "Attention shows where a head looks, not what it uses of it."
_OVER_TRAINING = (
    "Look for heads of the last layer that come to attend to the name there while the plateau lasts, and "
    "for heads of layer 0 that tie the tokens of a name together or carry the type word along. Compare the "
    "end of the plateau with the last step. The slider goes by checkpoints, which are closer together "
    "early in training; everybody's sentences come in the same order. "
)
_AT_ONE = (
    "Look for heads of the last layer that attend to the name there, and for heads of layer 0 that tie the "
    "tokens of a name together or carry the type word along. "
)


def maps_caption(n_steps: int) -> str:
    """What to look for in maps at so many checkpoints."""
    return f"{_CHOOSE}{_OVER_TRAINING if n_steps > 1 else _AT_ONE}{_NOT_USED}"


@of_run("Attention maps", "maps")
def maps_section(run: Run) -> Section | LeftOut:
    """Attention maps of a few people."""
    if why := no_maps(run):
        return LeftOut(why)
    individuals = [*measured_individuals(run.corpus, "evaluation", _N_KNOWN)]
    if run.config.population.n_held_out:
        individuals += [*measured_individuals(run.corpus, "held_out", _N_HELD_OUT)]
    people = [int(individual) for individual in individuals]
    view = maps_embed(run, people, _ANCHOR, "Attention, token by token")
    n_shown, n_all = len(view.settings["steps"]), len(run.steps)
    every = f"all {n_all}" if n_shown == n_all else f"{n_shown} of {n_all}"
    when = f"at {every} checkpoints. Move through training with the slider (arrow keys move it) or Play;"
    if n_all == 1:
        when = f"at step {run.steps[0]:,}. Below,"
    return Section(
        text=[
            "What every head looks at in biographies in wordings that were never seen with these "
            f"people, {when} choose a head; point at a token, tap it or move with the arrow keys. "
            f"{DATES_ARE_DRAWN + ' ' if run.population.lexicon.dates else ''}"
            "Everybody else's maps: interp.explore(run) in Jupyter."
        ],
        embeds=[view],
    )


def no_maps(run: Run) -> str:
    """Why a run's attention cannot be shown; empty where it can."""
    if run.config.model.recurrence is not None:
        return NO_ATTENTION
    try:
        if run.reference is not None:
            _ = run.reference.model(run.config.patching.reference_step)
    except (RunError, ConfigError, CheckpointError):
        return (
            "the reference whose attention the run was trained with is damaged or not where it was"
        )
    return "" if run.steps else "the run has no checkpoint"


def _in_other_forms(run: Run, individual: int) -> list[MapText]:
    """A person in every other form that the run's settings name and its context has room for."""
    n, corpus = len(run.population), run.corpus
    made = []
    for number, form in enumerate(FORMS):
        if form == BIOGRAPHY or form not in run.config.data.forms:
            continue
        text = map_text(corpus, individual, form=form, number=n + number)
        if 1 < len(text) <= run.config.model.n_ctx:
            made.append(text)
    return made


def maps_embed(
    run: Run, individuals: Sequence[int], anchor: str, title: str, budget: int = BUDGET
) -> Embed:
    """The view of some people's attention maps.

    Args:
        run: A run that has maps (see `no_maps`).
        individuals: Whose biographies it offers; the first also in the other forms of the run.
        anchor: Its anchor in the page, and the beginning of links to its states.
        title: Its heading.
        budget: Bytes that its maps may take before compression (see `map_steps`).
    """
    texts = [map_text(run, individual) for individual in individuals]
    texts += _in_other_forms(run, individuals[0])
    steps = map_steps(run, texts, budget)
    records = record_maps(run, texts, steps)
    words = words_of(records)
    return Embed(
        anchor,
        title,
        maps_caption(len(steps)),
        view="attention",
        settings=view_settings(records, words, run.tokenizer, TrainingInfo.of(run))
        | {"fragment": anchor},
        packed={
            f"{kind}-{record.text.number}": data
            for record in records
            for kind, data in record.packed(words).items()
        },
        script=asset("attention.js"),
        style=asset("attention.css"),
        fallback=(
            "Attention maps need JavaScript. Attention to names over training stands as numbers in the "
            "section on attention."
        ),
    )
