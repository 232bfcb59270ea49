"""The trace of one fact, against sums, caches and loops written from scratch."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch

import interp
from interp.biographies import ATTRIBUTES, TokenKind
from interp.charts.style import caption, title
from interp.config import Config
from interp.errors import ArgumentError, CheckpointError, ConfigError, RunError
from interp.knowledge import ValuePositions
from interp.memory import promoted_logits
from interp.memory.locate import locate_fact, locate_facts
from interp.memory.located_fact import (
    GROUPS,
    LOCATED_POSITIONS,
    NAME,
    NAME_TOKENS,
    VALUE,
    LocatedFact,
)
from interp.model import evaluating
from interp.phases import Phases
from interp.plots.fact import located_fact
from interp.report.elements import LeftOut, Section
from interp.report.located_facts import located_facts_section
from interp.run import Run
from interp.run.checkpoints import write_checkpoint
from interp.run.tables import result_table

BIG = {"model.init_std": 0.3, "training.n_steps": 2, "training.checkpoint_every": 2}


@pytest.fixture(scope="module", params=["LN", "RMS and rotary", "3 layers", "bpe"])
def run(
    request: pytest.FixtureRequest, smoke: Config, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """Runs with weights that are large enough for everything to matter."""
    settings: dict[str, Any] = {
        "LN": {},
        "RMS and rotary": {"model.normalization": "RMS", "model.positions": "rotary"},
        "3 layers": {"model.n_layers": 3, "training.precision": "fp32"},
        "bpe": {
            "tokenizer.kind": "bpe", "tokenizer.bpe_vocabulary": 200, "model.n_ctx": 512,
        },
    }[request.param]  # fmt: skip
    config = smoke.with_settings(**BIG, **settings)
    run = interp.train(config, tmp_path_factory.mktemp("trace") / "run", progress=False)
    model = run.model()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:  # biases and norms, which training has hardly moved
                weight += 0.3 * torch.randn(weight.shape, generator=generator)
            assert weight.abs().max() > 0, name
    write_checkpoint(run.path, run.steps[-1], model, config)
    return run


@pytest.fixture(scope="module", params=["first", "biography"])
def fact(request: pytest.FixtureRequest, run: Run) -> LocatedFact:
    return locate_fact(run, 3, "university", context=request.param, draw=1)


@pytest.fixture
def cache(run: Run, fact: LocatedFact) -> Any:
    """What TransformerLens computes on the same text: logits and all activations."""
    model = run.model(fact.step)
    with torch.no_grad():
        logits, cache = model.run_with_cache(torch.tensor([fact.tokens["token_id"].tolist()]))
    return model, logits[0, -1].double(), cache


def rivals(run: Run, fact: LocatedFact) -> tuple[int, list[int]]:
    """The value's first token and the distinct ones of all others, value by value."""
    pool = run.corpus.value_tokens(fact.attribute)
    index = run.population.values[fact.individual, ATTRIBUTES.index(fact.attribute)]
    target = pool[index][0]
    return target, sorted({tokens[0] for tokens in pool} - {target})


def places(fact: LocatedFact) -> dict[str, int]:
    table = fact.tokens[fact.tokens["sentence"] == fact.tokens["sentence"].iloc[-1]]
    of_part = {part: table.loc[table["part"] == part, "position"].max()
               for part in ("first", "middle", "last")}  # fmt: skip
    return {VALUE: len(fact.tokens) - 1, **{f"{p} name": int(i) for p, i in of_part.items()}}


