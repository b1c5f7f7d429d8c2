"""Maps of arteries and veins: which kind of vessel each pixel is, as labelling tools and data sets write it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

import cv2
import numpy as np

from datasets.images import read_levels
from datasets.volumes import read_volume, volume_suffix
from utils import UserError

NONE, ARTERY, VEIN, BOTH, UNCERTAIN = 0, 1, 2, 3, 255  # both: a crossing; uncertain: a vessel of unknown kind
# an eye's files of this: one map, or a mask of each kind
KINDS_FILES = ("arteries_veins", "arteries", "veins")
# of RITE (Hu et al. 2013) and HRF-AV (Hemelings et al. 2019); magenta is red and blue over each other
COLOURS = (
    ((0, 0, 0), NONE),
    ((255, 0, 0), ARTERY),
    ((0, 0, 255), VEIN),
    ((0, 255, 0), BOTH),
    ((255, 0, 255), BOTH),
    ((255, 255, 255), UNCERTAIN),
)
# names of segments: arteries, veins, crossings, others
SEGMENTS = (r"arter", r"vei?n", r"cross|both", r"vessel|unce|unkn")
FAR = 96  # levels of a channel by which noise and compression rarely move a colour
BRIGHT = 192  # a JPEG darkens thin lines; what is brighter and far from all of these is another colour
MOST_OTHER = 0.05  # share of the marked pixels that may have another colour; a JPEG has at most 0.015
ENCODING = (
    "use red for arteries, blue for veins, green for crossings and white for uncertain on black, "
    "or the levels 0 none, 1 artery, 2 vein, 3 both"
)


def read_kinds(path: Path) -> np.ndarray:
    """Read a map of arteries and veins as `decode_kinds` does; UserError too if either has no pixel alone."""
    return check_kinds(path, decode_kinds(path))


def decode_kinds(path: Path) -> np.ndarray:
    """Read a map of arteries and veins.

    It may have the levels 0 to 3 (and 255), in 8 or 16 bits; or the colours of RITE and HRF-AV, on black, white
    or transparent surroundings, with a palette, and with the noise of a compression that loses some.
    In NRRD and NIfTI (`datasets.volumes`) the names of segments count, or else these levels.

    Returns:
        uint8 (H, W): 0 no vessel, 1 artery, 2 vein, 3 both (a crossing), 255 a vessel of uncertain kind.

    Raises:
        UserError: unreadable, or in other colours.
    """
    if volume_suffix(path):
        pixels, segments = read_volume(path)
        if segments:
            return segments_to_kinds(path, segments)
    else:
        pixels = read_levels(path)
    if pixels.ndim == 2 or not (np.diff(pixels.astype(np.int32), axis=2)).any():
        levels = pixels if pixels.ndim == 2 else pixels[..., 0]
        if np.isin(np.flatnonzero(np.bincount(levels.ravel())), (NONE, ARTERY, VEIN, BOTH, UNCERTAIN)).all():
            return levels.astype(np.uint8)
        pixels = np.repeat(levels[..., None], 3, axis=2)
    if pixels.dtype != np.uint8:
        pixels = (pixels // 257).astype(np.uint8)
    return colours_to_kinds(path, pixels)


def segments_to_kinds(path: Path, segments: Mapping[str, np.ndarray]) -> np.ndarray:
    """One map of segments, bool (H, W), by their names: uint8 (H, W), as `read_kinds`.

    Raises:
        UserError: none is called artery, or none vein; their levels would say nothing.
    """
    artery, vein, crossing, other = (
        np.logical_or.reduce([own for name, own in segments.items() if re.search(said, name, re.IGNORECASE)])
        for said in SEGMENTS
    )
    if not (np.ndim(artery) and np.ndim(vein)):
        there = ", ".join(segments)
        raise UserError(f"{path}: no segment is called artery, or none vein: {there}; rename them")
    kinds = join_kinds(artery | crossing, vein | crossing)
    kinds[(kinds == NONE) & other] = UNCERTAIN
    return kinds


def colours_to_kinds(path: Path, pixels: np.ndarray) -> np.ndarray:
    """Give each pixel of a picture, uint8 (H, W, 3), the kind of the nearest of `COLOURS`: uint8 (H, W).

    Raises:
        UserError: names a colour that is none of these, if there are many such pixels.
    """
    # 16 levels a channel make a table of all colours small enough
    red, green, blue = (channel.astype(np.uint16) >> 4 for channel in cv2.split(pixels))
    codes = red << 8 | green << 4 | blue
    counts = np.bincount(codes.ravel(), minlength=4096)
    levels = np.stack(np.unravel_index(np.arange(4096), (16, 16, 16)), axis=1) * 17
    distances = np.stack([np.abs(levels - colour).max(axis=1) for colour, _ in COLOURS])
    nearest = np.array([kind for _, kind in COLOURS], np.uint8)[distances.argmin(axis=0)]
    if counts[nearest == UNCERTAIN].sum() > counts.sum() / 2:  # drawn on white
        white, black = nearest == UNCERTAIN, nearest == NONE
        nearest[white], nearest[black] = NONE, UNCERTAIN
    other = counts * ((distances.min(axis=0) > FAR) & (levels.max(axis=1) >= BRIGHT))
    if other.sum() > MOST_OTHER * counts[nearest != NONE].sum():
        colour = ", ".join(map(str, levels[other.argmax()]))
        raise UserError(f"{path}: not a map of arteries and veins (it has the colour {colour}); {ENCODING}")
    return nearest[codes]


def join_kinds(artery: np.ndarray, vein: np.ndarray) -> np.ndarray:
    """One map of two masks, (H, W) each, not 0 where there is such a vessel: uint8 (H, W), as `read_kinds`."""
    return (ARTERY * (artery > 0) + VEIN * (vein > 0)).astype(np.uint8)


def is_one_of(kinds: np.ndarray, wanted: Collection[int]) -> np.ndarray:
    """Where a map of kinds, uint8 (H, W), has one of these values: bool (H, W); faster than `np.isin`."""
    return cv2.LUT(kinds, np.isin(np.arange(256), [*wanted]).astype(np.uint8)).view(bool)


def split_kinds(kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a map, uint8 (H, W), has arteries and where veins, bool (H, W) each; a crossing is both."""
    return (kinds == ARTERY) | (kinds == BOTH), (kinds == VEIN) | (kinds == BOTH)


def check_kinds(path: Path, kinds: np.ndarray) -> np.ndarray:
    """Return a map of kinds; UserError if it has not both, see `read_kinds`."""
    lacking = [name for name, kind in (("arteries", ARTERY), ("veins", VEIN)) if not (kinds == kind).any()]
    if lacking:
        raise UserError(f"{path}: marks no {' and no '.join(lacking)}; {ENCODING}")
    return kinds
