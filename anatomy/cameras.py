"""The disc diameter of each camera: what brings photographs of several cameras to one scale for a training."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from anatomy.photograph import DISC_SHARE, look_at
from datasets.images import read_image
from system.threads import threads
from utils import UserError


def measure_discs(photographs: Sequence[Path]) -> dict[Path, float]:
    """Measure the disc diameter of the camera of each photograph, in pixels.

    Photographs of one size in one folder are of one camera. Discs differ by a tenth from eye to eye, the scale
    of a camera does not, so the median over its eyes counts. Where none is seen in any, a field of view of 45
    degrees is assumed, as DRIVE has it. A file that cannot be read is left out.
    """

    def look(path: Path) -> tuple[tuple[int, ...], float, float]:
        photograph = look_at(read_image(path))
        return photograph.pixels.shape, photograph.landmarks.disc_diameter, DISC_SHARE * photograph.diameter

    cameras: dict[tuple[Path, tuple[int, ...]], list[tuple[Path, float, float]]] = {}
    with threads() as pool:
        jobs = [pool.submit(look, path) for path in photographs]
        for path, job in zip(photographs, tqdm(jobs, desc="discs", unit="eye", disable=None), strict=True):
            with contextlib.suppress(UserError):  # it is named when the eye is written
                shape, disc, assumed = job.result()
                cameras.setdefault((path.parent, shape), []).append((path, disc, assumed))
    measured: dict[Path, float] = {}
    for eyes in cameras.values():
        diameters = [disc for _, disc, _ in eyes if disc > 0] or [assumed for _, _, assumed in eyes]
        measured |= dict.fromkeys((path for path, _, _ in eyes), float(np.median(diameters)))
    return measured
