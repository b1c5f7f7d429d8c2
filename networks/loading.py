"""The networks that a script predicts with, and the flags that choose them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from networks.checkpoints import KINDS, VESSELS, find_weights, load_checkpoint
from system.devices import keep_memory
from utils import UserError, between, path_name

if TYPE_CHECKING:
    import torch

    from model import Network

USUAL_VIEWS = 4  # averaged; the other four gain less than 0.001 of F1 (docs/results.md)
# in `files`: the first that is there segments photographs
USUAL_WEIGHTS = ("fundus_unet.pth", "drive_unet.pth", "checkpoint.pth")
KINDS_WEIGHTS = ("arteries_veins.pth",)  # tells arteries from veins


def add_weights(parser: argparse.ArgumentParser, default: str, nargs: str | None = "+") -> None:
    """Add --weights, which may be given again; `nargs` None: one checkpoint each time."""
    parser.add_argument(
        "--weights",
        type=path_name,
        nargs=nargs,
        action="extend" if nargs else "append",
        help=f"a checkpoint, or several, whose probabilities are averaged (default: {default})",
    )


def add_prediction_flags(parser: argparse.ArgumentParser, views: int = USUAL_VIEWS) -> None:
    """Add the flags common to all scripts that predict; `views` is the default of their number."""
    add_threshold(parser, "probability that makes a vessel (default: the checkpoint's)")
    parser.add_argument(
        "--views",
        type=int,
        choices=(1, 2, 4, 8),
        default=views,
        help="flips and turns of a photograph that are averaged: fewer are a little worse and as much faster "
        "(default: %(default)s)",
    )
    add_device(parser)


def add_threshold(parser: argparse._ActionsContainer, help: str) -> None:
    """Add --threshold, a probability from 0 to 1."""
    parser.add_argument("--threshold", type=between(0, 1), help=help)


def add_device(parser: argparse._ActionsContainer) -> None:
    """Add --device."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")


def add_kinds(parser: argparse.ArgumentParser, default: str) -> None:
    """Add --arteries-veins and --arteries-veins-weights; `default` says when they are told apart."""
    parser.add_argument(
        "--arteries-veins",
        action=argparse.BooleanOptionalAction,
        help=f"tell arteries from veins and measure each (default: {default})",
    )
    parser.add_argument(
        "--arteries-veins-weights",
        type=path_name,
        metavar="FILE",
        help="the checkpoint that tells them apart, of train.py --arteries-veins "
        f"(default: files/{KINDS_WEIGHTS[0]})",
    )


def choose_kinds(args: argparse.Namespace, default: bool) -> Path | None:
    """The checkpoint that tells arteries from veins; None where they are not told apart.

    `default` says whether they are if no flag does.

    Raises:
        UserError: the flags contradict each other, or there is no checkpoint.
    """
    asked, weights = args.arteries_veins, args.arteries_veins_weights
    if weights and asked is False:
        raise UserError(f"--arteries-veins-weights {weights}: not used with --no-arteries-veins; leave out one")
    if not (weights or (default if asked is None else asked)):
        return None
    return weights or find_weights(KINDS_WEIGHTS, flag="--arteries-veins-weights")


def load_kinds(path: Path | None, device: torch.device) -> Network | None:
    """Load what `choose_kinds` gives: a network of arteries and veins, in evaluation mode on `device`.

    Raises:
        UserError: as `load_checkpoint`.
    """
    from model import fold_batch_norm

    return fold_batch_norm(load_checkpoint(path, device, KINDS)[0]) if path else None


def name_weights(weights: Sequence[Path], of_kinds: Path | None) -> str:
    """The checkpoints that a script uses, those of vessels and that of `choose_kinds`, in words."""
    return ", ".join(map(str, weights)) + (f"; arteries and veins: {of_kinds}" if of_kinds else "")


def load_networks(
    weights: Sequence[Path], asked: float | None, device: torch.device, outputs: Sequence[str] = VESSELS
) -> tuple[Network, float]:
    """Load one checkpoint that finds `outputs`, or several whose probabilities are averaged.

    Returns:
        The network in evaluation mode on `device`, and the threshold in [0, 1]: the one asked for, else the
        mean of the checkpoints'.

    Raises:
        UserError: as `load_checkpoint`; none was asked for and a checkpoint holds none; their scales differ.
    """
    from model import Ensemble, fold_batch_norm

    keep_memory()
    loaded = [load_checkpoint(path, device, outputs) for path in weights]
    for path, (_, own) in zip(weights, loaded, strict=True):
        if asked is None and own.get("threshold") is None:
            raise UserError(f"{path}: holds no threshold (a last.pth?); use checkpoint.pth or give --threshold")
    thresholds = [own["threshold"] if asked is None else asked for _, own in loaded]
    if len(scales := {(network.disc or 0, network.diameter) for network, _ in loaded}) > 1:
        each = [f"{disc:g} per disc" if disc else f"{fov:g} per field of view" for disc, fov in sorted(scales)]
        words = f"trained at different scales, pixels {' and '.join(each)}, which cannot be averaged"
        raise UserError(f"--weights: {words}")
    networks: list[Network] = [fold_batch_norm(network) for network, _ in loaded]
    model = networks[0] if len(networks) == 1 else Ensemble(networks).eval()
    return model, float(np.mean(thresholds))
