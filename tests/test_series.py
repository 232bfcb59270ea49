"""Every measure on texts, facts and models that are no run's: a series is a plain dict of models."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import interp
from interp import hooked_transformer
from interp.attention import (
    attention_scores,
    attention_to_names,
    head_roles,
    knockout,
    knockout_costs,
)
from interp.biographies import Corpus, Spans, Texts
from interp.config import Config
from interp.errors import ArgumentError, CheckpointError, ConfigError, RunError
from interp.interventions import Pairs
from interp.memory import (
    MECHANISMS,
    FactDraws,
    FactLabels,
    FactTexts,
    ablation_costs,
    ablations,
    cache_activations,
    emergence_steps,
    measure_memory,
    mechanism_strengths,
    recall_edges,
    swaps,
)
from interp.phases import Phases
from interp.run import Run
from interp.series import (
    Models,
    informative_steps,
    models_at,
    nearest_step,
    nearest_steps,
    over_steps,
    steps_around_plateau,
)
from tests.helpers import ended, wait_for, workers_of

RELATIONS = ("capital", "language")
N_SUBJECTS = 12
BOS, FIRST_WORD, FIRST_ANSWER, FIRST_NAME = 1, 10, 40, 60


def subject_tokens(subject: int) -> list[int]:
    """A name of one to four tokens."""
    return [FIRST_NAME + 4 * subject + i for i in range(1 + subject % 4)]


def answer_tokens(subject: int, relation: int) -> list[int]:
    """One or two tokens, shared with other subjects."""
    first = FIRST_ANSWER + 8 * relation + subject % 3
    return [first] if relation == 0 else [first, first + 4]


def text(subject: int, wording: int, told: tuple[int, ...] = (0, 1)) -> tuple[list[int], Spans]:
    """<bos>, and for each relation: words, the name, words, a word of the relation, the answer."""
    tokens: list[int] = [BOS]
    sentences, names, values, types = [], [], [], []
    for relation in told:
        begin = len(tokens)
        tokens += [FIRST_WORD + 5 * wording + relation]
        names.append((len(tokens), len(tokens) + len(subject_tokens(subject))))
        tokens += subject_tokens(subject)
        types.append((len(tokens), len(tokens) + 1))
        tokens += [FIRST_WORD + 20 + relation, FIRST_WORD + 2 + wording]
        values.append((len(tokens), len(tokens) + len(answer_tokens(subject, relation))))
        tokens += answer_tokens(subject, relation)
        sentences.append((begin, len(tokens)))
    return tokens, Spans.from_lists(
        len(tokens), sentences=sentences, names=names, values=values, types=types
    )


def as_texts(parts: list[tuple[list[int], Spans]]) -> Texts:
    spans = Spans.stack([spans for _, spans in parts])
    tokens = torch.zeros(spans.kind.shape, dtype=torch.int64)
    for row, (ids, _) in enumerate(parts):
        tokens[row, : len(ids)] = torch.tensor(ids)
    return Texts(tokens, spans)


def as_facts(wording: int, subjects: Sequence[int] = range(N_SUBJECTS)) -> FactTexts:
    """Both relations in one text."""
    n = len(subjects)
    return FactTexts(
        as_texts([text(subject, wording) for subject in subjects]),
        torch.tensor(list(subjects)),
        torch.arange(n)[:, None].expand(-1, 2),
        torch.tensor([[0, 1]]).expand(n, -1),
        torch.full((n, 2), wording),
    )


@pytest.fixture(scope="module")
def models(smoke: Config, corpus: Corpus) -> dict:
    found = {}
    for step in (0, 40, 100):
        model = hooked_transformer(smoke, corpus.tokenizer)
        generator = torch.Generator().manual_seed(step)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
        found[step] = model
    return found


@pytest.fixture(scope="module")
def texts() -> Texts:
    return as_texts([text(subject, 0) for subject in range(N_SUBJECTS)])


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    """Subjects with names of the same length, and other answers."""
    subjects = [s for s in range(N_SUBJECTS) if s + 4 < N_SUBJECTS]
    base = as_texts([text(s, 0, (0,)) for s in subjects])
    source = as_texts([text(s + 4, 0, (0,)) for s in subjects])
    read = base.spans.value_start[:, 0] - 1
    rows = torch.arange(len(subjects))
    return Pairs.of_tokens(
        base.tokens, source.tokens, base.spans, read,
        base.tokens[rows, read + 1], source.tokens[rows, read + 1],
    )  # fmt: skip


@pytest.fixture(scope="module")
def facts() -> FactDraws:
    answers = {
        relation: [answer_tokens(s, index) for s in range(N_SUBJECTS)]
        for index, relation in enumerate(RELATIONS)
    }
    labels = FactLabels.from_answers(answers)
    return FactDraws(labels, [as_facts(w) for w in (0, 1, 2)], [as_facts(w) for w in (3, 1)])


def test_attention(models, texts: Texts) -> None:
    table = attention_to_names(models, texts=texts, batch_size=5)
    assert table["step"].unique().tolist() == [0, 40, 100]
    one = attention_scores(models[40], texts)
    at_40 = table[table["step"] == 40].drop(columns="step").reset_index(drop=True)
    pd.testing.assert_frame_equal(at_40, one)
    pd.testing.assert_frame_equal(attention_scores(models[40], [(texts.tokens, texts.spans)]), one)
    assert one.query("metric == 'attribute_to_name'")["value"].between(0.01, 0.99).all()
    assert len(head_roles(table)) == 3 * models[0].cfg.n_layers * models[0].cfg.n_heads


def loss_of_values(model, texts: Texts) -> float:
    """The cross-entropy of all value tokens over the number of values, one token at a time."""
    with torch.no_grad():
        log_p = model(texts.tokens).log_softmax(-1)
    total, n = 0.0, 0
    for row in range(len(texts)):
        subject = row
        for relation in (0, 1):
            start = int(texts.spans.value_start[row, relation])
            for i, token in enumerate(answer_tokens(subject, relation)):
                assert texts.tokens[row, start + i] == token
                total -= float(log_p[row, start + i - 1, token])
            n += 1
    return total / n


def test_knockout_and_ablation(models, texts: Texts) -> None:
    model = models[40].eval()
    costs = knockout_costs(model, texts, batch_size=5)
    ablated = ablation_costs(model, texts, batch_size=5)
    expected = loss_of_values(model, texts)
    assert costs["intact"].iloc[0] == pytest.approx(expected, rel=1e-5)
    assert ablated["intact"].iloc[0] == pytest.approx(expected, rel=1e-5)
    assert costs.query("edge == 'attribute_to_name'")["cost"].abs().max() > 1e-3
    for measure, one in ((knockout, costs), (ablations, ablated)):
        table = measure(models, texts=texts)
        assert table["step"].unique().tolist() == [0, 40, 100]
        at_40 = table[table["step"] == 40].drop(columns="step").reset_index(drop=True)
        pd.testing.assert_frame_equal(at_40, one, rtol=1e-5)


def test_swaps_and_edges(models, pairs: Pairs) -> None:
    table = swaps(models, pairs={"prompts": pairs})
    assert table["step"].unique().tolist() == [0, 40, 100]
    assert table["sentences"].unique().tolist() == ["prompts"]
    whole = table.query("site == 'resid_pre' and layer == 0 and position == 'every name'")
    assert (whole["n"] == len(pairs)).all()
    edges = recall_edges(models, pairs=pairs)
    assert edges["step"].unique().tolist() == [0, 40, 100]


def test_memory(models, facts: FactDraws) -> None:
    tables = measure_memory(models, facts=facts)
    for table in (tables.keys, tables.values, tables.probes):
        assert table["step"].unique().tolist() == [0, 40, 100]
        assert set(table["position"]) == {"last name", "predicts value"}
    assert set(tables.probes["attribute"]) == {"all", *RELATIONS}
    assert set(tables.values["attribute"]) == {"all", *RELATIONS}
    # Subjects differ at their last token, whatever the wording.
    selectivity = tables.keys.query("metric == 'selectivity' and position == 'last name'")["value"]
    assert selectivity.min() > 0.3
    namesakes = tables.keys.query("metric == 'similarity_namesake'")["value"]
    assert namesakes.isna().all()


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_activations_are_read_where_facts_are_told(models, batch_size: int) -> None:
    """Facts of one text each, in any order of texts, against TransformerLens' cache."""
    model = models[40].eval()
    order = np.random.default_rng(0).permutation(2 * N_SUBJECTS)
    told = [(s, r) for s in range(N_SUBJECTS) for r in (0, 1)]
    shuffled = [told[i] for i in order]
    row = torch.zeros(N_SUBJECTS, 2, dtype=torch.int64)
    for index, (s, r) in enumerate(shuffled):
        row[s, r] = index
    texts = as_texts([text(s, 1, (r,)) for s, r in shuffled])
    zeros = torch.zeros_like(row)
    read = interp.memory.cache_activations(
        model,
        [FactTexts(texts, torch.arange(N_SUBJECTS), row, zeros, zeros)],
        batch_size=batch_size,
    )
    assert read.positions == ("last name", "predicts value")
    with torch.no_grad():
        _, cache = model.run_with_cache(texts.tokens)
    for (s, r), index in zip(shuffled, range(len(shuffled)), strict=True):
        tokens, _ = text(s, 1, (r,))
        name_end = 1 + len(subject_tokens(s))
        predicts = len(tokens) - len(answer_tokens(s, r)) - 1
        for place, position in enumerate((name_end, predicts)):
            for (site, layer), stream in read.residual.items():
                own = cache[f"blocks.{layer}.hook_{site}"][index, position]
                torch.testing.assert_close(stream[place, r, 0, s], own, rtol=1e-4, atol=1e-5)
            for layer, neurons in read.neurons.items():
                own = cache[f"blocks.{layer}.mlp.hook_post"][index, position]
                torch.testing.assert_close(neurons[place, r, 0, s], own, rtol=1e-4, atol=1e-5)


