"""What a threshold costs on a data set left out, by the way it is chosen; by hand.

    python augment.py DRIVE STARE HRF --leave-one-out --diameter 720
    python train.py --leave-one-out
    python -m research.thresholds --cameras FOLDER_OF_STARE

Every row is the mean F1 of the predictions that `train.py --leave-one-out` kept, in eight views. "Learned" is
a ridge regression of each eye's best threshold on properties of its photograph and prediction, fitted on the
other data sets.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data import eye_of, read_sets
from datasets.eyes import Eye
from datasets.field_of_view import fov_diameter
from datasets.images import read_levels, read_mask
from scoring import metrics
from training.held_out_tables import probability_of
from training.thresholds import f1_at, f1_curve, native_eyes, threshold_of_best
from utils import UserError, run

SHARE, EXPECTED, COLOUR = ("share",), ("expected",), ("red", "green", "blue")
LEARNED = (SHARE, EXPECTED, ("size",), COLOUR, (*SHARE, *EXPECTED, "mean", "unsure", "size", *COLOUR))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("new_data"))
    parser.add_argument("--files", type=Path, default=Path("files"), help="of train.py --leave-one-out")
    parser.add_argument("--cameras", type=Path, help="has STARE, with the second observer's masks")
    parser.add_argument("--threshold", type=float, default=0.38, help="the shipped one")
    return parser.parse_args()


def properties(eye: Eye, levels: np.ndarray, threshold: float) -> dict[str, float]:
    """What a threshold might be learned from, without a label."""
    inside = eye.fov > 0
    probability = levels[inside] / (metrics.LEVELS - 1)
    share = float((probability >= threshold).mean())
    red, green, blue = (float(mean) for mean in eye.image[inside].mean(axis=0))
    return {
        "share": share,
        "expected": metrics.expected_f1_threshold(levels, eye.fov),
        "mean": float(probability.mean()),
        "unsure": float(((probability > 0.1) & (probability < 0.6)).mean() / max(share, 1e-6)),
        "size": float(np.log(fov_diameter(eye.fov))),
        "red": red,
        "green": green,
        "blue": blue,
    }


def read(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Of every eye left out: its data set, its properties and F1 at each threshold, by each observer."""
    sets, found = read_sets(args.data), []
    seconds = args.cameras and args.cameras / "STARE" / "labels-vk"
    for name in dict.fromkeys(sets.values()):
        names = [copy for copy, own in sets.items() if own == name]
        for eye in tqdm(native_eyes(args.data, names), desc=name, unit="eye", disable=None):
            if not (kept := probability_of(args.files / f"without_{name}", eye.name)).is_file():
                raise UserError(f"{kept}: not there; run: python train.py --leave-one-out {name}")
            levels = read_levels(kept)
            curves = {"first": np.array(f1_curve(metrics.count_levels(levels, eye.truth, eye.fov)))}
            for path in seconds.glob(f"{eye_of(eye.name)}.*") if seconds else ():
                curves["second"] = np.array(f1_curve(metrics.count_levels(levels, read_mask(path), eye.fov)))
            found.append({"set": name, **curves, **properties(eye, levels, args.threshold)})
    return found


def learn(eyes: list[dict[str, Any]], left_out: str, names: tuple[str, ...]) -> np.ndarray:
    """The threshold of each eye left out, by a regression on the other data sets, each counting the same."""
    from sklearn.linear_model import RidgeCV

    table = np.array([[eye[name] for name in names] for eye in eyes])
    sets = np.array([eye["set"] for eye in eyes])
    others = sets != left_out
    table = (table - table[others].mean(axis=0)) / table[others].std(axis=0)
    best = np.array([threshold_of_best(eye["first"]) for eye in eyes])
    weights = [1 / (sets == own).sum() for own in sets[others]]
    line = RidgeCV(np.logspace(-2, 3, 11)).fit(table[others], best[others], sample_weight=weights)
    return line.predict(table[~others]).clip(0.1, 0.8)


def main() -> None:
    args = parse_args()
    eyes = read(args)
    sets = list(dict.fromkeys(eye["set"] for eye in eyes))
    of = {name: [eye for eye in eyes if eye["set"] == name] for name in sets}
    mean = {name: np.mean([eye["first"] for eye in of[name]], axis=0) for name in sets}
    strict = {
        name: threshold_of_best(np.mean([mean[other] for other in sets if other != name], axis=0))
        for name in sets
    }
    expected = {name: np.mean([eye["expected"] for eye in of[name]]) for name in sets}
    of_others = {
        name: round(float(np.mean([expected[other] for other in sets if other != name])), 2) for name in sets
    }
    rows: dict[str, dict[str, Any]] = {
        f"{args.threshold} for all": dict.fromkeys(sets, args.threshold),
        "the best of the other data sets": strict,
        "of each image, the one of the highest expected F1": {
            name: [eye["expected"] for eye in of[name]] for name in sets
        },
        "its mean over the other data sets": of_others,
    }
    for names in LEARNED:
        rows[f"learned from {', '.join(names)}"] = {name: learn(eyes, name, names) for name in sets}
    if seconds := [eye for eye in eyes if "second" in eye]:
        both = threshold_of_best(np.mean([eye["first"] + eye["second"] for eye in seconds], axis=0))
        second = threshold_of_best(np.mean([eye["second"] for eye in seconds], axis=0))
        rows[f"the best for both observers of STARE, {both:.2f}"] = dict.fromkeys(sets, both)
        rows[f"the best for STARE's second observer, {second:.2f}"] = dict.fromkeys(sets, second)
    rows["each data set its own best"] = {name: threshold_of_best(mean[name]) for name in sets}
    rows["each image its own best"] = {
        name: [threshold_of_best(eye["first"]) for eye in of[name]] for name in sets
    }
    print(f"| threshold | {' | '.join(sets)} | mean |\n|---|{'---|' * len(sets)}---|")
    for title, chosen in rows.items():
        f1 = []
        for name in sets:
            each = np.broadcast_to(chosen[name], len(of[name]))
            f1.append(np.mean([f1_at(eye["first"], own) for eye, own in zip(of[name], each, strict=True)]))
        print(f"| {title} | {' | '.join(f'{value:.3f}' for value in f1)} | {np.mean(f1):.4f} |")


if __name__ == "__main__":
    run(main)
