"""Fractal dimensions of a mask by box counting."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

OFFSETS = 4  # of the grid of boxes, each way: a grid that happens to fit would count too few boxes


def box_sizes(diameter: float) -> list[int]:
    """Sides in pixels, from a 128th to an 8th of a field of view, each about 1.4 times as long."""
    sizes = np.rint(diameter / 128 * 2 ** (np.arange(9) / 2)).astype(int)
    return np.unique(sizes[sizes > 0]).tolist()


def fractal_dimensions(mask: np.ndarray, sizes: Sequence[int]) -> dict[str, float]:
    """Capacity, information and correlation dimension of a mask, each the slope of a line over box sizes.

    The generalised dimensions of Hentschel and Procaccia 1983 (https://doi.org/10.1016/0167-2789(83)90235-X) of
    orders 0, 1 and 2, as Stosic and Stosic 2006 (https://doi.org/10.1109/TMI.2006.879316) use them for retinal
    vessels. Of 4 x 4 offsets of the grid the one counts that covers the mask best: boxes that hardly touch it
    would lower the slope.

    Args:
        mask: (H, W), non-zero counts.
        sizes: sides of the boxes in pixels, increasing, at least 1.

    Returns:
        `d0`, `d1`, `d2`, and `r2`, the share of variance that the line of `d0` explains. NaN where there are
        fewer than three box sizes, or nothing to count.
    """
    mask = (np.asarray(mask) > 0).astype(np.uint8)
    if len(sizes) < 3 or not mask.any():
        return dict.fromkeys(("d0", "d1", "d2", "r2"), float("nan"))
    total = cv2.integral(np.pad(mask, sizes[-1]))
    counts = np.array([_count(total, size) for size in sizes])
    lines = [np.polyfit(np.log(sizes), column, 1) for column in counts.T]
    fitted = np.polyval(lines[0], np.log(sizes))
    variance = np.var(counts[:, 0])
    r2 = 1 - np.mean((counts[:, 0] - fitted) ** 2) / variance if variance > 0 else float("nan")
    d0, d1, d2 = -float(lines[0][0]), float(lines[1][0]), float(lines[2][0])
    return {"d0": d0 + 0.0, "d1": d1, "d2": d2, "r2": float(r2)}


def _count(total: np.ndarray, size: int) -> tuple[float, float, float]:
    """Log of the number of boxes, sum of p log p and log of the sum of p squared, each at its best offset.

    `total` is the integral image of the mask, and p the share of its pixels in a box.
    """
    found = []
    offsets = np.unique(np.linspace(0, size, OFFSETS, endpoint=False).astype(int))
    for row in offsets:
        for column in offsets:
            grid = total[row::size, column::size].astype(np.int64)
            inside = grid[1:, 1:] - grid[:-1, 1:] - grid[1:, :-1] + grid[:-1, :-1]
            share = inside[inside > 0] / total[-1, -1]
            found.append((np.log(len(share)), np.sum(share * np.log(share)), np.log(np.sum(share**2))))
    boxes, information, pairs = np.transpose(found)
    return float(boxes.min()), float(information.max()), float(pairs.max())
