"""Attention maps: packed bytes hold the model's attention, and the widget answers what it is asked."""

from pathlib import Path

import numpy as np
import pytest
import torch

import interp
from interp.biographies import ATTRIBUTES, TokenKind
from interp.errors import CheckpointError, ConfigError, InterpError, RunError
from interp.maps import (
    MapRecord,
    TrainingInfo,
    map_steps,
    map_text,
    record_maps,
    unpack_maps,
    view_settings,
    view_text,
    words_of,
)
from interp.maps.widget import to_choose
from interp.phases import Phases
from interp.run import Run
from tests.every_form import EVERY_FORM


@pytest.fixture(scope="module")
def records(smoke_run: Run) -> list[MapRecord]:
    texts = [map_text(smoke_run, individual) for individual in (3, 24)]
    return record_maps(smoke_run, texts)


def weights(run: Run, step: int, tokens: torch.Tensor) -> np.ndarray:
    """Attention by TransformerLens' own cache: layer, head, query, key."""
    _, cache = run.model(step).run_with_cache(tokens)
    layers = range(run.config.model.n_layers)
    return np.stack([cache[f"blocks.{i}.attn.hook_pattern"][0].numpy() for i in layers])


def test_maps_are_the_model_s_attention(smoke_run: Run, records: list[MapRecord]) -> None:
    for record in records:
        maps = unpack_maps(record)
        assert record.steps == tuple(smoke_run.steps)
        for place, step in enumerate(record.steps):
            exact = weights(smoke_run, step, record.text.ids[None])
            error = np.abs(maps[place] - exact)
            assert error.max() < 0.004
            assert error[exact < 0.05].max() < 0.0009
        assert not np.triu(maps[0, 0, 0], 1).any()
    assert not np.allclose(unpack_maps(records[0])[0], unpack_maps(records[0])[-1], atol=0.01)


def test_predictions_are_the_model_s(smoke_run: Run, records: list[MapRecord]) -> None:
    record = records[0]
    tokens = record.text.ids[None]
    for place, step in enumerate(record.steps):
        probabilities = smoke_run.model(step)(tokens)[0].softmax(-1).detach()
        own = probabilities[:-1].gather(1, tokens[0, 1:, None])[:, 0].numpy()
        np.testing.assert_allclose(record.own[place, :-1] / 255, own, atol=0.5 / 255 + 1e-6)
        assert record.own[place, -1] == 0
        top = probabilities.max(-1)
        assert (record.top[place] == top.indices.numpy()).mean() > 0.95  # near ties may flip
        np.testing.assert_allclose(record.top_probability[place] / 255, top.values, atol=0.003)


def test_packed_bytes_are_what_the_view_reads(smoke_run: Run, records: list[MapRecord]) -> None:
    words = words_of(records)
    record = records[1]
    packed = record.packed(words)
    n, n_steps = len(record.text), len(record.steps)
    model = smoke_run.config.model
    triangle = n * (n + 1) // 2
    assert len(packed["patterns"]) == n_steps * model.n_layers * model.n_heads * triangle
    # As the view reads it: undo the differences, then the place of (step, layer, head, query, key).
    levels = np.frombuffer(packed["patterns"], np.uint8).reshape(n_steps, -1).cumsum(0, np.uint8)
    layer, head, query, key = 1, 0, n - 2, 5
    at = (layer * model.n_heads + head) * triangle + query * (query + 1) // 2 + key
    exact = weights(smoke_run, record.steps[-1], record.text.ids[None])
    assert (levels[-1, at] / 255) ** 2 == pytest.approx(exact[layer, head, query, key], abs=0.004)
    predictions = np.frombuffer(packed["predictions"], np.uint8).reshape(n_steps, 4 * n)
    assert (predictions[:, :n] == record.own).all()
    assert (predictions[:, n : 2 * n] == record.top_probability).all()
    places = predictions[:, 2 * n :].astype(int).reshape(n_steps, n, 2) @ [1, 256]
    assert (np.array(words)[places] == record.top).all()


def test_words_that_are_known_keep_their_place(records: list[MapRecord]) -> None:
    first = words_of(records[:1])
    both = words_of(records, first)
    assert both[: len(first)] == first
    assert set(both) == set(words_of(records))
    assert len(set(both)) == len(both)


