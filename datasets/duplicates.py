"""Recognise one photograph under two names: also re-encoded, resized, turned by quarters, or mirrored."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

PRINT_SIDE = 64  # of a fingerprint, in pixels
# the least correlation of two fingerprints of one photograph. On DRIVE, STARE and HRF, copies as JPEG of
# quality 20, at half the size, cropped or turned had at least 0.91, different eyes at most 0.57.
SAME = 0.75


def fingerprint(photograph: np.ndarray, fov: np.ndarray) -> np.ndarray:
    """The vessels of an eye in few pixels, whatever the size, brightness and compression of the photograph.

    Args:
        photograph: uint8 (H, W, 3) RGB.
        fov: field of view, uint8 (H, W), 0 or 255, not empty.

    Returns:
        float32 (PRINT_SIDE, PRINT_SIDE) of length 1, or all 0 where the photograph is blank.
    """
    x, y, width, height = cv2.boundingRect(fov)
    box = slice(y, y + height), slice(x, x + width)

    def shrink(image: np.ndarray) -> np.ndarray:
        return cv2.resize(image, (PRINT_SIDE, PRINT_SIDE), interpolation=cv2.INTER_AREA)

    grey = cv2.cvtColor(shrink(photograph[box]), cv2.COLOR_RGB2GRAY).astype(np.float32)
    inside = shrink(fov[box]).astype(np.float32) / 255
    # what all eyes have in common is smooth: the light, the macula, the bright disc
    smooth, weight = (cv2.GaussianBlur(image, (0, 0), 2.5) for image in (grey * inside, inside))
    detail = grey - smooth / np.maximum(weight, 1e-3)
    rows, columns = np.indices(grey.shape) - (PRINT_SIDE - 1) / 2
    valid = (inside > 0.99) & (
        np.hypot(rows, columns) < 0.45 * PRINT_SIDE
    )  # the border moves with the estimate
    spread = float(detail[valid].std()) if valid.any() else 0.0
    if spread < 0.05:
        return np.zeros_like(grey)
    detail = cv2.GaussianBlur(detail.clip(-2.5 * spread, 2.5 * spread) * valid, (0, 0), 0.7)
    return detail / np.linalg.norm(detail)


def find_equal(fingerprints: Mapping[str, np.ndarray]) -> list[tuple[str, str]]:
    """The pairs of names whose fingerprints are of one photograph, each pair once and in the order given."""
    names = list(fingerprints)
    if len(names) < 2:
        return []
    prints = np.array(list(fingerprints.values()), np.float32).reshape(len(names), PRINT_SIDE, PRINT_SIDE)
    flat = prints.reshape(len(names), -1)
    alike = np.zeros((len(names), len(names)), np.float32)
    for mirrored in (prints, prints[:, :, ::-1]):
        for quarters in range(4):
            turned = np.rot90(mirrored, quarters, axes=(1, 2)).reshape(len(names), -1)
            np.maximum(alike, flat @ turned.T, out=alike)
    return [(names[i], names[j]) for i, j in np.argwhere(np.triu(alike, 1) > SAME)]
