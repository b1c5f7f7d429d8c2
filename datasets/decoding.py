"""Decode image files: which kinds are read, with how many bits, and what is said of the others."""

from __future__ import annotations

import contextlib
import functools
import gzip
import importlib.util
import io
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import cv2
import numpy as np

from datasets.dicom import camera_name, is_dicom, read_frame
from utils import UserError, explain, missing

if TYPE_CHECKING:
    from PIL import Image

# Pillow reads more formats, but starts other programs for some
FORMATS = ("TIFF", "PNG", "GIF", "JPEG", "MPO", "BMP", "DIB", "PPM", "WEBP", "JPEG2000", "AVIF", "HEIF")
MAX_PIXELS = 120_000_000  # larger images are refused before decoding: they could exhaust the memory
MAX_UNPACKED = 100_000_000  # bytes that a gzipped file may unpack to
MOST_PAGES = 50  # files of more are no photographs
TOPS = (255, 1023, 4095, 16383, 65535)  # the brightest level of 8, 10, 12, 14 and 16 bits
JPEG_START = b"\xff\xd8\xff"
INSTALL = "to read it, pip install -r requirements-formats.txt"
DICOM = f"a DICOM file; {INSTALL}, or export the photograph as PNG or JPEG"
VOLUME = "a volume; augment.py reads labels in it, but no photographs: export those as PNG or JPEG"
HEIC = f"a HEIC photograph; {INSTALL}, or export it as JPEG"
DICOM_SUFFIXES, HEIC_SUFFIXES = (".dcm", ".dicom", ".dicm"), (".heic", ".heif")
# read where this package is installed
OPTIONAL = dict.fromkeys(DICOM_SUFFIXES, "pydicom") | dict.fromkeys(HEIC_SUFFIXES, "pillow_heif")
OTHER_KINDS = {  # that people have, but that are not read here: the suffix, what it is, what to do
    **dict.fromkeys(DICOM_SUFFIXES, DICOM),
    **dict.fromkeys(HEIC_SUFFIXES, HEIC),
    **dict.fromkeys((".nrrd", ".nii"), VOLUME),
    ".pdf": "a PDF; export its pictures as PNG or JPEG",
    ".zip": "an archive; unpack it",
    ".gz": "gzipped; unpack it, for example with gunzip",  # named itself, it is read: STARE comes so
}

IN_ITS_PLACE = {  # how files begin that lie in a picture's place
    b"version https://git-lfs": "a pointer of Git LFS; fetch the picture itself with git lfs pull",
    b"/annex/objects/": "a pointer of git-annex; fetch the picture itself with git annex get",
    b"<!doctype html": "a page of the web; download the picture itself, if need be with your login",
    bytes(132): "all zeros, as left by a copy that was cut off; copy it anew",
}


