"""How sure a segmentation is: the chance that a pixel is wrong, the F1 to expect, the spread of the views."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from measures.vessels import SPREADS, measure
from scoring import metrics

if TYPE_CHECKING:
    import torch

SMALL = 548  # pixels across the field of view in the copies of the views that are measured
MEASURED = 2  # of the views at a scale, each so many-th is measured: all would double the time for little
UNSURE = 0.25  # chance of being wrong from which a vessel pixel counts as uncertain


@dataclass
class ViewsAtScale:
    """The views of a photograph at one scale."""

    fov: np.ndarray  # field of view there, uint8 (H, W), 0 or 255
    counts: np.ndarray | int = 0  # int (views,), vessel pixels of each
    pixels: int = 0  # in the field of view
    levels: np.ndarray | None = None  # probability of those measured, if there are several: uint16 (n, H, W)


@dataclass
class Views:
    """Collects the views of a photograph while it is segmented, tile by tile, at the network's scales."""

    threshold: float
    scales: list[ViewsAtScale] = field(default_factory=list)

    def begin(self, fov: np.ndarray) -> None:
        """Begin a scale: the field of view there, uint8 (H, W), 0 or 255."""
        self.scales.append(ViewsAtScale(fov))

    def add(self, views: torch.Tensor, tile: tuple[slice, ...]) -> None:
        """Add a tile of the scale: its probabilities (views, h, w), and its place in the field of view."""
        import torch

        scale = self.scales[-1]
        inside = torch.from_numpy(scale.fov[tile] > 0).to(views.device)
        scale.counts = scale.counts + ((views >= self.threshold) & inside).sum(dim=(1, 2)).cpu().numpy()
        scale.pixels += int(inside.sum())
        if len(views) > 1:
            measured = views[::MEASURED]
            if scale.levels is None:
                scale.levels = np.zeros((len(measured), *scale.fov.shape), np.uint16)
            place = (slice(None), *tile)
            scale.levels[place] = metrics.quantize((measured * inside).cpu().numpy())

    def spread(self) -> float:
        """Standard deviation of the vessel share over the views; NaN of a single view."""
        seen = [scale for scale in self.scales if scale.pixels]
        shares = [share for scale in seen for share in np.ravel(scale.counts) / scale.pixels]
        return float(np.std(shares, ddof=1)) if len(shares) > 1 else float("nan")

    def spreads(self, diameter: float, height: int) -> dict[str, float]:
        """Standard deviation over half of the views of each of `measures.SPREADS`, under the name with `_sd`.

        Each is measured on a copy whose field of view is as wide as in the photograph, and at most `SMALL`
        pixels: all eight at full size would take a tenth of the prediction's time and more.

        Args:
            diameter: of the whole field of view in the photograph, pixels.
            height: of the photograph, pixels.

        Returns:
            NaN where fewer than two views have the measure; empty of a single view.
        """
        rows = []
        for scale in self.scales:
            own = diameter * scale.fov.shape[0] / height
            for view in scale.levels if scale.levels is not None else ():
                rows.append(measure(view, scale.fov, self.threshold, None, own, min(SMALL, diameter)))
        if not rows:
            return {}
        found = {}
        for name in SPREADS:
            values = np.array([row[name] for row in rows])
            values = values[np.isfinite(values)]
            found[f"{name}_sd"] = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
        return found


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
        `expected_f1`, the F1 to expect if the probabilities are right (to first order: twice the
        expected true positives over vessels found plus vessels expected); `uncertain_vessels`, the share of the
        vessel pixels that are wrong with a chance of at least a quarter; `vessel_share_sd`, the standard
        deviation of the vessel share over the views. NaN where there is nothing to be sure of.
    """
    counts = metrics.count_levels(levels, mask, fov)
    inside, found = counts.sum(axis=0), counts[1]
    # as they are: a calibration fitted on other cameras makes them worse (docs/measures.md)
    chance = np.arange(metrics.LEVELS) / (metrics.LEVELS - 1)
    vessels = float(found.sum())
    expected = float(inside @ chance) + vessels
    return {
        "expected_f1": 2 * float(found @ chance) / expected if expected > 1e-9 else float("nan"),
        "uncertain_vessels": float(found @ (chance < 1 - UNSURE)) / vessels if vessels else float("nan"),
        "vessel_share_sd": views.spread(),
    }
