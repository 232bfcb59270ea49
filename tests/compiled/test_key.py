"""The key says what is so: each head, neuron and direction does what it is listed for, and nothing else."""

import pandas as pd
import pytest
import torch

import interp
from interp.errors import ArgumentError
from interp.knowledge import METRICS, value_table
from interp.model import evaluating

RIGHT = METRICS.index("attribute_accuracy")


@pytest.fixture(scope="module")
def compiled():
    controls = ("direction", "head", "neurons")
    return interp.compile_recall(interp.preset("smoke"), controls=controls)


@pytest.fixture(scope="module")
def batch(compiled):
    return compiled.corpus.biographies(slice(0, 24))


@pytest.fixture(scope="module")
def cache(compiled, batch):
    with evaluating(compiled.model):
        return compiled.model.run_with_cache(batch.tokens)[1]


def right(model, batch, hooks=()):
    """Which values are right, [individual, attribute], while hooks are on the model."""
    with model.hooks(fwd_hooks=list(hooks)):
        return value_table(model, batch)[RIGHT]


def silenced(layer, head):
    def cut(z, hook):
        z = z.clone()
        z[:, :, head] = 0.0
        return z

    return f"blocks.{layer}.attn.hook_z", cut


def test_heads_that_copy_look_so_far_back(compiled, batch, cache):
    heads = compiled.key.heads.query("role == 'copies'")
    assert set(heads["back"]) >= {1, 2}
    width = batch.tokens.shape[1]
    for layer, head, back in heads[["layer", "head", "back"]].itertuples(index=False):
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"][:, head]
        at = (torch.arange(width) - int(back)).clamp(min=0)
        assert float(pattern[:, torch.arange(width), at].min()) > 1 - 1e-6


def test_heads_that_recall_look_at_the_name_where_asked_and_at_the_beginning_else(
    compiled, batch, cache
):
    rows = torch.arange(len(batch))
    recalling = compiled.key.heads.query("role == 'recalls'").set_index("attribute")
    for attribute, name in enumerate(compiled.corpus.attributes):
        own = recalling.loc[name]
        pattern = cache[f"blocks.{own['layer']}.attn.hook_pattern"][:, int(own["head"])]
        asked = batch.value_start[:, attribute] - 1
        at_name = pattern[rows, asked, batch.name_end[:, attribute]]
        assert float(at_name.min()) > 1 - 1e-6
        assert float(pattern[rows, batch.name_end[:, attribute], 0].min()) > 1 - 1e-6


def test_without_the_head_of_an_attribute_that_attribute_alone_is_lost(compiled, batch):
    for attribute in (0, 4):
        found = right(compiled.model, batch, [silenced(1, attribute)])
        assert found[:, attribute].max() == 0.0
        assert found[:, [i for i in range(6) if i != attribute]].min() == 1.0


def test_the_neuron_of_a_person_fires_for_that_person_and_without_it_nothing_is_known(
    compiled, batch, cache
):
    neurons = compiled.key.neurons.query("layer == 0 and role == 'person'").set_index("individual")
    active = cache["blocks.0.mlp.hook_post"]
    rows = torch.arange(len(batch))
    at_name = active[rows, batch.name_end[:, 0]][:, torch.tensor(list(neurons["neuron"]))]
    torch.testing.assert_close(at_name, torch.eye(24), rtol=0, atol=1e-4)
    chosen = int(neurons.loc[3, "neuron"])

    def cut(post, hook):
        post = post.clone()
        post[..., chosen] = 0.0
        return post

    found = right(compiled.model, batch, [("blocks.0.mlp.hook_post", cut)])
    assert found[3].max() == 0.0
    assert found[[i for i in range(24) if i != 3]].min() == 1.0


def test_the_facts_are_where_the_key_has_them(compiled, batch, cache):
    key, people = compiled.key, compiled.corpus.population
    stream = cache["blocks.0.hook_resid_post"]
    for person in (0, 7):
        for attribute, value in people.facts(person).items():
            token = compiled.corpus.tokenizer.tokenize(value)[0]
            way = torch.tensor(key.direction(f"fact {attribute} 0", token), dtype=torch.float32)
            index = compiled.corpus.attributes.index(attribute)
            said = stream[person, batch.name_end[person, index]] @ way
            assert float(said) == pytest.approx(1.0, abs=1e-4)
    with pytest.raises(ArgumentError, match="no direction"):
        key.direction("asked", "shoe size")


def test_controls_are_there_and_nothing_reads_them(compiled, batch, cache):
    spaces = compiled.key.spaces.set_index("space")
    assert (spaces.loc[["unread", "carried"], "read_by"] == "").all()
    assert "MLP 0" in spaces.loc["unread", "written_by"]
    assert (spaces.drop(["unread", "carried"])["read_by"] != "").all()
    idle = compiled.key.heads.query("role == 'idle'").iloc[0]
    pattern = cache["blocks.1.attn.hook_pattern"][:, int(idle["head"])]
    rows = torch.arange(len(batch))
    assert float(pattern[rows, batch.value_start[:, 2] - 1, batch.name_end[:, 2]].min()) > 1 - 1e-6
    neurons = compiled.key.neurons.query("role == 'idle'")
    post = cache["blocks.0.mlp.hook_post"][rows, batch.name_end[:, 0]]
    idle_neurons = torch.tensor(list(neurons["neuron"]))
    torch.testing.assert_close(post[:, idle_neurons], torch.eye(24), rtol=0, atol=1e-4)
    model, unread = compiled.model, torch.tensor(compiled.key.vectors["unread"]).abs().sum(0) > 0

    def without(post, hook):
        post = post.clone()
        post[..., idle_neurons] = 0.0
        return post

    def unsaid(stream, hook):
        return stream.masked_fill(unread, 0.0)

    edits = [
        ("blocks.0.mlp.hook_post", without), ("blocks.0.hook_resid_post", unsaid),
        silenced(1, int(idle["head"])),
    ]  # fmt: skip
    with evaluating(model):
        expected = model(batch.tokens)
        for edit in edits:
            found = model.run_with_hooks(batch.tokens, fwd_hooks=[edit])
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_every_head_neuron_and_dimension_is_in_the_key(compiled, tmp_path):
    key, model = compiled.key, compiled.config.model
    assert len(key.heads) == 2 * model.n_heads
    assert len(key.neurons) == 2 * model.d_mlp
    assert not key.neurons.duplicated(["layer", "neuron"]).any()
    assert list(key.spaces["start"])[1:] == list(key.spaces["stop"])[:-1]
    assert len(key.directions) == sum(map(len, key.vectors.values()))
    key.write(tmp_path)
    for name in ("heads", "neurons", "spaces", "directions", "facts"):
        assert len(pd.read_csv(tmp_path / f"{name}.csv")) == len(getattr(key, name))


def test_patching_finds_the_memory_in_mlp_0_at_the_last_name_and_recall_in_layer_1(compiled):
    grid = interp.Grid(sites=("mlp_out", "attn_out"), positions=("last name", "predicts value"))
    table = interp.patch(compiled.model, interp.swapped_people(compiled.corpus, 8), grid)
    follows = table.query("metric == 'follows'").set_index(["site", "layer", "position"])["value"]
    assert follows["mlp_out", 0, "last name"] == follows["attn_out", 1, "predicts value"] == 1.0
    # Of two people with the same last name, what layer 0 gathers there is all that differs.
    gathered = follows.pop(("attn_out", 0, "last name"))
    assert gathered < 0.5
    others = follows.drop([("mlp_out", 0, "last name"), ("attn_out", 1, "predicts value")])
    assert others.max() == 0.0
