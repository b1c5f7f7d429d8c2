"""drive_challenge.zip holds the masks of DRIVE's 20 test photographs, and is there only with all of them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from conftest import run_script

import test as tester
from datasets.eyes import Eye
from datasets.images import write_png
from pages.results import CHALLENGE
from scoring.challenge import PHOTOGRAPHS, SHAPE, write_challenge


def eyes(names: tuple[str, ...], shape: tuple[int, int] = SHAPE) -> list[Eye]:
    """Test eyes of these names."""
    return [Eye(f"{name}_0", np.zeros((*shape, 3), np.uint8), np.full(shape, 255, np.uint8)) for name in names]


def write_masks(results: Path) -> None:
    """A mask of its own for each photograph."""
    for number, name in enumerate(PHOTOGRAPHS):
        mask = np.zeros(SHAPE, np.uint8)
        mask[number] = 255
        write_png(results / "masks" / f"{name}.png", mask)


def test_the_file_holds_the_masks_by_the_names_of_the_photographs(tmp_path):
    write_masks(tmp_path)
    path = write_challenge(tmp_path / CHALLENGE, eyes(PHOTOGRAPHS))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"{number:02d}_test.png" for number in range(1, 21)]
        for number, name in enumerate(archive.namelist()):
            mask = iio.imread(archive.read(name))
            assert mask.shape == (584, 565)
            assert set(np.unique(mask)) == {0, 255}
            assert mask[number].all()
            assert mask.sum() == 255 * 565


@pytest.mark.parametrize(
    "others", [eyes(PHOTOGRAPHS[:19]), eyes(PHOTOGRAPHS, (512, 512)), eyes(("21_training",))]
)
def test_other_eyes_have_no_such_file_and_an_earlier_one_goes(tmp_path, others):
    write_masks(tmp_path)
    earlier = write_challenge(tmp_path / CHALLENGE, eyes(PHOTOGRAPHS))
    assert earlier.exists()
    assert write_challenge(tmp_path / CHALLENGE, others) is None
    assert not earlier.exists()


def test_test_py_writes_none_for_three_eyes(new_data, files, tmp_path, capsys):
    weights = ("--weights", files / "checkpoint.pth", "--views=1", "--device", "cpu")
    assert run_script(tester.main, "--data", new_data, "--results", tmp_path, *weights) == 0
    assert "drive_challenge" not in capsys.readouterr().out
    assert not (tmp_path / "drive_challenge.zip").exists()
