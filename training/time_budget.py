"""Fit the number of epochs and crops into a given time."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from datasets.eyes import Eye
from system import processes
from training import distributed
from training.crops import load, make_crops
from training.loop import evaluate, train_one_epoch
from training.optimizers import make_optimizer

if TYPE_CHECKING:
    from model import Network


def fit_to_minutes(
    model: Network, training: Sequence[Eye], validation: Sequence[Eye], settings: dict[str, Any]
) -> dict[str, int]:
    """Choose `epochs` and `crops` so that training and validation take `settings["minutes"]` on this machine.

    A copy of the network is timed, so that the seed still determines the training. Several processes time their
    steps together, and rank 0 chooses.
    """
    model, batch_size, budget = copy.deepcopy(model), settings["batch_size"], 60 * settings["minutes"]
    crops = make_crops(training, settings, 34 * batch_size)
    batches = iter(load(crops, batch_size))
    optimizer = make_optimizer(model, settings)
    network = distributed.wrap(model)

    def seconds(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    def steps(number: int) -> None:
        train_one_epoch(
            *(network, None, batches, optimizer, [0.0] * number, [], settings["dice"]),
            *(lambda: False, lambda loss: None),
        )

    steps(3)  # warm up: the first steps choose kernels and allocate memory
    # time about two seconds, the same number of steps in all processes
    number = processes.from_main(min(max(int(2 / seconds(lambda: steps(1))), 5), 30))
    step = seconds(lambda: steps(number)) / number
    check = seconds(lambda: evaluate(model, validation)) if validation else 0.0
    # spend a tenth of the time on validation, and little on files after each epoch
    epochs = max(round(min(0.1 * budget / check if check else 30, budget / 10, 30)), 1)
    crops_of_epoch = max(int((budget / epochs - check) / step), 1) * batch_size
    return processes.from_main({"epochs": epochs, "crops": crops_of_epoch})
