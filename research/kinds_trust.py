"""How far measures of arteries and veins can be trusted: beside labels, and in repeated photographs; by hand.

    # eyes that neither network has seen; after --test the flags of test.py, which writes the results first
    python -m research.kinds_trust results/HRF --test --only HRF --weights files/drive_unet.pth \\
        --arteries-veins-weights files/kinds/without_HRF/checkpoint.pth

    python -m research.kinds_trust --copies copies HRF/images/*.jpg      # the same eyes, changed
    python predict.py copies --out results/copies
    python -m research.kinds_trust results/copies

Labels are measured around the disc that was found, so that all the difference is that of the vessels.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from datasets.images import read_image, write_png
from measures.arteries_veins import KIND_MEASURES
from pages.results import MEASURES_TABLE
from research.agreement import Rows, print_agreement, print_verdicts
from utils import UserError, folder_name, path_name, run

ROOT = Path(__file__).resolve().parent.parent
# in units that no change of the file changes, and of the vessels
COMPARED = tuple(
    name
    for name in KIND_MEASURES
    if name not in ("crae", "crve", "crae_um", "crve_um", "kind_decided", "zone_b_seen", "zone_c_seen")
    and not name.endswith(("width_mean", "width_mean_um"))
)


def shift(photograph: np.ndarray) -> np.ndarray:
    """Moved by a fiftieth of its width; what comes in is black."""
    height, width = photograph.shape[:2]
    by = round(width / 50)
    return cv2.warpAffine(photograph, np.float32([[1, 0, by], [0, 1, by / 2]]), (width, height))


def brighten(photograph: np.ndarray) -> np.ndarray:
    """A fifth lighter."""
    return cv2.convertScaleAbs(photograph, alpha=1.2)


def compress(photograph: np.ndarray) -> np.ndarray:
    """A JPEG of quality 50."""
    coded = cv2.imencode(".jpg", photograph[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
    return cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]


def shrink(photograph: np.ndarray) -> np.ndarray:
    """At two thirds of its size."""
    return cv2.resize(photograph, None, fx=2 / 3, fy=2 / 3, interpolation=cv2.INTER_AREA)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "shifted": shift,
    "brightened": brighten,
    "compressed": compress,
    "shrunk": shrink,
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "paths", type=path_name, nargs="+", help="results of test.py or predict.py; with --copies photographs"
    )
    parser.add_argument("--copies", type=folder_name, help="folder to write changed copies of photographs to")
    parser.add_argument(
        "--test", nargs=argparse.REMAINDER, help="run test.py with these flags; it writes the first results"
    )
    return parser.parse_args()


def write_copies(photographs: list[Path], folder: Path) -> None:
    """Write each photograph as it is, and changed in each way."""
    for path in tqdm(photographs, unit="photograph", disable=None):
        photograph = read_image(path)
        write_png(folder / f"{path.stem}.png", photograph)
        for name, change in CHANGES.items():
            write_png(folder / f"{path.stem}-{name}.png", np.ascontiguousarray(change(photograph)))


def read_rows(results: Path) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """What is `COMPARED` in measures.csv, by the name of the image: of the predictions, and of the labels."""
    path = results / MEASURES_TABLE
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or "avr" not in rows[0]:
        raise UserError(f"{path}: has no arteries and veins; predict with a network that tells them apart")

    def rows_by(maker: str) -> dict[str, dict[str, float]]:
        own = [row for row in rows if row.get("by", "prediction") == maker]
        return {row["image"]: {name: float(row[name] or "nan") for name in COMPARED} for row in own}

    return rows_by("prediction"), rows_by("arteries_veins")


def repeats(by_name: dict[str, dict[str, float]]) -> Iterator[tuple[str, Rows, Rows]]:
    """Each change: its name, the rows of the photographs as they are, and those of the changed ones."""
    for change in CHANGES:
        names = [name for name in by_name if f"{name}-{change}" in by_name]
        if names:
            yield change, [by_name[name] for name in names], [by_name[f"{name}-{change}"] for name in names]


def main() -> None:
    args = parse_args()
    if args.copies:
        write_copies(args.paths, args.copies)
        return
    if args.test is not None:
        command = [sys.executable, str(ROOT / "test.py"), "--results", str(args.paths[0]), *args.test]
        if subprocess.run(command, check=False).returncode:
            raise UserError("test.py has ended with an error")
    agreement = {}
    for results in args.paths:
        found, labels = read_rows(results)
        pairs: list[tuple[str, Rows, Rows]] = [*repeats(found)]
        if labels:
            pairs.append(("prediction beside label", [*labels.values()], [found[name] for name in labels]))
        for what, before, after in pairs:
            title = f"{results.name}, {what}"
            agreement[title] = print_agreement(title, before, after, COMPARED)
    if not agreement:
        raise UserError(
            f"{args.paths[0]}: neither labels of arteries and veins nor changed copies of a photograph"
        )
    print_verdicts(agreement)


if __name__ == "__main__":
    run(main)