def test_what_the_view_is_told_of_a_text(smoke_run: Run) -> None:
    text = map_text(smoke_run, 24, "train", draw=2)
    told = view_text(text)
    assert told["held_out"] is True
    assert told["name"] == smoke_run.population.name(24)
    facts = smoke_run.population.facts(24)
    assert {f["attribute"]: f["value"] for f in told["facts"]} == {
        name.replace("_", " "): value for name, value in facts.items()
    }
    assert len(told["facts"]) == len(ATTRIBUTES)
    for fact in told["facts"]:
        after = fact["position"] + 1
        assert told["marks"][after] == "value"
        assert told["parts"][after] == "first token"
        assert fact["value"].split() == told["tokens"][after : after + fact["length"]]
    kinds = text.spans.kind[0].tolist()
    names = [
        part for part, kind in zip(told["parts"], kinds, strict=True) if kind == TokenKind.NAME
    ]
    assert names == ["first name", "middle name", "last name"] * 6


def test_settings_of_the_view(smoke_run: Run, records: list[MapRecord]) -> None:
    settings = view_settings(
        records, words_of(records), smoke_run.tokenizer, TrainingInfo.of(smoke_run)
    )
    for split, curves in settings["curves"].items():
        for name, values in curves.items():
            curve = smoke_run.curve(f"attribute_{name}", split)
            for step, value in zip(smoke_run.steps, values, strict=True):
                assert value == (
                    pytest.approx(curve[step], abs=1e-4) if step in curve.index else None
                )
    assert any(value is not None for value in settings["curves"]["held_out"]["loss"])
    assert settings["roles"] is None  # the stage of attention has not run
    assert settings["phases"][0]["name"] == "statistics"
    assert len(settings["words"]) == len(words_of(records))


def test_a_patched_run_is_shown_with_the_attention_it_was_trained_with(
    smoke_run: Run, smoke, tmp_path
) -> None:
    step = smoke_run.steps[-1]
    config = smoke.with_settings(
        **{
            "patching.reference": str(smoke_run.path), "patching.reference_step": step,
            "patching.start": 10, "training.stop_at": 20,
        }
    )  # fmt: skip
    patched = interp.train(config, tmp_path / "patched", progress=False)
    record = record_maps(patched, [map_text(patched, 0)], [patched.steps[-1]])[0]
    exact = weights(smoke_run, step, record.text.ids[None])
    # Layer 0 reads the same tokens; the reference's pattern of layer 1 is the reference's own too.
    assert np.abs(unpack_maps(record)[0] - exact).max() < 0.004
    own = weights(patched, patched.steps[-1], record.text.ids[None])
    assert np.abs(own - exact).max() > 0.004
    early = record_maps(patched, [map_text(patched, 0)], [patched.steps[0]])[0]
    own = weights(patched, patched.steps[0], record.text.ids[None])
    assert np.abs(unpack_maps(early)[0] - own).max() < 0.004  # before patching begins, its own


def test_checkpoints_that_fit(smoke_run: Run) -> None:
    texts = [map_text(smoke_run, 0)]
    steps, model = smoke_run.steps, smoke_run.config.model
    n = len(texts[0])
    one = n * (n + 1) // 2 * model.n_layers * model.n_heads
    assert map_steps(smoke_run, texts) == steps
    assert map_steps(smoke_run, texts, budget=one * len(steps)) == steps
    fewer = map_steps(smoke_run, texts, budget=one * 4)
    assert len(fewer) <= 4
    assert fewer[0] == steps[0]
    assert fewer[-1] == steps[-1]
    assert fewer == sorted(set(fewer))
    assert set(map_steps(smoke_run, texts, budget=1)) >= {steps[0], steps[-1]}


