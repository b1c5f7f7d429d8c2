"""Where vessels branch: the angle between the branches, and how wide they are together."""

from __future__ import annotations

import numpy as np

from measures.segments import Arms, arms_of
from measures.vessels import Vessels
from measures.zones import OpticDisc

AWAY = 3.0  # radii of the vessel: nearer to the branch point the mask is still of one piece
DETOUR = 5.0  # pixels along the vessels that are as good as one that leaps over a gap in them


def branchings(vessels: Vessels, disc: OpticDisc | None = None) -> np.ndarray:
    """Angle and coefficient of each branching with three vessels, float (branchings, 2).

    The trunk is the vessel on the shortest way along the vessels from the disc, without a disc the widest; the
    others are the branches. The angle is that between the branches, in degrees. The coefficient is the sum of
    their squared widths over the squared width of the trunk (Zamir et al. 1979,
    https://doi.org/10.1085/jgp.74.4.537). Directions and widths are taken from where the vessels have parted.
    Branchings with a segment too short for that, or without width, are left out.
    """
    width = vessels.widths[0]
    arms = arms_of(vessels.tree, AWAY)
    if not len(arms.node):
        return np.zeros((0, 2))
    way = _ways(vessels, arms, disc) if disc else None
    found = []
    order = np.argsort(arms.node, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(arms.node[order])) + 1):
        if len(group) != 3 or not arms.is_long[group].all():
            continue
        each = [width[slice(*sorted((arms.near[arm], arms.far[arm])))] for arm in group]
        if not all(np.isfinite(own).any() for own in each):
            continue
        across = np.array([np.nanmedian(own) for own in each])
        trunk = int(across.argmax() if way is None else way[group].argmin())
        one, other = (k for k in range(3) if k != trunk)
        cosine = arms.heading[group[one]] @ arms.heading[group[other]]
        angle = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
        found.append((angle, (across[one] ** 2 + across[other] ** 2) / across[trunk] ** 2))
    return np.array(found).reshape(-1, 2)


def _ways(vessels: Vessels, arms: Arms, disc: OpticDisc) -> np.ndarray:
    """Length of the shortest way from the disc into a branch point through each of its arms: float (arms,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import dijkstra

    tree = vessels.tree
    number, lengths = len(tree.sizes), tree.lengths()
    nodes = int(arms.node.max(initial=-1)) + 1
    ends = nodes + np.arange(2 * number).reshape(2, number)  # an end of no branch point is a node of its own
    side = (np.abs(arms.near[None] - tree.ends[:, arms.segment])).argmin(axis=0)
    ends[side, arms.segment] = arms.node
    ends[:, arms.bridge >= 0] = arms.bridge[arms.bridge >= 0]
    start = nodes + 2 * number
    # there is a way to every end, however the vessels are broken, and as far as the margin of zone B it is free
    leap = DETOUR * disc.diameter * np.maximum(disc.distance(tree.line[tree.ends.ravel()]) - 1, 0)
    rows = np.r_[ends[0], np.full(2 * number, start)]
    columns = np.r_[ends[1], ends.ravel()]
    # one that comes twice counts with its shorter way
    weights = np.r_[lengths, leap] + 1e-6
    best = np.lexsort((weights, columns, rows))
    first = np.r_[True, (np.diff(rows[best]) != 0) | (np.diff(columns[best]) != 0)]
    keep = best[first]
    graph = coo_array((weights[keep], (rows[keep], columns[keep])), (start + 1, start + 1))
    distance = dijkstra(graph.tocsr(), directed=False, indices=start)
    return distance[ends[1 - side, arms.segment]] + lengths[arms.segment]
