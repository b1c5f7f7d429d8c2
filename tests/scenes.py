"""Pictures in which a photograph of an eye is not alone: slides, monitors, viewers, small prints."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from datasets.synthetic import draw_eye

Scene = tuple[np.ndarray, int, int]  # background, and where the photograph's upper left corner lies
EYE = 584, 565  # height and width of the photograph


def page(height: int = 900, width: int = 1600) -> np.ndarray:
    return np.full((height, width, 3), 255, np.uint8)


def caption(rng: np.random.Generator) -> Scene:
    slide = page()
    cv2.putText(slide, "Fig. 1: right eye", (520, 850), 0, 1.4, (0, 0, 0), 3)
    return slide, 120, 500


def bullets(rng: np.random.Generator) -> Scene:
    slide = page()
    for k, text in enumerate(("female, 54 years", "diabetes type 2", "visus 0.8")):
        cv2.circle(slide, (80, 250 + 120 * k), 12, (0, 0, 0), -1)
        cv2.putText(slide, text, (120, 260 + 120 * k), 0, 1.4, (0, 0, 0), 3)
    return slide, 160, 950


def logo(rng: np.random.Generator) -> Scene:
    slide = page()
    cv2.circle(slide, (200, 160), 110, (0, 80, 170), -1)
    cv2.putText(slide, "UNI", (130, 185), 0, 2, (255, 255, 255), 5)
    return slide, 220, 700


def large_logo(rng: np.random.Generator) -> Scene:
    slide = page()
    cv2.circle(slide, (390, 450), 380, (170, 30, 30), -1)
    cv2.putText(slide, "UNI", (300, 485), 0, 3, (255, 255, 255), 8)
    return slide, 160, 900


def logo_on_colour(rng: np.random.Generator) -> Scene:
    slide = page()
    slide[:] = 60, 90, 120
    cv2.circle(slide, (390, 450), 300, (230, 120, 20), -1)
    return slide, 160, 900


def logo_of_two_colours(rng: np.random.Generator) -> Scene:
    slide = np.zeros_like(page())
    cv2.circle(slide, (390, 450), 380, (200, 60, 30), -1)
    cv2.ellipse(slide, (390, 450), (380, 380), 0, 0, 180, (250, 210, 40), -1)
    return slide, 160, 900


def wood(rng: np.random.Generator) -> Scene:
    grain = cv2.GaussianBlur(rng.normal(0, 1, (900, 1200)), (0, 0), sigmaX=60, sigmaY=1.5)
    board = (150, 100, 60) + 30 * (grain / grain.std())[..., None] * (1, 0.8, 0.55)
    board[::200] *= 0.4
    return board.clip(0, 255).astype(np.uint8), 160, 320


def monitor(rng: np.random.Generator) -> Scene:
    room = cv2.GaussianBlur(rng.normal(45, 12, (1200, 1600, 3)), (0, 0), 25).clip(0, 255).astype(np.uint8) + 30
    cv2.rectangle(room, (150, 100), (1450, 1000), (25, 25, 28), -1)
    cv2.rectangle(room, (180, 130), (1420, 960), (225, 228, 232), -1)
    return room, 250, 500


def small(rng: np.random.Generator) -> Scene:
    return np.zeros((1900, 2500, 3), np.uint8), 700, 900


def small_on_white(rng: np.random.Generator) -> Scene:
    return page(1900, 2500), 300, 200


def gradient_viewer(rng: np.random.Generator) -> Scene:
    window = np.full((900, 1600, 3), 238, np.uint8)
    window[:90] = np.linspace(250, 120, 90)[:, None, None].astype(np.uint8)
    window[:, :140] = np.linspace((70, 90, 120), (190, 210, 235), 900)[:, None].astype(np.uint8)
    window[-50:] = np.linspace((40, 60, 160), (150, 170, 220), 1600)[None].astype(np.uint8)
    for k in range(6):
        cv2.rectangle(window, (200 + 90 * k, 20), (260 + 90 * k, 70), (60 + 30 * k, 100, 200 - 20 * k), -1)
    return window, 180, 520


def wallpaper(rng: np.random.Generator) -> Scene:
    grid = rng.uniform(0, 255, (7, 11, 3)).astype(np.float32)
    screen = cv2.resize(grid, (1600, 900), interpolation=cv2.INTER_CUBIC)
    screen += rng.normal(0, 6, screen.shape)
    return screen.clip(0, 255).astype(np.uint8), 160, 420


SCENES: dict[str, Callable[[np.random.Generator], Scene]] = {
    "a slide with a caption": caption,
    "a slide with bullets": bullets,
    "a slide with a logo": logo,
    "a slide with a logo larger than the eye": large_logo,
    "a slide in a colour with a logo": logo_on_colour,
    "a black slide with a logo of two colours in equal parts": logo_of_two_colours,
    "a wooden table": wood,
    "a photographed monitor": monitor,
    "a small disc on black": small,
    "a small disc on white": small_on_white,
    "a viewer with gradient toolbars": gradient_viewer,
    "a wallpaper behind": wallpaper,
}


def scene(name: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture with a synthetic eye, uint8 (H, W, 3), its field of view and its vessels, uint8 (H, W)."""
    rng = np.random.default_rng(seed)
    picture, top, left = SCENES[name](rng)
    photograph, vessels, fov = draw_eye(rng, *EYE)
    part = np.s_[top : top + EYE[0], left : left + EYE[1]]
    masks = np.zeros((2, *picture.shape[:2]), np.uint8)
    picture[part] = photograph
    masks[0][part], masks[1][part] = fov, vessels
    return picture, *masks
