"""app.py: a page of this computer to drop photographs on, tried in a browser."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from browser import Browser
from conftest import ROOT, read_csv, run_script, write_photographs

import app
import predict
from measures.vessels import MEASURES, TRUST
from model import UNet
from networks.checkpoints import save_checkpoint
from prediction.segmenter import Segmenter
from utils import UserError

WITH_GRADIO = "pip install -r requirements-app.txt"
# app.py in a process that notes every address it binds, looks up or connects to, and when the network works
START = f"""
import runpy, sys, threading, time
sys.path.insert(0, {str(ROOT)!r})
log, turn = open(sys.argv[1], "a", buffering=1), threading.Lock()
def note(event, arguments):
    if event in ("socket.bind", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        where = arguments[0] if event.startswith("socket.get") else arguments[1]
        host = where[0] if isinstance(where, tuple) else where
        with turn:
            log.write(f"host {{host}}\\n")
sys.addaudithook(note)
import prediction.segmenter
network = prediction.segmenter.segment
def noted(*arguments):
    log.write("begin\\n")
    time.sleep(0.1)
    found = network(*arguments)
    log.write("end\\n")
    return found
prediction.segmenter.segment = noted
sys.argv = ["app.py", *sys.argv[2:]]
runpy.run_path({str(ROOT / "app.py")!r}, run_name="__main__")
"""


WIDTHS = "[...document.querySelectorAll('#image img')].map(e => e.getBoundingClientRect().width)"
# mean colour of each picture, as decoded by the browser
DRAWN = """Promise.all([...document.querySelectorAll('#image img')].map(async e => {
  await e.decode();
  const c = new OffscreenCanvas(e.naturalWidth, e.naturalHeight).getContext("2d");
  c.drawImage(e, 0, 0);
  const all = c.getImageData(0, 0, e.naturalWidth, e.naturalHeight).data;
  return [0, 1, 2].map(k => all.filter((_, i) => i % 4 === k).reduce((a, b) => a + b, 0) * 4 / all.length);
}))"""
MOST_BARS = """window.mostBars = 0;
new MutationObserver(() => {
  const bars = [...document.querySelectorAll("[data-testid=status-tracker]")];
  const seen = bars.filter(e => !e.classList.contains("hide") && e.textContent.trim());
  window.mostBars = Math.max(window.mostBars, seen.length);
}).observe(document.body, {subtree: true, childList: true, attributes: true});"""


@dataclass
class Page:
    """The page while it is served."""

    address: str
    log: Path
    temporary: Path  # its folder for temporary files
    process: subprocess.Popen[str]

    def lines(self, word: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.startswith(word)]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of random weights, whose probabilities are spread from 0 to 1."""
    torch.manual_seed(0)
    network = UNet(width=4, depth=2).eval()
    with torch.inference_mode():
        logits = network(torch.randn(1, 3, 96, 92))
    network.classifier.weight.data *= 3 / logits.std()
    network.classifier.bias.data.zero_()
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    checkpoint = {"model": network.config, "weights": network.state_dict(), "threshold": 0.5}
    save_checkpoint(path, {**checkpoint, "diameter": 92})
    return path


@pytest.fixture(scope="module")
def page(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    pytest.importorskip("gradio", reason=WITH_GRADIO)
    folder = tmp_path_factory.mktemp("app")
    (folder / "tmp").mkdir()
    log, port = folder / "log.txt", free_port()
    log.touch()
    flags = ["--weights", str(weights), "--arteries-veins", "--views=1", "--device=cpu", "--no-browser"]
    process = subprocess.Popen(
        [sys.executable, "-c", START, str(log), *flags, "--port", str(port)],
        cwd=folder,
        env=os.environ | {"TMPDIR": str(folder / "tmp"), "HTTP_PROXY": "http://proxy.invalid:9"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = ""
    while f"open http://127.0.0.1:{port}" not in said:
        line = process.stdout.readline()
        assert line, f"app.py ended: {said}"
        said += line
    yield Page(f"http://127.0.0.1:{port}/", log, folder / "tmp", process)
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small eyes, eye0.png and eye1.png, and a text that is called a picture."""
    folder = write_photographs(tmp_path_factory.mktemp("photographs"), 2, 96, 92)
    (folder / "no<b>picture.jpg").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def predicted(photographs: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What predict.py makes of the first eye at a threshold of 0.3."""
    out = tmp_path_factory.mktemp("predicted")
    how = ("--weights", weights, "--arteries-veins", "--views=1", "--device=cpu", "--threshold=0.3")
    run_script(predict.main, photographs / "eye0.png", *how, "--out", out)
    return out


def open_page(browser: Browser, page: Page, width: int = 1000) -> None:
    browser.open(page.address, width)
    browser.wait("!!document.querySelector('#files button')")


def drop(browser: Browser, *paths: Path) -> None:
    """Drop files on the page as from a file manager, and wait until their results are shown."""
    x, y = browser.js(
        "(() => { const b = document.querySelector('#files button').getBoundingClientRect(); "
        "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
    )
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for what in ("dragEnter", "dragOver", "drop"):
        browser.call("Input.dispatchDragEvent", type=what, x=x, y=y, data=data)
    browser.wait("(document.querySelector('#image img') ?? {}).naturalWidth > 0")
    browser.wait("!!document.querySelector('.measures')")


def download(browser: Browser, element: str, name: str, folder: Path) -> Path:
    """Press a button for a download and wait for its file."""
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    browser.click(f"document.querySelector('{element}')")
    end = time.monotonic() + 20
    while not (folder / name).exists():
        assert time.monotonic() < end, f"not downloaded: {name}, there are {list(folder.iterdir())}"
        time.sleep(0.02)
    return folder / name


def slide(browser: Browser, threshold: float) -> None:
    """Type a threshold beside the slider, and wait until the measures are those of it."""
    before = browser.js("document.querySelector('.measures').innerText")
    browser.js("(e => { e.focus(); e.select(); })(document.querySelector('#threshold input[type=number]'))")
    browser.call("Input.insertText", text=str(threshold))
    browser.key("Enter")
    browser.key("Tab")
    browser.wait(f"document.querySelector('.measures').innerText !== {before!r}")


def test_dropped_photographs_give_outline_measures_and_files_as_predict_does(
    browser, page, photographs, predicted, tmp_path
):
    open_page(browser, page)
    drop(browser, *sorted(photographs.iterdir()))
    assert browser.js("[...document.querySelectorAll('#image img')].map(e => e.naturalWidth)") == [92, 92]
    refused = browser.js("document.querySelector('.refused').innerText")
    assert "picture.jpg: not a TIFF, PNG, JPEG, GIF, BMP, PPM, WebP, JPEG 2000 or AVIF image" in refused
    assert str(page.temporary) not in refused
    times = len(page.lines("begin"))
    slide(browser, 0.3)
    mask = iio.imread(download(browser, "#mask", "eye0_mask.png", tmp_path))
    levels = iio.imread(download(browser, "#probability", "eye0_probability.png", tmp_path))
    table = download(browser, "#csv", "measures.csv", tmp_path)
    assert len(page.lines("begin")) == times, "the slider predicts again"
    assert (mask == iio.imread(predicted / "masks" / "eye0.png")).all()
    assert (levels == iio.imread(predicted / "probability" / "eye0.png")).all()
    assert 0 < np.count_nonzero(mask) < np.count_nonzero(levels)
    rows, (wanted,) = read_csv(table), read_csv(predicted / "measures.csv")
    assert [(row["image"], float(row["threshold"]) == 0.3) for row in rows] == [("eye0", True), ("eye1", False)]
    assert wanted["vessel_share"]
    # a single view has no spread, and a doubt is one of the whole photograph
    assert wanted["crae_reason"] and float(wanted["kind_decided"]) > 0
    assert rows[0]["photograph"] == Path(wanted["photograph"]).name == "eye0.png"
    assert wanted.keys() - rows[0].keys() == {"made_by"}
    assert wanted | {name: rows[0][name] for name in wanted if name not in ("photograph", "made_by")} == wanted
    browser.click("[...document.querySelectorAll('#layer label')].at(-1)")
    browser.wait("document.body.innerText.includes('only at the usual one')")
    assert browser.errors == []


def test_the_photograph_lies_beside_the_layer_and_both_are_zoomed(browser, page, photographs):
    open_page(browser, page)
    browser.js(MOST_BARS)
    drop(browser, *sorted(photographs.iterdir()))
    assert browser.js("window.mostBars") == 1
    pixels = browser.js(DRAWN)
    original = iio.imread(photographs / "eye0.png").mean(axis=(0, 1))
    assert np.allclose(pixels[0][:3], original, atol=2), "the photograph, by its mean colour"
    assert not np.allclose(pixels[1][:3], original, atol=2), "its outline"
    before = browser.js(WIDTHS)
    x, y = browser.js(
        "(() => { const e = document.querySelector('#image img'); e.scrollIntoView({block: 'center'}); "
        "const b = e.getBoundingClientRect(); return [b.x + b.width / 4, b.y + b.height / 2]; })()"
    )
    browser.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-240)
    browser.wait(f"{WIDTHS}.every((width, k) => width > 1.03 * {before}[k])")
    browser.js("document.querySelector('#image .stage').focus()")
    browser.key("0")
    browser.wait(f"{WIDTHS}.every((width, k) => width === {before}[k])")
    browser.key("+")
    browser.wait(f"{WIDTHS}.every((width, k) => width > 1.4 * {before}[k])")
    browser.js("document.querySelector('#image input').focus()")
    clips = "[...document.querySelectorAll('#image img')].map(e => e.style.clipPath.match(/[0-9.]+%/)?.[0])"
    assert browser.js(clips) == [None, "50%"]
    browser.key("ArrowRight")
    assert browser.js(clips) == [None, "51%"]
    texts = browser.js("[...document.querySelectorAll('#image img')].map(e => e.alt)")
    assert texts == ["Photograph of eye0.png", "Outline of eye0.png"]
    assert not browser.js("document.querySelector('#files button').ariaLabel"), "hides what stands on it"
    browser.click("[...document.querySelectorAll('#layer label')].find(e => e.innerText === 'Arteries, veins')")
    browser.wait("document.body.innerText.includes('Right: Red: artery. Blue: vein.')")
    browser.wait(f"{DRAWN}.then(found => Math.abs(found[1][0] - {pixels[1][0]}) > 0.1)")
    assert browser.errors == []


def test_the_measures_have_the_words_of_the_result_page(browser, page, photographs):
    open_page(browser, page)
    drop(browser, photographs / "eye0.png")
    rows = browser.js(
        "[...document.querySelectorAll('.measures tbody tr')].map(r => [...r.cells].map(c => c.innerText))"
    )
    shown = {title: (hint, trust) for title, _, hint, trust in rows}
    for how in (MEASURES["length"], MEASURES["fractal_d2"], MEASURES["largest_tree"]):
        assert shown[how.title] == (how.hint, how.trust)
    assert shown["CRAE"][0].startswith("calibre of the six largest arteries in zone B, pixels: "), "why not"
    words = browser.js("document.querySelector('#measures').innerText")
    assert all(f"{word}: {meaning}" in words for word, meaning in TRUST.items())


def test_the_page_asks_no_other_computer_for_anything(browser, page):
    open_page(browser, page)
    foreign = [u for u in browser.requests if not u.startswith((page.address, "data:", "blob:"))]
    assert len(browser.requests) > 5
    assert foreign == []
    hosts = {line.removeprefix("host ") for line in page.lines("host")}
    assert hosts == {"127.0.0.1"}, "bound, looked up or connected to"


def test_the_page_fits_a_phone(browser, page, photographs):
    open_page(browser, page, width=390)
    drop(browser, photographs / "eye0.png")
    assert browser.js("document.documentElement.scrollWidth") <= 390
    parts = "#image, #layer label, #threshold, #mask, #probability, #csv, .measures td"
    beyond = (
        f"[...document.querySelectorAll('{parts}')]"
        ".filter(e => e.getBoundingClientRect().right > 390).map(e => e.outerHTML.slice(0, 80))"
    )
    assert browser.js(beyond) == []


def test_two_people_at_once_are_served_in_turn(page, photographs):
    from gradio_client import Client, handle_file

    already = len(page.lines("begin")) + len(page.lines("end"))
    clients = [Client(page.address, verbose=False) for _ in range(2)]
    eyes = [handle_file(str(photographs / f"eye{k}.png")) for k in range(2)]
    jobs = [client.submit(eyes, api_name="/drop_files") for client in clients]
    for job in jobs:
        job.result(timeout=60)
    order = [line for line in page.log.read_text().splitlines() if line in ("begin", "end")][already:]
    assert order == ["begin", "end"] * 4


def test_ctrl_c_ends_the_page_and_removes_its_files(page):
    assert any(path.is_file() for path in page.temporary.rglob("*")), "there was something to remove"
    page.process.send_signal(signal.SIGINT)
    assert page.process.wait(120) == 0
    assert "Traceback" not in page.process.stdout.read()
    assert list(page.temporary.glob("vessels-*")) == []


def test_photographs_beyond_the_limits_are_refused_with_the_reason(weights, tmp_path, monkeypatch):
    segmenter = Segmenter(weights, views=1, device="cpu")
    monkeypatch.setattr(app, "MOST_PHOTOGRAPHS", 4)
    monkeypatch.setattr(app, "MOST_PIXELS", 2 * 40 * 44)
    monkeypatch.setattr(app, "LARGEST_FILE", 50_000)
    (tmp_path / "dropped").mkdir()
    (tmp_path / "dropped" / "big.tif").write_bytes(bytes(50_001))
    dropped = sorted(write_photographs(tmp_path / "dropped", 5, 40, 44).iterdir())
    (tmp_path / "out").mkdir()
    drop, refused = app.segment_drop(segmenter, dropped, tmp_path / "out", lambda *_, **__: None)
    assert list(drop.found) == ["eye0", "eye1"]
    assert refused == [
        "big.tif: more than 50,000 bytes; save it smaller",
        "eye2.png: more than 3,520 pixels at a time; drop it later, alone",
        "eye3.png: more than 4 photographs at a time; drop it later",
        "eye4.png: more than 4 photographs at a time; drop it later",
    ]


def test_without_gradio_a_line_says_what_to_install(monkeypatch):
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "no_proxy"):
        monkeypatch.setenv(name, "")  # so that it is put back
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"^gradio is not installed.*requirements-app\.txt$"):
        run_script(app.main)


def test_a_port_that_is_taken_is_one_line(weights, monkeypatch):
    pytest.importorskip("gradio", reason=WITH_GRADIO)
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "no_proxy"):
        monkeypatch.setenv(name, "")
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"^--port {port}: cannot be opened.*Give another$"):
            run_script(app.main, "--weights", weights, "--port", port, "--no-browser")
