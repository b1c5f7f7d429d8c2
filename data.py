"""Photographs, vessel masks and fields of view: finding, pairing, reading, and splitting.

Layout of `new_data`, written by augment.py and read by train.py and test.py:

    new_data/dataset.json            size, seed, number of eyes, data sets, and the scale of test eyes
    new_data/{train,test}/image/     photographs, RGB PNG
    new_data/{train,test}/mask/      vessel masks of the same names, 0 or 255; test/mask only with test labels
    new_data/{train,test}/fov/       fields of view of the same names, 0 or 255
    new_data/test/second_observer/   the second human's vessel masks, where there are any
"""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils import UserError, atomic, did_you_mean

SUFFIXES = {".tif", ".tiff", ".png", ".gif", ".jpg", ".jpeg", ".bmp", ".ppm"}
FORMATS = ("TIFF", "PNG", "GIF", "JPEG", "BMP", "PPM")  # Pillow knows more, and starts other programs for some
MAX_PIXELS = 120_000_000  # larger files are refused before they are decoded: they could exhaust the memory
MAX_UNPACKED = 100_000_000  # bytes that a gzipped file may unpack to, for the same reason
DIAMETER = 548  # pixels of the circle around DRIVE's field of view: the scale that the network is trained at


def list_images(folder: Path, suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """The image files of a folder in natural order; hidden files and other files are passed over."""
    files = [f for f in folder.iterdir() if f.suffix.lower() in suffixes and not f.name.startswith(".")]
    return sorted(files, key=lambda f: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", f.name)])


def read_image(path: Path) -> np.ndarray:
    """Read the first frame of a TIFF (LZW too), GIF, PNG, JPEG, BMP or PPM file, gzipped or not.

    Returns:
        uint8 (H, W, 3) RGB. Grey becomes RGB, 12 and 16 bit are scaled to 8, transparency is dropped, and the
        orientation that a camera noted is applied.

    Raises:
        UserError: missing, not an image, truncated, of floating-point numbers, or too large.
    """
    from PIL import Image, ImageOps

    if not path.name.isprintable():
        raise UserError(f"{str(path)!r}: a line break or another control character in its name; rename it")
    if not path.is_file():
        raise UserError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    too_large = UserError(f"{path}: more than {MAX_PIXELS:,} pixels; shrink it")
    try:
        with Image.open(unpack(path) if path.suffix.lower() == ".gz" else path, formats=FORMATS) as file:
            if file.width * file.height > MAX_PIXELS:
                raise too_large
            if file.mode == "F":
                raise UserError(f"{path}: holds floating-point numbers; save it with 8 or 16 bits")
            upright = ImageOps.exif_transpose(file)
            if not file.mode.startswith("I"):
                return np.array(upright.convert("RGB"))
            levels = np.asarray(upright)
    except (UserError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise too_large from None
    except Image.UnidentifiedImageError:
        what = "not a TIFF, PNG, GIF, JPEG, BMP or PPM image" if path.stat().st_size else "empty"
        raise UserError(f"{path}: {what}") from None
    except Exception as error:
        # whatever is wrong with a file, Pillow's readers have no common class for it
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path}: cannot be read as an image ({reason})") from None
    if levels.min() < 0 or levels.max() > 65535:
        raise UserError(f"{path}: its levels go beyond 16 bits; save it with 8 or 16 bits")
    # 8 and 12 bits are often kept in files of 16
    top = next(top for top in (255, 4095, 65535) if levels.max() <= top)
    return np.repeat((levels.astype(np.uint32) * 255 // top).astype(np.uint8)[..., None], 3, axis=2)


def unpack(path: Path) -> io.BytesIO:
    """The content of a gzipped file; UserError if it is more than MAX_UNPACKED bytes."""
    with gzip.open(path) as file:
        content = file.read(MAX_UNPACKED + 1)
    if len(content) > MAX_UNPACKED:
        raise UserError(f"{path}: unpacks to more than {MAX_UNPACKED:,} bytes; that is no photograph of an eye")
    return io.BytesIO(content)


def read_mask(path: Path) -> np.ndarray:
    """Read a vessel mask or a field of view.

    Returns:
        uint8 (H, W), exactly 0 or 255. A nearly binary file (compressed as JPEG, say) is split at 127.

    Raises:
        UserError: unreadable, or not a mask.
    """
    mask = read_image(path).max(axis=2)
    if mask.max() == 1:
        mask = mask * 255
    between = np.count_nonzero((mask > 32) & (mask < 223)) / mask.size
    if between > 0.02:
        raise UserError(f"{path}: not a mask of 0 and 255 ({between:.0%} of its pixels are grey)")
    if 0 < mask.max() <= 127:
        raise UserError(f"{path}: not a mask of 0 and 255 (its brightest pixel is {mask.max()})")
    return np.where(mask > 127, 255, 0).astype(np.uint8)


def read_fov(path: Path) -> np.ndarray:
    """Read a field of view as `read_mask` does; UserError if it is empty."""
    fov = read_mask(path)
    if not fov.any():
        raise UserError(f"{path}: an empty field of view")
    return fov


def write_png(path: Path, image: np.ndarray) -> None:
    """Write RGB or grey, uint8 or uint16, atomically as PNG.

    OpenCV encodes and Python writes, because OpenCV cannot open names with umlauts on Windows.
    """
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    _, png = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 2])
    with atomic(path) as temporary:
        temporary.write_bytes(png.tobytes())


def estimate_fov(photograph: np.ndarray) -> np.ndarray:
    """Find the field of view of a fundus photograph: the lit disc in dark or white surroundings.

    The disc may be cut off by the frame or by black bars, and there may be text beside it.

    Args:
        photograph: uint8 (H, W, 3) RGB, grey too.

    Returns:
        uint8 (H, W), exactly 0 or 255; all 255 where the retina fills the frame.
    """
    height, width = photograph.shape[:2]
    shrink = min(1.0, 512 / max(height, width))  # the outline is smooth: a small copy shows it well enough
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    small = cv2.resize(photograph, size, interpolation=cv2.INTER_AREA)
    # a disc that holds all four corners holds the whole frame, so surroundings always show in a corner
    patch = max(2, round(0.02 * min(size)))
    ends = (slice(patch), slice(-patch, None))
    corners = [(rows, columns) for rows in ends for columns in ends]
    for corner in corners:
        colour = np.median(small[corner].reshape(-1, 3), axis=0)  # the median passes over thin text
        if colour.min() > 200:
            # white surroundings, but not the optic disc, reach the corner: make them as dark as any others
            _, areas = cv2.connectedComponents(cv2.inRange(small, colour - 30, colour + 30))
            reached = np.unique(areas[corner])
            small[np.isin(areas, reached[reached > 0])] = 0
    light = cv2.medianBlur(small.max(axis=2), 5)
    dark, bright = min(np.median(light[corner]) for corner in corners), np.percentile(light, 90)
    fov = np.full((height, width), 255, np.uint8)
    if dark > 0.3 * bright or bright - dark < 10:
        return fov
    lit = (light > dark + 0.15 * (bright - dark)).astype(np.uint8)
    # opening wipes out text, and what else is thinner than a thirtieth of the frame
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(0.015 * max(size)) + 1,) * 2)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(cv2.morphologyEx(lit, cv2.MORPH_OPEN, brush))
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()) if count > 1 else 0
    if not largest or stats[largest, cv2.CC_STAT_AREA] < 0.1 * lit.size:
        return fov
    # a disc, also one cut off by the frame, is convex: the hull closes dark vessels and shadows at its border
    outline = cv2.convexHull(cv2.findNonZero((labels == largest).astype(np.uint8)))
    disc = cv2.fillConvexPoly(np.zeros_like(lit), outline, 255)
    return np.where(cv2.resize(disc, (width, height)) > 127, 255, 0).astype(np.uint8)


