"""Find the optic disc and the fovea of a photograph.

A small network looks at the whole field of view, as it is and with even contrast, and where it is not sure also
at the mirror images of both: what it takes for a disc in one of them is a candidate. It looks again at a square
of three disc diameters around each, which measures the disc at the same scale in every camera and tells it from
an exudate.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from anatomy.windows import SIDE, Window, network_input, window_around
from datasets.images import equalize
from networks.checkpoints import load_checkpoint
from system.devices import autocast

if TYPE_CHECKING:
    import torch

    from model import Network

PLACES = ("disc_x", "disc_y", "disc_diameter", "fovea_x", "fovea_y")  # of `Landmarks`, in pixels
OUTPUTS = ("disc", "fovea")  # channels of the network
WEIGHTS = Path(__file__).resolve().parent.parent / "files" / "anatomy.pth"
CLOSE = 3.0  # disc diameters that the second look shows
CERTAIN = 0.45  # what is less certain counts as not there
SURE = 0.7  # beside what is so certain no other candidate is looked at, nor mirror images
AS_BEFORE = 0.9  # agreement of two looks from which a third says nothing new
RIM, WHOLE = 1.2, 0.93  # a disc is whole where so much of a circle so many times as large is in the field
CANDIDATES = 4  # areas of the first look that get others, at most
LEAST_PROBABILITY = 0.2  # of a candidate in one of the first looks
FOVEA_INSIDE = 0.4  # disc diameters from the border of the field of view
# grey levels of green; 95 of 100 foveas of IDRiD, STARE and CHASE_DB1 are darker by more than that
FOVEA_DARKER = 1.5
FOVEA_FROM_DISC = (1.5, 3.7)  # disc diameters between their centres; 1.9 to 2.9 in 413 eyes of IDRiD


@dataclass(frozen=True)
class Landmarks:
    """Disc and fovea in pixels of the photograph; NaN where there is none to be seen."""

    disc_x: float
    disc_y: float
    disc_diameter: float  # of a circle of the disc's area; NaN too where the border cuts the disc
    disc_certainty: float  # 0 to 1, also of what was too uncertain to be given
    fovea_x: float
    fovea_y: float
    fovea_certainty: float

    @property
    def side(self) -> str:
        """Of an upright photograph: 'right' or 'left' eye, '' where disc or fovea is missing.

        The disc lies on the side of the nose: of a right eye, right of the fovea.
        """
        across, down = self.disc_x - self.fovea_x, self.disc_y - self.fovea_y
        if not abs(across) > abs(down):  # also where one is NaN
            return ""
        return "right" if across > 0 else "left"


@dataclass(frozen=True)
class Disc:
    """A disc in a window."""

    window: Window
    mask: np.ndarray  # uint8 (SIDE, SIDE), 0 or 255
    x: float  # of the photograph, as the next two
    y: float
    diameter: float
    whole: bool  # the field of view shows all of it and a rim around it
    certainty: float


@functools.cache
def load_anatomy(path: Path = WEIGHTS) -> Network:
    """The network of a checkpoint, (N, 3, H, W) -> (N, 2, H, W) logits of disc and fovea, loaded once.

    Raises:
        UserError: as `load_checkpoint`.
    """
    import torch

    from model import fold_batch_norm

    network, _ = load_checkpoint(path, torch.device("cpu"), OUTPUTS)
    return fold_batch_norm(network)


def find_landmarks(photograph: np.ndarray, fov: np.ndarray, network: Network | None = None) -> Landmarks:
    """Find the optic disc and the fovea.

    Args:
        photograph: uint8 (H, W, 3) RGB of any size.
        fov: field of view, uint8 (H, W), 0 or 255, not empty.
        network: of `load_anatomy`; by default the shipped one, on the CPU.

    Raises:
        UserError: the shipped weights are missing or damaged.
    """
    network = network or load_anatomy()
    whole = window_around(fov)
    disc, certainty, maps = find_disc(photograph, fov, network, whole)
    fovea_map, seen = maps[:, 1].mean(axis=0), whole.cut_fov(fov)
    fovea_x, fovea_y, fovea_certainty = find_fovea(whole, fovea_map, seen, disc, photograph)
    # what the network makes of a disc that is cut is a place, but no measure
    diameter = disc.diameter if disc and disc.whole else math.nan
    place = (disc.x, disc.y, diameter) if disc else (math.nan,) * 3
    return Landmarks(*place, certainty, fovea_x, fovea_y, fovea_certainty)


def look(
    photograph: np.ndarray, fov: np.ndarray, window: Window, network: Network, mirrored: bool = False
) -> np.ndarray:
    """Probabilities of disc and fovea in a window; 0 where it shows nothing of the field of view.

    A disc goes on beyond the field of view, a fovea does not.

    Returns:
        float32 (2, 2, SIDE, SIDE): seen as it is and with even contrast, or in the mirror images of both.
    """
    import torch

    field, pixels = window.cut_fov(fov), window.cut(photograph)
    if not field.any():
        return np.zeros((2, len(OUTPUTS), SIDE, SIDE), np.float32)
    inputs = np.stack([network_input(view, field) for view in (pixels, equalize(pixels, field))])
    inputs = np.ascontiguousarray(inputs[..., ::-1]) if mirrored else inputs
    device: torch.device = next(network.parameters()).device
    with torch.inference_mode(), autocast(device):
        logits = network(torch.from_numpy(inputs).to(device).contiguous(memory_format=torch.channels_last))
    probabilities = logits.float().sigmoid().cpu().numpy()
    probabilities = np.ascontiguousarray(probabilities[..., ::-1]) if mirrored else probabilities
    probabilities[:, 1] *= field > 0
    return probabilities


def find_disc(
    photograph: np.ndarray, fov: np.ndarray, network: Network, whole: Window
) -> tuple[Disc | None, float, np.ndarray]:
    """The disc, None where none is certain, and how certain the best candidate is, 0 to 1.

    The third is what the looks at the `whole` field of view showed, as of `look`: float32 (V, 2, SIDE, SIDE).
    """
    maps = look(photograph, fov, whole, network)
    best, certainty = best_candidate(photograph, fov, network, whole, maps)
    if certainty <= SURE:
        maps = np.concatenate([maps, look(photograph, fov, whole, network, mirrored=True)])
        best, certainty = best_candidate(photograph, fov, network, whole, maps)
    return (best if certainty >= CERTAIN else None), certainty, maps


def best_candidate(
    photograph: np.ndarray, fov: np.ndarray, network: Network, whole: Window, maps: np.ndarray
) -> tuple[Disc | None, float]:
    """What of the first looks is most certainly a disc when it is looked at again, and how certain, 0 to 1."""
    probability, seen = maps[:, 0].max(axis=0), whole.cut_fov(fov)
    best, certainty = None, 0.0
    for mask in areas(probability, seen)[:CANDIDATES]:
        disc = read_disc(whole, mask, probability, seen)
        agreed = disc.certainty  # what is a disc from near alone, such as an exudate, is none
        for _ in range(2):  # again where the look before had the wrong size
            again = look_closer(photograph, fov, network, disc)
            agrees = agreement(disc, again) if again else 0.0
            agreed *= agrees
            disc = again or disc
            if not again or agrees > AS_BEFORE:
                break
        if agreed * disc.certainty > certainty:
            best, certainty = disc, agreed * disc.certainty
        if certainty > SURE:
            break
    return best, certainty


def look_closer(photograph: np.ndarray, fov: np.ndarray, network: Network, disc: Disc) -> Disc | None:
    """The disc in a square of `CLOSE` diameters around what was taken for one; None where none is there."""
    window = Window(disc.x, disc.y, CLOSE * disc.diameter)
    near, field = look(photograph, fov, window, network)[:, 0].mean(axis=0), window.cut_fov(fov)
    return next((read_disc(window, mask, near, field) for mask in areas(near, field)), None)


def agreement(one: Disc, other: Disc) -> float:
    """How well two circles agree in place and size, 1 for the same to 0 for those that do not touch."""
    apart = math.hypot(one.x - other.x, one.y - other.y) / (one.diameter + other.diameter)
    ratio = min(one.diameter, other.diameter) / max(one.diameter, other.diameter)
    return max(0.0, 1 - 2 * apart**2) * math.sqrt(ratio)


def areas(probability: np.ndarray, seen: np.ndarray) -> list[np.ndarray]:
    """Areas of high probability, the one with most of it first: masks, uint8, 0 or 255.

    Each has at least half of its own highest. They reach into the field of view `seen`, uint8 (SIDE, SIDE), 0
    or 255.
    """
    count, labels = cv2.connectedComponents((probability > LEAST_PROBABILITY).astype(np.uint8))
    weights = np.bincount(labels.ravel(), (probability * (seen > 0)).ravel(), count)
    found = []
    for i in np.argsort(-weights):
        if i and weights[i] >= 2:
            area = np.where(labels == i, probability, 0)
            found.append(
                np.where(area > max(LEAST_PROBABILITY, 0.5 * float(area.max())), 255, 0).astype(np.uint8)
            )
    return found


def read_disc(window: Window, mask: np.ndarray, probability: np.ndarray, seen: np.ndarray) -> Disc:
    """The disc that a mask, uint8 (SIDE, SIDE), of a window shows; `seen` is its field of view."""
    moments = cv2.moments(mask, binaryImage=True)
    area, inside = moments["m00"], (mask > 0) & (seen > 0)
    column, row = moments["m10"] / area, moments["m01"] / area
    x, y = window.place(column, row)
    radius = math.sqrt(area / math.pi)
    certainty = float(probability[inside].mean()) if inside.any() else 0.0
    rim = cv2.circle(np.zeros_like(mask), (round(column), round(row)), round(RIM * radius), 255, -1)
    whole = bool(np.count_nonzero(rim & seen) >= WHOLE * np.count_nonzero(rim))
    return Disc(window, mask, x, y, 2 * radius * window.side / SIDE, whole, certainty)


def find_fovea(
    whole: Window, probability: np.ndarray, seen: np.ndarray, disc: Disc | None, photograph: np.ndarray
) -> tuple[float, float, float]:
    """Place of the fovea in the photograph, NaN where there is none, and how certain it is, 0 to 1.

    Where no disc says where to look, it must be darker than its surroundings, as that of an eye is.
    """
    step = whole.side / SIDE
    # at the border its dark rim looks like the darker middle of a macula
    inside = cv2.distanceTransform(np.pad(seen, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    usual = disc.diameter / step if disc else SIDE / 7
    probability = probability * (inside > FOVEA_INSIDE * usual)
    if disc:  # it cannot lie anywhere
        rows, columns = np.indices(probability.shape, np.float32)
        left, top = whole.place(0, 0)
        distance = np.hypot(left + step * columns - disc.x, top + step * rows - disc.y) / disc.diameter
        nearest, farthest = FOVEA_FROM_DISC
        probability = probability * ((distance > nearest) & (distance < farthest))
    masks = areas(probability, seen)
    if not masks:
        return math.nan, math.nan, float(probability.max())
    weights = probability * (masks[0] > 0)
    certainty = float(weights[masks[0] > 0].mean())
    if certainty < CERTAIN:
        return math.nan, math.nan, certainty
    rows, columns = np.indices(probability.shape, np.float32)
    column, row = (float((weights * grid).sum() / weights.sum()) for grid in (columns, rows))
    if not disc:
        green, away = whole.cut(photograph)[..., 1], np.hypot(columns - column, rows - row) / usual
        middle, around = ((near & (seen > 0)) for near in (away < 0.3, (away > 0.6) & (away < 1.1)))
        if not (middle.any() and around.any() and green[around].mean() - green[middle].mean() > FOVEA_DARKER):
            return math.nan, math.nan, certainty
    return *whole.place(column, row), certainty
