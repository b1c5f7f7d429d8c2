"""Photographs with drawn discs and marked centres: DRIVE, HRF, IDRiD, STARE and CHASE_DB1."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from anatomy.landmarks import PLACES
from datasets.duplicates import find_equal, fingerprint
from datasets.field_of_view import estimate_fov, fov_diameter
from datasets.images import list_images, read_image
from datasets.layouts import image_files
from datasets.masks import read_mask
from system.threads import threads
from utils import UserError

FIELD = 512  # pixels of the field of view, to which photographs are brought: discs of about 75
FOLDS = 3  # of IDRiD, to be scored by networks that have seen the others
UNKNOWN = 128  # in `LabelledEye.disc`: disc or not
# circles around the discs of STARE, HRF and CHASE_DB1, and where foveae are, marked by eye for this project;
# empty where nobody could tell, and for HRF's foveae
MARKS = Path(__file__).with_name("marks.csv")
USUAL_SHARE = 0.153  # of the field of view of IDRiD's camera: a disc's diameter, the median of 54


@dataclass(frozen=True)
class LabelledEye:
    """A photograph with its disc and perhaps its fovea, brought to a field of view of `FIELD` pixels."""

    name: str
    group: str  # eyes of a group have labels of the same kind, and come equally often as those of another
    photograph: np.ndarray  # uint8 (H, W, 3) RGB
    fov: np.ndarray  # uint8 (H, W), 0 or 255
    disc: np.ndarray  # uint8 (H, W), 255 disc, 0 none, UNKNOWN
    disc_x: float
    disc_y: float
    disc_diameter: float  # of a circle of its area; a guess where only the centre is marked
    fovea: tuple[float, float] | None
    scale: float  # from pixels of the photograph's file to these


@dataclass(frozen=True)
class Label:
    """What is known of a photograph, in pixels of its file."""

    group: str
    image: Path
    disc: Path | tuple[float, float, float]  # a mask, or x, y and diameter, NaN where only the centre is known
    fovea: tuple[float, float] | None = None


def find_labels(anatomy: Path, drive: Path | None, marked: Sequence[Path] = ()) -> list[Label]:
    """The labelled photographs: of the data sets whose folders are given, and IDRiD's where it is there.

    Args:
        anatomy: has DRIVE/disc/NN_training.png, IDRiD/centres.csv, IDRiD/images, IDRiD/disc and
            IDRiD/disc_images.
        drive: has training/images.
        marked: those of STARE, HRF and CHASE_DB1, as unpacked, whose photographs `MARKS` knows.

    Raises:
        UserError: a folder, a photograph or a table is missing.
    """
    labels: list[Label] = []
    if drive:
        images = photographs(drive / "training" / "images")
        masks = photographs(anatomy / "DRIVE" / "disc")
        labels += [Label("DRIVE", pick(images, name, drive), mask) for name, mask in masks.items()]
    idrid = anatomy / "IDRiD"
    if idrid.is_dir():
        images, masks = photographs(idrid / "disc_images"), photographs(idrid / "disc")
        labels += [Label("IDRiD drawn", pick(images, name, idrid), mask) for name, mask in masks.items()]
        images = photographs(idrid / "images")
        for row in rows(idrid / "centres.csv"):
            x, y, *fovea = (float(row[name]) for name in ("disc_x", "disc_y", "fovea_x", "fovea_y"))
            image = pick(images, row["image"], idrid)
            labels.append(Label("IDRiD", image, (x, y, np.nan), (fovea[0], fovea[1])))
    for folder in marked:
        labels += find_marked(folder)
    if not labels:
        raise UserError(f"{anatomy}: no labels in it; it needs IDRiD, or give --drive or --marked")
    return labels


def find_marked(folder: Path) -> list[Label]:
    """The labels of one folder whose photographs `MARKS` knows.

    Raises:
        UserError: it knows none of them.
    """
    # a label is called im0001.ah.ppm.gz, a photograph im0001.ppm.gz; in HRF both have one name, and folders
    # come in the order of theirs, images before manual1
    images = {path.name.removesuffix(".gz").rsplit(".", 1)[0]: path for path in reversed(image_files(folder))}
    labels = []
    for row in rows(MARKS):
        x, y, diameter, fovea_x, fovea_y = (float(row[name] or "nan") for name in PLACES)
        if row["image"] in images and diameter > 0:
            fovea = (fovea_x, fovea_y) if fovea_x > 0 else None
            labels.append(Label(row["data_set"], images[row["image"]], (x, y, diameter), fovea))
    if not labels:
        raise UserError(f"{folder}: not STARE, HRF or CHASE_DB1; no disc of its photographs is known")
    return labels


def photographs(folder: Path) -> dict[str, Path]:
    """The image files of a folder by name."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; see docs/anatomy.md for what training needs")
    return {path.stem: path for path in list_images(folder)}


