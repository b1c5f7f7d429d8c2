"""A network of arteries and veins is trained by train.py, and predict.py tells them apart in its masks."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CPU, load, read_csv, run_script, same_weights, stop_at
from test_predict import run_predict

import augment
import test as tester
import train
from anatomy.landmarks import Landmarks
from anatomy.photograph import Photograph
from data import read_eyes
from datasets.images import read_image, write_png
from datasets.kinds import ARTERY, BOTH, UNCERTAIN, VEIN
from datasets.synthetic import draw_labelled_eye, write_drive
from model import UNet
from networks.checkpoints import KINDS, load_checkpoint, save_checkpoint
from pages.pictures import colour_kinds
from prediction import segmenter
from prediction.scale import plan_scale
from research import kinds_trust
from research.agreement import icc
from scoring.kinds import count_kinds, kinds_scores
from system.files import write_csv
from system.records import sha256
from training.crops import Crops
from training.losses import vessel_loss
from training.start import load_initial
from utils import UserError

FLAG = "--arteries-veins-weights"
SMALLEST = ("--width", 2, "--depth", 1, "--crop", 32, "--batch-size", 2)
QUICK = ("--width", 4, "--epochs", 1, "--crops", 4, "--crop", 64, "--device", "cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """new_data with arteries and veins."""
    folder = tmp_path_factory.mktemp("kinds")
    write_drive(folder / "DRIVE", train=4, test=1, height=192, width=184, arteries_veins=True)
    assert run_script(augment.main, folder / "DRIVE", "--out", folder / "new_data") is None
    return folder / "new_data"


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FILES of a training of arteries and veins."""
    files = tmp_path_factory.mktemp("files")
    assert run_script(train.main, "--data", data, "--files", files, "--arteries-veins", *QUICK) == 0
    return files


@pytest.fixture(scope="module")
def arteries(trained: Path) -> Path:
    """A network that calls all vessels arteries."""
    content = torch.load(trained / "checkpoint.pth", weights_only=True)
    content["weights"]["classifier.weight"].zero_()
    content["weights"]["classifier.bias"].copy_(torch.tensor([3.0, -3.0]))
    save_checkpoint(trained / "arteries.pth", content)
    return trained / "arteries.pth"


def test_the_checkpoint_says_what_it_finds(trained):
    network, content = load_checkpoint(trained / "checkpoint.pth", CPU, KINDS)
    assert network.config["out_channels"] == 2 and network.outputs == ("artery", "vein")
    assert 0 < content["scores"]["f1"] <= 1 and (trained / "preview.png").is_file()


def test_folds_score_both_kinds_of_every_eye(data, tmp_path):
    folds = ("--arteries-veins", "--folds", 2, "--fold", 0, 1)
    assert run_script(train.main, "--data", data, "--files", tmp_path, *folds, *QUICK) == 0
    rows = {row["eye"]: row for row in read_csv(tmp_path / "folds.csv")}
    assert len([name for name in rows if "training" in name]) == 4
    assert all(0 <= float(row["f1"]) <= 1 for name, row in rows.items() if "training" in name)
    for kind in KINDS:
        assert len(list(tmp_path.glob(f"fold?/probability/*_{kind}.png"))) == 4


def write_people(folder: Path) -> tuple[Path, Path]:
    """Two data sets of small eyes with labels of both kinds; one has both eyes of a person, and one without."""
    write_drive(folder / "DRIVE", train=2, test=1, height=96, width=92, arteries_veins=True)
    for k, name in enumerate(("p1_L", "p1_R", "p2_L", "p3_L")):
        photograph, mask, _, kinds = draw_labelled_eye(np.random.default_rng(k), 96, 92)
        for part, pixels in (("images", photograph), ("masks", mask), ("arteries_veins", kinds)):
            if (part, name) != ("arteries_veins", "p3_L"):
                write_png(folder / "mine" / part / f"{name}.png", pixels)
    return folder / "DRIVE", folder / "mine"


