"""The recurrent variant: its arithmetic, its weights, its runs, and what is not for it."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import RecurrentGemmaForCausalLM
from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRglru

import interp
from interp import attention, memory
from interp.biographies import Batch, Corpus
from interp.config import Config
from interp.errors import ConfigError, InterpError
from interp.interventions import LOGIT_DIFFERENCE, Grid, patch, swapped_people
from interp.knowledge import split_batch
from interp.memory import ablation_costs, cache_activations, draw_batches
from interp.model import (
    AttentionPatch,
    evaluating,
    export_model,
    hooked_transformer,
    logits_at,
    parameter_counts,
    read_patterns,
    training_loss,
)
from interp.model.recurrent import recurrent_config, scan
from interp.report import write_comparison, write_report
from interp.run import Run
from interp.stages import STAGES, reproduce, run_stages, summary
from interp.studies import patching
from interp.training.optimizer import adamw
from tests.helpers import contents

Array = Float[np.ndarray, "..."]


@pytest.fixture(scope="module")
def recurrent(smoke: Config) -> Config:
    return smoke.with_settings(**{"model.recurrence": "rg_lru"})


@pytest.fixture(scope="module")
def short_recurrent(short: Config) -> Config:
    return short.with_settings(**{"model.recurrence": "rg_lru"})


@pytest.fixture(scope="module")
def model(recurrent: Config, corpus: Corpus) -> TransformerBridge:
    """A model whose weights, norms and biases are all random, so that each of them matters."""
    model = hooked_transformer(recurrent, corpus.tokenizer).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def run(short_recurrent: Config, trained) -> Run:
    return trained(short_recurrent)


# The arithmetic.


def plain_logits(model: TransformerBridge, tokens: np.ndarray) -> Array:
    """The model spelled out in NumPy, in double precision, one position of the recurrence at a time."""
    weights = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    n_blocks = model.cfg.n_heads

    def sigmoid(x: Array) -> Array:
        return 1 / (1 + np.exp(-x))

    def gelu(x: Array) -> Array:
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))

    def norm(name: str, x: Array) -> Array:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * (1 + weights[f"{name}.weight"])

    def linear(name: str, x: Array) -> Array:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def block_diagonal(name: str, x: Array) -> Array:
        parts = np.split(x, n_blocks, axis=-1)
        return np.concatenate(
            [
                part @ weights[f"{name}_weight"][i] + weights[f"{name}_bias"][i]
                for i, part in enumerate(parts)
            ],
            axis=-1,
        )

    def recurrence(block: str, x: Array) -> Array:
        name = f"{block}.recurrence"
        entering, side = linear(f"{name}.linear_x", x), gelu(linear(f"{name}.linear_y", x))
        kernel = weights[f"{name}.conv.weight"][:, 0]  # [width, offset], the last one for "now"
        convolved = np.zeros_like(entering) + weights[f"{name}.conv.bias"]
        for position in range(x.shape[1]):
            for back in range(min(kernel.shape[1], position + 1)):
                convolved[:, position] += kernel[:, -1 - back] * entering[:, position - back]
        rate = np.log1p(np.exp(weights[f"{name}.rg_lru.recurrent_param"]))
        state = np.zeros_like(x[:, 0])
        states = np.zeros_like(x)
        for position in range(x.shape[1]):
            now = convolved[:, position]
            gated = now * sigmoid(block_diagonal(f"{name}.rg_lru.input_gate", now))
            opened = sigmoid(block_diagonal(f"{name}.rg_lru.recurrent_gate", now))
            kept = np.exp(-8 * opened * rate)
            opening = 1 if position == 0 else np.sqrt(1 - kept**2)  # the first input comes in whole
            state = kept * state + opening * gated
            states[:, position] = state
        return linear(f"{name}.linear_out", states * side)

    width = model.cfg.d_model
    scale = (
        torch.tensor(width**0.5, dtype=torch.bfloat16).double().item()
    )  # as the library keeps it
    x = weights["embed.weight"][tokens] * scale
    for layer in range(model.cfg.n_layers):
        block = f"blocks.{layer}"
        x = x + recurrence(block, norm(f"{block}.ln1", x))
        read = norm(f"{block}.ln2", x)
        hidden = gelu(linear(f"{block}.mlp.gate", read)) * linear(f"{block}.mlp.in", read)
        x = x + linear(f"{block}.mlp.out", hidden)
    return 30 * np.tanh(norm("ln_final", x) @ weights["unembed.weight"].T / 30)


@torch.no_grad()
def test_equals_a_plain_implementation(model: TransformerBridge, batch: Batch) -> None:
    ours = model(batch.tokens).numpy()
    np.testing.assert_allclose(ours, plain_logits(model, batch.tokens.numpy()), rtol=0, atol=2e-4)
    assert ours.std() > 0.5


@torch.no_grad()
def test_equals_the_library(
    model: TransformerBridge, recurrent: Config, corpus: Corpus, batch: Batch
) -> None:
    """The model of `transformers`, unhooked and with its own scan, has the same logits."""
    theirs = RecurrentGemmaForCausalLM(recurrent_config(recurrent, corpus.tokenizer)).eval()
    inside = model.original_model.state_dict()
    weights = {name.replace("._original_component", ""): value for name, value in inside.items()}
    theirs.load_state_dict({name: weights[name] for name in theirs.state_dict()}, strict=True)
    torch.testing.assert_close(
        model(batch.tokens), theirs(batch.tokens).logits, rtol=1e-5, atol=2e-5
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_scan_equals_the_library(dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(3)
    shape, first = (2, 17, 5), torch.arange(17)[None, :, None] == 0
    inputs = torch.randn(shape, generator=generator).to(dtype)
    decay, weight = (torch.rand(shape, generator=generator) for _ in range(2))

    def library(inputs: Tensor, decay: Tensor) -> Tensor:
        states, _ = RecurrentGemmaRglru._rnn_scan(None, inputs, decay, first, None)
        return states

    def ours(inputs: Tensor, decay: Tensor) -> Tensor:
        return scan(inputs, decay * ~first)

    found = []
    for function in (library, ours):
        x, a = inputs.clone().requires_grad_(), decay.clone().requires_grad_()
        states = function(x, a)
        (states.float() * weight).sum().backward()
        assert states.dtype == x.grad.dtype == dtype
        found.append((states.detach(), x.grad, a.grad))
    for theirs, our in zip(*found, strict=True):
        torch.testing.assert_close(our, theirs, rtol=tolerance, atol=tolerance)
        assert our.abs().max() > 0.5


@torch.no_grad()
def test_no_token_sees_the_future(model: TransformerBridge, batch: Batch) -> None:
    changed = batch.tokens.clone()
    changed[:, 30:] = 5
    before, after = model(batch.tokens), model(changed)
    torch.testing.assert_close(before[:, :30], after[:, :30])
    assert not torch.allclose(before[:, 30:], after[:, 30:])


@torch.no_grad()
def test_passes_do_not_remember_one_another(model: TransformerBridge, batch: Batch) -> None:
    first = model(batch.tokens)
    model(batch.tokens[:3, :9])
    assert torch.equal(model(batch.tokens), first)


# What it is made of.


def test_initial_weights(corpus: Corpus) -> None:
    config = interp.preset("tiny", **{"model.recurrence": "rg_lru", "model.init_std": 0.03})
    torch.manual_seed(99)
    before = torch.get_rng_state()
    model = hooked_transformer(config, corpus.tokenizer)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    again = hooked_transformer(config, corpus.tokenizer).state_dict()
    other = hooked_transformer(config.with_settings(seed=1), corpus.tokenizer).state_dict()
    weights = model.state_dict()
    for name, value in weights.items():
        assert torch.equal(value, again[name])
        leaf = name.rsplit(".", 1)[1]
        if leaf.endswith("bias") or ".ln" in name or name.startswith("ln"):
            assert not value.any(), name
            continue
        assert not torch.equal(value, other[name]), name
        if leaf == "recurrent_param":
            kept = torch.exp(-torch.nn.functional.softplus(value))
            assert 0.9 <= float(kept.min()) <= float(kept.max()) <= 0.999
            continue
        expected = 0.03
        if "conv" in name:
            expected = 0.5
        elif ".linear_out." in name or ".mlp.out." in name:
            expected = 0.03 / math.sqrt(2 * 2)
        assert float(value.std()) == pytest.approx(expected, rel=0.1), name


def test_state_dict_holds_every_weight(
    model: TransformerBridge, recurrent: Config, corpus: Corpus, batch: Batch
) -> None:
    weights = model.state_dict()
    shapes = sorted(tuple(p.shape) for p in model.parameters())
    kept = sorted(tuple(v.shape) for n, v in weights.items() if n != "unembed.bias")
    assert kept == shapes
    fresh = hooked_transformer(recurrent, corpus.tokenizer).eval()
    assert not torch.equal(fresh(batch.tokens), model(batch.tokens))
    fresh.load_state_dict(weights, strict=True)
    assert torch.equal(fresh(batch.tokens), model(batch.tokens))
    del weights["blocks.1.recurrence.rg_lru.recurrent_param"]
    with pytest.raises(RuntimeError, match="recurrent_param"):
        fresh.load_state_dict(weights, strict=True)


def test_parameter_counts(model: TransformerBridge, recurrent: Config) -> None:
    d, hidden, blocks = 32, 64, 2
    gates = 2 * (d * d // blocks + d)
    recurrence = 2 * (d * d + d) + 5 * d + (d + gates) + (d * d + d)  # branches, conv, RG-LRU, out
    mlp = 2 * (d * hidden + hidden) + hidden * d + d
    embedding = 2 * d * model.cfg.d_vocab
    counts = parameter_counts(model)
    assert counts["embedding"] == embedding
    assert counts["non_embedding"] == 2 * (recurrence + mlp + 2 * d) + d
    assert counts["total"] == sum(p.numel() for p in model.parameters())


def test_what_it_says_of_itself(
    model: TransformerBridge, recurrent: Config, corpus: Corpus
) -> None:
    cfg, settings = model.cfg, recurrent.model
    assert (cfg.n_layers, cfg.d_model, cfg.d_mlp) == (settings.n_layers, settings.d_model, 64)
    assert (cfg.n_ctx, cfg.d_vocab) == (settings.n_ctx, len(corpus.tokenizer))
    assert (cfg.act_fn, cfg.normalization_type) == ("gelu", "RMS")
    assert cfg.positional_embedding_type == "none"
    text = corpus.tokenizer.decode(corpus.biographies(np.arange(1)).tokens[0, 1:9])
    native = hooked_transformer(
        recurrent.with_settings(**{"model.recurrence": None}), corpus.tokenizer
    )
    assert torch.equal(model.to_tokens(text), native.to_tokens(text))
    assert model.to_str_tokens(text) == native.to_str_tokens(text)
    assert model.tokenizer.get_vocab() == corpus.tokenizer.get_vocab()


@torch.no_grad()
def test_generates_text(model: TransformerBridge, batch: Batch) -> None:
    start = batch.tokens[:1, :6]
    written = model.generate(
        start, max_new_tokens=3, do_sample=False, stop_at_eos=False, verbose=False
    )
    for position in range(6, 9):
        assert written[0, position] == model(written[:, :position])[0, -1].argmax()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model.positions": "rotary"}, "rotary"),
        ({"patching.reference": "self"}, "no attention to patch"),
        ({"patching.reference": "x", "patching.reference_step": 0}, "no attention to patch"),
    ],
)
def test_settings_that_cannot_work(
    recurrent: Config, settings: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        recurrent.with_settings(**settings)


# Hooks.


@torch.no_grad()
@pytest.mark.parametrize(
    "name",
    [
        "blocks.0.hook_resid_pre", "blocks.1.hook_resid_mid", "blocks.1.hook_resid_post",
        "blocks.0.hook_recurrence_out", "blocks.1.recurrence.rg_lru.hook_out",
        "blocks.0.mlp.hook_post", "blocks.1.hook_mlp_out",
    ],
)  # fmt: skip
def test_hooks_show_and_change(model: TransformerBridge, batch: Batch, name: str) -> None:
    """With its own value nothing changes, bit for bit; with zeros much does."""
    plain, cache = model.run_with_cache(batch.tokens)

    def patched(value: Tensor) -> Tensor:
        return model.run_with_hooks(batch.tokens, fwd_hooks=[(name, lambda x, hook: value)])

    assert torch.equal(patched(cache[name].clone()), plain)
    assert not torch.allclose(patched(torch.zeros_like(cache[name])), plain, atol=1e-3)
    assert torch.equal(model(batch.tokens), plain)


@torch.no_grad()
def test_the_residual_stream_is_a_sum(model: TransformerBridge, batch: Batch) -> None:
    _, cache = model.run_with_cache(batch.tokens)
    for layer in range(2):
        block = f"blocks.{layer}"
        middle = cache[f"{block}.hook_resid_pre"] + cache[f"{block}.hook_recurrence_out"]
        torch.testing.assert_close(cache[f"{block}.hook_resid_mid"], middle)
        after = middle + cache[f"{block}.hook_mlp_out"]
        torch.testing.assert_close(cache[f"{block}.hook_resid_post"], after)
        written = cache[f"{block}.mlp.hook_post"] @ model.W_out[layer] + model.b_out[layer]
        torch.testing.assert_close(cache[f"{block}.hook_mlp_out"], written, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_logits_at_equals_the_whole_pass(model: TransformerBridge, batch: Batch) -> None:
    rows, positions = torch.tensor([0, 0, 3, 5]), torch.tensor([1, 40, 0, 7])
    read = logits_at(model, batch.tokens, rows, positions)
    assert torch.equal(read, model(batch.tokens)[rows, positions])


def test_interventions_on_the_stream_and_the_mlps(model: TransformerBridge, corpus: Corpus) -> None:
    """A grid of patches equals the same patches made one at a time by hand."""
    pairs = swapped_people(corpus, 6, seed=2)
    sites = ("resid_pre", "mlp_out", "resid_post")
    table = patch(model, pairs, Grid(sites, "predicts value"), metrics=LOGIT_DIFFERENCE)
    assert len(table) == 2 * len(sites)
    prompts, sources = pairs.base, pairs.source
    rows = torch.arange(len(prompts))
    with evaluating(model):
        _, cache = model.run_with_cache(sources)
        for row in table.itertuples():
            name = f"blocks.{row.layer}.hook_{row.site}"
            value = cache[name][rows, pairs.source_read].clone()

            def replace(x: Tensor, hook: object, value: Tensor = value) -> Tensor:
                x = x.clone()
                x[rows, pairs.read] = value
                return x

            logits = model.run_with_hooks(prompts, fwd_hooks=[(name, replace)])[rows, pairs.read]
            by_hand = (logits[rows, pairs.source_answer] - logits[rows, pairs.base_answer]).mean()
            assert row.value == pytest.approx(float(by_hand), abs=1e-4)
    # All that follows of a block in the middle of it, at one position, is its own MLP.
    middle = patch(model, pairs, Grid("resid_mid", "predicts value"), metrics=LOGIT_DIFFERENCE)
    after = table[table["site"] == "resid_post"]
    np.testing.assert_allclose(middle["value"], after["value"], atol=1e-5)
    assert table["value"].nunique() > 4


def test_memory_measures_that_need_no_attention(model: TransformerBridge, corpus: Corpus) -> None:
    found = cache_activations(model, draw_batches(corpus, np.arange(5), "evaluation", range(2)))
    assert list(found.neurons) == [0, 1]
    assert {site for site, _ in found.residual} == {"resid_pre", "resid_mid", "resid_post"}
    costs = ablation_costs(model, split_batch(corpus, "evaluation", 8))
    assert costs["cost"].abs().max() > 1e-4


# Runs.


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_learns_in_both_precisions(recurrent: Config, corpus: Corpus, precision: str) -> None:
    model = hooked_transformer(recurrent, corpus.tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(25):
        tokens = corpus.batch(step, 8).tokens
        pad = corpus.tokenizer.pad_token_id
        loss = training_loss(model, tokens, pad_token=pad, precision=precision)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1
    copy.deepcopy(model)  # nothing of the last pass's graph is left on it


def test_only_matrices_decay(recurrent: Config, corpus: Corpus) -> None:
    """The gates' biases have two axes and are biases all the same."""
    model = hooked_transformer(recurrent, corpus.tokenizer)
    optimizer = adamw(dict(model.named_parameters()), recurrent.optimizer)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decaying, others = (
        {names[id(p)].split(".")[-1] for p in group["params"]} for group in optimizer.param_groups
    )
    assert decaying == {"weight", "input_gate_weight", "recurrent_gate_weight"}
    assert others == {"weight", "bias", "recurrent_param", "input_gate_bias", "recurrent_gate_bias"}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)


