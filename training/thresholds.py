"""Which threshold a checkpoint stores, and F1 as a curve over thresholds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anatomy.photograph import look_at
from data import Eye, eye_of, first_copies, read_eye
from datasets.images import list_images
from prediction.scale import plan_scale
from prediction.segmentation import outputs_of, segment
from scoring import metrics
from utils import UserError

if TYPE_CHECKING:
    from model import Network

# the best threshold for unseen eyes, from the cross-validation on DRIVE: see docs/results.md
USUAL_THRESHOLD = 0.39
EYES_FOR_THRESHOLD = 6  # of each data set
THRESHOLDS = np.arange(5, 96) / 100


def shrunk_threshold(threshold: float, eyes: int) -> float:
    """The threshold to store, given the best one for some validation eyes (0 eyes: the usual one).

    The best threshold of three eyes varies by 0.07 between triples, and costs more F1 on other eyes than it
    gains. So it is averaged with the usual threshold, which counts as six eyes.
    """
    return (eyes * threshold + 6 * USUAL_THRESHOLD) / (eyes + 6)


def f1_curve(counts: np.ndarray) -> np.ndarray:
    """F1 at each of `THRESHOLDS`, from the counts of `metrics.count_levels`: float64 (91,)."""
    confusions = [metrics.confusion(counts, threshold) for threshold in THRESHOLDS]
    return np.array([2 * tp / max(2 * tp + fp + fn, 1) for tp, fp, fn, _ in confusions])


def threshold_of_best(curve: Sequence[float] | np.ndarray) -> float:
    """The threshold of the highest F1 of a curve."""
    return float(THRESHOLDS[int(np.argmax(curve))])


def f1_at(curve: np.ndarray, threshold: float) -> float:
    """The F1 of a curve at one of `THRESHOLDS`."""
    return float(curve[int(np.abs(THRESHOLDS - threshold).argmin())])


def native_eyes(data: Path, names: Sequence[str]) -> Iterator[Eye]:
    """Read the test eyes of these copies at their native size, one by one.

    Raises:
        UserError: none of them is in new_data/test: it was not written with --leave-one-out; or one is damaged.
    """
    paths = native_images(data, names)
    if not paths:
        raise UserError(
            f"{data / 'test'}: these eyes are not there; write it with: python augment.py ... --leave-one-out"
        )
    for path in paths:
        yield read_eye(path, data / "test", labels=True)


def native_images(data: Path, names: Sequence[str]) -> list[Path]:
    """The files of the test eyes of these copies in new_data."""
    wanted, folder = {eye_of(name) for name in names}, data / "test" / "image"
    return [path for path in list_images(folder) if eye_of(path.stem) in wanted] if folder.is_dir() else []


def eyes_for_threshold(data: Path, trained: Sequence[Eye]) -> Iterator[tuple[str, Eye, bool]]:
    """Up to six eyes of each data set that trained a network, at native size where new_data/test has them.

    Returns:
        The data set, the eye, and whether it is at native size; training eyes are at the working scale already.

    Raises:
        UserError: a native eye is damaged.
    """
    trained = [eye for eye in trained if not eye.taught]
    for source in dict.fromkeys(eye.source for eye in trained):
        own = first_copies(eye for eye in trained if eye.source == source)
        chosen = own[:: -(-len(own) // EYES_FOR_THRESHOLD)]
        names = [eye.name for eye in chosen]
        if native_images(data, names):
            yield from ((source, eye, True) for eye in native_eyes(data, names))
        else:
            yield from ((source, eye, False) for eye in chosen)


def compromise_curve(network: Network, data: Path, trained: Sequence[Eye]) -> np.ndarray:
    """Mean F1 on eyes that trained a network, at each of `THRESHOLDS`, each data set counting the same.

    Its maximum is the best compromise between the observers of these data sets, who differ in how much they
    draw. The network, in evaluation mode, has seen these eyes, but networks this small are hardly better on
    them than on others.

    Returns:
        float64, as long as `THRESHOLDS`: the mean over data sets of the mean over `eyes_for_threshold`, in one
        view.

    Raises:
        UserError: a native eye is damaged.
    """
    curves: dict[str, list[np.ndarray]] = {}
    for source, eye, native in eyes_for_threshold(data, trained):
        factor = plan_scale(look_at(eye.image), network).factor if native else 1.0
        for output, probability in outputs_of(network, segment(network, eye.image, eye.fov, scale=factor)):
            counts = metrics.count_levels(metrics.quantize(probability), *eye.target(output))
            curves.setdefault(source, []).append(f1_curve(counts))
    return np.mean([np.mean(own, axis=0) for own in curves.values()], axis=0)
