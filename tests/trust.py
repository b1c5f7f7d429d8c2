"""How far measures, uncertainty and doubts can be trusted: the figures of docs/measures.md, by hand.

Predicts STARE's and HRF's eyes, which files/drive_unet.pth has not seen, DRIVE's photographs, spoilt copies of
STARE's and pictures of something else, and keeps the probabilities in --cache, so that a second run is quick.

    python tests/trust.py --drive DRIVE --cameras FOLDER_OF_STARE_AND_HRF --cache trust_cache
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import spoilt  # noqa: E402

from datasets.field_of_view import drive_scale, estimate_fov  # noqa: E402
from datasets.images import read_image, read_mask  # noqa: E402
from datasets.published import find_data_set, read_drive  # noqa: E402
from prediction.doubts import doubts, features  # noqa: E402
from prediction.networks import load_networks  # noqa: E402
from prediction.segmentation import binarize, segment  # noqa: E402
from prediction.uncertainty import CALIBRATION, Views, calibrate, confidence  # noqa: E402
from scoring import metrics  # noqa: E402
from scoring.measures import MEASURES, measure  # noqa: E402
from system.devices import pick_device  # noqa: E402
from utils import run  # noqa: E402

SKIPPED = ("width_mean_um", "width_median_um", "width_p5_um", "width_p95_um", "fractal_r2", "box_smallest")
SKIPPED += ("box_largest", "fov_diameter", "width_mean", "width_median", "width_p5", "width_p95")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drive", type=Path, default=Path("DRIVE"))
    parser.add_argument("--cameras", type=Path, default=Path("cameras"), help="has STARE and HRF")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "trust")
    parser.add_argument("--weights", type=Path, default=ROOT / "files" / "drive_unet.pth")
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def read_set(folder: Path) -> Iterator[dict[str, Any]]:
    """Photograph, first and second observer of every eye of DRIVE, STARE or HRF."""
    found = read_drive(folder) if folder.name == "DRIVE" else find_data_set(folder)
    for source in found.eyes:
        image = read_image(source.image)
        second = next(folder.glob(f"labels-vk/{source.image.name.split('.')[0]}.*"), None)
        mask = read_mask(source.files["mask"]) if "mask" in source.files else None
        yield {
            "name": f"{folder.name} {source.image.name.split('.')[0]}",
            "group": folder.name,
            "photograph": image,
            "mask": mask,
            "second": read_mask(second) if second else None,
        }


def read_all(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Everything that is predicted: eyes as they are, spoilt copies, and pictures of something else."""
    for number, eye in enumerate(read_set(args.cameras / "STARE")):
        yield eye
        full, mild = number % 4 == 0, number % 4 == 1
        fov = estimate_fov(eye["photograph"])
        for kind, spoil in (spoilt.SPOILS if full else spoilt.GRADED if mild else {}).items():
            copy = spoil(eye["photograph"], fov, 1.0 if full else 0.5, np.random.default_rng(number))
            cut = spoilt.middle(fov.shape, fov) if kind in spoilt.CUT else np.s_[:, :]
            group = kind if full else f"{kind}, half as strong"
            yield {
                "name": f"{eye['name']} {group}",
                "group": group,
                "photograph": np.ascontiguousarray(copy),
                "mask": np.ascontiguousarray(eye["mask"][cut]),
                "second": None,
            }
    for kind, draw in spoilt.ELSE.items():
        for seed in range(3):
            picture = draw(np.random.default_rng(seed))
            yield {
                "name": f"{kind} {seed}",
                "group": kind,
                "photograph": picture,
                "mask": np.zeros(picture.shape[:2], np.uint8),
                "second": None,
            }
    for folder in (args.cameras / "HRF", args.drive):
        yield from read_set(folder)


