"""demo.py draws DRIVE-shaped synthetic eyes, learns from them, and touches nothing of the user's."""

from __future__ import annotations

import functools

import cv2
import imageio.v3 as iio
import numpy as np
from conftest import run_script

import augment
import demo
import test as tester
import train
from datasets.synthetic import draw_eye


def test_drawn_eyes_are_in_drives_layout_and_formats(drive):
    assert (drive / "training" / "images" / "21_training.tif").read_bytes()[:2] == b"II"
    assert cv2.imread(str(drive / "training" / "images" / "21_training.tif")).shape == (96, 92, 3)
    for folder, name in (
        ("training/1st_manual", "21_manual1.gif"),
        ("training/mask", "21_training_mask.gif"),
        ("test/1st_manual", "01_manual1.gif"),
        ("test/2nd_manual", "01_manual2.gif"),
        ("test/mask", "01_test_mask.gif"),
    ):
        path = drive / folder / name
        assert path.read_bytes()[:3] == b"GIF"
        assert set(np.unique(iio.imread(path))) == {0, 255}


def test_vessels_of_a_drawn_eye_are_plausible_and_inside_the_field_of_view():
    photograph, mask, fov = draw_eye(np.random.default_rng(3))
    assert photograph.shape == (584, 565, 3)
    assert (mask[fov == 0] == 0).all()
    assert 0.08 < (mask > 0).sum() / (fov > 0).sum() < 0.16
    green = photograph[..., 1].astype(float)
    ring = (cv2.dilate(mask, np.ones((9, 9))) > 0) & (mask == 0) & (cv2.erode(fov, np.ones((15, 15))) > 0)
    assert green[mask > 0].mean() < green[ring].mean() - 5  # vessels are darker than what is around them


def test_the_same_seed_draws_the_same_eyes(drive, tmp_path):
    demo.write_drive(tmp_path, train=2, test=1, height=96, width=92)
    for name in ("training/images/22_training.tif", "test/2nd_manual/01_manual2.gif"):
        assert (tmp_path / name).read_bytes() == (drive / name).read_bytes()


def test_the_demo_runs_from_drawing_to_scores_in_its_own_folder(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    small = functools.partial(demo.write_drive, train=3, test=1, height=96, width=92)
    monkeypatch.setattr(demo, "write_drive", small)
    quick = ["--width=4", "--depth=1", "--epochs=1", "--crops=8", "--crop=64", "--device=cpu"]
    monkeypatch.setattr(demo, "TRAINING", quick)
    assert run_script(demo.main) == 0
    assert [f.name for f in tmp_path.iterdir()] == ["demo"]
    for name in ("SYNTHETIC.txt", "files/checkpoint.pth", "files/curves.png", "results/metrics.csv"):
        assert (tmp_path / "demo" / name).is_file()
    out = capfd.readouterr().out
    assert "mean F1 on the SYNTHETIC test eyes: 0." in out
    assert "01_test.png" in out


def test_half_a_minute_of_training_finds_vessels_of_eyes_it_has_not_seen(tmp_path):
    demo.write_drive(tmp_path / "DRIVE", train=6, test=2, height=200, width=194, second_observer=False)
    run_script(augment.main, "--drive", tmp_path / "DRIVE", "--out", tmp_path / "data")
    settings = [
        "--width=8",
        "--depth=2",
        "--crop=96",
        "--batch-size=8",
        "--epochs=3",
        "--crops=560",
        "--device=cpu",
    ]
    run_script(train.main, "--data", tmp_path / "data", "--files", tmp_path / "files", *settings)
    run_script(
        tester.main,
        *("--data", tmp_path / "data", "--weights", tmp_path / "files" / "checkpoint.pth"),
        *("--results", tmp_path / "results", "--device", "cpu"),
    )
    mean = next(
        r for r in (tmp_path / "results" / "metrics.csv").read_text().splitlines() if r.startswith("mean")
    )
    assert float(mean.split(",")[2]) > 0.7