def test_the_text_ends_before_the_value_and_never_tells_it(run: Run, fact: LocatedFact) -> None:
    batch = run.corpus.biographies(np.array([3]), "evaluation", 1)
    index = ATTRIBUTES.index("university")
    tokens = fact.tokens
    assert list(tokens["position"]) == list(range(fact.value_position + 1))
    own = tokens[tokens["attribute"] == "university"]
    assert not (own["kind"] == "value").any()
    assert own["position"].iloc[-1] == fact.value_position
    assert list(tokens.loc[tokens["kind"] == "value", "attribute"].unique()) == [
        ATTRIBUTES[a] for a in batch.attribute[0].unique_consecutive().tolist()
        if fact.context == "biography" and a >= 0
        and batch.value_start[0, a] < batch.value_start[0, index]
    ]  # fmt: skip
    end = int(batch.value_start[0, index])
    whole = batch.tokens[0, :end].tolist()
    sentence = batch.tokens[0, :end][batch.attribute[0, :end] == index].tolist()
    expected = whole if fact.context == "biography" else [whole[0], *sentence]
    assert list(tokens["token_id"]) == expected, "the same template in both contexts"
    name_tokens = own[own["kind"] == "name"]
    assert fact.name_position == name_tokens["position"].max()
    assert "".join(name_tokens["token"]).replace("##", "") == fact.name.replace(" ", "")


def test_the_prediction(run: Run, fact: LocatedFact, cache: Any) -> None:
    _, logits, _ = cache
    target, others = rivals(run, fact)
    chances = logits.softmax(-1)
    assert fact.probability == pytest.approx(float(chances[target]), abs=1e-6)
    assert fact.rank == 1 + sum(float(v) > float(logits[target]) for v in logits)
    assert fact.logit_difference == pytest.approx(
        float(logits[target]) - np.mean([float(logits[o]) for o in others]), abs=1e-4
    )
    top = fact.predictions
    assert list(top["token_id"]) == chances.argsort(descending=True)[: len(top)].tolist()
    assert top["probability"].is_monotonic_decreasing
    assert len(top) == 8


def test_contributions_add_up_to_the_logit_difference(fact: LocatedFact) -> None:
    direct = fact.components[fact.components["at"] == VALUE]
    assert direct["contribution"].sum() == pytest.approx(fact.logit_difference, abs=1e-4)
    assert direct["contribution"].abs().max() > 0.1, "otherwise this shows little"
    heads = fact.heads.groupby(["at", "layer"])["contribution"].sum()
    for row in fact.components[fact.components["component"] == "heads"].itertuples():
        assert heads[row.at, row.layer] == pytest.approx(row.contribution, abs=1e-9)


def test_heads_and_mlps_contribute_what_the_logits_lose_without_them(
    run: Run, fact: LocatedFact, cache: Any
) -> None:
    """By hand: the final norm with its scale held, of the residual stream less one part."""
    model, _, cached = cache
    target, others = rivals(run, fact)
    scale = cached["ln_final.hook_scale"][0, -1]
    norm = model.ln_final.original_component
    centred = isinstance(norm, torch.nn.LayerNorm)

    def difference(stream: torch.Tensor) -> float:
        x = stream - stream.mean() if centred else stream
        out = x / scale * norm.weight.detach()
        logits = (out @ model.W_U).detach()
        return float(logits[target] - logits[others].mean())

    last = model.cfg.n_layers - 1
    stream = cached[f"blocks.{last}.hook_resid_post"][0, -1]
    for layer in range(last + 1):
        table = fact.components[
            (fact.components["at"] == VALUE) & (fact.components["layer"] == layer)
        ]
        mlp = cached[f"blocks.{layer}.hook_mlp_out"][0, -1]
        lost = difference(stream) - difference(stream - mlp)
        found = table.loc[table["component"] == "mlp", "contribution"].iloc[0]
        assert found == pytest.approx(lost, abs=1e-3)
        heads = fact.heads[(fact.heads["at"] == VALUE) & (fact.heads["layer"] == layer)]
        for row in heads.itertuples():
            z = cached[f"blocks.{layer}.attn.hook_z"][0, -1, row.head]
            out = (z @ model.W_O[layer, row.head]).detach()
            lost = difference(stream) - difference(stream - out)
            assert row.contribution == pytest.approx(lost, abs=1e-3)


