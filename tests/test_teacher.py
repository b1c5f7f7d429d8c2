"""A student learns from photographs without labels what trained networks find in them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import CPU, TINY, run_script, write_photographs

import augment
import train
from data import eye_of, read_eyes, split_taught
from datasets.eyes import Eye, rescale
from datasets.images import write_png
from datasets.synthetic import draw_eye
from networks.checkpoints import load_checkpoint
from training.crops import Crops
from training.held_out import group_by_data_set, group_by_fold
from training.thresholds import eyes_for_threshold
from utils import UserError

SHORT = ["--epochs=1", "--crops=8"]


@pytest.fixture(scope="module")
def taught(drive: Path, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """new_data of a synthetic DRIVE and of four photographs that a trained network teaches."""
    folder = tmp_path_factory.mktemp("taught")
    photographs = folder / "photographs"
    for k in range(3):
        write_png(photographs / f"other{k}.png", draw_eye(np.random.default_rng(100 + k), 96, 92)[0])
    for name in ("other0.png", "copy.png"):  # twice without labels harms nobody
        write_png(photographs / name, draw_eye(np.random.default_rng(100), 96, 92)[0])
    teacher = ["--unlabelled", photographs, "--teacher", files / "checkpoint.pth"]
    assert run_script(augment.main, "--drive", drive, "--out", folder / "new_data", *teacher) in (0, None)
    return folder / "new_data"


def test_what_a_teacher_finds_trains_and_never_validates(taught, tmp_path):
    eyes = {eye.name: eye for eye in read_eyes(taught / "train", labels=True)}
    labelled, others = split_taught(eyes)
    assert len(others) == 4 and len(labelled) == 7 * 4
    for name in others:
        assert eyes[name].source == "unlabelled" and len(np.unique(eyes[name].truth)) > 2
    assert run_script(train.main, "--data", taught, "--files", tmp_path, *TINY, *SHORT) == 0
    _, checkpoint = load_checkpoint(tmp_path / "checkpoint.pth", CPU)
    assert set(others) <= set(checkpoint["split"]["train"])
    assert not set(others) & set(checkpoint["split"]["validation"])


def test_taught_eyes_are_no_group_to_leave_out_and_choose_no_threshold(taught, tmp_path):
    eyes = {eye.name: eye for eye in read_eyes(taught / "train", labels=True)}
    for eye in eyes.values():
        if not eye.taught:
            eye.source = "DRIVE" if eye.name < "24" else "another"
    groups = group_by_data_set(taught, eyes, [])
    assert [group.title for group in groups] == ["without DRIVE", "without another"]
    assert not {source for source, *_ in eyes_for_threshold(taught, list(eyes.values()))} & {"unlabelled"}
    labelled, others = split_taught(eyes)
    assert not {name for group in group_by_fold(labelled, 3) for name in group.held_out} & set(others)


def test_an_eye_that_trained_a_teacher_cannot_be_held_out(taught, tmp_path, capsys):
    trained_on = json.loads((taught / "dataset.json").read_text())["teachers_trained_on"]
    assert {eye_of(eye.name) for eye in read_eyes(taught / "train", labels=True)} > set(trained_on) != set()
    with pytest.raises(UserError, match=r"of its eyes trained the teachers of .*augment\.py --teacher"):
        run_script(train.main, "--data", taught, "--files", tmp_path / "files", *TINY, *SHORT, "--folds", 2)
    assert not (tmp_path / "files" / "fold0").exists()


def test_a_probability_is_the_target_of_crops_and_keeps_its_levels_when_resized():
    photograph, vessels, fov = draw_eye(np.random.default_rng(0), 96, 96)
    levels = cv2.GaussianBlur(vessels, (0, 0), 2)
    eye = Eye("a_0", photograph, fov, levels, taught=True)
    _, target, _ = Crops([eye], 64, 0, 1)[0]
    assert target.dtype == np.float32 and set(np.unique(target * 255).round(3)) <= set(map(float, range(256)))
    assert ((target > 0.1) & (target < 0.9)).any() and target.max() <= 1
    assert abs(rescale(eye, 0.5).truth.mean() - levels.mean()) < 2
    _, hard, _ = Crops([Eye("a_0", photograph, fov, vessels)], 64, 0, 1)[0]
    assert set(np.unique(hard)) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("empty", "no photographs there"),
        ("twice", r"21_training\.png: its name is used twice"),
        ("damaged", r"(?s)2 unusable.*bad\.png.*worse\.png"),
    ],
)
def test_wrong_photographs_are_refused_and_nothing_is_written(wrong, message, drive, files, tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    if wrong != "empty":
        (good,) = write_photographs(tmp_path / "one", 1, 96, 92).iterdir()
        (folder / ("21_training.png" if wrong == "twice" else "a.png")).write_bytes(good.read_bytes())
    if wrong == "damaged":
        (folder / "bad.png").write_bytes(b"no picture")
        (folder / "worse.png").write_bytes(b"no picture")
    teacher = ["--unlabelled", folder, "--teacher", files / "checkpoint.pth"]
    with pytest.raises(UserError, match=message):
        run_script(augment.main, "--drive", drive, "--out", tmp_path / "new_data", *teacher)
    assert not [path for path in tmp_path.glob("new_data/**/*") if path.is_file()]
    assert wrong == "damaged" or not (tmp_path / "new_data").exists(), "refused before any pixel is read"


def test_unlabelled_photographs_need_a_teacher(drive, capsys):
    with pytest.raises(SystemExit) as ended:
        run_script(augment.main, "--drive", drive, "--unlabelled", drive)
    assert ended.value.code == 2 and "--unlabelled: with --teacher" in capsys.readouterr().err
