"""Many photographs at a time give what each gives alone, in bounded memory, and stop whole."""

from __future__ import annotations

import json
import threading
import tracemalloc
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import tqdm
from conftest import CPU, page_data, run_script, write_photographs

import predict
from anatomy.photograph import look_at
from batch import photographs
from batch.manifest import write_manifest
from batch.photographs import Predictor, predict_photographs
from batch.results import ResultsFolder, Rows
from datasets.field_of_view import estimate_fov
from datasets.images import list_images, read_image, read_mask, write_png
from datasets.synthetic import draw_eye
from datasets.tables import Table
from measures.table import write_measures
from measures.vessels import CONFIDENCE, MEASURES
from model import UNet
from networks.checkpoints import KINDS
from networks.loading import load_networks
from prediction import segmenter
from prediction.scale import plan_scale
from prediction.segmentation import segment
from utils import UserError

SHIPPED = Path(predict.__file__).parent / "files" / "drive_unet.pth"


@pytest.fixture
def two_cores() -> Iterator[None]:
    """Two threads, so that there are two workers."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2, "the number of threads was not set back"
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of nine small photographs."""
    return write_photographs(tmp_path_factory.mktemp("photographs"), 9, 150, 140)


class Sink(ResultsFolder):
    """A folder that notes the rows it is given and writes none."""

    def __init__(self, out: Path) -> None:
        super().__init__(out, [], Table(), threshold=0.5, views=1, dicom_id=None)
        self.kept: list[str] = []

    def finish(self, name: str, photograph: Path, before: Sequence[Any], row: Mapping[str, Any]) -> None:
        self.kept.append(row["image"])


def run_predict(out: Path, *more: object) -> int | None:
    """Run predict.py with the shipped weights, in one view."""
    return run_script(predict.main, "--out", out, "--weights", SHIPPED, "--device", "cpu", "--views=1", *more)


def pages_names(out: Path) -> list[str]:
    """The names on the page."""
    return [image["name"] for image in page_data(out / "index.html")["images"]]


def test_masks_are_those_of_each_photograph_alone(tmp_path, two_cores):
    for k, shape in enumerate([(700, 660), (560, 540), (900, 1300)]):
        photograph = cv2.resize(draw_eye(np.random.default_rng(k), 350, 330)[0], shape[::-1])
        write_png(tmp_path / "in" / f"{k}.png", photograph)
    assert run_predict(tmp_path / "out", tmp_path / "in") == 0
    model, threshold = load_networks([SHIPPED], None, CPU)
    for path in list_images(tmp_path / "in"):
        photograph = read_image(path)
        fov = estimate_fov(photograph)
        alone = (
            segment(model, photograph, fov, scale=plan_scale(look_at(photograph), model).factor) >= threshold
        )
        mask = read_mask(tmp_path / "out" / "masks" / path.name) > 0
        assert mask.any()
        assert np.mean(mask == (alone & (fov > 0))) >= 0.9999


