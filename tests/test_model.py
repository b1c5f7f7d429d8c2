"""The network has the size it says, takes any size and returns the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from conftest import CPU, ROOT
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet34

from datasets.synthetic import draw_eye
from model import NETWORKS, ResUNet, UNet, UpConv, fold_batch_norm
from networks.checkpoints import load_checkpoint
from prediction.segmentation import predict, predict_views, segment
from scoring import metrics
from system import devices
from system.devices import has_bfloat16
from training.losses import vessel_loss
from utils import UserError


@pytest.mark.parametrize(
    ("kind", "settings", "parameters"),
    [
        (UNet, {}, 31_037_633),
        (UNet, {"width": 16, "depth": 3}, 482_737),
        (UNet, {"width": 8, "depth": 2}, 29_625),
        (ResUNet, {"width": 16, "depth": 3}, 1_548_657),
        (ResUNet, {"width": 16, "depth": 5}, 24_354_545),
    ],
)
def test_parameter_count(kind, settings, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in kind(**settings).parameters()) == parameters


def test_the_operations_of_a_resnet_are_fewer_than_three_times_those_of_a_unet():
    operations = {}
    with torch.device("meta"):
        for name, kind in NETWORKS.items():
            with FlopCounterMode(display=False) as counter:
                kind(width=16, depth=3)(torch.empty(1, 3, 256, 256))
            operations[name] = counter.get_total_flops()
    assert operations["resunet"] / operations["unet"] == pytest.approx(1.7, abs=0.05)  # as its docstring says


@pytest.mark.parametrize("depth", range(1, 6))
@pytest.mark.parametrize("kind", NETWORKS.values())
def test_what_is_farther_away_than_the_margin_does_not_matter(monkeypatch, kind, depth):
    def average(pool: torch.nn.MaxPool2d, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x, pool.kernel_size, pool.stride, pool.padding)

    monkeypatch.setattr(torch.nn.MaxPool2d, "forward", average)  # of several pixels a maximum sees one only
    model = kind(width=1, depth=depth).double().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            torch.nn.init.constant_(module.weight, 1 / module.weight[0].numel())  # no gradient cancels another
    reach = 0
    for place in (0, model.grid - 1):
        image = torch.ones(1, 3, model.grid, 2 * model.margin + model.grid, dtype=torch.double)
        image.requires_grad_()
        model(image)[0, 0, 0, model.margin + place].backward()
        seen = image.grad.abs().sum(dim=(0, 1, 2)).nonzero()
        reach = max(reach, int(abs(seen - model.margin - place).max()))
    assert 2**depth < reach <= model.margin


def test_defaults_go_from_64_to_1024_filters():
    widths = [m.out_channels for m in UNet().modules() if isinstance(m, torch.nn.Conv2d)]
    assert [min(widths[:-1]), max(widths)] == [64, 1024]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (17, 33), (64, 64), (71, 5)])
@pytest.mark.parametrize("kind", NETWORKS.values())
def test_any_size_in_the_same_out(kind, size):
    model = kind(width=4, depth=3).eval()
    assert model(torch.rand(2, 3, *size)).shape == (2, 1, *size)


@pytest.mark.parametrize("kind", NETWORKS.values())
def test_the_gradient_reaches_every_parameter(kind):
    torch.manual_seed(0)
    model = kind(width=4, depth=2)
    model(torch.randn(2, 3, 40, 40)).square().sum().backward()
    assert not [
        name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()
    ]


def test_padding_leaves_the_rest_of_the_image_alone():
    torch.manual_seed(0)
    model = UNet(width=4, depth=1).eval()
    image = torch.rand(1, 3, 64, 64)
    assert torch.allclose(model(image[..., :63, :61])[..., :48, :48], model(image)[..., :48, :48], atol=1e-5)


def test_upsampling_is_the_same_in_training():
    torch.manual_seed(0)
    up, image, direction = UpConv(6, 5), torch.rand(2, 6, 7, 9), torch.rand(2, 5, 14, 18)
    gradients = []
    for mode in (True, False):  # in evaluation it is torch's own
        image.requires_grad_().grad = None
        up.train(mode).zero_grad()
        (up(image) * direction).sum().backward()
        gradients.append([image.grad, up.weight.grad, up.bias.grad])
    assert torch.allclose(up.train()(image), up.eval()(image), atol=1e-6)
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def normalizing(model: torch.nn.Module) -> torch.nn.Module:
    """The network with batch normalisations that have measured noise, and scale and shift at random."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.3, 0.3)
            module.momentum = 1.0
    with torch.no_grad():
        model(torch.randn(2, 3, 64, 64))
    return model.eval()


