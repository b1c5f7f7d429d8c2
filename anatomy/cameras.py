"""The optic disc of each camera: what brings its photographs to one scale.

Discs differ by a tenth from eye to eye, and what is found in a diseased eye may be none; the scale of a camera
does not change. So the median over its photographs counts where there are several.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from anatomy.photograph import DISC_SHARE, Photograph, look_at
from datasets.images import read_image
from system.threads import threads
from utils import UserError

Item = TypeVar("Item")
SAMPLE = 40  # photographs of a run that are looked at before
LEAST_EYES = 3  # with a disc, from which a camera is known
# spread of the discs, of their size, at most: as they are found it is 0.11 in CHASE_DB1, 0.32 in STARE
ONE_CAMERA = 0.35
SAME_FIELD = 0.05  # by which the fields of view of one camera differ at most, of their diameter


@dataclass(frozen=True)
class Camera:
    """What the photographs of one camera say together."""

    disc: float  # diameter of the optic disc in pixels, the median
    diameter: float  # of their fields of view in pixels, the median
    eyes: int  # photographs with a disc


Cameras = Mapping[tuple[int, ...], Camera]  # by height and width of its photographs
# of one photograph: height and width, diameters of disc and field of view
Sighting = tuple[tuple[int, ...], float, float]


def some_of(items: Sequence[Item]) -> Sequence[Item]:
    """At most `SAMPLE` of these, evenly spread."""
    return items[:: -(-len(items) // SAMPLE) or 1]


def sighting(taken: Photograph) -> Sighting:
    """What a photograph says of its camera; diameters in pixels, NaN where no disc is seen."""
    return taken.fov.shape, taken.landmarks.disc_diameter, taken.diameter


def know_cameras(seen: Iterable[Sighting]) -> Cameras:
    """Measure the discs of the cameras that took these photographs.

    Photographs of one size are of one camera if their fields of view have one size too, and their discs nearly.
    """
    sizes: dict[tuple[int, ...], list[tuple[float, float]]] = {}
    for shape, disc, diameter in seen:
        if disc > 0:  # not NaN
            sizes.setdefault(shape, []).append((disc, diameter))
    cameras = {}
    for shape, own in sizes.items():
        diameter = float(np.median([field for _, field in own]))
        discs = np.array([disc for disc, field in own if abs(field / diameter - 1) <= SAME_FIELD])
        if len(discs) < LEAST_EYES:
            continue
        disc = float(np.median(discs))
        # of a normal distribution the standard deviation; a few that are no discs do not change it
        if 1.4826 * np.median(np.abs(np.log(discs / disc))) <= ONE_CAMERA:
            cameras[shape] = Camera(disc, diameter, len(discs))
    return cameras


def camera_of_photograph(taken: Photograph, cameras: Cameras) -> Camera | None:
    """The camera that took a photograph, if it is known."""
    camera = cameras.get(taken.fov.shape)
    return camera if camera and abs(taken.diameter / camera.diameter - 1) <= SAME_FIELD else None


def look_at_some(paths: Sequence[Path]) -> Cameras:
    """Know the cameras of these photographs from some of them, evenly spread; unreadable ones are left out."""

    def look(path: Path) -> list[Sighting]:
        with contextlib.suppress(UserError):  # it is named when it is segmented
            return [sighting(look_at(read_image(path)))]
        return []

    chosen = some_of(paths)
    if len(chosen) < LEAST_EYES:
        return {}
    with threads() as pool:
        found = pool.map(look, chosen)
        bar = tqdm(found, "cameras", len(chosen), unit="photograph", disable=None)
        return know_cameras(one for own in bar for one in own)


def measure_discs(photographs: Sequence[Path]) -> dict[Path, float]:
    """Measure the disc diameter of the camera of each photograph, in pixels.

    Photographs of one size in one folder are of one camera. Discs differ by a tenth from eye to eye, the scale
    of a camera does not, so the median over its eyes counts. Where none is seen in any, a field of view of 45
    degrees is assumed, as DRIVE has it. A file that cannot be read is left out.
    """

    def look(path: Path) -> Sighting:
        return sighting(look_at(read_image(path)))

    cameras: dict[tuple[Path, tuple[int, ...]], list[tuple[Path, float, float]]] = {}
    with threads() as pool:
        jobs = [pool.submit(look, path) for path in photographs]
        for path, job in zip(photographs, tqdm(jobs, desc="discs", unit="eye", disable=None), strict=True):
            with contextlib.suppress(UserError):  # it is named when the eye is written
                shape, disc, diameter = job.result()
                cameras.setdefault((path.parent, shape), []).append((path, disc, DISC_SHARE * diameter))
    measured: dict[Path, float] = {}
    for eyes in cameras.values():
        diameters = [disc for _, disc, _ in eyes if disc > 0] or [assumed for _, _, assumed in eyes]
        measured |= dict.fromkeys((path for path, _, _ in eyes), float(np.median(diameters)))
    return measured
