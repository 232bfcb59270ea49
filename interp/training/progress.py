"""What a person sees while a run trains."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from tqdm.auto import tqdm


@runtime_checkable
class Progress(Protocol):
    """A bar over the steps of a run."""

    def advance(self, loss: float | None) -> None:
        """One step is done; `loss` in nats per token, or None where it was not read."""

    def measured(self, attribute_loss: float, phase: str) -> None:
        """A measurement is done: attribute loss in nats, and the phase so far."""


class _Silent:
    def advance(self, loss: float | None) -> None:
        pass

    def measured(self, attribute_loss: float, phase: str) -> None:
        pass


class _Bar:
    def __init__(self, bar: "tqdm[Any]") -> None:
        self._bar = bar
        self._shown: dict[str, str] = {}

    def advance(self, loss: float | None) -> None:
        if loss is not None:
            self._shown["loss"] = f"{loss:.3f}"
            self._bar.set_postfix(self._shown, refresh=False)
        self._bar.update()

    def measured(self, attribute_loss: float, phase: str) -> None:
        self._shown |= {"attribute loss": f"{attribute_loss:.2f}", "phase": phase}
        self._bar.set_postfix(self._shown, refresh=False)


@contextmanager
def progress_bar(label: str, start: int, n_steps: int, *, show: bool) -> Iterator[Progress]:
    """A progress bar with loss, phase so far and time left, on standard error.

    In a terminal or notebook it moves; in a log file it is a line every 10 seconds.
    """
    if not show:
        yield _Silent()
        return
    interval = 0.2 if sys.stderr.isatty() or "ipykernel" in sys.modules else 10.0
    bar: tqdm[Any]
    with tqdm(
        total=n_steps, initial=start, desc=label, unit="step", mininterval=interval,
        maxinterval=max(interval, 10.0), dynamic_ncols=True,
    ) as bar:  # fmt: skip
        yield _Bar(bar)
