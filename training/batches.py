"""Batches of training crops, cut by worker processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence, Sized
from typing import TYPE_CHECKING, Any, cast

import cv2

from datasets.eyes import Eye
from system import processes
from system.limits import allow_open_files
from system.signals import ignore_signals
from training.crops import Crops
from training.settings import Settings

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader, Dataset


def make_crops(eyes: Sequence[Eye], settings: Settings, length: int) -> Crops:
    """Training crops of these eyes with the settings of a training."""
    names = ("crop", "seed", "choroid", "camera", "degrade", "clahe")
    shares = {name: getattr(settings, name) for name in names}
    return Crops(eyes, length=length, kinds=settings.arteries_veins, **shares)


@contextlib.contextmanager
def end_workers(batches: object) -> Iterator[None]:
    """At the end, end the workers of a DataLoader's iterator, also after an error.

    A traceback keeps the iterator, the iterator its workers, and Python waits for them forever at its exit.
    """
    # torch has no public name for either; without workers there is none
    own = list(getattr(batches, "_workers", []))
    try:
        yield
    finally:
        getattr(batches, "_shutdown_workers", lambda: None)()
        for worker in own:
            worker.kill()


def begin_worker(_: int) -> None:
    """Leave signals to the training process, and take one core, where `load` could not see to that."""
    ignore_signals()
    if cv2.getNumThreads() > 1:  # a process that was started anew
        cv2.setNumThreads(1)


def load(
    crops: Sized, batch_size: int, done: int = 0, workers: int = 0, device: torch.device | None = None
) -> DataLoader:
    """Load this process's share of the batches, after the first `done` crops; pinned for a GPU as `device`."""
    import torch

    if workers:
        allow_open_files()
        # each worker takes one core; a forked one must not set this itself: it would wait for threads of OpenCV
        # that only the training process has
        cv2.setNumThreads(1)
    return torch.utils.data.DataLoader(
        # torch accepts any map-style data set, but its type hint asks for the base class
        cast("Dataset[Any]", crops),
        batch_size=batch_size // processes.world_size(),
        sampler=processes.share(range(done, len(crops))),
        num_workers=workers,
        pin_memory=device is not None and device.type == "cuda",
        worker_init_fn=begin_worker,
    )
