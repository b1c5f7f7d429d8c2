"""Arteries and veins: one kind for each segment of the centre lines, from the probabilities of pixels.

A network calls pixels of one vessel artery here and vein there. Along a segment its word counts together, and
segments that meet bear each other out: vessels that cross go straight on, and what branches is of one kind.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cv2
import numpy as np

from datasets.kinds import ARTERY, BOTH, UNCERTAIN, VEIN
from measures.calibre import beside_branches
from measures.skeleton import Tree
from measures.vessels import Vessels

CLIP = 0.02  # probabilities are taken for at least this far from 0 and 1
TOLD = 0.4  # log-odds from which a kind is told
ENOUGH = 3.0  # points of a segment from which its own pixels say half of what they can
BRIDGE = 2.5  # radii of the vessel: a segment not longer than this joins two branch points to one
STRAIGHT = 45.0  # degrees that a vessel turns at most where it goes straight on
ROUNDS = 10  # of passing evidence on
# chance that two segments that meet are of one kind
SAME_ALONG, SAME_BESIDE, SAME_ACROSS = 0.95, 0.7, 0.3


@dataclass
class Arms:
    """The ends of segments that meet in branch points; points that short bridges join are one."""

    segment: np.ndarray  # int (arms,)
    node: np.ndarray  # int (arms,), the point in which it ends
    near: np.ndarray  # int (arms,), the point of the tree from which it has left the other vessels
    far: np.ndarray  # int (arms,), the point to which its direction counts
    is_long: np.ndarray  # bool (arms,), whether the segment goes on so far
    heading: np.ndarray  # float (arms, 2), of unit length, from the point outward
    bridge: np.ndarray  # int (segments,), the point that a bridge is part of; -1 for other segments


def arms_of(tree: Tree, away: float = 1.0) -> Arms:
    """Where segments meet, and in which direction they leave.

    An arm begins to have a direction `away` from its branch point, in radii of the vessel there.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    at, count = tree.joints, int(tree.joints.max(initial=0)) + 1
    wide = np.zeros(count, np.float32)  # radius of the vessel at each branch point
    np.maximum.at(wide, at, tree.radii[tree.ends])
    is_bridge = (at > 0).all(axis=0) & (at[0] != at[1]) & (tree.lengths() <= BRIDGE * wide[at].max(axis=0))
    links = coo_array((np.ones(is_bridge.sum()), tuple(at[:, is_bridge])), (count, count))
    nodes, node = connected_components(links, directed=False)
    radius = np.zeros(nodes, np.float32)
    np.maximum.at(radius, node, wide)
    side, segment = np.nonzero((at > 0) & ~is_bridge)
    owner = node[at[side, segment]]
    near = np.ceil(away * radius[owner] + 1).astype(int)
    far = near + np.ceil(radius[owner]).astype(int) + 8
    is_long = far < tree.sizes[segment]
    far = np.minimum(far, tree.sizes[segment] - 1)
    near = np.minimum(near, far // 2)
    start, step = tree.ends[side, segment], np.where(side, -1, 1)
    heading = tree.line[start + step * far] - tree.line[start + step * near]
    heading /= np.maximum(np.hypot(*heading.T), 1e-9)[:, None]
    bridge = np.where(is_bridge, node[at[0]], -1)
    return Arms(segment, owner, start + step * near, start + step * far, is_long, heading, bridge)


def label_vessels(vessels: Vessels, mask: np.ndarray, artery: np.ndarray, vein: np.ndarray) -> np.ndarray:
    """Give each segment of the centre lines one kind, and each vessel pixel that of the nearest segment.

    Args:
        vessels: of the photograph, as of `prepare`.
        mask: the same at its own size, uint8 (H, W), 0 or 255.
        artery: probability of artery, uint8 (H, W), 255 is 1.
        vein: probability of vein, the same; the two need not sum to 1.

    Returns:
        uint8 (H, W): NONE, ARTERY, VEIN, BOTH at a crossing, UNCERTAIN.
    """
    if vessels.shrink < 1:
        size = vessels.fov.shape[::-1]
        artery, vein = (cv2.resize(kind, size, interpolation=cv2.INTER_AREA) for kind in (artery, vein))
    artery, vein = (kind / np.float32(255) for kind in (artery, vein))
    tree = vessels.tree
    arms = arms_of(tree)
    first, second, same, through = links_of(arms)
    odds = pass_on(evidence(tree, artery, vein), arms.segment[first], arms.segment[second], same)
    kinds = np.select([odds >= TOLD, odds <= -TOLD], [VEIN, ARTERY], UNCERTAIN).astype(np.uint8)
    for bridge in np.flatnonzero(arms.bridge >= 0):
        around = set(kinds[arms.segment[arms.node == arms.bridge[bridge]]].tolist())
        kinds[bridge] = around.pop() if len(around) == 1 else BOTH if {ARTERY, VEIN} <= around else UNCERTAIN
    plane = paint(tree, kinds, arms, first[through], second[through])
    if vessels.shrink < 1:
        plane = cv2.resize(plane, mask.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return cv2.copyTo(plane, mask)  # elsewhere NONE


def evidence(tree: Tree, artery: np.ndarray, vein: np.ndarray) -> np.ndarray:
    """Log-odds of vein against artery of each segment by its own pixels, float (segments,).

    The mean over its points; short segments, and those that have hardly left the point where vessels meet, say
    less than others.
    """
    at = tuple(tree.pixels.T)
    a, v = (np.clip(cv2.blur(np.float32(p), (3, 3))[at], CLIP, 1 - CLIP) for p in (artery, vein))
    odds = np.log(v / (1 - v)) - np.log(a / (1 - a))
    # in a crossing both kinds are right
    weight = np.where(beside_branches(tree), 1.0, 0.05)
    total = tree.sums(weight)
    return tree.sums(odds * weight) / np.maximum(total, 1e-9) * total / (total + ENOUGH)


def links_of(arms: Arms) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Which arms bear each other out.

    Returns:
        The arms of each pair, int (pairs,) twice; the chance that they are of one kind, float (pairs,); and
        whether one goes straight on as the other, bool (pairs,).
    """
    found: list[tuple[int, int, float, bool]] = []
    order = np.argsort(arms.node, kind="stable")
    straight = -np.cos(np.radians(180 - STRAIGHT))
    for group in np.split(order, np.flatnonzero(np.diff(arms.node[order])) + 1):
        onward = -arms.heading[group] @ arms.heading[group].T
        pairs = sorted(itertools.combinations(range(len(group)), 2), key=lambda pair: -onward[pair])
        free, along = set(range(len(group))), []
        for pair in pairs:  # the straightest first
            if free.issuperset(pair) and onward[pair] >= straight:
                free -= set(pair)
                along.append(pair)
        is_crossing = len(group) == 4 and len(along) == 2
        for pair in pairs:
            chance = SAME_ALONG if pair in along else SAME_ACROSS if is_crossing else SAME_BESIDE
            if len(group) <= 4 or pair in along:
                found.append((*group[list(pair)].tolist(), chance, pair in along))
    first, second, same, through = np.array(found).reshape(-1, 4).T
    return first.astype(int), second.astype(int), same, through > 0


def pass_on(own: np.ndarray, first: np.ndarray, second: np.ndarray, same: np.ndarray) -> np.ndarray:
    """Log-odds of each segment by its own pixels and by what the others say: float (segments,).

    Belief propagation (Pearl 1988) between segments `first` and `second`, int (pairs,), that are of one kind
    with the chance `same`, float (pairs,).
    """
    sender, receiver = np.r_[first, second], np.r_[second, first]
    pairs = len(first)
    trust = np.r_[same, same] * 2 - 1
    said = np.zeros(2 * pairs)
    odds = own
    for _ in range(ROUNDS):
        heard = np.r_[said[pairs:], said[:pairs]]  # what a sender has from its receiver is not said again
        said = (said + 2 * np.arctanh(trust * np.tanh((odds[sender] - heard) / 2))) / 2
        odds = own + np.bincount(receiver, said, len(own))
    return odds


def paint(tree: Tree, kinds: np.ndarray, arms: Arms, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The kind of each pixel, vessel or not, uint8 (H, W): that of the nearest segment, in a crossing of both.

    `kinds` are those of the segments, uint8 (segments,); the arms `first` go straight on as those of `second`,
    int (pairs,) each.
    """
    if not len(kinds):
        return np.full(tree.radius.shape, UNCERTAIN, np.uint8)
    centre = np.full(tree.radius.shape, 255, np.uint8)
    rows, columns = tree.pixels.T
    centre[rows, columns] = 0
    how = (cv2.DIST_L2, cv2.DIST_MASK_5)
    _, nearest = cv2.distanceTransformWithLabels(centre, *how, labelType=cv2.DIST_LABEL_PIXEL)
    kind_of = np.zeros(int(nearest.max()) + 1, np.uint8)
    kind_of[nearest[rows, columns]] = np.repeat(kinds, tree.sizes)
    pixels = kind_of[nearest]
    tubes = {kind: np.zeros_like(centre) for kind in (ARTERY, VEIN)}
    mixed = np.intersect1d(*(arms.node[kinds[arms.segment] == kind] for kind in (ARTERY, VEIN)))
    for i, j in zip(first, second, strict=True):
        pair = set(kinds[arms.segment[[i, j]]].tolist()) - {UNCERTAIN}
        if len(pair) == 1 and arms.node[i] in mixed:
            ends = np.rint(tree.line[arms.near[[i, j]]]).astype(int)
            width = round(float(2 * tree.radius[tuple(ends.T)].mean() - 1))
            cv2.line(tubes[pair.pop()], ends[0, ::-1].tolist(), ends[1, ::-1].tolist(), 1, max(1, width))
    crossing = np.uint8(ARTERY) * tubes[ARTERY] + np.uint8(VEIN) * tubes[VEIN]
    return np.where(crossing > 0, crossing, pixels)
