"""Fine-tuning: its machinery, and the study that uses it."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import interp
from interp.attention.names import attention_to_names
from interp.biographies import Corpus
from interp.charts.style import caption
from interp.cli import main
from interp.config import Config
from interp.errors import ConfigError, RunError
from interp.knowledge import measured_individuals
from interp.memory.activations import cache_activations, draw_batches
from interp.memory.transplant import ATTENTION_MATRICES, MLP_MATRICES
from interp.run import Run, finetuned, fingerprint
from interp.studies import finetuning as study
from interp.studies.distribution import DistributionSettings
from interp.studies.hallucination import HallucinationSettings
from interp.studies.hallucination import planned as hallucination_runs
from tests.helpers import read_back

# The machinery


def settings_of(base: Run, **changes: Any) -> Config:
    """Eight steps on new people, with the base's folder."""
    brief = {
        "finetuning.base": str(base.path),
        "optimizer.learning_rate": 1e-3,
        "training.n_steps": 8,
        "training.checkpoint_every": 4,
        "evaluation.every": 2,
    }
    return finetuned(base.config, **(brief | changes))


@pytest.fixture(scope="module")
def tuned(short_run: Run, trained) -> Run:
    return trained(settings_of(short_run))


def test_training_starts_from_the_bases_weights(short_run: Run, tuned: Run) -> None:
    start, last = tuned.model(0).state_dict(), short_run.model().state_dict()
    assert all(torch.equal(start[name], last[name]) for name in last)
    end = tuned.model().state_dict()
    assert not all(torch.equal(start[name], end[name]) for name in last)


def test_a_base_that_was_moved_too_is_found(short_run: Run, tuned: Run, tmp_path: Path) -> None:
    shutil.copytree(short_run.path, tmp_path / "runs/base")
    shutil.copytree(tuned.path, tmp_path / "runs/tuned")
    config = tuned.config.with_settings(**{"finetuning.base": "/gone/runs/base"})
    (tmp_path / "runs/tuned/config.yaml").write_text(config.to_yaml())
    run = Run.load(tmp_path / "runs/tuned")
    assert run.base is not None
    assert run.base.path == tmp_path / "runs/base"
    assert short_run.base is None
    assert interp.train(config, run.path, resume=True, progress=False).path == run.path


def test_an_earlier_checkpoint_of_the_base(short_run: Run, tmp_path: Path) -> None:
    config = settings_of(short_run, **{"finetuning.base_step": 4, "training.n_steps": 1})
    run = interp.train(config, tmp_path / "run", progress=False)
    start, wanted = run.model(0).state_dict(), short_run.model(4).state_dict()
    assert all(torch.equal(start[name], wanted[name]) for name in wanted)


def test_only_new_people_are_shown(tuned: Run) -> None:
    shown = torch.cat([tuned.corpus.batch(step, 50).individuals for step in range(8)])
    assert set(shown.tolist()) == set(range(24, 32))


def test_rate_is_constant_and_a_fifth_of_the_bases(short_run: Run) -> None:
    config = finetuned(short_run.config)
    assert config.optimizer.schedule == "constant"
    assert config.optimizer.learning_rate == short_run.config.optimizer.learning_rate / 5
    assert config.training.n_steps == short_run.config.training.n_steps // 3


@pytest.mark.parametrize(
    ("changes", "sizes"),
    [
        ({}, {"evaluation": 24, "finetuned": 8}),
        ({"finetuning.n_individuals": 5}, {"evaluation": 24, "finetuned": 5, "held_out": 3}),
        (
            {"finetuning.people": "rare", "finetuning.n_individuals": 6},
            {"evaluation": 18, "finetuned": 6, "held_out": 8},
        ),
    ],
)
def test_splits_are_disjoint(
    short_run: Run, changes: dict[str, Any], sizes: dict[str, int]
) -> None:
    corpus = Corpus.from_config(settings_of(short_run, **changes))
    people = {
        split: set(measured_individuals(corpus, split).tolist())
        for split in ("evaluation", "finetuned", "held_out")
    }
    assert {split: len(who) for split, who in people.items() if who} == sizes
    assert sum(map(len, people.values())) == len(set.union(*people.values()))


def test_a_split_without_people_is_not_measured(tuned: Run) -> None:
    measured = tuned.metrics.query("metric == 'attribute_loss'")["split"].unique()
    assert set(measured) == {"train", "evaluation", "finetuned"}