def split_of(files: Path) -> dict[str, list[str]]:
    """The eyes on each side of a training's split, each once, without copies."""
    split = json.loads((files / "split.json").read_text(encoding="utf-8"))
    return {side: sorted({name.rsplit("_", 1)[0] for name in names}) for side, names in split.items()}


def test_data_sets_left_out_folds_and_both_eyes_of_a_person(tmp_path, capsys, monkeypatch):
    # the field of view decides the scale of these small eyes
    monkeypatch.setattr("anatomy.photograph.find_landmarks", lambda *_: Landmarks(*[float("nan")] * 7))
    folders = write_people(tmp_path)
    data, files = tmp_path / "new_data", tmp_path / "files"
    assert run_script(augment.main, *folders, "--leave-one-out", "--disc", 20, "--out", data) is None
    how = ("--data", data, "--files", files, "--arteries-veins", *QUICK, *SMALLEST)
    assert run_script(train.main, *how, "--folds", 2, "--fold", 0) == 0
    everyone = {"21_training", "22_training", "p1_L", "p1_R", "p2_L"}
    split = split_of(files / "fold0")
    assert {*split["train"], *split["held_out"]} == everyone and not {*split["train"]} & {*split["held_out"]}
    assert [{"p1_L", "p1_R"} <= {*split[side]} for side in ("train", "held_out")] in ([1, 0], [0, 1])
    assert run_script(train.main, *how, "--leave-one-out") == 0
    assert (
        "20 of 24 images have labels of arteries and veins; the others are left out" in capsys.readouterr().out
    )
    rows = {row["data_set"]: row for row in read_csv(files / "leave_one_out.csv")}
    for name, eyes in (("DRIVE", {"21_training", "22_training"}), ("mine", {"p1_L", "p1_R", "p2_L"})):
        folder = files / f"without_{name}"
        split = split_of(folder)
        assert {*split["held_out"]} == eyes and {*split["train"]} == everyone - eyes
        written = {path.name for path in (folder / "probability").iterdir()}
        assert written == {f"{eye}_{kind}.png" for eye in eyes for kind in KINDS}
        assert 0 <= float(rows[name]["f1"]) <= 1
        load_checkpoint(folder / "checkpoint.pth", CPU, KINDS)


def test_a_stopped_and_resumed_training_ends_with_the_same_bits(data, tmp_path, monkeypatch):
    how = ("--data", data, "--arteries-veins", *QUICK, "--epochs", 2, "--crops", 8)
    assert run_script(train.main, *how, "--files", tmp_path / "whole") == 0
    stop_at(monkeypatch, 1)
    assert run_script(train.main, *how, "--files", tmp_path / "parts") == 130
    assert run_script(train.main, *how, "--files", tmp_path / "parts", "--resume") == 0
    whole, parts = (load(tmp_path / name / "last.pth") for name in ("whole", "parts"))
    assert same_weights(whole["weights"], parts["weights"])
    assert whole["settings"]["arteries_veins"] and parts["settings"] == whole["settings"]


def test_eyes_without_such_labels_are_refused(new_data, tmp_path):
    with pytest.raises(UserError, match="no labels of arteries and veins"):
        run_script(train.main, "--data", new_data, "--files", tmp_path, "--arteries-veins", *QUICK)


def test_a_network_of_vessels_begins_as_arteries_and_veins_that_differ():
    torch.manual_seed(0)
    vessels, kinds = UNet(width=4, depth=2).eval(), UNet(out_channels=2, width=4, depth=3).eval()
    kinds.outputs = KINDS
    load_initial(kinds, vessels)
    own = kinds.state_dict()
    for name, there in (
        ("encoder.0.conv.0.weight", "encoder.0.conv.0.weight"),
        ("bottleneck.0.weight", "encoder.2.conv.0.weight"),
        ("decoder.1.conv.0.weight", "decoder.2.conv.0.weight"),
    ):
        assert torch.equal(own[there], vessels.state_dict()[name])
    artery, vein = own["classifier.weight"]
    assert not torch.equal(artery, vein)
    assert torch.allclose(artery, vessels.state_dict()["classifier.weight"][0], atol=0.3)


