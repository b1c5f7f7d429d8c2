"""Arteries and veins: every encoding is read, wrong labels are refused, maps move with the eye and score."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import rows_by_image, run_script
from PIL import Image

import augment
import test as tester
from data import read_eyes
from datasets.by_folder import pair_kinds
from datasets.eyes import Eye, load_eye, rescale, squash
from datasets.images import write_png
from datasets.kinds import ARTERY, BOTH, NONE, UNCERTAIN, VEIN, read_kinds, split_kinds
from datasets.layouts import Source
from datasets.masks import as_mask
from datasets.published import find_data_set
from datasets.synthetic import draw_labelled_eye, write_drive
from research import kinds_protocols
from scoring.kinds import count_kinds, kinds_scores
from utils import UserError

PHOTOGRAPH, MASK, FOV, KINDS = draw_labelled_eye(np.random.default_rng(3), 192, 184)
KINDS[60:80, 60:80][MASK[60:80, 60:80] > 0] = UNCERTAIN
PALETTE = np.zeros((256, 3), np.uint8)
PALETTE[[ARTERY, VEIN, BOTH, UNCERTAIN]] = (255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 255, 255)
COLOURED = PALETTE[KINDS]


def with_palette(path: Path) -> None:
    image = Image.fromarray(np.minimum(KINDS, 4))
    image.putpalette([int(level) for kind in (NONE, ARTERY, VEIN, BOTH, UNCERTAIN) for level in PALETTE[kind]])
    image.save(path)


def on_white(path: Path) -> None:
    swapped = COLOURED.copy()
    swapped[KINDS == NONE], swapped[KINDS == UNCERTAIN] = 255, 0
    write_png(path, swapped)


def noisy(path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 15, COLOURED.shape)
    write_png(path, (COLOURED + noise).clip(0, 255).astype(np.uint8))


def magenta(path: Path) -> None:
    write_png(path, np.where((KINDS == BOTH)[..., None], (255, 0, 255), COLOURED).astype(np.uint8))


ENCODINGS: dict[str, Callable[[Path], object]] = {
    "levels.png": lambda path: write_png(path, KINDS),
    "levels_16_bits.png": lambda path: write_png(path, KINDS.astype(np.uint16)),
    "levels.gif": lambda path: Image.fromarray(KINDS).save(path),
    "colours.png": lambda path: write_png(path, COLOURED),
    "colours_lzw.tif": lambda path: Image.fromarray(COLOURED).save(path, compression="tiff_lzw"),
    "palette.png": with_palette,
    "palette.gif": with_palette,
    "transparent.png": lambda path: Image.fromarray(
        np.dstack([COLOURED, 255 * (KINDS > 0).astype(np.uint8)])
    ).save(path),
    "on_white.png": on_white,
    "noisy.png": noisy,
    "magenta_crossings.png": magenta,
    "colours_16_bits.png": lambda path: write_png(path, COLOURED.astype(np.uint16) * 257),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_usual_encoding_is_read(name, tmp_path):
    assert {*np.unique(KINDS)} == {NONE, ARTERY, VEIN, BOTH, UNCERTAIN}
    ENCODINGS[name](tmp_path / name)
    kinds = read_kinds(tmp_path / name)
    assert kinds.dtype == np.uint8
    assert np.array_equal(kinds, KINDS)


@pytest.mark.parametrize("quality", [60, 90])
def test_a_jpeg_keeps_the_kinds(quality, tmp_path):
    large = cv2.resize(COLOURED, None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST)
    Image.fromarray(large).save(tmp_path / "colours.jpg", quality=quality)
    same = read_kinds(tmp_path / "colours.jpg")[1::3, 1::3] == KINDS
    assert same[MASK == 0].mean() > 0.99
    assert same[MASK > 0].mean() > 0.95


def other(colour: tuple[int, int, int]) -> np.ndarray:
    """Veins in another colour."""
    return np.where((KINDS == VEIN)[..., None], colour, COLOURED).astype(np.uint8)


REFUSED = {
    "arteries alone": (np.where(KINDS == ARTERY, ARTERY, NONE), r"marks no veins; use red for arteries"),
    "veins and crossings": (np.where(KINDS == ARTERY, NONE, KINDS), r"marks no arteries; use red"),
    "blank": (np.zeros_like(KINDS), r"marks no arteries and no veins"),
    "a vessel mask": (MASK, r"marks no arteries and no veins"),
    "yellow": (other((255, 255, 0)), r"it has the colour 255, 255, 0\); use red"),
    "cyan": (other((0, 255, 255)), r"it has the colour 0, 255, 255\)"),
    "orange": (other((255, 130, 0)), r"it has the colour 255, 136, 0\)"),
    "grey levels": (np.where(KINDS == VEIN, 128, 255 * (KINDS > 0)), r"marks no arteries and no veins"),
    "photograph": (PHOTOGRAPH, r"not a map of arteries|marks no"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_map_of_something_else_is_refused_in_a_line(what, tmp_path):
    pixels, reason = REFUSED[what]
    write_png(tmp_path / "map.png", pixels.astype(np.uint8))
    with pytest.raises(UserError) as refusal:
        read_kinds(tmp_path / "map.png")
    assert re.search(rf"^{re.escape(str(tmp_path))}.map\.png: .*{reason}", str(refusal.value))
    assert "\n" not in str(refusal.value)


def test_thin_vessels_of_each_kind_survive_shrinking():
    kinds = np.zeros((120, 120), np.uint8)
    kinds[:, 10:20:4], kinds[:, 50:60:4], kinds[:, 90:94] = ARTERY, VEIN, UNCERTAIN
    eye = Eye("", np.zeros((120, 120, 3), np.uint8), np.full((120, 120), 255, np.uint8), kinds=kinds)
    small = rescale(eye, 0.3).kinds
    assert small is not None and small.shape == (36, 36)
    for columns, kind in ((slice(8), ARTERY), (slice(14, 19), VEIN), (slice(26, 30), UNCERTAIN)):
        assert {*np.unique(small[:, columns])} - {NONE} == {kind}
    # a pixel wide, every line is still there in every row
    assert (small[:, :8] == ARTERY).sum(axis=1).min() >= 3
    assert (small[:, 14:19] == VEIN).sum(axis=1).min() >= 3
    for changed in (rescale(eye, 1.6), squash(eye, 77)):
        assert changed.kinds is not None and changed.kinds.shape == changed.fov.shape
        assert {*np.unique(changed.kinds)} == {NONE, ARTERY, VEIN, UNCERTAIN}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic DRIVE with arteries and veins."""
    folder = tmp_path_factory.mktemp("labelled") / "DRIVE"
    write_drive(folder, train=2, test=1, height=192, width=184, arteries_veins=True)
    return folder


