"""How far measures of arteries and veins can be trusted: beside labels, and in repeated photographs; by hand.

    python predict.py HRF/images --out results/hrf        # with a network that has not seen them
    python -m research.kinds_trust results/hrf --labels FOLDER_OF_LABELS

    python -m research.kinds_trust --copies copies HRF/images/*.jpg      # the same eyes, changed
    python predict.py copies --out results/copies
    python -m research.kinds_trust results/copies

Labels are called as the results, with the levels 0 none, 1 artery, 2 vein, 3 both. They are measured around the
disc that `measures.csv` has, so that all the difference is that of the vessels.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from anatomy.landmarks import Landmarks
from datasets.field_of_view import estimate_fov
from datasets.images import read_image, write_png
from datasets.kinds import NONE
from measures.arteries_veins import KIND_MEASURES, measure_kinds
from pages.results import MEASURES_TABLE
from research.agreement import Rows, print_agreement, print_verdicts
from utils import UserError, folder_name, path_name, run

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
        "paths", type=path_name, nargs="+", help="results of predict.py; with --copies photographs"
    )
    parser.add_argument(
        "--labels", type=path_name, help="folder of labels: compare the first results with them"
    )
    parser.add_argument("--copies", type=folder_name, help="folder to write changed copies of photographs to")
    return parser.parse_args()


def write_copies(photographs: list[Path], folder: Path) -> None:
    """Write each photograph as it is, and changed in each way."""
    for path in tqdm(photographs, unit="photograph", disable=None):
        photograph = read_image(path)
        write_png(folder / f"{path.stem}.png", photograph)
        for name, change in CHANGES.items():
            write_png(folder / f"{path.stem}-{name}.png", np.ascontiguousarray(change(photograph)))


def read_rows(results: Path) -> Rows:
    """The rows of the predictions in measures.csv, with numbers where they are numbers."""
    path = results / MEASURES_TABLE
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows: Rows = [row for row in csv.DictReader(file) if row.get("by", "prediction") == "prediction"]
    if not rows or "avr" not in rows[0]:
        raise UserError(f"{path}: has no arteries and veins; predict with a network that tells them apart")
    for row in rows:
        row |= {name: float(row[name] or "nan") for name in (*COMPARED, "disc_x", "disc_y", "disc_diameter")}
    return rows


def measure_label(row: dict[str, Any], label: Path) -> dict[str, Any]:
    """Measure the label of the photograph of a row, around the disc of the row."""
    kinds, fov = read_image(label)[..., 0], estimate_fov(read_image(Path(row["photograph"])))
    nowhere = float("nan")
    disc = (row["disc_x"], row["disc_y"], row["disc_diameter"])
    landmarks = Landmarks(*disc, 1.0, nowhere, nowhere, 0.0, nowhere, nowhere, nowhere)
    levels = np.where((kinds != NONE) & (fov > 0), np.uint16(65535), np.uint16(0))
    return measure_kinds(levels, kinds, fov, 0.5, landmarks).row


def repeats(rows: Rows) -> Iterator[tuple[str, Rows, Rows]]:
    """Each change: its name, the rows of the photographs as they are, and those of the changed ones."""
    by_name = {row["image"]: row for row in rows}
    for change in CHANGES:
        names = [name for name in by_name if f"{name}-{change}" in by_name]
        if names:
            yield change, [by_name[name] for name in names], [by_name[f"{name}-{change}"] for name in names]


def main() -> None:
    args = parse_args()
    if args.copies:
        write_copies(args.paths, args.copies)
        return
    agreement = {}
    for results in args.paths:
        rows = read_rows(results)
        if args.labels:
            pairs = [(row, args.labels / f"{row['image']}.png") for row in rows]
            pairs = [(row, label) for row, label in pairs if label.is_file()]
            if not pairs:
                raise UserError(
                    f"{args.labels}: has no label of a photograph of {results}, such as {rows[0]['image']}.png"
                )
            labels = [measure_label(*pair) for pair in tqdm(pairs, unit="label", disable=None)]
            found = [row for row, _ in pairs]
            agreement[results.name] = print_agreement(
                f"{results.name}: prediction beside label", labels, found, COMPARED
            )
        for change, before, after in repeats(rows):
            agreement[f"{results.name}, {change}"] = print_agreement(
                f"{results.name}: {change}", before, after, COMPARED
            )
    if not agreement:
        raise UserError(f"{args.paths[0]}: neither --labels nor changed copies of a photograph")
    print_verdicts(agreement)


if __name__ == "__main__":
    run(main)
