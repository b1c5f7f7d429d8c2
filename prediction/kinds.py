"""Which of the vessels that were found are arteries, and which veins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from anatomy.photograph import Photograph
from datasets.kinds import split_kinds
from datasets.masks import as_mask
from measures.segments import label_vessels
from measures.vessels import Vessels
from prediction.segmentation import segment

if TYPE_CHECKING:
    from model import Network

KINDS_VIEWS = 2  # more would cost more than they gain: each segment is a mean already


@dataclass(frozen=True)
class Kinds:
    """Arteries and veins of a photograph; all arrays have its height and width."""

    artery: np.ndarray  # probability, uint8 (H, W), 255 is 1
    vein: np.ndarray
    pixels: np.ndarray  # kinds of the vessel pixels, uint8 (H, W), as of `label_vessels`

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """Arteries and veins, uint8 (H, W), 0 or 255 each; a crossing is in both, what is undecided in none."""
        arteries, veins = map(as_mask, split_kinds(self.pixels))
        return {"arteries": arteries, "veins": veins}

    @property
    def pictures(self) -> dict[str, np.ndarray]:
        """`masks`, and the probabilities, by the folder where results have them."""
        return self.masks | {"probability_arteries": self.artery, "probability_veins": self.vein}


def find_kinds(network: Network, taken: Photograph, vessels: Vessels, mask: np.ndarray, factor: float) -> Kinds:
    """Tell arteries from veins by a network of these, which sees the photograph resized by `factor`.

    `vessels` and `mask` are those found in the photograph, as of `label_vessels`.
    """
    both = segment(network, taken.pixels, taken.fov, KINDS_VIEWS, factor)
    artery, vein = (cv2.convertScaleAbs(part, alpha=255) for part in both)
    return Kinds(artery, vein, label_vessels(vessels, mask, artery, vein))
