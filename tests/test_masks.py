"""test.py --masks: anybody's masks and probability maps are scored as a network's are, and compared."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import imageio.v3 as iio
import numpy as np
import pytest
from conftest import HEIGHT, WIDTH, page_data, rows_by_image, run_script
from PIL import Image
from scipy.stats import wilcoxon

import test as tester
from datasets.eyes import Eye
from datasets.images import read_mask, write_png
from datasets.pairing import match
from scoring import metrics
from scoring.comparison import compare_scores, difference
from scoring.other_masks import name_folders, read_maps
from utils import UserError

NAMES = ["01_test", "02_test", "03_test"]


@pytest.fixture(scope="module")
def theirs(new_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another program's 16-bit probabilities: the truth, blurred and moved by a pixel or two."""
    folder = tmp_path_factory.mktemp("theirs") / "probability"
    for shift, name in enumerate(NAMES, start=1):
        truth = read_mask(new_data / "test" / "mask" / f"{name}_0.png")
        blurred = np.roll(cv2.GaussianBlur(truth, (0, 0), 0.8), shift, axis=1)
        write_png(folder / f"{name}.png", blurred.astype(np.uint16) * 257)
    return folder


def score(new_data: Path, results: Path, *folders: object) -> int | None:
    """Run test.py --masks."""
    return run_script(tester.main, "--data", new_data, "--results", results, "--masks", *folders)


def eyes(*names: str) -> list[Eye]:
    """Eyes of 4 x 5 pixels."""
    return [Eye(name, np.zeros((4, 5, 3), np.uint8), np.full((4, 5), 255, np.uint8)) for name in names]


def named(*names: str) -> dict[str, set[str]]:
    """How these eyes may be called."""
    return {eye.name: {eye.name, eye.result_name} for eye in eyes(*names)}


def test_a_networks_own_probabilities_get_the_networks_own_scores(new_data, files, tmp_path):
    same = ("--data", new_data, "--threshold", 0.2, "--results")
    weights = ("--weights", files / "checkpoint.pth", "--views=1", "--device", "cpu")
    own, again = tmp_path / "own", tmp_path / "again"
    assert run_script(tester.main, *same, own, *weights) == 0
    assert run_script(tester.main, *same, again, "--masks", own / "probability") == 0
    for file in ("metrics.csv", *(f"masks/{name}.png" for name in NAMES)):
        assert (again / file).read_bytes() == (own / file).read_bytes()
    pages = [page_data(folder / "index.html") for folder in (own, again)]
    for key in ("columns", "summary", "curves", "interval", "threshold", "notes"):
        assert pages[0][key] == pages[1][key]
    # of probabilities from elsewhere nobody knows how sure they are
    (surplus,) = [layer for layer in pages[0]["layers"] if layer not in pages[1]["layers"]]
    assert surplus[:3] == ["Uncertainty", "uncertainty", ".png"]
    unknown = len(pages[0]["measures"]) - len(pages[1]["measures"])
    assert pages[0]["measures"][unknown:] == pages[1]["measures"] and unknown == 2
    for image, same_image in zip(pages[0]["images"], pages[1]["images"], strict=True):
        assert image["scores"] == same_image["scores"]
        assert image["measures"][unknown:] == same_image["measures"]


