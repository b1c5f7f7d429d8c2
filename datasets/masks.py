"""Vessel masks and fields of view, also as labelling tools write them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from datasets.decoding import decode
from datasets.polygons import vessel_labels
from datasets.volumes import read_volume, volume_suffix
from utils import UserError

# such as a TIFF of 0 and 1 whose 0 is white: 255 and 254
ALL_BRIGHT = (
    "has no dark pixel, so all of it would be marked; save it with 0 for background and 255 for what it marks"
)


def read_mask(path: Path) -> np.ndarray:
    """Read a vessel mask or a field of view.

    Beside masks of 0 and 255 it reads what labelling tools write, where there is one sensible reading: any two
    levels of which one is 0; arteries and veins in two or three levels or in colours, on black or white; soft
    edges of one or two pixels, as in a resized or antialiased mask; a mask that is drawn in the transparency;
    and NRRD and NIfTI (`datasets.volumes`), of whose segments those count that say vessel.

    Returns:
        uint8 (H, W), exactly 0 or 255.

    Raises:
        UserError: unreadable, or not a mask.
    """
    if volume_suffix(path):
        pixels, segments = read_volume(path)
        if segments:
            return as_mask(np.logical_or.reduce([segments[name] for name in vessel_labels(path, segments)]))
    else:
        pixels = decode(path)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        colours, alpha = pixels[..., :3], pixels[..., 3]
        visible = colours[alpha > 0]
        low, high = int(alpha.min()), int(alpha.max())
        if low < high and (visible == visible[0]).all():
            return as_mask(alpha > (low + high) // 2)  # one colour on transparent surroundings
        pixels = colours
    if pixels.ndim == 3 and (mask := colours_to_mask(pixels)) is not None:
        return mask
    levels = brightest(pixels) if pixels.ndim == 3 else pixels
    found = np.flatnonzero(np.bincount(levels.ravel())).tolist()  # much faster than np.unique
    if len(found) <= 2 and found[0] == 0 and found[-1] < 255:
        return as_mask(levels > 0)
    if len(found) <= 4 and found[0] == 0 and found[-1] <= 3 and (levels > 0).mean() < 0.4:
        return as_mask(levels > 0)  # classes: artery, vein, both
    if found[-1] > 255:
        levels = levels // (found[-1] // 255)
    if found[0] > found[-1] // 2 and (pixels != pixels[0, 0]).any():
        raise UserError(f"{path}: {ALL_BRIGHT}")
    return split_soft(path, np.minimum(levels, 255).astype(np.uint8, copy=False))


def as_mask(vessel: np.ndarray) -> np.ndarray:
    """bool (H, W) to uint8 (H, W), 0 or 255."""
    return vessel.view(np.uint8) * np.uint8(255)


def brightest(pixels: np.ndarray) -> np.ndarray:
    """The brightest of the three channels of each pixel, (H, W); much faster than pixels.max(axis=2)."""
    return np.maximum(np.maximum(pixels[..., 0], pixels[..., 1]), pixels[..., 2])


def colours_to_mask(pixels: np.ndarray) -> np.ndarray | None:
    """Mask of a picture in few colours, uint8 or uint16 (H, W, 3), on black or white; None if it is not one."""
    if pixels.dtype != np.uint8:
        pixels = (pixels // 257).astype(np.uint8)
    red, green, blue = cv2.split(pixels)
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return None
    codes = pixels.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    colours, counts = np.unique(codes, return_counts=True)
    background = int(colours[counts.argmax()])
    lowest = min(background >> 16, background >> 8 & 255, background & 255)
    if len(colours) > 8 or not (background == 0 or lowest >= 250):  # a palette's white may be (252, 254, 252)
        return None
    return as_mask(codes != background)


def split_soft(path: Path, levels: np.ndarray) -> np.ndarray:
    """Split a nearly binary mask, uint8 (H, W), at 127; UserError if it is not one."""
    grey = cv2.inRange(levels, 33, 222) > 0
    if np.count_nonzero(grey) > 0.02 * grey.size:
        # soft edges lie between dark and bright pixels, the greys of a photograph do not
        near = np.ones((5, 5), np.uint8)
        dark, bright = (cv2.dilate(part.astype(np.uint8), near) for part in (levels <= 32, levels >= 160))
        between = np.logical_and(dark, bright)
        if np.logical_and(grey, between).sum() < 0.9 * grey.sum() or (levels <= 32).mean() < 0.5:
            raise UserError(
                f"{path}: not a mask of 0 and 255 ({grey.mean():.0%} of its pixels are grey); "
                "save it with two levels, 0 for background and 255 for vessel"
            )
    if 0 < levels.max() <= 127:
        raise UserError(f"{path}: not a mask of 0 and 255 (its brightest pixel is {levels.max()})")
    return as_mask(levels > 127)


def read_fov(path: Path) -> np.ndarray:
    """Read a field of view as `read_mask` does; UserError if it is empty."""
    fov = read_mask(path)
    if not fov.any():
        raise UserError(f"{path}: an empty field of view")
    return fov
