"""The tables of eyes that were held out: scored at a threshold that the other groups give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data import doubt_size, eye_of, read_info
from datasets.eyes import Eye
from datasets.images import read_levels
from networks.checkpoints import VESSELS, load_checkpoint
from scoring import metrics
from system.files import write_csv
from training.earlier import list_own
from training.settings import Run
from training.thresholds import THRESHOLDS, f1_at, f1_curve, threshold_of_best


@dataclass(frozen=True)
class Group:
    """Eyes that one training leaves out."""

    title: str  # "fold 0", "without STARE"
    folder: str  # of the training, inside FILES
    held_out: Sequence[str]  # names of all their copies

    @property
    def eyes(self) -> list[str]:
        """The names of the eyes, each once."""
        return list(dict.fromkeys(map(eye_of, self.held_out)))


@dataclass(frozen=True)
class Scored:
    """A group whose eyes are scored."""

    scores: dict[str, dict[str, float]]  # by eye: `threshold` and `metrics.COLUMNS`
    threshold: float  # from the other groups
    counts: np.ndarray  # of all its pixels, from `metrics.count_levels`
    curve: np.ndarray  # mean F1 of its eyes at each of `THRESHOLDS`
    expected: float  # the threshold of the highest expected F1, mean over its eyes
    checkpoint: dict[str, Any]  # last.pth where it is, else checkpoint.pth


def probability_of(folder: Path, name: str, output: str = VESSELS[0]) -> Path:
    """The file of an eye's probability of what a network finds, 16 bits; `name` may be that of a copy."""
    return folder / "probability" / f"{eye_of(name)}{'' if output in VESSELS else f'_{output}'}.png"


def score_groups(
    files: Path,
    groups: Sequence[Group],
    read: Callable[[Sequence[str]], Iterable[Eye]],
    labelled: bool,
    outputs: Sequence[str] = VESSELS,
) -> list[Scored]:
    """Score the eyes of each group at the threshold that the other groups give, each unseen by its network.

    The networks of the others did train on these eyes, but only this one number depends on them.

    Args:
        files: has the folders of the groups, with their probability/.
        groups: all of them.
        read: the eyes of these copies, one by one.
        labelled: take the best threshold of all pixels of the others together. Else the mean over the others of
            what has the highest expected F1 in each image: that takes no label, so it does not carry the habits
            of their observers to this group's, as the best one does (docs/results.md).
        outputs: what the networks find; the scores of an eye are their mean.
    """

    def predictions(group: Group) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
        """The name of an eye, probability levels, truth, and where that is known."""
        for eye in read(group.held_out):
            for output in outputs:
                yield (
                    eye_of(eye.name),
                    read_levels(probability_of(files / group.folder, eye.name, output)),
                    *eye.target(output),
                )

    counts, curves, expected = [], [], []
    for group in groups:
        pairs = [
            (metrics.count_levels(levels, truth, known), metrics.expected_f1_threshold(levels, known))
            for _, levels, truth, known in predictions(group)
        ]
        counts.append(np.sum([of_eye for of_eye, _ in pairs], axis=0))
        curves.append(np.mean([f1_curve(of_eye) for of_eye, _ in pairs], axis=0))
        expected.append(float(np.mean([blind for _, blind in pairs])))
    scored = []
    for k, group in enumerate(groups):
        others = [j for j in range(len(groups)) if j != k]
        if labelled:
            threshold, _ = metrics.best_threshold(np.sum([counts[j] for j in others], axis=0))
        else:
            threshold = round(float(np.mean([expected[j] for j in others])), 2)
        rows: dict[str, list[dict[str, float]]] = {}
        for name, levels, truth, known in predictions(group):
            own = metrics.count_image(levels, truth, known, threshold)
            rows.setdefault(name, []).append(metrics.all_scores(*own, threshold))
        scores = {name: {"threshold": threshold} | metrics.mean(own) for name, own in rows.items()}
        folder = files / group.folder
        path = folder / ("last.pth" if labelled else "checkpoint.pth")
        _, content = load_checkpoint(path, outputs=outputs)
        scored.append(Scored(scores, threshold, counts[k], curves[k], expected[k], content))
    return scored


