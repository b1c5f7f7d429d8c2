"""The device to compute on, its number format, and the memory of the process."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from system.limits import busy_cores, usable_cores
from utils import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

CONTAINER = Path("/sys/fs/cgroup")  # where Linux says what a container may use, and uses


def pick_device(name: str = "auto") -> torch.device:
    """Return the device named auto, cpu, cuda, cuda:1 or mps; auto prefers cuda, then mps.

    Raises:
        UserError: the device is not available.
    """
    import torch

    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if has_cuda else "mps" if has_mps else "cpu"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):  # TypeError: None, from Python
        raise UserError(f"--device {name}: no such device; use auto, cpu, cuda or mps") from None
    there = {"cpu": True, "cuda": has_cuda, "mps": has_mps}.get(device.type, False)
    if there and device.type == "cuda" and device.index is not None:
        there = device.index < torch.cuda.device_count()
    if not there:
        raise UserError(f"--device {name}: this device is not available here; use --device cpu")
    limit_threads()
    return device


def limit_threads() -> None:
    """Compute with no more threads than cores that may be used, unless the user chose: they would only wait."""
    import torch

    chosen = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip().isdecimal()  # else OpenMP ignores it
    if not chosen and torch.get_num_threads() > (cores := usable_cores()):
        torch.set_num_threads(cores)


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware computes in bfloat16. Emulated bfloat16 is slower than float32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # torch has no public function for this yet; without it, float32 gives the same result more slowly
        return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
    return False


def autocast(device: torch.device) -> torch.autocast | contextlib.nullcontext:
    """The autocast context of the network: bfloat16 where the hardware has it, else float32."""
    import torch

    if not has_bfloat16(device):
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def describe(device: torch.device) -> str:
    """The device in words, e.g. 'cpu (2 threads, bfloat16)'."""
    import torch

    number = "bfloat16" if has_bfloat16(device) else "float32"
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)}, {number})"
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads, {number})"
    return f"{device} ({number})"


def keep_memory() -> None:
    """Keep freed memory in this process for reuse.

    By default large arrays return to the system, which clears every page when the next layer allocates them
    again. That takes up to 10 % of a prediction on a CPU. Do not use it for training: it would hold a third
    more memory. Works with glibc only and does nothing elsewhere.
    """
    mmap_max, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, -1)


def free_memory() -> float:
    """Bytes of memory that this computer, or the container, has left; infinite where it does not say."""
    free = [math.inf]
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    with contextlib.suppress(OSError, ValueError, KeyError):  # "max" is no number
        limit, used = (int((CONTAINER / f"memory.{name}").read_text()) for name in ("max", "current"))
        parts = dict(line.split() for line in (CONTAINER / "memory.stat").read_text().splitlines())
        # copies of files that were read count as used, and go when memory is needed
        free.append(limit - used + int(parts["active_file"]) + int(parts["inactive_file"]))
    return min(free)


class Stopwatch:
    """Adds up the seconds spent in a network; waits for a GPU."""

    def __init__(self, model: nn.Module) -> None:
        self.seconds, self.on_gpu = 0.0, next(model.parameters()).is_cuda
        model.register_forward_pre_hook(lambda *_: self.add(-1))
        model.register_forward_hook(lambda *_: self.add(1))

    def add(self, sign: int) -> None:
        """Subtract the time at the beginning, add it at the end."""
        if self.on_gpu:
            import torch

            torch.cuda.synchronize()
        self.seconds += sign * time.perf_counter()


def advise_threads(device: torch.device) -> str:
    """What to say before threads share the work of a training: how many are faster, where others are busy.

    A training step is so short that waiting for the thread on a busy core is most of it (docs/speed.md). The
    number is not changed here, since another one gives other bits.

    Returns:
        A line, or nothing where there are cores enough, or on a GPU.
    """
    import torch

    threads = torch.get_num_threads() if device.type == "cpu" else 0
    cores, busy = usable_cores(), busy_cores()
    free = max(1, cores - round(busy))
    if free >= threads or busy < 0.5:
        return ""
    return (
        f"programs kept {busy:.1f} of {cores} cores busy in the last minute: if they go on, a training step is "
        f"faster with OMP_NUM_THREADS={free} in the environment than with {threads} threads that wait for "
        "one another"
    )
