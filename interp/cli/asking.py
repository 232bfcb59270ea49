"""Asking a run for a person's facts in every form."""

from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tyro

from interp.cli.models import require_run
from interp.cli.printing import say
from interp.cli.runs import RunPath
from interp.cli.tables import show
from interp.errors import InterpError


def ask(
    run: RunPath,
    person: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PERSON")],
    attribute: Annotated[
        str | None, tyro.conf.Positional, tyro.conf.arg(metavar="ATTRIBUTE")
    ] = None,
    *,
    step: int | None = None,
    steps: tuple[str, ...] = (),
    form: tuple[str, ...] = (),
    adapter: Literal["merged", "on", "off"] | None = None,
    wordings: Literal["evaluation", "train"] = "evaluation",
    others: int = 16,
    csv: Path | None = None,
) -> None:
    """Ask a run for one person's facts in every form of text, and see what it answers.

    Prints a row for each form and wording: the question, the model's own answer, the right one and its
    probability; then at which layer the answer is carried, by swaps with other people; then the forms
    that the run's tokenizer does not know.

    Example: interp ask runs/tiny 12 university --steps first plateau last

    Example: interp ask runs/tiny "Wim Mireia Vasiliev" --form question --adapter off --csv answers.csv

    Args:
        run: Folder of the run.
        person: A full name, an index, or a part of a name that nobody else has (`interp people RUN`
            lists them).
        attribute: One attribute, words joined by _ or -, or in quotation marks; all by default.
        step: A step with a checkpoint; the last by default.
        steps: Several of them, by number or name: first, statistics, plateau (the checkpoints at the end of
            these phases), middle, last.
        form: Only these forms: biography, question, inverse, part, reordered_name, mnemonic, fused,
            polyglot, triple. Default: all that the tokenizer knows.
        adapter: How the run's adapter is used: merged, on or off; as in training by default.
        wordings: evaluation: sentences never seen with this person; train: those seen in training.
        others: With how many other people activations are swapped; 0 for no swaps.
        csv: A file for the answers as a table; .csv is added to a name without an ending.
    """
    from interp.files import replaceable, with_ending, write_text
    from interp.memory.ask import ask
    from interp.memory.asked import ASKED_COLUMNS
    from interp.run import Run
    from interp.series import named_steps
    from interp.tables import for_spreadsheets, header_mark

    require_run(run)
    if step is not None and steps:
        raise InterpError("--step and --steps are both given; give one of them.")
    if csv is not None:
        mark = header_mark(ASKED_COLUMNS[:5])
        csv = replaceable(with_ending(csv, ".csv"), mark, "a table of answers")
    opened = Run.load(run)
    words = [word for given in steps for word in given.split(",") if word]
    chosen = named_steps(opened, words) if steps else None
    found = ask(
        opened, person, attribute, step=step, steps=chosen, forms=form or None, adapter=adapter,
        wordings=wordings, others=others,
    )  # fmt: skip
    table = found.answers
    rows = [
        (
            f"{row.form}, {row.attribute.replace('_', ' ')}", f"{row.step:,}", row.question,
            row.answer, "right" if row.right else row.value, row.probability, row.first_probability,
            f"{row.runner_up} {row.runner_up_probability:.3f}",
        )
        for row in cast(Any, table.itertuples())
    ]  # fmt: skip
    held_out = ", held out" if found.held_out else ""
    show(
        f"{found.name} (individual {found.individual}{held_out}): {int(table['right'].sum())} of "
        f"{len(table)} answers right",
        (
            "form, attribute", "step", "question", "answer", "right answer", "probability",
            "of its first token", "strongest other",
        ),
        rows,
        right=("step", "probability", "of its first token"),
    )  # fmt: skip
    for sentence in found.source_sentences():
        say(sentence, highlight=False)
    for name, why in found.left_out.items():
        say(f"not asked: {name}: {why}", highlight=False)
    if csv is not None:
        write_text(csv, for_spreadsheets(table).to_csv(index=False))
        say(csv)