def decode(path: Path) -> np.ndarray:
    """Decode an image with its transparency; of several pages or pictures in one file the largest.

    Returns:
        uint8 (H, W, 3) RGB or (H, W, 4) RGBA; of a file with more than 8 bits uint16 (H, W), (H, W, 3) or
        (H, W, 4).

    Raises:
        UserError: as `read_image`.
    """
    from PIL import Image

    check_name(path)
    too_large = UserError(f"{path}: more than {MAX_PIXELS:,} pixels; shrink it")
    formats = readable_formats()
    try:
        if not path.is_file():
            raise UserError(f"{path}: not a file" if path.exists() else missing(path, "file"))
        if is_dicom(path) and is_installed("pydicom"):
            return read_frame(path, MAX_PIXELS)
        # not the path: Pillow would map the file, and shear an uncompressed TIFF that its EXIF turns
        with open_unpacked(path) as source:
            with Image.open(source, formats=formats) as file:
                embedded = embedded_jpeg(path, file) if file.format in ("JPEG", "MPO") else None
            with Image.open(embedded or source, formats=formats) as file:
                page = 0 if embedded else go_to_largest_page(path, file)
                if file.width * file.height > MAX_PIXELS:
                    raise too_large
                levels = levels_of(file, path, page)
    except (UserError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise too_large from None
    except Image.UnidentifiedImageError:
        raise UserError(f"{path}: {what_is(path)}") from None
    except Exception as error:
        # Pillow's readers have no common exception for damaged files
        kind = "a DICOM" if is_dicom(path) else "an"
        raise UserError(explain(error, path, f"cannot be read as {kind} image")) from None
    if levels.dtype == np.uint8:
        return levels
    if levels.min() < 0 or levels.max() > 65535:
        raise UserError(f"{path}: its levels go beyond 16 bits; save it with 8 or 16 bits")
    return levels.astype(np.uint16)


def is_installed(package: str) -> bool:
    """Whether an optional package is there."""
    return importlib.util.find_spec(package) is not None


@functools.cache
def readable_formats() -> list[str]:
    """The formats that Pillow can read here."""
    from PIL import Image, TiffImagePlugin

    Image.init()
    # grey of 16 bits, high byte first, whose 0 is white, as ImageJ writes it; Pillow knows a black 0 alone
    wide = TiffImagePlugin.OPEN_INFO
    wide.setdefault((b"MM", 0, (1,), 1, (16,), ()), wide[(b"MM", 1, (1,), 1, (16,), ())])
    if is_installed("pillow_heif"):
        import pillow_heif

        pillow_heif.register_heif_opener()
    return [kind for kind in FORMATS if kind in Image.OPEN]


def levels_of(file: Image.Image, path: Path, page: int) -> np.ndarray:
    """The pixels of an open image, upright; as `decode`, but grey may have numbers of any kind."""
    from PIL import ImageOps

    # before the EXIF of a PNG loads it; Pillow keeps 8 bits alone, and of 16 in JPEG 2000 no transparency
    wide = file.mode in ("RGB", "RGBA", "LA") and ";16" in str(getattr(file, "tile", ""))
    wide |= file.format == "JPEG2000" and file.mode == "RGBA"
    clear, tags = file.info.get("transparency"), getattr(file, "tag_v2", {})
    if tags.get(284) == 2 and len(bits := tags.get(258, ())) > 1 and max(bits) > 8:
        raise UserError(f"{path}: a TIFF of {max(bits)} bits in planes, which is not read; save it interleaved")
    if wide and (levels := decode_wide(path, page)) is not None:
        levels = levels[..., : 3 if file.mode == "RGB" else 4]  # a layer that is no transparency
        if levels.shape[2] == 3 and isinstance(clear, tuple):
            levels = with_alpha(levels, (levels != np.array(clear)).any(axis=2))
        upright, _ = ORIENTATIONS.get(file.getexif().get(0x0112), ORIENTATIONS[1])
        return upright(levels)
    ImageOps.exif_transpose(file, in_place=True)  # else it is copied even where nothing is to be turned
    transparent = file.mode in ("RGBA", "LA", "PA") or clear is not None
    if not file.mode.startswith(("I", "F")):
        mode = "RGBA" if transparent else "RGB"
        return np.array(file if file.mode == mode else file.convert(mode))
    levels = np.asarray(file)
    # whole numbers stored so are read, such as a mask of 0.0 and 1.0; asked before white and black change
    # places, since of bytes that Pillow orders wrongly nothing but white would be left
    if levels.dtype.kind == "f" and not (np.isfinite(levels) & (levels == np.round(levels))).all():
        raise UserError(f"{path}: holds floating-point numbers; save it with 8 or 16 bits")
    if tags.get(262) == 0:  # WhiteIsZero; Pillow turns 8 bits round, but not more
        bits = tags.get(258, (16,))[0]  # files of 16 often hold fewer, see `read_image`
        levels = next((top for top in TOPS if bits >= 16 and levels.max() <= top), 2**bits - 1) - levels
    if isinstance(clear, int) and levels.max() <= 65535:
        levels = with_alpha(np.repeat(levels.astype(np.uint16)[..., None], 3, axis=2), levels != clear)
    return levels


def with_alpha(levels: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """uint16 (H, W, 3) and where it is visible, bool (H, W), to uint16 (H, W, 4)."""
    return np.dstack([levels, np.where(visible, 65535, 0).astype(np.uint16)])


def go_to_largest_page(path: Path, file: Image.Image) -> int:
    """Go to the largest page of an open image and return its number: the first may be a preview.

    Raises:
        UserError: several are as large, and differ.
    """
    from PIL.TiffImagePlugin import TiffImageFile

    with contextlib.suppress(OSError, ValueError, KeyError, SyntaxError):  # what is said of them is damaged
        inside = file.get_child_images() if isinstance(file, TiffImageFile) and 330 in file.tag_v2 else []
        for f in (f for f in inside if f.width * f.height > file.width * file.height):
            pixels = f"{f.width}x{f.height} pixels"
            raise UserError(f"{path}: a preview, with a picture of {pixels} inside; export that as PNG or TIFF")
    number = getattr(file, "n_frames", 1)
    if number == 1:
        return 0
    if number > MOST_PAGES:
        raise UserError(f"{path}: {number} pages; save the photograph in a file of its own")
    sizes = []
    for page in range(number):
        file.seek(page)
        # a page of two levels is a mask of the photograph, unless all are
        sizes.append((file.mode != "1", file.width * file.height))
    largest = [page for page, size in enumerate(sizes) if size == max(sizes)]
    if max(sizes)[1] <= MAX_PIXELS and len(largest) > 1:
        contents = []
        for page in largest:
            file.seek(page)
            contents.append(hash(file.convert("RGBA").tobytes()))
        if len(set(contents)) > 1:
            pages = f"{len(largest)} pages of {file.width}x{file.height} pixels"
            raise UserError(f"{path}: {pages}; save the right one in a file of its own")
    file.seek(largest[0])
    return largest[0]


def embedded_jpeg(path: Path, file: Image.Image) -> io.BytesIO | None:
    """The largest JPEG inside a JPEG, where that has more pixels than the file itself shows; else None."""
    from PIL import Image

    with open_unpacked(path) as source:
        data = source.read()
    best, most, start = None, file.width * file.height, 0
    while (start := data.find(JPEG_START, start + 1)) > 0:
        with contextlib.suppress(Exception), Image.open(io.BytesIO(data[start:]), formats=["JPEG"]) as inner:
            if inner.width * inner.height > most:
                best, most = start, inner.width * inner.height
    return None if best is None else io.BytesIO(data[best:])


# what brings an image with this EXIF orientation upright, and that in words
ORIENTATIONS: dict[Any, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    1: (lambda image: image, ""),
    2: (lambda image: image[:, ::-1], "mirror it"),
    3: (lambda image: image[::-1, ::-1], "turn it by 180 degrees"),
    4: (lambda image: image[::-1], "flip it upside down"),
    5: (lambda image: image.swapaxes(0, 1), "turn and mirror it"),
    6: (lambda image: np.rot90(image, -1), "turn it by 90 degrees"),
    7: (lambda image: image[::-1, ::-1].swapaxes(0, 1), "turn and mirror it"),
    8: (lambda image: np.rot90(image), "turn it by 270 degrees"),
}


def turning(path: Path) -> str:
    """What the EXIF orientation of an image does to its pixels, in words; empty if nothing."""
    return ORIENTATIONS.get(exif_of(path).get(0x0112), ORIENTATIONS[1])[1]


def camera_of(path: Path) -> str:
    """Maker and model of the camera in the EXIF of an image, such as Canon CR-2; empty if it does not say."""
    exif = exif_of(path)
    maker, model = (" ".join(printable(str(exif.get(tag, ""))).split()) for tag in (0x010F, 0x0110))
    return camera_name(maker, model)


def printable(text: str) -> str:
    """A text without control characters: cameras fill up with zeros."""
    return "".join(character if character.isprintable() else " " for character in text)


def exif_of(path: Path) -> dict[int, Any]:
    """The EXIF of an image by the numbers of its tags; empty if there is none that can be read."""
    from PIL import Image

    # gzipped, or EXIF that is damaged: the image itself was read
    with contextlib.suppress(Exception), Image.open(path, formats=readable_formats()) as file:
        return dict(file.getexif())
    return {}


def decode_wide(path: Path, page: int) -> np.ndarray | None:
    """Decode an image of 16 bits, uint16 (H, W, 3) RGB or (H, W, 4) RGBA; None if that is not possible."""
    with open_unpacked(path) as source:
        _, pages = cv2.imdecodemulti(np.frombuffer(source.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    levels = pages[page] if page < len(pages) else None
    if levels is None or levels.dtype != np.uint16 or levels.ndim != 3 or levels.shape[2] < 3:
        return None
    return np.ascontiguousarray(levels[..., [2, 1, 0, 3][: levels.shape[2]]])


def check_name(path: Path) -> None:
    """Raise UserError if a file's name holds control characters, such as a line break.

    Spaces of all scripts, joiners and direction marks are fine: macOS writes some into screenshots' names. So
    are bytes that are no text, as in names of Latin-1 or, where the locale is C, in all that are not ASCII.
    """
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in path.name):
        raise UserError(f"{str(path)!r}: a line break or another control character in its name; rename it")


def what_is(path: Path) -> str:
    """Describe a file that Pillow does not recognise, and what to do with it."""
    with path.open("rb") as file:
        head = file.read(132)
    if not head:
        return "empty; copy it anew"
    if is_dicom(path):
        return DICOM
    if path.suffix.lower() in (".nrrd", ".nii"):
        return VOLUME
    if head[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
        return "a HEIC photograph that is damaged" if is_installed("pillow_heif") else HEIC
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        such = "such as one of 64-bit numbers or with a layer beside its colours"
        return f"a TIFF of a kind that cannot be read, {such}; save it as RGB with 8 or 16 bits"
    kinds = "TIFF, PNG, JPEG, GIF, BMP, PPM, WebP, JPEG 2000 or AVIF"
    kinds = f"not a {kinds} image{'' if path.suffix else ', and its name has no suffix'}"
    return next((what for start, what in IN_ITS_PLACE.items() if head.lower().startswith(start)), kinds)


def open_unpacked(path: Path) -> BinaryIO:
    """Open a file to be read, unpacked if it is gzipped; UserError if it holds more than MAX_UNPACKED bytes."""
    if path.suffix.lower() != ".gz":
        return path.open("rb")
    with gzip.open(path) as file:
        content = file.read(MAX_UNPACKED + 1)
    if len(content) > MAX_UNPACKED:
        raise UserError(f"{path}: unpacks to more than {MAX_UNPACKED:,} bytes; that is no photograph of an eye")
    return io.BytesIO(content)
