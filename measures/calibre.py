"""Calibre: the width of vessels across their centre lines, to a fraction of a pixel."""

from __future__ import annotations

import cv2
import numpy as np

from measures.skeleton import Tree

STEP = 0.25  # pixels between two samples across a vessel
NARROW = 6.0  # pixels from the centre line to which a narrow vessel is looked at


def widths(levels: np.ndarray, tree: Tree, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The widths of `widths_along` that there are, and the length that each stands for: float (n,) each."""
    width, weight = widths_along(levels, tree, threshold)
    good = np.isfinite(width)
    return width[good], weight[good]


def widths_along(levels: np.ndarray, tree: Tree, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Measure the width across every point of the centre lines, where levels fall below the threshold.

    Levels between pixels are interpolated: probabilities say where inside a pixel the border lies, a mask of 0
    and 1 says it only on average along a vessel. Where vessels join there is no cross-section: points closer to
    a branch point than the vessel there is wide are left out.

    Args:
        levels: probability of vessel or a mask, float32 (H, W) in [0, 1].
        tree: centre lines of the pixels of at least `threshold`.
        threshold: in (0, 1], the border of a vessel.

    Returns:
        Widths in pixels, NaN where there is none, and the length of centre line in pixels that each stands for:
        float (points,) each.
    """
    points = tree.line
    width = np.full(len(points), np.nan)
    if not len(tree.sizes):
        return width, width
    index = np.arange(len(points))
    first, last = (np.repeat(end, tree.sizes) for end in tree.ends)
    tangent = points[np.minimum(index + 1, last)] - points[np.maximum(index - 1, first)]
    length = np.hypot(*tangent.T)
    use = np.flatnonzero(beside_branches(tree) & (length > 0))
    normal = tangent[use][:, ::-1] * [1, -1] / length[use, None]
    # a border more than twice as far as the nearest one is another vessel's
    limit = 2 * tree.radii[use] + 1
    sides = np.empty((2, len(limit)))
    for some in (limit <= NARROW, limit > NARROW):  # apart: a look across a wide vessel takes many more samples
        if not some.any():
            continue
        reach = np.arange(0, limit[some].max() + STEP, STEP)
        for side, sign in zip(sides, (1, -1), strict=True):
            side[some] = _border(levels, points[use][some], sign * normal[some], reach, threshold)
    across = sides.sum(axis=0)
    width[use] = np.where((sides.max(axis=0) <= limit) & (across > 0), across, np.nan)
    return width, length / 2


def beside_branches(tree: Tree) -> np.ndarray:
    """Whether each point is farther from the branch points of its segment than the vessel there is wide."""
    along = np.cumsum(np.r_[0.0, tree.steps])[:-1]
    far = np.ones(len(along), bool)
    for end, joint in zip(tree.ends, tree.joints, strict=True):
        distance = np.abs(along - np.repeat(along[end], tree.sizes))
        far &= np.repeat(joint == 0, tree.sizes) | (distance > 2 * np.repeat(tree.radii[end], tree.sizes))
    return far


def _border(
    levels: np.ndarray, points: np.ndarray, direction: np.ndarray, reach: np.ndarray, threshold: float
) -> np.ndarray:
    """Pixels from each point (n, 2) along its direction to where levels fall below the threshold: float (n,).

    Infinite where they do not within `reach`, distances (m,) from 0 up.
    """
    at = (points[:, None] + direction[:, None] * reach[:, None]).astype(np.float32)
    profile = cv2.remap(levels, at[..., 1], at[..., 0], cv2.INTER_LINEAR, borderValue=0)
    below = profile < threshold
    below[:, 0] = False  # a smoothed centre line may leave a bent thread
    found = below.any(axis=1)
    k = np.maximum(below.argmax(axis=1), 1)
    row = np.arange(len(points))
    high, low = profile[row, k - 1], profile[row, k]
    part = np.clip((high - threshold) / np.maximum(high - low, 1e-6), 0, 1)
    return np.where(found, (k - 1 + part) * STEP, np.inf)


def quantiles(values: np.ndarray, weights: np.ndarray, shares: tuple[float, ...]) -> list[float]:
    """Weighted quantiles: where so much of the weight lies below; NaN of no values."""
    if not len(values):
        return [float("nan")] * len(shares)
    order = np.argsort(values)
    heights = np.cumsum(weights[order]) - weights[order] / 2
    return np.interp(np.array(shares) * weights.sum(), heights, values[order]).tolist()
