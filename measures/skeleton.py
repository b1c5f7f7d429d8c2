"""Centre lines of a vessel mask as a graph: segments between branch points and end points.

scikit-image thins the mask, SciPy orders the pixels. skan gives such a graph too, but compiles itself anew
at every start: 5 to 6 s of CPU for the first mask (skan 0.13.1; 0.03 s for those after it), where this takes
0.1 s, half of it thinning; and it brings 300 MB of packages.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np

SMOOTH = 2.0  # pixels: standard deviation of the Gaussian that turns steps of pixels into a line


@dataclass
class Tree:
    """The centre lines of a mask as segments between branch points and end points.

    The points of all segments follow each other; `sizes` says how many belong to each. A segment begins and
    ends with the pixel of its branch point or end point; a loop ends where it begins.
    """

    pixels: np.ndarray  # int (points, 2), row and column
    sizes: np.ndarray  # int (segments,), points of each
    is_spur: np.ndarray  # bool (segments,), from a branch point to an end point
    is_loop: np.ndarray  # bool (segments,)
    branch_points: int
    end_points: int
    branch_pixels: np.ndarray  # bool (H, W)
    radius: np.ndarray  # float32 (H, W), pixels from each vessel pixel to the background

    @cached_property
    def line(self) -> np.ndarray:
        """The points smoothed by `SMOOTH`, float (points, 2); not to be written to."""
        return self.smooth(SMOOTH)

    @cached_property
    def ends(self) -> np.ndarray:
        """The first and the last point of each segment, int (2, segments)."""
        last = np.cumsum(self.sizes) - 1
        return np.stack([last - self.sizes + 1, last])

    @cached_property
    def joints(self) -> np.ndarray:
        """The branch point at each of `ends`, numbered from 1, and 0 where there is none: int (2, segments).

        Branch pixels that touch are one branch point.
        """
        number = cv2.connectedComponents(self.branch_pixels.astype(np.uint8), connectivity=8)[1]
        return number[tuple(self.pixels[self.ends].transpose(2, 0, 1))]

    @cached_property
    def radii(self) -> np.ndarray:
        """Pixels from each point to the background, float32 (points,)."""
        return self.radius[tuple(self.pixels.T)]

    def smooth(self, sigma: float) -> np.ndarray:
        """The points smoothed along their segments by a Gaussian of `sigma` points, float (points, 2).

        The ends of a segment stay where they are, and a straight one stays straight.
        """
        from scipy.ndimage import gaussian_filter1d

        if not len(self.pixels):
            return np.zeros((0, 2))
        reach = int(4 * sigma + 0.5)
        padded = self.sizes + 2 * reach
        first, size, closed = (np.repeat(each, padded) for each in (self.ends[0], self.sizes, self.is_loop))
        ends = np.cumsum(padded)
        place = np.arange(ends[-1]) - np.repeat(ends - self.sizes - reach, padded)
        # beyond an end the segment goes on as its own point reflection, a loop as itself
        low, high = place < 0, place >= size
        folded = np.where(low, -place, np.where(high, 2 * (size - 1) - place, place)).clip(0, size - 1)
        folded = np.where(closed, place % np.maximum(size - 1, 1), folded)
        points = self.pixels[first + folded].astype(np.float64)
        end = np.where(low, first, first + size - 1)
        turned = (low | high) & ~closed
        points[turned] = 2 * self.pixels[end[turned]] - points[turned]
        return gaussian_filter1d(points, sigma, axis=0, mode="nearest")[~(low | high)]

    @cached_property
    def steps(self) -> np.ndarray:
        """Pixels along `line` from each point to the next of its segment; 0 for the last: float (points,)."""
        step = np.zeros(len(self.line))
        step[:-1] = np.hypot(*np.diff(self.line, axis=0).T)
        step[self.ends[1]] = 0
        return step

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum values (points,) over each segment: float (segments,)."""
        return np.add.reduceat(values, self.ends[0]) if len(self.sizes) else np.zeros(0)

    def lengths(self) -> np.ndarray:
        """Length of each segment in pixels, float (segments,)."""
        return self.sums(self.steps)


def trace(mask: np.ndarray) -> Tree:
    """Trace the centre lines of a vessel mask (H, W), non-zero is vessel.

    Spurs not longer than the vessel that they stick out of is wide are removed: thinning makes them from bumps
    of the border. A single pixel counts as a segment of length 0.
    """
    mask = np.pad((np.asarray(mask) > 0).astype(np.uint8), 1)
    radius = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    centre = thin(mask)
    tree = _trace(centre, radius)
    if tree.is_spur.any():
        at_branch = tree.branch_pixels[tuple(tree.pixels.T)]
        thickness = np.maximum.reduceat(np.where(at_branch, tree.radii, 0), tree.ends[0])
        short = tree.is_spur & (tree.lengths() <= 2 * thickness)
        if short.any():
            centre[1:-1, 1:-1][tuple(tree.pixels[np.repeat(short, tree.sizes) & ~at_branch].T)] = False
            tree = _trace(thin(centre), radius)  # what is left of a branch point may be two pixels wide
    return tree