def test_checkpoints_that_fit_are_spread_and_hold_the_ends_of_phases(smoke_run: Run) -> None:
    class Long(Run):
        """A run of a hundred checkpoints that has been through its phases."""

        steps = property(lambda self: list(range(0, 1000, 10)))
        phases = property(lambda self: Phases(133, 280, 5.6, 0.05))

    text, model = map_text(smoke_run, 0), smoke_run.config.model
    one = len(text) * (len(text) + 1) // 2 * model.n_layers * model.n_heads
    found = [map_steps(Long(smoke_run.path), [text], budget=one * n) for n in (4, 6, 10)]
    assert found[0] == [0, 130, 280, 990]
    for n, steps in zip((4, 6, 10), found, strict=True):
        assert len(steps) == n
        assert {0, 130, 280, 990} <= set(steps)
    gaps = np.diff(found[-1])
    assert gaps.max() < 300


def test_bad_input(smoke_run: Run) -> None:
    with pytest.raises(ConfigError, match=r"individual 99.*0 to 31"):
        map_text(smoke_run, 99)
    with pytest.raises(ConfigError, match="wordings 'spoken'"):
        map_text(smoke_run, 0, "spoken")
    with pytest.raises(ConfigError, match="draw=-1"):
        map_text(smoke_run, 0, draw=-1)
    with pytest.raises(CheckpointError, match="no checkpoint at step 7"):
        record_maps(smoke_run, [map_text(smoke_run, 0)], [7])
    with pytest.raises(ConfigError, match="names no checkpoint"):
        record_maps(smoke_run, [map_text(smoke_run, 0)], [])


def test_the_same_run_gives_the_same_bytes(smoke_run: Run, records: list[MapRecord]) -> None:
    again = record_maps(Run.load(smoke_run.path), [map_text(smoke_run, 3)])[0]
    words = words_of(records)
    assert again.packed(words) == records[0].packed(words)


