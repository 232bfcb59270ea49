"""Who comes next: celebrities, warm-up, sequential groups, the adaptive schedule, replay."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import interp
from interp.biographies import Sampler, sampler
from interp.biographies.sampling import Stages, Uniform, finetuned_individuals, group, sequential
from interp.config import Config
from interp.errors import ConfigError
from interp.knowledge import Baseline, measured_individuals
from interp.phases import DELTA
from interp.run import Run
from interp.training.adaptive import AdaptiveSchedule

N, DRAWS = 24, 50_000


def counts(drawn: Sampler, step: int = 0) -> np.ndarray:
    return np.bincount(drawn.draw(np.random.default_rng(0), step, DRAWS), minlength=N)


def with_sampling(smoke: Config, kind: str, **settings: Any) -> Config:
    return smoke.with_settings(sampling={"kind": kind, **settings})


def test_celebrities_are_so_many_times_likelier(smoke: Config) -> None:
    config = with_sampling(smoke, "celebrities", n_celebrities=4, weight_celebrities=8.0)
    drawn = counts(sampler(config)) / DRAWS
    np.testing.assert_allclose(drawn[:4], 8 / (4 * 8 + 20), atol=0.01)
    np.testing.assert_allclose(drawn[4:], 1 / (4 * 8 + 20), atol=0.005)


def test_warm_up_shows_few_for_some_epochs_then_everybody(smoke: Config) -> None:
    config = with_sampling(smoke, "warm_up", indiv_warmup=5, epochs_warmup=4.0)
    until = 4 * 24 // 8  # an epoch is N / batch size steps
    drawn = sampler(config)
    assert set(np.flatnonzero(counts(drawn, until - 1))) == set(range(5))
    assert set(np.flatnonzero(counts(drawn, until))) == set(range(24))


def test_no_epochs_of_warm_up_is_uniform(smoke: Config) -> None:
    config = with_sampling(smoke, "warm_up", indiv_warmup=5, epochs_warmup=0.0)
    np.testing.assert_array_equal(counts(sampler(config)), counts(Uniform(24)))


def test_groups_come_one_after_the_other_and_again() -> None:
    stages = sequential(n=10, n_groups=3, n_repeats=2, n_steps=60)
    seen = [set(np.flatnonzero(counts(stages, step))) for step in range(60)]
    groups = [set(range(3)), set(range(3, 6)), set(range(6, 10))]
    assert seen == [groups[step // 10 % 3] for step in range(60)]


def test_groups_are_a_partition() -> None:
    for n, n_groups in ((10, 3), (24, 24), (7, 2)):
        members = [np.arange(n)[group(n, n_groups, i)] for i in range(n_groups)]
        np.testing.assert_array_equal(np.concatenate(members), np.arange(n))


def test_replay_has_the_weights_it_says(smoke: Config) -> None:
    config = smoke.with_settings(**{"finetuning.base_run": "x", "finetuning.replay_weight": 0.25})
    drawn = np.bincount(
        sampler(config).draw(np.random.default_rng(1), 0, DRAWS), minlength=32
    )  # 24 known, 8 new
    np.testing.assert_allclose(drawn[24:] / DRAWS, 1 / (8 + 0.25 * 24), atol=0.008)
    np.testing.assert_allclose(drawn[:24] / DRAWS, 0.25 / (8 + 0.25 * 24), atol=0.004)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, range(24, 32)),
        ({"finetuning.n_individuals": 3}, range(24, 27)),
        ({"finetuning.people": "rare", "finetuning.n_individuals": 6}, range(18, 24)),
    ],
)
def test_without_replay_only_those_people_are_shown(
    smoke: Config, settings: dict[str, Any], expected: range
) -> None:
    config = smoke.with_settings(**{"finetuning.base_run": "x"}, **settings)
    assert list(finetuned_individuals(config)) == list(expected)
    assert set(sampler(config).draw(np.random.default_rng(0), 0, 5000)) == set(expected)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sampling.kind": "celebrities"}, ["n_celebrities", "weight_celebrities", "needs"]),
        ({"sampling.indiv_warmup": 4}, ["indiv_warmup=4", "warm_up and adaptive", "no settings"]),
        (
            {"sampling": {"kind": "power_law", "exponent": 1, "n_groups": 2}},
            ["n_groups=2", "sequential"],
        ),
        (
            {"sampling": {"kind": "warm_up", "indiv_warmup": 25, "epochs_warmup": 1}},
            ["indiv_warmup=25", "24 people"],
        ),
        ({"sampling": {"kind": "adaptive", "indiv_warmup": 4}}, ["growth"]),
        ({"finetuning.replay_weight": 1.0}, ["replay_weight", "finetuning.base"]),
        ({"finetuning.base": "x", "finetuning.people": "rare"}, ["n_individuals"]),
        ({"finetuning.base": "x", "finetuning.n_individuals": 9}, ["9 new", "at most 8"]),
        (
            {
                "finetuning.base": "x",
                "sampling": {"kind": "sequential", "n_groups": 2, "n_repeats": 1},
            },
            ["sequential", "fine-tuning"],
        ),
        ({"evaluation.splits": ("evaluation", "finetuned")}, ["finetuned", "finetuning.base"]),
    ],
)
def test_what_does_not_go_together_is_refused(
    smoke: Config, settings: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        smoke.with_settings(**settings)
    for word in words:
        assert word in str(error.value)


def test_stages_begin_at_0() -> None:
    with pytest.raises(ValueError, match="the first is 0"):
        Stages([3], [Uniform(2)])


# The adaptive schedule. A made-up model: losses by step, of whoever is shown.


@pytest.fixture(scope="module")
def adaptive(smoke: Config) -> Config:
    """A model of one layer knows six people after some 80 steps, and twelve after some 120."""
    return smoke.with_settings(
        **{
            "sampling": {"kind": "adaptive", "indiv_warmup": 6, "growth": "gradual"},
            "model.n_layers": 1,
            "training.n_steps": 125,
            "training.checkpoint_every": 25,
            "training.batch_size": 16,
            "training.early_checkpoints": (0,),
            "optimizer.learning_rate": 1e-2,
            "optimizer.schedule": "constant",
            "evaluation.splits": ("evaluation",),
        }
    )


@pytest.fixture(scope="module")
def adaptive_run(adaptive: Config, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return interp.train(adaptive, tmp_path_factory.mktemp("adaptive") / "run", progress=False)


def test_people_are_added_by_the_stated_rule(adaptive_run: Run) -> None:
    """A slow reading of the metrics: twice as many after two measurements below the threshold."""
    table = adaptive_run.metrics
    shown = table[table["split"] == "shown"].pivot(index="step", columns="metric", values="value")
    count, below, growths = 6, False, []
    for step, row in shown.iterrows():
        if count < 24:
            known = Baseline.of(adaptive_run.population, count).statistics
            now = row["attribute_loss"] < (1 - DELTA) * Baseline.overall(known)
            if now and below:
                count, now = min(2 * count, 24), False
                growths.append((step, count))
            below = now
        assert row["individuals"] == count
    assert growths == adaptive_run.stages
    assert growths


def test_batches_show_only_those_people(adaptive_run: Run) -> None:
    begins = [0, *(step for step, _ in adaptive_run.stages)]
    counts_shown = [6, *(count for _, count in adaptive_run.stages)]
    for begin, count in zip(begins, counts_shown, strict=True):
        assert int(adaptive_run.corpus.batch(begin, 500).individuals.max()) == count - 1
    first = adaptive_run.stages[0][0]
    assert int(adaptive_run.corpus.batch(first - 1, 500).individuals.max()) == 5


def test_at_once_shows_everybody(adaptive: Config, tmp_path: Path) -> None:
    config = adaptive.with_settings(**{"sampling.growth": "at_once", "training.stop_at": 100})
    run = interp.train(config, tmp_path / "run", progress=False)
    assert [count for _, count in run.stages] == [24]


@pytest.mark.parametrize("kill_at", [50, 100])
def test_a_resumed_schedule_goes_on_the_same_way(
    adaptive_run: Run, tmp_path: Path, kill_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = interp.training.loop.Trainer._save_state

    def save_and_die(trainer: Any) -> None:
        save(trainer)
        if trainer.step == kill_at:
            raise KeyboardInterrupt

    config = adaptive_run.config
    with monkeypatch.context() as patched:
        patched.setattr(interp.training.loop.Trainer, "_save_state", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            interp.train(config, tmp_path / "run", progress=False)
    run = interp.train(config, tmp_path / "run", resume=True, progress=False)
    assert run.metrics_path.read_bytes() == adaptive_run.metrics_path.read_bytes()
    assert run.stages == adaptive_run.stages


def test_between_measurements_nothing_is_decided(adaptive_run: Run) -> None:
    schedule = AdaptiveSchedule(adaptive_run.config, adaptive_run.corpus, adaptive_run)
    assert schedule.measured(adaptive_run.model(), step=7) == []


def test_people_are_measured_evenly_where_some_are_likelier(adaptive_run: Run) -> None:
    np.testing.assert_array_equal(
        measured_individuals(adaptive_run.corpus, "evaluation", 4), [0, 6, 12, 18]
    )


def test_the_baseline_of_some_people(smoke_run: Run) -> None:
    first = smoke_run.population.values[:5, 0]
    shares = pd.Series(first).value_counts(normalize=True)
    expected = float(-(shares * np.log(shares)).sum())
    assert Baseline.of(smoke_run.population, 5).population["birth_place"] == pytest.approx(expected)