def prepare(out: Path, *arguments: object) -> Path:
    assert run_script(augment.main, *arguments, "--out", out) is None
    return out


@pytest.mark.parametrize("flags", [[], ["--disc", "40"]], ids=["as it is", "enlarged"])
def test_labels_move_with_the_photograph(labelled, flags, tmp_path):
    data = prepare(tmp_path / "new", labelled, *flags)
    eyes = read_eyes(data / "train", True) + read_eyes(data / "test", True)
    assert len(eyes) == 2 * 4 + 1
    for eye in eyes:
        # every vessel of these eyes has a kind, so both maps are one drawing wherever both were moved alike
        assert eye.kinds is not None and ((eye.kinds > 0) == (eye.truth > 0)).mean() > 0.998
        assert {*np.unique(eye.kinds)} == {NONE, ARTERY, VEIN, BOTH}
        # arteries are paler than veins in the photograph, whatever became of it
        red, wide = eye.image[..., 1], cv2.erode(eye.truth, np.ones((3, 3), np.uint8)) > 0
        artery, vein = (np.median(red[(eye.kinds == kind) & (eye.fov > 0) & wide]) for kind in (ARTERY, VEIN))
        assert artery > vein


def rite(folder: Path) -> None:
    """As RITE unpacks: AV_groundTruth/training/{images,av,vessel}, all with the photographs' names."""
    (folder / "AV_groundTruth").mkdir()
    for part in ("training", "test"):
        (folder / part / "arteries_veins").rename(folder / part / "av")
        for path in (folder / part / "av").iterdir():
            write_png(path, PALETTE[read_kinds(path)])
        for path in (folder / part / "1st_manual").iterdir():
            path.rename(path.with_name(path.name.replace("manual1", part)))
        (folder / part / "1st_manual").rename(folder / part / "vessel")
        shutil.rmtree(folder / part / "mask")
        (folder / part).rename(folder / "AV_groundTruth" / part)


