"""Compiled models: they know everybody in wordings of evaluation, and nobody who is held out."""

import inspect

import numpy as np
import pandas as pd
import pytest
import torch

import interp
from interp.biographies import TokenKind, own_people
from interp.compiled.features import least_squares
from interp.config import CompiledConfig
from interp.errors import ArgumentError, ConfigError, RunError
from interp.model import evaluating, export_model, import_model

CONTROLS = ("direction", "head", "neurons")
OWN = "docs/own_people"


def accuracy(table: pd.DataFrame) -> dict[str, float]:
    own = table[table["metric"] == "attribute_accuracy"]
    return dict(zip(own["attribute"], own["value"], strict=True))


def logits(model, tokens):
    with evaluating(model):
        return model(tokens)


@pytest.fixture(scope="module")
def compiled():
    return interp.compile_recall(interp.preset("smoke"), controls=CONTROLS)


@pytest.fixture(scope="module")
def batch(compiled):
    return compiled.corpus.biographies(slice(0, 24))


def one_token(tmp_path):
    return interp.one_token_people(interp.preset("smoke"), tmp_path)


@pytest.mark.parametrize("variant", ["local", "distributed", "geometric"])
def test_everything_is_known_in_every_wording_and_nothing_of_people_held_out(variant, tmp_path):
    config = one_token(tmp_path) if variant == "geometric" else interp.preset("smoke")
    made = interp.compile_recall(config, variant)
    for split in ("train", "evaluation"):
        assert set(accuracy(made.measure(split)).values()) == {1.0}
    # Least squares says something of everybody; 8 people, 8 to 12 values.
    assert accuracy(made.measure("held_out"))["all"] <= (0.1 if variant == "distributed" else 0.0)
    loss = made.measure().query("metric == 'attribute_loss'")["value"]
    assert float(loss.max()) < 1e-3


def test_no_gradient_step_and_two_layers(compiled):
    model = compiled.config.model
    assert (model.n_layers, model.normalization, model.act_fn) == (2, None, "relu")
    again = interp.compile_recall(interp.preset("smoke"), controls=CONTROLS)
    assert all(
        map(torch.equal, again.model.state_dict().values(), compiled.model.state_dict().values())
    )


def test_the_same_logits_saved_loaded_exported_and_in_transformer_lens(compiled, batch, tmp_path):
    run = compiled.save(tmp_path / "run")
    expected = logits(compiled.model, batch.tokens)
    assert torch.equal(logits(interp.Run.load(tmp_path / "run").model(), batch.tokens), expected)
    exported = import_model(export_model(run.model(), tmp_path / "exported"))
    assert exported.cfg.normalization_type is None
    torch.testing.assert_close(logits(exported, batch.tokens), expected, rtol=0, atol=1e-4)


def test_a_saved_model_is_a_run_without_a_training_curve(compiled, tmp_path):
    run = compiled.save(tmp_path / "run")
    assert (run.steps, run.finished, run.known_phases) == ([0], True, None)
    assert accuracy(run.measure()) == accuracy(compiled.measure())
    assert "compiled, not trained: local" in repr(run)
    for ask in (lambda: run.phases, run.phase_sensitivity):
        with pytest.raises(RunError, match="no training curve"):
            ask()
    with pytest.raises(ConfigError, match=r"compiled: .* no training gives"):
        interp.train(run.config, tmp_path / "other")
    heads = pd.read_csv(run.path / "key" / "heads.csv")
    assert len(heads) == 2 * run.config.model.n_heads
    with pytest.raises(RunError, match="already holds a run"):
        compiled.save(tmp_path / "run")
    compiled.save(tmp_path / "run", overwrite=True)


def test_the_fused_pass_of_a_model_without_norms_is_the_model(compiled, batch):
    from interp.model import final_residual, has_fused_forward

    model = compiled.model
    assert has_fused_forward(model)
    with evaluating(model):
        fused = model.unembed(final_residual(model, batch.tokens, torch.float32))
    # Near ties of scores in the thousands are rounded otherwise.
    torch.testing.assert_close(fused, logits(model, batch.tokens), rtol=1e-4, atol=1e-3)


def test_own_people_with_values_and_names_of_any_length():
    config = interp.preset("smoke", **own_people(f"{OWN}/people.csv", f"{OWN}/templates.yaml"))
    made = interp.compile_recall(config, controls=("head",))
    assert set(accuracy(made.measure()).values()) == {1.0}
    assert accuracy(made.measure("held_out"))["all"] == 0.0


