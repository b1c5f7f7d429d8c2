"""What predict.py says of a photograph besides its mask: measures, how sure it is, doubts, what made it."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import read_csv, rows_by_image, run_script

import predict
from datasets.field_of_view import estimate_fov
from datasets.images import write_png
from datasets.synthetic import draw_eye
from measures.doubts import confidence, doubts, features, uncertainty
from measures.table import list_doubtful
from measures.vessels import measure, prepare
from research import spoilt
from scoring import metrics
from system.files import write_csv

GOOD = {"vessel_share": 0.12, "largest_tree": 0.9, "expected_f1": 0.8}


@pytest.fixture(scope="module")
def eyes() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Photograph, vessel mask and field of view of drawn eyes."""
    return [draw_eye(np.random.default_rng(seed), 400, 390) for seed in range(3)]


def reasons(photograph: np.ndarray, mask: np.ndarray, row: dict[str, float] = GOOD) -> list[str]:
    return doubts(features(photograph, estimate_fov(photograph), mask), row)


def test_a_good_photograph_is_not_doubtful(eyes):
    assert [reasons(photograph, mask) for photograph, mask, _ in eyes] == [[]] * 3


CAUGHT = {
    "blur": "very blurred",
    "dark": "very dark",
    "noise": "very noisy",
    "jpeg": "blocks: compressed too much",
    "enlarged": "enlarged from few pixels",
    "inverted": "vessels lighter than the retina: an angiogram?",
    "crop": "no border found: scale is a guess",
}


@pytest.mark.parametrize("kind", CAUGHT)
def test_a_spoilt_photograph_is_doubtful_for_the_right_reason(eyes, kind):
    for number, (photograph, mask, fov) in enumerate(eyes):
        bad = spoilt.SPOILS[kind](photograph, fov, 1.0, np.random.default_rng(number))
        mask = mask[spoilt.middle(mask.shape, fov)] if kind in spoilt.CUT else mask
        assert CAUGHT[kind] in reasons(np.ascontiguousarray(bad), np.ascontiguousarray(mask))


@pytest.mark.parametrize("kind", spoilt.ELSE)
def test_a_picture_of_something_else_is_doubtful(kind):
    picture = spoilt.ELSE[kind](np.random.default_rng(0))
    assert "not round and red: a fundus photograph?" in reasons(picture, np.zeros(picture.shape[:2], np.uint8))


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("vessel_share", 0.01, "hardly any vessel"),
        ("largest_tree", 0.21, "largest tree holds only 21%"),
        ("expected_f1", 0.31, "expected F1 only 0.31"),
    ],
)
def test_odd_results_of_a_good_photograph_are_doubtful(eyes, column, value, reason):
    photograph, mask, _ = eyes[0]
    assert reasons(photograph, mask, GOOD | {column: value}) == [reason]


@pytest.mark.parametrize("gap", ["wide", "none", "above each other", "caption below", "smaller", "they touch"])
def test_two_eyes_in_one_picture_are_doubtful(eyes, gap):
    one, other = eyes[0][0], eyes[1][0]
    if gap == "smaller":
        other = np.pad(cv2.resize(other, (260, 267), interpolation=cv2.INTER_AREA), ((0, 133), (0, 0), (0, 0)))
    if gap == "they touch":
        one, other = one[:, :340], other[:, 60:]  # each cut where they meet
    parts = [one, np.zeros((400, 60, 3), np.uint8), other] if gap == "wide" else [one, other]
    picture = np.concatenate(parts, axis=0 if gap == "above each other" else 1)
    if gap == "caption below":
        picture = np.concatenate([picture, np.full((50, picture.shape[1], 3), (250, 250, 250), np.uint8)])
    assert "two eyes in one picture? cut it in two" in reasons(picture, np.zeros(picture.shape[:2], np.uint8))


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 60, 160), (128, 128, 128)])
def test_captions_and_windows_are_no_second_eye(eyes, colour):
    photograph, mask, _ = eyes[0]
    for border in ((0, 60, 0, 0), (80, 0, 0, 0), (40, 40, 0, 0), (60, 90, 200, 250), (0, 0, 150, 0)):
        framed = cv2.copyMakeBorder(photograph, *border, cv2.BORDER_CONSTANT, value=colour)
        vessels = cv2.copyMakeBorder(mask, *border, cv2.BORDER_CONSTANT, value=0)
        assert reasons(framed, vessels) == []


