"""Steps of training as CUDA graphs: the host starts a step at once, and not kernel by kernel.

At the sizes of this toolkit a step is hundreds of kernels of a few microseconds each, and a host needs
longer to start them than the card to run them. A graph holds all kernels of a step, for one shape of
batch. It runs the same kernels on the same numbers, so that a step's bytes are those of the step itself,
whether it is run by a graph or not.
"""

import warnings
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Counted = Bool[Tensor, "batch position"] | None
Step = Callable[[Int[Tensor, "batch position"], Counted], Float[Tensor, ""]]
"""A whole step, the update included, of a batch on the device; gives the loss, without a gradient."""

_FIRST = 3
"""Steps before the first graph: they make what outlives a step, such as the optimizer's moments."""
_MOST = 64
"""Graphs that are kept; each holds some megabytes."""


class GraphedSteps:
    """Runs a step, for each shape of batch by a graph once it has been seen.

    Args:
        step: What is run. It may not wait for the card, nor change on the host anything that it reads.
        device: The card.
    """

    def __init__(self, step: Step, device: torch.device) -> None:
        self._step = step
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[object, tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]] = {}
        self._done = 0
        self._most = _MOST

    def __call__(
        self, tokens: Int[Tensor, "batch position"], counted: Counted
    ) -> Float[Tensor, ""]:
        """The step of a batch that is still on the host; the loss is on the device until the next step."""
        given = [tokens] if counted is None else [tokens, counted]
        pinned = [tensor.pin_memory() for tensor in given]
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            loss = self._run((*tokens.shape, counted is None), pinned)
        torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
        self._done += 1
        return loss

    def _run(self, shape: object, pinned: list[Tensor]) -> Tensor:
        if shape not in self._graphs:
            there = [tensor.to(self._stream.device, non_blocking=True) for tensor in pinned]
            if self._done < _FIRST or len(self._graphs) >= self._most:
                return self._eager(there)
            try:
                self._graphs[shape] = self._captured(there)
            except RuntimeError as error:
                self._most = 0  # nor is it tried again
                warnings.warn(
                    f"Steps run without CUDA graphs, and more slowly ({str(error).splitlines()[0]}).",
                    stacklevel=2,
                )
                return self._eager(there)
        graph, inputs, loss = self._graphs[shape]
        for mine, theirs in zip(inputs, pinned, strict=True):
            mine.copy_(theirs, non_blocking=True)
        graph.replay()
        return loss

    def _eager(self, inputs: list[Tensor]) -> Tensor:
        return self._step(inputs[0], inputs[1] if len(inputs) > 1 else None)

    def _captured(self, inputs: list[Tensor]) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        """A graph of the step; nothing is run yet."""
        graph = torch.cuda.CUDAGraph()
        # Not `torch.cuda.graph`, which collects garbage each time. Other threads draw batches meanwhile.
        graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        try:
            loss = self._eager(inputs)
        finally:
            graph.capture_end()
        return graph, inputs, loss
