"""Killed, interrupted, or out of room: what is on the disk is whole, and a resumed training ends the same."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from conftest import CPU, ROOT, load, posix, read_history, run_script, small_data, write_no_chart
from forked import Forked, modified
from matplotlib.figure import Figure

import augment
import train
from data import read_eyes
from datasets.images import write_png
from model import UNet
from networks.checkpoints import find_weights, load_checkpoint
from system.files import UNFINISHED, atomic, claim
from training import epoch, loop, optimizers
from training.crops import Crops, random_affine
from training.earlier import OWN
from training.muon import Muon
from training.settings import Settings
from training.state import Training
from utils import UserError

KILLS = 30
NETWORK = ["--width=4", "--depth=1", "--crop=32", "--batch-size=2", "--device=cpu"]
EPOCHS = 30
# epochs of three steps: most of the time goes to validating and saving, where a kill could harm
SHORT = [*NETWORK, f"--epochs={EPOCHS}", "--crops=6", "--ema=0.9"]


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """new_data of four eyes."""
    return small_data(tmp_path_factory.mktemp("eyes"), train=4, test=1, height=96, width=92)


def start(eyes: Path, files: Path, *more: object, **options: object) -> Forked:
    """Start a training in a process of its own."""
    return forked.start("train.py", "--data", eyes, "--files", files, *more, **options)


def finish(*arguments: object, **options: object) -> tuple[int, str]:
    """Run a training to its end; its status and what it said."""
    process = start(*arguments, **options)
    said = "".join(process.communicate())
    return process.returncode, said


def wait_for(path: Path, process: Forked, before: int = 0) -> None:
    """Wait until the training has written a file anew."""
    forked.wait_until(lambda: modified(path) != before, process)


def train_slowly(*arguments: str) -> None:
    """What `python train.py` does, but that last.pth is written after every step, and that every file takes a
    hundredth of a second to be put in place, so that kills land there too.
    """
    loop.Saves.PERIOD, loop.Saves.SHARE = 0.001, 1.0
    replace = Path.replace

    def replace_slowly(self: Path, target: str | Path) -> Path:
        time.sleep(0.01)
        return replace(self, target)

    Path.replace = replace_slowly  # type: ignore[method-assign]
    Figure.savefig = write_no_chart  # type: ignore[method-assign]
    forked.script("train.py", *arguments)


def same(a: object, b: object) -> bool:
    """Whether two contents of checkpoints are equal bit for bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def without_times(content: dict) -> dict:
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in content.get("history", [])]
    return {k: v for k, v in content.items() if k != "seconds"} | {"history": history}


def check_whole(files: Path) -> None:
    """Fail unless every file that is there is whole."""
    for path in files.glob("[!.]*.pth"):
        load_checkpoint(path, CPU)
    for path in files.glob("[!.]*.csv"):
        epochs = [int(row["epoch"]) for row in read_history(files)]
        assert epochs == list(range(1, len(epochs) + 1))
        assert path.read_text().endswith("\n")
    if (files / "split.json").exists():
        json.loads((files / "split.json").read_text())