def test_the_loss_counts_the_kind_and_nothing_where_it_is_unknown():
    masks = torch.zeros(1, 2, 2, 2)
    masks[0, 0, 0, 0] = masks[0, 1, 0, 1] = 1  # an artery and a vein
    right = 8 * (2 * masks - 1)
    known = torch.ones(1, 1, 2, 2)
    assert float(vessel_loss(right, masks, known)) < 0.01
    assert float(vessel_loss(right.flip(1), masks, known)) > 10
    known[0, 0, 0] = 0
    assert float(vessel_loss(right.flip(1), masks, known)) < 0.01


def test_crops_have_both_masks_and_leave_out_what_is_uncertain(data):
    eye = read_eyes(data / "train", labels=True)[0]
    assert eye.kinds is not None
    eye.kinds = eye.kinds.copy()
    eye.kinds[:96][eye.kinds[:96] > 0] = UNCERTAIN
    crops = Crops([eye], 128, seed=1, length=8, kinds=True)
    for i in range(8):
        _, masks, known = crops[i]
        assert masks.shape == (2, 128, 128) and not (masks.max(0) * (1 - known[0])).any()
    artery, known_artery = eye.target("artery")
    assert np.array_equal(artery, np.isin(eye.kinds, (ARTERY, BOTH)))
    assert not known_artery[eye.kinds == UNCERTAIN].any()
    assert np.array_equal(eye.target("vein")[0], np.isin(eye.kinds, (VEIN, BOTH)))


def test_predict_tells_arteries_from_veins_inside_its_masks(data, files, arteries, tmp_path):
    photograph = next((data / "test" / "image").iterdir())
    weights = files / "checkpoint.pth"
    assert run_predict(weights, tmp_path / "with", FLAG, arteries, photograph) == 0
    assert run_predict(weights, tmp_path / "without", photograph) == 0
    name = f"{photograph.stem}.png"
    mask, called, veins = (
        read_image(tmp_path / "with" / part / name) for part in ("masks", "arteries", "veins")
    )
    assert np.array_equal(mask, read_image(tmp_path / "without" / "masks" / name))
    assert mask.any() and np.array_equal(called, mask) and not veins.any()
    assert (tmp_path / "with" / "page" / "arteries_veins" / f"{photograph.stem}.jpg").is_file()
    assert not (tmp_path / "without" / "arteries").exists()
    (row,) = read_csv(tmp_path / "with" / "measures.csv")
    assert float(row["kind_decided"]) == 1 and row["crae_reason"]
    page = (tmp_path / "with" / "index.html").read_text(encoding="utf-8")
    assert "Arteries, veins" in page and f"no CRAE: {row['crae_reason']}" in page
    assert "Labels of arteries, veins" not in page


def test_a_network_of_vessels_is_no_network_of_arteries_and_veins(data, files, tmp_path):
    photograph = next((data / "test" / "image").iterdir())
    flag = (FLAG, files / "checkpoint.pth")
    with pytest.raises(UserError, match="finds vessels, not artery and vein"):
        run_predict(files / "checkpoint.pth", tmp_path / "out", *flag, photograph)
    with pytest.raises(UserError, match="not used with --no-arteries-veins"):
        run_predict(files / "checkpoint.pth", tmp_path / "out", *flag, "--no-arteries-veins", photograph)


