"""How far measures, uncertainty and doubts can be trusted: the figures of docs/measures.md, by hand.

Predicts the eyes of STARE, HRF and DRIVE, spoilt copies of some, and pictures of something else. Figures of
accuracy are of the eyes that the network has not seen. Probabilities are kept in --cache for the next run.

    python -m research.trust --drive DRIVE --cameras FOLDER_OF_STARE_AND_HRF --weights files/drive_unet.pth
    python -m research.trust --drive DRIVE --cameras FOLDER_OF_STARE_AND_HRF --files files  # of --leave-one-out
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from anatomy.photograph import look_at
from datasets.field_of_view import estimate_fov
from datasets.images import read_image, read_mask, write_png
from datasets.published import find_data_set
from measures.doubts import confidence, doubts, features
from measures.vessels import MEASURES, as_levels, measure, prepare
from networks.loading import load_networks
from prediction.scale import plan_scale
from prediction.segmentation import binarize, segment
from research import spoilt
from research.agreement import Rows, print_agreement, print_verdicts
from research.calibration import Pixels, pixels_of, print_uncertainty
from scoring import metrics
from system.devices import pick_device
from system.files import write_csv
from system.records import sha256
from utils import run

ROOT = Path(__file__).resolve().parent.parent

SKIPPED = ("width_mean_um", "width_median_um", "width_p5_um", "width_p95_um", "fractal_r2", "box_smallest")
SKIPPED += ("box_largest", "fov_diameter", "width_mean", "width_median", "width_p5", "width_p95")
COMPARED = tuple(name for name in MEASURES if name not in SKIPPED)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drive", type=Path, default=Path("DRIVE"))
    parser.add_argument("--cameras", type=Path, default=Path("cameras"), help="has STARE and HRF")
    parser.add_argument("--sets", nargs="+", default=["STARE", "HRF", "DRIVE"], help="data sets to look at")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "trust")
    parser.add_argument("--weights", type=Path, default=ROOT / "files" / "fundus_unet.pth")
    parser.add_argument(
        "--files", type=Path, nargs="+", default=[], help="of train.py --leave-one-out: its networks instead"
    )
    parser.add_argument("--every", type=int, default=1, help="of the eyes, look at each EVERYth only")
    parser.add_argument("--spoil", type=int, default=2, help="eyes of each data set to spoil fully, and half")
    parser.add_argument("--views", type=int, choices=(1, 2, 4, 8), default=8, help="flips and turns, averaged")
    parser.add_argument("--threshold", type=float, help="probability that makes a vessel")
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def read_set(folder: Path, every: int = 1) -> Iterator[dict[str, Any]]:
    """Photograph, first and second observer of every eye of DRIVE, STARE or HRF."""
    found = find_data_set(folder)
    for source in found.eyes[::every]:
        image = read_image(source.image)
        second = next(folder.glob(f"labels-vk/{source.image.name.split('.')[0]}.*"), None)
        yield {
            "name": source.name,
            "set": folder.name,
            "group": folder.name,
            "photograph": image,
            "mask": read_mask(source.files["mask"]) if "mask" in source.files else None,
            "second": read_mask(second) if second else None,
        }


def read_all(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Everything that is predicted: eyes as they are, spoilt copies, and pictures of something else."""
    for name in args.sets:
        folder = args.drive if name == "DRIVE" else args.cameras / name
        labelled = []
        for eye in read_set(folder, args.every):
            labelled += [] if eye["mask"] is None else [eye["name"]]
            yield eye
        chosen = [labelled[k] for k in np.linspace(0, len(labelled) - 1, 2 * args.spoil).astype(int)]
        for eye in (eye for eye in read_set(folder, args.every) if eye["name"] in chosen):
            full = chosen.index(eye["name"]) % 2 == 0
            fov = estimate_fov(eye["photograph"])
            for kind, spoil in (spoilt.SPOILS if full else spoilt.GRADED).items():
                rng = np.random.default_rng(chosen.index(eye["name"]))
                copy = spoil(eye["photograph"], fov, 1.0 if full else 0.5, rng)
                cut = spoilt.middle(fov.shape, fov) if kind in spoilt.CUT else np.s_[:, :]
                group = kind if full else f"{kind}, half as strong"
                yield eye | {
                    "group": group,
                    "photograph": np.ascontiguousarray(copy),
                    "mask": np.ascontiguousarray(eye["mask"][cut]),
                    "second": None,
                }
    for kind, draw in spoilt.ELSE.items() if args.spoil else ():
        for seed in range(3):
            picture = draw(np.random.default_rng(seed))
            yield {"name": str(seed), "set": "", "group": kind, "photograph": picture, "mask": None}


