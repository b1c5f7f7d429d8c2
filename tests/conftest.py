"""Small eyes and a small trained network that the tests share; real files in DRIVE's formats."""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import CHROMIUM, POSIX, Browser

# the tests' networks are too small for threads to help, and threads that wait for one another on a busy
# machine are many times slower than one; before torch is imported, and inherited by the scripts that are run
os.environ.setdefault("OMP_NUM_THREADS", "1")

import augment
import demo
import train
from anatomy.landmarks import Landmarks
from datasets.images import write_png
from datasets.synthetic import draw_eye
from training.muon import Muon

# a shell that starts the tests in the background has them ignore Ctrl-C, which some of them press; nohup SIGHUP
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
HEIGHT, WIDTH = 96, 92
posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals, limits, names or links")


def product_files() -> list[Path]:
    """The modules of the program: without its tests, and without a virtual environment in its folder."""
    packages = [path.parent for path in ROOT.glob("[a-z]*/__init__.py")]
    found = [path for folder in (ROOT, *packages) for path in folder.glob("*.py")]
    assert len(found) > 90, "as many as there are"
    return found


def run_script(main: Callable[[], int | None], *arguments: object) -> int | None:
    """Run a script's main with these command line arguments in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["script.py", *map(str, arguments)])
        return main()


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table, whether it begins with the mark of UTF-8 or not."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def rows_by_image(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a table by their column `image`."""
    return {row["image"]: row for row in read_csv(path)}


def page_data(page: Path) -> dict[str, Any]:
    """The data inside a page, found as a browser finds it: up to the first end of a script."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script', page.read_text("utf-8"), re.S)
    return json.loads(found.group(1))


def load(checkpoint: Path) -> dict[str, Any]:
    """The content of a checkpoint."""
    return torch.load(checkpoint, weights_only=True)


def same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether the weights of two networks are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def read_history(files: Path) -> list[dict[str, str]]:
    """history.csv of a training, without times."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_csv(files / "history.csv")]


def stop_at(patch: pytest.MonkeyPatch, *steps: int, number: int = signal.SIGINT) -> Iterator[int]:
    """Raise a signal in these steps of the trainings from now on, counted from 0; returns the counter."""
    counter, update = itertools.count(), Muon.step

    def interrupted(self: Muon, *rest: object) -> None:
        if next(counter) in steps:
            signal.raise_signal(number)
        update(self, *rest)

    patch.setattr(Muon, "step", interrupted)
    return counter


def small_data(folder: Path, **eyes: int) -> Path:
    """new_data in this folder, of so many synthetic eyes of this size; arguments as of demo.write_drive."""
    demo.write_drive(folder / "DRIVE", **eyes)
    run_script(augment.main, "--drive", folder / "DRIVE", "--out", folder / "new_data")
    return folder / "new_data"


@pytest.fixture(scope="session")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic DRIVE: 7 eyes to train, 3 labelled ones to test, with a second observer."""
    folder = tmp_path_factory.mktemp("drive") / "DRIVE"
    demo.write_drive(folder, train=7, test=3, height=HEIGHT, width=WIDTH)
    return folder


@pytest.fixture(scope="session")
def new_data(drive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What augment.py makes of it."""
    folder = tmp_path_factory.mktemp("augmented") / "new_data"
    run_script(augment.main, "--drive", drive, "--out", folder)
    return folder


def write_no_chart(figure: object, path: Path, **_: object) -> None:
    """In place of Figure.savefig, which would take most of the time of these short trainings."""
    path.write_text("chart")


@pytest.fixture(scope="session", autouse=True)
def savefig() -> Iterator[Callable[..., None]]:
    """What draws a chart; the trainings of the tests do without it, but for that of `files`."""
    from matplotlib.figure import Figure

    drawn = Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", write_no_chart)
        yield drawn


def write_photographs(folder: Path, number: int, height: int, width: int) -> Path:
    """So many small photographs, eye0.png and so on, in this folder."""
    photograph = draw_eye(np.random.default_rng(4), height, width)[0]
    for k in range(number):
        write_png(folder / f"eye{k}.png", np.roll(photograph, k, axis=2))
    return folder


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Pixels of both masks over pixels of either."""
    return ((one > 0) & (other > 0)).sum() / ((one > 0) | (other > 0)).sum()


def landmarks(**known: float) -> Landmarks:
    """Landmarks of which only these are known."""
    return Landmarks(**dict.fromkeys((field.name for field in fields(Landmarks)), float("nan")) | known)


TINY = ["--width=4", "--depth=2", "--crop=64", "--batch-size=4", "--device=cpu"]


@pytest.fixture(scope="session")
def files(new_data: Path, tmp_path_factory: pytest.TempPathFactory, savefig: Callable[..., None]) -> Path:
    """What train.py makes of that in three short epochs."""
    folder = tmp_path_factory.mktemp("trained") / "files"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", savefig)
        run_script(train.main, "--data", new_data, "--files", folder, *TINY, "--epochs", 3, "--crops", 40)
    return folder


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all pages."""
    if CHROMIUM is None or not POSIX:
        pytest.skip("no chromium, chromium-browser or google-chrome here")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()