def predict(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Each photograph with `fov`, `levels`, `spread` of the eight views, and `f1` where there is a truth."""
    from tqdm import tqdm

    model, threshold = load_networks([args.weights], None, pick_device(args.device))
    args.cache.mkdir(parents=True, exist_ok=True)
    for eye in tqdm(read_all(args), unit="photograph", disable=None):
        eye["fov"] = fov = estimate_fov(eye["photograph"])
        eye["threshold"] = threshold
        kept = args.cache / f"{eye['name']}.npz"
        if not kept.is_file():
            views = Views(threshold)
            probability = segment(model, eye["photograph"], fov, True, drive_scale(fov), views)
            np.savez_compressed(kept, levels=metrics.quantize(probability), spread=views.spread())
        with np.load(kept) as file:
            eye["levels"], eye["spread"] = file["levels"], float(file["spread"])
        eye["found"] = binarize(eye["levels"], fov, threshold)
        if eye["mask"] is not None:
            counts = metrics.count_levels(eye["levels"], eye["mask"], fov)
            eye["f1"] = metrics.scores(counts, threshold)["f1"]
        yield eye


def icc(first: np.ndarray, second: np.ndarray) -> float:
    """ICC(2,1): absolute agreement of single ratings (Shrout and Fleiss 1979)."""
    table = np.column_stack([first, second])
    (n, k), grand = table.shape, table.mean()
    rows = k * np.sum((table.mean(axis=1) - grand) ** 2) / (n - 1)
    columns = n * np.sum((table.mean(axis=0) - grand) ** 2) / (k - 1)
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + grand
    error = np.sum(rest**2) / ((n - 1) * (k - 1))
    return float((rows - error) / (rows + (k - 1) * error + k * (columns - error) / n))


def interval(score: Callable[..., float], *columns: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval over the eyes."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(1000):
        pick = rng.integers(0, len(columns[0]), len(columns[0]))
        drawn.append(score(*(column[pick] for column in columns)))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def print_agreement(title: str, truth: list[dict[str, float]], other: list[dict[str, float]]) -> None:
    """Bias, limits of agreement and ICC(2,1) of every measure, with intervals."""
    print(f"\n{title}, {len(truth)} eyes")
    print(
        "| measure | first observer, mean ± SD | bias (95 % interval) | limits of agreement | ICC(2,1) (95 %) |"
    )
    print("|---|---|---|---|---|")
    for name in (name for name in MEASURES if name not in SKIPPED):
        pairs = np.array([(a[name], b[name]) for a, b in zip(truth, other, strict=True)])
        pairs = pairs[np.isfinite(pairs).all(axis=1)]
        first, second = pairs.T
        gap = second - first
        half = 1.96 * gap.std(ddof=1)
        low, high = interval(lambda g: float(g.mean()), gap)
        least, most = interval(icc, first, second)
        digits = 4 if first.mean() < 3 else 2 if first.mean() < 50 else 0
        show = [f"{value:.{digits}f}" for value in (first.mean(), first.std(ddof=1), gap.mean(), low, high)]
        limits = f"{gap.mean() - half:.{digits}f} to {gap.mean() + half:.{digits}f}"
        agreement = f"{icc(first, second):.2f} ({least:.2f} to {most:.2f})"
        print(
            f"| `{name}` | {show[0]} ± {show[1]} | {show[2]} ({show[3]} to {show[4]}) | {limits} "
            f"| {agreement} |"
        )


def as_levels(mask: np.ndarray) -> np.ndarray:
    return np.where(mask > 0, 65535, 0).astype(np.uint16)


def pixels_of(eye: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Levels and truth in the field of view, at most a million pixels evenly taken."""
    inside = np.flatnonzero(eye["fov"])
    inside = inside[:: max(1, len(inside) // 1_000_000)]
    return eye["levels"].ravel()[inside], eye["mask"].ravel()[inside] > 0


def calibration_error(probability: np.ndarray, truth: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: |mean probability - share of vessels|, weighted mean over equal bins."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    number = np.maximum(np.bincount(place, minlength=bins), 1)
    gap = np.abs(np.bincount(place, probability, bins) - np.bincount(place, truth, bins)) / number
    return float(np.sum(gap * np.bincount(place, minlength=bins)) / len(place))


def fit(levels: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Slope and shift of the logits that make the truth most likely (Platt 1999)."""
    from sklearn.linear_model import LogisticRegression

    share = np.clip(levels / 65535, 1e-5, 1 - 1e-5)
    logit = np.log(share / (1 - share))[:, None]
    line = LogisticRegression(C=1e6).fit(logit[::20], truth[::20])
    return float(line.coef_[0, 0]), float(line.intercept_[0])


def print_uncertainty(groups: dict[str, list[tuple[np.ndarray, np.ndarray]]], threshold: float) -> None:
    """Wrong pixels among the most uncertain, calibration error, reliability, and the calibration itself."""
    together = {
        name: [np.concatenate(part) for part in zip(*eyes, strict=True)] for name, eyes in groups.items()
    }
    fitted = {name: fit(*pixels) for name, pixels in together.items()}
    for name, eyes in groups.items():
        shares = []
        for levels, truth in eyes:
            wrong = (levels >= metrics.level_of(threshold)) != truth
            order = np.argsort(np.abs(levels.astype(np.int32) - 32768), kind="stable")
            found = np.cumsum(wrong[order]) / max(1, wrong.sum())
            shares.append([found[int(part * len(order)) - 1] for part in (0.12, 0.25)])
        print(
            f"\n{name}, {len(eyes)} eyes: {np.mean(shares, axis=0)[0]:.1%} of the wrong pixels are among the "
        )
        print(f"12 % most uncertain, {np.mean(shares, axis=0)[1]:.1%} among the 25 %")
        levels, truth = together[name]
        raw = levels / 65535
        print(f"expected calibration error: {calibration_error(raw, truth):.4f} as they are")
        for other, line in fitted.items():
            if other != name:
                error = calibration_error(calibrate(levels, line).astype(np.float64), truth)
                print(f"  {error:.4f} calibrated on {other} ({line[0]:.2f}, {line[1]:.2f})")
        error = calibration_error(calibrate(levels).astype(np.float64), truth)
        print(f"  {error:.4f} with the program's {CALIBRATION}")
        place = np.minimum((raw * 10).astype(int), 9)
        print(
            "reliability: "
            + ", ".join(f"{raw[place == k].mean():.2f}: {truth[place == k].mean():.2f}" for k in range(10))
        )
    both = [np.concatenate(part) for part in zip(*together.values(), strict=True)]
    print(f"\ncalibration of all: {', '.join(f'{value:.2f}' for value in fit(*both))}")


def main() -> None:
    from scipy.stats import spearmanr

    args = parse_args()
    measured: dict[str, list[dict[str, dict[str, float]]]] = {"STARE": [], "HRF": []}
    pixels: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"STARE": [], "HRF": []}
    flagged: dict[str, list[list[str]]] = {}
    f1: list[tuple[str, float, float]] = []
    for eye in predict(args):
        fov, levels, threshold = eye["fov"], eye["levels"], eye["threshold"]
        row = measure(levels, fov, threshold)
        sure = confidence(levels, eye["found"], fov, Views(threshold))
        reasons = doubts(features(eye["photograph"], fov, eye["found"]), row | sure)
        flagged.setdefault(eye["group"], []).append(reasons)
        if reasons and eye["group"] in ("DRIVE", "STARE", "HRF"):
            print(f"{eye['name']}: {'; '.join(reasons)}")
        if "f1" in eye and eye["group"] not in ("DRIVE", *spoilt.ELSE):
            f1.append((eye["group"], sure["expected_f1"], eye["f1"]))
        if eye["group"] in measured:
            inside = fov > 0
            masks = {"first": eye["mask"], "second": eye["second"]}
            rows = {n: measure(as_levels(m * inside), fov, 0.5) for n, m in masks.items() if m is not None}
            rows["mask"] = measure(as_levels(eye["found"]), fov, 0.5)
            measured[eye["group"]].append({"prediction": row, **rows})
            pixels[eye["group"]].append(pixels_of(eye))
    for name, rows in measured.items():
        truth = [row["first"] for row in rows]
        print_agreement(f"{name}: prediction beside first observer", truth, [row["prediction"] for row in rows])
        if all("second" in row for row in rows):
            print_agreement(f"{name}: second observer beside first", truth, [row["second"] for row in rows])
    print_uncertainty(pixels, threshold)
    print("\n| photographs | flagged | reasons |\n|---|---|---|")
    for name, lists in flagged.items():
        words = sorted({reason.split(" only")[0] for reasons in lists for reason in reasons})
        print(f"| {name} | {sum(map(bool, lists))} of {len(lists)} | {'; '.join(words)} |")
    groups = {"all eyes and spoilt copies": f1, "STARE and spoilt copies": [f for f in f1 if f[0] != "HRF"]}
    for name, part in groups.items():
        expected, true = np.nan_to_num(np.array([f[1:] for f in part])).T
        print(
            f"\nSpearman's correlation of expected and true F1, {len(part)} {name}: "
            f"{spearmanr(expected, true)[0]:.3f}"
        )


if __name__ == "__main__":
    run(main)