class Networks:
    """The network for each data set: the one of `--weights`, or the one of `--files` trained without it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.device = pick_device(args.device)
        self.weights: dict[str, Path] = {}
        for name in args.sets:
            paths = [files / f"without_{name}" / "checkpoint.pth" for files in args.files]
            self.weights[name] = next((p for p in paths if p.is_file()), paths[0]) if paths else args.weights
        self.weights[""] = self.weights[args.sets[0]]
        self.loaded: dict[Path, tuple[Any, float]] = {}

    def of(self, name: str) -> tuple[Any, float, Path]:
        """Network, threshold and checkpoint for a data set."""
        path = self.weights[name]
        if path not in self.loaded:
            self.loaded[path] = load_networks([path], None, self.device)
        return *self.loaded[path], path


def predict(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Each photograph with `fov`, `levels`, `found`, `held_out`, and `f1` where there is a truth."""
    from tqdm import tqdm

    networks = Networks(args)
    for eye in tqdm(read_all(args), unit="photograph", disable=None):
        model, threshold, path = networks.of(eye["set"])
        eye["fov"] = fov = estimate_fov(eye["photograph"])
        eye["threshold"] = threshold = args.threshold or threshold
        eye["held_out"] = bool(eye["set"]) and eye["name"] not in model.trained_on
        made = path.parent / "probability" / f"{eye['name']}.png"  # by train.py, in eight views
        if args.views == 8 and eye["group"] == eye["set"] and args.files and made.is_file():
            eye["levels"] = cv2.imread(str(made), cv2.IMREAD_UNCHANGED)
        else:
            folder = (
                args.cache
                / (sha256(path)[:8] + ("" if args.views == 8 else f", views {args.views}"))
                / eye["set"]
            )
            kept = folder / f"{eye['name']}, {eye['group']}.png"
            if not kept.is_file():
                scale = plan_scale(look_at(eye["photograph"]), model).factor
                probability = segment(model, eye["photograph"], fov, args.views, scale)
                write_png(kept, metrics.quantize(probability))
            eye["levels"] = cv2.imread(str(kept), cv2.IMREAD_UNCHANGED)
        eye["found"] = binarize(eye["levels"], fov, threshold)
        if eye["mask"] is not None:
            counts = metrics.count_levels(eye["levels"], eye["mask"], fov)
            eye["f1"] = metrics.scores(counts, threshold)["f1"]
        yield eye


def print_doubts(flagged: dict[str, list[list[str]]]) -> None:
    """How many of each kind are doubtful, and why."""
    print("\n| photographs | doubtful | reasons |\n|---|---|---|")
    for name, lists in flagged.items():
        words = sorted({reason.split(" only")[0] for reasons in lists for reason in reasons})
        print(f"| {name} | {sum(map(bool, lists))} of {len(lists)} | {'; '.join(words)} |")


def print_correlation(table: Rows) -> None:
    """Spearman's correlation of expected and true F1 over the eyes held out and their spoilt copies."""
    from scipy.stats import spearmanr

    if not (known := [row for row in table if row["held_out"] and np.isfinite(row["f1"])]):
        return
    spoilt_eyes = {(row["set"], row["name"]) for row in known if row["group"] != row["set"]}
    print("\n| | eyes as they are | those with spoilt copies, and these | all of them |\n|---|---|---|---|")
    for name in sorted({row["set"] for row in known}) + ["all"]:
        part = [row for row in known if name in (row["set"], "all")]
        eyes = [row for row in part if row["group"] == row["set"]]
        copied = [row for row in part if (row["set"], row["name"]) in spoilt_eyes]
        cells = []
        for some in (eyes, copied, part):
            expected = np.nan_to_num([row["expected_f1"] for row in some])
            cells.append(f"{spearmanr(expected, [row['f1'] for row in some])[0]:.2f} of {len(some)}")
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    args = parse_args()
    measured: dict[str, list[dict[str, dict[str, float]]]] = {}
    pixels: dict[str, list[Pixels]] = {}
    flagged: dict[str, list[list[str]]] = {}
    thresholds: dict[str, float] = {}
    table = []
    for eye in predict(args):
        fov, levels, threshold = eye["fov"], eye["levels"], eye["threshold"]
        row = measure(prepare(levels, fov, threshold))
        found = features(eye["photograph"], fov, eye["found"])
        row |= confidence(levels, eye["found"], fov)
        reasons = doubts(found, row)
        flagged.setdefault(eye["group"], []).append(reasons)
        table.append(
            {name: eye[name] for name in ("set", "name", "group", "held_out")}
            | {"doubtful": "; ".join(reasons), "f1": eye.get("f1", float("nan"))}
            | found
            | row
        )
        if not eye["held_out"] or eye["mask"] is None or eye["group"] != eye["set"]:
            continue
        drawn = {"first": eye["mask"], "second": eye["second"]}
        rows = {
            n: measure(prepare(as_levels(m * (fov > 0)), fov, 0.5)) for n, m in drawn.items() if m is not None
        }
        measured.setdefault(eye["set"], []).append({"prediction": row, **rows})
        pixels.setdefault(eye["set"], []).append(pixels_of(eye))
        thresholds[eye["set"]] = threshold
    write_csv(args.cache / "photographs.csv", table)
    agreement = {}
    for name, rows in measured.items():
        truth = [row["first"] for row in rows]
        title = f"{name}: prediction beside first observer"
        agreement[name] = print_agreement(title, truth, [row["prediction"] for row in rows], COMPARED)
        if all("second" in row for row in rows):
            title = f"{name}'s observers"
            second = [row["second"] for row in rows]
            agreement[title] = print_agreement(f"{name}: second observer beside first", truth, second, COMPARED)
    if agreement:
        print_verdicts(agreement)
        print_uncertainty(pixels, thresholds)
    print_doubts(flagged)
    print_correlation(table)
    print(f"\n{args.cache / 'photographs.csv'}: all features and measures of each photograph")


if __name__ == "__main__":
    run(main)