@pytest.fixture(scope="module")
def whole(eyes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a training that nothing disturbed."""
    files = tmp_path_factory.mktemp("whole") / "files"
    assert run_script(train.main, "--data", eyes, "--files", files, *SHORT) == 0
    return files


@posix
def test_a_training_killed_at_random_moments_ends_with_the_same_bits(eyes, whole, tmp_path):
    files, moments = tmp_path / "files", random.Random(1)
    arguments = ["--data", str(eyes), "--files", str(files), *SHORT]
    kills = landed_in_a_save = within_an_epoch = done = 0
    epoch = load(whole / "last.pth")["seconds"] / EPOCHS
    # a save is short: more kills until one lands in it, as long as there are epochs left
    while kills < KILLS or (not landed_in_a_save and done < EPOCHS - 4):
        before = modified(files / "split.json")
        again = ["--resume"] if (files / "last.pth").exists() else []
        training = Forked(train_slowly, *arguments, *again)
        if kills % 5:
            wait_for(files / "split.json", training, before)  # the last thing before the first step
        time.sleep(moments.uniform(0, 2 * epoch))
        training.kill()
        said = training.communicate()
        assert training.returncode == -signal.SIGKILL, f"it ended before the kill: {said}"
        kills += 1
        landed_in_a_save += bool(list(files.glob(f"{UNFINISHED}*")))
        check_whole(files)
        if (files / "last.pth").exists():  # a machine may be busier now, or idler, than at first
            last = load(files / "last.pth")
            done = len(last["history"])
            epoch = last["seconds"] / (len(last["history"]) + len(last["losses"]) / 3)
            within_an_epoch += bool(last["losses"])
    epochs = len(read_history(files))
    assert 0 < epochs < EPOCHS, "the kills must come in the midst of the training"
    assert landed_in_a_save, "no kill came within a save"
    training = Forked(train_slowly, *arguments, "--resume")
    said = training.communicate()
    assert training.returncode == 0, said
    for name in ("last.pth", "checkpoint.pth"):
        assert same(without_times(load(files / name)), without_times(load(whole / name))), name
    assert read_history(files) == read_history(whole)
    assert [int(row["epoch"]) for row in read_history(files)] == list(range(1, EPOCHS + 1))
    assert not list(files.glob(f"{UNFINISHED}*")), "what the kills left was not cleaned up"
    print(
        f"{kills} kills until epoch {epochs}, {landed_in_a_save} of them within a save, "
        f"{within_an_epoch} went on within an epoch"
    )


def test_a_training_that_saves_within_its_epochs_writes_the_same_bits(eyes, tmp_path, monkeypatch):
    arguments = ["--data", eyes, *NETWORK, "--epochs=2", "--crops=8", "--ema=0.9"]
    save, saved = Training.save_last, []

    def counted(self: Training, path: Path) -> None:
        save(self, path)
        saved.append(len(load(path)["losses"]))

    monkeypatch.setattr(Training, "save_last", counted)
    for name, period in (("seldom", 120.0), ("often", 0.001)):
        monkeypatch.setattr(loop.Saves, "PERIOD", period)
        monkeypatch.setattr(loop.Saves, "SHARE", 1.0)
        run_script(train.main, *arguments, "--files", tmp_path / name)
    assert saved[:2] == [0, 0], "within two minutes only the ends of epochs are saved"
    assert {1, 2, 3} <= set(saved[2:])
    for name in ("last.pth", "checkpoint.pth"):
        assert same(*(without_times(load(tmp_path / often / name)) for often in ("seldom", "often")))


@pytest.mark.parametrize(("writing", "pause"), [(0.1, 120.0), (1.0, 120.0), (3.0, 297.0)])
def test_a_save_comes_every_two_minutes_and_takes_a_hundredth_of_the_time_at_most(monkeypatch, writing, pause):
    now = 1000.0
    monkeypatch.setattr("training.loop.time.monotonic", lambda: now)

    class Slow:
        def save_last(self, path: Path) -> None:
            nonlocal now
            now += writing

    saves = loop.Saves(Path("last.pth"))
    now += 119.9
    assert not saves.due()
    now += 0.2
    assert saves.due()
    saves.write(Slow())
    now += pause - 0.1
    assert not saves.due()
    now += 0.2
    assert saves.due()
    assert writing / (writing + pause) < 0.01 + 1e-9


LONG = [*NETWORK, "--epochs=1000", "--crops=6"]


@posix
@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_one_signal_to_all_its_processes_ends_a_training_in_order(eyes, tmp_path, which):
    # a terminal sends Ctrl-C to the workers too
    process = start(eyes, tmp_path, *LONG, "--workers=2")
    wait_for(tmp_path / "last.pth", process)
    os.killpg(process.pid, which)
    said = "".join(process.communicate(60))
    assert process.returncode == 130
    assert re.search(r"all steps are kept; go on with: python .*train\.py .*--resume\n$", said)
    assert "Traceback" not in said and "Error" not in said
    check_whole(tmp_path)
    assert not list(tmp_path.glob(".*")), "neither lock nor temporary files remain"


@posix
def test_a_second_ctrl_c_ends_a_training_at_once(eyes, tmp_path):
    # a step that takes minutes, so that only the second signal can end it
    slow = [*NETWORK, "--epochs=1", "--crops=4096", "--batch-size=4096", "--crop=128"]
    process = start(eyes, tmp_path, *slow)
    wait_for(tmp_path / "split.json", process)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None, "one signal waits for the step"
    process.send_signal(signal.SIGINT)
    said = "".join(process.communicate(60))
    assert process.returncode == 130
    assert said.endswith("train.py: interrupted\n") and "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["split.json", "written.json"]


class Killed(BaseException):
    """Stands for SIGKILL in a process that must live on to test what is left."""


def test_a_kill_before_or_after_any_file_is_put_in_place_is_made_good(eyes, tmp_path, monkeypatch):
    arguments = ["--data", eyes, *NETWORK, "--epochs=2", "--crops=6"]
    replace, calls = Path.replace, []

    def counted(self: Path, target: Path) -> Path:
        calls.append(Path(target).name)
        if len(calls) == fatal:
            if after:
                replace(self, target)
            raise Killed
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", counted)
    fatal, after = 0, False
    run_script(train.main, *arguments, "--files", tmp_path / "whole")
    points = list(calls)
    assert points.count("last.pth") == 2 and {"checkpoint.pth", "history.csv", "split.json"} <= set(points)
    for fatal in range(1, len(points) + 1):
        for after in (False, True):
            calls.clear()
            files = tmp_path / f"{fatal}{after}"
            with pytest.raises(Killed):
                run_script(train.main, *arguments, "--files", files)
            check_whole(files)
            again = ["--resume"] if (files / "last.pth").exists() else []
            calls = calls + [""] * len(points)  # no more kills
            assert run_script(train.main, *arguments, "--files", files, *again) == 0
            for name in ("last.pth", "checkpoint.pth"):
                found, wanted = (without_times(load(folder / name)) for folder in (files, tmp_path / "whole"))
                assert same(found, wanted), f"{name}, killed at {points[fatal - 1]}, after it: {after}"
            assert read_history(files) == read_history(tmp_path / "whole")


@posix
def test_a_full_disk_ends_a_training_with_a_line_and_spares_its_files(eyes, tmp_path, monkeypatch):
    replace, large = Path.replace, [*LONG, "--width=16"]  # larger than the charts

    def killed(self: Path, target: Path) -> Path:
        if Path(target).name == "checkpoint.pth" and Path(target).exists():
            raise Killed
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(Killed):
        run_script(train.main, "--data", eyes, "--files", tmp_path, *large)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.pth")}
    assert len(before) == 2
    # charts fit on this disk, checkpoints do not
    monkeypatch.setattr(Path, "replace", replace)
    room = max(path.stat().st_size for path in tmp_path.glob("*.png")) + 1
    assert room < min(map(len, before.values()))
    status, said = finish(eyes, tmp_path, *large, "--resume", limits={"RLIMIT_FSIZE": (room, room)})
    assert status == 2
    line = r"train\.py: .*\.pth: cannot be written \(File too large\); choose .* as it was; .* --resume\n$"
    assert re.search(line, said)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.pth")} == before
    assert not list(tmp_path.glob(".*"))


@posix
def test_a_chart_that_cannot_be_written_does_not_end_a_night_of_training(eyes, tmp_path, capfd):
    for name in ("history.csv", "curves.png"):
        (tmp_path / name).mkdir()
    arguments = ["--data", eyes, "--files", tmp_path, *NETWORK, "--epochs=2", "--crops=6"]
    assert run_script(train.main, *arguments) == 0
    said = capfd.readouterr().err
    assert said.count("history.csv: cannot be written (Is a directory)") == 2
    assert "the training goes on" in said
    assert len(load(tmp_path / "last.pth")["history"]) == 2
    assert run_script(train.main, *arguments, "--resume") == 0
    assert "the training goes on" in capfd.readouterr().err


@pytest.mark.parametrize("script", ["train.py", "augment.py"])
@pytest.mark.parametrize("why", ["read-only", "a file"])
def test_a_folder_that_cannot_be_written_is_named_at_the_start(eyes, tmp_path, script, why):
    folder = tmp_path / "folder"
    if why == "a file":
        folder.write_text("")
    elif os.name == "nt" or os.geteuid() == 0:
        pytest.skip("root may write everywhere, and Windows has no such folder")
    else:
        folder.mkdir(mode=0o555)
    arguments = {
        "train.py": ["--data", eyes, "--files", folder, *LONG],
        "augment.py": ["--drive", eyes.parent / "DRIVE", "--out", folder],
    }[script]
    done = forked.finish(script, *arguments)
    assert done.returncode == 2
    assert re.fullmatch(rf"{script}: .*folder.*: cannot be written .*\n", done.stderr)


def hold(folder: Path) -> subprocess.Popen[str]:
    """A process that claims a folder until it is killed."""
    code = """
import pathlib, sys, time
from system.files import claim
with claim(pathlib.Path(sys.argv[1])):
    print(flush=True)
    time.sleep(99)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    return process


def test_a_folder_is_held_by_one_process_and_free_when_it_is_killed(eyes, tmp_path):
    process = hold(tmp_path)
    try:
        with pytest.raises(UserError, match=f"process {process.pid} is writing there"), claim(tmp_path):
            pass
        with pytest.raises(UserError, match=f"process {process.pid} is writing there"):
            run_script(augment.main, "--drive", eyes.parent / "DRIVE", "--out", tmp_path)
    finally:
        process.kill()
        process.wait()
    with claim(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_unfinished_is_removed_and_nothing_else(tmp_path):
    kept = [tmp_path / name for name in ("mine.pth", ".hidden", "sub/mine.png", "other/.unfinished-1-x.png")]
    left = [tmp_path / name for name in (".unfinished-1-last.pth", "sub/.unfinished-2-a.png")]
    for path in kept + left:
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    with claim(tmp_path, "sub"):
        assert [path.exists() for path in kept + left] == [True] * 4 + [False] * 2


@posix
def test_a_second_training_and_augmenting_beside_a_training(eyes, tmp_path):
    own, files = shutil.copytree(eyes, tmp_path / "new_data"), tmp_path / "files"
    first = start(own, files, *LONG, "--workers=2")
    try:
        wait_for(files / "last.pth", first)
        status, said = finish(own, files, *LONG, "--resume")
        assert status == 2
        assert said.endswith("wait for its end, or choose another folder\n")
        assert f"train.py: {files}: process {first.pid} is writing there" in said
        # the training holds the eyes in memory
        drive = eyes.parent / "DRIVE"
        assert run_script(augment.main, "--drive", drive, "--out", own, "--seed", 7) is None
        now = modified(files / "last.pth")
        wait_for(files / "last.pth", first, now)
    finally:
        first.kill()
        first.communicate()
    # its workers live on for a few seconds; they must not hold the folder
    with claim(files):
        pass


@posix
def test_augment_killed_between_its_moves_leaves_no_mixture_and_runs_again(eyes, tmp_path):
    drive, rename = eyes.parent / "DRIVE", Path.rename
    names = sorted(path.name for path in (eyes / "train" / "image").iterdir())
    for fatal in range(1, 7):
        out = shutil.copytree(eyes, tmp_path / str(fatal))
        staged = shutil.copytree(eyes, out / ".staged-x")
        if (child := os.fork()) == 0:
            calls = iter(range(1, 100))

            def killed(self: Path, target: Path, calls: Iterator[int] = calls, fatal: int = fatal) -> Path:
                if next(calls) == fatal:
                    os.kill(os.getpid(), signal.SIGKILL)
                return rename(self, target)

            Path.rename = killed
            augment.replace_data(staged, out)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        try:
            found = read_eyes(out / "train", labels=True)
        except UserError as error:
            assert "write them with: python augment.py" in str(error)
        else:
            assert sorted(f"{eye.name}.png" for eye in found) == names
        run_script(augment.main, "--drive", drive, "--out", out)
        assert len(read_eyes(out / "train", labels=True)) == len(names)
        assert not list(out.glob(".*"))


def test_a_new_training_sets_an_earlier_one_aside(eyes, tmp_path, capsys):
    arguments = ["--data", eyes, "--files", tmp_path, *NETWORK, "--epochs=1", "--crops=6"]
    (tmp_path / "drive_unet.pth").write_text("not of a training here")
    run_script(train.main, *arguments, "--seed=1")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    run_script(train.main, *arguments, "--seed=2")
    assert f"moved to {tmp_path / 'earlier' / '1'}" in capsys.readouterr().out
    del before["drive_unet.pth"], before["written.json"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "earlier" / "1").iterdir()} == before
    assert load(tmp_path / "last.pth")["settings"]["seed"] == 2
    assert (tmp_path / "drive_unet.pth").exists()
    run_script(train.main, *arguments, "--seed=3")
    for generation, seed in (("earlier/1", 1), ("earlier/2", 2), ("", 3)):  # whole, and none is lost
        own = tmp_path / generation
        assert {load(own / name)["settings"]["seed"] for name in ("last.pth", "checkpoint.pth")} == {seed}
        assert json.loads((own / "split.json").read_text()) == load(own / "last.pth")["split"]


def test_a_start_that_fails_before_its_first_save_moves_nothing(eyes, tmp_path, monkeypatch):
    arguments = ["--data", eyes, "--files", tmp_path, *NETWORK, "--epochs=1", "--crops=6"]
    run_script(train.main, *arguments)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(epoch, "vessel_loss", lambda *_: 1 / 0)  # in the first step
        with pytest.raises(ZeroDivisionError):
            run_script(train.main, *arguments, "--seed=2")
    with monkeypatch.context() as patch:  # a full disk
        patch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(UserError, match=r"checkpoint\.pth: cannot .*; free some space; .* --resume"):
            run_script(train.main, *arguments, "--seed=2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_kill_while_an_earlier_training_is_moved_loses_and_mixes_nothing(eyes, tmp_path, monkeypatch):
    arguments = ["--data", eyes, *NETWORK, "--epochs=1", "--crops=6"]
    run_script(train.main, *arguments, "--files", tmp_path / "first")
    rename, calls = Path.rename, []

    def killed(self: Path, target: Path) -> Path:
        calls.append(Path(target).name)
        if len(calls) == fatal:
            raise Killed
        return rename(self, target)

    for fatal in range(1, 8):  # six files, and the folder they are moved to
        files = shutil.copytree(tmp_path / "first", tmp_path / str(fatal))
        with monkeypatch.context() as patch:
            calls.clear()
            patch.setattr(Path, "rename", killed)
            with pytest.raises(Killed):
                run_script(train.main, *arguments, "--files", files, "--seed=2")
        run_script(train.main, *arguments, "--files", files, "--seed=3")
        assert [path.name for path in (files / "earlier").iterdir()] == ["1"]
        for name in ("last.pth", "checkpoint.pth", "split.json", "history.csv"):
            assert (files / "earlier" / "1" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()
        assert load(files / "checkpoint.pth")["settings"]["seed"] == 3


def test_while_a_training_has_no_checkpoint_test_py_scores_no_other_weights_without_a_word(
    eyes, tmp_path, monkeypatch
):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "drive_unet.pth").write_text("the shipped weights")
    (tmp_path / "files" / "last.pth").write_text("of a training in its first epoch")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"checkpoint\.pth: not there yet.* give --weights"):
        find_weights(("checkpoint.pth", "drive_unet.pth"))
    (tmp_path / "files" / "last.pth").unlink()
    assert find_weights(("checkpoint.pth", "drive_unet.pth")) == Path("files/drive_unet.pth")


@pytest.mark.parametrize("name", OWN)
def test_a_training_never_moves_or_overwrites_a_strangers_file(eyes, tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=f"{name} would be lost: not written by train.py"):
        run_script(train.main, "--data", eyes, "--files", tmp_path, *NETWORK)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "{}")]


