"""test.py writes masks, pictures and scores that can be recomputed from its own files."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from conftest import CPU, HEIGHT, WIDTH, read_csv, rows_by_image, run_script
from sklearn import metrics as reference
from test_metrics import sklearn_scores

import test as tester
from datasets.images import read_mask
from measures.doubts import uncertainty
from measures.vessels import measure, prepare
from networks.checkpoints import load_checkpoint
from pages import report
from scoring import metrics
from system.devices import Stopwatch
from system.records import write_record
from utils import UserError

NAMES = ["01_test", "02_test", "03_test"]


@pytest.fixture(scope="module")
def results(new_data: Path, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What test.py writes with labels and a second observer."""
    folder = tmp_path_factory.mktemp("scored") / "results"
    assert score(new_data, files, folder) == 0
    return folder


def score(new_data: Path, files: Path, results: Path, *more: object) -> int | None:
    """Run test.py."""
    flags = ("--data", new_data, "--weights", files / "checkpoint.pth", "--results", results, "--device", "cpu")
    return run_script(tester.main, *flags, *more)


def read_rows(results: Path) -> dict[str, dict[str, str]]:
    """metrics.csv by the name of the image."""
    return rows_by_image(results / "metrics.csv")


def test_a_mask_a_probability_and_a_picture_for_each_image(results):
    for name in NAMES:
        mask = iio.imread(results / "masks" / f"{name}.png")
        assert mask.shape == (HEIGHT, WIDTH)
        assert set(np.unique(mask)) <= {0, 255}
        probability = iio.imread(results / "probability" / f"{name}.png")
        assert probability.dtype == np.uint16
        assert probability.shape == (HEIGHT, WIDTH)
        assert iio.imread(results / f"{name}.png").shape == (HEIGHT, 4 * WIDTH + 3 * 4, 3)


def test_the_columns_and_rows_are_as_documented(results):
    header = (results / "metrics.csv").read_text().splitlines()[0]
    assert header == (
        "image,jaccard,f1,recall,precision,specificity,accuracy,auc,average_precision,"
        "cldice,recall_2px,recall_3px"
    )
    assert list(read_rows(results)) == [*NAMES, "mean", "pooled", "second_observer"]


@pytest.mark.parametrize("whole", [False, True])
def test_every_number_agrees_with_scikit_learn(new_data, files, tmp_path, whole):
    score(new_data, files, tmp_path, "--threshold", 0.4, *(["--whole-image"] if whole else []))
    rows = read_rows(tmp_path)
    truths, probabilities, humans, expected = [], [], [], []
    for name in NAMES:
        fov = whole | (read_mask(new_data / "test" / "fov" / f"{name}_0.png") > 0)
        truths.append(read_mask(new_data / "test" / "mask" / f"{name}_0.png")[fov] > 0)
        humans.append(read_mask(new_data / "test" / "second_observer" / f"{name}_0.png")[fov] > 0)
        probabilities.append(iio.imread(tmp_path / "probability" / f"{name}.png")[fov] / 65535)
        expected.append(sklearn_scores(truths[-1], probabilities[-1] >= 0.4, probabilities[-1]))
        assert {k: float(rows[name][k]) for k in expected[-1]} == pytest.approx(expected[-1], abs=1e-6)
    mean = {k: np.mean([e[k] for e in expected]) for k in expected[0]}
    pooled = np.concatenate(truths), np.concatenate(probabilities)
    for row, want in (("mean", mean), ("pooled", sklearn_scores(pooled[0], pooled[1] >= 0.4, pooled[1]))):
        assert {k: float(rows[row][k]) for k in want} == pytest.approx(want, abs=1e-6)
    human = [reference.f1_score(t, h) for t, h in zip(truths, humans, strict=True)]
    assert float(rows["second_observer"]["f1"]) == pytest.approx(np.mean(human), abs=1e-6)
    assert rows["second_observer"]["auc"] == ""


def test_measures_are_those_of_the_prediction_and_of_what_each_observer_drew(new_data, results):
    rows = {(row["image"], row["by"]): row for row in read_csv(results / "measures.csv")}
    by = ("prediction", "first_observer", "second_observer")
    assert list(rows) == [(name, who) for name in NAMES for who in by]
    for name in NAMES:
        fov = read_mask(new_data / "test" / "fov" / f"{name}_0.png")
        masks = {
            "prediction": read_mask(results / "masks" / f"{name}.png"),
            "first_observer": read_mask(new_data / "test" / "mask" / f"{name}_0.png"),
            "second_observer": read_mask(new_data / "test" / "second_observer" / f"{name}_0.png"),
        }
        for who, mask in masks.items():
            wanted = measure(prepare(np.where(mask > 0, 65535, 0).astype(np.uint16), fov, 0.5))
            for column in ("vessel_share", "length", "branch_points", "fractal_d0"):  # widths: of probabilities
                assert float(rows[name, who][column]) == pytest.approx(wanted[column], rel=1e-5), who
        assert 0 < float(rows[name, "prediction"]["expected_f1"]) < 1
        assert rows[name, "first_observer"]["expected_f1"] == ""
        levels = iio.imread(results / "probability" / f"{name}.png")
        assert (iio.imread(results / "uncertainty" / f"{name}.png") == uncertainty(levels)).all()


