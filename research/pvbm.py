"""Measures beside those of PVBM (Fhima et al. 2022) on the same masks; run by hand.

The masks are those that the first observers of DRIVE and STARE drew. PVBM brings packages that this does not
need:

    pip install --no-deps --target pvbm_alone pvbm
    PYTHONPATH=pvbm_alone python -m research.pvbm --drive DRIVE --cameras FOLDER_OF_STARE
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PVBM.FractalAnalysis import MultifractalVBMs
from PVBM.GeometricalAnalysis import GeometricalVBMs
from scipy.stats import pearsonr, spearmanr

from datasets.field_of_view import estimate_fov
from measures.skeleton import thin
from measures.vessels import measure, prepare
from research.trust import as_levels, read_set
from utils import run

PAIRS = {
    "vessel_share": "area",
    "length": "length of the chords",
    "branch_points": "intersection points",
    "end_points": "end points",
    "tortuosity": "median tortuosity",
    "fractal_d0": "D0",
    "fractal_d1": "D1",
    "fractal_d2": "D2",
}


def by_pvbm(mask: np.ndarray) -> dict[str, float]:
    """What PVBM measures on a mask, bool (H, W)."""
    shapes, skeleton = GeometricalVBMs(), thin(mask).astype(np.float64)
    ends, branches, *_ = shapes.compute_particular_points(skeleton)
    tortuosity, length, *_ = shapes.compute_tortuosity_length(skeleton)
    side = max(mask.shape)
    square = np.zeros((side, side))
    square[: mask.shape[0], : mask.shape[1]] = mask
    dimensions = MultifractalVBMs(n_rotations=5).compute_multifractals(square)[:3]
    return dict(zip(PAIRS.values(), (mask.sum(), length, branches, ends, tortuosity, *dimensions), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drive", type=Path, default=Path("DRIVE"))
    parser.add_argument("--cameras", type=Path, default=Path("cameras"), help="has STARE")
    args = parser.parse_args()
    rows: dict[str, list[tuple[dict[str, float], dict[str, float]]]] = {}
    for folder in (args.drive, args.cameras / "STARE"):
        for eye in read_set(folder):
            if eye["mask"] is not None:
                fov = estimate_fov(eye["photograph"])
                mask = (eye["mask"] > 0) & (fov > 0)
                rows.setdefault(folder.name, []).append(
                    (measure(prepare(as_levels(mask), fov, 0.5)), by_pvbm(mask))
                )
    print(f"| measure | of PVBM |{' |'.join(f' {name}, {len(rows[name])} masks' for name in rows)} |")
    print(f"|---|---{'|---' * len(rows)}|")
    for own, other in PAIRS.items():
        cells = []
        for pairs in rows.values():
            first, second = np.array([(a[own], b[other]) for a, b in pairs]).T
            cells.append(f"{pearsonr(first, second)[0]:.2f} ({spearmanr(first, second)[0]:.2f})")
        print(f"| `{own}` | {other} | {' | '.join(cells)} |")


if __name__ == "__main__":
    run(main)
