"""Writing a fact into a run, and seeing what that changes."""

from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tyro

from interp.cli.models import require_run
from interp.cli.printing import say
from interp.cli.runs import RunPath
from interp.cli.tables import show

_MOST = 8
"""Facts of others that are named."""


def write(
    run: RunPath,
    person: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PERSON")],
    attribute: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ATTRIBUTE")],
    value: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="VALUE")],
    *,
    out: Path | None = None,
    step: int | None = None,
    layers: tuple[int, ...] = (),
    position: tuple[str, ...] = (),
    method: Literal["rome", "memit"] | None = None,
    texts: int = 8,
    others: int = 64,
) -> None:
    """Write a new fact about a person into a run's weights in closed form, and see what changes.

    The run itself is not changed. Prints what the model says in wordings never seen with this person, and
    how likely the old and the new value are, without the edit and with it; the same person's other facts;
    and how many facts of other people are still right.

    Example: interp write runs/tiny 12 university Oxford --out oxford.safetensors

    Example: interp write runs/tiny "Wim Mireia Vasiliev" birth-date "3 March 1984" --others 256

    Args:
        run: Folder of the run.
        person: A full name, an index, or a part of a name that nobody else has (`interp people RUN`
            lists them).
        attribute: Words joined by _ or -, or in quotation marks.
        value: The new value, out of the run's lists.
        out: A file for the edit (interp.load_edit reads it); .safetensors is added to a name without an
            ending.
        step: A step with a checkpoint; the last by default.
        layers: The layers whose MLP is changed; the last by default.
        position: The kinds of token at which it is written, such as "predicts value" (the default in the
            last layer), "middle name" or "last name".
        method: rome (exact at the keys) or memit (least squares).
        texts: Biographies of the person that the edit is made of.
        others: Of how many other people the facts are asked for.
    """
    from interp.run import Run
    from interp.writing import edit_effect, write_facts
    from interp.writing.edit_files import edit_file

    require_run(run)
    target = None if out is None else edit_file(out)
    opened = Run.load(run)
    edit = write_facts(
        opened, [(person, attribute, value)], layers or None, position or None, method=method,
        step=step, n_texts=texts,
    )  # fmt: skip
    found = edit_effect(opened.model(step), edit, opened.corpus, n_others=others)
    (fact,) = edit.facts
    asked, rest = found.asked, found.others
    new, own = asked[asked["new"]], asked[~asked["new"]]
    names = ("answer without", "answer with")
    show(
        f"{fact.subject} (individual {fact.individual}): {_words(fact.relation)}, {fact.before or 'none'} → "
        f"{fact.value} ({edit.method}, layer {', '.join(map(str, edit.layers))}, {edit.position})",
        ("question", *names, "p(new) without", "with", "p(old) without", "with it"),
        [
            (row.question, row.answer_before, row.answer, row.probability_before, row.probability,
             row.old_probability_before, row.old_probability)
            for row in cast(Any, new.itertuples())
        ],
    )  # fmt: skip
    show(
        "The same person's other facts (probabilities: mean over wordings)",
        ("attribute", "value", *names, "p without", "p with"),
        [
            (_words(str(name)), part["value"].iloc[0], _said(part["answer_before"]), _said(part["answer"]),
             part["probability_before"].mean(), part["probability"].mean())
            for name, part in own.groupby("attribute", sort=False)
        ],
    )  # fmt: skip
    if len(rest):
        right = rest[rest["right_before"]]
        say(
            f"{rest['individual'].nunique()} other people: {len(right)} of {len(rest)} facts right without "
            f"the edit, {int(right['right'].sum())} of these with it",
            highlight=False,
        )
        lost = right[~right["right"]]
        for row in cast(Any, lost.head(_MOST).itertuples()):
            say(
                f"not right any more: {row.name}, {_words(row.attribute)} ({row.value}): "
                f"p {row.probability_before:.3f} → {row.probability:.3f}",
                highlight=False,
            )
        if len(lost) > _MOST:
            say(f"and {len(lost) - _MOST} more", highlight=False)
    if target is not None:
        say(edit.save(target))


def _words(attribute: str) -> str:
    return attribute.replace("_", " ")


def _said(answers: Any) -> str:
    """The answers that differ, over wordings."""
    return " / ".join(dict.fromkeys(map(str, answers)))