def two_masks(folder: Path) -> None:
    """Masks of each kind in folders of their own."""
    for part in ("training", "test"):
        for path in (folder / part / "arteries_veins").iterdir():
            kinds = read_kinds(path)
            for name, kind in (("artery", ARTERY), ("vein", VEIN)):
                write_png(folder / part / name / path.name, as_mask(np.isin(kinds, (kind, BOTH))))
        shutil.rmtree(folder / part / "arteries_veins")


@pytest.mark.parametrize("arrange", [rite, two_masks])
def test_labels_are_found_beside_the_photographs(labelled, arrange, tmp_path, capsys):
    folder = shutil.copytree(labelled, tmp_path / "DRIVE")
    arrange(folder)
    data = prepare(tmp_path / "new", folder)
    assert "arteries and veins: labels of 2 of 2 training eyes and 1 of 1 test eyes" in capsys.readouterr().out
    for path in (labelled / "training" / "arteries_veins").iterdir():
        written = data / "train" / "arteries_veins" / f"{path.stem}_0.png"
        assert np.array_equal(cv2.imread(str(written), -1), read_kinds(path))


def test_labels_elsewhere_are_paired_by_name_and_some_eyes_have_none(labelled, tmp_path, capsys):
    folder = shutil.copytree(labelled, tmp_path / "DRIVE")
    elsewhere = tmp_path / "drawn"
    shutil.move(folder / "training" / "arteries_veins", elsewhere)
    shutil.rmtree(folder / "test" / "arteries_veins")
    (elsewhere / "22_training.png").rename(elsewhere / "99_training.png")
    data = prepare(tmp_path / "new", folder, "--arteries-veins", elsewhere)
    said = capsys.readouterr()
    assert "arteries and veins: labels of 1 of 2 training eyes and 0 of 1 test eyes" in said.out
    assert "99_training.png: no eye has this name" in said.err
    without = {eye.name for eye in read_eyes(data / "train", True) if eye.kinds is None}
    assert without == {f"22_training_{k}" for k in range(4)}


def test_a_folder_without_labels_of_these_photographs_is_refused(tmp_path):
    eyes = [Source("train", "01_h", tmp_path / "01_h.jpg", 1)]
    write_png(tmp_path / "drawn" / "21_training.png", KINDS)
    problems, surplus = pair_kinds([tmp_path / "drawn"], eyes)
    assert problems == [
        f"--arteries-veins {tmp_path / 'drawn'}: no file of it has the name of a photograph, such as 01_h"
    ]
    assert [line.split(": ")[1] for line in surplus] == ["no eye has this name"]


def test_hrf_knows_its_arteries_and_veins(tmp_path):
    for eye in ("01_h", "06_h"):
        write_png(tmp_path / "images" / f"{eye}.png", PHOTOGRAPH)
        write_png(tmp_path / "manual1" / f"{eye}.png", MASK)
    write_png(tmp_path / "HRF_AV_GT" / "01_h_AVmanual.png", COLOURED)
    write_png(tmp_path / "arteries_veins" / "06_h.png", COLOURED)
    found = find_data_set(tmp_path)
    assert found.problems == []
    assert [eye.files["arteries_veins"].name for eye in found.eyes] == ["01_h_AVmanual.png", "06_h.png"]


