"""How sure a segmentation is: the chance that a pixel is wrong, the F1 to expect, the spread of the views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from scoring import metrics

if TYPE_CHECKING:
    import torch

# slope and shift of the logits, fitted on eyes of cameras that the networks had not seen: STARE (by a network
# of DRIVE alone) and HRF (of DRIVE and STARE), each counting the same. They stand here, not in a checkpoint:
# the fit on either improves the other as well (docs/measures.md), and a checkpoint has nothing of its own to
# fit them on, being too good on the eyes that trained it.
CALIBRATION = (1.08, -0.52)
UNSURE = 0.25  # chance of being wrong from which a vessel pixel counts as uncertain


@dataclass
class Views:
    """Counts the vessel pixels of each view while a photograph is segmented, tile by tile."""

    threshold: float
    counts: np.ndarray | int = 0  # int (views,), vessel pixels of each
    pixels: int = 0  # in the field of view

    def add(self, views: torch.Tensor, fov: np.ndarray) -> None:
        """Count a tile: probabilities (views, h, w), and its field of view (h, w), 0 or 255."""
        import torch

        inside = torch.from_numpy(fov > 0).to(views.device)
        self.counts = self.counts + ((views >= self.threshold) & inside).sum(dim=(1, 2)).cpu().numpy()
        self.pixels += int(inside.sum())

    def spread(self) -> float:
        """Standard deviation of the vessel share over the views; NaN of a single view."""
        if np.size(self.counts) < 2:
            return float("nan")
        return float(np.std(np.asarray(self.counts) / max(self.pixels, 1), ddof=1))


def calibrate(levels: np.ndarray, calibration: tuple[float, float] = CALIBRATION) -> np.ndarray:
    """Turn probability levels, uint16 of any shape, into calibrated probabilities, float32 in [0, 1].

    A logistic function of the logit (Platt 1999), which keeps the order.
    """
    slope, shift = calibration
    share = np.clip(np.arange(metrics.LEVELS) / (metrics.LEVELS - 1), 1e-5, 1 - 1e-5)
    table = 1 / (1 + np.exp(-(slope * np.log(share / (1 - share)) + shift)))
    table[0] = 0  # outside the field of view
    return table.astype(np.float32)[levels]


def uncertainty(levels: np.ndarray) -> np.ndarray:
    """How uncertain each pixel is, uint8 (H, W): 0 sure, 255 as likely vessel as not.

    It is the mean probability of the views, or with a single view its own, that says so, by its distance from
    one half: on eyes held out it finds more of the wrong pixels than the spread of the views does
    (docs/measures.md).
    """
    half = np.minimum(np.arange(metrics.LEVELS), np.arange(metrics.LEVELS)[::-1]) / (metrics.LEVELS / 2 - 1)
    return np.rint(255 * half.clip(0, 1)).astype(np.uint8)[levels]


def confidence(levels: np.ndarray, mask: np.ndarray, fov: np.ndarray, views: Views) -> dict[str, float]:
    """How sure the segmentation of one photograph is.

    Args:
        levels: probability, uint16 (H, W).
        mask: vessels, uint8 (H, W), 0 or 255.
        fov: field of view, uint8 (H, W), 0 or 255.
        views: the vessel pixels of each view.

    Returns:
        `expected_f1`, the F1 to expect if the calibrated probabilities are right (to first order: twice the
        expected true positives over vessels found plus vessels expected); `uncertain_vessels`, the share of the
        vessel pixels that are wrong with a chance of at least a quarter; `vessel_share_sd`, the standard
        deviation of the vessel share over the views. NaN where there is nothing to be sure of.
    """
    inside, found = histogram(levels, fov), histogram(levels, mask)
    chance = calibrate(np.arange(metrics.LEVELS, dtype=np.uint16)).astype(np.float64)
    vessels = float(found.sum())
    expected = float(inside @ chance) + vessels
    return {
        "expected_f1": 2 * float(found @ chance) / expected if expected > 1e-9 else float("nan"),
        "uncertain_vessels": float(found @ (chance < 1 - UNSURE)) / vessels if vessels else float("nan"),
        "vessel_share_sd": views.spread(),
    }


def histogram(levels: np.ndarray, where: np.ndarray) -> np.ndarray:
    """How often each level, uint16 (H, W), occurs where `where`, uint8 (H, W), is not 0: float64 (65536,)."""
    counts = cv2.calcHist([levels], [0], where, [metrics.LEVELS], [0, metrics.LEVELS])
    return counts.ravel().astype(np.float64)  # (65536, 1) before OpenCV 5
