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
from measures.vessels import Vessels, prepare
from prediction.segmentation import binarize, segment

if TYPE_CHECKING:
    from model import Network

KINDS_VIEWS = 2  # more would cost more than they gain: each segment is a mean already


@dataclass(frozen=True)
class Kinds:
    """Arteries and veins of a photograph; all arrays have its height and width."""

    artery: np.ndarray  # probability, uint8 (H, W), 255 is 1
    vein: np.ndarray
    pixels: np.ndarray  # kinds of the vessel pixels, uint8 (H, W), as of `label_vessels`
    vessels: Vessels  # whose kinds these are

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """Arteries and veins, uint8 (H, W), 0 or 255 each; a crossing is in both, what is undecided in none."""
        arteries, veins = map(as_mask, split_kinds(self.pixels))
        return {"arteries": arteries, "veins": veins}

    @property
    def pictures(self) -> dict[str, np.ndarray]:
        """`masks`, and the probabilities, by the folder where results have them."""
        return self.masks | {"probability_arteries": self.artery, "probability_veins": self.vein}


def find_kinds(
    network: Network, taken: Photograph, levels: np.ndarray, threshold: float, factor: float
) -> Kinds:
    """Tell arteries from veins by a network of these, which sees the photograph resized by `factor`.

    `levels` are of the probability of vessel, uint16 (H, W); from `threshold` on, in [0, 1], it is one.
    """
    both = segment(network, taken.pixels, taken.fov, KINDS_VIEWS, factor)
    artery, vein = (cv2.convertScaleAbs(part, alpha=255) for part in both)
    return label_kinds(artery, vein, taken, levels, threshold)


def label_kinds(
    artery: np.ndarray, vein: np.ndarray, taken: Photograph, levels: np.ndarray, threshold: float
) -> Kinds:
    """Arteries and veins at a threshold, from their probabilities as `Kinds` has them; else as `find_kinds`."""
    vessels = prepare(levels, taken.fov, threshold, taken.diameter)
    mask = binarize(levels, taken.fov, threshold)
    return Kinds(artery, vein, label_vessels(vessels, mask, artery, vein), vessels)
