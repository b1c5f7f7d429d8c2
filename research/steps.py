"""What is timed: training steps and predictions, as the scripts do them and as a tutorial does them."""

from __future__ import annotations

import statistics as stats
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from model import UNet, fold_batch_norm
from prediction.segmentation import predict
from system.devices import autocast
from training.losses import vessel_loss
from training.optimizers import make_optimizer


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that `work` takes, a GPU's included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def in_turn(works: dict[str, Callable[[], object]], device: torch.device, repeats: int) -> dict[str, float]:
    """Median seconds of each, run in turn after one untimed round."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for round_number in range(repeats + 1):
        for name, work in works.items():
            spent = seconds(work, device)
            if round_number:
                taken[name].append(spent)
    return {name: stats.median(times) for name, times in taken.items()}


def our_step(
    width: int, depth: int, side: int, batch: int, name: str, device: torch.device
) -> Callable[[], None]:
    """A step as train.py does it with this optimizer."""
    image, mask, fov = training_batch(side, batch, device)
    model = UNet(width=width, depth=depth).to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(model, name, 1e-4)

    def step() -> None:
        with autocast(device):
            logits = model(image.contiguous(memory_format=torch.channels_last))
        loss = vessel_loss(logits, mask, fov)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    step()  # gradients and the optimizer's state are there from now on
    return step


def plain_step(width: int, depth: int, side: int, batch: int, device: torch.device) -> Callable[[], None]:
    """A step as a tutorial does it: float32, NCHW, Adam, sigmoid, BCE + Dice."""
    image, mask, _ = training_batch(side, batch, device)
    model = plain_network(width, depth).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> None:
        probability = torch.sigmoid(model(image))
        overlap = (probability * mask).sum()
        dice = 1 - (2 * overlap + 1) / (probability.sum() + mask.sum() + 1)
        loss = F.binary_cross_entropy(probability, mask) + dice
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()  # gradients and the optimizer's state are there from now on
    return step


def training_batch(side: int, batch: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Images, masks and fields of view without meaning."""
    torch.manual_seed(0)
    image = torch.randn(batch, 3, side, side, device=device)
    mask = (torch.rand(batch, 1, side, side, device=device) < 0.13).float()
    return image, mask, torch.ones_like(mask)


def plain_network(width: int, depth: int) -> UNet:
    """The network with torch's own transposed convolutions."""
    model = UNet(width=width, depth=depth)
    for block in model.decoder:
        block.up.__class__ = torch.nn.ConvTranspose2d
    return model


def our_prediction(
    width: int, depth: int, shape: tuple[int, int], views: int, device: torch.device
) -> Callable[[], None]:
    """Prediction of one image as the scripts do it."""
    torch.manual_seed(0)
    image = torch.randn(1, 3, *shape, device=device).contiguous(memory_format=torch.channels_last)
    model = fold_batch_norm(UNet(width=width, depth=depth).to(device, memory_format=torch.channels_last))

    def work() -> None:
        with torch.inference_mode(), autocast(device):
            predict(model, image, views).cpu()

    return work


def plain_prediction(
    width: int, depth: int, shape: tuple[int, int], device: torch.device
) -> Callable[[], None]:
    """Prediction of one image as a tutorial does it: float32, NCHW."""
    torch.manual_seed(0)
    image = torch.randn(1, 3, *shape, device=device)
    model = plain_network(width, depth).to(device).eval()

    def work() -> None:
        with torch.no_grad():
            torch.sigmoid(model(image)).cpu()

    return work
