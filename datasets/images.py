"""Image files: list, read and write them, and normalise a photograph for the network."""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np

from system.files import atomic
from utils import UserError

SUFFIXES = {".tif", ".tiff", ".png", ".gif", ".jpg", ".jpeg", ".bmp", ".ppm"}
# Pillow reads more formats, but starts other programs for some
FORMATS = ("TIFF", "PNG", "GIF", "JPEG", "BMP", "PPM")
MAX_PIXELS = 120_000_000  # larger images are refused before decoding: they could exhaust the memory
MAX_UNPACKED = 100_000_000  # bytes that a gzipped file may unpack to


def list_images(folder: Path, suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """List the image files of a folder in natural order, without hidden files."""
    files = [f for f in folder.iterdir() if f.suffix.lower() in suffixes and not f.name.startswith(".")]
    return sorted(files, key=lambda f: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", f.name)])


def read_image(path: Path) -> np.ndarray:
    """Read the first frame of a TIFF (LZW too), GIF, PNG, JPEG, BMP or PPM file, gzipped or not.

    Returns:
        uint8 (H, W, 3) RGB. Grey becomes RGB, 12 and 16 bits are scaled to 8, transparency is dropped, and the
        EXIF orientation is applied.

    Raises:
        UserError: the file is missing, not an image, truncated, floating-point, or too large.
    """
    levels = read_levels(path)
    if levels.ndim == 3:
        return levels
    # files of 16 bits often hold 8 or 12
    top = next(top for top in (255, 4095, 65535) if levels.max() <= top)
    return np.repeat((levels.astype(np.uint32) * 255 // top).astype(np.uint8)[..., None], 3, axis=2)


def read_levels(path: Path) -> np.ndarray:
    """Read an image as `read_image` does, but leave 16 bits as they are.

    Returns:
        uint8 (H, W, 3) RGB, or uint16 (H, W) of a file with more than 8 bits.

    Raises:
        UserError: as `read_image`.
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
        # Pillow's readers have no common exception for damaged files
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path}: cannot be read as an image ({reason})") from None
    if levels.min() < 0 or levels.max() > 65535:
        raise UserError(f"{path}: its levels go beyond 16 bits; save it with 8 or 16 bits")
    return levels.astype(np.uint16)


def unpack(path: Path) -> io.BytesIO:
    """Unpack a gzipped file; UserError if it holds more than MAX_UNPACKED bytes."""
    with gzip.open(path) as file:
        content = file.read(MAX_UNPACKED + 1)
    if len(content) > MAX_UNPACKED:
        raise UserError(f"{path}: unpacks to more than {MAX_UNPACKED:,} bytes; that is no photograph of an eye")
    return io.BytesIO(content)


def read_mask(path: Path) -> np.ndarray:
    """Read a vessel mask or a field of view.

    Returns:
        uint8 (H, W), exactly 0 or 255. A nearly binary file, such as a JPEG, is split at 127.

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
    # the default, level 1 with one filter, takes half the time of level 2 with all and a tenth more space
    _, png = cv2.imencode(".png", pixels)
    with atomic(path) as temporary:
        temporary.write_bytes(png.tobytes())


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


def statistics(photograph: np.ndarray, fov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel inside the field of view, float32 (3,) each."""
    mean, std = cv2.meanStdDev(photograph, mask=fov)
    return mean[:, 0].astype(np.float32), np.maximum(std[:, 0], 1).astype(np.float32)
