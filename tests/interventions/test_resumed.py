"""Passes that begin at the edited layer give what whole passes give, on every architecture."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from interp.attention import Spans
from interp.biographies import Corpus, load_tokenizer
from interp.interventions import SITES, Grid, Pairs, patch, path_patch, resumed
from interp.interventions.hooked import Hooked
from interp.interventions.resumed import ResumedForward
from interp.interventions.sites import hook_flags
from interp.model import measuring
from tests.model.test_live import ARCHITECTURES
from tests.unusual_architectures import UNUSUAL, boot

KINDS = [*ARCHITECTURES, *(kind for kind in UNUSUAL if kind not in (*ARCHITECTURES, "BERT"))]
NOT_THERE = {"GPT-1": {"resid_post"}, "post-norm OPT": {"resid_mid"}, "DeepSeek 3": {"z"}}


@pytest.fixture(scope="module")
def booted(
    corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], TransformerBridge]:
    folder = tmp_path_factory.mktemp("tokenizer")
    corpus.tokenizer.save_pretrained(folder)
    tokenizer = load_tokenizer(Path(folder))

    @cache
    def make(kind: str) -> TransformerBridge:
        if kind in UNUSUAL:
            return boot(kind, tokenizer)
        architecture, config, name, settings = ARCHITECTURES[kind]
        torch.manual_seed(0)
        inner = getattr(transformers, architecture)(
            getattr(transformers, config)(
                **settings, vocab_size=len(tokenizer), architectures=[architecture]
            )
        )
        return TransformerBridge.boot_transformers(name, hf_model=inner, tokenizer=tokenizer).eval()

    return make


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    generator = torch.Generator().manual_seed(0)
    base, source = torch.randint(5, 200, (2, 3, 9), generator=generator)
    spans = Spans.from_lists(9, sentences=[(1, 9)], names=[(1, 4)])
    return Pairs.of_tokens(
        base, source, Spans.stack([spans] * 3), [8, 6, 7], [5, 6, 7], [10, 11, 12]
    )


@contextmanager
def whole_passes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(resumed, "_is_plain", lambda model: False)
        yield


@pytest.mark.parametrize("kind", KINDS)
def test_passes_from_a_layer_on_are_whole_passes(
    kind: str, booted: Callable[[str], TransformerBridge], pairs: Pairs
) -> None:
    model = booted(kind)
    sites = ["resid_pre", "resid_mid", "resid_post", "attn_out", "z", "mlp_out"]
    keys = [
        (site, layer)
        for site in sites
        if site not in NOT_THERE.get(kind, ())
        for layer in range(model.cfg.n_layers)
        if SITES[site].hook_name(layer) in model.hook_dict
    ]
    row, place = torch.tensor([2, 0, 1, 1]), torch.tensor([[3, 3], [1, 2], [6, 6], [4, 5]])
    with measuring(model):
        quick = Hooked(model, pairs.base, pairs.read, keys)
        with whole_passes():
            slow = Hooked(model, pairs.base, pairs.read, keys)
        assert quick.reads_only
        assert not slow.reads_only
        assert quick._passes.begins == frozenset(range(1, model.cfg.n_layers))
        near = {"atol": 1e-5, "rtol": 1e-5}
        torch.testing.assert_close(quick.unpatched(), slow.unpatched(), **near)
        for site, layer in keys:
            edited = quick.base[site, layer][row[:, None], place].flip(-1)
            found, expected = (
                runs.logits(site, layer, row, place, edited) for runs in (quick, slow)
            )
            torch.testing.assert_close(found, expected, **near)
            assert (found - quick.unpatched()[row]).abs().max() > 1e-4, site
    assert not any("forward" in block.__dict__ for block in (*model.blocks, model.unembed))


@pytest.mark.parametrize("kind", ["Llama", "GPT-2", "Bloom"])
def test_tables_are_the_same(
    kind: str, booted: Callable[[str], TransformerBridge], pairs: Pairs
) -> None:
    model = booted(kind)
    for measure in (
        lambda: patch(model, pairs, Grid(("result", "pattern", "q_input"), "name")),
        lambda: path_patch(model, pairs),
    ):
        quick = measure()
        with whole_passes():
            slow = measure()
        assert (quick["value"] - slow["value"]).abs().max() < 1e-5
        assert (quick["change"].abs() > 1e-4).any()


def test_layers_that_share_more_than_the_stream_go_the_whole_way(
    corpus: Corpus, pairs: Pairs, tmp_path: Path
) -> None:
    corpus.tokenizer.save_pretrained(tmp_path)
    model = boot("Llama", load_tokenizer(tmp_path))
    kept: dict[str, Tensor] = {}
    first, second = (block.mlp.original_component for block in model.blocks)
    own = first.forward, second.forward

    def keep(x: Tensor) -> Tensor:
        kept["first"] = own[0](x)
        return kept["first"]

    first.forward = keep
    second.forward = lambda x: own[1](x) + 0.1 * kept["first"]
    with measuring(model):
        passes = ResumedForward(model, pairs.base, pairs.read, [1])
    assert passes.begins == frozenset()
    assert passes.reads_only
    quick = patch(model, pairs, Grid(("z", "resid_pre"), "name"), metrics="log_probability")
    with whole_passes():
        slow = patch(model, pairs, Grid(("z", "resid_pre"), "name"), metrics="log_probability")
    assert (quick["value"] - slow["value"]).abs().max() < 1e-5


def test_hooks_of_others_are_passed_in_every_pass(
    booted: Callable[[str], TransformerBridge], pairs: Pairs
) -> None:
    model = booted("Llama")
    seen: list[Any] = []
    model.add_hook("blocks.0.hook_resid_pre", lambda value, hook: seen.append(len(value)))
    try:
        with measuring(model):
            passes = ResumedForward(model, pairs.base, pairs.read, [1])
        assert not passes.reads_only
        assert not passes.begins
        before = len(seen)
        with measuring(model):
            passes.logits(1, torch.tensor([0, 1]))
        assert len(seen) == before + 1
    finally:
        model.reset_hooks()


def test_a_pass_of_another_thread_meanwhile_is_a_whole_one(
    booted: Callable[[str], TransformerBridge], pairs: Pairs
) -> None:
    model, found = booted("Llama"), []
    with measuring(model):
        passes = ResumedForward(model, pairs.base, pairs.read, [1])
        expected = model(pairs.base)

        def in_between(value: Tensor, hook: Any) -> None:
            other = threading.Thread(target=lambda: found.append(run()))
            other.start()
            other.join()

        def run() -> Tensor:
            with torch.no_grad():
                return model(pairs.base)  # type: ignore[no-any-return]

        hooks = [("blocks.1.hook_resid_mid", _once(in_between))]
        with hook_flags(model, []), model.hooks(fwd_hooks=hooks):
            logits = passes.logits(1, torch.arange(3))
    assert torch.equal(found[0], expected)
    torch.testing.assert_close(logits, passes.unpatched, atol=1e-5, rtol=1e-5)


def _once(hook: Callable[..., None]) -> Callable[..., None]:
    called: list[bool] = []

    def run(value: Tensor, hook_point: Any = None, **more: Any) -> None:
        if not called:
            called.append(True)
            hook(value, None)

    return run


def test_what_was_replaced_is_put_back_after_an_error(
    booted: Callable[[str], TransformerBridge], pairs: Pairs
) -> None:
    model = booted("Llama")

    def fail(value: Tensor, hook: Any) -> None:
        raise RuntimeError("in a hook")

    with measuring(model):
        passes = ResumedForward(model, pairs.base, pairs.read, [1])
        with (
            model.hooks(fwd_hooks=[("blocks.1.hook_resid_mid", fail)]),
            pytest.raises(RuntimeError, match="in a hook"),
        ):
            passes.logits(1, torch.arange(3))
    assert not any("forward" in block.__dict__ for block in (*model.blocks, model.unembed))
    assert not any(part._forward_hooks for part in model.blocks)
