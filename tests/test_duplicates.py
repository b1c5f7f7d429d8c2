"""One photograph under two names is recognised, whatever was done to it; no two eyes are taken for one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import TINY, run_script
from corpus import encode

import augment
import test
import train
from data import read_eyes
from datasets.decoding import decode
from datasets.duplicates import find_equal, fingerprint
from datasets.field_of_view import estimate_fov
from datasets.images import read_image, write_png
from datasets.synthetic import draw_eye
from utils import UserError

EYES = [draw_eye(np.random.default_rng(seed), 292, 282)[::2] for seed in range(12)]
SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


def reencoded(photograph: np.ndarray, folder: Path, quality: int) -> np.ndarray:
    (folder / "eye.jpg").write_bytes(encode(photograph, "JPEG", quality=quality))
    return decode(folder / "eye.jpg")


CHANGES: dict[str, Callable[[np.ndarray, Path], np.ndarray]] = {
    "as it is": lambda image, _: image,
    "as JPEG": lambda image, folder: reencoded(image, folder, 40),
    "smaller": lambda image, _: cv2.resize(image, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA),
    "turned": lambda image, _: np.rot90(image).copy(),
    "upside down": lambda image, _: np.rot90(image, 2).copy(),
    "mirrored": lambda image, _: image[:, ::-1].copy(),
    "mirrored and turned": lambda image, _: np.rot90(image[:, ::-1]).copy(),
    "darker": lambda image, _: (image * 0.7).astype(np.uint8),
    "with a border": lambda image, _: cv2.copyMakeBorder(image, 30, 10, 50, 20, cv2.BORDER_CONSTANT),
}


@pytest.mark.parametrize("change", CHANGES)
def test_one_photograph_is_recognised_after_a_change_and_no_other_is(change, tmp_path):
    prints = {f"eye{k}": fingerprint(*eye) for k, eye in enumerate(EYES)}
    assert find_equal(prints) == []
    changed = CHANGES[change](EYES[3][0], tmp_path)
    assert find_equal({**prints, "copy": fingerprint(changed, estimate_fov(changed))}) == [("eye3", "copy")]


def test_blank_photographs_are_equal_to_nothing():
    blank = np.zeros((60, 60, 3), np.uint8)
    prints = {name: fingerprint(blank, np.full((60, 60), 255, np.uint8)) for name in "ab"}
    assert find_equal(prints) == []


def test_no_two_eyes_of_real_cameras_are_called_equal():
    images = sorted(SHARED.glob("DRIVE/*/images/*.tif")) + sorted(SHARED.glob("cameras/STARE/*/im????.ppm.gz"))
    if not images:
        pytest.skip("DRIVE and STARE are not there: they are licensed and cannot be part of the repository")
    photographs = {path.name: read_image(path) for path in images}
    prints = {name: fingerprint(image, estimate_fov(image)) for name, image in photographs.items()}
    assert find_equal(prints) == []


def double(drive: Path, source: tuple[str, int], target: tuple[str, int]) -> None:
    """Give an eye of a DRIVE a second name, by part and number, with all its files."""
    for folder in ("images", "1st_manual", "mask"):
        (path,) = (drive / source[0] / folder).glob(f"{source[1]:02d}_*")
        shutil.copy(path, drive / target[0] / folder / f"{target[1]:02d}_copy{path.suffix}")


@pytest.mark.parametrize("target", [("training", 41), ("test", 9)])
def test_augment_names_a_photograph_that_is_there_twice(target, drive, tmp_path):
    own = shutil.copytree(drive, tmp_path / "DRIVE")
    shutil.rmtree(own / "test" / "2nd_manual")
    double(own, ("training", 22), target)
    with pytest.raises(UserError, match="the same photograph as") as error:
        run_script(augment.main, "--drive", own, "--out", tmp_path / "out")
    assert "22_training.tif" in str(error.value) and f"{target[1]:02d}_copy.tif" in str(error.value)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("how", [[], ["--folds=2"], ["--all-eyes"]], ids=["split", "folds", "all"])
def test_train_refuses_one_photograph_under_two_names(how, new_data, tmp_path):
    own = shutil.copytree(new_data, tmp_path / "new_data")
    for part in ("image", "mask", "fov"):
        mirrored = decode(own / "train" / part / "22_training_0.png")[:, ::-1].copy()
        write_png(own / "train" / part / "other.png", mirrored)
    with pytest.raises(UserError, match="22_training_0 and other are the same photograph"):
        run_script(train.main, "--data", own, "--files", tmp_path / "files", *TINY, *how)
    assert not (tmp_path / "files").exists()


def test_test_says_which_eyes_lie_in_the_training_part(new_data, files, tmp_path, capsys):
    own = shutil.copytree(new_data, tmp_path / "new_data")
    shutil.rmtree(own / "test" / "second_observer")
    for part in ("image", "mask", "fov"):
        shutil.copy(own / "train" / part / "22_training_0.png", own / "test" / part / "02_test_0.png")
    arguments = ["--data", own, "--weights", files / "checkpoint.pth", "--results", tmp_path / "results"]
    assert run_script(test.main, *arguments, "--device=cpu", "--views=1") == 0
    said = capsys.readouterr().out
    assert "02_test_0 is the photograph 22_training of" in said and "01_test_0 is the photograph" not in said
    assert "02_test_0 is the photograph" in (tmp_path / "results" / "index.html").read_text(encoding="utf-8")
    assert len(read_eyes(own / "test", True)) == 3
