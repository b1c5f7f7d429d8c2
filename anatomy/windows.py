"""Square windows of a photograph, as the network sees them."""

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
