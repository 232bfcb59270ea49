"""The section on forms of text: what a run answers in each, and two people asked in all of them."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from interp.asking import accuracy_by_form, answers
from interp.biographies import FORMS
from interp.biographies.forms import BIOGRAPHY
from interp.errors import ConfigError, NothingToMeasureError, RunError
from interp.memory.ask import ask
from interp.plots.forms import NOT_TRAINED, TRAINED, form_curves
from interp.progress import silent
from interp.report.elements import LeftOut, Section, Table
from interp.report.run_tables import of_run
from interp.run import Run
from interp.series import informative_steps, nearest_steps

_N_PEOPLE = 64
"""People that are asked, evenly spaced over those trained on."""
_ATTRIBUTE = "university"
"""What the two people are asked for; the first attribute where there is no such one."""


@of_run("Asked in every form", "forms")
def forms_section(run: Run) -> Section | LeftOut:
    """Accuracy by form over training, and a known and another person asked in every form."""
    if not run.steps:
        return LeftOut("the run has no checkpoint")
    if not set(run.config.data.forms) - {BIOGRAPHY}:
        return LeftOut(
            "the tokenizer knows biographies only: other forms of text are named in data.vocabulary, or in "
            "the stages of training"
        )
    try:
        _ = run.reference
    except RunError:
        return LeftOut("the reference whose attention the run was trained with is not where it was")
    forms, lacks = _askable(run)
    accuracy = _accuracy(run, forms)
    met = people_met(run)
    tables = [
        table
        for who, individual in _two_people(run, met)
        if (table := _asked(run, individual, who, forms)) is not None
    ]
    return Section(
        sentence=forms_sentence(accuracy),
        text=[
            "The same facts, asked for in every form of text that the tokenizer knows, at several "
            f"checkpoints; of {min(_N_PEOPLE, run.config.population.n_individuals)} people. A person "
            "counts as met in a form where a stage of training tells their facts in it. Answers are "
            "read with the tokens before each given; in the tables the model goes on by itself, greedily. "
            "Anybody else: interp ask RUN PERSON."
        ],
        figures={"accuracy-by-form": form_curves(accuracy, run.known_phases)},
        tables=tables,
        downloads={"accuracy-by-form": accuracy},
        lacks=lacks,
    )


def people_met(run: Run) -> dict[str, np.ndarray]:
    """Of every form, which people (of all) some stage of the run's training tells facts of in it."""
    corpus, n = run.corpus, len(run.population)
    met = {form: np.zeros(n, dtype=bool) for form in FORMS}
    stages = run.config.data.stages
    told = [(f.form, f.people) for stage in stages or () for f in stage.forms]
    for form, share in told or [(BIOGRAPHY, None)]:
        first, count = (
            (0, run.config.population.n_individuals) if share is None else corpus.people_of(share)
        )
        met[form][first : first + count] = True
    return met


def forms_sentence(accuracy: pd.DataFrame) -> str:
    """At the last step, accuracy in each form: of people met in it, and of the others."""
    last = accuracy[accuracy["step"] == accuracy["step"].max()]
    said = []
    for group, words in ((TRAINED, "people met in it"), (NOT_TRAINED, "people not met in it")):
        own = last[last["group"] == group].sort_values("accuracy", ascending=False, kind="stable")
        if len(own):
            shares = (
                f"{row.form.replace('_', ' ')} {row.accuracy:.0%}" for row in own.itertuples()
            )
            said.append(f"{words}: {', '.join(shares)}")
    return f"Right answers by form at step {int(last['step'].iloc[0]):,}, of {'; of '.join(said)}."


