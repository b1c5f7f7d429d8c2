"""Labels that are not of their photograph are refused; right ones never are."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import run_script
from PIL import Image

import augment
from data import read_eyes
from datasets.checks import LEAST_CONTRAST, check_label, vessel_contrast
from datasets.images import read_mask, write_png
from datasets.synthetic import draw_eye, write_drive
from utils import UserError

PATH = Path("label.png")
EYES = [draw_eye(np.random.default_rng(seed), 168, 160) for seed in range(4)]
SHIFT = 8  # pixels, 5 % of the diameter

WRONG: dict[str, Callable[[int], np.ndarray]] = {
    "another eye's": lambda k: EYES[(k + 1) % 4][1],
    "mirrored": lambda k: EYES[k][1][:, ::-1],
    "upside down": lambda k: EYES[k][1][::-1],
    "shifted": lambda k: np.roll(EYES[k][1], SHIFT, axis=1),
    "shifted downwards": lambda k: np.roll(EYES[k][1], SHIFT, axis=0),
}


@pytest.mark.parametrize("k", range(len(EYES)))
@pytest.mark.parametrize("wrong", WRONG)
def test_a_label_that_is_not_of_its_photograph_is_refused(wrong, k):
    photograph, _, fov = EYES[k]
    why = r"what it marks is neither .*; is it the mask of another photo"
    if wrong in ("mirrored", "upside down"):
        why = f"does not fit its photograph as it lies, but {wrong} it does"
    with pytest.raises(UserError, match=rf"^label\.png: {why}"):
        check_label(PATH, np.ascontiguousarray(WRONG[wrong](k)), fov, photograph)


def test_a_mask_on_the_second_page_is_not_taken_for_blank_without_a_word(tmp_path):
    vessels = EYES[0][1]
    blank, right = Image.new("L", vessels.shape[::-1]), Image.fromarray(vessels)
    blank.save(tmp_path / "label.tif", save_all=True, append_images=[right])
    with pytest.raises(UserError, match=r"label\.tif: 2 pages of 160x168 pixels; save the right one"):
        read_mask(tmp_path / "label.tif")


def noisy(photograph: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 12, photograph.shape)
    return np.clip(photograph + noise, 0, 255).astype(np.uint8)


SPOILT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda photograph: photograph,
    "noisy": noisy,
    "blurred": lambda photograph: cv2.GaussianBlur(photograph, (0, 0), 2),
    "dark": lambda photograph: photograph // 5,
    "grey": lambda photograph: np.repeat(photograph[..., 1:2], 3, axis=2),
    "negative, as an angiogram": lambda photograph: 255 - photograph,
}
COARSE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as drawn": lambda vessels: vessels,
    "too thick": lambda vessels: cv2.dilate(vessels, np.ones((3, 3), np.uint8)),
    "large vessels only": lambda vessels: cv2.morphologyEx(vessels, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)),
    "one half": lambda vessels: np.concatenate([vessels[:84], 0 * vessels[84:]]),
}


@pytest.mark.parametrize("spoilt", SPOILT)
@pytest.mark.parametrize("coarse", COARSE)
def test_a_right_label_passes(spoilt, coarse):
    for photograph, vessels, fov in EYES:
        label, image = COARSE[coarse](vessels), SPOILT[spoilt](photograph)
        check_label(PATH, label, fov, image)
        assert abs(vessel_contrast(label, fov, image)) > 1.5 * LEAST_CONTRAST


@pytest.mark.parametrize("side", [16, 40, 90, 128, 140])
def test_small_eyes_pass(side):
    for seed in range(4):
        photograph, vessels, fov = draw_eye(np.random.default_rng(seed), side, side)
        check_label(PATH, vessels, fov, photograph)
        # thinner than a pixel, vessels may show nowhere in a blurred one
        check_label(PATH, vessels, fov, cv2.GaussianBlur(photograph, (0, 0), 1.5))


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic DRIVE of eyes large enough to be looked at."""
    folder = tmp_path_factory.mktemp("labels") / "DRIVE"
    write_drive(folder, train=2, test=2, height=168, width=160)
    return folder