def test_what_is_carried_from_a_name_token_adds_up(fact: LocatedFact) -> None:
    """By its writers in the components, and by its readers in the table of attention."""
    carried = fact.attention[fact.attention["at"] == VALUE]
    by_token = carried.groupby("position")["contribution"].sum()
    for at in NAME_TOKENS:
        written = fact.components.loc[fact.components["at"] == at, "contribution"].sum()
        assert written == pytest.approx(by_token[places(fact)[at]], abs=1e-4)
    assert by_token.abs().max() > 0.05
    by_head = carried.groupby(["layer", "head"])["contribution"].sum()
    heads = fact.heads[fact.heads["at"] == VALUE].set_index(["layer", "head"])["contribution"]
    np.testing.assert_allclose(by_head, heads, atol=1e-5)
    np.testing.assert_allclose(fact.carried()["contribution"], by_token, atol=1e-9)


def test_attention_is_the_model_s(fact: LocatedFact, cache: Any) -> None:
    _, _, cached = cache
    for at, query in places(fact).items():
        for row in fact.attention[fact.attention["at"] == at].itertuples():
            pattern = cached[f"blocks.{row.layer}.attn.hook_pattern"]
            assert row.attention == pytest.approx(
                float(pattern[0, row.head, query, row.position]), abs=1e-6
            )
    np.testing.assert_allclose(fact.heads[list(GROUPS)].sum(axis=1), 1, atol=1e-5)
    here = fact.tokens["sentence"] == fact.tokens["sentence"].iloc[-1]
    for group, chosen in {
        "middle_name": here & (fact.tokens["part"] == "middle"),
        "earlier_names": ~here & (fact.tokens["kind"] == "name"),
        "type_words": here & (fact.tokens["kind"] == "type"),
    }.items():
        paid = fact.attention[
            (fact.attention["at"] == VALUE) & fact.attention["position"].isin(chosen[chosen].index)
        ]
        of_heads = fact.heads[fact.heads["at"] == VALUE].set_index(["layer", "head"])[group]
        sums = paid.groupby(["layer", "head"])["attention"].sum()
        np.testing.assert_allclose(of_heads, sums.reindex(of_heads.index, fill_value=0), atol=1e-6)


def test_neurons_are_activation_times_promoted_logit(
    run: Run, fact: LocatedFact, cache: Any
) -> None:
    model, _, cached = cache
    target, others = rivals(run, fact)
    scale = float(cached["ln_final.hook_scale"][0, -1, 0])
    direct = fact.neurons[fact.neurons["at"] == VALUE]
    assert set(direct["layer"]) == set(range(model.cfg.n_layers))
    for layer in range(model.cfg.n_layers):
        promoted = promoted_logits(model, layer)
        post = cached[f"blocks.{layer}.mlp.hook_post"][0, -1]
        share = post * (promoted[:, target] - promoted[:, others].mean(1)) / scale
        own = direct[direct["layer"] == layer]
        expected = share.abs().topk(len(own)).indices
        np.testing.assert_allclose(own["contribution"], share[expected], rtol=1e-3, atol=1e-4)
        for row in own.itertuples():
            assert row.activation == pytest.approx(float(post[row.neuron]), abs=1e-5)
            ids = promoted[row.neuron].argsort(descending=True)[: len(row.promotes)].tolist()
            assert list(row.promotes) == [run.tokenizer.decode([i]).strip() or " " for i in ids]
            assert row.value_rank == 1 + int(
                (promoted[row.neuron] > promoted[row.neuron, target]).sum()
            )


def centred(norm: Any, x: torch.Tensor) -> torch.Tensor:
    return x - x.mean() if isinstance(norm.original_component, torch.nn.LayerNorm) else x


