"""The start of a training: settings, network and optimizer, new or resumed."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from data import Eye
from scoring.report import write_history
from system.files import atomic
from training import distributed
from training.optimizers import make_optimizer
from training.state import Training, set_aside
from training.time_budget import fit_to_minutes
from utils import seed_everything

if TYPE_CHECKING:
    import torch


def settle(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Fill in the defaults that depend on the device, and return the settings that determine the weights."""
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

    seed_everything(args.seed)
    model = NETWORKS[args.model](width=args.width, depth=args.depth)
    if isinstance(model, ResUNet) and args.pretrained and not args.resume:
        model.load_imagenet()
    model = model.to(device).to(memory_format=torch.channels_last)
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
            write_history(args.files, state.history)  # a kill may have come between the two files
        with atomic(args.files / "split.json") as temporary:
            temporary.write_text(json.dumps(split, indent=1) + "\n")
    state.start = time.time()
    return state
