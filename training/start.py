"""The start of a training: settings, network and optimizer, new or resumed."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anatomy.photograph import DISC_SHARE
from data import first_copies, read_disc
from datasets.eyes import Eye
from datasets.field_of_view import fov_diameter
from networks.checkpoints import learned, load_checkpoint
from pages.report import write_history
from prediction.scale import working_diameter
from system import processes
from system.devices import pick_device
from system.files import atomic
from training.earlier import check_own, holds_training, list_own, set_aside, undo_move
from training.optimizers import make_optimizer
from training.state import Training
from training.time_budget import fit_to_minutes
from utils import UserError, seed_everything

if TYPE_CHECKING:
    import torch

    from model import Network


def settle(args: argparse.Namespace, device: torch.device, sets: int = 1) -> dict[str, Any]:
    """Fill in the defaults that depend on the device and on the number of data sets.

    Returns:
        The settings that determine the weights.
    """
    gpu = device.type != "cpu"
    if args.camera is None:
        args.camera = 0.15 if sets == 1 else 0.3
    if args.degrade is None:
        args.degrade = 0.0 if sets == 1 else 0.5
    if args.clahe is None:
        args.clahe = 0.0 if sets == 1 else 0.5
    if args.start_from:
        initial, _ = load_checkpoint(args.start_from, pick_device("cpu"))
        for flag, own in (("width", args.width), ("depth", args.depth)):
            if own not in (None, initial.config[flag]):
                raise UserError(f"--{flag} {own}: the network of {args.start_from} has {initial.config[flag]}")
        args.model = initial.config["name"]
        args.width, args.depth = initial.config["width"], initial.config["depth"]
    if args.width is None or args.depth is None:
        reason = "GPU: that of the shipped weights" if gpu else "no GPU: smaller, as accurate on DRIVE"
        why = f" ({reason})" if args.width is None else ""
        args.width, args.depth = args.width or (24 if gpu else 16), args.depth or 3
        print(f"network: width {args.width}, depth {args.depth}{why}")
    if args.workers is None:
        args.workers = 4 if gpu else 0
    if args.batch_size is None:
        args.batch_size = 8 if gpu else 4  # 4 crops leave a GPU idle, see docs/speed.md
    network = ("model", "pretrained", "width", "depth")
    cut = ("epochs", "crops", "minutes", "batch_size", "crop", "choroid", "camera", "degrade", "clahe")
    decisive = (*network, *cut, "optimizer", "lr", "dice", "ema", "seed", "start_from")
    usual = {"muon": 0.02, "adamw": 0.005}[args.optimizer]
    # weights that are good already need smaller steps
    rate = args.lr or usual * (0.4 if args.start_from else 1)
    start_from = str(args.start_from) if args.start_from else None
    settings = vars(args) | {"lr": rate, "start_from": start_from}
    return {name: settings[name] for name in decisive}


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

    from model import NETWORKS, ResUNet

    if processes.is_main():
        undo_move(args.files)
        if not args.resume:  # a last.pth may have been brought here from another machine
            check_own(args.files)
    processes.from_main(None)  # the others wait
    seed_everything(args.seed)
    model = NETWORKS[args.model](width=args.width, depth=args.depth)
    if isinstance(model, ResUNet) and args.pretrained and not args.resume:
        model.load_imagenet()
    if args.start_from and not args.resume:
        initial, _ = load_checkpoint(args.start_from, pick_device("cpu"))
        model.load_state_dict(initial.state_dict())
    set_scale(model, args.data, training)
    model = model.to(device).to(memory_format=torch.channels_last)
    average = None
    if args.ema:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(args.ema), use_buffers=True)
    optimizer = make_optimizer(model, settings)
    state = Training(settings, split, model, average, optimizer, chosen=args.chosen)
    if args.resume:
        state.restore(args.files / "last.pth")
    elif args.minutes:
        state.settings |= fit_to_minutes(model, training, validation, settings)
        print("{epochs} epochs of {crops} crops fit into {minutes:g} minutes".format(**state.settings))
    for network in (state.model, state.averaged):  # a resumed training keeps its own settings
        learned(network, state.settings)
    processes.check_same(
        [state.settings, split, len(state.history), state.losses],
        "flags, eyes, or last.pth; start all nodes with the same command, the same data, and one folder "
        "--files that all of them see",
    )
    if processes.is_main():
        if args.resume or not (args.make_room or holds_training(args.files)):
            write_split(args.files, split)
            if state.history:
                write_history(args.files, state.history)  # a kill may have come between the two files
        else:  # an earlier training stays until a checkpoint of this one is ready
            state.make_room = lambda: make_room(args, split)
    state.start = time.time()
    return state


def set_scale(model: Network, data: Path, eyes: Sequence[Eye]) -> None:
    """Note in a network the scale of the eyes of new_data, `data`, that train it."""
    model.disc = read_disc(data)
    diameters = [fov_diameter(eye.fov) for eye in first_copies(eyes)]
    model.diameter = model.disc / DISC_SHARE if model.disc else working_diameter(diameters)


def make_room(args: argparse.Namespace, split: dict[str, list[str]]) -> None:
    """Move an earlier training away."""
    if args.make_room:
        args.make_room()
    set_aside(args.files)
    write_split(args.files, split)


def write_split(files: Path, split: dict[str, list[str]]) -> None:
    """Begin the folder of a training with the list of its files and its split."""
    list_own(files)
    with atomic(files / "split.json") as temporary:
        temporary.write_text(json.dumps(split, indent=1) + "\n")
