"""Attention patterns from a reference: the hooks, the training option, and what it refuses."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor
from transformer_lens.model_bridge.sources import boot_native

import interp
from interp.biographies import Batch
from interp.config import Config, PatchingConfig
from interp.errors import CheckpointError, ConfigError, RunError
from interp.files import read_tensors
from interp.model import (
    AttentionPatch,
    bridge_config,
    evaluating,
    hooked_transformer,
    pattern_hook,
    read_patterns,
    training_loss,
)
from interp.run import Run, checkpoint_path

PAD = 0
LAYERS = (0, 1)


def make_model(config: Config, batch_corpus, seed: int, **settings):
    """A model whose attention is far from uniform."""
    config = config.with_settings(**{"model.seed": seed, **settings})
    model = hooked_transformer(config, batch_corpus.tokenizer)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


@pytest.fixture(scope="module")
def reference(smoke, corpus):
    return make_model(smoke, corpus, seed=1).requires_grad_(False)


@pytest.fixture
def model(smoke, corpus):
    return make_model(smoke, corpus, seed=2)


@pytest.fixture(scope="module")
def tokens(corpus) -> Tensor:
    return corpus.batch(step=0, size=5).tokens


def patterns_of(model, tokens: Tensor) -> list[Tensor]:
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
    return [cache[pattern_hook(layer)] for layer in LAYERS]


def loss_of(model, tokens: Tensor) -> Tensor:
    return training_loss(model, tokens, pad_token=PAD)


def hooks_on(model) -> int:
    return sum(len(point.fwd_hooks) for point in model.hook_dict.values())


def test_patterns_read_are_those_of_run_with_cache(reference, tokens: Tensor) -> None:
    found: dict[int, Tensor] = {}
    with evaluating(reference):
        read_patterns(reference, tokens, found.__setitem__)
    assert list(found) == list(LAYERS)
    for layer, pattern in enumerate(patterns_of(reference, tokens)):
        torch.testing.assert_close(found[layer], pattern, atol=1e-6, rtol=1e-5)
    assert hooks_on(reference) == 0


def test_reading_computes_nothing_after_the_last_pattern(reference, tokens: Tensor) -> None:
    seen: list[str] = []
    later = ["blocks.0.attn.hook_out", "blocks.0.hook_out", "blocks.1.attn.hook_pattern"]
    hooks = [(name, lambda x, hook: seen.append(hook.name)) for name in later]
    with evaluating(reference), reference.hooks(fwd_hooks=hooks):
        read_patterns(reference, tokens, lambda layer, pattern: None, layers=[0])
    assert seen == []


def test_reading_works_on_a_model_of_another_kind(smoke, corpus, tokens: Tensor) -> None:
    settings = bridge_config(smoke, d_vocab=len(corpus.tokenizer))
    settings.gated_mlp = True
    other = boot_native(settings, tokenizer=corpus.tokenizer).eval()
    found: dict[int, Tensor] = {}
    with torch.no_grad():
        read_patterns(other, tokens, found.__setitem__)
    for layer, pattern in enumerate(patterns_of(other, tokens)):
        assert torch.equal(found[layer], pattern)


@pytest.mark.parametrize("layers", [None, (0,), (1,)])
@pytest.mark.parametrize("heads", [None, (1,)])
def test_the_model_attends_as_the_reference_where_it_is_patched(
    reference, model, tokens: Tensor, layers, heads
) -> None:
    theirs, ours = patterns_of(reference, tokens), patterns_of(model, tokens)
    with AttentionPatch(reference, layers, heads).on(model):
        patched = patterns_of(model, tokens)
    chosen_heads = range(model.cfg.n_heads) if heads is None else heads
    for layer in LAYERS:
        for head in range(model.cfg.n_heads):
            at = (slice(None), head)
            if layer in (layers or LAYERS) and head in chosen_heads:
                torch.testing.assert_close(
                    patched[layer][at], theirs[layer][at], atol=1e-6, rtol=1e-5
                )
            elif layer == 0:
                assert torch.equal(patched[layer][at], ours[layer][at])
            else:
                assert not torch.allclose(patched[layer][at], theirs[layer][at], atol=1e-3)
    assert hooks_on(model) == 0


def test_patching_changes_the_loss_and_leaves_no_trace(reference, model, tokens: Tensor) -> None:
    before = loss_of(model, tokens)
    with AttentionPatch(reference).on(model):
        patched = loss_of(model, tokens)
        stock = torch.nn.functional.cross_entropy(
            model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=PAD
        )
    assert abs(patched - before) > 1e-3
    torch.testing.assert_close(patched, stock, atol=1e-5, rtol=1e-5)
    assert torch.equal(loss_of(model, tokens), before)


def test_queries_and_keys_of_a_patched_layer_are_left_alone(
    reference, model, tokens: Tensor
) -> None:
    """Neither computed nor trained; those of the other layer are."""
    seen: list[str] = []
    patch = AttentionPatch(reference, layers=[0])
    with patch.on(model):
        loss_of(model, tokens).backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None}
    of_scores = [
        n for n, _ in model.named_parameters() if ".q._original" in n or ".k._original" in n
    ]
    assert of_scores
    assert {n for n in of_scores if n in moved} == {n for n in of_scores if "layers.1." in n}
    # They are there for whoever looks at them.
    look = [("blocks.0.attn.hook_q", lambda x, hook: seen.append(tuple(x.shape)))]
    with patch.on(model), model.hooks(fwd_hooks=look):
        watched = loss_of(model, tokens)
        assert len(seen) == 1
    with patch.on(model):
        assert torch.equal(watched, loss_of(model, tokens))


def test_no_gradient_flows_into_the_reference(reference, model, tokens: Tensor) -> None:
    trainable = make_model_like(reference)
    with AttentionPatch(trainable).on(model):
        loss_of(model, tokens).backward()
    assert all(p.grad is None for p in trainable.parameters())


def make_model_like(reference):
    """A copy of the reference whose parameters want gradients."""
    copy = boot_native(reference.cfg, tokenizer=reference.tokenizer)
    copy.load_state_dict(reference.state_dict())
    return copy


def test_other_hooks_see_and_edit_the_patched_pattern(reference, model, tokens: Tensor) -> None:
    theirs = patterns_of(reference, tokens)[0]
    seen: list[Tensor] = []

    def look(pattern: Tensor, hook) -> Tensor:
        seen.append(pattern)
        return torch.zeros_like(pattern)

    with AttentionPatch(reference).on(model):
        patched = loss_of(model, tokens)
        with model.hooks(fwd_hooks=[(pattern_hook(0), look)]):
            edited = loss_of(model, tokens)
    torch.testing.assert_close(seen[0], theirs, atol=1e-6, rtol=1e-5)
    assert edited != patched


def test_rotary_models_can_be_patched(smoke, corpus, tokens: Tensor) -> None:
    rotary = {"model.positions": "rotary", "model.normalization": "RMS"}
    one, two = (make_model(smoke, corpus, seed, **rotary) for seed in (1, 2))
    theirs = patterns_of(one, tokens)
    with AttentionPatch(one).on(two):
        patched = patterns_of(two, tokens)
    for layer in LAYERS:
        torch.testing.assert_close(patched[layer], theirs[layer], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model.n_layers": 3}, r"n_layers.*2.*3"),
        ({"model.n_heads": 4}, r"n_heads.*2.*4"),
    ],
)
def test_a_reference_of_another_shape_is_refused(smoke, corpus, reference, settings, says) -> None:
    other = hooked_transformer(smoke.with_settings(**settings), corpus.tokenizer)
    with (
        pytest.raises(ConfigError, match=says),
        AttentionPatch(reference).on(other),
    ):
        pass


@pytest.mark.parametrize(
    ("layers", "heads", "says"),
    [
        ((2,), None, r"no layer 2.*0 to 1"),
        (None, (-1,), "there is no head -1"),
        ((), None, "no layer is named"),
    ],
)
def test_layers_and_heads_out_of_range_are_refused(reference, layers, heads, says) -> None:
    with pytest.raises(ConfigError, match=says):
        AttentionPatch(reference, layers, heads)


def test_another_hook_layout_is_refused(reference, model, monkeypatch) -> None:
    present = dict(model.hook_dict)
    present["blocks.0.attention.pattern"] = present.pop(pattern_hook(0))
    monkeypatch.setattr(type(model), "hook_dict", property(lambda self: present))
    with pytest.raises(ConfigError, match=r"hook layout.*blocks\.0\.attn\.hook_pattern"):
        read_patterns(model, torch.zeros(1, 4, dtype=torch.int64), lambda layer, pattern: None)


# ---- training


def patched(config: Config, reference: Run, step: int, **patching) -> Config:
    settings = {"reference": str(reference.path), "reference_step": step, **patching}
    return config.with_settings(**{f"patching.{name}": value for name, value in settings.items()})


def weights(run: Run, step: int) -> dict[str, Tensor]:
    return read_tensors(checkpoint_path(run.path, step))[0]


def same_weights(one: Run, two: Run, step: int) -> bool:
    a, b = weights(one, step), weights(two, step)
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("parts", [{}, {"layers": [1]}, {"heads": [0]}], ids=["all", "l1", "h0"])
def test_a_model_given_its_own_patterns_trains_as_without(
    smoke, trained, tmp_path: Path, precision: str, parts: dict[str, list[int]]
) -> None:
    """Byte for byte after 24 steps: the whole machinery, with nothing to change."""
    config = smoke.with_settings(
        **{"training.n_steps": 24, "training.precision": precision, "evaluation.every": 12}
    )
    plain = trained(config)
    own = {f"patching.{name}": value for name, value in {"reference": "self", **parts}.items()}
    control = interp.train(config.with_settings(**own), tmp_path / "own", progress=False)
    assert control.metrics_path.read_bytes() == plain.metrics_path.read_bytes()
    for step in plain.steps:
        assert same_weights(plain, control, step)


@pytest.fixture(scope="module")
def late_run(short: Config, short_run: Run, trained) -> Run:
    """Patched from step 4 on, with the patterns of the last checkpoint."""
    return trained(patched(short, short_run, 12, start=4))


def test_before_the_start_a_patched_run_is_the_unpatched_one(late_run: Run, short_run: Run) -> None:
    assert same_weights(late_run, short_run, 4)
    assert not same_weights(late_run, short_run, 8)
    ours, theirs = late_run.curve(), short_run.curve()
    assert list(ours[ours.index < 4]) == list(theirs[theirs.index < 4])
    assert ours[4] != theirs[4], "from the start on it is measured with patched attention"


def test_the_optimizer_is_reset_where_patching_starts(
    short: Config, short_run: Run, tmp_path: Path, monkeypatch
) -> None:
    from interp.training import loop

    sizes: dict[int, int] = {}
    update = loop.Trainer._update

    def watch(self, log):
        value = update(self, log)
        steps = {int(state["step"]) for state in self.optimizer.state.values()}
        assert len(steps) == 1
        sizes[self.step - 1] = steps.pop()
        return value

    monkeypatch.setattr(loop.Trainer, "_update", watch)
    interp.train(patched(short, short_run, 12, start=4), tmp_path / "run", progress=False)
    assert [sizes[step] for step in (3, 4, 5)] == [4, 1, 2]


def test_a_patched_run_is_measured_with_its_attention(late_run: Run, short_run: Run) -> None:
    loss = late_run.measure(step=8).query("metric == 'attribute_loss' and attribute == 'all'")
    assert loss["value"].item() == pytest.approx(late_run.curve()[8], rel=1e-6)
    model, tokens = late_run.model(8), late_run.corpus.biographies(slice(0, 3)).tokens
    theirs = patterns_of(short_run.model(12), tokens)
    with late_run.patched(model, 8):
        torch.testing.assert_close(patterns_of(model, tokens)[1], theirs[1], atol=1e-6, rtol=1e-5)
    with late_run.patched(model, 3):
        assert not torch.allclose(patterns_of(model, tokens)[1], theirs[1])
    assert hooks_on(model) == 0


def test_a_patched_run_resumes_to_the_same_bytes(
    short: Config, short_run: Run, late_run: Run, tmp_path: Path, monkeypatch
) -> None:
    from interp.training import loop

    config = patched(short, short_run, 12, start=4)
    update = loop.Trainer._update

    def stop(self, log):
        if self.step == 6:
            raise KeyboardInterrupt
        return update(self, log)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "_update", stop)
        with pytest.raises(KeyboardInterrupt):
            interp.train(config, tmp_path / "run", progress=False)
    resumed = interp.train(config, tmp_path / "run", resume=True, progress=False)
    assert resumed.metrics_path.read_bytes() == late_run.metrics_path.read_bytes()
    for step in late_run.steps:
        assert (
            checkpoint_path(resumed.path, step).read_bytes()
            == checkpoint_path(late_run.path, step).read_bytes()
        )


def test_the_folder_of_the_reference_does_not_matter(
    short: Config, short_run: Run, late_run: Run, tmp_path: Path
) -> None:
    """A reference counts by its settings: moved elsewhere it is still the same run."""
    shutil.copytree(short_run.path, tmp_path / "moved")
    moved = patched(short, Run.load(tmp_path / "moved"), 12, start=4)
    again = interp.train(moved, late_run.path, resume=True, progress=False)
    assert again.path == late_run.path


def move_with_reference(late_run: Run, short_run: Run, tmp_path: Path, ours: str) -> Run:
    """Both runs in one folder, as if they had been trained there, which has been moved since."""
    made, moved = tmp_path / "made", tmp_path / "elsewhere/moved"
    shutil.copytree(short_run.path, made / "a/reference")
    shutil.copytree(late_run.path, made / ours)
    config = late_run.config.with_settings(**{"patching.reference": str(made / "a/reference")})
    (made / ours / "config.yaml").write_text(config.to_yaml())
    moved.parent.mkdir()
    made.rename(moved)
    return Run.load(moved / ours)


@pytest.mark.parametrize("ours", ["late", "a/late", "b/c/late", "a/reference/results/late"])
def test_a_reference_that_was_moved_too_is_found(
    late_run: Run, short_run: Run, tmp_path: Path, ours: str
) -> None:
    run = move_with_reference(late_run, short_run, tmp_path, ours)
    reference = tmp_path / "elsewhere/moved/a/reference"
    assert run.reference is not None
    assert run.reference.path == reference
    pd.testing.assert_frame_equal(run.measure(12), late_run.measure(12))
    assert interp.train(run.config, run.path, resume=True, progress=False).path == run.path


@pytest.mark.parametrize("changed", ["config.yaml", "checkpoints/step_00000012.safetensors", ""])
def test_another_run_at_the_place_of_the_reference_is_not_taken(
    late_run: Run, short_run: Run, tmp_path: Path, changed: str
) -> None:
    run = move_with_reference(late_run, short_run, tmp_path, "b/late")
    folder = tmp_path / "elsewhere/moved/a/reference"
    if changed == "config.yaml":
        (folder / changed).write_text(short_run.config.with_settings(seed=9).to_yaml())
    elif changed:
        (folder / changed).write_bytes((folder / changed).read_bytes() + b"0")
    else:
        folder.rename(folder.with_name("renamed"))
    with pytest.raises(RunError, match=r"There is no folder .*made.* not below .*b/late or"):
        _ = run.reference


def test_a_run_stops_early_on_the_schedule_of_the_whole(
    short: Config, short_run: Run, tmp_path: Path
) -> None:
    config = short.with_settings(**{"training.stop_at": 8})
    run = interp.train(config, tmp_path / "run", progress=False)
    assert run.finished
    assert run.steps == [0, 4, 8]
    assert same_weights(run, short_run, 8)


def test_only_the_splits_that_are_asked_for_are_measured(short: Config, tmp_path: Path) -> None:
    config = short.with_settings(**{"evaluation.splits": ["evaluation"], "training.stop_at": 2})
    run = interp.train(config, tmp_path / "run", progress=False)
    assert set(run.metrics[run.metrics["metric"] == "attribute_loss"]["split"]) == {"evaluation"}
    with pytest.raises(ConfigError, match="leaves out 'evaluation'"):
        short.with_settings(**{"evaluation.splits": ["train"]})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model.d_mlp": 48}, r"d_mlp.*64.*48"),
        ({"model.normalization": "RMS"}, r"normalization.*LN"),
        ({"population.cities": 11}, r"vocabulary: .* tokens there"),
        ({"seed": 5}, r"population.*other people.*0.*5"),
    ],
)
def test_a_reference_that_does_not_fit_is_refused(
    short: Config, short_run: Run, tmp_path: Path, settings, says: str
) -> None:
    config = patched(short.with_settings(**settings), short_run, 12)
    with pytest.raises(RunError, match=says):
        interp.train(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_reference_of_other_people_can_be_allowed(
    short: Config, short_run: Run, tmp_path: Path
) -> None:
    config = short.with_settings(seed=5, **{"training.stop_at": 2})
    config = patched(config, short_run, 12, other_people=True)
    assert interp.train(config, tmp_path / "run", progress=False).finished
    same_people = short.with_settings(
        seed=5, **{"population.seed": 0, "training.stop_at": 2, "model.seed": 5}
    )
    run = interp.train(patched(same_people, short_run, 12), tmp_path / "two", progress=False)
    assert run.finished


def test_a_step_without_a_checkpoint_is_refused(
    short: Config, short_run: Run, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at step 7 .*Steps: 0, 4, 8, 12"):
        interp.train(patched(short, short_run, 7), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_missing_or_patched_reference_is_refused(
    short: Config, short_run: Run, late_run: Run, tmp_path: Path
) -> None:
    nowhere = short.with_settings(
        **{"patching.reference": str(tmp_path / "nowhere"), "patching.reference_step": 0}
    )
    with pytest.raises(RunError, match="There is no folder"):
        interp.train(nowhere, tmp_path / "run", progress=False)
    with pytest.raises(RunError, match=r"itself.*patched"):
        interp.train(patched(short, late_run, 12), tmp_path / "run", progress=False)


def test_the_reference_cannot_be_trained_over(short: Config, short_run: Run) -> None:
    with pytest.raises(ConfigError, match="the same folder"):
        interp.train(patched(short, short_run, 12), short_run.path, overwrite=True, progress=False)
    assert short_run.finished


def test_another_reference_at_the_same_place_is_noticed(
    short: Config, short_run: Run, late_run: Run, tmp_path: Path
) -> None:
    other = interp.train(
        short.with_settings(**{"model.seed": 9}), tmp_path / "other", progress=False
    )
    recorded = Config.from_yaml(late_run.config_path.read_text())
    config = recorded.with_settings(**{"patching.reference": str(other.path)})
    with pytest.raises(RunError, match="not the reference"):
        interp.train(config, tmp_path / "run", progress=False)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"reference": "runs/a"}, "reference_step is missing"),
        ({"layers": [0]}, "layers given, but no reference"),
        ({"reference": "self", "reference_step": 3}, "'self' has no reference_step"),
        ({"reference": "runs/a", "reference_step": 3, "heads": [1, 0]}, "in increasing order"),
        ({"reference": "runs/a", "reference_step": 3, "layers": [2]}, "layers .2. do not exist"),
        ({"reference": "runs/a", "reference_step": 3, "heads": [7]}, "heads .7. do not exist"),
        ({"reference": "runs/a", "reference_step": 3, "start": 12}, "training ends at step 12"),
    ],
)
def test_settings_that_cannot_be_are_refused(short: Config, settings, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        short.with_settings(**{f"patching.{name}": value for name, value in settings.items()})


def test_patching_off_changes_no_fingerprint() -> None:
    """Runs of before are still the same runs."""
    assert not [name for name in Config().identity() if "patching" in name or "stop_at" in name]
    assert PatchingConfig(reference="runs/a", reference_step=3).start == 0


def test_batches_are_those_of_the_reference(short_run: Run, late_run: Run) -> None:
    one: Batch = short_run.corpus.batch(6, 8)
    assert torch.equal(one.tokens, late_run.corpus.batch(6, 8).tokens)
