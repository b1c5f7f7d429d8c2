"""The files of a run of test.py: where they may lie, which they are, and those of one eye."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.eyes import Eye
from datasets.images import write_png
from pages.report import compare, picture, write_layers
from scoring import metrics
from utils import UserError

PARTS = ("", "masks", "probability", "uncertainty", "outlines", "page/*")  # folders of the results


def check_results(results: Path, data: Path) -> None:
    """Raise UserError if the results would lie among the eyes that are read."""
    place, whole = results.resolve(), data.resolve()
    if place == whole or any(place.is_relative_to(whole / part) for part in ("train", "test")):
        raise UserError(f"--results {results}: lies in {data}; choose another folder")


def files_of(eyes: Sequence[Eye]) -> list[str]:
    """Every file that test.py may write for these eyes."""
    each = [f"{eye.name}.png" for eye in eyes] + [f for eye in eyes for f in result_files(eye.result_name)]
    return ["index.html", "metrics.csv", "measures.csv", "drive_challenge.zip", *each]


def result_files(name: str) -> list[str]:
    """Every file below the results that there may be for an image: for the page, masks, maps and outlines."""
    layers = {"photograph": "jpg", "truth": "png", "differences": "png", "thumbnail": "jpg"}
    page = [f"page/{layer}/{name}.{suffix}" for layer, suffix in layers.items()]
    parts = [f"{part}/{name}.png" for part in ("masks", "probability", "uncertainty")]
    return [*page, *parts, f"outlines/{name}.jpg"]


def write_results(results: Path, eye: Eye, levels: np.ndarray, threshold: float, probability: bool) -> None:
    """Write mask and picture of one eye, and `probability` if asked for."""
    name = eye.result_name
    prediction = np.where((levels >= metrics.level_of(threshold)) & (eye.fov > 0), 255, 0).astype(np.uint8)
    write_png(results / "masks" / f"{name}.png", prediction)
    if probability:
        write_png(results / "probability" / f"{name}.png", levels)
    write_png(results / f"{eye.name}.png", picture(eye, prediction))
    write_layers(results, name, eye.image, compare(eye, prediction), eye.mask)
