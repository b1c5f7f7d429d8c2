"""export.py writes one ONNX file that ONNX Runtime runs at any size as torch does; docs/export.md shows how."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from conftest import CPU, ROOT, run_script
from PIL import Image

import export
from datasets.images import normalize, statistics
from datasets.synthetic import draw_eye
from model import UNet
from networks.checkpoints import KINDS, save_checkpoint
from networks.loading import load_kinds, load_networks
from prediction.segmentation import predict, segment
from prediction.segmenter import Segmenter
from utils import UserError

SHIPPED = ROOT / "files" / "drive_unet.pth"
WITH_ONNX = "pip install -r requirements-export.txt"


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped network, exported."""
    pytest.importorskip("onnx", reason=WITH_ONNX)
    pytest.importorskip("onnxruntime", reason=WITH_ONNX)
    path = tmp_path_factory.mktemp("onnx") / "files" / "drive_unet.onnx"
    assert run_script(export.main, "--weights", SHIPPED, "--out", path) == 0
    return path


@pytest.mark.parametrize("shape", [(64, 64), (63, 65), (1, 1), (7, 130), (201, 88)])
def test_onnx_runtime_gives_torchs_probabilities_at_any_size(onnx_file, shape):
    import onnxruntime

    rng = np.random.default_rng(sum(shape))
    photograph = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    fov = np.where(rng.random(shape) < 0.8, 255, 0).astype(np.uint8)
    fov[0, 0] = 255
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    found = session.run(None, {"photograph": photograph, "fov": fov})[0]
    network, _ = load_networks([SHIPPED], None, CPU)
    image = torch.from_numpy(normalize(photograph, fov, *statistics(photograph, fov)))[None]
    with torch.inference_mode():
        wanted = predict(network, image)[0].numpy() * (fov > 0)
    assert found.dtype == np.float32
    assert found.shape == shape
    assert np.abs(found - wanted).max() < 1e-4


def test_the_file_says_its_opset_threshold_and_diameter_and_stands_alone(onnx_file):
    import onnx

    graph = onnx.load(onnx_file, load_external_data=False)
    assert [(used.domain, used.version) for used in graph.opset_import] == [("", 18)]
    about = {entry.key: entry.value for entry in graph.metadata_props}
    assert float(about["threshold"]) == pytest.approx(0.39)
    network, _ = load_networks([SHIPPED], None, CPU)
    assert float(about["diameter"]) == network.diameter
    assert about["clahe"] == "0"
    assert about["weights"] == "drive_unet.pth"
    assert not any(tensor.external_data for tensor in graph.graph.initializer)
    assert [file.name for file in onnx_file.parent.iterdir()] == ["drive_unet.onnx"]
    assert [d.dim_param for d in graph.graph.output[0].type.tensor_type.shape.dim] == ["height", "width"]


def test_arteries_and_veins_are_two_outputs(onnx_file, tmp_path):
    import onnxruntime

    path = tmp_path / "arteries_veins.onnx"
    kinds = UNet(out_channels=2, width=4, depth=2)
    kinds.classifier.bias.data = torch.tensor([1.0, -1.0])
    content = {"model": kinds.config, "weights": kinds.state_dict(), "outputs": list(KINDS), "disc": 60.0}
    save_checkpoint(tmp_path / "kinds.pth", content | {"threshold": 0.5, "diameter": 385.0})
    assert run_script(export.main, "--weights", tmp_path / "kinds.pth", "--out", path) == 0
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert about["outputs"].split() == [output.name for output in session.get_outputs()] == ["artery", "vein"]
    assert (float(about["disc"]), float(about["diameter"])) == (60, 385)
    photograph, _, fov = draw_eye(np.random.default_rng(0), 70, 61)
    found = np.stack(session.run(None, {"photograph": photograph, "fov": fov}))
    network = load_kinds(tmp_path / "kinds.pth", CPU)
    assert network is not None and found.shape == (2, 70, 61) and found[0].mean() > found[1].mean()
    assert np.abs(found - segment(network, photograph, fov)).max() < 0.02  # that rounds to bfloat16
    with pytest.raises(UserError, match="drive_unet.pth: a network that finds vessels, not artery and vein"):
        run_script(export.main, "--weights", tmp_path / "kinds.pth", SHIPPED, "--out", path)


def test_a_file_that_differs_from_torch_is_not_written(onnx_file, tmp_path, monkeypatch):
    other = torch.load(SHIPPED, weights_only=True)
    other["weights"]["classifier.bias"] += 0.01
    torch.save(other, tmp_path / "other.pth")
    network, _ = load_networks([tmp_path / "other.pth"], None, CPU)
    assert export.check(onnx_file.read_bytes(), network) > export.TOLERANCE
    monkeypatch.setattr(export, "export", lambda *_: onnx_file.read_bytes())
    with pytest.raises(UserError, match="differs from torch by 0.00.*not written"):
        run_script(export.main, "--weights", tmp_path / "other.pth", "--out", tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("module", ["onnx", "onnxruntime"])
def test_without_its_packages_a_line_says_what_to_install(module, monkeypatch, tmp_path):
    if module == "onnxruntime":
        pytest.importorskip("onnx", reason=WITH_ONNX)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"^{module} is not installed.*requirements-export\.txt$"):
        run_script(export.main, "--out", tmp_path / "out.onnx")


def test_the_documented_prediction_needs_three_packages_and_finds_what_predict_finds(onnx_file, tmp_path):
    block = (ROOT / "docs" / "export.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    block = block.replace('"files/fundus_unet.onnx"', repr(str(onnx_file)))
    assert str(onnx_file) in block
    photograph = draw_eye(np.random.default_rng(4), 700, 640)[0]
    Image.fromarray(photograph).save(tmp_path / "eye.jpg", quality=98)
    hidden = "import sys\nfor name in ('torch', 'cv2', 'skimage', 'scipy'): sys.modules[name] = None\n"
    done = subprocess.run([sys.executable, "-c", hidden + block], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = iio.imread(tmp_path / "vessels.png") > 0
    wanted = Segmenter(SHIPPED, views=1, device="cpu")(tmp_path / "eye.jpg").mask > 0
    assert 2 * (found & wanted).sum() / (found.sum() + wanted.sum()) > 0.95
