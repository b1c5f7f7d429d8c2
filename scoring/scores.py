"""The rows of metrics.csv: the scores of every image, of all together, and of the second observer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from datasets.eyes import Eye
from scoring import metrics
from system.threads import threads

# of a mask, which is no probability: there is no curve and no area under it
NO_CURVE = {"auc": float("nan"), "average_precision": float("nan")}


def score(
    eyes: Sequence[Eye], levels: Sequence[np.ndarray], threshold: float, whole: bool
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Score every image, their mean, all pixels pooled, and the second observer if there is one.

    Returns:
        A row each: `image` and the columns of `metrics.COLUMNS`; and the pooled counts, int64 (2, 65536).
    """

    def count(levels: np.ndarray, eye: Eye, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        valid = np.full_like(eye.fov, 255) if whole else eye.fov
        return metrics.count_image(levels, eye.truth, valid, threshold)

    with threads() as pool:  # centre lines take 0.2 s an eye
        counts = list(pool.map(count, levels, eyes, [threshold] * len(eyes)))
    each = [metrics.all_scores(*c, threshold) for c in counts]
    rows: list[dict[str, Any]] = [
        {"image": eye.result_name, **row} for eye, row in zip(eyes, each, strict=True)
    ]
    pooled, tree = (np.sum(part, axis=0) for part in zip(*counts, strict=True))
    together = metrics.all_scores(pooled, tree, threshold)
    rows += [{"image": "mean", **metrics.mean(each)}, {"image": "pooled", **together}]
    observed = [(eye, metrics.quantize(eye.second / np.float32(255))) for eye in eyes if eye.second is not None]
    if observed:
        human = [metrics.all_scores(*count(levels, eye, 0.5), 0.5) for eye, levels in observed]
        rows.append({"image": "second_observer", **metrics.mean(human), **NO_CURVE})
    return rows, pooled


def sentence(row: dict[str, Any]) -> str:
    """The scores of one row in one line."""
    names = {"Jaccard": "jaccard", "F1": "f1", "Recall": "recall", "Precision": "precision", "Acc": "accuracy"}
    names |= {} if np.isnan(row["auc"]) else {"AUC": "auc"}
    return " - ".join(f"{name}: {row[column]:.4f}" for name, column in names.items())
