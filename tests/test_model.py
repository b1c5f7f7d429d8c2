"""The network has the size it says, takes any size and returns the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

import metrics
import utils
from checkpoint import load_checkpoint
from demo import draw_eye
from model import UNet, UpConv, fold_batch_norm, predict
from predict import segment
from train import vessel_loss
from utils import has_bfloat16

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [({}, 31_037_633), ({"width": 16, "depth": 3}, 482_737), ({"width": 8, "depth": 2}, 29_625)],
)
def test_parameter_count(settings: dict[str, int], parameters: int) -> None:
    assert sum(p.numel() for p in UNet(**settings).parameters()) == parameters


def test_defaults_go_from_64_to_1024_filters() -> None:
    widths = [m.out_channels for m in UNet().modules() if isinstance(m, torch.nn.Conv2d)]
    assert [min(widths[:-1]), max(widths)] == [64, 1024]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (17, 33), (64, 64), (71, 5)])
def test_any_size_in_the_same_out(size: tuple[int, int]) -> None:
    model = UNet(width=4, depth=3).eval()
    assert model(torch.rand(2, 3, *size)).shape == (2, 1, *size)


def test_padding_leaves_the_rest_of_the_image_alone() -> None:
    torch.manual_seed(0)
    model = UNet(width=4, depth=1).eval()
    image = torch.rand(1, 3, 64, 64)
    assert torch.allclose(model(image[..., :63, :61])[..., :48, :48], model(image)[..., :48, :48], atol=1e-5)


def test_upsampling_is_the_same_in_training() -> None:
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


def test_the_folded_network_predicts_what_the_unfolded_one_predicts() -> None:
    torch.manual_seed(0)
    model, images = normalizing(UNet(width=8, depth=3)), torch.randn(2, 3, 70, 51)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = fold_batch_norm(model)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    with torch.inference_mode():
        one, other = predict(model, images), predict(folded, images)
        assert one.std() > 0.05
        assert torch.allclose(one, other, rtol=0, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_shipped_network_finds_the_same_when_it_is_folded() -> None:
    model, checkpoint = load_checkpoint(ROOT / "files" / "drive_unet.pth", torch.device("cpu"))
    photograph, mask, fov = draw_eye(np.random.default_rng(6))
    found = [segment(network, photograph, fov) for network in (model, fold_batch_norm(model))]
    assert 0 < np.abs(found[0] - found[1])[fov > 0].mean() < 0.01
    counts = [metrics.count_levels(metrics.quantize(p), mask, fov) for p in found]
    f1 = [metrics.scores(c, checkpoint["threshold"])["f1"] for c in counts]
    assert f1[0] == pytest.approx(f1[1], abs=0.001)
    assert min(f1) > 0.6


def test_tta_averages_all_flips_and_turns() -> None:
    torch.manual_seed(0)
    model, image = UNet(width=4, depth=2).eval(), torch.rand(1, 3, 32, 48)
    with torch.inference_mode():
        whole = predict(model, image, tta=True)
        for dims in ((-1,), (-2,), (-2, -1)):
            assert torch.allclose(predict(model, image.flip(dims), tta=True).flip(dims), whole, atol=1e-6)
        for turn in (1, 2, 3):
            turned = predict(model, image.rot90(turn, (-2, -1)), tta=True).rot90(-turn, (-2, -1))
            assert torch.allclose(turned, whole, atol=1e-6)
        assert not torch.allclose(predict(model, image), whole, atol=1e-4)


def test_no_tensor_is_left_on_the_cpu_on_the_way_through_a_gpu() -> None:
    with FakeTensorMode():
        try:
            torch.empty(1, device="cuda").uniform_()
        except (AssertionError, RuntimeError) as error:
            pytest.skip(f"this torch cannot even pretend that there is a GPU: {error}")
        with torch.device("cuda"):
            model = UNet(width=4, depth=2).eval()
        image = torch.rand(2, 3, 33, 47, device="cuda")
        logits = model(image)
        fov = torch.ones(2, 1, 33, 47, device="cuda")
        assert vessel_loss(logits, torch.zeros_like(fov), fov, dice=1).device.type == "cuda"
        assert predict(model, image, tta=True).device.type == "cuda"


def test_loss_counts_inside_the_field_of_view_only() -> None:
    torch.manual_seed(0)
    logits, masks = torch.randn(2, 1, 8, 8), (torch.rand(2, 1, 8, 8) < 0.2).float()
    fovs = torch.zeros(2, 1, 8, 8)
    fovs[..., 2:6, 2:6] = 1
    changed = torch.where(fovs > 0, logits, 100 * torch.randn(2, 1, 8, 8))
    assert vessel_loss(changed, masks, fovs, dice=1) == vessel_loss(logits, masks, fovs, dice=1)
    inside = torch.nn.functional.binary_cross_entropy_with_logits(logits[..., 2:6, 2:6], masks[..., 2:6, 2:6])
    assert vessel_loss(logits, masks, fovs).item() == pytest.approx(inside.item(), abs=1e-6)
    assert vessel_loss(logits, masks, fovs, dice=1) > vessel_loss(logits, masks, fovs)


@pytest.mark.skipif(not has_bfloat16(torch.device("cpu")), reason="this processor has no bfloat16 of its own")
def test_bfloat16_finds_what_float32_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    model, checkpoint = load_checkpoint(ROOT / "files" / "drive_unet.pth", torch.device("cpu"))
    photograph, mask, fov = draw_eye(np.random.default_rng(5))
    found = [segment(model, photograph, fov)]
    monkeypatch.setattr(utils, "has_bfloat16", lambda device: False)
    found.append(segment(model, photograph, fov))
    assert 0 < np.abs(found[0] - found[1])[fov > 0].mean() < 0.01
    counts = [metrics.count_levels(metrics.quantize(p), mask, fov) for p in found]
    f1 = [metrics.scores(c, checkpoint["threshold"])["f1"] for c in counts]
    assert f1[0] == pytest.approx(f1[1], abs=0.001)
    assert min(f1) > 0.6
