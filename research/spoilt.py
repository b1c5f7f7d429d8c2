"""Spoilt copies of photographs, and pictures of something else: what must not pass without a word."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Spoil = Callable[[np.ndarray, np.ndarray, float, np.random.Generator], np.ndarray]


def diameter(fov: np.ndarray) -> float:
    """Of the field of view, in pixels, from its larger extent."""
    rows, columns = np.nonzero(fov)
    return float(max(np.ptp(rows), np.ptp(columns)) + 1)


def blur(photograph: np.ndarray, fov: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Out of focus: at full strength a Gaussian of a hundredth of the field of view."""
    sigma = 0.01 * strength * diameter(fov)
    return cv2.GaussianBlur(photograph, (0, 0), sigma)


def dark(photograph: np.ndarray, fov: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Hardly any light: at full strength an eighth of it, with the noise that comes with it."""
    light = photograph * np.float32(0.125**strength)
    return (light + rng.normal(0, 1.5, photograph.shape)).clip(0, 255).astype(np.uint8)


def noise(photograph: np.ndarray, fov: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Grain: at full strength of 50 levels, in grains of a 500th of the field of view."""
    grain = rng.normal(0, 1, photograph.shape).astype(np.float32)
    size = diameter(fov) / 500
    if size > 1.5:  # as coarse to the network as in a small photograph
        small = (max(1, round(fov.shape[1] / size)), max(1, round(fov.shape[0] / size)))
        grain = cv2.resize(grain[: small[1], : small[0]], fov.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return (photograph + 50 * strength * grain).clip(0, 255).astype(np.uint8)


def jpeg(photograph: np.ndarray, fov: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """JPEG blocks: at full strength quality 3 at a field of view of 500 pixels."""
    shrink = min(1.0, 500 / diameter(fov))
    small = cv2.resize(photograph, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    quality = round(3 * 5 ** (2 * (1 - strength)))
    coded = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    small = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]
    return cv2.resize(small, fov.shape[::-1], interpolation=cv2.INTER_NEAREST)


def enlarged(photograph: np.ndarray, fov: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Enlarged from few pixels: at full strength from a field of view of 100."""
    shrink = 100 / strength / diameter(fov)
    small = cv2.resize(photograph, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, fov.shape[::-1], interpolation=cv2.INTER_CUBIC)


def inverted(photograph: np.ndarray, fov: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Grey with light vessels, as an angiogram."""
    grey = photograph[..., 1]
    inside = cv2.erode(fov, np.ones((5, 5), np.uint8)) > 0
    turned = np.where(inside, np.percentile(grey[inside], 99) + 20 - grey.astype(np.float32), 3)
    return np.repeat(turned.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def middle(shape: tuple[int, ...], fov: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns of a square of half the field of view's diameter in its middle."""
    rows, columns = np.nonzero(fov)
    half = round(diameter(fov) / 4)
    row, column = (int(ends.min() + ends.max()) // 2 for ends in (rows, columns))
    return slice(row - half, row + half), slice(column - half, column + half)


def crop(photograph: np.ndarray, fov: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """The middle of the photograph, without a border; see `middle`."""
    return photograph[middle(photograph.shape, fov)]


# of these the middle is another picture: its truth is cut out too
CUT: dict[str, Spoil] = {"crop": crop}
GRADED: dict[str, Spoil] = {"blur": blur, "dark": dark, "noise": noise, "jpeg": jpeg, "enlarged": enlarged}
WHOLE: dict[str, Spoil] = {"inverted": inverted}
SPOILS = {**GRADED, **WHOLE, **CUT}


def page(rng: np.random.Generator, height: int = 800, width: int = 600) -> np.ndarray:
    """A page of text, uint8 (H, W, 3) RGB."""
    picture = np.full((height, width, 3), 245, np.uint8)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz      "))
    for y in range(60, height - 40, 22):
        line = "".join(rng.choice(letters, 52))
        cv2.putText(picture, line, (45, y), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (25, 25, 30), 1, cv2.LINE_AA)
    return picture


def plant(rng: np.random.Generator, height: int = 700, width: int = 900) -> np.ndarray:
    """Green leaves with veins before a pale wall, uint8 (H, W, 3) RGB."""
    picture = np.full((height, width, 3), (205, 210, 200), np.uint8)
    for _ in range(40):
        centre = rng.uniform([0, 0], [width, height])
        angle, length = rng.uniform(0, 360), rng.uniform(60, 170)
        along = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
        across = np.array([-along[1], along[0]])
        green = np.array([50, 110, 40]) * rng.uniform(0.6, 1.5)
        size = (int(length), int(length / 3))
        cv2.ellipse(picture, centre.astype(int).tolist(), size, angle, 0, 360, green.tolist(), -1, cv2.LINE_AA)
        pale = (green + 50).clip(0, 255).tolist()
        ends = [centre - along * length, centre + along * length]
        cv2.line(picture, *(end.astype(int).tolist() for end in ends), pale, 3, cv2.LINE_AA)
        for place in np.linspace(-0.7, 0.7, 8):
            foot = centre + along * length * place
            for side in (-1, 1):
                tip = foot + (along + side * across) * length * 0.2 * (1 - place**2)
                cv2.line(picture, foot.astype(int).tolist(), tip.astype(int).tolist(), pale, 1, cv2.LINE_AA)
    return cv2.GaussianBlur(picture, (0, 0), 0.8)


def static(rng: np.random.Generator, height: int = 600, width: int = 600) -> np.ndarray:
    """Noise and nothing else, uint8 (H, W, 3) RGB."""
    return rng.integers(0, 256, (height, width, 3), np.uint8)


ELSE = {"page of text": page, "plant": plant, "noise only": static}
