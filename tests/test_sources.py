"""CHASE_DB1, STARE and HRF are found as they unpack, split as published, and trained on at DRIVE's scale."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import CPU, overlap, read_csv, run_script
from corpus import encode

import augment
import data
import test
import train
from anatomy import cameras
from anatomy.photograph import DISC_SHARE, Photograph, look_at
from data import eye_of, read_eyes
from datasets import images
from datasets.eyes import Eye, rescale
from datasets.field_of_view import estimate_fov, fov_diameter
from datasets.images import read_image, read_mask
from datasets.layouts import LAYOUTS, STARE
from datasets.published import find_data_set
from datasets.synthetic import draw_eye, write_drive
from networks.loading import load_networks
from prediction.scale import WORKING_DISC, plan_scale
from prediction.segmentation import segment
from scoring.metrics import quantize
from training.held_out import group_by_fold
from utils import UserError

CHASE_EYES = ("Image_01L", "Image_01R", "Image_02L", "Image_02R", "Image_11L", "Image_11R")
STARE_EYES = ("im0001", "im0002", "im0004")
HRF_EYES = ("01_dr", "02_h", "06_g")
DRAWN = [draw_eye(np.random.default_rng(seed), 96, 100 + 4 * seed) for seed in range(6)]
LARGE = [
    tuple(cv2.resize(part, (1320, 1200), interpolation=cv2.INTER_NEAREST) for part in DRAWN[seed])
    for seed in range(3)
]
Drawn = Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]  # photograph, vessels, field of view


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_chase(folder: Path, drawn: Drawn = DRAWN, eyes: Sequence[str] = CHASE_EYES) -> Path:
    """CHASE_DB1 as it unpacks: everything in one folder, no fields of view."""
    for eye, (photograph, vessels, _) in zip(eyes, drawn, strict=False):
        put(folder / f"{eye}.jpg", encode(photograph, "JPEG", quality=95))
        put(folder / f"{eye}_1stHO.png", encode(vessels, "PNG", "1"))
        put(folder / f"{eye}_2ndHO.png", encode(vessels[::-1], "PNG", "1"))
    return folder


def write_stare(
    folder: Path, drawn: Drawn = DRAWN, eyes: Sequence[str] = STARE_EYES, zipped: bool = True
) -> Path:
    """STARE as its three archives unpack, each into a folder of its own; no fields of view."""
    for eye, (photograph, vessels, _) in zip(eyes, drawn, strict=False):
        for name, pixels in {
            f"stare-images/{eye}.ppm": photograph,
            f"labels-ah/{eye}.ah.ppm": vessels,
            f"labels-vk/{eye}.vk.ppm": np.maximum(vessels, np.roll(vessels, 1, axis=0)),
        }.items():
            content = encode(pixels, "PPM")
            put(folder / (f"{name}.gz" if zipped else name), gzip.compress(content) if zipped else content)
    return folder


def write_flat_stare(folder: Path) -> Path:
    """STARE with all three archives unpacked into one folder, and gunzipped."""
    for file in [f for f in write_stare(folder, zipped=False).rglob("*") if f.is_file()]:
        file.rename(folder / file.name)
    return folder


def write_hrf(folder: Path, drawn: Drawn = DRAWN, eyes: Sequence[str] = HRF_EYES) -> Path:
    """HRF as all.zip unpacks: with fields of view, in colour; some suffixes are in capitals."""
    for eye, (photograph, vessels, fov) in zip(eyes, drawn, strict=False):
        suffix = "JPG" if eye.endswith("dr") else "jpg"
        put(folder / "images" / f"{eye}.{suffix}", encode(photograph, "JPEG", quality=95))
        put(folder / "manual1" / f"{eye}.tif", encode(vessels, "TIFF"))
        put(folder / "mask" / f"{eye}_mask.tif", encode(fov, "TIFF", "RGB"))
    return folder


WRITE: dict[str, Callable[[Path], Path]] = {
    "CHASE_DB1": write_chase,
    "STARE": write_stare,
    "flat STARE": write_flat_stare,
    "HRF": write_hrf,
}


def names(folder: Path) -> set[str]:
    return {eye_of(file.stem) for file in folder.iterdir()}


@pytest.mark.parametrize("layout", WRITE)
def test_a_data_set_is_known_by_what_is_in_it(layout, tmp_path):
    WRITE[layout](tmp_path / "download" / "unpacked")
    (tmp_path / "download" / "readme.txt").write_text("about these photographs")
    found = find_data_set(tmp_path / "download")
    assert found.name == layout.split()[-1]
    assert found.problems == []
    expected = {"CHASE_DB1": CHASE_EYES, "STARE": STARE_EYES, "HRF": HRF_EYES}[found.name]
    assert {eye.name for eye in found.eyes} == set(expected)
    tested = {"CHASE_DB1": {"Image_11L", "Image_11R"}, "STARE": {"im0001"}, "HRF": {"06_g"}}[found.name]
    for eye in found.eyes:
        assert eye.part == ("test" if eye.name in tested else "train")
        files = {"mask", "fov"} if found.name == "HRF" else {"mask"}
        if eye.part == "test" and found.name != "HRF":
            files |= {"second_observer"}
        assert set(eye.files) == files
        for file in (eye.image, *eye.files.values()):
            assert file.name.startswith(eye.name)


def all_names(layout: str) -> list[str]:
    """The files of a whole data set."""
    if layout == "CHASE_DB1":
        eyes = [f"Image_{child:02d}{side}" for child in range(1, 15) for side in "LR"]
        return [f"{eye}{end}" for eye in eyes for end in (".jpg", "_1stHO.png", "_2ndHO.png")]
    if layout == "STARE":
        return [f"im{n:04d}.{end}.gz" for n in STARE for end in ("ppm", "ah.ppm", "vk.ppm")]
    eyes = [f"{n:02d}_{group}" for group in ("h", "g", "dr") for n in range(1, 16)]
    return [f"{name}.tif" for eye in eyes for name in (f"images/{eye}", f"manual1/{eye}", f"mask/{eye}_mask")]


def whole(layout: str, folder: Path) -> Path:
    """All files of a data set, empty: finding and pairing goes by names."""
    for name in all_names(layout):
        put(folder / name, b"")
    return folder


def test_chase_is_split_into_its_first_20_and_its_last_8_images(tmp_path):
    found = find_data_set(whole("CHASE_DB1", tmp_path))
    in_order = [eye.part for eye in sorted(found.eyes, key=lambda eye: eye.name)]
    assert in_order == ["train"] * 20 + ["test"] * 8
    assert found.problems == []
    assert found.describe() == (
        f"CHASE_DB1 in {tmp_path}: 20 to train, 8 to test (children 01 to 10 train, the others test)"
    )


def test_every_eye_of_stare_is_tested_in_one_of_five_folds(tmp_path):
    whole("STARE", tmp_path)
    tested = []
    for fold in range(5):
        found = find_data_set(tmp_path, fold)
        assert (found.count("train"), found.count("test")) == (16, 4)
        assert f"fold {fold} of 0 to 4" in found.describe()
        tested += [eye.name for eye in found.eyes if eye.part == "test"]
    assert sorted(tested) == [f"im{n:04d}" for n in STARE]


def test_the_fold_asked_for_tests_and_gzipped_files_are_read_as_others(tmp_path):
    for zipped in (False, True):
        folder = write_stare(tmp_path / f"STARE {zipped}", zipped=zipped)
        run_script(augment.main, folder, "--stare-fold", 1, "--out", tmp_path / f"out {zipped}")
    out = tmp_path / "out True"
    assert names(out / "test" / "image") == {"im0002"}
    assert names(out / "train" / "image") == {"im0001", "im0004"}
    assert (read_image(out / "test" / "image" / "im0002_0.png") == DRAWN[1][0]).all()
    for file in out.rglob("*.png"):
        assert file.read_bytes() == (tmp_path / "out False" / file.relative_to(out)).read_bytes()


def test_the_first_five_of_each_group_of_hrf_train(tmp_path):
    found = find_data_set(whole("HRF", tmp_path))
    training = {eye.name for eye in found.eyes if eye.part == "train"}
    assert training == {f"{n:02d}_{group}" for n in range(1, 6) for group in ("h", "g", "dr")}
    assert found.count("test") == 30
    assert len({eye.number for eye in found.eyes}) == 45  # each is rotated by an angle of its own


@pytest.mark.parametrize("layout", [layout.name for layout in LAYOUTS])
def test_a_missing_eye_moves_no_other_to_the_other_side_and_is_mentioned(layout, tmp_path):
    folder = whole(layout, tmp_path)
    before = find_data_set(folder)
    gone = before.eyes[0]
    for file in [f for f in folder.rglob(f"{gone.name}*") if f.is_file()]:
        file.unlink()
    after = find_data_set(folder)
    assert after.problems == []
    parts = {eye.name: eye.part for eye in before.eyes}
    assert {eye.name: eye.part for eye in after.eyes} == {n: p for n, p in parts.items() if n != gone.name}
    assert f"only {len(parts) - 1} of {len(parts)} eyes" in after.describe()


def test_photographs_of_stare_without_labels_are_passed_over(tmp_path):
    whole("STARE", tmp_path)
    put(tmp_path / "im0006.ppm", b"")  # its site has 397 photographs, of which 20 have labels
    put(tmp_path / "labels-ah.tar.gz", b"")
    found = find_data_set(tmp_path)
    assert len(found.eyes) == 20
    assert found.problems == []


@pytest.mark.parametrize(
    ("layout", "gone", "said"),
    [
        ("CHASE_DB1", "Image_02L_1stHO.png", r"Image_02L\.jpg: no file Image_02L_1stHO in "),
        ("CHASE_DB1", "Image_02L.jpg", r"Image_02L_1stHO\.png: no photograph Image_02L in "),
        ("CHASE_DB1", "Image_11R_2ndHO.png", r"Image_11R\.jpg: no file Image_11R_2ndHO in "),
        ("STARE", "labels-ah/im0002.ah.ppm.gz", r"im0002\.ppm\.gz: no file im0002\.ah in "),
        ("STARE", "stare-images/im0004.ppm.gz", r"im0004\.ah\.ppm\.gz: no photograph im0004 in "),
        ("HRF", "manual1/02_h.tif", r"02_h\.jpg: no file manual1/02_h in "),
        ("HRF", "mask/02_h_mask.tif", r"02_h\.jpg: no file mask/02_h_mask in "),
        ("HRF", "images/06_g.jpg", r"no eyes of HRF to test"),
    ],
)
def test_incomplete_sets_are_refused_and_name_what_is_missing(layout, gone, said, tmp_path):
    folder = WRITE[layout](tmp_path / "set")
    (folder / gone).unlink()
    problems = find_data_set(folder).problems
    assert len([problem for problem in problems if re.search(said, problem)]) == 1
    missing = Path(gone).name.split(".")[0]
    assert all(missing in problem or "no eyes of HRF" in problem for problem in problems)


def test_every_problem_of_every_set_is_named_and_nothing_is_written(tmp_path):
    others = [draw_eye(np.random.default_rng(seed), 96, 100) for seed in range(6, 9)]
    chase, stare = write_chase(tmp_path / "CHASE_DB1"), write_stare(tmp_path / "STARE", others)
    gone = [chase / "Image_02L_1stHO.png", stare / "labels-ah" / "im0002.ah.ppm.gz"]
    for path in gone:
        path.rename(tmp_path / path.name)
    bad = [chase / "Image_11L.jpg", stare / "stare-images" / "im0001.ppm.gz"]
    for path in bad:
        path.write_bytes(b"no picture")
    # first what the names tell, then what is in the files
    for named in (["Image_02L_1stHO", "im0002.ah"], [path.name for path in bad]):
        with pytest.raises(UserError, match="nothing was written: 2 unusable") as error:
            run_script(augment.main, chase, stare, "--out", tmp_path / "out")
        assert all(name in str(error.value) for name in named)
        assert not list(tmp_path.glob("out/*"))
        for path in gone:
            if not path.exists():
                (tmp_path / path.name).rename(path)


def test_two_eyes_of_one_name_are_refused(tmp_path):
    one, other = write_hrf(tmp_path / "one"), write_hrf(tmp_path / "other")
    with pytest.raises(UserError, match="its name is used twice") as error:
        run_script(augment.main, one, other, "--out", tmp_path / "out")
    assert len(str(error.value).splitlines()) == 1 + 2 * len(HRF_EYES)


def test_an_eye_that_later_scripts_would_refuse_by_its_name_is_refused_at_once(tmp_path):
    for folder, pixels in zip(("images", "masks"), DRAWN[0], strict=False):
        for name in ("a", "Mean"):
            put(tmp_path / "own" / folder / f"{name}.png", encode(pixels, "PNG"))
    with pytest.raises(UserError, match=r"Mean\.png: a row of the tables is called so; rename it"):
        run_script(augment.main, tmp_path / "own", "--out", tmp_path / "out")


def test_a_folder_without_a_known_data_set_is_refused_and_the_known_are_named(tmp_path):
    put(tmp_path / "mine" / "eye.png", encode(DRAWN[0][0], "PNG"))
    with pytest.raises(UserError) as error:
        find_data_set(tmp_path / "mine")
    for part in ("mine: no data set that is known", "DRIVE", "CHASE_DB1 (Image_01L.jpg", "STARE", "HRF"):
        assert part in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_misspelt_folder_an_archive_and_several_sets_in_one_folder_are_refused(tmp_path):
    write_chase(tmp_path / "sets" / "CHASE_DB1")
    with pytest.raises(UserError, match=r"no such folder; did you mean .*CHASE_DB1\?"):
        find_data_set(tmp_path / "sets" / "CHASE_DB")
    put(tmp_path / "all.zip", b"PK")
    with pytest.raises(UserError, match=r"all\.zip: not a folder; unpack it"):
        find_data_set(tmp_path / "all.zip")
    write_hrf(tmp_path / "sets" / "HRF")
    with pytest.raises(UserError, match=r"more than one data set \(CHASE_DB1, HRF\)"):
        find_data_set(tmp_path / "sets")


def damaged(content: bytes) -> bytes:
    return content[:-6] + bytes([content[-6] ^ 0xFF]) + content[-5:]  # its checksum


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gzip.compress(encode(DRAWN[1][0], "PPM"))[:5000], "cannot be read as an image .*ended before"),
        (damaged(gzip.compress(encode(DRAWN[1][0], "PPM"))), "cannot be read as an image .*CRC"),
        (encode(DRAWN[1][0], "PPM"), "cannot be read as an image .*[Nn]ot a gzipped file"),
        (gzip.compress(b"this is no picture"), "not a TIFF, PNG"),
        (gzip.compress(encode(DRAWN[1][0], "PPM")[:5000]), "cannot be read as an image"),
        (gzip.compress(b"P6\n20000 20000\n255\n"), "more than 120,000,000 pixels"),
        (b"", "empty"),
    ],
    ids=["cut", "damaged", "not gzipped", "a text", "a cut image", "a large image", "empty"],
)
def test_a_bad_gzipped_file_is_refused_by_name_in_one_line(content, reason, tmp_path):
    folder = write_stare(tmp_path / "STARE")
    (folder / "stare-images" / "im0002.ppm.gz").write_bytes(content)
    with pytest.raises(UserError, match=rf"im0002\.ppm\.gz: .*{reason}") as error:
        run_script(augment.main, folder, "--out", tmp_path / "out")
    assert len(str(error.value).splitlines()) == 2  # the head, and the file


def test_a_gzipped_bomb_is_refused_before_it_fills_the_memory(tmp_path):
    import tracemalloc

    path = tmp_path / "im0001.ppm.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(40):
            file.write(bytes(10_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"im0001\.ppm\.gz: unpacks to more than 100,000,000 bytes"):
            read_image(path)
        assert tracemalloc.get_traced_memory()[1] < 150_000_000
    finally:
        tracemalloc.stop()


def test_copies_of_a_training_eye_and_test_eyes_as_they_are(tmp_path, capsys):
    folder, out = write_chase(tmp_path / "CHASE_DB1"), tmp_path / "out"
    run_script(augment.main, folder, "--out", out)
    assert names(out / "train" / "image") == set(CHASE_EYES[:4])
    assert len(list((out / "train" / "image").iterdir())) == 16
    assert {f.name for f in (out / "test").iterdir()} == {"image", "mask", "fov", "second_observer"}
    assert {f.name for f in (out / "train").iterdir()} == {"image", "mask", "fov"}
    for eye, (photograph, vessels, fov) in zip(CHASE_EYES, DRAWN, strict=True):
        if eye not in ("Image_11L", "Image_11R"):
            continue
        name = f"{eye}_0.png"
        assert (read_image(out / "test" / "image" / name) == read_image(folder / f"{eye}.jpg")).all()
        assert (read_mask(out / "test" / "mask" / name) == vessels).all()
        assert (read_mask(out / "test" / "second_observer" / name) == vessels[::-1]).all()
        # CHASE_DB1 has no fields of view
        assert overlap(read_mask(out / "test" / "fov" / name), fov) > 0.95
        assert read_image(out / "test" / "image" / name).shape == photograph.shape
    said = capsys.readouterr().out
    assert "CHASE_DB1" in said and "only 6 of 28 eyes: 4 to train, 2 to test" in said
    assert "DRIVE" not in said and "1st_manual" not in said


@pytest.mark.parametrize(("drawn", "smaller"), [(DRAWN, False), (LARGE, True)], ids=["enlarged", "shrunk"])
def test_training_eyes_are_brought_to_one_size_of_the_disc_and_test_eyes_keep_their_own(
    drawn, smaller, tmp_path, monkeypatch
):
    def with_disc(pixels: np.ndarray, diameter: float | None = None) -> Photograph:
        taken = look_at(pixels, diameter)
        return replace(taken, landmarks=replace(taken.landmarks, disc_diameter=0.25 * taken.diameter))

    monkeypatch.setattr(cameras, "look_at", with_disc)
    run_script(augment.main, write_hrf(tmp_path / "HRF", drawn), "--out", tmp_path / "out")
    for eye in read_eyes(tmp_path / "out" / "train", labels=True):
        number = HRF_EYES.index(eye_of(eye.name))
        assert (eye.mask.size < drawn[number][1].size) == smaller
        if eye.name.endswith("_0"):
            assert 0.25 * fov_diameter(eye.fov) == pytest.approx(WORKING_DISC, rel=0.05)
            assert overlap(eye.fov, estimate_fov(eye.image)) > 0.95
            before = drawn[number][1].mean() / drawn[number][2].mean()
            assert eye.mask.mean() / eye.fov.mean() == pytest.approx(before, rel=0.25)
    (eye,) = read_eyes(tmp_path / "out" / "test", labels=True)
    assert (eye.mask == drawn[2][1]).all() and (eye.fov == drawn[2][2]).all()
    info = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert info["disc"] == WORKING_DISC
    assert [source["name"] for source in info["sources"]] == info["rescaled"] == ["HRF"]


def test_who_knows_the_discs_of_the_data_sets_gives_them(tmp_path):
    write_drive(tmp_path / "DRIVE", train=1, test=1, height=200, width=196)
    hrf = write_hrf(tmp_path / "HRF", DRAWN)
    folders = (tmp_path / "DRIVE", hrf, "--out", tmp_path / "out", "--disc", 60)
    run_script(augment.main, *folders, "--discs", 30, 120)
    for eye in read_eyes(tmp_path / "out" / "train", labels=True):
        before = (
            DRAWN[HRF_EYES.index(eye_of(eye.name))][1].shape if eye_of(eye.name) in HRF_EYES else (200, 196)
        )
        times = 0.5 if eye_of(eye.name) in HRF_EYES else 2
        assert eye.mask.shape == tuple(round(times * side) for side in before)
    with pytest.raises(UserError, match=r"^--discs: 1 for 2 data sets; give one for each of DRIVE, HRF$"):
        run_script(augment.main, *folders, "--discs", 30)
    run_script(augment.main, tmp_path / "DRIVE", "--out", tmp_path / "alone", "--discs", 56)
    (eye, *_) = read_eyes(tmp_path / "alone" / "train", labels=True)
    assert eye.mask.shape == (400, 392), "DRIVE alone stays as it is, but not where its disc is given"


def test_the_disc_of_a_camera_is_the_median_over_its_eyes(tmp_path, monkeypatch):
    # by level; those of the third size are no discs of one camera
    discs = {40: 40.0, 50: 44.0, 60: float("nan"), 70: 90.0, 80: float("nan"), 90: 9.0, 100: 30.0, 110: 90.0}
    for level in discs:
        side = 120 if level == 80 else 100 if level < 80 else 140
        images.write_png(tmp_path / f"{level}.png", np.full((side, side, 3), level, np.uint8))

    def with_disc(pixels: np.ndarray) -> Photograph:
        taken = look_at(pixels)
        return replace(taken, landmarks=replace(taken.landmarks, disc_diameter=discs[int(pixels.max())]))

    monkeypatch.setattr(cameras, "look_at", with_disc)
    found = cameras.measure_discs([tmp_path / f"{level}.png" for level in discs])
    assert [found.pop(tmp_path / f"{level}.png") for level in (40, 50, 60, 70)] == [44] * 4
    for level, side in ((80, 120), *((level, 140) for level in (90, 100, 110))):
        assumed = DISC_SHARE * look_at(np.full((side, side, 3), level, np.uint8)).diameter
        assert found.pop(tmp_path / f"{level}.png") == pytest.approx(assumed)


def test_photographs_of_a_larger_camera_in_drives_layout_are_scaled_too(tmp_path):
    write_drive(tmp_path / "DRIVE", train=2, test=1, height=999, width=960)
    shutil.rmtree(tmp_path / "DRIVE" / "test" / "mask")
    run_script(augment.main, tmp_path / "DRIVE", "--out", tmp_path / "out")
    (eye,) = read_eyes(tmp_path / "out" / "test", labels=True)
    assert eye.image.shape == (999, 960, 3)
    info = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert (info["disc"], info["rescaled"]) == (WORKING_DISC, ["DRIVE"])


def test_size_squashes_all_alike_and_leaves_nothing_to_scale(drive, tmp_path):
    run_script(augment.main, drive, write_hrf(tmp_path / "HRF"), "--out", tmp_path / "out", "--size", 64)
    for part in ("train", "test"):
        for eye in read_eyes(tmp_path / "out" / part, labels=True):
            assert eye.image.shape == (64, 64, 3)
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["rescaled"] == []


def test_a_field_of_view_that_is_almost_nothing_is_refused(tmp_path):
    folder = write_hrf(tmp_path / "HRF")
    dot = np.zeros_like(DRAWN[0][2])
    dot[50:52, 50:52] = 255
    put(folder / "mask" / "06_g_mask.tif", encode(cv2.resize(dot, DRAWN[2][2].shape[::-1]), "TIFF", "RGB"))
    with pytest.raises(UserError, match=r"06_g_mask\.tif: 0% of it is field of view"):
        run_script(augment.main, folder, "--out", tmp_path / "out")


@pytest.fixture(scope="module")
def mixed(drive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """new_data of DRIVE, CHASE_DB1 and HRF together."""
    folder = tmp_path_factory.mktemp("mixed")
    others = [draw_eye(np.random.default_rng(seed), 96, 100) for seed in range(6, 9)]
    sets = drive, write_chase(folder / "CHASE_DB1"), write_hrf(folder / "HRF", others)
    run_script(augment.main, *sets, "--disc", 16, "--out", folder / "new_data")
    return folder / "new_data"


def test_drives_test_eyes_are_the_same_alone_and_beside_others(new_data, mixed):
    for file in [f for f in (new_data / "test").rglob("*.png") if f.is_file()]:
        assert (mixed / file.relative_to(new_data)).read_bytes() == file.read_bytes()
    there = names(mixed / "train" / "image") | names(mixed / "test" / "image")
    drive = {f"{n}_training" for n in range(21, 28)} | {f"{n:02d}_test" for n in range(1, 4)}
    assert there == drive | set(CHASE_EYES) | set(HRF_EYES)
    info = json.loads((new_data / "dataset.json").read_text())
    assert (info["disc"], info["rescaled"]) == (None, [])


def test_unlabelled_test_eyes_of_drive_are_left_out_beside_labelled_ones(drive, tmp_path, capsys):
    own = shutil.copytree(drive, tmp_path / "DRIVE")
    for folder in ("1st_manual", "2nd_manual"):
        shutil.rmtree(own / "test" / folder)
    chase, out = write_chase(tmp_path / "CHASE_DB1"), tmp_path / "out"
    run_script(augment.main, chase, "--drive", own, "--out", out)
    assert names(out / "test" / "image") == {"Image_11L", "Image_11R"}
    assert names(out / "train" / "image") == {f"{n}_training" for n in range(21, 28)} | set(CHASE_EYES[:4])
    said = capsys.readouterr().out
    assert "Its eyes were left out" in said
    assert re.search(
        r"DRIVE in .*; discs of \d+ pixels set the scale\nCHASE_DB1 in .*; discs of \d+ to \d+ pix", said
    )
    counted = [
        (s["name"], s["train"], s["test"]) for s in json.loads((out / "dataset.json").read_text())["sources"]
    ]
    assert counted == [("DRIVE", 7, 0), ("CHASE_DB1", 4, 2)]
    assert len(read_eyes(out / "test", labels=True)) == 2


def test_several_sources_are_trained_on_and_scored_together(mixed, tmp_path, capsys):
    files, results = tmp_path / "files", tmp_path / "results"
    tiny = ["--epochs=1", "--crops=4", "--crop=32", "--width=2", "--depth=1", "--device=cpu"]
    assert run_script(train.main, "--data", mixed, "--files", files, *tiny) == 0
    split = json.loads((files / "split.json").read_text())
    assert len(split["train"]) + len(split["validation"]) == 4 * (7 + 4 + 2)
    checkpoint = files / "checkpoint.pth"
    assert run_script(test.main, "--data", mixed, "--weights", checkpoint, "--results", results) == 0
    assert "The second observer drew 5 of the 6 images" in capsys.readouterr().out
    scored = {row["image"] for row in read_csv(results / "metrics.csv")}
    assert scored > {"01_test", "Image_11L", "Image_11R", "06_g", "mean", "second_observer"}

    model, _ = load_networks([checkpoint], None, CPU)
    testing = read_eyes(mixed / "test", labels=True)
    known = cameras.cameras_of(cameras.sizes_of(look_at(eye.image)) for eye in testing)
    for eye in testing:
        found = images.read_image(results / "masks" / f"{eye.result_name}.png")
        assert found.shape == eye.image.shape  # truth is not resized to be scored
        levels = cv2.imread(str(results / "probability" / f"{eye.result_name}.png"), cv2.IMREAD_UNCHANGED)
        scale = plan_scale(look_at(eye.image), model, known).factor
        assert (levels == quantize(segment(model, eye.image, eye.fov, views=8, scale=scale))).all()


@pytest.mark.parametrize("seed", range(10))
def test_both_eyes_of_a_child_are_on_the_same_side(seed):
    children = [f"Image_{child:02d}{side}_{k}" for child in range(1, 11) for side in "LR" for k in range(4)]
    others = [
        f"{eye}_{k}" for eye in ("21_training", "22_training", "im0002", "01_h", "01_dr") for k in range(4)
    ]
    split = data.split_by_eye(children + others, seed=seed)
    assert sorted(split["train"] + split["validation"]) == sorted(children + others)
    sides = [{name[:8] for name in split[side] if name.startswith("Image")} for side in split]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == {f"Image_{child:02d}" for child in range(1, 11)}


@pytest.mark.parametrize("folds", [2, 3, 5, 12])
def test_both_eyes_of_a_child_are_held_out_by_the_same_fold(folds):
    children = [f"Image_{child:02d}{side}_{k}" for child in range(1, 11) for side in "LR" for k in range(4)]
    others = [f"{eye}_{k}" for eye in ("21_training", "im0002") for k in range(4)]
    held_out = []
    for group in group_by_fold(children + others, folds):
        trained = set(children + others) - set(group.held_out)
        assert not {data.person_of(n) for n in trained} & {data.person_of(n) for n in group.held_out}
        assert group.held_out
        held_out += group.held_out
    assert sorted(held_out) == sorted(children + others)
    with pytest.raises(UserError, match="only 12 labelled eyes of different persons"):
        group_by_fold(children + others, 13)


def test_cross_validation_says_which_scores_are_at_drives_scale(tmp_path, capsys):
    chase = write_chase(tmp_path / "CHASE_DB1", DRAWN, ("Image_01L", "Image_02L", "Image_02R", "Image_11L"))
    run_script(augment.main, chase, "--out", tmp_path / "new_data")
    tiny = ["--epochs=1", "--crops=2", "--crop=32", "--width=2", "--depth=1", "--device=cpu"]
    folders = ["--data", tmp_path / "new_data", "--files", tmp_path / "files"]
    assert run_script(train.main, *folders, *tiny, "--folds=2") == 0
    assert "Scores of resized truth (CHASE_DB1)" in capsys.readouterr().out
    rows = {row["eye"]: row for row in read_csv(tmp_path / "files" / "folds.csv")}
    assert {eye: rows[eye]["fold"] for eye in CHASE_EYES if eye in rows} == {
        "Image_01L": "0",
        "Image_02L": "1",
        "Image_02R": "1",
    }
    means = [float(rows["Image_01L"]["f1"]), np.mean([float(rows[f"Image_02{side}"]["f1"]) for side in "LR"])]
    assert float(rows["std_of_folds"]["f1"]) == pytest.approx(np.std(means, ddof=1), abs=1e-6)


def lines(width: int) -> Eye:
    """A disc of 1200 pixels with vertical vessels this wide, every 60 pixels."""
    fov = cv2.circle(np.zeros((1240, 1240), np.uint8), (620, 620), 600, 255, -1)
    mask = np.zeros_like(fov)
    for column in range(60, 1200, 60):
        mask[:, column : column + width] = 255
    mask &= fov
    return Eye("lines", np.dstack([255 - mask] * 3), fov, mask, mask)


@pytest.mark.parametrize(
    ("scale", "width"), [(1 / 2, 3), (1 / 2, 1), (0.3, 4), (0.3, 2), (1 / 6, 7), (1 / 6, 3)]
)
def test_thin_vessels_survive_when_an_eye_shrinks(scale, width):
    eye = lines(width)
    small = rescale(eye, scale)
    assert small.image.shape[:2] == small.fov.shape == small.mask.shape == small.second.shape
    assert small.fov.shape == (round(1240 * scale),) * 2
    for part in (small.fov, small.mask, small.second):
        assert set(np.unique(part)) == {0, 255}
    inside = small.mask[round(300 * scale) : round(900 * scale), round(110 * scale) : round(1100 * scale)] > 0
    starts = (inside[:, 1:] & ~inside[:, :-1]).sum(axis=1)
    assert (starts == 17).all()  # each of them, whole in every row
    assert 1 <= inside.sum() / starts.sum() <= width * scale + 1  # pixels across
    # where the photograph shows that they cover a quarter, and everywhere there
    assert (small.image[small.mask > 0] < 195).all()
    assert (small.image[(small.mask == 0) & (small.fov > 0)] > 190).all()


def test_an_eye_is_enlarged_with_masks_of_0_and_255():
    photograph, vessels, fov = DRAWN[0]
    large = rescale(Eye("x", photograph, fov, vessels), 5.5)
    assert large.image.shape == (*large.mask.shape, 3) == (528, 550, 3)
    assert set(np.unique(large.mask)) == {0, 255}
    assert large.second is None
    assert large.mask.mean() == pytest.approx(vessels.mean(), rel=0.05)


@pytest.mark.parametrize("disc", ['"half"', "-1.0", "NaN", "[1]", "1e9"])
def test_a_damaged_size_of_the_disc_is_refused(disc, tmp_path):
    keys = '"size": null, "seed": 42, "test_labels": false, "train": 4, "test": 1'
    (tmp_path / "dataset.json").write_text(f'{{{keys}, "disc": {disc}}}')
    with pytest.raises(UserError, match=r"dataset\.json: its size of the disc is damaged"):
        data.read_working_disc(tmp_path)


def test_a_fold_that_is_not_there_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as status:
        run_script(augment.main, write_stare(tmp_path / "STARE"), "--stare-fold", 5, "--out", tmp_path / "out")
    assert status.value.code == 2
    assert "--stare-fold: 5 is out of range: give 0 to 4" in capsys.readouterr().err
