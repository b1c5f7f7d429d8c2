"""What is painted over windows that train the finder of disc and fovea: light, diseases, poorer files."""

from __future__ import annotations

import cv2
import numpy as np

from anatomy.windows import SIDE
from datasets.images import equalize
from research.anatomy_labels import LabelledEye
from training.crops import change_camera, change_colour, draw_rim, smooth_field, spoil_file


def paint_pale(
    rng: np.random.Generator, eye: LabelledEye, photograph: np.ndarray, disc: np.ndarray
) -> np.ndarray:
    """Pale tissue beside the disc, as peripapillary atrophy: a crescent that is not the disc."""
    reach = 1.6 * eye.disc_diameter
    left, top = (max(0, round(place - reach)) for place in (eye.disc_x, eye.disc_y))
    part = np.s_[top : round(eye.disc_y + reach), left : round(eye.disc_x + reach)]
    angle = rng.uniform(0, 2 * np.pi)
    offset = eye.disc_diameter * rng.uniform(0.1, 0.5)
    x, y = eye.disc_x - left + offset * np.cos(angle), eye.disc_y - top + offset * np.sin(angle)
    radius = round(eye.disc_diameter * rng.uniform(0.4, 0.75))
    pale = cv2.circle(np.zeros(disc[part].shape, np.uint8), (round(x), round(y)), radius, 255, -1)
    pale[disc[part] > 0] = 0
    alpha = cv2.GaussianBlur(pale, (0, 0), rng.uniform(1, 4)).astype(np.float32)[..., None] / 255
    colour = photograph[part][disc[part] == 255].mean(axis=0) * rng.uniform(0.75, 1, 3)
    alpha *= rng.uniform(0.15, 0.6)
    painted = photograph.copy()
    painted[part] = (photograph[part] * (1 - alpha) + colour * alpha).clip(0, 255).astype(np.uint8)
    return painted


def change_view(
    rng: np.random.Generator, view: np.ndarray, disc: np.ndarray, fov: np.ndarray, aim: bool
) -> np.ndarray:
    """Other light, colours, diseases and poorer files; nothing that moves the disc, uint8 (SIDE, SIDE).

    `aim`: paint a bright spot into the middle, as a second look has it at what is no disc.
    """
    image = view.astype(np.float32)
    if rng.random() < 0.25:  # a disc as dark as its surroundings, or paler than usual
        soft = cv2.GaussianBlur((disc == 255).astype(np.float32), (0, 0), 2)[..., None]
        ring = (cv2.dilate(disc, np.ones((15, 15), np.uint8)) > 0) & (disc == 0) & (fov > 0)
        if ring.any():
            around = image[ring].mean(axis=0)
            image += soft * (around - image) * rng.uniform(-0.2, 0.75)
    if aim or rng.random() < 0.5:
        image = paint_spots(rng, image, disc, aim)
    if rng.random() < 0.5:
        image *= np.exp(smooth_field(rng, SIDE) * rng.uniform(0, 0.6))[..., None]
    image = image.clip(0, 255).astype(np.uint8)
    if rng.random() < 0.06:  # free of red
        image = np.repeat(image[..., 1:2], 3, axis=2)
    if rng.random() < 0.08:  # a camera with two lasers has no blue
        image = np.maximum(image * np.array([1, 1, 0], np.uint8), 3)
    if rng.random() < 0.2:
        image = equalize(image, fov)
    if rng.random() < 0.5:
        image = change_camera(rng, image)
    if rng.random() < 0.7:
        image = change_colour(rng, image)
    if rng.random() < 0.2:
        image = draw_rim(rng, image, fov)
    if rng.random() < 0.3:
        image = spoil_file(rng, image)
    return image


def paint_spots(rng: np.random.Generator, image: np.ndarray, disc: np.ndarray, aim: bool) -> np.ndarray:
    """Bright and dark spots off the disc: exudates, reflections, scars, bleedings.

    Args:
        rng: random generator.
        image: float32 (SIDE, SIDE, 3), 0 to 255.
        disc: uint8 (SIDE, SIDE), 0 where no disc is.
        aim: one of them bright, in the middle, and of a disc's size.
    """
    free = cv2.GaussianBlur((disc == 0).astype(np.float32), (0, 0), 1)[..., None]
    for number in range(rng.integers(1, 7)):
        middle = aim and number == 0
        size = SIDE * np.exp(rng.uniform(np.log(0.01), np.log(0.13), 2))
        spot = np.zeros((SIDE, SIDE), np.float32)
        if middle:
            size = SIDE * rng.uniform(0.05, 0.2, 2)
        reach = SIDE // 2 if not middle else SIDE // 12
        centre = tuple(int(v) for v in rng.integers(SIDE // 2 - reach, SIDE // 2 + reach, 2))
        axes = (max(1, round(size[0])), max(1, round(float(size[0] * rng.uniform(0.4, 1)))))
        cv2.ellipse(spot, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
        spot = cv2.GaussianBlur(spot, (0, 0), rng.uniform(0.5, 1 + 0.3 * axes[1]))[..., None] * free
        if middle or rng.random() < 0.6:
            colour = np.array([rng.uniform(200, 255), rng.uniform(150, 250), rng.uniform(60, 230)], np.float32)
        else:
            colour = np.array([rng.uniform(40, 130), rng.uniform(5, 40), rng.uniform(0, 40)], np.float32)
        image = image + spot * (colour - image) * rng.uniform(0.2, 0.95)
    return image