@pytest.mark.parametrize("kind", ["8 bit", "16 bit", "float", "float of four axes", "whole numbers", "0 and 1"])
def test_every_kind_of_file_gives_the_same_scores(new_data, theirs, tmp_path, kind):
    for name in NAMES:
        levels = (iio.imread(theirs / f"{name}.png") // 257).astype(np.uint8)
        png, npy = (tmp_path / "theirs" / f"{name}{suffix}" for suffix in (".png", ".npy"))
        png.parent.mkdir(exist_ok=True)
        if kind == "8 bit":
            iio.imwrite(png, levels)
        elif kind == "16 bit":
            iio.imwrite(png, levels.astype(np.uint16) * 257)
        elif kind == "0 and 1":
            iio.imwrite(png, (levels >= 128).astype(np.uint8))
        else:
            array = levels / 255 if kind.startswith("float") else levels.astype(np.int64)
            np.save(npy, array[None, :, :, None] if kind.endswith("axes") else array)
    assert score(new_data, tmp_path / "out", tmp_path / "theirs") == 0
    rows = rows_by_image(tmp_path / "out" / "metrics.csv")
    for name in NAMES:
        truth, fov = (read_mask(new_data / "test" / part / f"{name}_0.png") for part in ("mask", "fov"))
        want = metrics.scores(metrics.count_levels(iio.imread(theirs / f"{name}.png"), truth, fov), 0.5)
        row = rows[name]
        assert 0.2 < float(row["f1"]) == pytest.approx(want["f1"], abs=1e-7)
        if kind == "0 and 1":
            assert row["auc"] == row["average_precision"] == "", "a mask has no curve"
        else:
            assert float(row["auc"]) == pytest.approx(want["auc"], abs=1e-7)


def test_what_does_not_pair_is_reported_and_the_rest_is_scored(new_data, theirs, tmp_path, capsys):
    some = shutil.copytree(theirs, tmp_path / "some")
    (some / "03_test.png").rename(some / "21_training.png")
    write_png(some / "02_test.png", np.zeros((64, 64), np.uint8))
    assert score(new_data, tmp_path / "out", some) == 2
    err = capsys.readouterr().err
    assert "2 not scored" in err
    assert "03_test_0: no file of its name" in err
    assert f"02_test.png: 64x64 pixels, but 02_test_0 has {WIDTH}x{HEIGHT}; nothing is resized" in err
    assert "21_training.png: no eye has this name" in err
    assert list(rows_by_image(tmp_path / "out" / "metrics.csv"))[:2] == ["01_test", "mean"]


def test_a_folder_of_which_nothing_pairs_writes_nothing(new_data, theirs, tmp_path):
    for name in NAMES:
        write_png(tmp_path / "small" / f"{name}.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(UserError, match=r"nothing to score:\n.*8x8 pixels"):
        score(new_data, tmp_path / "out", tmp_path / "small")
    with pytest.raises(UserError, match=r"no images and no \.npy files; did you mean .*probability"):
        score(new_data, tmp_path / "out", theirs.parent)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "eye"),
    [
        ("01_test.png", "01_test_0"),
        ("01_TEST_0.tif", "01_test_0"),
        ("unet-01_test.npy", "01_test_0"),
        ("01_test_pred.png", "01_test_0"),
        ("2.png", "02_test_0"),
        ("002.gif", "02_test_0"),
        ("101_test.png", None),
        ("test.png", None),
        ("02_manual1.gif", "02_test_0"),
        ("02_h.png", None),
    ],
)
def test_a_file_belongs_to_the_eye_that_its_name_says(file, eye):
    found = match([Path(file)], named("01_test_0", "02_test_0", "11_test_0"))
    assert found.files == ({eye: Path(file)} if eye else {})
    assert len(found.unclear + found.surplus) == (eye is None)


def test_a_number_that_two_eyes_have_belongs_to_neither():
    found = match([Path("1.png")], named("01_h_0", "01_dr_0"))
    without = ["01_h_0: no file of its name", "01_dr_0: no file of its name"]
    assert found == ({}, [], without, ["1.png: could be 01_h_0 or 01_dr_0"], [])


def test_the_longer_name_wins_and_an_exact_one_before_all():
    files = [Path("eye_1_left.png"), Path("eye_1.png"), Path("eye_1_old.png")]
    paired = {"eye_1": Path("eye_1.png"), "eye_1_left": Path("eye_1_left.png")}
    surplus = ["eye_1_old.png: eye_1 has eye_1.png"]
    assert match(files, named("eye_1", "eye_1_left")) == (paired, [], [], [], surplus)


