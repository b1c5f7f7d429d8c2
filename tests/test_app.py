"""app.py in headless Chromium: drop, slide, download, a bad file, a phone, and no request to anywhere."""

from __future__ import annotations

import csv
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import imageio.v3 as iio
import numpy as np
import pytest
from conftest import run_script

import app
from datasets.images import write_png
from datasets.synthetic import draw_eye
from prediction.segmenter import Segmentation, Segmenter
from utils import UserError

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECONDS = 600  # a busy machine takes minutes to import everything
# runs app.py; every look-up of and connection to another machine is written down and refused
GUARD = """
import runpy, socket, sys
log, script, *arguments = sys.argv[1:]
def guard(name, allowed):
    original = getattr(socket.socket, name) if hasattr(socket.socket, name) else getattr(socket, name)
    def guarded(*given, **settings):
        host = allowed(given)
        if host not in (None, "127.0.0.1", "::1", "localhost"):
            with open(log, "a") as file:
                file.write(f"{name} {host}\\n")
            raise OSError("no network here")
        return original(*given, **settings)
    return guarded
internet = (socket.AF_INET, socket.AF_INET6)
for name in ("connect", "connect_ex"):
    setattr(socket.socket, name, guard(name, lambda g: g[1][0] if g[0].family in internet else None))
socket.getaddrinfo = guard("getaddrinfo", lambda g: g[0])
sys.argv = [script, *arguments]
sys.path.insert(0, script.rsplit("/", 1)[0])
runpy.run_path(script, run_name="__main__")
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The page, served by a process that can reach no other machine; and the log of what it tried to reach."""
    pytest.importorskip("gradio", reason="pip install -r requirements-app.txt")
    log = tmp_path_factory.mktemp("guard") / "requests.txt"
    port = free_port()
    command = [sys.executable, "-c", GUARD, str(log), str(ROOT / "app.py"), "--no-tta", "--no-browser"]
    with subprocess.Popen(
        [*command, "--device", "cpu", "--port", str(port)],
        env={**os.environ, "GRADIO_TEMP_DIR": str(log.parent / "gradio")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        end = time.monotonic() + SECONDS
        while process.poll() is None and time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        else:
            process.kill()
            pytest.fail(f"the page did not start: {process.stdout.read()}")
        yield f"http://127.0.0.1:{port}", log
        process.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install -r tests/requirements-app.txt")
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    with playwright.sync_playwright() as driver:
        yield (browser := driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]))
        browser.close()


@pytest.fixture
def page(browser: Any, address: tuple[str, Path]) -> Iterator[Any]:
    """The open page; a request to anywhere else fails the test."""
    context = browser.new_context(accept_downloads=True, viewport={"width": 1200, "height": 1400})
    page = context.new_page()
    page.set_default_timeout(SECONDS * 1000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address[0])
    page.wait_for_selector("#files")
    yield page
    hosts = {urlparse(url).hostname for url in asked if urlparse(url).scheme in ("http", "https", "ws", "wss")}
    context.close()
    assert hosts == {"127.0.0.1"}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two synthetic eyes and a file that is none."""
    folder = tmp_path_factory.mktemp("photographs")
    for seed, name in enumerate(("left.png", "right.png")):
        write_png(folder / name, draw_eye(np.random.default_rng(seed), 210, 200)[0])
    (folder / "letter.jpg").write_text("not a picture")
    return sorted(folder.iterdir())


def drop(page: Any, *files: Path) -> None:
    """Drop files on the page and wait for the picture."""
    page.set_input_files("#files input[type=file]", [str(file) for file in files])
    page.wait_for_function("document.querySelector('#picture img')?.complete")


def save_screenshot(page: Any, name: str) -> None:
    """Keep a picture of the page where somebody asked for it."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_two_photographs_and_a_bad_file_are_dropped(page: Any, photographs: list[Path]) -> None:
    drop(page, *photographs)
    page.wait_for_selector("#refused >> text=letter.jpg: not a TIFF, PNG, GIF, JPEG, BMP or PPM image")
    assert page.inner_text("#text").startswith("left.png: ")
    save_screenshot(page, "dropped")
    before = page.get_attribute("#picture img", "src")
    page.click("#name input")
    page.click("text=right.png >> nth=-1")
    page.wait_for_function("before => document.querySelector('#picture img').src != before", arg=before)
    page.wait_for_function("document.querySelector('#text').innerText.startsWith('right.png: ')")


