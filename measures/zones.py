"""The standard zones around the optic disc, and the vessels that cross zone B.

Zones are told by the distance from the disc's margin in disc diameters: A to 0.5, B from 0.5 to 1, C from 0.5
to 2 (Hubbard et al. 1999, https://doi.org/10.1016/S0161-6420(99)90525-0; zone C is that of later programs).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from anatomy.landmarks import Landmarks
from measures.calibre import quantiles
from measures.vessels import Vessels

DISC_UM = 1800.0  # micrometres: mean diameter of the optic disc
ZONES = {"b": (1.0, 1.5), "c": (1.0, 2.5)}  # disc diameters from the middle of the disc
DEEP = 0.25  # disc diameters: what lies in zone B over less of its depth does not cross it
LEAST_MEASURED = 0.05  # disc diameters of centre line that must be measured for a width
GAP = 3.0  # widths between two ends of one vessel
FACING = 40.0  # degrees by which these may miss each other


@dataclass(frozen=True)
class OpticDisc:
    """Place and diameter of the disc in pixels."""

    x: float
    y: float
    diameter: float

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Disc diameters from its middle to points of row and column (n, 2): float (n,)."""
        return np.hypot(points[:, 1] - self.x, points[:, 0] - self.y) / self.diameter

    def zone(self, shape: tuple[int, ...], name: str) -> np.ndarray:
        """The pixels of a zone of `ZONES` in a picture (H, W): bool (H, W)."""
        rows, columns = np.ogrid[: shape[0], : shape[1]]
        squared = (columns - self.x) ** 2 + (rows - self.y) ** 2  # a quarter of the time of `np.hypot`
        low, high = ((radius * self.diameter) ** 2 for radius in ZONES[name])
        return (squared >= low) & (squared < high)

    def seen(self, fov: np.ndarray, name: str) -> float:
        """The share of a zone that lies in the field of view, uint8 (H, W)."""
        low, high = ZONES[name]
        whole = np.pi * (high**2 - low**2) * self.diameter**2
        return min(1.0, float(np.count_nonzero(self.zone(fov.shape, name) & (fov > 0)) / whole))


@dataclass(frozen=True)
class Crossing:
    """A vessel that crosses zone B."""

    width: float  # pixels of the photograph
    line: np.ndarray  # its centre line in the zone, where it was measured: x and y in the photograph, (n, 2)


def disc_in(landmarks: Landmarks, shrink: float = 1.0) -> OpticDisc | None:
    """The disc in pixels of a picture shrunk by this factor; None where none was found."""
    if not landmarks.disc_diameter > 0:
        return None
    x, y = ((place + 0.5) * shrink - 0.5 for place in (landmarks.disc_x, landmarks.disc_y))
    return OpticDisc(x, y, landmarks.disc_diameter * shrink)


def zone_circles(landmarks: Landmarks) -> list[tuple[float, float, float]]:
    """The circles between the zones, from the inside: x, y and radius in pixels of the photograph."""
    disc = disc_in(landmarks)
    radii = sorted({radius for zone in ZONES.values() for radius in zone})
    return [(disc.x, disc.y, radius * disc.diameter) for radius in radii] if disc else []


def crossings(vessels: Vessels, disc: OpticDisc, others: np.ndarray) -> list[Crossing]:
    """The vessels of one kind that cross zone B, the widest first, each once.

    A vessel counts where it meets a circle around the disc: the middle of the zone, or the circle nearest to it
    on which all that belongs to the vessel can be measured. So of a vessel that branches in the zone its trunk
    counts if it branches in the outer half, else its branches. Ends that face each other over a gap belong to
    one vessel. The width is the median over the piece between two branch points that meets the circle.

    Args:
        vessels: of one kind.
        disc: at their size.
        others: vessels of other kinds, also where they cross, bool (h, w): beside them nothing is measured.
    """
    tree = vessels.tree
    low, high = ZONES["b"]
    place = disc.distance(tree.line)
    inside = (place >= low) & (place <= high)
    if not inside.any():
        return []
    owner = np.repeat(np.arange(len(tree.sizes)), tree.sizes)
    begins = inside & ~np.r_[False, inside[:-1] & (owner[1:] == owner[:-1])]
    piece = np.where(inside, np.cumsum(begins) - 1, -1)
    width, weight = vessels.widths[0].copy(), vessels.widths[1]
    at, reach = tree.pixels[inside], tree.radii[inside] + 1
    margin = int(reach.max()) + 2  # farther around the zone nothing is beside its vessels
    top, left = np.maximum(at.min(axis=0) - margin, 0)
    bottom, right = at.max(axis=0) + margin + 1
    free = (~others[top:bottom, left:right]).view(np.uint8)
    if not free.all():
        beside = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        width[np.flatnonzero(inside)[beside[tuple((at - (top, left)).T)] <= reach]] = np.nan
    pieces = [np.flatnonzero(piece == number) for number in range(piece.max() + 1)]
    parts = _joined(vessels, pieces)
    good = [points[np.isfinite(width[points])] for points in pieces]
    enough = np.array([weight[points].sum() >= LEAST_MEASURED * disc.diameter for points in good])
    near, far = np.array([(place[points].min(), place[points].max()) for points in pieces]).T
    middle = (low + high) / 2
    circles = sorted(np.linspace(low, high, 51)[3:-3], key=lambda radius: abs(radius - middle))
    found = []
    for part in range(parts.max() + 1):
        own = np.flatnonzero(parts == part)
        if far[own].max() - near[own].min() < DEEP:
            continue
        for radius in circles:
            met = own[(near[own] <= radius) & (far[own] >= radius)]
            if len(met) and enough[met].all():
                break
        else:
            continue
        for number in met:
            (across,) = quantiles(width[good[number]], weight[good[number]], (0.5,))
            line = (tree.line[pieces[number]][:, ::-1] + 0.5) / vessels.shrink - 0.5
            found.append(Crossing(across / vessels.shrink, line))
    return sorted(found, key=lambda each: -each.width)


def _joined(vessels: Vessels, pieces: list[np.ndarray]) -> np.ndarray:
    """To which vessel each piece of the centre lines in the zone belongs: int (pieces,), from 0."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    tree = vessels.tree
    joint = dict(zip(tree.ends.ravel().tolist(), tree.joints.ravel().tolist(), strict=True))
    by_joint: dict[int, list[int]] = {}
    free: list[tuple[int, np.ndarray, np.ndarray, float]] = []  # piece, place and heading of an end, width
    for number, points in enumerate(pieces):
        for end, inner in ((points[0], points[:16][-1]), (points[-1], points[-16:][0])):
            if at := joint.get(int(end), 0):
                by_joint.setdefault(at, []).append(number)
            elif int(end) in joint and len(points) > 2:
                heading = tree.line[end] - tree.line[inner]
                wide = 2 * float(tree.radii[inner])
                free.append((number, tree.line[end], heading / max(float(np.hypot(*heading)), 1e-9), wide))
    links = [(numbers[0], other) for numbers in by_joint.values() for other in numbers[1:]]
    least = np.cos(np.radians(FACING))
    for k, (number, place, heading, wide) in enumerate(free):
        for other, there, back, width in free[k + 1 :]:
            gap = there - place
            length = float(np.hypot(*gap))
            facing = min(float(gap @ heading), float(-gap @ back)) >= least * length
            if number != other and facing and length <= GAP * (wide + width) / 2:
                links.append((number, other))
    rows, columns = np.array(links, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), (len(pieces),) * 2)
    return connected_components(graph, directed=False)[1]
