"""Heads, neurons and embeddings put together as the state of a hooked transformer."""

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from interp.compiled.attention import Head
from interp.compiled.facts import Knowledge
from interp.compiled.memory import person_facts
from interp.compiled.neurons import Neurons
from interp.compiled.plan import LONGER, Plan
from interp.compiled.wordings import A_NAME, END

_APART = 20.0
"""By how much the logit of a token that is recalled exceeds all others, in nats."""


def state_dict(
    plan: Plan, heads: Sequence[Head], mlps: Sequence[Neurons], d_mlp: int
) -> dict[str, Tensor]:
    """The weights by name, as `hooked_transformer` has them, in single precision."""
    d_model = plan.n_heads * plan.d_head
    state = {
        "embed.weight": embedding(plan, d_model),
        "pos_embed.weight": np.eye(plan.n_ctx, d_model, plan.spaces["position"].start),
        "unembed.weight": unembedding(plan, d_model),
        "unembed.bias": np.zeros(len(plan.facts.token_text)),
    }
    for layer, neurons in enumerate(mlps):
        own = [head for head in heads if head.layer == layer]
        attn, mlp = f"blocks.{layer}.attn", f"blocks.{layer}.mlp"
        for side in "QKV":
            stacked = np.stack([getattr(head, f"W_{side}") for head in own])
            state[f"{attn}.{side.lower()}.weight"] = rearrange(stacked, "h m d -> (h d) m")
            state[f"{attn}.{side.lower()}.bias"] = np.zeros(d_model)
        state[f"{attn}.q.bias"] = np.concatenate([head.b_Q for head in own])
        out = np.stack([head.W_O for head in own])
        state[f"{attn}.o.weight"] = rearrange(out, "h d m -> m (h d)")
        state[f"{attn}.o.bias"] = np.zeros(d_model)
        reads, bias, writes = neurons.matrices(d_mlp)
        state[f"{mlp}.in.weight"], state[f"{mlp}.in.bias"] = reads, bias
        state[f"{mlp}.out.weight"], state[f"{mlp}.out.bias"] = writes.T, np.zeros(d_model)
    return {
        name: torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32))
        for name, value in state.items()
    }


def embedding(plan: Plan, d_model: int) -> Float[np.ndarray, "vocab d_model"]:
    """What each token says of itself; in the geometric variant a person's token says all facts."""
    facts, spaces = plan.facts, plan.spaces
    found = np.zeros((len(facts.token_text), d_model))
    found[facts.bos, spaces["beginning"].dims] = 1.0
    names, words, parts = spaces["name"], spaces["word"], spaces["part"]
    found[list(facts.name_tokens), names.dims] = names.codes
    tokens_of = {END: sorted(facts.ends), A_NAME: list(facts.name_tokens)}
    for place, feature in enumerate(words.labels):
        found[tokens_of.get(feature, [feature]), words.start + place] = 1.0
    for (length, back), place in parts.place.items():
        found[sorted(_tokens_at(facts, length, back)), parts.start + place] = 1.0
    if plan.settings.variant == "geometric":
        people = [name[0] for name in facts.names[: facts.known]]
        found[people] += person_facts(plan, d_model)
    return found


def _tokens_at(facts: Knowledge, length: int | str, back: int) -> frozenset[int]:
    """The tokens that stand at a place of names; of `LONGER`, before the last `back` of longer names."""
    if length != LONGER:
        return facts.name_places[int(length), back]
    places = facts.name_places.items()
    return frozenset().union(*(some for (n, at), some in places if n > back and at == back))


def unembedding(plan: Plan, d_model: int) -> Float[np.ndarray, "vocab d_model"]:
    """The directions of the output space, long enough that the softmax is certain."""
    space = plan.spaces["output"]
    found = np.zeros((len(plan.facts.token_text), d_model))
    found[list(space.labels), space.dims] = _APART / (1 - space.overlap) * space.codes
    return found
