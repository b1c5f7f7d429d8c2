"""Crops are reproducible, move photograph and masks together, and show choroidal vessels in their share."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from crops import Crops, draw_choroid
from data import Eye, read_eyes
from demo import draw_eye


def test_crops_depend_on_seed_and_index_alone(new_data: Path) -> None:
    eyes = read_eyes(new_data / "train", labels=True)
    one, two, other = (Crops(eyes, 48, seed, 100, choroid=0.5) for seed in (1, 1, 2))
    for i in (0, 7, 99):
        first = one[i]
        _ = two[3]
        for a, b in zip(first, two[i], strict=True):
            assert (a == b).all()
        assert any((a != b).any() for a, b in zip(first, other[i], strict=True))
    assert (one[0][0] != one[1][0]).any()


def test_crops_are_what_the_network_takes(new_data: Path) -> None:
    crops = Crops(read_eyes(new_data / "train", labels=True), 48, 0, 100, choroid=0.5)
    for i in range(20):
        image, mask, fov = crops[i]
        assert image.shape == (3, 48, 48)
        assert mask.shape == fov.shape == (1, 48, 48)
        assert {a.dtype for a in (image, mask, fov)} == {np.dtype(np.float32)}
        assert set(np.unique(mask)) <= {0, 1}
        assert set(np.unique(fov)) <= {0, 1}
        assert (image[:, fov[0] == 0] == 0).all()
        assert fov.mean() > 0.2  # centred inside the field of view


def test_one_draw_moves_photograph_mask_and_field_of_view_together(monkeypatch: pytest.MonkeyPatch) -> None:
    # an eye whose red channel is its mask and whose green channel is its field of view
    monkeypatch.setattr("crops.jitter_colour", lambda rng: np.arange(256)[:, None])
    _, mask, fov = draw_eye(np.random.default_rng(0), 150, 140)
    mask = cv2.dilate(mask, np.ones((5, 5)))  # cubic interpolation overshoots at vessels of a pixel's width
    crops = Crops([Eye("x", np.dstack([mask, fov, mask]), np.full_like(fov, 255), mask)], 64, 0, 50)
    mean, std = crops.statistics[0]
    seen = 0
    for i in range(50):
        image, moved, _ = crops[i]
        red = image[0] * std[0] + mean[0]
        clear = (red < 5) | (red > 250)  # between them the photograph is interpolated, the mask is not
        assert ((red > 127) == (moved[0] > 0))[clear].all()
        seen += int(moved.sum())
    assert seen > 1000


def test_choroidal_vessels_are_drawn_into_the_share_of_crops_and_are_no_target(
    new_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eyes = read_eyes(new_data / "train", labels=True)
    monkeypatch.setattr("crops.jitter_colour", lambda rng: np.arange(256)[:, None])  # drawn last
    never, often = (Crops(eyes, 64, 3, 200, choroid) for choroid in (0.0, 0.4))
    drawn = 0
    for i in range(200):
        image, mask, fov = never[i]
        through, same_mask, same_fov = often[i]
        assert (mask == same_mask).all()
        assert (fov == same_fov).all()
        drawn += bool((image != through).any())
    assert 60 <= drawn <= 100  # of 200 at 0.4, but where few vessels are drawn some crops stay as they are


def test_choroidal_vessels_are_redder_and_less_sharp_than_those_of_the_retina(new_data: Path) -> None:
    eyes = read_eyes(new_data / "train", labels=True)
    grey, darker, steps = np.full((96, 96, 3), 128, np.uint8), [], []
    for seed in range(30):
        image = draw_choroid(np.random.default_rng(seed), grey, eyes)
        assert image.shape == (96, 96, 3)
        assert image.dtype == np.uint8
        change = image.astype(float) - 128
        assert change[..., 1].max() <= 0
        darker.append(-change.mean((0, 1)))
        steps.append(np.abs(np.diff(change[..., 1], axis=1)).max() / max(-change[..., 1].min(), 1))
    red, green, blue = np.mean(darker, 0)
    assert green > 1
    assert abs(red) < 0.2 * green
    assert 0.1 * green < blue < 0.5 * green
    # a mask's edge would be one step of its whole depth
    assert np.median(steps) < 0.4
    assert (grey == 128).all()


@pytest.mark.parametrize("size", [1, 2, 5])
def test_choroidal_vessels_fit_the_smallest_crops(new_data: Path, size: int) -> None:
    crops = Crops(read_eyes(new_data / "train", labels=True), size, 0, 20, choroid=1.0)
    assert all(crops[i][0].shape == (3, size, size) for i in range(20))
