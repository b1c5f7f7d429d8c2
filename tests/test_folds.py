"""Every eye is scored once, by a network that was trained without it; several networks average."""

from __future__ import annotations

import json
import re
import shutil
import signal
import statistics
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from conftest import CPU, load, read_csv, run_script, same_weights, stop_at

import predict
import test as tester
import train
from data import eye_of, read_eyes
from datasets.eyes import Eye
from datasets.images import write_png
from datasets.synthetic import draw_eye
from model import Ensemble, UNet
from networks.checkpoints import save_checkpoint
from networks.loading import load_networks
from prediction import segmentation
from research import cameras
from scoring import metrics
from system import devices
from training import held_out, held_out_tables
from training.crops import Crops
from training.muon import Muon
from training.settings import Run
from utils import UserError

K = 3
NETWORK = ["--width=2", "--depth=1", "--crop=32", "--batch-size=2", "--device=cpu"]
SHORT = [*NETWORK, "--epochs=2", "--crops=6", "--lr=0.02"]
EPOCH = 3  # steps
SUMMARY = ["mean", "std_of_eyes", "std_of_folds"]


def cross_validate(new_data: Path, files: Path, *more: object) -> int | None:
    """Run train.py --folds."""
    return run_script(train.main, "--data", new_data, "--files", files, "--folds", K, *SHORT, *more)


