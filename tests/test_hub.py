"""torch.hub.load gives networks and a segmenter, whatever the current directory and the caller's modules."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from conftest import ROOT, run_script

import predict
from anatomy.photograph import look_at
from datasets.images import write_png
from datasets.synthetic import draw_eye
from measures.segments import label_vessels
from prediction.segmenter import Kinds, Segmentation
from utils import UserError


def load(name: str, **settings: object) -> object:
    """torch.hub.load of this folder."""
    return torch.hub.load(str(ROOT), name, source="local", **settings)


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic photograph of an odd size."""
    path = tmp_path_factory.mktemp("photograph") / "eye.png"
    write_png(path, draw_eye(np.random.default_rng(3), 301, 287)[0])
    return path


@pytest.fixture(scope="module")
def hubconf() -> ModuleType:
    """The module that torch.hub imports."""
    return importlib.import_module("hubconf")


def test_the_entry_points_alone_are_listed(hubconf):
    listed = {name for name in dir(hubconf) if callable(getattr(hubconf, name)) and not name.startswith("_")}
    assert listed == {"fundus_unet", "drive_unet", "segmenter"}, "as torch.hub.list finds them"
    assert all(getattr(hubconf, name).__doc__ for name in listed), "torch.hub.help shows it"


def test_a_network_comes_with_its_weights_or_with_random_ones():
    network = load("drive_unet")
    stored = torch.load(ROOT / "files" / "drive_unet.pth", weights_only=True)["weights"]
    assert all((value == stored[name]).all() for name, value in network.state_dict().items())
    assert not network.training
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 33, 47)).shape == (2, 1, 33, 47)
    random = load("drive_unet", pretrained=False)
    assert random.config == network.config
    assert random.training
    assert not torch.equal(next(random.parameters()), next(network.parameters()))


def test_a_network_that_is_not_there_is_one_clear_line(hubconf, monkeypatch, tmp_path):
    monkeypatch.setattr(hubconf, "FILES", tmp_path)
    with pytest.raises(UserError, match=r"fundus_unet\.pth: not in this copy of the repository"):
        hubconf.fundus_unet()


def test_the_segmenter_finds_what_predict_finds(photograph, tmp_path):
    run_script(predict.main, photograph, "--out", tmp_path, "--views=1", "--device", "cpu")
    segmenter = load("segmenter", views=1, device="cpu", arteries_veins=True)
    for given in (str(photograph), iio.imread(photograph)):
        result = segmenter(given)
        assert result.photograph.shape == (301, 287, 3)
        assert result.fov.shape == (301, 287)
        assert (result.mask == iio.imread(tmp_path / "masks" / "eye.png")).all()
        assert (result.levels == iio.imread(tmp_path / "probability" / "eye.png")).all()
        for folder, pixels in result.kinds.pictures.items():
            assert (pixels == iio.imread(tmp_path / folder / "eye.png")).all(), folder
        assert result.kinds.masks["arteries"].any() and result.kinds.masks["veins"].any()
        assert result.probability.dtype == np.float32
        assert 0.5 < result.probability.max() <= 1
    result.threshold = 0.9
    assert (result.mask == np.where(result.probability >= 0.9, 255, 0)).all()
    share = np.count_nonzero(result.mask) / np.count_nonzero(result.fov)
    assert result.examine()["vessel_share"] == pytest.approx(share, rel=1e-3)


@pytest.mark.parametrize(
    "array", [np.zeros((9, 9, 3)), np.zeros((9, 9), np.uint8), np.zeros((3, 9, 9), np.uint8)]
)
def test_an_array_of_another_kind_is_refused_by_shape_and_type(array):
    with pytest.raises(UserError, match=r"uint8 \(H, W, 3\) RGB; this is " + str(array.dtype)):
        load("segmenter", views=1, device="cpu")(array)


def test_the_callers_own_modules_keep_their_names(photograph, tmp_path):
    for name in ("utils", "model", "data"):
        (tmp_path / f"{name}.py").write_text(f"mine = '{name}'\n")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "drive_unet.pth").write_text("none of the repository's")
    (tmp_path / "script.py").write_text(f"""
import utils, model, torch, sys
segmenter = torch.hub.load({str(ROOT)!r}, "segmenter", source="local", views=1, device="cpu")
result = segmenter({str(photograph)!r})
import data
print(utils.mine, model.mine, data.mine, result.mask.shape, (result.mask > 0).sum() > 100)
print([path for path in sys.path if path == {str(ROOT)!r}])
""")
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines() == ["utils model data (301, 287) True", "[]"], done.stderr


