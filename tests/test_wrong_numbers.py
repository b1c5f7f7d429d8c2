"""research/wrong_numbers.py: its honest row is test.py's, and its best threshold is the best."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import read_csv, run_script

import test as tester
from research import wrong_numbers
from scoring import metrics
from utils import UserError


def test_no_threshold_has_a_higher_mean_f1():
    rng = np.random.default_rng(0)
    counts = []
    for vessels in (3, 7):
        truth = rng.random((40, 40)) < vessels / 20
        levels = metrics.quantize(np.clip(rng.normal(0.3 + 0.05 * vessels * truth, 0.2), 0, 1).round(2))
        counts.append(metrics.count_levels(levels, truth, np.ones_like(truth)))
    found = wrong_numbers.best_mean_threshold(counts)
    each = {t: np.mean([metrics.scores(c, t)["f1"] for c in counts]) for t in np.linspace(0, 1, 21)}
    assert np.mean([metrics.scores(c, found)["f1"] for c in counts]) >= max(each.values()) > min(each.values())


def test_the_table_has_the_scores_of_test_py_and_what_flatters_them(new_data, files, tmp_path, capsys):
    how = ("--data", new_data, "--weights", files / "checkpoint.pth", "--views=1", "--device=cpu")
    run_script(wrong_numbers.main, *how, "--side", 80)
    table = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line[:2] == "| "]
    assert len(table) == 1 + 3 * 4
    for row, flags in ((table[1], ()), (table[3], ("--whole-image",))):
        run_script(tester.main, *how, *flags, "--results", tmp_path)
        mean = next(line for line in read_csv(tmp_path / "metrics.csv") if line["image"] == "mean")
        for title, column in wrong_numbers.COLUMNS.items():
            value = row[table[0].index(title)]
            assert float(value) == pytest.approx(float(mean[column]), abs=6e-5), (row, title)
    f1 = [float(row[3]) for row in table[1:]]
    assert all(best >= own for own, best in zip(f1[::2], f1[1::2], strict=True))


def test_eyes_that_trained_the_network_are_refused(new_data, files, tmp_path):
    trained = tmp_path / "new_data"
    trained.mkdir()
    (trained / "test").symlink_to(new_data / "train")
    with pytest.raises(UserError, match="trained this network"):
        run_script(wrong_numbers.main, "--data", trained, "--weights", files / "checkpoint.pth")
