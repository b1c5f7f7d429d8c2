"""The scale of a photograph follows from few points of its field of view, and is that of all its pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from datasets.field_of_view import outline

RNG = np.random.default_rng(0)


def disc(height: int, width: int, *centre_and_radius: int) -> np.ndarray:
    """A field of view that the frame may cut off."""
    x, y, radius = centre_and_radius
    return cv2.circle(np.zeros((height, width), np.uint8), (x, y), radius, 255, -1)


FIELDS = {
    "whole disc": disc(200, 220, 110, 100, 90),
    "cut left": disc(200, 220, 20, 100, 90),
    "cut above and below": disc(100, 220, 110, 50, 90),
    "cut at a corner": disc(150, 170, 10, 140, 120),
    "all of the frame": np.full((60, 80), 255, np.uint8),
    "one pixel": disc(30, 40, 7, 9, 0),
    "one row": np.repeat([[255], [0]], [1, 9], axis=0).astype(np.uint8).repeat(50, axis=1),
    "two areas and empty rows": disc(300, 300, 80, 60, 40) | disc(300, 300, 220, 250, 30),
    "scattered pixels": np.where(RNG.random((90, 110)) < 0.01, 255, 0).astype(np.uint8),
}


@pytest.mark.parametrize("name", FIELDS)
def test_the_outline_gives_the_circle_of_all_pixels_to_the_bit(name: str) -> None:
    fov = FIELDS[name]
    points = outline(fov)
    assert len(points) <= 2 * len(fov)
    few, all_pixels = cv2.convexHull(points), cv2.convexHull(cv2.findNonZero(fov))
    assert cv2.minEnclosingCircle(few) == cv2.minEnclosingCircle(all_pixels)
    assert sorted(few.tolist()) == sorted(all_pixels.tolist())
