"""The toy associative memory learns, forgets, and is the same to the byte; its study judges by rules."""

import io
import math
import signal

import numpy as np
import pandas as pd
import pytest
import torch

from interp import associative_memory
from interp.associative_memory import (
    AssociativeMemory,
    AssociativeMemoryConfig,
    AssociativeMemoryRun,
    Pairs,
    finetuning_samples,
    pretraining_samples,
    train,
)
from interp.charts.style import caption
from interp.errors import CheckpointError, ConfigError, DivergedError, RunError
from interp.files import folder_lock, write_tensors
from interp.plots import associative_memory as plots
from interp.studies import associative_memory as study

SMALL = AssociativeMemoryConfig().with_settings(
    **{
        "model.d_model": 16, "model.n_hidden": 48, "model.n_values": 6, "optimizer.batch_size": 32,
        "pretraining.n_pairs": 128, "pretraining.n_steps": 300, "pretraining.evaluate_every": 100,
        "finetuning.n_new": 64, "finetuning.n_steps": 300, "finetuning.learning_rate": 0.01,
        "finetuning.fine_until": 100,
    }
)  # fmt: skip
BRIEF = SMALL.with_settings(**{"pretraining.n_steps": 30, "finetuning.n_steps": 10})


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> AssociativeMemoryRun:
    """Read-only."""
    return train(SMALL, tmp_path_factory.mktemp("memory") / "run", progress=False)


def contents(folder) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


def accuracy(run: AssociativeMemoryRun, phase: str, split: str) -> pd.Series:
    rows = run.metrics.query("metric == 'accuracy' and phase == @phase and split == @split")
    return rows.set_index("step")["value"]


# Pairs and samples


def test_keys_and_values_lie_on_the_sphere_and_every_value_is_used():
    config = AssociativeMemoryConfig()
    pairs = Pairs.draw(config)
    assert pairs.keys.shape == (8192 + 1024, 64)
    assert pairs.values.shape == (30, 64)
    for points in (pairs.keys, pairs.values):
        assert torch.allclose(points.norm(dim=1), torch.ones(len(points)), atol=1e-5)
    # Uniform on the sphere: no direction is preferred, as it would be if normals were positive.
    assert pairs.keys.mean(dim=0).abs().max() < 5 / math.sqrt(64 * len(pairs.keys))
    counts = torch.bincount(pairs.answers, minlength=30)
    expected = len(pairs.answers) / 30
    assert (counts - expected).abs().max() < 5 * math.sqrt(expected)


def test_old_pairs_and_values_depend_on_the_seed_only():
    pairs = Pairs.draw(SMALL)
    other = Pairs.draw(SMALL.with_settings(**{"finetuning.n_new": 200}))
    assert torch.equal(pairs.values, other.values)
    assert torch.equal(pairs.keys[:128], other.keys[:128])
    assert torch.equal(pairs.answers[:128], other.answers[:128])
    assert not torch.equal(pairs.keys[:64], pairs.keys[128:])
    assert not torch.equal(pairs.keys, Pairs.draw(SMALL.with_settings(seed=1)).keys)


@pytest.mark.parametrize("weight", [None, 1 / 8, 1 / 2, 2.0])
def test_replay_shows_each_old_pair_as_often_as_its_weight_says(weight):
    config = SMALL.with_settings(**{"finetuning.replay_weight": weight})
    shown = np.concatenate([finetuning_samples(config, block).ravel() for block in range(10)])
    counts = np.bincount(shown, minlength=192)
    per_old, per_new = counts[:128].mean(), counts[128:].mean()
    if weight is None:
        assert per_old == 0
    else:
        assert per_old / per_new == pytest.approx(weight, rel=0.02)
    # Within old and within new every pair is as likely as any other.
    for part in (counts[:128], counts[128:]):
        assert abs(part - part.mean()).max() <= 5 * math.sqrt(part.mean())
    assert config.replay_share == pytest.approx(counts[:128].sum() / len(shown), abs=0.01)


def test_pretraining_shows_old_pairs_only_and_blocks_differ():
    first, second = pretraining_samples(SMALL, 0), pretraining_samples(SMALL, 1)
    assert set(first.ravel()) == set(range(128))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, pretraining_samples(SMALL, 0))


