"""Tiny models of many architectures, and each measure against plain PyTorch hooks on the original.

    python -m tests.architectures --page docs/models.md

The original is the transformers model before TransformerLens wraps it. What a measure says is computed
on it once more: activations are read and replaced by forward hooks at the modules of transformers (and,
as attention weights pass no module, at the softmax), norms are frozen by hooks that undo a change of
their scale. Source: the idea of a direct effect with everything else frozen is Elhage et al. 2021.
"""

import argparse
import copy
import os
import tempfile
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedTokenizerFast

import interp
from interp.attention import attention_scores
from interp.biographies import Spans, Texts
from interp.errors import InterpError
from interp.interventions import Grid, Knockout, Pairs, attribution, patch
from interp.memory import promoted_logits
from interp.memory.located_fact import NAME, VALUE
from interp.model import AttentionPatch

SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3,
}  # fmt: skip
LLAMA = SMALL | {"intermediate_size": 64, "max_position_embeddings": 64}
GROUPED = LLAMA | {"num_key_value_heads": 2}
GEMMA = GROUPED | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 64}
ARCHITECTURES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "GPT-2": (
        "GPT2LMHeadModel", "GPT2Config", "gpt2",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.3},
    ),
    "OPT": (
        "OPTForCausalLM", "OPTConfig", "facebook/opt-125m",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64,
         "max_position_embeddings": 64, "word_embed_proj_dim": 32, "init_std": 0.3},
    ),
    "GPT-J": (
        "GPTJForCausalLM", "GPTJConfig", "EleutherAI/gpt-j-6B",
        {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "rotary_dim": 8,
         "initializer_range": 0.3},
    ),
    "NeoX": ("GPTNeoXForCausalLM", "GPTNeoXConfig", "EleutherAI/pythia-70m", LLAMA),
    "Falcon": ("FalconForCausalLM", "FalconConfig", "tiiuae/falcon-7b", SMALL),
    "Bloom": (
        "BloomForCausalLM", "BloomConfig", "bigscience/bloom-560m",
        {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3},
    ),
    "Llama": ("LlamaForCausalLM", "LlamaConfig", "meta-llama/Llama-2-7b-hf", GROUPED),
    "Gemma 2": ("Gemma2ForCausalLM", "Gemma2Config", "google/gemma-2-2b", GEMMA),
    "Gemma 3": ("Gemma3ForCausalLM", "Gemma3TextConfig", "google/gemma-3-270m", GEMMA),
    "OLMo 2": ("Olmo2ForCausalLM", "Olmo2Config", "allenai/OLMo-2-0425-1B", GROUPED),
    "Qwen 2": ("Qwen2ForCausalLM", "Qwen2Config", "Qwen/Qwen2-0.5B", GROUPED),
    "Qwen 3": ("Qwen3ForCausalLM", "Qwen3Config", "Qwen/Qwen3-0.6B", GROUPED | {"head_dim": 8}),
    "Phi 3": (
        "Phi3ForCausalLM", "Phi3Config", "microsoft/Phi-3-mini-4k-instruct", LLAMA | {"pad_token_id": 0},
    ),
    "Cohere": ("CohereForCausalLM", "CohereConfig", "CohereForAI/c4ai-command-r-v01", GROUPED),
    "Mixtral": (
        "MixtralForCausalLM", "MixtralConfig", "mistralai/Mixtral-8x7B-v0.1",
        GROUPED | {"num_local_experts": 4},
    ),
}  # fmt: skip
"""Tiny ones with random weights: class, configuration, whose layout it has, settings."""
_LLAMA_LAYOUT = ("model.layers", "self_attn.o_proj", "mlp", "mlp.down_proj")
_NORMED_LAYOUT = ("model.layers", "self_attn.o_proj", "post_feedforward_layernorm", "mlp.down_proj")
_LAYOUTS = {
    "GPT-2": ("transformer.h", "attn.c_proj", "mlp", "mlp.c_proj"),
    "OPT": ("model.decoder.layers", "self_attn.out_proj", "fc2", "fc2"),
    "GPT-J": ("transformer.h", "attn.out_proj", "mlp", "mlp.fc_out"),
    "NeoX": ("gpt_neox.layers", "attention.dense", "mlp", "mlp.dense_4h_to_h"),
    "Falcon": ("transformer.h", "self_attention.dense", "mlp", "mlp.dense_4h_to_h"),
    # Bloom's MLP adds the stream itself.
    "Bloom": ("transformer.h", "self_attention.dense", "mlp.dense_4h_to_h", "mlp.dense_4h_to_h"),
    "Gemma 2": _NORMED_LAYOUT, "Gemma 3": _NORMED_LAYOUT, "OLMo 2": _NORMED_LAYOUT,
}  # fmt: skip
"""In transformers: the layers; the module that reads the heads' outputs, the one whose output is added
to the stream for the MLP, and the one that reads its neurons. Others are laid out as Llama is."""

