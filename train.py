"""Train a U-Net on new_data; write the best checkpoint, the last one, and the history to files."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -P and PYTHONSAFEPATH=1 leave it out

from anatomy.photograph import DISC_SHARE
from data import check_different, eye_of, read_eyes, split_by_eye, split_taught
from datasets.eyes import Eye
from networks.checkpoints import MAX_DEPTH, MAX_WIDTH, load_checkpoint
from networks.loading import add_device, add_threshold
from system import processes
from system.devices import advise_threads, describe
from system.files import claim
from training.earlier import without_checkpoint
from training.held_out import cross_validate, leave_one_out
from training.loop import train
from training.settings import Run, Settings, choose_settings, read_settings, usual_workers
from training.start import bring_to_scale, plan_move, with_kinds
from training.state import Training
from training.thresholds import compromise_curve, eyes_for_threshold, threshold_of_best
from utils import HelpFormatter, UserError, between, folder_name, path_name, run, seed_number

SETTINGS = [field.name for field in fields(Settings)]


def parse_args() -> argparse.Namespace:
    """The flags; a setting that was not given is None, so that --resume can tell."""
    parser = argparse.ArgumentParser(
        description="Train a U-Net on new_data, validate after every epoch, and write to FILES: checkpoint.pth "
        "(the best), last.pth, split.json, history.csv, curves.png, preview.png.",
        epilog="example: python train.py --epochs 10 --device cpu",
        formatter_class=HelpFormatter,
    )
    whole, share = between(1, kind=int), between(0, 1)
    folders = parser.add_argument_group("folders")
    folders.add_argument("--data", type=path_name, default=Path("new_data"), help="written by augment.py")
    folders.add_argument("--files", type=folder_name, default=Path("files"), help="checkpoints and history")
    folders.add_argument(
        "--resume",
        action="store_true",
        help="go on from FILES/last.pth with its settings; those given too must be the same",
    )
    network = parser.add_argument_group("network")
    network.add_argument(
        "--model",
        choices=("unet", "resunet"),
        default=Settings.model,
        help="resunet: a ResNet-34 as the encoder",
    )
    network.add_argument(
        "--arteries-veins",
        action="store_true",
        help="find arteries and veins instead of vessels, on the eyes that have such labels; begin with "
        "a network of vessels: --start-from files/fundus_unet.pth",
    )
    network.add_argument("--pretrained", action="store_true", help="resunet: start with ImageNet's weights")
    network.add_argument(
        "--start-from", type=path_name, help="a checkpoint whose network and weights to start with"
    )
    network.add_argument(
        "--disc",
        type=between(16, 1024),
        metavar="PIXELS",
        help="with --start-from: diameter of the optic disc to which eyes of new_data are brought (default: "
        "that of the network)",
    )
    network.add_argument(
        "--width", type=between(1, MAX_WIDTH, int), help="filters of the first level (default: GPU 24, CPU 16)"
    )
    network.add_argument(
        "--depth",
        type=between(1, MAX_DEPTH, int),
        default=Settings.depth,
        help="number of times the resolution is halved",
    )
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument("--epochs", type=whole, default=Settings.epochs, help="epochs to train")
    recipe.add_argument("--crops", type=whole, default=Settings.crops, help="random crops an epoch")
    recipe.add_argument(
        "--minutes", type=between(0.05, 100_000), help="choose EPOCHS and CROPS to take this long"
    )
    recipe.add_argument("--all-eyes", action="store_true", help="train on every eye, validate on none")
    add_threshold(
        recipe,
        "with --all-eyes: the checkpoint's threshold, such as --leave-one-out finds (default: with several "
        "data sets the best for the eyes that train, else the usual one)",
    )
    recipe.add_argument(
        "--batch-size", type=whole, help="crops a step, over all processes (default: GPU 32, CPU 4)"
    )
    recipe.add_argument("--crop", type=whole, default=Settings.crop, help="side of a crop in pixels")
    recipe.add_argument(
        "--choroid",
        type=share,
        default=Settings.choroid,
        help="share of crops with drawn choroidal vessels, which the network must not segment",
    )
    recipe.add_argument(
        "--camera",
        type=share,
        help="share of crops with the light, sharpness, noise and scale of other cameras (default: 0.15, with "
        "several data sets 0.3)",
    )
    recipe.add_argument(
        "--degrade",
        type=share,
        help="share of crops with other colours, few pixels, JPEG blocks, lens rims (default: 0, with several "
        "data sets 0.5)",
    )
    recipe.add_argument(
        "--clahe",
        type=share,
        help="share of crops with even contrast (CLAHE); with any, half of the views at prediction have it too "
        "(default: 0, with several data sets 0.5)",
    )
    recipe.add_argument(
        "--optimizer", choices=("muon", "adamw"), default=Settings.optimizer, help="see training/muon.py"
    )
    recipe.add_argument(
        "--lr",
        type=between(1e-12, 1),
        help="peak learning rate (default: muon 0.02, adamw 0.005; with --start-from 0.4 of it)",
    )
    recipe.add_argument(
        "--dice",
        type=between(0, 100),
        default=Settings.dice,
        help="weight of the Dice loss beside cross-entropy",
    )
    recipe.add_argument(
        "--ema",
        type=between(0, 0.999999),
        default=Settings.ema,
        help="decay of the average of the weights; 0: none",
    )
    recipe.add_argument("--seed", type=seed_number, default=Settings.seed, help="seed of everything random")
    folds = parser.add_argument_group("cross-validation")
    folds.add_argument(
        "--folds",
        type=between(2, kind=int),
        metavar="K",
        help="first train K times, in FILES/fold0 and so on, each time without another K-th of the eyes, and "
        "score every eye by the network trained without it, in FILES/folds.csv; then train on every eye",
    )
    folds.add_argument(
        "--fold",
        type=between(0, kind=int),
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
    add_device(machine)
    machine.add_argument(
        "--workers", type=between(0, kind=int), help="processes that cut crops (default: GPU up to 8, CPU 0)"
    )
    # argparse fills in a default only where there is nothing yet
    args = parser.parse_args(namespace=argparse.Namespace(**dict.fromkeys(SETTINGS)))
    if args.fold is not None and args.folds is None:
        parser.error("--fold: give --folds as well")
    if args.fold is not None and max(args.fold) >= args.folds:
        parser.error(f"--fold {max(args.fold)} is out of range: give 0 to {args.folds - 1}")
    if args.leave_one_out is not None and (args.folds or args.all_eyes):
        parser.error("--leave-one-out: goes neither with --folds nor with --all-eyes")
    if args.threshold is not None and not args.all_eyes:
        parser.error("--threshold: of a training with --all-eyes; others find their own")
    if args.minutes and (args.epochs or args.crops):
        parser.error("--minutes: chooses --epochs and --crops itself; leave them out")
    if args.disc and not args.start_from:
        parser.error("--disc: with --start-from only; else augment.py --disc resizes the eyes")
    if args.start_from and args.pretrained:
        parser.error("--pretrained: --start-from brings weights of its own")
    if args.pretrained and args.model != "resunet":
        parser.error("--pretrained: there are weights for --model resunet only")
    if args.model == "resunet" and (args.depth or 1) > 5:
        parser.error(f"--depth {args.depth}: a ResNet-34 halves 5 times at most")
    return args


def main() -> int:
    args = parse_args()
    last, go_on = args.files / "last.pth", processes.describe_resume()

    def how_to_resume() -> str:
        if not last.exists():
            return "no epoch was finished; start again"
        return f"{last} is as it was written last; {go_on}"

    with processes.group(how_to_resume):
        finished = run_training(args, args.resume or (processes.restarts() > 0 and last.exists()))
    if not finished:
        if processes.is_main():
            print(f"stopped, all steps are kept; {go_on}", file=sys.stderr)
            if hint := without_checkpoint(args.files):
                print(hint, file=sys.stderr)
        return 130
    return 0


def run_training(args: argparse.Namespace, resume: bool) -> bool:
    """Read the eyes and train on them, in folds or once; False if it was stopped before the end."""
    number = processes.world_size()
    held_out = args.folds or args.leave_one_out is not None
    if held_out and number > 1:
        raise UserError(
            "--folds, --leave-one-out: start it without torchrun; processes of their own can train a part "
            "each, with --fold N or --leave-one-out DATA_SET"
        )
    device = processes.own_device(args.device)
    print(f"device: {describe(device)}{f' in each of {number} processes' if number > 1 else ''}")
    if number == 1 and (advice := advise_threads(device)):
        print(advice)
    eyes = {eye.name: eye for eye in read_eyes(args.data / "train", labels=True)}
    check_different(args.data / "train", eyes.values())
    data_sets = list(dict.fromkeys(eye.source for eye in eyes.values()))
    if len(data_sets) > 1:
        print(f"data sets, drawn from equally often: {', '.join(data_sets)}")
    workers = usual_workers(device) if args.workers is None else args.workers
    given = {name: value for name in SETTINGS if (value := getattr(args, name)) is not None}
    given |= {"start_from": str(args.start_from)} if args.start_from else {}
    here = Run(args.data, args.files, device, workers, resume, given)
    last = args.files / "last.pth" if resume and not held_out else None
    path = last or args.start_from
    start = load_checkpoint(path, outputs=None) if path else None
    settings = read_settings(last, given) if last else choose_settings(given, device, len(data_sets), start)
    if start and settings.start_from:
        network, content = start
        if args.disc:
            network.disc, network.diameter = args.disc, args.disc / DISC_SHARE
        eyes = bring_to_scale(eyes, args.data, network)
        here = replace(here, initial=network, initial_threshold=content.get("threshold"))
    if settings.arteries_veins:
        eyes = with_kinds(eyes, args.data)
    if args.leave_one_out is not None:
        return leave_one_out(here, settings, eyes, args.leave_one_out)
    if args.folds:
        return cross_validate(here, settings, eyes, args.folds, args.fold)
    if args.all_eyes:
        split = {"train": list(eyes), "validation": []}
    else:
        labelled, taught = split_taught(eyes)
        split = split_by_eye(labelled, seed=settings.seed, always_train=taught)
    sides = f"{len(split['train'])} images to train, {len(split['validation'])} to validate"
    validated = ", ".join(sorted({eye_of(name) for name in split["validation"]})) or "none"
    print(f"split by eye: {sides} ({validated})")
    find_threshold = args.all_eyes and args.threshold is None and len(data_sets) > 1
    if find_threshold:
        for _ in eyes_for_threshold(args.data, list(eyes.values())):
            pass  # a damaged one is found now rather than after hours
    with claim(args.files) if processes.is_main() else contextlib.nullcontext():
        state = train(here, settings, split, eyes, None if resume else plan_move(args.files))
        if state is None:
            return False
        if processes.is_main() and (find_threshold or args.threshold is not None):
            keep_threshold(here, state, args.threshold, list(eyes.values()))
    conclude(here, state)
    return True


def keep_threshold(here: Run, state: Training, threshold: float | None, eyes: Sequence[Eye]) -> None:
    """Store the threshold of a network on all eyes: the one given, or the best of its data sets."""
    from model import fold_batch_norm

    if threshold is None:
        threshold = threshold_of_best(compromise_curve(fold_batch_norm(state.averaged), here.data, eyes))
        print(f"threshold {threshold:.2f}: the best compromise between the data sets")
    state.save(here.files / "checkpoint.pth", state.averaged, threshold=threshold, scores=state.history[-1])


def conclude(here: Run, state: Training) -> None:
    """Print the result and what to do next."""
    checkpoint, minutes = here.files / "checkpoint.pth", state.history[-1]["seconds"] / 60
    validated = bool(state.split["validation"])
    reached = f"best validation F1 {state.best:.4f}" if validated else "trained on every eye, not validated,"
    print(f"{checkpoint}: {reached} after {minutes:.1f} minutes of training")
    preview = f", {here.files / 'preview.png'}" if validated else ""
    if validated and state.start_f1 == state.best:
        print(f"no epoch was better than {state.settings.start_from}: {checkpoint} is that network")
    print(f"to look at: {here.files / 'curves.png'}{preview}")
    print(f"next: {here.next_step()} {checkpoint}")


if __name__ == "__main__":
    run(main, lower="--batch-size, --crop, --width, --depth or --workers")