def test_own_labels_of_both_kinds_are_vessel_masks_too(tmp_path):
    for name in ("p1", "p2"):
        write_png(tmp_path / "mine" / "images" / f"{name}.png", PHOTOGRAPH)
        write_png(tmp_path / "mine" / "arteries_veins" / f"{name}.png", COLOURED)
    found = find_data_set(tmp_path / "mine")
    assert found.problems == []
    assert [{*eye.files} for eye in found.eyes] == [{"mask", "arteries_veins"}] * 2


def test_own_masks_of_both_kinds_are_vessel_masks_too(tmp_path):
    write_png(tmp_path / "p1.png", PHOTOGRAPH)
    kinds = split_kinds(KINDS)
    for name, kind in zip(("artery", "vein"), kinds, strict=True):
        write_png(tmp_path / f"p1_{name}.png", as_mask(kind))
    (source,) = find_data_set(tmp_path).eyes
    eye = load_eye(source.name, source.image, source.files)
    assert (eye.mask == as_mask(kinds[0] | kinds[1])).all() and (eye.kinds > 0).any()


def spoil_other_size(path: Path) -> None:
    write_png(path, read_kinds(path)[:-2])


def spoil_other_eye(path: Path) -> None:
    write_png(path, np.ascontiguousarray(read_kinds(path)[::-1]))


def spoil_one_kind(path: Path) -> None:
    write_png(path, np.minimum(read_kinds(path), ARTERY))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_other_size, "184x190 pixels, but 22_training.tif has 184x192"),
        (spoil_other_eye, "upside down it does"),
        (spoil_one_kind, "marks no veins"),
    ],
)
def test_labels_of_no_use_are_refused_and_nothing_is_written(labelled, spoil, reason, tmp_path):
    folder = shutil.copytree(labelled, tmp_path / "DRIVE")
    spoil(folder / "training" / "arteries_veins" / "22_training.png")
    with pytest.raises(UserError, match=rf"22_training\.png: .*{reason}"):
        prepare(tmp_path / "new", folder)
    assert not (tmp_path / "new" / "train").exists()


def test_a_mask_of_one_kind_needs_the_other(labelled, tmp_path):
    folder = shutil.copytree(labelled, tmp_path / "DRIVE")
    two_masks(folder)
    (folder / "training" / "vein" / "22_training.png").unlink()
    with pytest.raises(UserError, match=r"artery.22_training\.png: no file of the veins beside these arteries"):
        prepare(tmp_path / "new", folder)


def drawn_as(kinds: np.ndarray, artery: int, vein: int) -> np.ndarray:
    """The map with its arteries and its veins called something else."""
    called = kinds.copy()
    called[kinds == ARTERY], called[kinds == VEIN] = artery, vein
    return called


def scores_of(called: np.ndarray, truth: np.ndarray = KINDS) -> dict[str, float]:
    return kinds_scores(count_kinds(*split_kinds(called), truth, FOV))


def test_the_truth_itself_scores_one_and_everything_swapped_none_on_found_pixels():
    assert {*scores_of(KINDS).values()} == {1}
    swapped = scores_of(drawn_as(KINDS, VEIN, ARTERY))
    assert [swapped[c] for c in ("accuracy", "balanced_accuracy", "centre_accuracy")] == [0, 0, 0]
    assert swapped["found"] == swapped["decided"] == 1
    # crossings are right all the same
    assert 0 < swapped["f1_mean"] < 0.4


def test_all_called_veins_is_half_right_in_balance():
    scores = scores_of(drawn_as(KINDS, VEIN, VEIN))
    assert scores["balanced_accuracy"] == 0.5
    assert scores["found"] == 1
    assert scores["accuracy"] == (KINDS == VEIN).sum() / ((KINDS == VEIN) | (KINDS == ARTERY)).sum()
    assert scores["f1_artery"] < 0.4 < scores["f1_vein"]


