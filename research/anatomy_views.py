"""Random training windows for disc and fovea: near and far, from other cameras, with and without a disc."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from anatomy.landmarks import CLOSE
from anatomy.windows import SIDE, network_input
from research.anatomy_labels import UNKNOWN, LabelledEye
from research.anatomy_painting import change_view, paint_pale
from training.crops import change_colour

SHARES = (0.028, 0.42)  # disc diameter to field of view: from 200 degrees to a close-up
CHANGED = 0.55  # share of the windows with other light, diseases, or poorer files
FOVEA = 1.0  # diameter of what counts as fovea, in disc diameters

View = tuple[np.ndarray, np.ndarray, np.ndarray]


class RandomWindows:
    """`length` random windows; view i depends only on the seed and on i.

    View i: input float32 (3, SIDE, SIDE); targets float32 (2, SIDE, SIDE) of 0 and 1, disc and fovea; and where
    these are known, float32 (2, SIDE, SIDE) of 0 and 1.
    """

    def __init__(self, eyes: Sequence[LabelledEye], seed: int, length: int) -> None:
        self.eyes, self.seed, self.length = list(eyes), seed, length
        groups: dict[str, list[int]] = {}
        for i, eye in enumerate(self.eyes):
            groups.setdefault(eye.group, []).append(i)
        # only the fovea's group teaches it, so it comes twice as often
        self.groups = [members for members in groups.values() for _ in range(1 + any_fovea(self.eyes, members))]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> View:
        rng = np.random.default_rng([self.seed, i])
        of_group = self.groups[int(rng.integers(len(self.groups)))]
        eye = self.eyes[int(rng.choice(of_group))]
        close = rng.random() < (0.5 if eye.fovea is None else 0.3)
        matrix = place_close(rng, eye) if close else place_field(rng, eye)
        flags = cv2.WARP_INVERSE_MAP
        nearest = cv2.INTER_NEAREST | flags
        fov = cv2.warpAffine(eye.fov, matrix, (SIDE, SIDE), flags=nearest)
        if not fov.any():  # beside a disc that the border cuts there may be nothing of the eye
            height, width = eye.fov.shape
            matrix = affine(rng, (width / 2, height / 2), 1.1 * max(height, width))
            fov = cv2.warpAffine(eye.fov, matrix, (SIDE, SIDE), flags=nearest)
        source = enlarge_disc(rng, eye) if rng.random() < 0.15 else (eye.photograph, eye.disc)
        if rng.random() < 0.2:
            source = paint_pale(rng, eye, *source), source[1]
        step = np.hypot(*matrix[:, 0])
        photograph = source[0] if step < 1.5 else cv2.GaussianBlur(source[0], (0, 0), 0.4 * step)
        view = cv2.warpAffine(photograph, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR | flags)
        disc = cv2.warpAffine(source[1], matrix, (SIDE, SIDE), flags=nearest)
        # where the photograph ends nobody knows how a disc goes on; where a drawn border cuts it, we do
        reach = 2 * int(0.3 * eye.disc_diameter / step) + 1
        beyond = (fov == 0) & (cv2.dilate(disc, np.ones((reach, reach), np.uint8)) > 0)
        of_eye = fov > 0
        if (fov == 0).mean() > 0.2 and rng.random() < 0.8:
            view = surround(rng, view, fov, self.eyes)
            fov = np.full_like(fov, 255)
        shape = frame(rng, close)
        if (fov & shape).mean() > 0.1 * 255:
            fov = cv2.bitwise_and(fov, shape)
        visible, whole = np.count_nonzero((disc == 255) & (fov > 0)), eye.disc_diameter**2 / 1.27 / step**2
        if not ((disc > 0) & (fov > 0)).any():
            disc = np.zeros_like(disc)
        elif visible < 0.2 * np.count_nonzero(disc == 255) or visible < 0.05 * whole:  # nobody could tell
            disc = np.where(disc == 255, UNKNOWN, disc).astype(np.uint8)
        known = np.stack([(disc != UNKNOWN) & ~beyond, of_eye & (fov > 0) & (eye.fovea is not None)])
        targets = np.stack([disc == 255, draw_fovea(eye, matrix)]) & known
        aim = close and visible == 0 and rng.random() < 0.6
        if aim or rng.random() < CHANGED:
            view = change_view(rng, view, disc, fov, aim)
        elif rng.random() < 0.5:
            view = change_colour(rng, view)
        return network_input(view, fov), targets.astype(np.float32), known.astype(np.float32)


def any_fovea(eyes: Sequence[LabelledEye], members: Sequence[int]) -> bool:
    """Whether the fovea of one of these eyes is marked."""
    return any(eyes[i].fovea is not None for i in members)


def affine(rng: np.random.Generator, centre: tuple[float, float], side: float) -> np.ndarray:
    """A random turn, flip and slight stretch of a window around a centre.

    Returns:
        float64 (2, 3), from pixels of the window to pixels of the photograph.
    """
    # most photographs are upright, some lie on a side
    angle = rng.normal(0, 0.25) if rng.random() < 0.7 else rng.uniform(0, 2 * np.pi)
    step = side / SIDE
    turn = step * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn = turn @ np.diag(
        np.exp(rng.normal(0, 0.05, 2)) * [rng.choice([-1, 1]), rng.choice([-1, 1], p=[0.2, 0.8])]
    )
    middle = (SIDE - 1) / 2
    return np.column_stack([turn, np.array(centre) - turn @ [middle, middle]])


def place_close(rng: np.random.Generator, eye: LabelledEye) -> np.ndarray:
    """A window as of a second look: around the disc or, seldom, around what a first look took for one."""
    # so wide a range that the size of the window tells little about that of the disc
    side = CLOSE * eye.disc_diameter * np.exp(rng.normal(0, 0.4))
    centre = np.array([eye.disc_x, eye.disc_y])
    if rng.random() < 0.3:
        centre = point_in(rng, eye)
    return affine(rng, tuple(centre + rng.normal(0, 0.22, 2) * eye.disc_diameter), side)


def place_field(rng: np.random.Generator, eye: LabelledEye) -> np.ndarray:
    """A window as of a first look at another camera: the disc in the middle, at the border, or not at all."""
    height, width = eye.fov.shape
    if rng.random() < (0.35 if eye.fovea is None else 0.6):  # as it is
        return affine(rng, (width / 2, height / 2), max(height, width) * rng.uniform(1, 1.15))
    side = eye.disc_diameter / np.exp(rng.uniform(*np.log(SHARES)))
    if side > 1.2 * max(height, width):  # anywhere in an ultra-wide field
        return affine(rng, tuple(np.array([width, height]) / 2 + rng.uniform(-0.35, 0.35, 2) * side), side)
    kind = rng.random()
    centre = np.array([eye.disc_x, eye.disc_y])
    if kind < 0.4:
        centre = centre + rng.normal(0, 0.3, 2) * eye.disc_diameter
    elif kind < 0.6:  # at the border of the circles of `frame`
        angle, distance = rng.uniform(0, 2 * np.pi), 0.47 * side + rng.uniform(-0.6, 0.35) * eye.disc_diameter
        centre = centre + distance * np.array([np.cos(angle), np.sin(angle)])
    elif kind < 0.75:  # the disc somewhere, up to beyond the border
        centre = centre + rng.uniform(-0.52, 0.52, 2) * side
    else:
        centre = point_in(rng, eye)
    return affine(rng, tuple(centre), side)


def point_in(rng: np.random.Generator, eye: LabelledEye) -> np.ndarray:
    """A random point (x, y) of the field of view, not close to its border."""
    height, width = eye.fov.shape
    angle, radius = rng.uniform(0, 2 * np.pi), 0.42 * min(height, width) * np.sqrt(rng.random())
    return np.array([width / 2 + radius * np.cos(angle), height / 2 + radius * np.sin(angle)])


def frame(rng: np.random.Generator, close: bool) -> np.ndarray:
    """A field of view, uint8, 0 or 255: a circle, one cut above and below, or the whole frame."""
    kind = rng.random()
    if kind < (0.5 if close else 0.25):
        return np.full((SIDE, SIDE), 255, np.uint8)
    fov = np.zeros((SIDE, SIDE), np.uint8)
    if close and kind < 0.8:  # the border of a much larger field
        angle, radius = rng.uniform(0, 2 * np.pi), SIDE * rng.uniform(0.8, 2.5)
        away = radius - SIDE * rng.uniform(-0.1, 0.4)
        x, y = SIDE / 2 + away * np.cos(angle), SIDE / 2 + away * np.sin(angle)
        return cv2.circle(fov, (round(x), round(y)), round(radius), 255, -1)
    middle = (SIDE - 1) / 2
    radius = SIDE * rng.uniform(0.44, 0.5)
    cv2.circle(fov, (round(middle), round(middle)), round(radius), 255, -1)
    if rng.random() < 0.3:
        cut = int(SIDE * rng.uniform(0.05, 0.18))
        fov[:cut] = fov[SIDE - cut :] = 0
    return fov


def surround(
    rng: np.random.Generator, view: np.ndarray, fov: np.ndarray, eyes: Sequence[LabelledEye]
) -> np.ndarray:
    """Fill what lies outside the field with retina of another eye, as a wider camera would show it."""
    other = eyes[int(rng.integers(len(eyes)))]
    height, width = other.fov.shape
    middle = np.array([width, height]) / 2
    away = middle - [other.disc_x, other.disc_y]
    away /= max(float(np.hypot(*away)), 1.0)
    half = 0.19 * min(height, width)
    x, y = middle + away * half * 0.9
    patch = other.photograph[
        max(0, round(y - half)) : round(y + half), max(0, round(x - half)) : round(x + half)
    ]
    if min(patch.shape[:2]) < 8:
        return view
    step = np.exp(rng.uniform(np.log(0.25), np.log(2.5)))
    matrix = np.array([[step, 0, 0], [0, step, 0]])
    turn = cv2.getRotationMatrix2D((0, 0), float(rng.uniform(0, 360)), 1.0)[:, :2]
    matrix[:, :2] = step * turn
    tiles = cv2.warpAffine(
        cv2.GaussianBlur(patch, (0, 0), max(0.3, 0.4 * step)),
        matrix,
        (SIDE, SIDE),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    ).astype(np.float32)
    if fov.any():  # in the colours of the eye, give or take
        mean, std = cv2.meanStdDev(view, mask=fov)
        own_mean, own_std = cv2.meanStdDev(tiles)
        gain = (std / np.maximum(own_std, 1)).clip(0.3, 2)[:, 0] * rng.uniform(0.5, 1)
        tiles = (tiles - own_mean[:, 0]) * gain + mean[:, 0] * rng.uniform(0.8, 1.05)
    inner = cv2.erode(fov, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=255)
    blend = cv2.GaussianBlur(inner, (0, 0), 2).astype(np.float32)[..., None] / 255
    return (view * blend + tiles * (1 - blend)).clip(0, 255).astype(np.uint8)


def draw_fovea(eye: LabelledEye, matrix: np.ndarray) -> np.ndarray:
    """Where the fovea is in a window, bool (SIDE, SIDE)."""
    if eye.fovea is None:
        return np.zeros((SIDE, SIDE), bool)
    rows, columns = np.indices((SIDE, SIDE))
    x = matrix[0, 0] * columns + matrix[0, 1] * rows + matrix[0, 2] - eye.fovea[0]
    y = matrix[1, 0] * columns + matrix[1, 1] * rows + matrix[1, 2] - eye.fovea[1]
    return np.hypot(x, y) < FOVEA / 2 * eye.disc_diameter


def enlarge_disc(rng: np.random.Generator, eye: LabelledEye) -> tuple[np.ndarray, np.ndarray]:
    """Photograph and disc map with the disc swollen up to 1.5 times, or shrunk, into its surroundings."""
    height, width = eye.fov.shape
    reach = 1.5 * eye.disc_diameter
    factor = rng.uniform(0.75, 1.5)
    rows, columns = np.indices((height, width), np.float32)
    across, down = columns - eye.disc_x, rows - eye.disc_y
    # the middle is magnified, from `reach` on nothing moves
    share = (1 - np.hypot(across, down) / reach).clip(0, 1)
    shrink = (1 / factor) ** np.minimum(1, 2 * share)
    x, y = (eye.disc_x + across * shrink).astype(np.float32), (eye.disc_y + down * shrink).astype(np.float32)
    return (cv2.remap(eye.photograph, x, y, cv2.INTER_LINEAR), cv2.remap(eye.disc, x, y, cv2.INTER_NEAREST))
