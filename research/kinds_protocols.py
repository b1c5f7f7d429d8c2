"""Score one picture of arteries and veins by the protocols of published papers, on the same eyes; run by hand.

The picture is the truth, spoilt in known ways. Every row has one picture, every column another protocol.

    python augment.py DRIVE --arteries-veins DRIVE_AV --leave-one-out --out new_kinds
    python -m research.kinds_protocols --data new_kinds
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from data import read_eyes
from datasets.eyes import Eye
from datasets.kinds import ARTERY, BOTH, NONE, UNCERTAIN, VEIN, join_kinds, split_kinds
from scoring.kinds import count_kinds, kinds_scores
from scoring.metrics import mean, skeleton, vessel_width
from utils import UserError, run

THIN = 3  # pixels: vessels that are missed are at most so wide


def without_thin(kinds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half of the stretches of thin vessels are missed."""
    stretch = stretches(kinds)
    missed = rng.random(stretch.max() + 1) < 0.5
    return np.where(missed[stretch] & (vessel_width(kinds) <= THIN), NONE, kinds).astype(np.uint8)


def a_pixel_wider(kinds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each kind reaches a pixel further to the right and down."""
    artery, vein = (cv2.dilate(own.astype(np.uint8), np.ones((2, 2), np.uint8)) for own in split_kinds(kinds))
    return join_kinds(artery, vein)


def some_swapped(kinds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One stretch between two branch points in sixteen is called the other kind."""
    stretch = stretches(kinds)
    wrong = rng.random(stretch.max() + 1) < 1 / 16
    other = np.array([NONE, VEIN, ARTERY, BOTH], np.uint8)[np.where(kinds == UNCERTAIN, NONE, kinds)]
    return np.where(wrong[stretch], other, kinds).astype(np.uint8)


def stretches(kinds: np.ndarray) -> np.ndarray:
    """The number of the nearest stretch of centre line between branch points, int32 (H, W)."""
    lines = skeleton(kinds != NONE)
    beside = cv2.boxFilter(
        lines.astype(np.float32), -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT
    )
    lines &= beside < 3.5  # a branch point has three neighbours or more
    _, number = cv2.connectedComponents(lines.astype(np.uint8), connectivity=8)
    _, nearest = cv2.distanceTransformWithLabels(
        (~lines).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    number_of = np.zeros(nearest.max() + 1, np.int32)
    number_of[nearest[lines]] = number[lines]
    return number_of[nearest]


SPOILT: dict[str, tuple[Callable[[np.ndarray, np.random.Generator], np.ndarray], ...]] = {
    "the truth itself": (),
    "a sixteenth of the stretches swapped": (some_swapped,),
    "and half of the thin vessels missed": (some_swapped, without_thin),
    "and borders a pixel off": (some_swapped, without_thin, a_pixel_wider),
}


def protocols(eye: Eye, called: np.ndarray) -> dict[str, float]:
    """The scores of a picture, uint8 (H, W), by each protocol."""
    assert eye.kinds is not None
    ours = kinds_scores(count_kinds(*split_kinds(called), eye.kinds, eye.fov))
    # crossings belong to no kind
    bare, truth = (np.where(drawn == BOTH, NONE, drawn) for drawn in (called, eye.kinds))
    none = kinds_scores(count_kinds(*split_kinds(bare), truth, eye.fov))
    return {
        "F1, all pixels": ours["f1_mean"],
        "F1, crossings in no kind": none["f1_mean"],
        "accuracy, missed pixels are wrong": ours["accuracy"] * ours["found"],
        "accuracy, found pixels": ours["accuracy"],
        "accuracy, centre lines": ours["centre_accuracy"],
        "found": ours["found"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("new_data"), help="its test eyes are scored")
    args = parser.parse_args()
    eyes = [eye for eye in read_eyes(args.data / "test", labels=True) if eye.kinds is not None]
    if not eyes:
        raise UserError(
            f"{args.data / 'test'}: no labels of arteries and veins; see augment.py --arteries-veins"
        )
    print(f"{len(eyes)} eyes, means over the eyes")
    for what, steps in SPOILT.items():
        rows = []
        for number, eye in enumerate(eyes):
            called, rng = np.array(eye.kinds), np.random.default_rng(number)
            for spoil in steps:
                called = spoil(called, rng)
            rows.append(protocols(eye, called))
        scores = mean(rows)
        if not steps:
            print(f"| picture | {' | '.join(scores)} |")
            print("|---" * (1 + len(scores)) + "|")
        print(f"| {what} | {' | '.join(f'{value:.3f}' for value in scores.values())} |", flush=True)


if __name__ == "__main__":
    run(main)
