"""One pass over texts that keeps what the memory measures read: residual streams and neurons.

Everything is read at three positions of the sentence that tells an attribute. Its value comes after
all of them, so that no biography gives away the value that is looked for. (Values of earlier
sentences are in context, and tell people apart as names do; measures have controls for that.)
"""

from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int64, Integer
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_protocol import TransformerLensModel

from interp.biographies import NAME_PARTS, Batch, Corpus, TokenKind, Wordings
from interp.errors import ArgumentError
from interp.memory.facts import FactTexts
from interp.model import final_residual, has_fused_forward, measuring, of_this_thread
from interp.model.layout import hook_fault, missing_reason, require_wrapped
from interp.model.patterns import require_hooks, require_passed
from interp.torch_state import default_state

POSITIONS = ("middle name", "last name", "predicts value")
"""Where things are read, for each attribute in the sentence that tells it: at the last token of the
middle name, after which people's last name has to be predicted; at the last token of the name; and at
the position that predicts the first token of the value, the one before it."""
Site = tuple[str, int]
"""A place in the residual stream: `resid_pre`, `resid_mid` or `resid_post`, and the layer."""


@dataclass(frozen=True)
class CachedActivations:
    """What a model computes at the positions of each attribute's (or relation's) sentence.

    Attributes:
        individuals: Who was read about.
        templates: The template of each sentence.
        residual: The residual stream at each site, in the order of `residual_sites`. In single
            precision, whatever the model computes in: sums over people and draws are made of it.
        neurons: The activations of each layer's neurons (`mlp.hook_post`).
        positions: What the first axis counts.

    They are NaN where somebody has no value, and nothing tells one.
    """

    individuals: Int64[Tensor, " individual"]
    templates: Int64[Tensor, "draw individual attribute"]
    residual: dict[Site, Float[Tensor, "position attribute draw individual d_model"]]
    neurons: dict[int, Float[Tensor, "position attribute draw individual neuron"]]
    positions: tuple[str, ...] = POSITIONS


def residual_sites(model: TransformerLensModel) -> list[Site]:
    """The places of a model's residual stream, from the embedding to the last layer's output.

    `resid_pre` is listed for layer 0 only: later on it is `resid_post` of the layer before. A model
    whose attention and MLP read the same stream side by side has no `resid_mid`.
    """
    sites: list[Site] = [("resid_pre", 0)]
    for layer in range(model.cfg.n_layers):
        sites += [("resid_mid", layer), ("resid_post", layer)]
    points = getattr(model, "hook_dict", None)
    if points is None:
        return sites
    hooks = {site: _residual_hook(site) for site in sites}
    return [s for s, name in hooks.items() if name in points and not hook_fault(model, name)]


def neuron_hook(layer: int) -> str:
    """The name of a layer's hook point of neuron activations."""
    return f"blocks.{layer}.mlp.hook_post"


def draw_batches(
    corpus: Corpus,
    individuals: Integer[np.ndarray, " individual"] | slice,
    wordings: Wordings,
    draws: Sequence[int],
) -> list[Batch]:
    """Biographies of the same people, at least one, in several draws of sentences, at least one."""
    chosen = corpus.population.chosen(individuals)
    if not isinstance(draws, Sequence) or not len(draws):
        raise ArgumentError(
            f"draws={draws!r}: there is nothing to read. Name at least one draw of sentences, such as [0]."
        )
    return [corpus.biographies(chosen, wordings, draw) for draw in draws]


