"""The page of results: what it holds, and that it works in a browser by mouse and by keyboard."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import POSIX
from conftest import page_data, read_csv, run_script
from matplotlib.figure import Figure

import predict
import test as tester
from datasets.images import write_png
from datasets.synthetic import draw_eye
from measures.arteries_veins import KIND_MEASURES, KIND_TRUST, ON_PAGE
from measures.vessels import CONFIDENCE, MEASURES, TRUST
from pages.pictures import write_history, write_layers
from pages.report import thin_curves, write_report
from scoring import metrics
from scoring.scores import NO_CURVE

ODD = ["<!--<script><b>&amp;'", 'quo"te\nline', "50% #1?", "\u00e4 \u00df \u773c"]
NAMES = ["2_test", "10_test", *(ODD if POSIX else ["50% #1", "\u00e4 \u00df"])]


def write_images(results: Path, names: Sequence[str], labelled: bool = True) -> tuple[list[dict], np.ndarray]:
    """Draw an eye for each name and predict it, the later the better; returns rows and counts."""
    each, pooled, trees = [], 0, 0
    for i, name in enumerate(names):
        photograph, truth, fov = draw_eye(np.random.default_rng(i), 96, 92)
        shift = np.float32([[1, 0, (len(names) - i) / 2], [0, 1, 0]])
        blurred = cv2.GaussianBlur(cv2.warpAffine(truth, shift, (92, 96)), (0, 0), 0.7)
        prediction = np.where(blurred > 127, 255, 0).astype(np.uint8)
        write_png(results / "masks" / f"{name}.png", prediction)
        write_layers(results, name, photograph, photograph, truth if labelled else None)
        counts, tree = metrics.count_image(metrics.quantize(blurred / 255), truth, fov, 0.5)
        each.append(metrics.all_scores(counts, tree, 0.5))
        pooled, trees = pooled + counts, trees + tree
    mean = metrics.mean(each)
    total = {"mean": mean, "pooled": metrics.all_scores(pooled, trees, 0.5), "second_observer": mean | NO_CURVE}
    rows = dict(zip(names, each, strict=True)) | total
    return [{"image": name, **row} for name, row in rows.items()], pooled


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with scores of images with odd names."""
    page = tmp_path_factory.mktemp("a #1 & \u00e4") / "results" / "index.html"
    rows, counts = write_images(page.parent, NAMES)
    write_report(page, NAMES, 0.5, ["Scores inside the field of view."], rows, counts)
    return page


