"""Several data sets: drawn from evenly, left out in turn, scored untouched without its labels."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CPU, read_csv, run_script
from test_sources import DRAWN, HRF_EYES, STARE_EYES, write_hrf, write_stare

import augment
import test as tester
import train
from anatomy.landmarks import Landmarks
from anatomy.photograph import DISC_SHARE, look_at
from data import eye_of, read_eyes
from datasets.eyes import Eye
from datasets.field_of_view import fov_diameter
from datasets.images import read_image
from datasets.synthetic import draw_eye, write_drive
from model import UNet, fold_batch_norm
from networks.checkpoints import load_checkpoint, save_checkpoint
from prediction.scale import WORKING_DISC, plan_scale
from prediction.segmentation import segment
from scoring import metrics
from training import held_out, thresholds
from training.crops import Crops, change_colour, draw_rim, spoil_file
from utils import UserError

SETS = {
    "DRIVE": [f"{number}_training" for number in (21, 22, 23)],
    "STARE": list(STARE_EYES),
    "HRF": list(HRF_EYES),
}
SHORT = ["--width=2", "--depth=1", "--crop=32", "--batch-size=2", "--device=cpu", "--epochs=1", "--crops=8"]
DISC = 20  # pixels per disc, and so 128 of the field of view where no disc is seen
DIAMETER = DISC / DISC_SHARE


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small data sets as they unpack."""
    folder = tmp_path_factory.mktemp("three")
    write_drive(folder / "DRIVE", train=3, test=1, height=96, width=92)
    write_stare(folder / "STARE")
    write_hrf(folder / "HRF", DRAWN[3:])
    return folder


@pytest.fixture(scope="module", autouse=True)
def no_discs() -> Iterator[None]:
    """No disc is found in these small drawn eyes, so that the field of view decides their scale."""

    def find_nothing(photograph: np.ndarray, fov: np.ndarray) -> Landmarks:
        return Landmarks(**dict.fromkeys((field.name for field in fields(Landmarks)), float("nan")))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anatomy.photograph.find_landmarks", find_nothing)
        yield


@pytest.fixture(scope="module")
def new_data(three: Path, no_discs: None) -> Path:
    """What augment.py makes of them, to leave one out."""
    folders = [three / name for name in SETS]
    out = three / "new_data"
    run_script(augment.main, *folders, "--leave-one-out", "--disc", DISC, "--out", out)
    return out


def leave_out(data: Path, files: Path, *more: object) -> int | None:
    return run_script(train.main, "--data", data, "--files", files, *SHORT, *more)


