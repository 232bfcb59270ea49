"""Facts written into a run of smoke: against brute force, and the weights byte for byte."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

import interp
from interp.biographies import Batch, Corpus
from interp.errors import ArgumentError, CheckpointError, InterpError, RunError
from interp.run import Run
from interp.writing import (
    Rewrites,
    TargetSettings,
    WeightEdit,
    finetuned_on,
    rewritten,
    weights_digest,
)
from interp.writing.rewrites import NewFact
from interp.writing.scores import COLUMNS, _drawn

QUICK = TargetSettings(n_steps=12, lr=0.2)
SITE = "blocks.0.mlp.out"
AT_NAME = {"layers": 0, "position": "middle name"}


def drawn_facts(corpus: Corpus, n: int, seed: int = 0) -> list[NewFact]:
    """Another value of an attribute, of people one after the other."""
    found: list[NewFact] = []
    for person in range(n):
        attribute = corpus.attributes[(person + seed) % len(corpus.attributes)]
        own = corpus.population.facts(person)[attribute]
        pool = corpus.population.lexicon.values[attribute]
        found.append((person, attribute, next(v for v in pool[seed:] if v != own)))
    return found


@pytest.fixture(scope="module")
def model(smoke_run: Run) -> TransformerBridge:
    return smoke_run.model()


@pytest.fixture(scope="module")
def fact(corpus: Corpus) -> NewFact:
    return drawn_facts(corpus, 1, seed=4)[0]


@pytest.fixture(scope="module")
def one(smoke_run: Run, fact) -> WeightEdit:
    return interp.write_facts(smoke_run, [fact], n_texts=3, targets=QUICK, **AT_NAME)


@pytest.fixture(scope="module")
def many(smoke_run: Run, corpus: Corpus) -> WeightEdit:
    return interp.write_facts(
        smoke_run, drawn_facts(corpus, 5), n_texts=2, targets=QUICK, **AT_NAME
    )


def probabilities(model: TransformerBridge, told: Rewrites) -> np.ndarray:
    """Of each new fact, the mean log-probability of its value's tokens, by a plain pass."""
    with torch.no_grad():
        log_p = model(told.texts.tokens).log_softmax(-1)
    found = np.zeros(len(told.facts))
    for number in range(len(told.facts)):
        row, place = (told.wanted == number).nonzero(as_tuple=True)
        found[number] = log_p[row, place - 1, told.texts.tokens[row, place]].mean()
    return found


@pytest.mark.parametrize("method", ["rome", "memit"])
def test_the_new_value_becomes_likelier(
    model: TransformerBridge, corpus: Corpus, method: str
) -> None:
    """Where the last layer predicts, which works in a model that tells nobody apart, too."""
    facts = drawn_facts(corpus, 1 if method == "rome" else 2, seed=4)
    edit = interp.write_facts(
        model, facts, method=method, corpus=corpus, n_texts=3, weight=0.1,
        targets=TargetSettings(n_steps=60, lr=0.2, largest=40.0),
    )  # fmt: skip
    assert (edit.layers, edit.position) == ((model.cfg.n_layers - 1,), "predicts value")
    told = Rewrites.of_people(corpus, facts, n_texts=3)
    before = probabilities(model, told)
    with edit.applied(model):
        after = probabilities(model, told)
    assert (after - before).min() > 0.2  # of about 6 nats; this model's logits are all small


def test_rome_maps_the_mean_key_to_its_output_and_the_residual(
    model: TransformerBridge, corpus: Corpus, fact, one: WeightEdit
) -> None:
    """With plain hooks: what the matrix writes at the mean key has changed by what was asked for."""
    assert (one.method, one.rank) == ("rome", 1)
    told = Rewrites.of_people(corpus, [fact], n_texts=3)
    inner = (told.texts.spans.kind == 2) & (torch.from_numpy(_parts(corpus, told)) == 1)
    seen: dict[str, torch.Tensor] = {}
    hooks = [(f"{SITE}.hook_in", lambda x, hook: seen.update(key=x))]
    with torch.no_grad():
        model.run_with_hooks(told.texts.tokens, fwd_hooks=hooks)
    key = seen["key"][inner].double().mean(0)
    weight = model.blocks[0].mlp.out.weight
    before = weight.detach().double().clone()
    with one.applied(model):
        change = weight.detach().double() - before
    assert torch.linalg.matrix_rank(one.factors[0].change) == 1
    torch.testing.assert_close(change @ key, one.factors[0].left[:, 0], atol=1e-4, rtol=1e-3)