class TestWidget:
    """What the kernel's side of the widget does; the browser's side is tested in a browser."""

    @pytest.fixture
    def sent(self, smoke_run: Run, monkeypatch: pytest.MonkeyPatch):
        view = interp.explore(smoke_run, person=3)
        messages: list[tuple[dict, list]] = []
        monkeypatch.setattr(
            view, "send", lambda content, buffers=None: messages.append((content, buffers))
        )
        return view, messages

    def test_it_begins_with_the_person_asked_for(self, smoke_run: Run) -> None:
        name = smoke_run.population.name(5)
        for person in (5, np.int64(5), "5", name):
            view = interp.explore(smoke_run, person, step=20)
            assert [text["person"] for text in view.settings["texts"]] == [5]
            assert view.state == {"step": 20}

    def test_a_person_is_sent_when_asked_for(self, smoke_run: Run, sent) -> None:
        view, messages = sent
        view._answer(view, {"question": 1, "person": 7}, [])
        view._answer(view, {"question": 2, "person": 3}, [])
        (seventh, buffers), (third, _) = messages
        assert seventh["question"] == 1
        assert seventh["text"]["person"] == 7
        record = record_maps(smoke_run, [map_text(smoke_run, 7)])[0]
        assert buffers[0] == record.packed(words_of([record]))["patterns"]
        # The list of words only grows, so that what was sent before stays right.
        assert third["words"][: len(seventh["words"])] == seventh["words"]
        assert seventh["words"][: len(view.settings["words"])] == view.settings["words"]

    @pytest.mark.parametrize("person", ["99", "Nobody At All"])
    def test_an_unknown_person_is_answered_with_the_reason(self, sent, person: str) -> None:
        view, messages = sent
        view._answer(view, {"question": 1, "person": person}, [])
        content, buffers = messages[0]
        assert buffers is None
        assert "99" in content["error"] or "Nobody" in content["error"]

    def test_a_name_of_several_is_answered_with_whom_it_can_mean(
        self, smoke_run: Run, sent
    ) -> None:
        view, messages = sent
        people = smoke_run.population
        letter, matches = next((c, m) for c in "aeiou" if 1 < len(m := people.matches(c)) <= 60)
        view._answer(view, {"question": 1, "person": letter}, [])
        view._answer(view, {"question": 2, "person": people.name(3)}, [])
        (content, buffers), (one, _) = messages
        assert buffers is None
        assert content["error"] == f"{len(matches)} have {letter!r} in their name. Choose one:"
        assert content["matches"] == [{"person": n, "name": people.name(n)} for n in matches]
        assert one["text"]["person"] == 3

    def test_of_many_matches_the_first_are_offered(self) -> None:
        told = to_choose("a", [(number, f"Person {number}") for number in range(1000)])
        assert "1,000 have 'a'" in told["error"]
        assert "the first 60" in told["error"]
        assert len(told["matches"]) == 60

    def test_show_moves_the_view(self, smoke_run: Run) -> None:
        view = interp.explore(smoke_run)
        view.show(step=20, head="1.mean")
        view.show(person=smoke_run.population.name(2), compare=0)
        assert view.state == {"step": 20, "head": "1.mean", "person": 2, "compare": 0}
        for head in ("2.0", "0.9", "mean", "1", "x.0"):
            with pytest.raises(ConfigError, match=f"There is no head '{head}'"):
                view.show(head=head)
        with pytest.raises(RunError, match="Nobody"):
            view.show(person="Nobody")

    def test_another_person_begins_at_the_default_token_and_a_comparison_ends(
        self, smoke_run: Run
    ) -> None:
        view = interp.explore(smoke_run, token=4, compare=0)
        view.show(person=2)
        assert view.state == {"compare": 0, "person": 2}
        view.show(token=3, compare="off")
        assert view.state == {"compare": None, "person": 2, "token": 3}
        for wrong in ({"step": -5}, {"token": -1}, {"compare": -1}):
            with pytest.raises(ConfigError, match="numbered from 0"):
                view.show(**wrong)

    def test_whatever_goes_wrong_the_view_is_answered(self, sent) -> None:
        view, messages = sent
        with pytest.raises(KeyError):
            view._answer(view, {"question": 1}, [])
        view._answer(view, {"question": 2, "person": "9" * 5000}, [])  # no number that Python reads
        assert [content["question"] for content, _ in messages] == [1, 2]
        assert all("error" in content for content, _ in messages)

    def test_the_kernel_keeps_a_few_people(self, sent) -> None:
        view, messages = sent
        for person in range(12):
            view._answer(view, {"question": person, "person": person}, [])
        assert len(messages) == 12
        assert len(view._records) <= 8
        assert messages[0][0]["text"]["person"] == 0

    def test_bad_input(self, smoke_run: Run) -> None:
        with pytest.raises(CheckpointError):
            interp.explore(smoke_run, steps=[7])
        with pytest.raises(InterpError):
            interp.explore(smoke_run, person=99)

    def test_another_form_of_the_same_person_is_chosen(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        steps = {"training.n_steps": 2, "training.checkpoint_every": 1}
        every_form = interp.train(EVERY_FORM.with_settings(**steps), tmp_path / "run")
        view = interp.explore(every_form, person=3, token=4, step=0)
        forms = view.settings["forms"]
        assert view.form == view.settings["form"] == "biography"
        assert {"biography", "question", "mnemonic"} <= set(forms)
        view.show(person=5)
        view.form = "question"
        assert view.settings["form"] == "question"
        assert view.state == {"step": 0, "person": 5}  # positions of tokens are others
        (shown,) = view.settings["texts"]
        assert shown["person"] == 5
        assert shown["tokens"] == list(map_text(every_form, 5, form="question").tokens)
        sent: list[dict] = []
        monkeypatch.setattr(view, "send", lambda content, buffers=None: sent.append(content))
        view._answer(view, {"question": 1, "person": 7}, [])
        assert sent[0]["text"]["tokens"] == list(map_text(every_form, 7, form="question").tokens)
        view.form = "sonnet"
        assert "sonnet" in sent[1]["refused"]
        assert view.form == view.settings["form"] == "question"
        view.form = "biography"
        assert view.settings["texts"][0]["tokens"] == list(map_text(every_form, 5).tokens)

    def test_given_texts_have_no_other_form(
        self, monkeypatch: pytest.MonkeyPatch, smoke_run: Run
    ) -> None:
        view = interp.explore(smoke_run, texts=[map_text(smoke_run, 3)])
        assert "forms" not in view.settings
        refused: list[dict] = []
        monkeypatch.setattr(view, "send", refused.append)
        view.form = "question"
        assert "no other form" in refused[0]["refused"]
        assert view.form == ""

    def test_some_steps_only(self, smoke_run: Run) -> None:
        view = interp.explore(smoke_run, steps=[40, 0])
        assert view.settings["steps"] == [0, 40]
