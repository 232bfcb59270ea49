"""The studies of forms and of mnemonic phrases: their runs, measures, claims and figures."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pandas as pd
import pytest

from interp.asking import answers
from interp.biographies import Corpus
from interp.charts.style import caption
from interp.errors import ConfigError
from interp.run import Run
from interp.studies import forms, mnemonic
from interp.studies.forms_measured import FORMS_ASKED, accuracy, inside
from interp.studies.mnemonic_measured import curves, prose_steps, recall
from tests.helpers import read_back

SETTINGS = forms.FormsSettings(preset="smoke", seeds=(0,), biographies=((1, "fixed"),), n_steps=4)


@pytest.fixture(scope="module")
def mixed(trained: Callable[..., Run]) -> Run:
    return trained(forms.planned(SETTINGS)[0].config)


def test_runs_of_the_study_of_forms() -> None:
    plans = forms.planned(forms.FormsSettings())
    assert len(plans) == 3 * 8 * 3
    described = set()
    for plan in plans:
        config = plan.config
        corpus = Corpus.from_config(config)
        question = next(f for f in config.data.stages[0].forms if f.form == "question")
        assert question.people == (0, 0.5)
        assert config.data.vocabulary is not None
        if plan.base is None:
            assert [form.form for form in config.data.stages[0].forms] == ["biography", "question"]
        else:
            base = Corpus.from_config(plan.base.config)
            assert base.data.stages is None
            assert base.tokenizer.get_vocab() == corpus.tokenizer.get_vocab()
            assert question.loss == "answers"
        described.add(
            (
                config.seed,
                config.data.wordings,
                config.data.order,
                config.adapter.rank,
                plan.base is None,
            )
        )
        if len(described) > 3:
            break  # each builds a tokenizer
    assert len({str(plan.config.identity()) for plan in plans}) == len(plans)


def test_a_recurrent_model_has_nothing_to_read() -> None:
    with pytest.raises(ConfigError, match="recurrence"):
        forms.planned(forms.FormsSettings(run={"model.recurrence": "rg_lru"}))


def test_accuracy_of_those_asked_and_the_others(mixed: Run) -> None:
    model, corpus = mixed.model(), mixed.corpus
    table = accuracy(model, corpus, 12)
    assert set(table["form"]) == set(FORMS_ASKED)
    own = answers(model, corpus, "question", slice(12, 24))
    found = table.query("group == 'others' and form == 'question' and attribute == 'major'")
    assert found["accuracy"].item() == own.query("attribute == 'major'")["right"].mean()
    assert found["loss"].item() == pytest.approx(own.query("attribute == 'major'")["loss"].mean())


def test_the_same_texts_have_the_same_neurons_and_heads(
    mixed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control of the measure itself: questions that are biographies."""
    draw = Corpus.sequences
    monkeypatch.setattr(
        Corpus,
        "sequences",
        lambda self, people, form, *more: draw(self, people, "biography", *more),
    )
    table = inside(mixed.model(), mixed.corpus, 12).set_index(["measure", "form", "layer"])
    for layer in (0, 1):
        assert table.loc[("neurons", "question", layer), "value"] == pytest.approx(1, abs=1e-5)
        assert table.loc[("neurons", "question", layer), "control"] < 0.9
    assert ("swap", "biography", 0) in table.index


KINDS = (("few", 1, "fixed"), ("many", 20, "shuffled"))


def made_up(
    question: dict[tuple[str, str], float], inverse: float = 0.0
) -> dict[str, pd.DataFrame]:
    """Tables in which people are known, with these accuracies on questions about the others."""
    rows, within = [], []
    for seed, (kind, k, order), questions in product(
        (0, 1, 2), KINDS, ("mixed", "all weights", "adapter")
    ):
        apart = {
            "seed": seed, "people": 512, "steps": 1500, "wordings": k, "order": order, "questions": questions,
        }  # fmt: skip
        asked = question.get((kind, questions), 0.5)
        values = {
            "wording seen": 0.99, "wording unseen": asked, "question": asked, "inverse": inverse, "part": 0.0,
            "reordered name": asked,
        }  # fmt: skip
        for group, (form, value) in product(("asked", "others"), values.items()):
            rows.append(
                apart
                | {"group": group, "form": form, "attribute": "all", "accuracy": value, "loss": 1.0}
            )
        for form in ("biography", "question"):
            within.append(
                apart | {"form": form, "measure": "swap", "layer": 0, "control": 0.0,
                         "value": 0.9 if form == "biography" else asked}
            )  # fmt: skip
    return {"accuracy": pd.DataFrame(rows), "inside": pd.DataFrame(within)}