# The model and its training


def test_losses_are_those_of_a_plain_implementation(tmp_path):
    """Written out in NumPy and double precision: backward pass, AdamW, cosine, fresh optimizer."""
    config = SMALL.with_settings(
        **{"pretraining.n_steps": 25, "pretraining.evaluate_every": 5, "finetuning.n_steps": 20,
           "finetuning.fine_every": 5, "finetuning.replay_weight": 0.5,
           "optimizer.weight_decay": 0.1}
    )  # fmt: skip
    pairs, model = Pairs.draw(config), AssociativeMemory(config.model, config.seed)
    keys, values = pairs.keys.double().numpy(), pairs.values.double().numpy()
    answers = pairs.answers.numpy()
    names = ("W_in", "b_in", "W_out", "b_out")
    weights = {name: getattr(model, name).detach().double().numpy() for name in names}

    def forward(rows):
        hidden = np.maximum(keys[rows] @ weights["W_in"] + weights["b_in"], 0)
        logits = (hidden @ weights["W_out"] + weights["b_out"]) @ values.T
        shifted = logits - logits.max(axis=1, keepdims=True)
        probabilities = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
        right = probabilities[np.arange(len(probabilities)), answers[rows]]
        return hidden, probabilities, -np.log(right)

    measured = []
    for phase, n_steps, draw in (
        ("pretraining", 25, pretraining_samples), ("finetuning", 20, finetuning_samples),
    ):  # fmt: skip
        first = {name: np.zeros_like(w) for name, w in weights.items()}
        second = {name: np.zeros_like(w) for name, w in weights.items()}
        shown = draw(config, 0)
        for step in range(n_steps + 1):
            if step % 5 == 0:
                losses = forward(np.arange(192))[2]
                measured += [(phase, step, "old", losses[:128].mean()),
                             (phase, step, "new", losses[128:].mean())]  # fmt: skip
            rows = shown[step]
            hidden, probabilities, _ = forward(rows)
            probabilities[np.arange(32), answers[rows]] -= 1
            out = probabilities @ values / 32
            back = (out @ weights["W_out"].T) * (hidden > 0)
            gradients = {
                "W_in": keys[rows].T @ back, "b_in": back.sum(axis=0),
                "W_out": hidden.T @ out, "b_out": out.sum(axis=0),
            }  # fmt: skip
            rate = 0.01 if phase == "finetuning" else 0.03 * (1 + math.cos(math.pi * step / 25)) / 2
            for name, gradient in gradients.items():
                decay = 0.1 if name.startswith("W") else 0.0
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.95 * second[name] + 0.05 * gradient**2
                mean = first[name] / (1 - 0.9 ** (step + 1))
                spread = np.sqrt(second[name] / (1 - 0.95 ** (step + 1)))
                weights[name] = weights[name] * (1 - rate * decay) - rate * mean / (spread + 1e-8)

    expected = pd.DataFrame(measured, columns=["phase", "step", "split", "expected"])
    found = train(config, tmp_path, progress=False).metrics
    losses = found[found["metric"] == "loss"]
    both = expected.merge(losses, on=["phase", "step", "split"], how="outer")
    assert len(both) == len(expected)
    assert both["value"].to_numpy() == pytest.approx(both["expected"].to_numpy(), rel=2e-3)


def test_hooks_show_what_each_unit_does(run):
    model, pairs = run.model(), run.pairs
    out, cache = model.run_with_cache(pairs.keys)
    pre = pairs.keys @ model.keys.T + model.b_in
    assert torch.allclose(cache["hook_pre"], pre, atol=1e-5)
    assert torch.allclose(cache["hook_post"], pre.clamp(min=0), atol=1e-5)
    assert torch.allclose(out, cache["hook_post"] @ model.values + model.b_out, atol=1e-4)
    silenced = model.run_with_hooks(
        pairs.keys, fwd_hooks=[("hook_post", lambda post, hook: torch.zeros_like(post))]
    )
    assert torch.equal(silenced, model.b_out.expand_as(silenced))