@pytest.fixture(scope="module")
def crossed(new_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a cross-validation that nothing disturbed."""
    files = tmp_path_factory.mktemp("crossed") / "files"
    assert cross_validate(new_data, files) == 0
    return files


def read_table(files: Path) -> dict[str, dict[str, str]]:
    """folds.csv by eye, without the minutes."""
    return {
        row["eye"]: {k: v for k, v in row.items() if k != "minutes"} for row in read_csv(files / "folds.csv")
    }


def same_networks(a: Path, b: Path) -> bool:
    """Whether two checkpoints hold the same weights bit for bit, and the same threshold."""
    a, b = load(a), load(b)
    return same_weights(a["weights"], b["weights"]) and a["threshold"] == b["threshold"]


def contents(*files: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in files}


def test_each_eye_is_in_one_fold_and_no_network_is_scored_on_an_eye_that_it_saw(
    new_data, crossed, tmp_path, monkeypatch
):
    names = [eye.name for eye in read_eyes(new_data / "train", labels=True)]
    eyes = list(dict.fromkeys(map(eye_of, names)))
    table = read_table(crossed)
    assert list(table) == [*eyes, *SUMMARY]
    assert [int(table[eye]["fold"]) for eye in eyes] == [i % K for i in range(len(eyes))]
    seen: list[set[str]] = []
    start = Crops.__init__

    def watched(self: Crops, cut_from: list[Eye], **named: object) -> None:
        seen.append({eye.name for eye in cut_from})
        start(self, cut_from, **named)

    monkeypatch.setattr(Crops, "__init__", watched)
    for k in range(K):
        assert cross_validate(new_data, tmp_path, "--fold", k) == 0
        others = {name for name in names if table[eye_of(name)]["fold"] != str(k)}
        assert seen.pop() == others and not seen
        split = json.loads((tmp_path / f"fold{k}" / "split.json").read_text())
        assert set(split["train"]) == others and split["validation"] == []
        assert set(split["held_out"]) == set(names) - others
        # alone it ends as it does among the others
        assert same_networks(*(files / f"fold{k}" / "checkpoint.pth" for files in (tmp_path, crossed)))


def predict_anew(new_data: Path, crossed: Path) -> dict[str, tuple[np.ndarray, Eye]]:
    """Levels of each eye as it is, from the folds' checkpoints alone."""
    found = {}
    for i, eye in enumerate(e for e in read_eyes(new_data / "train", labels=True) if e.name.endswith("_0")):
        model, _ = load_networks([crossed / f"fold{i % K}" / "checkpoint.pth"], None, CPU)
        found[eye_of(eye.name)] = metrics.quantize(predict.segment(model, eye.image, eye.fov, views=8)), eye
    return found


def test_cameras_py_scores_every_held_out_eye_as_it_is_and_retaken(new_data, crossed, capsys):
    run_script(cameras.main, "--data", new_data, "--threshold=0.5", "--device=cpu", crossed)
    heading, *rows = (line.split() for line in capsys.readouterr().out.splitlines())
    assert [row[-5] for row in rows] == ["7"] * 3
    anew = [
        metrics.scores(metrics.count_levels(levels, eye.mask, eye.fov), 0.5)
        for levels, eye in predict_anew(new_data, crossed).values()
    ]
    for title, figure in zip(heading[1:], rows[0][-4:], strict=True):
        assert float(figure) == pytest.approx(metrics.mean(anew)[cameras.COLUMNS[title]], abs=1e-4)
    assert rows[0][-4:] != rows[1][-4:] != rows[2][-4:]


def best_of_all(found: dict[str, tuple[np.ndarray, Eye]]) -> float:
    """The best threshold of all pixels of all eyes."""
    counts = sum(metrics.count_levels(levels, eye.mask, eye.fov) for levels, eye in found.values())
    return metrics.best_threshold(counts)[0]


def score_at(levels: np.ndarray, eye: Eye, threshold: float) -> dict[str, float]:
    """What a row of the table has to hold."""
    pixels = metrics.scores(metrics.count_levels(levels, eye.mask, eye.fov), threshold)
    tree = metrics.count_tree(segmentation.binarize(levels, eye.fov, threshold), eye.mask, eye.fov)
    return {"threshold": threshold} | pixels | metrics.tree_scores(tree)


def test_the_table_is_what_the_folds_checkpoints_give(new_data, crossed):
    table, found = read_table(crossed), predict_anew(new_data, crossed)
    header = (crossed / "folds.csv").read_text().splitlines()[0]
    assert header == ",".join(["eye", "fold", "threshold", *metrics.COLUMNS, "minutes"])
    own = {}
    for i, (name, (levels, eye)) in enumerate(found.items()):
        others = {n: pair for j, (n, pair) in enumerate(found.items()) if j % K != i % K}
        own[name] = score_at(levels, eye, best_of_all(others))
    for column in ("threshold", *metrics.COLUMNS):
        values = {name: row[column] for name, row in own.items()}
        of_folds = [statistics.mean(list(values.values())[k::K]) for k in range(K)]
        every = values.values()
        summary = statistics.mean(every), statistics.stdev(every), statistics.stdev(of_folds)
        expected = values | dict(zip(SUMMARY, summary, strict=True))
        assert {eye: float(row[column]) for eye, row in table.items()} == pytest.approx(expected, abs=1e-8)
    assert len({row["f1"] for row in table.values()}) > len(found), "scores differ, or nothing was compared"


def test_the_spread_of_the_folds_goes_by_the_folds_that_eyes_were_in(tmp_path):
    # both eyes of a person are in one fold, so that eyes do not take turns
    names = [f"Image_{n:02d}{side}_0" for n in (1, 2, 3) for side in "LR"]
    eyes, rng = {}, np.random.default_rng(0)
    groups = held_out.group_by_fold(names, 2)
    for k, group in enumerate(groups):
        for name in group.held_out:
            photograph, mask, fov = draw_eye(rng, 96, 92)
            eyes[name] = Eye(name, photograph, fov, mask)
            noise = rng.normal(0.5 + 0.2 * (mask > 0), 0.1 + 0.1 * k)
            path = held_out_tables.probability_of(tmp_path / group.folder, name)
            write_png(path, metrics.quantize(noise))
        model = UNet(width=2, depth=1)
        own = {"model": model.config, "weights": model.state_dict(), "history": [{"seconds": 60.0}]}
        save_checkpoint(tmp_path / group.folder / "last.pth", own)
    scored = held_out_tables.score_groups(tmp_path, groups, lambda n: [eyes[name] for name in n], labelled=True)
    run = Run(tmp_path, tmp_path, CPU, 0, False, {})
    held_out_tables.write_folds(run, scored, names)
    table = read_table(tmp_path)
    assert [row["fold"] for row in table.values()] == ["0", "0", "1", "1", "0", "0", "", "", ""]
    for column in ("f1", "auc", "cldice"):
        of_folds = [
            statistics.mean(float(row[column]) for row in table.values() if row["fold"] == str(k))
            for k in range(2)
        ]
        assert float(table["std_of_folds"][column]) == pytest.approx(statistics.stdev(of_folds), abs=1e-8)


def test_the_final_network_saw_every_eye_and_its_threshold_is_the_pooled_one(new_data, crossed, tmp_path):
    final = load(crossed / "checkpoint.pth")
    assert final["threshold"] == best_of_all(predict_anew(new_data, crossed))
    assert final["cross_validation"]["f1"] == pytest.approx(float(read_table(crossed)["mean"]["f1"]), abs=1e-8)
    run_script(train.main, "--data", new_data, "--files", tmp_path, *SHORT, "--all-eyes")
    alone = load(tmp_path / "checkpoint.pth")
    assert final["split"] == alone["split"] and len(alone["split"]["train"]) == 28
    assert same_weights(alone["weights"], final["weights"])


def test_stopped_in_a_fold_in_its_scoring_and_at_the_end_and_resumed_it_ends_the_same(
    new_data, crossed, tmp_path, monkeypatch, capsys
):
    predictions, segment, training = iter(range(1000)), held_out.segment, 2 * EPOCH

    def interrupted_segment(*rest: object, **named: object) -> object:
        if next(predictions) == 4:  # in the second run, which predicts none of the first fold's three eyes anew
            signal.raise_signal(signal.SIGINT)
        return segment(*rest, **named)

    # within the second fold, and within the last training
    steps = stop_at(monkeypatch, training + 1, K * training + EPOCH + 1)
    monkeypatch.setattr(held_out, "segment", interrupted_segment)
    assert cross_validate(new_data, tmp_path) == 130
    assert "--resume" in capsys.readouterr().err
    assert len(load(tmp_path / "fold1" / "last.pth")["losses"]) == 2
    first = contents(tmp_path / "fold0" / "last.pth", tmp_path / "fold0" / "checkpoint.pth")
    assert cross_validate(new_data, tmp_path, "--resume") == 130
    assert "--resume" in capsys.readouterr().err
    assert len(load(tmp_path / "fold1" / "last.pth")["history"]) == 2 and not (tmp_path / "fold2").exists()
    assert cross_validate(new_data, tmp_path, "--resume") == 130
    assert "--resume" in capsys.readouterr().err
    assert len(load(tmp_path / "last.pth")["losses"]) == 2 and not (tmp_path / "checkpoint.pth").exists()
    assert cross_validate(new_data, tmp_path, "--resume") == 0
    assert next(steps) == (K + 1) * training, "each step once"
    assert contents(*first) == first
    assert read_table(tmp_path) == read_table(crossed)
    for name in ("fold0", "fold1", "fold2", "."):
        assert same_networks(*(files / name / "checkpoint.pth" for files in (tmp_path, crossed)))
    assert not list(tmp_path.rglob(".*")), "neither locks nor temporary files remain"


def test_folds_trained_one_by_one_are_put_together_without_training(new_data, crossed, tmp_path, monkeypatch):
    for own in ([2], [1, 0]):
        assert cross_validate(new_data, tmp_path, "--fold", *own) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fold0", "fold1", "fold2"]

    def no_step(*_: object) -> None:
        raise AssertionError("a finished fold is trained again")

    with monkeypatch.context() as patch:
        patch.setattr(Muon, "step", no_step)
        assert cross_validate(new_data, tmp_path, "--resume", "--fold", 0, 1, 2) == 0
    assert read_table(tmp_path) == read_table(crossed)
    assert not (tmp_path / "checkpoint.pth").exists()
    assert cross_validate(new_data, tmp_path, "--resume") == 0
    assert same_networks(tmp_path / "checkpoint.pth", crossed / "checkpoint.pth")


def test_a_network_on_all_eyes_that_is_there_gets_its_threshold_from_the_folds(new_data, crossed, tmp_path):
    run_script(train.main, "--data", new_data, "--files", tmp_path, *SHORT, "--all-eyes")
    assert not same_networks(tmp_path / "checkpoint.pth", crossed / "checkpoint.pth"), "another threshold"
    for k in range(K):
        shutil.copytree(crossed / f"fold{k}", tmp_path / f"fold{k}")
    assert cross_validate(new_data, tmp_path, "--resume") == 0
    assert same_networks(tmp_path / "checkpoint.pth", crossed / "checkpoint.pth")


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--folds=8"], "--folds 8: there are only 7 labelled eyes of different persons"),
        (["--folds=1"], "--folds: 1 is out of range: give 2 or more"),
        (["--fold=1"], "--fold: give --folds as well"),
        (["--folds=3", "--fold", "0", "3"], "--fold 3 is out of range: give 0 to 2"),
        (["--folds=3", "--fold=-1"], "--fold: -1 is out of range: give 0 or more"),
    ],
)
def test_folds_that_cannot_be_are_refused_before_anything_is_written(new_data, tmp_path, capsys, flags, reason):
    with pytest.raises((UserError, SystemExit)) as error:
        run_script(train.main, "--data", new_data, "--files", tmp_path / "files", *SHORT, *flags)
    said = str(error.value) if error.type is UserError else capsys.readouterr().err
    assert re.search(reason, said)
    assert not (tmp_path / "files").exists()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--folds=3", "--lr=0.01"], r"fold0.last\.pth: trained with --lr 0\.02, not 0\.01"),
        (["--folds=4"], r"fold0.last\.pth: trained with other eyes or another split"),
    ],
)
def test_resuming_with_other_folds_or_settings_is_refused(new_data, crossed, tmp_path, flags, reason):
    files = shutil.copytree(crossed, tmp_path / "files")
    before = contents(*(path for path in files.rglob("*") if path.is_file()))
    with pytest.raises(UserError, match=reason):
        run_script(train.main, "--data", new_data, "--files", files, *SHORT, *flags, "--resume")
    assert contents(*(path for path in files.rglob("*") if path.is_file())) == before


