"""Vessels drawn as polygons: the JSON files of LabelMe and of the VGG Image Annotator (VIA)."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from datasets.pairing import plain, stem
from utils import UserError, explain

VESSEL = r"vessel|arter|vein|ven|blood|capillar|gef|mask"  # in one of several labels of shapes or segments
MOST_JSON = 100_000_000  # of a file that is looked into

Shapes = list[tuple[str, str, list[list[float]]]]  # label, kind, points x and y


def shapes_in(path: Path) -> dict[str, Shapes]:
    """The shapes in a JSON file by the `plain` stem of the photograph; empty if it is of another kind.

    A damaged one has none of the photograph of its own name: that is refused where the shapes are drawn.
    """
    damaged: dict[str, Shapes] = {plain(path.stem): []}
    try:
        if path.stat().st_size > MOST_JSON:
            return {}
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(explain(error, path)) from None
    except (ValueError, RecursionError):
        return damaged
    try:
        return labelme(data, path) or via(data)
    except (KeyError, TypeError, AttributeError, ValueError):
        return damaged if isinstance(data, dict) and "shapes" in data else {}


def labelme(data: Any, path: Path) -> dict[str, Shapes]:
    """The shapes of a file of LabelMe, which belongs to the photograph of its own name."""
    if not isinstance(data, dict) or "shapes" not in data:
        return {}
    shapes = [(str(s.get("label")), s.get("shape_type") or "polygon", s["points"]) for s in data["shapes"]]
    return {plain(path.stem): shapes}


def via(data: Any) -> dict[str, Shapes]:
    """The shapes of a project or an export of VIA, which has those of many photographs."""
    every = data.get("_via_img_metadata", data)
    found: dict[str, Shapes] = {}
    for each in every.values():
        regions = each["regions"]
        own = found.setdefault(plain(stem(Path(each["filename"]))), [])
        for region in regions.values() if isinstance(regions, dict) else regions:
            shape = region["shape_attributes"]
            label = " ".join(str(value) for value in region.get("region_attributes", {}).values())
            xs, ys = shape.get("all_points_x", []), shape.get("all_points_y", [])
            own.append((label, shape["name"], [[x, y] for x, y in zip(xs, ys, strict=True)]))
    return found


def vessel_labels(path: Path, labels: Collection[str]) -> list[str]:
    """Those of several labels that say vessel, artery or vein, or the only one; UserError if none does."""
    if len(labels) < 2:
        return list(labels)
    if vessels := [label for label in labels if re.search(VESSEL, label, re.IGNORECASE)]:
        return vessels
    listed = ", ".join(sorted(labels))
    raise UserError(f"{path}: no label says vessel, artery or vein: {listed}; rename one")


def draw_polygons(path: Path, photograph: str, shape: tuple[int, ...]) -> np.ndarray:
    """The mask that a JSON file of LabelMe or VIA describes, uint8 (H, W), 0 or 255.

    `photograph` is the name of its file, `shape` that of its pixels.

    Raises:
        UserError: it describes another photograph or none, shapes that have no area, or several labels of which
            none says vessel.
    """
    shapes = shapes_in(path).get(plain(stem(Path(photograph))))
    if not shapes:
        raise UserError(f"{path}: no shapes of {photograph} as LabelMe or VIA write them")
    labels = vessel_labels(path, {label for label, _, _ in shapes})
    shapes = [each for each in shapes if each[0] in labels]
    if others := sorted({kind for _, kind, points in shapes if kind != "polygon" or len(points) < 3}):
        raise UserError(f"{path}: shapes without an area ({', '.join(others)}); draw vessels as polygons")
    mask = np.zeros(shape[:2], np.uint8)
    for _, _, points in shapes:
        # a point lies between pixels, whose centres are half a pixel from there
        corners = np.rint((np.array(points, np.float64) - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(mask, [corners], 255, shift=4)
    return mask