def test_weights_are_text_or_paths_one_or_several(photograph):
    path = ROOT / "files" / "drive_unet.pth"
    one = load("segmenter", weights=str(path), views=1, device="cpu")
    for given in (path, [path], [str(path)], (path, str(path))):
        other = load("segmenter", weights=given, views=1, device="cpu")
        assert np.abs(other(photograph).probability - one(photograph).probability).max() < 1e-3


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [("device", device, f"--device {device}: .*; use ") for device in (None, "gpu", 9)]
    + [("weights", w, "give the path of a checkpoint, or a list of paths") for w in ([], (), 3, b"x", [None])],
)
def test_a_device_that_is_none_and_weights_that_are_no_paths_are_refused(name, given, message):
    with pytest.raises(UserError, match=message):
        load("segmenter", **{"views": 1, "device": "cpu", name: given})


@pytest.mark.parametrize("threshold", [2, -0.1, "0.3", float("nan"), [0.5], True])
def test_a_threshold_that_is_no_probability_is_refused(threshold):
    with pytest.raises(UserError, match="give a probability, a number from 0 to 1"):
        load("segmenter", threshold=threshold, views=1, device="cpu")
    levels = np.zeros((4, 4), np.uint16)
    found = Segmentation(None, levels, np.float32(0.5), None)
    with pytest.raises(UserError, match="give a probability, a number from 0 to 1"):
        found.threshold = threshold
    assert found.threshold == 0.5


def test_another_threshold_of_a_result_is_one_for_all_that_follows_from_it():
    pixels = draw_eye(np.random.default_rng(3), 120, 120)[0]
    levels, artery = np.zeros((120, 120), np.uint16), np.full((120, 120), 255, np.uint8)
    levels[60, 40:80], levels[58:63, 55] = 40_000, 20_000
    found = Segmentation(look_at(pixels), levels, 0.5, None)
    found.kinds = Kinds(artery, 255 - artery, label_vessels(found.vessels, found.mask, artery, 255 - artery))
    before = found.mask, found.vessels.mask, found.kinds.masks["arteries"]
    found.threshold = 0.2
    for old, new in zip(before, (found.mask, found.vessels.mask, found.kinds.masks["arteries"]), strict=True):
        assert np.count_nonzero(old) == 39 and np.count_nonzero(new) == 44


def test_a_tilde_is_the_home_folder(photograph, monkeypatch):
    monkeypatch.setenv("HOME", str(photograph.parent))
    monkeypatch.setenv("USERPROFILE", str(photograph.parent))
    assert load("segmenter", views=1, device="cpu")("~/eye.png").mask.shape == (301, 287)


def test_segmenter_and_results_pass_between_processes(photograph, tmp_path):
    segmenter = load("segmenter", views=1, device="cpu", threshold=0.4, arteries_veins=True)
    result = segmenter(photograph)
    (tmp_path / "both.pkl").write_bytes(pickle.dumps([segmenter, result]))
    (tmp_path / "script.py").write_text(f"""
import multiprocessing, pathlib, pickle, torch
if __name__ == "__main__":
    with multiprocessing.Pool(1) as pool:
        segmenter, result = pickle.loads(pathlib.Path("both.pkl").read_bytes())
        (other,) = pool.map(segmenter, [{str(photograph)!r}])
        again = pickle.loads(pickle.dumps(other))
        for each in (result, other, again):
            assert type(each) is type(result) and each.threshold == 0.4, each
            assert (each.levels == result.levels).all() and (each.photograph == result.photograph).all()
            assert (each.kinds.artery == result.kinds.artery).all() and each.kinds.masks["veins"].any()
        again.threshold = 0.9
        print(result.examine()["vessel_share"] == other.examine()["vessel_share"], int(result.levels.sum()))
""")
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["True", str(int(result.levels.sum()))], done.stderr


@pytest.mark.parametrize("own", [ModuleType("utils"), ModuleType("data.part")])
def test_a_module_of_the_callers_without_a_file_is_left_alone(own, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == own.__name__.split(".")[0]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, own.__name__, own)
    load("drive_unet")
    assert sys.modules[own.__name__] is own
