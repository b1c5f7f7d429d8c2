"""One object that segments a photograph: from Python and through torch.hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.field_of_view import drive_scale, estimate_fov
from datasets.images import read_image
from prediction.checkpoints import find_weights
from prediction.networks import USUAL_WEIGHTS, load_networks
from prediction.segmentation import binarize, segment
from scoring import metrics
from system.devices import pick_device
from utils import UserError


@dataclass
class Segmentation:
    """A photograph and what was found in it; all arrays have its height and width."""

    photograph: np.ndarray  # uint8 (H, W, 3) RGB
    levels: np.ndarray  # uint16 (H, W): the probability, as `scoring.metrics.quantize` stores it
    fov: np.ndarray  # field of view, uint8 (H, W), 0 or 255
    threshold: float  # probability from which a pixel is a vessel

    @property
    def probability(self) -> np.ndarray:
        """Probability of vessel in [0, 1], float32 (H, W), 0 outside the field of view."""
        return self.levels / np.float32(metrics.LEVELS - 1)

    @property
    def mask(self) -> np.ndarray:
        """Vessel mask, uint8 (H, W), 0 or 255. Set `threshold` for another one."""
        return binarize(self.levels, self.fov, self.threshold)


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
        fov = estimate_fov(image)
        scale = drive_scale(fov, self.model.diameter)
        levels = metrics.quantize(segment(self.model, image, fov, self.tta, scale))
        return Segmentation(image, levels, fov, self.threshold)