@pytest.fixture(scope="module")
def unscored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page without scores, of synthetic eyes."""
    folder = tmp_path_factory.mktemp("unscored")
    (folder / "SYNTHETIC.txt").touch()
    page = folder / "results" / "index.html"
    write_images(page.parent, NAMES, labelled=False)
    write_report(page, NAMES, 0.5, ["No scores: these photographs have no labels."])
    return page


def test_odd_names_and_notes_survive_embedding(tmp_path):
    notes = ["ends </script> here", "{{data}} \\u003c \u2028"]
    write_report(page := tmp_path / "index.html", NAMES, 0.5, notes)
    data = page_data(page)
    assert [image["name"] for image in data["images"]] == NAMES
    assert data["notes"][-2:] == notes


def test_a_page_loads_nothing_from_the_network(scored):
    text = scored.read_text("utf-8")
    assert not re.search(r"https?:|fetch\(|@import|<link|src=[\"']//", text)


@pytest.mark.skipif(not POSIX, reason="Windows has no file names that are not text")
def test_a_name_that_is_not_text_is_addressed_by_its_bytes(tmp_path):
    write_report(page := tmp_path / "index.html", [os.fsdecode(b"eye\xff")], 0.5, [])
    assert page_data(page)["images"][0]["url"] == "eye%FF"


def test_a_thousand_images_make_a_small_page_in_little_time(scored, tmp_path):
    data = page_data(scored)
    row = dict(zip(metrics.COLUMNS, data["images"][0]["scores"], strict=True))
    names = [f"photograph_{i}" for i in range(1000)]
    rows = [{"image": name, **row} for name in [*names, "mean", "pooled"]]
    counts = np.random.default_rng(0).integers(0, 1000, (2, metrics.LEVELS))
    start = time.perf_counter()
    write_report(page := tmp_path / "index.html", names, 0.5, [], rows, counts)
    assert time.perf_counter() - start < 5
    assert page.stat().st_size < 2e6


def test_thin_curves_have_few_points_and_nearly_the_same_area():
    rng = np.random.default_rng(0)
    levels = metrics.quantize(rng.beta([[1], [4]], [[8], [2]], (2, 50_000)))
    truth = np.array([[0], [1]]) * np.ones((1, 50_000))
    counts = metrics.count_levels(levels, truth, np.ones_like(truth))
    curves = thin_curves(counts)
    assert max(map(len, curves.values())) <= 200
    x, y = np.transpose(curves["roc"])
    assert np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) == pytest.approx(metrics.auc(counts), abs=1e-3)
    x, y = np.transpose(curves["precision_recall"])
    # the curve is drawn from the first threshold that finds anything on
    area = np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) + x[0]
    assert area == pytest.approx(metrics.average_precision(counts), abs=2e-3)


@pytest.mark.parametrize("epochs", [1, 2, 3, 40])
def test_the_curves_of_a_training_count_whole_epochs(epochs, tmp_path, monkeypatch):
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: drawn.append(figure) or path.touch())
    write_history(tmp_path, [{"epoch": 1 + i, "train_loss": 0.1, "learning_rate": 0.1} for i in range(epochs)])
    for axes in drawn[0].axes:
        ticks = axes.get_xticks()
        assert len(ticks) and (ticks == ticks.astype(int)).all()


def test_a_truth_without_vessels_has_no_curves():
    counts = np.zeros((2, metrics.LEVELS), np.int64)
    counts[0, :9] = 5
    assert thin_curves(counts) is None


def test_the_bootstrap_interval_is_that_of_the_normal_distribution_for_many_images():
    f1 = np.random.default_rng(1).normal(0.8, 0.02, 400)
    low, high = metrics.bootstrap_interval(f1)
    half = 1.96 * f1.std() / 20
    assert (low, high) == pytest.approx((f1.mean() - half, f1.mean() + half), abs=0.15 * half)
    assert metrics.bootstrap_interval(f1) == (low, high)
    assert metrics.bootstrap_interval([0.5]) == (0.5, 0.5)
    with pytest.raises(ValueError, match="no values"):
        metrics.bootstrap_interval([])


def test_thumbnails_are_small_and_show_both_pictures(scored):
    thumbnail = scored.parent / "page" / "thumbnail" / "2_test.jpg"
    assert cv2.imdecode(np.fromfile(thumbnail, np.uint8), cv2.IMREAD_COLOR).shape == (96, 184, 3)
    assert thumbnail.stat().st_size < 40_000


def missing_pictures(page: Path) -> list[Path]:
    """The pictures that a page shows and that are not there."""
    data = page_data(page)
    names = [image["name"] for image in data["images"]]
    files = [
        page.parent / folder / (name + suffix) for _, folder, suffix, _ in data["layers"] for name in names
    ]
    files += [page.parent / "page" / "thumbnail" / f"{name}.jpg" for name in names]
    return [file for file in files if not file.is_file()]


def test_the_page_of_test_py_has_the_scores_of_metrics_csv_and_all_pictures(new_data, files, tmp_path):
    arguments = ("--data", new_data, "--weights", files / "checkpoint.pth", "--results", tmp_path)
    assert run_script(tester.main, *arguments) in (0, None)
    data = page_data(tmp_path / "index.html")
    rows = read_csv(tmp_path / "metrics.csv")
    shown = [*data["images"], *data["summary"]]
    assert [line["scores"][0] for line in shown] == pytest.approx([float(r["f1"]) for r in rows], abs=1e-6)
    assert data["curves"]
    assert missing_pictures(tmp_path / "index.html") == []


def test_the_page_of_predict_py_has_all_pictures(new_data, files, tmp_path):
    arguments = (new_data / "test" / "image", "--weights", files / "checkpoint.pth", "--out", tmp_path)
    assert run_script(predict.main, *arguments) in (0, None)
    data = page_data(tmp_path / "index.html")
    assert "columns" not in data
    assert ["Uncertainty", "uncertainty", ".png"] in [layer[:3] for layer in data["layers"]]
    assert missing_pictures(tmp_path / "index.html") == []


ROWS = "[...document.querySelectorAll('.table tbody:last-child .open span')].map(name => name.textContent)"
FIRST_SCORES = (
    "[...document.querySelectorAll('.table tbody:last-child td:nth-child(2)')].map(cell => +cell.textContent)"
)
SORTED = "[...document.querySelectorAll('th')].map(head => head.ariaSort).findIndex(Boolean)"
SHOWN = "document.querySelector('#stack .shown').alt"
LOADED = "[...document.querySelectorAll('#stack img')].every(img => img.naturalWidth > 0)"
OPEN = "document.querySelector('#viewer').open"
LAST = len(NAMES) - 1


def test_the_worst_image_stands_first(browser, scored):
    browser.open(scored)
    scores = browser.js(FIRST_SCORES)
    assert len(scores) == len(NAMES)
    assert scores == sorted(scores)


def test_a_click_on_a_title_sorts_and_a_second_click_turns_round(browser, scored):
    browser.open(scored)
    browser.click("document.querySelector('thead th:first-child button')")
    names = browser.js(ROWS)
    assert names.index("2_test") < names.index("10_test")
    assert browser.js(SORTED) == 0
    browser.click("document.querySelector('thead th:first-child button')")
    assert browser.js(ROWS) == names[::-1]
    assert browser.js("document.querySelector('thead th').ariaSort") == "descending"


def test_the_keyboard_reaches_a_title_and_sorts(browser, scored):
    browser.open(scored)
    browser.key("Tab", 5)  # large pictures, print, the table, the first title, the second
    assert browser.js("document.activeElement.textContent") == "F1"
    browser.key("Enter")
    scores = browser.js(FIRST_SCORES)
    assert scores == sorted(scores, reverse=True)
    assert browser.js("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_scores_that_are_not_defined_stand_last(browser, tmp_path):
    rows, counts = write_images(tmp_path, ["a", "b", "c"])
    rows[0]["auc"] = float("nan")
    write_report(page := tmp_path / "index.html", ["a", "b", "c"], 0.5, [], rows, counts)
    browser.open(page)
    for _ in range(2):
        browser.click("[...document.querySelectorAll('thead button')].find(b => b.textContent === 'AUC')")
        assert browser.js(ROWS)[-1] == "a"


def test_a_click_opens_an_image_and_flips_its_layers(browser, scored):
    browser.open(scored)
    worst = browser.js(ROWS)[0]
    browser.click("document.querySelector('.open')")
    browser.wait(LOADED)
    assert browser.js(SHOWN) == f"Differences of {worst}"
    browser.click("document.querySelectorAll('#layers label')[1]")
    assert browser.js(SHOWN) == f"Truth of {worst}"
    browser.click("document.querySelector('#close')")
    assert not browser.js(OPEN)


def test_keys_flip_layers_zoom_walk_and_close(browser, scored):
    browser.open(scored)
    names = browser.js(ROWS)
    browser.js("document.querySelector('.open').focus()")
    browser.key("Enter")
    browser.wait(LOADED)
    browser.key("ArrowRight")  # from the last to the first
    assert browser.js(SHOWN) == f"Photograph of {names[0]}"
    for key, title in (("4", "Differences"), ("3", "Prediction"), ("1", "Photograph"), ("2", "Truth")):
        browser.key(key)
        assert browser.js(SHOWN) == f"{title} of {names[0]}"
    browser.key("ArrowRight")
    assert browser.js(SHOWN) == f"Prediction of {names[0]}"
    browser.wait("document.querySelector('#stack').style.width")
    width = browser.js("document.querySelector('#stack').offsetWidth")
    browser.key("+", 2)
    assert browser.js("document.querySelector('#stack').offsetWidth") > 2 * width
    browser.key("0")
    assert browser.js("document.querySelector('#stack').offsetWidth") == width
    browser.key("n")
    assert browser.js(SHOWN) == f"Prediction of {names[1]}"
    browser.key("p", 2)  # before the first there is none
    assert browser.js(SHOWN) == f"Prediction of {names[0]}"
    browser.key("n")
    browser.click("document.querySelector('#previous')")  # which disables it while it has the focus
    browser.key("n")
    browser.key("Escape")
    # the browser closes at once and says so a little later
    browser.wait(f"!{OPEN} && document.activeElement.textContent === {json.dumps(names[1])}")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("kind", ["scored", "unscored"])
def test_all_pictures_of_all_names_load_without_an_error(browser, kind, dark, request):
    browser.open(request.getfixturevalue(kind), dark=dark)
    browser.click("document.querySelector('.open')")
    for _ in NAMES:
        browser.wait(LOADED)
        browser.key("n")
    browser.js("document.querySelectorAll('.open img').forEach(img => { img.loading = 'eager'; })")
    browser.wait("[...document.querySelectorAll('.open img')].every(img => img.naturalWidth > 0)")
    assert browser.errors == []


def test_curves_have_working_point_and_observer_on_them(browser, scored):
    browser.open(scored)
    marks = browser.js(
        "[...document.querySelectorAll('figure')].map(f => f.querySelectorAll('circle, path.human').length)"
    )
    assert marks == [2, 2, 0]
    legend = browser.js("document.querySelector('#charts').innerText")
    pooled = page_data(scored)["pooled"]
    assert f"AUC {pooled['auc']:.4f}" in legend
    assert f"average precision {pooled['average_precision']:.4f}" in legend


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_from_its_background(browser, scored, dark):
    browser.open(scored, dark=dark)
    colours = browser.js(
        "['--text', '--soft', '--accent', '--point', '--human', '--page', '--panel']"
        ".map(name => getComputedStyle(document.documentElement).getPropertyValue(name))"
    )

    def luminance(colour: str) -> float:
        digits = colour.strip(" #")
        digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
        rgb = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    *front, page, panel = map(luminance, colours)
    for back in (page, panel):
        for colour in front:
            assert (max(colour, back) + 0.05) / (min(colour, back) + 0.05) >= 4.5


@pytest.mark.parametrize("kind", ["scored", "unscored"])
def test_a_phone_needs_no_scrolling_sideways(browser, kind, request):
    browser.open(request.getfixturevalue(kind), width=360)
    assert browser.js("document.documentElement.scrollWidth") <= 360
    browser.click("document.querySelector('.open')")
    assert browser.js("document.querySelector('#viewer').scrollWidth") <= 360
    assert browser.js("document.querySelector('#stage').offsetHeight") > 300


def test_without_scores_there_are_pictures_and_the_reason_but_no_table(browser, unscored):
    browser.open(unscored)
    assert browser.js("document.querySelectorAll('table, svg').length") == 0
    assert "No scores: these photographs have no labels." in browser.js("document.body.innerText")
    browser.click("document.querySelector('.open')")
    browser.wait(LOADED)
    titles = browser.js("[...document.querySelectorAll('#stack img')].map(img => img.alt)")
    assert titles == [f"{title} of {NAMES[0]}" for title in ("Photograph", "Prediction", "Outline")]


def test_a_page_of_drawn_eyes_says_so(browser, scored, unscored):
    browser.open(unscored)
    assert "SYNTHETIC: a program drew" in browser.js("document.body.innerText")
    assert browser.js("document.title").startswith("SYNTHETIC")
    browser.open(scored)
    assert "SYNTHETIC" not in browser.js("document.body.innerText")


def test_thumbnails_out_of_sight_are_not_loaded(browser, scored, tmp_path):
    row = dict(zip(metrics.COLUMNS, page_data(scored)["images"][0]["scores"], strict=True))
    names = [f"photograph_{i}" for i in range(1000)]
    shutil.copytree(scored.parent / "page" / "thumbnail", tmp_path / "page" / "thumbnail")
    for name in names:
        shutil.copy(tmp_path / "page/thumbnail/2_test.jpg", tmp_path / f"page/thumbnail/{name}.jpg")
    rows = [{"image": name, **row} for name in [*names, "mean", "pooled"]]
    write_report(page := tmp_path / "index.html", names, 0.5, [], rows)
    browser.open(page)
    loaded = "[...document.querySelectorAll('.open img')].filter(img => img.naturalWidth > 0).length"
    browser.wait(f"{loaded} > 0")
    assert browser.js(loaded) < 100
    took = browser.js(
        "(() => { const start = performance.now(); document.querySelector('thead button').click(); "
        "document.body.offsetHeight; return performance.now() - start; })()"
    )
    assert took < 3000  # milliseconds; tenths of a second on an idle machine


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 5,000 photographs with measures, without their pictures."""
    page = tmp_path_factory.mktemp("many") / "index.html"
    rows = [
        {"doubtful": "dark" if k == 4321 else "", "vessel_share": (k * 7919 % 5000) / 5000, "segments": k}
        for k in range(5000)
    ]
    write_report(page, [f"{k // 100}/eye_{k}" for k in range(5000)], 0.5, [], measured=rows)
    return page


