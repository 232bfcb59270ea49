"""Averages, task vectors and lines against plain arithmetic on state dicts; merged runs are runs."""

import copy
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2Config, GPT2LMHeadModel

import interp
from interp.biographies import Texts
from interp.config import Config
from interp.errors import ArgumentError, CheckpointError, ConfigError, RunError
from interp.interventions import Grid, patch
from interp.knowledge import measure, split_batch
from interp.merging import (
    barrier,
    loss_along_line,
    made_of,
    merge,
    save_merged,
    task_vector,
)
from interp.merging.weights import read_weights
from interp.model import has_fused_forward
from interp.pretrained import load_model
from interp.progress import silent
from interp.run import Run
from interp.stages import reproduce
from tests.facts.capitals import CAPITALS
from tests.facts.conftest import make_tokenizer
from tests.helpers import contents, run_cli

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def other(short: Config, trained: Callable[[Config], Run]) -> Run:
    """The people of `short_run`, from other first weights."""
    return trained(short.with_settings(**{"model.seed": 5}))


def state(model: Run | TransformerBridge) -> State:
    return (model.model() if isinstance(model, Run) else model).state_dict()


def same_bytes(one: State, two: State) -> bool:
    return one.keys() == two.keys() and all(
        one[n].numpy().tobytes() == two[n].numpy().tobytes() for n in one
    )


def gpt2(seed: int, **settings: object) -> TransformerBridge:
    tokenizer = make_tokenizer("byte-level")
    torch.manual_seed(seed)
    config = GPT2Config(
        n_layer=2, n_head=2, n_embd=32, n_positions=64, vocab_size=len(tokenizer), initializer_range=0.3,
        architectures=["GPT2LMHeadModel"], **settings,
    )  # fmt: skip
    return load_model(GPT2LMHeadModel(config), tokenizer=tokenizer)


@pytest.fixture(scope="module")
def foreign() -> list[TransformerBridge]:
    return [gpt2(0), gpt2(1)]


def test_a_run_merged_with_itself_has_the_same_bytes(short_run: Run, tmp_path: Path) -> None:
    for weights in (None, [3, -1, -1]):
        model = merge([short_run] * 3, weights)
        assert same_bytes(state(model), state(short_run))
        assert has_fused_forward(model)
        assert not model.training
    again = save_merged(model, tmp_path / "merged")
    assert same_bytes(state(again), state(short_run))


def test_bytes_that_rounding_would_lose() -> None:
    """Negative zeros, denormal numbers: what the models share stays, whatever else differs."""
    first, second = gpt2(0), gpt2(1)
    with torch.no_grad():
        for model in (first, second):
            bias = model.blocks[0].mlp.out.bias
            bias.copy_(torch.tensor([-0.0, 1e-45, 0.1, -1e-39] * 8))
    merged = merge([first, second], [1 / 3, 2 / 3]).blocks[0].mlp.out.bias
    assert merged.detach().numpy().tobytes() == bias.detach().numpy().tobytes()


def test_an_unfinished_run_is_merged_at_a_named_step_only(short_run: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(short_run.path, tmp_path / "run"))
    run.finished_path.unlink()
    with pytest.raises(RunError, match="name a step"):
        merge([short_run, run])
    assert merge([short_run, run], steps=4) is not None
    with pytest.raises(RunError, match="or in it"):
        save_merged(merge([short_run, short_run]), short_run.path / "merged")


def test_an_average_is_that_of_the_weights(short_run: Run, other: Run) -> None:
    ours, theirs = state(short_run), state(other)
    found = state(merge([short_run, other], [0.3, 0.7]))
    for name in ours:
        expected = 0.3 * ours[name].double() + 0.7 * theirs[name].double()
        assert torch.equal(found[name], expected.float()) or name == "blocks.0.attn.causal_mask"
    assert same_bytes(found, state(merge([other, short_run], [0.7, 0.3]))), "in any order"
    early = state(merge([short_run, other], steps=[4, 8]))
    expected = (short_run.model(4).W_E + other.model(8).W_E) / 2
    torch.testing.assert_close(early["embed.weight"], expected, rtol=1e-6, atol=1e-8)
    assert same_bytes(state(merge([str(short_run.path), other], [1, 0])), ours)


