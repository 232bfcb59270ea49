import pytest
from pydantic import ValidationError

import interp
from interp.config import Config, ModelConfig, SamplingConfig, TrainingConfig, differences
from interp.errors import ConfigError
from interp.presets import PRESETS
from interp.run import fingerprint


def test_dotted_names_change_one_setting() -> None:
    config = interp.preset("smoke", seed=3, **{"model.n_layers": 4, "population.cities": 7})
    assert (config.seed, config.model.n_layers, config.population.cities) == (3, 4, 7)
    assert config.model.d_model == PRESETS["smoke"].model.d_model
    assert PRESETS["smoke"].seed == 0


def test_a_whole_group_can_be_given() -> None:
    config = interp.preset("smoke", model=ModelConfig(n_layers=1))
    assert config.model == ModelConfig(n_layers=1)


def test_a_mapping_changes_what_it_names_of_a_group() -> None:
    config = interp.preset("smoke", training={"n_steps": 7})
    assert config == interp.preset("smoke", **{"training.n_steps": 7})
    uneven = config.with_settings(sampling={"kind": "power_law", "exponent": 1.0})
    assert uneven.with_settings(sampling={"kind": "uniform"}) == config


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("model.n_layer", "model.n_layers"),
        ("sead", "seed"),
        ("optimizer.learningrate", "optimizer.learning_rate"),
        ("modell", "model"),
    ],
)
def test_unknown_settings_are_refused_with_a_suggestion(name: str, suggestion: str) -> None:
    with pytest.raises(ConfigError) as caught:
        interp.preset("smoke", **{name: 1})
    assert f"There is no setting {name!r}. Did you mean {suggestion!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("lr", "optimizer.learning_rate"),
        ("training.lr", "optimizer.learning_rate"),
        ("n_layer", "model.n_layers"),
        ("training.learning-rate", "optimizer.learning_rate"),
    ],
)
def test_the_last_part_of_a_name_is_looked_for_everywhere(name: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"Did you mean '{meant}'"):
        interp.preset("smoke", **{name: 1})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"seed": -1}, "seed=-1: expected a whole number from 0 to 9,223,372,036,854,775,807"),
        ({"seed": 10**30}, f"seed={10**30}: expected a whole number from 0 to"),
        ({"seed": True}, "seed=True: expected a whole number"),
        ({"seed": None}, "seed=None: expected a whole number"),
        (
            {"training.early_checkpoints": (True,)},
            r"early_checkpoints=.*: expected a list of whole",
        ),
        ({"training.early_checkpoints": (1, "x")}, r"early_checkpoints.1='x': expected a whole"),
        ({"model.n_layers": 10**9}, "model.n_layers=1000000000: expected .* from 1 to 10,000"),
        ({"model.d_model": 10**12}, "model.d_model=1000000000000: expected .* to 1,000,000"),
        ({"training.n_steps": 10**12}, "training.n_steps=.*: expected .* from 1 to 1,000,000,000"),
        ({"training.device": 3}, "training.device=3: expected a text"),
        ({"optimizer.learning_rate": 0}, "optimizer.learning_rate=0: expected a number above 0\\."),
        ({"optimizer.beta1": "x"}, "optimizer.beta1='x': expected a number from 0 and below 1\\."),
        ({"sampling.exponent": 11}, "sampling.exponent=11: expected a number from 0 to 10\\."),
        ({"optimizer.schedule": "x" * 10**6}, "schedule='xxx.*: expected 'cosine' or 'constant'"),
        (
            {"training": {"kind": [[9] * 99] * 99}, "model": [["x" * 99] * 99] * 99},
            "names with values",
        ),
        ({"training.n_steps": 10**9, "training.checkpoint_every": 1}, "checkpoint_every larger"),
        ({"training.batch_size": 10**11}, "training.batch_size=.*: expected .* to 10,000,000"),
        ({"training.stop_below": float("nan")}, "stop_below"),
    ],
)
def test_values_out_of_bounds(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        interp.preset("smoke", **settings)
    assert len(str(caught.value)) < 500


def test_settings_made_directly_raise_the_same_error() -> None:
    with pytest.raises(ConfigError, match=r"model: n_layers=0: expected a whole number from 1"):
        ModelConfig(n_layers=0)


@pytest.mark.parametrize("name", ["seed.x", "model.n_layers.x", "nothing.like.it", ""])
def test_names_that_lead_nowhere_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="There is no setting"):
        interp.preset("smoke", **{name: 1})


def test_unknown_setting_in_a_file() -> None:
    with pytest.raises(ConfigError, match=r"n_layer'.*'model\.n_layers'"):
        Config.from_yaml("model: {n_layer: 3}")


def test_unknown_preset() -> None:
    with pytest.raises(ConfigError, match=r"'smok'.*'smoke'.*tiny"):
        interp.preset("smok")


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name: str) -> None:
    config = interp.preset(name)
    assert config.preset == name
    assert config == PRESETS[name]


def test_paper_preset() -> None:
    """Protocol, section 3."""
    config = interp.preset("paper")
    model, optimizer, training = config.model, config.optimizer, config.training
    shape = (model.n_layers, model.d_model, model.n_heads, model.d_head, model.d_mlp)
    assert shape == (8, 512, 8, 64, 2048)
    assert (optimizer.learning_rate, optimizer.beta1, optimizer.beta2) == (4e-4, 0.9, 0.95)
    assert (optimizer.weight_decay, optimizer.schedule) == (0.1, "cosine")
    assert (training.n_steps, training.batch_size) == (16_000, 128)
    assert config.population.n_individuals == 64_000