@pytest.fixture(scope="module")
def left_out(new_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of one whole measurement."""
    files = tmp_path_factory.mktemp("left_out") / "files"
    assert leave_out(new_data, files, "--leave-one-out") == 0
    return files


def test_every_labelled_eye_trains_at_the_diameter_and_tests_at_its_own_size(three, new_data):
    every = {eye for eyes in SETS.values() for eye in eyes}
    training = read_eyes(new_data / "train", labels=True)
    testing = read_eyes(new_data / "test", labels=True)
    assert {eye_of(eye.name) for eye in training} == {eye_of(eye.name) for eye in testing} == every
    assert all(eye_of(eye.name) in SETS[eye.source] for eye in training)
    for eye in training:
        if eye.name.endswith("_0"):
            assert 0.9 * DIAMETER < fov_diameter(eye.fov) < 1.1 * DIAMETER
    native = read_image(three / "DRIVE" / "training" / "images" / "22_training.tif")
    (same,) = (eye for eye in testing if eye.name == "22_training_0")
    assert np.array_equal(same.image, native)
    assert json.loads((new_data / "dataset.json").read_text())["disc"] == DISC


def test_each_data_set_is_drawn_equally_often_whatever_its_number_of_eyes():
    photograph, vessels, fov = draw_eye(np.random.default_rng(0), 64, 64)
    eyes = [Eye(f"{i}_0", photograph, fov, vessels, source="many") for i in range(9)]
    eyes += [Eye("9_0", photograph, fov, vessels, source="one")]
    crops = Crops(eyes, 16, 0, 400)
    assert 160 < Counter(crops.name_of(i) for i in range(400))["9_0"] < 240


def test_crops_of_a_single_data_set_are_those_of_eyes_without_a_source():
    photograph, vessels, fov = draw_eye(np.random.default_rng(0), 64, 64)
    plain, named = (
        Crops([Eye(f"{i}_0", photograph, fov, vessels, source=source) for i in range(3)], 32, 0, 8, 0.3, 0.15)
        for source in ("", "DRIVE")
    )
    for i in range(8):
        assert all(np.array_equal(a, b) for a, b in zip(plain[i], named[i], strict=True))


def test_a_rim_is_drawn_along_the_border_and_nowhere_without_one():
    grey = np.full((64, 64, 3), 120, np.uint8)
    fov = np.zeros((64, 64), np.uint8)
    fov[:, 20:] = 255
    changed = np.zeros((64, 64), bool)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        changed |= (draw_rim(rng, grey, fov) != grey).any(axis=2)
        assert np.array_equal(draw_rim(rng, grey, np.full_like(fov, 255)), grey)
    assert changed[:, 20:36].all()
    assert not changed[:, :20].any()
    assert not changed[:, 60:].any()


def test_a_spoilt_crop_keeps_its_size_and_loses_detail():
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    found = [spoil_file(np.random.default_rng(seed), noise) for seed in range(30)]
    assert {image.shape for image in found} == {noise.shape}
    detail = [float(np.abs(np.diff(image.astype(float), axis=1)).mean()) for image in found]
    assert min(detail) < 0.5 * max(detail)


def test_each_channel_has_a_gamma_of_its_own():
    plain = np.full((16, 16, 3), 90, np.uint8)
    grey = [change_colour(np.random.default_rng(seed), plain) for seed in range(5)]
    assert all(np.ptp(image.mean(axis=(0, 1))) > 3 for image in grey)


def curve_of(found: dict[str, list[tuple[np.ndarray, Eye]]]) -> np.ndarray:
    """F1 at 0.05, 0.06 ... 0.95: the mean over data sets of the mean over eyes."""
    by_set = []
    for pairs in found.values():
        counts = [metrics.count_levels(levels, eye.truth, eye.fov) for levels, eye in pairs]
        by_set.append([np.mean([metrics.scores(c, t / 100)["f1"] for c in counts]) for t in range(5, 96)])
    return np.mean(by_set, axis=0)


def best(curve: np.ndarray) -> float:
    return (5 + int(curve.argmax())) / 100


def predict_anew(checkpoint: Path, eyes: list[Eye], views: int) -> list[tuple[np.ndarray, Eye]]:
    network = fold_batch_norm(load_checkpoint(checkpoint, CPU)[0])
    factors = [plan_scale(look_at(eye.image), network).factor for eye in eyes]
    probabilities = [segment(network, e.image, e.fov, views, f) for e, f in zip(eyes, factors, strict=True)]
    return [(metrics.quantize(found), eye) for found, eye in zip(probabilities, eyes, strict=True)]


def test_each_network_was_trained_on_the_others_alone_and_the_table_is_what_they_give(new_data, left_out):
    rows = {row["data_set"]: row for row in read_csv(left_out / "leave_one_out.csv")}
    assert set(rows) == set(SETS)
    native = read_eyes(new_data / "test", labels=True)
    unseen = {}
    for name in SETS:
        checkpoint = left_out / f"without_{name}" / "checkpoint.pth"
        model, _ = load_checkpoint(checkpoint, CPU)
        assert model.trained_on == {eye for other in SETS if other != name for eye in SETS[other]}
        assert model.disc == DISC
        unseen[name] = predict_anew(checkpoint, [eye for eye in native if eye.source == name], 8)
    expected = {
        name: np.mean([metrics.expected_f1_threshold(levels, eye.fov) for levels, eye in pairs])
        for name, pairs in unseen.items()
    }
    for name, row in rows.items():
        threshold = round(np.mean([expected[other] for other in SETS if other != name]), 2)
        assert float(row["threshold"]) == threshold
        others = {other: pairs for other, pairs in unseen.items() if other != name}
        assert float(row["others_best_threshold"]) == best(curve_of(others))
        counts = [metrics.count_levels(levels, eye.truth, eye.fov) for levels, eye in unseen[name]]
        for column in ("f1", "jaccard", "auc", "average_precision"):
            mean = np.mean([metrics.scores(c, threshold)[column] for c in counts])
            assert float(row[column]) == pytest.approx(mean, abs=1e-6)
        assert int(row["eyes"]) == len(SETS[name]) == len(read_csv(left_out / f"without_{name}" / "scores.csv"))
        own = curve_of({name: unseen[name]})
        assert float(row["best_threshold"]) == best(own)
        assert float(row["f1_at_best_threshold"]) == pytest.approx(own.max(), abs=1e-6)


def test_the_threshold_of_a_network_is_the_best_of_the_data_sets_that_trained_it_which_count_alike(
    new_data, left_out
):
    checkpoint = left_out / "without_STARE" / "checkpoint.pth"
    native = read_eyes(new_data / "test", labels=True)
    seen = {n: predict_anew(checkpoint, [e for e in native if e.source == n], 1) for n in ("DRIVE", "HRF")}
    expected = best(curve_of(seen))
    assert load_checkpoint(checkpoint, CPU)[1]["threshold"] == expected
    (row,) = (row for row in read_csv(left_out / "leave_one_out.csv") if row["data_set"] == "STARE")
    assert float(row["trained_threshold"]) == expected


def test_data_sets_left_out_one_by_one_are_put_together_without_training_or_predicting(
    new_data, left_out, tmp_path, monkeypatch
):
    assert leave_out(new_data, tmp_path, "--leave-one-out", "HRF") == 0
    assert not (tmp_path / "leave_one_out.csv").exists()
    assert leave_out(new_data, tmp_path, "--leave-one-out", "STARE", "DRIVE") == 0
    monkeypatch.setattr(held_out, "segment", lambda *_, **__: pytest.fail("predicted again"))
    monkeypatch.setattr("training.loop.train_one_epoch", lambda *_: pytest.fail("trained again"))
    # what is trained and predicted counts, also with other flags: one data set may need more epochs
    assert leave_out(new_data, tmp_path, "--leave-one-out", "--resume", "--epochs=3") == 0
    assert read_csv(tmp_path / "leave_one_out.csv") == read_csv(left_out / "leave_one_out.csv")


def test_it_starts_from_weights_unless_they_saw_the_data_set_left_out(new_data, tmp_path, capsys):
    start = UNet(width=2, depth=1)
    given = {"model": start.config, "weights": start.state_dict()}
    split = {"train": ["21_training_0"], "validation": []}
    save_checkpoint(tmp_path / "drive.pth", {**given, "threshold": 0.4, "split": split})
    still = ["--lr", "1e-9", "--start-from", tmp_path / "drive.pth"]
    assert leave_out(new_data, tmp_path, *still, "--leave-one-out", "STARE", "DRIVE") == 0
    assert re.search(r"without DRIVE: .*drive.pth was trained on its eyes", capsys.readouterr().out)
    wanted = dict(start.named_parameters())
    for name, kept in {"STARE": True, "DRIVE": False}.items():
        model, content = load_checkpoint(tmp_path / f"without_{name}" / "checkpoint.pth", CPU)
        near = [torch.allclose(weight, wanted[key], atol=1e-4) for key, weight in model.named_parameters()]
        assert all(near) == kept
        assert content["settings"]["start_from"] == (str(tmp_path / "drive.pth") if kept else None)


def test_a_network_on_all_data_sets_has_their_threshold_and_test_py_says_what_it_saw(
    new_data, tmp_path, capsys
):
    assert leave_out(new_data, tmp_path, "--all-eyes") == 0
    model, content = load_checkpoint(tmp_path / "checkpoint.pth", CPU)
    curve = thresholds.compromise_curve(
        fold_batch_norm(model), new_data, read_eyes(new_data / "train", labels=True)
    )
    assert content["threshold"] == thresholds.threshold_of_best(curve)
    assert content["settings"]["degrade"] == 0.5
    # another threshold, without training again
    assert leave_out(new_data, tmp_path, "--all-eyes", "--resume", "--threshold", 0.625) == 0
    assert load_checkpoint(tmp_path / "checkpoint.pth", CPU)[1]["threshold"] == 0.625
    capsys.readouterr()
    weights = ["--weights", tmp_path / "checkpoint.pth", "--device", "cpu", "--views=1"]
    assert run_script(tester.main, "--data", new_data, "--results", tmp_path / "results", *weights) == 0
    assert "9 of these 9 eyes trained this network" in capsys.readouterr().out


def test_a_damaged_native_eye_is_an_error_before_the_training_and_no_other_threshold(new_data, tmp_path):
    data = shutil.copytree(new_data, tmp_path / "data")
    (data / "test" / "mask" / "21_training_0.png").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"test.mask.21_training_0\.png"):
        leave_out(data, tmp_path / "files", "--all-eyes")
    assert not (tmp_path / "files").exists()


def test_a_data_set_that_cannot_be_left_out_is_refused_before_training(three, new_data, tmp_path):
    with pytest.raises(UserError, match=r"--leave-one-out CHASE_DB1: not in .*, which has "):
        leave_out(new_data, tmp_path / "files", "--leave-one-out", "CHASE_DB1")
    run_script(augment.main, three / "DRIVE", "--out", tmp_path / "one")
    with pytest.raises(UserError, match=r"one: eyes of one data set; write several with: python augment.py"):
        leave_out(tmp_path / "one", tmp_path / "files", "--leave-one-out")
    run_script(augment.main, three / "DRIVE", three / "STARE", "--out", tmp_path / "two")
    with pytest.raises(UserError, match=r"these eyes are not there; write it with: .* --leave-one-out"):
        leave_out(tmp_path / "two", tmp_path / "files", "--leave-one-out", "DRIVE")
    assert not list(tmp_path.glob("files/*/last.pth"))


def test_a_damaged_list_of_data_sets_is_refused(new_data, tmp_path):
    (tmp_path / "train").symlink_to(new_data / "train")
    for name, value in {"sets": [1], "disc": "wide"}.items():
        info = json.loads((new_data / "dataset.json").read_text()) | {name: value}
        (tmp_path / "dataset.json").write_text(json.dumps(info))
        with pytest.raises(UserError, match=r"dataset.json: its .* is damaged; run augment.py again"):
            leave_out(tmp_path, tmp_path / "files", "--all-eyes")


def test_the_plain_split_stays_as_published(three, tmp_path):
    folders = [three / name for name in SETS]
    run_script(augment.main, *folders, "--out", tmp_path)
    info = json.loads((tmp_path / "dataset.json").read_text())
    assert info["disc"] == WORKING_DISC
    training = {eye_of(file.stem) for file in (tmp_path / "train" / "image").iterdir()}
    testing = {eye_of(file.stem) for file in (tmp_path / "test" / "image").iterdir()}
    assert not training & testing
