"""How sure a segmentation is, and which photographs to look at first, and why: in words, never a refusal.

The limits were chosen on photographs of DRIVE, STARE and HRF, which must pass, and on spoilt copies and
pictures of something else, which must not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from datasets.field_of_view import disc_in_scene, fov_diameter, is_plain
from datasets.images import SHOWN_SIDE
from scoring import metrics

CONTRADICTED = 1.5  # times the diameter that the border shows, or a part of it
CONTRADICTION = "--diameter contradicts the border"
UNSURE = 0.25  # chance of being wrong from which a vessel pixel counts as uncertain
LOOKED_AT = 400  # pixels of the field of view in the copy that is looked at


def uncertainty(levels: np.ndarray) -> np.ndarray:
    """How uncertain each pixel is, uint8 (H, W): 0 sure, 255 as likely vessel as not.

    It is the mean probability of the views, or with a single view its own, that says so, by its distance from
    one half: on eyes held out it finds more of the wrong pixels than the spread of the views does
    (docs/measures.md).
    """
    half = np.minimum(np.arange(metrics.LEVELS), np.arange(metrics.LEVELS)[::-1]) / (metrics.LEVELS / 2 - 1)
    return np.rint(255 * half.clip(0, 1)).astype(np.uint8)[levels]


def confidence(levels: np.ndarray, mask: np.ndarray, fov: np.ndarray) -> dict[str, float]:
    """How sure the segmentation of one photograph is.

    Args:
        levels: probability, uint16 (H, W).
        mask: vessels, and `fov`, the field of view: uint8 (H, W), 0 or 255 each.

    Returns:
        `expected_f1`, the F1 to expect if the probabilities are right (to first order: twice the
        expected true positives over vessels found plus vessels expected); `uncertain_vessels`, the share of the
        vessel pixels that are wrong with a chance of at least a quarter. NaN where there is nothing to be
        sure of. Of a large photograph every second or third row and column counts, which is enough for shares.
    """
    step = max(1, round(max(levels.shape) / SHOWN_SIDE))
    counts = metrics.count_levels(*(each[::step, ::step] for each in (levels, mask, fov)))
    inside, found = counts.sum(axis=0), counts[1]
    # as they are: a calibration fitted on other cameras makes them worse (docs/measures.md)
    chance = np.arange(metrics.LEVELS) / (metrics.LEVELS - 1)
    vessels = float(found.sum())
    expected = float(inside @ chance) + vessels
    return {
        "expected_f1": 2 * float(found @ chance) / expected if expected > 1e-9 else float("nan"),
        "uncertain_vessels": float(found @ (chance < 1 - UNSURE)) / vessels if vessels else float("nan"),
    }


def features(photograph: np.ndarray, fov: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """What speaks for or against a good colour photograph of a retina.

    Args:
        photograph: uint8 (H, W, 3) RGB.
        fov: field of view, uint8 (H, W), 0 or 255.
        mask: vessels found, uint8 (H, W), 0 or 255.

    Returns:
        `diameter` of the field of view in pixels, `bordered` (1 if its border shows), `round` (its overlap with
        the circle around it, where the frame does not cut it), `beside` (see there), `red` and `blue` (mean red
        and blue over mean green), `light` (the 90th percentile of the brightest channel), `sharp` (detail of a
        few pixels over detail of many, in green), `noise` (of single pixels, in green levels), `dark_lines`
        (how much stronger thin dark structures are than thin light ones), `at_border` (share of the vessels in
        the outermost 3 % of the radius).
    """
    diameter = fov_diameter(fov)
    shrink = min(1.0, LOOKED_AT / max(diameter, 1.0))
    height, width = fov.shape
    size = max(8, round(width * shrink)), max(8, round(height * shrink))
    small = cv2.resize(photograph, size, interpolation=cv2.INTER_AREA)
    inside = cv2.resize(fov, size, interpolation=cv2.INTER_NEAREST)
    vessels = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST) > 0
    (x, y), radius = cv2.minEnclosingCircle(cv2.findNonZero(inside))
    disc = cv2.circle(np.zeros_like(inside), (round(x), round(y)), round(radius), 255, -1)
    wide = max(3, round(0.03 * radius))
    core = cv2.erode(np.pad(inside, 1), np.ones((3, 3), np.uint8), iterations=2 * wide)[1:-1, 1:-1] > 0
    if not core.any():
        core = inside > 0
    rim = (inside > 0) & (cv2.distanceTransform(np.pad(inside, 1), cv2.DIST_L2, 3)[1:-1, 1:-1] <= wide)
    red, green, blue = (small[..., k].astype(np.float32) for k in range(3))
    colour = small[core].astype(np.float64).mean(axis=0) + 1
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (11, 11))
    calm = cv2.GaussianBlur(green, (0, 0), 1)
    holes = (cv2.morphologyEx(calm, cv2.MORPH_CLOSE, brush) - calm)[core]
    hills = (calm - cv2.morphologyEx(calm, cv2.MORPH_OPEN, brush))[core]
    fine = calm - cv2.GaussianBlur(green, (0, 0), 2)
    coarse = cv2.GaussianBlur(green, (0, 0), 4) - cv2.GaussianBlur(green, (0, 0), 8)
    grain = green - cv2.GaussianBlur(green, (0, 0), 0.7)
    return {
        "diameter": diameter,
        "bordered": float(not fov.all()),
        "round": share_in(inside > 0, disc > 0),
        "beside": beside(small, inside),
        "red": float(colour[0] / colour[1]),
        "blue": float(colour[2] / colour[1]),
        "light": float(np.percentile(small.max(axis=2)[core], 90)),
        "sharp": float(fine[core].std() / (coarse[core].std() + 0.5)),
        "noise": float(1.4826 * np.median(np.abs(grain[core]))),
        "dark_lines": float((np.percentile(holes, 97) + 1) / (np.percentile(hills, 97) + 1)),
        "at_border": share_in(rim, vessels),
    }


def beside(small: np.ndarray, inside: np.ndarray) -> float:
    """How large another eye in a photograph, uint8 (H, W, 3), is, beside its field of view `inside`.

    Returns:
        The area of the largest round and lit thing outside the field of view, as a share of it; 0 if there is
        none. 1 if the field of view is so long that it holds two.
    """
    _, _, width, height = cv2.boundingRect(cv2.findNonZero(inside))
    if max(width, height) > 1.7 * min(width, height) and not inside.all():
        return 1.0
    light = cv2.medianBlur(small.max(axis=2), 5)
    lit = (light > 0.4 * np.median(light[inside > 0])).astype(np.uint8)
    own = cv2.dilate(inside, np.ones((5, 5), np.uint8)) > 0
    lit[own | (small.min(axis=2) > 200)] = 0  # paper is white
    lit = cv2.morphologyEx(lit, cv2.MORPH_OPEN, np.ones((11, 11), np.uint8))
    outlines, _ = cv2.findContours(lit, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    # bars, pages and monitors fill less of the circle around them: a square 64 %
    round_ones = []
    for outline in outlines:
        if cv2.contourArea(outline) > 0.75 * np.pi * cv2.minEnclosingCircle(outline)[1] ** 2:
            round_ones.append(cv2.drawContours(np.zeros_like(inside), [outline], 0, 255, -1))
    # on a slide that is grey or in a colour all is lit
    if lit.any() and (other := disc_in_scene(np.where(own[..., None], np.uint8(0), small))) is not None:
        round_ones.append(other)
    areas = [np.count_nonzero(other) for other in round_ones if not is_plain(small, other > 0)]  # no logos
    return max(areas, default=0) / np.count_nonzero(inside)


def share_in(part: np.ndarray, whole: np.ndarray) -> float:
    """The share of `whole`, bool (H, W), that lies in `part`; 0 of nothing."""
    return float((part & whole).sum() / max(int(whole.sum()), 1))


def doubts(found: Mapping[str, float], row: Mapping[str, Any]) -> list[str]:
    """The reasons to look at a photograph first, the weightiest first; empty for most.

    Args:
        found: what `features` found, and where a diameter was given `Photograph.contradiction`.
        row: its measures and how sure they are: `vessel_share`, `largest_tree`, `expected_f1`.
    """
    grey = abs(found["red"] - 1) < 0.02 and abs(found["blue"] - 1) < 0.02
    tree = row["largest_tree"]
    reasons = {
        "not round and red: a fundus photograph?": (found["red"] < 1.1 and not (grey and found["bordered"]))
        or found["round"] < 0.8,  # eyes of STARE have 0.89
        "two eyes in one picture? cut it in two": found["beside"] > 0.3,
        "grey: not a colour photograph": grey and found["bordered"],
        "vessels lighter than the retina: an angiogram?": found["dark_lines"] < 0.8,
        CONTRADICTION: found.get("contradiction", 1.0) > CONTRADICTED,
        "no border found: scale is a guess": not found["bordered"],
        "very dark": found["light"] < 60,
        "very blurred": found["sharp"] < 0.25,
        "very noisy": found["noise"] > 4,
        "blocks: compressed too much": found["noise"] < 0.1,
        "enlarged from few pixels": found["diameter"] < 250
        or (0.1 <= found["noise"] < 0.45 and found["sharp"] < 0.45),
        "hardly any vessel": row["vessel_share"] < 0.03,
        "vessels along the border": found["at_border"] > 0.25,
        f"largest tree holds only {tree:.0%}": tree < 0.3,
        f"expected F1 only {row['expected_f1']:.2f}": row["expected_f1"] < 0.6,
    }
    return [reason for reason, applies in reasons.items() if applies]