def _askable(run: Run) -> tuple[list[str], list[LeftOut]]:
    """The forms that the run can be asked in, and those that its settings name and it cannot."""
    forms, lacks = [], []
    for form in FORMS:
        try:
            run.corpus.form(form)
        except ConfigError:  # the tokenizer does not know its words
            continue
        try:
            answers(run.model(run.steps[0]), run.corpus, form, np.arange(2))
        except NothingToMeasureError:
            pass  # these two have no answer, others may
        except ConfigError as error:
            lacks.append(LeftOut(str(error), title=f"Asked in the form {form.replace('_', ' ')}"))
            continue
        forms.append(form)
    return forms, lacks


def _accuracy(run: Run, forms: Sequence[str]) -> pd.DataFrame:
    """Columns `step`, `form`, `group`, `accuracy`, `n_people`."""
    n = run.config.population.n_individuals
    people = np.unique(np.linspace(0, n - 1, min(_N_PEOPLE, n)).astype(int))
    starts = [start for start, _ in run.config.data.boundaries]
    steps = sorted({*informative_steps(run), *nearest_steps(run.steps, starts)})
    asked = [form for form in forms if (run.corpus.sequences(people, form).answer >= 0).any()]
    found = answers(run, forms=asked, individuals=people, steps=steps, progress=silent)
    met = people_met(run)
    in_form = np.array(
        [met[f][i] for f, i in zip(found["form"], found["individual"], strict=True)], dtype=bool
    )
    parts = []
    for group, own in ((TRAINED, found[in_form]), (NOT_TRAINED, found[~in_form])):
        if own.empty:
            continue
        table = accuracy_by_form(own)
        table = table[table["attribute"] == "all"].drop(columns="attribute")
        counts = own.groupby("form")["individual"].nunique()
        parts.append(table.assign(group=group, n_people=table["form"].map(counts)))
    return pd.concat(parts, ignore_index=True)[
        ["step", "form", "group", "accuracy", "loss", "probability", "n_people"]
    ]


def _two_people(run: Run, met: dict[str, np.ndarray]) -> list[tuple[str, int]]:
    """Somebody met in most forms, and somebody met in other ones: the last trained on, or held out."""
    n = run.config.population.n_individuals
    forms = np.array(list(met.values()))
    first = int(forms[:, :n].sum(axis=0).argmax())
    others = np.flatnonzero((forms[:, :n] != forms[:, [first]]).any(axis=0))
    other = int(others[-1]) if len(others) else min(n, len(run.population) - 1)
    told = {
        i: [form.replace("_", " ") for form, one in met.items() if one[i]] for i in (first, other)
    }
    return [
        (f"met in training as {', '.join(told[i])}" if told[i] else "never met in training", i)
        for i in dict.fromkeys((first, other))
    ]


def _asked(run: Run, individual: int, who: str, forms: Sequence[str]) -> Table | None:
    """A person asked in every form at the first, the middle and the last checkpoint."""
    steps = run.steps
    chosen = sorted({steps[0], steps[len(steps) // 2], steps[-1]})
    facts = run.population.facts(individual)
    if not facts:
        return None
    attribute = _ATTRIBUTE if _ATTRIBUTE in facts else next(iter(facts))
    wanted = [form for form in forms if form != "part" or attribute in run.population.lexicon.dates]
    found = ask(run, individual, attribute, steps=chosen, forms=wanted, others=0).answers
    found = found.drop_duplicates(["step", "form", "attribute"])
    rows = []
    for (form, _), own in found.groupby(["form", "attribute"], sort=False):
        at = {row.step: row for row in cast(Any, own.itertuples())}
        first = at[chosen[0]]
        cells = [f"{at[s].answer} ({at[s].probability:.3f})" for s in chosen]
        rows.append((str(form).replace("_", " "), first.question, first.value, *cells))
    name = run.population.name(individual)
    return Table(
        f"{name} ({who}), asked for the {attribute.replace('_', ' ')} in every form: the question, the "
        "right answer, and what the model answers by itself at three checkpoints, with the "
        "probability of the right answer in brackets.",
        ("form", "question", "right answer", *(f"step {s:,}" for s in chosen)),
        rows,
    )
