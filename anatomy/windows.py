"""Square windows of a photograph, as the network sees them, and circles around what it finds there."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from datasets.images import normalize, statistics

SIDE = 192  # pixels of a window as the network sees it


@dataclass(frozen=True)
class Window:
    """A square of a photograph: centre (x, y) and side in pixels; (0, 0) is the middle of the first pixel."""

    x: float
    y: float
    side: float

    def matrix(self) -> np.ndarray:
        """From pixels of the window, SIDE x SIDE, to pixels of the photograph: float64 (2, 3)."""
        step, middle = self.side / SIDE, (SIDE - 1) / 2
        return np.array([[step, 0, self.x - step * middle], [0, step, self.y - step * middle]])

    def place(self, x: float, y: float) -> tuple[float, float]:
        """The place in the photograph of a place in the window."""
        step, middle = self.side / SIDE, (SIDE - 1) / 2
        return self.x + step * (x - middle), self.y + step * (y - middle)

    def cut(self, image: np.ndarray) -> np.ndarray:
        """The window's pixels, uint8 (SIDE, SIDE) or (SIDE, SIDE, 3); 0 beyond the photograph."""
        matrix, whole = self.matrix(), max(1, int(self.side / SIDE))
        if whole > 1:  # average whole pixels first: sampling alone would skip some
            height, width = image.shape[:2]
            # what the window shows, from one corner to the other
            left, top = (max(0, int(np.floor(start)) - whole) for start in matrix[:, 2])
            right = min(width, int(np.ceil(matrix[0, 2] + self.side)) + whole)
            bottom = min(height, int(np.ceil(matrix[1, 2] + self.side)) + whole)
            columns, rows = (right - left) // whole, (bottom - top) // whole
            if columns < 1 or rows < 1:
                return np.zeros((SIDE, SIDE, *image.shape[2:]), np.uint8)
            part = image[top : top + rows * whole, left : left + columns * whole]
            image = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
            corner = np.array([left, top]) + (whole - 1) / 2
            matrix[:, 2] -= corner
            matrix /= whole
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(np.ascontiguousarray(image), matrix, (SIDE, SIDE), flags=flags)

    def cut_fov(self, fov: np.ndarray) -> np.ndarray:
        """The window's field of view, uint8 (SIDE, SIDE), 0 or 255."""
        return cv2.threshold(self.cut(fov), 127, 255, cv2.THRESH_BINARY)[1]


def window_around(fov: np.ndarray) -> Window:
    """The window that shows a whole field of view, uint8 (H, W), 0 or 255, with a little around it."""
    left, top, width, height = cv2.boundingRect(fov)
    return Window(left + (width - 1) / 2, top + (height - 1) / 2, 1.05 * max(width, height))


def network_input(pixels: np.ndarray, fov: np.ndarray) -> np.ndarray:
    """A window as the network takes it, float32 (3, SIDE, SIDE), each channel of mean 0 and deviation 1.

    Args:
        pixels: uint8 (SIDE, SIDE, 3) RGB.
        fov: uint8 (SIDE, SIDE), 0 or 255, not empty.
    """
    return normalize(pixels, fov, *statistics(pixels, fov))


def circle_around(mask: np.ndarray, fov: np.ndarray) -> tuple[float, float, float]:
    """Centre and diameter of the circle that a mask shows, also where the border of the field of view cuts it.

    A mask within the field has its centroid and the diameter of a circle of its area. Of a mask that is cut,
    the rest of the outline is fitted by a circle (Kasa 1976, https://doi.org/10.1109/TIM.1976.6312298).

    Args:
        mask: uint8 (H, W), 0 or 255, one connected area, not empty.
        fov: field of view, uint8 (H, W), 0 or 255.

    Returns:
        x, y and diameter in pixels.
    """
    moments = cv2.moments(mask, binaryImage=True)
    area = moments["m00"]
    x, y, diameter = moments["m10"] / area, moments["m01"] / area, 2 * float(np.sqrt(area / np.pi))
    outline = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0][0][:, 0].astype(np.float64)
    # beyond the window lies no border: the window ends there, and the mask is cut all the same
    inner = cv2.erode(fov, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    free = outline[inner[outline[:, 1].astype(int), outline[:, 0].astype(int)] > 0]
    if len(free) > 0.9 * len(outline) or len(free) < 8:
        return x, y, diameter
    # |p|^2 = 2 p c + (r^2 - |c|^2), linear in c and the bracket
    unknowns = np.column_stack([2 * free, np.ones(len(free))])
    solution, _, rank, _ = np.linalg.lstsq(unknowns, (free**2).sum(axis=1), rcond=None)
    squared = solution[2] + solution[0] ** 2 + solution[1] ** 2
    # the outline runs through the outermost pixels, half a pixel within the border
    fitted = 2 * float(np.sqrt(max(squared, 0))) + 1
    if rank < 3 or not diameter <= fitted <= 2 * diameter:  # an arc too short or too straight
        return x, y, diameter
    return float(solution[0]), float(solution[1]), fitted
