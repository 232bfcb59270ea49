"""How well written facts hold: efficacy, generalisation and specificity as their number grows.

Source of the measures: Meng et al. 2022, section 3.4. A fact counts if all tokens of its value are the
model's guess, as in `interp.knowledge`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import BIOGRAPHY, FORMS, Batch, Corpus, SentenceForm
from interp.errors import ArgumentError, ConfigError, listed, require_known, whole_number
from interp.knowledge import METRICS, value_table
from interp.series import AnySeries, Device, as_series, corpus_of, models_at, steps_of
from interp.torch_state import default_state
from interp.writing.rewrites import NewFact, Rewrites, rewritten
from interp.writing.targets import TargetSettings
from interp.writing.tuning import finetuned_on
from interp.writing.write import (
    KEPT,
    PREDICTS,
    RIDGE,
    WEIGHT,
    Method,
    name_position,
    place_of,
    prepare,
    solve,
)

COLUMNS = (
    "method", "layers", "position", "n_edits", "metric", "form", "attribute", "value", "before", "n",
    "n_repeats",
)  # fmt: skip
"""The columns of `edit_scores`."""
ALL = "all"
"""As an attribute: all of them."""
_RIGHT = METRICS.index("attribute_accuracy")
_STREAM = 0x65646974


@dataclass(frozen=True)
class _Asked:
    """Facts of some people in some wordings: what the unchanged model says of them."""

    corpus: Corpus
    people: np.ndarray
    forms: Sequence[str]

    def batches(self, corpus: Corpus, people: np.ndarray) -> Iterator[tuple[str, str, Batch]]:
        yield "efficacy", BIOGRAPHY, corpus.biographies(people, "train", 0)
        for form in self.forms:
            yield "generalisation", form, corpus.sequences(people, form, "evaluation", 0)


@default_state()
def edit_scores(
    series: AnySeries,
    n_edits: Sequence[int] = (1, 4, 16, 64),
    places: Sequence[tuple[int | Sequence[int], str | Sequence[str]]] | None = None,
    *,
    methods: Sequence[str] = ("rome", "memit"),
    finetuning: Mapping[str, Mapping[str, Any]] | None = None,
    forms: str | Sequence[str] | None = None,
    n_facts: int = 48,
    n_others: int = 128,
    n_texts: int = 8,
    weight: float = WEIGHT,
    kept: float = KEPT,
    ridge: float = RIDGE,
    targets: TargetSettings | None = None,
    step: int | None = None,
    corpus: Corpus | None = None,
    seed: int = 0,
    device: Device = None,
) -> pd.DataFrame:
    """Efficacy, generalisation and specificity of edits of a run, as the number of new facts grows.

    New facts are drawn: people in training, no one twice, one attribute each, another value of its list.
    Facts are written in groups of each size, each group into the unchanged model, until `n_facts` have been
    written at least.

    Args:
        series: A run, or models over a corpus's tokens.
        n_edits: Sizes of groups.
        places: Layer (or layers) and position (or positions); by default those of `write_facts`, then layer 0
            where the value is predicted, at the middle name, and at the last one, as a control.
        methods: "rome", "memit" (several layers: "memit" alone).
        finetuning: Ways of fine-tuning by the name of their rows, with arguments of `finetuned_on`; for
            example {"finetuning": {}, "finetuning, replay": {"replay": 32}}. None: no fine-tuning.
        forms: Forms of text to ask in with wordings never seen with a person; by default the biography, and
            those that the tokenizer knows.
        n_facts: How many facts of each size at least.
        n_others: Other people, whose facts are to stay.
        n_texts: Biographies of each person that an edit is made of.
        weight: As of `write_facts`, like kept, ridge and targets.
        kept: See there.
        ridge: See there.
        targets: See there.
        step: The checkpoint; the last by default.
        corpus: The people, where the series is no run.
        seed: Of the draw.
        device: Where to compute.

    Returns:
        A row for each method, place, number of edits, metric, form and `attribute` ("all" too): `value`, over
        all groups together.
        "efficacy": share of the new facts that are said in training wordings; "generalisation": in wordings
        never seen with the person; "specificity_subject" and "specificity_others": of the same people's other
        facts and of other people's, those that were right before, the share still right. `before`: the share
        right in the unchanged model, of the facts as they were. "n_steps", "arithmetic": of fine-tuning the
        updates, and of all the tokens passing forward (see `interp.writing.costs`), mean of a group; of an
        edit the covariance is counted once in each. `n`: facts asked for.

    Raises:
        ArgumentError: more facts than people in training, an unknown place, form or method.
    """
    corpus = corpus_of(series, corpus)
    sizes = sorted({whole_number(n, "n_edits", 1) for n in n_edits})
    if not sizes:
        raise ArgumentError("n_edits is empty: give numbers of new facts.")
    require_known(methods, get_args(Method), "method")
    n_facts = whole_number(n_facts, "n_facts", 1)
    total = max(-(-n_facts // size) * size for size in sizes)
    asked_forms = _forms(corpus, forms)
    source = as_series(series)
    at = steps_of(source)[-1] if step is None else step
    models = models_at(source, [at], device)  # a patch of the run is on until it ends
    _, model = next(models)
    facts, others = _drawn(corpus, total, whole_number(n_others, "n_others", 1), seed)
    rewrites = Rewrites.of_people(corpus, facts, n_texts=n_texts)
    scorer = _Scorer(model, corpus, rewrites, others, asked_forms)
    if places is None:
        best = place_of(model, rewrites, None, None)
        names = dict.fromkeys((name_position(rewrites), "last name"))
        places = [best, *((0, p) for p in (PREDICTS, *names))]
    groups = {n: _groups(n, n_facts) for n in sizes}
    rows: list[dict[str, Any]] = []
    for layers, position in places:
        chosen = (layers,) if isinstance(layers, int) else tuple(layers)
        prepared = prepare(model, rewrites, chosen, position, targets, ridge=ridge)
        background = len(chosen) * rewrites.background.tokens.numel()
        share = (prepared.targets.costs.arithmetic - background) / total
        for method in methods:
            if method == "rome" and len(chosen) > 1:
                continue
            for n, of in groups.items():

                @contextmanager
                def edited(
                    subjects: Sequence[int],
                    prepared: Any = prepared,
                    method: Any = method,
                    background: int = background,
                    share: float = share,
                ) -> Iterator[dict[str, float]]:
                    edit = solve(model, prepared, subjects, method, weight, kept)
                    with edit.applied(model):
                        yield {"arithmetic": background + share * len(subjects)}

                named = ", ".join(listed(position, "position"))
                place = {"layers": ", ".join(map(str, chosen)), "position": named}
                rows += scorer.rows(of, edited, {"method": method, **place, "n_edits": n})
    for name, arguments in (finetuning or {}).items():
        for n, of in groups.items():

            @contextmanager
            def tuned(
                subjects: Sequence[int], arguments: Any = arguments
            ) -> Iterator[dict[str, float]]:
                with finetuned_on(model, rewrites.of_subjects(subjects), **arguments) as found:
                    yield {"n_steps": found.n_steps, "arithmetic": found.costs.arithmetic}

            about = {"method": name, "layers": "all", "position": "", "n_edits": n}
            rows += scorer.rows(of, tuned, about)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _groups(size: int, n_facts: int) -> list[range]:
    return [range(start * size, (start + 1) * size) for start in range(-(-n_facts // size))]


def _drawn(corpus: Corpus, n: int, n_others: int, seed: int) -> tuple[list[NewFact], np.ndarray]:
    """New facts of people in training, and other people."""
    people = corpus.population
    generator = np.random.default_rng([_STREAM, whole_number(seed, "seed", 0)])
    order = generator.permutation(np.arange(len(people))[people.trained])
    if n >= len(order):
        raise ArgumentError(
            f"{n} new facts are to be drawn, one a person, of {len(order)} people in training; give fewer."
        )
    facts: list[NewFact] = []
    for individual in order[:n]:
        own = people.facts(int(individual))
        attribute = str(generator.choice(sorted(own)))
        pool = people.lexicon.values[attribute]
        other = [value for value in pool if value != own[attribute]]
        facts.append(
            (int(individual), attribute, str(generator.choice(np.array(other, dtype=object))))
        )
    return facts, np.sort(order[n : n + n_others])


def _forms(corpus: Corpus, forms: str | Sequence[str] | None) -> list[str]:
    """The forms of sentences that can be asked in."""
    found = []
    for name in FORMS if forms is None else listed(forms, "forms"):
        try:
            form = corpus.form(name)
        except ConfigError:
            if forms is not None:
                raise
            continue
        if isinstance(form, SentenceForm):
            found.append(name)
        elif forms is not None:
            raise ArgumentError(
                f"The form {name!r} is no sentence for each attribute; leave it out."
            )
    return found


class _Scorer:
    """Asks a changed model for the new facts and for those that are to stay."""

    def __init__(
        self, model: TransformerBridge, corpus: Corpus, rewrites: Rewrites, others: np.ndarray,
        forms: Sequence[str],
    ) -> None:  # fmt: skip
        self.model, self.corpus, self.rewrites = model, corpus, rewrites
        self.facts = rewrites.facts
        self.people = np.array([fact.individual for fact in self.facts])
        self.cells = np.array([corpus.attributes.index(fact.relation) for fact in self.facts])
        self.asked = _Asked(corpus, self.people, forms)
        self.others = corpus.biographies(others, "evaluation", 0)
        self.right_before = self._right(self.others)
        self.before = {
            (metric, form): self._right(batch)
            for metric, form, batch in self.asked.batches(corpus, self.people)
        }

    def _right(self, batch: Batch) -> np.ndarray:
        """Whether each value is said: 1, 0, NaN where there is none."""
        right: np.ndarray = value_table(self.model, batch)[_RIGHT]
        return right

    def rows(
        self, groups: Sequence[Sequence[int]], changed: Callable[..., Any], about: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """The rows of one method at one place, for one number of edits."""
        seen: dict[tuple[str, str], list[np.ndarray]] = {}
        costs: dict[str, list[float]] = {}
        for group in groups:
            with changed(group) as cost:
                for name, value in cost.items():
                    costs.setdefault(name, []).append(value)
                for key, values in self._asked_of(list(group)):
                    seen.setdefault(key, []).append(values)
        found = []
        for (metric, form), parts in seen.items():
            values = np.concatenate(parts, axis=1)
            for attribute in (-1, *range(len(self.corpus.attributes))):
                after, before = values[:2, (values[2] == attribute) | (attribute < 0)]
                if attribute >= 0 and not len(after):
                    continue
                share = after[before == 1] if metric.startswith("specificity") else after
                name = ALL if attribute < 0 else self.corpus.attributes[attribute]
                found.append(
                    about
                    | {"metric": metric, "form": form, "attribute": name, "value": _mean(share)}
                    | {"before": _mean(before), "n": len(share), "n_repeats": len(groups)}
                )
        for name, spent in costs.items():
            found.append(
                about | {"metric": name, "form": "", "attribute": ALL, "value": float(np.mean(spent)),
                         "before": np.nan, "n": len(spent), "n_repeats": len(groups)}
            )  # fmt: skip
        return found

    def _asked_of(self, group: list[int]) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
        """By metric and form, of each value: whether it is right now, whether it was, its attribute."""
        people, cells = self.people[group], self.cells[group]
        told = rewritten(self.corpus, [self.facts[index] for index in group])
        for metric, form, batch in self.asked.batches(told, people):
            right, before = self._right(batch), self.before[metric, form][group]
            rest = ~np.isnan(right)
            rest[np.arange(len(group)), cells] = False
            new = np.zeros_like(rest)
            new[np.arange(len(group)), cells] = True
            yield (metric, form), _picked(right, before, new)
            if metric == "generalisation":
                yield ("specificity_subject", form), _picked(right, before, rest)
        there = ~np.isnan(self.right_before)
        now = self._right(self.others)
        yield ("specificity_others", BIOGRAPHY), _picked(now, self.right_before, there)


def _picked(right: np.ndarray, before: np.ndarray, which: np.ndarray) -> np.ndarray:
    return np.stack([right[which], before[which], which.nonzero()[1].astype(float)])


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