@pytest.mark.parametrize("label", ["training/1st_manual/21", "test/1st_manual/01", "test/2nd_manual/01"])
def test_every_label_is_checked_by_augment(drive, label, tmp_path):
    own = shutil.copytree(drive, tmp_path / "DRIVE")
    (path,) = (own / label).parent.glob(f"{Path(label).name}_*")
    (other,) = (own / label).parent.glob(f"{'22' if 'training' in label else '02'}_*")
    shutil.copy(other, path)
    with pytest.raises(UserError, match=f"1 unusable\n.*{path.name}: .*is it the mask of another photograph"):
        run_script(augment.main, own, "--out", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_labels_of_data_made_by_hand_are_checked(tmp_path):
    for name, (photograph, vessels, _) in zip("abcd", EYES, strict=True):
        for part in ("train", "test"):
            write_png(tmp_path / part / "image" / f"{name}.png", photograph)
            write_png(tmp_path / part / "mask" / f"{name}.png", vessels)
    assert len(read_eyes(tmp_path / "train", labels=True)) == 4
    for part in ("train", "test"):
        write_png(tmp_path / part / "mask" / "b.png", EYES[2][1])
    with pytest.raises(
        UserError, match=r"train: 1 unusable.*\n.*mask.b\.png: .*the mask of another photograph"
    ):
        read_eyes(tmp_path / "train", labels=True)
    refused: list[str] = []
    assert [eye.name for eye in read_eyes(tmp_path / "test", labels=True, refused=refused)] == ["a", "c", "d"]
    assert len(refused) == 1
    write_png(tmp_path / "test" / "mask" / "b.png", EYES[1][1])
    write_png(tmp_path / "test" / "second_observer" / "b.png", read_mask(tmp_path / "test" / "mask" / "c.png"))
    with pytest.raises(UserError, match=r"second_observer.b\.png: .*the mask of another photograph"):
        read_eyes(tmp_path / "test", labels=True)


@pytest.mark.parametrize(("orientation", "said"), [(3, "turn it by 180 degrees"), (6, "turn it by 90 degrees")])
def test_a_label_drawn_without_the_turn_in_the_photographs_exif_is_refused_with_that_reason(
    orientation, said, tmp_path
):
    photograph, vessels, _ = EYES[0]
    for part in ("image", "mask"):
        (tmp_path / part).mkdir()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(photograph).save(tmp_path / "image" / "a.png", exif=exif)
    write_png(tmp_path / "mask" / "a.png", vessels)
    with pytest.raises(UserError, match=rf"mask.a\.png: .*EXIF says: {said}\. Was it drawn without that"):
        read_eyes(tmp_path, labels=True)
    write_png(tmp_path / "mask" / "a.png", np.rot90(vessels, 2 if orientation == 3 else -1))
    assert len(read_eyes(tmp_path, labels=True)) == 1


def test_masks_have_the_names_of_their_photographs_whatever_suffix_and_composition(tmp_path):
    photograph, vessels, _ = EYES[0]
    names = {"\u00e4.jpg": "a\u0308.png", "o\u0308.png": "\u00f6.tif"}
    for part in ("image", "mask"):
        (tmp_path / part).mkdir()
    for name, mask in names.items():
        Image.fromarray(photograph).save(tmp_path / "image" / name)
        Image.fromarray(vessels).save(tmp_path / "mask" / mask)
    assert all((eye.mask == vessels).all() for eye in read_eyes(tmp_path, labels=True))
    Image.fromarray(vessels).save(tmp_path / "mask" / "\u00e4.gif")
    with pytest.raises(UserError, match="both of .*remove one"):
        read_eyes(tmp_path, labels=True)


def test_eyes_too_small_to_be_looked_at_are_never_refused():
    photograph, vessels, fov = draw_eye(np.random.default_rng(0), 64, 64)
    wrong = np.ascontiguousarray(vessels[:, ::-1]) & fov
    check_label(PATH, wrong, fov, photograph)
    assert vessel_contrast(wrong, fov, photograph) == np.inf