def test_vessels_along_the_border_are_doubtful(eyes):
    photograph, _, fov = eyes[0]
    ring = cv2.morphologyEx(fov, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)) & fov
    assert "vessels along the border" in reasons(photograph, ring)


def test_the_map_is_darkest_where_sure_and_brightest_at_one_half():
    found = uncertainty(metrics.quantize(np.array([[0, 0.1, 0.5, 0.9, 1]])))
    assert found.dtype == np.uint8
    assert found.tolist() == [[0, 51, 255, 51, 0]]


def test_expected_f1_is_the_mean_f1_of_truths_drawn_from_the_probabilities():
    rng = np.random.default_rng(0)
    levels = metrics.quantize(rng.beta(0.3, 2, (120, 120)))
    fov = np.full(levels.shape, 255, np.uint8)
    mask = np.where(levels >= metrics.level_of(0.4), 255, 0).astype(np.uint8)
    found = confidence(levels, mask, fov)
    draws = [rng.random(levels.shape) < levels / 65535 for _ in range(20)]
    f1 = [2 * (truth & (mask > 0)).sum() / (truth.sum() + (mask > 0).sum()) for truth in draws]
    assert found["expected_f1"] == pytest.approx(np.mean(f1), abs=0.01)


def test_nothing_found_is_sure_of_nothing():
    empty = np.zeros((9, 9), np.uint8)
    found = confidence(empty.astype(np.uint16), empty, empty + 255)
    assert all(np.isnan(value) for value in found.values())


def test_the_last_lines_name_the_doubtful():
    rows = [
        {"image": name, "doubtful": why} for name, why in (("a", ""), ("b", "very dark"), ("c", "grey; dark"))
    ]
    assert list_doubtful(rows, 3) == "2 of 3 photographs are doubtful:\n  b: very dark\n  c: grey; dark"
    assert list_doubtful(rows[:1], 1) == ""


