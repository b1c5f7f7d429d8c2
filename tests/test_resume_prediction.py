"""`predict.py --resume` goes on after a kill, and ends with what one run would have written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import forked
import pytest
from conftest import read_csv, run_script, write_photographs

import predict
from batch import photographs
from datasets.images import list_images
from system.records import read_record


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six small photographs."""
    return write_photographs(tmp_path_factory.mktemp("photographs"), 6, 120, 110)


def contents(out: Path) -> dict[str, bytes]:
    """All results; predict.json holds a date and the command, and records hold times."""
    own = ("predict.json", "written.json")
    files = [f for f in out.rglob("*") if f.is_file() and f.name not in own and "records" not in f.parts]
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


def finished(out: Path) -> int:
    """How many photographs are finished."""
    return sum(read_record(path).is_whole for path in out.glob("records/**/*.json"))


def test_after_a_kill_it_goes_on_and_ends_as_without_one(folder, files, tmp_path):
    flags = [folder, "--weights", files / "checkpoint.pth", "--device", "cpu"]
    run_script(predict.main, *flags, "--out", tmp_path / "whole")
    process = forked.start("predict.py", *flags, "--out", tmp_path / "killed")
    forked.wait_until(lambda: finished(tmp_path / "killed") >= 2, process)
    process.kill()
    process.communicate()
    (tmp_path / "killed" / "records" / "eye5.json").unlink(missing_ok=True)
    run_script(predict.main, *flags, "--out", tmp_path / "killed", "--resume")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_only_what_is_not_finished_is_segmented_again(folder, files, tmp_path, monkeypatch):
    segmented = []
    original = photographs.predict_photograph

    def watched(path: Path, name: str, predictor: photographs.Predictor) -> dict:
        segmented.append(name)
        return original(path, name, predictor)

    def again(*flags: object) -> list[str]:
        segmented.clear()
        given = [folder, "--weights", files / "checkpoint.pth", "--device", "cpu", "--views=1"]
        run_script(predict.main, *given, "--out", tmp_path, *flags)
        return sorted(segmented)

    monkeypatch.setattr(photographs, "predict_photograph", watched)
    every = [path.stem for path in list_images(folder)]
    assert again() == every
    before = contents(tmp_path)
    assert again("--resume") == []
    (tmp_path / "masks" / "eye1.png").unlink()
    (tmp_path / "probability" / "eye3.png").write_bytes(b"cut off")
    photograph = (folder / "eye4.png").read_bytes()
    shutil.copy(folder / "eye5.png", folder / "eye4.png")
    os.utime(folder / "eye0.png", ns=(0, 0))  # the same content at another time is no other photograph
    assert again("--resume") == ["eye1", "eye3", "eye4"]
    (folder / "eye4.png").write_bytes(photograph)
    assert again("--resume") == ["eye4"]
    assert contents(tmp_path) == before
    assert again("--resume", "--threshold", "0.3") == every
    assert again() == every, "without --resume all is done again"


def test_ctrl_c_before_the_first_photograph_leaves_tables_of_finished_ones_too(
    folder, files, tmp_path, monkeypatch
):
    flags = ["--weights", files / "checkpoint.pth", "--device", "cpu", "--out", tmp_path]
    run_script(predict.main, folder / "eye0.png", *flags)
    (tmp_path / "measures.csv").unlink()  # as after a kill
    load_networks = predict.load_networks

    def with_disc(*given: object) -> object:
        model, threshold = load_networks(*given)
        model.disc = 112
        return model, threshold

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(predict, "load_networks", with_disc)
    monkeypatch.setattr(predict, "look_at_some", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_script(predict.main, folder, *flags, "--resume")
    assert [row["image"] for row in read_csv(tmp_path / "measures.csv")] == ["eye0"]