def test_resuming_without_a_fold_or_beside_a_network_on_other_eyes_is_refused(new_data, crossed, tmp_path):
    with pytest.raises(UserError, match="fold1: no fold to go on with; train without --resume"):
        cross_validate(new_data, tmp_path / "none", "--resume", "--fold", 1)
    run_script(train.main, "--data", new_data, "--files", tmp_path, *SHORT)
    shutil.copytree(crossed / "fold0", tmp_path / "fold0")
    with pytest.raises(UserError, match=r"last\.pth: of a training on other eyes; move it away"):
        cross_validate(new_data, tmp_path, "--resume")
    assert not (tmp_path / "fold1").exists(), "it is said before the folds are trained"


def test_a_new_cross_validation_sets_an_earlier_one_aside(new_data, crossed, tmp_path, monkeypatch):
    files = shutil.copytree(crossed, tmp_path / "files")
    backup = shutil.copytree(crossed / "fold0", files / "fold0_mine")
    kept = contents(*backup.glob("*.*"))

    def stop_at_once(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Muon, "step", stop_at_once)
        with pytest.raises(KeyboardInterrupt):
            run_script(train.main, "--data", new_data, "--files", files, *SHORT, "--folds", 2)
    for where in ("fold0", "fold1", "fold2", "."):  # a start that saved nothing moves nothing
        kept_there = files / where / "checkpoint.pth"
        assert kept_there.read_bytes() == (crossed / where / "checkpoint.pth").read_bytes()
    assert not (files / "earlier").exists()
    run_script(train.main, "--data", new_data, "--files", files, *SHORT, "--folds", 2)
    # fold2 too, though there is none now
    for where in ("fold0", "fold1", "fold2", "."):
        earlier = files / "earlier" / "1" / where / "checkpoint.pth"
        assert earlier.read_bytes() == (crossed / where / "checkpoint.pth").read_bytes()
    assert (files / "earlier" / "1" / "folds.csv").exists()
    assert not (files / "fold2" / "checkpoint.pth").exists() and not (files / "fold2" / "last.pth").exists()
    assert contents(*backup.glob("*.*")) == kept


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Checkpoints of networks of different sizes, untrained, but of opinions that differ widely."""
    folder = tmp_path_factory.mktemp("networks")
    paths = []
    for seed, (width, depth) in enumerate([(2, 1), (4, 2)]):
        torch.manual_seed(seed)
        model = UNet(width=width, depth=depth)
        with torch.no_grad():
            model.classifier.weight *= 20
        content = {"model": model.config, "weights": model.state_dict(), "threshold": 0.3 + 0.25 * seed}
        paths.append(folder / f"{width}_{depth}.pth")
        save_checkpoint(paths[-1], content)
    return paths


def score(new_data: Path, results: Path, *more: object) -> int | None:
    """Run test.py."""
    return run_script(tester.main, "--data", new_data, "--results", results, "--device", "cpu", *more)


def read_levels(results: Path) -> np.ndarray:
    """The probability levels of the first test eye, as int64 so that differences can be taken."""
    return iio.imread(results / "probability" / "01_test.png").astype(np.int64)


@pytest.mark.parametrize("views", [["--views=1"], ["--views=8"]])
def test_several_checkpoints_give_the_mean_of_their_probabilities_and_thresholds(
    new_data, networks, tmp_path, views
):
    for k, path in enumerate(networks):
        score(new_data, tmp_path / str(k), "--weights", path, *views)
    score(new_data, tmp_path / "both", "--weights", *networks, *views)
    a, b, both = (read_levels(tmp_path / name) for name in ("0", "1", "both"))
    assert np.abs(a - b).mean() > 3000, "networks that agree would show nothing"
    assert np.abs(both - (a + b) / 2).max() <= 1
    mask = iio.imread(tmp_path / "both" / "masks" / "01_test.png") > 0
    assert (mask == (both >= metrics.level_of(0.425))).all() and mask.any() and not mask.all()
    again = [flag for path in networks for flag in ("--weights", path)]
    score(new_data, tmp_path / "both", *again, "--threshold=0.6", *views)
    mask = iio.imread(tmp_path / "both" / "masks" / "01_test.png") > 0
    assert (mask == (both >= metrics.level_of(0.6))).all() and mask.any()


def test_predict_py_averages_too_and_leaves_the_photographs_after_the_flag_alone(new_data, networks, tmp_path):
    photograph = new_data / "test" / "image" / "01_test_0.png"
    found = []
    for own in (networks[:1], networks[1:], networks):
        flags = [flag for path in own for flag in ("--weights", path)]
        assert run_script(predict.main, "--out", tmp_path, "--device=cpu", *flags, photograph) == 0
        found.append(iio.imread(tmp_path / "probability" / "01_test_0.png").astype(np.int64))
    assert np.abs(found[0] - found[1]).mean() > 3000
    assert np.abs(found[2] - (found[0] + found[1]) / 2).max() <= 1


def test_one_checkpoint_is_no_average(networks):
    model, threshold = load_networks(networks[:1], None, CPU)
    assert isinstance(model, UNet) and threshold == 0.3
    assert load_networks(networks[:1], 0.0, CPU)[1] == 0
    model, threshold = load_networks(networks, None, CPU)
    assert isinstance(model, Ensemble) and not model.training and threshold == pytest.approx(0.425)


def test_a_checkpoint_without_a_threshold_is_named_among_several(networks, tmp_path):
    content = load(networks[0])
    del content["threshold"]
    save_checkpoint(tmp_path / "last.pth", content)
    with pytest.raises(UserError, match=r"last\.pth: holds no threshold"):
        load_networks([*networks, tmp_path / "last.pth"], None, CPU)
    assert load_networks([*networks, tmp_path / "last.pth"], 0.5, CPU)[1] == 0.5


def test_networks_of_different_depth_see_the_same_tiles(networks, monkeypatch):
    photograph, _, fov = draw_eye(np.random.default_rng(4), 150, 140)
    model, _ = load_networks(networks, None, CPU)
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: False)  # its rounding would hide seams
    whole = predict.segment(model, photograph, fov)
    monkeypatch.setattr(segmentation, "TILE", 110)
    assert len(list(segmentation.tiles(fov.shape, model.grid, model.margin))) > 4
    assert np.abs(predict.segment(model, photograph, fov) - whole).max() < 1e-4