def test_a_step_draws_no_random_number_of_torch(eyes):
    # so that there is no random state to keep: crops follow from their number, rates from the step
    crops = Crops(read_eyes(eyes / "train", labels=True), 32, 0, 8, choroid=1.0)
    batches = iter(torch.utils.data.DataLoader(crops, batch_size=2))
    model = UNet(width=4, depth=1)
    optimizer = Muon(model, 0.01)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    epoch.train_one_epoch(model, batches, optimizer, Settings(dice=0.5), [0.01] * 4, [])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()


def test_a_loss_that_is_not_finite_is_told_with_step_rate_and_files(eyes, tmp_path, monkeypatch):
    arguments = ["--data", eyes, "--files", tmp_path, *NETWORK, "--epochs=2", "--crops=6"]
    seen, losses = [], iter(range(100))
    draw, loss = Crops.__getitem__, epoch.vessel_loss
    monkeypatch.setattr(Crops, "__getitem__", lambda self, i: (seen.append(self.name_of(i)), draw(self, i))[1])
    monkeypatch.setattr(epoch, "vessel_loss", lambda *a: loss(*a) * (float("inf") if next(losses) == 4 else 1))
    with pytest.raises(UserError) as error:
        run_script(train.main, *arguments)
    check_whole(tmp_path)  # the best network of the epoch before
    assert (tmp_path / "checkpoint.pth").exists()
    message = str(error.value)
    assert "the loss became inf in step 2 of the epoch (5 of 6) at learning rate" in message
    assert f"{optimizers.one_cycle(4 / 6, 0.02):.2e}" in message
    assert set(re.findall(r"\d+_training_\d", message)) == set(seen[8:10])


