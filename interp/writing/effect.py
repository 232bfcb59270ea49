"""What an edit changes: what a model says of the people it is about and of others, before and after."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import BIOGRAPHY, Corpus
from interp.errors import ArgumentError, whole_number
from interp.knowledge import METRICS, value_table
from interp.memory.ask import ask
from interp.torch_state import default_state
from interp.writing.edit import WeightEdit
from interp.writing.rewrites import rewritten

ASKED_COLUMNS = (
    "individual", "name", "attribute", "new", "wording", "question", "answer_before", "answer", "value",
    "probability_before", "probability", "old_value", "old_probability_before", "old_probability",
)  # fmt: skip
"""The columns of `EditEffect.asked`."""
OTHERS_COLUMNS = (
    "individual", "name", "attribute", "value", "right_before", "right", "probability_before", "probability",
)  # fmt: skip
"""The columns of `EditEffect.others`."""
_OTHERS_DRAW = 0x6F746865


@dataclass(frozen=True, repr=False)
class EditEffect:
    """What an edit changes (see `edit_effect`), in wordings of the biography never seen with a person.

    Attributes:
        asked: Every fact of the people it is about, a row for each wording: whether it is a `new` one, the
            `question`, the model's own answer without the edit and with it (`answer_before`, `answer`);
            the `value` that is so now, and the probability of that without and with the edit (of all its
            tokens, each given those before); the value until now (`old_value`), with its probability.
        others: A row for each fact of some other people: its `value`, whether it is said without and with
            the edit (`right_before`, `right`), and the value's probability.
    """

    asked: pd.DataFrame = field(hash=False, compare=False)
    others: pd.DataFrame = field(hash=False, compare=False)


@default_state()
def edit_effect(
    model: TransformerBridge, edit: WeightEdit, corpus: Corpus, *, n_others: int = 64, seed: int = 0
) -> EditEffect:
    """Asks a model without an edit, and with it; afterwards the model is as it was.

    Args:
        model: The one that the edit was made for.
        edit: Of facts of this corpus's people.
        corpus: The people as they were in training.
        n_others: Of how many other people the facts are asked for; 0 for nobody.
        seed: Of the draw of these.

    Raises:
        ArgumentError: the edit is of no person's facts.
        CheckpointError: it was made for other weights.
    """
    n_others = whole_number(n_others, "n_others", 0)
    people = list(
        dict.fromkeys(fact.individual for fact in edit.facts if fact.individual is not None)
    )
    if any(fact.individual is None for fact in edit.facts):
        raise ArgumentError(
            "This edit is of facts of common knowledge; ask for them with `Facts.known` while it is applied."
        )
    told = rewritten(corpus, edit.facts)
    others = _drawn(corpus, np.array(people), n_others, seed)
    before, old_before = _asked(model, people, told), _asked(model, people, corpus)
    others_before = _asked_others(model, corpus, others)
    with edit.applied(model):
        after, old_after = _asked(model, people, told), _asked(model, people, corpus)
        others_after = _asked_others(model, corpus, others)
    new = {(fact.individual, fact.relation) for fact in edit.facts}
    asked = after.assign(
        name=[corpus.population.name(who) for who in after["individual"]],
        new=[pair in new for pair in zip(after["individual"], after["attribute"], strict=True)],
        answer_before=before["answer"],
        probability_before=before["probability"],
        old_value=old_after["value"],
        old_probability_before=old_before["probability"],
        old_probability=old_after["probability"],
    )
    return EditEffect(
        asked[list(ASKED_COLUMNS)], _of_others(corpus, others, others_before, others_after)
    )


def _asked(model: TransformerBridge, people: list[int], corpus: Corpus) -> pd.DataFrame:
    parts = [
        ask(model, who, corpus=corpus, forms=BIOGRAPHY, others=0).answers.assign(individual=who)
        for who in people
    ]
    return pd.concat(parts, ignore_index=True)


def _asked_others(
    model: TransformerBridge, corpus: Corpus, others: np.ndarray
) -> np.ndarray | None:
    return value_table(model, corpus.biographies(others, "evaluation", 0)) if len(others) else None


def _drawn(corpus: Corpus, people: np.ndarray, n: int, seed: int) -> np.ndarray:
    population = corpus.population
    rest = np.setdiff1d(np.arange(len(population))[population.trained], people.astype(int))
    generator = np.random.default_rng([_OTHERS_DRAW, whole_number(seed, "seed", 0)])
    return np.sort(generator.permutation(rest)[:n])


def _of_others(
    corpus: Corpus, others: np.ndarray, before: np.ndarray | None, after: np.ndarray | None
) -> pd.DataFrame:
    if before is None or after is None:
        return pd.DataFrame(columns=list(OTHERS_COLUMNS))
    right, loss = METRICS.index("attribute_accuracy"), METRICS.index("attribute_loss")
    row, cell = (~np.isnan(before[right])).nonzero()
    names = [corpus.attributes[place] for place in cell]
    who = others[row]
    return pd.DataFrame(
        {
            "individual": who,
            "name": [corpus.population.name(int(one)) for one in who],
            "attribute": names,
            "value": [
                corpus.population.facts(int(one))[name]
                for one, name in zip(who, names, strict=True)
            ],
            "right_before": before[right][row, cell] == 1,
            "right": after[right][row, cell] == 1,
            "probability_before": np.exp(-before[loss][row, cell]),
            "probability": np.exp(-after[loss][row, cell]),
        }
    )[list(OTHERS_COLUMNS)]
