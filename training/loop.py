"""The training loop: one epoch, validation, and the checkpoints after each."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data import eye_of, first_copies
from datasets.eyes import Eye
from datasets.images import write_png
from pages.report import picture, write_history
from prediction.segmentation import binarize, segment
from scoring import metrics
from system import processes
from system.devices import autocast
from system.signals import Stop
from training import distributed
from training.crops import end_workers, load, make_crops
from training.losses import vessel_loss
from training.optimizers import one_cycle
from training.state import Training
from utils import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.optim.swa_utils import AveragedModel
    from tqdm import tqdm

    from model import Network


# the best threshold for unseen eyes, from the cross-validation on DRIVE: see docs/results.md
USUAL_THRESHOLD = 0.39


def train_one_epoch(
    model: nn.Module,
    average: AveragedModel | None,
    batches: Iterator[Sequence[Tensor]],
    optimizer: torch.optim.Optimizer,
    rates: Sequence[float],
    losses: list[float],
    dice: float,
    pause: Callable[[], bool],
    report: Callable[[float], None],
) -> None:
    """Train one step for each remaining learning rate in `rates`, and append to `losses`.

    The entries of `losses` are the steps of this epoch that are already done. `pause` is asked before each
    step; if it says yes in any process, all return, and another call goes on.

    Raises:
        FloatingPointError: the loss, or a weight at the end, is infinite or NaN.
    """
    import torch

    device = next(model.parameters()).device
    model.train()
    for rate in rates[len(losses) :]:
        if processes.any_of(pause()):
            break
        images, masks, fovs = (part.to(device, non_blocking=True) for part in next(batches))
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1)
        with autocast(device):
            logits = model(images.contiguous(memory_format=torch.channels_last))
        loss = vessel_loss(logits, masks, fovs, dice)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"the loss became {losses[-1]}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if average:
            average.update_parameters(model)
        report(losses[-1])
    # a NaN gradient shows only in the loss of the next step, and the epoch could end before that
    if not all(weight.isfinite().all() for weight in (average or model).state_dict().values()):
        raise FloatingPointError("the weights became infinite or not a number")


def evaluate(model: Network, eyes: Sequence[Eye]) -> dict[str, float]:
    """Predict whole eyes at native size and score them inside the field of view.

    Several processes share the eyes; all return the same result.

    Returns:
        `val_loss`, `f1`, `jaccard` and `auc` of all pixels pooled, and the `threshold` that gives this F1.
    """
    import torch

    from model import fold_batch_norm

    model = fold_batch_norm(model)
    losses, counts = np.zeros(len(eyes), np.float32), np.zeros((2, metrics.LEVELS), np.int64)
    for i in processes.share(range(len(eyes))):
        eye = eyes[i]
        probability = segment(model, eye.image, eye.fov)
        counts += metrics.count_levels(metrics.quantize(probability), eye.truth, eye.fov)
        right = np.where(eye.truth > 0, probability, 1 - probability)[eye.fov > 0]
        losses[i] = -np.log(np.maximum(right, 1e-7)).mean()
    losses, counts = (distributed.total(torch.from_numpy(part)).numpy() for part in (losses, counts))
    threshold, _ = metrics.best_threshold(counts)
    scores = metrics.scores(counts, threshold)
    found = {name: scores[name] for name in ("f1", "jaccard", "auc")}
    return {"val_loss": float(np.mean(losses)), **found, "threshold": threshold}


def steady(threshold: float, eyes: int) -> float:
    """The threshold to store, given the best one for some validation eyes (0 eyes: the usual one).

    The best threshold of three eyes varies by 0.07 between triples, and costs more F1 on other eyes than it
    gains. So it is averaged with the usual threshold, which counts as six eyes.
    """
    return (eyes * threshold + 6 * USUAL_THRESHOLD) / (eyes + 6)


class Saves:
    """Writes last.pth, and says when it is due again within an epoch."""

    PERIOD = 120.0  # seconds: a killed training loses no more, unless writing is slow
    SHARE = 0.01  # of the time that writing may take

    def __init__(self, path: Path) -> None:
        self.path = path
        self.next = time.monotonic() + self.PERIOD

    def due(self) -> bool:
        """Whether it is time to write again."""
        return time.monotonic() >= self.next

    def write(self, state: Training) -> None:
        """Write last.pth now."""
        start = time.monotonic()
        state.save_last(self.path)
        end = time.monotonic()
        self.next = end + max(self.PERIOD, (end - start) * (1 / self.SHARE - 1))


def fit(state: Training, args: argparse.Namespace, training: Sequence[Eye], validation: Sequence[Eye]) -> bool:
    """Train to the last epoch and write the checkpoints; False if it was stopped before."""
    from tqdm import tqdm

    settings, batch_size = state.settings, state.settings["batch_size"]
    epoch_steps = math.ceil(settings["crops"] / batch_size)
    total = settings["epochs"] * epoch_steps
    done = len(state.history) * epoch_steps + len(state.losses)
    crops = make_crops(training, settings, total * batch_size)
    pin = next(state.model.parameters()).is_cuda
    batches = iter(load(crops, batch_size, done * batch_size, args.workers, pin))
    network = distributed.wrap(state.model)
    silent = None if processes.is_main() else True  # None: silent only if the output is not a terminal
    saves = Saves(args.files / "last.pth")
    with (
        end_workers(batches),
        Stop() as stop,
        tqdm(total=total, initial=done, unit="step", disable=silent) as bar,
    ):

        def report(loss: float) -> None:
            best = f"{state.best:.4f}" if state.best >= 0 else "-"
            bar.set_postfix(loss=f"{loss:.4f}", F1=best, refresh=False)
            bar.update()

        def pause() -> bool:
            return stop.requested or (processes.is_main() and saves.due())

        for epoch in range(len(state.history) + 1, settings["epochs"] + 1):
            first = (epoch - 1) * epoch_steps
            rates = [one_cycle(step / total, settings["lr"]) for step in range(first, first + epoch_steps)]
            while len(state.losses) < epoch_steps:
                try:
                    train_one_epoch(
                        *(network, state.average, batches, state.optimizer, rates),
                        *(state.losses, settings["dice"], pause, report),
                    )
                except FloatingPointError as error:
                    step = len(state.losses)
                    batch = range((first + step - 1) * batch_size, (first + step) * batch_size)
                    names = ", ".join(sorted({f"{crops.name_of(i)}.png" for i in batch}))
                    raise UserError(
                        f"{error} in step {step} of the epoch ({first + step} of {total}) at learning rate "
                        f"{rates[step - 1]:.2e}, with crops of {names} in {args.data / 'train' / 'image'}; "
                        "the checkpoints are as they were; train with a lower --lr"
                    ) from None
                if len(state.losses) < epoch_steps:
                    with distributed.averaged_buffers(state.model, state.averaged):
                        if processes.is_main():
                            saves.write(state)
                    if processes.any_of(stop.requested):
                        return False
            for averaged in (state.model, state.averaged):
                distributed.average_buffers(averaged)
            end_epoch(state, args.files, validation, rates[-1], bar, saves)
    return True


def end_epoch(
    state: Training, files: Path, validation: Sequence[Eye], rate: float, bar: tqdm, saves: Saves
) -> None:
    """Validate, write the checkpoints and the history, and print a line."""
    epoch, best = len(state.history) + 1, state.best
    row = {"epoch": epoch, "learning_rate": rate, "train_loss": float(np.mean(state.losses))}
    if validation:
        row |= evaluate(state.averaged, validation)
    state.history.append({**row, "seconds": state.elapsed()})
    state.losses = []
    is_best = state.best > best
    is_kept = is_best or (not validation and epoch == state.settings["epochs"])
    threshold = steady(row.get("threshold", 0.0), len({eye_of(eye.name) for eye in validation}))
    if not processes.is_main():
        return
    if is_kept:
        state.save(files / "checkpoint.pth", state.averaged, threshold=threshold, scores=row)
    saves.write(state)
    try:
        write_history(files, state.history)
        if is_best:
            write_preview(files / "preview.png", state.averaged, validation, threshold)
    except UserError as error:  # last.pth holds the history too, so the training can go on
        bar.write(f"{error}; the training goes on", file=sys.stderr)
    text = f"epoch {epoch:3d}/{state.settings['epochs']}  loss {row['train_loss']:.4f}"
    if validation:
        text += "  validation loss {val_loss:.4f}  F1 {f1:.4f}  Jaccard {jaccard:.4f}  AUC {auc:.4f}".format(
            **row
        )
    bar.write(text + ("  best" if is_best else ""))


def write_preview(path: Path, model: Network, validation: Sequence[Eye], threshold: float) -> None:
    """Write one picture of up to three validation eyes: photograph, truth, prediction, differences."""
    from model import fold_batch_norm

    model, rows = fold_batch_norm(model), []
    for eye in first_copies(validation)[:3]:
        levels = metrics.quantize(segment(model, eye.image, eye.fov))
        rows.append(picture(eye, binarize(levels, eye.fov, threshold)))
    width = max(row.shape[1] for row in rows)
    write_png(path, np.vstack([np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0))) for row in rows]))
