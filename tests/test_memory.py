"""A GPU whose memory other programs fill: one line, and what is finished is kept. It is simulated on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY, run_script, write_photographs

import app
import predict
import train
import utils
from batch import photographs
from prediction import segmenter
from training import epoch

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 44.81 MiB free.")


def full_after(number: int, function: Callable) -> Callable:
    """The function, but after so many calls the memory is full, and free again after one more."""
    calls = iter(range(1_000))

    def call(*arguments: object, **named: object) -> object:
        if next(calls) == number:
            raise FULL
        return function(*arguments, **named)

    return call


def end_of(script: object, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a script that is run as in a shell prints on stderr before it ends with status 2."""
    with pytest.raises(SystemExit) as status:
        utils.run(lambda: run_script(script.main, *arguments), lower="--batch-size")
    assert status.value.code == 2
    return capsys.readouterr().err


LINE = "out of memory of the GPU; lower --batch-size, or end other programs, or use --device cpu\n"


def test_a_gpu_that_is_full_in_a_prediction_leaves_tables_of_what_is_finished(
    files, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(segmenter, "segment", full_after(1, segmenter.segment))
    monkeypatch.setattr(photographs, "MOST_WORKERS", 1)
    eyes, out = write_photographs(tmp_path / "eyes", 2, 96, 92), tmp_path / "out"
    run = (eyes, "--out", out, "--weights", files / "checkpoint.pth", "--views=1", "--device=cpu")
    said = end_of(predict, capsys, *run)
    assert said.endswith(LINE) and "go on with: python script.py" in said and "--resume\n" in said
    assert [path.name for path in (out / "masks").iterdir()] == ["eye0.png"]
    assert "eye0" in (out / "measures.csv").read_text() and (out / "index.html").exists()
    assert run_script(predict.main, *run, "--resume") == 0
    assert "1 of 2 photographs are finished already" in capsys.readouterr().out


def test_a_gpu_that_is_full_in_a_training_leaves_its_checkpoint_to_go_on_from(
    new_data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(epoch, "vessel_loss", full_after(3, epoch.vessel_loss))
    run = ("--data", new_data, "--files", tmp_path, *TINY, "--epochs=2", "--crops=8")  # of two steps
    said = end_of(train, capsys, *run)
    assert said.endswith(LINE) and "last.pth is as it was written last; go on with: python script.py" in said
    assert len(torch.load(tmp_path / "last.pth", weights_only=True)["history"]) == 1
    assert not (tmp_path / ".lock").exists()
    assert run_script(train.main, *run, "--resume") == 0


def test_a_gpu_that_is_full_is_told_on_the_page_and_the_others_are_segmented(tmp_path):
    eyes = [tmp_path / name for name in ("a.png", "b.png")]
    for path in eyes:
        path.touch()
    given = []

    def full(path: Path) -> None:
        given.append(path)
        raise FULL

    drop, refused = app.segment_drop(full, eyes, tmp_path / "drop", lambda *_, **__: None)
    assert given == eyes and not drop.found
    assert refused == [f"{n}: out of memory; shrink it, or drop fewer at a time" for n in ("a.png", "b.png")]
