"""Several processes that train one network: PyTorch's distributed data parallel.

Each takes its share of every batch, and their gradients are averaged. With one process this does nothing.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from system.processes import PATIENCE_OF_GPUS, world_size

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


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
