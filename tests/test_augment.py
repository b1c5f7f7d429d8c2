"""augment.py reads DRIVE as published, writes what it promises, and writes all or nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import cv2
import forked
import imageio.v3 as iio
import numpy as np
import pytest
from conftest import HEIGHT, ROOT, WIDTH, run_script

import augment
from data import read_eyes
from datasets import eyes
from datasets.images import read_image, read_mask
from utils import UserError


def content(folder: Path) -> dict[str, str]:
    """Every file below a folder with the hash of its bytes; the record holds times."""
    files = (f for f in sorted(folder.rglob("*")) if f.is_file() and f.name != "written.json")
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture
def own_drive(drive: Path, tmp_path: Path) -> Path:
    """A copy of DRIVE for a test to spoil."""
    return shutil.copytree(drive, tmp_path / "DRIVE")


def test_four_copies_of_each_training_eye_and_each_test_eye_as_it_is(new_data):
    training = [f"{n}_training_{k}.png" for n in range(21, 28) for k in range(4)]
    test = [f"{n:02d}_test_0.png" for n in range(1, 4)]
    for part, names, folders in (
        ("train", training, {"image", "mask", "fov"}),
        ("test", test, {"image", "mask", "fov", "second_observer"}),
    ):
        assert {f.name for f in (new_data / part).iterdir()} == folders
        for folder in folders:
            assert sorted(f.name for f in (new_data / part / folder).iterdir()) == names


def test_the_first_copy_is_the_photograph_and_the_next_two_its_flips(drive, new_data):
    original = cv2.imread(str(drive / "training" / "images" / "23_training.tif"))[..., ::-1]
    for k, expected in enumerate((original, original[:, ::-1], original[::-1])):
        copy = read_image(new_data / "train" / "image" / f"23_training_{k}.png")
        assert copy.shape == (HEIGHT, WIDTH, 3)
        assert (copy == expected).all()


@pytest.mark.parametrize("folder", ["mask", "fov"])
def test_masks_move_with_the_photograph_and_stay_0_or_255(new_data, folder):
    for image in (new_data / "train" / "image").iterdir():
        mask = iio.imread(new_data / "train" / folder / image.name)
        assert set(np.unique(mask)) == {0, 255}
        if folder == "fov":  # the lit disc of the rotated photograph is where the rotated field of view says
            lit = cv2.medianBlur(read_image(image)[..., 0], 5) > 50
            assert (lit == (mask > 0)).mean() > 0.97


def test_rotation_is_by_at_most_45_degrees_and_differs_between_eyes(new_data):
    angles = []
    for n in range(21, 28):
        first, rotated = (
            read_mask(new_data / "train" / "mask" / f"{n}_training_{k}.png").astype(np.float32) for k in (0, 3)
        )

        def overlap(angle: float, first: np.ndarray = first, rotated: np.ndarray = rotated) -> float:
            matrix = cv2.getRotationMatrix2D((WIDTH / 2 - 0.5, HEIGHT / 2 - 0.5), angle, 1)
            return float((cv2.warpAffine(first, matrix, (WIDTH, HEIGHT)) * rotated).sum())

        angles.append(max(range(-180, 180, 3), key=overlap))
    assert max(map(abs, angles)) <= 48
    assert len(set(angles)) >= 5
    assert min(angles) < 0 < max(angles)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(drive, new_data, tmp_path):
    run_script(augment.main, "--drive", drive, "--out", tmp_path / "again")
    run_script(augment.main, "--drive", drive, "--out", tmp_path / "other", "--seed", 43)
    again, other, first = (content(f) for f in (tmp_path / "again", tmp_path / "other", new_data))
    assert again == first
    changed = {name for name in first if first[name] != other[name]}
    rotated = {name for name in first if name.endswith("_3.png")}
    assert changed == rotated | {"dataset.json"}


def test_missing_test_labels_are_normal(own_drive, tmp_path, capsys):
    shutil.rmtree(own_drive / "test" / "1st_manual")
    shutil.rmtree(own_drive / "test" / "2nd_manual")
    run_script(augment.main, "--drive", own_drive, "--out", tmp_path / "out")
    assert {f.name for f in (tmp_path / "out" / "test").iterdir()} == {"image", "fov"}
    assert "withholds the test labels" in capsys.readouterr().out


def test_nested_archives_are_found(own_drive, tmp_path):
    (tmp_path / "outer").mkdir()
    own_drive.rename(tmp_path / "outer" / "DRIVE")
    run_script(augment.main, "--drive", tmp_path / "outer", "--out", tmp_path / "out")
    assert len(list((tmp_path / "out" / "train" / "image").iterdir())) == 28


def test_size_writes_squares_with_binary_masks(drive, tmp_path):
    run_script(augment.main, "--drive", drive, "--out", tmp_path / "out", "--size", 64)
    for part in ("image", "mask", "fov"):
        for path in (tmp_path / "out" / "train" / part).iterdir():
            assert iio.imread(path).shape[:2] == (64, 64)
    assert set(np.unique(iio.imread(tmp_path / "out" / "train" / "mask" / "21_training_3.png"))) == {0, 255}
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["size"] == 64


def spoil(drive: Path) -> list[str]:
    """Spoil six files in six ways; returns their names."""
    training = drive / "training"
    truncated = training / "images" / "22_training.tif"
    truncated.write_bytes(truncated.read_bytes()[:2000])
    (training / "1st_manual" / "23_manual1.gif").unlink()
    (training / "1st_manual" / "24_manual1.gif").write_text("not a picture")
    grey = np.tile(np.arange(WIDTH, dtype=np.uint8) * 2, (HEIGHT, 1))
    iio.imwrite(training / "1st_manual" / "25_manual1.gif", grey, plugin="pillow")
    small = np.full((HEIGHT // 2, WIDTH), 255, np.uint8)
    iio.imwrite(training / "mask" / "26_training_mask.gif", small, plugin="pillow", optimize=False)
    shutil.copy(training / "mask" / "27_training_mask.gif", training / "mask" / "99_training_mask.gif")
    return [
        "22_training.tif",
        "23_",
        "24_manual1.gif",
        "25_manual1.gif",
        "26_training_mask.gif",
        "99_training_mask",
    ]


def test_all_or_nothing_and_every_bad_file_is_named_at_once(own_drive, tmp_path):
    out = tmp_path / "out"
    run_script(augment.main, "--drive", own_drive, "--out", out)
    before = content(out)
    names = spoil(own_drive)
    unpaired = {"23_", "99_training_mask"}
    with pytest.raises(UserError) as error:
        run_script(augment.main, "--drive", own_drive, "--out", out)
    for name in unpaired:
        assert name in str(error.value)
    assert content(out) == before
    # what is found without reading a pixel is said first; then what is in the files
    for path in own_drive.rglob("*"):
        if path.name.startswith(("23_", "99_")):
            path.unlink()
    with pytest.raises(UserError) as error:
        run_script(augment.main, "--drive", own_drive, "--out", out)
    for name in set(names) - unpaired:
        assert name in str(error.value)
    assert content(out) == before


def test_of_a_full_disk_no_eye_is_to_blame(drive, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    name = re.escape(str(tmp_path))
    said = rf"^{name}.train.image.\w+\.png: cannot be written \(No space left\); free some space"
    with pytest.raises(UserError, match=said) as raised:
        run_script(augment.main, "--drive", drive, "--out", tmp_path)
    assert "unusable" not in str(raised.value) and list(tmp_path.iterdir()) == []


def test_links_that_may_not_be_followed_are_named_at_once(own_drive, new_data, tmp_path, monkeypatch):
    stat = os.stat

    def refuse(path: str | Path, *more: object, **settings: object) -> os.stat_result:
        if Path(os.fspath(path)).name in ("21_training.tif", "22_manual1.gif", "22_training_0.png"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return stat(path, *more, **settings)

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(UserError, match=r"(?s)2 unusable.*21_training\.tif: .*22_manual1\.gif: "):
        run_script(augment.main, "--drive", own_drive, "--out", tmp_path / "out")
    assert not (tmp_path / "out" / "train").exists()
    read_eyes(new_data / "train", True, refused := [])
    assert len(refused) == 1 and "22_training_0.png: " in refused[0] and "Permission denied" in refused[0]


def test_files_that_do_not_pair_are_named_before_any_pixel_is_read(own_drive, tmp_path, monkeypatch):
    (own_drive / "training" / "1st_manual" / "23_manual1.gif").unlink()
    monkeypatch.setattr(eyes, "read_image", lambda path: pytest.fail("a photograph was read"))
    with pytest.raises(UserError, match="23_training.tif: no file"):
        run_script(augment.main, "--drive", own_drive, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_second_run_replaces_all_of_the_first(own_drive, tmp_path):
    out = tmp_path / "out"
    run_script(augment.main, "--drive", own_drive, "--out", out)
    (out / "README.md").write_text("mine")
    for path in own_drive.rglob("2[1-3]_*"):
        path.unlink()
    run_script(augment.main, "--drive", own_drive, "--out", out, "--size", 32)
    assert len(list((out / "train" / "image").iterdir())) == 16
    assert all(iio.imread(f).shape[:2] == (32, 32) for f in (out / "test" / "image").iterdir())
    assert (out / "README.md").read_text() == "mine"
    assert sorted(f.name for f in out.iterdir()) == [
        "README.md",
        "dataset.json",
        "test",
        "train",
        "written.json",
    ]


def test_without_drive_the_message_says_where_to_get_it(tmp_path):
    done = forked.finish("augment.py", "--drive", tmp_path / "DRVE", "--out", tmp_path / "out", folder=tmp_path)
    assert done.returncode == 2
    for part in ("training", "https://drive.grand-challenge.org", "demo.py"):
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_real_drive(tmp_path):
    real = ROOT.parent / "shared" / "DRIVE"
    if not real.is_dir():
        pytest.skip("DRIVE is not there: it is licensed and cannot be part of the repository")
    run_script(augment.main, "--drive", real, "--out", tmp_path / "out")
    out = tmp_path / "out"
    assert len(list((out / "train" / "image").iterdir())) == 80
    assert sorted(f.name for f in (out / "test" / "image").iterdir()) == [
        f"{n:02d}_test_0.png" for n in range(1, 21)
    ]
    assert not (out / "test" / "mask").exists()
    assert read_image(out / "train" / "image" / "21_training_3.png").shape == (584, 565, 3)
    raw = cv2.imread(str(real / "test" / "images" / "01_test.tif"))[..., ::-1]
    assert (read_image(out / "test" / "image" / "01_test_0.png") == raw).all()