def test_without_biases():
    model = AssociativeMemory(SMALL.with_settings(**{"model.biases": False}).model)
    assert [name for name, _ in model.named_parameters()] == ["W_in", "W_out"]
    keys = Pairs.draw(SMALL).keys
    assert torch.allclose(model(keys), (keys @ model.W_in).clamp(min=0) @ model.W_out, atol=1e-5)


def test_it_learns_and_then_forgets(run, tmp_path):
    assert accuracy(run, "pretraining", "old")[0] < 0.4
    assert accuracy(run, "pretraining", "old")[300] == 1.0
    assert accuracy(run, "pretraining", "new")[300] < 0.4
    assert accuracy(run, "finetuning", "old")[0] == 1.0
    assert accuracy(run, "finetuning", "old")[300] < 0.6
    assert accuracy(run, "finetuning", "new")[300] == 1.0
    replayed = train(
        SMALL.with_settings(**{"finetuning.replay_weight": 1.0}), tmp_path, progress=False
    )
    assert accuracy(replayed, "finetuning", "old")[300] > 0.9
    old = accuracy(replayed, "pretraining", "old")
    assert old.equals(accuracy(run, "pretraining", "old"))


def test_measurements_are_those_of_the_saved_weights(run):
    for phase in ("pretraining", "finetuning"):
        found = associative_memory.measure(run.model(phase), run.pairs)
        last = run.metrics.query("phase == @phase and step == 300")
        assert len(last) == 4
        for row in last.itertuples():
            assert found[row.split, row.metric] == row.value


def test_measured_steps():
    assert BRIEF.pretraining.measured_steps() == [0, 30]
    assert SMALL.finetuning.measured_steps() == [0, 25, 50, 75, 100, 250, 300]
    steps = AssociativeMemoryConfig().finetuning.measured_steps()
    assert (steps[:3], steps[-1]) == ([0, 25, 50], 4000)


def test_movement_is_a_share_of_the_norm(run, tmp_path):
    moved = run.movement()
    before, after = run.model("pretraining"), run.model("finetuning")
    unit = (after.W_in[:, 7] - before.W_in[:, 7]).norm() / before.W_in[:, 7].norm()
    row = moved.query("part == 'key' and neuron == 7")
    assert row["value"].item() == pytest.approx(unit.item(), rel=1e-5)
    assert len(moved) == 2 * 48
    small = BRIEF.with_settings(**{"finetuning.learning_rate": 1e-12})
    still = train(small, tmp_path, progress=False).movement()
    assert still["value"].max() < 1e-6


# Folders


def test_the_same_settings_give_the_same_bytes(run, tmp_path):
    torch.manual_seed(123)
    torch.set_num_threads(2)
    try:
        again = train(SMALL, tmp_path / "again", progress=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert contents(again.path) == contents(run.path)
    assert set(contents(run.path)) == {
        "config.yaml", "metrics.jsonl", "pretrained.safetensors", "finetuned.safetensors",
        "finished.json",
    }  # fmt: skip
    other = train(SMALL.with_settings(seed=1), tmp_path / "other", progress=False)
    assert other.path.joinpath("metrics.jsonl").read_bytes() != run.metrics_path.read_bytes()


def test_a_finished_run_is_returned_as_it_is(tmp_path):
    done = train(BRIEF, tmp_path, progress=False)
    done.metrics_path.write_text(done.metrics_path.read_text() + "\n")
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.glob("[!.]*")}
    assert train(BRIEF, tmp_path, progress=False).finished
    assert before == {
        p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.glob("[!.]*")
    }
    with pytest.raises(RunError, match="already holds this run"):
        train(BRIEF, tmp_path, resume=False, progress=False)


TRAIN = """
from interp.associative_memory import AssociativeMemoryConfig, train
train(AssociativeMemoryConfig.from_yaml(out[0]), out[1], progress=False)
"""
KILL_AT = """
import os, sys
def watch(event, arguments):
    if event == "os.rename" and out[2] in str(arguments[1]):
        os.kill(os.getpid(), 9)
sys.addaudithook(watch)
"""


