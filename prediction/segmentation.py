"""Photograph to vessel probability, whole or in tiles, at the network's scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from datasets.eyes import Eye, rescale
from datasets.images import equalize, normalize, statistics
from scoring import metrics
from system.devices import autocast

if TYPE_CHECKING:
    from torch import Tensor, nn

    from measures.uncertainty import Views
    from model import Network


TILE = 1024  # side in pixels of the largest piece that passes through the network at once
FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))  # unchanged, left-right, upside down, both


def predict_views(
    model: nn.Module,
    images: Tensor,
    tta: bool = False,
    others: Tensor | None = None,
    flips: Sequence[tuple[int, ...]] = FLIPS,
) -> Tensor:
    """Images (N, 3, H, W) -> probabilities in [0, 1] of every view, float32 (views, N, H, W).

    With `tta` (test-time augmentation) there are eight views: four `flips` of the image and of its transpose
    (that of `others`, if given); else one. The caller sets evaluation mode, inference mode and autocast.
    """
    import torch

    def view(images: Tensor, dims: tuple[int, ...]) -> Tensor:
        flipped = images.flip(dims).contiguous(memory_format=torch.channels_last)
        return model(flipped).float().sigmoid().flip(dims)[:, 0]

    if not tta:
        return view(images, ())[None]
    turned = (images if others is None else others).mT
    return torch.stack([view(images, dims) for dims in flips] + [view(turned, dims).mT for dims in flips])


def predict(model: nn.Module, images: Tensor, tta: bool = False) -> Tensor:
    """The mean of `predict_views`: images (N, 3, H, W) -> probabilities in [0, 1], float32 (N, H, W)."""
    return predict_views(model, images, tta).mean(dim=0)


def segment(
    model: Network,
    photograph: np.ndarray,
    fov: np.ndarray,
    tta: bool = False,
    scale: float | Sequence[float] = 1.0,
    views: Views | None = None,
) -> np.ndarray:
    """Predict one photograph; a large one in tiles without visible seams.

    Args:
        model: in evaluation mode, on the device to use.
        photograph: uint8 (H, W, 3) RGB.
        fov: field of view, uint8 (H, W), 0 or 255.
        tta: average eight views, see `predict_views`.
        scale: factor by which the photograph is resized for the network, or several that share the eight views
            (one view has the first); see `prediction.scale`.
        views: collects the views, if given.

    Returns:
        Probability of vessel in [0, 1], float32 (H, W), 0 outside the field of view.
    """
    scales = scale if isinstance(scale, Sequence) else (scale,)
    parts = []
    for k, factor in enumerate(scales if tta else scales[:1]):
        eye = Eye("", photograph, fov)
        copy = eye if factor == 1 else rescale(eye, factor)
        probability = segment_copy(model, copy.image, copy.fov, tta, FLIPS[k :: len(scales)], views)
        if factor != 1:
            probability = cv2.resize(probability, fov.shape[::-1], interpolation=cv2.INTER_LINEAR)
        parts.append(probability)
    whole = parts[0] if len(parts) == 1 else np.mean(parts, axis=0)
    return np.multiply(whole, fov > 0, out=whole)


def segment_copy(
    model: Network,
    photograph: np.ndarray,
    fov: np.ndarray,
    tta: bool,
    flips: Sequence[tuple[int, ...]],
    views: Views | None,
) -> np.ndarray:
    """The mean of the views in these flips of a photograph at the network's scale; see `segment`."""
    import torch

    device = next(model.parameters()).device
    copies = [photograph]
    if model.clahe and fov.any():  # half of the views with even contrast, or one with half of it
        even = equalize(photograph, fov)
        copies = [photograph, even] if tta else [cv2.addWeighted(photograph, 0.5, even, 0.5, 0)]
    measured = [statistics(each, fov) for each in copies]
    probability = np.zeros(fov.shape, np.float32)
    if views is not None:
        views.begin(fov)
    for tile, around, inner in tiles(fov.shape, model.grid, model.margin):
        if not fov[tile].any():
            continue
        batches = []
        for each, (mean, std) in zip(copies, measured, strict=True):
            image = torch.from_numpy(normalize(each[around], fov[around], mean, std))[None]
            batches.append(image.to(device, memory_format=torch.channels_last))
        with torch.inference_mode(), autocast(device):
            seen = predict_views(model, batches[0], tta, batches[-1], flips)[:, 0, inner[0], inner[1]]
            probability[tile] = seen.mean(dim=0).cpu().numpy()
        if views is not None:
            views.add(seen, tile)
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