def test_the_crops_name_the_image_they_are_cut_from(eyes, monkeypatch):
    crops, cut_from = Crops(read_eyes(eyes / "train", labels=True), 16, 5, 50), []
    monkeypatch.setattr(
        "training.crops.random_affine",
        lambda r, fov, *rest: (cut_from.append(fov), random_affine(r, fov, *rest))[1],
    )
    fields = {eye.name: eye.fov for eye in crops.eyes}
    for i in range(50):
        _ = crops[i]
        assert cut_from[i] is fields[crops.name_of(i)]
    assert len({crops.name_of(i) for i in range(50)}) > 3


def test_weights_that_are_not_finite_are_never_saved(eyes, tmp_path, monkeypatch):
    arguments = ["--data", eyes, "--files", tmp_path, *NETWORK, "--epochs=3", "--crops=6"]
    monkeypatch.setattr(loop.Saves, "PERIOD", 0.001)  # saved within an epoch too
    monkeypatch.setattr(loop.Saves, "SHARE", 1.0)
    update, steps = Muon.step, iter(range(1, 100))

    def poisoned(self: Muon, *rest: object) -> None:
        update(self, *rest)
        if next(steps) == 6:  # the last of the second epoch: no loss shows it before the epoch ends
            self.param_groups[0]["params"][0].data.fill_(float("nan"))

    monkeypatch.setattr(Muon, "step", poisoned)
    with pytest.raises(UserError, match="the weights became infinite or not a number in step 3 of the epoch"):
        run_script(train.main, *arguments)
    last = load(tmp_path / "last.pth")
    assert (len(last["history"]), len(last["losses"])) == (1, 2)
    check_whole(tmp_path)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises((UserError, KeyboardInterrupt)) as raised, atomic(path) as temporary:
        temporary.write_text("ne")
        raise error
    assert raised.value is error or "file.txt: cannot be written" in str(raised.value)
    assert path.read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["file.txt"]
    with atomic(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


@posix
def test_written_files_are_as_readable_as_any_other(tmp_path):
    # from many threads: the permissions that a process gives are one setting for all of them
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: write_png(tmp_path / f"{k}.png", np.zeros((4, 4), np.uint8)), range(64)))
    (tmp_path / "plain").touch()
    assert {path.stat().st_mode for path in tmp_path.iterdir()} == {(tmp_path / "plain").stat().st_mode}


def test_the_table_of_promises_counts_the_kills_as_they_are():
    table = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
    counted = re.search(r"(\d+) kills at random", table)
    assert counted and int(counted[1]) == KILLS >= 20
