"""How far a piece of work is, how long it will still take, and what a person sees of it.

Whatever takes long accepts a `Progress`: a function that it tells which share of its work is done.
Work that consists of parts gives each part a `part` of its own progress. Who calls decides what
becomes of it: nothing (`silent`), a bar where somebody watches (`watched`), or a `Job` on the screen.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from html import escape
from itertools import pairwise
from multiprocessing import current_process
from typing import Any, Protocol, TypeVar, runtime_checkable

from rich import progress as rich_progress
from rich.console import Console

from interp.errors import printable

T = TypeVar("T")
_PATIENCE = 2.0  # seconds that work may take before `watched` draws anything


@runtime_checkable
class Progress(Protocol):
    """Told how far a piece of work is."""

    def __call__(self, share: float | int, note: str = "") -> None:
        """So much is done.

        Args:
            share: From 0 to 1, never less than before. The first one told is what was done before.
            note: What was just done, in a few words, e.g. "step 300 of 1,500".
        """


def silent(share: float | int, note: str = "") -> None:
    """A progress that nobody sees."""


def watched(share: float | int, note: str = "") -> None:
    """A bar where somebody watches, a terminal or a notebook: the default of what visits checkpoints.

    Only for work that takes longer than two seconds, and is no part of other work that is shown. The
    variable TQDM_DISABLE of the environment turns it off.
    """


def part(progress: Progress, start: float | int, end: float | int) -> Progress:
    """The progress of one part of the work, from one share of the whole to another.

    Example:
        >>> half = part(lambda share, note="": print(share, note), 0.5, 1.0)
        >>> half(0.5, "step 5 of 10")
        0.75 step 5 of 10
    """
    return lambda share, note="": progress(start + (end - start) * share, note)


def parts(progress: Progress, weights: Sequence[float | int]) -> list[Progress]:
    """The progress of each of several parts, one after the other, by how long they take."""
    total = sum(weights) or 1
    ends = [sum(weights[:count]) / total for count in range(len(weights) + 1)]
    return [part(progress, start, end) for start, end in pairwise(ends)]


def counted(items: Iterable[T], n: int, what: str, progress: Progress) -> Iterator[T]:
    """Hands items on, and reports each one once the next is asked for: "checkpoint 3 of 27"."""
    progress(0.0)
    for count, item in enumerate(items, 1):
        yield item
        progress(count / n, f"{what} {count:,} of {n:,}")


def in_words(seconds: float | int) -> str:
    """A time that is left, no more exact than it is known.

    Example:
        >>> [in_words(s) for s in (3, 42, 100, 350, 9000)]
        ['a few seconds', 'about 40 s', 'about 2 min', 'about 6 min', 'about 2.5 h']
    """
    if seconds < 7.5:
        return "a few seconds"
    if seconds < 90:
        return f"about {5 * round(seconds / 5)} s"
    return f"about {round(seconds / 60)} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def _n_lines(stream: Any) -> int:
    """How many lines a terminal has; 0 where it does not say, as the one of a development environment."""
    try:
        return os.get_terminal_size(stream.fileno()).lines
    except (OSError, AttributeError, ValueError):  # OSError: io.UnsupportedOperation is one too
        return 0


def _kernel() -> Any:
    """IPython, in the kernel of a notebook; else None."""
    ipython = sys.modules.get("IPython")
    return ipython if ipython is not None and hasattr(ipython.get_ipython(), "kernel") else None


def _is_terminal(stream: Any) -> bool:
    """Whether bars can be drawn on a stream. On a terminal that does not say how large it is they cannot."""
    return bool(Console(file=stream).is_interactive and stream.isatty() and _n_lines(stream))


Rows = list[tuple[float, str]]
"""What is drawn: the share of the task and, of several, that of the whole job, each with words."""


@contextmanager
def screen(stream: Any) -> Iterator[tuple[Callable[[Rows], object], float]]:
    """Where progress is drawn: bars that go away again, or lines without control characters.

    Yields:
        What draws, and the seconds between two drawings.
    """
    if (ipython := _kernel()) is not None:
        # rich's own bars for Jupyter would swallow what the cell prints while they are drawn.
        shown = ipython.display.display({"text/plain": ""}, raw=True, display_id=True)
        bar = '<progress value="{}"></progress> {:.0%} {}'
        yield (
            lambda rows: shown.update(
                {"text/html": "<br>".join(bar.format(s, s, escape(words)) for s, words in rows)},
                raw=True,
            ),
            0.5,
        )
        shown.update({"text/plain": ""}, raw=True)
    elif _is_terminal(stream):
        columns = (
            rich_progress.BarColumn(20),
            rich_progress.TaskProgressColumn(),
            rich_progress.TextColumn("{task.description}", markup=False),
        )
        with rich_progress.Progress(
            *columns,
            console=Console(file=stream),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
        ) as bars:
            bars.console.show_cursor()  # a job that is killed would leave it hidden

            def draw(rows: Rows) -> None:
                for place, (share, words) in enumerate(rows):
                    if place == len(bars.tasks):
                        bars.add_task(words, total=1.0)
                    bars.update(bars.task_ids[place], completed=share, description=printable(words))
                bars.refresh()

            yield draw, 0.5
    else:
        yield (
            lambda rows: print(
                *(f"  {s:4.0%}  {printable(words)}" for s, words in rows), file=stream, flush=True
            ),
            15.0,
        )


class Job:
    """Some tasks, one after the other, and how far they are: on standard error, or told on.

    The time that is left follows from what tasks are expected to cost, corrected by how fast this
    machine has been: the longer a task runs, the more its own pace counts for what is left of it.

    Args:
        expected: Tasks by name, and how many seconds each is expected to take.
        show: What becomes of progress: True for the screen, False for nothing, or a function that is
            told the share of the whole job.
        stream: A text stream to draw on, in place of standard error.
        clock: Seconds from some moment on.
        patience: Seconds that a task may take before anything of it is drawn.
    """

    running = 0
    """How many tasks run in this process."""
    _PRIOR = 10.0  # so many seconds' work at the expected pace are believed before any is seen

    def __init__(
        self,
        expected: Mapping[str, float],
        show: bool | Progress = True,
        stream: Any = None,
        clock: Callable[[], float] = time.monotonic,
        patience: float = 0.0,
    ) -> None:
        self._patience = patience
        self._expected = {task: max(float(seconds), 1e-3) for task, seconds in expected.items()}
        self._done = dict.fromkeys(self._expected, 0.0)
        self._passed_on = silent if isinstance(show, bool) else show
        self._stream = sys.stderr if stream is None and show is True else stream
        self._clock = clock
        self._worked = self._took = 0.0  # expected and real seconds of tasks that are done
        self._lock = threading.Lock()

    def skip(self, name: str) -> None:
        """A task was done before."""
        self._done[name] = 1.0

    @contextmanager
    def task(self, name: str, say: Callable[[], None] = lambda: None) -> Iterator[Progress]:
        """While this lasts, a task runs and is drawn; what it is handed it reports to.

        The first share that it reports is where it goes on from: what was done before says nothing of
        this machine's pace.

        Args:
            name: Which one.
            say: Called first, with nothing drawn: may print a title.
        """
        say()
        self._task, self._note = name, ""
        self._from: float | None = None  # the share that the task began with
        self._began = self._reached = self._clock()
        over = threading.Event()
        drawing = threading.Thread(target=self._draw_until, args=(over,), daemon=True)
        drawing.start()
        Job.running += 1
        try:
            yield self._report
            with self._lock:
                before = self._from or 0.0
                self._reach(1.0)
                self._worked += (1 - before) * self._expected[name]
                self._took += self._reached - self._began
                self._from = 1.0
        finally:
            Job.running -= 1
            over.set()
            drawing.join()
        self._passed_on(self.share, name)

    def _report(self, share: float | int, note: str = "") -> None:
        with self._lock:
            self._reach(share)
            self._note = note or self._note
        self._passed_on(self.share, note)

    def _reach(self, share: float | int) -> None:
        share = min(max(float(share), self._done[self._task]), 1.0)
        self._from = share if self._from is None else self._from
        self._reached, self._done[self._task] = self._clock(), share

    @property
    def share(self) -> float:
        """How much of everything is done, from 0 to 1, by what it is expected to cost."""
        done = sum(self._done[task] * seconds for task, seconds in self._expected.items())
        return done / sum(self._expected.values())

    @property
    def left(self) -> tuple[float, float]:
        """Seconds that the task that runs still takes, and that everything does."""
        to_do, expected = 1 - self._done[self._task], self._expected[self._task]
        seen = 1 - to_do - (self._from or 0.0)
        took = self._reached - self._began if seen > 0 else 0.0
        # Seconds here for one where the expectations were measured.
        slowness = (self._PRIOR + self._took + took) / (
            self._PRIOR + self._worked + seen * expected
        )
        # Where the task begins the expectation counts alone, where it ends its own pace.
        own = to_do * (to_do * expected * slowness + took) / (seen + to_do) if to_do else 0.0
        own = max(own - (self._clock() - self._reached), 0.0)
        others = ((1 - self._done[t]) * s for t, s in self._expected.items() if t != self._task)
        return own, own + sum(others) * slowness

    def rows(self) -> Rows:
        """What is drawn of the task that runs and of the whole; a narrow terminal cuts off the end."""
        with self._lock:
            share, (own, whole) = self._done[self._task], self.left
            words = [f"{in_words(own)} left"] if share < 1 else []
            rows = [(share, ", ".join([*words, self._note] if self._note else words))]
            if len(self._expected) > 1:
                rows.append((self.share, f"whole job, {in_words(whole)} left"))
            return rows

    def _draw_until(self, over: threading.Event) -> None:
        if self._stream is None:  # also where standard error is closed
            return
        if self._patience and over.wait(self._patience):
            return
        with suppress(OSError, ValueError), screen(self._stream) as (draw, interval):
            while not over.wait(interval):
                draw(self.rows())
            if len(self._expected) == 1:  # of several, the next one's title says it
                draw(self.rows())


@contextmanager
def showing(name: str, expected: float, progress: bool | Progress) -> Iterator[Progress]:
    """The progress of a single task: that of the caller as it is, or one on the screen if asked.

    Args:
        name: What the task is.
        expected: Seconds it is expected to take.
        progress: True for the screen, False for nothing, or where to report to.
    """
    if progress is True:
        with Job({name: expected}).task(name) as report:
            yield report
    else:
        yield progress or silent


@contextmanager
def seen(progress: Progress, name: str, expected: float) -> Iterator[Progress]:
    """Where to report to: to the caller, or if it left that open (`watched`), to a bar if somebody watches.

    Args:
        progress: What the caller gave.
        name: What the task is.
        expected: Seconds it is expected to take.
    """
    alone = Job.running == 0 and current_process().name == "MainProcess"
    open_ = progress is watched and alone and not os.environ.get("TQDM_DISABLE")
    if open_ and sys.stderr is not None and (_kernel() is not None or _is_terminal(sys.stderr)):
        with Job({name: expected}, patience=_PATIENCE).task(name) as report:
            yield report
    else:
        yield progress
