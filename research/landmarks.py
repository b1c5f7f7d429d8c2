"""Score networks that find disc and fovea, each on the cameras that it has not seen; by hand.

python -m research.anatomy ANATOMY --marked STARE HRF CHASE_DB1 --out without_DRIVE.pth
python -m research.landmarks without_DRIVE.pth ANATOMY --drive DRIVE

Besides the photographs as they are, it makes harder ones: the disc in the middle of a narrower field, a
close-up, the disc cut off by the border, no disc at all.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from anatomy.landmarks import Landmarks, find_disc, find_landmarks, load_anatomy
from anatomy.windows import window_around
from model import Network
from research.anatomy_labels import FOLDS, LabelledEye, find_labels, held_out, read_labelled_eyes
from system.files import write_csv
from utils import HelpFormatter, run

Cut = Callable[[LabelledEye], "tuple[np.ndarray, np.ndarray]"]


def parse_args() -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], formatter_class=HelpFormatter)
    parser.add_argument("weights", type=Path, help="a network that has not seen the data sets given")
    parser.add_argument("anatomy", type=Path, help="folder with the labels; its IDRiD is scored with --idrid")
    parser.add_argument("--drive", type=Path, help="score DRIVE, in this folder")
    parser.add_argument(
        "--marked", type=Path, nargs="+", default=[], help="score STARE, HRF, CHASE_DB1, in these folders"
    )
    parser.add_argument("--idrid", action="store_true", help="score IDRiD")
    parser.add_argument(
        "--fold", type=int, choices=range(FOLDS), help="only what --fold of the training held out"
    )
    parser.add_argument("--csv", type=Path, help="write a row for each photograph to this file")
    return parser.parse_args()


def field(eye: LabelledEye, x: float, y: float, diameter: float) -> np.ndarray:
    """A round field of view around a place, within that of the photograph: uint8 (H, W), 0 or 255."""
    rows, columns = np.indices(eye.fov.shape)
    return np.where(np.hypot(columns - x, rows - y) < diameter / 2, eye.fov, 0).astype(np.uint8)


def as_it_is(eye: LabelledEye) -> np.ndarray:
    """The field of view of the photograph."""
    return eye.fov


def in_the_middle(eye: LabelledEye) -> np.ndarray:
    """The disc in the middle of a field of 30 degrees."""
    return field(eye, eye.disc_x, eye.disc_y, eye.disc_diameter / 0.22)


def close_up(eye: LabelledEye) -> np.ndarray:
    """The disc in the middle, 0.4 of the field across."""
    return field(eye, eye.disc_x, eye.disc_y, eye.disc_diameter / 0.4)


def towards_middle(eye: LabelledEye, distance: float) -> tuple[float, float]:
    """A place so many disc diameters from the disc, in the direction of the middle of the field."""
    height, width = eye.fov.shape
    across, down = width / 2 - eye.disc_x, height / 2 - eye.disc_y
    share = distance * eye.disc_diameter / max(math.hypot(across, down), 1)
    return eye.disc_x + share * across, eye.disc_y + share * down


def half_cut(eye: LabelledEye) -> np.ndarray:
    """The border of a field of 35 degrees runs through the middle of the disc."""
    return field(eye, *towards_middle(eye, 0.5 / 0.19), eye.disc_diameter / 0.19)


def without_disc(eye: LabelledEye) -> np.ndarray:
    """A field that ends before the disc."""
    return field(eye, *towards_middle(eye, 2.7), 3.8 * eye.disc_diameter)


VIEWS = (as_it_is, in_the_middle, close_up, half_cut, without_disc)


@dataclass(frozen=True)
class Score:
    """How one photograph was read, in disc diameters."""

    landmarks: Landmarks
    disc_error: float  # NaN where none was found
    diameter_ratio: float
    fovea_error: float
    dice: float  # of the disc inside the field of view, NaN without a drawn one


def score(eye: LabelledEye, view: Callable[[LabelledEye], np.ndarray], network: Network) -> Score:
    """Find the landmarks of a view of an eye and compare them with the labels."""
    fov = view(eye)
    left, top, width, height = cv2.boundingRect(fov)
    part = np.s_[top : top + height, left : left + width]
    fov = np.ascontiguousarray(fov[part])
    photograph = np.where(fov[..., None] > 0, eye.photograph[part], 0).astype(np.uint8)
    found = find_landmarks(photograph, fov, network)
    error = math.hypot(found.disc_x + left - eye.disc_x, found.disc_y + top - eye.disc_y) / eye.disc_diameter
    fovea_error = math.nan
    if eye.fovea and view is as_it_is:
        fovea_error = (
            math.hypot(found.fovea_x + left - eye.fovea[0], found.fovea_y + top - eye.fovea[1])
            / eye.disc_diameter
        )
    dice = math.nan
    if eye.group != "IDRiD" and view is as_it_is:
        drawn = (eye.disc[part] == 255) if eye.group in ("DRIVE", "IDRiD drawn") else circle(eye)[part]
        mask = disc_mask(photograph, fov, network)
        dice = float(2 * (mask & drawn).sum() / max(mask.sum() + drawn.sum(), 1))
    return Score(found, error, found.disc_diameter / eye.disc_diameter, fovea_error, dice)


def circle(eye: LabelledEye) -> np.ndarray:
    """The disc as a circle, bool (H, W)."""
    return field(eye, eye.disc_x, eye.disc_y, eye.disc_diameter) > 0


def disc_mask(photograph: np.ndarray, fov: np.ndarray, network: Network) -> np.ndarray:
    """The disc as the last look outlines it, bool (H, W)."""
    disc, _, _ = find_disc(photograph, fov, network, window_around(fov))
    if disc is None:
        return np.zeros(fov.shape, bool)
    soft = cv2.warpAffine(disc.mask, disc.window.matrix(), fov.shape[::-1], flags=cv2.INTER_LINEAR)
    return soft > 127


def report(name: str, scores: list[Score]) -> str:
    """One line of the table."""
    errors = np.array([one.disc_error for one in scores])
    right = np.mean(errors <= 0.5)
    given = np.mean([not math.isnan(one.landmarks.disc_x) for one in scores])
    text = f"{name:34s}{len(scores):5d}  disc given {given:6.1%}  right {right:6.1%}"
    if right:
        close = errors <= 0.5
        ratio = np.array([one.diameter_ratio for one in scores])[close]
        low, middle, high = (
            np.nanpercentile(ratio, [10, 50, 90]) if not np.isnan(ratio).all() else [math.nan] * 3
        )
        text += f"  error {np.median(errors[close]):.3f}  diameter {middle:.2f} ({low:.2f} to {high:.2f})"
    dice = np.array([one.dice for one in scores])
    if not np.isnan(dice).all():
        text += f"  Dice {np.nanmean(dice):.3f}"
    fovea = np.array([one.fovea_error for one in scores])
    if any(one.fovea_error == one.fovea_error for one in scores):
        text += f"  fovea right {np.mean(fovea <= 0.5):6.1%}, error {np.nanmedian(fovea):.3f}"
    return text


def main() -> None:
    """Score every view of every photograph."""
    args = parse_args()
    network = load_anatomy(args.weights)
    labels = [
        one
        for one in find_labels(args.anatomy, args.drive, args.marked)
        if args.idrid or not one.group.startswith("IDRiD")
    ]
    scores: dict[tuple[str, str], list[Score]] = {}
    rows = []
    eyes = list(read_labelled_eyes(labels))
    if args.fold is not None:
        eyes = [eye for eye, out in zip(eyes, held_out(eyes, args.fold), strict=True) if out]
    for eye in tqdm(eyes, disable=None):
        for view in VIEWS:
            one = score(eye, view, network)
            scores.setdefault((eye.group, view.__name__), []).append(one)
            rows.append(
                {
                    "data_set": eye.group,
                    "image": eye.name,
                    "view": view.__name__,
                    "disc_error": one.disc_error,
                    "diameter_ratio": one.diameter_ratio,
                    "certainty": one.landmarks.disc_certainty,
                    "fovea_error": one.fovea_error,
                    "fovea_certainty": one.landmarks.fovea_certainty,
                    "dice": one.dice,
                }
            )
    for (group, view), of_view in sorted(scores.items()):
        print(report(f"{group}, {view}", of_view))
    if args.csv:
        write_csv(args.csv, rows)


if __name__ == "__main__":
    run(main)