@pytest.mark.parametrize("file", ["pretrained", "finished"])
def test_a_killed_run_is_trained_again_to_the_same_bytes(file, child, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert child(KILL_AT + TRAIN, (BRIEF.to_yaml(), str(killed), file)).wait() == -signal.SIGKILL
    assert not AssociativeMemoryRun.load(killed).finished
    assert list(killed.glob("*.part")) + list(killed.glob(".*.part"))
    train(BRIEF, killed, progress=False)
    train(BRIEF, whole, progress=False)
    assert contents(killed) == contents(whole)
    assert not list(killed.glob(".*.part"))


@pytest.mark.parametrize("name", ["pretrained.safetensors", "metrics.jsonl"])
def test_a_finished_run_that_lost_a_file_is_trained_again(name, tmp_path):
    done = train(BRIEF, tmp_path, progress=False)
    before = contents(tmp_path)
    (tmp_path / name).unlink()
    assert not done.finished
    train(BRIEF, tmp_path, progress=False)
    assert contents(tmp_path) == before


def test_folders_that_cannot_be_used(tmp_path):
    train(BRIEF, tmp_path / "a", progress=False)
    with pytest.raises(RunError, match=r"seed: 0 there, 3 asked for"):
        train(BRIEF.with_settings(seed=3), tmp_path / "a", progress=False)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match=r"no run \(thesis.tex\)"):
        train(BRIEF, tmp_path / "b", progress=False)
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["thesis.tex"]
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "config.yaml").write_text("model: {n_layers: 2}")
    with pytest.raises(RunError, match=r"associative memory.*n_layers"):
        train(BRIEF, tmp_path / "c", progress=False)
    with pytest.raises(RunError, match="holds no run"):
        AssociativeMemoryRun.load(tmp_path / "nowhere")
    with (
        folder_lock(tmp_path / "d"),
        pytest.raises(RunError, match="Another process is writing"),
    ):
        train(BRIEF, tmp_path / "d", progress=False)


def test_damaged_files(tmp_path):
    done = train(BRIEF, tmp_path, progress=False)
    done.metrics_path.write_text("{broken")
    with pytest.raises(RunError, match=r"metrics.jsonl.*train"):
        _ = done.metrics
    other = AssociativeMemory(SMALL.with_settings(**{"model.n_hidden": 8}).model)
    write_tensors(done.weights_path("finetuning"), dict(other.named_parameters()), {})
    with pytest.raises(CheckpointError, match="weights of this run"):
        done.model()
    done.weights_path("finetuning").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="safetensors"):
        done.model()


def test_a_diverging_run_says_so_and_is_not_finished(tmp_path):
    wild = BRIEF.with_settings(**{"pretraining.learning_rate": 1e30})
    with pytest.raises(DivergedError, match=r"pretraining.learning_rate"):
        train(wild, tmp_path, progress=False)
    assert not AssociativeMemoryRun.load(tmp_path).finished


def test_progress_is_told_and_ends_at_one(tmp_path):
    shares, notes = [], []

    def progress(share, note=""):
        shares.append(share)
        notes.append(note)

    train(BRIEF, tmp_path, progress=progress)
    assert shares[0] == 0
    assert shares[-1] == 1
    assert shares == sorted(shares)
    assert notes[-1] == "finetuning, step 10 of 10"
    small, full = map(associative_memory.expected_seconds, (BRIEF, AssociativeMemoryConfig()))
    assert 0 < small < full


# Settings


def test_settings_are_read_back_and_defaults_are_the_papers():
    config = AssociativeMemoryConfig()
    assert AssociativeMemoryConfig.from_yaml(SMALL.to_yaml()) == SMALL
    identity = config.identity()
    assert "finetuning.replay_weight" not in identity
    wanted = {
        "model.d_model": 64, "model.n_hidden": 256, "model.n_values": 30,
        "pretraining.n_pairs": 8192, "pretraining.n_steps": 16_000,
        "pretraining.learning_rate": 0.03, "optimizer.weight_decay": 0.01,
        "optimizer.batch_size": 128, "finetuning.n_steps": 4000,
        "finetuning.learning_rate": 1e-3, "seed": 0,
    }  # fmt: skip
    assert {name: identity[name] for name in wanted} == wanted
    with pytest.raises(Exception, match="frozen"):
        config.seed = 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"finetuning.replay": 1}, r"finetuning.replay'.*'finetuning.replay_w"),
        ({"finetuning.replay_weight": 0}, r"replay_weight=0: expected a number above 0"),
        ({"finetuning.replay_weight": math.inf}, "replay_weight=inf: expected a finite number above 0"),
        ({"model.n_values": 1}, "n_values=1: expected a whole number from 2"),
        ({"pretraining.n_pairs": "many"}, "pretraining.n_pairs='many': expected a whole number"),
        ({"model": 3}, "model=3: expected names with values"),
        ({"seed": -1}, "seed=-1: expected a whole number from 0"),
    ],
)  # fmt: skip
def test_bad_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        SMALL.with_settings(**settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {n_hiden: 3}", r"n_hiden'.*'model.n_hidden'"),
        ("a: [", "no YAML"),
        ("- 1", r"settings=\[1\]: expected names"),
    ],
)
def test_bad_yaml(text, message):
    with pytest.raises(ConfigError, match=message):
        AssociativeMemoryConfig.from_yaml(text)


