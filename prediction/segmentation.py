"""Photograph to vessel probability: whole or in tiles, at the scale the network was trained at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import cv2
import numpy as np

from data import Eye, rescale
from datasets.images import normalize, statistics
from scoring import metrics
from system.devices import autocast

if TYPE_CHECKING:
    from model import Network


TILE = 1024  # pixels each way of the largest piece that goes through the network at once


def segment(
    model: Network, photograph: np.ndarray, fov: np.ndarray, tta: bool = False, scale: float = 1.0
) -> np.ndarray:
    """Predict one photograph: whole, or in tiles without visible seams where it is large.

    Args:
        model: in evaluation mode, on the device to use.
        photograph: uint8 (H, W, 3) RGB.
        fov: field of view, uint8 (H, W), 0 or 255.
        tta: average eight views, see `model.predict`.
        scale: the network sees a copy this many times as large; see `datasets.field_of_view.drive_scale`.

    Returns:
        Probability of vessel in [0, 1], float32 (H, W), 0 outside the field of view.
    """
    import torch

    from model import predict

    if scale != 1:
        copy = rescale(Eye("", photograph, fov), scale)
        probability = segment(model, copy.image, copy.fov, tta)
        return cv2.resize(probability, fov.shape[::-1], interpolation=cv2.INTER_LINEAR) * (fov > 0)

    device = next(model.parameters()).device
    mean, std = statistics(photograph, fov)
    probability = np.zeros(fov.shape, np.float32)
    for tile, around, inner in tiles(fov.shape, model.grid, model.margin):
        if not fov[tile].any():
            continue
        image = normalize(photograph[around], fov[around], mean, std)
        batch = torch.from_numpy(image)[None].to(device, memory_format=torch.channels_last)
        with torch.inference_mode(), autocast(device):
            probability[tile] = predict(model, batch, tta)[0].cpu().numpy()[inner]
    return probability * (fov > 0)


def tiles(shape: tuple[int, ...], grid: int, margin: int) -> Iterator[tuple[tuple[slice, slice], ...]]:
    """Cut (H, W) into tiles that a network predicts as it would predict the whole.

    Args:
        shape: H and W.
        grid: pixels of the squares that the network pools.
        margin: pixels that it must see around a tile, a multiple of `grid`.

    Yields:
        The tile's place in the whole, the place of the tile with what the network must see around it, and
        the tile's place in that.
    """
    step = max(TILE - 2 * margin, margin)  # a tile much smaller than its margin would waste the work

    def cut(length: int) -> list[tuple[slice, slice, slice]]:
        if length <= TILE:
            return [(slice(length), slice(length), slice(length))]
        pieces = []
        for start in range(0, length, step):
            stop = min(start + step, length)
            # pooling must meet the pixels in the same groups as in the whole: counted from its start, and in a
            # flipped view from its end
            low, high = max(start - margin, 0), min(start + step + margin + length % grid, length)
            pieces.append((slice(start, stop), slice(low, high), slice(start - low, stop - low)))
        return pieces

    for rows in cut(shape[0]):
        for columns in cut(shape[1]):
            yield tuple(zip(rows, columns, strict=True))


def binarize(levels: np.ndarray, fov: np.ndarray, threshold: float) -> np.ndarray:
    """Probability levels uint16 (H, W) to vessel mask uint8 (H, W), 0 or 255; 0 outside the field of view."""
    return np.where((levels >= metrics.level_of(threshold)) & (fov > 0), 255, 0).astype(np.uint8)
