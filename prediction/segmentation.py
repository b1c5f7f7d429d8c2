"""Photograph to vessel probability, whole or in tiles, at the network's scale."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import cv2
import numpy as np

from datasets.eyes import Eye, rescale
from datasets.images import equalize, normalize, statistics
from scoring import metrics
from system.devices import autocast

if TYPE_CHECKING:
    from torch import Tensor, nn

    from model import Network


TILE = 1024  # side in pixels of the largest piece that passes through the network at once
Flips = tuple[tuple[int, ...], ...]  # each is the dimensions to flip
EVERY_FLIP: Flips = ((), (-1,), (-2,), (-2, -1))  # unchanged, left-right, upside down, both
# by the number of views, the flips of an image and those of its transpose: one view is the image as it is, two
# and four are turned by quarters of a circle, eight have their mirror images too
VIEWS: dict[int, tuple[Flips, Flips]] = {
    1: (((),), ()),
    2: (((),), ((-1,),)),
    4: (((), (-2, -1)), ((-1,), (-2,))),
    8: (EVERY_FLIP, EVERY_FLIP),
}


def predict_views(model: nn.Module, images: Tensor, views: int, others: Tensor | None = None) -> Tensor:
    """Images (N, 3, H, W) -> probabilities in [0, 1] of every view, float32 (views, N, H, W).

    Of a network of several outputs float32 (views, N, outputs, H, W).

    With several `views` (test-time augmentation), see `VIEWS`, half of them are transposed: those of `others`,
    if given. The caller sets evaluation mode, inference mode and autocast.
    """
    import torch

    def view(images: Tensor, dims: tuple[int, ...]) -> Tensor:
        flipped = images.flip(dims).contiguous(memory_format=torch.channels_last)
        return model(flipped).float().sigmoid().flip(dims).squeeze(1)

    upright, transposed = VIEWS[views]
    turned = (images if others is None else others).mT
    return torch.stack(
        [view(images, dims) for dims in upright] + [view(turned, dims).mT for dims in transposed]
    )


def predict(model: nn.Module, images: Tensor, views: int = 1) -> Tensor:
    """The mean of `predict_views`: images (N, 3, H, W) -> probabilities in [0, 1], float32 (N, H, W)."""
    return predict_views(model, images, views).mean(dim=0)


def segment(
    model: Network, photograph: np.ndarray, fov: np.ndarray, views: int = 1, scale: float = 1.0
) -> np.ndarray:
    """Predict one photograph; a large one in tiles without visible seams.

    Args:
        model: in evaluation mode, on the device to use.
        photograph: uint8 (H, W, 3) RGB.
        fov: field of view, uint8 (H, W), 0 or 255.
        views: 1, 2, 4 or 8 flips and turns that are averaged, see `VIEWS`.
        scale: factor by which the photograph is resized for the network; see `prediction.scale`.

    Returns:
        Probability of vessel in [0, 1], float32 (H, W), 0 outside the field of view; of a network of several
        outputs (outputs, H, W), see `outputs_of`.
    """
    if scale == 1:
        return segment_copy(model, photograph, fov, views)
    copy = rescale(Eye("", photograph, fov), scale)
    small = segment_copy(model, copy.image, copy.fov, views)
    probability = np.zeros((*small.shape[:-2], *fov.shape), np.float32)
    planes = probability.reshape(-1, *fov.shape)
    for plane, part in zip(planes, small.reshape(-1, *copy.fov.shape), strict=True):
        cv2.copyTo(cv2.resize(part, fov.shape[::-1]), fov, plane)
    return probability


def outputs_of(model: Network, probability: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The name of each output of a network and its probability, float32 (H, W), from that of `segment`."""
    yield from zip(model.outputs, probability.reshape(-1, *probability.shape[-2:]), strict=True)


def segment_copy(model: Network, photograph: np.ndarray, fov: np.ndarray, views: int) -> np.ndarray:
    """The mean of the views of a photograph at the network's scale; see `segment`."""
    import torch

    device = next(model.parameters()).device
    copies = [photograph]
    if model.clahe and fov.any():  # half of the views with even contrast, or one with half of it
        even = equalize(photograph, fov)
        copies = [photograph, even] if views > 1 else [cv2.addWeighted(photograph, 0.5, even, 0.5, 0)]
    measured = [statistics(each, fov) for each in copies]
    number = len(model.outputs)
    probability = np.zeros(fov.shape if number == 1 else (number, *fov.shape), np.float32)
    for tile, around, inner in tiles(fov.shape, model.grid, model.margin):
        if not fov[tile].any():
            continue
        batches = []
        for each, (mean, std) in zip(copies, measured, strict=True):
            image = torch.from_numpy(normalize(each[around], fov[around], mean, std))[None]
            batches.append(image.to(device, memory_format=torch.channels_last))
        with model.turn, torch.inference_mode(), autocast(device):
            seen = predict_views(model, batches[0], views, batches[-1])[:, 0, ..., inner[0], inner[1]]
            probability[..., tile[0], tile[1]] = seen.mean(dim=0).cpu().numpy()
    return probability * (fov > 0)


def tiles(shape: tuple[int, ...], grid: int, margin: int) -> Iterator[tuple[tuple[slice, slice], ...]]:
    """Cut (H, W) into tiles that the network predicts exactly as it would predict the whole.

    Args:
        shape: H and W.
        grid: side in pixels of the squares that the network pools.
        margin: pixels of context around a tile, a multiple of `grid`.

    Yields:
        Slices of the tile in the whole, of the tile with its context in the whole, and of the tile in that.
    """
    most = max(TILE - 2 * margin, margin)  # a tile much smaller than its margin would waste time

    def cut(length: int) -> list[tuple[slice, slice, slice]]:
        if length <= TILE:
            return [(slice(length), slice(length), slice(length))]
        # all about as large: the largest one decides how much memory is needed
        step = -(-length // -(-length // most) // grid) * grid
        pieces = []
        for start in range(0, length, step):
            stop = min(start + step, length)
            # pooling must group the pixels as in the whole: from its start, and in a flipped view from its end
            low, high = max(start - margin, 0), min(start + step + margin + length % grid, length)
            pieces.append((slice(start, stop), slice(low, high), slice(start - low, stop - low)))
        return pieces

    for rows in cut(shape[0]):
        for columns in cut(shape[1]):
            yield tuple(zip(rows, columns, strict=True))


def binarize(levels: np.ndarray, fov: np.ndarray, threshold: float) -> np.ndarray:
    """Threshold probability levels, uint16 (H, W), to a vessel mask, uint8 (H, W), 0 or 255."""
    return ((levels >= metrics.level_of(threshold)) & (fov > 0)).view(np.uint8) * np.uint8(255)
