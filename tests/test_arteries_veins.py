"""Arteries and veins on drawn vessels whose kinds, widths, angles and equivalents are known."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from test_measures import ODD_MASKS

from anatomy.landmarks import Landmarks
from datasets.kinds import ARTERY, BOTH, NONE, UNCERTAIN, VEIN
from measures.arteries_veins import KIND_MEASURES, REASONS, ArteriesVeins, equivalent, measure_kinds
from measures.branchings import branchings
from measures.segments import label_vessels
from measures.vessels import prepare
from measures.zones import OpticDisc, zone_circles
from pages.pictures import overlay_kinds
from prediction.segmentation import binarize

SIDE, DISC = 420, 100.0  # pixels: of the picture, and the diameter of the disc in its middle
FINE = 4  # samples of a pixel each way
FOV = np.full((SIDE, SIDE), 255, np.uint8)
NAN = float("nan")


def landmarks(x: float = SIDE / 2 - 0.5, diameter: float = DISC) -> Landmarks:
    return Landmarks(x, SIDE / 2 - 0.5, diameter, 1.0, NAN, NAN, 0.0)


def cover(*vessels: tuple[np.ndarray, float]) -> np.ndarray:
    """The share of each pixel that vessels cover, float32 (SIDE, SIDE): points of x and y (n, 2), and width."""
    place = ((np.arange(SIDE * FINE) + 0.5) / FINE - 0.5).astype(np.float32)
    inside = np.zeros((SIDE * FINE,) * 2, np.float32)
    for points, width in vessels:
        for a, b in zip(points[:-1], points[1:], strict=True):
            low, high = (np.minimum(a, b) - width, np.maximum(a, b) + width)
            (left, top), (right, bottom) = (
                np.clip((c + 0.5) * FINE, 0, SIDE * FINE).astype(int) for c in (low, high)
            )
            x, y = place[None, left:right] - a[0], place[top:bottom, None] - a[1]
            along = b - a
            share = np.clip((x * along[0] + y * along[1]) / max(float(along @ along), 1e-9), 0, 1)
            near = np.hypot(x - share * along[0], y - share * along[1]) < width / 2
            inside[top:bottom, left:right] = np.maximum(inside[top:bottom, left:right], near)
    return cv2.resize(inside, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def ray(angle: float, bend: float = 0.0, start: float = 60, end: float = 200) -> np.ndarray:
    """Points of a vessel that leaves the disc at this angle in degrees, and turns by `bend` on its way."""
    radius = np.linspace(start, end, 40 if bend else 2)
    turned = np.radians(angle + bend * (radius - start) / (end - start))
    return SIDE / 2 - 0.5 + radius[:, None] * np.column_stack([np.cos(turned), np.sin(turned)])


def levels_of(share: np.ndarray) -> np.ndarray:
    return np.rint(65535 * share).astype(np.uint16)


def told(share: np.ndarray, fov: np.ndarray, artery: np.ndarray, vein: np.ndarray) -> np.ndarray:
    """The kinds of drawn vessels by these probabilities."""
    levels = levels_of(share)
    kinds = (np.rint(255 * kind).astype(np.uint8) for kind in (artery, vein))
    return label_vessels(prepare(levels, fov, 0.5), binarize(levels, fov, 0.5), *kinds)


def measured(
    arteries: list[tuple[np.ndarray, float]], veins: list[tuple[np.ndarray, float]], **more: object
) -> ArteriesVeins:
    """The measures of drawn arteries and veins, with the kinds of the pixels as drawn."""
    artery, vein = cover(*arteries), cover(*veins)
    both = np.maximum(artery, vein)
    kinds = np.where(artery >= 0.5, ARTERY, NONE) + np.where(vein >= 0.5, VEIN, NONE)
    given = {"landmarks": landmarks(), "fov": FOV, "threshold": 0.5, "diameter": float(SIDE)} | more
    return measure_kinds(levels_of(both), kinds.astype(np.uint8), **given)


# Knudtson's pairs by hand: widest with narrowest, the odd one waits
def by_hand(w: list[float], c: float) -> float:
    a, b, d = (c * math.hypot(w[0], w[5]), c * math.hypot(w[1], w[4]), c * math.hypot(w[2], w[3]))
    low, middle, high = sorted((a, b, d))
    return c * math.hypot(c * math.hypot(low, high), middle)


ARTERIES = [4.0, 5.0, 6.0, 7.5, 9.0, 10.5]
VEINS = [5.0, 6.5, 8.0, 10.0, 12.0, 14.0]


def star(bend: float) -> tuple[list[tuple[np.ndarray, float]], list[tuple[np.ndarray, float]]]:
    arteries = [(ray(60 * k + 7, bend), width) for k, width in enumerate(ARTERIES)]
    return arteries, [(ray(60 * k + 37, bend), width) for k, width in enumerate(VEINS)]


@pytest.mark.parametrize("bend", [0.0, 25.0, -40.0])
def test_crae_crve_and_avr_of_drawn_vessels_to_two_hundredths(bend):
    found = measured(*star(bend))
    for kind, drawn in (("artery", ARTERIES), ("vein", VEINS)):
        assert [each.width for each in found.six[kind]] == pytest.approx(drawn[::-1], rel=0.02)
    crae, crve = by_hand(ARTERIES, 0.88), by_hand(VEINS, 0.95)
    row = found.row
    assert (row["crae"], row["crve"]) == pytest.approx((crae, crve), rel=0.01)
    assert row["avr"] == pytest.approx(crae / crve, rel=0.01)
    assert row["crae_disc"] == pytest.approx(10 * row["crae"])
    assert row["crae_um"] == pytest.approx(18 * row["crae"])
    assert (row["crae_vessels"], row["crae_reason"]) == (6, "")


def test_equivalents_pair_the_widest_with_the_narrowest():
    assert equivalent(VEINS, 0.95) == pytest.approx(by_hand(VEINS[::-1], 0.95))
    assert equivalent([3.0, 4.0], 1.0) == pytest.approx(5)
    assert equivalent([2.0, 3.0, 6.0], 1.0) == pytest.approx(7)


def test_micrometres_are_the_users_where_given():
    row = measured(*star(0.0), um_per_pixel=7.0).row
    assert row["crve_um"] == pytest.approx(7 * row["crve"])
    assert row["vein_width_mean_um"] == pytest.approx(7 * row["vein_width_mean"])


def fork(trunk: float, one: float, other: float, angle: float, turned: float) -> list[tuple[np.ndarray, float]]:
    """A trunk that comes from the left, turned, and two branches at an angle; the widest turns least."""
    middle = np.full(2, SIDE / 2 - 0.3)
    turn = angle * other**2 / (one**2 + other**2)
    ways = np.radians([turned + 180, turned - turn, turned - turn + angle])
    ends = middle + 120 * np.column_stack([np.cos(ways), np.sin(ways)])
    return [(np.stack([middle, end]), width) for end, width in zip(ends, (trunk, one, other), strict=True)]


@pytest.mark.parametrize("widths", [(12, 10, 8), (8, 7, 5), (10, 9, 4), (14, 11, 11)])
def test_angle_and_coefficient_of_a_branching(widths):
    for angle, turned in ((50, 0), (80, 23), (110, 61)):
        found = branchings(prepare(levels_of(cover(*fork(*widths, angle, turned))), FOV, 0.5))
        assert len(found) == 1
        assert found[0, 0] == pytest.approx(angle, abs=3)
        assert found[0, 1] == pytest.approx((widths[1] ** 2 + widths[2] ** 2) / widths[0] ** 2, rel=0.04)


def test_the_trunk_is_the_vessel_from_the_disc_even_if_a_branch_is_wider():
    vessels = prepare(levels_of(cover(*fork(8, 9, 6, 90, 0))), FOV, 0.5)
    assert branchings(vessels, OpticDisc(40, SIDE / 2, 60))[0] == pytest.approx((90, (81 + 36) / 64), rel=0.04)


def test_the_disc_is_reached_along_the_vessels():
    # the trunk goes around: a branch ends nearer to the disc than any part of the trunk is at the branching
    trunk = np.array([(60, 40), (380, 40), (380, 210), (300, 210.0)])
    branches = [(np.array([(300, 210.0), (200, 190)]), 6.0), (np.array([(300, 210.0), (150, 330)]), 6.0)]
    vessels = prepare(levels_of(cover((trunk, 8.0), *branches)), FOV, 0.5)
    (found,) = branchings(vessels, OpticDisc(60, 100, 60))
    assert found[1] == pytest.approx(72 / 64, rel=0.04)


def with_arteries(*arteries: tuple[np.ndarray, float], **more: object) -> ArteriesVeins:
    return measured(list(arteries), [(ray(200), 9.0)], **more)


def branching_at(radius: float) -> list[tuple[np.ndarray, float]]:
    """A vessel of 8 pixels that branches at so many pixels from the middle of the disc, in two of 6."""
    start = ray(0, end=radius)
    branches = [
        np.stack([start[-1], start[-1] + 120 * np.array([math.cos(a), math.sin(a)])]) for a in (0.5, -0.5)
    ]
    return [(start, 8.0), *((branch, 6.0) for branch in branches)]


@pytest.mark.parametrize(("radius", "widths"), [(136, [8]), (112, [6, 6])])
def test_a_vessel_that_branches_in_zone_b(radius, widths):
    found = with_arteries(*branching_at(radius)).six["artery"]
    assert [each.width for each in found] == pytest.approx(widths, rel=0.03)


def test_a_vessel_with_a_gap_on_the_middle_of_zone_b_counts_once():
    found = with_arteries((ray(10, end=118), 6.0), (ray(10, start=132), 6.0), (ray(100), 7.0)).six["artery"]
    assert [each.width for each in found] == pytest.approx([7, 6], rel=0.03)


def test_a_vessel_goes_on_where_one_of_the_other_kind_crosses_it():
    middle = ray(10, start=124, end=125)[0]
    across = middle + np.array([(-50, 280), (50, -280)]) / 5
    found = measured([(ray(10), 6.0)], [(across, 8.0)])
    assert [each.width for each in found.six["artery"]] == pytest.approx([6], rel=0.03)
    assert found.row["artery_branch_points"] == 0
    assert found.row["artery_length"] * SIDE == pytest.approx(140, rel=0.05)


def test_what_is_of_no_kind_is_neither_artery_nor_vein():
    share = cover((ray(10), 6.0), (ray(100), 6.0))
    kinds = np.where((share >= 0.5) & (np.arange(SIDE) > 230), np.uint8(ARTERY), np.uint8(NONE))
    row = measure_kinds(levels_of(share), kinds, FOV, 0.5, landmarks(), diameter=SIDE).row
    assert row["vein_share"] == 0
    assert row["artery_length"] * SIDE == pytest.approx(140, rel=0.05)


def test_what_ends_early_in_zone_b_does_not_cross_it():
    assert with_arteries((ray(10, end=115), 6.0)).row["crae_vessels"] == 0


def test_no_equivalent_without_disc_or_six_vessels_or_the_whole_zone():
    arteries, veins = star(0.0)
    for found, words in (
        (measured(arteries, veins, landmarks=landmarks(NAN, NAN)), "no optic disc found"),
        (measured(arteries[:5], veins), "only 5 of 6 vessels in zone B"),
        (measured(arteries, veins, fov=np.where(np.arange(SIDE) < 260, FOV, np.uint8(0))), "of zone B in the"),
    ):
        assert words in str(found.row["crae_reason"])
        assert all(math.isnan(float(found.row[name])) for name in ("crae", "crae_disc", "crae_um", "avr"))
    row = measured(arteries[:5], veins).row
    assert (row["crae_vessels"], row["crve_vessels"], row["crve_reason"]) == (5, 6, "")
    assert row["crve"] == pytest.approx(by_hand(VEINS, 0.95), rel=0.01)


def test_length_and_share_by_zone():
    row = with_arteries((ray(10), 6.0), (ray(130), 6.0)).row
    assert (row["zone_b_seen"], row["artery_length_b"]) == pytest.approx((1, 2 * 0.5), rel=0.02)
    assert row["artery_length_c"] == pytest.approx(2 * 1.0, rel=0.02)  # both end 1 disc diameter after zone A
    assert row["artery_density_b"] == pytest.approx(2 * 50 * 6 / (math.pi * (150**2 - 100**2)), rel=0.02)
    assert row["kind_decided"] == 1
    assert [radius for *_, radius in zone_circles(landmarks())] == pytest.approx([100, 150, 250])


def test_the_picture_shows_the_kinds_the_zones_and_the_vessels_of_crae_with_their_widths():
    artery, vein = (ray(10), 9.0), (ray(100), 7.0)
    found = measured([artery], [vein])
    drawn = [cover(each) >= 0.5 for each in (artery, vein)]
    kinds = np.where(drawn[0], ARTERY, np.where(drawn[1], VEIN, NONE)).astype(np.uint8)
    grey = np.full((SIDE, SIDE, 3), 90, np.uint8)
    picture = overlay_kinds(grey, kinds, landmarks(), found.six).astype(int)
    red, blue = picture[..., 0], picture[..., 2]
    assert (red > blue + 20)[drawn[0]].mean() > 0.8 and (blue > red + 20)[drawn[1]].mean() > 0.8
    distance = np.hypot(*(np.indices((SIDE, SIDE)) - (SIDE / 2 - 0.5)))
    landmark = picture[..., 1] > red + 40  # green
    for low, high in ((102, 148), (152, 248)):  # letters between the circles
        assert landmark[(distance > low) & (distance < high)].any()
    assert landmark[np.abs(distance - 150) < 1].mean() > 0.3
    zone_b = (distance > 102) & (distance < 148)
    assert (picture == 255).all(axis=2)[zone_b].sum() > 20, "widths in pixels"
    plain = overlay_kinds(grey, kinds, landmarks(NAN, NAN), {})
    assert not (plain[..., 1] > 130).any()


def test_the_same_eye_in_a_larger_photograph_measures_alike():
    small, levels = measured(*star(25.0)).row, levels_of(cover(*star(25.0)[0], *star(25.0)[1]))
    artery = cover(*star(25.0)[0])
    kinds = np.where(levels < 32768, NONE, np.where(artery > 0, ARTERY, VEIN)).astype(np.uint8)
    large = [
        cv2.resize(each, None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST) for each in (levels, kinds, FOV)
    ]
    disc = Landmarks(3 * SIDE / 2 - 0.5, 3 * SIDE / 2 - 0.5, 3 * DISC, 1.0, NAN, NAN, 0.0)
    row = measure_kinds(large[0], large[1], large[2], 0.5, disc).row
    for name in ("crae_disc", "crve_disc", "avr", "artery_length_b", "vein_density_b"):
        assert row[name] == pytest.approx(small[name], rel=0.03), name
    assert row["crae"] == pytest.approx(3 * small["crae"], rel=0.03)


def labelled(share: np.ndarray, odds: np.ndarray) -> np.ndarray:
    """Kinds of the pixels by log-odds of vein against artery, float (SIDE, SIDE)."""
    vein = (share / (1 + np.exp(-odds))).astype(np.float32)
    return told(share, FOV, share - vein, vein)


ACROSS = np.array([(60, 200), (360, 220.0)])
DOWN = np.array([(190, 50), (230, 370.0)])


def test_a_segment_is_of_one_kind_where_its_pixels_disagree():
    share = cover((ACROSS, 7.0))
    odds = np.where(np.arange(SIDE) < 150, 2.0, -2.0) * np.ones((SIDE, 1))
    assert set(labelled(share, odds)[share >= 0.5].tolist()) == {ARTERY}


def test_kinds_go_on_through_a_crossing_and_both_are_in_it():
    across, down = cover((ACROSS, 7.0)), cover((DOWN, 9.0))
    share = np.maximum(across, down)
    known = (np.indices(share.shape) < 200).any(axis=0)  # nothing is known of the two arms that go on
    found = labelled(share, np.where(known, np.where(down > 0, 2.0, -2.0), 0.0))
    assert (found[(across >= 0.5) & (down == 0)] == ARTERY).mean() > 0.98
    assert (found[(down >= 0.5) & (across == 0)] == VEIN).mean() > 0.98
    assert (found[(across > 0.9) & (down > 0.9)] == BOTH).mean() > 0.8
    assert (found[share < 0.5] == NONE).all()


def test_branches_without_evidence_are_of_the_kind_of_their_trunk():
    share = cover(*fork(9, 8, 6, 80, 0))
    odds = np.where(np.arange(SIDE) < 200, 3.0, 0.0) * np.ones((SIDE, 1))
    assert set(labelled(share, odds)[share >= 0.5].tolist()) == {VEIN}


def test_what_cannot_be_told_is_undecided_and_counts_as_such():
    share = cover((ACROSS, 7.0), (ACROSS + [0, 100], 7.0))
    odds = np.where(np.arange(SIDE) < 260, -3.0, 0.05)[:, None] * np.ones(SIDE)
    half = (share / 2).astype(np.float32)
    vein = (share / (1 + np.exp(-odds))).astype(np.float32)
    found = told(share, FOV, share - vein, vein)[share >= 0.5]
    assert set(found.tolist()) == {ARTERY, UNCERTAIN}
    assert (found == ARTERY).mean() == pytest.approx(0.5, abs=0.02)
    assert (told(share, FOV, half, half)[share >= 0.5] == UNCERTAIN).all()


def test_a_large_photograph_keeps_its_own_pixels():
    share = cv2.resize(cover((ACROSS, 7.0)), None, fx=3, fy=3)
    fov = np.full(share.shape, 255, np.uint8)
    none = np.zeros_like(share)
    found = told(share, fov, share, none)
    assert np.array_equal(found == ARTERY, levels_of(share) >= 32768)


@pytest.mark.parametrize("name", ODD_MASKS)
@pytest.mark.filterwarnings("error")
def test_odd_masks_give_numbers_or_nothing(name):
    mask, fov = ODD_MASKS[name], np.full(ODD_MASKS[name].shape, 255, np.uint8)
    share = mask.astype(np.float32)
    kinds = told(share, fov, 0.9 * share, 0.1 * share)
    row = measure_kinds(levels_of(share), kinds, fov, 0.5, landmarks(30, 20)).row
    assert row.keys() == KIND_MEASURES.keys() | set(REASONS)
    values = [float(value) for key, value in row.items() if key not in REASONS]
    assert not any(math.isinf(value) for value in values)
    assert row["artery_share"] == pytest.approx(mask.mean())
