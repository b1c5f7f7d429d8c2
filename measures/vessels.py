"""What is measured on a vessel mask: share, length, branching, calibre, tortuosity, fractal dimensions.

docs/measures.md defines every measure and says how far it can be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from datasets.field_of_view import fov_diameter
from measures.calibre import quantiles, widths_along
from measures.fractal import box_sizes, fractal_dimensions
from measures.skeleton import Tree, trace

LARGEST = 1096  # pixels: a larger field of view is shrunk to this diameter, twice that of DRIVE, to be measured
SHORTEST = 1 / 30  # diameters of the field of view: shorter segments have no tortuosity
BEND = 1 / 137  # diameters: standard deviation of the Gaussian over a line before its curvature is taken
LEAST_BEND = 4.0  # pixels: with less the steps of the pixels would count as bends


@dataclass(frozen=True)
class Measure:
    """How a measure is shown."""

    title: str
    digits: int
    hint: str  # what it is, with its unit
    trust: str = ""  # one of TRUST; empty where nothing was measured


# how far to trust a measure, by docs/measures.md, which says how that was found, and what each word means
TRUST = {
    "values": "its values agree with those of masks drawn by hand, on cameras that the network has not seen",
    "differences": "trust differences between eyes of one camera, not values as such",
    "with care": "differences between eyes of one camera, with care",
    "no": "it does not agree with masks drawn by hand",
}
# of the segmentation, not of the vessels: see measures.doubts
CONFIDENCE = {
    "expected_f1": Measure("Expected F1", 2, "F1 to expect if the probabilities are right"),
    "uncertain_vessels": Measure("Uncertain", 3, "share of vessel pixels wrong with a chance of 1/4 or more"),
}
MEASURES = {
    "vessel_share": Measure("Vessels", 4, "share of the field of view that is vessel", "with care"),
    "length": Measure("Length", 2, "length of all centre lines, diameters of the field of view", "differences"),
    "segments": Measure("Segments", 0, "segments between branch points and end points", "no"),
    "branch_points": Measure("Branch points", 0, "number of branch points", "differences"),
    "end_points": Measure("End points", 0, "number of end points", "no"),
    "largest_tree": Measure("Largest tree", 3, "share of vessel pixels in the largest connected tree", "no"),
    "width_mean": Measure("Width", 2, "mean width over the centre lines, pixels", "no"),
    "width_median": Measure("Median width", 2, "median width over the centre lines, pixels", "no"),
    "width_p5": Measure("Width, 5 %", 2, "5th percentile of the width, pixels", "no"),
    "width_p95": Measure("Width, 95 %", 2, "95th percentile of the width, pixels", "with care"),
    "width_mean_fov": Measure(
        "Width / field", 2, "mean width, thousandths of the field of view's diameter", "no"
    ),
    "width_median_fov": Measure("Median / field", 2, "median width, thousandths of the diameter", "no"),
    "width_p5_fov": Measure("5 % / field", 2, "5th percentile of the width, thousandths of the diameter", "no"),
    "width_p95_fov": Measure(
        "95 % / field", 2, "95th percentile of the width, thousandths of the diameter", "with care"
    ),
    "width_mean_um": Measure("Width, µm", 1, "mean width, micrometres", "no"),
    "width_median_um": Measure("Median width, µm", 1, "median width, micrometres", "no"),
    "width_p5_um": Measure("Width, 5 %, µm", 1, "5th percentile of the width, micrometres", "no"),
    "width_p95_um": Measure("Width, 95 %, µm", 1, "95th percentile of the width, micrometres", "with care"),
    "tortuosity": Measure("Tortuosity", 4, "arc / chord - 1 of the segments, weighted by length", "no"),
    "curvature": Measure(
        "Curvature", 1, "total squared curvature / length, in 1 / diameter squared", "differences"
    ),
    "fractal_d0": Measure("D0", 4, "fractal dimension (capacity)", "differences"),
    "fractal_d1": Measure("D1", 4, "information dimension", "differences"),
    "fractal_d2": Measure("D2", 4, "correlation dimension", "differences"),
    "fractal_r2": Measure("R² of D0", 4, "R² of the line that D0 is the slope of"),
    "box_smallest": Measure("Smallest box", 1, "side of the smallest boxes, pixels"),
    "box_largest": Measure("Largest box", 1, "side of the largest boxes, pixels"),
    "fov_diameter": Measure("Field of view", 1, "diameter of the field of view, pixels"),
}
NAN = float("nan")


@dataclass
class Vessels:
    """The vessels of a photograph, at the size at which they are measured."""

    probability: np.ndarray  # float32 (h, w), 0 outside the field of view
    fov: np.ndarray  # field of view, uint8 (h, w), 0 or 255
    threshold: float  # probability that makes a vessel, above 0
    diameter: float  # of the whole field of view, pixels of the photograph
    shrink: float  # pixels here for one of the photograph, at most 1

    @cached_property
    def mask(self) -> np.ndarray:
        """uint8 (h, w), 0 or 1."""
        return (self.probability >= self.threshold).astype(np.uint8)

    @cached_property
    def tree(self) -> Tree:
        """Centre lines of the mask."""
        return trace(self.mask)

    @cached_property
    def widths(self) -> tuple[np.ndarray, np.ndarray]:
        """Width at each point of the centre lines, and the length it stands for: see `widths_along`."""
        return widths_along(self.probability, self.tree, self.threshold)


def as_levels(mask: np.ndarray) -> np.ndarray:
    """A mask (H, W), not 0 where there is a vessel, as probability of 0 or 1 for `prepare`: uint16 (H, W)."""
    return np.where(mask > 0, np.uint16(65535), np.uint16(0))


def prepare(levels: np.ndarray, fov: np.ndarray, threshold: float, diameter: float | None = None) -> Vessels:
    """Shrink a photograph's vessels to the size at which they are measured.

    Args:
        levels: probability of vessel, uint16 (H, W) as of `metrics.quantize`.
        fov: field of view, uint8 (H, W), 0 or 255.
        threshold: probability in [0, 1] that makes a vessel.
        diameter: of the whole field of view in pixels, if known; else that of the circle around `fov`.
    """
    diameter = diameter or fov_diameter(fov)
    shrink = min(1.0, LARGEST / diameter)
    if shrink < 1:
        size = tuple(max(1, round(side * shrink)) for side in fov.shape[::-1])
        levels = cv2.resize(levels, size, interpolation=cv2.INTER_AREA)
        fov = cv2.resize(fov, size, interpolation=cv2.INTER_NEAREST)
    probability = levels.astype(np.float32) / np.float32(65535)
    return Vessels(probability * (fov > 0), fov, max(threshold, 1e-6), diameter, shrink)


def measure(vessels: Vessels, um_per_pixel: float | None = None) -> dict[str, float]:
    """Measure the vessels of one photograph inside its field of view.

    Args:
        vessels: of `prepare`.
        um_per_pixel: micrometres of the retina that a pixel of the photograph shows, if known.

    Returns:
        The values of `MEASURES`; widths in micrometres only with `um_per_pixel`. NaN where a measure has
        nothing to measure, such as the width where there is no vessel; never infinite.
    """
    tree, mask, diameter, shrink = vessels.tree, vessels.mask, vessels.diameter, vessels.shrink
    row: dict[str, float] = {
        "vessel_share": float(mask.sum() / max(np.count_nonzero(vessels.fov), 1)),
        "length": float(tree.lengths().sum()) / (diameter * shrink),
        "segments": len(tree.sizes),
        "branch_points": tree.branch_points,
        "end_points": tree.end_points,
        "largest_tree": largest_tree(mask),
    }
    good = np.isfinite(vessels.widths[0])
    width, weight = (values[good] for values in vessels.widths)
    mean = float(np.average(width, weights=weight)) if len(width) else NAN
    for name, value in zip(
        ("mean", "median", "p5", "p95"), (mean, *quantiles(width, weight, (0.5, 0.05, 0.95))), strict=True
    ):
        pixels = value / shrink
        row |= {f"width_{name}": pixels, f"width_{name}_fov": 1000 * pixels / diameter}
        if um_per_pixel is not None:
            row[f"width_{name}_um"] = pixels * um_per_pixel
    row["tortuosity"], row["curvature"] = tortuosity(tree, diameter * shrink)
    sizes = box_sizes(diameter * shrink)
    row |= {f"fractal_{name}": value for name, value in fractal_dimensions(mask, sizes).items()}
    ends = (sizes[0], sizes[-1]) if sizes else (NAN, NAN)
    row |= {"box_smallest": ends[0] / shrink, "box_largest": ends[1] / shrink, "fov_diameter": diameter}
    return {name: row[name] for name in MEASURES if name in row}


def largest_tree(mask: np.ndarray) -> float:
    """Share of the pixels of a mask (H, W) in its largest connected part; NaN of an empty one."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return float(areas.max() / areas.sum()) if len(areas) else NAN


