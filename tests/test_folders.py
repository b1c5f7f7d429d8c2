"""`predict.py --recursive` walks folders, and its results lie in folders of the same names."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import read_csv, run_script
from test_resume_prediction import contents

import predict
from batch import photographs
from batch.folders import find_photographs, name_results
from datasets.images import read_image, write_png
from datasets.synthetic import draw_eye
from utils import UserError

NAMES = ["eye", "a/eye", "a/b c/#eye 100%", "masks_2/eye"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders in folders, with photographs and other files in them."""
    tree = tmp_path_factory.mktemp("tree") / "photographs"
    photograph = draw_eye(np.random.default_rng(4), 120, 110)[0]
    for k, name in enumerate(("eye", "a/eye", "a/b c/#eye 100%", "masks/eye")):
        write_png(tree / f"{name}.png", np.roll(photograph, k, axis=2))
    for name in ("notes.txt", "a/b c/eye.pdf", ".hidden/eye.png", "a/.DS_Store"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).touch()
    (tree / "empty.png").mkdir()
    return tree


def run_predict(tree: Path, files: Path, out: Path, *more: object) -> int | None:
    weights = ("--weights", files / "checkpoint.pth", "--device", "cpu", "--views=1")
    return run_script(predict.main, tree, "--recursive", "--out", out, *weights, *more)


def test_results_lie_in_folders_of_the_same_names_and_resume_knows_them(
    tree, files, tmp_path, monkeypatch, capsys
):
    table = f"{tree.name}/eye.png,5\na/eye.png,7\n#eye 100%,9\nmasks/eye.png,5\n"
    (um := tmp_path / "um.csv").write_text(table)
    out = tmp_path / "out"
    assert run_predict(tree, files, out, "--um-per-pixel", um) == 0
    said = capsys.readouterr()
    for part in ("masks", "probability", "uncertainty", "outlines", "page/thumbnail"):
        suffix = "jpg" if part in ("outlines", "page/thumbnail") else "png"
        assert [name for name in NAMES if not (out / part / f"{name}.{suffix}").is_file()] == []
    assert sorted(row["image"] for row in read_csv(out / "measures.csv")) == sorted(NAMES)
    made = json.loads((out / "predict.json").read_text())["photographs"]
    assert {row["image"]: row["um_per_pixel"] for row in made} == dict(zip(NAMES, (5, 7, 9, 5), strict=True))
    page = (out / "index.html").read_text()
    assert '"url": "a/b%20c/%23eye%20100%25"' in page
    assert f"{tree / 'masks' / 'eye.png'}: called masks_2/eye in the results" in said.out
    others = [line.split(":")[0].strip() for line in said.err.splitlines()[-2:]]
    assert others == [str(tree / "notes.txt"), str(tree / "a" / "b c" / "eye.pdf")]

    before, segmented, original = contents(out), [], photographs.predict_photograph

    def watched(path: Path, name: str, predictor: photographs.Predictor) -> dict:
        segmented.append(name)
        return original(path, name, predictor)

    monkeypatch.setattr(photographs, "predict_photograph", watched)
    (out / "masks" / "a" / "eye.png").unlink()
    leftover = out / "outlines" / "a" / "b c" / ".unfinished-1"
    leftover.touch()
    run_predict(tree, files, out, "--um-per-pixel", um, "--resume")
    assert segmented == ["a/eye"]
    assert not leftover.exists()
    assert contents(out) == before


def test_what_cannot_be_searched_is_named_and_results_inside_are_not_photographs(tmp_path):
    for name in ("eye.png", "results/predict/eye.png", "b/eye.png", "empty/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    if linked := os.name != "nt":
        (tmp_path / "around").symlink_to(tmp_path)
    found = find_photographs([tmp_path, tmp_path / "empty"], tmp_path / "results" / "predict", recursive=True)
    assert found.photographs == {tmp_path / "eye.png": "eye", tmp_path / "b" / "eye.png": "b/eye"}
    assert found.problems == [f"{tmp_path / 'empty'}: no images in this folder or below"]
    links = [f"{tmp_path / 'around'}: a link to a folder; name it itself"]
    assert [other for other in found.others if "notes" not in other] == links * linked


def test_a_folder_whose_files_may_not_be_opened_stops_no_other(tmp_path, monkeypatch):
    for name in ("a/eye.png", "locked/eye.png", "locked/notes.txt", "z/eye.png"):
        write_png(tmp_path / name, np.zeros((9, 9), np.uint8))
    stat = os.stat

    def refuse(path: str | Path, *more: object, **settings: object) -> os.stat_result:
        if f"locked{os.sep}" in os.fspath(path):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return stat(path, *more, **settings)

    monkeypatch.setattr(os, "stat", refuse)
    found = find_photographs([tmp_path], recursive=True)
    assert list(found.photographs.values()) == ["a/eye", "locked/eye", "z/eye"] and not found.problems
    with pytest.raises(
        UserError, match=r"locked.eye.png: cannot be read as an image .*Permission denied\); give"
    ):
        read_image(tmp_path / "locked" / "eye.png")


@pytest.mark.parametrize("inside", ["masks/a", "page/photograph/a/b", "outlines", "uncertainty"])
def test_results_are_never_segmented_into_themselves(tmp_path, inside):
    with pytest.raises(UserError, match="photographs to segment lie there"):
        name_results({tmp_path / inside / "eye.png": "eye"}, tmp_path)
