"""Data sets as mirrors and re-uploads arrange them: each works, or a line says what to rename."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import run_script
from corpus import encode

import augment
from data import read_eyes
from datasets.layouts import DataSet
from datasets.published import find_data_set
from datasets.synthetic import draw_eye
from system.records import write_record
from utils import UserError

CHILDREN = [f"{child:02d}{side}" for child in (1, 2, 11, 12) for side in "LR"]
GROUPS = {"h": "healthy", "g": "glaucoma", "dr": "diabetic_retinopathy"}
# a small copy of each data set as it unpacks: photograph and vessel mask of each eye
AS_PUBLISHED = {
    "DRIVE": [
        name
        for part, numbers in (("training", (21, 22)), ("test", (1, 2)))
        for n in numbers
        for name in (f"{part}/images/{n:02d}_{part}.tif", f"{part}/1st_manual/{n:02d}_manual1.gif")
    ],
    "CHASE_DB1": [name for c in CHILDREN for name in (f"Image_{c}.jpg", f"Image_{c}_1stHO.png")],
    "STARE": [name for n in (1, 2, 77, 139) for name in (f"im{n:04d}.ppm", f"im{n:04d}.ah.ppm")],
    "HRF": [
        name
        for n in (1, 6)
        for group in GROUPS
        for name in (f"images/{n:02d}_{group}.jpg", f"manual1/{n:02d}_{group}.tif")
    ],
}

Change = tuple[str, str | Callable[[re.Match[str]], str]]  # a pattern and what replaces it, as of re.sub


def put(folder: Path, *names: str) -> Path:
    """Empty files: finding and pairing goes by names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def arranged(folder: Path, published: str, *changes: Change) -> Path:
    """A data set of which these regular expressions were replaced in the names, one after another."""
    names = AS_PUBLISHED[published]
    for old, new in changes:
        names = [re.sub(old, new, name) for name in names]
    return put(folder, *names)


def eyes(found: DataSet) -> dict[str, str]:
    """The part of each eye by its name."""
    return {eye.name: eye.part for eye in found.eyes}


MIRRORS: dict[str, tuple[str, list[Change]]] = {
    "DRIVE, as published": ("DRIVE", []),
    "DRIVE, train": ("DRIVE", [("^training", "train")]),
    "DRIVE, testing": ("DRIVE", [("^test", "testing")]),
    "DRIVE, capitals": ("DRIVE", [("^training", "Training"), ("^test", "Test")]),
    "DRIVE, Images": ("DRIVE", [("images", "Images"), ("1st_manual", "1st_Manual")]),
    "DRIVE, image and label": ("DRIVE", [("images", "image"), ("1st_manual", "label")]),
    "DRIVE, two deep": ("DRIVE", [("^", "archive/DRIVE/")]),
    "DRIVE, masks named as photographs": ("DRIVE", [("manual1.gif", "training.png")]),
    "DRIVE, pgm and jfif": ("DRIVE", [("gif", "pgm"), ("tif", "jfif")]),
    "CHASE_DB1, as published": ("CHASE_DB1", []),
    "CHASE_DB1, small letters": ("CHASE_DB1", [("(.*)", lambda match: match[0].lower())]),
    "CHASE_DB1, no zeros": ("CHASE_DB1", [("_0", "_")]),
    "CHASE_DB1, folders": ("CHASE_DB1", [("^(.*HO)", r"Masks/\1"), ("^I", "Images/I")]),
    "CHASE_DB1, same names": ("CHASE_DB1", [("^(.*)_1stHO", r"labels/\1"), ("^I", "images/I")]),
    "CHASE_DB1, dealt into train and test": (
        "CHASE_DB1",
        [("^(.*L.*)", r"train/\1"), ("^(.*R.*)", r"test/\1"), ("/(.*HO)", r"/label/\1"), ("/I", "/image/I")],
    ),
    "CHASE_DB1, dealt like DRIVE": (
        "CHASE_DB1",
        [
            ("^(.*2.*)", r"test/\1"),
            ("^I", r"training/I"),
            ("/(.*)_1stHO", r"/1st_manual/\1"),
            ("/I", "/images/I"),
        ],
    ),
    "CHASE_DB1, annotations by part": (
        "CHASE_DB1",
        [("^(.*HO)", r"annotations/training/\1"), ("^I", "images/training/I")],
    ),
    "STARE, as published": ("STARE", []),
    "STARE, no zeros": ("STARE", [("im0+", "im")]),
    "STARE, same names": ("STARE", [(r"^(.*)\.ah.ppm", r"labels/\1.png"), ("^im", "images/im")]),
    "STARE, manual": ("STARE", [(r"^(.*)\.ah.ppm", r"manual/\1.gif"), ("^im", "images/im")]),
    "STARE, three deep": ("STARE", [("^", "a/b/c/")]),
    "HRF, as published": ("HRF", []),
    "HRF, capitals": ("HRF", [("images", "Images"), ("manual", "Manual"), ("_dr", "_DR")]),
    "HRF, one folder": ("HRF", [("^images/", "")]),
    "HRF, by group": (
        "HRF",
        [
            (r"^images/(.*)_(\w+)\.", lambda match: f"{GROUPS[match[2]]}/{match[1]}_{match[2]}."),
            (r"^manual1/(.*)_(\w+)\.", lambda match: f"{GROUPS[match[2]]}_manualsegm/{match[1]}_{match[2]}."),
        ],
    ),
}


