"""Fit the number of epochs and crops into a given time."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from datasets.eyes import Eye
from system import processes
from training import distributed
from training.batches import end_workers, load, make_crops
from training.epoch import evaluate, train_one_epoch
from training.settings import Settings

if TYPE_CHECKING:
    import torch

    from model import Network

MOST_STEPS = 100  # to time; of fewer, workers would have cut too large a share before the clock starts


def fit_to_minutes(
    model: Network,
    optimizer: torch.optim.Optimizer,
    training: Sequence[Eye],
    validation: Sequence[Eye],
    settings: Settings,
    workers: int,
) -> tuple[int, int]:
    """Choose `epochs` and `crops` so that training and validation take `settings.minutes` on this machine.

    Batches come as the training will have them: from so many workers, in pinned memory for a GPU. Copies of
    network and optimizer are timed, so that the seed still determines the training. Several processes time
    their steps together, and rank 0 chooses.
    """
    model, optimizer = copy.deepcopy((model, optimizer))
    size, budget = settings.batch_size, 60 * (settings.minutes or 0)
    crops = make_crops(training, settings, (3 + 1 + MOST_STEPS) * size)
    batches = iter(load(crops, size, 0, workers, next(model.parameters()).device))
    network = distributed.wrap(model)

    def seconds(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    def steps(number: int) -> None:
        train_one_epoch(network, batches, optimizer, settings, [0.0] * number, [])

    with end_workers(batches):
        steps(3)  # warm up: the first steps choose kernels and allocate memory
        # time about two seconds, the same number of steps in all processes
        number = processes.from_main(min(max(int(2 / seconds(lambda: steps(1))), 5), MOST_STEPS))
        step = seconds(lambda: steps(number)) / number
    check = seconds(lambda: evaluate(model, validation)) if validation else 0.0
    # spend a tenth of the time on validation, and little on files after each epoch
    epochs = max(round(min(0.1 * budget / check if check else 30, budget / 10, 30)), 1)
    crops_of_epoch = max(int((budget / epochs - check) / step), 1) * size
    return processes.from_main((epochs, crops_of_epoch))