def test_task_vectors_by_hand(short_run: Run, other: Run) -> None:
    base = short_run.model(0)
    a, b = task_vector(short_run, base), task_vector(other, base)
    start, one, two = state(base), state(short_run), state(other)
    vector = 2 * (a - 0.5 * b) + (-a)
    found = state(vector.apply(base, 0.25))
    for name, tensor in start.items():
        of_a, of_b = one[name].double() - tensor.double(), two[name].double() - tensor.double()
        torch.testing.assert_close(
            found[name], (tensor.double() + 0.25 * (of_a - of_b)).float(), rtol=1e-6, atol=1e-8
        )
    assert same_bytes(state(a.apply(base)), one), "to the bit"
    assert same_bytes(state((a + b - b).apply(base)), one)
    assert same_bytes(state(a.apply(base, 0)), start)
    assert same_bytes(state((-a).apply(short_run)), start)
    flat = [torch.cat([t.flatten() for t in v.tensors.values()]) for v in (a, b)]
    assert a.norm() == pytest.approx(float(flat[0].norm()))
    cosine = torch.nn.functional.cosine_similarity(*flat, dim=0)
    assert a.cosine(b) == pytest.approx(float(cosine))
    assert a.cosine(-a) == pytest.approx(-1)


def test_the_ends_of_a_line_are_the_models(short_run: Run, other: Run) -> None:
    line = loss_along_line(short_run, other, 3)
    assert list(line) == ["alpha", "split", "attribute_loss", "attribute_accuracy"]
    assert set(line["split"]) == {"train", "evaluation", "held_out"}
    for alpha, run in ((0.0, short_run), (1.0, other)):
        at = line[line["alpha"] == alpha].set_index("split")
        for split in at.index:
            for metric in ("attribute_loss", "attribute_accuracy"):
                known = run.curve(metric, split)
                assert at.loc[split, metric] == known.loc[known.index[-1]], "as in training"
    middle = measure(merge([short_run, other]), short_run.corpus, "evaluation", 24)
    found = line[(line["alpha"] == 0.5) & (line["split"] == "evaluation")]["attribute_loss"]
    assert found.item() == middle["value"].iloc[0]


def test_the_barrier_of_a_run_with_itself_is_zero(short_run: Run) -> None:
    line = loss_along_line(short_run, short_run, 4, splits=["train", "evaluation"])
    assert [barrier(line, split) for split in ("train", "evaluation")] == [0.0, 0.0]
    assert line.groupby("split")["attribute_loss"].nunique().max() == 1


def test_the_barrier_by_hand() -> None:
    line = pd.DataFrame(
        {"alpha": [0, 0.25, 0.5, 1], "attribute_loss": [1.0, 4.0, 3.0, 2.0], "attribute_accuracy": 0.5}
    ).assign(split="evaluation")  # fmt: skip
    assert barrier(line) == 4.0 - 1.25
    assert barrier(line.assign(attribute_loss=[1.0, 0.5, 1.5, 2.0])) == 0.0
    figure = interp.plots.line_curves(line)
    dotted = [trace for trace in figure.data if "straight" in str(trace.name)]
    assert [list(trace.y) for trace in dotted] == [[1.0, 1.25, 1.5, 2.0]]
    assert "2.75 nats" in str(interp.plots.caption(figure))
    for wrong in (
        line.drop(columns="split"),
        line[line["alpha"] > 0],
        line[:0],
        line.assign(attribute_loss=np.inf),
    ):
        with pytest.raises(ArgumentError, match=r"loss_along_line|with 0 and 1"):
            barrier(wrong)
    with pytest.raises(ArgumentError, match="no split in this table 'train'"):
        barrier(line, "train")


def test_two_models_from_elsewhere(foreign: list[TransformerBridge]) -> None:
    first, second = foreign
    before = [{n: t.clone() for n, t in state(model).items()} for model in foreign]
    facts = interp.Facts.from_table(
        CAPITALS, first.tokenizer, {"capital": "The [capital] of {subject} is"}
    )
    model = merge([first, second], [0.25, 0.75])
    for name, tensor in state(model).items():
        expected = 0.25 * before[0][name].double() + 0.75 * before[1][name].double()
        assert torch.equal(tensor, expected.float())
    tokens = facts.texts.tokens
    twin = copy.deepcopy(first.original_model)  # one that is averaged by itself, without hooks
    for p, q in zip(twin.parameters(), second.original_model.parameters(), strict=True):
        p.data = (0.25 * p.data.double() + 0.75 * q.data.double()).float()
    with torch.no_grad():
        np.testing.assert_allclose(model(tokens), twin(tokens).logits, atol=2e-5)
    line = loss_along_line(first, second, 3, texts=facts.texts)
    known = [facts.known(one)["answer_probability"] for one in (first, merge(foreign), second)]
    assert set(line["split"]) == {"texts"}
    np.testing.assert_allclose(
        line["attribute_loss"], [-np.log(each).mean() for each in known], rtol=1e-5
    )
    assert barrier(loss_along_line(first, first, 3, texts=facts.texts)) == 0
    again = merge([model, first], [1, 0])  # a merged one is a model as any other
    assert same_bytes(state(again), state(model))
    pairs = facts.pairs()
    assert patch(model, pairs, Grid("q_input", "predicts answer", heads="each")) is not None
    for model, was in zip(foreign, before, strict=True):
        assert same_bytes(state(model), was), "given models are as they were"


