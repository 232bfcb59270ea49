"""How far a piece of work is, how long it will still take, and what a person sees of it.

Whatever takes long accepts a `Progress`: a function that it tells which share of its work is done.
Work that consists of parts gives each part a `part` of its own progress. Who calls decides what
becomes of it: nothing (`silent`, the default everywhere), or a line on the screen (`Job`).
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Protocol, TypeVar, runtime_checkable

from tqdm.auto import tqdm

T = TypeVar("T")


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


def part(progress: Progress, start: float | int, end: float | int) -> Progress:
    """The progress of one part of the work, from one share of the whole to another.

    Example:
        >>> half = part(lambda share, note="": print(share, note), 0.5, 1.0)
        >>> half(0.5, "step 5 of 10")
        0.75 step 5 of 10
    """

    def report(share: float | int, note: str = "") -> None:
        progress(start + (end - start) * share, note)

    return report


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


class Forecast:
    """How much of several tasks, done one after the other, is done, and how long the rest takes.

    It starts from what tasks are expected to cost and corrects that by how fast this machine has
    been: the longer a task runs, the more its own pace counts for what is left of it.

    Args:
        expected: Seconds that each task takes on the machine where they were measured.
        clock: Seconds from some moment on.
    """

    _PRIOR = 10.0  # so many seconds' work at the expected pace are believed before any is seen

    def __init__(
        self, expected: Sequence[float | int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._expected = [float(max(seconds, 1e-3)) for seconds in expected]
        self._clock = clock
        self._done = [0.0] * len(self._expected)
        self._worked = 0.0  # expected seconds of all that was done while somebody watched
        self._took = 0.0  # seconds that it took
        self._task = 0
        self._began = self._reached = clock()
        self._from: float | None = None  # the share that the task began with

    def begin(self, task: int) -> None:
        """A task begins."""
        self._task = task
        self._began = self._reached = self._clock()
        self._from = None

    def reach(self, share: float | int) -> None:
        """The task that has begun is done to a share; less than before is taken as that.

        The first share that is told is where the task goes on from: what was done before says nothing
        of this machine's pace.
        """
        share = min(max(share, self._done[self._task]), 1.0)
        if self._from is None:
            self._from = share
        self._reached = self._clock()
        self._done[self._task] = share

    def finish(self) -> None:
        """The task that has begun is done."""
        before = self._from or 0.0
        self.reach(1.0)
        self._worked += (1 - before) * self._expected[self._task]
        self._took += self._reached - self._began

    def skip(self, task: int) -> None:
        """A task was done before."""
        self._done[task] = 1.0

    @property
    def share_of_task(self) -> float:
        """How much of the task that has begun is done, from 0 to 1."""
        return self._done[self._task]

    @property
    def share(self) -> float:
        """How much of everything is done, from 0 to 1, by what it is expected to cost."""
        done = sum(s * e for s, e in zip(self._done, self._expected, strict=True))
        return done / sum(self._expected)

    @property
    def left_of_task(self) -> float:
        """Seconds that the task that has begun still takes."""
        share = self.share_of_task
        if share >= 1:
            return 0.0
        seen = share - (self._from or 0.0)
        took = self._reached - self._began
        expected = (1 - share) * self._expected[self._task] * self._slowness
        weight = seen / (seen + 1 - share)  # 0 where it begins, 1 where it ends
        own = took * (1 - share) / seen if seen > 0 else 0.0
        left = (1 - weight) * expected + weight * own
        return max(left - (self._clock() - self._reached), 0.0)

    @property
    def left(self) -> float:
        """Seconds that everything still takes."""
        others = sum(
            (1 - share) * expected
            for task, (share, expected) in enumerate(zip(self._done, self._expected, strict=True))
            if task != self._task
        )
        return self.left_of_task + others * self._slowness

    @property
    def _slowness(self) -> float:
        """Seconds here for one where the expectations were measured."""
        share = self.share_of_task
        seen = 0.0 if share >= 1 else share - (self._from or 0.0)
        worked = self._worked + seen * self._expected[self._task]
        took = self._took + (self._reached - self._began if seen > 0 else 0.0)
        return (self._PRIOR + took) / (self._PRIOR + worked)


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
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"


@runtime_checkable
class Stream(Protocol):
    """What text is written to: standard error, a file."""

    def write(self, text: str, /) -> int:
        """Writes some text."""

    def flush(self) -> None:
        """Hands on what was written."""

    def isatty(self) -> bool:
        """Whether it is a terminal."""

    def fileno(self) -> int:
        """The file's number, if it is a terminal."""


@runtime_checkable
class Screen(Protocol):
    """Where progress is drawn."""

    interval: float
    """Seconds between two drawings."""

    def draw(self, share: float | int, text: str) -> None:
        """Shows the share of the task that runs, and the rest in words."""

    def clear(self) -> None:
        """Makes room for a line of another writer, or for the next task."""

    def close(self) -> None:
        """Nothing more will come."""