@default_state()
def cache_activations(
    model: TransformerLensModel,
    batches: Sequence[Batch] | Sequence[FactTexts],
    sites: Sequence[Site] | None = None,
    layers: Sequence[int] | None = None,
    batch_size: int = 64,
) -> CachedActivations:
    """Reads a model on texts about the same people, one batch for each draw of sentences.

    Memory grows with people x draws x 18 x the width of everything that is kept, in 4 bytes each: for 512
    people and one draw of a 2-layer model of d_model 128 and d_mlp 512, 24 MB of residual streams and 38
    MB of neurons.

    Args:
        model: Any TransformerLens model; it is left as it was.
        batches: For each draw, one biography of each person, in the same order (`draw_batches`; not
            read at middle names where somebody has none); or the texts of one draw each, read at the last
            token of the name, at the one before it where all names have one between their first and last,
            and where the value is predicted.
        sites: Places of the residual stream to keep; all by default.
        layers: Layers whose neurons to keep; all by default.
        batch_size: Texts per forward pass.

    Raises:
        ArgumentError: batches about different people, or a hook point is missing.
    """
    require_wrapped(model)
    people = [b.subjects if isinstance(b, FactTexts) else b.individuals for b in batches]
    if not people or any(not torch.equal(one, people[0]) for one in people):
        raise ArgumentError(
            "Activations are read of at least one batch, and all of them are about the same people in "
            "the same order. Make batches of biographies with `draw_batches`."
        )
    n_people, n_relations = batches[0].templates.shape
    if any(b.templates.shape != (n_people, n_relations) for b in batches):
        raise ArgumentError("All batches have to tell the same relations of the same people.")
    chosen_sites = residual_sites(model) if sites is None else list(sites)
    chosen_layers = range(model.cfg.n_layers) if layers is None else layers
    keys: dict[str, Site | int] = {_residual_hook(site): site for site in chosen_sites}
    keys |= {neuron_hook(layer): layer for layer in chosen_layers}
    points = getattr(model, "hook_dict", keys)
    missing = [name for name in keys if name not in points and not missing_reason(model, name)]
    if missing:
        raise ArgumentError(
            f"The model has no hook point {missing[0]!r}; it has {model.cfg.n_layers} layers. "
            "`residual_sites(model)` lists the places that can be read."
        )
    require_hooks(model, list(keys))
    short = not all(map(_have_middles, batches))
    positions = POSITIONS[1:] if short else POSITIONS
    shape = (len(positions), n_relations, len(batches), n_people)
    device = next(model.parameters()).device  # type: ignore[attr-defined]
    kept: dict[str, Tensor] = {}
    with measuring(model):
        for draw, batch in enumerate(cast(Sequence[Batch | FactTexts], batches)):
            for tokens, row, position, (relation, individual) in _parts(batch, batch_size, device):

                def keep(
                    name: str, x: Tensor, place: Any = (slice(None), relation, draw, individual)
                ) -> None:
                    if name not in kept:
                        kept[name] = x.new_empty(*shape, x.shape[-1], dtype=torch.float32)
                    kept[name][place] = x.permute(1, 2, 0, 3).float()

                _read(model, tokens, row, position[:, -len(positions) :], list(keys), keep)
    require_passed(model, [name for name in keys if name not in kept])
    if isinstance(batches[0], Batch) and not batches[0].has_value.all():
        attribute, person = (~batches[0].has_value.T).nonzero(as_tuple=True)
        for x in kept.values():
            x[:, attribute, :, person] = float("nan")
    return CachedActivations(
        individuals=people[0],
        templates=torch.stack([batch.templates for batch in batches]),
        residual={key: kept[name] for name, key in keys.items() if isinstance(key, tuple)},
        neurons={key: kept[name] for name, key in keys.items() if isinstance(key, int)},
        positions=positions,
    )


def require_relations(activations: CachedActivations, relations: Sized) -> None:
    """Checks that activations were read of as many relations as there are labels for."""
    n = activations.templates.shape[2]
    if n != len(relations):
        raise ArgumentError(
            f"The activations were read where {n} relations are told, but there are labels for "
            f"{len(relations)}; give the facts that the texts tell, in the same order."
        )


def _have_middles(facts: Batch | FactTexts) -> bool:
    """Whether every name has a middle: of texts, a token between its first and its last."""
    if isinstance(facts, Batch):
        return bool(((middle_name_end(facts) >= 0) | ~facts.has_value).all())
    spans, place = facts.texts.spans, (facts.row, facts.sentence)
    return bool((spans.name_end[place] - spans.name_start[place] >= 2).all())


