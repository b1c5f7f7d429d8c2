"""Arguments that every script takes alike: paths with ~, and seeds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import ROOT, run_script

import augment
import demo
import export
import predict
import test
import train
from datasets.images import passed_over
from training.earlier import without_checkpoint
from utils import path_name


@pytest.mark.parametrize("seed", [-1, 2**32, 2**64, "x", ""])
@pytest.mark.parametrize("script", [augment, demo, train], ids=lambda script: script.__name__)
def test_a_seed_that_a_library_would_refuse_is_refused_at_once(script, seed, capsys):
    with pytest.raises(SystemExit) as status:
        run_script(script.main, "--seed", seed)
    assert status.value.code == 2
    said = capsys.readouterr().err
    wanted = (f"--seed: {seed} is out of range: give 0 to 4294967295", f"invalid whole number value: '{seed}'")
    assert any(words in said for words in wanted)


def test_the_largest_seed_works(monkeypatch, new_data, tmp_path):
    last = ["--seed", 2**32 - 1]
    small = ["--width=2", "--depth=1", "--crop=32", "--crops=4", "--epochs=1", "--device=cpu"]
    assert run_script(train.main, "--data", new_data, "--files", tmp_path, *small, *last) == 0


PATHS = {
    augment: (["~/a", "--drive=~/b", "--out=~/c"], ["folders", "drive", "out"]),
    predict: (["~/a", "--weights=~/b", "--out=~/c"], ["paths", "weights", "out"]),
    test: (["--data=~/a", "--weights", "~/b", "--results=~/c"], ["data", "weights", "results"]),
    train: (["--data=~/a", "--files=~/b", "--start-from=~/c"], ["data", "files", "start_from"]),
    export: (["--weights", "~/a", "--out=~/c"], ["weights", "out"]),
}


@pytest.mark.parametrize("script", PATHS, ids=lambda script: script.__name__)
def test_every_path_may_begin_in_the_home_folder(script, monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    arguments, names = PATHS[script]
    monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
    args = script.parse_args()
    for name in names:
        value = getattr(args, name)
        for path in value if isinstance(value, list) else [value]:
            assert path.parent == tmp_path and path.name in "abc"


def test_no_script_reads_a_path_in_another_way():
    for path in ROOT.glob("*.py"):
        assert "type=Path" not in path.read_text(encoding="utf-8"), path
    assert path_name("~nobody-is-called-so/x") == Path("~nobody-is-called-so/x")
    assert path_name("a~/b") == Path("a~/b")


@pytest.mark.parametrize("name", ["eye.dcm", "EYE.DICOM", "eye.dicm"])
def test_dicom_files_are_named_with_what_to_do(name, tmp_path):
    (tmp_path / name).touch()
    (said,) = passed_over(tmp_path, [])
    assert said.startswith(
        f"{tmp_path / name}: a DICOM file; to read it, pip install -r requirements-formats.txt"
    )


def test_a_training_stopped_in_its_first_epoch_says_what_there_is(tmp_path):
    assert without_checkpoint(tmp_path) == ""
    (tmp_path / "last.pth").touch()
    assert without_checkpoint(tmp_path).endswith("till then give test.py --weights")
    for number in (1, 2, 10):
        (tmp_path / "earlier" / str(number)).mkdir(parents=True)
    (tmp_path / "earlier" / "2" / "checkpoint.pth").touch()
    assert without_checkpoint(tmp_path).endswith(f"such as {tmp_path / 'earlier' / '2' / 'checkpoint.pth'}")
    (tmp_path / "checkpoint.pth").touch()
    assert without_checkpoint(tmp_path) == ""
