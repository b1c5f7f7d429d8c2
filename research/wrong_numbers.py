"""Score one network by honest rules and by common wrong ones, on the same eyes; run by hand.

Every row of the table has the same weights and the same photographs. Only what is scored differs: the field of
view or the whole image, the checkpoint's own threshold or the best one for these very eyes, the native size or
a square.

    python -m research.wrong_numbers --data new_data --weights files/drive_unet.pth
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from data import eye_of, read_eyes
from datasets.eyes import Eye, squash
from networks.loading import add_prediction_flags, load_networks
from prediction.scale import factors_for
from prediction.segmentation import segment
from scoring import metrics
from system.devices import pick_device
from utils import UserError, run

ROOT = Path(__file__).resolve().parent.parent

COLUMNS = {"F1": "f1", "recall": "recall", "precision": "precision", "accuracy": "accuracy"}
COLUMNS |= {"specificity": "specificity", "AUC": "auc"}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("new_data"), help="its test eyes are scored")
    parser.add_argument("--weights", type=Path, nargs="+", default=[ROOT / "files" / "drive_unet.pth"])
    parser.add_argument("--side", type=int, default=512, help="of the square, in pixels")
    add_prediction_flags(parser)
    return parser.parse_args()


def best_mean_threshold(counts: Sequence[np.ndarray]) -> float:
    """The threshold with the highest mean F1 of these images, which no honest score may use.

    Args:
        counts: int64 (2, 65536) of each, from `metrics.count_levels`.
    """
    total = np.zeros(metrics.LEVELS)
    for background, vessels in counts:
        found, false = vessels[::-1].cumsum()[::-1], background[::-1].cumsum()[::-1]
        total += 2 * found / np.maximum(found + false + vessels.sum(), 1)
    return int(total.argmax()) / (metrics.LEVELS - 1)


def print_rows(size: str, eyes: Sequence[Eye], levels: Sequence[np.ndarray], own: float) -> None:
    """Print the scores of these levels, uint16 (H, W) of each eye, by each rule."""
    for where in ("field of view", "whole image"):
        whole = where == "whole image"
        counts = [
            metrics.count_levels(found, eye.truth, np.full_like(eye.fov, 255) if whole else eye.fov)
            for found, eye in zip(levels, eyes, strict=True)
        ]
        for threshold, whose in ((own, "its own"), (best_mean_threshold(counts), "the eyes' best")):
            mean = metrics.mean([metrics.scores(each, threshold) for each in counts])
            figures = " | ".join(f"{mean[column]:.4f}" for column in COLUMNS.values())
            print(f"| {size} | {where} | {whose}, {threshold:.2f} | {figures} |", flush=True)


def main() -> None:
    args = parse_args()
    model, own = load_networks(args.weights, args.threshold, pick_device(args.device))
    eyes = read_eyes(args.data / "test", labels=True)
    if seen := [eye.name for eye in eyes if eye_of(eye.name) in model.trained_on]:
        raise UserError(f"{args.data}: {', '.join(seen)} trained this network; give eyes that it has not seen")
    squashed = [squash(eye, args.side) for eye in eyes]
    factors = factors_for([eye.image for eye in eyes], model)
    native = [
        segment(model, eye.image, eye.fov, args.views, own) for eye, own in zip(eyes, factors, strict=True)
    ]
    square = [segment(model, eye.image, eye.fov, args.views) for eye in squashed]
    back = [cv2.resize(found, eye.fov.shape[::-1]) for found, eye in zip(square, eyes, strict=True)]
    print(f"{len(eyes)} eyes, means over the eyes")
    print(f"| size | scored in | threshold | {' | '.join(COLUMNS)} |")
    print("|---" * (3 + len(COLUMNS)) + "|")
    side = f"{args.side} x {args.side}"
    for size, whose, found in (
        ("native", eyes, native),
        (side, squashed, square),
        (f"{side}, then native", eyes, back),
    ):
        print_rows(size, whose, [metrics.quantize(probability) for probability in found], own)


if __name__ == "__main__":
    run(main)
