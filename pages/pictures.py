"""Pictures of results: outlines, kinds, differences, panels, layers of the page, the curves of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from anatomy.landmarks import Landmarks
from datasets.eyes import Eye
from datasets.images import write_png
from datasets.kinds import ARTERY, BOTH, NONE, UNCERTAIN, VEIN, join_kinds
from measures.zones import Crossing, zone_circles
from pages.results import result_file
from system.files import atomic, write_csv

# RGB colours safe for colour blindness (Okabe and Ito 2008)
FOUND, MISSED, FALSE = (255, 255, 255), (230, 159, 0), (0, 160, 255)
OUTLINE, BORDER, LANDMARK = FALSE, MISSED, (0, 220, 120)
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
THUMBNAIL = 320  # pixels of the longer side of each of two pictures, at most


def write_jpeg(path: Path, image: np.ndarray, quality: int = 90) -> None:
    """Write uint8 (H, W, 3) RGB atomically as JPEG."""
    # full colour resolution: half of it would blur lines one pixel wide
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality, *sampling]
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
    with atomic(path) as temporary:
        temporary.write_bytes(jpeg.tobytes())


def picture(eye: Eye, prediction: np.ndarray) -> np.ndarray:
    """Panels side by side: photograph, truth, prediction, and what was found, missed and false in colours.

    Without a truth: photograph, prediction, and the outlines of the prediction on the photograph. The
    prediction is uint8 (H, W), 0 or 255.

    Returns:
        uint8 (H, W of all panels, 3) RGB.
    """
    truth = [] if eye.mask is None else [as_rgb(eye.mask)]
    return side_by_side(eye.image, *truth, as_rgb(prediction), compare(eye, prediction))


def side_by_side(*panels: np.ndarray) -> np.ndarray:
    """Join panels, uint8 (H, W, 3) each, with grey lines between them."""
    separator = np.full((panels[0].shape[0], 4, 3), 128, np.uint8)
    return np.hstack([part for panel in panels for part in (separator, panel)][1:])


def compare(eye: Eye, prediction: np.ndarray) -> np.ndarray:
    """The last panel of `picture`, uint8 (H, W, 3) RGB: differences from the truth, or without one outlines."""
    if eye.mask is None:
        return overlay(eye.image, prediction, eye.fov)
    colours = np.array([(0, 0, 0), FALSE, MISSED, FOUND], np.uint8)
    return colours[2 * (eye.mask > 0).astype(np.uint8) + (prediction > 0)]


def as_rgb(grey: np.ndarray) -> np.ndarray:
    """uint8 (H, W) to uint8 (H, W, 3)."""
    return np.repeat(grey[..., None], 3, axis=2)


def overlay(
    photograph: np.ndarray, mask: np.ndarray, fov: np.ndarray, landmarks: Landmarks | None = None
) -> np.ndarray:
    """Photograph with the outlines of vessels (blue) and field of view (orange), uint8 (H, W, 3) RGB.

    With `landmarks` the disc (a circle) and the fovea (a cross) too, where they were found (green).
    """
    thickness = max(1, round(max(mask.shape) / 1000))  # one pixel would vanish on a small screen
    picture = photograph.copy()
    if landmarks and landmarks.disc_diameter > 0:  # not NaN
        centre = round(landmarks.disc_x), round(landmarks.disc_y)
        cv2.circle(picture, centre, round(landmarks.disc_diameter / 2), LANDMARK, 2 * thickness, cv2.LINE_AA)
    if landmarks and landmarks.fovea_x > 0:
        fovea, size = (round(landmarks.fovea_x), round(landmarks.fovea_y)), round(max(mask.shape) / 40)
        cv2.drawMarker(picture, fovea, LANDMARK, cv2.MARKER_CROSS, size, 2 * thickness, cv2.LINE_AA)
    for shape, colour in ((fov, BORDER), (mask, OUTLINE)):
        lines, _ = cv2.findContours(shape, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, lines, -1, colour, thickness)
    return picture


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


def write_history(files: Path, history: list[dict[str, float]]) -> None:
    """Write history.csv, a row an epoch, and curves.png: loss, F1 and learning rate over the epochs."""
    write_csv(files / "history.csv", history)

    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(12, 3.5))
    # fixed margins: to have them computed takes three times as long, which short epochs feel
    figure.subplots_adjust(left=0.05, right=0.99, bottom=0.15, top=0.91)
    panels = [("loss", "train_loss", "val_loss"), ("validation F1", "f1"), ("learning rate", "learning_rate")]
    for axes, (title, *names) in zip(figure.subplots(1, 3), panels, strict=True):
        for name in (name for name in names if name in history[0]):
            axes.plot([row["epoch"] for row in history], [row[name] for row in history], ".-", label=name)
            axes.legend()
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # also of one epoch
        axes.grid(alpha=0.3)
    with atomic(files / "curves.png") as temporary:
        figure.savefig(temporary, dpi=100)


def write_layers(
    results: Path, name: str, photograph: np.ndarray, compared: np.ndarray, truth: np.ndarray | None = None
) -> None:
    """Write the layers of one eye that the page flips between into `results/page`, outlines into `outlines`.

    The prediction itself comes from `results/masks`; `compared` is the last panel of `picture`. Pictures are
    uint8 (H, W, 3) RGB, the truth, where known, uint8 (H, W), 0 or 255.
    """
    write_jpeg(results / result_file("page/photograph", name), photograph)
    if truth is None:
        write_jpeg(results / result_file("outlines", name), compared)
    else:
        write_png(results / result_file("page/truth", name), truth)
        write_png(results / result_file("page/differences", name), compared)
    height, width = photograph.shape[:2]
    scale = min(1.0, THUMBNAIL / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in (photograph, compared)]
    write_jpeg(results / result_file("page/thumbnail", name), np.hstack(small), quality=80)
