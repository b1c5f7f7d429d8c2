"""What each part of the recipe for several cameras is worth on data sets left out; run by hand.

Trains once with the recipe, with other seeds, and without each of its parts, and scores the data set left
out in one view; at last the mean over the data sets. What is finished is kept in --files, so the same command
goes on after a stop. A second one may train other variants or data sets into the same folder meanwhile.

    python augment.py DRIVE STARE HRF --leave-one-out --diameter 720
    python -m research.ablations STARE HRF DRIVE --crops 1120 --every 4
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import train
from data import read_sets
from datasets.eyes import Eye
from datasets.images import read_levels
from scoring import metrics
from training import crops, held_out, thresholds
from training.held_out_tables import probability_of
from utils import UserError, run

ROOT = Path(__file__).resolve().parent.parent

COLUMNS = ("auc", "average_precision", "f1")
FEW = 20  # eyes that are all scored


def unchanged(rng: np.random.Generator, photograph: np.ndarray, *_: Any) -> np.ndarray:
    """In place of what changes a crop."""
    return photograph


def any_eye(self: crops.Crops, i: int) -> tuple[np.random.Generator, int]:
    """In place of `Crops.choose`: every eye is as likely, whatever its data set."""
    rng = np.random.default_rng([self.seed, i])
    return rng, int(rng.integers(len(self.eyes)))


# each with more flags of train.py, and what is put in place of what
VARIANTS: dict[str, tuple[list[str], Callable[[], Any]]] = {
    "the recipe": ([], ExitStack),
    "another seed": (["--seed", "43"], ExitStack),
    "a third seed": (["--seed", "44"], ExitStack),
    "scales from 0.6": ([], lambda: mock.patch.object(crops, "OTHER_SCALE", (0.6, 1.8))),
    "scales of one camera": ([], lambda: mock.patch.object(crops, "OTHER_SCALE", crops.OWN_SCALE)),
    "no gamma of each channel": ([], lambda: mock.patch.object(crops, "change_colour", unchanged)),
    "no few pixels or JPEG blocks": ([], lambda: mock.patch.object(crops, "spoil_file", unchanged)),
    "no light, blur or noise": ([], lambda: mock.patch.object(crops, "change_camera", unchanged)),
    "no even contrast": (["--clahe", "0"], ExitStack),
    "no lens rim": ([], lambda: mock.patch.object(crops, "draw_rim", unchanged)),
    "each eye as likely": ([], lambda: mock.patch.object(crops.Crops, "choose", any_eye)),
    "width 16": (["--width", "16"], ExitStack),
    "width 32": (["--width", "32"], ExitStack),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_sets", nargs="+", help="to leave out, each in turn")
    parser.add_argument("--data", type=Path, default=Path("new_data"))
    parser.add_argument("--files", type=Path, default=Path("files/ablations"))
    parser.add_argument(
        "--start-from",
        type=Path,
        nargs="?",
        default=ROOT / "files" / "drive_unet.pth",
        help="weights of a data set that is not left out; without a path: random weights for all",
    )
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--crops", type=int, default=2240, help="random crops an epoch")
    parser.add_argument("--every", type=int, default=1, help="of more than 20 eyes, score every N-th")
    parser.add_argument("--threshold", type=float, default=0.38)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), help="default: all")
    args = parser.parse_args()
    # another width can't begin with given weights
    given = [name for name, (flags, _) in VARIANTS.items() if not (args.start_from and "--width" in flags)]
    args.only = args.only or given
    return args


def train_one(args: argparse.Namespace, name: str, data_set: str) -> Path:
    """Train a variant without a data set as far as that is not done; returns its folder, with probability/."""
    files = args.files / name.replace(" ", "_").replace(",", "")
    flags, change = VARIANTS[name]
    # a data set that --start-from has seen begins with random weights, as wide as the others
    command = ["--leave-one-out", data_set, "--width", 24]
    own = ["--disc", 112, "--camera", 0.3, "--degrade", 0.5, "--clahe", 0.5]  # else those of the start stay
    command += ["--start-from", args.start_from, *own] if args.start_from else []
    command += ["--epochs", args.epochs, "--crops", args.crops, "--data", args.data, "--files", files, *flags]
    if (files / f"without_{data_set}" / "last.pth").exists():
        command.append("--resume")
    segment, native_eyes = held_out.segment, held_out.native_eyes

    def one_view(*given: Any, **named: Any) -> np.ndarray:
        return segment(*given, **{**named, "views": 1})

    with (
        change(),
        mock.patch.object(held_out, "segment", one_view),
        mock.patch.object(held_out, "native_eyes", lambda *given: some(args, native_eyes(*given))),
        # the threshold is given here, so none is looked for on the eyes that train
        mock.patch.object(held_out, "compromise_curve", lambda *_: np.zeros(len(thresholds.THRESHOLDS))),
        mock.patch.object(sys, "argv", ["train.py", *map(str, command)]),
    ):
        if train.main():
            raise UserError("stopped")
    return files / f"without_{data_set}"


def some(args: argparse.Namespace, eyes: Iterable[Eye]) -> Iterator[Eye]:
    """Every N-th of the eyes where they are many."""
    every = list(eyes)
    return iter(every[:: args.every] if len(every) > FEW else every)


def score(args: argparse.Namespace, folder: Path, data_set: str) -> dict[str, float]:
    """Mean scores of the eyes left out, and F1 at the threshold that is best for all of them."""
    names = [name for name, own in read_sets(args.data).items() if own == data_set]
    rows, curves = [], []
    for eye in some(args, thresholds.native_eyes(args.data, names)):
        levels = read_levels(probability_of(folder, eye.name))
        counts = metrics.count_image(levels, eye.truth, eye.fov, args.threshold)
        rows.append(metrics.all_scores(*counts, args.threshold))
        curves.append(thresholds.f1_curve(metrics.count_levels(levels, eye.truth, eye.fov)))
    mean = metrics.mean(rows)
    return {column: mean[column] for column in COLUMNS} | {"best f1": np.mean(curves, axis=0).max()}


def main() -> None:
    args = parse_args()
    found: dict[str, dict[str, dict[str, float]]] = {}
    for data_set in args.data_sets:
        found[data_set] = {name: score(args, train_one(args, name, data_set), data_set) for name in args.only}
        show(f"{data_set} left out", found[data_set], args.threshold)
    if len(found) > 1:
        sets = list(found.values())
        means = {
            name: {column: np.mean([own[name][column] for own in sets]) for column in sets[0][name]}
            for name in args.only
        }
        show(f"mean of {', '.join(found)}", means, args.threshold)


def show(title: str, rows: dict[str, dict[str, Any]], threshold: float) -> None:
    """Print a table, a row for each variant."""
    print(f"| {title}, one view | AUC | average precision | F1 at {threshold} | own best |")
    print("|---|---|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(f'{row[c]:.4f}' for c in (*COLUMNS, 'best f1'))} |", flush=True)


if __name__ == "__main__":
    run(main)
