"""Pictures, curves, and a result page that opens in a browser without a server or the internet."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np

from anatomy.landmarks import Landmarks
from datasets.eyes import Eye
from datasets.images import write_png
from measures.vessels import CONFIDENCE, MEASURES, columns_of
from pages.results import layers, result_file
from scoring import metrics
from system.files import atomic, write_csv

# RGB colours safe for colour blindness (Okabe and Ito 2008)
FOUND, MISSED, FALSE = (255, 255, 255), (230, 159, 0), (0, 160, 255)
SCALE_FROM = {  # see `prediction.scale.Scale`
    "disc": "the optic disc",
    "vessels": "the calibre of the vessels",
    "field": "the field of view",
    "given": "the diameter that was given",
    "guess": "a guess",
}
OUTLINE, BORDER, LANDMARK = FALSE, MISSED, (0, 220, 120)
THUMBNAIL = 160  # pixels of the longer side
LABELS = {
    "f1": "F1",
    "jaccard": "Jaccard",
    "recall": "Recall",
    "precision": "Precision",
    "specificity": "Specificity",
    "accuracy": "Accuracy",
    "auc": "AUC",
    "average_precision": "Average precision",
    "cldice": "clDice",
    "recall_2px": "Recall, to 2 px",
    "recall_3px": "Recall, to 3 px",
}
UNSEEN = {"fractal_r2", "box_smallest", "box_largest", "fov_diameter"}  # of the measures, in the table only
SUMMARY = {
    "mean": "Mean of the images",
    "pooled": "All pixels pooled",
    "second_observer": "Second observer, mean",
}


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

    Without a truth: photograph, prediction, and the outlines of the prediction on the photograph.

    Args:
        eye: photograph and, where known, truth.
        prediction: uint8 (H, W), 0 or 255.

    Returns:
        uint8 (H, W of all panels, 3) RGB.
    """
    truth = [] if eye.mask is None else [as_rgb(eye.mask)]
    panels = [eye.image, *truth, as_rgb(prediction), compare(eye, prediction)]
    separator = np.full((eye.image.shape[0], 4, 3), 128, np.uint8)
    row = [part for panel in panels for part in (separator, panel)]
    return np.hstack(row[1:])


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

    figure = Figure(figsize=(12, 3.5), layout="constrained")
    panels = {
        "loss": ("train_loss", "val_loss"),
        "validation F1": ("f1",),
        "learning rate": ("learning_rate",),
    }
    for axes, (title, names) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for name in (name for name in names if name in history[0]):
            axes.plot([row["epoch"] for row in history], [row[name] for row in history], ".-", label=name)
            axes.legend()
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    with atomic(files / "curves.png") as temporary:
        figure.savefig(temporary, dpi=100)


def write_layers(
    results: Path, name: str, photograph: np.ndarray, compared: np.ndarray, truth: np.ndarray | None = None
) -> None:
    """Write the layers of one eye that the page flips between into `results/page`, outlines into `outlines`.

    The prediction itself comes from `results/masks`.

    Args:
        results: the folder of the page.
        name: file name without suffix.
        photograph: uint8 (H, W, 3) RGB.
        compared: truth and prediction in the colours FOUND, MISSED and FALSE; without a truth the outlines
            of the prediction on the photograph; uint8 (H, W, 3) RGB.
        truth: uint8 (H, W), 0 or 255, where known.
    """
    write_jpeg(results / result_file("page/photograph", name), photograph)
    if truth is None:
        write_jpeg(results / result_file("outlines", name), compared)
    else:
        write_png(results / result_file("page/truth", name), truth)
        write_png(results / result_file("page/differences", name), compared)
    height, width = photograph.shape[:2]
    scale = THUMBNAIL / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in (photograph, compared)]
    write_jpeg(results / result_file("page/thumbnail", name), np.hstack(small), quality=80)


