"""Scores agree with scikit-learn's, and are defined where there is nothing to count."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage.morphology import skeletonize
from sklearn import metrics as reference

from scoring import metrics


def random_case(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levels, truth and field of view of a plausible image."""
    rng = np.random.default_rng(seed)
    truth = rng.random((60, 50)) < 0.13
    probability = np.clip(rng.normal(0.25 + 0.4 * truth, 0.2), 0, 1)
    if ties:
        probability = np.round(probability, 1)
    return metrics.quantize(probability), truth.astype(np.uint8) * 255, rng.random((60, 50)) < 0.7


def sklearn_scores(truth: np.ndarray, prediction: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """The pixel columns of metrics.csv by scikit-learn."""
    return {
        "jaccard": reference.jaccard_score(truth, prediction),
        "f1": reference.f1_score(truth, prediction),
        "recall": reference.recall_score(truth, prediction),
        "precision": reference.precision_score(truth, prediction, zero_division=0),
        "specificity": reference.recall_score(~truth, ~prediction),
        "accuracy": reference.accuracy_score(truth, prediction),
        "auc": reference.roc_auc_score(truth, probability),
        "average_precision": reference.average_precision_score(truth, probability),
    }


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.977, 1.0])
def test_every_score_agrees_with_scikit_learn(threshold, ties):
    levels, truth, fov = random_case(1, ties)
    found = metrics.scores(metrics.count_levels(levels, truth, fov), threshold)
    y, p = truth[fov] > 0, levels[fov] / (metrics.LEVELS - 1)
    assert tuple(found) == metrics.PIXEL_COLUMNS
    assert found == pytest.approx(sklearn_scores(y, p >= threshold, p), abs=1e-9)


def test_pixels_outside_the_field_of_view_do_not_count():
    levels, truth, fov = random_case(2, ties=False)
    before = metrics.scores(metrics.count_levels(levels, truth, fov), 0.5)
    levels[~fov], truth[~fov] = 65535 - levels[~fov], 255 - truth[~fov]
    assert metrics.scores(metrics.count_levels(levels, truth, fov), 0.5) == before


def test_pooled_counts_are_the_scores_of_all_pixels_together():
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
def test_images_of_one_class_have_defined_scores(truth, prediction, f1, recall, precision, specificity):
    shape = (8, 9)
    levels = np.full(shape, 65535 * prediction, np.uint16)
    found = metrics.scores(metrics.count_levels(levels, np.full(shape, truth), np.ones(shape)), 0.5)
    own = [found[n] for n in ("f1", "jaccard", "recall", "precision", "specificity", "accuracy")]
    assert own == [f1, f1, recall, precision, specificity, float(truth == prediction)]
    assert np.isnan([found["auc"], found["average_precision"]]).all()


def test_best_threshold_is_the_best_of_all():
    counts = metrics.count_levels(*random_case(6, ties=False))
    threshold, f1 = metrics.best_threshold(counts)
    tried = [metrics.scores(counts, t)["f1"] for t in np.linspace(0, 1, 2001)]
    assert f1 >= max(tried)
    assert metrics.scores(counts, threshold)["f1"] == f1


def test_expected_f1_threshold_is_the_best_where_probabilities_are_calibrated():
    rng = np.random.default_rng(7)
    probability = rng.beta(0.3, 1.5, (600, 600))
    truth = rng.random(probability.shape) < probability
    levels, valid = metrics.quantize(probability), np.ones(probability.shape)
    threshold = metrics.expected_f1_threshold(levels, valid)
    best, f1 = metrics.best_threshold(metrics.count_levels(levels, truth, valid))
    assert threshold == pytest.approx(best, abs=0.03)
    assert threshold == pytest.approx(f1 / 2, abs=0.01)  # Lipton et al. 2014: F*/2


def test_levels_survive_storage_and_thresholds_hit_the_level_meant():
    levels = np.arange(metrics.LEVELS, dtype=np.uint16)
    assert (metrics.quantize(levels / 65535) == levels).all()
    for level in (0, 1, 32767, 32768, 65535):
        assert metrics.level_of(level / 65535) == level


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match="shapes differ"):
        metrics.count_levels(np.zeros((2, 3), np.uint16), np.zeros((3, 2)), np.ones((2, 3)))


def bar(width: int, length: int = 40, side: int = 60) -> np.ndarray:
    """A mask with one horizontal vessel."""
    mask = np.zeros((side, side), np.uint8)
    mask[20 : 20 + width, 10 : 10 + length] = 255
    return mask