KNOWN = {
    ("few", "mixed"): 0.9, ("few", "all weights"): 0.1, ("many", "mixed"): 0.99,
    ("many", "all weights"): 0.97, ("many", "adapter"): 0.95,
}  # fmt: skip


def verdicts(tables: dict[str, pd.DataFrame]) -> list[str]:
    return [claim.verdict for claim in forms.claims(tables)]


def test_what_the_source_reports_agrees() -> None:
    found = verdicts(made_up({**KNOWN, ("few", "mixed"): 0.75}))
    assert found[:4] == ["agree"] * 4
    assert found[5:] == ["agree", "agree"]


@pytest.mark.parametrize(
    ("changed", "which"),
    [
        ({("few", "all weights"): 0.5}, 0),
        ({("many", "all weights"): 0.3}, 1),
        ({("few", "mixed"): 0.1}, 2),
        ({("many", "adapter"): 0.5}, 5),
        ({("many", "mixed"): 0.3}, 6),
    ],
)
def test_the_contrary_disagrees(changed: dict[tuple[str, str], float], which: int) -> None:
    assert verdicts(made_up(KNOWN | changed))[which] == "disagree"


def test_inverse_questions_that_are_answered_disagree() -> None:
    assert verdicts(made_up(KNOWN, inverse=0.3))[3] == "disagree"


def test_form_independence_has_to_rise() -> None:
    assert verdicts(made_up({**KNOWN, ("few", "mixed"): 0.2}))[4] == "agree"
    assert verdicts(made_up({**KNOWN, ("few", "mixed"): 0.95}))[4] == "disagree"


def test_people_who_are_not_known_tell_nothing() -> None:
    tables = made_up(KNOWN)
    seen = tables["accuracy"]["form"] == "wording seen"
    tables["accuracy"].loc[seen, "accuracy"] = 0.4
    assert set(verdicts(tables)[:6]) == {"cannot tell"}
    assert verdicts({}) == ["cannot tell"] * 7


def test_numbers_that_rules_about_forms_read() -> None:
    tables = made_up(KNOWN, inverse=0.02)
    seen = tables["accuracy"]
    adapters = (seen["wordings"] == 20) & (seen["questions"] == "adapter")
    before = (seen["form"] == "wording seen") & (seen["seed"] == 2)
    seen.loc[adapters & before, "accuracy"] = 0.4  # not known there
    found = [
        {one.group: list(one.values) for one in claim.readings} for claim in forms.claims(tables)
    ]
    independence = (0.99 - 0.9) / 0.99
    assert [one[""] for one in (*found[:3], *found[4:6])] == [
        pytest.approx(values)
        for values in ([0.1] * 3, [0.97] * 3, [0.9] * 3, [independence] * 3, [0.97 - 0.95] * 2)
    ]
    several = {
        f"{when} with {kind} wordings": 3 for kind in ("few", "many") for when in
        ("mixed", "all weights", "adapter")
    } | {"adapter with many wordings": 2}  # fmt: skip
    assert {name: len(values) for name, values in found[3].items()} == several
    follows, times = [one.values for one in forms.claims(tables)[6].readings]
    assert (follows, times) == (pytest.approx((0.9,) * 3), pytest.approx((1.1,) * 3))


