"""Pictures of arteries and veins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from anatomy.landmarks import Landmarks
from datasets.eyes import Eye
from datasets.kinds import ARTERY, BOTH, UNCERTAIN, VEIN, join_kinds
from measures.zones import Crossing, zone_circles
from pages.pictures import LANDMARK

# as in RITE: red arteries, blue veins, green crossings, white where the kind is unknown
KIND_COLOURS = {ARTERY: (235, 70, 60), VEIN: (75, 115, 245), BOTH: (60, 200, 90), UNCERTAIN: (225, 225, 225)}
KIND_NAMES = {ARTERY: "artery", VEIN: "vein", BOTH: "crossing", UNCERTAIN: "unknown"}


def colour_kinds(kinds: np.ndarray) -> np.ndarray:
    """A map of kinds, uint8 (H, W), see `datasets.kinds`, in colours on black: uint8 (H, W, 3) RGB."""
    table = np.zeros((256, 3), np.uint8)
    for kind, colour in KIND_COLOURS.items():
        table[kind] = colour
    return table[kinds]


def overlay_kinds(
    photograph: np.ndarray, kinds: np.ndarray, landmarks: Landmarks, six: Mapping[str, Sequence[Crossing]]
) -> np.ndarray:
    """Photograph with arteries (red), veins (blue), crossings (green) and undecided vessels (white) outlined.

    With the circles between the zones around the disc, and the vessels that CRAE and CRVE are of: their centre
    lines in zone B, with their widths in pixels.

    Args:
        photograph: uint8 (H, W, 3) RGB.
        kinds: uint8 (H, W), see `datasets.kinds`.
        landmarks: the disc.
        six: the vessels by kind, `artery` and `vein`.

    Returns:
        uint8 (H, W, 3) RGB.
    """
    picture, thickness = photograph.copy(), max(1, round(max(kinds.shape) / 1000))
    for kind, colour in KIND_COLOURS.items():
        lines, _ = cv2.findContours((kinds == kind).view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, lines, -1, colour, thickness)
    for x, y, radius in zone_circles(landmarks):
        cv2.circle(picture, (round(x), round(y)), round(radius), LANDMARK, thickness, cv2.LINE_AA)
    for name, vessels in six.items():
        colour = KIND_COLOURS[ARTERY if name == "artery" else VEIN]
        for vessel in vessels:
            line = np.rint(vessel.line).astype(np.int32).reshape(-1, 1, 2)
            cv2.polylines(picture, [line], False, colour, 3 * thickness, cv2.LINE_AA)
            x, y = (int(place) for place in line[len(line) // 2, 0])
            for shade, wide in ((0, 3), (255, 1)):  # white on black
                font = cv2.FONT_HERSHEY_SIMPLEX
                words, size = f"{vessel.width:.1f}", 0.6 * thickness
                cv2.putText(picture, words, (x, y), font, size, (shade,) * 3, wide * thickness, cv2.LINE_AA)
    return picture


def picture_kinds(eye: Eye, artery: np.ndarray, vein: np.ndarray) -> np.ndarray:
    """Panels side by side: photograph, labels of arteries and veins, and these as predicted.

    Args:
        eye: with `kinds`.
        artery: uint8 (H, W), 0 or 255, as the next.
        vein: predicted.

    Returns:
        uint8 (H, W of all panels, 3) RGB.
    """
    panels = [eye.image, colour_kinds(join_kinds(artery, vein))]
    if eye.kinds is not None:
        panels.insert(1, colour_kinds(eye.kinds))
    separator = np.full((eye.image.shape[0], 4, 3), 128, np.uint8)
    return np.hstack([part for panel in panels for part in (separator, panel)][1:])
