"""Pictures of arteries and veins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from anatomy.landmarks import Landmarks
from datasets.eyes import Eye
from datasets.kinds import ARTERY, BOTH, NONE, UNCERTAIN, VEIN, join_kinds
from measures.zones import Crossing, zone_circles
from pages.pictures import LANDMARK, side_by_side

# as in RITE: red arteries, blue veins, green crossings, white where the kind is unknown
KIND_COLOURS = {ARTERY: (235, 70, 60), VEIN: (75, 115, 245), BOTH: (60, 200, 90), UNCERTAIN: (225, 225, 225)}
# what the colours of `overlay_kinds` mean; the first four are those of `colour_kinds`, too
KIND_LEGEND = [
    ["artery", KIND_COLOURS[ARTERY]],
    ["vein", KIND_COLOURS[VEIN]],
    ["crossing", KIND_COLOURS[BOTH]],
    ["unknown", KIND_COLOURS[UNCERTAIN]],
    ["circles: zone B lies between the two inner ones, zone C between the inner and the outer one", LANDMARK],
    ["thick, with its width in pixels: one of the six largest, of which CRAE or CRVE is", (255, 255, 255)],
]
TINT = 0.3  # of the kind's colour inside a vessel: outlines alone are hard to tell apart on a red retina


def colour_kinds(kinds: np.ndarray) -> np.ndarray:
    """A map of kinds, uint8 (H, W), see `datasets.kinds`, in colours on black: uint8 (H, W, 3) RGB."""
    table = np.zeros((1, 256, 3), np.uint8)
    for kind, colour in KIND_COLOURS.items():
        table[0, kind] = colour
    return cv2.LUT(cv2.merge([kinds] * 3), table)


def overlay_kinds(
    photograph: np.ndarray, kinds: np.ndarray, landmarks: Landmarks, six: Mapping[str, Sequence[Crossing]]
) -> np.ndarray:
    """Photograph with arteries (red), veins (blue), crossings (green) and undecided vessels (white) marked.

    With the circles between the zones around the disc, and the vessels that CRAE and CRVE are of, by kind,
    `artery` and `vein`: their centre lines in zone B, with their widths in pixels. `KIND_LEGEND` says so in
    words. Photograph and picture are uint8 (H, W, 3) RGB, `kinds` uint8 (H, W), see `datasets.kinds`.
    """
    picture, thickness = photograph.copy(), max(1, round(max(kinds.shape) / 1000))
    tinted = cv2.addWeighted(picture, 1 - TINT, colour_kinds(kinds), TINT, 0)
    cv2.copyTo(tinted, (kinds != NONE).view(np.uint8), picture)

    def write(words: str, x: float, y: float, colour: tuple[int, int, int]) -> None:
        place, size = (round(x), round(y)), 0.6 * thickness
        for shade, wide in (((0, 0, 0), 3), (colour, 1)):  # on black
            font = cv2.FONT_HERSHEY_SIMPLEX
            cv2.putText(picture, words, place, font, size, shade, wide * thickness, cv2.LINE_AA)

    for kind, colour in KIND_COLOURS.items():
        lines, _ = cv2.findContours((kinds == kind).view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, lines, -1, colour, thickness)
    circles = zone_circles(landmarks)
    for x, y, radius in circles:
        cv2.circle(picture, (round(x), round(y)), round(radius), LANDMARK, thickness, cv2.LINE_AA)
    for zone, inner, outer in zip("BC", circles, circles[1:], strict=False):
        towards = 1 if landmarks.disc_x < kinds.shape[1] / 2 else -1  # where most retina is
        write(zone, landmarks.disc_x + towards * (inner[2] + outer[2]) / 2, landmarks.disc_y, LANDMARK)
    for name, vessels in six.items():
        colour = KIND_COLOURS[ARTERY if name == "artery" else VEIN]
        for vessel in vessels:
            line = np.rint(vessel.line).astype(np.int32).reshape(-1, 1, 2)
            cv2.polylines(picture, [line], False, colour, 3 * thickness, cv2.LINE_AA)
            x, y = (int(place) for place in line[len(line) // 2, 0])
            write(f"{vessel.width:.1f}", x, y, (255, 255, 255))
    return picture


def picture_kinds(eye: Eye, artery: np.ndarray, vein: np.ndarray) -> np.ndarray:
    """Photograph, labels of arteries and veins where known, and these as predicted, uint8 (H, W), 0 or 255.

    Returns:
        uint8 (H, W of all panels, 3) RGB.
    """
    labels = [] if eye.kinds is None else [colour_kinds(eye.kinds)]
    return side_by_side(eye.image, *labels, colour_kinds(join_kinds(artery, vein)))