EQUAL = "equal"
N_VOCAB = 300
N_LAYERS = 2


def boot(
    kind: str, tokenizer: PreTrainedTokenizerFast, seed: int = 0
) -> tuple[TransformerBridge, nn.Module]:
    """A tiny model with random weights, also of norms and biases, wrapped; and as it was before."""
    architecture, config, name, settings = ARCHITECTURES[kind]
    torch.manual_seed(seed)
    sizes = {"vocab_size": len(tokenizer), "attn_implementation": "eager"}
    whole = getattr(transformers, architecture)(
        getattr(transformers, config)(**settings, **sizes, architectures=[architecture])
    ).eval()
    with torch.no_grad():
        for weight in whole.parameters():
            if weight.ndim == 1:
                weight += 0.3 * torch.randn_like(weight)
    original = copy.deepcopy(whole)
    wrapped = TransformerBridge.boot_transformers(name, hf_model=whole, tokenizer=tokenizer)
    return wrapped.eval(), original


@cache
def small_tokenizer() -> PreTrainedTokenizerFast:
    """One of `N_VOCAB` words; TransformerLens loads it again from its folder."""
    words = ["<pad>", "<bos>", "<eos>", "<unk>"]
    words += [f"w{number}" for number in range(N_VOCAB - len(words))]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    special = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), words, strict=False))
    folder = tempfile.mkdtemp(prefix="interp-tokenizer-")
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


