"""Measures on shapes whose values are known, and on drawn eyes whose vessels are."""

from __future__ import annotations

import math
import warnings

import cv2
import numpy as np
import pytest

from datasets import synthetic
from measures.calibre import widths
from measures.fractal import box_sizes, fractal_dimensions
from measures.skeleton import trace
from measures.vessels import MEASURES, measure, prepare, tortuosity

SIDE = 160
FINE = 4  # samples of a pixel each way


def rendered(inside: np.ndarray) -> np.ndarray:
    """The share of each pixel that a finely sampled shape covers, float32 (SIDE, SIDE)."""
    return cv2.resize(inside.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def fine_grid() -> tuple[np.ndarray, np.ndarray]:
    """x and y of the samples from the middle of the picture, in pixels."""
    place = (np.arange(SIDE * FINE) + 0.5) / FINE - SIDE / 2
    return place[None, :], place[:, None]


def ribbon(width: float, angle: float, offset: float) -> np.ndarray:
    x, y = fine_grid()
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    along, across = x * c + y * s, -x * s + y * c + offset
    return rendered((np.abs(across) < width / 2) & (np.abs(along) < 70))


def along(points: np.ndarray, width: float) -> np.ndarray:
    """A line of this width through points (n, 2) of x and y, uint8 (SIDE, SIDE), 0 or 1."""
    big = np.zeros((SIDE * 4, SIDE * 4), np.uint8)
    corners = np.rint((points + 0.5) * 4 * 16).astype(np.int32)
    cv2.polylines(big, [corners[:, None]], False, 1, round(width * 4), cv2.LINE_8, 4)
    return (cv2.resize(big.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA) >= 0.5).astype(
        np.uint8
    )


def levels_of(mask: np.ndarray) -> np.ndarray:
    return np.where(mask > 0, 65535, 0).astype(np.uint16)


ANGLES = np.arange(0, 180, 22.5)
WIDTHS = (1.5, 2, 3, 4.5, 7, 11)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_width_of_a_ribbon_at_any_angle_to_a_fifth_of_a_pixel(width):
    for number, angle in enumerate(ANGLES):
        cover = ribbon(width, angle, offset=0.12 * number)
        found, weight = widths(cover, trace(cover >= 0.5), 0.5)
        assert np.average(found, weights=weight) == pytest.approx(width, abs=0.2)


def test_probabilities_give_the_width_more_closely_than_their_mask():
    errors = {"probability": [], "mask": []}
    for width in WIDTHS:
        for number, angle in enumerate(ANGLES[::2]):
            cover = ribbon(width, angle, offset=0.13 * number)
            for name, seen in (("probability", cover), ("mask", (cover >= 0.5).astype(np.float32))):
                found, weight = widths(seen, trace(seen >= 0.5), 0.5)
                errors[name].append(np.average(found, weights=weight) - width)
    probability, mask = (np.sqrt(np.mean(np.square(values))) for values in errors.values())
    assert probability < 0.1
    assert probability < mask / 2


@pytest.mark.parametrize("angle", ANGLES)
def test_the_length_of_a_line_at_any_angle(angle):
    tree = trace(ribbon(2, angle, 0) >= 0.5)
    assert (len(tree.sizes), tree.branch_points, tree.end_points) == (1, 0, 2)
    assert tree.lengths().sum() == pytest.approx(140, abs=5)  # thinning shortens the ends


@pytest.mark.parametrize("width", [1, 3, 8])
def test_a_ring_is_one_segment_without_ends_of_its_circumference(width):
    ring = cv2.circle(np.zeros((SIDE, SIDE), np.uint8), (80, 80), 60, 1, width)
    tree = trace(ring)
    assert (tree.is_loop.tolist(), tree.branch_points, tree.end_points) == ([True], 0, 0)
    assert tree.lengths().sum() == pytest.approx(2 * np.pi * 60, rel=0.02)


def arc(degrees: float, radius: float = 60) -> np.ndarray:
    """A line along an arc of a circle."""
    angle = np.radians(np.linspace(0, degrees, 400))
    return along(np.column_stack([80 + radius * np.cos(angle), 80 + radius * np.sin(angle)]), 3)


@pytest.mark.parametrize("degrees", [60, 120, 180, 270])
def test_tortuosity_of_an_arc(degrees):
    half = math.radians(degrees) / 2
    by_chord, curvature = tortuosity(trace(arc(degrees)), 200)
    assert by_chord == pytest.approx(half / math.sin(half) - 1, rel=0.08, abs=0.005)
    assert curvature == pytest.approx((200 / 60) ** 2, rel=0.15)


@pytest.mark.parametrize("height", [5, 10, 15])
def test_tortuosity_of_a_sine(height):
    x = np.linspace(10, 150, 2000)
    wave = 2 * np.pi / 70
    slope = height * wave * np.cos(wave * x)
    length = np.sum(np.hypot(1, (slope[1:] + slope[:-1]) / 2) * np.diff(x))
    bend = -height * wave**2 * np.sin(wave * x) / (1 + slope**2) ** 1.5
    squared = np.sum((bend**2 * np.hypot(1, slope))[:-1] * np.diff(x)) / length
    by_chord, curvature = tortuosity(trace(along(np.column_stack([x, 80 + height * np.sin(wave * x)]), 2)), 200)
    assert by_chord == pytest.approx(length / 140 - 1, rel=0.1, abs=0.006)
    assert curvature == pytest.approx(200**2 * squared, rel=0.25)


def test_a_straight_line_is_not_tortuous_at_any_angle():
    found = np.array([tortuosity(trace(ribbon(3, angle, 0) >= 0.5), 200) for angle in ANGLES])
    assert found[:, 0].max() < 0.004
    assert found[:, 1].max() < 1.5  # a circle of the field of view itself has 4


def carpet(times: int) -> np.ndarray:
    shape = np.ones((1, 1), np.uint8)
    for _ in range(times):
        shape = np.block([[shape] * 3, [shape, 0 * shape, shape], [shape] * 3])
    return shape


def test_fractal_dimension_of_a_sierpinski_carpet():
    wanted = math.log(8) / math.log(3)
    exact = fractal_dimensions(carpet(5), [3, 9, 27, 81])
    assert list(exact.values()) == pytest.approx([wanted, wanted, wanted, 1])
    # boxes that do not fit it cut its pieces
    found = fractal_dimensions(carpet(6), box_sizes(729))
    assert list(found.values())[:3] == pytest.approx([wanted] * 3, abs=0.07)


def test_fractal_dimension_of_a_line_and_of_a_square():
    square = np.ones((500, 500), np.uint8)
    line = np.zeros_like(square)
    line[250] = 1
    for shape, dimension in ((line, 1), (square, 2)):
        found = fractal_dimensions(shape, box_sizes(548))
        assert list(found.values())[:3] == pytest.approx([dimension] * 3, abs=0.05)
        assert found["r2"] > 0.999


@pytest.mark.parametrize("depth", [2, 3])
def test_a_binary_tree_has_its_branches_ends_and_length(depth):
    tree, length = np.zeros((400, 400), np.uint8), 0.0

    def grow(start: np.ndarray, heading: float, long: float, left: int) -> None:
        nonlocal length
        end = start + long * np.array([math.cos(heading), math.sin(heading)])
        cv2.line(tree, np.rint(start).astype(int).tolist(), np.rint(end).astype(int).tolist(), 1, 3)
        length += long
        if left:
            for turn in (-0.55, 0.55):
                grow(end, heading + turn, long * 0.72, left - 1)

    grow(np.array([200.0, 390.0]), -np.pi / 2, 110, depth)
    found = trace(tree)
    assert len(found.sizes) == 2 ** (depth + 1) - 1
    assert found.branch_points == 2**depth - 1
    assert found.end_points == 2**depth + 1
    assert found.lengths().sum() == pytest.approx(length, rel=0.04)


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray, list, float]:
    """Vessel mask and field of view of a drawn eye, its vessels, and the radius in pixels."""
    vessels: list = []
    grow = synthetic._grow_vessels
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "_grow_vessels", lambda *a: vessels.extend(grow(*a)) or list(vessels))
        _, mask, fov = synthetic.draw_eye(np.random.default_rng(5))
    return mask, fov, vessels, 0.4775 * 565