def test_precisions_agree(model: TransformerBridge, corpus: Corpus, batch: Batch) -> None:
    pad = corpus.tokenizer.pad_token_id
    exact, rounded = (
        training_loss(model, batch.tokens, pad_token=pad, precision=precision).item()
        for precision in ("fp32", "bf16")
    )
    assert exact != rounded
    assert exact == pytest.approx(rounded, rel=0.02)


def test_the_same_config_gives_the_same_bytes(
    short_recurrent: Config, run: Run, tmp_path: Path
) -> None:
    torch.manual_seed(7)
    again = interp.train(short_recurrent, tmp_path, progress=False)
    assert contents(again.path) == contents(run.path)


def test_resumes_to_the_same_bytes(
    short_recurrent: Config, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Corpus.batch

    def until_step_6(self: Corpus, step: int, *arguments: int) -> Batch:
        if step == 6:
            raise KeyboardInterrupt
        return whole(self, step, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Corpus, "batch", until_step_6)
        with pytest.raises(KeyboardInterrupt):
            interp.train(short_recurrent, tmp_path, progress=False)
    assert not Run.load(tmp_path).finished
    resumed = interp.train(short_recurrent, tmp_path, resume=True, progress=False)
    assert contents(resumed.path) == contents(run.path)


def test_checkpoints_hold_the_model(run: Run) -> None:
    tokens = run.corpus.biographies(np.arange(4)).tokens
    first, last = run.model(0), run.model()
    fresh = hooked_transformer(run.config, run.tokenizer).eval()
    with torch.no_grad():
        assert torch.equal(first(tokens), fresh(tokens))
        assert not torch.equal(first(tokens), last(tokens))
    for (name, before), after in zip(first.named_parameters(), last.parameters(), strict=True):
        assert not torch.equal(before, after), name
    measured = run.measure(12)
    loss = measured[(measured["metric"] == "attribute_loss") & (measured["attribute"] == "all")]
    assert float(loss["value"].iloc[0]) == pytest.approx(float(run.curve().loc[12]), rel=1e-6)
    assert run.environment["parameters"] == parameter_counts(last)
    assert run.phases.plateau_end is None


# What is not for it.


def refused(run: Run) -> dict[str, Callable[[], object]]:
    """Everything that reads or changes attention."""
    model, corpus = run.model(), run.corpus
    tokens = corpus.biographies(np.arange(2)).tokens
    pairs = swapped_people(corpus, 4)
    return {
        "patterns": lambda: read_patterns(model, tokens, lambda layer, pattern: None),
        "patch as reference": lambda: AttentionPatch(model),
        "attention to names": lambda: attention.attention_to_names(run),
        "knockout": lambda: attention.knockout(run),
        "edges": lambda: memory.recall_edges(run),
        "swaps of attention": lambda: memory.swaps(run),
        "trace": lambda: interp.locate_fact(run, 0, "major"),
        "explore": lambda: interp.explore(run),
        "patch of patterns": lambda: patch(model, pairs, Grid("pattern")),
        "patch of heads": lambda: patch(model, pairs, Grid("z")),
        "memory stages": lambda: run_stages(run, ["attention"]),
        "patching study": lambda: patching([run], run.path.parent / "study", [0], until=2),
    }


@pytest.mark.parametrize(
    "what",
    [
        "patterns", "patch as reference", "attention to names", "knockout", "edges",
        "swaps of attention", "trace", "explore", "patch of patterns", "patch of heads",
        "memory stages", "patching study",
    ],
)  # fmt: skip
def test_attention_is_refused(run: Run, what: str) -> None:
    with pytest.raises(InterpError, match=r"recurren.* no attention"):
        refused(run)[what]()


def test_export_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no attention"):
        export_model(run.model(), tmp_path / "exported")


def test_report_of_a_trained_run(run: Run, tmp_path: Path) -> None:
    page = write_report(run, tmp_path / "report.html").read_text()
    assert "Left out: " in page
    assert "the model is recurrent" in page
    assert "A recurrent model (RG-LRU) of 2 layers" in page
    assert 'id="learning"' in page
    assert 'id="attention-maps"' not in page


def test_compared_with_a_run_that_attends(run: Run, short_run: Run, tmp_path: Path) -> None:
    page = write_comparison([short_run, run], tmp_path / "page.html").read_text()
    assert "a recurrent run has none, as it has no attention" in page
    assert "Attention maps of recurrence rg_lru" in page
    assert "interp memory" not in page


def test_reproduce_skips_what_needs_attention(recurrent: Config, tmp_path: Path) -> None:
    said: list[str] = []
    run = reproduce(recurrent, tmp_path / "run", announce=said.append, progress=False)
    found = summary(run)
    skipped = {stage.name for stage in STAGES if "skipped" in found[stage.name]}
    assert skipped == {stage.name for stage in STAGES} - {"phases", "knowledge"}
    assert sum("not for recurrent models" in title for title in said) == len(skipped)
    assert found["knowledge"]["parameters"] == parameter_counts(run.model())
    assert json.loads((run.path / "summary.json").read_text()) == found
    page = (run.path / "report.html").read_text()
    left_out = page.split("Left out: ")[1].split("</summary>")[0]
    assert left_out.count(", ") >= 5
