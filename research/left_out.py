"""The networks of train.py --leave-one-out, each with the eyes that it has not seen."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from data import read_sets
from datasets.eyes import Eye
from model import Network, fold_batch_norm
from networks.checkpoints import load_checkpoint
from training.thresholds import native_eyes
from utils import path_name


def add_left_out(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which networks and eyes, and at which threshold they are scored."""
    parser.add_argument("data_sets", nargs="*", help="that were left out (default: all)")
    parser.add_argument("--data", type=path_name, default=Path("new_data"), help="written with --leave-one-out")
    parser.add_argument("--files", type=path_name, default=Path("files"), help="of train.py --leave-one-out")
    parser.add_argument("--every", type=int, default=1, help="score every N-th eye")
    parser.add_argument("--threshold", type=float, default=0.38, help="probability that makes a vessel")


def left_out(args: argparse.Namespace) -> Iterator[tuple[str, Network, list[Eye]]]:
    """Each data set, the network that was trained without it, and its eyes at native size."""
    sets: dict[str, list[str]] = {}
    for name, data_set in read_sets(args.data).items():
        sets.setdefault(data_set, []).append(name)
    for data_set in args.data_sets or sets:
        network, _ = load_checkpoint(args.files / f"without_{data_set}" / "checkpoint.pth")
        eyes = native_eyes(args.data, sorted(sets[data_set])[:: args.every])
        yield data_set, fold_batch_norm(network), list(eyes)