def test_ctrl_c_keeps_what_is_finished_and_gives_it_a_page(folder, tmp_path, two_cores, monkeypatch):
    def interrupted(done: Iterator[str], *_: object, **__: object) -> Iterator[str]:
        yield next(done)
        raise KeyboardInterrupt

    monkeypatch.setattr(tqdm, "tqdm", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_predict(tmp_path, folder)
    names = pages_names(tmp_path)
    assert 1 <= len(names) < 9
    assert not list(tmp_path.rglob(".*"))
    for part in ("outlines", "masks", "probability", "page/photograph", "page/thumbnail"):
        files = list_images(tmp_path / part)
        assert [file.stem for file in files] == names
        for file in files:
            read_image(file)


def test_a_photograph_in_the_network_is_given_up_when_the_caller_stops(folder, tmp_path, two_cores):
    passed, model = [], UNet(width=4, depth=2).eval()
    predictor = Predictor(model, 0.5, 8, None, Sink(tmp_path))
    names = {path.stem: path for path in list_images(folder)}
    with closing(predict_photographs(names, predictor, {})) as done:
        next(done)
        model.register_forward_hook(lambda *_: passed.append(1))
    assert len(predictor.results.kept) < len(names)
    assert len(passed) < 2 * 8, "two photographs went through all their views"
    assert not model._forward_pre_hooks


def test_few_photographs_are_in_memory_at_a_time(folder, tmp_path, two_cores, monkeypatch):
    started = []

    def fake(path: Path, name: str, _: Predictor) -> dict[str, Any]:
        started.append(name)
        return {"image": name}

    monkeypatch.setattr(photographs, "predict_photograph", fake)
    names = {str(k): Path(f"{k}.png") for k in range(1000)}
    predictor = Predictor(UNet(width=4, depth=2), 0.5, 1, None, Sink(tmp_path))
    order = []
    for name in predict_photographs(names, predictor, {}):
        order.append(name)
        assert len(started) <= len(order) + 5
    assert order == list(names)


class Row(dict):
    """A row that can be watched."""

    __hash__ = object.__hash__


@pytest.mark.parametrize("work", ["label_vessels", "binarize", "plan_scale"])
def test_only_the_networks_hold_the_turn_at_a_device(work, monkeypatch):
    original, entered, held = getattr(segmenter, work), [], []
    model, kinds = (UNet(out_channels=number, width=2, depth=1).eval() for number in (1, 2))
    kinds.outputs = KINDS

    def watched(*given: Any) -> Any:
        held.append(turn.locked())
        return original(*given)

    turn = threading.Lock()
    model.turn = kinds.turn = turn
    for network in (model, kinds):
        network.register_forward_hook(lambda *_: entered.append(turn.locked()))
    monkeypatch.setattr(segmenter, work, watched)
    taken = look_at(draw_eye(np.random.default_rng(0), 96, 92)[0])
    segmenter.segment_photograph(model, taken, 0.5, 1, kinds)
    assert entered == [True] * len(entered) and len(entered) >= 2
    assert held == [False] * len(held) and held


def test_rows_go_to_the_records_and_are_kept_nowhere_else(tmp_path, two_cores, monkeypatch):
    alive: weakref.WeakSet[Row] = weakref.WeakSet()
    monkeypatch.setattr(photographs, "predict_photograph", lambda path, name, _: watched(name))

    def watched(name: str) -> Row:
        alive.add(row := Row(image=name))
        return row

    names = {str(k): Path(f"{k}.png") for k in range(300)}
    predictor = Predictor(UNet(width=4, depth=2), 0.5, 1, None, Sink(tmp_path))
    for _ in predict_photographs(names, predictor, {}):
        assert len(alive) < 10
    assert sorted(predictor.results.kept) == sorted(names)


def test_tables_and_page_of_many_photographs_are_written_a_row_at_a_time(tmp_path):
    rows = Rows(tmp_path / "rows")
    row = dict.fromkeys((*CONFIDENCE, *MEASURES), 0.123456789)
    row |= {"photograph": "x" * 100, "doubtful": "", "border": True}
    lines = [json.dumps({"image": f"a/{k}", **row}) for k in range(1500)]
    rows.path.write_text("\n".join(lines))
    rows.number = 1500
    size = rows.path.stat().st_size
    del lines
    tracemalloc.start()
    try:
        write_measures(tmp_path / "measures.csv", rows)
        write_manifest(tmp_path / "predict.json", {}, 0.5, "cpu", {}, rows)
        predict.write_page(tmp_path, rows, 0.5, 0, 0, [], [])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 1e6
    assert peak < size / 3, "names are kept, and no more"
    assert len(json.loads((tmp_path / "predict.json").read_text())["photographs"]) == 1500
    assert len(pages_names(tmp_path)) == 1500


def test_a_result_that_cannot_be_written_ends_the_run(folder, tmp_path, two_cores, monkeypatch):
    tried, turn = [], threading.Lock()

    def full(*_: object) -> None:
        with turn:
            tried.append(1)
        raise UserError("disk full")

    monkeypatch.setattr(photographs, "write_results", full)
    with pytest.raises(UserError, match="^disk full$"):
        run_predict(tmp_path, folder)
    assert len(tried) < 9
