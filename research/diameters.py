"""Score a network at several working diameters, or contrasts, on eyes it has not seen; by hand.

python augment.py DRIVE STARE HRF --leave-one-out
python train.py --leave-one-out STARE
python -m research.diameters files/without_STARE/checkpoint.pth STARE --diameters 548 720 960
python -m research.diameters files/without_STARE/checkpoint.pth STARE --contrast --views 1
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from anatomy.photograph import look_at
from data import read_sets
from datasets.eyes import Eye
from datasets.field_of_view import fov_diameter
from datasets.images import equalize
from model import Network, fold_batch_norm
from networks.checkpoints import load_checkpoint
from prediction.scale import factor_of, plan_scale
from prediction.segmentation import segment
from scoring import metrics
from system.devices import pick_device
from training.thresholds import f1_curve, native_eyes, threshold_of_best
from utils import UserError, run

COLUMNS = {"AUC": "auc", "AP": "average_precision", "F1": "f1", "recall 2 px": "recall_2px"}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("weights", type=Path, help="a checkpoint that was trained without these eyes")
    parser.add_argument("data_set", help="whose eyes in DATA/test are scored: DRIVE, STARE or HRF")
    parser.add_argument("--data", type=Path, default=Path("new_data"), help="written with --leave-one-out")
    parser.add_argument("--diameters", type=int, nargs="+", default=[548, 720, 960], help="pixels")
    parser.add_argument(
        "--contrast", action="store_true", help="at the usual diameter, with even contrast or not"
    )
    parser.add_argument("--native", type=int, help="first shrink the field of view to so many pixels")
    parser.add_argument("--middle", type=float, default=1, help="with --native: a share of its diameter")
    parser.add_argument("--every", type=int, default=1, help="score every N-th eye")
    parser.add_argument("--threshold", type=float, default=0.38, help="probability that makes a vessel")
    parser.add_argument("--views", type=int, choices=(1, 2, 4, 8), default=8, help="flips and turns, averaged")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    return parser.parse_args()


def retake(eye: Eye, native: int, middle: float) -> Eye:
    """The middle of an eye in a field of view of so many pixels, less than it has."""
    rows, columns = np.nonzero(eye.fov)
    shrink, side = native / (fov_diameter(eye.fov) * middle), native + 20
    centre = np.array([columns.mean(), rows.mean()])
    matrix = np.column_stack([np.eye(2) * shrink, side / 2 - shrink * centre])

    def warp(image: np.ndarray, how: int) -> np.ndarray:
        return cv2.warpAffine(image, matrix, (side, side), flags=how)

    def shrunk(image: np.ndarray) -> np.ndarray:
        return warp(cv2.GaussianBlur(image, (0, 0), 0.4 / shrink), cv2.INTER_LINEAR)

    y, x = np.mgrid[:side, :side] - side / 2
    fov = np.where(np.hypot(x, y) < native / 2, warp(eye.fov, cv2.INTER_NEAREST), 0).astype(np.uint8)
    image = shrunk(eye.image) * (fov > 0)[..., None].astype(np.uint8)
    return Eye(eye.name, image, fov, np.where(shrunk(eye.truth) > 127, 255, 0).astype(np.uint8))


def at_each(
    network: Network, eye: Eye, diameters: list[int], views: int
) -> dict[str, tuple[np.ndarray, float]]:
    """The probability at each diameter and the average of each two, float32 (H, W), with its CPU seconds."""
    found = {}
    for diameter in diameters:
        start = time.process_time()
        probability = segment(network, eye.image, eye.fov, views, factor_of(fov_diameter(eye.fov), diameter))
        found[str(diameter)] = probability, time.process_time() - start
    for one, two in itertools.combinations(map(str, diameters), 2):
        (first, took), (second, more) = found[one], found[two]
        found[f"{one} and {two}"] = (first + second) / 2, took + more
    return found


def in_each_contrast(network: Network, eye: Eye, views: int) -> dict[str, tuple[np.ndarray, float]]:
    """The same of the photograph as it is, with even contrast, and with half of it."""
    scale = plan_scale(look_at(eye.image), network).factor
    even = equalize(eye.image, eye.fov)
    half = cv2.addWeighted(eye.image, 0.5, even, 0.5, 0)
    network.clahe = False  # it gets each as it is
    found = {}
    for name, image in {"as it is": eye.image, "even": even, "half of it": half}.items():
        start = time.process_time()
        probability = segment(network, image, eye.fov, views, scale)
        found[name] = probability, time.process_time() - start
    (first, took), (second, more) = found["as it is"], found["even"]
    return found | {"as it is, even": ((first + second) / 2, took + more)}


def main() -> None:
    args = parse_args()
    network, _ = load_checkpoint(args.weights, pick_device(args.device))
    network = fold_batch_norm(network)
    names = sorted(name for name, data_set in read_sets(args.data).items() if data_set == args.data_set)
    if not (names := names[:: args.every]):
        raise UserError(f"{args.data}: no eyes of {args.data_set}")
    if network.trained_on & set(names):
        raise UserError(f"{args.weights}: it was trained on eyes of {args.data_set}")
    rows: dict[str, list[tuple[dict[str, float], list[float], float]]] = {}
    for eye in tqdm(native_eyes(args.data, names), total=len(names)):
        if args.native:
            eye = retake(eye, args.native, args.middle)
        if args.contrast:
            seen = in_each_contrast(network, eye, args.views)
        else:
            seen = at_each(network, eye, args.diameters, args.views)
        for name, (probability, seconds) in seen.items():
            levels = metrics.quantize(probability)
            counts = metrics.count_levels(levels, eye.truth, eye.fov)
            counts = metrics.count_image(levels, eye.truth, eye.fov, args.threshold)
            found = metrics.all_scores(*counts, args.threshold)
            rows.setdefault(name, []).append((found, f1_curve(counts), seconds))
    print(
        f"{'contrast' if args.contrast else 'diameter':16}"
        + "".join(f"{title:>13}" for title in [*COLUMNS, "best F1", "at", "CPU s"])
    )
    for name, found in rows.items():
        mean = metrics.mean([scores for scores, _, _ in found])
        curve = np.mean([curve for _, curve, _ in found], axis=0)
        best = threshold_of_best(curve)
        figures = [mean[column] for column in COLUMNS.values()]
        figures += [curve.max(), best, np.mean([seconds for _, _, seconds in found])]
        print(f"{name:16}" + "".join(f"{figure:13.4f}" for figure in figures))
    print(f"{len(names)} eyes of {args.data_set}; F1 and recall at {args.threshold}")


if __name__ == "__main__":
    run(main)
