"""Who contributes to a prediction, as products with one direction for each place; the logit lens.

Both equal TransformerLens' `direct_logit_attribution` and `logit_lens` where a value is predicted. These
are of one fact, on the weights as they are, in double precision, and also at its name tokens.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from interp.errors import ArgumentError
from interp.memory.fact_prompt import FactPrompt, worded
from interp.memory.located_fact import GROUPS, VALUE
from interp.model import pattern_hook, require_own_weights
from interp.model.stream import (
    Part,
    bias_of,
    final_norm,
    norm_at,
    norm_scale,
    per_head,
    post_norm,
    post_norm_hook,
    require_uncapped,
    unembedding,
    weights_of,
)

_N_PROMOTED = 6
Promoted = Callable[[int, str, list[int]], Float[Tensor, "neuron vocab"]]
"""From a layer, a path and some of its neurons to what they promote (`promoted_logits`)."""


class Contributions:
    """Contributions to the logit difference, in double precision, so that sums come out.

    A *direction* says how much the logit difference grows with each coordinate of what is written
    into the residual stream at a position. Norms after attention or an MLP (Gemma 3, OLMo 2) are taken
    as the final norm is: as linear, with the scale that they had at the position in this pass.
    """

    def __init__(
        self, model: TransformerBridge, cache: Any, text: FactPrompt, rivals: Sequence[int]
    ) -> None:
        require_own_weights(model, adapted=True)
        scale = require_uncapped(model)
        self._model, self._cache, self._text = model, cache, text
        self._n_layers, self._n_heads = model.cfg.n_layers, model.cfg.n_heads
        self._at = text.places
        weights, bias = unembedding(model), model.b_U.double()
        wanted = weights[:, text.target].double() - weights[:, list(rivals)].double().mean(1)
        final_scale = norm_scale(cache, "ln_final.hook_scale", self._at[VALUE]).to(wanted.device)
        self._final, constant = final_norm(model).before(wanted * scale, final_scale)
        constant += float(bias[text.target] - bias[list(rivals)].mean()) * scale
        self._constant = {VALUE: constant}
        self._outputs = [weights_of(model, i, "W_O").double() for i in range(self._n_layers)]
        # Per layer, what a unit of each head's mixed values adds: [head d_head].
        self._of_values = [
            outputs @ self._before(i, "attn", VALUE, self._final)[0]
            for i, outputs in enumerate(self._outputs)
        ]
        self._read_by = {at: self._readers(at) for at in self._at if at != VALUE}

    def _readers(self, at: str) -> list[Float[Tensor, " d_model"]]:
        """Layer by layer, the direction that its heads read at a name token."""
        model, cache, position = self._model, self._cache, self._at[at]
        read_by, constant = [], 0.0
        for layer in range(self._n_layers):
            paid = cache[pattern_hook(layer)][0, :, self._at[VALUE], position].double()
            of_values = paid[:, None] * self._of_values[layer]
            weights = per_head(weights_of(model, layer, "W_V").double(), self._n_heads)
            read = (weights @ of_values[..., None]).sum(0)[:, 0]
            norm, shift = norm_at(model.blocks[layer], "ln1"), 0.0
            if norm is not None:
                scale = norm_scale(cache, f"blocks.{layer}.ln1.hook_scale", position)
                read, shift = norm.before(read, scale.to(read.device))
            bias = bias_of(model, layer, "b_V")
            if bias is not None:
                bias = per_head(bias.double().view(-1, of_values.shape[1]), self._n_heads)
                shift += float((bias * of_values).sum())
            constant += shift
            read_by.append(read)
        self._constant[at] = constant
        return read_by

    def direction(self, at: str, layer: int) -> Float[Tensor, " d_model"]:
        """Of what a part of this layer writes; layer -1 are the embeddings."""
        if at == VALUE:
            return self._final
        later = self._read_by[at][layer + 1 :]
        return torch.stack(later).sum(0) if later else torch.zeros_like(self._final)

    def _before(
        self, layer: int, part: Part, at: str, direction: Float[Tensor, " d_model"]
    ) -> tuple[Float[Tensor, " d_model"], float]:
        """A direction before the norm after a part, with its scale there; what its bias adds."""
        norm = post_norm(self._model, layer, part)
        if norm is None:
            return direction, 0.0
        return norm.before(direction, self._cache[post_norm_hook(layer, part)][0, self._at[at]])

    def components(self) -> pd.DataFrame:
        """The table `LocatedFact.components`."""
        rows: list[tuple[str, str, int | None, float]] = []
        for at, position in self._at.items():
            for hook, title in (("hook_embed", "embedding"), ("hook_pos_embed", "position")):
                if hook in self._cache:
                    vector = self._cache[hook][0, position]
                    rows.append((at, title, None, _dot(vector, self.direction(at, -1))))
            constant = self._constant[at]
            for layer in range(self._n_layers):
                way = self.direction(at, layer)
                mlp = self._cache[f"blocks.{layer}.hook_mlp_out"][0, position]
                before, shift = self._before(layer, "attn", at, way)
                bias = bias_of(self._model, layer, "b_O")
                constant += shift
                rows += [
                    (at, "heads", layer, float(self._heads(at, layer).sum())),
                    (at, "attention bias", layer, 0.0 if bias is None else _dot(bias, before)),
                    (at, "mlp", layer, _dot(mlp, way)),
                ]
            rows.append((at, "bias", None, constant))
        table = pd.DataFrame(rows, columns=["at", "component", "layer", "contribution"])
        return table.astype({"layer": "Int64"})

    def _heads(self, at: str, layer: int) -> Float[Tensor, " head"]:
        z: Tensor = self._cache[f"blocks.{layer}.attn.hook_z"][0, self._at[at]].double()
        before, _ = self._before(layer, "attn", at, self.direction(at, layer))
        ways = self._outputs[layer] @ before  # [head d_head]
        return (z.view_as(ways) * ways).sum(-1)

    def attention(self) -> pd.DataFrame:
        """The table `LocatedFact.attention`."""
        rows = []
        for at, query in self._at.items():
            for layer in range(self._n_layers):
                pattern = self._cache[pattern_hook(layer)][0, :, query, : query + 1]
                carried = torch.full_like(pattern, torch.nan).double()
                if at == VALUE:
                    carried = self._carried(layer)
                shares, moved = pattern.tolist(), carried.tolist()
                for head in range(self._n_heads):
                    both = zip(shares[head], moved[head], strict=True)
                    rows += [(at, layer, head, i, *pair) for i, pair in enumerate(both)]
        columns = ["at", "layer", "head", "position", "attention", "contribution"]
        return pd.DataFrame(rows, columns=columns)

    def _carried(self, layer: int) -> Float[Tensor, "head position"]:
        """What each head carries over to where the value is predicted, from each position."""
        of_values, query = self._of_values[layer], self._at[VALUE]
        values = self._cache[f"blocks.{layer}.attn.hook_v"][0].double()
        values = values.view(len(values), -1, of_values.shape[1])
        values = per_head(values, self._n_heads, dim=1)
        paid: Tensor = self._cache[pattern_hook(layer)][0, :, query, : query + 1].double()
        carried: Tensor = paid * (values * of_values).sum(-1).T
        return carried

    def from_name_tokens(self) -> dict[str, float]:
        """What all heads carry over from each name token."""
        layers = [self._carried(layer).sum(0) for layer in range(self._n_layers)]
        carried = torch.stack(layers).sum(0)
        return {at: float(carried[i]) for at, i in self._at.items() if at != VALUE}

    def heads(self) -> pd.DataFrame:
        """The table `LocatedFact.heads`."""
        groups = self._text.groups()
        member = torch.tensor([[g == group for group in GROUPS] for g in groups]).double()
        member = member.to(self._final.device)
        rows = []
        for at, query in self._at.items():
            for layer in range(self._n_layers):
                shares = self._cache[pattern_hook(layer)][0, :, query].double() @ member
                written = self._heads(at, layer).tolist()
                for head in range(self._n_heads):
                    rows.append((at, layer, head, *shares[head].tolist(), written[head]))
        return pd.DataFrame(rows, columns=["at", "layer", "head", *GROUPS, "contribution"])

    def neurons(self, top: int, promoted: Promoted) -> pd.DataFrame:
        """The table `LocatedFact.neurons`: the strongest `top` of each layer."""
        rows = []
        for at, position in self._at.items():
            for layer in range(self._n_layers - (at != VALUE)):  # nobody reads the last layer there
                active = self._cache[f"blocks.{layer}.mlp.hook_post"][0, position].double()
                before, _ = self._before(layer, "mlp", at, self.direction(at, layer))
                share = active * (weights_of(self._model, layer, "W_out").double() @ before)
                strongest = share.abs().topk(min(top, len(share))).indices.tolist()
                logits = promoted(layer, "direct" if at == VALUE else "attention", strongest)
                for neuron, row in zip(strongest, logits, strict=True):
                    best = row.topk(min(_N_PROMOTED, len(row))).indices.tolist()
                    promotes = tuple(worded(self._text.word, best)), rank(row, self._text.target)
                    numbers = float(active[neuron]), float(share[neuron])
                    rows.append((at, layer, neuron, *numbers, *promotes))
        columns = ["at", "layer", "neuron", "activation", "contribution", "promotes", "value_rank"]
        return pd.DataFrame(rows, columns=columns)


def require_whole(components: pd.DataFrame, difference: float, dtype: torch.dtype) -> None:
    """Checks that direct contributions add up to the logit difference.

    They do not where a model norms or scales what its parts write in a way that is not known here.
    """
    direct = components.loc[components["at"] == VALUE, "contribution"]
    allowed = 64 * torch.finfo(dtype).eps * float(direct.abs().sum()) + 1e-6
    if not abs(float(direct.sum()) - difference) <= allowed:
        raise ArgumentError(
            f"What the parts of this model write adds up to {float(direct.sum()):.4g}, but its logit "
            f"difference is {difference:.4g}: it norms, scales or caps on the way, so contributions cannot "
            "be told. Use knockouts, patches and swaps, which hold for any model."
        )


def logit_lens(
    model: TransformerBridge, cache: Any, text: FactPrompt, rivals: Sequence[int]
) -> pd.DataFrame:
    """What the residual stream would predict if no later block followed."""
    values, scale = [text.target, *rivals], require_uncapped(model)
    rows = []
    for at, position in text.places.items():
        for layer in range(model.cfg.n_layers):
            for site in ("resid_pre", "resid_mid", "resid_post"):
                name = f"blocks.{layer}.hook_{site}"
                if name not in cache:
                    continue  # attention and MLP are parallel
                stream = cache[name][:, position : position + 1]
                logits = model.unembed(model.ln_final(stream))[0, 0].double() * scale
                probability = float(logits.softmax(-1)[text.target])
                ranks = rank(logits, text.target), rank(logits[values], 0)
                difference = float(logits[text.target] - logits[list(rivals)].mean())
                rows.append((at, layer, site, probability, *ranks, difference))
    columns = ["at", "layer", "site", "probability", "rank", "rank_among_values"]
    return pd.DataFrame(rows, columns=[*columns, "logit_difference"])


def rank(scores: Tensor, index: int) -> int:
    """1 for the highest; tokens that tie with it come after."""
    return int((scores > scores[index]).sum()) + 1


def _dot(vector: Tensor, direction: Tensor) -> float:
    return float(vector.double() @ direction)
