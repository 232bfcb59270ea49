"""Values: which tokens a neuron's output weights promote, and whose.

An MLP layer as a memory of keys and values: a neuron's input weights are a key that some people's
residual streams match, its output weights the value that is written when they do. Read through the
norms after it and the unembedding, the value is a row of logits: the tokens that the neuron promotes.
Norms are taken as linear, without their scale: one positive number per position, which changes no order.

More tokens than dimensions share directions: what a neuron promotes holds tokens that it was not made
for, and values that are promoted together take from each other. In compiled models with 64 dimensions for
all values, a fifth of the tokens that neurons promote through attention are such strangers
(docs/trust.md).

Sources: Geva et al. 2021, "Transformer feed-forward layers are key-value memories" (values and their
agreement with keys); Geva et al. 2022, "Transformer feed-forward layers build predictions by
promoting concepts in the vocabulary space"; the linear view of norms and of paths through attention:
Elhage et al. 2021, "A mathematical framework for transformer circuits".
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformer_lens.model_protocol import TransformerLensModel
from transformers import PreTrainedTokenizerFast

from interp.errors import ArgumentError, NothingToMeasureError, require_known, whole_number
from interp.memory.activations import POSITIONS, CachedActivations, require_relations
from interp.memory.facts import AnyFacts, FactLabels, FirstTokens
from interp.model import require_own_weights, valid_indices
from interp.model.stream import (
    Norm,
    final_norm,
    logit_scale,
    norm_at,
    post_norm,
    require_linear_stream,
    require_uncapped,
    unembedding,
    weights_of,
)
from interp.torch_state import default_state

Path = Literal["direct", "attention"]
"""direct: from the neuron straight to the unembedding, at its own position. attention: through the
value and output weights of all heads of later layers, to a position that attends to the neuron's."""
PATHS: tuple[Path, ...] = get_args(Path)
VALUE_METRICS = ("value_share", "agreement", "layer_agreement")
"""What `value_measures` reports."""
READINGS = tuple((position, path) for position in POSITIONS for path in PATHS)[:-1]
"""Where neurons are read and how their values get to a prediction. Nothing attends to the position
that predicts a value in order to predict it, so its values take the direct path only."""
_N_TOP_TOKENS = 10
_TOP_SHARE = 0.05  # of people, by how much they fire a neuron
_N_SHUFFLES = 5


@default_state()
@torch.no_grad()
def promoted_logits(
    model: TransformerLensModel, layer: int, path: str = "direct", *, before_cap: bool = False
) -> Float[Tensor, "neuron vocab"]:
    """What each neuron of a layer adds to the logits, per unit of its activation.

    The output weights go through the norm after the MLP, where there is one (Gemma 2 and 3, OLMo 2),
    and the final norm, then W_U; what is added to all logits alike is taken off, as it changes no
    prediction. Each norm is taken as linear, without its scale: centred over d_model if it is a
    LayerNorm, and multiplied by its weight. To get the logits of a position, divide by the scales there
    (`ln_final.hook_scale`, and `blocks.<layer>.ln2_post.hook_scale` of a norm after the MLP).

    On the path "attention" (the other is "direct") the output weights first go through every head of
    every later layer, as they do at a position that attends to the neuron's with weight 1 in each of
    them: that layer's first norm, if it has one, W_V (which several heads share under grouped queries),
    W_O, and the norm after attention, if there is one; summed over heads and layers, all scales left
    out. Paths through several layers' attention, or through later MLPs, are not counted.

    A model from elsewhere is held against one pass of its own (`interp.model.stream`), and refused where
    its weights do not say what it computes. Attention and MLP may be parallel.

    Args:
        model: Any TransformerLens model with an MLP of neurons.
        layer: Whose neurons.
        path: One of `PATHS`.
        before_cap: Of a model that caps its logits (Gemma 2), give what neurons add before the cap, in
            place of an error: how much of it the cap lets through differs from token to token.

    Returns:
        Logits per unit of activation, times the scale of each norm on the path.

    Raises:
        ArgumentError: an unknown path, a layer out of range, the last layer's path through attention, a
            mixture of experts, capped logits, or a model whose weights are not where TransformerLens has
            them, or which does not compute with them (an adapter).

    Example:
        >>> from interp import hooked_transformer, preset
        >>> promoted_logits(hooked_transformer(preset("smoke")), layer=0).shape[0]
        64
    """
    require_own_weights(model, adapted=True)
    scale = 1.0 if before_cap and logit_scale(model) is None else require_uncapped(model)
    written = output_weights(model, layer)
    promoted = _promoted(model, written, layer, path)
    later = range(layer + 1, model.cfg.n_layers) if path == "attention" else ()
    require_linear_stream(model, neurons=[layer], heads=later)
    return promoted if scale == 1 else promoted * scale