def test_tables_read_back_say_and_draw_the_same() -> None:
    tables = made_up(KNOWN)
    again = read_back(tables)
    assert forms.claims(again) == forms.claims(tables)
    figures = forms.figures(again)
    assert set(figures) == {"forms-accuracy", "forms-contrast", "forms-inside"}
    assert all("Look" in caption(figure) for figure in figures.values())
    assert forms.figures({}) == {}


# Mnemonic phrases


def test_runs_of_the_study_of_mnemonic_phrases() -> None:
    settings = mnemonic.MnemonicSettings(seeds=(0,))
    plans = mnemonic.planned(settings)
    assert len(plans) == 15
    by_budget = {
        (condition, budget): settings.condition(0, condition, budget)
        for condition, budget in product(mnemonic.CONDITIONS, ("steps", "prose"))
    }
    assert {c.training.n_steps for (_, b), c in by_budget.items() if b == "steps"} == {1500}
    for (condition, budget), config in by_budget.items():
        stages = config.data.stages
        assert stages is not None
        if condition not in ("prose", "mixed"):
            assert len(stages) == 2
            names = [stage.forms[0].form for stage in stages]
            assert names == ["biography" if p.startswith(" prose") or p == "prose" else p.split()[0]
                             for p in condition.split(",")]  # fmt: skip
            assert [stage.weights == "adapter" for stage in stages] == [
                "adapter" in part for part in condition.split(",")
            ]
        if budget == "prose":
            seen = sum(
                (config.data.stage_end(stage, config.training.n_steps) - stage.start)
                * next((f.weight for f in stage.forms if f.form == "biography"), 0)
                / sum(f.weight for f in stage.forms)
                for stage in stages
            )
            assert seen == 1500
    alike = {str(config.identity()) for config in by_budget.values()}
    assert len(alike) == 15


@pytest.fixture(scope="module")
def phrases(trained: Callable[..., Run]) -> Run:
    settings = mnemonic.MnemonicSettings(preset="smoke", seeds=(0,), run={"evaluation.every": 10})
    return trained(settings.condition(0, "mnemonic, prose in an adapter", "steps"))


def test_what_runs_on_phrases_are_asked(phrases: Run) -> None:
    assert [prose_steps(phrases, step) for step in (0, 20, 30, 40)] == [0, 0, 10, 20]
    table = curves(phrases)
    assert table.set_index("step")["stage"].loc[[0, 20, 30, 40]].tolist() == [0, 0, 1, 1]
    assert table["accuracy"].tolist() == phrases.curve("attribute_accuracy").tolist()
    asked = recall(phrases)
    assert set(zip(asked["when"], asked["form"], strict=True)) == set(
        product(("boundary", "end"), ("biography", "mnemonic"))
    )
    settings = mnemonic.MnemonicSettings(preset="smoke", seeds=(0,), run={"evaluation.every": 10})
    tables = mnemonic.tables(settings, [phrases])
    off = tables["adapters"].query("adapter == 'off'").set_index("form")["accuracy"]
    boundary = tables["recall"].query("when == 'boundary'").set_index("form")["accuracy"]
    pd.testing.assert_series_equal(off.sort_index(), boundary.sort_index())
    assert tables["memory"].groupby("position").size().to_dict() == {
        **{f"every {which}name": 4 for which in ("", "first ", "middle ", "last ")},
        "predicts value": 4,
    }