def pick(images: dict[str, Path], name: str, folder: Path) -> Path:
    """The photograph of that name."""
    if name not in images:
        raise UserError(f"{folder}: no photograph {name}, which is labelled; unpack the whole data set")
    return images[name]


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table."""
    if not path.is_file():
        raise UserError(f"{path}: no such table; see docs/anatomy.md for what training needs")
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def read_labelled_eyes(labels: Sequence[Label]) -> Iterator[LabelledEye]:
    """Read photographs and discs, several at a time, in their order.

    Raises:
        UserError: a file cannot be read, or a mask is of another size than its photograph.
    """
    with threads() as pool:
        yield from pool.map(read_labelled_eye, labels)


def read_labelled_eye(label: Label) -> LabelledEye:
    """Read one photograph and its disc; errors as in `read_labelled_eyes`."""
    photograph = read_image(label.image)
    fov = estimate_fov(photograph)
    height, width = fov.shape
    scale = min(1.0, FIELD / fov_diameter(fov))
    size = (round(scale * width), round(scale * height))
    small = cv2.resize(photograph, size, interpolation=cv2.INTER_AREA)
    small_fov = cv2.resize(fov, size, interpolation=cv2.INTER_NEAREST)
    if isinstance(label.disc, Path):
        mask = read_mask(label.disc)
        if mask.shape != fov.shape:
            raise UserError(f"{label.disc}: of another size than {label.image}; take both from one archive")
        if not mask.any():
            raise UserError(f"{label.disc}: no disc is drawn in it; leave it out")
        moments = cv2.moments(mask, binaryImage=True)
        x, y = (moments[key] / moments["m00"] for key in ("m10", "m01"))
        diameter = 2 * float(np.sqrt(moments["m00"] / np.pi))
        disc = cv2.threshold(cv2.resize(mask, size, interpolation=cv2.INTER_AREA), 127, 255, cv2.THRESH_BINARY)[
            1
        ]
    else:
        x, y, diameter = label.disc
        # radii in diameters: a circle is not quite the outline of a disc, still less one of a guessed size
        sure, possible = (0.47, 0.53) if diameter > 0 else (0.4, 0.6)
        diameter = diameter if diameter > 0 else USUAL_SHARE * fov_diameter(fov)
        rows, columns = np.indices(size[::-1])
        distance = np.hypot(columns - to_small(x, scale), rows - to_small(y, scale)) / (scale * diameter)
        disc = np.where(distance < sure, 255, np.where(distance < possible, UNKNOWN, 0)).astype(np.uint8)
    fovea = label.fovea and (to_small(label.fovea[0], scale), to_small(label.fovea[1], scale))
    place = to_small(x, scale), to_small(y, scale), scale * diameter
    return LabelledEye(label.image.stem, label.group, small, small_fov, disc, *place, fovea, scale)


def held_out(eyes: Sequence[LabelledEye], fold: int) -> list[bool]:
    """Which eyes one of `FOLDS` folds holds out: every third photograph of IDRiD, with all that show its eye.

    Its photographs with drawn discs are numbered on their own, and some show eyes of the others again.
    """
    idrid = [i for i, eye in enumerate(eyes) if eye.group.startswith("IDRiD")]
    first = {i: i for i in idrid}
    prints = {str(i): fingerprint(eyes[i].photograph, eyes[i].fov) for i in idrid}
    for one, other in find_equal(prints):
        first[int(other)] = first[int(one)]
    return [i in first and idrid.index(first[i]) % FOLDS == fold for i in range(len(eyes))]


def to_small(place: float, scale: float) -> float:
    """A coordinate after resizing; whole numbers are the middles of pixels."""
    return scale * (place + 0.5) - 0.5
