"""Scores agree with scikit-learn's, and are defined where there is nothing to count."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

import metrics


def random_case(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levels, truth and field of view of a plausible image."""
    rng = np.random.default_rng(seed)
    truth = rng.random((60, 50)) < 0.13
    probability = np.clip(rng.normal(0.25 + 0.4 * truth, 0.2), 0, 1)
    if ties:
        probability = np.round(probability, 1)
    return metrics.quantize(probability), truth.astype(np.uint8) * 255, rng.random((60, 50)) < 0.7


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.977, 1.0])
def test_every_score_agrees_with_scikit_learn(threshold: float, ties: bool) -> None:
    levels, truth, fov = random_case(1, ties)
    found = metrics.scores(metrics.count_levels(levels, truth, fov), threshold)
    y, p = truth[fov] > 0, levels[fov] / (metrics.LEVELS - 1)
    z = p >= threshold
    expected = {
        "jaccard": reference.jaccard_score(y, z),
        "f1": reference.f1_score(y, z),
        "recall": reference.recall_score(y, z),
        "precision": reference.precision_score(y, z, zero_division=0),
        "specificity": reference.recall_score(~y, ~z),
        "accuracy": reference.accuracy_score(y, z),
        "auc": reference.roc_auc_score(y, p),
        "average_precision": reference.average_precision_score(y, p),
    }
    assert tuple(found) == metrics.COLUMNS
    assert found == pytest.approx(expected, abs=1e-9)


def test_pixels_outside_the_field_of_view_do_not_count() -> None:
    levels, truth, fov = random_case(2, ties=False)
    before = metrics.scores(metrics.count_levels(levels, truth, fov), 0.5)
    levels[~fov], truth[~fov] = 65535 - levels[~fov], 255 - truth[~fov]
    assert metrics.scores(metrics.count_levels(levels, truth, fov), 0.5) == before


def test_pooled_counts_are_the_scores_of_all_pixels_together() -> None:
    cases = [random_case(seed, ties=False) for seed in (3, 4, 5)]
    pooled = sum(metrics.count_levels(*case) for case in cases)
    together = metrics.count_levels(*(np.concatenate(part) for part in zip(*cases, strict=True)))
    assert (pooled == together).all()


@pytest.mark.parametrize(
    ("truth", "prediction", "f1", "recall", "precision", "specificity"),
    [
        (0, 0, 1, 1, 1, 1),  # nothing to find, nothing found
        (0, 1, 0, 0, 0, 0),  # nothing to find, all found
        (1, 0, 0, 0, 0, 0),  # all to find, nothing found
        (1, 1, 1, 1, 1, 1),  # all to find, all found
    ],
)
def test_images_of_one_class_have_defined_scores(truth, prediction, f1, recall, precision, specificity) -> None:
    shape = (8, 9)
    levels = np.full(shape, 65535 * prediction, np.uint16)
    found = metrics.scores(metrics.count_levels(levels, np.full(shape, truth), np.ones(shape)), 0.5)
    assert [found[n] for n in ("f1", "jaccard", "recall", "precision", "specificity", "accuracy")] == [
        f1,
        f1,
        recall,
        precision,
        specificity,
        float(truth == prediction),
    ]
    assert np.isnan(found["auc"])
    assert np.isnan(found["average_precision"])


def test_best_threshold_is_the_best_of_all() -> None:
    counts = metrics.count_levels(*random_case(6, ties=False))
    threshold, f1 = metrics.best_threshold(counts)
    tried = [metrics.scores(counts, t)["f1"] for t in np.linspace(0, 1, 2001)]
    assert f1 >= max(tried)
    assert metrics.scores(counts, threshold)["f1"] == f1


def test_expected_f1_threshold_is_the_best_where_probabilities_are_calibrated() -> None:
    rng = np.random.default_rng(7)
    probability = rng.beta(0.3, 1.5, (600, 600))
    truth = rng.random(probability.shape) < probability
    levels, valid = metrics.quantize(probability), np.ones(probability.shape)
    threshold = metrics.expected_f1_threshold(levels, valid)
    best, f1 = metrics.best_threshold(metrics.count_levels(levels, truth, valid))
    assert threshold == pytest.approx(best, abs=0.03)
    assert threshold == pytest.approx(f1 / 2, abs=0.01)  # Lipton et al. 2014: F*/2


def test_levels_survive_storage_and_thresholds_hit_the_level_meant() -> None:
    levels = np.arange(metrics.LEVELS, dtype=np.uint16)
    assert (metrics.quantize(levels / 65535) == levels).all()
    for level in (0, 1, 32767, 32768, 65535):
        assert metrics.level_of(level / 65535) == level


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        metrics.count_levels(np.zeros((2, 3), np.uint16), np.zeros((3, 2)), np.ones((2, 3)))