def test_two_files_for_one_eye_are_not_chosen_between():
    found = match([Path("01_test.png"), Path("01_test.npy")], named("01_test_0"))
    assert not found.files and not found.without
    assert found.several == ["01_test_0: has 2 files, 01_test.png, 01_test.npy; leave one"]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((4, 5), 3.5), "numbers from 3.5 to 3.5, not probabilities"),
        (np.full((4, 5), np.nan), "not probabilities"),
        (np.full((4, 5), -1), "whole numbers from -1 to -1"),
        (np.zeros((2, 4, 5)), "one number a pixel"),
        (np.arange(20).reshape(4, 5) % 7, "levels of 0 to 6, labels of classes"),
        (np.array([["a"] * 5] * 4), "one number a pixel"),
    ],
)
def test_arrays_that_are_no_probabilities_are_refused(tmp_path, array, message):
    np.save(tmp_path / "01_test.npy", array)
    with pytest.raises(UserError, match=message):
        read_maps(tmp_path, eyes("01_test_0"))


def test_an_array_that_would_run_code_is_refused(tmp_path):
    np.save(tmp_path / "01_test.npy", np.array([[{}]]), allow_pickle=True)
    with pytest.raises(UserError, match="01_test.npy"):
        read_maps(tmp_path, eyes("01_test_0"))


def test_a_colour_picture_is_refused(tmp_path):
    iio.imwrite(tmp_path / "01_test.png", np.tile(np.uint8([255, 0, 0]), (4, 5, 1)))
    with pytest.raises(UserError, match="a colour picture"):
        read_maps(tmp_path, eyes("01_test_0"))


def test_a_map_without_vessels_is_read_by_the_rule_of_its_folder(tmp_path):
    blank, full = np.full((4, 5), 1, np.uint8), np.tile(np.uint8([0, 200, 255, 3, 9]), (4, 1))
    iio.imwrite(tmp_path / "01_test.png", blank)
    iio.imwrite(tmp_path / "02_test.png", full)
    maps = read_maps(tmp_path, eyes("01_test_0", "02_test_0"))
    assert (maps.levels["01_test_0"] == 257).all(), "level 1 of 255, not 1 of 1"
    assert (maps.levels["02_test_0"] == full * np.uint16(257)).all()
    assert not maps.binary


@pytest.mark.parametrize(
    ("one", "other"),
    [(np.uint8(1), np.uint8(255)), (np.uint8(255), np.uint16(65535)), (np.uint8(90), np.uint8(255))],
)
@pytest.mark.parametrize("suffix", [".png", ".npy"])
def test_masks_of_other_levels_than_the_rest_of_their_folder_are_not_read_as_blank(
    suffix, one, other, tmp_path
):
    for name, level in (("01_test", one), ("02_test", other)):
        pixels = np.tile(np.array([0, 0, level, 0, 0], level.dtype), (4, 1))
        (np.save if suffix == ".npy" else iio.imwrite)(tmp_path / f"{name}{suffix}", pixels)
    with pytest.raises(
        UserError, match=f"01_test_0 has levels of 0 to {one}, others of 0 to {other}; save all"
    ):
        read_maps(tmp_path, eyes("01_test_0", "02_test_0"))


def test_a_map_of_percent_gets_a_word(tmp_path, capsys):
    iio.imwrite(tmp_path / "01_test.png", np.tile(np.uint8([0, 20, 100, 3, 9]), (4, 1)))
    read_maps(tmp_path, eyes("01_test_0"))
    assert "no probability above 0.39; percent?" in capsys.readouterr().out


