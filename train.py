"""Train a U-Net on new_data; write the best checkpoint, the last one, and the history to files."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import check_different, eye_of, read_eyes, split_by_eye
from datasets.eyes import Eye
from networks.checkpoints import MAX_DEPTH, MAX_WIDTH
from system import processes
from system.devices import describe
from system.files import claim
from training.cross_validation import cross_validate
from training.earlier import without_checkpoint
from training.leave_one_out import best_of, leave_one_out, mean_f1
from training.loop import fit
from training.start import begin, settle
from training.state import Training
from utils import HelpFormatter, UserError, folder_name, path_name, run, seed_number

if TYPE_CHECKING:
    import torch


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a U-Net on new_data, validate after every epoch, and write to FILES: checkpoint.pth "
        "(the best), last.pth, split.json, history.csv, curves.png, preview.png.",
        epilog="example: python train.py --epochs 10 --device cpu",
        formatter_class=HelpFormatter,
    )
    folders = parser.add_argument_group("folders")
    folders.add_argument("--data", type=path_name, default=Path("new_data"), help="written by augment.py")
    folders.add_argument("--files", type=folder_name, default=Path("files"), help="checkpoints and history")
    folders.add_argument("--resume", action="store_true", help="go on from FILES/last.pth, same settings")
    network = parser.add_argument_group("network")
    network.add_argument(
        "--model", choices=("unet", "resunet"), default="unet", help="resunet: a ResNet-34 as the encoder"
    )
    network.add_argument("--pretrained", action="store_true", help="resunet: start with ImageNet's weights")
    network.add_argument(
        "--start-from", type=path_name, help="a checkpoint whose network and weights to start with"
    )
    network.add_argument("--width", type=positive, help="filters of the first level (default: GPU 24, CPU 16)")
    network.add_argument("--depth", type=positive, help="number of times the resolution is halved (default: 3)")
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument("--epochs", type=positive, default=30, help="epochs to train")
    recipe.add_argument("--crops", type=positive, default=2240, help="random crops an epoch")
    recipe.add_argument("--minutes", type=float, help="choose EPOCHS and CROPS to take this long")
    recipe.add_argument("--all-eyes", action="store_true", help="train on every eye, validate on none")
    recipe.add_argument(
        "--threshold",
        type=float,
        help="with --all-eyes: the checkpoint's threshold, such as --leave-one-out finds (default: with "
        "several data sets the best for the eyes that train, else the usual one)",
    )
    recipe.add_argument(
        "--batch-size", type=positive, help="crops a step, over all processes (default: GPU 8, CPU 4)"
    )
    recipe.add_argument("--crop", type=positive, default=128, help="side of a crop in pixels")
    recipe.add_argument(
        "--choroid",
        type=float,
        default=0.3,
        help="share of crops with drawn choroidal vessels, which the network must not segment",
    )
    recipe.add_argument(
        "--camera",
        type=float,
        help="share of crops with the light, sharpness, noise and scale of other cameras (default: 0.15, with "
        "several data sets 0.3)",
    )
    recipe.add_argument(
        "--degrade",
        type=float,
        help="share of crops with other colours, few pixels, JPEG blocks, lens rims (default: 0, with several "
        "data sets 0.5)",
    )
    recipe.add_argument(
        "--clahe",
        type=float,
        help="share of crops with even contrast (CLAHE); with any, half of the views at prediction have it too "
        "(default: 0, with several data sets 0.5)",
    )
    recipe.add_argument("--optimizer", choices=("muon", "adamw"), default="muon", help="see training/muon.py")
    recipe.add_argument(
        "--lr",
        type=float,
        help="peak learning rate (default: muon 0.02, adamw 0.005; with --start-from 0.4 of it)",
    )
    recipe.add_argument("--dice", type=float, default=0.0, help="weight of the Dice loss beside cross-entropy")
    recipe.add_argument("--ema", type=float, default=0.0, help="decay of the average of the weights; 0: none")
    recipe.add_argument("--seed", type=seed_number, default=42, help="seed of everything random")
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
    folds.add_argument(
        "--leave-one-out",
        nargs="*",
        metavar="DATA_SET",
        help="train without each data set in turn, or only these, and score it, in FILES/leave_one_out.csv",
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    machine.add_argument("--workers", type=int, help="processes that cut crops (default: GPU 4, CPU 0)")
    args = parser.parse_args()
    args.chosen = {name for name, value in vars(args).items() if value != parser.get_default(name)}
    args.make_room = None  # set where more than FILES has to be moved away
    if args.fold is not None and args.folds is None:
        parser.error("--fold: give --folds as well")
    if args.leave_one_out is not None and (args.folds or args.all_eyes):
        parser.error("--leave-one-out: goes neither with --folds nor with --all-eyes")
    if args.threshold is not None and not args.all_eyes:
        parser.error("--threshold: of a training with --all-eyes; others find their own")
    if args.start_from and args.pretrained:
        parser.error("--pretrained: --start-from brings weights of its own")
    if args.pretrained and args.model != "resunet":
        parser.error("--pretrained: there are weights for --model resunet only")
    if args.model == "resunet" and (args.depth or 1) > 5:
        parser.error(f"--depth {args.depth}: a ResNet-34 halves 5 times at most")
    for name, good in {
        "folds": args.folds is None or args.folds >= 2,
        "fold": args.fold is None or 0 <= min(args.fold) <= max(args.fold) < args.folds,
        "lr": args.lr is None or 0 < args.lr <= 1,
        "choroid": 0 <= args.choroid <= 1,
        "camera": args.camera is None or 0 <= args.camera <= 1,
        "degrade": args.degrade is None or 0 <= args.degrade <= 1,
        "clahe": args.clahe is None or 0 <= args.clahe <= 1,
        "dice": 0 <= args.dice <= 100,
        "ema": 0 <= args.ema < 1,
        "threshold": args.threshold is None or 0 <= args.threshold <= 1,
        "minutes": args.minutes is None or 0.05 <= args.minutes <= 100_000,
        "width": args.width is None or args.width <= MAX_WIDTH,
        "depth": args.depth is None or args.depth <= MAX_DEPTH,
        "workers": args.workers is None or args.workers >= 0,
    }.items():
        if not good:
            parser.error(f"--{name} {getattr(args, name)}: out of range")
    return args


def positive(text: str) -> int:
    """argparse type: a whole number of at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def main() -> int:
    args = parse_args()
    again = [*processes.launcher(), *sys.argv, *([] if args.resume else ["--resume"])]
    if processes.restarts() and (args.files / "last.pth").exists():
        args.resume = True

    def goes_on() -> str:
        last = args.files / "last.pth"
        if not last.exists():
            return "no epoch was finished; start again"
        return f"{last} is as it was written last; go on with: {shlex.join(again)}"

    with processes.group(goes_on):
        finished = run_training(args)
    if not finished:
        if processes.is_main():
            print(f"stopped, all steps are kept; go on with: {shlex.join(again)}", file=sys.stderr)
            if hint := without_checkpoint(args.files):
                print(hint, file=sys.stderr)
        return 130
    return 0