def test_results_say_which_network_told_them_apart_and_another_does_them_again(
    data, files, trained, arteries, tmp_path
):
    photograph = next((data / "test" / "image").iterdir())
    once = (files / "checkpoint.pth", tmp_path, "--views", 1, "--resume", photograph, FLAG)
    veins = tmp_path / "veins" / f"{photograph.stem}.png"
    for weights in (arteries, trained / "checkpoint.pth"):
        assert run_predict(*once, weights) == 0
        digest = sha256(weights)
        made = json.loads((tmp_path / "predict.json").read_text(encoding="utf-8"))
        assert made["arteries_veins_weights"] == [{"file": str(weights), "sha256": digest}]
        assert [Path(used["file"]).name for used in made["weights"]] == ["checkpoint.pth"]
        (row,) = read_csv(tmp_path / "measures.csv")
        assert f", {weights.name} {digest[:8]}, threshold" in row["made_by"]
        written = veins.stat().st_mtime_ns
    assert run_predict(*once, weights) == 0 and veins.stat().st_mtime_ns == written


def run_test(data: Path, files: Path, results: Path, *more: object) -> int | None:
    """Run test.py with the network of vessels of `files`."""
    flags = ("--weights", files / "checkpoint.pth", "--views", 1, "--device", "cpu", *more)
    return run_script(tester.main, "--data", data, "--results", results, *flags)


