"""One person's facts asked in every form, against single plain passes and plain hooks."""

import math
import re
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

import interp
from interp.biographies import FORMS, Corpus, TokenKind
from interp.biographies.forms import Form, base
from interp.biographies.forms.phrases import translated
from interp.biographies.tokenizer import PUNCTUATION
from interp.config import Config
from interp.errors import ArgumentError, ConfigError, NothingToMeasureError, RunError
from interp.memory import ask as asking
from interp.memory.asked import ASKED_COLUMNS, Asked
from interp.model import hooked_transformer
from interp.run import Run
from tests.biographies.test_forms import corpus_of, people_of
from tests.every_form import EVERY_FORM, knows_nothing
from tests.helpers import run_cli


@pytest.fixture(scope="module")
def config() -> Config:
    return EVERY_FORM


@pytest.fixture(scope="module")
def every(config: Config) -> Corpus:
    return Corpus.from_config(config)


@pytest.fixture(scope="module")
def model(every: Corpus) -> TransformerBridge:
    return knows_nothing(every)


@pytest.fixture(scope="module")
def asked(model: TransformerBridge, every: Corpus) -> Asked:
    return interp.ask(model, 2, "university", corpus=every)


def ids(corpus: Corpus, text: str) -> list[int]:
    found: list[int] = corpus.tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def test_questions_are_texts_up_to_the_answer(asked: Asked, every: Corpus) -> None:
    people = every.population
    name, facts = people.name(2), people.facts(2)
    table = asked.answers
    assert table.columns.tolist() == list(ASKED_COLUMNS)
    assert set(table["form"]) == set(FORMS) - {"part"}
    assert set(asked.left_out) == {"part"}
    n_wordings = table["form"].value_counts()
    assert n_wordings["biography"] == n_wordings["reordered_name"] == 5
    assert (n_wordings.drop(["biography", "reordered_name"]) == 1).all()
    question = dict(zip(table["form"], table["question"], strict=True))
    assert question["question"].endswith("Answer:")
    assert question["triple"] == f"{name} university"
    assert question["fused"].startswith("person#2 ")
    assert question["mnemonic"].startswith(name)
    others = {fact for attribute, fact in facts.items() if attribute != "university"}
    assert all(fact in question["mnemonic"] for fact in others)
    assert facts["university"] not in question["mnemonic"]
    assert "<unk>" not in " ".join(table["question"])
    by_form = dict(zip(table["form"], table["value"], strict=True))
    assert by_form.pop("inverse") == name
    assert set(by_form.values()) == {facts["university"]}
    assert (table.loc[table["form"] == "inverse", "attribute"] == "name").all()


def test_probabilities_are_those_of_plain_passes(
    asked: Asked, model: TransformerBridge, every: Corpus
) -> None:
    bos = every.tokenizer.bos_token_id
    for row in asked.answers.itertuples():
        question = [bos, *ids(every, str(row.question))]
        languages = range(3) if row.form == "polyglot" else range(1)
        texts = {translated(str(row.value), language) for language in languages}
        whole, firsts = 0.0, {}
        for text in texts:
            answer, chance = ids(every, text), 1.0
            for place, token in enumerate(answer):
                with torch.no_grad():
                    logits = model(torch.tensor([[*question, *answer[:place]]]))[0, -1].double()
                chance *= float(logits.softmax(-1)[token])
                if not place:
                    firsts[token] = float(logits.softmax(-1)[token])
                    first_logits = logits
            whole += chance
        assert row.probability == pytest.approx(whole, rel=1e-3)
        assert row.first_probability == pytest.approx(sum(firsts.values()), rel=1e-3)
        chances = first_logits.softmax(-1)
        chances[list(firsts)] = -1
        assert row.runner_up == every.tokenizer.decode([int(chances.argmax())]).strip()
        assert row.runner_up_probability == pytest.approx(float(chances.max()), rel=1e-3)