class LiveLine:
    """A line that changes in its place: in a terminal, or as a bar in Jupyter."""

    interval = 0.5

    def __init__(self, stream: Stream | None = None) -> None:
        self._bar: tqdm[Any] = tqdm(
            total=1000,
            file=stream,
            bar_format="{percentage:3.0f}% |{bar:12}| {desc}",
            dynamic_ncols=True,
            leave=False,
            delay=1e-9,  # drawn for the first time when there is something to say
        )

    def draw(self, share: float | int, text: str) -> None:
        """Shows the share of the task that runs, and the rest in words."""
        self._bar.n = round(1000 * share)
        self._bar.set_description_str(text)

    def clear(self) -> None:
        """Makes room for a line of another writer."""
        self._bar.clear()

    def close(self) -> None:
        """Takes the line away."""
        self._bar.close()


class LogLines:
    """A line from time to time, without control characters: in a log file."""

    interval = 15.0

    def __init__(self, stream: Stream | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream

    def draw(self, share: float | int, text: str) -> None:
        """Writes a line."""
        self._stream.write(f"  {share:4.0%}  {text}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Nothing is in the way."""

    def close(self) -> None:
        """Nothing is to be taken away."""


def screen_for(stream: Stream) -> Screen:
    """A line that moves where there is somebody to see it move, or lines of a log."""
    if _in_notebook():
        return LiveLine()
    # A terminal that does not say how large it is cannot be drawn on.
    drawable = stream.isatty() and os.get_terminal_size(stream.fileno()).lines > 0
    return LiveLine(stream) if drawable else LogLines(stream)


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this; importing one's packages alone makes no notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class Job:
    """Some tasks, one after the other, and a line on standard error that says how far they are.

    Args:
        expected: Tasks by name, and how many seconds each is expected to take.
        show: What becomes of progress: True for the screen, False for nothing, or a function that is
            told the share of the whole job.
        screen: Where to draw, in place of standard error.
        clock: Seconds from some moment on.
    """

    def __init__(
        self,
        expected: Mapping[str, float],
        show: "bool | Progress" = True,
        screen: Screen | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._places = {name: place for place, name in enumerate(expected)}
        self._forecast = Forecast(list(expected.values()), clock)
        self._passed_on: Progress = silent if isinstance(show, bool) else show
        self._screen = screen
        if screen is None and show is True:
            self._screen = screen_for(sys.stderr)
        self._note = ""
        self._running = False
        self._closed = threading.Event()
        self._lock = threading.RLock()
        self._ticker: threading.Thread | None = None

    def __enter__(self) -> "Job":
        if self._screen is not None:
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closed.set()
        if self._ticker is not None:
            self._ticker.join()
        if self._screen is not None:
            self._screen.close()

    def skip(self, name: str) -> None:
        """A task was done before."""
        with self._lock:
            self._forecast.skip(self._places[name])

    @contextmanager
    def task(self, name: str, say: Callable[[], None] = lambda: None) -> Iterator[Progress]:
        """While this lasts, a task runs; what it is handed it reports to.

        Args:
            name: Which one.
            say: Called first, with the line out of the way: may print a title.
        """
        with self._lock:
            if self._screen is not None:
                self._screen.clear()
            say()
            self._forecast.begin(self._places[name])
            self._note, self._running = "", True
        try:
            yield self._report
            with self._lock:
                self._forecast.finish()
                if len(self._places) == 1:  # of several, the next one's title says it
                    self.draw()
            self._passed_on(self._forecast.share, name)
        finally:
            with self._lock:
                self._running = False
                if self._screen is not None:
                    self._screen.clear()

    def draw(self) -> None:
        """Draws how far the task and the job are now."""
        with self._lock:
            if self._screen is None or not self._running:
                return
            forecast = self._forecast
            # A narrow terminal cuts off the end, which is the least of it.
            words = []
            if forecast.share_of_task < 1:
                words.append(f"{in_words(forecast.left_of_task)} left")
            if len(self._places) > 1:
                words.append(f"whole job {forecast.share:.0%}, {in_words(forecast.left)} left")
            if self._note:
                words.append(self._note)
            self._screen.draw(forecast.share_of_task, " | ".join(words))

    def _report(self, share: float | int, note: str = "") -> None:
        with self._lock:
            self._forecast.reach(share)
            self._note = note or self._note
            whole = self._forecast.share
        self._passed_on(whole, note)

    def _tick(self) -> None:
        assert self._screen is not None
        while not self._closed.wait(self._screen.interval):
            self.draw()


@contextmanager
def showing(name: str, expected: float, progress: "bool | Progress") -> Iterator[Progress]:
    """The progress of a single task: that of the caller as it is, or one on the screen if asked.

    Args:
        name: What the task is.
        expected: Seconds it is expected to take.
        progress: True for the screen, False for nothing, or where to report to.
    """
    if progress is False:
        yield silent
    elif progress is not True:
        yield progress
    else:
        with Job({name: expected}) as job, job.task(name) as report:
            yield report
