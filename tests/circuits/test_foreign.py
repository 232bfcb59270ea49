"""Circuits of models from elsewhere: right, or refused with the reason."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import Corpus, load_tokenizer
from interp.circuits import edge_attribution, edges, exact_edges, faithfulness_curve
from interp.errors import ArgumentError
from interp.interventions import LOGIT_DIFFERENCE, Pairs
from interp.model import evaluating
from tests.circuits.models import difference, some_pairs
from tests.model.test_live import ARCHITECTURES

D_VOCAB = 200
REFUSED = {
    "OPT": "no hook point", "GPT-J": "no hook point", "Gemma 2": "after the head sum",
    "Gemma 3": "after the head sum", "OLMo 2": "after the head sum", "Bloom": "never passes",
}  # fmt: skip
"""Where heads are no nodes, and why."""
PARALLEL = ("GPT-J", "NeoX", "Falcon", "Cohere")
N_HEADS, N_LAYERS = 4, 2
JUMPS = "Mixtral"  # routing to experts: no gradient sees where it jumps


@pytest.fixture(scope="module")
def booted(
    corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[TransformerBridge, nn.Module]]:
    folder = tmp_path_factory.mktemp("tokenizer")
    corpus.tokenizer.save_pretrained(folder)
    tokenizer = load_tokenizer(Path(folder))

    def boot(kind: str) -> tuple[TransformerBridge, nn.Module]:
        architecture, config, name, settings = ARCHITECTURES[kind]
        made = getattr(transformers, config)(
            **settings, vocab_size=D_VOCAB, architectures=[architecture]
        )
        torch.manual_seed(0)
        plain = getattr(transformers, architecture)(made).eval()
        torch.manual_seed(0)
        inner = getattr(transformers, architecture)(made)
        bridge = TransformerBridge.boot_transformers(name, hf_model=inner, tokenizer=tokenizer)
        return bridge.eval(), plain

    return boot


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return some_pairs(D_VOCAB, 3, 7)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_right_or_refused(
    kind: str,
    booted: Callable[[str], tuple[TransformerBridge, nn.Module]],
    pairs: Pairs,
) -> None:
    model, plain = booted(kind)
    if kind in REFUSED:
        with pytest.raises(ArgumentError, match=REFUSED[kind]):
            edges(model)
    if kind == "Bloom":
        with pytest.raises(ArgumentError, match="never passes"):
            edges(model, "layers")
        return
    attention = "layers" if kind in REFUSED else "heads"
    scores = edge_attribution(model, pairs, ig_steps=40, attention=attention)
    same_layer = scores["sender_layer"].eq(scores["receiver_layer"]).fillna(False)
    assert bool(same_layer.any()) == (kind not in PARALLEL)
    curve = faithfulness_curve(model, pairs, scores, n_random=1, attention=attention)
    own = curve[curve["circuit"] == "scores"]
    assert own["faithfulness"].iloc[[0, -1]].tolist() == [0.0, 1.0]
    with torch.no_grad():
        clean, corrupted = (
            difference(plain(t).logits, pairs).mean().item() for t in (pairs.base, pairs.source)
        )
    assert own["clean"].iloc[0] == pytest.approx(clean, abs=1e-3)
    assert own["corrupted"].iloc[0] == pytest.approx(corrupted, abs=1e-3)
    total = scores.loc[scores["sender"] == "embed", "score"].sum()
    if kind != JUMPS:
        assert total == pytest.approx(corrupted - clean, rel=0.02, abs=0.02)


@pytest.mark.parametrize("kind", ["GPT-J", "NeoX", "Gemma 3", "OLMo 2", "Qwen 3"])
def test_layers_by_plain_hooks(
    kind: str, booted: Callable[[str], tuple[TransformerBridge, nn.Module]], pairs: Pairs
) -> None:
    """The edges of attention 0 and MLP 0 into the logits: the final norm of the original model is told."""
    model, plain = booted(kind)
    table = exact_edges(model, pairs, attention="layers").set_index(
        ["sender", "sender_layer", "receiver"]
    )
    with evaluating(model):
        caches = [model.run_with_cache(tokens)[1] for tokens in (pairs.base, pairs.source)]
    inner = getattr(plain, "transformer", None) or getattr(plain, "gpt_neox", None) or plain.model
    norm = next(
        getattr(inner, n) for n in ("ln_f", "final_layer_norm", "norm") if hasattr(inner, n)
    )
    for sender, name in (("attn", "blocks.0.hook_attn_out"), ("mlp", "blocks.0.hook_mlp_out")):
        base, source = (cache[name] for cache in caches)
        moved = norm.register_forward_pre_hook(
            lambda module, args, change=source - base: (args[0] + change,)
        )
        with torch.no_grad():
            after = difference(plain(pairs.base).logits, pairs).mean()
            moved.remove()
            before = difference(plain(pairs.base).logits, pairs).mean()
        exact = table.loc[(sender, 0, "logits"), "exact"]
        assert float(after - before) == pytest.approx(float(exact), abs=1e-3)
        assert abs(float(exact)) > 1e-3


def test_something_else_in_the_stream_is_refused(
    booted: Callable[[str], tuple[TransformerBridge, nn.Module]], pairs: Pairs
) -> None:
    """A block that adds more than attention and MLP."""
    model, _ = booted("Llama")
    block = model.original_model.model.layers[0]
    handle = block.register_forward_hook(lambda module, args, out: out * 1.1)
    with pytest.raises(ArgumentError, match="not the sum"):
        edge_attribution(model, pairs)
    handle.remove()
    assert len(edge_attribution(model, pairs, "EAP", metric=LOGIT_DIFFERENCE))


@pytest.mark.parametrize(("layer", "words"), [(0, "another way"), (1, "something else reads")])
def test_something_else_that_reads_the_stream_is_refused(
    booted: Callable[[str], tuple[TransformerBridge, nn.Module]],
    pairs: Pairs,
    layer: int,
    words: str,
) -> None:
    """What an MLP writes depends on the embedding, or on the stream, past all receivers."""
    model, _ = booted("Llama")
    layers = model.original_model.model.layers
    seen: list[torch.Tensor] = []
    layers[layer].register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]),
        with_kwargs=True,
    )
    inner = layers[1].mlp.original_component
    inner.register_forward_hook(lambda module, args, out: out + 0.5 * seen[-1])
    with pytest.raises(ArgumentError, match=words):
        edge_attribution(model, pairs)