# The study


def made_up(old, new, replayed, n_new=(64, 512), seeds=(0, 1, 2)) -> pd.DataFrame:
    """A table of fine-tuning.

    Args:
        old: Accuracy on old pairs without replay at steps 0, 250, 500 and 1,000.
        new: The same of new pairs.
        replayed: Final accuracies (old, new) by replay weight.
    """
    rows = []
    for size in n_new:
        for seed in seeds:
            for weight, (ends_old, ends_new) in {math.nan: (None, None), **replayed}.items():
                for i, step in enumerate((0, 250, 500, 1000)):
                    for split, curve, end in (("old", old, ends_old), ("new", new, ends_new)):
                        value = curve[i] if end is None or i == 0 else end
                        rows.append(
                            (seed, size, weight, step, split, "accuracy", value + seed / 1e3)
                        )
    columns = ["seed", "n_new", "replay_weight", "step", "split", "metric", "value"]
    return pd.DataFrame(rows, columns=columns)


def verdicts(finetuning: pd.DataFrame) -> list[str]:
    found = study.claims({"finetuning": finetuning})
    again = pd.read_csv(io.StringIO(finetuning.to_csv(index=False)))
    assert study.claims({"finetuning": again}) == found
    assert all(claim.rule and claim.measured and claim.paper for claim in found)
    return [claim.verdict for claim in found]


COLLAPSE = {"old": [0.99, 0.6, 0.4, 0.1], "new": [0.03, 0.1, 0.2, 0.9]}
SLOW = {"old": [0.99, 0.9, 0.8, 0.4], "new": [0.03, 0.5, 0.9, 0.9]}
NONE = {"old": [0.99, 0.98, 0.97, 0.96], "new": [0.03, 0.5, 0.9, 0.9]}
PARTLY = {0.125: (0.5, 0.95), 2.0: (0.95, 0.3)}
FULLY = {0.125: (0.5, 0.95), 2.0: (0.95, 0.95)}


def test_verdicts_agree_and_disagree():
    assert verdicts(made_up(**COLLAPSE, replayed=PARTLY)) == ["agree"] * 5
    assert verdicts(made_up(**SLOW, replayed=FULLY)) == [
        "agree", "disagree", "disagree", "agree", "disagree",
    ]  # fmt: skip
    assert verdicts(made_up(**NONE, replayed={2.0: (0.97, 0.95)})) == [
        "disagree", "disagree", "cannot tell", "disagree", "disagree",
    ]  # fmt: skip


def test_verdicts_cannot_be_told():
    cannot = ["cannot tell"] * 5
    few_seeds = made_up(**COLLAPSE, replayed=PARTLY, seeds=(0, 1))
    assert verdicts(few_seeds) == cannot
    unlearned = made_up([0.8, 0.3, 0.2, 0.1], COLLAPSE["new"], PARTLY)
    assert verdicts(unlearned) == cannot
    no_replay = made_up(**COLLAPSE, replayed={})
    assert verdicts(no_replay) == ["agree"] * 3 + ["cannot tell"] * 2
    assert verdicts(no_replay[no_replay["step"] <= 250]) == ["disagree", *["cannot tell"] * 4]


