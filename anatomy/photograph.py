"""A photograph of a retina, and what is known of it before a network of vessels sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anatomy.landmarks import Landmarks, find_landmarks
from datasets.field_of_view import DIAMETER, estimate_fov, fov_diameter

DISC_SHARE = 0.156  # of the diameter of a 45-degree field of view, DRIVE's: the disc's, where none is seen


@dataclass(frozen=True)
class Photograph:
    """A photograph, its field of view, and its landmarks."""

    pixels: np.ndarray  # uint8 (H, W, 3) RGB
    fov: np.ndarray  # field of view, uint8 (H, W), 0 or 255
    diameter: float  # of the whole field of view, pixels; a guess where `diameter_from` says so
    diameter_from: str  # border, given, or guess
    landmarks: Landmarks  # disc and fovea

    @property
    def border(self) -> bool:
        """Whether the diameter is known, because its border shows or the user gave it."""
        return self.diameter_from != "guess"


def look_at(pixels: np.ndarray, diameter: float | None = None) -> Photograph:
    """Find the field of view and the landmarks of a photograph.

    Args:
        pixels: uint8 (H, W, 3) RGB.
        diameter: of the whole field of view in pixels; None: that of its border. Where no border shows it is
            at least the diagonal of the frame.
    """
    fov = estimate_fov(pixels)
    diameter_from = "given" if diameter else "guess" if fov.all() else "border"
    # a tiny frame without a border is a piece of a photograph rather than a whole one
    found = diameter or (max(fov_diameter(fov), DIAMETER) if fov.all() else fov_diameter(fov))
    return Photograph(pixels, fov, found, diameter_from, find_landmarks(pixels, fov))
