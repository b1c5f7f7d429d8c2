"""Random training crops: cut, rotated, recoloured; some as from another camera, some with a choroid.

What changes a crop takes a random generator and a square photograph, uint8 (S, S, 3) RGB, and returns one.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from datasets.eyes import Eye
from datasets.images import equalize, normalize, statistics
from datasets.kinds import ARTERY, BOTH, UNCERTAIN, VEIN

OWN_SCALE = (0.8, 1.25)  # resize factors
OTHER_SCALE = (0.7, 1.8)  # a camera with 30 degrees instead of 45 shows vessels 1.5 times as wide


class Crops:
    """Random training crops as a map-style torch data set.

    Crop i depends only on the seed and on i, so it is the same for any number of workers and in a resumed
    training.

    Item i: image float32 (3, crop, crop), vessel mask float32 (1, crop, crop) of 0 and 1, field of view
    float32 (1, crop, crop) of 0 and 1. With `kinds` the masks are two, of arteries and of veins, a crossing is
    in both, and vessels of unknown kind are out of the field of view.

    Args:
        eyes: with vessel masks.
        crop: side in pixels.
        seed: of everything random.
        length: number of crops.
        choroid: share of the crops with drawn choroidal vessels, 0 to 1, see `draw_choroid`.
        camera: share of the crops that look as from another camera, 0 to 1, see `change_camera`.
        degrade: share of the crops with other colours, poorer files and a lens rim, 0 to 1, see
            `change_colour`, `spoil_file` and `draw_rim`.
        clahe: share of the crops with even contrast, 0 to 1, see `datasets.images.equalize`.
        kinds: for a network of arteries and veins; all eyes have `Eye.kinds`.

    Eyes of several data sets (`Eye.source`) are drawn so that each data set comes equally often, whatever its
    number of eyes.
    """

    def __init__(
        self,
        eyes: Sequence[Eye],
        crop: int,
        seed: int,
        length: int,
        choroid: float = 0.0,
        camera: float = 0.0,
        degrade: float = 0.0,
        clahe: float = 0.0,
        kinds: bool = False,
    ) -> None:
        self.eyes, self.crop, self.seed, self.length = list(eyes), crop, seed, length
        self.choroid, self.camera, self.degrade, self.clahe = choroid, camera, degrade, clahe
        self.labels = [eye.truth if eye.kinds is None or not kinds else eye.kinds for eye in self.eyes]
        self.kinds = kinds
        by_source: dict[str, list[int]] = {}
        for i, eye in enumerate(self.eyes):
            by_source.setdefault(eye.source, []).append(i)
        self.sources = list(by_source.values())
        self.images = [[eye.image] + ([equalize(eye.image, eye.fov)] if clahe else []) for eye in self.eyes]
        each = zip(self.eyes, self.images, strict=True)
        self.statistics = [[statistics(image, eye.fov) for image in images] for eye, images in each]

    def __len__(self) -> int:
        return self.length

    def choose(self, i: int) -> tuple[np.random.Generator, int]:
        """The random generator of crop i, and the index of its eye."""
        rng = np.random.default_rng([self.seed, i])
        # with one data set this draws no number, so that its crops do not depend on there being others
        source = int(rng.integers(len(self.sources))) if len(self.sources) > 1 else 0
        of_source = self.sources[source]
        return rng, of_source[int(rng.integers(len(of_source)))]

    def name_of(self, i: int) -> str:
        """The name of the image of crop i."""
        return self.eyes[self.choose(i)[1]].name

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng, which = self.choose(i)
        eye = self.eyes[which]
        copy = int(self.clahe > 0 and rng.random() < self.clahe)  # draws no number where there are none
        other = rng.random() < self.camera
        # one matrix moves all three; nearest neighbour keeps the levels of labels, cubic interpolation the
        # photograph about as sharp as those to be segmented
        matrix = random_affine(rng, eye.fov, self.crop, OTHER_SCALE if other else OWN_SCALE)
        crop = (self.crop, self.crop)
        nearest = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        image = cv2.warpAffine(
            self.images[which][copy], matrix, crop, flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        )
        label = cv2.warpAffine(self.labels[which], matrix, crop, flags=nearest)
        fov = cv2.warpAffine(eye.fov, matrix, crop, flags=nearest)
        if rng.random() < self.choroid:
            image = draw_choroid(rng, image, self.eyes)
        if other:
            image = change_camera(rng, image)
        if self.degrade and rng.random() < self.degrade:
            image = spoil_file(rng, change_colour(rng, draw_rim(rng, image, fov)))
        # the statistics of the photograph: those of the jittered crop would undo the jitter
        image = normalize(image, fov, *self.statistics[which][copy], jitter_colour(rng))
        known, masks = fov[None] > 0, label[None] / np.float32(255)
        if self.kinds:
            known &= label != UNCERTAIN
            masks = np.stack([np.isin(label, (kind, BOTH)) for kind in (ARTERY, VEIN)])
        return image, masks.astype(np.float32), known.astype(np.float32)


def random_affine(
    rng: np.random.Generator, fov: np.ndarray, crop: int, scales: tuple[float, float] = OWN_SCALE
) -> np.ndarray:
    """A random flip, rotation and scale around a random point of the field of view.

    Returns:
        float64 (2, 3), the matrix from pixels of the crop to pixels of the photograph.
    """
    height, width = fov.shape
    centre = np.array([width / 2, height / 2])
    for _ in range(100):  # a nearly empty field of view must not loop forever
        point = rng.uniform(0, [width, height])
        if fov[int(point[1]), int(point[0])]:
            centre = point
            break
    angle = rng.uniform(0, 2 * np.pi)
    scale = np.exp(rng.uniform(*np.log(scales)))
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    turn = np.array([[cos, -sin], [sin, cos]]) * [rng.choice([-1, 1]), 1]
    return np.column_stack([turn, centre - turn @ [crop / 2, crop / 2]])


def draw_choroid(rng: np.random.Generator, photograph: np.ndarray, eyes: Sequence[Eye]) -> np.ndarray:
    """Draw choroidal vessels into a photograph, as they shine through a tessellated fundus.

    The network must not segment them, but too few of DRIVE's eyes show them. They are redder, less sharp and
    wider than retinal vessels. Here they are the vessel masks of one or two random `eyes`, mostly enlarged,
    blurred, and subtracted from green, at most half as much from blue, and hardly from red.
    """
    crop, levels = len(photograph), photograph.astype(np.float32)
    for _ in range(rng.integers(1, 3)):
        eye = eyes[int(rng.integers(len(eyes)))]
        size = max(round(crop * rng.uniform(0.5, 1.1)), 1)
        matrix, flags = random_affine(rng, eye.fov, size), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        vessels = cv2.resize(cv2.warpAffine(eye.truth, matrix, (size, size), flags=flags), (crop, crop))
        vessels = cv2.GaussianBlur(vessels, (0, 0), rng.uniform(1, 3)).astype(np.float32) / 255
        colour = np.array([rng.uniform(-0.3, 0.4), 1, rng.uniform(0.1, 0.5)], np.float32)
        levels -= vessels[..., None] * colour * rng.uniform(5, 25)
    return levels.clip(0, 255).astype(np.uint8)


def change_camera(rng: np.random.Generator, photograph: np.ndarray) -> np.ndarray:
    """Simulate another camera: uneven light, and mostly blur and noise.

    One camera took all of DRIVE's photographs. A network that has seen nothing else mistakes uneven light and
    noise for vessels, and misses blurred vessels.
    """
    side = len(photograph)
    # light and tint that vary smoothly over the crop; factors of about 0.6 to 1.6
    light = np.exp(smooth_field(rng, side) * rng.uniform(0, 0.25))[..., None]
    tint = np.exp(smooth_field(rng, side)[..., None] * np.array([0.05, 0, -0.05], np.float32))
    image = (photograph * light * tint).clip(0, 255).astype(np.uint8)
    if rng.random() < 0.7:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.2))
    if rng.random() < 0.7:
        noise = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(1, 8))
        image = (image + noise).clip(0, 255).astype(np.uint8)
    return image


def change_colour(rng: np.random.Generator, photograph: np.ndarray) -> np.ndarray:
    """Change the gamma of each channel apart: cameras differ most in how bright red, green and blue are."""
    ramp = np.linspace(0, 1, 256)[:, None]
    table = (255 * ramp ** np.exp(rng.uniform(-0.45, 0.45, 3))).astype(np.uint8)
    return cv2.LUT(photograph, table[None])


def spoil_file(rng: np.random.Generator, photograph: np.ndarray) -> np.ndarray:
    """Spoil a photograph as files are spoilt: enlarged from few pixels, JPEG blocks, or both."""
    side, image = len(photograph), photograph
    if rng.random() < 0.3:
        small = max(round(side / rng.uniform(1.3, 2.5)), 1)
        image = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 95))]
        image = np.asarray(cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR))
    if len(image) < side:
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
    return image


def draw_rim(rng: np.random.Generator, photograph: np.ndarray, fov: np.ndarray) -> np.ndarray:
    """Draw a bright or dark arc along the border of the field of view, as lens rims and reflections make them.

    `fov` is uint8 (S, S), 0 or 255. Where no border is in the crop the photograph is returned itself.
    """
    if fov.all() or not fov.any():
        return photograph
    depth = cv2.distanceTransform(fov, cv2.DIST_L2, 3)
    arc = np.exp(-(((depth - rng.uniform(0, 15)) / rng.uniform(1, 5)) ** 2)) * (fov > 0)
    arc *= smooth_field(rng, len(fov)).clip(0, 1) * rng.uniform(-50, 80)
    return (photograph + arc[..., None] * rng.uniform(0.3, 1, 3)).clip(0, 255).astype(np.uint8)


def smooth_field(rng: np.random.Generator, side: int) -> np.ndarray:
    """A smooth random field of about -2 to 2: float32 (side, side)."""
    knots = int(rng.integers(2, 5))
    field = rng.standard_normal((knots, knots), np.float32)
    return cv2.resize(field, (side, side), interpolation=cv2.INTER_CUBIC)


def jitter_colour(rng: np.random.Generator) -> np.ndarray:
    """Random gamma, brightness, and contrast of each colour channel.

    Returns:
        float64 (256, 3): the new value, 0..255, of each level of each channel.
    """
    ramp = np.linspace(0, 1, 256)[:, None]
    gamma = np.exp(rng.uniform(-0.25, 0.25))
    contrast = np.exp(rng.uniform(-0.2, 0.2) + rng.uniform(-0.1, 0.1, 3))
    return 255 * (ramp**gamma * contrast + rng.uniform(-0.06, 0.06)).clip(0, 1)
