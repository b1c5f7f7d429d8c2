"""Vessels of photographs without labels, as trained networks see them: a student learns them too.

What several networks find in eight views is better than what one finds in one view, and photographs without
labels are of cameras and diseases that no observer has drawn (Hinton et al. 2015,
https://arxiv.org/abs/1503.02531; Xie et al. 2020, https://arxiv.org/abs/1911.04252).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anatomy.cameras import measure_discs
from anatomy.photograph import DISC_SHARE
from datasets.eyes import load_eye, rescale
from datasets.images import list_images, write_png
from networks.loading import load_networks
from prediction.segmentation import segment
from scoring.metrics import quantize
from system.devices import pick_device
from utils import UserError

if TYPE_CHECKING:
    from model import Network

TEACHER_VIEWS = 8


def read_lesson(folder: Path, weights: Sequence[Path], taken: Sequence[str]) -> tuple[list[Path], Network]:
    """The photographs of a folder, and the network that is to teach them: of several `weights` their mean.

    Raises:
        UserError: no photographs; one has a name that is `taken`; or the weights cannot be loaded.
    """
    paths = list_images(folder) if folder.is_dir() else []
    if not paths:
        raise UserError(f"--unlabelled {folder}: no photographs there; give a folder of them")
    names = [path.stem for path in paths]
    if twice := [path for path in paths if names.count(path.stem) > 1 or path.stem in taken]:
        raise UserError(f"{twice[0]}: its name is used twice; rename it")
    return paths, load_networks(weights, None, pick_device("auto"))[0]


def teach(paths: Sequence[Path], teachers: Network, disc: float, out: Path, only_read: bool) -> list[str]:
    """Write photographs, and the probability of vessel that the teachers find.

    `disc` is in pixels per disc diameter, to which the photographs are brought; `out` gets image/, fov/ and
    probability/ (0 to 255 is 0 to 1), PNG.

    Returns:
        A line for each photograph that cannot be read. From the first on, and with `only_read`, the others are
        only read.
    """
    from tqdm import tqdm

    problems: list[str] = []
    discs = measure_discs(paths)
    factor = (teachers.disc or teachers.diameter * DISC_SHARE) / disc
    for path in tqdm(paths, desc="teachers", unit="photograph", disable=None):
        try:
            eye = load_eye(path.stem, path, {})
        except UserError as error:
            problems += str(error).splitlines()
        if problems or only_read:
            continue
        eye = rescale(eye, disc / discs.get(path, disc))
        levels = quantize(segment(teachers, eye.image, eye.fov, TEACHER_VIEWS, factor))
        parts = {"image": eye.image, "fov": eye.fov, "probability": np.uint8(np.rint(levels / 257.0))}
        for part, pixels in parts.items():
            write_png(out / part / f"{eye.name}_0.png", pixels)
    return problems
