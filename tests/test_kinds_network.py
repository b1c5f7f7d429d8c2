"""A network of arteries and veins is trained by train.py, and predict.py tells them apart in its masks."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_script
from test_predict import run_predict

import augment
import predict
import train
from data import read_eyes
from datasets.images import read_image
from datasets.kinds import ARTERY, BOTH, UNCERTAIN, VEIN
from datasets.synthetic import write_drive
from model import UNet
from networks.checkpoints import KINDS, load_checkpoint, save_checkpoint
from training.crops import Crops
from training.losses import vessel_loss
from training.start import load_initial
from utils import UserError

QUICK = ("--width", 4, "--epochs", 1, "--crops", 4, "--crop", 64, "--device", "cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """new_data with arteries and veins."""
    folder = tmp_path_factory.mktemp("kinds")
    write_drive(folder / "DRIVE", train=4, test=1, height=192, width=184, arteries_veins=True)
    assert run_script(augment.main, folder / "DRIVE", "--out", folder / "new_data") is None
    return folder / "new_data"


@pytest.fixture(scope="module")
def trained(data: Path, no_charts: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FILES of a training of arteries and veins."""
    files = tmp_path_factory.mktemp("files")
    assert run_script(train.main, "--data", data, "--files", files, "--arteries-veins", *QUICK) == 0
    return files


def test_the_checkpoint_says_what_it_finds(trained: Path) -> None:
    network, content = load_checkpoint(trained / "checkpoint.pth", torch.device("cpu"), KINDS)
    assert network.config["out_channels"] == 2 and network.outputs == ("artery", "vein")
    assert 0 < content["scores"]["f1"] <= 1 and (trained / "preview.png").is_file()


def test_folds_score_both_kinds_of_every_eye(data: Path, tmp_path: Path, no_charts: None) -> None:
    folds = ("--arteries-veins", "--folds", 2, "--fold", 0, 1)
    assert run_script(train.main, "--data", data, "--files", tmp_path, *folds, *QUICK) == 0
    with (tmp_path / "folds.csv").open() as file:
        rows = {row["eye"]: row for row in csv.DictReader(file)}
    assert len([name for name in rows if "training" in name]) == 4
    assert all(0 <= float(row["f1"]) <= 1 for name, row in rows.items() if "training" in name)
    for kind in KINDS:
        assert len(list(tmp_path.glob(f"fold?/probability/*_{kind}.png"))) == 4


def test_eyes_without_such_labels_are_refused(new_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no labels of arteries and veins"):
        run_script(train.main, "--data", new_data, "--files", tmp_path, "--arteries-veins", *QUICK)


def test_a_network_of_vessels_begins_as_arteries_and_veins_that_differ() -> None:
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


def test_the_loss_counts_the_kind_and_nothing_where_it_is_unknown() -> None:
    masks = torch.zeros(1, 2, 2, 2)
    masks[0, 0, 0, 0] = masks[0, 1, 0, 1] = 1  # an artery and a vein
    right = 8 * (2 * masks - 1)
    known = torch.ones(1, 1, 2, 2)
    assert float(vessel_loss(right, masks, known)) < 0.01
    assert float(vessel_loss(right.flip(1), masks, known)) > 10
    known[0, 0, 0] = 0
    assert float(vessel_loss(right.flip(1), masks, known)) < 0.01


def test_crops_have_both_masks_and_leave_out_what_is_uncertain(data: Path) -> None:
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


def test_predict_tells_arteries_from_veins_inside_its_masks(
    data: Path, files: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photograph = next((data / "test" / "image").iterdir())
    content = torch.load(trained / "checkpoint.pth", weights_only=True)
    content["weights"]["classifier.weight"].zero_()
    content["weights"]["classifier.bias"].copy_(torch.tensor([3.0, -3.0]))  # it calls all of them arteries
    save_checkpoint(tmp_path / "arteries.pth", content)
    monkeypatch.setattr(predict, "find_weights", lambda names: tmp_path / "arteries.pth")
    weights = files / "checkpoint.pth"
    assert run_predict(weights, tmp_path / "with", "--arteries-veins", photograph) == 0
    assert run_predict(weights, tmp_path / "without", photograph) == 0
    name = f"{photograph.stem}.png"
    mask, arteries, veins = (
        read_image(tmp_path / "with" / part / name) for part in ("masks", "arteries", "veins")
    )
    assert np.array_equal(mask, read_image(tmp_path / "without" / "masks" / name))
    assert mask.any() and np.array_equal(arteries, mask) and not veins.any()
    assert (tmp_path / "with" / "page" / "arteries_veins" / f"{photograph.stem}.jpg").is_file()
    assert not (tmp_path / "without" / "arteries").exists()
    with (tmp_path / "with" / "measures.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["kind_decided"]) == 1 and row["crae_reason"]
    assert "Arteries, veins" in (tmp_path / "with" / "index.html").read_text(encoding="utf-8")


def test_a_network_of_vessels_is_no_network_of_arteries_and_veins(
    data: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "find_weights", lambda names: files / "checkpoint.pth")
    photograph = next((data / "test" / "image").iterdir())
    with pytest.raises(UserError, match="finds vessels, not artery and vein"):
        run_predict(files / "checkpoint.pth", tmp_path / "out", "--arteries-veins", photograph)
