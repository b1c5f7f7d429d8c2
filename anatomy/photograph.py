"""A photograph of a retina, and what is known of it before a network of vessels sees it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from anatomy.landmarks import Landmarks, find_landmarks
from datasets.field_of_view import DIAMETER, estimate_fov, fov_diameter, roundness
from datasets.images import reduced
from utils import UserError

ABSURD = 4.0  # times, or a part: refused, since the photograph would take many times the time and memory
LEAST_SHOWN = 0.75  # of the circle around a field of view that fills so much of it, the frame hides little
# what --diameter is, whatever the angle of the camera
DIAMETER_FLAG = "the diameter that a field of view of 45 degrees has in these photographs"
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

    @cached_property
    def small(self) -> tuple[np.ndarray, np.ndarray]:
        """Photograph and field of view, `reduced`."""
        return reduced(self.pixels), reduced(self.fov)

    @property
    def contradiction(self) -> float:
        """See `contradiction_of`; 1 where the user gave no diameter."""
        return contradiction_of(self.diameter, self.fov) if self.diameter_from == "given" else 1.0


def contradiction_of(given: float, fov: np.ndarray) -> float:
    """How many times larger or smaller than its border shows a field of view would be; 1 where none shows.

    Args:
        given: its diameter in pixels.
        fov: the field of view that is seen, uint8 (H, W), 0 or 255.
    """
    if fov.all():
        return 1.0
    shown = fov_diameter(fov)
    # of a close-up a corner of the border may show, and the whole may be larger
    return max(shown / given, given / shown if roundness(fov, whole=True) > LEAST_SHOWN else 1.0)


def look_at(
    pixels: np.ndarray, diameter: float | None = None, landmarks: Landmarks | None = None
) -> Photograph:
    """Find the field of view and the landmarks of a photograph.

    Args:
        pixels: uint8 (H, W, 3) RGB.
        diameter: of the whole field of view in pixels; None: that of its border. Where no border shows it is
            at least the diagonal of the frame.
        landmarks: of this photograph, where they are known already.

    Raises:
        UserError: the diameter is absurd beside the border that shows, or beside the frame.
    """
    fov = estimate_fov(pixels)
    diameter_from = "given" if diameter else "guess" if fov.all() else "border"
    # a tiny frame without a border is a piece of a photograph rather than a whole one
    found = diameter or (max(fov_diameter(fov), DIAMETER) if fov.all() else fov_diameter(fov))
    beyond = max(fov.shape) / diameter if diameter and fov.all() else 1.0  # the frame lies in the field of view
    if diameter and max(beyond, contradiction_of(diameter, fov)) > ABSURD:
        shown = f"the border of the field of view shows {fov_diameter(fov):.0f} pixels"
        shown = (
            f"the photograph is {max(fov.shape)} pixels wide or high without a border" if fov.all() else shown
        )
        raise UserError(f"--diameter {diameter:g}: {shown}; give {DIAMETER_FLAG}, or leave it out")
    landmarks = landmarks or find_landmarks(pixels, fov)
    return Photograph(pixels, fov, found, diameter_from, landmarks)
