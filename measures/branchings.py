"""Where vessels branch: the angle between the branches, and how wide they are together."""

from __future__ import annotations

import itertools

import numpy as np

from measures.segments import arms_of
from measures.vessels import Vessels

AWAY = 3.0  # radii of the vessel: nearer to the branch point the mask is still of one piece


def branchings(vessels: Vessels) -> np.ndarray:
    """Angle and coefficient of each branching with three vessels, float (branchings, 2).

    The branches are the two vessels that enclose the smallest angle, which is given in degrees; the third is
    the trunk. The coefficient is the sum of the squared widths of the branches over the squared width of the trunk
    (Zamir et al. 1979, https://doi.org/10.1085/jgp.74.4.537). Directions and widths are taken from where the vessels have parted.
    Branchings with a segment too short for that, or without width, are left out.
    """
    tree = vessels.tree
    width = vessels.widths[0]
    arms = arms_of(tree, AWAY)
    found = []
    order = np.argsort(arms.node, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(arms.node[order])) + 1):
        if len(group) != 3 or not arms.is_long[group].all():
            continue
        heading = arms.heading[group]
        angle = np.degrees(np.arccos(np.clip(heading @ heading.T, -1, 1)))
        one, other = min(itertools.combinations(range(3), 2), key=lambda pair: angle[pair])
        across = [_median(width[slice(*sorted((arms.near[arm], arms.far[arm])))]) for arm in group]
        trunk = across[3 - one - other]
        coefficient = (across[one] ** 2 + across[other] ** 2) / trunk**2
        if np.isfinite(coefficient):
            found.append((angle[one, other], coefficient))
    return np.array(found).reshape(-1, 2)


def _median(values: np.ndarray) -> float:
    good = values[np.isfinite(values)]
    return float(np.median(good)) if len(good) else float("nan")