def test_names_that_begin_or_end_longer_ones(tmp_path):
    names = [
        "Ada",
        "Ada Byron",
        "Byron",
        "Clara Ada Byron",
        "Clara Ada",
        "Clara",
        "Dora Clara",
        "Eve",
    ]
    people = pd.DataFrame(
        {"name": names, "boat": [f"boat{i} of the sea" for i in range(8)], "held_out": ["no"] * 7 + ["yes"],
         "tree": ["oak", "elm", "", "ash", "fir", "yew", "box", "oak"]}
    )  # fmt: skip
    wordings = {
        "boat": ["{name} <sails> {value}.", "The <boat> of {name} is {value}."],
        "tree": ["{name} <planted> {value}.", "The <tree> of {name} is {value}, they say."],
    }
    config = interp.preset("smoke", **own_people(people, wordings, tmp_path))
    for variant in ("local", "distributed"):
        made = interp.compile_recall(config, variant)
        assert set(accuracy(made.measure()).values()) == {1.0}


def test_least_squares_is_that_of_numpy():
    generator = np.random.default_rng(0)
    for n_people, n_neurons in ((20, 8), (8, 20)):
        active = generator.random((n_people, n_neurons))
        wanted = generator.standard_normal((n_people, 3))
        expected = np.linalg.lstsq(active, wanted, rcond=None)[0]
        np.testing.assert_allclose(least_squares(active, wanted), expected, atol=1e-4)


def test_fewer_random_features_know_less():
    config = interp.preset("smoke")
    found = [
        accuracy(interp.compile_recall(config, "distributed", n_neurons=n).measure())["all"]
        for n in (4, 12, 48)
    ]
    assert found[0] < found[1] < found[2] == 1.0


def test_what_cannot_be_compiled_is_refused_in_a_line(tmp_path):
    compile_recall = inspect.unwrap(interp.compile_recall)
    smoke = interp.preset("smoke")
    for config, words in (
        (smoke.with_settings(**{"tokenizer.kind": "bpe"}), "tokenizer.kind"),
        (smoke.with_settings(**{"finetuning.base": "elsewhere"}), "finetuning"),
    ):
        with pytest.raises(ArgumentError, match=words):
            compile_recall(config)
    with pytest.raises(ArgumentError, match="one_token_people"):
        compile_recall(smoke, "geometric")
    with pytest.raises(ConfigError, match="n_neurons"):
        compile_recall(smoke, "local", n_neurons=8)
    with pytest.raises(ConfigError, match="controls"):
        compile_recall(smoke, controls=("head", "head"))
    with pytest.raises(ArgumentError, match="d_code"):
        compile_recall(interp.preset("tiny"), d_code=8)


def test_settings_of_before_keep_their_identity():
    identity = interp.preset("tiny").identity()
    assert not any(name.startswith("compiled") for name in identity)
    assert identity["model.normalization"] == "LN"
    with pytest.raises(ConfigError, match="no variant"):
        CompiledConfig(d_code=64)


def test_the_attribute_is_told_wherever_a_value_is_predicted_and_nowhere_else(compiled):
    model, corpus = compiled.model, compiled.corpus
    for draw in range(3):
        texts = corpus.biographies(slice(0, 24), "train", draw)
        with evaluating(model):
            _, cache = model.run_with_cache(texts.tokens, names_filter="blocks.0.hook_resid_post")
        stream = cache["blocks.0.hook_resid_post"]
        asked = stream @ torch.tensor(compiled.key.vectors["asked"], dtype=torch.float32).T
        expected = torch.zeros_like(asked)
        rows, n_attributes = torch.arange(len(texts))[:, None], asked.shape[2]
        expected[rows, texts.value_start - 1, torch.arange(n_attributes)] = 1.0
        # Within and right after a value the attribute may still be asked for, with a later step.
        step = stream @ torch.tensor(compiled.key.vectors["step"], dtype=torch.float32).T
        begins = asked * (step.sum(-1, keepdim=True) < 0.5)
        torch.testing.assert_close(begins, expected, rtol=0, atol=1e-4)
        is_name = texts.kind == TokenKind.NAME
        ends = stream @ torch.tensor(compiled.key.vectors["name end"][0], dtype=torch.float32)
        torch.testing.assert_close(ends, (is_name & (texts.part == 2)).float(), rtol=0, atol=1e-4)
