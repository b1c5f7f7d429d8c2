"""The field of view is found whatever surrounds it; its scale follows from few of its points."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from conftest import overlap
from scenes import SCENES, scene

from datasets.field_of_view import disc_in_scene, estimate_fov, outline
from datasets.synthetic import draw_eye
from measures.doubts import doubts, features

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
def test_the_outline_gives_the_circle_of_all_pixels_to_the_bit(name):
    fov = FIELDS[name]
    points = outline(fov)
    assert len(points) <= 2 * len(fov)
    few, all_pixels = cv2.convexHull(points), cv2.convexHull(cv2.findNonZero(fov))
    assert cv2.minEnclosingCircle(few) == cv2.minEnclosingCircle(all_pixels)
    assert sorted(few.tolist()) == sorted(all_pixels.tolist())


COLOURS = [(255, 255, 255), (200, 200, 200), (60, 60, 60), (0, 60, 160), (200, 30, 30)]
# rows above and below, columns to the left and right
BORDERS = [(0, 60, 0, 0), (25, 0, 0, 0), (60, 60, 0, 0), (0, 0, 200, 0), (0, 0, 90, 90), (150, 166, 500, 535)]
PHOTOGRAPH, _, FIELD = draw_eye(np.random.default_rng(1), 584, 565)


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("border", BORDERS)
def test_captions_bars_and_windows_are_no_field_of_view(colour, border):
    framed = cv2.copyMakeBorder(PHOTOGRAPH, *border, cv2.BORDER_CONSTANT, value=colour)
    true = cv2.copyMakeBorder(FIELD, *border, cv2.BORDER_CONSTANT, value=0)
    text = tuple(255 - level for level in colour)
    for x, y in ((5, 18), (5, framed.shape[0] - 8)):
        if not true[max(0, y - 18) : y + 8, : x + 200].any():
            cv2.putText(framed, "OD 2021-03-04", (x, y), 0, 0.6, text, 2)
    jpeg = cv2.imdecode(cv2.imencode(".jpg", framed, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], cv2.IMREAD_COLOR)
    for photograph in (framed, jpeg):
        assert overlap(estimate_fov(photograph), true) > 0.93


def test_the_window_of_a_viewer_with_bars_on_three_sides_is_no_field_of_view():
    window = np.full((900, 1600, 3), (240, 240, 240), np.uint8)
    window[:60] = (0, 120, 215)
    window[:, :120] = (45, 45, 48)
    window[-40:] = (30, 30, 30)
    window[150:734, 500:1065] = PHOTOGRAPH
    true = np.zeros((900, 1600), np.uint8)
    true[150:734, 500:1065] = FIELD
    assert overlap(estimate_fov(window), true) > 0.93


@pytest.mark.parametrize("sigma", [0, 3, 12])
@pytest.mark.parametrize("grey", [False, True])
def test_a_retina_without_a_border_has_no_bars(sigma, grey):
    middle = np.ascontiguousarray(PHOTOGRAPH[180:400, 170:390])
    middle = cv2.GaussianBlur(middle, (0, 0), sigma) if sigma else middle
    assert estimate_fov(np.repeat(middle[..., 1:2], 3, axis=2) if grey else middle).all()


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", SCENES)
def test_an_eye_in_a_slide_or_a_scene_is_found_and_is_one_eye(name, seed):
    picture, true, vessels = scene(name, seed)
    fov = estimate_fov(picture)
    assert overlap(fov, true) > 0.93
    assert features(picture, fov, vessels)["beside"] < 0.3


@pytest.mark.parametrize("name", SCENES)
def test_a_scene_without_an_eye_has_no_field_of_view_in_it(name):
    background = SCENES[name](np.random.default_rng(3))[0]
    assert disc_in_scene(background) is None or "logo" in name


@pytest.mark.parametrize("background", ["a wooden table", "a small disc on black", "a small disc on white"])
def test_an_eye_that_is_not_found_is_doubtful_never_silently_wrong(background: str) -> None:
    picture, top, left = SCENES[background](np.random.default_rng(4))
    side = 584 if background == "a wooden table" else 190  # less than 1 % of the frame
    size = side, side
    inside = cv2.resize(FIELD, size, interpolation=cv2.INTER_NEAREST) > 0  # cut out round
    part = picture[top : top + side, left : left + side]
    part[inside] = cv2.resize(PHOTOGRAPH, size, interpolation=cv2.INTER_AREA)[inside]
    fov, row = estimate_fov(picture), {"vessel_share": 0.1, "largest_tree": 1.0, "expected_f1": 0.8}
    said = " ".join(doubts(features(picture, fov, np.zeros_like(fov)), row))
    true = np.zeros_like(fov)
    true[top : top + side, left : left + side] = 255 * inside
    assert overlap(fov, true) > 0.93 or "no border found: scale is a guess" in said


@pytest.mark.parametrize("colour", [(255, 255, 255), (120, 120, 120), (20, 30, 110), (240, 225, 190)])
def test_two_eyes_on_one_slide_are_still_two(colour):
    slide = np.full((800, 1300, 3), colour, np.uint8)
    for left in (40, 690):
        slide[100:684, left : left + 565] = PHOTOGRAPH
    fov = estimate_fov(slide)
    assert features(slide, fov, np.zeros_like(fov))["beside"] > 0.3