FIRST_NAME = "document.querySelector('.table tbody:last-child .open span').textContent"


def test_thousands_of_images_come_in_pages_that_sorting_searching_and_the_viewer_go_through(browser, many):
    browser.open(many)
    took = browser.js("performance.getEntriesByType('navigation')[0].domComplete")
    assert took < 5000  # milliseconds; half a second on an idle machine
    assert browser.js("document.querySelectorAll('.table tbody:last-child tr').length") == 200
    assert browser.js("document.querySelector('#range').textContent") == "1 to 200 of 5000"
    assert browser.js(FIRST_NAME) == "43/eye_4321", "the doubtful one stands first, wherever it was"

    browser.click("document.querySelector('thead th:nth-child(3) button')")  # segments, from few to many
    assert browser.js(FIRST_NAME) == "0/eye_0"
    browser.click("document.querySelector('#after')")
    assert browser.js(FIRST_NAME) == "2/eye_200"
    assert browser.js("document.querySelector('#range').textContent") == "201 to 400 of 5000"

    # the viewer goes on to the next page, which then is shown
    browser.js("document.querySelector('.table tbody:last-child tr:last-child .open').click()")
    browser.key("n")
    assert browser.js("document.querySelector('#name').textContent") == "4/eye_400"
    browser.key("Escape")
    browser.wait(f"!{OPEN} && document.activeElement.textContent === '4/eye_400'")
    assert browser.js("document.querySelector('#range').textContent") == "401 to 600 of 5000"

    browser.js("document.querySelector('#search').focus()")
    for key in "E_49":
        browser.key(key)
    assert browser.js("document.querySelector('#range').textContent") == "1 to 111 of 111"
    assert browser.js("document.querySelector('#before').disabled && document.querySelector('#after').disabled")
    names = browser.js(NAMED)
    assert len(names) == 111 and all("eye_49" in name for name in names)
    browser.key("x")
    assert browser.js("document.querySelector('#range').textContent") == "0 to 0 of 0"


