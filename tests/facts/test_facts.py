"""Facts as tokens: spans, pairs, prompts, labels; and what is wrong with a fact."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import interp
from interp.biographies import TokenKind, position_masks
from interp.errors import ArgumentError
from interp.facts import Facts
from tests.facts.capitals import ALL_TEMPLATES, CAPITALS, LANGUAGES, TEMPLATES
from tests.facts.conftest import KINDS, make_tokenizer


@pytest.fixture
def capitals(tokenizer: PreTrainedTokenizerFast) -> Facts:
    return Facts.from_table(CAPITALS, tokenizer, TEMPLATES)


def decoded(facts: Facts, index: int, mask: torch.Tensor) -> str:
    ids = facts.texts.tokens[index, mask[index]].tolist()
    return str(facts.tokenizer.decode(ids)).strip()


def test_spans_hold_subject_answer_and_relation(capitals: Facts) -> None:
    masks = position_masks(
        capitals.texts.spans, ["subject", "relation", "answer", "last subject token"], capitals.read
    )
    values = capitals.texts.spans.is_kind(TokenKind.VALUE)
    for index, row in enumerate(capitals.table.itertuples()):
        assert decoded(capitals, index, masks["subject"]) == row.subject
        assert decoded(capitals, index, values) == row.answer
        wording = TEMPLATES["capital"][row.wording]
        words = wording[wording.index("[") + 1 : wording.index("]")]
        assert decoded(capitals, index, masks["relation"]) == words
        assert masks["last subject token"][index].sum() == masks["answer"][index].sum() == 1


def test_prompts_are_what_the_model_would_be_asked(capitals: Facts) -> None:
    for index, row in enumerate(capitals.table.itertuples()):
        alone = capitals.tokenizer(row.prompt, add_special_tokens=False)["input_ids"]
        read = int(capitals.read[index])
        assert capitals.prompts.tokens[index, : read + 1].tolist() == alone
        padding = capitals.prompts.spans.kind[index, read + 1 :]
        assert (padding == TokenKind.PADDING).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_beginning_of_a_sequence_is_what_the_tokenizer_does(
    kind: str, with_bos: Callable[[str], PreTrainedTokenizerFast]
) -> None:
    plain, own = make_tokenizer(kind), with_bos(kind)
    assert not Facts.from_table(CAPITALS, plain, TEMPLATES).bos
    facts = Facts.from_table(CAPITALS, own, TEMPLATES)
    assert facts.bos
    assert "with beginning" in repr(facts)
    ids = own(facts.table["prompt"][0])["input_ids"]
    assert facts.prompts.tokens[0, : len(ids)].tolist() == ids
    assert facts.texts.spans.kind[0, 0] == TokenKind.SPECIAL
    without = Facts.from_table(CAPITALS, own, TEMPLATES, bos=False)
    assert without.prompts.tokens[0, : len(ids) - 1].tolist() == ids[1:]
    assert (facts.read - without.read == 1).all()


def test_pairs_swap_the_subject_alone(capitals: Facts) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pairs = capitals.pairs()
    spans = pairs.spans.is_kind(TokenKind.NAME)
    for index in range(len(pairs)):
        read = int(pairs.read[index])
        matched = pairs.source_position[index]
        assert matched[read] == pairs.source_read[index], "what is read corresponds"
        for place in range(read + 1):
            other = int(matched[place])
            if spans[index, place]:
                continue
            assert other >= 0
            assert pairs.base[index, place] == pairs.source[index, other]
        own = spans[index].nonzero()[:, 0]
        assert matched[own[-1]] >= 0, "subjects correspond at their ends"
        assert pairs.source_spans.kind[index, matched[own[-1]]] == TokenKind.NAME
        assert pairs.source_spans.kind[index, matched[own[-1]] + 1] != TokenKind.NAME
    assert (pairs.base_answer != pairs.source_answer).all()
    assert pairs.differ.all()
    again = capitals.pairs()
    assert torch.equal(pairs.source, again.source)
    assert not torch.equal(pairs.source, capitals.pairs(seed=1).source)


def test_texts_without_a_partner_are_left_out_and_said(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = [
        ("France", "capital", "Paris", "The capital of {subject} is"),
        ("Japan", "capital", "Tokyo", "The capital of {subject} is"),
        ("Peru", "capital", "Lima", "Peru's capital is"),
    ]
    facts = Facts.from_table(texts, tokenizer)
    with pytest.warns(UserWarning, match="1 of 3 texts have no other subject"):
        assert len(facts.pairs()) == 2
    with pytest.raises(ArgumentError, match="nothing to swap"):
        facts.of(subject="Peru").pairs()
    alike = [("France", "capital", "Paris"), ("Texas", "capital", "Paris")]
    with pytest.raises(ArgumentError, match=r"begins with another token.*nothing to swap"):
        Facts.from_table(alike, tokenizer, {"capital": "The capital of {subject} is"}).pairs()


def small_model(tokenizer: PreTrainedTokenizerFast) -> TransformerBridge:
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2, n_head=2, n_embd=32, n_positions=64, vocab_size=len(tokenizer), initializer_range=0.3,
        architectures=["GPT2LMHeadModel"],
    )  # fmt: skip
    return interp.load_model(GPT2LMHeadModel(config), tokenizer=tokenizer)


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    return small_model(PreTrainedTokenizerFast.from_pretrained(folder))


def test_what_a_model_knows(capitals: Facts, model: TransformerBridge) -> None:
    """Each text by itself, without padding, on the plain model."""
    table = capitals.known(model, batch_size=4)
    plain = model.original_model
    assert plain.training is False
    for index, row in enumerate(table.itertuples()):
        kinds = capitals.texts.spans.kind[index]
        ids = capitals.texts.tokens[index, kinds != TokenKind.PADDING][None]
        value = (kinds == TokenKind.VALUE).nonzero()[:, 0].tolist()
        with torch.no_grad():
            logits = plain(ids).logits[0].double()
        each = [logits[place - 1].log_softmax(-1)[ids[0, place]] for place in value]
        assert row.answer_probability == pytest.approx(float(sum(each).exp()), rel=1e-4)
        assert row.probability == pytest.approx(float(each[0].exp()), rel=1e-4)
        order = logits[value[0] - 1].argsort(descending=True).tolist()
        assert order[row.rank - 1] == ids[0, value[0]]
        assert row.correct == all(int(logits[p - 1].argmax()) == ids[0, p] for p in value)


def test_facts_the_model_knows(capitals: Facts, model: TransformerBridge) -> None:
    ranks = capitals.known(model)["rank"]
    some = capitals.those_known(model, rank=int(ranks.median()))
    assert len(some) == (ranks <= ranks.median()).sum()
    if (ranks > 1).all():
        with pytest.raises(ArgumentError, match=rf"knows none.*best rank.*{ranks.min()}"):
            capitals.those_known(model)


def test_measures_take_facts(capitals: Facts, model: TransformerBridge) -> None:
    scores = interp.attention_to_names({0: model}, texts=capitals.texts)
    assert scores["value"].notna().any()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pairs = capitals.pairs()
    table = interp.patch(
        model, pairs, interp.Grid("resid_pre", ["subject", "last subject token", "relation"])
    )
    assert set(table["position"]) == {"subject", "last subject token", "relation"}
    assert (table["n"] == len(pairs)).all()
    fact = interp.locate_fact({0: model}, capitals.prompt("France", "capital", wording=1))
    assert (fact.name, fact.attribute, fact.value) == ("France", "capital", "Paris")
    costs = interp.knockout({0: model}, texts=capitals.texts)
    assert costs["cost"].notna().all()


def test_memory_takes_facts(tokenizer: PreTrainedTokenizerFast, model: TransformerBridge) -> None:
    facts = Facts.from_table([*CAPITALS, *LANGUAGES], tokenizer, ALL_TEMPLATES)
    assert facts.relations == ["capital", "language"]
    found = interp.measure_memory({0: model}, facts=facts.draws())
    assert set(found.probes["attribute"]) == {"all", "capital", "language"}
    assert found.keys["value"].notna().any()
    labels = facts.labels()
    language = labels.relations["language"].of_individual
    assert language[0] == language[3], "French in both"
    assert language.unique().tolist() == [0, 1, 2, 3, 4]


def test_choosing(capitals: Facts) -> None:
    one = capitals.of(subject=["Japan", "Peru"], wording=2)
    assert one.table["subject"].tolist() == ["Japan", "Peru"]
    assert capitals.select(capitals.table["answer"] == "Lima").subjects == ["Peru"]
    assert capitals.select([0, 4]).table["wording"].tolist() == [0, 0]
    for wrong in ([], [99], [False] * len(capitals)):
        with pytest.raises(ArgumentError, match=r"no text"):
            capitals.select(wrong)
    with pytest.raises(ArgumentError, match=r"no subject 'Frnce'.*France"):
        capitals.prompt("Frnce")
    with pytest.raises(ArgumentError, match="from 0 to 3"):
        capitals.prompt("France", wording=9)
    with pytest.raises(ArgumentError, match="is in both"):
        capitals.draws((0, 1), (1, 2))


WRONG: dict[str, tuple[Any, Any, str]] = {
    "no text": ([("France", "capital", "Paris")], None, "no wording"),
    "no facts": ([], TEMPLATES, "no facts"),
    "no column": (pd.DataFrame({"subject": ["a"], "relation": ["b"], "answr": ["c"]}), None, "'answer'"),
    "not a number": ([("France", "capital", np.nan)], TEMPLATES, r"row 1: the answer is empty"),
    "a number": ([("France", "capital", 3)], TEMPLATES, r"row 1: the answer is 3"),
    "blank": ([("Peru", "capital", "Lima"), (" ", "capital", "Paris")], TEMPLATES, "row 2: the subject"),
    "twice": ([CAPITALS[0], CAPITALS[0]], TEMPLATES, "row 2.*already.*row 1"),
    "two answers": (
        [CAPITALS[0], ("France", "capital", "Lyon")], TEMPLATES, "row 2: the capital of 'France' is 'Lyon'",
    ),
    "unknown relation": ([("France", "captial", "Paris")], TEMPLATES, r"'captial'.*mean 'capital'"),
    "subject not there": ([("France", "c", "Paris", "The capital is")], None, "does not hold the subject"),
    "subject twice": (
        [("France", "c", "Paris", "In France, France's capital is")], None, "holds 2 times.*{subject}",
    ),
    "answer first": ([CAPITALS[0]], {"capital": "{answer} is of {subject}"}, "before the subject"),
    "no subject": ([CAPITALS[0]], {"capital": "The capital is"}, "once"),
    "placeholder": ([CAPITALS[0]], {"capital": "Of {subjet} is"}, "no placeholder.*{subject}"),
    "begins in a token": ([("rance", "c", "Paris", "The capital of F{subject} is")], None, "shares"),
    "a triple": ([("France", "capital")], TEMPLATES, "no fact"),
    "a text": ("France", TEMPLATES, "str"),
    "subject in brackets": ([CAPITALS[0]], {"capital": "The [capital of {subject}] is"}, "in \\[brackets\\]"),
    "numbers": ([1, 2], TEMPLATES, "'1' is no fact"),
    "nothing": ([None], TEMPLATES, "'None' is no fact"),
    "a name among triples": ([CAPITALS[0], {"subject": "a"}], TEMPLATES, "is no fact"),
    "half a character": ([("a\ud800", "capital", "Paris")], TEMPLATES, "row 1: the subject.*is no text"),
    "a column twice": (
        pd.DataFrame([list("abcd")], columns=["subject", "relation", "answer", "answer"]), TEMPLATES,
        "'answer' twice",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_fact(case: str, tokenizer: PreTrainedTokenizerFast) -> None:
    given, templates, words = WRONG[case]
    with pytest.raises(ArgumentError, match=words) as caught:
        Facts.from_table(given, tokenizer, templates)
    assert "\n" not in str(caught.value)


def test_arguments_that_are_none(capitals: Facts, model: TransformerBridge) -> None:
    with pytest.raises(ArgumentError, match="1 truth values for"):
        capitals.select([True])
    with pytest.raises(ArgumentError, match="rank=0"):
        capitals.those_known(model, rank=0)
    assert len(capitals.select(np.array(0))) == 1  # type: ignore[arg-type]


def test_a_row_of_a_csv_longer_than_its_header(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """pandas takes the first column as an index, and every cell moves on by one."""
    path = tmp_path / "facts.csv"
    path.write_text("subject,relation,answer\nParis,France,capital,Lyon\n")
    with pytest.raises(ArgumentError, match="more cells than its header"):
        Facts.from_csv(path, tokenizer, {"France": "{subject} is", "capital": "{subject} is"})


def test_csv_files(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text("subject,relation,answer\nNA,code of,Namibia\nPeru, code of, Lima\n")
    facts = Facts.from_csv(path, tokenizer, {"code of": "{subject} means"})
    assert facts.subjects == ["NA", "Peru"]
    assert facts.table["answer"].tolist() == ["Namibia", "Lima"]
    path.write_text("subject,relation,answer\nPeru,capital,Lima\n,capital,Paris\n")
    with pytest.raises(ArgumentError, match=r"facts\.csv, row 2: the subject is empty"):
        Facts.from_csv(path, tokenizer, TEMPLATES)
    path.write_bytes(b"subject,relation,answer\nPer\xff,capital,Lima\n")
    with pytest.raises(ArgumentError, match=r"facts\.csv cannot be read.*UTF-8"):
        Facts.from_csv(path, tokenizer, TEMPLATES)
    for text in ("", 'subject,relation,answer\n"Peru,a,b\n', "a,b\n1,2,3\n4,5,6,7\n"):
        path.write_text(text)
        with pytest.raises(ArgumentError):
            Facts.from_csv(path, tokenizer, TEMPLATES)
    path.write_text("subject;relation;answer\nPeru;capital;Lima\n")
    with pytest.raises(ArgumentError, match="semicolons; separate columns by commas"):
        Facts.from_csv(path, tokenizer, TEMPLATES)
    with pytest.raises(ArgumentError, match="cannot be read"):
        Facts.from_csv(tmp_path / "none.csv", tokenizer, TEMPLATES)


def test_files_of_the_field(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    case = {
        "case_id": 0,
        "requested_rewrite": {
            "prompt": "The capital of {} is", "relation_id": "P36", "subject": "France",
            "target_true": {"str": "Paris"}, "target_new": {"str": "Lima"},
        },
        "paraphrase_prompts": ["Long ago. The seat of France is", "No subject here is"],
    }  # fmt: skip
    path = tmp_path / "counterfact.json"
    path.write_text(json.dumps([case, case]))
    facts = Facts.of_counterfact(path, tokenizer)
    assert len(facts) == 2
    assert facts.relations == ["P36"]
    lre = tmp_path / "capital.json"
    lre.write_text(
        json.dumps(
            {
                "name": "country capital city",
                "prompt_templates": ["The capital of {} is", "{}'s capital is"],
                "samples": [{"subject": s, "object": a} for s, _, a in CAPITALS],
            }
        )
    )
    facts = Facts.of_lre(lre, tokenizer)
    assert len(facts) == 2 * len(CAPITALS)
    assert facts.relations == ["country capital city"]
    for wrong in ("{}", "[1]", "nonsense", '[{"requested_rewrite": {}}]'):
        path.write_text(wrong)
        with pytest.raises(ArgumentError, match=r"counterfact\.json is no"):
            Facts.of_counterfact(path, tokenizer)
        if wrong != "{}":
            with pytest.raises(ArgumentError, match=r"counterfact\.json is no"):
                Facts.of_lre(path, tokenizer)


def test_another_tokenizer_is_refused(tokenizer: PreTrainedTokenizerFast, capitals: Facts) -> None:
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=1,
        n_head=1,
        n_embd=8,
        n_positions=64,
        vocab_size=60,
        architectures=["GPT2LMHeadModel"],
    )
    other = interp.load_model(GPT2LMHeadModel(config), tokenizer=tokenizer)
    with pytest.raises(ArgumentError, match="model's own tokenizer"):
        capitals.known(other)
