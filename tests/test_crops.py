"""Crops are reproducible, move photograph and masks alike, and show choroids and other cameras in a share."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from data import read_eyes
from datasets.eyes import Eye
from datasets.images import equalize
from datasets.synthetic import draw_eye
from training.crops import Crops, change_camera, draw_choroid


def test_crops_depend_on_seed_and_index_alone(new_data):
    eyes = read_eyes(new_data / "train", labels=True)
    one, two, other = (Crops(eyes, 48, seed, 100, choroid=0.5, camera=0.5) for seed in (1, 1, 2))
    for i in (0, 7, 99):
        first = one[i]
        _ = two[3]
        for a, b in zip(first, two[i], strict=True):
            assert (a == b).all()
        assert any((a != b).any() for a, b in zip(first, other[i], strict=True))
    assert (one[0][0] != one[1][0]).any()


def test_crops_are_what_the_network_takes(new_data):
    crops = Crops(read_eyes(new_data / "train", labels=True), 48, 0, 100, choroid=0.5, camera=0.5)
    for i in range(20):
        image, mask, fov = crops[i]
        assert image.shape == (3, 48, 48)
        assert mask.shape == fov.shape == (1, 48, 48)
        assert {a.dtype for a in (image, mask, fov)} == {np.dtype(np.float32)}
        assert set(np.unique(mask)) <= {0, 1}
        assert set(np.unique(fov)) <= {0, 1}
        assert (image[:, fov[0] == 0] == 0).all()
        assert fov.mean() > 0.2  # centred inside the field of view


def test_one_draw_moves_photograph_mask_and_field_of_view_together(monkeypatch):
    # an eye whose red channel is its mask and whose green channel is its field of view
    monkeypatch.setattr("training.crops.jitter_colour", lambda rng: np.arange(256)[:, None])
    _, mask, fov = draw_eye(np.random.default_rng(0), 150, 140)
    mask = cv2.dilate(mask, np.ones((5, 5)))  # cubic interpolation overshoots at vessels of a pixel's width
    crops = Crops([Eye("x", np.dstack([mask, fov, mask]), np.full_like(fov, 255), mask)], 64, 0, 50)
    mean, std = crops.statistics[0][0]
    seen = 0
    for i in range(50):
        image, moved, _ = crops[i]
        red = image[0] * std[0] + mean[0]
        clear = (red < 5) | (red > 250)  # between them the photograph is interpolated, the mask is not
        assert ((red > 127) == (moved[0] > 0))[clear].all()
        seen += int(moved.sum())
    assert seen > 1000


def test_choroidal_vessels_are_drawn_into_the_share_of_crops_and_are_no_target(new_data, monkeypatch):
    eyes = read_eyes(new_data / "train", labels=True)
    monkeypatch.setattr("training.crops.jitter_colour", lambda rng: np.arange(256)[:, None])  # drawn last
    never, often = (Crops(eyes, 64, 3, 200, choroid) for choroid in (0.0, 0.4))
    drawn = 0
    for i in range(200):
        image, mask, fov = never[i]
        through, same_mask, same_fov = often[i]
        assert (mask == same_mask).all()
        assert (fov == same_fov).all()
        drawn += bool((image != through).any())
    assert 60 <= drawn <= 100  # of 200 at 0.4, but where few vessels are drawn some crops stay as they are


def test_choroidal_vessels_are_redder_and_less_sharp_than_those_of_the_retina(new_data):
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
def test_choroids_and_other_cameras_fit_the_smallest_crops(new_data, size):
    crops = Crops(read_eyes(new_data / "train", labels=True), size, 0, 20, choroid=1.0, camera=1.0)
    assert all(crops[i][0].shape == (3, size, size) for i in range(20))


def test_other_cameras_come_in_their_share_and_leave_the_other_crops_as_they_are(new_data):
    eyes = read_eyes(new_data / "train", labels=True)
    never, often = (Crops(eyes, 64, 3, 200, camera=camera) for camera in (0.0, 0.4))
    same = [all((a == b).all() for a, b in zip(never[i], often[i], strict=True)) for i in range(200)]
    assert 100 <= sum(same) <= 140


def test_other_cameras_show_vessels_smaller_and_larger(new_data):
    eyes = read_eyes(new_data / "train", labels=True)
    for eye in eyes:
        eye.fov[:] = 255

    def pixels(camera: float) -> np.ndarray:
        # of the photograph in each crop, where the frame does not cut it off
        crops = Crops(eyes, 16, 5, 300, camera=camera)
        matrices = []
        with pytest.MonkeyPatch.context() as patch:
            warp = cv2.warpAffine
            patch.setattr(cv2, "warpAffine", lambda *a, **k: (matrices.append(a[1]), warp(*a, **k))[1])
            for i in range(300):
                crops[i]
        return 1 / np.sqrt([abs(np.linalg.det(matrix[:, :2])) for matrix in matrices])

    own, other = pixels(0.0), pixels(1.0)
    assert 0.8 <= own.min() < 0.83 and 1.2 < own.max() <= 1.25
    assert 0.7 <= other.min() < 0.75 and 1.7 < other.max() <= 1.8


def test_another_camera_changes_light_sharpness_and_noise_but_no_place():
    photograph, mask, fov = draw_eye(np.random.default_rng(0), 150, 140)
    photograph = photograph[40:104, 40:104]
    before, noisy, uneven, likeness = photograph.copy(), 0, 0, []

    def detail(image: np.ndarray) -> np.ndarray:
        green = image[..., 1].astype(np.float32)
        return cv2.GaussianBlur(green, (0, 0), 1.5) - cv2.GaussianBlur(green, (0, 0), 6)

    for seed in range(40):
        image = change_camera(np.random.default_rng(seed), photograph)
        assert image.shape == photograph.shape and image.dtype == np.uint8
        # what light and noise leave of the vessels lies where it lay
        here, moved = detail(photograph), np.roll(detail(photograph), 8, axis=1)
        likeness.append([np.corrcoef(d.ravel(), detail(image).ravel())[0, 1] for d in (here, moved)])
        assert likeness[-1][0] > likeness[-1][1]
        grey = change_camera(np.random.default_rng(seed), np.full((64, 64, 3), 128, np.uint8))
        rough = np.abs(np.diff(grey[..., 1].astype(int), axis=1)).mean()
        noisy += rough > 0.5
        light = cv2.GaussianBlur(grey[..., 1], (0, 0), 8)
        uneven += light.max() - light.min() > 8.0
    assert np.mean(likeness, axis=0)[0] > 0.7
    assert 15 <= noisy <= 36
    assert uneven >= 15
    assert (photograph == before).all()


def test_even_contrast_comes_in_its_share_and_with_its_own_statistics(new_data):
    eyes = read_eyes(new_data / "train", labels=True)
    crops = Crops(eyes, 64, 3, 200, clahe=0.4)
    assert len(crops.images) == len(eyes)
    for eye, images, measured in zip(eyes, crops.images, crops.statistics, strict=True):
        assert images[0] is eye.image
        assert (images[1] == equalize(eye.image, eye.fov)).all()
        for image, (mean, _) in zip(images, measured, strict=True):
            assert mean == pytest.approx(image[eye.fov > 0].mean(axis=0), abs=0.01)
    used = []
    with pytest.MonkeyPatch.context() as patch:
        warp = cv2.warpAffine
        patch.setattr(cv2, "warpAffine", lambda *a, **k: (used.append(id(a[0])), warp(*a, **k))[1])
        for i in range(200):
            crops[i]
    evened = {id(images[1]) for images in crops.images}
    assert 60 <= sum(one in evened for one in used) <= 100


def test_without_even_contrast_no_copies_are_kept(new_data):
    eyes = read_eyes(new_data / "train", labels=True)
    assert all(len(images) == 1 for images in Crops(eyes, 64, 3, 200).images)
