"""Scores of a vessel segmentation as pure functions.

All pixel scores follow from one histogram: the number of vessel and background pixels, inside the mask of valid
pixels, at each of the 65,536 probability levels of a 16-bit image. It gives the confusion counts at any
threshold and the ROC and precision-recall curves without sorting. Histograms of several images add up to the
pooled one. Scores of the vessel tree and its thin branches are counted at one threshold (`count_tree`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

LEVELS = 65536
CHUNK = 1 << 20  # values that `quantize` converts at once
PIXEL_COLUMNS = ("jaccard", "f1", "recall", "precision", "specificity", "accuracy", "auc", "average_precision")
TREE_COLUMNS = ("cldice", "recall_2px", "recall_3px")
COLUMNS = PIXEL_COLUMNS + TREE_COLUMNS


def quantize(probability: np.ndarray) -> np.ndarray:
    """Convert probabilities in [0, 1], any shape, to the uint16 levels 0..65535 that are stored and scored."""
    flat = np.ravel(probability)
    levels = np.empty(flat.shape, np.uint16)
    for start in range(0, len(flat), CHUNK):  # a large photograph at once would take twice its memory again
        scaled = np.clip(flat[start : start + CHUNK], 0, 1) * (LEVELS - 1)
        levels[start : start + CHUNK] = np.rint(scaled, out=scaled)
    return levels.reshape(np.shape(probability))


def level_of(threshold: float) -> int:
    """The lowest level that counts as vessel at a threshold in [0, 1]: probability >= threshold."""
    return int(np.ceil(np.round(threshold * (LEVELS - 1), 6)))


def count_levels(levels: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Count the background and the vessel pixels of each level.

    Args:
        levels: uint16 (H, W), from `quantize`.
        truth: vessel mask (H, W), non-zero is vessel.
        valid: mask of the pixels that count (H, W), such as the field of view; non-zero counts.

    Returns:
        int64 (2, 65536): row 0 the background, row 1 the vessels.

    Raises:
        ValueError: the shapes differ.
    """
    if not levels.shape == truth.shape == valid.shape:
        raise ValueError(f"shapes differ: levels {levels.shape}, truth {truth.shape}, valid {valid.shape}")
    inside = valid > 0
    every = np.bincount(levels[inside], minlength=LEVELS)
    vessels = np.bincount(levels[inside & (truth > 0)], minlength=LEVELS)
    return np.stack([every - vessels, vessels])


def confusion(counts: np.ndarray, threshold: float) -> tuple[int, int, int, int]:
    """True positives, false positives, false negatives and true negatives (pixels) at a threshold in [0, 1]."""
    level = level_of(threshold)
    fp, tp = counts[:, level:].sum(axis=1)
    tn, fn = counts[:, :level].sum(axis=1)
    return int(tp), int(fp), int(fn), int(tn)


def ratio(part: int, whole: int, wrong: int) -> float:
    """part / whole; if `whole` is 0, 1 where nothing is `wrong` either, else 0."""
    return part / whole if whole else float(wrong == 0)


def scores(counts: np.ndarray, threshold: float) -> dict[str, float]:
    """Scores of pixels, of one image or of a pooled count.

    Args:
        counts: int64 (2, 65536), from `count_levels`.
        threshold: in [0, 1]; pixels of at least this probability are vessels.

    Returns:
        The values of `PIXEL_COLUMNS`, each in [0, 1]. Where a ratio has nothing to count (a truth or a
        prediction without vessels or without background) it is 1 if prediction and truth agree there, else 0.
        `auc` and `average_precision` are NaN where the truth has only one of the two classes: they are not
        defined.
    """
    tp, fp, fn, tn = confusion(counts, threshold)
    background, vessels = (int(n) for n in counts.sum(axis=1))
    return {
        "jaccard": ratio(tp, tp + fp + fn, 0),
        "f1": ratio(2 * tp, 2 * tp + fp + fn, 0),
        "recall": ratio(tp, vessels, fp),
        "precision": ratio(tp, tp + fp, fn),
        "specificity": ratio(tn, background, fn),
        "accuracy": ratio(tp + tn, background + vessels, 0),
        "auc": auc(counts),
        "average_precision": average_precision(counts),
    }


def mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each column over several images, ignoring NaN."""
    return {c: float(np.mean(values)) if values else float("nan") for c, values in numbers_of(rows).items()}


def spread(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The sample standard deviation of each column; NaN where fewer than two rows have a number."""
    return {c: float(np.std(v, ddof=1)) if len(v) > 1 else float("nan") for c, v in numbers_of(rows).items()}


def numbers_of(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """The numbers of each column, without NaN."""
    return {column: [row[column] for row in rows if not np.isnan(row[column])] for column in rows[0]}


def roc_curve(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rate, float64 (65537,) each, for thresholds from above 1 down to 0."""
    positives = np.concatenate([np.zeros((2, 1), np.int64), counts[:, ::-1].cumsum(axis=1)], axis=1)
    return positives[0] / positives[0, -1], positives[1] / positives[1, -1]


def auc(counts: np.ndarray) -> float:
    """Area under the ROC curve by the trapezoidal rule; equal levels count half, as in scikit-learn."""
    if not counts.sum(axis=1).all():
        return float("nan")
    false_rate, true_rate = roc_curve(counts)
    return float(np.sum(np.diff(false_rate) * (true_rate[1:] + true_rate[:-1])) / 2)


def average_precision(counts: np.ndarray) -> float:
    """Area under the precision-recall curve as a step function, without interpolation, as in scikit-learn."""
    if not counts.sum(axis=1).all():
        return float("nan")
    fp, tp = counts[:, ::-1].cumsum(axis=1)
    precision = tp / np.maximum(tp + fp, 1)
    return float(np.sum(np.diff(tp, prepend=0) * precision) / tp[-1])


def vessel_width(mask: np.ndarray, centre: np.ndarray | None = None) -> np.ndarray:
    """The width in pixels of the vessel at each vessel pixel: float32 (H, W), 0 in the background.

    The width is measured on the centre lines, from the distance to the nearest background, and passed on to the
    surrounding vessel pixels.

    Args:
        mask: vessel mask (H, W), non-zero is vessel.
        centre: its `skeleton`, if already known.
    """
    mask = (mask > 0).astype(np.uint8)
    if not mask.any():
        return np.zeros(mask.shape, np.float32)
    # at twice the size, the distance in the middle of a vessel equals its width, odd or even
    double = np.pad(mask.repeat(2, axis=0).repeat(2, axis=1), 1)
    distance = cv2.distanceTransform(double, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    width = distance.reshape(mask.shape[0], 2, mask.shape[1], 2).max(axis=(1, 3))
    centre = skeleton(mask) if centre is None else centre
    _, nearest = cv2.distanceTransformWithLabels(
        (~centre).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    width_of = np.zeros(nearest.max() + 1, np.float32)
    width_of[nearest[centre]] = width[centre]
    return width_of[nearest] * mask


def skeleton(mask: np.ndarray) -> np.ndarray:
    """Centre lines, one pixel wide, of a vessel mask (H, W): bool (H, W)."""
    from skimage.morphology import skeletonize

    return skeletonize(np.asarray(mask) > 0)


def count_tree(prediction: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Count the pixels from which the scores of the vessel tree and its thin branches follow.

    Prediction, truth and `valid`, the pixels that count, are masks (H, W); what is not 0 is in them.

    Returns:
        int64 (4, 2), correct pixels and all pixels: of the prediction's centre lines, of the truth's centre
        lines, and of the truth's vessels at most 2 and at most 3 pixels wide. Counts of several images add up.
    """
    inside = valid > 0
    found, vessel = (prediction > 0) & inside, (truth > 0) & inside
    centre = skeleton(vessel)
    width = vessel_width(vessel, centre)
    thin = [(vessel & (width <= most), found) for most in (2, 3)]
    parts = [(skeleton(found), vessel), (centre, found), *thin]
    return np.array([[np.count_nonzero(lines & other), np.count_nonzero(lines)] for lines, other in parts])


def tree_scores(counts: np.ndarray) -> dict[str, float]:
    """The values of `TREE_COLUMNS`, each in [0, 1], from the counts of `count_tree`.

    `cldice` is the harmonic mean of the shares of the prediction's centre lines that lie in true vessels and of
    the truth's that were found (Shit et al. 2021, https://arxiv.org/abs/2003.07311); `recall_2px` and
    `recall_3px` the recall of vessels at most 2 and at most 3 pixels wide. Where the truth has none of them
    they are NaN; cldice is 1 if nothing was predicted either, else 0.
    """
    (in_truth, predicted), (found, true), *thin = counts.tolist()
    precision, sensitivity = ratio(in_truth, predicted, true), ratio(found, true, predicted)
    total = precision + sensitivity
    recalls = [part / whole if whole else float("nan") for part, whole in thin]
    cldice = 2 * precision * sensitivity / total if total else 0.0
    return dict(zip(TREE_COLUMNS, (cldice, *recalls), strict=True))


def count_image(
    levels: np.ndarray, truth: np.ndarray, valid: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """What `count_levels` and `count_tree` return, from which `all_scores` follow at this threshold in [0, 1].

    Arguments and errors are those of `count_levels`.
    """
    tree = count_tree(levels >= level_of(threshold), truth, valid)
    return count_levels(levels, truth, valid), tree


def all_scores(counts: np.ndarray, tree: np.ndarray, threshold: float) -> dict[str, float]:
    """The columns of `COLUMNS`, from the counts of `count_image` at the same threshold."""
    return scores(counts, threshold) | tree_scores(tree)


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the mean score, by drawing images with replacement, always the same ones.

    `values` are a score of each image, at least one; ValueError if there is none.

    Returns:
        The 2.5th and the 97.5th percentile of the means of 2,000 draws.
    """
    if len(values) == 0:
        raise ValueError("no values to draw from")
    rng = np.random.default_rng(0)
    population = np.asarray(values, np.float64)
    # one sample at a time: all at once would need much memory
    means = [rng.choice(population, len(population)).mean() for _ in range(2000)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def best_threshold(counts: np.ndarray) -> tuple[float, float]:
    """The threshold with the highest F1 on these counts, and that F1.

    F1 is constant between two levels that occur. The middle of that range is taken, the value that other images
    are least likely to contradict.
    """
    fp, tp = counts[:, ::-1].cumsum(axis=1)
    f1 = (2 * tp / np.maximum(tp + fp + counts[1].sum(), 1))[::-1]  # f1[k]: at least level k is vessel
    best = int(f1.argmax())
    last = best + int(np.flatnonzero(f1[best:] == f1[best]).max())
    same = f1[best : last + 1] == f1[best]
    run = int(np.argmin(same)) if not same.all() else len(same)
    return (best + (run - 1) / 2) / (LEVELS - 1), float(f1[best])


def expected_f1_threshold(levels: np.ndarray, valid: np.ndarray) -> float:
    """The threshold with the highest expected F1 of one image, from its probabilities alone.

    If the probabilities are calibrated, taking the k most probable pixels as vessels has the expected F1
    2 * sum(top k) / (k + sum(all)) to first order (Ye et al. 2012; Lipton et al. 2014).

    Args:
        levels: uint16 (H, W), from `quantize`.
        valid: mask of the pixels that count (H, W); non-zero counts.
    """
    counts = np.bincount(levels[valid > 0], minlength=LEVELS)[::-1]
    k = counts.cumsum()
    mass = (counts * (np.arange(LEVELS)[::-1] / (LEVELS - 1))).cumsum()
    expected = 2 * mass / np.maximum(k + mass[-1], 1e-9)
    return 1 - int(expected.argmax()) / (LEVELS - 1)
