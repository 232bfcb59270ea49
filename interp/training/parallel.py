"""One run on several devices: the processes that train it together (data parallel).

A launcher (`accelerate launch`, `torchrun`) starts the same command several times. Every process holds
the model and assembles the whole batch, which is a function of the step; each computes the gradient of
its own biographies, the gradients are added up while the backward pass runs, and every process makes
the same update. So the batch size, the losses and the weights are those of one process, within
rounding: sums of the same numbers in another order.

The main process alone locks the folder, writes, measures and shows progress; before each update the
others wait for its status. What ends one process ends all: the loop's work is done inside
`Ranks.all_reduce`, which tells the others that it failed. With one process nothing is exchanged.
"""

import atexit
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.biographies import Batch, TokenKind
from interp.biographies.sampling import group
from interp.config import Config
from interp.errors import ConfigError, InterpError, LostProcessError
from interp.run import resolve_device

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")
Counted = Bool[Tensor, "batch position"] | None
"""Which tokens the loss is on; None: on all."""
Loss = Callable[[Int[Tensor, "batch position"], Counted], Float[Tensor, ""]]
"""Mean loss over the tokens that count, of those before which there is one; in nats."""
Backward = Callable[[Batch, Counted], Float[Tensor, ""]]
"""Adds the gradient of a whole batch's mean loss to the parameters, and returns that loss."""

_PATIENCE = timedelta(hours=2)  # measuring a large population takes minutes


@dataclass(frozen=True)
class Status:
    """Status flags that each rank reports before an update.

    Attributes:
        end: Training ends at this step.
        shown: How many people an adaptive schedule shows from here on; 0 without one.
        asked: Somebody asked to stop (Ctrl-C, SIGTERM).
    """

    end: bool = False
    shown: int = 0
    asked: bool = False


class Ranks:
    """The ranks of a training with one process.

    Attributes:
        count: How many processes there are.
        is_main: Whether this is the main one, which writes and decides.
    """

    count = 1
    is_main = True

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def all_reduce(self, work: Callable[[], Status]) -> Status:
        """Every process does its work and reports a status; returns the maximum of each flag.

        Raises:
            SystemExit: the work failed in another process, which shows the error. The exit code is
                the same.
            LostProcessError: another process ended without a report.
        """
        return work()

    def on_main(self, work: Callable[[], T]) -> T | None:
        """The main process does some work while the others wait, which get None. Raises as `all_reduce`."""
        return work()

    def main_first(self, work: Callable[[], T]) -> T:
        """The main process does some work, and then the others do the same. Raises as `all_reduce`."""
        return work()

    def share(self, model: nn.Module, loss: Loss) -> Backward:
        """The backward pass of a batch that all processes share; all have the same weights."""

        def backward(batch: Batch, counted: Counted) -> Float[Tensor, ""]:
            mask = None if counted is None else counted.to(self.device)
            value = loss(batch.tokens.to(self.device), mask)
            value.backward()
            return value.detach()

        return backward


def gather(config: Config) -> Ranks:
    """The processes that a launcher started to train together; without a launcher, this one alone.

    Raises:
        ConfigError: an unusable device; fewer biographies in a batch than processes; an environment
            that no launcher makes. Where the main process raises it the others end with SystemExit.
    """
    if os.environ.get("WORLD_SIZE", "") in ("", "1"):
        return Ranks(resolve_device(config.training.device))
    try:
        return _Several(config)
    except ConfigError as error:
        if os.environ.get("RANK", "0") == "0":
            raise
        raise SystemExit(error.exit_code) from None  # all have the same settings: said once


class _Several(Ranks):
    def __init__(self, config: Config) -> None:
        self._accelerator = _accelerator(config)
        self._line = _line()
        self.count = self._accelerator.num_processes
        self.is_main = self._accelerator.is_main_process
        super().__init__(self._accelerator.device)

    def all_reduce(self, work: Callable[[], Status]) -> Status:
        try:
            status = work()
        except BaseException as error:
            with suppress(LostProcessError):
                self._exchange(Status(), _exit_code(error))
            raise
        failure, reduced = self._exchange(status)
        if failure:
            raise SystemExit(failure)
        return reduced

    def on_main(self, work: Callable[[], T]) -> T | None:
        results: list[T] = []
        self._work_if(self.is_main, work, results)
        return results[0] if results else None

    def main_first(self, work: Callable[[], T]) -> T:
        results: list[T] = []
        self._work_if(self.is_main, work, results)
        self._work_if(not self.is_main, work, results)
        return results[0]

    def _work_if(self, chosen: bool, work: Callable[[], T], results: list[T]) -> None:
        def working() -> Status:
            if chosen:
                results.append(work())
            return Status()

        self.all_reduce(working)

    def share(self, model: nn.Module, loss: Loss) -> Backward:
        with _connected():
            shared = self._accelerator.prepare_model(_WithLoss(model, loss))

        def backward(batch: Batch, counted: Counted) -> Float[Tensor, ""]:
            every = batch.kind != TokenKind.PADDING if counted is None else counted
            targets = every[:, 1:].sum(dim=1)  # the first is none
            rows = group(len(batch), self.count, self._accelerator.process_index)
            # Processes differ in their number of tokens. The mean over processes that
            # DistributedDataParallel takes of gradients becomes that over the tokens of all.
            weight = self.count * int(targets[rows].sum()) / max(1, int(targets.sum()))
            own = batch[rows].tokens
            mask = None if counted is None else counted[rows, : own.shape[1]].to(self.device)
            with _connected():
                value = shared(own.to(self.device), mask, weight)
                value.backward()
                total: Tensor = value.detach() / self.count
                dist.all_reduce(total)
            return total

        return backward

    def _exchange(self, status: Status, failure: int = 0) -> tuple[int, Status]:
        """The largest exit code of those that failed (0: none), and the maximum of each flag."""
        numbers = torch.tensor([failure, status.end, status.shown, status.asked])
        with _connected():
            dist.all_reduce(numbers, dist.ReduceOp.MAX, group=self._line)
        code, end, shown, asked = numbers.tolist()
        return code, Status(bool(end), shown, bool(asked))