def test_a_trained_model_can_be_merged(foreign: list[TransformerBridge]) -> None:
    """TransformerLens keeps the pattern of the last pass with its graph."""
    model = gpt2(2).train()
    model(torch.arange(5)[None]).sum().backward()
    merged = merge([model, foreign[0]])
    assert model.training
    assert not merged.training


def test_a_merged_run_is_a_run(short_run: Run, other: Run, tmp_path: Path) -> None:
    before = contents(short_run.path)
    model = merge([short_run, other], [0.3, 0.7], steps=[8, 12])
    run = save_merged(model, tmp_path / "merged")
    assert contents(short_run.path) == before
    assert run.steps == [8]
    assert run.finished
    assert same_bytes(state(run), state(model))
    measured = run.measure(split="train", n_individuals=run.config.evaluation.n_individuals)
    own = run.metrics.query("split == 'train'")
    np.testing.assert_array_equal(own["value"], measured["value"])
    merged = run.environment["merged"]
    assert [(p["run"], p["step"], p["factor"]) for p in merged] == [
        (str(short_run.given), 8, 0.3),
        (str(other.given), 12, 0.7),
    ]
    assert list(made_of(model)["weights"]) == list(run.config.merging.of or ())
    assert "merged: +0.3" in repr(run)
    assert run.config.identity() != short_run.config.identity()
    assert run.population.fingerprint() == short_run.population.fingerprint()
    interp.attention_to_names(run, n_individuals=4)
    with pytest.raises(RunError, match="overwrite"):
        save_merged(model, tmp_path / "merged")
    again = save_merged(model, tmp_path / "merged", overwrite=True)
    assert again.steps == [8]
    with pytest.raises(ConfigError, match=r"merging: .*no training gives"):
        interp.train(run.config, tmp_path / "trained", progress=False)
    assert not (tmp_path / "trained").exists()
    for resume in (False, True):
        with pytest.raises(
            RunError, match=r"holds a run, a merged one.*finetuning\.base"
        ) as refused:
            interp.train(short_run.config, run.path, resume=resume, progress=False)
        assert "\n" not in str(refused.value)
    assert interp.train(run.config, run.path, resume=True, progress=False).steps == [8]
    tuned = interp.finetuned(run.config, **{"finetuning.base": str(run.path)})
    assert not tuned.merging.on
    assert save_merged(merge([run, other]), tmp_path / "second").steps == [8]


def test_people_of_a_users_own(
    short: Config, trained: Callable[[Config], Run], tmp_path: Path
) -> None:
    docs = Path(__file__).parents[2] / "docs" / "own_people"
    own = {
        "population.people": str(docs / "people.csv"),
        "population.templates": str(docs / "templates.yaml"),
        "training.n_steps": 4,
    }
    run = trained(short.with_settings(**own))
    line = loss_along_line(run, run, 2, steps=[0, 4], splits="evaluation")
    assert list(line["attribute_loss"]) == [run.curve().loc[step] for step in (0, 4)]
    merged = save_merged(merge([run, run], steps=[0, 4]), tmp_path / "merged")
    assert merged.population.fingerprint() == run.population.fingerprint()
    assert (merged.path / "people.csv").exists()
    assert merged.config.identity()["population.people_digest"]


