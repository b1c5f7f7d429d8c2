"""Train the U-Net on new_data; keep the best checkpoint, the last one, and the history in files."""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import distributed
import metrics
from checkpoint import Training, set_aside
from crops import Crops
from data import Eye, eye_of, first_copies, read_eyes, split_by_eye, write_png
from folds import cross_validate
from predict import binarize, segment
from report import picture, write_history
from utils import (
    HelpFormatter,
    Stop,
    UserError,
    atomic,
    autocast,
    claim,
    describe,
    ignore_signals,
    run,
    seed_everything,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.optim.swa_utils import AveragedModel
    from torch.utils.data import DataLoader
    from tqdm import tqdm

# torch is imported inside the functions that use it, so that --help answers at once

# the best threshold for eyes that the network has not seen: of all of DRIVE's in cross-validation, see
# files/README.md
USUAL_THRESHOLD = 0.39


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a U-Net on new_data, validate after every epoch, and write to FILES: checkpoint.pth "
        "(the best), last.pth, split.json, history.csv, curves.png, preview.png.",
        epilog="example: python train.py --epochs 10 --device cpu",
        formatter_class=HelpFormatter,
    )
    folders = parser.add_argument_group("folders")
    folders.add_argument("--data", type=Path, default=Path("new_data"), help="written by augment.py")
    folders.add_argument("--files", type=Path, default=Path("files"), help="checkpoints and history")
    folders.add_argument("--resume", action="store_true", help="go on from FILES/last.pth, same settings")
    network = parser.add_argument_group("network")
    network.add_argument(
        "--model", choices=("unet", "resunet"), default="unet", help="resunet: a ResNet-34 as the encoder"
    )
    network.add_argument("--pretrained", action="store_true", help="resunet: start with ImageNet's weights")
    network.add_argument("--width", type=positive, help="filters of the first level (default: GPU 64, CPU 16)")
    network.add_argument("--depth", type=positive, help="how often it halves (default: GPU 4, CPU 3)")
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument("--epochs", type=positive, default=30, help="epochs to train")
    recipe.add_argument("--crops", type=positive, default=2240, help="random crops an epoch")
    recipe.add_argument("--minutes", type=float, help="choose EPOCHS and CROPS so that it takes this long")
    recipe.add_argument("--all-eyes", action="store_true", help="train on every eye, validate on none")
    recipe.add_argument("--batch-size", type=positive, default=4, help="crops a step, over all processes")
    recipe.add_argument("--crop", type=positive, default=128, help="pixels of a crop each way")
    recipe.add_argument(
        "--choroid",
        type=float,
        default=0.3,
        help="share of crops into which choroidal vessels are drawn, lest they be taken for the retina's",
    )
    recipe.add_argument(
        "--camera",
        type=float,
        default=0.15,
        help="share of crops with the light, sharpness, noise and scale of other cameras",
    )
    recipe.add_argument("--optimizer", choices=("muon", "adamw"), default="muon", help="see muon.py")
    recipe.add_argument("--lr", type=float, help="peak learning rate (default: muon 0.02, adamw 0.005)")
    recipe.add_argument("--dice", type=float, default=0.0, help="weight of the Dice loss beside cross-entropy")
    recipe.add_argument("--ema", type=float, default=0.0, help="decay of the average of the weights; 0: none")
    recipe.add_argument("--seed", type=int, default=42, help="seed of everything random")
    folds = parser.add_argument_group("cross-validation")
    folds.add_argument(
        "--folds",
        type=positive,
        metavar="K",
        help="first train K times, in FILES/fold0 and so on, each time without another K-th of the eyes, and "
        "score every eye by the network trained without it, in FILES/folds.csv; then train on every eye",
    )
    folds.add_argument(
        "--fold",
        type=int,
        nargs="+",
        metavar="N",
        help="train only these of the folds 0 to K - 1, and not on every eye; other runs may train the others",
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    machine.add_argument("--workers", type=int, help="processes that cut crops (default: GPU 4, CPU 0)")
    args = parser.parse_args()
    if args.lr is None:
        args.lr = {"muon": 0.02, "adamw": 0.005}[args.optimizer]
    if args.fold is not None and args.folds is None:
        parser.error("--fold: give --folds as well")
    if args.pretrained and args.model != "resunet":
        parser.error("--pretrained: there are weights for --model resunet only")
    if args.model == "resunet" and (args.depth or 1) > 5:
        parser.error(f"--depth {args.depth}: a ResNet-34 halves 5 times at most")
    for name, good in {
        "folds": args.folds is None or args.folds >= 2,
        "fold": args.fold is None or 0 <= min(args.fold) <= max(args.fold) < args.folds,
        "lr": 0 < args.lr <= 1,
        "choroid": 0 <= args.choroid <= 1,
        "camera": 0 <= args.camera <= 1,
        "dice": 0 <= args.dice <= 100,
        "ema": 0 <= args.ema < 1,
        "minutes": args.minutes is None or 0.05 <= args.minutes <= 100_000,
        "seed": args.seed >= 0,
        "workers": args.workers is None or args.workers >= 0,
    }.items():
        if not good:
            parser.error(f"--{name} {getattr(args, name)}: out of range")
    return args


def positive(text: str) -> int:
    """A whole number from 1 up, for argparse."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def vessel_loss(logits: Tensor, masks: Tensor, fovs: Tensor, dice: float = 0.0) -> Tensor:
    """Binary cross-entropy of the logits inside the field of view, plus `dice` times the soft Dice loss.

    Args:
        logits: (N, 1, H, W), any float type; computed in float32.
        masks: float32 (N, 1, H, W), 1 for vessel, 0 for background.
        fovs: float32 (N, 1, H, W), 1 inside the field of view; other pixels do not count.
        dice: weight of 1 - Dice (Milletari et al. 2016); alone it would spoil the probabilities, and the AUC.

    Returns:
        Scalar, 0 or more. With several processes it is the loss of all their crops together.
    """
    import torch
    import torch.nn.functional as F

    logits = logits.float()
    sums = [F.binary_cross_entropy_with_logits(logits, masks, weight=fovs, reduction="sum"), fovs.sum()]
    if dice:
        probability = logits.sigmoid() * fovs
        sums += [(probability * masks).sum(), probability.sum(), (masks * fovs).sum()]
    entropy, pixels, *of_dice = distributed.total(torch.stack(sums))
    loss = entropy / pixels.clamp(min=1)
    if dice:
        both, predicted, true = of_dice
        loss = loss + dice * (1 - (2 * both + 1) / (predicted + true + 1))
    return loss


def one_cycle(progress: float, peak: float) -> float:
    """Learning rate at `progress` in [0, 1]: up to `peak` in the first 30 %, down to almost 0 (Smith 2018)."""
    start, end, top = peak / 25, peak / 250_000, 0.3
    a, b, t = (start, peak, progress / top) if progress < top else (peak, end, (progress - top) / (1 - top))
    return a + (b - a) * (1 - math.cos(math.pi * t)) / 2


def train_one_epoch(
    model: nn.Module,
    average: AveragedModel | None,
    batches: Iterator[Sequence[Tensor]],
    optimizer: torch.optim.Optimizer,
    rates: Sequence[float],
    losses: list[float],
    dice: float,
    stop: Stop,
    report: Callable[[float], None],
) -> None:
    """Train one step for each learning rate left in `rates`, appending to `losses`, unless asked to stop.

    `losses` has as many entries as steps of this epoch are already done.

    Raises:
        FloatingPointError: the loss, or a weight at the end, is not finite.
    """
    import torch

    device = next(model.parameters()).device
    model.train()
    for rate in rates[len(losses) :]:
        if distributed.any_of(stop.requested):
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
    # a gradient that is not finite shows in the loss of the next step only, and the epoch could end before it
    if not all(weight.isfinite().all() for weight in (average or model).state_dict().values()):
        raise FloatingPointError("the weights became infinite or not a number")


def evaluate(model: nn.Module, eyes: Sequence[Eye]) -> dict[str, float]:
    """Predict whole eyes at their native size and score them together, inside the field of view.

    Several processes share the eyes out, and all return the same.

    Returns:
        `val_loss`, `f1`, `jaccard` and `auc` of all pixels pooled, and the `threshold` that gives this F1.
    """
    import torch

    from model import fold_batch_norm

    model = fold_batch_norm(model)
    losses, counts = np.zeros(len(eyes), np.float32), np.zeros((2, metrics.LEVELS), np.int64)
    for i in distributed.share(range(len(eyes))):
        eye = eyes[i]
        probability = segment(model, eye.image, eye.fov)
        counts += metrics.count_levels(metrics.quantize(probability), eye.mask, eye.fov)
        right = np.where(eye.mask > 0, probability, 1 - probability)[eye.fov > 0]
        losses[i] = -np.log(np.maximum(right, 1e-7)).mean()
    losses, counts = (distributed.total(torch.from_numpy(part)).numpy() for part in (losses, counts))
    threshold, _ = metrics.best_threshold(counts)
    scores = metrics.scores(counts, threshold)
    found = {name: scores[name] for name in ("f1", "jaccard", "auc")}
    return {"val_loss": float(np.mean(losses)), **found, "threshold": threshold}


def steady(threshold: float, eyes: int) -> float:
    """The threshold to keep, where this one is the best for so many validation eyes, or for none.

    The one that is best for three eyes varies by 0.07 from three eyes to the next, and so costs more F1 on
    other eyes than it gains. It moves the usual one as if that had the votes of six eyes.
    """
    return (eyes * threshold + 6 * USUAL_THRESHOLD) / (eyes + 6)


def write_preview(path: Path, model: nn.Module, validation: Sequence[Eye], threshold: float) -> None:
    """Write one picture of up to three validation eyes: photograph, truth, prediction, differences."""
    from model import fold_batch_norm

    model, rows = fold_batch_norm(model), []
    for eye in first_copies(validation)[:3]:
        levels = metrics.quantize(segment(model, eye.image, eye.fov))
        rows.append(picture(eye, binarize(levels, eye.fov, threshold)))
    width = max(row.shape[1] for row in rows)
    write_png(path, np.vstack([np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0))) for row in rows]))


def settle(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Fill in what follows from the device, say why, and return the settings that decide the weights."""
    gpu = device.type != "cpu"
    if args.width is None or args.depth is None:
        reason = "a GPU is there" if gpu else "no GPU: a small network is as accurate on DRIVE and far faster"
        why = f" ({reason})" if args.width is None else ""
        args.width, args.depth = args.width or (64 if gpu else 16), args.depth or (4 if gpu else 3)
        print(f"network: width {args.width}, depth {args.depth}{why}")
    if args.workers is None:
        args.workers = 4 if gpu else 0
    network = ("model", "pretrained", "width", "depth")
    cut = ("epochs", "crops", "minutes", "batch_size", "crop", "choroid", "camera")
    decisive = (*network, *cut, "optimizer", "lr", "dice", "ema", "seed")
    return {name: getattr(args, name) for name in decisive}


def make_optimizer(model: nn.Module, settings: dict[str, Any]) -> torch.optim.Optimizer:
    """Muon or AdamW, for this network."""
    import torch

    from muon import Muon

    if settings["optimizer"] == "muon":
        return Muon(model, settings["lr"])
    fused = next(model.parameters()).device.type != "mps"
    return torch.optim.AdamW(model.parameters(), settings["lr"], fused=fused)


def fit_to_minutes(
    model: nn.Module, training: Sequence[Eye], validation: Sequence[Eye], settings: dict[str, Any]
) -> dict[str, int]:
    """Choose `epochs` and `crops` with which training and validation take `settings["minutes"]` here.

    A copy of the network is timed, so that the training itself starts as the seed wants it. Several processes
    time their steps together, and rank 0 chooses.
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
            network, None, batches, optimizer, [0.0] * number, [], settings["dice"], Stop(), lambda loss: None
        )

    steps(3)  # the first steps choose kernels and allocate memory
    # two seconds' worth, since machines waver; all processes as many
    number = distributed.from_main(min(max(int(2 / seconds(lambda: steps(1))), 5), 30))
    step = seconds(lambda: steps(number)) / number
    check = seconds(lambda: evaluate(model, validation)) if validation else 0.0
    # a tenth of the time goes to validation, and little to the files after each epoch
    epochs = max(round(min(0.1 * budget / check if check else 30, budget / 10, 30)), 1)
    crops_of_epoch = max(int((budget / epochs - check) / step), 1) * batch_size
    return distributed.from_main({"epochs": epochs, "crops": crops_of_epoch})


def main() -> int:
    args = parse_args()
    again = [*distributed.launcher(), *sys.argv, *([] if args.resume else ["--resume"])]
    if distributed.restarts() and (args.files / "last.pth").exists():
        args.resume = True
    with distributed.group(args.files, shlex.join(again)):
        finished = run_training(args)
    if not finished:
        if distributed.is_main():
            print(f"stopped, all steps are kept; go on with: {shlex.join(again)}", file=sys.stderr)
        return 130
    return 0


def run_training(args: argparse.Namespace) -> bool:
    """Read the eyes and train on them, in folds or once; False if it was asked to stop before the end."""
    processes = distributed.world_size()
    if args.batch_size % processes:
        raise UserError(
            f"--batch-size {args.batch_size}: cannot be dealt out to {processes} processes; give a multiple"
        )
    if args.folds and processes > 1:
        raise UserError(
            "--folds: start it without torchrun; processes of their own can train a fold each, with --fold"
        )
    device = distributed.own_device(args.device)
    print(f"device: {describe(device)}{f' in each of {processes} processes' if processes > 1 else ''}")
    settings = settle(args, device)
    eyes = {eye.name: eye for eye in read_eyes(args.data / "train", labels=True)}

    def train_on(own: argparse.Namespace, split: dict[str, list[str]]) -> Training | None:
        return train(own, device, dict(settings), split, eyes)

    if args.folds:
        return cross_validate(args, eyes, train_on)
    if args.all_eyes:
        split = {"train": list(eyes), "validation": []}
    else:
        split = split_by_eye(list(eyes), seed=args.seed)
    sides = f"{len(split['train'])} images to train, {len(split['validation'])} to validate"
    held_out = ", ".join(sorted({eye_of(name) for name in split["validation"]})) or "none"
    print(f"split by eye: {sides} ({held_out})")
    with claim(args.files) if distributed.is_main() else contextlib.nullcontext():
        state = train_on(args, split)
    if state is None:
        return False
    conclude(args, state)
    return True


def train(
    args: argparse.Namespace,
    device: torch.device,
    settings: dict[str, Any],
    split: dict[str, list[str]],
    eyes: dict[str, Eye],
) -> Training | None:
    """Train on one split, as far as that is not done already; None if it was asked to stop before the end."""
    training, validation = ([eyes[name] for name in split[side]] for side in ("train", "validation"))
    state = begin(args, device, settings, split, training, validation)
    if len(state.history) == state.settings["epochs"]:
        print(f"{args.files / 'last.pth'}: all {state.settings['epochs']} epochs are done already")
        return state
    return state if fit(state, args, training, validation) else None


def conclude(args: argparse.Namespace, state: Training) -> None:
    """Say what was reached, and what to do next."""
    checkpoint, minutes = args.files / "checkpoint.pth", state.history[-1]["seconds"] / 60
    validated = bool(state.split["validation"])
    reached = f"best validation F1 {state.best:.4f}" if validated else "trained on every eye, not validated,"
    print(f"{checkpoint}: {reached} after {minutes:.1f} minutes of training")
    preview = f", {args.files / 'preview.png'}" if validated else ""
    print(f"to look at: {args.files / 'curves.png'}{preview}")
    print(f"next: python test.py --data {args.data} --weights {checkpoint}")


def begin(
    args: argparse.Namespace,
    device: torch.device,
    settings: dict[str, Any],
    split: dict[str, list[str]],
    training: Sequence[Eye],
    validation: Sequence[Eye],
) -> Training:
    """A new network and its optimizer, or with --resume those of last.pth."""
    import torch
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    from model import NETWORKS

    seed_everything(args.seed)
    model = NETWORKS[args.model](width=args.width, depth=args.depth)
    if args.pretrained and not args.resume:
        model.load_imagenet()
    model = model.to(device, memory_format=torch.channels_last)
    average = None
    if args.ema:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(args.ema), use_buffers=True)
    optimizer = make_optimizer(model, settings)
    state = Training(settings, split, model, average, optimizer)
    if args.resume:
        state.restore(args.files / "last.pth")
    elif args.minutes:
        state.settings |= fit_to_minutes(model, training, validation, settings)
        print("{epochs} epochs of {crops} crops fit into {minutes:g} minutes".format(**state.settings))
    distributed.check_same([state.settings, split, len(state.history), state.losses])
    if distributed.is_main():
        if not args.resume:
            set_aside(args.files)
        elif state.history:
            write_history(args.files, state.history)  # a kill may have come between last.pth and this
        with atomic(args.files / "split.json") as temporary:
            temporary.write_text(json.dumps(split, indent=1) + "\n")
    state.start = time.time()
    return state


def make_crops(eyes: Sequence[Eye], settings: dict[str, Any], length: int) -> Crops:
    """So many training crops of these eyes."""
    chosen = {name: settings[name] for name in ("crop", "seed", "choroid", "camera")}
    return Crops(eyes, length=length, **chosen)


def load(crops: Crops, batch_size: int, done: int = 0, workers: int = 0, pin: bool = False) -> DataLoader:
    """This process's share of all batches, with `batch_size` crops over all processes, after `done` crops."""
    import torch

    return torch.utils.data.DataLoader(
        crops,
        batch_size=batch_size // distributed.world_size(),
        sampler=distributed.share(range(done, len(crops))),
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=ignore_signals,
    )


def fit(state: Training, args: argparse.Namespace, training: Sequence[Eye], validation: Sequence[Eye]) -> bool:
    """Train to the last epoch and write the checkpoints; False if it was asked to stop before."""
    from tqdm import tqdm

    settings, batch_size = state.settings, state.settings["batch_size"]
    epoch_steps = math.ceil(settings["crops"] / batch_size)
    total = settings["epochs"] * epoch_steps
    done = len(state.history) * epoch_steps + len(state.losses)
    crops = make_crops(training, settings, total * batch_size)
    pin = next(state.model.parameters()).is_cuda
    batches = iter(load(crops, batch_size, done * batch_size, args.workers, pin))
    network = distributed.wrap(state.model)
    silent = None if distributed.is_main() else True  # None: only where the output is no terminal
    with Stop() as stop, tqdm(total=total, initial=done, unit="step", disable=silent) as bar:

        def report(loss: float) -> None:
            best = f"{state.best:.4f}" if state.best >= 0 else "-"
            bar.set_postfix(loss=f"{loss:.4f}", F1=best, refresh=False)
            bar.update()

        for epoch in range(len(state.history) + 1, settings["epochs"] + 1):
            first = (epoch - 1) * epoch_steps
            rates = [one_cycle(step / total, settings["lr"]) for step in range(first, first + epoch_steps)]
            try:
                train_one_epoch(
                    *(network, state.average, batches, state.optimizer, rates),
                    *(state.losses, settings["dice"], stop, report),
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
            for averaged in (state.model, state.averaged):
                distributed.average_buffers(averaged)
            if len(state.losses) < epoch_steps:
                if distributed.is_main():
                    state.save_last(args.files / "last.pth")
                return False
            end_epoch(state, args.files, validation, rates[-1], bar)
    return True


def end_epoch(state: Training, files: Path, validation: Sequence[Eye], rate: float, bar: tqdm) -> None:
    """Validate, and write the checkpoints, the history and a line."""
    epoch, best = len(state.history) + 1, state.best
    row = {"epoch": epoch, "learning_rate": rate, "train_loss": float(np.mean(state.losses))}
    if validation:
        row |= evaluate(state.averaged, validation)
    state.history.append({**row, "seconds": state.elapsed()})
    state.losses = []
    is_best = state.best > best
    is_kept = is_best or (not validation and epoch == state.settings["epochs"])
    threshold = steady(row.get("threshold", 0.0), len({eye_of(eye.name) for eye in validation}))
    if not distributed.is_main():
        return
    if is_kept:
        state.save(files / "checkpoint.pth", state.averaged, threshold=threshold, scores=row)
    state.save_last(files / "last.pth")
    try:
        write_history(files, state.history)
        if is_best:
            write_preview(files / "preview.png", state.averaged, validation, threshold)
    except UserError as error:  # last.pth has the history too: no reason to end a night's work
        bar.write(f"{error}; the training goes on", file=sys.stderr)
    text = f"epoch {epoch:3d}/{state.settings['epochs']}  loss {row['train_loss']:.4f}"
    if validation:
        text += "  validation loss {val_loss:.4f}  F1 {f1:.4f}  Jaccard {jaccard:.4f}  AUC {auc:.4f}".format(
            **row
        )
    bar.write(text + ("  best" if is_best else ""))


if __name__ == "__main__":
    run(main, lower="--batch-size, --crop, --width, --depth or --workers")