def write_folds(run: Run, folds: Sequence[Scored], names: Sequence[str]) -> tuple[float, dict[str, float]]:
    """Write folds.csv, a row for each eye and the summary rows, and print the result.

    `folds` come from `score_groups`; `names` are those of all copies, in order.

    Returns:
        The best threshold of all eyes pooled, and the mean scores.
    """
    table = {
        eye: {"eye": eye, "fold": k, **row, "minutes": fold.checkpoint["history"][-1]["seconds"] / 60}
        for k, fold in enumerate(folds)
        for eye, row in fold.scores.items()
    }
    of_eyes = [row for fold in folds for row in fold.scores.values()]
    of_folds = [metrics.mean(list(fold.scores.values())) for fold in folds]
    mean, eye_spread, fold_spread = metrics.mean(of_eyes), metrics.spread(of_eyes), metrics.spread(of_folds)
    summary = {"mean": mean, "std_of_eyes": eye_spread, "std_of_folds": fold_spread}
    rows = [table[eye] for eye in dict.fromkeys(map(eye_of, names))]
    path = run.files / "folds.csv"
    list_own(run.files, ["folds.csv"])
    write_csv(path, [*rows, *({"eye": name, **scores} for name, scores in summary.items())])
    print(f"{path}: {len(table)} eyes, each scored by a network that was trained without it")
    print(
        f"mean over the eyes, in the field of view: Jaccard {mean['jaccard']:.4f}  F1 {mean['f1']:.4f}  "
        f"AUC {mean['auc']:.4f}; standard deviation of F1: {eye_spread['f1']:.4f} between the eyes, "
        f"{fold_spread['f1']:.4f} between the means of the folds"
    )
    pooled, _ = metrics.best_threshold(np.sum([fold.counts for fold in folds], axis=0))
    print(f"the best threshold for all of them together: {pooled:.4f}")
    if squashed := doubt_size(run.data):
        print(squashed)
    if rescaled := read_info(run.data).get("rescaled"):
        print(f"Scores of resized truth ({', '.join(rescaled)}): not comparable with published ones.")
    return pooled, mean


def write_data_sets(run: Run, scored: Sequence[Scored], groups: Sequence[Group]) -> None:
    """Write scores.csv of each data set, thresholds.csv and leave_one_out.csv, and print the result."""
    sets = {group.title.removeprefix("without "): own for group, own in zip(groups, scored, strict=True)}
    rows = []
    for name, own in sets.items():
        table = [{"image": eye, **row} for eye, row in own.scores.items()]
        write_csv(run.files / f"without_{name}" / "scores.csv", table)
        mean = metrics.mean(list(own.scores.values()))
        row: dict[str, Any] = {"data_set": name, "eyes": len(table), **mean, "threshold": own.threshold}
        # what others cost: the best for the eyes that trained the network, for the others where they were left
        # out, and for these eyes, which knows their labels
        others = np.mean([other.curve for other in scored if other is not own], axis=0)
        costs = {"trained": own.checkpoint["threshold"], "others_best": threshold_of_best(others)}
        for which, threshold in (costs | {"best": threshold_of_best(own.curve)}).items():
            row |= {f"{which}_threshold": threshold, f"f1_at_{which}_threshold": f1_at(own.curve, threshold)}
        rows.append(row)
        print(
            f"without {name}: F1 {mean['f1']:.4f}, AUC {mean['auc']:.4f}, mean of {len(table)} eyes at "
            f"threshold {own.threshold:.2f}; at its own best, {row['best_threshold']:.2f}, F1 "
            f"{row['f1_at_best_threshold']:.4f}"
        )
    columns = {"threshold": THRESHOLDS, **{name: own.curve for name, own in sets.items()}}
    at_each = [{name: float(curve[i]) for name, curve in columns.items()} for i in range(len(THRESHOLDS))]
    write_csv(run.files / "thresholds.csv", at_each)
    path = run.files / "leave_one_out.csv"
    write_csv(path, rows)
    print(f"{path}: each data set scored by a network trained without it")
    threshold = round(float(np.mean([own.expected for own in scored])), 2)
    best = threshold_of_best(np.mean([own.curve for own in scored], axis=0))
    print(f"the threshold of the highest expected F1, mean over all of them, each unseen: {threshold:.2f}")
    print(f"(the best with their labels: {best:.2f}); to train on all of them:")
    flags = f"--data {run.data} --all-eyes --threshold {threshold:.2f}"
    print(f"python train.py {flags}, and the flags of this training")