def run_training(args: argparse.Namespace) -> bool:
    """Read the eyes and train on them, in folds or once; False if it was stopped before the end."""
    number = processes.world_size()
    if (args.folds or args.leave_one_out is not None) and number > 1:
        raise UserError(
            "--folds, --leave-one-out: start it without torchrun; processes of their own can train a part "
            "each, with --fold N or --leave-one-out DATA_SET"
        )
    device = processes.own_device(args.device)
    print(f"device: {describe(device)}{f' in each of {number} processes' if number > 1 else ''}")
    eyes = {eye.name: eye for eye in read_eyes(args.data / "train", labels=True)}
    check_different(args.data / "train", eyes.values())
    sets = list(dict.fromkeys(eye.source for eye in eyes.values()))
    if len(sets) > 1:
        print(f"data sets, drawn from equally often: {', '.join(sets)}")
    settle(args, device, len(sets))
    if args.batch_size % number:
        raise UserError(
            f"--batch-size {args.batch_size}: cannot be dealt out to {number} processes; give a multiple"
        )
    check_crops(args, number)

    def train_on(own: argparse.Namespace, split: dict[str, list[str]]) -> Training | None:
        return train(own, device, settle(own, device, len(sets)), split, eyes)

    if args.leave_one_out is not None:
        return leave_one_out(args, eyes, train_on)
    if args.folds:
        return cross_validate(args, eyes, train_on)
    if args.all_eyes:
        split = {"train": list(eyes), "validation": []}
    else:
        split = split_by_eye(list(eyes), seed=args.seed)
    sides = f"{len(split['train'])} images to train, {len(split['validation'])} to validate"
    held_out = ", ".join(sorted({eye_of(name) for name in split["validation"]})) or "none"
    print(f"split by eye: {sides} ({held_out})")
    with claim(args.files) if processes.is_main() else contextlib.nullcontext():
        state = train_on(args, split)
        if state and args.all_eyes and processes.is_main():
            keep_threshold(args, state, list(eyes.values()), len(sets))
    if state is None:
        return False
    conclude(args, state)
    return True