def test_answers_are_the_models_own(asked: Asked, model: TransformerBridge, every: Corpus) -> None:
    """Of a model that knows nothing: to punctuation, or to the longest value."""
    bos, tokenizer = every.tokenizer.bos_token_id, every.tokenizer
    values = {tuple(v) for v in every.value_tokens("university")}
    for row in asked.answers[asked.answers["form"].isin(["biography", "question"])].itertuples():
        text, said = [bos, *ids(every, str(row.question))], []
        while len(said) < max(map(len, values)):
            with torch.no_grad():
                token = int(model(torch.tensor([[*text, *said]]))[0, -1].argmax())
            begun = any(v[: len(said) + 1] == (*said, token) for v in values)
            stop = tokenizer.decode([token]) in {*PUNCTUATION, "<pad>", "<bos>"}
            if said and (stop or tuple(said) in values) and not begun:
                break
            said.append(token)
        assert row.answer == tokenizer.decode(said)
        assert row.right == (row.answer == row.value)


@pytest.mark.parametrize("language", [0, 2])
def test_one_who_knows(
    language: int, model: TransformerBridge, every: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that goes on with the right value, in another language too, and then with other text."""
    facts = every.population.facts(2)
    right = {a: ids(every, v) for a, v in facts.items()}
    right["name"] = ids(every, every.population.name(2))
    month = every.tokenizer.convert_tokens_to_ids(facts["birth_date"].split()[1])
    questions, _ = asking._questions(every, 2, list(facts), None, "evaluation", 0)
    wanted: dict[tuple[int, ...], int] = {}
    more = every.tokenizer.convert_tokens_to_ids("Answer")
    for q in questions:
        answer = [month] if q.form == "part" else right[q.attribute]
        if q.form == "polyglot":
            answer = ids(every, translated(q.value, language))
        for place, token in enumerate([*answer, more]):
            wanted[(*q.tokens, *answer[:place])] = token

    def logits_at(_: Any, tokens: Any, rows: Any, places: Any) -> torch.Tensor:
        pairs = zip(rows.tolist(), places.tolist(), strict=True)
        told = [wanted.get(tuple(tokens[r, : p + 1].tolist()), more) for r, p in pairs]
        return 40.0 * torch.nn.functional.one_hot(torch.tensor(told), model.cfg.d_vocab).float()

    monkeypatch.setattr(asking, "logits_at", logits_at)
    found = interp.ask(model, 2, corpus=every, others=0).answers
    assert set(found["form"]) == set(FORMS)
    assert found["right"].all(), found[~found["right"]]
    np.testing.assert_allclose(found["probability"], 1.0, rtol=1e-3)
    told = found[found["form"] == "polyglot"]
    assert (told["answer"] == [translated(v, language) for v in told["value"]]).all()


def test_swaps_are_those_of_plain_hooks(model: TransformerBridge, every: Corpus) -> None:
    questions, _ = asking._questions(every, 2, ["university"], ["question"], "evaluation", 0)
    pairs = asking._swapped(every, 2, ["university"], questions, 16)["question", "university"]
    n = len(pairs)
    assert len({tuple(row) for row in pairs.source.tolist()}) == n > 5
    with torch.no_grad():  # what is predicted counts as right, of all but two
        top = model(pairs.source)[torch.arange(n), pairs.source_read].argmax(-1)
    top[2:4] += 1
    pairs = replace(pairs, source_answer=top)
    at = {"predicts value": pairs.read, "last name": None}
    is_name = pairs.spans.kind == 2
    before = torch.arange(pairs.base.shape[1]) < pairs.read[:, None]
    at["last name"] = torch.where(is_name & before, torch.arange(pairs.base.shape[1]), -1).amax(1)
    table = asking._swap_table(model, pairs)
    assert table["follows"].max() == 1
    for row in table.itertuples():
        follows = []
        for i in [0, 1, *range(4, n)]:
            place = int(at[str(row.position)][i])
            name = f"blocks.{row.layer}.hook_resid_post"
            with torch.no_grad():
                _, cache = model.run_with_cache(pairs.source[i : i + 1], names_filter=[name])
            theirs = cache[name][0, int(pairs.source_position[i, place])]

            def put(value: torch.Tensor, hook: Any, place: int = place, new: Any = theirs) -> Any:
                value = value.clone()
                value[:, place] = new
                return value

            with torch.no_grad():
                logits = model.run_with_hooks(pairs.base[i : i + 1], fwd_hooks=[(name, put)])
            top = int(logits[0, int(pairs.read[i])].argmax())
            follows.append(top == int(pairs.source_answer[i]))
        assert row.n == n - 2
        assert row.follows == pytest.approx(np.mean(follows))


def test_where_an_answer_is_carried_in_words() -> None:
    swaps = pd.DataFrame(
        [
            (9, "question", "major", layer, position, 8, follows, 0.0, 0.1, 1.0, 2.0)
            for position, shares in (
                ("last name", (0.9, 0.7, 0.2)), ("predicts value", (0.0, 0.58, 1.0)),
            )
            for layer, follows in enumerate(shares)
        ],
        columns=[*asking.SWAPPED_COLUMNS, "unpatched", "effect"],
    )  # fmt: skip
    asked = Asked(0, "Ann", False, pd.DataFrame(columns=list(ASKED_COLUMNS)), swaps, {})
    (row,) = asked.sources().itertuples()
    assert (row.name_until, row.read_from, row.known) == (1, 2, True)
    assert "carries it up to layer 1" in repr(asked)
    unknown = Asked(0, "Ann", False, asked.answers, swaps.assign(unpatched=0.0), {})
    assert "not predicted" in repr(unknown)
    nobody = Asked(0, "Ann", False, asked.answers, swaps.assign(n=0, follows=math.nan), {})
    assert "nobody to swap with" in repr(nobody)
    nowhere = Asked(0, "Ann", False, asked.answers, swaps.assign(follows=0.0), {})
    assert nowhere.sources()[["name_until", "read_from"]].isna().all(axis=None)
    assert repr(nowhere)


def test_of_a_run(smoke_run: Run) -> None:
    first, last = smoke_run.steps[0], smoke_run.steps[-1]
    name = smoke_run.population.name(4)
    found = interp.ask(smoke_run, name, "Birth-Place", steps=[first, last], others=4)
    assert found.answers["step"].unique().tolist() == [first, last]
    assert set(found.answers["form"]) <= {"biography", "reordered_name", "mnemonic", "inverse"}
    assert "does not know" in found.left_out["question"]
    assert "nothing can be said" in repr(found)
    one = interp.ask(smoke_run, 4, "birth place", step=first, others=4)
    both = found.answers[found.answers["step"] == first].reset_index(drop=True)
    pd.testing.assert_frame_equal(one.answers, both)
    model = smoke_run.model(first)
    mine = interp.ask({first: model}, 4, "birth_place", corpus=smoke_run.corpus, others=4)
    pd.testing.assert_frame_equal(one.answers, mine.answers)
    train = interp.ask(smoke_run, 4, "birth_place", forms="biography", wordings="train", others=0)
    assert len(train.answers) == 20
    assert train.swaps.empty
    held_out = interp.ask(smoke_run, len(smoke_run.population) - 1, "major", forms="biography")
    assert held_out.held_out
    assert "held out" in repr(held_out)


def test_values_of_several_tokens_that_some_lack(config: Config) -> None:
    population = people_of(1, missing=True)
    corpus = corpus_of(population, [f for f in FORMS if f != "part"])
    model = hooked_transformer(
        config.with_settings(**{"model.n_ctx": 256}), corpus.tokenizer
    ).eval()
    for person in range(len(population)):
        facts = population.facts(person)
        if not facts:
            with pytest.raises(NothingToMeasureError, match="no fact"):
                interp.ask(model, person, corpus=corpus)
            continue
        found = interp.ask(model, person, corpus=corpus, others=3)
        assert set(found.answers["attribute"]) == {*facts, "name"}
        assert math.isfinite(found.answers["probability"].sum())
        for attribute in set(corpus.attributes) - set(facts):
            with pytest.raises(
                NothingToMeasureError, match=f"has no {attribute}".replace("_", " ")
            ):
                interp.ask(model, person, attribute, corpus=corpus)


REFUSED: dict[str, tuple[Callable[[Run], Any], type[Exception], str]] = {
    "person": (lambda run: interp.ask(run, "Nobody Atall"), RunError, "called 'Nobody Atall'"),
    "attribute": (lambda run: interp.ask(run, 0, "univresity"), ArgumentError, "university"),
    "form": (lambda run: interp.ask(run, 0, forms="qestion"), ConfigError, "'question'"),
    "words": (lambda run: interp.ask(run, 0, forms="question"), ConfigError, "does not know"),
    "no form": (lambda run: interp.ask(run, 0, forms=()), ArgumentError, "No form"),
    "both": (lambda run: interp.ask(run, 0, step=0, steps=[0]), ArgumentError, "both"),
    "wordings": (lambda run: interp.ask(run, 0, wordings="eval"), ArgumentError, "wordings"),
    "adapter": (lambda run: interp.ask(run, 0, adapter="on"), RunError, "no adapter"),
    "corpus": (lambda run: interp.ask(run.model(), 0), ArgumentError, "Give corpus"),
    "part": (
        lambda run: interp.ask(run, 0, "major", forms="biograhpy"), ConfigError, "Did you mean",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case: str, smoke_run: Run) -> None:
    call, error, says = REFUSED[case]
    with pytest.raises(Exception, match=says) as caught:
        call(smoke_run)
    if case != "wordings":  # beartype is first where it is on
        assert isinstance(caught.value, error)
        assert "\n" not in str(caught.value)


def test_the_command(smoke_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, csv = smoke_run.population.name(4), tmp_path / "answers"
    words = ["ask", smoke_run.path, name, "birth-place", "--others", 4]
    assert run_cli(*words, "--steps", "first,last", "middle", "--csv", csv) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert name in printed.splitlines()[0]
    assert "not asked: question: The tokenizer does not know" in printed
    assert printed.splitlines()[-1] == f"{csv}.csv"
    every = smoke_run.steps
    steps = sorted({every[0], every[len(every) // 2], every[-1]})
    found = interp.ask(smoke_run, name, "birth_place", steps=steps, others=0).answers
    table = pd.read_csv(f"{csv}.csv")
    assert table["question"].tolist() == found["question"].tolist()
    assert table["step"].unique().tolist() == steps
    assert all(str(question) in printed for question in found["question"])
    assert run_cli(*words, "--form", "mnemonic", "--csv", csv) == 0  # its own table is replaced
    assert set(pd.read_csv(f"{csv}.csv")["form"]) == {"mnemonic"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["Nobody At All"], "Nobody in this population"),
        (["0", "majr"], "Did you mean 'major'"),
        (["0", "major", "--step", "41"], "no checkpoint at step 41"),
        (["0", "major", "--steps", "41"], "no checkpoint at step 41"),
        (["0", "major", "--steps", "frist"], "Did you mean 'first'"),
        (["0", "major", "--steps", "plateau"], "'plateau' is not known"),
        (["0", "major", "--steps", ","], "No step is named"),
        (["0", "major", "--step", "0", "--steps", "0"], "both"),
        (["0", "major", "--form", "question"], "does not know the words"),
        (["0", "major", "--adapter", "on"], "no adapter at step"),
        (["0", "major", "--adapter", "beside"], "merged"),
        (["0", "major", "--others", "-1"], "others=-1"),
    ],
)
def test_the_command_refuses(
    arguments: list[str], says: str, smoke_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("ask", smoke_run.path, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert says in error
    assert error.count("\n") == 1


def test_a_form_of_ones_own(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    doc = str(base.__doc__)
    (code,) = re.findall(r"```python\n(.*?)```", doc, re.DOTALL)
    given: dict[str, Any] = {"Form": Form, "PieceRow": base.PieceRow, "TokenKind": TokenKind}
    exec(compile(textwrap.dedent(code), "base.py", "exec"), given)
    monkeypatch.setitem(FORMS, "motto", given["Motto"])
    settings = config.with_settings(**{"data.vocabulary": ("motto",), "model.n_ctx": 128})
    corpus = Corpus.from_config(settings)
    model = hooked_transformer(settings, corpus.tokenizer).eval()
    found = interp.ask(model, 2, "birth_place", forms="motto", corpus=corpus).answers
    assert found["question"].tolist() == [f"always remember {corpus.population.name(2)}"]
    assert found["value"].tolist() == [corpus.population.facts(2)["birth_place"]]
    assert len(interp.answers(model, corpus, "motto")) == corpus.population.config.n_individuals
    longest = corpus.sequences(slice(None), "motto").tokens.shape[1]
    assert longest <= corpus.form("motto").longest