def test_neurons_at_the_name_act_through_what_later_heads_read(
    run: Run, fact: LocatedFact, cache: Any
) -> None:
    """Head by head: the neuron's output, through norm, values, attention, output, and logits."""
    model, _, cached = cache
    target, others = rivals(run, fact)
    largest = 0.0
    for row in (
        fact.neurons[fact.neurons["at"] != VALUE].groupby(["at", "layer"]).head(2).itertuples()
    ):
        position = places(fact)[row.at]
        activation = cached[f"blocks.{row.layer}.mlp.hook_post"][0, position, row.neuron]
        assert row.activation == pytest.approx(float(activation), abs=1e-5)
        with torch.no_grad():
            written = activation * model.W_out[row.layer, row.neuron]
            arrived = torch.zeros_like(written)
            for layer in range(row.layer + 1, model.cfg.n_layers):
                norm = model.blocks[layer].ln1
                scale = cached[f"blocks.{layer}.ln1.hook_scale"][0, position]
                read = centred(norm, written) / scale * norm.original_component.weight
                for head in range(model.cfg.n_heads):
                    pattern = cached[f"blocks.{layer}.attn.hook_pattern"][0, head, -1, position]
                    arrived += pattern * (read @ model.W_V[layer, head] @ model.W_O[layer, head])
            norm, scale = model.ln_final, cached["ln_final.hook_scale"][0, -1]
            logits = centred(norm, arrived) / scale * norm.original_component.weight @ model.W_U
        found = float(logits[target] - logits[others].mean())
        assert row.contribution == pytest.approx(found, rel=1e-3, abs=3e-6)
        promoted = promoted_logits(model, row.layer, path="attention")[row.neuron]
        ids = promoted.argsort(descending=True)[: len(row.promotes)].tolist()
        assert list(row.promotes) == [run.tokenizer.decode([i]).strip() or " " for i in ids]
        largest = max(largest, abs(found))
    assert largest > 3e-5, "otherwise this shows little"


def test_the_lens_ends_in_the_prediction(fact: LocatedFact) -> None:
    at_value = fact.lens[fact.lens["at"] == VALUE]
    last = at_value.iloc[-1]
    assert last["site"] == "resid_post"
    assert last["probability"] == pytest.approx(fact.probability, abs=1e-6)
    assert last["rank"] == fact.rank
    assert last["logit_difference"] == pytest.approx(fact.logit_difference, abs=1e-4)
    assert (fact.lens["rank_among_values"] <= fact.lens["rank"]).all()


def test_history_is_the_measured_loss(smoke_run: Run) -> None:
    """Against a whole biography in one pass, value by value."""
    facts = [(0, "birth_date"), (5, "company"), (1, "birth_place")]
    found = locate_facts(smoke_run, facts, [20, 40], context="biography")
    assert [(t.individual, t.step) for t in found] == [(0, 20), (0, 40), (5, 20), (5, 40),
                                                       (1, 20), (1, 40)]  # fmt: skip
    for one in found:
        assert list(one.history["step"]) == smoke_run.steps
        batch = smoke_run.corpus.biographies(np.array([one.individual]))
        where = ValuePositions.of(batch)
        mine = where.attribute == ATTRIBUTES.index(one.attribute)
        for row in one.history.itertuples():
            with torch.no_grad():
                logits = smoke_run.model(row.step)(batch.tokens)[0]
            log_p = logits.log_softmax(-1)[where.position[mine], where.target[mine]]
            assert row.value_probability == pytest.approx(float(log_p.sum().exp()), rel=1e-4)
            assert row.probability == pytest.approx(float(log_p[0].exp()), rel=1e-4)
        at = one.history.set_index("step").loc[one.step]
        assert one.value_probability == at["value_probability"]
        assert one.probability == pytest.approx(at["probability"], rel=1e-4)
    few = locate_facts(smoke_run, facts[:1], [20], history=[0, 40])[0]
    assert list(few.history["step"]) == [0, 20, 40]
    pd.testing.assert_frame_equal(
        few.components, locate_fact(smoke_run, 0, "birth_date", 20).components, rtol=1e-9
    )