def phrase_tables(
    until: dict[str, int], prose: dict[str, float], phrase: dict[tuple[str, str], float], on: float
) -> dict[str, pd.DataFrame]:
    """Tables with these steps until half is known, accuracies in prose and recall of phrases."""
    curve, recalled, adapter, memory = [], [], [], []
    for seed in (0, 1, 2):
        for condition, step in until.items():
            for at in (0, step, 1500):
                curve.append(
                    {"seed": seed, "condition": condition, "budget": "prose", "step": at, "stage": 0,
                     "prose_step": at, "accuracy": 0.0 if at < step else 0.6, "loss": 1.0}
                )  # fmt: skip
        apart = {"seed": seed, "budget": "steps", "loss": 1.0}
        for condition, value in prose.items():
            recalled.append(
                apart
                | {"condition": condition, "when": "end", "form": "biography", "accuracy": value}
            )
            memory.append({"seed": seed, "condition": condition, "budget": "steps", "layer": 0,
                           "site": "resid_post", "position": "every name", "follows": 0.5,
                           "control": 0.0})  # fmt: skip
        for (condition, when), value in phrase.items():
            recalled.append(
                apart
                | {"condition": condition, "when": when, "form": "mnemonic", "accuracy": value}
            )
        for use, form in product(("on", "off"), ("biography", "mnemonic")):
            value = on if (use, form) == ("on", "biography") else 0.9
            found = {"adapter": use, "form": form, "accuracy": value}
            adapter.append(apart | found | {"condition": "mnemonic, prose in an adapter"})
    names = ("curves", "recall", "adapters", "memory")
    return {
        n: pd.DataFrame(t) for n, t in zip(names, (curve, recalled, adapter, memory), strict=True)
    }


FIRST, LAST, ADAPTER = "mnemonic, prose", "prose, mnemonic", "mnemonic, prose in an adapter"
UNTIL = {"prose": 600, FIRST: 300}
PROSE = {"prose": 0.9, FIRST: 0.9, "mixed": 0.8, LAST: 0.3, ADAPTER: 0.85}
PHRASES = {
    (FIRST, "boundary"): 0.9,
    (FIRST, "end"): 0.2,
    ("mixed", "end"): 0.7,
    (ADAPTER, "boundary"): 0.9,
}


def test_claims_about_phrases() -> None:
    tables = phrase_tables(UNTIL, PROSE, PHRASES, on=0.85)
    assert [claim.verdict for claim in mnemonic.claims(tables)] == ["agree"] * 5
    contrary = phrase_tables(
        {"prose": 600, FIRST: 590}, {**PROSE, LAST: 0.95},
        {**PHRASES, (FIRST, "end"): 0.9, ("mixed", "end"): 0.9}, on=0.2,
    )  # fmt: skip
    assert [claim.verdict for claim in mnemonic.claims(contrary)] == ["disagree"] * 5
    nothing = phrase_tables(
        {FIRST: 300}, dict.fromkeys(PROSE, 0.1), dict.fromkeys(PHRASES, 0.1), 0.1
    )
    assert {claim.verdict for claim in mnemonic.claims(nothing)} == {"cannot tell"}


def test_numbers_that_rules_about_phrases_read() -> None:
    tables = phrase_tables(UNTIL, PROSE, {**PHRASES, (ADAPTER, "boundary"): 0.8}, on=0.72)
    recalled = tables["recall"]
    forgotten = (recalled["seed"] == 2) & (recalled["when"] == "boundary")
    recalled.loc[forgotten, "accuracy"] = 0.4
    found = [
        {one.group: list(one.values) for one in claim.readings} for claim in mnemonic.claims(tables)
    ]
    assert found[0] == {"": pytest.approx([300 / 600] * 3)}
    assert found[1:3] == [
        {"": pytest.approx([0.7 - 0.2] * 2)},
        {"": pytest.approx([0.9 - 0.7] * 2)},
    ]
    assert found[3] == {
        name: pytest.approx([value - 0.3] * 3) for name, value in
        (("prose alone", 0.9), ("phrases first", 0.9), ("both mixed", 0.8))
    }  # fmt: skip
    kept, carried = (one.values for one in mnemonic.claims(tables)[4].readings)
    assert kept == pytest.approx((0.9 / 0.8,) * 2)  # of what the same run recalled
    assert carried == pytest.approx((0.72 / 0.9,) * 2)  # of prose where all weights learn it


def test_figures_about_phrases() -> None:
    tables = read_back(phrase_tables(UNTIL, PROSE, PHRASES, on=0.85))
    figures = mnemonic.figures(tables)
    assert set(figures) == {
        "mnemonic-prose",
        "mnemonic-recall",
        "mnemonic-adapters",
        "mnemonic-memory",
    }
    assert all("Look" in caption(figure) for figure in figures.values())
    assert np.isfinite(tables["curves"]["accuracy"]).all()