@pytest.fixture(scope="module")
def results(eyes: list, files: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folder of photographs with odd names, and what predict.py makes of it."""
    folder = tmp_path_factory.mktemp("examined")
    for name, (photograph, _, _) in zip(('a, "b"', "c"), eyes, strict=False):
        write_png(folder / "in" / f"{name}.png", photograph)
    write_png(folder / "in" / "page.png", spoilt.page(np.random.default_rng(0)))
    (folder / "um.csv").write_text('file,micrometres a pixel\n"a, ""b"".png",6.5\n', encoding="utf-8-sig")
    weights = ("--weights", files / "checkpoint.pth", "--um-per-pixel", folder / "um.csv")
    assert run_script(predict.main, folder / "in", *weights, "--out", folder / "out") == 0
    return folder / "in", folder / "out"


def test_measures_csv_has_the_measures_of_the_masks_written(results):
    photographs, out = results
    rows = rows_by_image(out / "measures.csv")
    assert list(rows) == ['a, "b"', "c", "page"]
    for name, row in rows.items():
        photograph = cv2.imdecode(np.fromfile(photographs / f"{name}.png", np.uint8), cv2.IMREAD_COLOR)
        levels = cv2.imdecode(np.fromfile(out / "probability" / f"{name}.png", np.uint8), cv2.IMREAD_UNCHANGED)
        mask = cv2.imdecode(np.fromfile(out / "masks" / f"{name}.png", np.uint8), cv2.IMREAD_UNCHANGED)
        fov = estimate_fov(photograph[..., ::-1])
        threshold = json.loads((out / "predict.json").read_text())["threshold"]
        wanted = measure(prepare(levels, fov, threshold))
        assert float(row["vessel_share"]) == pytest.approx(np.mean(mask[fov > 0] > 0), abs=1e-6)
        for column, value in wanted.items():
            found = float(row[column]) if row[column] else np.nan
            assert found == pytest.approx(value, nan_ok=True, rel=1e-5)
    known = rows['a, "b"']
    assert float(known["width_mean_um"]) == pytest.approx(6.5 * float(known["width_mean"]), rel=1e-5)
    assert rows["c"]["width_mean_um"] == ""


@pytest.mark.parametrize("name", ["a", 'b, "c"', "Müller", "眼", "\udcff"])
def test_excel_r_and_plain_readers_read_every_table(tmp_path, name):
    write_csv(tmp_path / "t.csv", [{"image": name, "f1": 0.5}, {"image": "x", "f1": float("nan")}])
    raw = (tmp_path / "t.csv").read_bytes()
    # Excel takes a file for UTF-8 by its mark alone; a file of ASCII needs none, and plain readers want none
    assert raw.startswith(b"\xef\xbb\xbf") is not name.isascii()
    assert raw.count(b"\r\n") == raw.count(b"\n") == 3
    first, second = read_csv(tmp_path / "t.csv")
    assert first == {"image": name.replace("\udcff", "?"), "f1": "0.50000000"}
    assert second == {"image": "x", "f1": ""}


@pytest.mark.parametrize("name", ["=1+1", "+1", "-eye", "@SUM(A1)", '=HYPERLINK("http://x","y")', "\t=1"])
def test_no_file_name_becomes_a_formula_of_a_spreadsheet(tmp_path, name):
    write_csv(
        tmp_path / "t.csv", [{"image": name, "f1": -0.5, "eyes": -1}, {"image": "a=b", "f1": 1.0, "eyes": 2}]
    )
    with (tmp_path / "t.csv").open(newline="") as file:
        assert list(csv.reader(file))[1:] == [[f"'{name}", "-0.50000000", "-1"], ["a=b", "1.00000000", "2"]]


def test_a_name_of_digits_can_be_told_by_its_photograph(results):
    # a spreadsheet makes 7 of 007; it leaves 007.png alone
    photographs, out = results
    rows = rows_by_image(out / "measures.csv")
    assert {name: row["photograph"] for name, row in rows.items()} == {
        name: str(photographs / f"{name}.png") for name in rows
    }
    assert list(rows["c"])[:3] == ["image", "photograph", "doubtful"]


def test_the_page_of_text_is_doubtful_and_said_so(results, files, capsys, tmp_path):
    photographs, out = results
    assert "a fundus photograph?" in rows_by_image(out / "measures.csv")["page"]["doubtful"]
    run_script(predict.main, photographs / "page.png", "--weights", files / "checkpoint.pth", "--out", tmp_path)
    assert "1 of 1 photograph is doubtful:\n  page: not round" in capsys.readouterr().out


def test_the_uncertainty_map_is_of_the_photographs_size_and_its_probability(results):
    _, out = results
    maps = {path.name: path for path in (out / "uncertainty").glob("*.png")}
    assert len(maps) == 3
    for name, path in maps.items():
        found = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        levels = cv2.imdecode(np.fromfile(out / "probability" / name, np.uint8), cv2.IMREAD_UNCHANGED)
        assert (found == uncertainty(levels)).all()


def test_predict_json_says_what_made_the_results(results, files):
    photographs, out = results
    made = json.loads((out / "predict.json").read_text(encoding="utf-8"))
    weights = files / "checkpoint.pth"
    assert made["weights"] == [
        {"file": str(weights), "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    ]
    project = (Path(predict.__file__).parent / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{made["program"]["version"]}"' in project
    assert made["flags"]["views"] == 4
    assert made["number_of_photographs"] == 3
    assert {"python", "torch", "numpy", "opencv"} <= made["versions"].keys()
    first = made["photographs"][0]
    assert (first["photograph_width"], first["photograph_height"], first["border"]) == (390, 400, True)
    assert first["photograph"] == str(photographs / 'a, "b".png')
    assert first["fov_diameter"] == pytest.approx(0.955 * 390, rel=0.03)
    assert first["scale"] > 0
