"""What a model answers when it is asked for a person's facts in every form, in tables and in words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pandas as pd

ASKED_COLUMNS = (
    "step", "form", "attribute", "wording", "question", "value", "answer", "right", "probability",
    "first_probability", "runner_up", "runner_up_probability",
)  # fmt: skip
"""The columns of `Asked.answers`."""
SWAPPED_COLUMNS = (
    "step",
    "form",
    "attribute",
    "layer",
    "position",
    "n",
    "follows",
    "kept",
    "control",
)
"""The columns of `Asked.swaps`."""
CARRIES = 0.5
"""The share of swaps, above the control's, from which a place is said to carry an answer."""


@dataclass(frozen=True, repr=False)
class Asked:
    """What a model answers when it is asked for facts of one person (see `interp.ask`).

    Attributes:
        individual: Whose facts.
        name: Their full name.
        held_out: Whether training never showed this person.
        answers: A row for each step, form, attribute and wording: `question` (the text that the model
            reads), `value` (the right answer), `answer` (the model's own greedy continuation to the end of
            a value), `right`, `probability` (of the right answer, each token given those before; of all
            languages of the polyglot form together), `first_probability` (of its first token),
            `runner_up` and `runner_up_probability` (of the strongest other first token). `attribute` is
            "name" for an inverse question; `wording` numbers the wordings of a form.
        swaps: Where the answer comes from, in forms of sentences: the residual stream after `layer`, at
            one `position` ("last name" or "predicts value"), is replaced by that of `n` other people in
            the same sentence, whose own value the model predicts there: the share of predictions that
            become the other's value (`follows`), that stay (`kept`), and that follow a swap at a token of
            text (`control`); missing where `n` is 0. In the first wording.
        left_out: Forms that were not asked in, with the reasons.
    """

    individual: int
    name: str
    held_out: bool
    answers: pd.DataFrame = field(hash=False, compare=False)
    swaps: pd.DataFrame = field(hash=False, compare=False)
    left_out: Mapping[str, str] = field(hash=False, compare=False)

    def sources(self) -> pd.DataFrame:
        """Where each answer is carried: `step`, `form`, `attribute`, `n`, `known`, `name_until`, `read_from`.

        `name_until` is the last layer after which the stream at the last name token decides the answer,
        `read_from` the first after which the stream at the predicting token does (missing where none
        does): at least half of the predictions follow a swap there, beyond those that follow the
        control. `known` says whether the first token is predicted right without a swap.
        """
        rows = []
        for (step, form, attribute), own in self.swaps.groupby(
            ["step", "form", "attribute"], sort=False
        ):
            carried = own[own["follows"] - own["control"].fillna(0) >= CARRIES]
            at = {p: carried.loc[carried["position"] == p, "layer"] for p in _POSITIONS}
            name, read = (at[p] for p in _POSITIONS)
            rows.append(
                (
                    step, form, attribute, int(own["n"].iloc[0]), bool(own["unpatched"].iloc[0] == 1),
                    pd.NA if name.empty else int(name.max()), pd.NA if read.empty else int(read.min()),
                )
            )  # fmt: skip
        columns = ["step", "form", "attribute", "n", "known", "name_until", "read_from"]
        found = pd.DataFrame(rows, columns=columns)
        return found.astype({"name_until": "Int64", "read_from": "Int64"})

    def source_sentences(self) -> list[str]:
        """The same in words."""
        return [_in_words(row) for row in self.sources().itertuples()]

    def __repr__(self) -> str:
        held_out = ", held out" if self.held_out else ""
        lines = [f"{self.name} (individual {self.individual}{held_out})"]
        for row in cast(Any, self.answers.itertuples()):
            mark = "right" if row.right else f"wrong: {row.value}"
            lines.append(
                f"  step {row.step:,}, {row.form}: {row.question} -> {row.answer} ({mark}; probability "
                f"{row.probability:.3f})"
            )
        lines += [f"  {sentence}" for sentence in self.source_sentences()]
        lines += [f"  not asked as {form}: {why}" for form, why in self.left_out.items()]
        return "\n".join(lines)


_POSITIONS = ("last name", "predicts value")


def _in_words(row: Any) -> str:
    begin = f"step {row.step:,}, {row.form}, {row.attribute.replace('_', ' ')}: "
    if not row.known:
        return f"{begin}the answer is not predicted, so nothing can be said of where it comes from"
    if not row.n:
        return f"{begin}no other person's answer is predicted, so there is nobody to swap with"
    name = (
        "no layer's stream at the last name token decides it alone"
        if pd.isna(row.name_until)
        else f"the last name token carries it up to layer {row.name_until}"
    )
    read = (
        "nor does the predicting token's" if pd.isna(row.read_from) and pd.isna(row.name_until) else
        "the predicting token's stream never does" if pd.isna(row.read_from) else
        f"the token that predicts it has it from layer {row.read_from} on"
    )  # fmt: skip
    return f"{begin}{name}, {read} ({row.n} swaps with other people)"
