"""How sure a segmentation is: the chance that a pixel is wrong, the F1 to expect."""

from __future__ import annotations

import numpy as np

from datasets.images import SHOWN_SIDE
from scoring import metrics

UNSURE = 0.25  # chance of being wrong from which a vessel pixel counts as uncertain


def uncertainty(levels: np.ndarray) -> np.ndarray:
    """How uncertain each pixel is, uint8 (H, W): 0 sure, 255 as likely vessel as not.

    It is the mean probability of the views, or with a single view its own, that says so, by its distance from
    one half: on eyes held out it finds more of the wrong pixels than the spread of the views does
    (docs/measures.md).
    """
    half = np.minimum(np.arange(metrics.LEVELS), np.arange(metrics.LEVELS)[::-1]) / (metrics.LEVELS / 2 - 1)
    return np.rint(255 * half.clip(0, 1)).astype(np.uint8)[levels]


def confidence(levels: np.ndarray, mask: np.ndarray, fov: np.ndarray) -> dict[str, float]:
    """How sure the segmentation of one photograph is.

    Args:
        levels: probability, uint16 (H, W).
        mask: vessels, and `fov`, the field of view: uint8 (H, W), 0 or 255 each.

    Returns:
        `expected_f1`, the F1 to expect if the probabilities are right (to first order: twice the
        expected true positives over vessels found plus vessels expected); `uncertain_vessels`, the share of the
        vessel pixels that are wrong with a chance of at least a quarter. NaN where there is nothing to be
        sure of. Of a large photograph every second or third row and column counts, which is enough for shares.
    """
    step = max(1, round(max(levels.shape) / SHOWN_SIDE))
    counts = metrics.count_levels(*(each[::step, ::step] for each in (levels, mask, fov)))
    inside, found = counts.sum(axis=0), counts[1]
    # as they are: a calibration fitted on other cameras makes them worse (docs/measures.md)
    chance = np.arange(metrics.LEVELS) / (metrics.LEVELS - 1)
    vessels = float(found.sum())
    expected = float(inside @ chance) + vessels
    return {
        "expected_f1": 2 * float(found @ chance) / expected if expected > 1e-9 else float("nan"),
        "uncertain_vessels": float(found @ (chance < 1 - UNSURE)) / vessels if vessels else float("nan"),
    }