def tortuosity(tree: Tree, diameter: float) -> tuple[float, float]:
    """How much the segments turn, of those at least `SHORTEST` long; NaN where there is none.

    Returns:
        Arc length / chord length - 1, the mean weighted by length; and the total squared curvature divided by
        the total length (Hart et al. 1999, https://doi.org/10.1016/S1386-5056(98)00163-4), in 1 / diameter
        squared.
    """
    if not len(tree.sizes):
        return NAN, NAN
    first, last = tree.ends
    points = tree.line
    arc = tree.lengths()
    chord = np.hypot(*(points[last] - points[first]).T)
    long = arc >= SHORTEST * diameter
    bent = long & (chord > 0) & ~tree.is_loop  # a loop has no chord
    by_chord = (
        max(0.0, float(np.average(arc[bent] / chord[bent], weights=arc[bent])) - 1) if bent.any() else NAN
    )
    if not long.any():
        return by_chord, NAN
    points = tree.smooth(max(LEAST_BEND, BEND * diameter))
    turn = np.zeros(len(points))  # squared angle at each point, divided by the length that it stands for
    a, b = points[1:-1] - points[:-2], points[2:] - points[1:-1]
    angle = np.arctan2(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0], (a * b).sum(axis=1))
    turn[1:-1] = angle**2 / np.maximum((np.hypot(*a.T) + np.hypot(*b.T)) / 2, 1e-9)
    turn[first] = turn[last] = 0
    squared = tree.sums(turn)
    return by_chord, float(squared[long].sum() / arc[long].sum() * diameter**2)
