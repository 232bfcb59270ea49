"""Fine-tuning on the same facts: what editing in closed form is held against."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import TokenKind
from interp.errors import ArgumentError, whole_number
from interp.model import alone_with, logits_at, require_normal_weights
from interp.model.adapters import adapter_of
from interp.writing.costs import Arithmetic
from interp.writing.rewrites import Rewrites


@dataclass(frozen=True)
class Tuned:
    """What fine-tuning came to.

    Attributes:
        n_steps: Updates.
        learned: Whether every new value was predicted in every text of a whole pass over them.
        costs: What it took.
    """

    n_steps: int
    learned: bool
    costs: Arithmetic


@contextmanager
def finetuned_on(
    model: TransformerBridge,
    rewrites: Rewrites,
    *,
    lr: float = 3e-4,
    batch_size: int = 32,
    most_steps: int = 400,
    keep: bool = False,
    replay: int = 0,
    seed: int = 0,
) -> Iterator[Tuned]:
    """While this lasts a model is fine-tuned on new facts; then it has the same bytes as before.

    AdamW at a constant rate on the texts that an edit is made of, until every new value is predicted in all
    of them. All weights are trained.

    Args:
        model: Without an adapter.
        rewrites: The new facts in texts.
        lr: The learning rate.
        batch_size: Texts of an update.
        most_steps: Updates at most.
        keep: The loss is also on the subject's other values in these texts.
        replay: So many texts of the background beside, with the loss on their values.
        seed: Of the order of texts.

    Raises:
        ArgumentError: the model has an adapter, or a number is none.
    """
    batch_size = whole_number(batch_size, "batch_size", 1)
    most_steps, replay = (
        whole_number(most_steps, "most_steps", 1),
        whole_number(replay, "replay", 0),
    )
    if adapter_of(model) is not None:
        raise ArgumentError("This model has an adapter on; take it off first: adapter.detach().")
    require_normal_weights(model)
    with alone_with(model):
        kept = [
            (weight, weight.detach().clone(), weight.requires_grad) for weight in model.parameters()
        ]
        training = [part for part in model.modules() if part.training]
        try:
            model.eval()
            with torch.enable_grad():
                tuned = _tune(model, rewrites, lr, batch_size, most_steps, keep, replay, seed)
            yield tuned
        finally:
            with torch.no_grad():
                for weight, copy, trainable in kept:
                    weight.copy_(copy)
                    weight.requires_grad_(trainable)
                    weight.grad = None
            for part in training:
                part.training = True


def _tune(
    model: TransformerBridge, rewrites: Rewrites, lr: float, batch_size: int, most_steps: int, keep: bool,
    replay: int, seed: int,
) -> Tuned:  # fmt: skip
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    weights = [weight.requires_grad_(True) for weight in model.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=lr, betas=(0.9, 0.95), weight_decay=0.0)
    told = (rewrites.wanted >= 0).any(dim=1).nonzero()[:, 0]
    tokens, background = rewrites.texts.tokens.to(device), rewrites.background.tokens.to(device)
    new, old = (rewrites.wanted >= 0).to(device), rewrites.kept.to(device)
    values = rewrites.background.spans.is_kind(TokenKind.VALUE).to(device)
    costs, step = Arithmetic(), 0
    while step < most_steps:
        wrong = 0
        for rows in told[torch.randperm(len(told), generator=generator)].split(batch_size):
            rows = rows.to(device)
            nats, right = _losses(model, tokens[rows], new[rows])
            if keep and bool(old[rows].any()):
                nats = torch.cat([nats, _losses(model, tokens[rows], old[rows])[0]])
            passed = tokens[rows].numel() * (1 + int(keep))
            if replay:
                others = torch.randint(len(background), (replay,), generator=generator).to(device)
                nats = torch.cat([nats, _losses(model, background[others], values[others])[0]])
                passed += background[others].numel()
            wrong += int((~right).sum())
            optimizer.zero_grad()
            nats.mean().backward()
            optimizer.step()
            step += 1
            costs = costs + Arithmetic(len(rows) + replay, passed, passed)
            if step == most_steps:
                break
        if not wrong:
            break
    return Tuned(step, not wrong, costs)


def _losses(model: TransformerBridge, tokens: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    row, place = which[:, 1:].nonzero(as_tuple=True)
    target = tokens[row, place + 1]
    logits = logits_at(model, tokens, row, place).float()
    return F.cross_entropy(logits, target, reduction="none"), logits.argmax(-1) == target