def promoted_by(
    model: TransformerLensModel, layer: int, path: str, neurons: Sequence[int]
) -> Float[Tensor, "chosen vocab"]:
    """The rows of `promoted_logits` of some neurons; the model is not held against a pass of its own."""
    written = output_weights(model, layer)[list(neurons)]
    promoted = _promoted(model, written, layer, path)
    scale = require_uncapped(model)
    return promoted if scale == 1 else promoted * scale


def output_weights(model: TransformerLensModel, layer: int) -> Float[Tensor, "neuron d_model"]:
    """The output weights of a layer's neurons, in single precision; errors as `promoted_logits`."""
    valid_indices([layer], model.cfg.n_layers, "layer")
    require_own_weights(model, adapted=True)
    return weights_of(model, layer, "W_out").float()


def _promoted(
    model: TransformerLensModel, written: Float[Tensor, "neuron d_model"], layer: int, path: str
) -> Float[Tensor, "neuron vocab"]:
    """The logits that any vectors written by a layer's MLP add, norms taken as linear."""
    require_known([path], PATHS, "path")
    written = _through(post_norm(model, layer, "mlp"), written)
    if path == "attention":
        later = range(layer + 1, model.cfg.n_layers)
        if not later:
            raise ArgumentError(
                f"No attention reads what layer {layer} writes: it is the last. Use the path "
                "'direct', or an earlier layer."
            )
        moved = torch.zeros_like(written)
        for reader in later:
            read = _through(norm_at(cast(Any, model).blocks[reader], "ln1"), written)
            outputs = weights_of(model, reader, "W_O").float()
            values = weights_of(model, reader, "W_V").float()
            added = moved if post_norm(model, reader, "attn") is None else torch.zeros_like(moved)
            for head, output in enumerate(outputs):
                # Heads may share value weights (grouped-query attention).
                added += read @ values[head * len(values) // len(outputs)] @ output
            if added is not moved:
                moved += _through(post_norm(model, reader, "attn"), added)
        written = moved
    logits = final_norm(model).linear(written) @ unembedding(model).float()
    return logits - logits.mean(dim=-1, keepdim=True)


def _through(norm: Norm | None, x: Float[Tensor, "neuron d_model"]) -> Tensor:
    return x if norm is None else norm.linear(x)


def top_tokens(
    promoted: Float[Tensor, "neuron vocab"], tokenizer: PreTrainedTokenizerFast, k: int = 10
) -> pd.DataFrame:
    """The `k` tokens that each neuron promotes most, of what `promoted_logits` returned.

    Columns `neuron`, `rank` (from 1), `token` (its text) and `logit` (per unit of activation).
    """
    n_neurons, n_tokens = promoted.shape
    if whole_number(k, "k", 1) > n_tokens:
        raise ArgumentError(f"k={k}: a neuron has between 1 and {n_tokens} tokens to promote.")
    top = promoted.topk(k, dim=-1)
    ids = top.indices.flatten().tolist()
    text = {index: str(tokenizer.decode([index])).strip() for index in set(ids)}
    return pd.DataFrame(
        {
            "neuron": np.repeat(np.arange(n_neurons), k),
            "rank": np.tile(np.arange(1, k + 1), n_neurons),
            "token": [text[index] for index in ids],
            "logit": top.values.flatten().cpu().numpy(),
        }
    )


@default_state()
def value_measures(
    model: TransformerLensModel, facts: AnyFacts, known: CachedActivations, seed: int = 0
) -> pd.DataFrame:
    """Whether neurons write attribute values, and the values of the people that fire them.

    - `value_share`: the share of neurons' ten most promoted tokens that belong to a value of the
      attribute ("all": of any attribute), mean over neurons. Control: random directions in place of
      the output weights. It asks about the weights alone, so it is the same at both positions.
    - `agreement`: for each neuron, the people who fire it most (the upper 5%, activations averaged
      over wordings); the rank of their own value among the attribute's values in what the neuron
      promotes, from 0 (last) to 1 (first); mean over people and neurons. Control: facts shuffled
      among people, mean over five shuffles; 0.5 is chance. Neurons that everybody fires alike (silent
      ones) or that promote all values alike (through attention, those that no head reads) are left out.
    - `layer_agreement`: the same rank in what the whole layer writes for a person beyond what it
      writes on average: the promoted logits of all neurons weighted by activation minus its mean over
      people. All people count. Same control and chance.

    `agreement` asks for single neurons that are memories of few people; `layer_agreement` also sees a
    memory spread over many neurons, each of which serves many people.

    Read are the `known` neurons of every layer on people that training showed, whose values `facts` say
    (a corpus, or labels of yours); `seed` is of the random directions and shuffles.

    Returns:
        Columns `layer`, `position`, `path`, `metric` (`VALUE_METRICS`), `attribute` (a name, or "all":
        the mean over attributes, but for `value_share`), `value` and `control`. The ranks are NaN for an
        attribute whose values all begin with one token, or that fewer than two people have; they are left
        out of the mean. `agreement` is NaN where no neuron is left.

    Raises:
        NothingToMeasureError: one person.
        ArgumentError: as `promoted_logits`.
    """
    generator = torch.Generator().manual_seed(seed)
    if len(known.individuals) < 2:
        raise NothingToMeasureError(
            "Whether neurons write the values of the people that fire them is held against the values of "
            "other people; there is one person."
        )
    first = FactLabels.of(facts).relations
    require_relations(known, first)
    rows: list[tuple[object, ...]] = []
    for layer, neurons in known.neurons.items():
        weights = output_weights(model, layer)
        random = torch.randn(weights.shape, generator=generator).to(weights.device)
        mean = neurons.mean(dim=2)  # over draws: [position attribute individual neuron]
        paths = {}
        for path in PATHS:
            if path == "attention" and layer == model.cfg.n_layers - 1:
                continue
            promoted = promoted_logits(model, layer, path)
            chance = _value_shares(_promoted(model, random, layer, path), first)
            paths[path] = promoted, list(zip(_value_shares(promoted, first), chance, strict=True))
        for position, path in READINGS:
            if path not in paths or position not in known.positions:
                continue
            promoted, shares = paths[path]
            activations = mean[known.positions.index(position)]
            agreements = [
                _agreement(activations[index], promoted, one, known.individuals, generator)
                for index, one in enumerate(first.values())
            ]
            measures = {"value_share": shares}
            for metric, pairs in zip(VALUE_METRICS[1:], zip(*agreements, strict=True), strict=True):
                ranked = [
                    pair
                    for pair, of in zip(pairs, first.values(), strict=True)
                    if _has_ranks(of, known.individuals)
                ]
                sides = zip(*(ranked or pairs), strict=True)
                value, control = (float(np.mean(column)) for column in sides)
                measures[metric] = [(value, control), *pairs]
            for metric, both in measures.items():
                for attribute, pair in zip(("all", *first), both, strict=True):
                    rows.append((layer, position, path, metric, attribute, *pair))
    columns = ["layer", "position", "path", "metric", "attribute", "value", "control"]
    return pd.DataFrame(rows, columns=columns)


def _value_shares(
    promoted: Float[Tensor, "neuron vocab"], first: Mapping[str, FirstTokens]
) -> list[float]:
    """The share of top tokens that are in a value of any attribute, then of each."""
    top = promoted.topk(min(_N_TOP_TOKENS, promoted.shape[1]), dim=-1).indices
    tokens = [one.in_values.to(top.device) for one in first.values()]
    return [float(torch.isin(top, some).double().mean()) for some in (torch.cat(tokens), *tokens)]


def _agreement(
    activations: Float[Tensor, "individual neuron"],
    promoted: Float[Tensor, "neuron vocab"],
    first: FirstTokens,
    individuals: Int64[Tensor, " individual"],
    generator: torch.Generator,
) -> tuple[tuple[float, float], tuple[float, float]]:
    """(value, control) of `agreement` and of `layer_agreement` for one attribute."""
    if not _has_ranks(first, individuals):
        undefined = float("nan"), float("nan")
        return undefined, undefined
    values = first.of_individual[individuals].to(promoted.device)
    if (values < 0).any():  # people without a value
        activations, values = activations[values >= 0], values[values >= 0]
    promoted = promoted[:, first.tokens.to(promoted.device)]
    n_top = max(1, round(_TOP_SHARE * len(values)))
    top = activations.topk(n_top, dim=0).indices.T  # [neuron top]
    neuron_ranks = _ranks(promoted)
    layer_ranks = _ranks((activations - activations.mean(dim=0)) @ promoted)

    # Neurons that are silent, or write nothing, say nothing of anybody.
    telling = (activations.amax(0) > activations.amin(0)) & (promoted.amax(1) > promoted.amin(1))
    if not telling.all():
        top, neuron_ranks = top[telling], neuron_ranks[telling]

    def mean_ranks(values: Tensor) -> tuple[float, float]:
        by_neuron = neuron_ranks.gather(1, values[top])
        by_person = layer_ranks.gather(1, values[:, None])
        return float(by_neuron.double().mean()), float(by_person.double().mean())

    shuffled = [
        mean_ranks(values[torch.randperm(len(values), generator=generator).to(values.device)])
        for _ in range(_N_SHUFFLES)
    ]
    agreement, layer_agreement = mean_ranks(values)
    controls = np.mean(shuffled, axis=0)
    return (agreement, float(controls[0])), (layer_agreement, float(controls[1]))


def _has_ranks(first: FirstTokens, individuals: Int64[Tensor, " individual"]) -> bool:
    """Whether there are values to rank, and two people to shuffle."""
    return len(first.tokens) > 1 and int((first.of_individual[individuals] >= 0).sum()) > 1


def _ranks(logits: Float[Tensor, "*more value"]) -> Float[Tensor, "*more value"]:
    """The rank of each value among all, from 0 for the least promoted to 1 for the most."""
    n = logits.shape[-1]
    places = torch.arange(n, device=logits.device, dtype=logits.dtype) / max(n - 1, 1)
    order = logits.argsort(dim=-1)
    return torch.empty_like(logits).scatter_(-1, order, places.expand_as(logits))