def thin(mask: np.ndarray) -> np.ndarray:
    """Centre lines, one pixel wide, of a mask (H, W): bool (H, W).

    By the algorithm of Lee et al. 1994 (https://doi.org/10.1006/cgip.1994.1042). That of Zhang and Suen, which
    `metrics.skeleton` uses, is faster but erases some diagonals two pixels wide.
    """
    from skimage.morphology import skeletonize

    return skeletonize(np.asarray(mask) > 0, method="lee") > 0


def _trace(centre: np.ndarray, radius: np.ndarray) -> Tree:
    """Trace centre lines one pixel wide, bool (H + 2, W + 2): with an empty border around `radius` (H, W)."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components, depth_first_order, dijkstra

    rows, columns = np.nonzero(centre)
    total = len(rows)
    number = np.full(centre.shape, -1)
    number[rows, columns] = np.arange(total)
    pairs = _neighbours(centre, number)
    degree = np.bincount(pairs.ravel(), minlength=total)
    is_branch = degree > 2
    branch_pixels = np.zeros_like(centre)
    branch_pixels[rows, columns] = is_branch
    branch_points = cv2.connectedComponents(branch_pixels.astype(np.uint8), connectivity=8)[0] - 1

    def graph(keep: np.ndarray) -> Any:
        a, b = pairs[keep].T
        return csr_array((np.ones(2 * len(a)), (np.r_[a, b], np.r_[b, a])), (total, total))

    # without the branch pixels each component is one line or a loop
    touches = is_branch[pairs].sum(axis=1)
    along = graph(touches == 0)
    inner = np.diff(along.indptr)  # neighbours on the line: an end has fewer than two
    _, line = connected_components(along, directed=False)
    nodes = np.flatnonzero(~is_branch)
    nodes = nodes[np.lexsort((inner[nodes], line[nodes]))]
    starts = nodes[np.r_[True, np.diff(line[nodes]) > 0]] if len(nodes) else nodes
    # the distance from an end puts the pixels of a line in order
    place = dijkstra(along, directed=False, indices=starts, min_only=True) if len(starts) else np.zeros(total)
    nodes = nodes[np.lexsort((place[nodes], line[nodes]))]
    beside = graph(touches == 1)

    def branch(node: int) -> np.ndarray:
        return beside.indices[beside.indptr[node] : beside.indptr[node + 1]]

    whole, sizes, is_spur, is_loop = [], [], [], []
    for part in np.split(nodes, np.flatnonzero(np.diff(line[nodes])) + 1) if len(nodes) else []:
        before, after = branch(part[0])[:1], branch(part[-1])[len(part) == 1 :][:1]
        is_loop.append(len(part) > 3 and inner[part[0]] == 2)
        if is_loop[-1]:  # by distance from the start both sides would come in turn
            part = depth_first_order(along, part[0], directed=False, return_predecessors=False)
            after = part[:1]
        whole += [before, part, after]
        sizes.append(len(before) + len(part) + len(after))
        is_spur.append(not is_loop[-1] and len(before) + len(after) == 1)
    order = np.concatenate(whole) if whole else np.zeros(0, int)
    return Tree(
        np.column_stack([rows[order], columns[order]]) - 1,
        np.array(sizes, int),
        np.array(is_spur, bool),
        np.array(is_loop, bool),
        branch_points,
        int(np.count_nonzero(degree == 1)),
        branch_pixels[1:-1, 1:-1],
        radius,
    )


def _neighbours(centre: np.ndarray, number: np.ndarray) -> np.ndarray:
    """The pairs of neighbours among the numbered pixels, int (n, 2).

    A diagonal counts only where no pixel beside it makes the same step in two: else every bend would be a
    triangle, and look like a branch.
    """
    pairs = []
    for a, b, beside in (
        (np.s_[:, :-1], np.s_[:, 1:], ()),
        (np.s_[:-1, :], np.s_[1:, :], ()),
        (np.s_[:-1, :-1], np.s_[1:, 1:], (np.s_[:-1, 1:], np.s_[1:, :-1])),
        (np.s_[:-1, 1:], np.s_[1:, :-1], (np.s_[:-1, :-1], np.s_[1:, 1:])),
    ):
        both = centre[a] & centre[b]
        for other in beside:
            both &= ~centre[other]
        pairs.append(np.column_stack([number[a][both], number[b][both]]))
    return np.concatenate(pairs)