def test_people_by_name_by_number_and_held_out(smoke_run: Run) -> None:
    people = smoke_run.population
    by_name = locate_fact(smoke_run, people.name(4), "major", 40)
    by_number = locate_fact(smoke_run, np.int64(4), "major")
    assert by_name == by_number
    assert by_name.individual == 4
    assert not by_name.held_out
    assert by_name.value == people.facts(4)["major"]
    unseen = locate_fact(smoke_run, people.config.n_individuals, "major")
    assert unseen.held_out
    assert "held out" in repr(unseen)
    middle_and_last = people.name(4).split(" ", 1)[1]
    assert locate_fact(smoke_run, middle_and_last.lower(), "Major").individual == 4
    for spelled in ("birth place", "birth-place", "Birth_Place"):
        assert locate_fact(smoke_run, 4, spelled).attribute == "birth_place"
    assert locate_fact(smoke_run, 4, "major", wordings="train").text != by_name.text


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"person": 10_000}, ConfigError, "individuals 0 to"),
        ({"person": -1}, ConfigError, "no individual -1"),
        ({"person": "Nobody At All"}, RunError, "Nobody in this population"),
        ({"person": "a"}, RunError, "'a' in their name"),
        ({"attribute": "birthplace"}, ConfigError, "Did you mean 'birth_place'"),
        ({"step": 41}, CheckpointError, "no checkpoint at step 41"),
        ({"wordings": "evaluating"}, ConfigError, "Did you mean 'evaluation'"),
        ({"context": "all"}, ConfigError, "Choose from first, biography"),
        ({"top": 0}, ConfigError, "at least 1"),
        ({"draw": -1}, ConfigError, "at least 0"),
    ],
)
def test_bad_input(
    smoke_run: Run, given: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        locate_fact(smoke_run, **{"person": 0, "attribute": "major", **given})


def test_nothing_named(smoke_run: Run) -> None:
    for facts, steps in (([], None), ([(0, "major")], [])):
        with pytest.raises(ConfigError, match="at least one"):
            locate_facts(smoke_run, facts, steps)
    one = locate_fact(smoke_run, 0, "major")
    with pytest.raises(ConfigError, match="Did you mean 'last name'"):
        one.strongest_heads("lastname")


def test_the_models_are_left_as_they_were(smoke_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    build = Run.model

    def model(self: Run, *args: Any, **kwargs: Any) -> Any:
        made.append(build(self, *args, **kwargs).train())
        return made[-1]

    monkeypatch.setattr(Run, "model", model)
    locate_fact(smoke_run, 0, "major")
    assert len(made) == 1, "one model serves all checkpoints"
    assert all(part.training for part in made[0].modules())
    assert not any(point.fwd_hooks for point in made[0].hook_dict.values())
    with evaluating(made[0]):
        assert not any(part.training for part in made[0].modules())


@pytest.mark.slow
def test_a_patched_run_is_read_with_the_attention_it_was_given(
    smoke: Config, smoke_run: Run, tmp_path: Any
) -> None:
    config = smoke.with_settings(
        **{"patching.reference": str(smoke_run.path), "patching.reference_step": 40,
           "training.n_steps": 10},
    )  # fmt: skip
    patched = interp.train(config, tmp_path / "patched", progress=False)
    one, reference = (locate_fact(r, 2, "company", r.steps[-1]) for r in (patched, smoke_run))
    np.testing.assert_allclose(
        one.attention["attention"], reference.attention["attention"], atol=1e-6
    )
    total = one.components.loc[one.components["at"] == VALUE, "contribution"].sum()
    assert total == pytest.approx(one.logit_difference, abs=1e-4)
    assert one.logit_difference != pytest.approx(reference.logit_difference, abs=1e-3)
    assert isinstance(located_facts_section(measured(patched, tmp_path / "copy")), Section)


def test_a_value_told_earlier_is_flagged(smoke_run: Run) -> None:
    found = 0
    for individual in range(len(smoke_run.population)):
        facts = smoke_run.population.facts(individual)
        if facts["birth_place"] != facts["current_location"]:
            continue
        pair = [(individual, name) for name in ("birth_place", "current_location")]
        told = [
            t.told_earlier for t in locate_facts(smoke_run, pair, context="biography", history=[0])
        ]
        assert sorted(map(len, told)) == [0, 1]
        told_first = [t.told_earlier for t in locate_facts(smoke_run, pair, history=[0])]
        assert told_first == [(), ()]
        found += 1
    assert found, "nobody lives where they were born: choose another seed"


HOSTILE = "<b>$x$ & </script><img src=x onerror=alert(1)>%{x}"


@pytest.fixture
def hostile(smoke_run: Run) -> LocatedFact:
    from dataclasses import replace

    one = locate_fact(smoke_run, 0, "birth_place", context="biography", draw=3)
    neurons = one.neurons.assign(promotes=[(HOSTILE, "b")] * len(one.neurons))
    return replace(
        one, name=HOSTILE, value=HOSTILE, neurons=neurons,
        tokens=one.tokens.assign(token=HOSTILE),
        predictions=one.predictions.assign(token=HOSTILE),
    )  # fmt: skip


def test_texts_from_data_are_escaped(hostile: LocatedFact) -> None:
    page = hostile._repr_html_()
    assert "<img" not in page
    assert "</script" not in page
    assert "&lt;img" in page
    figure = located_fact(hostile)
    texts = [a.text for a in figure.layout.annotations]
    for axis in figure.select_xaxes():
        texts += list(axis.ticktext or ())
    for drawn in figure.data:
        custom = drawn.customdata if drawn.customdata is not None else []
        texts += [str(word) for word in np.array(custom, dtype=object).ravel()]
        assert "onerror" not in (drawn.hovertemplate or "") + (drawn.texttemplate or "")
    assert any("onerror" in text for text in texts)
    for text in texts:
        assert "<img" not in text
        assert "</script" not in text
        assert "$" not in text
    assert HOSTILE[:5] not in title(figure)


def test_repr(smoke_run: Run) -> None:
    words = repr(locate_fact(smoke_run, 0, "birth_place"))
    for expected in (
        "The birth place of",
        "rank",
        "head",
        "MLP",
        "neuron",
        "last name",
    ):
        assert expected in words
    assert str(smoke_run.path) not in words


def test_figure(fact: LocatedFact) -> None:
    figure = located_fact(fact)
    first = next(t for t in figure.data if isinstance(t, go.Heatmap))
    z = np.array(first.z, dtype=float)
    assert len(z) == len(fact.heads[fact.heads["at"] == VALUE])
    np.testing.assert_allclose(z.sum(axis=1), 1, atol=1e-5)
    labels = figure.layout[first.xaxis.replace("x", "xaxis")].ticktext
    assert ("earlier text" in labels) == (fact.tokens["sentence"].max() > 0)
    bars = next(t for t in figure.data if t.name == "contribution")
    assert sum(bars.x) == pytest.approx(fact.logit_difference, abs=1e-4)
    of_steps = next(t for t in figure.data if t.name == "first token")
    np.testing.assert_allclose(np.square(of_steps.x), fact.history["step"])
    assert list(of_steps.y) == list(fact.history["probability"])
    own = of_steps.yaxis
    assert figure.layout[own.replace("y", "xaxis")].ticktext != figure.layout.xaxis.ticktext
    assert fact.name in caption(figure)
    assert f"step {fact.step:,}" in title(figure)
    assert all(shape.yref == f"{own} domain" for shape in figure.layout.shapes)


def test_figure_of_large_and_of_shallow_models(smoke: Config, tmp_path: Any) -> None:
    for name, settings in {
        "wide": {"model.n_heads": 16, "model.n_layers": 4},
        "shallow": {"model.n_layers": 1},
    }.items():
        config = smoke.with_settings(**BIG, **settings)
        run = interp.train(config, tmp_path / name, progress=False)
        one = locate_fact(run, 0, "major")
        figure = located_fact(one)
        rows = [len(t.z) for t in figure.data if isinstance(t, go.Heatmap)]
        assert rows == ([16, 16] if name == "wide" else [16 // 8])
        bars = next(t for t in figure.data if t.name == "contribution")
        assert len(bars.x) <= 15
        assert sum(bars.x) == pytest.approx(one.logit_difference, abs=1e-4)
        assert repr(one)


def measured(run: Run, to: Path) -> Run:
    """A copy of a run whose memory stage has finished."""
    shutil.copytree(run.path, to)
    folder = to / "results" / "memory"
    folder.mkdir(parents=True)
    columns = result_table("memory", "probes").column_names
    row = ["0", "resid_pre", "0", "name", "all", *["0.5"] * (len(columns) - 5)]
    (folder / "probes.csv").write_text(f"{','.join(columns)}\n{','.join(row)}\n")
    (folder / "summary.json").write_text("{}")
    return Run.load(to)


def test_section(smoke_run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert isinstance(located_facts_section(smoke_run), LeftOut), "its memory was not measured"
    smoke_run = measured(smoke_run, tmp_path / "copy")
    phases = Phases(10, 20, 5.0, 0.05)
    monkeypatch.setattr(Run, "phases", phases)
    section = located_facts_section(smoke_run)
    assert isinstance(section, Section)
    assert list(section.figures) == [
        "fact-birth-place-40", "fact-university-40", "fact-birth-date-40",
        "fact-birth-place-20",
    ]  # fmt: skip
    (table,) = section.tables
    assert len(table.rows) == 9
    assert {len(row) for row in table.rows} == {len(table.header)}
    assert smoke_run.population.name(0) in table.caption
    again = located_facts_section(smoke_run)
    assert isinstance(again, Section)
    assert again.tables == section.tables


def test_no_section_without_checkpoints(
    smoke_run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    smoke_run = measured(smoke_run, tmp_path / "copy")
    monkeypatch.setattr(Run, "steps", [])
    assert isinstance(located_facts_section(smoke_run), LeftOut)
    with pytest.raises(RunError, match="no checkpoint yet"):
        locate_fact(smoke_run, 0, "major")


def test_kinds_are_those_of_tokens(fact: LocatedFact) -> None:
    assert set(fact.tokens["kind"]) <= {kind.name.lower() for kind in TokenKind}
    assert set(fact.heads["at"]) == set(LOCATED_POSITIONS)
    assert NAME in LOCATED_POSITIONS


def test_population(smoke_run: Run) -> None:
    """Beside one fact: the same of other people, each as it is when it is located by itself."""
    one = locate_fact(smoke_run, 3, "major", others=5)
    assert one.population is not None
    others = [0, 5, 11, 17, 23]  # spread evenly over the 24 who were trained on
    each = pd.DataFrame(
        [
            locate_fact(smoke_run, i, "major", others=0)
            .components.groupby("at")["contribution"]
            .sum()[list(NAME_TOKENS)]
            for i in others
        ]
    )
    shown = one.population.set_index("at")
    assert list(shown.index) == list(NAME_TOKENS)
    np.testing.assert_allclose(shown["contribution"], each.mean(), rtol=1e-6)
    most = each.idxmax(axis=1).value_counts(normalize=True)
    np.testing.assert_allclose(shown["share"], most.reindex(NAME_TOKENS, fill_value=0))
    assert set(shown["n_people"]) == {5}
    assert "The same over 5 people" in repr(one)
    marks = next(trace for trace in located_fact(one).data if trace.name == "beside")
    np.testing.assert_allclose(marks.x, shown["contribution"])
    alone = locate_fact(smoke_run, 3, "major", others=0)
    assert alone.population is None
    assert "people" not in repr(alone)
    assert set(locate_fact(smoke_run, 3, "major").population["n_people"]) == {24}
    with pytest.raises(ArgumentError, match="others"):
        locate_fact(smoke_run, 3, "major", others=-1)
