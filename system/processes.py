"""Several processes of one run, on several GPUs or machines, as torchrun starts them.

torchrun numbers them: rank 0 to world size - 1. Without torchrun there is one process, and these functions do
nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from system.devices import pick_device
from utils import NotWritten, UserError, out_of_memory

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

# Time-outs for a process that hangs or a machine that loses power; a killed process closes its connections,
# which the others notice at once. On CPUs the others also wait while rank 0 writes to a slow disk.
PATIENCE = datetime.timedelta(minutes=5)
PATIENCE_OF_GPUS = datetime.timedelta(seconds=45)


class Ended(Exception):
    """torchrun ends this process because another one has died."""


def read_number(name: str, default: int | None = None) -> int:
    """A number of the environment, by torchrun; UserError if it is none, or missing without a default."""
    text = os.environ.get(name, "").strip()
    if not text and default is not None:
        return default
    if not text.isdecimal():
        said = f"is {text!r:.40}" if text else "is not set"
        has = "which is no number" if text else "but LOCAL_RANK is"
        raise UserError(
            f"{name}: {said} in the environment, {has}; start several processes with torchrun, or "
            "unset LOCAL_RANK for one"
        )
    return int(text)


def world_size() -> int:
    """How many processes run together; 1 without torchrun."""
    return max(read_number("WORLD_SIZE", 1), 1) if os.environ.get("LOCAL_RANK", "").strip() else 1


def rank() -> int:
    """The number of this process, from 0 up."""
    return read_number("RANK") if world_size() > 1 else 0


def is_main() -> bool:
    """Whether this process is rank 0, which writes files and prints."""
    return rank() == 0


def on_this_machine() -> int:
    """How many of the processes run on this machine."""
    return max(read_number("LOCAL_WORLD_SIZE", world_size()), 1) if world_size() > 1 else 1


def restarts() -> int:
    """How often torchrun has restarted all processes (--max-restarts)."""
    return read_number("TORCHELASTIC_RESTART_COUNT", 0) if world_size() > 1 else 0


def describe_resume() -> str:
    """With which command to go on where this script ends."""
    launcher, on_node = ["python"], on_this_machine()
    if world_size() > 1:
        nodes = [f"--nnodes={world_size() // on_node}", "..."] if on_node < world_size() else []
        launcher = ["torchrun", *nodes, f"--nproc-per-node={on_node}"]
    again = [] if "--resume" in sys.argv else ["--resume"]
    return f"go on with: {shlex.join([*launcher, *sys.argv, *again])}"


def own_device(name: str) -> torch.device:
    """As `pick_device`, but each of several processes gets its own GPU; UserError if it cannot."""
    if world_size() == 1:
        return pick_device(name)
    import torch

    if name == "auto" and not torch.cuda.is_available():
        name = "cpu"  # not mps: there is only one
    device = pick_device(name)
    if device.type == "mps" or device.index is not None:
        raise UserError(f"--device {name}: torchrun gives each process a device of its own; use cuda or cpu")
    if device.type == "cuda":
        own, there = read_number("LOCAL_RANK"), torch.cuda.device_count()
        if own >= there:
            raise UserError(f"torchrun --nproc-per-node: more processes than GPUs; there are {there} here")
        device = torch.device("cuda", own)
        torch.cuda.set_device(device)
    return device


@contextlib.contextmanager
def group(how_to_go_on: Callable[[], str]) -> Iterator[torch.distributed.Store | None]:
    """Join the other processes; only rank 0 prints.

    The first process that fails reports why; the others end silently.

    Args:
        how_to_go_on: what is left when a process has died, and the command that goes on from there.

    Yields:
        The store that all processes share; None without torchrun.

    Raises:
        UserError: another process has died or cannot be reached.
    """
    if world_size() == 1:
        try:
            yield None
        except Exception as error:
            tell_after(error, how_to_go_on)
            raise
        return
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_gloo_available()):
        raise UserError("this build of torch has no gloo for several processes; start without torchrun")
    for number, total in (("RANK", world_size()), ("LOCAL_RANK", on_this_machine()), ("MASTER_PORT", 65536)):
        if read_number(number) >= total:  # what torchrun says is whole, or this says what is wrong
            raise UserError(
                f"{number}: is {read_number(number)} in the environment, but has to be below {total}; start "
                "several processes with torchrun"
            )
    if not os.environ.get("MASTER_ADDR"):
        raise UserError("MASTER_ADDR: is not set in the environment; start several processes with torchrun")
    store = None
    signal.signal(signal.SIGTERM, end)
    try:
        store = interruptible(join)
        with (
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stdout(sys.stdout if is_main() else nowhere),
        ):
            yield store
        dist.destroy_process_group()
    except (Exception, KeyboardInterrupt) as error:
        # torchrun sends SIGTERM when one process has ended; there is still a message to print
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        status = 130 if isinstance(error, KeyboardInterrupt) else 2
        atexit.register(os._exit, status)  # leaving a group in order can take forever after a process has died
        if not fails_first(store):
            raise SystemExit(status) from None
        if not is_lost(error):
            tell_after(error, how_to_go_on)
            raise
        raise UserError(
            f"another process of this run died, was ended or cannot be reached; {how_to_go_on()}"
        ) from None


def join() -> torch.distributed.Store:
    """Wait for the other processes and form a group with them; the store that all share."""
    import torch.distributed as dist

    store, *_ = next(dist.rendezvous("env://"))
    # the store outlives the processes and may hold addresses of an earlier start
    store = dist.PrefixStore(f"run{restarts()}", store)
    # gloo, even with GPUs: unlike nccl it notices at once that a process has died
    dist.init_process_group("gloo", store=store, rank=rank(), world_size=world_size(), timeout=PATIENCE)
    return store


def interruptible(work: Callable[[], T]) -> T:
    """What `work` returns. Signals are handled meanwhile, also where it waits inside a library for minutes."""
    done: Future[T] = Future()

    def fill() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=fill, daemon=True).start()
    return done.result()


def tell_after(error: BaseException, how_to_go_on: Callable[[], str]) -> None:
    """Where memory or the disk is full, say how to go on: other programs may soon free what they hold of it.

    Raises:
        UserError: in place of one that says which file does not fit.
    """
    if isinstance(error, NotWritten):
        raise UserError(f"{error}; {how_to_go_on()}") from None
    if out_of_memory(error):
        print(how_to_go_on(), file=sys.stderr)


def end(*_: object) -> None:
    """SIGTERM handler; the training loop has its own."""
    raise Ended


def fails_first(store: torch.distributed.Store | None) -> bool:
    """Whether this process is the first of all to fail."""
    try:
        return store is None or store.add("failed", 1) == 1
    except Exception:  # the machine with the store is gone: better to report twice than never
        return True


def is_lost(error: BaseException) -> bool:
    """Whether an error means that another process cannot be reached; gloo has no exception class for it."""
    import torch.distributed as dist

    signs = ("gloo/", "NCCL")
    of_torch = isinstance(error, dist.DistError) or any(sign in str(error) for sign in signs)
    return isinstance(error, Ended) or (isinstance(error, RuntimeError) and of_torch)


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's share of the items: every n-th, with n processes."""
    return items[rank() :: world_size()]


def dealt_out(items: Sequence[T], store: torch.distributed.Store | None) -> Iterator[T]:
    """Yield the items that this process takes, always the next that no other has taken.

    So all end at about the same time, however long an item takes and however fast a machine is.
    """
    if store is None:
        yield from items
        return
    while (number := store.add("taken", 1) - 1) < len(items):
        if store.add("failed", 0):
            raise Ended
        yield items[number]


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    if world_size() == 1:
        return flag
    import torch

    number = torch.tensor(int(flag))
    torch.distributed.all_reduce(number)
    return bool(number)


def gathered(value: T) -> list[T]:
    """The values of all processes in the order of their ranks, in rank 0; elsewhere an empty list."""
    if world_size() == 1:
        return [value]
    import torch

    values = [value] * world_size() if is_main() else None
    torch.distributed.gather_object(value, values)
    return values or []


def from_main(value: T) -> T:
    """The value that rank 0 has."""
    if world_size() == 1:
        return value
    import torch

    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


def check_same(value: object, what: str) -> None:
    """Raise UserError in all processes unless all have the same value; `what` says what differs, what to do."""
    if any_of(from_main(value) != value):
        raise UserError(f"the processes have different {what}")