def test_the_tree_is_scored_from_the_masks_inside_the_field_of_view(new_data, results):
    rows, counts = read_rows(results), []
    for name in NAMES:
        fov, truth = (read_mask(new_data / "test" / part / f"{name}_0.png") for part in ("fov", "mask"))
        counts.append(metrics.count_tree(read_mask(results / "masks" / f"{name}.png"), truth, fov))
        want = metrics.tree_scores(counts[-1])
        assert {k: float(rows[name][k]) for k in want} == pytest.approx(want, abs=1e-6)
    want = metrics.tree_scores(sum(counts))
    assert {k: float(rows["pooled"][k]) for k in want} == pytest.approx(want, abs=1e-6)
    assert 0 < float(rows["second_observer"]["cldice"]) < 1


def test_the_printed_line_is_the_mean_row(new_data, files, tmp_path, capsys):
    score(new_data, files, tmp_path)
    out = capsys.readouterr().out
    mean = {k: float(v) for k, v in read_rows(tmp_path)["mean"].items() if k != "image"}
    assert (
        f"Jaccard: {mean['jaccard']:.4f} - F1: {mean['f1']:.4f} - Recall: {mean['recall']:.4f} - "
        f"Precision: {mean['precision']:.4f} - Acc: {mean['accuracy']:.4f} - AUC: {mean['auc']:.4f}\n"
    ) in out
    assert "network alone: " in out
    assert "second human observer: Jaccard: 0." in out
    assert "not comparable" not in out


def test_the_stopwatch_counts_the_network_alone():
    class Slow(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(0.05)
            return super().forward(x)

    model = Slow(2, 2)
    watch = Stopwatch(model)
    for _ in range(3):
        model(torch.zeros(1, 2))
        time.sleep(0.2)
    assert 0.15 <= watch.seconds < 0.5


def test_the_picture_shows_what_was_found_missed_and_false(results, new_data):
    truth = read_mask(new_data / "test" / "mask" / "02_test_0.png") > 0
    found = iio.imread(results / "masks" / "02_test.png") > 0
    panel = iio.imread(results / "02_test.png")[:, 3 * (WIDTH + 4) :]
    for where, colour in (
        (truth & found, report.FOUND),
        (truth & ~found, report.MISSED),
        (~truth & found, report.FALSE),
        (~truth & ~found, (0, 0, 0)),
    ):
        assert where.any()
        assert (panel[where] == colour).all()


def test_without_labels_there_are_masks_and_pictures_but_no_scores(new_data, files, results, tmp_path, capsys):
    data = shutil.copytree(new_data, tmp_path / "new_data")
    shutil.rmtree(data / "test" / "mask")
    out = tmp_path / "results"
    out.mkdir()
    (out / "metrics.csv").write_text("of an earlier run")
    write_record(out, "test.py", ["metrics.csv"])
    assert score(data, files, out) == 0
    assert "has no labels" in capsys.readouterr().out
    assert not (out / "metrics.csv").exists()
    for name in NAMES:
        assert (out / "masks" / f"{name}.png").read_bytes() == (results / "masks" / f"{name}.png").read_bytes()
        assert iio.imread(out / f"{name}.png").shape == (HEIGHT, 3 * WIDTH + 2 * 4, 3)


def test_the_threshold_is_the_checkpoints_unless_given(new_data, files, results, tmp_path):
    _, checkpoint = load_checkpoint(files / "checkpoint.pth", CPU)
    score(new_data, files, tmp_path / "high", "--threshold", 0.9)
    for folder, threshold in ((results, checkpoint["threshold"]), (tmp_path / "high", 0.9)):
        levels = iio.imread(folder / "probability" / "01_test.png")
        mask = iio.imread(folder / "masks" / "01_test.png") > 0
        assert (mask == (levels >= metrics.level_of(threshold))).all()


def test_more_views_change_the_probabilities_a_little(new_data, files, results, tmp_path):
    for views in (1, 8):
        score(new_data, files, tmp_path / str(views), f"--views={views}")
    places = (tmp_path / "1", tmp_path / "8", results)
    one, eight, usual = (iio.imread(place / "probability" / "01_test.png") / 65535 for place in places)
    assert 0 < np.abs(one - eight).mean() < 0.1
    assert (eight == usual).all(), "eight are the default"


def test_scores_of_resized_truth_are_called_not_comparable(drive, files, tmp_path, capsys):
    import augment

    run_script(augment.main, "--drive", drive, "--out", tmp_path / "data", "--size", 64)
    score(tmp_path / "data", files, tmp_path / "results")
    assert "64x64: not comparable" in capsys.readouterr().out


def test_a_missing_checkpoint_says_how_to_train_one(new_data, tmp_path):
    with pytest.raises(UserError, match=r"python train\.py"):
        score(new_data, tmp_path, tmp_path / "results")
    assert not (tmp_path / "results").exists()
