"""`predict.py --resume` goes on after a kill, and ends with what one run would have written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import run_script, write_photographs

import predict
from batch import photographs
from datasets.images import list_images

ROOT = Path(predict.__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six small photographs."""
    return write_photographs(tmp_path_factory.mktemp("photographs"), 6, 120, 110)


def contents(out: Path) -> dict[str, bytes]:
    """All results; predict.json holds a date and the command, written.json the size of that."""
    files = [
        file for file in out.rglob("*") if file.is_file() and file.name not in ("predict.json", "written.json")
    ]
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


def test_after_a_kill_it_goes_on_and_ends_as_without_one(folder: Path, files: Path, tmp_path: Path) -> None:
    flags = [folder, "--weights", files / "checkpoint.pth", "--device", "cpu"]
    run_script(predict.main, *flags, "--out", tmp_path / "whole")
    command = [sys.executable, ROOT / "predict.py", *flags, "--out", tmp_path / "killed"]
    journal = tmp_path / "killed" / "finished.jsonl"
    with subprocess.Popen(
        [*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and not (journal.exists() and journal.read_text().count("\n") >= 2):
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
    with journal.open("a") as file:
        file.write('{"name": "eye5", "ro')  # a kill while a line was written
    run_script(predict.main, *flags, "--out", tmp_path / "killed", "--resume")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_only_what_is_not_finished_is_segmented_again(
    folder: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmented = []
    original = photographs.predict_photograph

    def watched(path: Path, name: str, predictor: photographs.Predictor) -> dict:
        segmented.append(name)
        return original(path, name, predictor)

    def again(*flags: object) -> list[str]:
        segmented.clear()
        given = [folder, "--weights", files / "checkpoint.pth", "--device", "cpu", "--no-tta"]
        run_script(predict.main, *given, "--out", tmp_path, *flags)
        return sorted(segmented)

    monkeypatch.setattr(photographs, "predict_photograph", watched)
    every = [path.stem for path in list_images(folder)]
    assert again() == every
    before = contents(tmp_path)
    assert again("--resume") == []
    (tmp_path / "masks" / "eye1.png").unlink()
    (tmp_path / "probability" / "eye3.png").write_bytes(b"cut off")
    os.utime(folder / "eye4.png", ns=(0, 0))
    assert again("--resume") == ["eye1", "eye3", "eye4"]
    after = contents(tmp_path)
    assert {k: v for k, v in after.items() if k != "finished.jsonl"} == {
        k: v for k, v in before.items() if k != "finished.jsonl"
    }
    assert again("--resume", "--threshold", "0.3") == every
    assert again() == every, "without --resume all is done again"