def test_a_page_of_few_images_has_no_pages(browser, scored):
    browser.open(scored)
    assert browser.js("document.querySelector('#pager').offsetHeight") == 0


NAN = float("nan")
MEASURED = [
    {"doubtful": "", "expected_f1": 0.8, "vessel_share": 0.1, "segments": 30, "width_mean": 2.5},
    {"doubtful": "very dark; <b>", "expected_f1": 0.4, "vessel_share": 0.05, "segments": 9, "width_mean": NAN},
    {"doubtful": "", "expected_f1": 0.7, "vessel_share": 0.12, "segments": 200, "width_mean": 3.5},
    {"doubtful": "very blurred", "expected_f1": 0.6, "vessel_share": 0.03, "segments": 100, "width_mean": 1.5},
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with measures and doubts, without scores."""
    page = tmp_path_factory.mktemp("measured") / "results" / "index.html"
    names = ["a", "b", "c", "d"]
    write_images(page.parent, names, labelled=False)
    for name in names:
        write_png(page.parent / "uncertainty" / f"{name}.png", np.zeros((96, 92), np.uint8))
    write_report(page, names, 0.5, [], measured=MEASURED)
    return page


NAMED = (
    "[...document.querySelectorAll('.table tbody:last-child .open span:first-of-type')].map(s => s.textContent)"
)


def test_doubtful_photographs_stand_first_with_the_reason(browser, measured):
    browser.open(measured)
    assert browser.js(NAMED) == ["b", "d", "a", "c"]
    marks = browser.js("[...document.querySelectorAll('#images .doubt')].map(mark => mark.textContent)")
    assert marks == ["\u26a0 doubtful: very dark; <b>", "\u26a0 doubtful: very blurred"]
    assert browser.errors == []


def test_a_measure_sorts_by_its_number_and_missing_ones_stand_last(browser, measured):
    browser.open(measured)
    titles = browser.js("[...document.querySelectorAll('thead button')].map(b => b.textContent)")
    assert titles == ["Image", "Expected F1", "Vessels", "Segments", "Width"]
    browser.click("document.querySelectorAll('thead button')[3]")
    assert browser.js(NAMED) == ["b", "a", "d", "c"]
    for wanted in (["d", "a", "c", "b"], ["c", "a", "d", "b"]):
        browser.click("document.querySelectorAll('thead button')[4]")
        assert browser.js(NAMED) == wanted


def test_there_is_a_histogram_of_each_measure_over_the_photographs(browser, measured):
    browser.open(measured)
    browser.click("document.querySelector('#histograms summary')")
    bars = browser.js(
        "[...document.querySelectorAll('#bars figure')].map(f => f.querySelectorAll('.bar-of').length)"
    )
    assert bars == [5, 5, 5, 5]
    captions = browser.js("[...document.querySelectorAll('#bars strong')].map(title => title.textContent)")
    assert captions == ["Expected F1", "Vessels", "Segments", "Width"]


def test_the_uncertainty_is_a_layer_and_the_doubt_stands_beside_it(browser, measured):
    browser.open(measured)
    browser.click("document.querySelector('.open')")
    browser.wait(LOADED)
    browser.key("3")
    assert browser.js(SHOWN) == "Uncertainty of b"
    assert browser.js("document.querySelector('#doubt').textContent").startswith("\u26a0 doubtful: very dark")


def test_measures_need_no_scrolling_sideways_on_a_phone(browser, measured):
    browser.open(measured, width=360)
    browser.click("document.querySelector('#histograms summary')")
    assert browser.js("document.documentElement.scrollWidth") <= 360


def test_docs_and_page_have_the_same_words_of_trust(tmp_path):
    text = (Path(predict.__file__).parent / "docs" / "measures.md").read_text(encoding="utf-8")
    tables = re.findall(r"\| measure \| (?:STARE|labels).*\| trust \|\n.*\n((?:\|.*\n)+)", text)
    words, of_kinds = (
        {line.split("`")[1]: line.split("|")[-2].strip() for line in table.splitlines()} for table in tables
    )
    assert words == {name: MEASURES[name].trust for name in words}
    assert of_kinds == {
        name: KIND_MEASURES[name].trust for name in ("avr", "crae_disc", "crve_disc", *KIND_TRUST)
    }
    assert all(f"`{word}`" in text for word in TRUST)
    assert {name for name, how in MEASURES.items() if how.trust} >= words.keys()
    rows = [dict.fromkeys([*words, *of_kinds], 0.5)]
    write_report(page := tmp_path / "index.html", ["a"], 0.5, [], measured=rows)
    shown = {title: trust for title, _, _, trust in page_data(page)["measures"]}
    every = MEASURES | KIND_MEASURES
    assert shown == {every[name].title: word for name, word in (words | of_kinds).items()}
    assert page_data(page)["trust"] == TRUST


def test_each_measure_has_its_meaning_and_its_trust_without_a_mouse(browser, measured):
    browser.open(measured)
    assert browser.js("document.querySelectorAll('[title]').length") == 0
    browser.js("document.querySelector('#meaning summary').click()")
    meaning = browser.js("document.querySelector('#meaning').innerText")
    browser.click("document.querySelector('.open')")
    facts = browser.js("document.querySelector('#scores').innerText")
    for name in ("vessel_share", "segments", "width_mean"):
        for text in (meaning, facts):
            assert re.search(rf"{MEASURES[name].hint}\s[\s\S]*?{MEASURES[name].trust}", text)


def test_one_photograph_opens_outlined_at_once(browser, tmp_path):
    write_images(tmp_path, ["a"], labelled=False)
    write_report(page := tmp_path / "index.html", ["a"], 0.5, [], measured=[{"vessel_share": 0.1}])
    browser.open(page)
    browser.wait(LOADED)
    assert browser.js(OPEN)
    assert browser.js(SHOWN) == "Outline of a"
    assert browser.js("document.querySelector('#stack').offsetHeight") > 400


POINT = (  # of the picture that lies at a point of the window, in shares of its width and height
    "(() => {{ const b = document.querySelector('#stack').getBoundingClientRect(); "
    "return [({x} - b.x) / b.width, ({y} - b.y) / b.height]; }})()"
)


def test_wheel_and_two_fingers_zoom_what_they_point_at(browser, unscored):
    browser.open(unscored)
    browser.click("document.querySelector('.open')")
    browser.wait(LOADED)
    browser.wait("document.querySelector('#stack').offsetWidth > 0")
    left, top, width, height = browser.js(
        "(() => { const b = document.querySelector('#stack').getBoundingClientRect(); "
        "return [b.x, b.y, b.width, b.height]; })()"
    )
    x, y = left + 0.3 * width, top + 0.6 * height
    place = POINT.format(x=x, y=y)
    browser.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-400)
    browser.wait(f"document.querySelector('#stack').offsetWidth > {1.9 * width}")
    assert browser.js(place) == pytest.approx([0.3, 0.6], abs=0.02)
    browser.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=4000)
    browser.wait(f"document.querySelector('#stack').offsetWidth === {round(width)}")
    for apart, kind in ((20, "touchStart"), (40, "touchMove"), (60, "touchMove")):
        points = [{"x": x - apart, "y": y, "id": 1}, {"x": x + apart, "y": y, "id": 2}]
        browser.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)
    browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    browser.wait(f"document.querySelector('#stack').offsetWidth > {2 * width}")
    assert browser.js(place) == pytest.approx([0.3, 0.6], abs=0.1)  # while it is small it is centred


def test_a_slider_lays_the_photograph_over_a_layer(browser, unscored):
    browser.open(unscored)
    browser.click("document.querySelector('.open')")
    browser.wait(LOADED)
    browser.js("document.querySelector('#split').focus()")
    browser.key("ArrowRight", 3)
    share = browser.js("document.querySelector('#split').value")
    assert int(share) > 0
    visible = (
        "[...document.querySelectorAll('#stack img')].filter(i => getComputedStyle(i).visibility === 'visible')"
    )
    assert browser.js(f"{visible}.map(i => [i.alt, i.style.clipPath])") == [
        [f"Photograph of {NAMES[0]}", ""],
        [f"Outline of {NAMES[0]}", f"inset(0px 0px 0px {share}%)"],
    ]


def test_a_print_has_a_page_an_image_with_picture_measures_doubt_and_maker(browser, tmp_path):
    write_images(tmp_path, ["a", "b"], labelled=False)
    for path in (tmp_path / "outlines").iterdir():  # as large as a photograph is
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (500, 520)))
    every = dict.fromkeys(CONFIDENCE | MEASURES | ON_PAGE, 0.123)
    rows = [
        every | {"vessel_share": share, "doubtful": why, "made_by": f"1.0.0 of {why}"}
        for share, why in ((0.1, "dark"), (0.25, "red"))
    ]
    write_report(page := tmp_path / "index.html", ["a", "b"], 0.5, [], measured=rows)
    browser.open(page)
    browser.js("window.print = () => { window.paper = document.querySelector('#print').cloneNode(true); }")
    browser.click("document.querySelector('#images .paper')")
    browser.wait("!!window.paper")
    pages = browser.js("[...paper.children].map(p => [p.textContent, p.querySelector('img').alt])")
    for (text, alt), name, share, why in zip(pages, "ab", ("0.1000", "0.2500"), ("dark", "red"), strict=True):
        assert alt == f"Outline of {name}"
        assert all(part in text for part in (share, f"doubtful: {why}", f"1.0.0 of {why}", "not for diagnosis"))
    pdf = base64.b64decode(browser.call("Page.printToPDF")["data"])
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 2, "with all measures, of arteries and veins too"


def test_names_break_between_their_parts_only(browser, tmp_path):
    names = ["patient_000000000001/visit_2020-01-03/OD", "patient_000000000002/visit_2020-01-03/OS"]
    write_report(page := tmp_path / "index.html", names, 0.5, [], measured=[{"vessel_share": 0.1}] * 2)
    browser.open(page, width=360)
    browser.click("document.querySelector('#large')")  # in the small column
    texts = (
        "[...document.querySelector('.open span').childNodes].filter(n => n.data).map(n => "
        "{ const r = document.createRange(); r.selectNode(n); return r.getClientRects().length; })"
    )
    assert set(browser.js(texts)) == {1}
    assert browser.js("document.querySelector('.open span').textContent") == names[0]


def test_everything_that_is_operated_has_a_name(browser, measured):
    browser.open(measured)
    browser.click("document.querySelector('.open')")
    nameless = (
        "[...document.querySelectorAll('button, input, summary, dialog, [role=region], section')].filter(e => "
        "!(e.textContent.trim() || e.ariaLabel || e.labels?.[0]?.textContent.trim() || "
        "e.getAttribute('aria-labelledby'))).map(e => e.outerHTML)"
    )
    assert browser.js(nameless) == []
    assert browser.js("[...document.querySelectorAll('img')].filter(i => !i.hasAttribute('alt')).length") == 0
