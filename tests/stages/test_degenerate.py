"""The main job on populations with little or nothing to measure: it ends, and says what it left out."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

import interp
from interp.config import Config
from interp.run import Run
from interp.run.tables import RESULT_TABLES
from interp.stages import reproduce

_VALUES = ("cities", "universities", "majors", "companies", "years")
_NAMES = ("first_names", "middle_names", "last_names")


def config(
    n_individuals: int,
    n_held_out: int = 0,
    pools: int | tuple[int, ...] = 5,
    names: tuple[int, int, int] = (4, 4, 4),
    n_layers: int = 1,
    tokenizer: str = "word",
    seed: int = 0,
) -> Config:
    """Two steps of a model of one head."""
    sizes = (pools,) * len(_VALUES) if isinstance(pools, int) else pools
    changes: dict[str, Any] = {
        "seed": seed,
        "population.n_individuals": n_individuals,
        "population.n_held_out": n_held_out,
        **{f"population.{name}": size for name, size in zip(_VALUES, sizes, strict=True)},
        **{f"population.{name}": size for name, size in zip(_NAMES, names, strict=True)},
        "model.n_layers": n_layers,
        "model.n_heads": 1,
        "model.d_model": 8,
        "model.d_mlp": 16,
        "training.precision": "fp32",
        "training.n_steps": 2,
        "training.batch_size": 4,
        "training.early_checkpoints": (0,),
        "training.checkpoint_every": 2,
        "evaluation.every": 2,
    }
    if tokenizer == "bpe":
        changes |= {"tokenizer.kind": "bpe", "tokenizer.bpe_vocabulary": 200, "model.n_ctx": 512}
    return interp.preset("smoke", **changes)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    n = draw(st.integers(1, 6) | st.integers(7, 40))
    held_out = draw(st.integers(0, 4))
    names = draw(
        st.tuples(*[st.integers(1, 6)] * 3).filter(lambda s: s[0] * s[1] * s[2] >= n + held_out)
    )
    return config(
        n,
        held_out,
        draw(st.just((1,) * len(_VALUES)) | st.tuples(*[st.integers(1, 5)] * len(_VALUES))),
        names,
        draw(st.integers(1, 3)),
        draw(st.sampled_from(["word", "bpe"])),
        draw(st.integers(0, 3)),
    )


def run_main_job(config: Config, folder: Path) -> Run:
    """Runs it and checks that every declared table is there, or that it is said why not."""
    run = reproduce(config, folder / "run", progress=False)
    found = json.loads((run.path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert found.get("not_measured", {}) == run.not_measured
    page = (run.path / "report.html").read_text()
    for stage, table in RESULT_TABLES:
        name = f"{stage}/{table}"
        there = run.result(stage, table) is not None
        assert there != (name in run.not_measured), name
        if not there:
            reason = run.not_measured[name].removesuffix(".")
            assert reason[1:] in page.replace("&#39;", "'"), name
    return run


@settings(deadline=None, phases=[Phase.explicit], suppress_health_check=list(HealthCheck))
@given(some=configs())
@example(some=config(1, 1, pools=1, names=(1, 2, 1), tokenizer="bpe"))
def test_the_main_job_ends_and_says_what_it_could_not_measure(
    some: Config, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run_main_job(some, tmp_path_factory.mktemp("degenerate"))


@pytest.mark.slow
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(some=configs())
@example(some=config(3, 1))
@example(some=config(4, pools=1, n_layers=2))
def test_any_small_population_can_be_measured(
    some: Config, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run_main_job(some, tmp_path_factory.mktemp("degenerate"))
