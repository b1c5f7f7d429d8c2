"""Photographs and results on disks as people have them: links, odd names, network mounts, full ones."""

from __future__ import annotations

import errno
import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import forked
import pytest
from conftest import ROOT, TINY, posix, product_files, read_csv, run_script, write_photographs
from forked import Forked
from test_resume_prediction import finished

import augment
import export
import predict
import test as tester
import train
from batch import photographs
from batch.folders import find_photographs, name_results
from datasets.images import read_image
from prediction import segmenter
from system import files as system_files
from system.files import UNFINISHED, atomic, claim, write_csv
from utils import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three small photographs."""
    return write_photographs(tmp_path_factory.mktemp("photographs"), 3, 120, 110)


def run_predict(files: Path, out: Path, *paths: object) -> int | None:
    weights = ("--weights", files / "checkpoint.pth", "--device", "cpu", "--views=1")
    return run_script(predict.main, *paths, "--out", out, *weights)


def names_in(out: Path) -> list[str]:
    """The photographs in measures.csv."""
    return [row["image"] for row in read_csv(out / "measures.csv")]


@posix
def test_two_links_to_one_file_are_two_photographs(folder, files, tmp_path):
    for name in ("left.png", "right.png"):
        (tmp_path / "eyes").mkdir(exist_ok=True)
        (tmp_path / "eyes" / name).symlink_to(folder / "eye0.png")
    assert run_predict(files, tmp_path / "out", tmp_path / "eyes") == 0
    assert names_in(tmp_path / "out") == ["left", "right"]


@posix
@pytest.mark.parametrize("named", [True, False])
def test_a_loop_of_links_is_named_and_the_others_are_segmented(folder, files, tmp_path, named):
    eyes = shutil.copytree(folder, tmp_path / "eyes")
    (eyes / "loop.png").symlink_to("loop.png")
    paths = sorted(eyes.iterdir()) if named else [eyes]
    with pytest.raises(
        UserError, match=r"1 could not be segmented:\n.*loop\.png: no such file.*: a link that leads to none"
    ):
        run_predict(files, tmp_path / "out", *paths)
    assert names_in(tmp_path / "out") == ["eye0", "eye1", "eye2"]


def test_results_of_an_earlier_run_are_no_photographs(folder, files, tmp_path, capsys):
    eyes = shutil.copytree(folder, tmp_path / "eyes")
    run_predict(files, eyes / "run1", eyes)
    assert run_predict(files, eyes / "run2", eyes, "--recursive") == 0
    assert names_in(eyes / "run2") == ["eye0", "eye1", "eye2"]
    assert f"{eyes / 'run1'}: what predict.py wrote" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"run1: holds what predict\.py wrote"):
        run_predict(files, tmp_path / "out", eyes / "run1")
    for within in ("masks", "page/photograph", "masks/eye0.png"):
        with pytest.raises(UserError, match=rf"{within}: lies in what predict\.py wrote; name the photographs"):
            run_predict(files, tmp_path / "out", eyes / "run1" / within)
    shutil.copytree(folder, eyes / "run1" / "mine")  # what the user put there is none
    assert find_photographs([eyes / "run1" / "mine"]).problems == []


@posix
def test_long_names_in_two_folders_have_results_of_their_own(folder, files, tmp_path):
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
        shutil.copy(folder / "eye0.png", tmp_path / part / f"{'x' * 251}.png")
        shutil.copy(folder / "eye0.png", tmp_path / part / f"{'ü' * 125}.png")
    assert run_predict(files, tmp_path / "out", tmp_path / "a", tmp_path / "b") == 0
    assert names_in(tmp_path / "out") == ["x" * 250, "ü" * 125, f"{'x' * 248}_2", f"{'ü' * 124}_2"]
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 4


def test_names_that_look_alike_are_not_one(tmp_path):
    composed, parts = Path("a/M\u00fcller.png"), Path("b/Mu\u0308ller.png")
    named = name_results({path: path.stem for path in (composed, parts)}, tmp_path)
    assert list(named) == [composed.stem, f"{parts.stem}_2"]
    clash = {Path("a.png"): "a", Path("a.png/eye.png"): "a.png/eye"}
    assert list(name_results(clash, tmp_path)) == ["a", "a.png_2/eye"], "masks/a.png cannot be file and folder"


@posix
@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_a_name_with_bytes_that_are_no_text_is_segmented(folder, files, tmp_path, locale):
    (tmp_path / "eyes").mkdir()
    for name in (b"caf\xe9.png", "Müller.png".encode()):
        shutil.copy(folder / "eye0.png", tmp_path / "eyes" / os.fsdecode(name))
    weights = ["--weights", str(files / "checkpoint.pth"), "--device", "cpu", "--views=1"]
    command = [sys.executable, str(ROOT / "predict.py"), str(tmp_path / "eyes"), "--out", str(tmp_path / "out")]
    done = subprocess.run([*command, *weights], env={**os.environ, **locale}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    there = {os.fsencode(path.name) for path in (tmp_path / "out" / "masks").iterdir()}
    assert there == {b"caf\xe9.png", "Müller.png".encode()}


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_disk_without_fsync_is_written_to_and_named_once(tmp_path, monkeypatch, capsys, number):
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    system_files.warn_of_power_cuts.cache_clear()
    for name in "abc":
        with atomic(tmp_path / name) as temporary:
            temporary.write_text(name)
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["a", "b", "c"]
    assert capsys.readouterr().err.count("not say when a file is safe from a power cut") == 1
    number = errno.EIO  # any other error is one
    with pytest.raises(UserError, match="cannot be written"), atomic(tmp_path / "d") as temporary:
        pass
    assert not (tmp_path / "d").exists()


def test_files_are_made_safe_from_power_cuts_in_one_place():
    for path in product_files():  # so every script writes to a disk without fsync
        assert path.name == "files.py" or "fsync" not in path.read_text(encoding="utf-8"), path


def test_an_error_of_reading_is_none_of_writing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"mask\.png"), atomic(tmp_path / "all.zip"):
        (tmp_path / "masks" / "mask.png").read_bytes()
    with pytest.raises(UserError, match=r"all\.zip: cannot be written"), atomic(tmp_path / "all.zip") as path:
        path.unlink()
        path.open("rb")
    assert not list(tmp_path.iterdir())


@posix
def test_a_folder_that_is_released_while_it_is_claimed_is_free(tmp_path, monkeypatch):
    lock, tries = system_files.lock, []

    def released_meanwhile(file) -> bool:
        tries.append(file)
        if len(tries) == 1:
            (tmp_path / ".lock").unlink()
        return lock(file)

    monkeypatch.setattr(system_files, "lock", released_meanwhile)
    with claim(tmp_path):
        assert len(tries) == 2 and tries[0].closed
        assert (tmp_path / ".lock").read_text().strip() == str(os.getpid())


@pytest.mark.parametrize("place", ["missing", "full"])
def test_nothing_needs_room_in_the_folder_for_temporary_files(folder, files, tmp_path, place, monkeypatch):
    temporary = str(tmp_path / "missing") if place == "missing" else "/dev/full"
    monkeypatch.setattr(tempfile, "tempdir", temporary)
    assert run_predict(files, tmp_path / "out", folder) == 0
    assert names_in(tmp_path / "out") == ["eye0", "eye1", "eye2"]
    assert not list((tmp_path / "out").glob(f"{UNFINISHED}*"))


def test_a_table_leaves_no_other_file(tmp_path):
    write_csv(tmp_path / "t.csv", [{"name": "ü"}])
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize("where", ["home", "program", "root", "images"])
@pytest.mark.parametrize("script", ["predict.py", "test.py", "augment.py", "train.py"])
def test_results_go_to_no_place_that_is_for_other_things(
    folder, files, new_data, drive, tmp_path, where, script, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    others = write_photographs(tmp_path / "others", 1, 40, 40)
    out = {"home": tmp_path / "home", "program": ROOT, "root": Path(tmp_path.anchor), "images": others}[where]
    before = sorted(out.iterdir())
    weights = ["--weights", files / "checkpoint.pth"]
    with pytest.raises(UserError, match="not a place for results|holds images, such as eye0.png"):
        if script == "predict.py":
            run_predict(files, out, folder)
        elif script == "test.py":
            run_script(tester.main, "--data", new_data, "--results", out, *weights, "--views=1")
        elif script == "augment.py":
            run_script(augment.main, "--drive", drive, "--out", out)
        else:
            run_script(train.main, "--data", new_data, "--files", out, *TINY, "--epochs=1", "--crops=4")
    assert sorted(out.iterdir()) == before


@pytest.mark.parametrize("name", ["eye0.png", ".", "new.txt"])
def test_export_replaces_nothing_but_onnx_files(folder, files, name):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match="name a file that ends in .onnx"):
        run_script(export.main, "--weights", files / "checkpoint.pth", "--out", folder / name)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_of_folders_suggests_to_look_into_them(tmp_path):
    for name in ("a", "b", ".hidden"):
        (tmp_path / name).mkdir()
    (problem,) = find_photographs([tmp_path]).problems
    assert problem == f"{tmp_path}: no images in this folder; to look into the folders in it, add --recursive"


def test_patterns_and_paths_of_windows_that_a_shell_left_as_they_are(folder, tmp_path):
    listing = find_photographs([folder / "eye[01].*"])
    assert [path.name for path in listing.photographs] == ["eye0.png", "eye1.png"] and not listing.problems
    (problem,) = find_photographs([folder / "*.jpg"]).problems
    assert "nothing matches this pattern" in problem
    shutil.copy(folder / "eye0.png", tmp_path / "eye[1].png")
    assert list(find_photographs([tmp_path / "eye[1].png"]).photographs) == [tmp_path / "eye[1].png"]
    if os.name != "nt":
        (problem,) = find_photographs([Path("C:\\eyes\\a.png")]).problems
        assert "a path of Windows, which in WSL is /mnt/c/" in problem


@pytest.mark.parametrize("script", ["augment.py", "test.py"])
def test_folders_of_other_scripts_may_be_patterns_and_paths_of_windows_too(script, new_data, tmp_path):
    (tmp_path / "mine").mkdir()
    cases = {tmp_path / "m*": "mine: no ", tmp_path / "other*": "other*: nothing matches this pattern"}
    cases |= {Path("C:\\eyes"): "C:\\eyes: no such folder; a path of Windows"} if os.name != "nt" else {}
    for folder, said in cases.items():
        with pytest.raises(UserError, match=re.escape(said)):
            if script == "augment.py":
                run_script(augment.main, folder, "--out", tmp_path / "out")
            else:
                run_script(tester.main, "--data", new_data, "--masks", folder, "--results", tmp_path / "out")


def test_what_is_read_when_named_is_read_in_a_folder_too(folder, tmp_path):
    shutil.copy(folder / "eye0.png", tmp_path / "eye0")
    (tmp_path / "eye1.png.gz").write_bytes(gzip.compress((folder / "eye1.png").read_bytes()))
    for name in ("README", "notes.txt.gz"):
        (tmp_path / name).write_text("of the study")
    listing = find_photographs([tmp_path])
    assert listing.photographs == {tmp_path / "eye0": "eye0", tmp_path / "eye1.png.gz": "eye1"}
    assert [line.split(":")[0] for line in listing.others] == [
        str(tmp_path / n) for n in ("README", "notes.txt.gz")
    ]
    for path in listing.photographs:
        assert read_image(path).shape == (120, 110, 3)


def test_memory_is_looked_at_before_and_the_flag_is_named(folder, files, tmp_path, monkeypatch):
    monkeypatch.setattr(segmenter, "free_memory", lambda: 1e6)
    monkeypatch.setattr(segmenter, "segment", lambda *_: pytest.fail("it was not looked at before"))
    with pytest.raises(UserError, match=r"eye0\.png: at the network's scale .* give --diameter"):
        run_predict(files, tmp_path, folder, "--diameter", 40)


def test_a_full_disk_names_the_file_that_did_not_fit(folder, files, tmp_path, monkeypatch):
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if "eye1" in self.name:
            monkeypatch.setattr(Path, "open", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space")))
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    said = (
        r"eye1\.\w+: cannot be written \(No space left on device\); free some space; .*; go on with: .* --res"
    )
    with pytest.raises(UserError, match=said):
        run_predict(files, tmp_path, folder)


def predict_slowly(seconds: float, *arguments: str) -> None:
    """What `python predict.py` does; each photograph takes so long."""
    original = photographs.write_results
    photographs.write_results = lambda *given: (time.sleep(seconds), original(*given))
    forked.script("predict.py", *arguments)


@posix
@pytest.mark.parametrize("which", ["SIGTERM", "SIGHUP", "SIGINT", "SIGUSR1"])
def test_a_signal_leaves_tables_of_what_is_finished_and_says_how_to_go_on(folder, files, tmp_path, which):
    weights = ["--weights", str(files / "checkpoint.pth"), "--device", "cpu", "--views=1"]
    process = Forked(predict_slowly, 1.0, str(folder), "--out", str(tmp_path / "out"), *weights)
    try:
        forked.wait_until(lambda: finished(tmp_path / "out"), process)
        process.send_signal(getattr(signal, which))
        if which != "SIGINT":
            process.send_signal(getattr(signal, which))  # a shell sends a second one of its own
        _, said = process.communicate(60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "what is finished is kept; go on with: python predict.py" in said and "--resume\n" in said
    assert "Traceback" not in said
    assert 1 <= len(names_in(tmp_path / "out")) < 3
    assert (tmp_path / "out" / "index.html").is_file() and (tmp_path / "out" / "predict.json").is_file()
