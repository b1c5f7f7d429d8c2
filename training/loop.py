"""The training loop: epochs, and the checkpoints after each."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data import eye_of, first_copies
from datasets.eyes import Eye
from datasets.images import write_png
from pages.pictures import picture, picture_kinds, write_history
from prediction.segmentation import binarize, outputs_of, segment
from scoring import metrics
from system import processes
from system.signals import Stop
from training import distributed
from training.batches import end_workers, load, make_crops
from training.epoch import evaluate, train_one_epoch
from training.optimizers import one_cycle
from training.settings import Run, Settings
from training.start import Move, Split, spare_training, start_training
from training.state import Training
from training.thresholds import USUAL_THRESHOLD, shrunk_threshold
from utils import UserError

if TYPE_CHECKING:
    from tqdm import tqdm

    from model import Network


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


def train(
    run: Run, settings: Settings, split: Split, eyes: Mapping[str, Eye], move_earlier: Move | None = None
) -> Training | None:
    """Train on one split of the eyes, copies by name, as far as that is not done yet; write the checkpoints.

    Returns:
        The finished training; None if it was stopped before its end.

    Raises:
        UserError: as of `start_training`; or a loss that is infinite or NaN.
    """
    from tqdm import tqdm

    training, validation = ([eyes[name] for name in split[side]] for side in ("train", "validation"))
    state = start_training(run, settings, split, training, validation, move_earlier)
    settings, size = state.settings, state.settings.batch_size
    if len(state.history) == settings.epochs:
        print(f"{run.files / 'last.pth'}: all {settings.epochs} epochs are done already")
        return state
    if settings.start_from and validation and not (run.resume or state.history):
        keep_start(run, state, validation)
    epoch_steps = math.ceil(settings.crops / size)
    total = settings.epochs * epoch_steps
    done = len(state.history) * epoch_steps + len(state.losses)
    crops = make_crops(training, settings, total * size)
    batches = iter(load(crops, size, done * size, run.workers, next(state.model.parameters()).device))
    network = distributed.wrap(state.model)
    silent = None if processes.is_main() else True  # None: silent only if the output is not a terminal
    saves = Saves(run.files / "last.pth")
    with (
        end_workers(batches),
        Stop() as stop,
        tqdm(total=total, initial=done, unit="step", disable=silent) as bar,
    ):

        def report(steps: int, loss: float) -> None:
            best = f"{state.best:.4f}" if state.best >= 0 else "-"
            bar.set_postfix(loss=f"{loss:.4f}", F1=best, refresh=False)
            bar.update(steps)

        def pause() -> bool:
            return stop.requested or (processes.is_main() and saves.due())

        for epoch in range(len(state.history) + 1, settings.epochs + 1):
            first = (epoch - 1) * epoch_steps
            rates = [one_cycle(step / total, settings.lr) for step in range(first, first + epoch_steps)]
            while True:
                try:
                    result = train_one_epoch(
                        *(network, batches, state.optimizer, settings, rates, state.losses, state.average),
                        *(pause, report),
                    )
                except FloatingPointError as error:
                    step = len(state.losses)
                    batch = range((first + step - 1) * size, (first + step) * size)
                    names = ", ".join(sorted({f"{crops.name_of(i)}.png" for i in batch}))
                    raise UserError(
                        f"{error} in step {step} of the epoch ({first + step} of {total}) at learning rate "
                        f"{rates[step - 1]:.2e}, with crops of {names} in {run.data / 'train' / 'image'}; "
                        "the checkpoints are as they were; train with a lower --lr"
                    ) from None
                if result["steps"] == epoch_steps:
                    break
                with distributed.averaged_buffers(state.model, state.averaged):
                    if processes.is_main():
                        saves.write(state)
                if processes.any_of(stop.requested):
                    return None
            for averaged in (state.model, state.averaged):
                distributed.average_buffers(averaged)
            end_epoch(state, run.files, validation, {"learning_rate": rates[-1], **result}, bar, saves)
    return state


def keep_start(run: Run, state: Training, validation: Sequence[Eye]) -> None:
    """Validate the network that a training starts from, and keep it until an epoch is better.

    One that has seen a validation eye would win unfairly, and is not kept.
    """
    start = state.settings.start_from
    # of vessels, where arteries and veins begin
    if run.initial is None or run.initial.outputs != state.model.outputs:
        return
    if seen := {eye_of(eye.name) for eye in validation} & set(state.started_from):
        print(f"{start}: trained on {', '.join(sorted(seen))}, which validate: it is not compared")
        return
    row = evaluate(state.averaged, validation)
    state.start_f1 = row["f1"]
    print(f"{start}: validation F1 {row['f1']:.4f} before the training")
    if processes.is_main():
        threshold = run.initial_threshold or USUAL_THRESHOLD
        state.save(run.files / "checkpoint.pth", state.averaged, threshold=threshold, scores=row)


def end_epoch(
    state: Training, files: Path, validation: Sequence[Eye], trained: dict[str, float], bar: tqdm, saves: Saves
) -> None:
    """Validate, write the checkpoints and the history, and print a line."""
    epoch, best = len(state.history) + 1, state.best
    row = {"epoch": epoch, **{name: trained[name] for name in ("learning_rate", "train_loss")}}
    if validation:
        row |= evaluate(state.averaged, validation)
    state.history.append({**row, "seconds": state.elapsed()})
    state.losses = []
    is_best = state.best > best
    is_kept = is_best or (not validation and epoch == state.settings.epochs)
    threshold = shrunk_threshold(row.get("threshold", 0.0), len({eye_of(eye.name) for eye in validation}))
    if not processes.is_main():
        return
    if is_kept:
        state.save(files / "checkpoint.pth", state.averaged, threshold=threshold, scores=row)
    saves.write(state)
    with spare_training():
        write_history(files, state.history)
        if is_best:
            write_preview(files / "preview.png", state.averaged, validation, threshold)
    text = f"epoch {epoch:3d}/{state.settings.epochs}  loss {row['train_loss']:.4f}"
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
        masks = [
            binarize(metrics.quantize(probability), eye.fov, threshold)
            for _, probability in outputs_of(model, segment(model, eye.image, eye.fov))
        ]
        rows.append(picture(eye, masks[0]) if len(masks) == 1 else picture_kinds(eye, *masks))
    width = max(row.shape[1] for row in rows)
    write_png(path, np.vstack([np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0))) for row in rows]))