def test_a_series_of_another_class(models, texts: Texts) -> None:
    class OnDisk:
        steps = [0, 40, 100]  # noqa: RUF012
        known_phases = Phases(10, 60, 5.0, 0.05)

        def models(self, steps, device=None) -> Iterator:
            for step in steps:
                yield step, models[step]

    assert informative_steps(OnDisk()) == [0, 40, 100]
    assert informative_steps(Models(models, Phases(0, 40, 5.0, 0.05))) == [0, 40, 100]
    assert steps_around_plateau(OnDisk()) == [0, 40, 100]
    pd.testing.assert_frame_equal(
        attention_to_names(OnDisk(), texts=texts), attention_to_names(models, texts=texts)
    )


def test_workers_give_the_same(models, texts: Texts) -> None:
    table = attention_to_names(models, texts=texts, workers=1)
    pd.testing.assert_frame_equal(attention_to_names(models, texts=texts), table, rtol=1e-5)
    pd.testing.assert_frame_equal(attention_to_names(models, texts=texts, workers=2), table)


@pytest.mark.slow
def test_workers_end_with_the_process_that_measures(short_run: Run, child, tmp_path: Path) -> None:
    code = """
import time
from pathlib import Path
from interp.run import Run
from interp.series import over_steps
over_steps(Run.load(out[0]), id, workers=2)
Path(out[1]).touch()
time.sleep(60)
"""
    measured = tmp_path / "measured"
    driver = child(code, (str(short_run.path), str(measured)))
    wait_for(measured.exists)
    workers = workers_of(driver.process.pid)
    assert len(workers) == 2, driver.error
    driver.process.kill()
    wait_for(lambda: ended(workers), timeout=15)


