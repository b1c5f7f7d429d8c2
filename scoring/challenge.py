"""Masks of DRIVE's 20 official test photographs in one file, to be scored with the labels that are withheld."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

from datasets.eyes import Eye
from system.files import atomic

PHOTOGRAPHS = tuple(f"{number:02d}_test" for number in range(1, 21))
SHAPE = (584, 565)  # pixels, height and width


def write_challenge(path: Path, eyes: Sequence[Eye]) -> Path | None:
    """Pack the masks of DRIVE's official test photographs, from masks/ beside it, into a ZIP file.

    The masks are PNG files of 0 and 255 with the photographs' names, 01_test.png to 20_test.png.

    Returns:
        The file; None where the 20 photographs were not all segmented at their own size. An earlier file is
        then removed, since it does not belong to these masks.
    """
    there = {eye.result_name for eye in eyes if eye.fov.shape == SHAPE}
    if not there.issuperset(PHOTOGRAPHS):
        path.unlink(missing_ok=True)
        return None
    masks = path.with_name("masks")
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in PHOTOGRAPHS:
            # a date of its own: equal masks give an equal file
            archive.writestr(zipfile.ZipInfo(f"{name}.png"), (masks / f"{name}.png").read_bytes())
    return path