def test_length_and_calibre_of_a_drawn_eye(drawn):
    mask, fov, vessels, radius = drawn
    found = measure(prepare(levels_of(mask), fov, 0.5))
    steps = [np.hypot(*np.diff(points, axis=0).T) for points, *_ in vessels]
    inside = [np.hypot(*points[1:].T) < 1 for points, *_ in vessels]
    length = sum(step[keep].sum() for step, keep in zip(steps, inside, strict=True))
    # vessels that touch share a centre line, so it is shorter
    assert 0.85 * length / 2 < found["length"] < length / 2
    weight = np.concatenate([step[keep] for step, keep in zip(steps, inside, strict=True)])
    half = np.concatenate([w[1:][keep] for (_, w, *_), keep in zip(vessels, inside, strict=True)])
    # drawn to whole thirds of a pixel, and vessel from two fifths of a pixel on: a little wider than meant
    assert found["width_mean"] == pytest.approx(np.average(2 * half * radius, weights=weight), abs=0.5)
    assert found["vessel_share"] == pytest.approx(np.mean(mask[fov > 0] > 0), abs=1e-6)


def test_a_larger_photograph_of_the_same_eye_measures_alike(drawn):
    mask, fov, _, _ = drawn
    small = measure(prepare(levels_of(mask), fov, 0.5), 10)
    large = (cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST) for image in (mask, fov))
    large_mask, large_fov = large
    found = measure(prepare(levels_of(large_mask), large_fov, 0.5), 5)
    for name in ("vessel_share", "length", "width_mean_fov", "width_mean_um", "fractal_d0", "largest_tree"):
        assert found[name] == pytest.approx(small[name], rel=0.05), name
    assert found["width_mean"] == pytest.approx(2 * small["width_mean"], rel=0.05)