def drive_scale(fov: np.ndarray) -> float:
    """How many times as large a photograph must be for its field of view to be as large as DRIVE's.

    Args:
        fov: uint8 (H, W), 0 or 255.

    Returns:
        1 for a diameter like DRIVE's, and one n-th for n times as large ones: whole pixels are averaged then.
    """
    # the enclosing circle is the disc itself, also where the frame cuts off up to half of it; its hull,
    # since older OpenCV takes minutes for all the pixels
    diameter = 2 * cv2.minEnclosingCircle(cv2.convexHull(cv2.findNonZero(fov)))[1]
    if fov.all():  # no border to be seen: the disc is as large as the frame's diagonal, or larger
        diameter = max(diameter, DIAMETER)
    times = max(1, round(diameter / DIAMETER))
    return 1 / times if 510 <= diameter / times <= 570 else DIAMETER / diameter


def normalize(
    photograph: np.ndarray, fov: np.ndarray, mean: np.ndarray, std: np.ndarray, levels: np.ndarray | None = None
) -> np.ndarray:
    """Photograph uint8 (H, W, 3) to the network's input, float32 (3, H, W).

    Every channel is brought to mean 0 and standard deviation 1 of its own photograph (`statistics`), so that
    cameras and exposures look alike; outside the field of view it is 0. With `levels`, (256, 3) from
    `jitter_colour`, the photograph's levels are changed before.
    """
    if levels is None:
        levels = np.arange(256)[:, None]
    table = ((levels - mean) / std).astype(np.float32)
    # one table look-up does all of it
    image = cv2.LUT(photograph, table[None]).transpose(2, 0, 1)
    return np.multiply(image, fov > 0, dtype=np.float32, order="C")


