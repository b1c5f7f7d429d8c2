"""One photograph to probability, mask and measures: what predict.py, app.py and torch.hub share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from anatomy.cameras import Cameras
from anatomy.photograph import DIAMETER_FLAG, Photograph, look_at
from datasets.images import read_image, reduced
from datasets.kinds import split_kinds
from datasets.masks import as_mask
from measures.arteries_veins import ArteriesVeins, measure_kinds
from measures.doubts import confidence, doubts, features
from measures.segments import label_vessels
from measures.table import anatomy_columns
from measures.vessels import Vessels, measure, prepare
from networks.checkpoints import find_weights
from networks.loading import KINDS_WEIGHTS, USUAL_VIEWS, USUAL_WEIGHTS, load_kinds, load_networks
from prediction.scale import Scale, plan_scale
from prediction.segmentation import VIEWS, binarize, segment
from scoring import metrics
from system.devices import free_memory, pick_device
from utils import UserError, path_name

if TYPE_CHECKING:
    from model import Network

KINDS_VIEWS = 2  # more would cost more than they gain: each segment is a mean already
BYTES = 20  # of memory for a pixel at the network's scale: colours twice, in Lab, field of view, probability


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


@dataclass
class Segmentation:
    """A photograph and what was found in it; all arrays have its height and width."""

    taken: Photograph  # with its field of view and landmarks
    levels: np.ndarray  # uint16 (H, W): the probability, as `scoring.metrics.quantize` stores it
    threshold: float  # probability from which a pixel is a vessel
    scale: Scale  # at which the network saw it
    kinds: Kinds | None = None  # arteries and veins at the threshold, if asked for

    @property
    def photograph(self) -> np.ndarray:
        """The photograph, uint8 (H, W, 3) RGB."""
        return self.taken.pixels

    @property
    def fov(self) -> np.ndarray:
        """Field of view, uint8 (H, W), 0 or 255."""
        return self.taken.fov

    @property
    def probability(self) -> np.ndarray:
        """Probability of vessel in [0, 1], float32 (H, W), 0 outside the field of view."""
        return self.levels / np.float32(metrics.LEVELS - 1)

    @cached_property
    def mask(self) -> np.ndarray:
        """Vessel mask, uint8 (H, W), 0 or 255. Set `threshold` for another one."""
        return binarize(self.levels, self.fov, self.threshold)

    @cached_property
    def small_mask(self) -> np.ndarray:
        """The mask, `reduced`."""
        return reduced(self.mask)

    @cached_property
    def vessels(self) -> Vessels:
        """The vessels at the size at which they are measured, whose centre lines are traced once."""
        return prepare(self.levels, self.fov, self.threshold, self.taken.diameter)

    def __setattr__(self, name: str, value: Any) -> None:
        """Another threshold is one for the arteries and veins too; UserError if it is no probability."""
        super().__setattr__(name, as_threshold(value) if name == "threshold" else value)
        if name == "threshold":
            for before in ("mask", "small_mask", "vessels"):
                self.__dict__.pop(before, None)
            if old := self.kinds:
                kinds = label_vessels(self.vessels, self.mask, old.artery, old.vein)
                self.kinds = Kinds(old.artery, old.vein, kinds)

    def examine(self, um_per_pixel: float | None = None) -> dict[str, Any]:
        """Measure the vessels at the threshold, and say how sure they are.

        Returns:
            `doubtful`, the reasons to look at the photograph first, empty if there are none; the figures of
            `doubts.confidence` and `vessels.measure`, `anatomy_columns`, and `scale_from`.
        """
        row = confidence(self.levels, self.mask, self.fov) | measure(self.vessels, um_per_pixel)
        found = features(*self.taken.small, self.small_mask) | {"bordered": float(self.taken.border)}
        found["contradiction"] = self.taken.contradiction
        reasons = {"doubtful": "; ".join(doubts(found, row)), "scale_from": self.scale.scale_from}
        return row | anatomy_columns(self.taken.landmarks, um_per_pixel) | reasons

    def measure_kinds(self, um_per_pixel: float | None = None) -> ArteriesVeins | None:
        """Measures of arteries and veins, see `measures.arteries_veins`; None where they were not asked for."""
        if self.kinds is None:
            return None
        vessels = (self.levels, self.kinds.pixels, self.fov, self.threshold)
        return measure_kinds(*vessels, self.taken.landmarks, um_per_pixel, self.taken.diameter)


def as_threshold(threshold: Any) -> float:
    """A threshold as a number in [0, 1], also of NumPy; UserError if it is none."""
    if isinstance(threshold, bool) or not isinstance(threshold, Real) or not 0 <= float(threshold) <= 1:
        raise UserError(f"threshold {threshold!r}: give a probability, a number from 0 to 1")
    return float(threshold)


def segment_photograph(
    model: Network,
    taken: Photograph,
    threshold: float,
    views: int = USUAL_VIEWS,
    kinds: Network | None = None,
    cameras: Cameras | None = None,
) -> Segmentation:
    """Find the scale of a photograph, and segment it.

    Args:
        model: in evaluation mode, on the device to use.
        taken: the photograph, see `anatomy.photograph.look_at`.
        threshold: probability in [0, 1] that makes a vessel.
        views: 1, 2, 4 or 8 flips and turns that are averaged.
        kinds: network that tells arteries from veins.
        cameras: that are known from other photographs.
    """
    scale = plan_scale(taken, model, cameras)
    check_memory(taken.fov, scale.factor)
    return segment_at(model, taken, scale, threshold, views, kinds)


def segment_at(
    model: Network, taken: Photograph, scale: Scale, threshold: float, views: int, kinds: Network | None = None
) -> Segmentation:
    """Segment a photograph at a scale; arguments as of `segment_photograph`."""
    levels = metrics.quantize(segment(model, taken.pixels, taken.fov, views, scale.factor))
    found = Segmentation(taken, levels, threshold, scale)
    if kinds:
        factor = scale.factor * kinds.diameter / model.diameter
        if kinds.disc and not model.disc:  # the field of view told the scale of the vessels
            factor = plan_scale(taken, kinds).factor
        found.kinds = find_kinds(kinds, taken, found.vessels, found.mask, factor)
    return found


def find_kinds(network: Network, taken: Photograph, vessels: Vessels, mask: np.ndarray, factor: float) -> Kinds:
    """Tell arteries from veins by a network of these, which sees the photograph resized by `factor`.

    `vessels` and `mask` are those found in the photograph, as of `label_vessels`.
    """
    both = segment(network, taken.pixels, taken.fov, KINDS_VIEWS, factor)
    artery, vein = (cv2.convertScaleAbs(part, alpha=255) for part in both)
    return Kinds(artery, vein, label_vessels(vessels, mask, artery, vein))


def check_memory(fov: np.ndarray, scale: float) -> None:
    """Raise UserError if a photograph at the network's scale does not fit into the memory that is free."""
    height, width = (round(side * scale) for side in fov.shape)
    needed, free = height * width * BYTES, free_memory()
    if needed > free:
        raise UserError(
            f"at the network's scale it has {width}x{height} pixels, which take {needed / 1e9:.1f} GB, and "
            f"{free / 1e9:.1f} GB are free; give --diameter, {DIAMETER_FLAG}, or a smaller file"
        )


