"""Checks of vessel masks and fields of view: inverted, blank and swapped ones are refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from utils import UserError

MOST_VESSEL = 0.5  # of the field of view; 8 to 15 % in DRIVE
LEAST_SHARE = 0.1  # of the photograph that is field of view
LEAST_SOLID = 0.85  # share of its convex hull that a field of view fills: a disc fills it, vessels do not


def check_fov(path: Path, fov: np.ndarray) -> None:
    """Check that a field of view is a disc, also one that the frame cuts off.

    Args:
        path: of its file, for the message.
        fov: uint8 (H, W), 0 or 255, not empty.

    Raises:
        UserError: it is inverted, or a vessel mask.
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
    points = cv2.findNonZero((small > 127).astype(np.uint8))
    if points is None:
        return 0.0
    hull = cv2.fillConvexPoly(np.zeros(small.shape, np.uint8), cv2.convexHull(points), 1)
    return len(points) / max(int(hull.sum()), 1)


def check_label(path: Path, mask: np.ndarray, fov: np.ndarray) -> None:
    """Check that a vessel mask, also a second observer's, marks some of the field of view, and not most of it.

    Args:
        path: of its file, for the message.
        mask: uint8 (H, W), 0 or 255.
        fov: field of view, uint8 (H, W), 0 or 255, not empty.

    Raises:
        UserError: it is blank, inverted, or the field of view.
    """
    share = float((mask > 0)[fov > 0].mean())
    if not 0 < share <= MOST_VESSEL:
        raise UserError(
            f"{path}: {share:.0%} of its field of view is vessel; is it inverted, blank, or the field of view?"
        )
