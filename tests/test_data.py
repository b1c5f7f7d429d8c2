"""The split leaks no eye; files that cannot be used are named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from data import check_split, eye_of, read_eyes, split_by_eye
from datasets import images
from datasets.field_of_view import estimate_fov
from datasets.synthetic import draw_eye
from utils import UserError

NAMES = [f"{n}_training_{k}" for n in range(21, 41) for k in range(4)]


@pytest.mark.parametrize("seed", range(5))
def test_three_of_twenty_eyes_validate_with_all_their_copies(seed: int) -> None:
    split = split_by_eye(NAMES, seed=seed)
    assert len(split["validation"]) == 12
    assert sorted(split["train"] + split["validation"]) == sorted(NAMES)
    eyes = {eye_of(n) for n in split["validation"]}
    assert len(eyes) == 3
    assert not eyes & {eye_of(n) for n in split["train"]}
    assert split == split_by_eye(NAMES, seed=seed)
    assert split != split_by_eye(NAMES, seed=seed + 100)


def test_an_eye_on_both_sides_is_an_error() -> None:
    with pytest.raises(UserError, match="22_training"):
        check_split({"train": ["21_training_0", "22_training_3"], "validation": ["22_training_0"]})


def test_one_eye_cannot_be_split() -> None:
    with pytest.raises(UserError, match="at least 2"):
        split_by_eye(NAMES[:4])


def test_a_mask_that_is_missing_or_of_another_size_is_named(new_data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(new_data / "train", tmp_path / "train")
    (folder / "mask" / "21_training_0.png").unlink()
    images.write_png(folder / "fov" / "22_training_0.png", np.full((10, 10), 255, np.uint8))
    with pytest.raises(UserError) as error:
        read_eyes(folder, labels=True)
    assert "21_training_0.png" in str(error.value)
    assert "22_training_0.png" in str(error.value)


def test_a_field_of_view_is_estimated_where_there_is_none(new_data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(new_data / "test", tmp_path / "test")
    shutil.rmtree(folder / "fov")
    for estimated, drawn in zip(read_eyes(folder, True), read_eyes(new_data / "test", True), strict=True):
        a, b = estimated.fov > 0, drawn.fov > 0
        assert (a & b).sum() / (a | b).sum() > 0.95


def test_estimated_fields_of_view_agree_with_drawn_ones_at_full_size() -> None:
    photograph, _, fov = draw_eye(np.random.default_rng(1))
    a, b = estimate_fov(photograph) > 0, fov > 0
    assert (a & b).sum() / (a | b).sum() > 0.98


def test_normalized_photographs_have_mean_0_and_deviation_1_inside(new_data: Path) -> None:
    for eye in read_eyes(new_data / "test", labels=True):
        image = images.normalize(eye.image, eye.fov, *images.statistics(eye.image, eye.fov))
        inside = image[:, eye.fov > 0]
        assert inside.mean(axis=1) == pytest.approx([0, 0, 0], abs=1e-3)
        assert inside.std(axis=1) == pytest.approx([1, 1, 1], abs=1e-3)
        assert (image[:, eye.fov == 0] == 0).all()