def test_what_cannot_be_sent_to_workers_is_refused(models, texts: Texts) -> None:
    class Locked(Models):
        lock = threading.Lock()

    with pytest.raises(ConfigError, match="Leave workers out"):
        attention_to_names(Locked(models), texts=texts, workers=2)


def test_models_are_left_as_they_were(models, texts: Texts, facts: FactDraws, pairs: Pairs) -> None:
    for model in models.values():
        model.train()
    knockout(models, texts=texts, steps=[40])
    measure_memory(models, [40], facts=facts)
    swaps(models, [40], pairs={"prompts": pairs})
    for model in models.values():
        assert model.training
        assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_nearest_steps() -> None:
    assert nearest_step([0, 10, 20], 15) == 10
    assert nearest_step([0, 10, 20], 15.1) == 20
    assert nearest_steps([0, 10, 20], [19, 0, 21, 4]) == [0, 20]


def test_bad_input(models, texts: Texts, facts: FactDraws) -> None:
    class Stepless:
        steps: list[int] = []  # noqa: RUF012
        known_phases = None

        def models(self, steps, device=None) -> Iterator:
            yield from ()

    cases = [
        (lambda: attention_to_names(models), ConfigError, "Give texts"),
        (lambda: swaps(models), ConfigError, "Give pairs"),
        (lambda: measure_memory(models), ConfigError, "Give facts"),
        (lambda: attention_to_names({}, texts=texts), RunError, "no checkpoint"),
        (lambda: attention_to_names(Stepless(), texts=texts), RunError, "no checkpoint"),
        (lambda: attention_to_names(models, [7], texts=texts), CheckpointError, "step 7"),
        (lambda: attention_to_names(models, [], texts=texts), ConfigError, "steps=\\[\\]"),
        (lambda: list(models_at(models, [0, 41])), CheckpointError, "step 41"),
        (lambda: over_steps(models, lambda model: 0, workers=0), ConfigError, "workers=0"),
        (lambda: texts[:0], ConfigError, "no texts"),
        (lambda: FactLabels.from_answers({}), ConfigError, "at least one relation"),
        (lambda: FactLabels.from_answers({"capital": [[3], []]}), ConfigError, "without tokens"),
        (
            lambda: FactLabels.from_answers({"capital": [[3]], "language": [[4], [5]]}),
            ConfigError,
            "for each subject",
        ),
        (
            lambda: measure_memory(
                models,
                [40],
                facts=FactDraws(
                    FactLabels.from_answers({"capital": [[40]] * N_SUBJECTS}),
                    facts.training,
                    facts.evaluation,
                ),
            ),
            ConfigError,
            "2 relations are told, but there are labels for 1",
        ),
    ]
    for call, error, words in cases:
        with pytest.raises(error, match=words):
            call()


