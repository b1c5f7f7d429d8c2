"""The scale at which a network sees a photograph, in one unit: pixels per diameter of the optic disc.

The optic disc is about as large in every eye: 1.8 mm. Angle of view and pixels of the file are not, so the same
vessel has 3 pixels in one photograph and 12 in another. A network that was trained at 112 pixels per disc, 16
micrometres per pixel, sees every photograph so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from anatomy.cameras import COMMON, Cameras, camera_of_photograph, cameras_of, sizes_of, some_of
from anatomy.photograph import Photograph, look_at
from datasets.eyes import Eye, rescale
from datasets.field_of_view import DIAMETER
from measures.calibre import quantiles, widths
from measures.skeleton import trace
from prediction.segmentation import segment

if TYPE_CHECKING:
    from model import Network

WORKING_DISC = 112.0  # pixels per disc to which eyes of several cameras are brought for a training
LARGE_VESSEL = 0.075  # discs: 95th percentile of the calibre, in observers' masks 0.06 to 0.08
BORDER_OF_VESSELS = 0.5  # probability
LEAST_LENGTH = 5.0  # discs of centre line, from which a calibre can be told
MOST_ENLARGED = 4.0  # times: beyond, an enlarged photograph shows nothing new and fills the memory


@dataclass(frozen=True)
class Scale:
    """How a network sees a photograph."""

    factor: float  # by which it is resized
    scale_from: str  # what decided: disc, vessels, field, given, guess
    eyes: int = 1  # of its camera, whose discs decided


def plan_scale(photograph: Photograph, network: Network, cameras: Cameras | None = None) -> Scale:
    """The scale at which a network sees a photograph.

    The diameter that the user gave decides, else the disc, or where none can be trusted the calibre of the
    large vessels; where there are too few, the field of view, or a guess where it has no border. A network that
    was trained on eyes of one camera as they are knows no disc (`Network.disc`): it sees the field of view at
    the diameter of its training.

    A disc is a tenth larger or smaller from eye to eye, and on a camera that it has not seen the finder errs by
    more; most cameras show discs at 0.11 to 0.25 of their field of view. Both estimates are about as uncertain,
    so where the border shows, the factor is their geometric mean. A disc larger than `COMMON` allows has
    atrophy around it and counts no more than that; a smaller one is more often a speck: the vessels are asked.
    Of a camera that is known from n eyes, see `cameras_for`, the median of the discs counts n times as much as
    the field of view, in all of its photographs alike.
    """
    by_field = factor_of(photograph.diameter, network.diameter)
    diameter_from, disc = photograph.diameter_from, photograph.landmarks.disc_diameter
    if not network.disc or diameter_from == "given":
        return Scale(min(by_field, MOST_ENLARGED), {"border": "field"}.get(diameter_from, diameter_from))
    if camera := camera_of_photograph(photograph, cameras or {}):
        weight = camera.eyes / (camera.eyes + (diameter_from == "border"))
        by_field = factor_of(camera.diameter, network.diameter)
        by_disc = float(by_field ** (1 - weight) * (network.disc / camera.disc) ** weight)
        return Scale(min(by_disc, MOST_ENLARGED), "disc", camera.eyes)
    if disc > 0 and (diameter_from != "border" or network.disc / disc < by_field * COMMON):  # not NaN
        by_disc = network.disc / disc
        if diameter_from == "border":
            by_disc = float(np.sqrt(by_field * max(by_disc, by_field / COMMON)))
        return Scale(min(by_disc, MOST_ENLARGED), "disc")
    if by_vessels := factor_by_vessels(photograph, network, by_field):
        if diameter_from == "border" and 1 / COMMON < by_vessels / by_field < COMMON:
            by_vessels = float(np.sqrt(by_field * by_vessels))
        return Scale(min(by_vessels, MOST_ENLARGED), "vessels")
    return Scale(min(by_field, MOST_ENLARGED), "field" if diameter_from == "border" else "guess")


def factor_by_vessels(photograph: Photograph, network: Network, factor: float) -> float | None:
    """The factor that brings the large vessels to the calibre that they have at the scale of the training.

    The network sees the photograph in one view, twice at most, first at `factor`. None where too few vessels
    are found.
    """
    eye = Eye("", photograph.pixels, photograph.fov)
    for _ in range(2):
        copy = rescale(eye, min(factor, MOST_ENLARGED))
        probability = segment(network, copy.image, copy.fov)
        probability = probability if probability.ndim == 2 else probability.max(axis=0)  # arteries and veins
        tree = trace((probability >= BORDER_OF_VESSELS).astype(np.uint8))
        calibres, lengths = widths(probability, tree, BORDER_OF_VESSELS)
        if lengths.sum() < LEAST_LENGTH * (network.disc or WORKING_DISC):
            return None
        (large,) = quantiles(calibres, lengths, (0.95,))
        change = LARGE_VESSEL * (network.disc or WORKING_DISC) / large
        factor *= change
        if abs(np.log(change)) < 0.2:
            break
    return factor


def plan_scales(photographs: Sequence[Photograph], network: Network) -> Iterator[Scale]:
    """Yield how a network sees each of these photographs, whose cameras some of them tell: see `plan_scale`."""
    cameras = cameras_for(some_of(photographs), network)
    yield from (plan_scale(photograph, network, cameras) for photograph in photographs)


def factors_for(pixels: Iterable[np.ndarray], network: Network) -> list[float]:
    """The factors of `plan_scales` for photographs, uint8 (H, W, 3) RGB each."""
    return [scale.factor for scale in plan_scales([look_at(each) for each in pixels], network)]


def cameras_for(photographs: Iterable[Photograph], network: Network) -> Cameras:
    """The cameras of these photographs, where the network's scale is told by the disc; else none are needed."""
    return cameras_of(map(sizes_of, photographs)) if network.disc else {}


def factor_of(diameter: float, working: float = DIAMETER) -> float:
    """The factor that brings a field of view to a working diameter.

    Returns:
        1 for a diameter close to the working one, 1/n close to n times that (so that whole pixels are
        averaged), else the working diameter divided by the photograph's.
    """
    times = max(1, round(diameter / working))
    close = 510 / 548 <= diameter / times / working <= 570 / 548
    return 1 / times if close else working / diameter


def working_diameter(diameters: Sequence[float]) -> float:
    """The diameter in pixels at which a network sees fields of view, from those of the eyes that train it.

    The median, or that of DRIVE where it is close, so that other photographs of DRIVE keep their pixels.
    """
    median = float(np.median(diameters))
    return float(DIAMETER) if factor_of(median) == 1 else median
