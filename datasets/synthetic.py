"""Synthetic eyes: photographs, vessel masks and fields of view drawn by a program, in DRIVE's layout."""

from __future__ import annotations

import heapq
from pathlib import Path

import cv2
import imageio.v3 as iio
import numpy as np
from tqdm import tqdm

from datasets.kinds import ARTERY, NONE, VEIN, join_kinds
from system.files import atomic
from system.threads import threads

# Lengths are in radii of the field of view and (0, 0) is its centre, so that the drawing scales.
STEP_ALONG = 0.014  # between two points of a vessel
CELLS = 100  # per radius, in the map of drawn vessels
SUPERSAMPLE = 3

Vessel = tuple[np.ndarray, np.ndarray, float, int]  # points (n, 2), half widths (n,), darkness in 0..1, kind


def draw_eye(
    rng: np.random.Generator, height: int = 584, width: int = 565
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one synthetic eye as a fundus camera would show it.

    Returns the photograph, uint8 (height, width, 3) RGB in 0..255, and two uint8 (height, width) arrays of
    exactly 0 and 255: the vessel mask (zero outside the field of view) and the field of view.
    """
    photograph, mask, fov, _ = draw_labelled_eye(rng, height, width)
    return photograph, mask, fov


def draw_labelled_eye(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, ...]:
    """As `draw_eye`, with the arteries and veins of the vessel mask, uint8 (height, width), as fourth."""
    short = min(height, width)
    radius = 0.4775 * short
    centre = np.array([width, height]) / 2 - 0.5 + rng.uniform(-0.006, 0.006, 2) * short
    # A right and a left eye are mirror images: all is laid out with the optic disc on the left.
    mirror = np.array([rng.choice([-1, 1]), 1])
    x = mirror[0] * (np.arange(width, dtype=np.float32) - centre[0])[None, :] / radius
    y = (np.arange(height, dtype=np.float32) - centre[1])[:, None] / radius
    inside = np.hypot(x, y) <= 1
    disc = rng.uniform([-0.78, -0.1], [-0.66, 0.06])
    fovea = rng.uniform([-0.06, 0.02], [0.06, 0.12]) + [0, disc[1]]

    vessels = [(points * mirror, *rest) for points, *rest in _grow_vessels(rng, disc, fovea, radius)]
    frame = centre, radius, height, width
    depth, covered = _draw_vessels(vessels, *frame)
    mask = np.where((covered > 0.4) & inside, 255, 0).astype(np.uint8)
    each = [[vessel for vessel in vessels if vessel[3] == kind] for kind in (ARTERY, VEIN)]
    kinds = np.where(mask, join_kinds(*(_draw_vessels(own, *frame)[1] > 0.2 for own in each)), NONE)

    # Light passes the blood and is absorbed exponentially; the three colours are absorbed unequally.
    absorption = np.array([0.13, 0.34, 0.2]) * rng.uniform(0.85, 1.2)
    photograph = _draw_retina(rng, x, y, disc, fovea) * np.exp(-depth[..., None] * absorption)
    photograph *= np.clip((1 - np.hypot(x, y)) * radius + 0.5, 0, 1)[..., None]
    blur = max(0.35, rng.uniform(0.7, 0.95) * min(1, radius / 270))
    photograph = cv2.GaussianBlur(photograph, (0, 0), blur)
    grain = cv2.GaussianBlur(rng.normal(0, 1, photograph.shape), (0, 0), 0.6) * rng.uniform(4, 6)
    photograph = photograph + (3 + grain * np.where(inside, 1, 0.4)[..., None])
    levels = photograph.clip(0, 255).astype(np.uint8)
    if width >= 300:
        label = np.zeros_like(levels)
        font, grey = cv2.FONT_HERSHEY_SIMPLEX, (90, 90, 90)
        cv2.putText(label, "SYNTHETIC", (5, height - 6), font, 0.35, grey, 1, cv2.LINE_AA)
        levels[~inside] = np.maximum(levels, label)[~inside]
    return levels, mask, np.where(inside, 255, 0).astype(np.uint8), kinds


def _grow_vessels(rng: np.random.Generator, disc: np.ndarray, fovea: np.ndarray, radius: float) -> list[Vessel]:
    """Grow arteries and veins out of the optic disc until they cover a random share of the retina."""
    wanted = rng.uniform(0.11, 0.14) * np.pi
    thinnest = max(0.0021, 0.45 / radius)
    occupied = np.zeros((2 * CELLS + 5, 2 * CELLS + 5), np.uint8)  # 1: artery, 2: vein, 3: both
    waiting: list[tuple] = []
    vessels: list[Vessel] = []

    def plan(half_width: float, start: np.ndarray, heading: float, kind: int, trunk: int = 0) -> None:
        # Widest first: large vessels take their place before twigs fill the rest.
        heapq.heappush(waiting, (-half_width, rng.random(), start, heading, kind, trunk))

    def cell(point: np.ndarray) -> tuple[int, int]:
        column, row = np.clip((point + 1) * CELLS + 2, 1, 2 * CELLS + 3).astype(int)
        return row, column

    def arcade(start: np.ndarray, up: int) -> np.ndarray:
        # A temporal trunk: a Bezier curve around the macula, gently bent.
        corners = np.array([[-0.66, 0.6 * up], [-0.1, 0.86 * up], [0.8, 0.42 * up]]) + [0, 0.5 * disc[1]]
        corners += rng.normal(0, [[0.05], [0.09], [0.12]], (3, 2))
        t = np.linspace(0, 1, 170)[:, None]
        curve = (1 - t) ** 3 * start + 3 * t * (1 - t) ** 2 * corners[0]
        curve += 3 * t**2 * (1 - t) * corners[1] + t**3 * corners[2]
        return curve + 0.035 * np.minimum(1, 4 * t) * _smooth_noise(rng, len(t), 2, 13)

    def wander(start: np.ndarray, heading: float, longest: int, avoid: np.ndarray) -> np.ndarray:
        bends = 0.35 * _smooth_noise(rng, longest, 1, 7) + 0.25 * _smooth_noise(rng, longest, 1, 2)
        points = [start]
        for k, bend in enumerate(bends[:, 0]):
            # Near the macula vessels run towards the fovea, elsewhere away from the optic disc.
            to_fovea = fovea - points[-1]
            aim = _angle(to_fovea if np.hypot(*to_fovea) < 0.5 else points[-1] - disc)
            if k > 4:
                heading += 0.03 * ((aim - heading + np.pi) % (2 * np.pi) - np.pi)
            direction = np.array([np.cos(heading + bend), np.sin(heading + bend)])
            point = points[-1] + STEP_ALONG * direction
            if np.hypot(*(point - fovea)) < 0.12 or (k > 5 and avoid[cell(point + 0.03 * direction)]):
                break
            points.append(point)
        return np.array(points)

    for kind, size in ((ARTERY, 0.0100), (VEIN, 0.0122)):
        for up in (-1, 1):
            size *= rng.uniform(0.95, 1.05)
            start = disc + rng.normal(0, 0.012, 2) + [0.0, 0.012 * up]
            plan(size, start, 0.0, kind, trunk=up)
            for steep in rng.uniform([0.15, 0.8], [0.7, 1.4]):
                plan(size * rng.uniform(0.4, 0.68), start, np.pi - steep * up, kind)  # nasal
            plan(size * rng.uniform(0.25, 0.36), start, rng.uniform(0.1, 0.75) * up, kind)  # macular

    area = 0.0
    while waiting and area < wanted:
        half_width, _, start, heading, kind, trunk = heapq.heappop(waiting)
        half_width = -half_width
        if trunk:
            points = arcade(start, trunk)
        else:
            # Vessels of one kind never cross, and twigs seldom cross anything.
            avoid = occupied & kind if half_width > 0.004 else occupied
            longest = int((0.17 + 60 * half_width) * rng.uniform(0.7, 1.3) / STEP_ALONG)
            points = wander(start, heading, longest, avoid)
        points = points[: np.argmax(np.append(np.hypot(*points.T), 9) > 1.02)]
        if len(points) < 5:
            continue
        widths = np.maximum(half_width * np.linspace(1, 0.55, len(points)), thinnest)
        darkness = (0.45 + 0.55 * min(1, half_width / 0.009)) * rng.uniform(0.85, 1.1)
        vessels.append((points, widths, min(1, darkness * (0.74 if kind == ARTERY else 1)), kind))
        area += 2 * STEP_ALONG * widths.sum()
        for row, column in map(cell, points[3:]):
            occupied[row - 1 : row + 2, column - 1 : column + 2] |= kind

        place, side = rng.uniform(9, 16), rng.choice([-1, 1])
        while place < len(points) - 3:
            k = int(place)
            child = (half_width + widths[k]) / 2 * rng.uniform(0.2, 0.72)
            if child > 0.0009:
                ahead = _angle(points[k + 2] - points[k])
                plan(child, points[k], ahead + side * rng.uniform(0.6, 1.2), kind)
            side *= rng.choice([-1, 1], p=[0.8, 0.2])
            place += rng.uniform(5, 14)
        if len(points) > 12 and widths[-1] > 0.0018:  # a vessel ends in a fork
            ahead = _angle(points[-1] - points[-3])
            for side in (-1, 1):
                child = widths[-1] * rng.uniform(0.7, 0.95)
                plan(child, points[-1], ahead + side * rng.uniform(0.25, 0.6), kind)
    return vessels


def _angle(vector: np.ndarray) -> float:
    return float(np.arctan2(vector[1], vector[0]))


def _smooth_noise(rng: np.random.Generator, length: int, columns: int, smooth: float) -> np.ndarray:
    """Return (length, columns) noise of about unit deviation, smooth along every column."""
    noise = cv2.GaussianBlur(rng.normal(0, 1, (length, columns)), (1, 0), sigmaX=1, sigmaY=smooth)
    return noise.reshape(length, columns) * (2 * np.sqrt(np.pi) * smooth) ** 0.5


def _draw_vessels(
    vessels: list[Vessel], centre: np.ndarray, radius: float, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the depth of blood and the share of every pixel covered by vessels, float32 (H, W) in 0..1."""
    fine_depth = np.zeros((height * SUPERSAMPLE, width * SUPERSAMPLE), np.uint8)
    fine_covered = np.zeros_like(fine_depth)

    def draw(canvas: np.ndarray, vessel: Vessel, share: float, value: float) -> None:
        points, widths, *_ = vessel
        corners = (points * radius + centre + 0.5) * SUPERSAMPLE - 0.5
        corners = np.rint(corners * 16).astype(int).tolist()  # fixed-point numbers: 4 bits of fraction
        thick = np.maximum(1, np.rint(2 * share * widths * radius * SUPERSAMPLE)).astype(int).tolist()
        for a, b, t in zip(corners, corners[1:], thick, strict=False):
            cv2.line(canvas, a, b, round(255 * value), t, cv2.LINE_8, 4)

    # A vessel is a round tube: less blood at its border than in its middle. Each layer is drawn over all
    # vessels, thin ones first, before the next, so that forks and crossings join without a seam.
    for share, blood in ((1.0, 0.7), (0.65, 1.0)):
        for vessel in reversed(vessels):
            draw(fine_depth, vessel, share, blood * vessel[2])
    for vessel in vessels:
        if vessel[1][0] * radius > 1.7:  # the flash is reflected along the middle of wide vessels
            draw(fine_depth, vessel, 0.22, vessel[2] * (0.62 if vessel[2] < 0.8 else 0.8))
        draw(fine_covered, vessel, 1.0, 1.0)
    depth, covered = (
        cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        for fine in (fine_depth, fine_covered)
    )
    return depth, covered


def _draw_retina(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, disc: np.ndarray, fovea: np.ndarray
) -> np.ndarray:
    """Return the retina without vessels, float (H, W, 3) RGB in about 0..255, for x (1, W) and y (H, 1)."""

    def clouds(cells: int) -> np.ndarray:
        grid = rng.normal(0, 1, (cells, cells)).astype(np.float32)
        return cv2.resize(grid, (x.size, y.size), interpolation=cv2.INTER_CUBIC)

    red, green, blue = rng.uniform([150, 0.46, 0.53], [245, 0.6, 0.63])
    hue = np.array([red, red * green, red * green * blue])
    from_centre = np.hypot(x, y)
    tilt = rng.uniform(-0.09, 0.09, 2)
    light = 1.06 - rng.uniform(0.12, 0.3) * from_centre**2.5 + tilt[0] * x + tilt[1] * y + 0.05 * clouds(4)
    choroid = 0.03 * clouds(9) + 0.016 * clouds(24) + 0.015 * clouds(70)
    retina = hue * (light[..., None] + choroid[..., None] * np.array([0.7, 1.2, 1.1]))
    # Towards its border the retina looks paler and greener, unevenly.
    pale = np.clip(from_centre**4 * (0.6 + 0.5 * clouds(4)), 0, 1) * rng.uniform(0.3, 1)
    retina *= 1 + pale[..., None] * np.array([-0.18, 0.08, 0.1])

    from_fovea = np.hypot(x - fovea[0], y - fovea[1])
    macula = 0.55 * np.exp(-((from_fovea / 0.11) ** 2)) + 0.4 * np.exp(-((from_fovea / 0.33) ** 2))
    retina *= 1 - rng.uniform(0.7, 1.1) * macula[..., None] * np.array([0.17, 0.38, 0.36])

    size = rng.uniform(0.108, 0.13)
    from_disc = np.hypot((x - disc[0]) * 1.08, y - disc[1]) / size + 0.04 * clouds(8)
    inside = 1 / (1 + np.exp((from_disc - 1) * 13))
    halo = 0.14 * np.exp(-((from_disc / 1.9) ** 2))
    glow = hue * light[..., None] * np.array([1.2, 1.75, 1.65])
    retina += (glow - retina) * (rng.uniform(0.7, 0.95) * inside + halo)[..., None]
    from_cup = np.hypot(x - disc[0] - 0.25 * size, y - disc[1]) / size
    cup = inside * np.exp(-((from_cup / 0.5) ** 2))
    retina += cup[..., None] * np.array([25, 55, 45]) * rng.uniform(0.5, 1)

    # Spots that are not vessels: pale ones like drusen, dark ones like small haemorrhages.
    for _ in range(rng.integers(4, 14)):
        at, spot = rng.uniform(-0.7, 0.7, 2), rng.uniform(0.005, 0.014)
        shape = np.exp(-((x - at[0]) ** 2) / spot**2) * np.exp(-((y - at[1]) ** 2) / spot**2)
        tint = [0.1, 0.2, 0.12] if rng.random() < 0.65 else [-0.08, -0.22, -0.14]
        retina *= 1 + shape[..., None] * np.array(tint)
    return retina


def _trace_again(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """Trace a vessel mask as a second person might: borders shift and some faint twigs are missed."""
    across, down, doubt = (14 * cv2.GaussianBlur(rng.normal(0, 1, mask.shape), (0, 0), 4) for _ in range(3))
    rows, columns = np.indices(mask.shape)
    x, y = (columns + 0.6 * across).astype(np.float32), (rows + 0.6 * down).astype(np.float32)
    moved = cv2.remap(cv2.GaussianBlur(mask, (0, 0), 0.7), x, y, cv2.INTER_LINEAR)
    return np.where(moved > 130 + 25 * doubt, 255, 0).astype(np.uint8)


def write_drive(
    folder: Path,
    train: int = 12,
    test: int = 4,
    height: int = 584,
    width: int = 565,
    seed: int = 0,
    test_labels: bool = True,
    second_observer: bool = True,
    arteries_veins: bool = False,
) -> None:
    """Write synthetic eyes to `folder` with DRIVE's folders, names and formats.

    Photographs are LZW-compressed RGB TIFF files, masks are GIF files of 0 and 255, all (height, width).
    Equal arguments give equal files. `test_labels` and `second_observer` say whether the test eyes come with
    the first and the second observer's vessel mask, `arteries_veins` whether all come with these as PNG files.
    """

    def write_eye(eye: tuple[int, str, int]) -> None:
        part, name, number = eye
        rng = np.random.default_rng([seed, part, number])
        photograph, vessels, field, kinds = draw_labelled_eye(rng, height, width)
        # Python writes the file: cv2.imwrite fails on some Windows paths.
        lzw = [cv2.IMWRITE_TIFF_COMPRESSION, 5]
        tiff = cv2.imencode(".tif", cv2.cvtColor(photograph, cv2.COLOR_RGB2BGR), lzw)[1]
        files = {f"images/{number:02d}_{name}.tif": tiff.tobytes()}
        masks = {f"mask/{number:02d}_{name}_mask.gif": field}
        if name == "training" or test_labels:
            masks[f"1st_manual/{number:02d}_manual1.gif"] = vessels
        if name == "test" and second_observer:
            masks[f"2nd_manual/{number:02d}_manual2.gif"] = _trace_again(rng, vessels) & field
        if arteries_veins:
            files[f"arteries_veins/{number:02d}_{name}.png"] = cv2.imencode(".png", kinds)[1].tobytes()
        for path, mask in masks.items():
            # An optimized GIF would hold palette indices 0 and 1; DRIVE's hold grey levels 0 and 255.
            files[path] = iio.imwrite("<bytes>", mask, plugin="pillow", extension=".gif", optimize=False)
        for path, content in files.items():
            with atomic(folder / name / path) as temporary:
                temporary.write_bytes(content)

    folder = Path(folder)
    eyes = [(0, "training", 21 + k) for k in range(train)] + [(1, "test", 1 + k) for k in range(test)]
    with threads() as pool:
        for _ in tqdm(pool.map(write_eye, eyes), "drawing eyes", len(eyes), disable=None):
            pass
