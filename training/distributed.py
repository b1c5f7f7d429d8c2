"""Several processes that train one network, on several GPUs or machines: PyTorch's distributed data parallel.

torchrun starts the processes and numbers them: rank 0 to world size - 1. Each takes its share of every batch,
and their gradients are averaged. Without torchrun there is one process, and these functions do nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import datetime
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from system.devices import pick_device
from utils import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

T = TypeVar("T")

# Time-outs for a process that hangs or a machine that loses power; a killed process closes its connections,
# which the others notice at once. On CPUs the others also wait while rank 0 writes to a slow disk.
PATIENCE = datetime.timedelta(minutes=5)
PATIENCE_OF_GPUS = datetime.timedelta(seconds=45)


class Ended(Exception):
    """torchrun ends this process because another one has died."""


def world_size() -> int:
    """How many processes train together; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "LOCAL_RANK" in os.environ else 1


def rank() -> int:
    """The number of this process, from 0 up."""
    return int(os.environ["RANK"]) if world_size() > 1 else 0


def is_main() -> bool:
    """Whether this process is rank 0, which writes files and prints."""
    return rank() == 0


def restarts() -> int:
    """How often torchrun has restarted all processes (--max-restarts)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) if world_size() > 1 else 0


def launcher() -> list[str]:
    """The command before the script's name, with which to start it again."""
    if world_size() == 1:
        return ["python"]
    on_node = int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
    nodes = [f"--nnodes={world_size() // on_node}", "..."] if on_node < world_size() else []
    return ["torchrun", *nodes, f"--nproc-per-node={on_node}"]


def own_device(name: str) -> torch.device:
    """As `pick_device`, but each of several processes gets its own GPU.

    Raises:
        UserError: the device is not available or cannot be shared.
    """
    if world_size() == 1:
        return pick_device(name)
    import torch

    if name == "auto" and not torch.cuda.is_available():
        name = "cpu"  # not mps: there is only one
    device = pick_device(name)
    if device.type == "mps" or device.index is not None:
        raise UserError(f"--device {name}: torchrun gives each process a device of its own; use cuda or cpu")
    if device.type == "cuda":
        own, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if own >= there:
            raise UserError(f"torchrun --nproc-per-node: more processes than GPUs; there are {there} here")
        device = torch.device("cuda", own)
        torch.cuda.set_device(device)
    return device


@contextlib.contextmanager
def group(files: Path, again: str) -> Iterator[None]:
    """Join the other processes; only rank 0 prints.

    The first process that fails reports why; the others end silently.

    Args:
        files: where the checkpoints are, for the line to print when a process has died.
        again: the command that goes on from them.

    Raises:
        UserError: another process has died or cannot be reached.
    """
    if world_size() == 1:
        yield
        return
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_gloo_available()):
        raise UserError("this build of torch cannot train in several processes; start without torchrun")
    store = None
    signal.signal(signal.SIGTERM, end)
    try:
        store, *_ = next(dist.rendezvous("env://"))
        # the store outlives the processes and may hold addresses of an earlier start
        store = dist.PrefixStore(f"train{restarts()}", store)
        # gloo, even with GPUs: unlike nccl it notices at once that a process has died
        dist.init_process_group("gloo", store=store, rank=rank(), world_size=world_size(), timeout=PATIENCE)
        with (
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stdout(sys.stdout if is_main() else nowhere),
        ):
            yield
        dist.destroy_process_group()
    except (Exception, KeyboardInterrupt) as error:
        # torchrun sends SIGTERM when one process has ended; there is still a message to print
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        status = 130 if isinstance(error, KeyboardInterrupt) else 2
        atexit.register(os._exit, status)  # leaving a group in order can take forever after a process has died
        if not fails_first(store):
            raise SystemExit(status) from None
        if not is_lost(error):
            raise
        last = files / "last.pth"
        goes_on = f"{last} is as it was written last; go on with: {again}"
        raise UserError(
            "another process of this training died, was ended or cannot be reached; "
            + (goes_on if last.exists() else "no epoch was finished; start again")
        ) from None


def end(*_: object) -> None:
    """SIGTERM handler outside the training loop."""
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


def total(x: Tensor) -> Tensor:
    """The sum of a tensor over all processes; x itself if there is only one.

    A loss computed from such sums is the loss of the whole batch. DistributedDataParallel averages the
    gradients of the processes, but their sum is needed, hence the factor in `backward`.
    """
    if world_size() == 1:
        return x
    import torch

    class Total(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            copy = x.detach().cpu().clone()
            torch.distributed.all_reduce(copy)
            return copy.to(x.device)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient * world_size()

    return Total.apply(x)


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    import torch

    return flag if world_size() == 1 else bool(total(torch.tensor(int(flag))))


def from_main(value: T) -> T:
    """The value that rank 0 has."""
    if world_size() == 1:
        return value
    import torch

    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


def check_same(value: object) -> None:
    """Raise UserError, in all processes, unless all begin with the same value."""
    if any_of(from_main(value) != value):
        raise UserError(
            "the processes have different flags, eyes, or last.pth; start all nodes with the same command, the "
            "same data, and one folder --files that all of them see"
        )


def wrap(model: nn.Module) -> nn.Module:
    """Wrap the network so that gradients are averaged over all processes.

    It shares the parameters and buffers of `model`. On GPUs batch normalisation uses the statistics of the
    whole batch; torch does not offer that on a CPU, where it uses those of the process's share.
    """
    if world_size() == 1:
        return model
    import torch

    processes: torch.distributed.ProcessGroup | None = None
    if next(model.parameters()).is_cuda:
        group = torch.distributed.new_group(backend="nccl", timeout=PATIENCE_OF_GPUS)
        # torch returns a number only to ranks outside the group
        processes = cast("torch.distributed.ProcessGroup", group)
        model = synchronize(model, processes)
    wrapped = torch.nn.parallel.DistributedDataParallel(model, process_group=processes)
    # training does not read the running statistics, so `average_buffers` is early enough; set as an attribute,
    # because the argument was renamed between versions of torch
    wrapped.broadcast_buffers = False
    return wrapped


def synchronize(model: nn.Module, processes: torch.distributed.ProcessGroup | None) -> nn.Module:
    """A network with synchronised batch normalisation that shares the parameters and buffers of `model`.

    `model` is unchanged: it can be copied, and predicts without the other processes.
    """
    import torch

    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return torch.nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model, tensors), processes)


def average_buffers(model: nn.Module) -> None:
    """Replace the running statistics of batch normalisation by their mean over the processes.

    They are linear in the statistics of each step, so averaging once gives the same as averaging at every step.
    """
    if world_size() == 1:
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.copy_(total(buffer) / world_size())


@contextlib.contextmanager
def averaged_buffers(*models: nn.Module) -> Iterator[None]:
    """As `average_buffers`, for the time of a save: afterwards each process has its own again.

    So when a save comes, by the clock, changes no bit of the training.
    """
    own = [(buffer, buffer.clone()) for model in models for buffer in model.buffers()]
    for model in models:
        average_buffers(model)
    yield
    for buffer, before in own:
        buffer.copy_(before)