@pytest.fixture(scope="module")
def results(data: Path, files: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What test.py writes, run by research.kinds_trust."""
    out = tmp_path_factory.mktemp("scored") / "results"
    flags = ("--data", data, "--weights", files / "checkpoint.pth", FLAG, trained / "checkpoint.pth")
    run_script(kinds_trust.main, out, "--test", *flags, "--views", 1, "--device", "cpu")
    return out


def test_test_scores_and_measures_the_arteries_and_veins_that_it_finds(data, files, results, tmp_path):
    (eye,) = read_eyes(data / "test", labels=True)
    assert eye.kinds is not None
    name = f"{eye.result_name}.png"
    artery, vein, mask = (
        read_image(results / part / name)[..., 0] > 0 for part in ("arteries", "veins", "masks")
    )
    assert (artery | vein).any() and not ((artery | vein) & ~mask).any()
    expected = kinds_scores(count_kinds(artery, vein, eye.kinds, eye.fov))
    row, *_ = read_csv(results / "arteries_veins.csv")
    assert row["image"] == eye.result_name
    assert {column: float(row[column]) for column in expected} == pytest.approx(expected)
    rows = {row["by"]: row for row in read_csv(results / "measures.csv")}
    assert float(rows["prediction"]["kind_decided"]) < 1 and not rows["first_observer"]["kind_decided"]
    arteries = np.count_nonzero(np.isin(eye.kinds, (ARTERY, BOTH)) & (eye.fov > 0))
    share = arteries / np.count_nonzero(eye.fov)
    assert float(rows["arteries_veins"]["artery_share"]) == pytest.approx(share, rel=1e-3)
    assert (results / "page" / "arteries_veins" / name).with_suffix(".jpg").is_file()
    labels = read_image(results / "page" / "truth_arteries_veins" / name)
    assert np.array_equal(labels, colour_kinds(eye.kinds))
    assert "Labels of arteries, veins" in (results / "index.html").read_text(encoding="utf-8")
    # without the flag there are none
    assert run_test(data, files, tmp_path / "results") == 0
    assert not (tmp_path / "results" / "arteries").exists()
    assert not (tmp_path / "results" / "arteries_veins.csv").exists()


def test_the_agreement_with_labels_is_that_of_the_measures_in_the_results(
    results, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(kinds_trust, "COMPARED", ("avr", "artery_share"))
    both = {row["by"]: row for row in read_csv(results / "measures.csv")}
    found, labels = np.array([0.05, 0.06, 0.08, 0.07]), np.array([0.055, 0.06, 0.09, 0.072])
    rows = [
        both[by] | {"image": f"eye{number}", "artery_share": str(value)}
        for by, values in (("prediction", found), ("arteries_veins", labels))
        for number, value in enumerate(values)
    ]
    write_csv(tmp_path / "measures.csv", rows)
    run_script(kinds_trust.main, tmp_path)
    said = capsys.readouterr().out
    assert "prediction beside label, 4 eyes" in said
    bias, agreement = (found - labels).mean(), icc(labels, found)
    (line,) = (line for line in said.splitlines() if line.startswith("| `artery_share` | 0.0"))
    assert f"{bias:.4f} (" in line and f"{agreement:.2f} (" in line


def test_by_default_test_tells_them_apart_where_there_are_labels(
    data, new_data, files, arteries, tmp_path, monkeypatch
):
    shutil.copytree(files, tmp_path / "files", ignore=shutil.ignore_patterns("earlier", "*.png"))
    shutil.copy(arteries, tmp_path / "files" / "arteries_veins.pth")
    monkeypatch.chdir(tmp_path)
    flags = ("--device", "cpu", "--views", 1)
    assert run_script(tester.main, "--data", data, "--results", "with", *flags) == 0
    (row, *_) = read_csv(Path("with", "arteries_veins.csv"))
    assert float(row["f1_artery"]) > 0 == float(row["f1_vein"])
    assert run_script(tester.main, "--data", data, "--results", "no", "--no-arteries-veins", *flags) == 0
    assert run_script(tester.main, "--data", new_data, "--results", "without", *flags) == 0
    assert not Path("no", "arteries").exists() and not Path("without", "arteries").exists()


def test_one_data_set_or_the_unseen_eyes_are_scored_and_who_has_seen_eyes_is_named(
    data, files, trained, tmp_path, capsys
):
    shutil.copytree(data, tmp_path / "data")
    info = json.loads((data / "dataset.json").read_text())
    for part in ("image", "mask", "fov", "arteries_veins"):
        seen = next((data / "train" / part).glob("21_training_0.*"))
        shutil.copy(seen, tmp_path / "data" / "test" / part)
    info["sets"] = {"21_training": "DRIVE", "01_test": "ELSEWHERE"}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"--only HRF: no data set of .*test, which has DRIVE, ELSEWHERE"):
        run_test(tmp_path / "data", files, tmp_path / "none", "--only", "HRF")
    assert (
        run_test(
            tmp_path / "data", files, tmp_path / "one", "--only", "DRIVE", FLAG, trained / "checkpoint.pth"
        )
        == 0
    )
    assert "1 of these 1 eyes trained the network of arteries and veins" in capsys.readouterr().out
    rows = read_csv(tmp_path / "one" / "arteries_veins.csv")
    assert [row["image"] for row in rows] == ["21_training", "mean", "pooled"]
    assert (
        run_test(tmp_path / "data", files, tmp_path / "two", "--unseen", FLAG, trained / "checkpoint.pth") == 0
    )
    rows = read_csv(tmp_path / "two" / "arteries_veins.csv")
    assert [row["image"] for row in rows] == ["01_test", "mean", "pooled"]
    with pytest.raises(UserError, match=r"--unseen: all eyes of .*test have trained a network"):
        run_test(tmp_path / "data", files, tmp_path / "none", "--unseen", "--only", "DRIVE")


def test_a_network_that_knows_the_disc_sees_it_at_its_scale_beside_one_that_does_not(monkeypatch):
    vessels, kinds = UNet(width=2, depth=1).eval(), UNet(out_channels=2, width=2, depth=1).eval()
    kinds.outputs, kinds.disc, kinds.diameter = KINDS, 60.0, 385.0
    taken = Photograph(*np.zeros((2, 99, 99), np.uint8), 548.0, "border", Landmarks(50, 50, 90.0, *[0.0] * 4))
    taken = replace(taken, pixels=np.zeros((99, 99, 3), np.uint8))
    seen: list[float] = []
    monkeypatch.setattr(segmenter, "find_kinds", lambda *given: seen.append(given[-1]))
    segmenter.segment_at(vessels, taken, plan_scale(taken, vessels), 0.5, 1, kinds)
    vessels.disc, vessels.diameter = 120.0, 770.0
    segmenter.segment_at(vessels, taken, plan_scale(taken, vessels), 0.5, 1, kinds)
    assert seen == pytest.approx([plan_scale(taken, kinds).factor] * 2, rel=1e-3)
