"""Score networks on the data set that each has not seen, at several scales: fixed diameters, and by the disc.

    python augment.py DRIVE STARE HRF CHASE_DB1 --leave-one-out
    python -m research.scales --files files --anatomy FOLDER    # of train.py --leave-one-out

A network of `files/without_NAME` sees the eyes of NAME with the field of view brought to each of --diameters,
then with the disc brought to --disc pixels: as found, as the median of its camera, and as drawn: marked by this
project, or where the folder --anatomy holds DRIVE/disc/NAME.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from anatomy.cameras import Cameras, cameras_of, sizes_of, some_of
from anatomy.photograph import DISC_SHARE, Photograph, look_at
from datasets.eyes import Eye
from datasets.field_of_view import fov_diameter
from model import Network
from prediction.scale import WORKING_DISC, factor_of, plan_scale
from prediction.segmentation import segment
from research.anatomy_labels import MARKS, rows
from research.left_out import add_left_out, left_out
from scoring import metrics
from training.thresholds import f1_curve, threshold_of_best
from utils import path_name, run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add_left_out(parser)
    parser.add_argument("--anatomy", type=path_name, help="folder of the drawn discs")
    parser.add_argument("--diameters", type=int, nargs="*", default=[480, 548, 640, 720, 860], help="pixels")
    parser.add_argument("--disc", type=float, default=WORKING_DISC, help="pixels, of a network that has none")
    parser.add_argument("--views", type=int, choices=(1, 2, 4, 8), default=1, help="flips and turns, averaged")
    return parser.parse_args()


def drawn_disc(eye: Eye, data_set: str, anatomy: Path | None) -> float:
    """Diameter in pixels of the disc that an observer drew or marked; NaN where nobody did."""
    name = eye.name.removesuffix("_0")
    if anatomy and data_set == "DRIVE":
        mask = cv2.imread(str(anatomy / "DRIVE" / "disc" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
        return 2 * float(np.sqrt((mask > 0).sum() / np.pi))
    return next(
        (float(row["disc_diameter"] or "nan") for row in rows(MARKS) if row["image"] == name), float("nan")
    )


def ways(
    args: argparse.Namespace,
    network: Network,
    eye: Eye,
    photograph: Photograph,
    cameras: Cameras,
    median: float,
    drawn: float,
) -> Iterator[tuple[str, float]]:
    """Each way to choose the scale of a photograph, with its factor."""
    working = network.disc or args.disc
    field = fov_diameter(eye.fov)
    for diameter in args.diameters:
        yield f"field {diameter}", factor_of(field, diameter)
    by_field = factor_of(field, working / DISC_SHARE)
    yield "as predict.py", plan_scale(photograph, network, cameras).factor
    yield "as predict.py, alone", plan_scale(photograph, network).factor
    for name, disc in {"disc found": photograph.landmarks.disc_diameter, "disc of the camera": median}.items():
        factor = working / disc if disc > 0 else by_field
        yield name, factor
    if drawn > 0:
        yield "disc drawn", working / drawn


def main() -> None:
    args = parse_args()
    print(
        f"{'left out':12}{'scale':26}"
        + "".join(f"{t:>10}" for t in ("factor", "AUC", "AP", "F1", "best F1", "at"))
    )
    for data_set, network, eyes in left_out(args):
        taken = [look_at(eye.image) for eye in eyes]
        cameras = cameras_of(map(sizes_of, some_of(taken)))
        discs: dict[tuple[int, ...], list[float]] = {}
        for photograph in taken:
            if photograph.landmarks.disc_diameter > 0:
                discs.setdefault(photograph.pixels.shape, []).append(photograph.landmarks.disc_diameter)
        found: dict[str, list[tuple[float, np.ndarray]]] = {}
        for eye, photograph in zip(tqdm(eyes, desc=data_set), taken, strict=True):
            median = float(np.median(discs.get(eye.image.shape, [np.nan])))
            drawn = drawn_disc(eye, data_set, args.anatomy)
            done: dict[float, np.ndarray] = {}
            for way, own in ways(args, network, eye, photograph, cameras, median, drawn):
                if own not in done:
                    probability = segment(network, eye.image, eye.fov, args.views, own)
                    done[own] = metrics.count_levels(metrics.quantize(probability), eye.truth, eye.fov)
                found.setdefault(way, []).append((own, done[own]))
        for way, seen in found.items():
            scores = metrics.mean([metrics.scores(counts, args.threshold) for _, counts in seen])
            curve = np.mean([f1_curve(counts) for _, counts in seen], axis=0)
            figures = (float(np.median([factor for factor, _ in seen])), scores["auc"])
            figures += (scores["average_precision"], scores["f1"], float(curve.max()), threshold_of_best(curve))
            print(f"{data_set:12}{way:26}" + "".join(f"{figure:10.4f}" for figure in figures), flush=True)


if __name__ == "__main__":
    run(main)
