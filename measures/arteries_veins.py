"""What is measured on arteries and on veins: their calibres around the disc, and each kind by itself.

docs/measures.md defines every measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from anatomy.landmarks import Landmarks
from datasets.kinds import ARTERY, BOTH, NONE, UNCERTAIN, VEIN, is_one_of
from measures.branchings import branchings
from measures.vessels import MEASURES, NAN, Measure, Vessels, measure, prepare
from measures.zones import DISC_UM, ZONES, Crossing, OpticDisc, crossings, disc_in
from scoring.metrics import level_of

LEAST_SEEN = 0.8  # share of zone B in the field of view below which its vessels are not all there
LARGEST_SIX = 6  # vessels around the disc that CRAE, or CRVE, is the calibre of
BRANCHING = {"artery": 0.88, "vein": 0.95}  # width of a trunk, by the root of the squares of its two branches
VALUES = {"artery": ARTERY, "vein": VEIN}
# of `MEASURES`, for each kind
OF_EACH = (
    *("length", "branch_points", "end_points", "width_mean", "width_mean_fov", "width_mean_um"),
    *("tortuosity", "curvature", "fractal_d0", "fractal_d1", "fractal_d2"),
)
BY_KIND = {
    "share": replace(MEASURES["vessel_share"], title="Share", hint="share of the field of view"),
    **{name: MEASURES[name] for name in OF_EACH},
    "branching_angle": Measure("Branching angle", 1, "median angle between two branches, degrees"),
    "branching_coefficient": Measure("Branching", 2, "median of branches² / trunk², of their widths"),
    "branchings": Measure("Branchings", 0, "number of branchings with angle and coefficient"),
    "length_b": Measure("Length, B", 2, "length of centre lines in zone B, disc diameters"),
    "length_c": Measure("Length, C", 2, "length of centre lines in zone C, disc diameters"),
    "density_b": Measure("Share, B", 4, "share of zone B, as far as it is seen"),
    "density_c": Measure("Share, C", 4, "share of zone C, as far as it is seen"),
}
EQUIVALENTS = {
    "avr": Measure("AVR", 3, "CRAE / CRVE", "with care"),
    **{
        f"{name}{unit}": Measure(
            f"{title}{short}", digits, f"calibre of the six largest {kind} in zone B, {long}", trust
        )
        for name, title, kind, trust in (
            ("crae", "CRAE", "arteries", "no"),
            ("crve", "CRVE", "veins", "with care"),
        )
        for unit, short, digits, long in (
            ("", "", 2, "pixels"),
            ("_disc", " / disc", 1, "thousandths of the disc's diameter"),
            ("_um", ", µm", 1, "micrometres, an estimate without --um-per-pixel"),
        )
    },
    "crae_vessels": Measure("Arteries in B", 0, "number of arteries in CRAE"),
    "crve_vessels": Measure("Veins in B", 0, "number of veins in CRVE"),
    "zone_b_seen": Measure("Zone B seen", 2, "share of zone B in the field of view"),
    "zone_c_seen": Measure("Zone C seen", 2, "share of zone C in the field of view"),
    "kind_decided": Measure("Decided", 3, "share of the vessel pixels that are called artery or vein"),
}
# how far to trust those of one kind, as docs/measures.md found; these are on the page, too
KIND_TRUST = {
    "artery_share": "differences",
    "vein_share": "no",
    "artery_length": "differences",
    "vein_length": "no",
    "artery_density_c": "differences",
    "vein_curvature": "no",
    "artery_branching_angle": "no",
    "vein_branching_angle": "no",
}
KIND_MEASURES = EQUIVALENTS | {
    name: replace(each, title=f"{kind.capitalize()}: {each.title}", trust=KIND_TRUST.get(name, ""))
    for kind in VALUES
    for name, each in ((f"{kind}_{own}", each) for own, each in BY_KIND.items())
}
ON_PAGE = {name: KIND_MEASURES[name] for name in (*EQUIVALENTS, *KIND_TRUST)}
REASONS = ("crae_reason", "crve_reason")  # columns of words: why there is no value


@dataclass(frozen=True)
class ArteriesVeins:
    """The measures of a photograph, and the vessels that CRAE and CRVE are of."""

    row: dict[str, float | str]  # `KIND_MEASURES` and `REASONS`
    six: dict[str, list[Crossing]]  # by kind, `artery` and `vein`; fewer where there are fewer


def measure_kinds(
    levels: np.ndarray,
    kinds: np.ndarray,
    fov: np.ndarray,
    threshold: float,
    landmarks: Landmarks,
    um_per_pixel: float | None = None,
    diameter: float | None = None,
) -> ArteriesVeins:
    """Measure the arteries and the veins of one photograph.

    Args:
        levels: probability of vessel, and `fov`, `threshold` and `diameter`: as of `prepare`.
        kinds: of the pixels from the threshold on, uint8 (H, W), as of `label_vessels` or of a label:
            ARTERY, VEIN, BOTH, UNCERTAIN, or NONE, which counts as no vessel.
        landmarks: the optic disc.
        um_per_pixel: micrometres that a pixel of the photograph shows; None: estimated from the disc.
    """
    # what is below the threshold stays: it says where inside a pixel the border lies
    border = (kinds == NONE) & (levels < level_of(threshold))
    of_kind = {
        kind: prepare(cv2.copyTo(levels, own.view(np.uint8)), fov, threshold, diameter)
        for kind, own in ((kind, is_one_of(kinds, (value, BOTH)) | border) for kind, value in VALUES.items())
    }
    every = of_kind["artery"]
    disc = disc_in(landmarks, every.shrink)
    counts = cv2.calcHist([kinds], [0], fov, [256], [0, 256]).ravel()
    decided, found = counts[[ARTERY, VEIN, BOTH]].sum(), counts.sum() - counts[NONE]
    row: dict[str, float | str] = dict.fromkeys(KIND_MEASURES, NAN)
    row["kind_decided"] = float(decided / found) if found else NAN
    if disc:
        row |= {f"zone_{name}_seen": disc.seen(every.fov, name) for name in ZONES}
    small = cv2.resize(kinds, every.fov.shape[::-1], interpolation=cv2.INTER_NEAREST)
    six: dict[str, list[Crossing]] = {}
    for kind, vessels in of_kind.items():
        row |= {f"{kind}_{name}": each for name, each in describe_kind(vessels, disc, um_per_pixel).items()}
        beside = is_one_of(small, (ARTERY + VEIN - VALUES[kind], BOTH, UNCERTAIN))
        found = crossings(vessels, disc, beside) if disc else []
        six[kind] = found[:LARGEST_SIX]
        row |= calibre(kind, six[kind], float(row["zone_b_seen"]), landmarks, um_per_pixel)
    row["avr"] = float(row["crae"]) / float(row["crve"])
    return ArteriesVeins(row, six)


def describe_kind(vessels: Vessels, disc: OpticDisc | None, um_per_pixel: float | None) -> dict[str, float]:
    """The measures `BY_KIND` of vessels of one kind."""
    every = measure(vessels, um_per_pixel)
    row = {"share": every["vessel_share"]} | {name: every[name] for name in OF_EACH if name in every}
    angle, coefficient = (each if len(each) else [NAN] for each in branchings(vessels, disc).T)
    row |= {"branching_angle": float(np.median(angle)), "branching_coefficient": float(np.median(coefficient))}
    row["branchings"] = float(np.isfinite(angle).sum())
    if disc:
        tree = vessels.tree
        place = disc.distance(tree.line)
        for name, (low, high) in ZONES.items():
            zone = disc.zone(vessels.fov.shape, name) & (vessels.fov > 0)
            row[f"length_{name}"] = float(tree.steps[(place >= low) & (place < high)].sum() / disc.diameter)
            row[f"density_{name}"] = float(vessels.mask[zone].mean()) if zone.any() else NAN
    return row


def calibre(
    kind: str, six: list[Crossing], seen: float, landmarks: Landmarks, um_per_pixel: float | None
) -> dict[str, float | str]:
    """CRAE or CRVE in its units, the number of vessels in it, and why it is empty if it is."""
    name, disc = {"artery": "crae", "vein": "crve"}[kind], float(landmarks.disc_diameter)
    reason = (
        "no optic disc found"
        if not disc > 0
        else f"only {seen:.0%} of zone B in the field of view"
        if seen < LEAST_SEEN
        else f"only {len(six)} of {LARGEST_SIX} vessels in zone B"
        if len(six) < LARGEST_SIX
        else ""
    )
    value = NAN if reason else equivalent([vessel.width for vessel in six], BRANCHING[kind])
    return {
        name: value,
        f"{name}_disc": 1000 * value / disc,
        f"{name}_um": value * (um_per_pixel or DISC_UM / disc),
        f"{name}_vessels": float(len(six)) if disc > 0 else NAN,
        f"{name}_reason": reason,
    }


def equivalent(widths: Sequence[float], constant: float) -> float:
    """The calibre of the trunk that vessels of these widths would come from.

    The widest is paired with the narrowest, the next with the next, and an odd one waits for the next round,
    until one is left (Knudtson et al. 2003, https://doi.org/10.1076/ceyr.27.3.143.16049).

    Args:
        widths: of the vessels, at least one, in any unit; the result has the same.
        constant: of `BRANCHING`.
    """
    left = sorted(widths)
    while len(left) > 1:
        half = len(left) // 2
        pairs = zip(left[:half], left[::-1], strict=False)
        odd = left[half : half + len(left) % 2]
        left = sorted([*(constant * float(np.hypot(*pair)) for pair in pairs), *odd])
    return left[0]