def _parts(corpus: Corpus, told: Rewrites) -> np.ndarray:
    """Which part of a name each token is, by counting from where it begins."""
    kind, parts = told.texts.spans.kind.numpy(), np.full(told.texts.tokens.shape, -1)
    for row, column in np.argwhere(kind == 2):
        parts[row, column] = parts[row, column - 1] + 1 if kind[row, column - 1] == 2 else 0
    return parts


def test_only_that_matrix_changes_and_the_bytes_come_back(
    model: TransformerBridge, many: WeightEdit
) -> None:
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    attached = many.attach(model)
    changed = [n for n, one in model.named_parameters() if not torch.equal(one, before[n])]
    assert len(changed) == 1
    assert before[changed[0]].shape == many.factors[0].change.shape
    added = dict(model.named_parameters())[changed[0]].detach() - before[changed[0]]
    torch.testing.assert_close(added, many.factors[0].change.float(), atol=1e-5, rtol=1e-3)
    assert torch.linalg.matrix_rank(many.factors[0].change) == many.rank == 5
    attached.undo()
    for name, now in model.named_parameters():
        assert now.detach().numpy().tobytes() == before[name].numpy().tobytes()
    with pytest.raises(ArgumentError, match="not in the model's weights any more"):
        attached.undo()


def test_an_error_inside_leaves_the_same_bytes(model: TransformerBridge, one: WeightEdit) -> None:
    before = weights_digest(model)
    seen = []

    def fails() -> None:
        with one.applied(model):
            seen.append(weights_digest(model))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert seen != [before]
    assert weights_digest(model) == before == one.base


def test_weights_changed_meanwhile_are_not_overwritten(smoke_run: Run, one: WeightEdit) -> None:
    other = smoke_run.model()
    attached = one.attach(other)
    with torch.no_grad():
        other.blocks[0].mlp.out.weight.mul_(2)
    with pytest.raises(ArgumentError, match="edit"):
        attached.undo()


def test_a_saved_edit_is_the_same_and_of_one_model_only(
    model: TransformerBridge, smoke_run: Run, many: WeightEdit, tmp_path: Path
) -> None:
    path = many.save(tmp_path / "edit")
    assert path.name == "edit.safetensors"
    first = path.read_bytes()
    assert many.save(path).read_bytes() == first
    assert len(first) < 60_000 < sum(p.numel() * 4 for p in model.parameters())
    loaded = interp.load_edit(path)
    assert (loaded.facts, loaded.costs) == (many.facts, many.costs)
    assert loaded.table.equals(many.table)
    assert repr(loaded) == repr(many)
    with many.applied(model):
        expected = weights_digest(model)
    with loaded.applied(model):
        assert weights_digest(model) == expected
        with pytest.raises(CheckpointError, match="without another edit"):
            loaded.attach(model)
    with pytest.raises(CheckpointError, match="made for weights"):
        loaded.attach(smoke_run.model(step=smoke_run.steps[0]))


def test_files_that_are_no_edits(many: WeightEdit, smoke_run: Run, tmp_path: Path) -> None:
    path = many.save(tmp_path / "edit.safetensors")
    damaged = bytearray(path.read_bytes())
    damaged[-3] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(damaged)
    for name, said in (("damaged.safetensors", "damaged"), ("none.safetensors", "no file")):
        with pytest.raises(CheckpointError, match=said):
            interp.load_edit(tmp_path / name)
    (checkpoint,) = [*smoke_run.path.glob("checkpoints/*.safetensors")][:1]
    with pytest.raises(CheckpointError, match="no edit of weights"):
        interp.load_edit(checkpoint)
    (tmp_path / "mine.safetensors").write_text("something else")
    with pytest.raises(RunError, match="is not replaced"):
        many.save(tmp_path / "mine.safetensors")


def test_writing_is_deterministic_and_leaves_the_model(
    model: TransformerBridge, corpus: Corpus, fact, one: WeightEdit
) -> None:
    before = weights_digest(model)
    model.train()
    again = interp.write_facts(model, [fact], corpus=corpus, n_texts=3, targets=QUICK, **AT_NAME)
    assert model.training
    model.eval()
    assert weights_digest(model) == before == again.base
    assert torch.equal(again.factors[0].left, one.factors[0].left)
    assert torch.equal(again.factors[0].right, one.factors[0].right)
    assert not any(p.grad is not None for p in model.parameters())


