"""Functions with gradients of their own: attention scores, softmax, and cross-entropy without the logits.

They save the passes over memory that autograd would spend, and keep nothing that can be made again.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_CHUNK = 1024
"""Positions whose logits are in memory at a time; the fastest of 512 ... all on a CPU."""
_BLOCK = 256
"""Positions whose softmax is computed at a time, in place; a quarter less time than by whole chunks."""
_LARGE_CHUNK = 2**28
"""On a card, how many logits are in memory at a time: 1 GiB of them in single precision."""


def scaled_scores(
    q: Float[Tensor, "n query d_head"],
    k: Float[Tensor, "n key d_head"],
    mask: Float[Tensor, "query key"],
    scale: float,
) -> Float[Tensor, "n query key"]:
    """Attention scores q kᵀ / scale + mask, in one pass."""
    scores: Tensor = _Scores.apply(q, k, mask, scale)
    return scores


def softmax(scores: Float[Tensor, "*rows key"]) -> Float[Tensor, "*rows key"]:
    """The softmax of scores, computed in single precision; nothing but the result is kept."""
    pattern: Tensor = _Softmax.apply(scores)
    return pattern


def unembedding_loss(
    x: Float[Tensor, "position d_model"],
    weight: Float[Tensor, "vocab d_model"],
    bias: Float[Tensor, " vocab"],
    target: Int[Tensor, " position"],
    counts: Bool[Tensor, " position"],
) -> Float[Tensor, ""]:
    """Mean cross-entropy of x Wᵀ + b over the positions that count, in nats; 0 if none does.

    Sums are in single precision. There is no gradient for the bias.
    """
    loss: Tensor
    if x.is_cuda:
        loss = _CardCrossEntropy.apply(x, weight, bias, target, counts.to(weight.dtype))
    else:
        rows = counts.nonzero()[:, 0]
        loss = _ChunkedCrossEntropy.apply(x[rows], weight, bias, target[rows])
    return loss


class _Scores(torch.autograd.Function):
    """Attention scores q kᵀ / scale + mask, in one pass."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(q, k)
        ctx.scale = scale
        return torch.baddbmm(mask, q, k.transpose(1, 2), alpha=1 / scale)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        q, k = ctx.saved_tensors
        grad_q = torch.bmm(grad, k).div_(ctx.scale)
        return grad_q, torch.bmm(grad.transpose(1, 2), q).div_(ctx.scale), None, None


class _Softmax(torch.autograd.Function):
    """The softmax of scores, in single precision, that keeps nothing but its result."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
        pattern = wide.softmax(-1).to(scores.dtype)
        ctx.save_for_backward(pattern)
        return pattern

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (pattern,) = ctx.saved_tensors
        return torch._softmax_backward_data(grad, pattern, -1, pattern.dtype)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of x Wᵀ + b; gradients are made in the forward pass, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> Tensor:
        low = weight.to(x.dtype)
        loss = torch.zeros((), device=x.device)
        grad_x, grad_weight = torch.empty_like(x), torch.zeros_like(weight)
        wide = weight.new_empty((_BLOCK, len(weight)), dtype=torch.float32)
        for start in range(0, len(x), _CHUNK):
            rows, goal = x[start : start + _CHUNK], target[start : start + _CHUNK, None]
            logits = torch.mm(rows, low.t())
            largest, probable, wanted = wide.new_empty((3, len(rows), 1))
            for first in range(0, len(rows), _BLOCK):  # a block stays in the cache from end to end
                part = slice(first, first + _BLOCK)
                block = logits[part]
                p = wide[: len(block)].copy_(block).add_(bias)
                torch.amax(p, 1, keepdim=True, out=largest[part])
                torch.gather(p, 1, goal[part], out=wanted[part])
                torch.softmax(p, -1, out=p)
                torch.amax(p, 1, keepdim=True, out=probable[part])
                p.scatter_add_(1, goal[part], p.new_full((1, 1), -1.0).expand(len(p), 1))
                block.copy_(p)  # from here on the gradient
            # Log-sum-exp is the largest logit minus the log of its probability: no underflow.
            loss += (largest - probable.log() - wanted).sum()
            torch.mm(logits, low, out=grad_x[start : start + _CHUNK])
            grad_weight += torch.mm(logits.t(), rows)
        ctx.save_for_backward(grad_x, grad_weight)
        count = max(1, len(x))
        ctx.count = count
        return loss / count

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_x, grad_weight = ctx.saved_tensors
        scale = grad / ctx.count
        return grad_x * scale.to(grad_x.dtype), grad_weight * scale, None, None


class _CardCrossEntropy(torch.autograd.Function):
    """`_ChunkedCrossEntropy` for a card: few, large kernels, and nothing that the host has to wait for.

    All positions are computed, and those count for which `counts` is 1. Every kernel is deterministic, which
    `scatter_add_` is not there.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, target: Tensor, counts: Tensor
    ) -> Tensor:
        low, n_vocab = weight.to(x.dtype), len(weight)
        loss = torch.zeros((), device=x.device)
        grad_x, grad_weight = torch.empty_like(x), torch.zeros_like(weight)
        names = torch.arange(n_vocab, device=x.device)
        size = max(_CHUNK, _LARGE_CHUNK // n_vocab)
        for start in range(0, len(x), size):
            rows, goal = x[start : start + size], target[start : start + size, None]
            count = counts[start : start + size, None]
            logits = torch.mm(rows, low.t())
            p = torch.add(logits, bias)  # in the bias' precision, in one pass
            largest, wanted = p.amax(1, keepdim=True), p.gather(1, goal)
            torch.softmax(p, -1, out=p)
            probable = p.amax(1, keepdim=True)
            loss += ((largest - probable.log() - wanted) * count).sum()
            p.sub_((names == goal).to(p.dtype))
            torch.mul(p, count, out=logits)  # from here on the gradient
            torch.mm(logits, low, out=grad_x[start : start + size])
            grad_weight += torch.mm(logits.t(), rows)
        total = counts.sum().clamp(min=1)
        ctx.save_for_backward(grad_x, grad_weight, total)
        return loss / total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_x, grad_weight, total = ctx.saved_tensors
        scale = grad / total
        return grad_x * scale.to(grad_x.dtype), grad_weight * scale, None, None, None
