"""One photograph to probability, mask and measures: what predict.py, app.py and torch.hub share."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets.field_of_view import estimate_fov, scale_of, whole_diameter
from datasets.images import read_image
from measures.table import examine
from measures.uncertainty import Views
from networks.checkpoints import find_weights
from networks.loading import USUAL_WEIGHTS, load_networks
from prediction.segmentation import binarize, segment
from scoring import metrics
from system.devices import pick_device
from utils import UserError

if TYPE_CHECKING:
    from model import Network


@dataclass
class Segmentation:
    """A photograph and what was found in it; all arrays have its height and width."""

    photograph: np.ndarray  # uint8 (H, W, 3) RGB
    levels: np.ndarray  # uint16 (H, W): the probability, as `scoring.metrics.quantize` stores it
    fov: np.ndarray  # field of view, uint8 (H, W), 0 or 255
    threshold: float  # probability from which a pixel is a vessel
    diameter: float  # of the whole field of view, pixels
    border: bool  # whether that is known, because its border shows or the user said so; else a guess
    scales: tuple[float, ...]  # by which the network saw it: in all of the views, or in each half of them
    views: Views  # the vessel pixels of each view, at the threshold of the prediction

    @property
    def probability(self) -> np.ndarray:
        """Probability of vessel in [0, 1], float32 (H, W), 0 outside the field of view."""
        return self.levels / np.float32(metrics.LEVELS - 1)

    @property
    def mask(self) -> np.ndarray:
        """Vessel mask, uint8 (H, W), 0 or 255. Set `threshold` for another one."""
        return binarize(self.levels, self.fov, self.threshold)

    def examine(self, um_per_pixel: float | None = None) -> dict[str, Any]:
        """Measures and doubts at the threshold, see `examination.examine`.

        The spread of the views is NaN where the threshold is no longer that of the prediction.
        """
        views = self.views if self.threshold == self.views.threshold else Views(self.threshold)
        found = (self.photograph, self.fov, self.levels, self.mask)
        return examine(*found, views, self.diameter, self.border, um_per_pixel)


def segment_photograph(
    model: Network,
    photograph: np.ndarray,
    threshold: float,
    tta: bool = True,
    diameter: float | None = None,
    turn: contextlib.AbstractContextManager[Any] | None = None,
) -> Segmentation:
    """Find the field of view and the scale of a photograph, and segment it.

    Args:
        model: in evaluation mode, on the device to use.
        photograph: uint8 (H, W, 3) RGB.
        threshold: probability in [0, 1] that makes a vessel.
        tta: average eight flips and turns.
        diameter: of the whole field of view in pixels; None: found in the photograph.
        turn: is held while the network works.
    """
    fov = estimate_fov(photograph)
    border = diameter is not None or not fov.all()
    diameter = diameter or whole_diameter(fov, model.diameter)
    scales = model.scales(scale_of(diameter, model.diameter))
    views = Views(threshold)
    with turn or contextlib.nullcontext():
        probability = segment(model, photograph, fov, tta, scales, views)
    levels, seen = metrics.quantize(probability), scales[: len(views.scales)]
    return Segmentation(photograph, levels, fov, threshold, diameter, border, seen, views)


class Segmenter:
    """Segments photographs of the retina; no labels and no field-of-view files needed.

    Args:
        weights: a checkpoint, or several whose probabilities are averaged; by default those of predict.py.
        threshold: probability in [0, 1] that makes a vessel; by default the checkpoint's.
        tta: average eight flips and turns.
        device: auto, cpu, cuda, cuda:1 or mps.

    Raises:
        UserError: a checkpoint is missing or unusable, or the device is not available.
    """

    def __init__(
        self,
        weights: Path | Sequence[Path] | None = None,
        threshold: float | None = None,
        tta: bool = True,
        device: str = "auto",
    ) -> None:
        if weights is None:
            weights = find_weights(USUAL_WEIGHTS)
        self.weights = [weights] if isinstance(weights, Path) else list(weights)
        self.tta = tta
        self.device = pick_device(device)
        self.model, self.threshold = load_networks(self.weights, threshold, self.device)

    def __call__(self, photograph: str | Path | np.ndarray) -> Segmentation:
        """Segment one photograph.

        Args:
            photograph: a file, see `datasets.images.read_image`; or uint8 (H, W, 3) RGB.

        Raises:
            UserError: the file cannot be read, or the array is none of a photograph.
        """
        if isinstance(photograph, str | Path):
            image = read_image(Path(photograph))
        else:
            image = np.ascontiguousarray(photograph)
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                found = f"{image.dtype} {image.shape}"
                raise UserError(f"a photograph is a path or an array, uint8 (H, W, 3) RGB; this is {found}")
        return segment_photograph(self.model, image, self.threshold, self.tta)
