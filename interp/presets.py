"""Ready-made configurations, from seconds on a laptop to the paper's own scale."""

from typing import Any

from interp.config import (
    LIST_SIZES,
    Config,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    PopulationConfig,
    TrainingConfig,
)
from interp.errors import ConfigError, short, suggest

MAIN_PRESET = "demo"
"""The preset of the main job."""

PRESETS: dict[str, Config] = {
    "smoke": Config(
        preset="smoke",
        population=PopulationConfig(
            n_individuals=24,
            n_held_out=8,
            first_names=10,
            middle_names=10,
            last_names=10,
            cities=12,
            universities=8,
            majors=8,
            companies=8,
            years=10,
        ),
        model=ModelConfig(d_model=32, n_heads=2, d_mlp=64),
        training=TrainingConfig(
            n_steps=40, batch_size=8, early_checkpoints=(0, 5), checkpoint_every=10
        ),
        evaluation=EvaluationConfig(every=5, n_individuals=24, log_every=1),
    ),
    "tiny": Config(),
    # Twice as many people as `tiny`, so that the plateau is long enough to be seen.
    "demo": Config(
        preset="demo",
        population=PopulationConfig(n_individuals=1024),
        training=TrainingConfig(
            n_steps=2000,
            checkpoint_every=250,
            early_checkpoints=(0, 10, 25, 50, 100, 150, 200, 225, 300, 350, 400, 450, 475),
        ),
    ),
    "small": Config(
        preset="small",
        population=PopulationConfig(n_individuals=2048, n_held_out=512),
        training=TrainingConfig(
            n_steps=5000, checkpoint_every=125, early_checkpoints=(0, 10, 25, 50, 75)
        ),
        evaluation=EvaluationConfig(every=50, n_individuals=512),
    ),
    # The paper's shape, which it calls 44M: 8 layers of 12 d_model² are 25M, and the embeddings of a
    # 32k vocabulary and relative positions would make up the rest. A sequence is one biography, so
    # that the context need not be the paper's 512 tokens.
    "paper": Config(
        preset="paper",
        population=PopulationConfig(
            n_individuals=64_000,
            n_held_out=16_000,
            **LIST_SIZES,
        ),
        model=ModelConfig(
            n_layers=8,
            d_model=512,
            n_heads=8,
            d_mlp=2048,
            normalization="RMS",
        ),
        optimizer=OptimizerConfig(learning_rate=4e-4),
        training=TrainingConfig(
            n_steps=16_000,
            batch_size=128,
            checkpoint_every=500,
            early_checkpoints=(0, 50, 100, 200, 300, 400, 750),
        ),
        evaluation=EvaluationConfig(every=100, n_individuals=2048, log_every=10),
    ),
}
"""The presets by name: `smoke` (tests), `tiny` (studies), `demo` (the main job), `small`, `paper`."""


def preset(name: str = "tiny", /, **settings: Any) -> Config:
    """The configuration of a preset, with any setting changed by its dotted name.

    Args:
        name: `smoke` (seconds), `tiny` (about a minute on 2 cores), `demo` (three minutes), `small`
            (eight or nine) or `paper` (the paper's scale; a GPU's work).
        settings: New values, e.g. `seed=1`, or `**{"population.n_individuals": 1024}`.

    Raises:
        ConfigError: an unknown preset or setting, or a value that cannot work.
    """
    if name not in PRESETS:
        raise ConfigError(
            f"There is no preset {short(str(name))}.{suggest(name, PRESETS)} Presets: {', '.join(PRESETS)}."
        )
    return PRESETS[name].with_settings(**settings)
