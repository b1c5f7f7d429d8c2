"""What each part of the recipe for several cameras is worth on a data set left out; run by hand.

Trains once with the recipe, with other seeds, and without each of its parts, and scores the data set left
out in one view. What is finished is kept in --files, so the same command goes on after a stop.

    python augment.py DRIVE STARE HRF --leave-one-out --diameter 720
    python tests/ablations.py STARE
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import train  # noqa: E402
from data import eye_of, read_sets  # noqa: E402
from datasets.images import read_levels  # noqa: E402
from scoring import metrics  # noqa: E402
from training import crops, leave_one_out  # noqa: E402
from utils import UserError, run  # noqa: E402

COLUMNS = ("auc", "average_precision", "f1")


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
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_set", help="to leave out")
    parser.add_argument("--data", type=Path, default=Path("new_data"))
    parser.add_argument("--files", type=Path, default=Path("files/ablations"))
    parser.add_argument("--start-from", type=Path, default=ROOT / "files" / "drive_unet.pth")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--threshold", type=float, default=0.36)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    return parser.parse_args()


def train_one(args: argparse.Namespace, name: str) -> Path:
    """Train a variant as far as that is not done; returns its folder, with probability/."""
    files = args.files / name.replace(" ", "_").replace(",", "")
    flags, change = VARIANTS[name]
    command = ["--leave-one-out", args.data_set, "--start-from", args.start_from, "--epochs", args.epochs]
    command += [
        "--data",
        args.data,
        "--files",
        files,
        "--resume" if any(files.glob("*/last.pth")) else "",
        *flags,
    ]
    original = leave_one_out.segment

    def segment(*given: Any, **named: Any) -> np.ndarray:
        return original(*given, **{**named, "tta": False})

    with (
        change(),
        mock.patch.object(leave_one_out, "segment", segment),
        mock.patch.object(sys, "argv", ["train.py", *filter(None, map(str, command))]),
    ):
        if train.main():
            raise UserError("stopped")
    return files / f"without_{args.data_set}"


def score(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Mean scores of the eyes left out, and F1 at the threshold that is best for all of them."""
    names = [name for name, data_set in read_sets(args.data).items() if data_set == args.data_set]
    rows, curves = [], []
    for eye in leave_one_out.native_eyes(args.data, names):
        levels = read_levels(folder / "probability" / f"{eye_of(eye.name)}.png")
        rows.append(metrics.score_image(levels, eye.truth, eye.fov, args.threshold))
        curves.append(leave_one_out.f1_curve(metrics.count_levels(levels, eye.truth, eye.fov)))
    mean, curve = metrics.mean(rows), np.mean(curves, axis=0)
    return {column: mean[column] for column in COLUMNS} | {"best f1": curve.max(), "eyes": len(rows)}


def main() -> None:
    args = parse_args()
    found = {name: score(args, train_one(args, name)) for name in args.only}
    print(
        f"| {args.data_set} left out, one view | AUC | average precision | F1 at {args.threshold} | own best |"
    )
    print("|---|---|---|---|---|")
    for name, row in found.items():
        print(f"| {name} | {' | '.join(f'{row[c]:.4f}' for c in (*COLUMNS, 'best f1'))} |")


if __name__ == "__main__":
    run(main)
