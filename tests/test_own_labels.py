"""Labels as people make them: whatever they are called and drawn with, each finds its photograph."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import CPU, run_script
from PIL import Image

import augment
from data import read_info
from datasets.images import read_mask
from datasets.published import find_data_set
from datasets.synthetic import draw_eye
from training.settings import Run
from utils import UserError

EYES = {
    name: draw_eye(np.random.default_rng(k), 100, 96) for k, name in enumerate(["p1_left", "p1_right", "p2"])
}

# the files of an eye {}, photograph first
ARRANGED: dict[str, tuple[str, str]] = {
    "another suffix": ("{}.jpg", "{}.png"),
    "_mask": ("{}.jpg", "{}_mask.png"),
    "_manual": ("{}.png", "{}_manual.tif"),
    "-vessels": ("{}.PNG", "{}-vessels.bmp"),
    "manual1": ("{}.png", "{}_manual1.gif"),
    "before the name": ("{}.png", "vessels_{}.png"),
    "folders": ("images/{}.jpg", "masks/{}.png"),
    "folders, suffix too": ("photographs/{}.tif", "labels/{}_label.png"),
    "as DRIVE": ("training/images/{}.tif", "training/1st_manual/{}.gif"),
    "a folder a person": ("{}/OD.png", "{}/OD_mask.png"),
    "persons and folders": ("images/{}/OD.png", "masks/{}/OD.png"),
}


def save(folder: Path, image: str, mask: str) -> Path:
    """Photographs and masks of these names, {} for the eye."""
    for eye, (photograph, vessels, _) in EYES.items():
        for name, pixels in ((image, photograph), (mask, vessels)):
            path = folder / name.format(eye)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, **({"quality": 97} if path.suffix == ".jpg" else {}))
    return folder


@pytest.mark.parametrize("arranged", ARRANGED)
def test_masks_find_their_photographs(arranged, tmp_path):
    image, mask = ARRANGED[arranged]
    found = find_data_set(save(tmp_path / "mine", image, mask))
    assert found.problems == []
    assert found.name == ("training" if arranged == "as DRIVE" else "mine")
    for name in EYES:
        (eye,) = [eye for eye in found.eyes if eye.image == tmp_path / "mine" / image.format(name)]
        assert eye.files == {"mask": tmp_path / "mine" / mask.format(name)}
        assert name in eye.name and eye.part == "train"


def test_own_data_are_called_by_their_own_name_and_test_eyes_are_those_of_a_folder_test(tmp_path, capsys):
    folder = save(tmp_path / "hospital", "train/{}.jpg", "train/{}_mask.png")
    (folder / "test").mkdir()
    for name in ("p2.jpg", "p2_mask.png"):
        (folder / "train" / name).rename(folder / "test" / name)
    run_script(augment.main, folder, "--out", tmp_path / "out")
    said = capsys.readouterr().out
    assert "hospital in" in said and "2 to train, 1 to test" in said and "DRIVE" not in said
    info = read_info(tmp_path / "out")
    assert info["sets"] == {"p1_left": "hospital", "p1_right": "hospital", "p2": "hospital"}
    assert (read_mask(tmp_path / "out" / "test" / "mask" / "p2_0.png") == EYES["p2"][1]).all()


def test_own_data_need_no_test_eyes(tmp_path, capsys):
    """Also in the folder of earlier data that had some."""
    folder, out = save(tmp_path / "mine", "{}.png", "{}_mask.png"), tmp_path / "out"
    (folder / "test").mkdir()
    for name in ("p2.png", "p2_mask.png"):
        (folder / name).rename(folder / "test" / name)
    run_script(augment.main, folder, "--out", out, "--size", 64)
    assert (out / "test" / "image" / "p2_0.png").exists()
    for path in (folder / "test").iterdir():
        path.rename(folder / path.name)
    run_script(augment.main, folder, "--out", out, "--size", 64)
    assert "3 to train, 0 to test" in capsys.readouterr().out and not (out / "test").exists()
    run = Run(out, tmp_path, CPU, 0, False, {})
    assert run.next_step() == "python predict.py PHOTOGRAPHS --weights"


def test_photographs_without_a_mask_are_left_out_and_named(tmp_path):
    folder = save(tmp_path / "mine", "{}.jpg", "{}_manual.png")
    (folder / "p2_manual.png").rename(folder / "p2_mask.png")  # others are called better, so it is none
    found = find_data_set(folder)
    assert [eye.name for eye in found.eyes] == ["p1_left", "p1_right"] and not found.problems
    assert "without a mask: p2 (p2_mask.png is read as its field of view))" in found.describe()
    (folder / "p2_mask.png").unlink()
    assert "left out, without a mask: p2)" in find_data_set(folder).describe()


@pytest.mark.parametrize(
    ("name", "said"),
    [("p9_mask.png", "p9_mask.png: no eye has this name"), ("p2_vessels.png", "p2: has 2 files, ")],
)
def test_a_mask_that_is_nobodys_or_a_second_one_is_refused(name, said, tmp_path):
    folder = save(tmp_path / "mine", "{}.jpg", "{}_vessel.png")
    Image.fromarray(EYES["p2"][1]).save(folder / name)
    (problem,) = find_data_set(folder).problems
    assert said in problem


def outlines(mask: np.ndarray) -> list[list[list[float]]]:
    """The vessels as polygons, each around its pixels, without holes."""
    large = np.kron(mask, np.ones((4, 4), np.uint8))
    found, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [((c[:, 0] + 0.5) / 4).tolist() for c in found if len(c) > 8]


BLOBS = cv2.circle(np.zeros((100, 96), np.uint8), (40, 50), 12, 255, -1)
BLOBS[20:24, 30:80] = 255


def labelme(name: str, labels: tuple[str, ...] = ("vessel",)) -> dict[str, Any]:
    polygons = outlines(BLOBS)
    shapes = [
        {"label": labels[k % len(labels)], "shape_type": "polygon", "points": p} for k, p in enumerate(polygons)
    ]
    return {"version": "5.4", "shapes": shapes, "imagePath": f"{name}.jpg"}


def via(whole: bool, listed: bool) -> dict[str, Any]:
    regions: Any = [
        {
            "shape_attributes": {
                "name": "polygon",
                "all_points_x": [x for x, _ in p],
                "all_points_y": [y for _, y in p],
            },
            "region_attributes": {"kind": "vein"},
        }
        for p in outlines(BLOBS)
    ]
    regions = regions if listed else {str(k): region for k, region in enumerate(regions)}
    images = {f"{n}.jpg123": {"filename": f"{n}.jpg", "size": 123, "regions": regions} for n in EYES}
    return {"_via_settings": {}, "_via_img_metadata": images} if whole else images


JSON: dict[str, Callable[[str], tuple[str, Any]]] = {
    "LabelMe": lambda name: (f"{name}.json", labelme(name)),
    "LabelMe, artery and vein": lambda name: (f"{name}.json", labelme(name, ("artery", "vein"))),
    "VIA project": lambda name: ("via_project.json", via(True, True)),
    "VIA export": lambda name: ("via_region_data.json", via(False, True)),
    "VIA 1": lambda name: ("via.json", via(False, False)),
}


@pytest.mark.parametrize("kind", JSON)
def test_polygons_become_the_mask_that_they_outline(kind, tmp_path):
    from datasets.eyes import draw_polygons

    folder = tmp_path / "mine"
    folder.mkdir()
    for name, (photograph, _, _) in EYES.items():
        Image.fromarray(photograph).save(folder / f"{name}.jpg")
        file, content = JSON[kind](name)
        (folder / file).write_text(json.dumps(content))
    (folder / "notes.json").write_text("[1, 2]")
    found = find_data_set(folder)
    assert not found.problems and len(found.eyes) == 3
    for eye in found.eyes:
        mask = draw_polygons(eye.files["mask"], eye.image.name, (100, 96, 3))
        assert set(np.unique(mask)) == {0, 255}
        assert (mask > 0)[BLOBS > 0].all() and ((mask > 0) & (BLOBS == 0)).sum() < 0.2 * (BLOBS > 0).sum()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (labelme("p2", ("disc", "macula")), "no label says vessel, artery or vein: disc, macula"),
        (
            {"shapes": [{"label": "v", "shape_type": "linestrip", "points": [[1, 2], [3, 4]]}]},
            "(linestrip); draw",
        ),
        ({"shapes": [{"label": "v", "points": [[1, 2], [3, 4]]}]}, "without an area"),
    ],
)
def test_shapes_that_are_no_vessels_are_refused(content, said, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    Image.fromarray(EYES["p2"][0]).save(folder / "p2.png")
    (folder / "p2.json").write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        run_script(augment.main, folder, "--out", tmp_path / "out")
    assert said in str(error.value) and "p2.json" in str(error.value)


@pytest.mark.parametrize("content", [json.dumps(labelme("p2"))[:60], '{"shapes": [{}]}', '{"shapes": []}'])
def test_a_damaged_file_of_shapes_is_named_and_its_photograph_not_left_out(content, tmp_path):
    folder = save(tmp_path / "mine", "{}.png", "{}_mask.tif")
    (folder / "p2_mask.tif").unlink()
    (folder / "p2.json").write_text(content)
    with pytest.raises(UserError, match=r"p2\.json: no shapes of p2\.png as LabelMe or VIA write them"):
        run_script(augment.main, folder, "--out", tmp_path / "out")


def test_a_damaged_mask_beside_its_photograph_is_named(tmp_path):
    folder = save(tmp_path / "mine", "{}.jpg", "{}.png")
    os.truncate(folder / "p2.png", 60)
    with pytest.raises(UserError, match=r"p2\.png: cannot be read as an image"):
        find_data_set(folder)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_in_a_circle_give_no_photograph_twice(tmp_path):
    folder = save(tmp_path / "mine", "images/{}.png", "masks/{}.tif")
    (folder / "images" / "self").symlink_to(folder / "images")
    (folder / "masks" / "up").symlink_to("..")
    found = find_data_set(folder)
    assert sorted(eye.name for eye in found.eyes) == sorted(EYES) and not found.problems


def test_two_files_of_shapes_of_one_photograph_are_refused(tmp_path):
    folder = save(tmp_path / "mine", "{}.png", "{}_mask.tif")
    (folder / "p2_mask.tif").unlink()
    (folder / "p2.json").write_text(json.dumps(labelme("p2")))
    (folder / "via.json").write_text(json.dumps({"p2": via(False, True)["p2.jpg123"]}))
    (problem,) = find_data_set(folder).problems
    assert "p2.json" in problem and "via.json" in problem


@pytest.mark.parametrize("top", [1, 2, 3, 7, 200, 255, 256, 1000, 65535])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_two_levels_are_a_mask_whatever_the_upper_one(top, dtype, tmp_path):
    if top > np.iinfo(dtype).max:
        pytest.skip("needs 16 bits")
    vessels = EYES["p2"][1]
    for suffix in ("png", "tif"):
        Image.fromarray(((vessels > 0) * top).astype(dtype)).save(tmp_path / f"mask.{suffix}")
        assert (read_mask(tmp_path / f"mask.{suffix}") == vessels).all()