class _WithLoss(nn.Module):
    """A model's weights and its weighted loss as one module: what `DistributedDataParallel` wants."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.weights = nn.ParameterList(model.parameters())  # the same ones; buffers never change
        self._loss = loss

    def forward(
        self, tokens: Int[Tensor, "batch position"], counted: Counted, weight: float
    ) -> Float[Tensor, ""]:
        weighted: Tensor = self._loss(tokens, counted) * weight
        return weighted


def _accelerator(config: Config) -> "Accelerator":
    # Only here: one process needs none of it, and the import takes a while.
    from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

    cpu = _on_cpu(config)
    began = dist.is_initialized()
    # Without gradient are the queries and keys of patched layers, and the gradient of nothing else.
    some_unused = config.patching.on and not config.patching.own
    handlers = [
        InitProcessGroupKwargs(backend="gloo" if cpu else None, timeout=_PATIENCE),
        DistributedDataParallelKwargs(
            find_unused_parameters=some_unused, gradient_as_bucket_view=True
        ),
    ]
    with warnings.catch_warnings(), _connected():
        warnings.simplefilter("ignore")  # hints at how many threads to set
        # Precision is ours to set (`training.precision`), whatever the launcher's defaults are.
        accelerator = Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=handlers)
    kind = accelerator.distributed_type.value
    if kind not in ("MULTI_CPU", "MULTI_GPU"):
        raise ConfigError(
            f"The launcher asks for {kind}, but a run is trained data parallel, with the whole model "
            "on every device. Use `accelerate launch --multi_gpu --num_processes N`."
        )
    if not began:
        atexit.register(_leave, accelerator)
    return accelerator


def _on_cpu(config: Config) -> bool:
    """Whether the processes compute on CPUs, once it is known that the settings can work."""
    size, wanted = config.training.batch_size, config.training.device
    if config.selection.on:
        raise ConfigError(
            "selection: what is trained on depends on the whole batch, and is selected by one process; "
            "launch one, or leave selection out."
        )
    launched = {n: os.environ.get(n, "") for n in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    wrong = [f"{name}={value!r}" for name, value in launched.items() if not value.isdecimal()]
    if wrong:
        raise ConfigError(
            f"The environment says that several processes train together, but {', '.join(wrong)}, "
            "which is no number. Start them with `accelerate launch` or `torchrun`, or unset "
            "WORLD_SIZE to train with one process."
        )
    count = int(launched["WORLD_SIZE"])
    if size < count:
        raise ConfigError(
            f"training.batch_size={size} is less than the {count} processes that were launched: every "
            "process needs a biography of each batch. Launch fewer processes, or set a larger batch."
        )
    cpu_launch = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    if wanted not in ("auto", "cpu", "cuda") or (wanted == "cuda" and cpu_launch):
        raise ConfigError(
            f"training.device={wanted!r} cannot be used by {count} processes"
            f"{' that were launched with --cpu' if cpu_launch else ': each has its own device'}. Use auto, "
            "cpu or cuda, of which each process takes its own."
        )
    if wanted == "cuda":
        resolve_device(wanted)
    cpu = wanted == "cpu" or cpu_launch or not torch.cuda.is_available()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if not cpu and here > torch.cuda.device_count():
        raise ConfigError(
            f"{here} processes were launched on a machine with {torch.cuda.device_count()} GPUs; "
            "launch one for each GPU, or set training.device to cpu."
        )
    return cpu


def _leave(accelerator: "Accelerator") -> None:
    """Ends the connections before the interpreter does; NCCL and gloo ask for that."""
    accelerator.free_memory()
    _line.cache_clear()
    accelerator.end_training()


@cache
def _line() -> "dist.ProcessGroup":
    """The group in main memory, so that an exchange of status waits for no GPU."""
    with _connected():
        group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=_PATIENCE)
    return group


@contextmanager
def _connected() -> Iterator[None]:
    """Turns the many ways in which another process can be found missing into one error."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise LostProcessError(
            "Another process of this training has ended, or cannot be reached "
            f"({str(error).splitlines()[0]}). Its own message, if there is one, says why. What was "
            "saved is intact: the same command goes on from there (training: with resume=True)."
        ) from error


def _exit_code(error: BaseException) -> int:
    """What a process that this error ends exits with."""
    if isinstance(error, InterpError):
        return error.exit_code
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code or 1
    return 130 if isinstance(error, KeyboardInterrupt) else 1
