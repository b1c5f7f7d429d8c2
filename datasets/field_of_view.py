"""Find the field of view of a photograph, and its diameter."""

from __future__ import annotations

import cv2
import numpy as np

DIAMETER = 548  # of DRIVE's field of view, in pixels


def estimate_fov(photograph: np.ndarray) -> np.ndarray:
    """Find the field of view of a fundus photograph: the lit disc on dark, white or plain surroundings.

    The frame or black bars may cut the disc off, and there may be text beside it, captions in bars, the window
    of a viewer around it, or a whole scene, such as a desk with a monitor.

    Args:
        photograph: uint8 (H, W, 3) RGB, grey too.

    Returns:
        uint8 (H, W), exactly 0 or 255; all 255 where the retina fills the frame.
    """
    fov = lit_disc(photograph)
    step = max(1, max(fov.shape) // 512)
    small = np.ascontiguousarray(fov[::step, ::step])
    if (small > 0).mean() < 0.9 and roundness(small) > 0.85:
        return fov
    found = disc_in_scene(photograph)
    return fov if found is None else found


def lit_disc(photograph: np.ndarray) -> np.ndarray:
    """The field of view where its surroundings are plain; arguments and result as of `estimate_fov`."""
    small = small_copy(photograph)
    # a disc that covers all four corners covers the frame, so any surroundings show in a corner
    patch = max(2, round(0.02 * min(small.shape[:2])))
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
    fov = np.full(photograph.shape[:2], 255, np.uint8)
    if dark > 0.3 * bright or bright - dark < 10:
        return fov
    lit = (light > dark + 0.15 * (bright - dark)).astype(np.uint8)
    # opening removes text and whatever else is thinner than a thirtieth of the frame
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(0.015 * max(lit.shape)) + 1,) * 2)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(cv2.morphologyEx(lit, cv2.MORPH_OPEN, brush))
    large = [k for k in range(1, count) if stats[k, cv2.CC_STAT_AREA] >= 0.1 * lit.size]
    if not large:
        return fov
    if len(large) > 1:  # else there is nothing to tell a logo from, and nearly all photographs are so
        large.sort(key=lambda k: (is_plain(small, labels == k), -stats[k, cv2.CC_STAT_AREA]))
    largest = large[0]
    # a disc is convex, even if the frame cuts it: the hull closes dark vessels and shadows at its border
    return enlarged(hull_of(labels == largest), photograph.shape)


def disc_in_scene(photograph: np.ndarray) -> np.ndarray | None:
    """The largest round thing with a sharp border, uint8 (H, W), 0 or 255; None if there is none.

    A plain one, such as a logo, is only taken where there is no other.

    It is looked for where `lit_disc` finds nothing round: the surroundings are neither dark nor plain, or it
    is small. A retina that fills the frame has no such border in it.
    """
    small = cv2.medianBlur(small_copy(photograph), 5)
    red, green, blue = (small[..., k].astype(np.int16) for k in range(3))
    best, rank = None, (False, 0.0)
    masks = (red > 1.15 * green + 8) & (red > 1.15 * blue + 8), small.max(axis=2) > 40
    for mask in masks:
        lit = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((9, 9), np.uint8))
        count, labels, stats, _ = cv2.connectedComponentsWithStats(lit)
        for k in [k for k in range(1, count) if stats[k, cv2.CC_STAT_AREA] > 0.01 * red.size]:
            own = not is_plain(small, labels == k), float(stats[k, cv2.CC_STAT_AREA])
            if own > rank:
                disc = hull_of(labels == k)
                if roundness(disc, whole=True) > 0.85 and sharp_border(small, disc):
                    best, rank = disc, own
    return None if best is None else enlarged(best, photograph.shape)


def small_copy(photograph: np.ndarray) -> np.ndarray:
    """A photograph, uint8 (H, W, 3), with at most 512 pixels a side, enough for outlines: they are smooth."""
    height, width = photograph.shape[:2]
    shrink = min(1.0, 512 / max(height, width))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    return cv2.resize(photograph, size, interpolation=cv2.INTER_AREA)


def sharp_border(small: np.ndarray, disc: np.ndarray) -> bool:
    """Whether a disc, uint8 (H, W), 0 or 255, is unlike what surrounds it, in nearly every direction."""
    (x, y), radius = cv2.minEnclosingCircle(cv2.findNonZero(disc))
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    levels = []
    for share in (0.9, 1.08):
        columns = np.rint(x + share * radius * np.cos(angles)).astype(int)
        rows = np.rint(y + share * radius * np.sin(angles)).astype(int)
        there = (rows >= 0) & (columns >= 0) & (rows < small.shape[0]) & (columns < small.shape[1])
        levels.append(np.where(there[:, None], small[rows % small.shape[0], columns % small.shape[1]], 0))
    return bool((np.abs(np.subtract(*levels, dtype=np.int16)).max(axis=1) > 30).mean() > 0.85)


def is_plain(small: np.ndarray, part: np.ndarray) -> bool:
    """Whether a part, bool (H, W), of a picture, uint8 (H, W, 3), has few colours, as a logo has but no eye."""
    levels, of_few = small[part].astype(np.int32), 0
    number = len(levels)
    for _ in range(3):
        codes = (levels >> 3) @ np.array([1024, 32, 1])
        colour = np.median(levels[codes == np.bincount(codes).argmax()], axis=0) if len(levels) else 0
        near = (np.abs(levels - colour) <= 4).all(axis=1)
        of_few, levels = of_few + np.count_nonzero(near), levels[~near]
    # of an eye of DRIVE, STARE, CHASE_DB1, HRF and IDRiD at most 41 % are so near one of its three colours
    return of_few > 0.6 * number


def hull_of(part: np.ndarray) -> np.ndarray:
    """The convex hull of a part of a picture, bool (H, W), as uint8 (H, W), 0 or 255."""
    mask = part.astype(np.uint8)
    return cv2.fillConvexPoly(np.zeros_like(mask), cv2.convexHull(cv2.findNonZero(mask)), 255)


def enlarged(disc: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask, uint8 (h, w), 0 or 255, at the size of a photograph."""
    return cv2.threshold(cv2.resize(disc, shape[1::-1]), 127, 255, cv2.THRESH_BINARY)[1]


def roundness(mask: np.ndarray, whole: bool = False) -> float:
    """The share of the circle around a mask, uint8 (H, W), that it fills, within the frame or `whole`."""
    (x, y), radius = cv2.minEnclosingCircle(cv2.convexHull(outline(mask)))
    circle = cv2.circle(np.zeros_like(mask), (round(x), round(y)), round(radius), 255, -1)
    area = np.pi * radius**2 if whole else np.count_nonzero(circle)
    return np.count_nonzero(mask) / max(area, 1.0)


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
