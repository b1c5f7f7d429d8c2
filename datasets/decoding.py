"""Decode image files: which kinds are read, with how many bits, and what is said of the others."""

from __future__ import annotations

import gzip
import io
import unicodedata
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from utils import UserError

# Pillow reads more formats, but starts other programs for some
FORMATS = ("TIFF", "PNG", "GIF", "JPEG", "MPO", "BMP", "DIB", "PPM", "WEBP", "JPEG2000", "AVIF")
MAX_PIXELS = 120_000_000  # larger images are refused before decoding: they could exhaust the memory
MAX_UNPACKED = 100_000_000  # bytes that a gzipped file may unpack to
DICOM = "a DICOM file; export the photograph as PNG or JPEG, for example with dcmj2pnm of DCMTK"
OTHER_KINDS = {  # that people have, but that are not read here: the suffix, what it is, what to do
    ".dcm": DICOM,
    ".dicom": DICOM,
    ".dicm": DICOM,
    ".heic": "a HEIC photograph; export it as JPEG",
    ".heif": "a HEIC photograph; export it as JPEG",
    ".pdf": "a PDF; export its pictures as PNG or JPEG",
    ".zip": "an archive; unpack it",
    ".gz": "gzipped; unpack it, for example with gunzip",  # named itself, it is read: STARE comes so
}


def decode(path: Path) -> np.ndarray:
    """Decode an image with its transparency.

    Returns:
        uint8 (H, W, 3) RGB or (H, W, 4) RGBA; of a file with more than 8 bits uint16 (H, W) or (H, W, 3).

    Raises:
        UserError: as `read_image`.
    """
    from PIL import Image, ImageOps

    check_name(path)
    if not path.is_file():
        raise UserError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    too_large = UserError(f"{path}: more than {MAX_PIXELS:,} pixels; shrink it")
    Image.init()
    formats = [kind for kind in FORMATS if kind in Image.OPEN]
    try:
        source = unpack(path) if path.suffix.lower() == ".gz" else path
        with Image.open(source, formats=formats) as file:
            if file.width * file.height > MAX_PIXELS:
                raise too_large
            wide = file.mode in ("RGB", "RGBA") and ";16" in str(file.tile)  # before the EXIF of a PNG loads it
            # Pillow would keep the upper 8 bits alone
            if wide and (levels := decode_wide(path)) is not None:
                return ORIENTATIONS.get(file.getexif().get(0x0112, 1), ORIENTATIONS[1])(levels)
            ImageOps.exif_transpose(file, in_place=True)  # else it is copied even where nothing is to be turned
            transparent = file.mode in ("RGBA", "LA", "PA") or "transparency" in file.info
            if not file.mode.startswith(("I", "F")):
                mode = "RGBA" if transparent else "RGB"
                return np.array(file if file.mode == mode else file.convert(mode))
            levels = np.asarray(file)
    except (UserError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise too_large from None
    except Image.UnidentifiedImageError:
        raise UserError(f"{path}: {what_is(path)}") from None
    except Exception as error:
        # Pillow's readers have no common exception for damaged files
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path}: cannot be read as an image ({reason})") from None
    whole = levels.dtype.kind != "f" or bool((np.isfinite(levels) & (levels == np.round(levels))).all())
    if not whole:  # whole numbers stored so are read, such as a mask of 0.0 and 1.0
        raise UserError(f"{path}: holds floating-point numbers; save it with 8 or 16 bits")
    if levels.min() < 0 or levels.max() > 65535:
        raise UserError(f"{path}: its levels go beyond 16 bits; save it with 8 or 16 bits")
    return levels.astype(np.uint16)


# what brings an image with this EXIF orientation upright
ORIENTATIONS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: np.rot90(image),
}


# what these orientations do
TURNS = {
    2: "mirror it",
    3: "turn it by 180 degrees",
    4: "flip it upside down",
    5: "turn and mirror it",
    6: "turn it by 90 degrees",
    7: "turn and mirror it",
    8: "turn it by 270 degrees",
}


def turning(path: Path) -> str:
    """What the EXIF orientation of an image does to its pixels, in words; empty if nothing."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as file:
            return TURNS.get(file.getexif().get(0x0112, 1), "")
    except Exception:  # gzipped, or EXIF that is damaged: the image itself was read
        return ""


def decode_wide(path: Path) -> np.ndarray | None:
    """Decode a colour image of 16 bits, uint16 (H, W, 3) RGB; None if that is not possible."""
    data = unpack(path).getvalue() if path.suffix.lower() == ".gz" else path.read_bytes()
    levels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if levels is None or levels.dtype != np.uint16 or levels.ndim != 3:
        return None
    return np.ascontiguousarray(levels[..., 2::-1])


def check_name(path: Path) -> None:
    """Raise UserError if a file's name holds control characters, such as a line break, or is no text.

    Spaces of all scripts, joiners and direction marks are fine: macOS writes some into screenshots' names.
    """
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in path.name):
        raise UserError(f"{str(path)!r}: a line break or another control character in its name; rename it")


def what_is(path: Path) -> str:
    """Describe a file that Pillow does not recognise, and what to do with it."""
    with path.open("rb") as file:
        head = file.read(132)
    if not head:
        return "empty"
    if head[128:] == b"DICM":
        return DICOM
    if head[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
        return OTHER_KINDS[".heic"]
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "a TIFF of a kind that cannot be read, such as one of 64-bit numbers; save it with 8 or 16 bits"
    return (
        f"not a TIFF, PNG, GIF, JPEG, BMP or PPM image{'' if path.suffix else ', and its name has no suffix'}"
    )


def unpack(path: Path) -> io.BytesIO:
    """Unpack a gzipped file; UserError if it holds more than MAX_UNPACKED bytes."""
    with gzip.open(path) as file:
        content = file.read(MAX_UNPACKED + 1)
    if len(content) > MAX_UNPACKED:
        raise UserError(f"{path}: unpacks to more than {MAX_UNPACKED:,} bytes; that is no photograph of an eye")
    return io.BytesIO(content)


def count_pages(path: Path) -> int:
    """The number of pages of an image file, of which `decode` reads the first; 1 if it cannot be told."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as file:
            return int(getattr(file, "n_frames", 1))
    except OSError:  # gzipped, for one
        return 1