@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8])
def test_the_width_of_a_straight_vessel_is_its_width(width, turn):
    mask = bar(width).T if turn else bar(width)
    found = metrics.vessel_width(mask)
    assert (found[mask == 0] == 0).all()
    middle = found.T[:, 20:40] if turn else found[:, 20:40]  # the ends are round
    assert np.unique(middle[20 : 20 + width]) == pytest.approx(width)


def test_the_width_of_a_slanted_vessel_is_nearly_its_width():
    y, x = np.mgrid[:200, :200]
    for angle in (0.2, 0.5, 0.785, 1.2):
        across = (x - 100.3) * np.sin(angle) - (y - 99.8) * np.cos(angle)
        for width in (1.5, 2, 3, 5):
            inside = metrics.vessel_width(np.abs(across) <= width / 2)[60:140, 60:140]
            assert np.median(inside[inside > 0]) == pytest.approx(width, abs=0.7)


def test_recall_of_thin_vessels_counts_only_them():
    truth = bar(1) | np.roll(bar(3), 10, axis=0) | np.roll(bar(6), 25, axis=0)

    def recalls(rows: slice) -> tuple[float, float]:
        """Of vessels to 2 and to 3 pixels' width, where the middle of some rows is missed."""
        found = truth.copy()
        found[rows, 20:40] = 0
        scores = metrics.tree_scores(metrics.count_tree(found, truth, np.ones(truth.shape)))
        return scores["recall_2px"], scores["recall_3px"]

    # the ends of wide vessels are narrow: 8 pixels of the second
    assert recalls(slice(45, 51)) == (1, 1)
    assert recalls(slice(30, 33)) == (1, pytest.approx(1 - 60 / 160))
    assert recalls(slice(20, 21)) == pytest.approx((1 - 20 / 48, 1 - 20 / 160))


def test_cldice_is_that_of_the_paper():
    rng = np.random.default_rng(8)
    truth = cv2.dilate(cv2.line(np.zeros((80, 80), np.uint8), (5, 9), (70, 60), 1, 1), np.ones((3, 3)))
    found = truth & (rng.random(truth.shape) < 0.95) | np.roll(truth, 30, axis=1)
    valid = np.ones(truth.shape)
    # the authors' own code (github.com/jocpae/clDice), written out
    precision = (skeletonize(found) * truth).sum() / skeletonize(found).sum()
    sensitivity = (skeletonize(truth) * found).sum() / skeletonize(truth).sum()
    scores = metrics.tree_scores(metrics.count_tree(found, truth, valid))
    assert scores["cldice"] == pytest.approx(2 * precision * sensitivity / (precision + sensitivity))
    assert 0 < scores["cldice"] < 1


def test_a_broken_tree_scores_lower_than_a_thinner_one():
    truth, valid = bar(5), np.ones((60, 60))
    thinner, broken = bar(5), bar(5)
    thinner[[20, 24]] = 0
    broken[:, 14:46:4] = 0  # removes fewer pixels
    assert (truth > broken).sum() < (truth > thinner).sum()
    of = {name: metrics.tree_scores(metrics.count_tree(m, truth, valid)) for name, m in
          {"thinner": thinner, "broken": broken}.items()}  # fmt: skip
    assert of["thinner"]["cldice"] > of["broken"]["cldice"]


def test_trees_outside_the_field_of_view_do_not_count_and_counts_add_up():
    truth, valid = bar(2) | np.roll(bar(2), 20, axis=0), np.ones((60, 60))
    valid[35:] = 0
    inside = metrics.count_tree(bar(2), bar(2), np.ones((60, 60)))
    assert (metrics.count_tree(bar(2), truth, valid) == inside).all()
    assert metrics.tree_scores(inside + inside) == metrics.tree_scores(inside)


@pytest.mark.parametrize(("truth", "found", "cldice"), [(0, 0, 1), (0, 1, 0), (1, 0, 0)])
def test_trees_of_nothing_have_defined_scores(truth, found, cldice):
    empty = np.zeros((60, 60), np.uint8)
    masks = (empty, bar(4))
    scores = metrics.tree_scores(metrics.count_tree(masks[found], masks[truth], np.ones((60, 60))))
    assert scores["cldice"] == cldice
    assert np.isnan(scores["recall_2px"])