def _parts(
    batch: Batch | FactTexts, batch_size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor, tuple[Any, Any]]]:
    """Some texts at a time: tokens, what is read of them, and where it is kept.

    Read are rows [read] at positions [read position attribute]; they are kept by (attribute, individual),
    two indices of [attribute read].
    """
    if isinstance(batch, Batch):
        for number, part in enumerate(batch.split(batch_size)):
            part = part.to(device)
            ends = [middle_name_end(part), part.name_end, part.value_start - 1]
            position = torch.stack(ends, 1).clamp(min=0)  # -1 where there is nothing to read
            people = slice(number * batch_size, number * batch_size + len(part))
            yield (
                part.tokens,
                torch.arange(len(part), device=device),
                position,
                (slice(None), people),
            )
        return
    spans, place = batch.texts.spans, (batch.row, batch.sentence)
    end, value = spans.name_end[place], spans.value_start[place]
    position = torch.stack([end - 1, end, value - 1], dim=-1).to(device)
    for start in range(0, len(batch.texts), batch_size):
        here = (batch.row >= start) & (batch.row < start + batch_size)
        subject, relation = here.nonzero(as_tuple=True)
        if len(subject):
            row = batch.row[subject, relation].to(device) - start
            tokens = batch.texts[start : start + batch_size].to(device).tokens
            read = position[subject, relation][..., None]
            yield tokens, row, read, (relation[None], subject[None])


def middle_name_end(batch: Batch) -> Int64[Tensor, "batch attribute"]:
    """Position of the middle name's last token in each attribute's sentence."""
    is_middle = (batch.kind == TokenKind.NAME) & (batch.part == NAME_PARTS.index("middle"))
    places = torch.arange(batch.tokens.shape[1], device=batch.tokens.device).expand_as(batch.tokens)
    n_attributes = batch.name_start.shape[1]
    # A column more takes the tokens that are not meant.
    column = batch.attribute.long().where(is_middle, n_attributes)
    found = places.new_full((len(batch), n_attributes + 1), -1)
    return found.scatter_reduce(1, column, places, "amax")[:, :-1]


def _residual_hook(site: Site) -> str:
    return f"blocks.{site[1]}.hook_{site[0]}"


class _LastRead(Exception):  # noqa: N818 - not an error: it ends a forward pass early
    pass


def _read(
    model: TransformerLensModel,
    tokens: Int64[Tensor, "text token"],
    row: Int64[Tensor, " row"],
    position: Int64[Tensor, "row position attribute"],
    names: list[str],
    keep: Callable[[str, Tensor], None],
) -> None:
    """Hands over what hook points see at some positions of rows, [row position attribute width].

    A model of ours computes its last MLP, which nothing else depends on, at those positions only: a
    third of a 2-layer model's work is saved.
    """
    row = row[:, None, None]

    def read(x: Tensor, hook: Any, name: str) -> None:
        keep(name, x[row, position])

    hooks = of_this_thread((name, partial(read, name=name)) for name in names)
    if not has_fused_forward(model):
        model.run_with_hooks(tokens, return_type=None, fwd_hooks=hooks)
        return
    bridge = cast(TransformerBridge, model)
    last = bridge.cfg.n_layers - 1
    middle, end = _residual_hook(("resid_mid", last)), _residual_hook(("resid_post", last))
    neurons = neuron_hook(last)
    before_last_mlp: list[Tensor] = []

    def stop(x: Tensor, hook: Any) -> None:
        before_last_mlp.append(x[row, position])
        raise _LastRead

    early = [hook for hook in hooks if hook[0] not in (neurons, end)]
    early += of_this_thread([(middle, stop)])
    with suppress(_LastRead), bridge.hooks(fwd_hooks=early):
        final_residual(bridge, tokens, bridge.W_E.dtype)

    def read_neurons(x: Tensor, hook: Any) -> None:
        keep(neurons, x.unflatten(1, position.shape[1:]))

    block, stream = bridge.blocks[last], before_last_mlp[0]
    asked = [(neurons, read_neurons)] if neurons in names else []
    with bridge.hooks(fwd_hooks=of_this_thread(asked)):
        written = block.mlp(block.ln2(stream.flatten(1, 2))).view_as(stream)
    if end in names:
        keep(end, stream + written)
