"""The next batch is drawn while the step before it computes."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from interp.biographies import Batch

Draw = Callable[[int], Batch]
"""From a step to its batch; a function of the step alone."""


class DrawnAhead:
    """Batches by step, each drawn in another thread during the step before; the same as without.

    Args:
        draw: What draws them.
        last: The step from which on nothing is drawn ahead.

    Example:
        ```python
        with DrawnAhead(lambda step: corpus.batch(step, 32), last=1500) as batches:
            for step in range(1500):
                loss(batches.at(step))
        ```
    """

    def __init__(self, draw: Draw, last: int) -> None:
        self._draw = draw
        self._last = last
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: tuple[int, Future[Batch]] | None = None

    def __enter__(self) -> "DrawnAhead":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def at(self, step: int) -> Batch:
        """The batch of a step; that of the next one is begun."""
        drawn, self._next = self._next, None
        batch = drawn[1].result() if drawn is not None and drawn[0] == step else self._draw(step)
        if step + 1 < self._last:
            self._next = step + 1, self._thread.submit(self._draw, step + 1)
        return batch