def test_an_answer_that_depends_on_the_number_of_new_pairs_is_one_for_each():
    one = made_up(**COLLAPSE, replayed=PARTLY, n_new=(64,))
    other = made_up(**SLOW, replayed=FULLY, n_new=(512,))
    both = pd.concat([one, other])
    apart = ["agree", "disagree"]
    assert verdicts(both) == ["agree", *apart, *apart, "agree", *apart]
    names = [claim.claim for claim in study.claims({"finetuning": both})]
    assert names[1].endswith("(64 new ones)")
    assert names[2].endswith("(512 new ones)")
    few = pd.concat([one, other[other["seed"] != 0]])
    assert verdicts(few)[1] == "cannot tell"


def test_verdicts_need_every_seed():
    one = made_up(**COLLAPSE, replayed=PARTLY, n_new=(64,))
    odd = made_up(**SLOW, replayed=FULLY, n_new=(64,), seeds=(3,))
    assert verdicts(pd.concat([one, odd]))[1] == "cannot tell"


def test_claims_say_what_was_measured():
    found = study.claims({"finetuning": made_up(**COLLAPSE, replayed=PARTLY)})
    assert found[0].measured == (
        "64 new pairs: accuracy on old pairs 0.99 before, 0.10 after 1,000 steps; "
        "512 new pairs: accuracy on old pairs 0.99 before, 0.10 after 1,000 steps"
    )
    assert "at step 500 0.40; half of it is lost in 3 of 3 seeds, first" in found[1].measured
    assert "when half of the old ones is lost 0.20" in found[2].measured
    assert "0.10 (no replay), 0.50 (1/8), 0.95 (2)" in found[3].measured
    assert "0.50 and 0.95 (1/8), 0.95 and 0.30 (2)" in found[4].measured


def test_numbers_are_those_that_the_rules_read():
    table = made_up(**COLLAPSE, replayed=PARTLY, seeds=(0, 1))
    unlearned = made_up([0.8, 0.3, 0.2, 0.1], COLLAPSE["new"], PARTLY, seeds=(2,))
    found = study.claims({"finetuning": pd.concat([table, unlearned])})
    numbers = [
        ((0.1 / 0.99, 0.101 / 0.991), 0.5),
        ((0.4 / 0.99, 0.401 / 0.991), 0.5),
        ((0.2, 0.201), 0.5),
        ((0.85, 0.85), 0.1),
        ((0.5 / 0.99, 0.501 / 0.991), 0.9),
    ]
    for claim, (values, limit) in zip(found, numbers, strict=True):
        assert [one.group for one in claim.readings] == ["64 new pairs", "512 new pairs"]
        for one in claim.readings:
            assert one.values == pytest.approx(values), claim.claim
            assert one.limit == limit
    # Never lost; and not followed far enough to say.
    kept = made_up(**NONE, replayed=PARTLY)
    assert study.claims({"finetuning": kept})[2].readings[0].values == ()
    brief = study.claims({"finetuning": kept[kept["step"] <= 250]})
    assert brief[0].readings[0].values == pytest.approx((0.98 / 0.99, 0.981 / 0.991, 0.982 / 0.992))
    assert brief[1].readings[0].values == ()


def test_nothing_measured():
    tables = study.tables(study.AssociativeMemorySettings(), [])
    assert [claim.verdict for claim in study.claims(tables)] == ["cannot tell"] * 5
    assert {claim.measured for claim in study.claims(tables)} == {"nothing was measured"}


SMALL_STUDY = study.AssociativeMemorySettings(
    seeds=(0, 1),
    replay_weights=(None, 0.5),
    n_new=(8, 32),
    run={name: value for name, value in BRIEF.identity().items()
         if name not in ("seed", "finetuning.n_new")},
)  # fmt: skip


@pytest.fixture(scope="module")
def small_study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    plans = study.STUDY.runs(SMALL_STUDY)
    runs = [train(p.config, folder / str(i), progress=False) for i, p in enumerate(plans)]
    return runs, study.STUDY.tables(SMALL_STUDY, runs)


def test_the_study_asks_for_every_combination():
    configs = [plan.config for plan in study.STUDY.runs(SMALL_STUDY)]
    assert len({str(config.identity()) for config in configs}) == 8
    assert {config.finetuning.n_new for config in configs} == {8, 32}
    assert {config.pretraining.n_steps for config in configs} == {30}
    assert len(study.STUDY.runs(study.STUDY.settings())) == 50


