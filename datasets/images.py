"""Image files: list, read and write them, and normalise a photograph for the network."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Collection
from pathlib import Path

import cv2
import numpy as np

from datasets.decoding import OPTIONAL, OTHER_KINDS, TOPS, decode, is_installed
from datasets.masks import read_fov as read_fov  # all readers in one place
from datasets.masks import read_mask as read_mask
from system.files import atomic
from system.records import CLUTTER, read_record
from utils import UserError

try:
    from isal import isal_zlib as zlib
except ImportError:  # torch.hub asks for less than requirements.txt; files of any DEFLATE read the same
    import zlib  # type: ignore[no-redef]

SUFFIXES = {".tif", ".tiff", ".png", ".gif", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib"}
SUFFIXES |= {".ppm", ".pgm", ".pbm", ".pnm", ".webp", ".jp2", ".avif"}
SUFFIXES |= {suffix for suffix, package in OPTIONAL.items() if is_installed(package)}
SHOWN_SIDE = 2048  # pixels of the longer side of a photograph that is looked at, about


def list_images(folder: Path, suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """List the image files of a folder in natural order, without hidden files."""
    files = [f for f in folder.iterdir() if f.suffix.lower() in suffixes and not f.name.startswith(".")]
    # isdecimal, not isdigit: int() cannot read a circled or superscript digit
    return sorted(files, key=lambda f: [int(t) if t.isdecimal() else t for t in re.split(r"(\d+)", f.name)])


def refuse_among_images(flag: str, folder: Path) -> None:
    """Raise UserError if a folder for results has images, and no record that says they are results."""
    images = list_images(folder) if folder.is_dir() and not read_record(folder).script else []
    if images := [path for path in images if path.is_file()]:
        raise UserError(f"{flag} {folder}: holds images, such as {images[0].name}; choose another folder")


def passed_over(folder: Path, images: Collection[Path]) -> list[str]:
    """Describe the files of a folder other than these images, one line each, without hidden files."""
    others = sorted(f for f in {*folder.iterdir()} - {*images} if os.path.isfile(f))  # noqa: PTH113, see is_photograph
    visible = [f for f in others if not f.name.startswith(".") and f.name not in CLUTTER]
    return [f"{f}: {OTHER_KINDS.get(f.suffix.lower(), 'not an image that can be read here')}" for f in visible]


def read_image(path: Path) -> np.ndarray:
    """Read an image, gzipped or not; `FORMATS` names the kinds. Of several pages or pictures the largest.

    WebP, JPEG 2000 and AVIF are read where Pillow was built with them, DICOM and HEIC where
    requirements-formats.txt is installed. DICOM has no EXIF orientation.

    Returns:
        uint8 (H, W, 3) RGB. Grey becomes RGB; 10, 12, 14 and 16 bits are scaled to 8; pixels that are fully
        transparent become black and others lose their transparency; the EXIF orientation is applied.

    Raises:
        UserError: the file is missing, not an image, truncated, floating-point, or too large.
    """
    levels = read_levels(path)
    if levels.dtype == np.uint16:
        # files of 16 bits often hold 8, 10, 12 or 14
        top = next(top for top in TOPS if levels.max() <= top)
        levels = (levels.astype(np.uint32) * 255 // top).astype(np.uint8)
    return levels if levels.ndim == 3 else np.repeat(levels[..., None], 3, axis=2)


def read_probability(path: Path) -> np.ndarray:
    """Read a grey image of 8 bits, 0 to 255 for 0 to 1: uint8 (H, W).

    Raises:
        UserError: as `read_image`; or it has colours or more bits.
    """
    levels = read_levels(path)
    if levels.dtype != np.uint8 or (levels != levels[..., :1]).any():
        raise UserError(f"{path}: a probability is a grey image of 8 bits; run augment.py again")
    return np.ascontiguousarray(levels[..., 0])


def read_levels(path: Path) -> np.ndarray:
    """Read an image as `read_image` does, but leave 16 bits as they are: uint16 (H, W) or (H, W, 3) RGB."""
    levels = decode(path)
    if levels.ndim == 3 and levels.shape[2] == 4:
        colours, alpha = levels[..., :3], levels[..., 3:]
        # what lies under fully transparent surroundings is arbitrary; a mask made of alpha alone is kept
        levels = np.where(alpha > 0, colours, 0) if alpha.any() else colours
    return np.ascontiguousarray(levels)


def is_readable(path: Path, read: Callable[[Path], object]) -> bool:
    """Whether a file can be read in this way."""
    try:
        read(path)
    except UserError:
        return False
    return True


def encode_png(image: np.ndarray) -> bytes:
    """RGB or grey, uint8 or uint16, as a PNG file (https://www.w3.org/TR/png-3), lossless.

    Every byte is kept as the difference to the one above, and packed by ISA-L: the levels of a probability take
    a third of the time that OpenCV needs, and an eighth less space. Pillow takes longer than both.
    """
    height, width = image.shape[:2]
    levels = np.ascontiguousarray(image, image.dtype.newbyteorder(">")).view(np.uint8).reshape(height, -1)
    rows = np.full((height, 1 + levels.shape[1]), 2, np.uint8)  # each row begins with its filter: 2 is "Up"
    rows[0, 1:] = levels[0]
    np.subtract(levels[1:], levels[:-1], out=rows[1:, 1:])
    header = struct.pack(">2I5B", width, height, 8 * image.itemsize, 2 if image.ndim == 3 else 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))
        for name, data in chunks
    )


def write_png(path: Path, image: np.ndarray) -> None:
    """Write RGB or grey, uint8 or uint16, atomically as PNG."""
    with atomic(path) as temporary:
        temporary.write_bytes(encode_png(image))


def reduced(image: np.ndarray) -> np.ndarray:
    """A large photograph, uint8 (H, W, 3), or a mask of it, uint8 (H, W), in whole fractions, to be looked at.

    The longer side gets at most 1.5 times `SHOWN_SIDE` pixels. Whole blocks of pixels are averaged, which is
    many times as fast as any size; a rest at the right and at the bottom is left out. A mask stays 0 or 255.
    """
    times = max(1, round(max(image.shape[:2]) / SHOWN_SIDE))
    if times == 1:
        return image
    height, width = (side // times for side in image.shape[:2])
    small = cv2.resize(image[: height * times, : width * times], (width, height), interpolation=cv2.INTER_AREA)
    return small if image.ndim == 3 else np.where(small > 127, np.uint8(255), np.uint8(0))


def size(image: np.ndarray) -> str:
    """Width x height as text."""
    return f"{image.shape[1]}x{image.shape[0]}"


def normalize(
    photograph: np.ndarray, fov: np.ndarray, mean: np.ndarray, std: np.ndarray, levels: np.ndarray | None = None
) -> np.ndarray:
    """Turn a photograph, uint8 (H, W, 3), into the network's input, float32 (3, H, W).

    Each channel gets mean 0 and standard deviation 1 inside the field of view (`statistics`), which evens out
    cameras and exposures; outside it is 0. `levels`, (256, 3), maps the photograph's levels first
    (`training.crops.jitter_colour`).
    """
    if levels is None:
        levels = np.arange(256)[:, None]
    table = ((levels - mean) / std).astype(np.float32)
    # one table look-up does it all
    image = cv2.LUT(photograph, table[None]).transpose(2, 0, 1)
    return np.multiply(image, fov > 0, dtype=np.float32, order="C")


def equalize(photograph: np.ndarray, fov: np.ndarray) -> np.ndarray:
    """Even out the contrast of a photograph, so that vessels show in dark, pale and hazy parts too.

    Contrast-limited adaptive histogram equalization (CLAHE, Zuiderveld 1994) of the lightness, in 8 x 8 tiles
    over the rectangle around the field of view. Hue stays.

    Args:
        photograph: uint8 (H, W, 3) RGB.
        fov: field of view, uint8 (H, W), 0 or 255, not empty.

    Returns:
        uint8 (H, W, 3) RGB.
    """
    left, top, width, height = cv2.boundingRect(fov)
    part = np.s_[top : top + height, left : left + width]
    lab = cv2.cvtColor(np.ascontiguousarray(photograph[part]), cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(clipLimit=2, tileGridSize=(8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
    copy = photograph.copy()
    copy[part] = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    return copy


def statistics(photograph: np.ndarray, fov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel inside the field of view, float32 (3,) each."""
    mean, std = cv2.meanStdDev(photograph, mask=fov)
    return mean[:, 0].astype(np.float32), np.maximum(std[:, 0], 1).astype(np.float32)
