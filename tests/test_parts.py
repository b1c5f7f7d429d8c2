"""predict.py --write: only what is asked for is written, what it replaces goes, and pictures are reduced."""

from __future__ import annotations

import csv
import zlib
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import read_csv, run_script
from PIL import Image

import predict
from datasets import images
from datasets.images import read_image, reduced, write_png
from datasets.synthetic import draw_eye
from pages.results import PARTS


@pytest.fixture
def eye(tmp_path: Path) -> Path:
    photograph, _, _ = draw_eye(np.random.default_rng(0), 150, 140)
    write_png(tmp_path / "in" / "eye.png", photograph)
    return tmp_path / "in" / "eye.png"


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 300), (301, 200), (1, 1, 3), (40, 41, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("packed_by", [images.zlib, zlib])
def test_png_files_keep_every_level_for_every_reader(shape, dtype, packed_by, monkeypatch):
    monkeypatch.setattr(images, "zlib", packed_by)
    levels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    for image in (levels, np.asfortranarray(levels)):
        png = images.encode_png(image)
        opened = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
        opened = opened[..., ::-1] if image.ndim == 3 else opened
        assert opened.dtype == dtype and np.array_equal(opened, levels)
        if image.ndim == 2 or dtype == np.uint8:  # Pillow reads no colours of 16 bits
            assert np.array_equal(Image.open(BytesIO(png)), levels)


def written(out: Path) -> set[str]:
    """The files of one photograph, without its record."""
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    return {name for name in found if "eye" in name and not name.startswith("records/")}


def test_only_the_parts_that_are_asked_for_are_written_and_others_of_an_earlier_run_go(eye, files, tmp_path):
    out, how = tmp_path / "out", ("--weights", files / "checkpoint.pth", "--device=cpu", "--views=1")
    assert run_script(predict.main, eye, "--out", out, *how) == 0
    every = {"masks/eye.png", "probability/eye.png", "uncertainty/eye.png", "outlines/eye.jpg"}
    every |= {"page/photograph/eye.jpg", "page/thumbnail/eye.jpg"}
    assert written(out) == every and (out / "index.html").is_file()
    mask = (out / "masks" / "eye.png").read_bytes()
    assert run_script(predict.main, eye, "--out", out, *how, "--write", "masks", "measures") == 0
    assert written(out) == {"masks/eye.png"} and (out / "masks" / "eye.png").read_bytes() == mask
    assert not (out / "index.html").exists()
    (measured,) = read_csv(out / "measures.csv")
    assert float(measured["vessel_share"]) > 0
    assert run_script(predict.main, eye, "--out", out, *how, "--write", "masks", "outlines") == 0
    assert written(out) == {name for name in every if not name.startswith(("prob", "unc"))}
    page = (out / "index.html").read_text(encoding="utf-8")
    assert '"masks"' in page and '"outlines"' in page and '["Uncertainty"' not in page
    with (out / "measures.csv").open(newline="", encoding="utf-8-sig") as file:
        assert "vessel_share" not in next(csv.reader(file))
    assert set(PARTS) == {"masks", "probability", "uncertainty", "outlines", "arteries_veins", "measures"}


def test_pictures_to_look_at_are_reduced_in_whole_blocks_and_masks_are_not(eye, files, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "SHOWN_SIDE", 50)  # a third of the eye
    how = ("--weights", files / "checkpoint.pth", "--device=cpu", "--views=1")
    assert run_script(predict.main, eye, "--out", tmp_path / "out", *how) == 0
    shape = (50, 46, 3)
    for folder in ("outlines", "page/photograph"):
        assert read_image(tmp_path / "out" / folder / "eye.jpg").shape == shape
    for folder in ("masks", "probability", "uncertainty"):
        kept = cv2.imread(str(tmp_path / "out" / folder / "eye.png"), cv2.IMREAD_UNCHANGED)
        assert kept.shape == (150, 140)
    photograph = read_image(eye)
    blocks = photograph[:150, :138].reshape(50, 3, 46, 3, 3).mean(axis=(1, 3))
    assert np.abs(reduced(photograph) - blocks).max() <= 1
    halves = np.repeat(np.array([[0, 255]], np.uint8), 75, axis=1).repeat(150, axis=0)
    assert set(np.unique(reduced(halves))) == {0, 255}