def test_what_is_called_both_or_none_is_not_found_and_costs_f1_only():
    for called in (BOTH, NONE):
        scores = scores_of(drawn_as(KINDS, called, VEIN))
        assert scores["accuracy"] == 1
        assert scores["found"] == (KINDS == VEIN).sum() / ((KINDS == VEIN) | (KINDS == ARTERY)).sum()
        assert scores["decided"] < 1 == scores["centre_accuracy"]
        assert scores["f1_mean"] < 1


def test_vessels_of_uncertain_kind_count_nowhere():
    called = KINDS.copy()
    called[KINDS == UNCERTAIN] = ARTERY
    assert {*scores_of(called).values()} == {1}


def test_on_centre_lines_a_wide_vessel_weighs_no_more_than_a_thin_one():
    truth = np.zeros((40, 100), np.uint8)
    truth[5:14], truth[30] = ARTERY, VEIN
    called = np.where(truth == VEIN, ARTERY, truth)
    scores = kinds_scores(count_kinds(*split_kinds(called), truth, np.ones_like(truth)))
    assert scores["accuracy"] == 0.9
    assert scores["centre_accuracy"] == pytest.approx(0.5, abs=0.03)  # lines of wide vessels end before these
    half = np.where(np.arange(100) < 50, called, NONE)
    scores = kinds_scores(count_kinds(*split_kinds(half), truth, np.ones_like(truth)))
    assert scores["decided"] == pytest.approx(0.5, abs=0.03)


def test_counts_are_those_of_the_formulas_and_add_up_to_the_pooled_scores():
    rng = np.random.default_rng(0)
    counts, wholes = [], []
    for shape in ((40, 30), (20, 50)):
        truth = rng.choice([NONE, ARTERY, VEIN, BOTH, UNCERTAIN], shape, p=[0.5, 0.2, 0.2, 0.05, 0.05]).astype(
            np.uint8
        )
        artery, vein, fov = (rng.random(shape) < p for p in (0.3, 0.3, 0.8))
        counts.append(count_kinds(artery, vein, truth, fov))
        wholes.append((artery, vein, truth, fov))
        scores = kinds_scores(counts[-1])
        fov = fov & (truth != UNCERTAIN)
        for name, called, kind in (("artery", artery, ARTERY), ("vein", vein, VEIN)):
            true = ((truth == kind) | (truth == BOTH)) & fov
            assert scores[f"f1_{name}"] == 2 * (called & true).sum() / ((called & fov).sum() + true.sum())
        alone = fov & ((truth == ARTERY) | (truth == VEIN))
        one = alone & (artery != vein)
        assert scores["found"] == one.sum() / alone.sum()
        assert scores["accuracy"] == (one & (artery == (truth == ARTERY))).sum() / one.sum()
    # one picture of both has the same pixels, but not the same centre lines
    artery, vein, truth, fov = (
        np.concatenate([part.ravel() for part in parts])[None] for parts in zip(*wholes, strict=True)
    )
    pooled, together = kinds_scores(sum(counts)), kinds_scores(count_kinds(artery, vein, truth, fov))
    for column in ("f1_artery", "f1_vein", "f1_mean", "accuracy", "balanced_accuracy", "found"):
        assert pooled[column] == together[column]


def test_the_protocols_of_papers_agree_on_the_truth_and_on_nothing_else():
    eye = Eye("", PHOTOGRAPH, FOV, MASK, kinds=KINDS)
    assert {*kinds_protocols.protocols(eye, KINDS).values()} == {1}
    called, rng = KINDS, np.random.default_rng(0)
    for spoil in [*kinds_protocols.SPOILT.values()][-1]:
        called = spoil(called, rng)
    scores = kinds_protocols.protocols(eye, called)
    assert scores["F1, all pixels"] == scores_of(called)["f1_mean"] < scores["accuracy, found pixels"] - 0.1
    assert scores["accuracy, missed pixels are wrong"] == pytest.approx(
        scores["accuracy, found pixels"] * scores["found"]
    )
    assert scores["F1, crossings in no kind"] != scores["F1, all pixels"]


@pytest.fixture(scope="module")
def augmented(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("augmented") / "new", labelled)


