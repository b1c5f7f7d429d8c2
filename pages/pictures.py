"""Pictures of results: outlines, differences, panels, the layers of the page, the curves of a training."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from anatomy.landmarks import Landmarks
from datasets.eyes import Eye
from datasets.images import write_png
from pages.results import result_file
from system.files import atomic, write_csv

# RGB colours safe for colour blindness (Okabe and Ito 2008)
FOUND, MISSED, FALSE = (255, 255, 255), (230, 159, 0), (0, 160, 255)
OUTLINE, BORDER, LANDMARK = FALSE, MISSED, (0, 220, 120)
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