class Segmenter:
    """Segments photographs of the retina; no labels and no field-of-view files needed.

    Args:
        weights: a checkpoint, or several whose probabilities are averaged; by default those of predict.py.
        threshold: probability in [0, 1] that makes a vessel; by default the checkpoint's.
        views: 1, 2, 4 or 8 flips and turns that are averaged.
        device: auto, cpu, cuda, cuda:1 or mps.
        arteries_veins: tell arteries from veins too; True: with the checkpoint of predict.py, or give another.

    Raises:
        UserError: a checkpoint is missing or unusable, the threshold or number of views none, or the device not
            available.
    """

    def __init__(
        self,
        weights: str | Path | Sequence[str | Path] | None = None,
        threshold: float | None = None,
        views: int = USUAL_VIEWS,
        device: str = "auto",
        arteries_veins: bool | str | Path = False,
    ) -> None:
        if weights is None:
            weights = find_weights(USUAL_WEIGHTS)
        every = weights if isinstance(weights, list | tuple) else [weights]
        if not every or not all(isinstance(path, str | Path) for path in every):
            raise UserError(f"weights {weights!r}: give the path of a checkpoint, or a list of paths")
        self.weights = [path_name(str(path)) for path in every]
        threshold = None if threshold is None else as_threshold(threshold)
        if views not in VIEWS:
            raise UserError(f"views {views!r}: give 1, 2, 4 or 8")
        self.views = views
        self.device = pick_device(device)
        self.model, self.threshold = load_networks(self.weights, threshold, self.device)
        kinds = find_weights(KINDS_WEIGHTS) if arteries_veins is True else arteries_veins
        self.kinds = load_kinds(path_name(str(kinds)) if kinds else None, self.device)

    def __call__(self, photograph: str | Path | np.ndarray) -> Segmentation:
        """Segment one photograph.

        Args:
            photograph: a file, see `datasets.images.read_image`; or uint8 (H, W, 3) RGB.

        Raises:
            UserError: the file cannot be read, or the array is none of a photograph.
        """
        if isinstance(photograph, str | Path):
            image = read_image(path_name(str(photograph)))
        else:
            image = np.ascontiguousarray(photograph)
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                found = f"{image.dtype} {image.shape}"
                raise UserError(f"a photograph is a path or an array, uint8 (H, W, 3) RGB; this is {found}")
        return segment_photograph(self.model, look_at(image), self.threshold, self.views, kinds=self.kinds)
