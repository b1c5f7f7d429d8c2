"""Score cross-validated networks on held-out eyes as other cameras would have taken them; run by hand.

No photograph of another camera is at hand with labels, so DRIVE's own are changed: the middle of the eye
1.5 times as large, as with a view of 30 degrees instead of 45, darker to one side and to the rim, in other
colours, less sharp and noisy. The truth is enlarged with them, so these scores compare networks with one
another, and with nothing else.

    python -m research.cameras --data new_data files
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from data import first_copies, read_eyes
from datasets.eyes import Eye
from model import fold_batch_norm
from networks.checkpoints import load_checkpoint
from prediction.segmentation import segment
from scoring import metrics
from system.devices import pick_device
from training.thresholds import USUAL_THRESHOLD
from utils import UserError, path_name, run

SIDE, RADIUS, ZOOM = 584, 270, 1.5  # pixels of the new photograph and its field of view; times as large
COLUMNS = {"F1": "f1", "Jaccard": "jaccard", "AUC": "auc", "AP": "average_precision"}
CAMERAS = {"as it is": None, "another camera": (0.5, 1.0), "a bad camera": (1.0, 2.5)}  # blur, noise


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("files", type=path_name, nargs="*", default=[Path("files")], help="of train.py --folds")
    parser.add_argument("--data", type=path_name, default=Path("new_data"), help="that they were trained on")
    parser.add_argument(
        "--threshold", type=float, default=USUAL_THRESHOLD, help="probability that makes a vessel"
    )
    parser.add_argument("--views", type=int, choices=(1, 2, 4, 8), default=8, help="flips and turns, averaged")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    return parser.parse_args()


def retake(eye: Eye, blur: float, noise: float, rng: np.random.Generator) -> Eye:
    """The middle of an eye as another camera would have taken it.

    Args:
        eye: with a vessel mask.
        blur: standard deviation of the Gaussian, pixels.
        noise: standard deviation, levels of 0 to 255.
        rng: for the direction of the light and the noise.
    """
    rows, columns = np.nonzero(eye.fov)
    centre = np.array([columns.mean(), rows.mean()])
    matrix = np.column_stack([np.eye(2) / ZOOM, centre - SIDE / 2 / ZOOM])

    def enlarge(image: np.ndarray, how: int) -> np.ndarray:
        return cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=how | cv2.WARP_INVERSE_MAP)

    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    fov = np.where(np.hypot(x, y) < RADIUS, 255, 0).astype(np.uint8)
    angle = rng.uniform(0, 2 * np.pi)
    across = (x * np.cos(angle) + y * np.sin(angle)) / RADIUS
    light = np.exp(0.35 * across - 0.5 * (x**2 + y**2) / RADIUS**2)[..., None] * [0.9, 0.75, 0.6]
    image = cv2.GaussianBlur(enlarge(eye.image, cv2.INTER_CUBIC) * light, (0, 0), blur)
    image = (image + rng.normal(0, noise, image.shape)).clip(0, 255) * (fov > 0)[..., None]
    mask = np.where(enlarge(eye.mask, cv2.INTER_LINEAR) > 127, 255, 0).astype(np.uint8)
    return Eye(eye.name, image.astype(np.uint8), fov, mask)


def main() -> None:
    args = parse_args()
    device = pick_device(args.device)
    eyes = {eye.name: eye for eye in read_eyes(args.data / "train", labels=True)}
    print(f"{'':32}{'eyes':>6}" + "".join(f"{title:>9}" for title in COLUMNS))
    for files in args.files:
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in CAMERAS}
        for folder in sorted(files.glob("fold[0-9]*")):
            model, _ = load_checkpoint(folder / "checkpoint.pth", device)
            model = fold_batch_norm(model)
            held_out = json.loads((folder / "split.json").read_text())["held_out"]
            for number, eye in enumerate(first_copies(eyes[name] for name in held_out)):
                for name, camera in CAMERAS.items():
                    seen = retake(eye, *camera, np.random.default_rng(number)) if camera else eye
                    levels = metrics.quantize(segment(model, seen.image, seen.fov, args.views))
                    counts = metrics.count_levels(levels, seen.mask, seen.fov)
                    rows[name].append(metrics.scores(counts, args.threshold))
        for name, scores in rows.items():
            if not scores:
                raise UserError(f"{files}: no folds there; train them with: python train.py --folds 4")
            mean = metrics.mean(scores)
            figures = "".join(f"{mean[column]:9.4f}" for column in COLUMNS.values())
            print(f"{files.name + ', ' + name:32}{len(scores):6}{figures}")


if __name__ == "__main__":
    run(main)
