"""The split leaks no eye; files that cannot be used are named."""

from __future__ import annotations

import shutil
from unicodedata import normalize

import cv2
import numpy as np
import pytest
from PIL import Image

from data import check_split, eye_of, person_of, read_eyes, split_by_eye
from datasets import images
from datasets.images import write_png
from datasets.synthetic import draw_eye
from utils import UserError

NAMES = [f"{n}_training_{k}" for n in range(21, 41) for k in range(4)]


@pytest.mark.parametrize("seed", range(5))
def test_three_of_twenty_eyes_validate_with_all_their_copies(seed):
    split = split_by_eye(NAMES, seed=seed)
    assert len(split["validation"]) == 12
    assert sorted(split["train"] + split["validation"]) == sorted(NAMES)
    eyes = {eye_of(n) for n in split["validation"]}
    assert len(eyes) == 3
    assert not eyes & {eye_of(n) for n in split["train"]}
    assert split == split_by_eye(NAMES, seed=seed)
    assert split != split_by_eye(NAMES, seed=seed + 100)


@pytest.mark.parametrize(("own", "other"), [("22_training_3", "22_training_0"), ("22L_0", "22R_2")])
def test_eyes_of_one_person_on_both_sides_are_an_error(own, other):
    with pytest.raises(UserError, match="22.* in both"):
        check_split({"train": ["21_training_0", own], "validation": [other]})
    with pytest.raises(UserError, match="at least 2"):
        split_by_eye([own, other])


def test_one_eye_cannot_be_split():
    with pytest.raises(UserError, match="at least 2"):
        split_by_eye(NAMES[:4])


def test_a_mask_that_is_missing_or_of_another_size_is_named(new_data, tmp_path):
    folder = shutil.copytree(new_data / "train", tmp_path / "train")
    (folder / "mask" / "21_training_0.png").unlink()
    images.write_png(folder / "fov" / "22_training_0.png", np.full((10, 10), 255, np.uint8))
    with pytest.raises(UserError) as error:
        read_eyes(folder, labels=True)
    assert "21_training_0.png" in str(error.value)
    assert "22_training_0.png" in str(error.value)


def test_a_field_of_view_is_estimated_where_there_is_none(new_data, tmp_path):
    folder = shutil.copytree(new_data / "test", tmp_path / "test")
    shutil.rmtree(folder / "fov")
    for estimated, drawn in zip(read_eyes(folder, True), read_eyes(new_data / "test", True), strict=True):
        a, b = estimated.fov > 0, drawn.fov > 0
        assert (a & b).sum() / (a | b).sum() > 0.95


def test_normalized_photographs_have_mean_0_and_deviation_1_inside(new_data):
    for eye in read_eyes(new_data / "test", labels=True):
        image = images.normalize(eye.image, eye.fov, *images.statistics(eye.image, eye.fov))
        inside = image[:, eye.fov > 0]
        assert inside.mean(axis=1) == pytest.approx([0, 0, 0], abs=1e-3)
        assert inside.std(axis=1) == pytest.approx([1, 1, 1], abs=1e-3)
        assert (image[:, eye.fov == 0] == 0).all()


def test_even_contrast_more_than_doubles_that_of_vessels_in_a_hazy_half():
    photograph, mask, fov = draw_eye(np.random.default_rng(1))
    hazy, half = photograph.astype(np.float32), photograph.shape[1] // 2
    hazy[:, :half] = 150 + 0.25 * (hazy[:, :half] - 150)
    hazy = hazy.astype(np.uint8)
    before = hazy.copy()
    even = images.equalize(hazy, fov)
    assert (hazy == before).all()

    def contrast(image: np.ndarray, columns: slice) -> float:
        green = image[:, columns, 1].astype(float)
        vessels, inside = mask[:, columns] > 0, cv2.erode(fov, np.ones((31, 31)))[:, columns] > 0
        around = cv2.dilate(mask, np.ones((9, 9)))[:, columns] > 0
        return green[inside & around & ~vessels].mean() - green[inside & vessels].mean()

    left, right = slice(0, half), slice(half, None)
    assert contrast(hazy, left) < 0.4 * contrast(hazy, right)
    assert contrast(even, left) > 2 * contrast(hazy, left)
    assert contrast(even, left) / contrast(hazy, left) > contrast(even, right) / contrast(hazy, right)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 200), (9, 8), (40, 41)])