EMPTY = np.zeros((60, 60), np.uint8)
ODD_MASKS = {
    "no vessel": EMPTY,
    "one pixel": cv2.circle(EMPTY.copy(), (30, 30), 0, 1, -1),
    "one loop": cv2.circle(EMPTY.copy(), (30, 30), 15, 1, 1),
    "a loop of four pixels": np.pad(np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.uint8), 28),
    "all vessel": EMPTY + 1,
    "two crossing": cv2.line(cv2.line(EMPTY.copy(), (0, 0), (59, 59), 1, 1), (59, 0), (0, 59), 1, 1),
    "chequered": (np.indices((60, 60)).sum(axis=0) % 2).astype(np.uint8),
    "a single pixel of a photograph": np.ones((1, 1), np.uint8),
    "one row": np.ones((1, 40), np.uint8),
}


@pytest.mark.parametrize("name", ODD_MASKS)
def test_odd_masks_give_numbers_or_nothing(name):
    mask = ODD_MASKS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure(prepare(levels_of(mask), np.full(mask.shape, 255, np.uint8), 0.5), 5)
    assert list(found) == list(MEASURES)
    assert not any(math.isinf(value) for value in found.values())
    assert found["vessel_share"] == pytest.approx(mask.mean())
    assert all(value >= 0 for value in found.values() if not math.isnan(value))


def test_a_loop_has_its_width_but_no_tortuosity_by_chord():
    mask = np.pad(ODD_MASKS["one loop"], 70)
    found = measure(prepare(levels_of(mask), np.full(mask.shape, 255, np.uint8), 0.5))
    assert found["end_points"] == found["branch_points"] == 0
    assert 0.7 < found["width_mean"] < 1.3
    assert math.isnan(found["tortuosity"])
    assert found["curvature"] > 0


def test_vessels_outside_the_field_of_view_do_not_count(drawn):
    mask, fov, _, _ = drawn
    beyond = np.where(fov > 0, mask, 255)
    assert measure(prepare(levels_of(beyond), fov, 0.5)) == measure(prepare(levels_of(mask), fov, 0.5))
