"""Recognise one photograph under two names: also re-encoded, resized, turned by quarters, or mirrored."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import cv2
import numpy as np

PRINT_SIDE = 64  # of a fingerprint, in pixels
# the least correlation of two fingerprints of one photograph. On DRIVE, STARE and HRF, copies as JPEG of
# quality 20, at half the size, cropped or turned had at least 0.91, different eyes at most 0.57.
SAME = 0.75
BLOCK = 512  # fingerprints that are compared with all others at a time


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
    # the border moves with the estimate
    valid = (inside > 0.99) & (np.hypot(rows, columns) < 0.45 * PRINT_SIDE)
    spread = float(detail[valid].std()) if valid.any() else 0.0
    if spread < 0.05:
        return np.zeros_like(grey)
    detail = cv2.GaussianBlur(detail.clip(-2.5 * spread, 2.5 * spread) * valid, (0, 0), 0.7)
    return detail / np.linalg.norm(detail)


def find_equal(fingerprints: Mapping[str, np.ndarray], turned: bool = True) -> list[tuple[str, str]]:
    """The pairs of names whose fingerprints are of one photograph, each pair once and in the order given.

    Without `turned`, copies that are turned or mirrored are not looked for, which takes an eighth of the time.
    """
    names = list(fingerprints)
    if len(names) < 2:
        return []
    prints = np.array(list(fingerprints.values()), np.float32).reshape(len(names), PRINT_SIDE, PRINT_SIDE)
    flat = prints.reshape(len(names), -1)
    pairs = []
    for start in range(0, len(names), BLOCK):  # so that memory grows with the photographs, not with their pairs
        block = prints[start : start + BLOCK]
        alike = np.zeros((len(block), len(names) - start), np.float32)
        for mirrored in (block, block[:, :, ::-1]) if turned else (block,):
            for quarters in range(4 if turned else 1):
                views = np.rot90(mirrored, quarters, axes=(1, 2)).reshape(len(block), -1)
                np.maximum(alike, views @ flat[start:].T, out=alike)
        pairs += [(names[start + i], names[start + j]) for i, j in np.argwhere(np.triu(alike, 1) > SAME)]
    return pairs


def pack_print(fingerprint: np.ndarray) -> str:
    """A fingerprint as text, in 8 bits a number."""
    most = float(np.abs(fingerprint).max()) or 1.0
    return base64.b64encode(np.rint(fingerprint * (127 / most)).astype(np.int8).tobytes()).decode()


def unpack_print(text: str) -> np.ndarray:
    """The fingerprint that `pack_print` made a text of, float32 (PRINT_SIDE, PRINT_SIDE)."""
    levels = np.frombuffer(base64.b64decode(text), np.int8).astype(np.float32).reshape(PRINT_SIDE, PRINT_SIDE)
    return levels / max(float(np.linalg.norm(levels)), 1.0)
