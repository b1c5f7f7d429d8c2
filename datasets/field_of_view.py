"""Find the field of view of a photograph, and its diameter."""

from __future__ import annotations

import cv2
import numpy as np

DIAMETER = 548  # of DRIVE's field of view, in pixels


def estimate_fov(photograph: np.ndarray) -> np.ndarray:
    """Find the field of view of a fundus photograph: the lit disc on dark, white or plain surroundings.

    The frame or black bars may cut the disc off, and there may be text beside it, captions in bars, or the
    window of a viewer around it.

    Args:
        photograph: uint8 (H, W, 3) RGB, grey too.

    Returns:
        uint8 (H, W), exactly 0 or 255; all 255 where the retina fills the frame.
    """
    height, width = photograph.shape[:2]
    shrink = min(1.0, 512 / max(height, width))  # the outline is smooth, so a small copy is enough
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    small = cv2.resize(photograph, size, interpolation=cv2.INTER_AREA)
    # a disc that covers all four corners covers the frame, so any surroundings show in a corner
    patch = max(2, round(0.02 * min(size)))
    ends = (slice(patch), slice(-patch, None))
    corners = [(rows, columns) for rows in ends for columns in ends]
    for corner in corners:
        colour = np.median(small[corner].reshape(-1, 3), axis=0)  # the median ignores thin text
        if colour.min() > 200:
            # only white surroundings reach the corner, the optic disc does not: paint them black
            _, areas = cv2.connectedComponents(cv2.inRange(small, colour - 30, colour + 30))
            reached = np.unique(areas[corner])
            small[np.isin(areas, reached[reached > 0])] = 0
    blacken_bars(small)
    light = cv2.medianBlur(small.max(axis=2), 5)
    dark, bright = min(np.median(light[corner]) for corner in corners), np.percentile(light, 90)
    fov = np.full((height, width), 255, np.uint8)
    if dark > 0.3 * bright or bright - dark < 10:
        return fov
    lit = (light > dark + 0.15 * (bright - dark)).astype(np.uint8)
    # opening removes text and whatever else is thinner than a thirtieth of the frame
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(0.015 * max(size)) + 1,) * 2)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(cv2.morphologyEx(lit, cv2.MORPH_OPEN, brush))
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()) if count > 1 else 0
    if not largest or stats[largest, cv2.CC_STAT_AREA] < 0.1 * lit.size:
        return fov
    # a disc is convex, even if the frame cuts it: the hull closes dark vessels and shadows at its border
    outline = cv2.convexHull(cv2.findNonZero((labels == largest).astype(np.uint8)))
    disc = cv2.fillConvexPoly(np.zeros_like(lit), outline, 255)
    return cv2.threshold(cv2.resize(disc, (width, height)), 127, 255, cv2.THRESH_BINARY)[1]


def blacken_bars(small: np.ndarray) -> None:
    """Paint black what lies in bars of one colour along the edges, such as captions and windows; in place.

    Args:
        small: a photograph, uint8 (H, W, 3).
    """
    # the lines that are left: first and last row, first and last column
    ends = [0, small.shape[0], 0, small.shape[1]]
    before: list[int] = []
    while before != ends:
        before = ends.copy()
        for side in range(4):
            while ends[0] < ends[1] and ends[2] < ends[3]:
                at = ends[side] - side % 2
                line = small[at, ends[2] : ends[3]] if side < 2 else small[ends[0] : ends[1], at]
                colour = np.median(line, axis=0)
                off = np.abs(line - colour).max(axis=1)
                # plain but for text, which no line of a retina is; dark ones need no paint
                if colour.max() <= 24 or (off < 1).mean() < 0.6:
                    break
                line[off <= 12] = 0
                ends[side] += 1 - 2 * (side % 2)


def outline(fov: np.ndarray) -> np.ndarray:
    """The first and the last pixel of each row of a field of view, int32 (N, 2) of x and y.

    They have the same convex hull as all its pixels, of which a large photograph has millions.
    """
    lit = fov > 0
    rows = np.flatnonzero(lit.any(axis=1))
    lit = lit[rows]
    first, last = lit.argmax(axis=1), fov.shape[1] - 1 - lit[:, ::-1].argmax(axis=1)
    return np.stack([np.concatenate([first, last]), np.concatenate([rows, rows])], axis=1).astype(np.int32)


def fov_diameter(fov: np.ndarray) -> float:
    """Diameter in pixels of the circle around a field of view, uint8 (H, W), 0 or 255."""
    # the enclosing circle is the disc, even if the frame cuts off up to half of it; older OpenCV takes minutes
    # for many points, so take their hull
    return 2 * cv2.minEnclosingCircle(cv2.convexHull(outline(fov)))[1]