def test_facts_have_a_name_and_a_value(texts: Texts) -> None:
    no_name = Spans.from_lists(4, sentences=[(0, 4)], names=[])
    alone_text = Texts(torch.tensor([[1, 2, 3, 4]]), no_name)
    one = torch.zeros(1, 1, dtype=torch.int64)
    with pytest.raises(ConfigError, match="without a name"):
        FactTexts(alone_text, torch.tensor([0]), one, one, one)
    with pytest.raises(ConfigError, match="not there"):
        FactTexts(texts, torch.tensor([0]), one + 99, one, one)
    with pytest.raises(ConfigError, match="no value"):
        knockout_costs(hooked_transformer(interp.preset("smoke")), alone_text)


def test_texts_are_taken_apart(texts: Texts) -> None:
    parts = list(texts.split(5))
    assert [len(part) for part in parts] == [5, 5, 2]
    assert parts[0].tokens.shape[1] == max(len(text(s, 0)[0]) for s in range(5))

    def same(a: Tensor, b: Tensor) -> bool:
        return torch.equal(a, b[:, : a.shape[1]])

    assert same(parts[1].tokens, texts.tokens[5:10])
    assert same(parts[1].spans.kind, texts.spans.kind[5:10])


def test_errors_about_arguments_are_value_errors(models, texts: Texts) -> None:
    with pytest.raises(ValueError, match="steps="):
        attention_to_names(models, [], texts=texts)
    with pytest.raises(ValueError, match="no site"):
        interp.interventions.sites.site_named("resid")