def test_even_contrast_takes_any_size_and_leaves_what_is_around_the_field(height, width):
    image = np.random.default_rng(0).integers(0, 256, (height + 4, width + 6, 3), np.uint8)
    fov = np.zeros(image.shape[:2], np.uint8)
    fov[1 : 1 + height, 2 : 2 + width] = 255
    even = images.equalize(image, fov)
    assert even.shape == image.shape and even.dtype == np.uint8
    assert (even[fov == 0] == image[fov == 0]).all()
    # the same wherever the field of view lies in the frame
    moved = images.equalize(np.roll(image, (2, 3), (0, 1)), np.roll(fov, (2, 3), (0, 1)))
    assert (np.roll(moved, (-2, -3), (0, 1))[fov > 0] == even[fov > 0]).all()


@pytest.mark.parametrize(
    ("names", "eyes"),
    [
        ([f"patient_{k}" for k in range(1, 7)], 6),
        ([f"2024-01-0{k}_1030" for k in range(1, 7)], 6),
        ([f"{k}" for k in range(1, 7)], 6),
        ([f"patient_{k}_0" for k in range(1, 7)], 6),
        ([f"patient_{k}" for k in range(6)], 1),  # the copies of an eye as augment.py calls them
        (["a_0", "a_1", "b_0", "b_1", "patient_1", "patient_2"], 4),
    ],
    ids=lambda names: names[0] if isinstance(names, list) else "",
)
def test_eyes_of_data_made_by_hand_are_told_apart_by_their_names(names, eyes, tmp_path):
    photograph, mask, _ = draw_eye(np.random.default_rng(0), 24, 24)
    for name in names:
        images.write_png(tmp_path / "image" / f"{name}.png", photograph)
        images.write_png(tmp_path / "mask" / f"{name}.png", mask)
    found = read_eyes(tmp_path, labels=True)
    assert len({person_of(eye.name) for eye in found}) == len({eye_of(eye.name) for eye in found}) == eyes
    # results have the names of the files, but for the _0 of an only copy
    assert {eye.result_name for eye in found} == {name.removesuffix("_0") for name in names}
    if eyes > 1:
        assert all(split_by_eye([eye.name for eye in found]).values())
    else:
        with pytest.raises(UserError, match="NAME_0, NAME_1 and so on are copies of one eye"):
            split_by_eye([eye.name for eye in found])


@pytest.mark.parametrize(
    ("left", "right"),
    [("001L", "001R"), ("p1_left", "p1_right"), ("smith_OD", "smith_OS"), ("p1_L", "p1_R"), ("7-od", "7-os")],
)
def test_both_eyes_of_a_person_are_known_by_their_names(left, right):
    assert person_of(f"{left}_0") == person_of(f"{right}_3") not in (left, right)
    assert person_of(f"{left}_0") != person_of(f"x{right}_0")


def test_other_ends_of_names_make_no_two_people_one():
    names = [
        "01_h",
        "01_g",
        "01_dr",
        "im0001",
        "im0002",
        "21_training",
        "left",
        "right",
        "Carl",
        "Carr",
        "world",
    ]
    assert len({person_of(f"{name}_0") for name in names}) == len(names)


@pytest.mark.parametrize(("background", "vessel"), [(0, 1), (0, 255)])
def test_a_mask_of_whole_numbers_stored_as_floating_point_is_read(background, vessel, tmp_path):
    _, mask, _ = draw_eye(np.random.default_rng(0), 40, 40)
    levels = np.where(mask > 0, np.float32(vessel), np.float32(background))
    Image.fromarray(levels).save(tmp_path / "mask.tif")
    assert (images.read_mask(tmp_path / "mask.tif") == mask).all()
    Image.fromarray(levels / 2 + np.float32(0.1)).save(tmp_path / "half.tif")
    with pytest.raises(UserError, match="floating-point numbers; save it with 8 or 16 bits"):
        images.read_mask(tmp_path / "half.tif")


@pytest.mark.parametrize(("image", "mask"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_mask_is_found_whether_its_umlauts_are_composed_or_not(image, mask, tmp_path):
    photograph, vessels, _ = draw_eye(np.random.default_rng(0), 60, 60)
    write_png(tmp_path / "image" / f"{normalize(image, 'Müller')}.png", photograph)
    write_png(tmp_path / "mask" / f"{normalize(mask, 'Müller')}.png", vessels)
    (eye,) = read_eyes(tmp_path, labels=True)
    assert (eye.truth == vessels).all()
