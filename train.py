"""Train the U-Net on new_data; keep the best checkpoint, the last one, and the history in files."""

from __future__ import annotations

import argparse
import csv
import json
import math
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import metrics
from data import Crops, Eye, check_split, eye_of, read_eyes, split_by_eye
from utils import (
    UserError,
    atomic,
    autocast,
    describe,
    pick_device,
    run,
    save_checkpoint,
    seed_everything,
    versions,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.optim.swa_utils import AveragedModel

# torch is imported inside the functions that use it, so that --help answers at once


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a U-Net on new_data, validate after every epoch, and write to FILES: checkpoint.pth "
        "(the best), last.pth, split.json, history.csv, curves.png.",
        epilog="example: python train.py --epochs 10 --device cpu",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    folders = parser.add_argument_group("folders")
    folders.add_argument("--data", type=Path, default=Path("new_data"), help="written by augment.py")
    folders.add_argument("--files", type=Path, default=Path("files"), help="checkpoints and history")
    folders.add_argument("--resume", action="store_true", help="go on from FILES/last.pth, same settings")
    network = parser.add_argument_group("network")
    network.add_argument("--width", type=positive, help="filters of the first level (default: GPU 64, CPU 16)")
    network.add_argument("--depth", type=positive, help="how often it halves (default: GPU 4, CPU 3)")
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument("--epochs", type=positive, default=30, help="epochs to train")
    recipe.add_argument("--crops", type=positive, default=640, help="random crops an epoch")
    recipe.add_argument("--batch-size", type=positive, default=8, help="crops a step")
    recipe.add_argument("--crop", type=positive, default=256, help="pixels of a crop each way")
    recipe.add_argument("--lr", type=float, default=5e-3, help="peak learning rate")
    recipe.add_argument("--dice", type=float, default=0.0, help="weight of the Dice loss beside cross-entropy")
    recipe.add_argument("--ema", type=float, default=0.0, help="decay of the average of the weights; 0: none")
    recipe.add_argument("--seed", type=int, default=42, help="seed of everything random")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    machine.add_argument("--workers", type=int, help="processes that cut crops (default: GPU 4, CPU 0)")
    args = parser.parse_args()
    for name, good in {
        "lr": 0 < args.lr <= 1,
        "dice": 0 <= args.dice <= 100,
        "ema": 0 <= args.ema < 1,
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
        Scalar, 0 or more.
    """
    import torch.nn.functional as F

    logits = logits.float()
    loss = F.binary_cross_entropy_with_logits(logits, masks, weight=fovs, reduction="sum") / fovs.sum().clamp(
        min=1
    )
    if dice:
        probability = logits.sigmoid() * fovs
        overlap = 2 * (probability * masks).sum() + 1
        loss = loss + dice * (1 - overlap / (probability.sum() + (masks * fovs).sum() + 1))
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
        UserError: the loss is not finite.
    """
    import torch

    device = next(model.parameters()).device
    model.train()
    for rate in rates[len(losses) :]:
        if stop.requested:
            return
        images, masks, fovs = (part.to(device, non_blocking=True) for part in next(batches))
        for group in optimizer.param_groups:
            group["lr"] = rate
        with autocast(device):
            logits = model(images.contiguous(memory_format=torch.channels_last))
        loss = vessel_loss(logits, masks, fovs, dice)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise UserError(
                f"the loss became {losses[-1]} in step {len(losses)} of the epoch at learning rate {rate:.2e}; "
                "the best checkpoint is intact; train again with a lower --lr"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if average:
            average.update_parameters(model)
        report(losses[-1])


def evaluate(model: nn.Module, eyes: Sequence[Eye]) -> dict[str, float]:
    """Predict whole eyes at their native size and score them together, inside the field of view.

    Returns:
        `val_loss`, `f1`, `jaccard` and `auc` of all pixels pooled, and the `threshold` that gives this F1.
    """
    import torch

    from model import predict

    device = next(model.parameters()).device
    model.eval()
    losses, counts = [], 0
    for eye in eyes:
        image = torch.from_numpy(eye.input)[None].to(device, memory_format=torch.channels_last)
        with torch.inference_mode(), autocast(device):
            probability = predict(model, image)[0].cpu().numpy()
        counts = counts + metrics.count_levels(metrics.quantize(probability), eye.mask, eye.fov)
        right = np.where(eye.mask > 0, probability, 1 - probability)[eye.fov > 0]
        losses.append(-np.log(np.maximum(right, 1e-7)).mean())
    threshold, _ = metrics.best_threshold(counts)
    scores = metrics.scores(counts, threshold)
    found = {name: scores[name] for name in ("f1", "jaccard", "auc")}
    return {"val_loss": float(np.mean(losses)), **found, "threshold": threshold}


class Stop:
    """Ctrl-C or SIGTERM: the first asks the training to stop after its step, the second stops it at once."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Stop:
        self.before = {s: signal.signal(s, self.ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for which, handler in self.before.items():
            signal.signal(which, handler)

    def ask(self, *_: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


def write_history(files: Path, history: list[dict[str, float]]) -> None:
    """Write history.csv, a row an epoch, and curves.png: loss, F1 and learning rate over the epochs."""
    with atomic(files / "history.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, history[0].keys())
        writer.writeheader()
        writer.writerows(
            {k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()} for row in history
        )

    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.5), layout="constrained")
    panels = {
        "loss": ("train_loss", "val_loss"),
        "validation F1": ("f1",),
        "learning rate": ("learning_rate",),
    }
    for axes, (title, names) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for name in names:
            axes.plot([row["epoch"] for row in history], [row[name] for row in history], ".-", label=name)
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend()
    with atomic(files / "curves.png") as temporary:
        figure.savefig(temporary, dpi=100)


def settle(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Fill in what follows from the device, say why, and return the settings that decide the weights."""
    gpu = device.type != "cpu"
    if args.width is None or args.depth is None:
        why = "a GPU is there" if gpu else "no GPU: a small network is as accurate on DRIVE and far faster"
        args.width, args.depth = args.width or (64 if gpu else 16), args.depth or (4 if gpu else 3)
        print(f"network: width {args.width}, depth {args.depth} ({why})")
    if args.workers is None:
        args.workers = 4 if gpu else 0
    names = ("width", "depth", "epochs", "crops", "batch_size", "crop", "lr", "dice", "ema", "seed")
    return {name: getattr(args, name) for name in names}


def resume(path: Path, settings: dict[str, Any], split: dict[str, list[str]]) -> dict[str, Any]:
    """Read last.pth for going on.

    Raises:
        UserError: there is none, or it was trained with other settings or other eyes.
    """
    from utils import load_checkpoint

    _, last = load_checkpoint(path, pick_device("cpu"))
    differences = [f"--{n.replace('_', '-')} {last['settings'].get(n)}, not {v}" for n, v in settings.items()]
    differences = [
        d for d, (n, v) in zip(differences, settings.items(), strict=True) if last["settings"].get(n) != v
    ]
    if last["split"] != split:
        differences.append("other eyes or another split")
    if differences:
        raise UserError(f"{path}: trained with {'; '.join(differences)}; give --resume with the same settings")
    return last


def main() -> int | None:
    args = parse_args()
    import torch
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
    from tqdm import tqdm

    from model import UNet

    device = pick_device(args.device)
    print(f"device: {describe(device)}")
    settings = settle(args, device)
    eyes = {eye.name: eye for eye in read_eyes(args.data / "train", labels=True)}
    split = split_by_eye(list(eyes), seed=args.seed)
    check_split(split)
    training, validation = ([eyes[name] for name in split[side]] for side in ("train", "validation"))
    held_out = ", ".join(sorted({eye_of(name) for name in split["validation"]}))
    print(f"split by eye: {len(training)} images to train, {len(validation)} to validate ({held_out})")

    seed_everything(args.seed)
    model = UNet(width=args.width, depth=args.depth).to(device, memory_format=torch.channels_last)
    average = None
    if args.ema:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(args.ema), use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, fused=device.type != "mps")

    epoch_steps = math.ceil(args.crops / args.batch_size)
    total = args.epochs * epoch_steps
    losses: list[float] = []  # of the running epoch
    history: list[dict[str, float]] = []
    seconds = 0.0  # of training before this start
    if args.resume:
        last = resume(args.files / "last.pth", settings, split)
        model.load_state_dict(last["weights"])
        optimizer.load_state_dict(last["optimizer"])
        if average:
            average.load_state_dict(last["average"])
        losses, history, seconds = last["losses"], last["history"], last["seconds"]
        if len(history) == args.epochs:
            print(f"{args.files / 'last.pth'}: all {args.epochs} epochs are done already")
            return 0

    def save(name: str, weights: nn.Module, **more: Any) -> None:
        common = {
            "model": model.config,
            "weights": weights.state_dict(),
            "settings": settings,
            "split": split,
        }
        save_checkpoint(args.files / name, {**common, "versions": versions(), **more})

    def save_last() -> None:
        states = {"optimizer": optimizer.state_dict(), "average": average.state_dict() if average else None}
        save("last.pth", model, **states, losses=losses, history=history, seconds=seconds + time.time() - start)

    args.files.mkdir(parents=True, exist_ok=True)
    with atomic(args.files / "split.json") as temporary:
        temporary.write_text(json.dumps(split, indent=1) + "\n")
    done = len(history) * epoch_steps + len(losses)
    crops = Crops(training, args.crop, args.seed, total * args.batch_size)
    loader = torch.utils.data.DataLoader(
        crops,
        batch_size=args.batch_size,
        sampler=range(done * args.batch_size, len(crops)),
        num_workers=args.workers,
        pin_memory=device.type == "cuda",
    )
    batches = iter(loader)
    best = max((row["f1"] for row in history), default=-1.0)
    start = time.time()
    with Stop() as stop, tqdm(total=total, initial=done, unit="step", disable=None) as bar:

        def report(loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.4f}", F1=f"{best:.4f}" if best >= 0 else "-", refresh=False)
            bar.update()

        for epoch in range(len(history) + 1, args.epochs + 1):
            steps = range((epoch - 1) * epoch_steps, epoch * epoch_steps)
            rates = [one_cycle(step / total, args.lr) for step in steps]
            train_one_epoch(model, average, batches, optimizer, rates, losses, args.dice, stop, report)
            if len(losses) < epoch_steps:
                save_last()
                again = shlex.join(["python", *sys.argv, *([] if args.resume else ["--resume"])])
                bar.close()
                print(f"stopped in epoch {epoch}, all steps are kept; go on with: {again}", file=sys.stderr)
                return 130
            scores = evaluate(average.module if average else model, validation)
            row = {"epoch": epoch, "learning_rate": rates[-1], "train_loss": float(np.mean(losses)), **scores}
            history.append({**row, "seconds": seconds + time.time() - start})
            losses = []
            is_best = scores["f1"] > best
            if is_best:
                best = scores["f1"]
                save(
                    "checkpoint.pth",
                    average.module if average else model,
                    threshold=scores["threshold"],
                    scores=row,
                )
            save_last()
            write_history(args.files, history)
            bar.write(
                f"epoch {epoch:3d}/{args.epochs}  loss {row['train_loss']:.4f}  validation loss "
                f"{row['val_loss']:.4f}  F1 {row['f1']:.4f}  Jaccard {row['jaccard']:.4f}  "
                f"AUC {row['auc']:.4f}{'  best' if is_best else ''}"
            )
    minutes = history[-1]["seconds"] / 60
    checkpoint = args.files / "checkpoint.pth"
    print(f"{checkpoint}: best validation F1 {best:.4f} after {minutes:.1f} minutes of training")
    print(f"next: python test.py --data {args.data} --weights {checkpoint}")
    return 0


if __name__ == "__main__":
    run(main)
