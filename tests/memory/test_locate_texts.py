"""Facts of texts that are no biographies, in models that are no run's."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jaxtyping
import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
)

import interp
from interp import FactPrompt, hooked_transformer, plots
from interp.biographies import Corpus, Spans
from interp.charts.style import caption
from interp.config import Config
from interp.errors import ArgumentError, CheckpointError
from interp.memory import locate_facts
from interp.memory.located_fact import GROUPS, NAME_TOKENS, VALUE
from tests.test_series import FIRST_ANSWER, RELATIONS, answer_tokens, subject_tokens, text

RIVALS = {r: [FIRST_ANSWER + 8 * r + i for i in range(3)] for r in (0, 1)}


def prompt(subject: int, relation: int = 1, **settings: Any) -> FactPrompt:
    tokens, spans = text(subject, 0)
    given: dict[str, Any] = {
        "relation": RELATIONS[relation],
        "sentence": relation,
        "told": dict(enumerate(RELATIONS)),
    }
    return FactPrompt.of_text(tokens, spans, RIVALS[relation], **(given | settings))


@pytest.fixture(scope="module")
def models(smoke: Config, corpus: Corpus) -> dict[int, TransformerBridge]:
    found = {}
    for step in (0, 100):
        model = hooked_transformer(smoke, corpus.tokenizer)
        generator = torch.Generator().manual_seed(step)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
        found[step] = model
    return found


@pytest.mark.parametrize("relation", [0, 1])
@pytest.mark.parametrize("subject", [0, 1, 2, 3])
def test_contributions_add_up(
    subject: int, relation: int, models: dict[int, TransformerBridge]
) -> None:
    """With names of one to four tokens: what is written and carried over is all there is."""
    asked = prompt(subject, relation)
    fact = interp.locate_fact(models, asked, step=100)
    n = len(subject_tokens(subject))
    assert fact.name_tokens == (NAME_TOKENS[2:], NAME_TOKENS[::2], NAME_TOKENS, NAME_TOKENS)[n - 1]
    model = models[100].eval()
    with torch.no_grad():
        logits = model(asked.read)[0, -1].double()
    own, *more = answer_tokens(subject, relation)
    rivals = [token for token in RIVALS[relation] if token != own]
    expected = float(logits[own] - logits[rivals].mean())
    assert fact.logit_difference == pytest.approx(expected, abs=1e-4)
    assert fact.probability == pytest.approx(float(logits.softmax(-1)[own]), abs=1e-6)
    at = fact.components.groupby("at")["contribution"].sum()
    assert at[VALUE] == pytest.approx(expected, abs=1e-4)
    whole = fact.value_probability
    assert whole < fact.probability if more else whole == pytest.approx(fact.probability)
    carried = fact.carried().set_index("position")["contribution"]
    name = [
        int(p) for p in fact.tokens.query("kind == 'name' and sentence == @relation")["position"]
    ]
    ends = {
        "first name": name[0],
        "middle name": name[max(0, len(name) - 2)],
        "last name": name[-1],
    }
    for part in fact.name_tokens:
        assert at[part] == pytest.approx(carried[ends[part]], abs=1e-4)
    assert (fact.heads[list(GROUPS)].sum(axis=1) - 1).abs().max() < 1e-5
    assert fact.history["step"].tolist() == [0, 100]
    assert fact.phases is None
    assert fact.individual is None
    assert f"The {RELATIONS[relation]} of " in repr(fact)
    assert "individual" not in repr(fact)
    assert plots.title(plots.located_fact(fact)).startswith("Located")


def test_several_at_once_and_words(models: dict[int, TransformerBridge]) -> None:
    words = [f"w{i}" for i in range(len(text(3, 0)[0]))]
    asked = [prompt(0, words=lambda token: f"<{token}>", name="Ann"), prompt(3, words=words)]
    found = locate_facts(models, asked, [0, 100])
    assert [(f.name, f.step) for f in found] == [
        ("Ann", 0), ("Ann", 100), *((" ".join(words[2:6]), s) for s in (0, 100))
    ]  # fmt: skip
    assert found[0].tokens["token"][0] == "<1>"
    assert found[0].predictions["token"].str.startswith("<").all()
    alone = interp.locate_fact(models, asked[1], step=0)
    assert alone.logit_difference == pytest.approx(found[2].logit_difference, abs=1e-6)
    assert "&lt;1&gt;" in found[0]._repr_html_()
    same = prompt(0, told={0: "home"})
    assert interp.locate_fact(models, same).told_earlier == ()


def boot(kind: str, corpus: Corpus) -> TransformerBridge:
    sizes: Mapping[str, Any] = {"vocab_size": len(corpus.tokenizer)}
    torch.manual_seed(0)
    if kind == "GPT-2":
        config = GPT2Config(n_layer=2, n_head=2, n_embd=16, n_positions=64, initializer_range=0.4,
                            architectures=["GPT2LMHeadModel"], **sizes)  # fmt: skip
        return TransformerBridge.boot_transformers(
            "gpt2", hf_model=GPT2LMHeadModel(config).eval(), tokenizer=corpus.tokenizer
        )
    small: dict[str, Any] = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 8,
        "num_attention_heads": 2, "initializer_range": 0.4, "attn_implementation": "eager", **sizes,
    }  # fmt: skip
    if kind == "grouped queries":
        config = GemmaConfig(num_key_value_heads=1, architectures=["GemmaForCausalLM"], **small)
        whole, name = GemmaForCausalLM(config), "google/gemma-2b"
    else:
        config = Gemma2Config(num_key_value_heads=2, architectures=["Gemma2ForCausalLM"], **small)
        whole, name = Gemma2ForCausalLM(config), "google/gemma-2-2b"
    return TransformerBridge.boot_transformers(
        name, hf_model=whole.eval(), tokenizer=corpus.tokenizer
    )


@pytest.mark.parametrize("kind", ["GPT-2", "grouped queries"])
def test_a_model_from_elsewhere(kind: str, corpus: Corpus) -> None:
    model = boot(kind, corpus)
    fact = interp.locate_fact({7: model}, prompt(2))
    direct = fact.components.query("at == @VALUE")["contribution"].sum()
    assert direct == pytest.approx(fact.logit_difference, abs=1e-4)
    assert abs(fact.logit_difference) > 0.01


def test_models_whose_parts_cannot_be_told_are_refused(corpus: Corpus) -> None:
    with pytest.raises(ArgumentError, match="caps its logits"):
        interp.locate_fact({0: boot("capped logits", corpus)}, prompt(2))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sentence": 4}, "sentence 4 tells no value"),
        ({"rivals": []}, "begin with the same token"),
        ({"rivals": answer_tokens(1, 1)[:1]}, "begin with the same token"),
        ({"rivals": [-1]}, "from 0"),
        ({"rivals": [3.9]}, "rivals hold 3.9"),
        ({"rivals": [True, 3]}, "rivals hold True"),
        ({"rivals": None}, "rivals hold None"),
        ({"words": ["one"]}, "list of as many words"),
        ({"spans": Spans.from_lists(3, sentences=[(0, 3)], names=[(0, 1)])}, "the spans describe"),
        ({"spans": Spans.from_lists(14, sentences=[(0, 14)], names=[(0, 1)])}, "tells a value"),
    ],
)
def test_bad_prompts(settings: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # In use nobody checks types before the function does.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    tokens, spans = text(1, 0)
    given = {"spans": spans, "rivals": RIVALS[1], "relation": "language"} | settings
    with pytest.raises(ArgumentError, match=words):
        FactPrompt.of_text(tokens, given.pop("spans"), given.pop("rivals"), **given)


def test_errors(models: dict[int, TransformerBridge], smoke_run: interp.Run) -> None:
    with pytest.raises(ArgumentError, match="no people of its own"):
        interp.locate_fact(models, 0, "major")
    with pytest.raises(ArgumentError, match="Which attribute"):
        interp.locate_fact(smoke_run, 0)
    with pytest.raises(CheckpointError, match="7"):
        interp.locate_fact(models, prompt(0), step=7)
    with pytest.raises(ArgumentError, match="ids up to 99999"):
        locate_facts(models, [replace(prompt(0), rivals=(99_999,))])
    with pytest.raises(ArgumentError, match="No fact"):
        locate_facts(models, [])


def test_texts_have_subjects_and_people_have_names(models: dict[int, TransformerBridge]) -> None:
    fact = interp.locate_fact(models, prompt(2), step=100)
    figure = plots.located_fact(fact)
    titles = " ".join(note.text for note in figure.layout.annotations)
    bars = [str(text) for axis in figure.select_yaxes() for text in axis.ticktext or ()]
    for words in (repr(fact), fact._repr_html_(), titles, caption(figure), " ".join(bars)):
        assert "last name" not in words
        assert "at the name" not in words
    assert "    last subject token " in repr(fact)
    assert "Attention at the last subject token" in titles
    assert "last subject token" in bars
    assert set(fact.components["at"]) == {VALUE, *NAME_TOKENS}, "tables keep their names"