def test_the_middle_of_names_is_read_where_all_have_one(models) -> None:
    model = models[40]
    long = [s for s in range(N_SUBJECTS) if len(subject_tokens(s)) >= 3]
    answers = {
        relation: [answer_tokens(s, index) for s in range(N_SUBJECTS)]
        for index, relation in enumerate(RELATIONS)
    }
    facts = as_facts(0, long)
    found = cache_activations(model, [facts, as_facts(1, long)])
    assert found.positions == ("middle name", "last name", "predicts value")
    _, cache = model.run_with_cache(facts.texts.tokens)
    for row, subject in enumerate(long):
        end = int(facts.texts.spans.name_end[row, 1])
        assert facts.texts.tokens[row, end] == subject_tokens(subject)[-1]
        expected = cache["blocks.1.mlp.hook_post"][row, end - 1]
        torch.testing.assert_close(found.neurons[1][0, 1, 0, row], expected)
    assert cache_activations(model, [as_facts(0)]).positions == ("last name", "predicts value")
    labels = FactLabels.from_answers(answers)
    draws = [as_facts(wording, long) for wording in range(4)]
    tables = measure_memory({0: model}, facts=FactDraws(labels, draws[:2], draws[2:]))
    assert set(tables.probes["position"]) == set(found.positions)


def test_emergence(models, texts: Texts, pairs: Pairs, facts: FactDraws) -> None:
    """Mechanisms of names that have no middle are listed as never measurable."""
    memory = measure_memory(models, facts=facts)
    tables = {
        ("attention", "scores"): attention_to_names(models, texts=texts),
        ("memory", "keys"): memory.keys,
        ("memory", "values"): memory.values,
        ("memory", "probes"): memory.probes,
        ("interventions", "swaps"): swaps(models, pairs={"any": pairs}),
        ("interventions", "edges"): recall_edges(models, pairs=pairs),
    }
    accuracy = pd.Series({0: 0.0, 40: 0.2, 100: 0.9})
    strengths = mechanism_strengths(tables, accuracy)
    assert set(strengths["mechanism"]) == {*MECHANISMS, "knowledge"}
    by_name = strengths.set_index("mechanism")["strength"]
    assert np.isnan(by_name["probe at names"])
    assert by_name["extraction attention"].notna().all()
    assert len(by_name["extraction attention"]) == 3
    steps = emergence_steps(strengths).set_index("mechanism")["step"]
    assert steps["knowledge"] == pytest.approx(40 + 60 * (0.45 - 0.2) / 0.7)
    few = mechanism_strengths({("attention", "scores"): tables["attention", "scores"]}, accuracy)
    assert np.isnan(few.set_index("mechanism").loc["probe at value position", "strength"])
    with pytest.raises(ArgumentError, match="no table"):
        mechanism_strengths({}, accuracy)
    scores = tables["attention", "scores"].drop(columns="value")
    with pytest.raises(ArgumentError, match="no column 'value'"):
        mechanism_strengths({("attention", "scores"): scores}, accuracy)


def test_a_single_model_is_a_series_of_one(smoke_run: Run) -> None:
    model = smoke_run.model()
    texts = smoke_run.texts("evaluation", 4)
    alone = interp.attention_to_names(model, texts=texts)
    assert alone["step"].unique().tolist() == [0]
    pd.testing.assert_frame_equal(alone, interp.attention_to_names({0: model}, texts=texts))
    with pytest.raises(ArgumentError, match="texts"):
        interp.attention_to_names(model)