def statistics(photograph: np.ndarray, fov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel inside the field of view, float32 (3,) each."""
    mean, std = cv2.meanStdDev(photograph, mask=fov)
    return mean[:, 0].astype(np.float32), np.maximum(std[:, 0], 1).astype(np.float32)


@dataclass
class Eye:
    """One photograph and what is known of it, all of the same height and width."""

    name: str  # such as 21_training_0
    image: np.ndarray  # uint8 (H, W, 3) RGB
    fov: np.ndarray  # uint8 (H, W), 0 or 255
    mask: np.ndarray | None = None  # uint8 (H, W), 0 or 255
    second: np.ndarray | None = None  # a second observer's mask
    scale: float = 1.0  # how many times as large the network must see it, see `drive_scale`

    @property
    def result_name(self) -> str:
        """The name of what is made from it: 01_test_0 -> 01_test."""
        return re.sub(r"_0$", "", self.name)


def rescale(eye: Eye, scale: float) -> Eye:
    """The eye `scale` times as large, as the network sees it in training and in prediction alike.

    A photograph that shrinks is averaged, and the shrunk mask is vessel where vessels cover half a pixel or
    more: nearest neighbours would break thin vessels to pieces. Masks stay 0 or 255.
    """
    wanted = tuple(max(1, round(side * scale)) for side in eye.fov.shape[::-1])
    how, how_mask = (cv2.INTER_AREA,) * 2 if scale < 1 else (cv2.INTER_CUBIC, cv2.INTER_NEAREST)
    masks = [eye.mask, eye.second]
    for i, mask in enumerate(masks):
        if mask is not None:
            masks[i] = np.where(cv2.resize(mask, wanted, interpolation=how_mask) > 127, 255, 0).astype(np.uint8)
    image = cv2.resize(eye.image, wanted, interpolation=how)
    return Eye(eye.name, image, cv2.resize(eye.fov, wanted, interpolation=cv2.INTER_NEAREST), *masks)


def read_eyes(folder: Path, labels: bool, refused: list[str] | None = None) -> list[Eye]:
    """Read `new_data/train` or `new_data/test`.

    Args:
        folder: has `image/`, and where known `mask/`, `fov/`, `second_observer/` with files of the same names.
        labels: whether an image without a mask is an error.
        refused: takes in words what is wrong with each image left out; without it a bad image is an error.

    Raises:
        UserError: nothing there, or files missing, unreadable or of another size; all are named. Or augment.py
            was at work meanwhile, so that eyes of two runs may be mixed.
    """
    before = version(folder)
    if not (folder / "image").is_dir() or not (images := list_images(folder / "image")):
        hint = did_you_mean(folder / "image")
        raise UserError(f"{folder / 'image'}: no images{hint}; write them with: python augment.py")
    eyes, problems, taken = [], [], set()
    scales = read_scales(folder.parent)
    for path in images:
        try:
            eye = read_eye(path, folder, labels)
            eye.scale = scales.get(eye.name, 1.0)
            # some file systems do not tell A from a
            if (name := eye.result_name.casefold()) in taken:
                raise UserError(f"{path}: its results would have the name of another image's; rename it")
        except UserError as error:
            problems.append(str(error))
        else:
            taken.add(name)
            eyes.append(eye)
    if version(folder) != before:
        raise UserError(f"{folder}: augment.py wrote it anew while it was read; start again when it has ended")
    if refused is not None and eyes:
        refused += problems
    elif problems:
        raise UserError("\n  ".join([f"{folder}: {len(problems)} unusable; run augment.py again", *problems]))
    return eyes


def version(folder: Path) -> tuple[int, int] | None:
    """A mark that changes when augment.py writes new_data anew, of which `folder` is a part."""
    try:
        info = (folder.parent / "dataset.json").stat()
    except FileNotFoundError:
        return None
    return info.st_mtime_ns, info.st_ino


def read_info(folder: Path) -> dict[str, Any]:
    """What augment.py noted in new_data/dataset.json; empty if there is none, as in a folder made by hand."""
    try:
        info = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return info if isinstance(info, dict) else {}


def read_scales(folder: Path) -> dict[str, float]:
    """`Eye.scale` by name where it is not 1, from new_data/dataset.json; UserError if they are no scales."""
    scales = read_info(folder).get("scale", {})
    if not isinstance(scales, dict) or not all(isinstance(s, float) and 0 < s < 100 for s in scales.values()):
        raise UserError(f"{folder / 'dataset.json'}: what it says of scale is damaged; run augment.py again")
    return scales


def read_eye(path: Path, folder: Path, labels: bool) -> Eye:
    """Read one image of `folder/image` with the files that belong to it; see `read_eyes`."""
    eye = Eye(path.stem, image := read_image(path), np.empty(0))
    for part, needed in (("fov", False), ("mask", labels), ("second_observer", False)):
        file = folder / part / path.name
        # a second observer may have drawn some of the eyes only
        if not needed and not (file if part == "second_observer" else file.parent).exists():
            continue
        mask = read_fov(file) if part == "fov" else read_mask(file)
        if mask.shape != image.shape[:2]:
            raise UserError(f"{file}: {size(mask)} pixels, but {path.name} has {size(image)}")
        setattr(eye, {"second_observer": "second"}.get(part, part), mask)
    if not eye.fov.size:
        eye.fov = estimate_fov(image)
    return eye


def size(image: np.ndarray) -> str:
    """Width x height in words."""
    return f"{image.shape[1]}x{image.shape[0]}"


def eye_of(name: str) -> str:
    """The eye that a copy shows: 21_training_3 -> 21_training."""
    return re.sub(r"_\d+$", "", name)


def first_copies(eyes: Iterable[Eye]) -> list[Eye]:
    """The first copy of each eye, in their order: as `read_eyes` has them, the photograph as it is."""
    first: dict[str, Eye] = {}
    for eye in eyes:
        first.setdefault(eye_of(eye.name), eye)
    return list(first.values())


def person_of(name: str) -> str:
    """The person whose eye a copy shows: Image_01L_3 and Image_01R_0 -> Image_01; else the eye itself.

    Names whose number ends in L or R (CHASE_DB1's) are the left and the right eye of one person.
    """
    return re.sub(r"(?<=\d)[LR]$", "", eye_of(name))


def split_by_eye(names: Sequence[str], fraction: float = 0.15, seed: int = 42) -> dict[str, list[str]]:
    """Split copies into `train` and `validation` so that all copies of an eye are on the same side.

    Both eyes of a person are, too: they are alike. A random split of the copies instead would leave copies of
    nearly every validation eye in training, and its validation scores would be worthless.

    Raises:
        UserError: the eyes of fewer than two people.
    """
    from sklearn.model_selection import GroupShuffleSplit

    people = [person_of(name) for name in names]
    if len(set(people)) < 2:
        raise UserError(
            f"eyes of {len(set(people))} person: a split into training and validation needs at least 2"
        )
    sides = next(GroupShuffleSplit(1, test_size=fraction, random_state=seed).split(names, groups=people))
    split = {side: [names[i] for i in rows] for side, rows in zip(("train", "validation"), sides, strict=True)}
    check_split(split)
    return split


def check_split(split: dict[str, list[str]]) -> None:
    """Raise UserError if an eye, or one person's eyes, are in both training and validation."""
    both = {person_of(n) for n in split["train"]} & {person_of(n) for n in split["validation"]}
    if both:
        raise UserError(f"split: {', '.join(sorted(both))} in both training and validation; split by eye")