def score(data: Path, folder: Path) -> int | None:
    """Score the masks in the folder `theirs`; results go to `scored`."""
    flags = ("--data", data, "--results", folder / "scored", "--masks", folder / "theirs")
    return run_script(tester.main, *flags)


def write_coloured(folder: Path, kinds: np.ndarray) -> None:
    write_png(folder / "01_test_av.png", PALETTE[kinds])


def write_both_folders(folder: Path, kinds: np.ndarray) -> None:
    for name, drawn in zip(("arteries", "veins"), split_kinds(kinds), strict=True):
        write_png(folder / name / "01_test.png", as_mask(drawn))


def write_both_names(folder: Path, kinds: np.ndarray) -> None:
    for name, drawn in zip(("artery", "vein"), split_kinds(kinds), strict=True):
        write_png(folder / f"01_test_{name}.png", as_mask(drawn))


def write_as_predicted(folder: Path, kinds: np.ndarray) -> None:
    """Beside masks of all vessels and pictures."""
    write_both_folders(folder, kinds)
    write_png(folder / "masks" / "01_test.png", as_mask(kinds > 0))
    write_png(folder / "01_test.png", PALETTE[kinds])


@pytest.mark.parametrize("write", [write_coloured, write_both_folders, write_both_names, write_as_predicted])
def test_anybodys_arteries_and_veins_are_scored(augmented, write, tmp_path, capsys):
    truth = read_kinds(augmented / "test" / "arteries_veins" / "01_test_0.png")
    called = drawn_as(truth, ARTERY, ARTERY)
    called[:90] = truth[:90]
    write(tmp_path / "theirs", called)
    score(augmented, tmp_path)
    rows = rows_by_image(tmp_path / "scored" / "arteries_veins.csv")
    assert [*rows] == ["01_test", "mean", "pooled"]
    fov = cv2.imread(str(augmented / "test" / "fov" / "01_test_0.png"), -1)
    expected = kinds_scores(count_kinds(*split_kinds(called), truth, fov))
    for row in rows.values():
        assert {c: float(row[c]) for c in expected} == pytest.approx(expected)
    assert f"F1 of arteries: {expected['f1_artery']:.4f}" in capsys.readouterr().out
    vessels = rows_by_image(tmp_path / "scored" / "metrics.csv")["01_test"]
    assert float(vessels["f1"]) == pytest.approx(1, abs=2e-3), "every vessel was found"


def test_vessel_masks_have_no_scores_of_arteries_and_veins(augmented, tmp_path):
    (tmp_path / "theirs").mkdir()
    shutil.copy(augmented / "test" / "mask" / "01_test_0.png", tmp_path / "theirs" / "01_test.png")
    score(augmented, tmp_path)
    assert (tmp_path / "scored" / "metrics.csv").exists()
    assert not (tmp_path / "scored" / "arteries_veins.csv").exists()


def test_a_mask_of_one_kind_without_the_other_is_named(augmented, tmp_path, capsys):
    theirs = tmp_path / "theirs"
    write_as_predicted(theirs, read_kinds(augmented / "test" / "arteries_veins" / "01_test_0.png"))
    (theirs / "veins" / "01_test.png").rename(theirs / "veins" / "99_test.png")
    assert score(augmented, tmp_path) == 2
    assert "of 01_test_0 a mask of one kind, and no right one of the other" in capsys.readouterr().err
    assert not (tmp_path / "scored" / "arteries_veins.csv").exists()


def test_a_mask_of_one_kind_of_another_size_is_named(augmented, tmp_path):
    truth = read_kinds(augmented / "test" / "arteries_veins" / "01_test_0.png")
    write_both_folders(tmp_path / "theirs", truth)
    write_png(tmp_path / "theirs" / "veins" / "01_test.png", as_mask(truth[:-1] > 0))
    with pytest.raises(UserError, match=r"veins.01_test\.png: 184x191 pixels, but 01_test_0 has 184x192; not"):
        score(augmented, tmp_path)
