"""How well two measures of the same eyes agree, as Markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Rows = list[dict[str, Any]]
FEWEST = 4  # eyes from which an agreement is told


def icc(first: np.ndarray, second: np.ndarray) -> float:
    """ICC(2,1): absolute agreement of single ratings (Shrout and Fleiss 1979)."""
    table = np.column_stack([first, second])
    (n, k), grand = table.shape, table.mean()
    rows = k * np.sum((table.mean(axis=1) - grand) ** 2) / (n - 1)
    columns = n * np.sum((table.mean(axis=0) - grand) ** 2) / (k - 1)
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + grand
    error = np.sum(rest**2) / ((n - 1) * (k - 1))
    return float((rows - error) / (rows + (k - 1) * error + k * (columns - error) / n))


def interval(score: Callable[..., float], *columns: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval over the eyes."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(1000):
        pick = rng.integers(0, len(columns[0]), len(columns[0]))
        drawn.append(score(*(column[pick] for column in columns)))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(low), float(high)


AGREEMENT = (
    "| measure | first, mean ± SD | bias (95 %) | limits of agreement | ICC(2,1) (95 %) |"
    "\n|---|---|---|---|---|"
)


def show_icc(found: list[float]) -> str:
    return "{:.2f} ({:.2f} to {:.2f})".format(*found[:3])


def print_agreement(title: str, truth: Rows, other: Rows, names: Iterable[str]) -> dict[str, list[float]]:
    """Bias, limits of agreement (Bland and Altman 1986) and ICC(2,1) of these measures.

    Returns:
        ICC, its interval, and correlation of each measure that at least `FEWEST` eyes have in both.
    """
    print(f"\n{title}, {len(truth)} eyes\n\n{AGREEMENT}")
    found = {}
    for name in names:
        pairs = np.array([(a[name], b[name]) for a, b in zip(truth, other, strict=True)], float)
        pairs = pairs[np.isfinite(pairs).all(axis=1)]
        shown = f"`{name}`" + (f", {len(pairs)} eyes" if len(pairs) < len(truth) else "")
        if len(pairs) < FEWEST:
            print(f"| {shown} | | | | |")
            continue
        first, second = pairs.T
        gap = second - first
        half = 1.96 * gap.std(ddof=1)
        low, high = interval(lambda g: float(g.mean()), gap)
        correlation = float(np.corrcoef(first, second)[0, 1])
        found[name] = [icc(first, second), *interval(icc, first, second), correlation]
        digits = 4 if first.mean() < 3 else 2 if first.mean() < 50 else 0
        show = [f"{value:.{digits}f}" for value in (first.mean(), first.std(ddof=1), gap.mean(), low, high)]
        limits = f"{gap.mean() - half:.{digits}f} to {gap.mean() + half:.{digits}f}"
        cells = f"{show[0]} ± {show[1]}", f"{show[2]} ({show[3]} to {show[4]})", limits, show_icc(found[name])
        print(f"| {shown} | {' | '.join(cells)} |")
    return found


def print_verdicts(found: dict[str, dict[str, list[float]]]) -> None:
    """ICC and correlation of every measure in each comparison, and what their lowest say."""
    print(f"\n| measure | {' | '.join(found)} | trust |\n|---{'|---' * len(found)}|---|")
    own = [title for title in found if "observer" not in title]
    for name in [name for name in next(iter(found.values())) if all(name in each for each in found.values())]:
        value = min(found[title][name][0] for title in own)
        order = round(min(found[title][name][3] for title in own), 2)
        word = "values" if value >= 0.75 else "differences" if order >= 0.6 else "with care"
        word = "no" if word == "with care" and not order >= 0.4 else word  # NaN: all eyes have one value
        figures = " | ".join(f"{show_icc(each[name])}; {each[name][3]:.2f}" for each in found.values())
        print(f"| `{name}` | {figures} | {word} |")