def test_what_cannot_be_merged(
    short_run: Run,
    other: Run,
    short: Config,
    foreign: list[TransformerBridge],
    tmp_path: Path,
) -> None:
    wide = interp.hooked_transformer(short.with_settings(**{"model.d_mlp": 48}))
    relu = interp.hooked_transformer(short.with_settings(**{"model.act_fn": "relu"}))
    words = interp.hooked_transformer(
        short.with_settings(**{"population.seed": 1, "population.companies": 11})
    )
    bad = interp.hooked_transformer(short)
    with torch.no_grad():
        bad.blocks[0].mlp.out.bias[0] = float("nan")
    adapted = interp.hooked_transformer(short)
    interp.attach_adapter(adapted)
    for given, match in {
        (short_run,): "1 given: merging takes at least 2",
        (short_run, wide): "d_mlp is 48 there, 64 here",
        (short_run, relu): "act_fn is relu there, gelu here",
        (short_run, words): "d_vocab is .* there",
        (short_run, bad): r"model 2 hold NaN.*mlp\.fc_out\.bias",
        (short_run, adapted): "adapter beside its weights",
        (short_run, foreign[0]): "do not fit",
        (foreign[0], gpt2(0, layer_norm_epsilon=0.1)): "eps",
    }.items():
        with pytest.raises(ArgumentError, match=match) as error:
            merge(list(given))  # type: ignore[arg-type]
        assert "\n" not in str(error.value)
    for one, match in (
        (foreign[0].original_model, "wrap it"),
        (3, "int is no TransformerLens model"),
    ):
        with pytest.raises(ArgumentError, match=match):
            read_weights(one)
    for weights, match in (
        ([1.0], "1 given for 2"),
        ([0.5, 0.6], "add up to 1.1"),
        ([float("nan"), 1.0], "no finite number"),
    ):
        with pytest.raises(ArgumentError, match=match):
            merge([short_run, other], weights)
    with pytest.raises(ArgumentError, match="give 2 steps"):
        merge([short_run, other], steps=[4])
    with pytest.raises(CheckpointError, match="no checkpoint at step 5"):
        merge([short_run, other], steps=5)
    with pytest.raises(ArgumentError, match="has no step 4"):
        merge([short_run, bad], steps=4)
    with pytest.raises(RunError, match="There is no folder"):
        merge([short_run, tmp_path / "nothing"])
    with pytest.raises(ArgumentError, match="n_individuals=0"):
        loss_along_line(short_run, short_run, n_individuals=0)
    with pytest.raises(ArgumentError, match="say nothing of the texts"):
        loss_along_line(*foreign)
    batch = split_batch(short_run.corpus, "evaluation", 2)
    strange = Texts(batch.tokens.long() + 10**6, interp.Spans.of(batch))
    with pytest.raises(ArgumentError, match="in their own tokens"):
        loss_along_line(*foreign, texts=strange)
    with pytest.raises(ArgumentError, match="in another order"):
        loss_along_line(*foreign, corpus=short_run.corpus)
    foreign[0].add_hook("blocks.0.hook_resid_pre", lambda value, hook: 2 * value)
    with pytest.raises(ArgumentError, match="Take its hooks off"):
        merge(foreign)
    foreign[0].reset_hooks()
    huge = task_vector(short_run, other) * 1e300
    with pytest.raises(ArgumentError, match="too large for float32"):
        huge.apply(other)


