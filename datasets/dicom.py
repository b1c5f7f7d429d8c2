"""Photographs in DICOM files, with pydicom where it is installed: pixels, and the few tags that are used."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils import UserError

IDENTIFIERS = ("PatientID", "AccessionNumber", "StudyID", "StudyInstanceUID")  # that --dicom-id may name
TAGS = (
    *("Laterality", "ImageLaterality", "Manufacturer", "ManufacturerModelName"),
    *("PixelSpacing", "NumberOfFrames", "Rows", "Columns"),
)
# millimetres of a retina that a photograph shows: from a close-up of the disc to an ultra-wide field
MILLIMETRES = (4.0, 40.0)
SQUARE = 1.05  # pixels that are longer in one direction by more are none of a photograph


@dataclass(frozen=True)
class Tags:
    """What a DICOM file says beside its pixels; empty or None where it does not."""

    eye: str = ""  # right or left
    camera: str = ""
    um_per_pixel: float | None = None  # where it is plausible for an eye
    frames: int = 1
    identifier: str = ""  # the one that was asked for


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do; one that cannot be read does not."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
    return False


def read_frame(path: Path, most_pixels: int) -> np.ndarray:
    """The pixels of a DICOM photograph; of several frames the first.

    Returns:
        uint8 (H, W, 3) RGB, or of a file with more than 8 bits uint16 (H, W) or (H, W, 3) RGB.

    Raises:
        UserError: it holds no picture, or one that is too large or cannot be decoded.
    """
    import pydicom
    from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

    file = pydicom.dcmread(path)
    if "PixelData" not in file:
        raise UserError(f"{path}: a DICOM file without a picture")
    if file.Rows * file.Columns > most_pixels:
        raise UserError(f"{path}: more than {most_pixels:,} pixels; shrink it")
    levels = pixel_array(file, index=0)  # YCbCr becomes RGB
    kind = file.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        levels = apply_color_lut(levels, file)
        if levels.dtype == np.uint16 and not (levels % 257).any():  # 8 bits, stretched
            levels = (levels // 257).astype(np.uint8)
    elif kind.startswith("MONOCHROME"):
        levels = np.asarray(apply_modality_lut(levels, file))
        levels = np.rint(levels - min(0, levels.min()))
        if kind == "MONOCHROME1":  # the lowest is white
            levels = max(2**file.BitsStored - 1, levels.max()) - levels
        levels = levels.astype(np.uint8 if levels.max() < 256 and file.BitsStored <= 8 else np.uint16)
    if levels.ndim == 2 and levels.dtype == np.uint8:
        levels = np.repeat(levels[..., None], 3, axis=2)
    return np.ascontiguousarray(levels)


def read_tags(path: Path, identifier: str | None = None) -> Tags:
    """The tags of a photograph that are used, and if asked for one of `IDENTIFIERS`; no other is looked at.

    Empty if it is no DICOM file.
    """
    if not is_dicom(path):
        return Tags()
    import pydicom

    wanted = [*TAGS, *filter(None, [identifier])]
    file = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=wanted)

    def text(tag: str) -> str:
        return " ".join(str(file.get(tag) or "").split())

    side = text("ImageLaterality") or text("Laterality")
    return Tags(
        {"R": "right", "L": "left"}.get(side, ""),
        camera_name(text("Manufacturer"), text("ManufacturerModelName")),
        plausible_spacing(file),
        int(file.get("NumberOfFrames") or 1),
        text(identifier) if identifier else "",
    )


def camera_name(maker: str, model: str) -> str:
    """Maker and model in one, the maker once."""
    return model if model.casefold().startswith(maker.casefold()) else f"{maker} {model}".strip()


def plausible_spacing(file: Any) -> float | None:
    """Micrometres a pixel by PixelSpacing; None if that is none of a retina, but of the sensor or a print."""
    try:
        down, across = (float(spacing) for spacing in file.PixelSpacing)
        wide = max(file.Rows * down, file.Columns * across)
    except (AttributeError, TypeError, ValueError):
        return None
    square = min(down, across) > 0 and max(down, across) <= SQUARE * min(down, across)
    return 1000 * (down + across) / 2 if square and MILLIMETRES[0] <= wide <= MILLIMETRES[1] else None
