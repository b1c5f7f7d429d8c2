"""The optic disc of each camera: what brings its photographs to one scale.

Discs differ by a tenth from eye to eye, and what is found in a diseased eye may be none; the scale of a camera
does not change. So the median over its photographs counts where there are several.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from anatomy.landmarks import Landmarks
from anatomy.photograph import DISC_SHARE, Photograph, look_at
from datasets.images import read_image
from datasets.layouts import DataSet
from system.threads import threads
from utils import UserError

Item = TypeVar("Item")
SAMPLE = 40  # photographs of a run that are looked at before
LEAST_EYES = 3  # with a disc, from which a camera is known
# spread of the discs, of their size, at most: as they are found it is 0.11 in CHASE_DB1, 0.32 in STARE
ONE_CAMERA = 0.35
DISCS_DIFFER = 1.6  # times from the mean at most: the smallest and the largest are 1.2 and 2.9 mm
# of the diameter of the field of view: a disc of a camera of 80 to 20 degrees
NARROWEST, WIDEST = 0.075, 0.33
COMMON = 1.8  # times the `DISC_SHARE` of a 45-degree camera, or a part of it: cameras of 80 to 25 degrees
USUALLY = 0.9  # of a camera's photographs show a disc: then each should
SAME_FIELD = 0.05  # by which the fields of view of one camera differ at most, of their diameter


class Sizes(NamedTuple):
    """What a photograph tells of its camera."""

    shape: tuple[int, ...]  # height and width of the photograph
    disc: float  # diameter of the optic disc in pixels, NaN where none is seen
    field: float  # diameter of the field of view in pixels


@dataclass(frozen=True)
class Camera:
    """What the photographs of one camera say together."""

    disc: float  # diameter of the optic disc in pixels, the median
    diameter: float  # of their fields of view in pixels, the median
    eyes: int  # photographs with a disc
    seen: int  # photographs in all


Cameras = Mapping[tuple[int, ...], Camera]  # by height and width of its photographs


def sizes_of(taken: Photograph) -> Sizes:
    """The sizes of a photograph."""
    return Sizes(taken.fov.shape, taken.landmarks.disc_diameter, taken.diameter)


def disc_of_camera(discs: Sequence[float]) -> float | None:
    """The median of these disc diameters; None where they are too few, or differ too much, for one camera."""
    if len(discs) < LEAST_EYES:
        return None
    disc = float(np.median(discs))
    # of a normal distribution the standard deviation; a few that are no discs do not change it
    spread = 1.4826 * np.median(np.abs(np.log(np.array(discs) / disc)))
    return disc if spread <= ONE_CAMERA else None


def cameras_of(photographs: Iterable[Sizes]) -> Cameras:
    """The cameras that took these photographs.

    Photographs of one height and width are of one camera if their fields of view have one size too, and their
    discs nearly.
    """
    by_shape: dict[tuple[int, ...], list[Sizes]] = {}
    for own in photographs:
        by_shape.setdefault(own.shape, []).append(own)
    cameras = {}
    for shape, every in by_shape.items():
        diameter = float(np.median([own.field for own in every if own.disc > 0] or np.nan))  # NaN is no disc
        same = [own.disc for own in every if abs(own.field / diameter - 1) <= SAME_FIELD]
        discs = [disc for disc in same if disc > 0]
        if disc := disc_of_camera(discs):
            cameras[shape] = Camera(disc, diameter, len(discs), len(same))
    return cameras


def camera_of_photograph(taken: Photograph, cameras: Cameras) -> Camera | None:
    """The camera that took a photograph, if it is among these."""
    camera = cameras.get(taken.fov.shape)
    return camera if camera and abs(taken.diameter / camera.diameter - 1) <= SAME_FIELD else None


def is_likely(times: float) -> bool:
    """Whether an eye may have a disc so many times as wide as the mean."""
    return 1 / DISCS_DIFFER < times < DISCS_DIFFER


def doubt_disc(taken: Photograph, camera: Camera | None) -> str:
    """Why what is taken for the disc of a photograph may be none, or one should be seen; "" where neither.

    `camera` took the photograph, if it is known.
    """
    disc = taken.landmarks.disc_diameter
    if np.isnan(taken.landmarks.disc_x):
        if camera and camera.eyes >= USUALLY * camera.seen:
            return f"no disc, but in {camera.eyes} of {camera.seen} of its camera"
        return ""
    if not disc > 0:
        return ""  # cut by the border, a place without a size
    if camera:
        times = disc / camera.disc
        return "" if is_likely(times) else f"disc {times:.1f} times as wide as others of its camera"
    share = disc / taken.diameter
    is_possible = taken.diameter_from != "border" or NARROWEST < share < WIDEST
    return "" if is_possible else f"disc {share:.0%} of the field of view"


def some_of(items: Sequence[Item]) -> Sequence[Item]:
    """At most `SAMPLE` of these, evenly spread."""
    return items[:: -(-len(items) // SAMPLE) or 1]


def look_at_files(paths: Sequence[Path], what: str) -> Iterator[tuple[Path, Sizes, Landmarks]]:
    """Yield the sizes and landmarks of these photographs, on all cores, without those that cannot be read.

    `what` is the title of the bar.
    """

    def look(path: Path) -> tuple[Sizes, Landmarks]:
        taken = look_at(read_image(path))
        return sizes_of(taken), taken.landmarks

    with threads() as pool:
        jobs = [pool.submit(look, path) for path in paths]
        for path, job in zip(paths, tqdm(jobs, what, unit="photograph", disable=None), strict=True):
            with contextlib.suppress(UserError):  # it is named when it is segmented or written
                yield path, *job.result()


def look_at_some(paths: Sequence[Path]) -> tuple[Cameras, dict[Path, Landmarks]]:
    """The cameras of these photographs from some of them, evenly spread, and what landmarks these have."""
    chosen = some_of(paths)
    found = list(look_at_files(chosen, "cameras")) if len(chosen) >= LEAST_EYES else []
    return cameras_of(sizes for _, sizes, _ in found), {path: landmarks for path, _, landmarks in found}


def measure_discs(paths: Sequence[Path]) -> dict[Path, float]:
    """Measure the disc diameter of the camera of each photograph, in pixels.

    Photographs of one height and width in one folder are of one camera, see `disc_of_camera`. Where too few
    discs are seen for that, their median counts. Where none is seen, or they differ too much to be discs of one
    camera, a field of view of 45 degrees is assumed, as DRIVE has it. A file that cannot be read is left out.
    """
    cameras: dict[tuple[Path, tuple[int, ...]], dict[Path, Sizes]] = {}
    for path, sizes, _ in look_at_files(paths, "discs"):
        cameras.setdefault((path.parent, sizes.shape), {})[path] = sizes
    measured: dict[Path, float] = {}
    for own in cameras.values():
        discs = [sizes.disc for sizes in own.values() if sizes.disc > 0]
        few = float(np.median(discs)) if 0 < len(discs) < LEAST_EYES else None
        assumed = DISC_SHARE * float(np.median([sizes.field for sizes in own.values()]))
        measured |= dict.fromkeys(own, disc_of_camera(discs) or few or assumed)
    return measured


def give_discs(data_sets: Sequence[DataSet], discs: Sequence[float]) -> None:
    """Give the training eyes of each data set the disc diameter of their camera, in pixels.

    `discs` has one for each data set; where it is empty, they are measured.

    Raises:
        UserError: there are not as many discs as data sets.
    """
    if discs and len(discs) != len(data_sets):
        names = ", ".join(data_set.name for data_set in data_sets)
        raise UserError(f"--discs: {len(discs)} for {len(data_sets)} data sets; give one for each of {names}")
    training = [[eye for eye in data_set.eyes if eye.part == "train"] for data_set in data_sets]
    measured = {} if discs else measure_discs([eye.image for eyes in training for eye in eyes])
    for number, eyes in enumerate(training):
        for eye in eyes:
            eye.disc = discs[number] if discs else measured.get(eye.image)