def thin_curves(counts: np.ndarray, points: int = 200) -> dict[str, list[list[float]]] | None:
    """ROC and precision-recall curve, thinned out for the page.

    Args:
        counts: int64 (2, 65536), from `metrics.count_levels`, also summed over images.
        points: maximum number of points of a curve.

    Returns:
        `roc`: pairs of false positive rate and recall; `precision_recall`: pairs of recall and precision.
        None where the truth has only one of the two classes: they are not defined.
    """
    background, vessels = counts.sum(axis=1)
    if not (background and vessels):
        return None
    false_rate, recall = metrics.roc_curve(counts)
    # even steps in both rates follow the curve where it is steep and where it is flat
    steps = np.linspace(0, 1, points // 2)
    keep = np.unique(np.concatenate([np.searchsorted(rate, steps) for rate in (false_rate, recall)]))
    false_rate, recall = false_rate[keep], recall[keep]
    predicted = false_rate * background + recall * vessels
    some = predicted > 0  # precision is undefined where nothing is predicted
    precision = recall[some] * vessels / predicted[some]
    return {
        "roc": np.column_stack([false_rate, recall]).round(5).tolist(),
        "precision_recall": np.column_stack([recall[some], precision]).round(5).tolist(),
    }


def write_report(
    path: Path,
    names: Sequence[str],
    threshold: float,
    notes: Sequence[str],
    rows: Sequence[Mapping[str, Any]] = (),
    counts: np.ndarray | None = None,
    measured: Iterable[Mapping[str, Any]] = (),
    hidden: Sequence[str] = (),
) -> None:
    """Write the page beside the folders `page` and `masks` that hold its pictures.

    If the page's folder or one of the two above holds the `SYNTHETIC.txt` of demo.py, the page says so.

    Args:
        path: of the page, such as results/index.html.
        names: of the images, as given to `write_layers`.
        threshold: probability from which a pixel counts as vessel.
        notes: lines at the top, such as why there are no scores.
        rows: scores as metrics.csv has them: a row for each name in the same order, then those of `SUMMARY`.
            None: no table, no curves, and pictures without truth.
        counts: of all pixels pooled, int64 (2, 65536); None: no curves.
        measured: measures as measures.csv has them, a row for each name in the same order; those with a reason
            in `doubtful` stand first. None: no measures. The layer of `uncertainty` comes with columns of
            `CONFIDENCE`.
        hidden: folders that were not written, and so give no layer.
    """
    each, total = rows[: len(names)], {row["image"]: row for row in rows[len(names) :]}
    of_kinds = "kind_decided" in next(iter(measured), {})
    every_layer = layers(bool(rows), bool(CONFIDENCE.keys() & columns_of(measured)), of_kinds)
    data: dict[str, Any] = {
        "synthetic": any((folder / "SYNTHETIC.txt").is_file() for folder in path.resolve().parents[:3]),
        "notes": [f"A pixel of probability {threshold:.4f} or more is a vessel.", *notes],
        "layers": [layer for layer in every_layer if layer[1] not in hidden],
        "colours": [["outline of vessels", OUTLINE], ["outline of the field of view", BORDER]],
    }
    if "disc_x" in next(iter(measured), {}):
        data["colours"].append(["disc and fovea", LANDMARK])
    if rows:
        f1 = [row["f1"] for row in each]
        data |= {
            "colours": [["found", FOUND], ["missed", MISSED], ["false", FALSE]],
            "columns": list(LABELS.values()),
            "summary": [{"name": SUMMARY[name], "scores": values(row)} for name, row in total.items()],
            "mean": float(np.mean(f1)),
            "interval": metrics.bootstrap_interval(f1) if len(f1) > 1 else None,
            "threshold": f"{threshold:.4f}",
            "pooled": dict(zip(LABELS, values(total["pooled"]), strict=True)),
            "observer": None,
            "curves": None if counts is None else thin_curves(counts),
        }
        if "second_observer" in total:
            data["observer"] = dict(zip(LABELS, values(total["second_observer"]), strict=True))
    shown: dict[str, Any] = {}
    if measured:
        every = CONFIDENCE | MEASURES
        shown = {name: every[name] for name in columns_of(measured) if name not in UNSEEN}
        data["measures"] = [[m.title, m.digits, m.hint] for m in shown.values()]

    def images() -> Iterator[dict[str, Any]]:
        for name, scored, found in itertools.zip_longest(names, each, measured):
            # a file name may hold bytes that are not text: the address keeps them; / leads into a folder
            image = {"name": name, "url": quote(name, errors="surrogateescape")}
            if scored:
                image["scores"] = values(scored)
            if found:
                numbers = (found.get(name, math.nan) for name in shown)
                image["doubtful"] = found.get("doubtful", "")
                image["about"] = about(found)
                image["measures"] = [None if math.isnan(n) else round(n, 6) for n in numbers]
            yield image

    def embedded(value: object) -> str:
        # inside a script only < could end it or begin a comment
        return json.dumps(value, allow_nan=False).replace("<", "\\u003c")

    before, after = Path(__file__).with_name("report.html").read_text(encoding="utf-8").split("{{data}}")
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as page:
        page.write(f'{before}{embedded(data)[:-1]}, "images": [')
        for number, image in enumerate(images()):  # one at a time: there may be a hundred thousand
            page.write(f"{', ' if number else ''}{embedded(image)}")
        page.write(f"]}}{after}")


def about(row: Mapping[str, Any]) -> str:
    """Side of the eye, and where its scale is from, as a row of measures.csv tells; empty if it does not."""
    side = f"{row['side']} eye" if row.get("side") else ""
    scale = f"scale from {SCALE_FROM[row['scale_from']]}" if row.get("scale_from") else ""
    return ", ".join(text for text in (side, scale) if text)


def values(row: Mapping[str, Any]) -> list[float | None]:
    """The scores of a row in the order of LABELS; None where undefined."""
    return [None if math.isnan(row[column]) else round(row[column], 6) for column in LABELS]