@pytest.mark.parametrize("kind", NETWORKS.values())
def test_the_folded_network_predicts_what_the_unfolded_one_predicts(kind):
    torch.manual_seed(0)
    model, images = normalizing(kind(width=8, depth=3)), torch.randn(2, 3, 70, 51)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = fold_batch_norm(model)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    with torch.inference_mode():
        one, other = predict(model, images), predict(folded, images)
        assert one.std() > 0.05
        assert torch.allclose(one, other, rtol=0, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_shipped_network_finds_the_same_when_it_is_folded_and_without_bfloat16(monkeypatch):
    model, checkpoint = load_checkpoint(ROOT / "files" / "drive_unet.pth")
    photograph, mask, fov = draw_eye(np.random.default_rng(6))
    found = [segment(network, photograph, fov) for network in (model, fold_batch_norm(model))]
    if has_bfloat16(CPU):
        monkeypatch.setattr(devices, "has_bfloat16", lambda device: False)
        found.append(segment(model, photograph, fov))
    counts = [metrics.count_levels(metrics.quantize(p), mask, fov) for p in found]
    f1 = [metrics.scores(c, checkpoint["threshold"])["f1"] for c in counts]
    assert min(f1) > 0.6
    for other, score in zip(found[1:], f1[1:], strict=True):
        assert 0 < np.abs(found[0] - other)[fov > 0].mean() < 0.01
        assert f1[0] == pytest.approx(score, abs=0.001)


def test_eight_views_are_all_flips_and_turns():
    torch.manual_seed(0)
    model, image = UNet(width=4, depth=2).eval(), torch.rand(1, 3, 32, 48)
    with torch.inference_mode():
        whole = predict(model, image, views=8)
        for dims in ((-1,), (-2,), (-2, -1)):
            assert torch.allclose(predict(model, image.flip(dims), views=8).flip(dims), whole, atol=1e-6)
        for turn in (1, 2, 3):
            turned = predict(model, image.rot90(turn, (-2, -1)), views=8).rot90(-turn, (-2, -1))
            assert torch.allclose(turned, whole, atol=1e-6)
        assert not torch.allclose(predict(model, image), whole, atol=1e-4)


@pytest.mark.parametrize("views", [1, 2, 4, 8])
def test_half_of_several_views_are_of_the_other_images_and_each_lies_another_way(views):
    image, other, seen = torch.rand(1, 1, 6, 6), torch.rand(1, 1, 6, 6), []

    class Watched(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            seen.append(image)
            return image

    found = predict_views(Watched(), image, views, other)
    assert found.shape == (views, 1, 6, 6)
    half = views // 2 or 1
    assert all(torch.allclose(view, image[:, 0].sigmoid()) for view in found[:half])
    assert all(torch.allclose(view, other[:, 0].sigmoid()) for view in found[half:])
    seen.clear()
    predict_views(Watched(), image, views)
    turned = [image.rot90(turn, (-2, -1)) for turn in range(4)]
    every = turned + [one.flip(-1) for one in turned]
    ways = [next(k for k, one in enumerate(every) if torch.equal(one, view)) for view in seen]
    assert ways[0] == 0 and len(set(ways)) == views
    assert views == 8 or max(ways) < 4, "up to four are turned, not mirrored"


@pytest.mark.parametrize("kind", NETWORKS.values())
def test_no_tensor_is_left_on_the_cpu_on_the_way_through_a_gpu(kind):
    with FakeTensorMode():
        try:
            torch.empty(1, device="cuda").uniform_()
        except (AssertionError, RuntimeError) as error:
            pytest.skip(f"this torch cannot even pretend that there is a GPU: {error}")
        with torch.device("cuda"):
            model = kind(width=4, depth=2).eval()
        image = torch.rand(2, 3, 33, 47, device="cuda")
        logits = model(image)
        fov = torch.ones(2, 1, 33, 47, device="cuda")
        assert vessel_loss(logits, torch.zeros_like(fov), fov, dice=1).device.type == "cuda"
        assert predict(model, image, views=8).device.type == "cuda"


def test_loss_counts_inside_the_field_of_view_only():
    torch.manual_seed(0)
    logits, masks = torch.randn(2, 1, 8, 8), (torch.rand(2, 1, 8, 8) < 0.2).float()
    fovs = torch.zeros(2, 1, 8, 8)
    fovs[..., 2:6, 2:6] = 1
    changed = torch.where(fovs > 0, logits, 100 * torch.randn(2, 1, 8, 8))
    assert vessel_loss(changed, masks, fovs, dice=1) == vessel_loss(logits, masks, fovs, dice=1)
    inside = torch.nn.functional.binary_cross_entropy_with_logits(logits[..., 2:6, 2:6], masks[..., 2:6, 2:6])
    assert vessel_loss(logits, masks, fovs).item() == pytest.approx(inside.item(), abs=1e-6)
    assert vessel_loss(logits, masks, fovs, dice=1) > vessel_loss(logits, masks, fovs)


IMAGENET = "resnet34-b627a593.pth"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which torchvision keeps what it downloads, empty; and no connection."""

    def refuse(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def test_without_a_connection_it_says_which_file_to_put_where(hub):
    with pytest.raises(UserError) as error:
        ResUNet(width=4, depth=1).load_imagenet()
    message = str(error.value)
    assert message.startswith("--pretrained: no ImageNet weights (")
    assert "no route to host" in message
    assert f"put https://download.pytorch.org/models/{IMAGENET} into {hub} by hand" in message
    assert len(message.splitlines()) == 1


def test_imagenets_weights_are_taken_from_the_file_put_there_by_hand(hub):
    torch.manual_seed(0)
    resnet = resnet34()
    torch.save(resnet.state_dict(), hub / IMAGENET)
    model = ResUNet(width=4, depth=3)
    model.load_imagenet()
    for ours, theirs in ((model.encoder[0][0], resnet.conv1), (model.encoder[2], resnet.layer2)):
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04 cut off", None])
def test_a_wrong_file_of_imagenets_weights_is_refused_and_runs_no_code(hub, content):
    if content is None:
        torch.save(UNet(width=4, depth=1), hub / IMAGENET)  # a whole module: unpickling it would run its code
    else:
        (hub / IMAGENET).write_bytes(content)
    with pytest.raises(UserError, match="no ImageNet weights"):
        ResUNet(width=4, depth=1).load_imagenet()


@pytest.mark.parametrize(
    ("start", "without"),
    [
        ("import predict", "torch"),  # so that --help does not wait
        ("import model; model.UNet(width=4, depth=1)", "torchvision"),
        # what torch builds on sympy to compile networks took a second of each start
        ("import networks.checkpoints as c; c.load_checkpoint('files/drive_unet.pth')", "sympy"),
    ],
)
def test_a_start_does_without_modules_that_it_does_not_need(start, without):
    code = f"import sys; {start}; assert {without!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
