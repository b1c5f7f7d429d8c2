"""Does a photograph keep its vessels when its file changes? Shrunk, cropped, with a border; run by hand.

    python -m research.same_eye DRIVE/training/images/21_training.tif STARE/im0077.ppm

Prints, for each photograph and change, F1 between the mask of the changed file and that of the one as it is,
both at the photograph's own pixels, and what the scale is from.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from datasets.images import read_image
from prediction.segmenter import Segmenter
from utils import path_name, run


def changes(photograph: np.ndarray) -> Iterator[tuple[str, np.ndarray, tuple[slice, slice], float]]:
    """Each change: its name, the changed photograph, the part of the original that it shows, and its factor."""
    height, width = photograph.shape[:2]
    whole = np.s_[0:height, 0:width]
    for name, factor in (("half", 1 / 2), ("third", 1 / 3)):
        size = round(width * factor), round(height * factor)
        yield name, cv2.resize(photograph, size, interpolation=cv2.INTER_AREA), whole, factor
    top, left = round(0.2 * height), round(0.2 * width)
    middle = np.s_[top : height - top, left : width - left]
    yield "middle 60 %", np.ascontiguousarray(photograph[middle]), middle, 1.0
    edge = round(0.2 * max(height, width))
    yield "black border", cv2.copyMakeBorder(photograph, *(edge,) * 4, cv2.BORDER_CONSTANT), whole, 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=path_name, nargs="+")
    parser.add_argument("--weights", type=path_name, help="a checkpoint (default: as predict.py)")
    args = parser.parse_args()
    segmenter = Segmenter(args.weights, device="cpu")
    for path in args.photographs:
        photograph = read_image(path)
        before = segmenter(photograph)
        print(f"{Path(path).name}: scale from {before.scale.scale_from}, factor {before.scale.factor:.3f}")
        for name, changed, part, factor in changes(photograph):
            after = segmenter(changed)
            height, width = (side.stop - side.start for side in part)
            probability = after.probability
            if name == "black border":
                edge = (changed.shape[0] - height) // 2, (changed.shape[1] - width) // 2
                probability = probability[edge[0] : edge[0] + height, edge[1] : edge[1] + width]
            seen = cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR) >= after.threshold
            wanted = before.mask[part] > 0
            f1 = 2 * (seen & wanted).sum() / max(1, seen.sum() + wanted.sum())
            own = after.scale.factor * factor / before.scale.factor
            print(
                f"  {name:14} F1 {f1:.3f}  scale from {after.scale.scale_from}, {own:.2f} of that before",
                flush=True,
            )


if __name__ == "__main__":
    run(main)
