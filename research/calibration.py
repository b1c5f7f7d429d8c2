"""How far probabilities are from the share of vessels, and where the wrong pixels lie, as Markdown tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from scoring import metrics

Pixels = tuple[np.ndarray, np.ndarray]


def pixels_of(eye: dict[str, Any]) -> Pixels:
    """Levels and truth in the field of view, at most 400,000 pixels evenly taken."""
    inside = np.flatnonzero(eye["fov"])
    inside = inside[:: max(1, len(inside) // 400_000)]
    return eye["levels"].ravel()[inside], eye["mask"].ravel()[inside] > 0


def calibrate(levels: np.ndarray, line: tuple[float, float]) -> np.ndarray:
    """Probabilities whose logits have this slope and shift (Platt 1999), float32, of levels, uint16."""
    share = np.clip(np.arange(metrics.LEVELS) / (metrics.LEVELS - 1), 1e-5, 1 - 1e-5)
    return (1 / (1 + np.exp(-(line[0] * np.log(share / (1 - share)) + line[1])))).astype(np.float32)[levels]


def calibration_error(probability: np.ndarray, truth: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: |mean probability - share of vessels|, weighted mean over equal bins."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    gap = np.abs(np.bincount(place, probability, bins) - np.bincount(place, truth, bins))
    return float(gap.sum() / len(place))


def fit(eyes: list[Pixels]) -> tuple[float, float]:
    """Slope and shift of the logits that make the truth most likely (Platt 1999)."""
    from sklearn.linear_model import LogisticRegression

    levels, truth = (np.concatenate(part)[::20] for part in zip(*eyes, strict=True))
    share = np.clip(levels / 65535, 1e-5, 1 - 1e-5)
    line = LogisticRegression(C=1e6).fit(np.log(share / (1 - share))[:, None], truth)
    return float(line.coef_[0, 0]), float(line.intercept_[0])


def print_uncertainty(groups: dict[str, list[Pixels]], threshold_of: dict[str, float]) -> None:
    """Wrong pixels among the most uncertain; calibration error as it is, fitted on the others, on itself."""
    print(
        "\n| data set | wrong among 12 % | among 25 % | calibration error | fitted on the others | on itself |"
        "\n|---|---|---|---|---|---|"
    )
    lines = []
    for name, eyes in groups.items():
        shares = []
        for levels, truth in eyes:
            wrong = (levels >= metrics.level_of(threshold_of[name])) != truth
            order = np.argsort(np.abs(levels.astype(np.int32) - 32768), kind="stable")
            found = np.cumsum(wrong[order]) / max(1, wrong.sum())
            shares.append([found[int(part * len(order)) - 1] for part in (0.12, 0.25)])
        few, more = np.mean(shares, axis=0)
        levels, truth = (np.concatenate(part) for part in zip(*eyes, strict=True))
        others = [eye for other, some in groups.items() if other != name for eye in some]
        line, own = fit(others) if others else (1.0, 0.0), fit(eyes)
        errors = [
            calibration_error(calibrate(levels, constants).astype(np.float64), truth)
            for constants in ((1.0, 0.0), line, own)
        ]
        print(
            f"| {name}, {len(eyes)} eyes | {few:.1%} | {more:.1%} | {errors[0]:.4f} | {errors[1]:.4f} "
            f"({line[0]:.2f}, {line[1]:.2f}) | {errors[2]:.4f} ({own[0]:.2f}, {own[1]:.2f}) |"
        )
        place = np.minimum(levels.astype(np.int64) * 10 // 65535, 9)
        curve = [f"{truth[place == k].mean():.2f}" for k in range(10)]
        lines.append(f"| {name} | {' | '.join(curve)} |")
    heads = " | ".join(f"{k / 10:.1f} to {(k + 1) / 10:.1f}" for k in range(10))
    print(f"\nShare of vessels by probability\n\n| | {heads} |\n|---{'|---' * 10}|", *lines, sep="\n")