@pytest.mark.parametrize("mirror", MIRRORS)
def test_a_mirror_gives_the_same_eyes_and_the_same_split(mirror, tmp_path):
    published, changes = MIRRORS[mirror]
    folder = arranged(tmp_path / "mirror", published, *changes)
    # what a Mac adds to archives, and what a script left
    put(folder, "__MACOSX/training/images/._21_training.tif", "__MACOSX/._Image_01L.jpg", ".hidden/im0001.ppm")
    found = find_data_set(folder)
    assert found.problems == []
    assert found.name == published
    assert eyes(found) == eyes(find_data_set(arranged(tmp_path / "published", published)))
    assert all(set(eye.files) == {"mask"} for eye in found.eyes)
    files = {path for eye in found.eyes for path in (eye.image, eye.files["mask"])}
    assert len(files) == len(AS_PUBLISHED[published])


@pytest.mark.parametrize("published", ["CHASE_DB1", "STARE", "HRF"])
@pytest.mark.parametrize(
    "name", ["masks/{}.gif", "Mask/{}.png", "fov/{}.png", "mask/{}_mask.tif", "{}_mask.png"]
)
def test_fields_of_view_beside_a_data_set_are_found(published, name, tmp_path):
    folder = arranged(tmp_path, published)
    known = eyes(find_data_set(folder))
    put(folder, *(name.format(eye) for eye in known))
    found = find_data_set(folder)
    assert found.problems == []
    assert eyes(found) == known
    for eye in found.eyes:
        assert eye.files["fov"] == folder / name.format(eye.name)
        assert eye.files["mask"] != eye.files["fov"]


def test_eyes_whose_number_is_last_are_paired(tmp_path):
    found = find_data_set(arranged(tmp_path, "DRIVE", (r"(\d+)_(training|test)\.", r"\2_\1.")))
    assert found.problems == []
    assert eyes(found) == {"training_21": "train", "training_22": "train", "test_01": "test", "test_02": "test"}
    assert all("mask" in eye.files for eye in found.eyes)


def test_fields_of_view_with_the_photographs_names_are_used(tmp_path):
    folder = tmp_path / "STARE"
    drawn = {n: draw_eye(np.random.default_rng(n), 64, 68) for n in (1, 2, 3)}
    for n, (photograph, vessels, fov) in drawn.items():
        fov[30:] = 0  # unlike any that is estimated
        for part, pixels in (("images", photograph), ("labels", vessels & fov), ("masks", fov)):
            path = folder / part / f"im{n:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(pixels, "PNG"))
    run_script(augment.main, folder, "--out", tmp_path / "out")
    (eye,) = read_eyes(tmp_path / "out" / "test", labels=True)
    assert (eye.fov == drawn[1][2]).all()
    assert (eye.truth == drawn[1][1] & drawn[1][2]).all()


SEEN_AS_FOV = [("1st_manual/(.*)_manual1", r"mask/\1")]
REFUSED: dict[str, tuple[str, list[tuple[str, str]], list[str], str]] = {
    "copies": ("DRIVE", [], ["training/images/21_training (1).tif"], r"second file for eye 21, .*; remove one"),
    "two numbers": ("DRIVE", [], ["training/images/eye 2 of 3.tif"], r"eye 2 of 3\.tif: no file 02 in "),
    "mask for labels": ("DRIVE", SEEN_AS_FOV, [], "training: no vessel masks; .*/mask, rename that to labels"),
    "new_data": (
        "DRIVE",
        [*SEEN_AS_FOV, ("^training/images", "train/image"), ("^training", "train")],
        [],
        "train: no vessel masks; .*/train/mask, rename that to labels",
    ),
    "no test": ("DRIVE", [("^test", "elsewhere")], [], r"test/images: no images; unpack DRIVE's test\.zip to "),
    "two formats": ("CHASE_DB1", [], ["Image_01L.png"], r"Image_01L\.png: a second .* Image_01L\.jpg; remove"),
    "gunzip -k": ("STARE", [], ["im0002.ppm.gz"], r"im0002\.ppm\.gz: a second .* beside im0002\.ppm; remove"),
    "masks for labels": ("STARE", [(r"^(.*)\.ah", r"masks/\1")], [], r"im0001\.ah, .*/masks, rename that to"),
    "no labels": ("STARE", [(r"^.*\.ah.*", "x.ppm")], [], r"name them as im0001\.ah, or put them into"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_told_is_refused_in_one_line_that_says_what_to_do(case, tmp_path):
    published, changes, more, said = REFUSED[case]
    problems = find_data_set(put(arranged(tmp_path, published, *changes), *more)).problems
    assert len(problems) == 1
    assert re.search(said, problems[0])


def test_a_folder_beside_the_data_set_is_told_what_to_do_with_it(tmp_path):
    put(tmp_path / "zipped", "training.zip", "test.zip")
    put(tmp_path / "whole", *AS_PUBLISHED["DRIVE"])
    put(tmp_path / "ready", "train/image/a_0.png")
    write_record(tmp_path / "ready", "augment.py", ["train/image/a_0.png"])
    for folder, said in (
        ("zipped", "; unpack test.zip, training.zip there"),
        ("whole/training", f"give the folder above it: {tmp_path / 'whole'}"),
        ("ready", f"python train.py --data {tmp_path / 'ready'}"),
    ):
        with pytest.raises(UserError) as error:
            find_data_set(tmp_path / folder)
        assert said in str(error.value)


@pytest.mark.parametrize("there", ["empty", "file", "dead link"])
def test_the_path_that_was_given_is_never_suggested(there, tmp_path):
    given = tmp_path / "DRIVE"
    {"empty": given.mkdir, "file": given.touch, "dead link": lambda: given.symlink_to("nowhere")}[there]()
    with pytest.raises(UserError) as error:
        find_data_set(given)
    assert "did you mean" not in str(error.value)
    (tmp_path / "DRIV").mkdir()
    with pytest.raises(UserError, match=r"did you mean .*DRIVE?\?"):
        find_data_set(tmp_path / "DRVE")
