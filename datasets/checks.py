"""Checks of vessel masks and fields of view: inverted, blank, swapped and another eye's are refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from datasets.field_of_view import fov_diameter, hull_of
from utils import UserError

MOST_VESSEL = 0.5  # of the field of view; 8 to 15 % in DRIVE
LEAST_SHARE = 0.1  # of the photograph that is field of view
LEAST_SOLID = 0.85  # share of its convex hull that a field of view fills: a disc fills it, vessels do not
# Contrast of the vessels of a mask, see `vessel_contrast`. That of the 105 masks of DRIVE, STARE and HRF, by
# both observers, is -2.5 to -0.9, with noise, blur or blocks added at most -0.3; that of other masks up to
# 0.15, and of masks shifted by 2 % of the diameter up to 0.3, either way.
LEAST_CONTRAST = 0.2
# of a weaker one, the mask must not fit better when it is turned: of 791 turned masks, 3 had 0.2 to 0.3
DOUBTFUL_CONTRAST = 0.5
ACROSS = 600  # pixels of the field of view in the copy that is looked at
LEAST_DIAMETER = 128  # pixels; vessels are thinner than a pixel in smaller photographs


def check_fov(path: Path, fov: np.ndarray) -> None:
    """Raise UserError if a field of view, uint8 (H, W), 0 or 255, not empty, is no disc, cut off or not.

    `path` is that of its file, for the message, which says whether it is inverted or may be a vessel mask.
    """
    if (share := float((fov > 0).mean())) < LEAST_SHARE:
        raise UserError(f"{path}: {share:.0%} of it is field of view; is it the vessel mask?")
    if solidity(fov) >= LEAST_SOLID:
        return
    if np.count_nonzero(fov[[0, 0, -1, -1], [0, -1, 0, -1]]) >= 2:  # of the four corners
        raise UserError(f"{path}: an inverted field of view; make the disc white and its surroundings black")
    raise UserError(f"{path}: not the disc of a field of view; is it the vessel mask?")


def solidity(mask: np.ndarray) -> float:
    """Share of the convex hull of a mask, uint8 (H, W), that the mask fills."""
    small = mask if max(mask.shape) <= 512 else cv2.resize(mask, (512, 512), interpolation=cv2.INTER_AREA)
    solid = small > 127
    return np.count_nonzero(solid) / np.count_nonzero(hull_of(solid)) if solid.any() else 0.0


def check_label(
    path: Path, mask: np.ndarray, fov: np.ndarray, photograph: np.ndarray, remark: str = ""
) -> None:
    """Check a vessel mask, also a second observer's: how much it marks, and that it is of this photograph.

    Args:
        path: of its file, for the message.
        mask: uint8 (H, W), 0 or 255.
        fov: field of view, uint8 (H, W), 0 or 255, not empty.
        photograph: uint8 (H, W, 3) RGB.
        remark: is added where the mask seems to be of another photograph.

    Raises:
        UserError: it is blank, inverted, the field of view, shifted, or of another eye.
    """
    share = float((mask > 0)[fov > 0].mean())
    if not 0 < share <= MOST_VESSEL:
        raise UserError(
            f"{path}: {share:.0%} of its field of view is vessel; is it inverted, blank, or the field of view?"
        )
    contrast = abs(vessel_contrast(mask, fov, photograph))
    if contrast >= DOUBTFUL_CONTRAST:
        return
    turns = {how: abs(vessel_contrast(turned, fov, photograph)) for how, turned in turns_of(mask).items()}
    turns = {how: fit for how, fit in turns.items() if np.isfinite(fit)} or {"": 0}
    fits = max(turns, key=lambda how: turns[how])
    if turns[fits] > max(contrast, DOUBTFUL_CONTRAST):
        as_it_lies = f"does not fit its photograph as it lies, but {fits} it does"
        raise UserError(f"{path}: {as_it_lies}; save it so{remark}")
    if contrast < LEAST_CONTRAST:
        raise UserError(
            f"{path}: what it marks is neither darker nor lighter than beside it; is it the mask of another "
            f"photograph, shifted, turned or mirrored?{remark}"
        )


def turns_of(mask: np.ndarray) -> dict[str, np.ndarray]:
    """A mask, (H, W), turned and mirrored in all ways that keep its size, by what was done to it."""
    every = {
        "mirrored": mask[:, ::-1],
        "upside down": mask[::-1],
        "turned by 180 degrees": mask[::-1, ::-1],
        "with rows and columns exchanged": mask.T,
        "turned by 90 degrees clockwise": mask[::-1].T,
        "turned by 90 degrees anticlockwise": mask[:, ::-1].T,
        "turned by 90 degrees and mirrored": mask[::-1, ::-1].T,
    }
    return {how: np.ascontiguousarray(turned) for how, turned in every.items() if turned.shape == mask.shape}


def vessel_contrast(mask: np.ndarray, fov: np.ndarray, photograph: np.ndarray) -> float:
    """How much lighter the green of the vessels is than that close beside them; below 0 where they are darker.

    Returns:
        In standard deviations of the evened green inside the field of view; infinite where that cannot be told:
        in a photograph of few pixels, one without any structure, or with hardly any vessel. Arguments as of
        `check_label`.
    """
    diameter = fov_diameter(fov)
    if diameter < LEAST_DIAMETER:
        return np.inf
    size = [max(1, round(length * ACROSS / diameter)) for length in fov.shape[::-1]]
    how = cv2.INTER_AREA if diameter > ACROSS else cv2.INTER_LINEAR
    green = cv2.resize(photograph[..., 1], size, interpolation=how).astype(np.float32)
    vessels = (cv2.resize(mask, size, interpolation=how) > 127).astype(np.uint8)
    # the border of the field of view is a strong edge
    disc = np.pad(cv2.resize(fov, size, interpolation=cv2.INTER_NEAREST), 1)
    inside = cv2.erode(disc, np.ones((9, 9), np.uint8))[1:-1, 1:-1] > 0
    # evened over some widths of a vessel, since the light falls off to the border
    box = (41, 41)
    even = green - cv2.blur(green * inside, box) / np.maximum(cv2.blur(inside.astype(np.float32), box), 1e-6)
    around = cv2.dilate(vessels, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (13, 13))) > 0
    around &= inside & (cv2.dilate(vessels, np.ones((3, 3), np.uint8)) == 0)
    on = inside & (vessels > 0)
    if min(on.sum(), around.sum()) < 200 or (spread := even[inside].std()) < 0.1:
        return np.inf
    return float((even[on].mean() - even[around].mean()) / spread)
