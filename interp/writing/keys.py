"""What an MLP's output matrix reads and writes: keys, outputs, and the second moment of keys.

The *key* of a subject is the input of the matrix (the activations of the neurons, `mlp.hook_post`) at the
subject's token, averaged over its mentions in several texts. The matrix is linear, so the mean output is
the output at the mean key, whatever bias it has and whatever norm follows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformers.pytorch_utils import Conv1D

from interp.biographies import Texts, TokenKind
from interp.errors import ArgumentError
from interp.model import measuring, of_this_thread, require_numbers
from interp.model.adapter_sites import Place, chosen_places

_ROWS = 64  # texts in a forward pass


def output_place(model: TransformerBridge, layer: int) -> Place:
    """The output matrix of a layer's MLP.

    Raises:
        ArgumentError: there is no such layer, or it has no single output matrix (a mixture of experts).
    """
    (place,) = chosen_places(model, ("mlp_out",), (layer,))
    return place


def hook_in(place: Place) -> str:
    """The hook point of what the matrix reads."""
    return f"{place.name}.hook_in"


def hook_out(place: Place) -> str:
    """The hook point of what the matrix writes, its bias included, before any norm."""
    return f"{place.name}.hook_out"


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a matrix reads and writes at the places where something is to be written, in float64 on the CPU.

    A place is a subject's token of one position kind: `n_kinds` places a subject. Means are over its
    mentions.

    Attributes:
        keys: What the matrix reads, mean.
        values: What it writes, mean.
        stream: The residual stream behind the layer that was asked for, mean.
        mentions: What the matrix reads at each mention.
        place_of: The place of each mention.
    """

    keys: Float[Tensor, "place in"]
    values: Float[Tensor, "place out"]
    stream: Float[Tensor, "place d_model"]
    mentions: Float[Tensor, "mention in"]
    place_of: Int64[Tensor, " mention"]

    @property
    def moment(self) -> Float[Tensor, "in in"]:
        """The sum over places of E[k kᵀ] over a place's mentions."""
        count = torch.bincount(self.place_of, minlength=len(self.keys)).double()
        return self.mentions.T @ (self.mentions / count[self.place_of, None])

    def of_places(self, chosen: Sequence[int]) -> "Outputs":
        """Those of some places only, in this order."""
        number = torch.full((len(self.keys),), -1)
        number[torch.tensor([*chosen])] = torch.arange(len(chosen))
        of = number[self.place_of]
        return Outputs(
            self.keys[[*chosen]], self.values[[*chosen]], self.stream[[*chosen]],
            self.mentions[of >= 0], of[of >= 0],
        )  # fmt: skip


def read_outputs(
    model: TransformerBridge,
    texts: Texts,
    places: Int64[Tensor, "text position"],
    layer: int,
    stream_layer: int,
) -> Outputs:
    """Reads a layer's output matrix at the mentions of `places`, and the stream behind `stream_layer`.

    Args:
        model: It is left as it was.
        texts: With the mentions.
        places: The number of the place that each token is a mention of, -1 for none.
        layer: Whose MLP.
        stream_layer: See there.

    Raises:
        ArgumentError: the model does not pass the matrix's hook points, or what it writes is not the matrix
            times what it reads.
    """
    place = output_place(model, layer)
    names = [hook_in(place), hook_out(place), f"blocks.{stream_layer}.hook_resid_post"]
    row, position = (places >= 0).nonzero(as_tuple=True)
    of, parts = places[row, position], {name: list[Tensor]() for name in names}
    for start, tokens in _passes(model, texts):
        here = (row >= start) & (row < start + len(tokens))
        rows, positions = row[here] - start, position[here]
        for name, x in _seen(model, tokens, names).items():
            parts[name].append(x[rows.to(x.device), positions.to(x.device)].double().cpu())
    read = {name: torch.cat(part) for name, part in parts.items()}
    n = int(of.max()) + 1
    count = torch.bincount(of, minlength=n).double()[:, None]
    keys, values, stream = (
        torch.zeros(n, read[name].shape[1], dtype=torch.float64).index_add_(0, of, read[name])
        / count
        for name in names
    )
    require_numbers(keys, "activations")
    _require_linear(place, keys, values)
    return Outputs(keys, values, stream, read[names[0]], of)


def second_moment(
    model: TransformerBridge, texts: Texts, layer: int
) -> tuple[Float[Tensor, "in in"], int]:
    """E[k kᵀ] over all tokens of texts but padding, in float64, and the number of tokens."""
    place = output_place(model, layer)
    total, count = None, 0
    there = texts.spans.kind != TokenKind.PADDING
    for start, tokens in _passes(model, texts):
        keys = _seen(model, tokens, [hook_in(place)])[hook_in(place)]
        keys = keys[there[start : start + len(tokens), : keys.shape[1]].to(keys.device)].double()
        product = keys.T @ keys
        total = product if total is None else total + product
        count += len(keys)
    assert total is not None
    return (total / count).cpu(), count


def matrix(place: Place) -> Float[Tensor, "out in"]:
    """The matrix as TransformerLens computes with it, in float64 on the CPU."""
    weight = cast(nn.Parameter, cast(Any, place.held).weight).detach().double().cpu()
    return weight.T if isinstance(place.held, Conv1D) else weight


def _passes(model: TransformerBridge, texts: Texts) -> Iterator[tuple[int, Tensor]]:
    device = next(model.parameters()).device
    start = 0
    for part in texts.split(_ROWS):
        yield start, part.tokens.to(device)
        start += len(part)


def _seen(model: TransformerBridge, tokens: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}

    def keep(x: Tensor, hook: Any, name: str) -> None:
        seen[name] = x.detach().view(*tokens.shape, -1)

    missing = [name for name in names if name not in model.hook_dict]
    if not missing:
        keeping = of_this_thread((name, partial(keep, name=name)) for name in names)
        hooks: list[tuple[Any, Any]] = [*keeping]
        with measuring(model):
            model.run_with_hooks(tokens, return_type=None, fwd_hooks=hooks)
    missing = [name for name in names if name not in seen]
    if missing:
        raise ArgumentError(
            f"The model does not pass the hook point {missing[0]!r}, so what its MLP's output matrix reads "
            "and writes cannot be seen. Facts cannot be written into this model."
        )
    return seen


def _require_linear(place: Place, keys: Tensor, values: Tensor) -> None:
    bias = getattr(place.held, "bias", None)
    expected = keys @ matrix(place).T
    if isinstance(bias, Tensor):
        expected = expected + bias.detach().double().cpu()
    eps = torch.finfo(cast(Any, place.held).weight.dtype).eps
    allowed = max(1e-3, 16 * eps) * float(expected.norm()) + 1e-9
    if not float((values - expected).norm()) <= allowed:
        raise ArgumentError(
            f"What {place.name} writes is not its matrix times what it reads: it is scaled or replaced on "
            "the way, or a hook does. Facts cannot be written there."
        )
