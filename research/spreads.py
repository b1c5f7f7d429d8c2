"""What the columns `_sd` of measures.csv say about the error of each measure, on eyes not seen; by hand.

    python -m research.spreads --drive DRIVE --cameras FOLDER_OF_STARE_AND_HRF --files files

The error is that of the prediction beside the first observer's mask. Its mean over the eyes of a data set is
the bias, which no spread of views can know; the rest is compared with the standard deviation of the views.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from datasets.field_of_view import estimate_fov, fov_diameter
from measures.uncertainty import Views
from measures.vessels import SPREADS, measure
from prediction.scale import factors_for
from prediction.segmentation import segment
from research import trust
from scoring import metrics
from system.files import write_csv
from utils import run

COMPARED = ("vessel_share", *SPREADS)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drive", type=Path, default=Path("DRIVE"))
    parser.add_argument("--cameras", type=Path, default=Path("cameras"), help="has STARE and HRF")
    parser.add_argument("--files", type=Path, default=Path("files"), help="of train.py --leave-one-out")
    parser.add_argument("--sets", nargs="+", default=["STARE", "HRF", "DRIVE"], help="data sets to look at")
    parser.add_argument("--every", type=int, default=1, help="of the eyes, look at each EVERYth only")
    parser.add_argument("--threshold", type=float, help="probability that makes a vessel")
    parser.add_argument("--out", type=Path, default=Path("spreads.csv"), help="each measure of each eye")
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def compare(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Predicted, drawn, and standard deviation over the views, for each measure of each eye held out."""
    from tqdm import tqdm

    networks = trust.Networks(argparse.Namespace(**vars(args) | {"files": [args.files], "weights": None}))
    for name in args.sets:
        folder = args.drive if name == "DRIVE" else args.cameras / name
        model, threshold, _ = networks.of(name)
        threshold = args.threshold or threshold
        for read in tqdm(trust.read_set(folder, args.every), desc=name, unit="eye", disable=None):
            eye = SimpleNamespace(**read)
            if eye.mask is None or eye.name in model.trained_on:
                continue
            fov = estimate_fov(eye.photograph)
            diameter, views = fov_diameter(fov), Views(threshold)
            scale = factors_for(eye.photograph, model)
            probability = segment(model, eye.photograph, fov, True, scale, views)
            predicted = measure(metrics.quantize(probability), fov, threshold)
            drawn = measure(trust.as_levels(eye.mask * (fov > 0)), fov, 0.5)
            spread = {"vessel_share_sd": views.spread()} | views.spreads(diameter, len(fov))
            for column in COMPARED:
                yield {
                    "set": name,
                    "eye": eye.name,
                    "measure": column,
                    "predicted": predicted[column],
                    "drawn": drawn[column],
                    "sd": spread[f"{column}_sd"],
                }


def print_table(rows: list[dict[str, Any]]) -> None:
    """For each measure: bias and SD of the error in SDs of the views, eyes within two, rank correlation."""
    from scipy.stats import spearmanr

    sets = list(dict.fromkeys(row["set"] for row in rows))
    print(f"\n| measure | {' | '.join(sets)} |\n|---{'|---' * len(sets)}|")
    for column in COMPARED:
        cells = []
        for name in sets:
            part = [row for row in rows if (row["set"], row["measure"]) == (name, column)]
            table = np.array([(row["predicted"] - row["drawn"], row["sd"]) for row in part])
            error, sd = table[np.isfinite(table).all(axis=1)].T
            typical, rest = np.median(sd), error - error.mean()
            within = np.mean(np.abs(error) <= 2 * sd)
            order = spearmanr(np.abs(rest), sd)[0]
            cells.append(
                f"{error.mean() / typical:+.1f}; {error.std(ddof=1) / typical:.1f}; {within:.0%}; {order:.2f}"
            )
        print(f"| `{column}` | {' | '.join(cells)} |")


def main() -> None:
    args = parse_args()
    rows = list(compare(args))
    write_csv(args.out, rows)
    print_table(rows)


if __name__ == "__main__":
    run(main)