def test_the_slider_changes_the_mask_without_predicting_again(
    page: Any, photographs: list[Path], tmp_path: Path
) -> None:
    (eye,) = (p for p in photographs if p.name == "left.png")
    drop(page, eye)
    result = Segmenter(tta=False, device="cpu")(eye)
    shares = []
    for threshold in (f"{result.threshold:.2f}", "0.9"):
        number = page.locator("#threshold input[type=number]")
        number.fill(threshold)
        number.press("Enter")
        result.threshold = float(threshold)
        share = f"{(result.mask > 0).sum() / (result.fov > 0).sum():.1%}"
        page.wait_for_selector(f"#text >> text={share}")
        shares.append(share)
        saved = download(page, "#mask", tmp_path)
        assert saved.name == "left_mask.png"
        assert (iio.imread(saved) == result.mask).all()
    assert shares[0] != shares[1]
    probability = iio.imread(download(page, "#probability", tmp_path))
    assert probability.dtype == np.uint16
    assert (probability == result.levels).all()
    with download(page, "#csv", tmp_path).open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["photograph"], row["width"], row["height"]) == ("left.png", "200", "210")
    assert float(row["threshold"]) == 0.9
    page.click("#view >> text=Difference")
    page.wait_for_selector("#text >> text=only at the usual one")
    save_screenshot(page, "difference")


def download(page: Any, button: str, folder: Path) -> Path:
    """Click a download button; returns the file."""
    with page.expect_download() as waiting:
        page.click(button)
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_a_phone_shows_it_without_scrolling_sideways(
    browser: Any, address: tuple[str, Path], photographs: list[Path]
) -> None:
    context = browser.new_context(viewport={"width": 375, "height": 800}, is_mobile=True, has_touch=True)
    page = context.new_page()
    page.set_default_timeout(SECONDS * 1000)
    page.goto(address[0])
    page.wait_for_selector("#files")
    drop(page, photographs[0] if photographs[0].suffix == ".png" else photographs[1])
    page.wait_for_selector("#csv")
    save_screenshot(page, "phone")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    context.close()


def test_the_server_reached_no_other_machine_and_listens_on_this_one(address: tuple[str, Path]) -> None:
    url, log = address
    assert not log.exists(), log.read_text()
    port = urlparse(url).port
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if table.exists():
            listening = re.findall(rf"^ *\d+: ([0-9A-F]+):{port:04X} \S+ 0A ", table.read_text(), re.M)
            assert all(number in ("0100007F", "0" * 24 + "01000000") for number in listening)


def test_too_many_photographs_are_refused_by_name(
    photographs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Progress:
        def tqdm(self, files: list[str], **_: object) -> list[str]:
            return files

    def segmenter(path: Path) -> Segmentation:
        return Segmentation(*[np.zeros((2, 2), np.uint8)] * 3, 0.5)

    monkeypatch.setattr(app, "MOST_FILES", 2)
    files = ["/tmp/a/eye.png", "/tmp/b/eye.png", "/tmp/c/third.png"]
    found, refused = app.segment_all(files, segmenter, Progress())
    assert list(found) == ["eye.png", "eye_2.png"], "two files of one name are told apart"
    assert refused == ["third.png: more than 2 at once"]


def test_without_gradio_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"^gradio is not installed.*requirements-app\.txt$"):
        run_script(app.main, "--no-browser")