@pytest.mark.parametrize("name", PRESETS)
def test_yaml_round_trip(name: str) -> None:
    config = PRESETS[name].with_settings(
        **{
            "optimizer.learning_rate": 1e-5,
            "training.early_checkpoints": [1, 2],
            "training.stop_below": 0.5,
            "model.seed": 7,
            "sampling.kind": "power_law",
            "sampling.exponent": 0.8,
        }
    )
    assert Config.from_yaml(config.to_yaml()) == config
    assert fingerprint(Config.from_yaml(config.to_yaml())) == fingerprint(config)


def test_numbers_as_people_write_them() -> None:
    config = Config.from_yaml("optimizer: {learning_rate: 1e-4}\nseed: 5")
    assert (config.optimizer.learning_rate, config.seed) == (1e-4, 5)


@pytest.mark.parametrize("text", ["model: {n_layers: 2", "a: b: c", "\t- x"])
def test_not_yaml(text: str) -> None:
    with pytest.raises(ConfigError, match="no YAML"):
        Config.from_yaml(text)


@pytest.mark.parametrize("text", ["", "just text", "[1, 2]", "3"])
def test_yaml_that_is_no_config(text: str) -> None:
    with pytest.raises(ConfigError, match=r"\w"):
        Config.from_yaml(text)


def test_frozen() -> None:
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        config.model.n_layers = 1


@pytest.mark.parametrize(
    "sampling",
    [
        {"sampling.kind": "power_law", "sampling.exponent": 1.0},
        {"sampling.exponent": 1.0, "sampling.kind": "power_law"},
        {"sampling": SamplingConfig(kind="power_law", exponent=1)},
        {"sampling": {"kind": "power_law", "exponent": 1}},
    ],
)
def test_power_law_sampling(sampling: dict[str, object]) -> None:
    config = interp.preset("smoke", **sampling)
    assert config.sampling == SamplingConfig(kind="power_law", exponent=1.0)


@pytest.mark.parametrize(
    ("settings", "complaints"),
    [
        ({"model.n_heads": 5}, ["d_model=32", "n_heads=5"]),
        ({"model.d_model": 6, "model.positions": "rotary"}, ["even head width", "3"]),
        ({"model.n_layers": 0}, ["model.n_layers=0", "from 1 to 10,000"]),
        ({"model.n_layers": "two"}, ["model.n_layers='two'", "whole number"]),
        ({"model.n_layers": 2.5}, ["model.n_layers=2.5", "whole number"]),
        ({"model.act_fn": "gleu"}, ["model.act_fn", "'gelu'", "'gleu'"]),
        ({"optimizer.learning_rate": -1}, ["optimizer.learning_rate=-1", "above 0"]),
        ({"optimizer.learning_rate": float("nan")}, ["optimizer.learning_rate"]),
        ({"optimizer.learning_rate": float("inf")}, ["optimizer.learning_rate"]),
        ({"training.stop_below": 1.5}, ["training.stop_below=1.5", "above 0 and below 1"]),
        ({"training.early_checkpoints": [0, -5]}, ["early_checkpoints", "negative", "-5"]),
        ({"population.cities": 801}, ["population.cities", "800", "801"]),
        ({"sampling.kind": "power_law"}, ["sampling", "exponent", "power_law"]),
        ({"sampling.exponent": 1.0}, ["sampling", "exponent", "uniform"]),
        ({"sampling.kind": "zipf", "sampling.exponent": 1.0}, ["sampling.kind", "'zipf'"]),
        ({"seed": -1}, ["seed=-1", "from 0"]),
        ({"model": 3}, ["model"]),
    ],
)
def test_bad_values(settings: dict[str, object], complaints: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        interp.preset("smoke", **settings)
    for complaint in complaints:
        assert complaint in str(caught.value)


def test_every_bad_value_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        interp.preset("smoke", **{"model.n_layers": 0, "training.n_steps": 0})
    said = str(caught.value)
    assert "model.n_layers=0" in said
    assert "training.n_steps=0" in said
    assert "\n" not in said


def test_identity_ignores_logging_and_the_preset_name() -> None:
    config = Config()
    other = config.with_settings(**{"logging.wandb": "offline", "preset": "mine"})
    assert other.identity() == config.identity()
    assert fingerprint(other) == fingerprint(config)
    assert differences(other, config) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 1},
        {"model.seed": 0},
        {"training.stop_below": 0.5},
        {"training.early_checkpoints": ()},
        {"sampling.kind": "power_law", "sampling.exponent": 0.0},
    ],
)
def test_identity_tells_runs_apart(settings: dict[str, object]) -> None:
    config = Config()
    other = config.with_settings(**settings)
    assert fingerprint(other) != fingerprint(config)
    assert [line.split(":")[0] for line in differences(other, config)] == sorted(settings)


def test_seeds_of_the_parts() -> None:
    config = Config(seed=3).with_settings(**{"model.seed": 0})
    assert config.seed_of("model") == 0
    assert config.seed_of("training") == config.seed_of("population") == 3


def test_checkpoint_steps() -> None:
    training = TrainingConfig(n_steps=12, checkpoint_every=5, early_checkpoints=(0, 3, 99))
    assert training.checkpoint_steps() == {0, 3, 5, 10, 12}