def test_the_value_vector_says_what_it_claims(
    model: TransformerBridge, corpus: Corpus, fact, one: WeightEdit
) -> None:
    """The loss with the residual added by a plain hook, in the texts of writing."""
    told = Rewrites.of_people(corpus, [fact], n_texts=3)
    at = told.places("middle name").of_token >= 0

    def add(x: torch.Tensor, hook: object) -> torch.Tensor:
        return x + at[..., None] * one.factors[0].left[:, 0].float()

    with torch.no_grad():
        log_p = model.run_with_hooks(
            told.texts.tokens, fwd_hooks=[(f"{SITE}.hook_out", add)]
        ).log_softmax(-1)
    row, place = (told.wanted == 0).nonzero(as_tuple=True)
    summed = -log_p[row, place - 1, told.texts.tokens[row, place]].sum() / len(told.texts)
    assert one.losses == pytest.approx([float(summed)], rel=1e-4)


def test_texts_have_the_new_value_and_the_rest_is_kept(corpus: Corpus, fact) -> None:
    told = Rewrites.of_people(corpus, [fact], n_texts=2)
    words = [corpus.tokenizer.decode(row) for row in told.texts.tokens]
    assert all(fact[2] in text for text in words)
    new, kept = told.wanted >= 0, told.kept
    assert not bool((new & kept).any())
    values = told.texts.spans.kind == 3
    assert torch.equal(new | kept, values)
    changed = rewritten(corpus, told.facts).population
    assert changed.facts(fact[0])[fact[1]] == fact[2]
    assert (changed.values != corpus.population.values).sum() == 1


def test_several_layers_share_what_is_missing(smoke_run: Run, corpus: Corpus) -> None:
    """At the predicting token both layers count: what arrives in the stream is what one layer adds."""
    model, facts = smoke_run.model(), drawn_facts(corpus, 2)
    last = model.cfg.n_layers - 1
    settings = {"position": "predicts value", "n_texts": 2, "targets": QUICK, "weight": 1e-4}
    single = interp.write_facts(model, facts, last, corpus=corpus, method="memit", **settings)
    both = interp.write_facts(model, facts, [0, last], corpus=corpus, **settings)
    told, stream = Rewrites.of_people(corpus, facts, n_texts=2), {}
    places = told.places("predicts value")
    assert (both.layers, both.rank) == ((0, last), len(places.subject))
    assert both.losses == single.losses

    def mean(name: str) -> torch.Tensor:
        hooks = [(f"blocks.{last}.hook_resid_post", lambda x, hook: stream.update({name: x}))]
        with torch.no_grad():
            model.run_with_hooks(told.texts.tokens, fwd_hooks=hooks)
        return torch.stack(
            [stream[name][places.of_token == p].double().mean(0) for p in range(both.rank)], 1
        )

    before = mean("before")
    with both.applied(model):
        moved = mean("after") - before
    wanted = single.factors[last].left
    assert float((moved - wanted).norm() / wanted.norm()) < 0.35


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"facts": []}, "at least one"),
        ({"facts": [(0, "shoe size", "44")]}, "no attribute 'shoe_size'"),
        ({"facts": [(0, "university", "Hogwarts")]}, "is no university"),
        ({"facts": [("Nobody At All", "university", "Hogwarts")]}, "Nobody At All"),
        ({"layers": 9}, "none of the model's"),
        ({"layers": []}, "empty"),
        ({"layers": [0, 1], "method": "rome"}, "changes one layer"),
        ({"position": "ear"}, "no position 'ear'"),
        ({"position": "name"}, "several tokens"),
        ({"position": "last name", "layers": 1}, "Choose an earlier layer"),
        ({"weight": 0.0}, "above 0"),
        ({"ridge": -1.0}, "from 0"),
        ({"n_texts": 0}, "n_texts"),
    ],
)
def test_what_cannot_be_written(smoke_run: Run, corpus: Corpus, given, said: str) -> None:
    options = {"facts": drawn_facts(corpus, 2), "n_texts": 1, "targets": QUICK} | given
    with pytest.raises(InterpError, match=said):
        interp.write_facts(smoke_run, **options)


def test_the_value_that_it_is_already_or_twice(smoke_run: Run, corpus: Corpus, fact) -> None:
    now = corpus.population.facts(0)["university"]
    with pytest.raises(ArgumentError, match="is that already"):
        interp.write_facts(smoke_run, [(0, "university", now)])
    with pytest.raises(ArgumentError, match="given twice"):
        interp.write_facts(smoke_run, [fact, fact])


def test_settings_that_are_none() -> None:
    for wrong in ({"n_steps": 0}, {"lr": 0.0}, {"kl": -1.0}, {"largest": 0.0}):
        with pytest.raises(ArgumentError):
            TargetSettings(**wrong)


