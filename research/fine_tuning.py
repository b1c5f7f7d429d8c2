"""What train.py --start-from gains with few labelled eyes of a camera that the network has not seen.

    python augment.py DRIVE STARE HRF CHASE_DB1 --leave-one-out
    python train.py --leave-one-out HRF --start-from files/drive_unet.pth --epochs 2
    python -m research.fine_tuning HRF --weights files/without_HRF/checkpoint.pth

Draws some eyes of the data set, trains on them as a user would, and scores the network before and after on the
same others, at native size in one view, each at the threshold of its checkpoint.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from data import eye_of, person_of, read_sets
from datasets.images import list_images
from model import fold_batch_norm
from networks.checkpoints import load_checkpoint
from prediction.scale import factors_for
from prediction.segmentation import segment
from scoring import metrics
from system.files import write_csv
from training.thresholds import USUAL_THRESHOLD, native_eyes
from utils import path_name, run

ROOT = Path(__file__).resolve().parent.parent


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("data_set", help="whose eyes train and are scored, in new_data")
    parser.add_argument("--weights", type=path_name, required=True, help="a network that has not seen it")
    parser.add_argument("--threshold", type=float, help="of that network, where its checkpoint has none")
    parser.add_argument("--data", type=path_name, default=Path("new_data"), help="written with --leave-one-out")
    parser.add_argument("--eyes", type=int, nargs="+", default=[2, 5, 10], help="that train or validate")
    parser.add_argument("--draws", type=int, default=3, help="of each number of eyes")
    parser.add_argument("--scored", type=int, default=15, help="eyes that are scored and never drawn")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--crops", type=int, default=800, help="of each epoch")
    parser.add_argument("--table", type=path_name, default=Path("fine_tuning.csv"), help="CSV to write")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    names = [name for name, own in read_sets(args.data).items() if own == args.data_set]
    people = list(dict.fromkeys(map(person_of, names)))
    shuffled = np.random.default_rng(0).permutation(len(people))
    scored = [people[k] for k in shuffled[: args.scored]]
    others = [people[k] for k in shuffled[args.scored :]]
    testing = [name for name in names if person_of(name) in scored]
    before = score(args.weights, args.threshold, args.data, testing)
    print(f"before: F1 {np.mean(before):.4f}, mean of {len(before)} eyes")
    rows: list[dict[str, Any]] = []
    for number in args.eyes:
        for draw in range(args.draws):
            chosen = np.random.default_rng([number, draw]).choice(others, number, replace=False)
            with tempfile.TemporaryDirectory() as scratch:
                weights = train(args, Path(scratch), [name for name in names if person_of(name) in chosen])
                after = score(weights, None, args.data, testing)
            gain = np.mean(after) - np.mean(before)
            print(f"{number} eyes, draw {draw}: F1 {np.mean(after):.4f}, {gain:+.4f}", flush=True)
            eyes = " ".join(sorted(chosen))
            rows.append({"eyes": number, "draw": draw, "f1": np.mean(after), "gain": gain, "trained_on": eyes})
            write_csv(args.table, rows)


def train(args: argparse.Namespace, scratch: Path, names: list[str]) -> Path:
    """Train on these eyes alone; returns the checkpoint."""
    for part in ("image", "mask", "fov"):
        folder = scratch / "data" / "train" / part
        folder.mkdir(parents=True)
        for path in list_images(args.data / "train" / part):
            if eye_of(path.stem) in names:
                shutil.copy(path, folder)
    shutil.copy(args.data / "dataset.json", scratch / "data")
    command = [
        "train.py",
        "--data",
        scratch / "data",
        "--files",
        scratch / "files",
        "--start-from",
        args.weights,
    ]
    settings = ["--epochs", args.epochs, "--crops", args.crops]
    subprocess.run([sys.executable, *map(str, [ROOT / command[0], *command[1:], *settings])], check=True)
    return scratch / "files" / "checkpoint.pth"


def score(weights: Path, threshold: float | None, data: Path, names: list[str]) -> list[float]:
    """F1 of each eye, at the checkpoint's threshold or the given one."""
    network, content = load_checkpoint(weights)
    network, found = fold_batch_norm(network), []
    threshold = threshold or content.get("threshold") or USUAL_THRESHOLD
    eyes = list(native_eyes(data, names))
    for eye, factor in zip(eyes, factors_for([eye.image for eye in eyes], network), strict=True):
        probability = segment(network, eye.image, eye.fov, scale=factor)
        counts = metrics.count_levels(metrics.quantize(probability), *eye.target("vessels"))
        found.append(metrics.scores(counts, threshold)["f1"])
    return found


if __name__ == "__main__":
    run(main)
