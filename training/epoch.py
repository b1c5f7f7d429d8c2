"""One epoch: train, and validate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from data import Eye
from prediction.segmentation import outputs_of, segment
from scoring import metrics
from system import processes
from system.devices import autocast
from training import distributed
from training.losses import vessel_loss
from training.settings import Settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.optim.swa_utils import AveragedModel

    from model import Network

LOOK = 20  # steps of a GPU after which their losses are looked at: it would have to wait at each


def train_one_epoch(
    model: nn.Module,
    batches: Iterator[Sequence[Tensor]],
    optimizer: torch.optim.Optimizer,
    settings: Settings,
    rates: Sequence[float],
    losses: list[float],
    average: AveragedModel | None = None,
    pause: Callable[[], bool] = lambda: False,
    report: Callable[[int, float], None] = lambda steps, loss: None,
) -> dict[str, float]:
    """Train one step for each remaining learning rate of an epoch in `rates`, and append to its `losses`.

    `batches` are images float32 (N, 3, H, W), masks and fields of view float32 (N, 1, H, W) of 0 and 1. If
    `pause` says yes before a step in any process, all return, and another call goes on. `report` is told the
    number of steps since it was last called, and the latest loss. `average` follows the weights.

    Returns:
        `steps`, those of the epoch that are done, and `train_loss`, the mean of their losses.

    Raises:
        FloatingPointError: a loss, the last in `losses` then, or a weight at the end is infinite or NaN.
    """
    import torch

    device = next(model.parameters()).device
    pending: list[Tensor] = []

    def look() -> None:
        losses.extend(loss.item() for loss in pending)
        for i, loss in enumerate(losses):
            if not math.isfinite(loss):
                del losses[i + 1 :]
                raise FloatingPointError(f"the loss became {loss}")
        report(len(pending), losses[-1])
        pending.clear()

    model.train()
    for rate in rates[len(losses) :]:
        if processes.any_of(pause()):
            break
        images, masks, fovs = (part.to(device, non_blocking=True) for part in next(batches))
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1)
        with autocast(device):
            logits = model(images.contiguous(memory_format=torch.channels_last))
        loss = vessel_loss(logits, masks, fovs, settings.dice)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if average:
            average.update_parameters(model)
        pending.append(loss.detach())
        if device.type == "cpu" or len(pending) == LOOK:
            look()
    if pending:
        look()
    # a NaN gradient shows only in the loss of the next step, and the epoch could end before that
    if not all(weight.isfinite().all() for weight in (average or model).state_dict().values()):
        raise FloatingPointError("the weights became infinite or not a number")
    return {"steps": len(losses), "train_loss": float(np.mean(losses)) if losses else math.nan}


def evaluate(model: Network, eyes: Sequence[Eye]) -> dict[str, float]:
    """Predict whole eyes at native size and score them inside the field of view.

    Several processes share the eyes; all return the same result.

    Returns:
        `val_loss`, `f1`, `jaccard` and `auc` of all pixels pooled, those of arteries and of veins too, and the
        `threshold` that gives this F1.
    """
    import torch

    from model import fold_batch_norm

    model = fold_batch_norm(model)
    losses, counts = np.zeros(len(eyes), np.float32), np.zeros((2, metrics.LEVELS), np.int64)
    for i in processes.share(range(len(eyes))):
        eye = eyes[i]
        for output, probability in outputs_of(model, segment(model, eye.image, eye.fov)):
            truth, known = eye.target(output)
            counts += metrics.count_levels(metrics.quantize(probability), truth, known)
            right = np.where(truth > 0, probability, 1 - probability)[known > 0]
            losses[i] += -np.log(np.maximum(right, 1e-7)).mean()
    losses, counts = (distributed.total(torch.from_numpy(part)).numpy() for part in (losses, counts))
    threshold, _ = metrics.best_threshold(counts)
    scores = metrics.scores(counts, threshold)
    of_pixels = {name: scores[name] for name in ("f1", "jaccard", "auc")}
    return {"val_loss": float(np.mean(losses)), **of_pixels, "threshold": threshold}
