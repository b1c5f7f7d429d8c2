"""Scores of arteries and veins as pure functions, and their table.

Why published figures of the same picture differ by .2 is told in docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from datasets.eyes import Eye
from datasets.kinds import ARTERY, NONE, UNCERTAIN, VEIN, split_kinds
from scoring.metrics import mean, ratio, skeleton
from system.files import write_csv
from system.threads import threads


def count_kinds(artery: np.ndarray, vein: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Count the pixels from which the scores of arteries and veins follow.

    Args:
        artery: bool (H, W), what was called artery; a crossing is both.
        vein: bool (H, W), what was called vein.
        truth: uint8 (H, W), see `datasets.kinds`.
        valid: mask of the pixels that count (H, W), such as the field of view; non-zero counts. Vessels of
            uncertain kind do not.

    Returns:
        int64 (5, 3). Two rows of arteries and of veins: called so rightly, called so, truly so. Three of pixels
        that are one kind in the truth (arteries, veins, and all of these on the truth's centre lines): called
        that kind alone, called one kind alone, all. Counts of several images add up.

    Raises:
        ValueError: the shapes differ.
    """
    if not artery.shape == vein.shape == truth.shape == valid.shape:
        raise ValueError(f"shapes differ: {artery.shape}, {vein.shape}, {truth.shape}, {valid.shape}")
    inside = (valid > 0) & (truth != UNCERTAIN)
    artery, vein = artery & inside, vein & inside
    one = artery ^ vein
    whole = [(a & b, a, b & inside) for a, b in zip((artery, vein), split_kinds(truth), strict=True)]
    arteries, veins = inside & (truth == ARTERY), inside & (truth == VEIN)
    right = one & (artery & arteries | vein & veins)
    # centre lines of all vessels, since those of one kind would end before each crossing
    lines = skeleton(truth != NONE) & (arteries | veins)
    parts = [(right & part, one & part, part) for part in (arteries, veins, lines)]
    return np.array([[np.count_nonzero(pixels) for pixels in row] for row in (*whole, *parts)])


def kinds_scores(counts: np.ndarray) -> dict[str, float]:
    """Scores of arteries and veins, each in [0, 1], from the counts of `count_kinds`.

    `f1_artery`, `f1_vein` and their mean are of all pixels. The others are of pixels that are one kind in the
    truth: `found` is the share that was called one kind, `accuracy` the share of those that was called the
    right one, and `balanced_accuracy` its mean over both kinds. `decided` and `centre_accuracy` are `found` and
    `accuracy` on the centre lines of the truth alone. A ratio with nothing to count is 0, or 1 where the truth
    has nothing either.
    """
    artery, vein, of_arteries, of_veins, centre = counts.tolist()
    f1 = [ratio(2 * right, called + true, 0) for right, called, true in (artery, vein)]
    (right, called, true), one = np.add(of_arteries, of_veins).tolist(), (of_arteries, of_veins)
    return {
        "f1_artery": f1[0],
        "f1_vein": f1[1],
        "f1_mean": sum(f1) / 2,
        "accuracy": ratio(right, called, true),
        "balanced_accuracy": sum(ratio(*row) for row in one) / 2,
        "found": ratio(called, true, 0),
        "centre_accuracy": ratio(*centre),
        "decided": ratio(centre[1], centre[2], 0),
    }


def count_eyes(eyes: Sequence[Eye], found: Mapping[str, np.ndarray], whole: bool) -> dict[str, np.ndarray]:
    """Count those eyes that have labels and of which a map is `found`, by the name of their results.

    `found` has maps as of `datasets.kinds` by the name of the eye; `whole` counts all pixels of the image.
    """

    def count(eye: Eye) -> np.ndarray:
        assert eye.kinds is not None
        valid = np.full_like(eye.fov, 255) if whole else eye.fov
        return count_kinds(*split_kinds(found[eye.name]), eye.kinds, valid)

    labelled = [eye for eye in eyes if eye.kinds is not None and eye.name in found]
    with threads() as pool:  # centre lines take 0.2 s an eye
        return {eye.result_name: own for eye, own in zip(labelled, pool.map(count, labelled), strict=True)}


def write_kinds_scores(path: Path, counts: Mapping[str, np.ndarray]) -> str:
    """Write arteries_veins.csv: each image, their mean, and all pixels pooled.

    `counts` are those of `count_kinds` by the name of the image, at least one.

    Returns:
        The mean scores in words.
    """
    rows = {name: kinds_scores(own) for name, own in counts.items()}
    whole = {"mean": mean([*rows.values()]), "pooled": kinds_scores(np.sum([*counts.values()], axis=0))}
    write_csv(path, [{"image": name, **row} for name, row in (rows | whole).items()])
    columns = {"F1 of arteries": "f1_artery", "of veins": "f1_vein", "mean": "f1_mean", "accuracy": "accuracy"}
    columns |= {"balanced": "balanced_accuracy", "found": "found"}
    columns |= {"accuracy on centre lines": "centre_accuracy", "decided": "decided"}
    said = " - ".join(f"{name}: {whole['mean'][column]:.4f}" for name, column in columns.items())
    return f"arteries and veins, mean over {len(counts)} images ({path}):\n{said}"