class Original:
    """A transformers model, and plain hooks on it."""

    def __init__(self, kind: str, model: nn.Module) -> None:
        self.model = model
        layers, *paths = _LAYOUTS.get(kind, _LLAMA_LAYOUT)
        self.layers: list[nn.Module] = list(attrgetter(layers)(model))
        reads_z, self._mlp_out, self._down = paths
        self._reads_z = reads_z
        self.norms = [m for m in model.modules() if "Norm" in type(m).__name__]

    def __call__(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(tokens).logits
        return logits

    @contextmanager
    def at(self, site: str, layer: int, edit: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
        """While this lasts, `edit` sees a site's activation [batch, position, ...] and may replace it."""
        block = self.layers[layer]
        if site == "pattern":
            with self.patterns({layer: edit}):
                yield
            return
        path, output = {
            "resid_pre": ("", False), "resid_post": ("", True), "z": (self._reads_z, False),
            "mlp_out": (self._mlp_out, True), "post": (self._down, False),
        }[site]  # fmt: skip
        module = attrgetter(path)(block) if path else block

        def before(_: nn.Module, args: Any, kwargs: Any) -> Any:
            name = "hidden_states"
            given = args[0] if args else kwargs[name]
            changed = edit(given)
            if changed is None:
                return None
            return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, name: changed})

        def after(_: nn.Module, args: Any, result: Any) -> Any:
            changed = edit(result[0] if isinstance(result, tuple) else result)
            if changed is None or not isinstance(result, tuple):
                return changed
            return (changed, *result[1:])

        handle = (
            module.register_forward_hook(after)
            if output
            else module.register_forward_pre_hook(before, with_kwargs=True)
        )
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def patterns(self, edits: Mapping[int, Callable[[Tensor], Tensor | None]]) -> Iterator[None]:
        """While this lasts, `edits` see attention weights [batch, head, query, key] by layer."""
        softmax, number = nn.functional.softmax, 0

        def watched(scores: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            nonlocal number
            pattern = softmax(scores, *args, **kwargs)
            if pattern.ndim != 4:  # the router of experts
                return pattern
            edit = edits.get(number % len(self.layers))
            number += 1
            changed = None if edit is None else edit(pattern)
            return pattern if changed is None else changed

        nn.functional.softmax = watched  # type: ignore[assignment]
        try:
            yield
        finally:
            nn.functional.softmax = softmax
        if not number or number % len(self.layers):
            raise AssertionError("attention is not eager")

    def read(self, tokens: Tensor, *sites: tuple[str, int]) -> list[Tensor]:
        """The activations of some sites on some texts."""
        kept: dict[tuple[str, int], Tensor] = {}
        with ExitStack() as stack, torch.no_grad():
            for key in sites:

                def keep(value: Tensor, key: tuple[str, int] = key) -> None:
                    kept[key] = value.detach().clone()

                stack.enter_context(self.at(*key, keep))
            self(tokens)
        return [kept[key] for key in sites]

    @contextmanager
    def frozen_norms(self, tokens: Tensor) -> Iterator[dict[nn.Module, Tensor]]:
        """While this lasts, norms have the scales that they have on these texts; gives these.

        They are in the order of the pass, the final norm last.
        """
        scales: dict[nn.Module, Tensor] = {}

        def keep(norm: nn.Module, args: Any, result: Tensor) -> None:
            scales[norm] = _scale(norm, args[0])

        def undo(norm: nn.Module, args: Any, result: Tensor) -> Tensor:
            # Under the old scale, what is not bias grows by new / old.
            bias = getattr(norm, "bias", None)
            shift = torch.zeros(()) if bias is None else bias
            return (result - shift) * (_scale(norm, args[0]) / scales[norm]) + shift

        with torch.no_grad():
            handles = [norm.register_forward_hook(keep) for norm in self.norms]
            self(tokens)
            for handle in handles:
                handle.remove()
            handles = [norm.register_forward_hook(undo) for norm in self.norms]
            try:
                yield scales
            finally:
                for handle in handles:
                    handle.remove()


def _scale(norm: nn.Module, x: Tensor) -> Tensor:
    centred = x if "RMS" in type(norm).__name__ else x - x.mean(-1, keepdim=True)
    names = ("eps", "variance_epsilon")
    eps = next(float(getattr(norm, name)) for name in names if hasattr(norm, name))
    return (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()


# What is measured: three pairs of texts of eight tokens, read at the last.
_READ = 7


@cache
def _pairs() -> Pairs:
    generator = torch.Generator().manual_seed(0)
    base, source = torch.randint(5, 200, (2, 3, 8), generator=generator)
    spans = Spans.from_lists(8, sentences=[(1, 8)], names=[(1, 4)])
    return Pairs.of_tokens(base, source, Spans.stack([spans] * 3), _READ, [5, 6, 7], [10, 11, 12])


def _places() -> dict[str, Tensor]:
    places = torch.zeros(3, 8, dtype=torch.bool)
    places[:, [3, _READ]] = True
    return {"two": places}


def _log_probability(logits: Tensor) -> Tensor:
    return logits[:, _READ].log_softmax(-1)[torch.arange(3), _pairs().base_answer]


def _difference(logits: Tensor) -> Tensor:
    read, pairs = logits[torch.arange(3), _READ], _pairs()
    return (
        read.gather(1, pairs.source_answer[:, None]) - read.gather(1, pairs.base_answer[:, None])
    )[:, 0]


def _numbers(values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().double()
    return torch.tensor(np.asarray(values).tolist(), dtype=torch.float64)


def _close(found: Any, expected: Any, tolerance: float = 2e-4) -> None:
    found, expected = (_numbers(x) for x in (found, expected))
    error = float((found - expected).abs().max())
    if not error <= tolerance * max(1.0, float(expected.abs().max())):
        raise AssertionError(f"differs from hooks on the original by {error:.3g}")


def _moves(found: Any, unpatched: Any) -> None:
    if not float((_numbers(found) - _numbers(unpatched)).abs().max()) > 1e-4:
        raise AssertionError("has no effect")


class Verdicts:
    """Each measure on one architecture: a method a measure, which fails where it is not equal."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.model, original = boot(kind, small_tokenizer())
        self.original = Original(kind, original)

    def _patch(self, site: str, edit: Any = "replace") -> None:
        pairs, original = _pairs(), self.original
        for layer in range(N_LAYERS):
            grid = Grid(site, _places(), [layer], heads="all")
            table = patch(self.model, pairs, grid, metrics="log_probability", per_pair=True)
            (source,) = original.read(pairs.source, (site, layer))

            def replace(value: Tensor, source: Tensor = source) -> Tensor:
                # An activation of [position, width] has lost its axis of texts (OPT).
                rows = 2 if site == "pattern" else 1
                whole = value.view(3, -1, *value.shape[1:]) if value.ndim == 2 else value
                given = source.view(whole.shape)
                changed = whole.clone().transpose(1, rows)
                changed[:, [3, _READ]] = given.transpose(1, rows)[:, [3, _READ]]
                return changed.transpose(1, rows).reshape(value.shape)

            with torch.no_grad(), original.at(site, layer, replace):
                expected = _log_probability(original(pairs.base))
            _close(table["value"].to_numpy(), expected)
            _moves(table["value"].to_numpy(), table["unpatched"].to_numpy())

    def patch_resid_pre(self) -> None:
        self._patch("resid_pre")

    def patch_z(self) -> None:
        self._patch("z")

    def patch_mlp_out(self) -> None:
        self._patch("mlp_out")

    def patch_post(self) -> None:
        if self.kind == "Mixtral":  # there is no such activation in the original
            patch(self.model, _pairs(), Grid("post", _places(), [0]))
            raise AssertionError("gives a number for neurons that are not there")
        self._patch("post")

    def patch_pattern(self) -> None:
        self._patch("pattern")

    def knockout(self) -> None:
        pairs = _pairs()
        for layer in range(N_LAYERS):
            grid = Grid("pattern", _places(), [layer], heads="all", edit=Knockout("name"))
            table = patch(self.model, pairs, grid, metrics="log_probability", per_pair=True)

            def cut(pattern: Tensor) -> Tensor:
                pattern = pattern.clone()
                pattern[:, :, [3, _READ], 1:4] = 0
                return pattern / pattern.sum(-1, keepdim=True)

            with torch.no_grad(), self.original.at("pattern", layer, cut):
                expected = _log_probability(self.original(pairs.base))
            _close(table["value"].to_numpy(), expected)
            _moves(table["value"].to_numpy(), table["unpatched"].to_numpy())

    def attribution(self) -> None:
        pairs, original = _pairs(), self.original
        for site in ("resid_pre", "mlp_out"):
            table = attribution(self.model, pairs, Grid(site, _places(), [0]))
            base, source = (original.read(t, (site, 0))[0] for t in (pairs.base, pairs.source))
            zero = torch.zeros_like(base, requires_grad=True)
            with original.at(site, 0, lambda value, zero=zero: value + zero):
                difference = _difference(original(pairs.base)).sum()
            (slope,) = torch.autograd.grad(difference, zero)
            change = (slope * (source - base)).view(3, 8, -1)[:, [3, _READ]].sum((1, 2))
            _close(table["approximate"].item(), change.mean().detach(), 1e-3)
            _moves(table["approximate"].item(), 0.0)

    def attention_scores(self) -> None:
        pairs = _pairs()
        with warnings.catch_warnings():  # no word tells the relation
            warnings.simplefilter("ignore", UserWarning)
            scores = attention_scores(self.model, Texts(pairs.base, pairs.spans), read=pairs.read)
        sites = [("pattern", layer) for layer in range(N_LAYERS)]
        patterns = self.original.read(pairs.base, *sites)
        for metric, keys in (("name_to_first_token", [0]), ("name_to_name", [1, 2])):
            found = scores[scores["metric"] == metric].sort_values(["layer", "head"])["value"]
            expected = [p[:, :, 3, keys].double().sum(-1).mean(0) for p in patterns]
            _close(found.to_numpy(), torch.cat(expected))

    @torch.no_grad()
    def promoted_logits(self) -> None:
        tokens, original = _pairs().base[:1], self.original
        for layer in range(N_LAYERS):
            promoted = promoted_logits(self.model, layer)
            (stream,) = original.read(tokens, ("resid_post", layer))
            for neuron in (0, 17):
                with original.frozen_norms(tokens) as scales:
                    plain = original(tokens)
                    with original.at("post", layer, _added(neuron, 1.0)):
                        (changed,) = original.read(tokens, ("resid_post", layer))

                    def add(value: Tensor, written: Tensor = changed - stream) -> Tensor:
                        return value + written

                    with original.at("resid_post", N_LAYERS - 1, add):
                        moved = original(tokens) - plain
                    scale = list(scales.values())[-1]
                    after = getattr(original.layers[layer], "post_feedforward_layernorm", None)
                    if after is not None:
                        scale = scale * scales[after]
                moved = (moved * scale)[0, _READ]
                moved = moved - moved.mean()
                _close(moved, promoted[neuron], 1e-3)
                _moves(moved, 0.0)

    def locate_fact(self) -> None:
        spans = Spans.from_lists(
            8, sentences=[(1, 8)], names=[(1, 3)], types=[(4, 5)], values=[(6, 8)]
        )
        tokens, rivals = _pairs().base[0].tolist(), [20, 30, 40]
        prompt = interp.FactPrompt.of_text(tokens, spans, rivals, relation="relation")
        fact = interp.locate_fact({0: self.model}, prompt, top=10_000)
        read, original, target = torch.tensor([tokens[:6]]), self.original, tokens[6]

        def difference(logits: Tensor) -> float:
            return float(logits[0, 5, target] - logits[0, 5, rivals].mean())

        with torch.no_grad():
            whole = difference(original(read))
        _close(fact.logit_difference, whole)
        parts = fact.components.set_index(["at", "component", "layer"])["contribution"].sort_index()
        _close(parts[VALUE].sum(), whole)
        heads = fact.heads.set_index(["at", "layer", "head"])["contribution"].sort_index()
        neurons = fact.neurons.set_index(["at", "layer", "neuron"])["contribution"].sort_index()
        with torch.no_grad(), ExitStack() as stack:
            streams = [("resid_post", layer) for layer in range(N_LAYERS)]
            frozen = original.read(read, *[("mlp_out", layer) for layer in range(N_LAYERS)])
            patterns = original.read(read, *[("pattern", layer) for layer in range(N_LAYERS)])
            before = original.read(read, *streams)
            stack.enter_context(original.frozen_norms(read))
            given = {i: lambda _, p=p: p for i, p in enumerate(patterns)}
            for layer in range(N_LAYERS):
                # A head's own write: all of the layer but it is as it was.
                with (
                    original.at("z", layer, _without_head(1, self.model.cfg.n_heads)),
                    original.at("mlp_out", layer, lambda _, kept=frozen[layer]: kept.clone()),
                ):
                    (without,) = original.read(read, ("resid_post", layer))
                _close(
                    heads[VALUE, layer, 1], self._direct(without - before[layer], read, difference)
                )
                chosen = neurons[VALUE, layer].loc[lambda share: share > 0]
                with original.at("post", layer, _without_neurons(list(chosen.index), 5)):
                    (without,) = original.read(read, ("resid_post", layer))
                expected = self._direct(without - before[layer], read, difference)
                _close(chosen.sum(), expected, 2e-5)
                _moves(expected, 0.0)
            # Through attention of the last layer: what neurons write at the name, MLPs frozen after it.
            chosen = neurons[NAME, 0].loc[lambda share: share > 0]
            with (
                original.patterns(given),
                original.at("mlp_out", 1, lambda _, kept=frozen[1]: kept.clone()),
                original.at("post", 0, _without_neurons(list(chosen.index), 2)),
            ):
                through = whole - difference(original(read))
            _close(chosen.sum(), through, 2e-5)
            _moves(through, 0.0)

    def _direct(
        self, written: Tensor, read: Tensor, difference: Callable[[Tensor], float]
    ) -> float:
        """By how much the logit difference falls if this is written last, norms frozen."""
        plain = difference(self.original(read))
        with self.original.at("resid_post", N_LAYERS - 1, lambda value: value + written):
            return plain - difference(self.original(read))

    @torch.no_grad()
    def attention_patch(self) -> None:
        tokens = _pairs().base
        other, theirs = boot(self.kind, small_tokenizer(), seed=1)
        sites = [("pattern", layer) for layer in range(N_LAYERS)]
        patterns = Original(self.kind, theirs).read(tokens, *sites)
        with AttentionPatch(other).on(self.model) as patched:
            found = patched(tokens)
        with self.original.patterns({i: lambda _, p=p: p for i, p in enumerate(patterns)}):
            expected = self.original(tokens)
        _close(found, expected, 1e-3)
        _moves(found, self.original(tokens))


def _added(neuron: int, amount: float) -> Callable[[Tensor], Tensor]:
    def add(value: Tensor) -> Tensor:
        value = value.clone()
        value[..., neuron] += amount
        return value

    return add


def _without_neurons(neurons: Sequence[int], position: int) -> Callable[[Tensor], Tensor]:
    def remove(value: Tensor) -> Tensor:
        value = value.clone()
        value.view(-1, value.shape[-1])[position, neurons] = 0
        return value

    return remove


def _without_head(head: int, n_heads: int) -> Callable[[Tensor], Tensor]:
    def remove(value: Tensor) -> Tensor:
        value = value.clone()
        value.view(*value.shape[:2], n_heads, -1)[:, :, head] = 0
        return value

    return remove


MEASURES: dict[str, Callable[[Verdicts], None]] = {
    "patch `resid_pre`": Verdicts.patch_resid_pre,
    "patch `z`": Verdicts.patch_z,
    "patch `mlp_out`": Verdicts.patch_mlp_out,
    "patch `post`": Verdicts.patch_post,
    "patch `pattern`": Verdicts.patch_pattern,
    "knockout": Verdicts.knockout,
    "`attribution`": Verdicts.attribution,
    "`attention_scores`": Verdicts.attention_scores,
    "`promoted_logits`": Verdicts.promoted_logits,
    "`locate_fact`": Verdicts.locate_fact,
    "`AttentionPatch`": Verdicts.attention_patch,
}


def verdicts(kind: str) -> dict[str, str]:
    """Of each measure on an architecture: `EQUAL`, why it is refused, or what is wrong."""
    here, found = Verdicts(kind), {}
    for name, measure in MEASURES.items():
        try:
            measure(here)
            found[name] = EQUAL
        except InterpError as error:
            found[name] = f"refused: {str(error).split(': ')[0]}"
        except AssertionError as error:
            found[name] = f"WRONG: {error}"
    return found


def page(kinds: Sequence[str] = tuple(ARCHITECTURES)) -> str:
    """The page with all verdicts."""
    table = {kind: verdicts(kind) for kind in kinds}
    reasons = list(dict.fromkeys(v for row in table.values() for v in row.values() if v != EQUAL))
    lines = [
        "# Measures on models from elsewhere",
        "",
        textwrap.fill(
            "Written by `python -m tests.architectures --page docs/models.md` on tiny models with random "
            "weights (norms and biases too) and held up by `tests/test_architectures.py`. *equal*: the "
            "result equals that of plain PyTorch hooks on the original transformers model, before "
            "TransformerLens wraps it. *refused*: an error with the reason, and no number.",
            110,
        ),
        "",
        "| | " + " | ".join(MEASURES) + " |",
        "|---|" + "---|" * len(MEASURES),
    ]
    for kind, row in table.items():
        cells = [
            EQUAL if v == EQUAL else f"{v.split(': ')[0]} ({reasons.index(v) + 1})"
            for v in row.values()
        ]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    lines += ["", "Reasons:", ""]
    lines += [f"{i}. {reason.split(': ', 1)[1]}" for i, reason in enumerate(reasons, 1)]
    return "\n".join(lines) + "\n"


def rows_of(text: str) -> dict[str, dict[str, str]]:
    """The verdicts on a page, by architecture and measure, with reasons in place of their numbers."""
    lines = text.splitlines()
    reasons = {s.split(". ")[0]: s.split(". ", 1)[1] for s in lines if s[:1].isdigit()}
    found = {}
    for line in lines:
        kind, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        if kind in ARCHITECTURES and len(cells) == len(MEASURES):
            found[kind] = {
                name: cell if cell == EQUAL
                else f"{cell.split(' (')[0]}: {reasons[cell.split('(')[1].rstrip(')')]}"
                for name, cell in zip(MEASURES, cells, strict=True)
            }  # fmt: skip
    return found


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, required=True, help="where the table is written")
    parser.parse_args().page.write_text(page(), encoding="utf-8")
