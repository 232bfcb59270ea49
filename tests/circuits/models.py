"""What the tests of circuits share: tiny models, pairs, and a forward pass written out edge by edge."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from interp.biographies import Spans
from interp.interventions import Pairs

Edge = tuple[str, str]
"""Sender and receiver, as "embed", "0.1" (a head), "mlp 0"; "0.1 q", "mlp 0", "logits"."""


def some_pairs(d_vocab: int, n: int = 4, width: int = 9) -> Pairs:
    """Random prompts that differ everywhere and are read at different positions."""
    generator = torch.Generator().manual_seed(0)
    base, source = torch.randint(5, d_vocab, (2, n, width), generator=generator)
    spans = Spans.from_lists(width, sentences=[(1, width)], names=[(1, 4)])
    read = [width - 1 - i % 3 for i in range(n)]
    answers = list(range(5, 5 + n)), list(range(15, 15 + n))
    return Pairs.of_tokens(base, source, Spans.stack([spans] * n), read, *answers)


def gpt2(d_vocab: int) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2, n_head=2, n_embd=16, n_positions=32, vocab_size=d_vocab, initializer_range=0.3,
        architectures=["GPT2LMHeadModel"],
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape) * 0.1)
    return model


@torch.no_grad()
def parts_of(
    model: GPT2LMHeadModel,
    tokens: Tensor,
    source: dict[str, Tensor] | None = None,
    patched: frozenset[Edge] = frozenset(),
) -> tuple[dict[str, Tensor], Tensor]:
    """What every part of a GPT-2 writes, and its logits, where patched edges carry the source's.

    Every receiver's input is added up anew out of what senders wrote: no hook, no difference.
    """
    inner, config = model.transformer, model.config
    n, width = tokens.shape
    places = torch.arange(width)
    parts = {"embed": inner.wte(tokens) + inner.wpe(places)}
    constant = torch.zeros(config.n_embd)

    def read(receiver: str) -> Tensor:
        found = constant.expand(n, width, -1).clone()
        for sender, part in parts.items():
            found += source[sender] if source and (sender, receiver) in patched else part
        return found

    d_head = config.n_embd // config.n_head
    mask = torch.full((width, width), -torch.inf).triu(1)
    for layer, block in enumerate(inner.h):
        weights = block.attn.c_attn.weight.split(config.n_embd, dim=1)
        biases = block.attn.c_attn.bias.split(config.n_embd)
        written = {}
        for head in range(config.n_head):
            own = slice(head * d_head, (head + 1) * d_head)
            q, k, v = (
                block.ln_1(read(f"{layer}.{head} {which}")) @ weight[:, own] + bias[own]
                for which, weight, bias in zip("qkv", weights, biases, strict=True)
            )
            pattern = (q @ k.mT / d_head**0.5 + mask).softmax(-1)
            written[f"{layer}.{head}"] = pattern @ v @ block.attn.c_proj.weight[own]
        parts |= written
        constant = constant + block.attn.c_proj.bias
        parts[f"mlp {layer}"] = block.mlp(block.ln_2(read(f"mlp {layer}")))
    return parts, F.linear(inner.ln_f(read("logits")), model.lm_head.weight)


def difference(logits: Tensor, pairs: Pairs) -> Tensor:
    """Of each pair, the logit of the source's answer minus that of the base's."""
    rows = torch.arange(len(pairs))
    read = logits[rows, pairs.read]
    return read[rows, pairs.source_answer] - read[rows, pairs.base_answer]


def edge_name(row: dict[str, object]) -> Edge:
    """A row of a table of edges as the sender and receiver of `parts_of`."""

    def name(kind: object, layer: object, head: object) -> str:
        return {"head": f"{layer}.{head}", "mlp": f"mlp {layer}"}.get(str(kind), str(kind))

    sender = name(row["sender"], row["sender_layer"], row["sender_head"])
    receiver = name(row["receiver"], row["receiver_layer"], row["receiver_head"])
    by = row["receiver_input"]
    return sender, f"{receiver} {by}" if isinstance(by, str) else receiver