@pytest.mark.parametrize("orientation, told", [(1, False), (3, True)])
def test_a_mask_that_its_exif_turns_gets_a_word(tmp_path, capsys, orientation, told):
    exif = Image.Exif()
    exif[0x0112] = orientation
    mask = np.zeros((4, 5), np.uint8)
    mask[0] = 255
    Image.fromarray(mask).save(tmp_path / "eye.png", exif=exif)
    levels = read_maps(tmp_path, eyes("eye")).levels["eye"]
    assert bool(levels[-1].all()) is told and bool(levels[0].all()) is not told
    assert ("turned as their EXIF says" in (said := capsys.readouterr().out)) is told and (
        "eye.png" in said
    ) is told


def test_folders_are_compared_eye_by_eye(new_data, theirs, tmp_path, capsys):
    for step, name in enumerate(NAMES, start=4):
        levels = iio.imread(theirs / f"{name}.png")
        levels[::step] = 0
        write_png(tmp_path / "worse" / f"{name}.png", levels)
    out = tmp_path / "out"
    assert score(new_data, out, theirs, tmp_path / "worse") == 0
    table = rows_by_image(out / "comparison.csv")
    assert list(table) == [*NAMES, "mean"]
    f1 = {
        name: {eye: float(row["f1"]) for eye, row in rows_by_image(out / name / "metrics.csv").items()}
        for name in ("probability", "worse")
    }
    for eye, row in table.items():
        assert float(row["difference_worse"]) == pytest.approx(
            f1["worse"][eye] - f1["probability"][eye], abs=2e-8
        )
        assert float(row["difference_worse"]) < -0.01
    printed = capsys.readouterr().out
    mean = float(table["mean"]["difference_worse"])
    assert f"worse - probability: mean difference of F1 {mean:+.4f} over 3 eyes (95 % interval -0." in printed
    assert "better in 0, worse in 3; Wilcoxon signed-rank p = 0.25" in printed


def test_the_interval_and_p_are_of_the_paired_differences():
    rng = np.random.default_rng(0)
    base = rng.normal(0.8, 0.05, 20)  # eyes differ far more than the two methods
    found = difference(base.tolist(), (base + rng.normal(0.004, 0.004, 20)).tolist())
    assert found.low < found.mean < found.high
    assert found.low > 0, "pairing removes the spread between the eyes"
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.004 / 20**0.5, rel=0.4)
    gains = np.round(rng.normal(0, 1, 12), 8)
    assert difference([0.0] * 12, gains.tolist()).p == wilcoxon(gains).pvalue
    assert difference([0.5, 0.6], [0.5, 0.6]).p == 1
    assert np.isnan(difference([0.5], [0.6]).p)


def test_only_eyes_that_all_folders_have_are_compared():
    rows = {
        "a": [{"image": "1", "f1": 0.5}, {"image": "2", "f1": 0.6}],
        "b": [{"image": "2", "f1": 0.7}, {"image": "3", "f1": 0.1}],
    }
    table, found = compare_scores(rows)
    assert [row["image"] for row in table] == ["2", "mean"]
    assert found["b"].mean == pytest.approx(0.1)
    with pytest.raises(UserError, match="no eye is in all of a, b"):
        compare_scores({"a": rows["a"][:1], "b": rows["b"]})


def test_folders_of_one_name_are_told_apart_and_nothing_is_overwritten(tmp_path):
    one, other = tmp_path / "unet" / "masks", tmp_path / "lwnet" / "masks"
    assert list(name_folders([one, other], tmp_path)) == ["unet_masks", "lwnet_masks"]
    with pytest.raises(UserError, match="given twice"):
        name_folders([one, one], tmp_path)
    with pytest.raises(UserError, match="would overwrite"):
        name_folders([one], one.parent)


def test_without_labels_there_is_nothing_to_score(new_data, theirs, tmp_path):
    data = shutil.copytree(new_data, tmp_path / "new_data")
    shutil.rmtree(data / "test" / "mask")
    with pytest.raises(UserError, match="no labels to score with"):
        score(data, tmp_path / "out", theirs)
    with pytest.raises(SystemExit):
        run_script(tester.main, "--masks", theirs, "--weights", "some.pth")