def test_fine_tuning_learns_the_facts_and_is_undone(smoke_run: Run, corpus: Corpus) -> None:
    model = smoke_run.model()
    before, told = weights_digest(model), Rewrites.of_people(corpus, drawn_facts(corpus, 3))
    was = probabilities(model, told)
    with finetuned_on(
        model, told, lr=3e-3, batch_size=8, most_steps=30, keep=True, replay=4
    ) as done:
        now = probabilities(model, told)
        assert weights_digest(model) != before
    assert (now - was).min() > 0.5
    assert weights_digest(model) == before
    assert all(one.grad is None for one in model.parameters())
    assert 0 < done.n_steps <= 30
    assert done.costs.examples == done.n_steps * 12
    assert done.costs.arithmetic == 3 * done.costs.forward_tokens


def test_scores_by_hand(smoke_run: Run, model: TransformerBridge, corpus: Corpus) -> None:
    """The shares of the table, counted one by one in plain passes, at a place where edits work."""
    last = model.cfg.n_layers - 1
    options = {"n_texts": 2, "targets": TargetSettings(n_steps=40, lr=0.2), "weight": 1.0}
    table = interp.edit_scores(
        smoke_run, [3], [(last, "predicts value")], methods=["memit"], forms="biography", n_facts=3,
        n_others=4, seed=2, **options,
    )  # fmt: skip
    assert list(table.columns) == list(COLUMNS)
    value = table[table["attribute"] == "all"].set_index("metric")["value"]
    facts, others = _drawn(corpus, 3, 4, 2)
    edit = interp.write_facts(smoke_run, facts, last, "predicts value", method="memit", **options)
    told = rewritten(corpus, edit.facts)
    people = np.array([person for person, _, _ in facts])
    places = [(row, corpus.attributes.index(fact.relation)) for row, fact in enumerate(edit.facts)]
    for metric, wordings in (("efficacy", "train"), ("generalisation", "evaluation")):
        batch = told.biographies(people, wordings, 0)
        with edit.applied(model):
            right = said(model, batch)
        assert value[metric] == pytest.approx(np.mean([right[place] for place in places]))
        by = table[(table["metric"] == metric) & (table["attribute"] != "all")]
        assert dict(zip(by["attribute"], by["value"], strict=True)) == {
            corpus.attributes[cell]: right[row, cell] for row, cell in places
        }
    batch = corpus.biographies(others, "evaluation", 0)
    before = said(model, batch)
    with edit.applied(model):
        after = said(model, batch)
    kept = after[before]
    assert np.isnan(value["specificity_others"]) if not len(kept) else (
        value["specificity_others"] == pytest.approx(kept.mean())
    )  # fmt: skip
    assert value["arithmetic"] > 0


def said(model: TransformerBridge, batch: Batch) -> np.ndarray:
    """Whether each value is the model's guess, token by token."""
    with torch.no_grad():
        guess = model(batch.tokens).argmax(-1)
    found = np.zeros(tuple(batch.value_start.shape), dtype=bool)
    for row, attribute in np.ndindex(*found.shape):
        start, n = int(batch.value_start[row, attribute]), int(batch.value_length[row, attribute])
        tokens = batch.tokens[row, start : start + n]
        found[row, attribute] = bool((guess[row, start - 1 : start + n - 1] == tokens).all())
    return found


def test_the_table_of_scores(smoke_run: Run) -> None:
    before = weights_digest(smoke_run.model())
    model = smoke_run.model()
    table = interp.edit_scores(
        model, (1, 3), [(0, "middle name")], corpus=smoke_run.corpus,
        finetuning={"tuned": {"most_steps": 3}}, forms="biography", n_facts=3, n_others=4, n_texts=2,
        targets=QUICK,
    )  # fmt: skip
    assert weights_digest(model) == before
    assert set(table["method"]) == {"rome", "memit", "tuned"}
    one = table[(table["n_edits"] == 1) & (table["metric"] == "efficacy")]
    assert one[one["attribute"] != "all"].groupby("method")["n"].sum().eq(3).all()
    one = one[one["attribute"] == "all"]
    assert (one["n_repeats"] == 3).all()
    assert (one["n"] == 3).all()
    steps = table[(table["method"] == "tuned") & (table["metric"] == "n_steps")]
    assert list(steps["value"]) == [3, 3]
    shares = table[~table["metric"].isin(["n_steps", "arithmetic"])]
    assert shares["value"].dropna().between(0, 1).all()
    with pytest.raises(ArgumentError, match="no method"):
        interp.edit_scores(smoke_run, methods=["magic"])
    with pytest.raises(ArgumentError, match="give fewer"):
        interp.edit_scores(smoke_run, [10_000])