def test_what_cannot_be_saved(
    short_run: Run, other: Run, foreign: list[TransformerBridge], tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match="was not made of others"):
        save_merged(short_run.model(), tmp_path / "out")
    with pytest.raises(ArgumentError, match="is no run on disk"):
        save_merged(merge(foreign), tmp_path / "out")
    changed = merge([short_run, other])
    with torch.no_grad():
        changed.W_E[0] += 1
    with pytest.raises(ArgumentError, match="have been changed since"):
        save_merged(changed, tmp_path / "out")
    with pytest.raises(RunError, match="one of the runs that were merged"):
        save_merged(merge([short_run, other], [1, 0]), short_run.path, overwrite=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_runs_about_other_people(
    short_run: Run, short: Config, trained: Callable[..., Run]
) -> None:
    """Of one vocabulary: weights can be averaged, and whose loss is meant has to be said."""
    strangers = trained(short.with_settings(**{"population.seed": 3, "training.n_steps": 4}))
    merge([short_run, strangers])
    with pytest.raises(ArgumentError, match=r"on other people.*corpus="):
        loss_along_line(short_run, strangers)
    line = loss_along_line(short_run, strangers, 2, corpus=strangers.corpus, splits="train")
    batch = split_batch(strangers.corpus, "train")
    assert line["attribute_loss"].iloc[-1] == pytest.approx(
        measure(strangers.model(), strangers.corpus, "train", len(batch))["value"].iloc[0]
    )


@pytest.mark.slow
def test_patched_runs_attend_as_in_training(
    short_run: Run, short: Config, trained: Callable[[Config], Run]
) -> None:
    patched = trained(
        short.with_settings(
            **{"patching.reference": str(short_run.path), "patching.reference_step": 12}
        )
    )
    with pytest.raises(ArgumentError, match="attention patterns of other runs"):
        merge([short_run, patched])
    line = loss_along_line(patched, patched, 2, splits="evaluation", steps=[8, 12])
    known = patched.curve()
    assert list(line["attribute_loss"]) == [known.loc[8], known.loc[12]]


def test_the_command(
    short_run: Run, other: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, csv, runs = tmp_path / "merged", tmp_path / "line.csv", (short_run.path, other.path)
    words = "--line", "--n", 2, "--csv", csv, "--out", out, "--weights", 0.25, 0.75
    assert run_cli("merge", *runs, *words) == 0
    assert "barrier (evaluation):" in capsys.readouterr().out
    assert len(pd.read_csv(csv)) == 6
    assert same_bytes(state(Run.load(out)), state(merge(list(runs), [0.25, 0.75])))
    assert run_cli("merge", *runs) == 2
    assert "--out DIR" in capsys.readouterr().err


@pytest.mark.slow
def test_more_of_the_command(
    short_run: Run, other: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, out, runs = tmp_path / "line.html", tmp_path / "both", (short_run.path, other.path)
    assert run_cli("merge", *runs, "--line", "--n", 3, "--figure", page) == 0
    assert "straight line" in page.read_text(encoding="utf-8")
    assert run_cli("merge", *runs, "--base", other.path, "--out", out, "--weights", 0.5, 2) == 0
    assert same_bytes(state(Run.load(out)), state(merge(list(runs), [0.5, 0.5])))
    capsys.readouterr()
    for words, match in (
        ((*runs, "--out", out, "--csv", tmp_path / "x.csv"), "add --line"),
        ((runs[0], "--line"), "1 are given"),
        ((runs[0], "--out", tmp_path / "x"), "at least 2"),
        ((*runs, "--out", tmp_path / "x", "--weights", 1), "1 given for 2"),
        ((*runs, "--out", out), "already holds a run"),
    ):
        assert run_cli("merge", *words) == 2
        assert match in capsys.readouterr().err


@pytest.mark.slow
def test_the_python_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[2] / "docs" / "merging.md"
    code = "\n".join(
        re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    )
    short = '"smoke", **{"training.n_steps": 10}, '
    code = code.replace(
        'preset("tiny", seed=1, **{', 'preset("smoke", seed=1, **{"training.n_steps": 10, '
    )
    code = code.replace('"tiny", ', short).replace("[300, None]", "[10, None]")
    monkeypatch.setattr("plotly.graph_objects.Figure.show", lambda figure: None)
    monkeypatch.chdir(tmp_path)
    shared: dict[str, Any] = {}
    exec(compile(code, "merging.md", "exec"), shared)
    assert shared["merged"].steps == [10]
    assert len(shared["line"]) == 15


@pytest.mark.slow
def test_every_stage_on_a_merged_run(short_run: Run, other: Run, tmp_path: Path) -> None:
    run = save_merged(merge([short_run, other]), tmp_path / "merged")
    done = reproduce(run.config, run.path, progress=silent)
    assert (done.path / "report.html").exists()
    assert done.steps == run.steps
    assert done.result("attention", "scores") is not None
    assert done.result("memory", "keys") is not None


@pytest.mark.slow
def test_runs_that_trained_an_adapter(
    short: Config, trained: Callable[[Config], Run], tmp_path: Path
) -> None:
    forms = [{"form": "biography"}]
    stages = [{"start": 0, "forms": forms}, {"start": 4, "forms": forms, "weights": "adapter"}]
    first, second = (
        trained(
            short.with_settings(**{"data.stages": stages, "adapter.rank": 2, "training.seed": seed})
        )
        for seed in (0, 1)
    )
    run = save_merged(merge([first, second]), tmp_path / "merged")
    expected = (first.model().W_out + second.model().W_out) / 2  # with the adapters in them
    torch.testing.assert_close(run.model().W_out, expected, rtol=0, atol=1e-6)
    base = first.model(adapter="off")
    on = interp.merging.add_adapters(base, [first])
    tokens = first.corpus.batch(0, 4).tokens
    with torch.no_grad():
        torch.testing.assert_close(base(tokens), first.model()(tokens), rtol=0, atol=1e-4)
    on.detach()
    line = loss_along_line(first, second, 2, splits="evaluation")
    assert line["attribute_loss"].iloc[0] == pytest.approx(first.curve().iloc[-1], abs=1e-4)
