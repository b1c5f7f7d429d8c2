"""Train the network that finds disc and fovea, on DRIVE, HRF, IDRiD, STARE and CHASE_DB1.

python -m research.anatomy ANATOMY --drive DRIVE --marked STARE HRF CHASE_DB1
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anatomy.landmarks import OUTPUTS, WEIGHTS
from networks.checkpoints import halved, load_checkpoint, save_checkpoint
from research.anatomy_labels import FOLDS, LabelledEye, find_labels, held_out, read_labelled_eyes
from research.anatomy_views import RandomWindows
from system.devices import autocast, describe, pick_device
from training.batches import load
from training.optimizers import make_optimizer, one_cycle
from training.settings import usual_workers
from utils import HelpFormatter, UserError, between, folder_name, path_name, run, seed_number

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from model import UNet

FOVEA_WEIGHT = 0.5  # of its loss; the place of a fovea is less sharp than the outline of a disc
AVERAGE = 0.99  # of the weights, kept from one step to the next
WIDTH = 11  # of the first level; its weights in half precision fill the 2 MiB that the file may have


def parse_args() -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], formatter_class=HelpFormatter)
    parser.add_argument("anatomy", type=folder_name, help="folder with the labels of DRIVE, and IDRiD")
    parser.add_argument("--drive", type=folder_name, help="the data set DRIVE; without it, it does not train")
    parser.add_argument(
        "--marked",
        type=folder_name,
        nargs="+",
        default=[],
        metavar="DATA_SET",
        help="those of STARE, HRF and CHASE_DB1 that are to train; this project marked their discs",
    )
    parser.add_argument("--fold", type=int, choices=range(FOLDS), help="hold out this third of IDRiD")
    parser.add_argument("--out", type=path_name, default=WEIGHTS, help="file of the weights")
    parser.add_argument("--steps", type=int, default=1000, help="of training")
    parser.add_argument("--batch-size", type=int, default=8, help="windows a step")
    parser.add_argument("--lr", type=float, default=0.02, help="peak learning rate")
    parser.add_argument("--seed", type=seed_number, default=42, help="of everything random")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument(
        "--workers", type=between(0, kind=int), help="processes that cut windows (default: GPU up to 8, CPU 0)"
    )
    args = parser.parse_args()
    for flag in ("steps", "batch_size", "lr"):
        if not getattr(args, flag) > 0:
            parser.error(f"--{flag.replace('_', '-')}: give a number above 0")
    return args


def landmark_loss(logits: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy of the known pixels, plus the soft Dice loss of each window that has a disc or a fovea.

    The second counts a small disc as much as a large one.

    Args:
        logits: (N, 2, H, W), any float type; computed in float32.
        targets: float32 (N, 2, H, W), 0 or 1.
        known: float32 (N, 2, H, W), 1 where the target is known, else 0.

    Returns:
        Scalar, 0 or more.
    """
    import torch.nn.functional as F

    logits = logits.float()
    entropy = F.binary_cross_entropy_with_logits(logits, targets, known, reduction="none").sum((0, 2, 3))
    entropy = entropy / known.sum((0, 2, 3)).clamp(1)
    probability = logits.sigmoid() * known
    both, found, true = (part.sum((2, 3)) for part in (probability * targets, probability, targets))
    there = (true > 0).float()
    dice = (1 - (2 * both + 1) / (found + true + 1)) * there
    loss = 2 * entropy + dice.sum(0) / there.sum(0).clamp(1)
    return loss[0] + FOVEA_WEIGHT * loss[1]


def fit_anatomy(eyes: Sequence[LabelledEye], args: argparse.Namespace, device: torch.device) -> UNet:
    """Train a network of two outputs on these eyes; returns its averaged weights, in evaluation mode.

    Raises:
        UserError: the loss became infinite or NaN.
    """
    import torch
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
    from tqdm import trange

    from model import UNet

    torch.manual_seed(args.seed)
    network = UNet(3, len(OUTPUTS), width=WIDTH, depth=4).to(device).to(memory_format=torch.channels_last)
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE), use_buffers=True)
    optimizer = make_optimizer(network, "muon", args.lr)
    windows, losses = RandomWindows(eyes, args.seed, args.steps * args.batch_size), []
    workers = usual_workers(device) if args.workers is None else args.workers
    batches = iter(load(windows, args.batch_size, workers=workers, device=device))
    for step in (bar := trange(args.steps, unit="step", disable=None)):
        inputs, targets, known = (part.to(device, non_blocking=True) for part in next(batches))
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(step / args.steps, args.lr) * group.get("factor", 1)
        with autocast(device):
            logits = network(inputs.contiguous(memory_format=torch.channels_last))
        loss = landmark_loss(logits, targets, known)
        losses.append(loss.item())
        if not np.isfinite(losses[-1]):
            raise UserError(f"the loss became {losses[-1]} in step {step + 1}; train with a lower --lr")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        averaged.update_parameters(network)
        if (step + 1) % 100 == 0:
            bar.write(f"step {step + 1:5d}/{args.steps}  loss {np.mean(losses[-100:]):.4f}")
    network.load_state_dict(averaged.module.state_dict())
    return network.eval()


def save_anatomy(
    path: Path, network: UNet, names: Sequence[str], args: argparse.Namespace, seconds: float
) -> None:
    """Write the weights, what they find, and how they were trained."""
    import torch

    settings = {name: getattr(args, name) for name in ("steps", "batch_size", "lr", "seed")}
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    weights = {name: value.cpu().contiguous() for name, value in halved(network.state_dict()).items()}
    content = {"model": network.config, "outputs": list(OUTPUTS), "weights": weights, "settings": settings}
    split = {"train": list(names), "validation": []}
    save_checkpoint(path, {**content, "split": split, "versions": versions, "seconds": seconds})


def refuse_other_file(path: Path) -> None:
    """Raise UserError if the weights would replace anything but weights of the same kind."""
    import torch

    if path.is_dir():
        raise UserError(f"--out {path}: a folder; name a file")
    try:
        if path.exists():
            load_checkpoint(path, torch.device("cpu"), OUTPUTS)
    except UserError as error:
        raise UserError(f"--out would replace another file: {error}") from None


def main() -> None:
    """Read, train, write."""
    args = parse_args()
    device = pick_device(args.device)
    refuse_other_file(args.out)
    eyes = list(read_labelled_eyes(find_labels(args.anatomy, args.drive, args.marked)))
    if args.fold is not None:
        eyes = [eye for eye, out in zip(eyes, held_out(eyes, args.fold), strict=True) if not out]
    groups = [eye.group for eye in eyes]
    print(", ".join(f"{groups.count(group)} eyes of {group}" for group in dict.fromkeys(groups)))
    print(f"training on {describe(device)}")
    start = time.monotonic()
    network = fit_anatomy(eyes, args, device)
    seconds = time.monotonic() - start
    save_anatomy(args.out, network, [eye.name for eye in eyes], args, seconds)
    print(f"{args.out}: {seconds / 60:.1f} minutes")


if __name__ == "__main__":
    run(main, "--batch-size")
