"""Which photographs to look at first, and why: reasons in words, never a refusal.

The limits were chosen on photographs of DRIVE, STARE and HRF, which must pass, and on spoilt copies and
pictures of something else, which must not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from datasets.field_of_view import disc_in_scene, fov_diameter, is_plain

CONTRADICTED = 1.5  # times the diameter that the border shows, or a part of it
CONTRADICTION = "--diameter contradicts the border"
LOOKED_AT = 400  # pixels of the field of view in the copy that is looked at


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