def test_measured_wordings_are_never_shown(tuned: Run) -> None:
    """People of fine-tuning are measured in their wordings of evaluation."""
    corpus = tuned.corpus
    asked = corpus.biographies(np.array([24]), "evaluation", draw=0)
    shown = [corpus.batch(step, 64) for step in range(8)]
    templates = torch.cat([b.templates[b.individuals == 24] for b in shown])
    assert len(templates) > 20
    assert not (templates == asked.templates).any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.d_mlp": 32}, ["architecture", "d_mlp is 64 there, 32 here"]),
        ({"population.seed": 5}, ["population", "other people"]),
        ({"population.n_individuals": 20}, ["population", "other people"]),
        ({"population.cities": 10}, ["vocabulary"]),
        ({"finetuning.base_step": 3}, ["no checkpoint at step 3", "0, 4, 8, 12"]),
        ({"finetuning.base_run": "0" * 64}, ["not the base"]),
    ],
)
def test_a_base_that_does_not_fit_is_refused(
    short_run: Run, tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(RunError) as error:
        interp.train(settings_of(short_run, **changes), tmp_path / "run", progress=False)
    for word in words:
        assert word in str(error.value)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_an_unfinished_base_is_refused(short_run: Run, tmp_path: Path) -> None:
    shutil.copytree(short_run.path, tmp_path / "base")
    base = Run.load(tmp_path / "base")
    base.finished_path.unlink()
    with pytest.raises(RunError, match=r"not been trained to its end.*--resume"):
        interp.train(settings_of(base), tmp_path / "run", progress=False)


def test_no_folder_a_missing_folder_and_the_bases_own(short_run: Run, tmp_path: Path) -> None:
    config = settings_of(short_run, **{"finetuning.base": None})
    with pytest.raises(ConfigError, match=r"set finetuning\.base"):
        interp.train(config, tmp_path / "run", progress=False)
    config = settings_of(short_run, **{"finetuning.base": str(tmp_path / "nowhere")})
    with pytest.raises(RunError, match=r"no folder .*nowhere"):
        interp.train(config, tmp_path / "run", progress=False)
    before = short_run.metrics_path.read_bytes()
    with pytest.raises(ConfigError, match="same folder"):
        interp.train(settings_of(short_run), short_run.path, overwrite=True, progress=False)
    assert short_run.metrics_path.read_bytes() == before


def test_a_changed_base_is_refused_on_resume(short_run: Run, tuned: Run, tmp_path: Path) -> None:
    shutil.copytree(tuned.path, tmp_path / "run")
    other = short_run.config.with_settings(**{"training.n_steps": 4})
    base = interp.train(other, tmp_path / "base", progress=False)
    config = tuned.config.with_settings(**{"finetuning.base": str(base.path)})
    with pytest.raises(RunError, match="Put the former base back"):
        interp.train(config, tmp_path / "run", resume=True, progress=False)


def test_the_bases_folder_does_not_count(short_run: Run, tuned: Run, tmp_path: Path) -> None:
    shutil.copytree(short_run.path, tmp_path / "moved")
    config = settings_of(Run.load(tmp_path / "moved"))
    assert config.identity() == tuned.config.identity()
    assert fingerprint(config) == fingerprint(settings_of(short_run, **{"finetuning.base": None}))
    run = interp.train(config, tmp_path / "run", progress=False)
    assert run.metrics_path.read_bytes() == tuned.metrics_path.read_bytes()
    last = "checkpoints/step_00000008.safetensors"
    assert (run.path / last).read_bytes() == (tuned.path / last).read_bytes()


def test_another_replay_weight_is_another_run(short_run: Run) -> None:
    plain, replayed = (
        settings_of(short_run, **{"finetuning.replay_weight": w}) for w in (None, 0.5)
    )
    assert fingerprint(plain) != fingerprint(replayed)


def test_a_resumed_run_has_the_same_bytes(
    short_run: Run, tuned: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = interp.training.loop.Trainer._save_state

    def save_and_die(trainer: Any) -> None:
        save(trainer)
        if trainer.step == 4:
            raise KeyboardInterrupt

    config = settings_of(short_run)
    with monkeypatch.context() as patched:
        patched.setattr(interp.training.loop.Trainer, "_save_state", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            interp.train(config, tmp_path / "run", progress=False)
    run = interp.train(config, tmp_path / "run", resume=True, progress=False)
    assert run.metrics_path.read_bytes() == tuned.metrics_path.read_bytes()
    last = "checkpoints/step_00000008.safetensors"
    assert (run.path / last).read_bytes() == (tuned.path / last).read_bytes()


def test_the_base_is_recorded(short_run: Run, tuned: Run) -> None:
    recorded = tuned.environment["base"]
    assert recorded["step"] == 12
    assert recorded["config"] == fingerprint(short_run.config) == tuned.config.finetuning.base_run


def test_a_report_of_a_finetuned_run(tuned: Run, tmp_path: Path) -> None:
    shutil.copytree(tuned.path, tmp_path / "run")
    main(["report", str(tmp_path / "run")])
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Three phases of learning" in report


# The study

SETTINGS = study.FinetuningSettings(
    preset="smoke",
    seeds=(0, 1),
    run={"training.precision": "fp32", "training.n_steps": 12, "evaluation.every": 6},
    n_steps=10,
    checkpoints=(0, 2, 5),
    every=5,
    replay_weights=(None, 0.5),
    rare_population=32,
    rare_base_steps=12,
    n_rare=8,
)


@pytest.fixture(scope="module")
def runs(trained) -> list[Run]:
    return [
        trained(
            plan.config.with_settings(**{"finetuning.base": str(trained(plan.base.config).path)})
        )
        for plan in study.planned(SETTINGS)
    ]


@pytest.fixture(scope="module")
def tables(runs: list[Run]) -> dict[str, pd.DataFrame]:
    return study.tables(SETTINGS, runs)


def test_runs_of_the_study() -> None:
    plans = study.planned(study.FinetuningSettings())
    assert len(plans) == 18
    assert len({fingerprint(plan.config) for plan in plans}) == 18
    bases = {fingerprint(plan.base.config): plan.base.config for plan in plans if plan.base}
    shared = [plan.config for plan in hallucination_runs(HallucinationSettings())]
    power = {"kind": "power_law", "exponent": 0.6}
    shared += [DistributionSettings().distribution(seed, 512, power) for seed in range(3)]
    assert set(bases) == {fingerprint(config) for config in shared}
    for plan in plans:
        config = plan.config
        assert plan.base is not None
        assert config.finetuning.base is None
        assert config.finetuning.base_run == fingerprint(plan.base.config)
        assert config.training.checkpoint_steps() == {0, 2, 5, 10, 20, 50, 100, 200, 500}
        assert (config.optimizer.schedule, config.optimizer.learning_rate) == ("constant", 3e-4)
        assert config.sampling.kind == "uniform"
        assert config.n_finetuned == 128


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replay_weights": (0.5, 0.5)}, "each once"),
        ({"run": {"model.recurrence": "rg_lru"}}, "no attention"),
        ({"n_rare": 2000}, "2000 rare people"),
    ],
)
def test_settings_that_cannot_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        study.planned(study.FinetuningSettings(**changes))


def test_curves_hold_what_the_runs_measured(
    runs: list[Run], tables: dict[str, pd.DataFrame]
) -> None:
    run = next(r for r in runs if r.config.finetuning.replay_weight and r.config.seed == 1)
    own = tables["curves"].query("seed == 1 and replay_weight == 0.5 and split == 'finetuned'")
    loss = own[own["metric"] == "attribute_loss"].set_index("step")["value"]
    assert loss.to_dict() == run.curve("attribute_loss", "finetuned").round(5).to_dict()
    assert set(tables["curves"]["variant"]) == {"new", "rare"}


def test_attention_is_the_mean_over_heads(runs: list[Run], tables: dict[str, pd.DataFrame]) -> None:
    run = runs[0]
    scores = attention_to_names(run, [10], None, "finetuned")
    expected = scores.query("layer == 1 and metric == 'attribute_to_name'")["value"].mean()
    own = tables["attention"].query(
        "seed == 0 and variant == 'new' and step == 10 and layer == 1 and split == 'finetuned' "
        "and metric == 'attribute_to_name'"
    )
    without = own[own["replay_weight"].isna()]["value"]
    assert len(without) == 1
    assert without.iloc[0] == pytest.approx(expected, abs=1e-5)


def test_keys_turn_by_one_minus_the_cosine(
    runs: list[Run], tables: dict[str, pd.DataFrame]
) -> None:
    run = runs[0]
    batches = draw_batches(run.corpus, slice(0, 24), "evaluation", (0,))
    before, after = (
        cache_activations(run.model(step), batches).neurons[1][2].numpy().astype(np.float64)
        for step in (0, 10)
    )
    product = (before * after).sum(-1)
    lengths = np.sqrt((before**2).sum(-1) * (after**2).sum(-1))
    own = tables["keys"].query("seed == 0 and variant == 'new' and layer == 1")
    own = own[own["replay_weight"].isna() & (own["position"] == "predicts value")]
    turned = own.set_index("step")["value"]
    assert turned[0] == pytest.approx(0, abs=1e-5)
    assert turned[10] == pytest.approx((1 - product / lengths).mean(), abs=2e-5)


def test_weights_move_by_a_share_of_their_norm(
    runs: list[Run], tables: dict[str, pd.DataFrame]
) -> None:
    start, end = (runs[0].model(step) for step in (0, 10))
    own = tables["weights"].query("seed == 0 and variant == 'new'")
    own = own[own["replay_weight"].isna()]
    expected = (end.W_in[1] - start.W_in[1]).norm() / start.W_in[1].norm()
    value = own[(own["part"] == "W_in") & (own["layer"] == 1)]["value"].iloc[0]
    assert value == pytest.approx(expected.item(), abs=1e-5)
    assert set(own[own["layer"].isna()]["part"]) == {"W_E", "W_pos", "W_U"}
    assert len(own) == 3 + 2 * len((*ATTENTION_MATRICES, *MLP_MATRICES))


def test_transplants_are_what_they_say(runs: list[Run], tables: dict[str, pd.DataFrame]) -> None:
    """By hand, with the model's own attributes."""
    run = runs[0]
    model, after = run.model(0), run.model(10)
    for layer in range(2):
        for name in ("mlp", "ln2"):
            own = getattr(model.blocks[layer], name)
            own.load_state_dict(getattr(after.blocks[layer], name).state_dict())
    expected = interp.knowledge.measure(model, run.corpus, "evaluation")
    wanted = expected.query("metric == 'attribute_accuracy' and attribute == 'all'")["value"]
    found = tables["transplants"].query("seed == 0 and variant == 'new' and part == 'MLP'")
    found = found[found["replay_weight"].isna() & (found["transplant"] == "only")]
    value = found.set_index("split")["value"]["evaluation"]
    assert value == pytest.approx(wanted.iloc[0], abs=1e-5)
    ends = tables["transplants"].query("seed == 0 and split == 'evaluation' and variant == 'new'")
    curve = run.curve("attribute_accuracy")
    for how, step in (("none", 0), ("all", 10)):
        own = ends[ends["replay_weight"].isna() & (ends["transplant"] == how)]["value"]
        assert own.iloc[0] == pytest.approx(curve[step], abs=1e-5)


# Claims, on made-up tables


def made_up(
    old: tuple[float, ...] = (1.0, 0.7, 0.3, 0.2),
    new: tuple[float, ...] = (0.0, 0.2, 0.3, 0.9),
    replayed: dict[float, tuple[float, float]] | None = None,
    rare: tuple[float, float] = (0.5, 0.7),
    others: tuple[float, float] = (0.8, 0.7),
    attention: float = 0.05,
    only: tuple[float, float] = (0.3, 0.9),
    moved: tuple[float, float] = (0.4, 0.2),
    seeds: tuple[int, ...] = (0, 1),
) -> dict[str, pd.DataFrame]:
    """Tables of fine-tuning, measured at steps 0, 40, 400 and 500.

    Args:
        old: Accuracy on old people without replay.
        new: The same on new ones.
        replayed: Final accuracies on old and new people, by replay weight.
        rare: Accuracy on rare people before and after.
        others: The same on the others.
        attention: How far an attention measure changes.
        only: Accuracy on old people with only MLPs fine-tuned, and with only attention.
        moved: How far MLP and attention weights move.
    """
    curves, read, keys, weights, exchanged = [], [], [], [], []
    ends = {2.0: (0.9, 0.4)} if replayed is None else replayed
    for seed in seeds:
        without = (seed, "new", math.nan)
        for split, values in (("evaluation", old), ("finetuned", new)):
            for step, value in zip((0, 40, 400, 500), values, strict=True):
                curves.append((*without, step, split, "attribute_accuracy", value))
        for weight, of_weight in ends.items():
            for split, value in zip(study.READ, of_weight, strict=True):
                curves.append((seed, "new", weight, 500, split, "attribute_accuracy", value))
        for split, of_split in (("evaluation", others), ("finetuned", rare)):
            for step, value in zip((0, 500), of_split, strict=True):
                row = (seed, "rare", math.nan, step, split, "attribute_accuracy", value)
                curves.append(row)
        for step, value in ((0, 0.5), (500, 0.5 - attention)):
            read.append((*without, step, "evaluation", 1, "attribute_to_name", value))
            keys.append((*without, step, 1, "last name", value, 0.9))
        for part, value in (("W_in", moved[0]), ("W_out", moved[0]), ("W_Q", moved[1])):
            weights.append((*without, 0, part, value))
        for how, part, value in (
            ("none", "", old[0]), ("all", "", old[-1]),
            ("only", "MLP", only[0]), ("only", "attention", only[1]),
            ("all but", "MLP", 0.9), ("all but", "attention", 0.3),
        ):  # fmt: skip
            exchanged.append((*without, how, part, "evaluation", value))
    own = ["seed", "variant", "replay_weight"]
    names = {
        "curves": (curves, ["step", "split", "metric", "value"]),
        "attention": (read, ["step", "split", "layer", "metric", "value"]),
        "keys": (keys, ["step", "layer", "position", "value", "control"]),
        "weights": (weights, ["layer", "part", "value"]),
        "transplants": (exchanged, ["transplant", "part", "split", "value"]),
    }
    return {n: pd.DataFrame(rows, columns=own + columns) for n, (rows, columns) in names.items()}


def verdicts(tables: dict[str, pd.DataFrame]) -> list[str]:
    found = study.claims(tables)
    assert study.claims(read_back(tables)) == found
    assert all(claim.rule and claim.measured and claim.paper for claim in found)
    return [claim.verdict for claim in found]


def test_verdicts_agree() -> None:
    assert verdicts(made_up()) == ["agree"] * 9


@pytest.mark.parametrize(
    ("changes", "disagreeing", "unknown"),
    [
        ({"old": (1.0, 0.9, 0.8, 0.6)}, [0], [1]),
        ({"new": (0.0, 0.2, 0.6, 0.9)}, [1], []),
        ({"replayed": {0.5: (0.25, 0.4)}}, [2], []),
        ({"replayed": {0.5: (0.95, 0.95)}}, [3], []),
        ({"replayed": {}}, [], [2, 3]),
        ({"attention": 0.2}, [4], []),
        ({"others": (0.8, 0.3)}, [5], []),
        ({"rare": (0.5, 0.55)}, [6], []),
        ({"rare": (0.95, 0.99)}, [], [6]),
        ({"only": (0.7, 0.8)}, [7], []),
        ({"moved": (0.2, 0.4)}, [8], []),
        ({"moved": (0.2, 0.2)}, [], [8]),
        ({"old": (0.7, 0.5, 0.2, 0.1)}, [], [0, 1, 2, 3, 4, 5]),
        ({"old": (1.0, 1.0, 1.0, 0.95)}, [0], [1, 2, 3, 4, 5, 7]),
        (
            {"new": (0.0, 0.2, 0.3, 0.8)},
            [],
            [3],
        ),  # new people are not learned without replay either
        ({"rare": (0.02, 0.99)}, [], [5, 6]),  # they were as good as new
        ({"others": (0.3, 0.3)}, [], [5, 6]),
        ({"seeds": (0,)}, [], list(range(9))),
    ],
)
def test_verdicts_follow_the_rules(
    changes: dict[str, Any], disagreeing: list[int], unknown: list[int]
) -> None:
    expected = ["agree"] * 9
    for i in disagreeing:
        expected[i] = "disagree"
    for i in unknown:
        expected[i] = "cannot tell"
    assert verdicts(made_up(**changes)) == expected


def test_verdicts_need_every_seed() -> None:
    one, other = made_up(seeds=(0,)), made_up(seeds=(1,), attention=0.2)
    both = {name: pd.concat([one[name], other[name]], ignore_index=True) for name in one}
    assert verdicts(both) == ["agree"] * 4 + ["cannot tell"] + ["agree"] * 4


def test_claims_say_what_was_measured() -> None:
    found = study.claims(made_up())
    assert "1.00 (1.00, 1.00) before, 0.20 (0.20, 0.20) after 500 steps" in found[0].measured
    assert "below half from step 400, 400" in found[0].measured
    assert "at step 40 accuracy 0.70 on old, 0.20 on new people" in found[1].measured
    assert "no replay 0.20 and 0.90, weight 2: 0.90 and 0.40" in found[2].measured
    assert "largest change 0.05 (0.05, 0.05)" in found[4].measured
    assert "only MLPs fine-tuned 0.30, only attention 0.90" in found[7].measured
    assert "turned most in layer 1 at the position 'last name'" in found[8].measured


def test_numbers_that_rules_read() -> None:
    known = made_up(old=(0.95, 0.7, 0.3, 0.19), replayed={0.125: (0.5, 0.6), 2.0: (0.9, 0.96)})
    unknown = made_up(old=(0.8, 0.7, 0.3, 0.2), seeds=(2,))
    both = {name: pd.concat([known[name], unknown[name]], ignore_index=True) for name in known}
    found = [
        {one.group: one.values for one in claim.readings if one.values}
        for claim in study.claims(both)
    ]
    two = [
        {"": 0.19 / 0.95},  # of what it was, at the lowest
        {"": 0.3},
        {"": 0.9 - 0.19},  # the heaviest replay
        {"": 0.9 / 0.95},  # whichever is less, at the better weight
        {"": 0.05},
        {"": (0.1 / 0.8) / (0.76 / 0.95)},
    ]
    assert [{name: list(v) for name, v in one.items()} for one in found[:6]] == [
        {name: pytest.approx([value] * 2) for name, value in one.items()} for one in two
    ]
    assert found[6][""] == pytest.approx((0.2,) * 3)  # asks no knowledge of new people
    assert found[8][""] == pytest.approx((2.0,) * 3)
    falls = [one.values for one in study.claims(known)[7].readings]
    assert falls[1:] == [pytest.approx([0.65 - 2 * 0.05] * 2), pytest.approx([0.65] * 2)]


@pytest.mark.parametrize("missing", ["curves", "attention", "keys", "weights", "transplants"])
def test_a_missing_table_leaves_the_others(missing: str) -> None:
    left = {name: table for name, table in made_up().items() if name != missing}
    assert len(study.claims(left)) == 9
    drawn = study.figures(read_back(left))
    assert len(drawn) == (4 if missing == "curves" else 5)


def test_nothing_measured(runs: list[Run]) -> None:
    empty = study.tables(SETTINGS, [])
    assert all(table.empty for table in empty.values())
    assert study.claims(empty) == study.claims({})
    assert study.figures(empty) == {}
    assert {(c.verdict, c.measured) for c in study.claims({})} == {
        ("cannot tell", "nothing was measured")
    }
    assert study.figures({}) == {}
    for some in (runs[:1], runs[-1:], runs[2:3]):  # a single run of each kind
        alone = study.tables(SETTINGS, some)
        assert len(study.figures(read_back(alone))) == 6
        assert len(study.claims(alone)) == 9


@pytest.mark.parametrize("again", [False, True])
def test_figures_hold_the_numbers(again: bool) -> None:
    tables = read_back(made_up()) if again else made_up()
    figures = study.figures(tables)
    curves = figures["finetuning-curves"]
    lines = {
        t.name: t for t in curves.data if t.yaxis == "y" and t.mode == "lines" and t.fill is None
    }
    assert lines["old people"].y == pytest.approx((1.0, 0.7, 0.3, 0.2))
    assert lines["old people"].x == pytest.approx([math.sqrt(s) for s in (0, 40, 400, 500)])
    trade = {t.name: t for t in figures["finetuning-tradeoff"].data}
    new = trade["new people"]
    assert list(new.text) == ["no replay", "2"]
    assert new.x == pytest.approx((0.9, 0.4))
    assert new.y == pytest.approx((0.2, 0.9))
    bars = {t.name: t for t in figures["finetuning-transplants"].data}
    parts = figures["finetuning-transplants"].layout.xaxis.ticktext
    assert dict(zip(parts, bars["only this part fine-tuned"].y, strict=True)) == {
        "MLP": pytest.approx(0.3), "attention": pytest.approx(0.9),
    }  # fmt: skip
    for figure in figures.values():
        assert len(caption(figure)) > 100
        assert all(axis.title.text for axis in figure.select_yaxes() if axis.title.text)
