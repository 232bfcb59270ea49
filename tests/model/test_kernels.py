"""The loss as a card computes it, on the CPU: value and gradients against PyTorch's cross-entropy."""

import pytest
import torch
import torch.nn.functional as F

from interp.model import kernels


@pytest.mark.parametrize("loss", ["card", "chunked"])
@pytest.mark.parametrize("n_counted", [0, 1, 2570])
def test_unembedding_loss(loss: str, n_counted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """More positions than a chunk holds, of which some do not count."""
    monkeypatch.setattr(kernels, "_LARGE_CHUNK", 1200 * 50)
    torch.manual_seed(0)
    x = torch.randn(3000, 8, requires_grad=True)
    weight, bias = torch.randn(50, 8, requires_grad=True), torch.randn(50)
    target, counts = torch.randint(50, (3000,)), torch.zeros(3000, dtype=torch.bool)
    counts[torch.randperm(3000)[:n_counted]] = True
    if loss == "card":
        found = kernels._CardCrossEntropy.apply(x, weight, bias, target, counts.float())
    else:
        found = kernels.unembedding_loss(x, weight, bias, target, counts)
    mine = torch.autograd.grad(found, [x, weight])
    logits = F.linear(x, weight, bias)[counts]
    expected = F.cross_entropy(logits, target[counts], reduction="sum") / max(1, n_counted)
    theirs = torch.autograd.grad(expected, [x, weight])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(mine, theirs)
