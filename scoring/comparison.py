"""Compare segmentations of the same eyes: differences of F1, eye by eye."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scoring import metrics
from utils import UserError


@dataclass
class Difference:
    """The mean difference of F1 over the eyes, its 95 % interval and how surprising it would be by chance."""

    eyes: int
    mean: float
    low: float
    high: float
    better: int  # eyes with a higher F1
    worse: int
    p: float  # two-sided, NaN for a single eye

    def __str__(self) -> str:
        text = f"mean difference of F1 {self.mean:+.4f} over {self.eyes} eyes"
        if self.eyes > 1:
            text += f" (95 % interval {self.low:+.4f} to {self.high:+.4f}, paired bootstrap)"
        text += f", better in {self.better}, worse in {self.worse}"
        if not math.isnan(self.p):
            text += f"; Wilcoxon signed-rank p = {self.p:.2g}"
        return text


def difference(base: Sequence[float], other: Sequence[float]) -> Difference:
    """Compare the scores of the same eyes in the same order, at least one.

    The interval draws eyes with replacement, both scores of an eye together. The p-value is of the signed-rank
    test of Wilcoxon 1945 (https://doi.org/10.2307/3001968). It cannot be below 2 / 2**eyes.
    """
    from scipy.stats import wilcoxon

    # rounded as they are written: equal masks must not differ by a sum's last bit
    gains = np.round(np.subtract(other, base, dtype=np.float64), 8)
    low, high = metrics.bootstrap_interval(gains.tolist())
    p = float("nan")
    if len(gains) > 1:
        p = float(wilcoxon(gains).pvalue) if gains.any() else 1.0
    better, worse = int((gains > 0).sum()), int((gains < 0).sum())
    return Difference(len(gains), float(gains.mean()), low, high, better, worse, p)


def compare_scores(
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
) -> tuple[list[dict[str, Any]], dict[str, Difference]]:
    """Compare the first set of scores with each other one, on the eyes that all have.

    `rows` has, by a name of each set, a row for each eye with `image` and `f1`.

    Returns:
        A table: for each eye, and for their mean, F1 of each set and its difference from the first; and the
        difference of each other set from the first.

    Raises:
        UserError: no eye is in all sets.
    """
    f1 = {name: {row["image"]: float(row["f1"]) for row in own} for name, own in rows.items()}
    first, *others = f1
    eyes = [eye for eye in f1[first] if all(eye in own for own in f1.values())]
    if not eyes:
        raise UserError(f"no eye is in all of {', '.join(f1)}: nothing to compare")
    table: list[dict[str, Any]] = []
    for eye in eyes:
        each = {f"f1_{name}": own[eye] for name, own in f1.items()}
        each |= {f"difference_{name}": f1[name][eye] - f1[first][eye] for name in others}
        table.append({"image": eye, **each})
    mean = {c: float(np.mean([row[c] for row in table])) for c in table[0] if c != "image"}
    table.append({"image": "mean", **mean})
    columns = {name: [f1[name][eye] for eye in eyes] for name in f1}
    return table, {name: difference(columns[first], columns[name]) for name in others}


def describe_comparison(table: Sequence[Mapping[str, Any]], differences: Mapping[str, Difference]) -> list[str]:
    """What `compare_scores` returns as lines of text: F1 in aligned columns, then the differences."""
    header = ["F1", *(column.split("_", 1)[1] for column in table[0] if column.startswith("f1_"))]
    header += [f"{name} - {header[1]}" for name in differences]
    cells = [header]
    for row in table:
        each = [f"{v:+.4f}" if c.startswith("difference_") else f"{v:.4f}" for c, v in list(row.items())[1:]]
        cells.append([row["image"], *each])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    ]
    lines += [f"{name} - {header[1]}: {found}" for name, found in differences.items()]
    if len(differences) > 1:
        lines.append("Each p-value is of one comparison alone: among several, some are small by chance.")
    return lines
