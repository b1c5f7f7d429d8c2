"""Central retinal equivalents: one calibre for the six largest arteries or veins around the disc."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LARGEST_SIX = 6
BRANCHING = {"artery": 0.88, "vein": 0.95}  # width of a trunk, by the root of the squares of its two branches


def equivalent(widths: Sequence[float], constant: float) -> float:
    """The calibre of the trunk that vessels of these widths would come from.

    The widest is paired with the narrowest, the next with the next, and an odd one waits for the next round,
    until one is left (Knudtson et al. 2003, https://doi.org/10.1076/ceyr.27.3.143.16049).

    Args:
        widths: of the vessels, at least one, in any unit; the result has the same.
        constant: of `BRANCHING`.
    """
    left = sorted(widths)
    while len(left) > 1:
        half = len(left) // 2
        pairs = zip(left[:half], left[::-1], strict=False)
        odd = left[half : half + len(left) % 2]
        left = sorted([*(constant * float(np.hypot(*pair)) for pair in pairs), *odd])
    return left[0]