def keep_threshold(args: argparse.Namespace, state: Training, eyes: Sequence[Eye], sets: int) -> None:
    """Store the threshold of a network on all eyes: the one given, or with several data sets their best."""
    from model import fold_batch_norm

    threshold = args.threshold
    if threshold is None and sets > 1:
        threshold = best_of(mean_f1(fold_batch_norm(state.averaged), args.data, eyes))
        print(f"threshold {threshold:.2f}: the best compromise between the data sets")
    if threshold is not None:
        checkpoint = args.files / "checkpoint.pth"
        state.save(checkpoint, state.averaged, threshold=threshold, scores=state.history[-1])


def check_crops(args: argparse.Namespace, number: int) -> None:
    """Raise UserError if the deepest level of a step has one pixel: batch normalisation needs two."""
    if args.batch_size == number and args.crop <= 2**args.depth:
        alone = f"--crop {args.crop} --depth {args.depth} leave one pixel at the deepest level"
        raise UserError(
            f"--batch-size {args.batch_size}: {alone}, and batch normalisation needs two; "
            f"give --batch-size {2 * number}, or --crop {2 * 2**args.depth}"
        )


def train(
    args: argparse.Namespace,
    device: torch.device,
    settings: dict[str, Any],
    split: dict[str, list[str]],
    eyes: dict[str, Eye],
) -> Training | None:
    """Train on one split, as far as that is not done yet; None if it was stopped before the end."""
    training, validation = ([eyes[name] for name in split[side]] for side in ("train", "validation"))
    state = begin(args, device, settings, split, training, validation)
    if len(state.history) == state.settings["epochs"]:
        print(f"{args.files / 'last.pth'}: all {state.settings['epochs']} epochs are done already")
        return state
    return state if fit(state, args, training, validation) else None


def conclude(args: argparse.Namespace, state: Training) -> None:
    """Print the result and what to do next."""
    checkpoint, minutes = args.files / "checkpoint.pth", state.history[-1]["seconds"] / 60
    validated = bool(state.split["validation"])
    reached = f"best validation F1 {state.best:.4f}" if validated else "trained on every eye, not validated,"
    print(f"{checkpoint}: {reached} after {minutes:.1f} minutes of training")
    preview = f", {args.files / 'preview.png'}" if validated else ""
    print(f"to look at: {args.files / 'curves.png'}{preview}")
    print(f"next: python test.py --data {args.data} --weights {checkpoint}")


if __name__ == "__main__":
    run(main, lower="--batch-size, --crop, --width, --depth or --workers")