def test_tables_hold_what_the_runs_measured(small_study):
    runs, tables = small_study
    run = next(
        r for r in runs if r.config.seed == 1 and r.config.finetuning.n_new == 32
        and r.config.finetuning.replay_weight == 0.5
    )  # fmt: skip
    own = tables["finetuning"].query("seed == 1 and n_new == 32 and replay_weight == 0.5")
    for split in ("old", "new"):
        curve = own[own["split"] == split].set_index("step")["value"]
        assert curve.to_dict() == accuracy(run, "finetuning", split).round(5).to_dict()
    assert len(tables["finetuning"]) == 8 * 2 * len(BRIEF.finetuning.measured_steps())
    assert len(tables["pretraining"]) == 2 * 2 * 2
    moved = tables["movement"].query("seed == 1 and n_new == 32 and replay_weight == 0.5")
    for part, values in run.movement().groupby("part")["value"]:
        rows = moved[moved["part"] == part].set_index("metric")["value"]
        assert rows["mean movement"] == pytest.approx(values.mean(), abs=1e-5)
        assert rows["largest movement"] == pytest.approx(values.max(), abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"replay_weights": (0.5, 2.0)}, r"replay_weights=\[0.5, 2.0\]: .*without replay"),
        ({"seeds": ()}, r"seeds=\[\]: name at least one"),
        ({"n_new": (8, 8)}, r"n_new=\[8, 8\]"),
        ({"run": {"seed": 1}}, r"seed.*varies"),
    ],
)
def test_bad_settings_of_the_study(settings, message):
    with pytest.raises(ConfigError, match=message):
        study.AssociativeMemorySettings(**settings)


def test_an_unknown_setting_of_all_runs():
    with pytest.raises(ConfigError, match=r"hidden'.*'model.n_hidden'"):
        study.STUDY.runs(study.AssociativeMemorySettings(run={"model.hidden": 3}))


# Figures


@pytest.mark.parametrize("read_back", [False, True])
def test_figures_hold_the_numbers(small_study, read_back):
    finetuning = made_up(**COLLAPSE, replayed=PARTLY)
    movement = small_study[1]["movement"]
    if read_back:
        finetuning, movement = (
            pd.read_csv(io.StringIO(table.to_csv(index=False))) for table in (finetuning, movement)
        )
    tables = {"finetuning": finetuning, "movement": movement}
    figures = study.STUDY.figures(tables)
    assert list(figures) == [
        "forgetting-64", "forgetting-512", "replay-tradeoff", "weight-movement",
    ]  # fmt: skip
    lines = {t.name: t for t in figures["forgetting-64"].data if t.yaxis == "y" and t.showlegend}
    assert list(lines) == ["no replay", "1/8", "2"]
    assert lines["no replay"].y == pytest.approx([v + 0.001 for v in COLLAPSE["old"]])
    assert lines["no replay"].x == pytest.approx([math.sqrt(s) for s in (0, 250, 500, 1000)])
    trade = {t.name: t for t in figures["replay-tradeoff"].data}
    assert list(trade) == ["64 new pairs", "512 new pairs"]
    assert trade["64 new pairs"].x == pytest.approx([0.901, 0.951, 0.301])
    assert trade["64 new pairs"].y == pytest.approx([0.101, 0.501, 0.951])
    assert list(trade["64 new pairs"].text) == ["no replay", "1/8", "2"]
    moved = {t.name: t for t in figures["weight-movement"].data}
    expected = movement[
        (movement["part"] == "value") & (movement["n_new"] == 8)
        & (movement["metric"] == "mean movement") & (movement["replay_weight"] == 0.5)
    ]  # fmt: skip
    assert moved["values, 8 new pairs"].y[1] == pytest.approx(expected["value"].mean())
    for figure in figures.values():
        assert len(caption(figure)) > 100
        assert all(axis.title.text for axis in figure.select_yaxes())


def test_names_of_weights():
    weights = (math.nan, 1 / 32, 0.3, 1.0, 2.0)
    assert [plots.weight_name(w) for w in weights] == ["no replay", "1/32", "0.3", "1", "2"]
