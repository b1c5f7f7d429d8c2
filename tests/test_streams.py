"""Scripts run where stdout is none of a shell's, end when Ctrl-C asks them to, and never hang."""

from __future__ import annotations

import builtins
import errno
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from conftest import ROOT, TINY, posix, product_files, run_script

import augment
import train
import utils
from data import read_eyes, read_info
from datasets.images import read_image
from datasets.polygons import shapes_in
from datasets.tables import read_rows
from networks.checkpoints import MAX_DEPTH, MAX_WIDTH, load_checkpoint
from scoring.other_masks import read_map
from system.files import UNFINISHED, claim, write_csv
from system.signals import Stop
from system.threads import threads
from training import epoch
from training.batches import end_workers, load
from training.crops import Crops
from utils import UserError

SCRIPTS = ("augment.py", "train.py", "test.py", "predict.py", "demo.py")


class Notebook(io.TextIOBase):
    """As ipykernel's OutStream and IDLE's: text goes in, but it is no TextIOWrapper and has no file number."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [Notebook, lambda: None, closed], ids=["notebook", "none", "closed"])
def test_a_script_runs_where_stdout_and_stderr_are_none_of_a_shells(
    drive, new_data, files, tmp_path, monkeypatch, stream
):
    import predict
    import test as tester

    own = ["--data", new_data, "--device=cpu"]
    checkpoint = files / "checkpoint.pth"
    photograph = drive / "test" / "images" / "01_test.tif"
    commands = (
        (augment.main, "--drive", drive, "--out", tmp_path / "new_data"),
        (train.main, *own, "--files", tmp_path / "files", *TINY, "--epochs=1", "--crops=4"),
        (tester.main, *own, "--weights", checkpoint, "--results", tmp_path / "results", "--views=1"),
        (predict.main, photograph, "--weights", checkpoint, "--out", tmp_path / "predicted", "--views=1"),
    )
    for main, *arguments in commands if stream is Notebook else commands[-1:]:
        monkeypatch.setattr(sys, "stdout", out := stream())
        monkeypatch.setattr(sys, "stderr", err := stream())
        with pytest.raises(SystemExit) as status:
            utils.run(lambda main=main, arguments=arguments: run_script(main, *arguments))
        assert not status.value.code, main
        assert not isinstance(out, Notebook) or (out.text and "Traceback" not in err.text)
    assert (tmp_path / "predicted" / "masks" / "01_test.png").exists()


@posix
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_ends_in_order_where_the_shell_closed_its_streams(script, tmp_path):
    # the number of a closed stream would go to the next file that is opened
    unknown = (
        "import os, sys; os.close(1); os.close(2); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    command = [sys.executable, "-c", unknown, str(ROOT / script), "--no-such-flag"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 2


@posix
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("why", ["full", "nobody reads", "closed"])
def test_of_a_stream_that_takes_no_more_only_messages_are_lost(why, stream, tmp_path, monkeypatch, capsys):
    reader, pipe = os.pipe()
    os.close(reader)

    def main() -> None:
        for k in range(3):
            print(k, file=getattr(sys, stream))
            (tmp_path / f"{k}.txt").write_text("whole")

    with open("/dev/full", "w") if why == "full" else open(pipe, "w") as given:  # noqa: PTH123
        monkeypatch.setattr(sys, stream, None if why == "closed" else given)
        with pytest.raises(SystemExit) as ended:
            utils.run(main)
    assert not ended.value.code and len(list(tmp_path.iterdir())) == 3
    assert stream == "stderr" or capsys.readouterr().err.count("only messages are lost") == 1


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        ("ENOSPC", "free some space"),
        ("EDQUOT", "free some space, or ask for a larger quota"),
        ("EROFS", "choose another folder"),
        ("EACCES", "give yourself the right"),
        ("ENAMETOOLONG", "choose a shorter name"),
        ("ESTALE", "connect the network disk again"),
        ("EMFILE", "raise the limit"),
        ("EIO", "the disk .* fails"),
    ],
)
def test_an_error_of_the_system_is_told_with_the_remedy(number, remedy, capsys):
    error = OSError(getattr(errno, number), "what is wrong", "results/masks/eye.png")
    with pytest.raises(SystemExit, match="2"):
        utils.run(lambda: (_ for _ in ()).throw(error))
    assert re.search(rf": results/masks/eye\.png: what is wrong; {remedy}", capsys.readouterr().err)


LOCKED = {
    "eye.png": read_image,
    "eye.npy": read_map,
    "eye.json": shapes_in,
    "eyes.csv": lambda path: read_rows(path, "--table", "give a table"),
    "net.pth": load_checkpoint,
    "dataset.json": lambda path: read_info(path.parent),
    "history.csv": lambda path: write_csv(path, [{"a": 1}]),
    "new_data": lambda path: claim(path).__enter__(),
}


@pytest.mark.parametrize("name", LOCKED)
def test_whoever_meets_an_error_of_the_system_tells_the_remedy_by_the_name_that_the_user_knows(
    name, tmp_path, monkeypatch
):
    def refuse(path: object, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    (tmp_path / name).touch()
    if name == "new_data":
        (tmp_path / name).unlink()
    for module in (builtins, io):
        monkeypatch.setattr(module, "open", refuse)
    with pytest.raises(UserError, match=rf"{name}: .*Permission denied\)?; give yourself") as raised:
        LOCKED[name](tmp_path / name)
    assert UNFINISHED not in str(raised.value) and "\n" not in str(raised.value)


@posix
def test_a_current_folder_that_is_gone_is_told_with_the_remedy(tmp_path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(SystemExit, match="2"):
        utils.run(lambda: pytest.fail("libraries fail there"))
    assert "the current folder is gone; go to another one, such as with: cd" in capsys.readouterr().err


def test_errors_of_the_system_are_explained_in_one_place():
    for path in product_files():
        assert path.name == "utils.py" or "strerror" not in path.read_text(encoding="utf-8"), path


def test_ctrl_c_drops_what_a_pool_has_not_begun():
    begun = []

    def job(k: int) -> None:
        begun.append(k)
        time.sleep(0.05)

    with pytest.raises(KeyboardInterrupt), threads() as pool:
        jobs = [pool.submit(job, k) for k in range(400)]
        jobs[0].result()
        raise KeyboardInterrupt
    assert len(begun) <= 4 * (os.cpu_count() or 1) and all(job.done() for job in jobs)
    with threads() as pool:
        done = pool.map(lambda k: k + 1, range(3))
    assert list(done) == [1, 2, 3]


def test_no_script_has_a_pool_that_ctrl_c_does_not_stop():
    code = product_files()
    users = {path.relative_to(ROOT).as_posix() for path in code if "PoolExecutor(" in path.read_text("utf-8")}
    assert users == {"system/threads.py"}


@posix
def test_ctrl_c_stops_augment_within_the_eye_that_it_writes(drive, tmp_path, monkeypatch):
    monkeypatch.setattr(augment, "write_eye", lambda *_: time.sleep(0.3) or [])
    monkeypatch.setattr("system.threads.usable_cores", lambda: 1)  # 10 eyes: three seconds
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_script(augment.main, "--drive", drive, "--out", tmp_path / "out")
    assert time.monotonic() - start < 2
    assert not list((tmp_path / "out").iterdir())


@pytest.fixture
def unforeseen(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(epoch, "vessel_loss", broken)


@pytest.mark.usefixtures("unforeseen")
def test_an_unforeseen_error_leaves_no_worker(new_data, tmp_path):
    import multiprocessing

    arguments = ["--data", new_data, "--files", tmp_path, *TINY, "--epochs=1", "--crops=80", "--workers=2"]
    with pytest.raises(RuntimeError, match="shapes differ") as error:  # and the traceback is kept, as at exit
        run_script(train.main, *arguments)
    assert error.traceback
    assert not multiprocessing.active_children()


@posix
def test_a_worker_that_does_not_end_by_itself_is_ended_by_force(new_data, monkeypatch):
    import multiprocessing

    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)  # seconds of patience
    monkeypatch.setattr(Crops, "__getitem__", lambda *_: time.sleep(99))
    batches = iter(load(Crops(read_eyes(new_data / "train", labels=True), 32, 0, 64), 4, workers=1))
    (worker,) = multiprocessing.active_children()
    time.sleep(0.2)  # it has begun, and ignores SIGTERM
    with pytest.raises(ZeroDivisionError), end_workers(batches):
        raise ZeroDivisionError
    worker.join(10)
    assert worker.exitcode == -signal.SIGKILL


def test_the_end_of_a_loader_ends_no_process_of_others(new_data):
    import multiprocessing

    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(99,))
    other.start()
    try:
        batches = iter(load(Crops(read_eyes(new_data / "train", labels=True), 32, 0, 64), 4, workers=1))
        with end_workers(batches):
            next(batches)
        assert other.is_alive() and multiprocessing.active_children() == [other]
    finally:
        other.kill()
        other.join()


@pytest.mark.parametrize(
    "error",
    [
        "unable to allocate shared memory(shm) for file </torch_22_41_1>: No space left on device (28)",
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers "
        "are out of shared memory. Please try to raise your shared memory limit.",
        "unable to open shared memory object </torch_1_2_3> in read-write mode: No space left on device (28)",
    ],
)
def test_too_little_shared_memory_is_told_with_the_remedy(error, capsys):
    def main() -> None:
        raise RuntimeError(error)

    with pytest.raises(SystemExit) as status:
        utils.run(main, lower="--batch-size")
    assert status.value.code == 2
    said = capsys.readouterr().err
    assert "out of shared memory; use --workers 0" in said and "--shm-size" in said


def test_a_training_may_run_in_a_thread():
    def work() -> None:
        with Stop() as stop:
            entered.append(stop.requested)

    entered: list[bool] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered == [False]


@pytest.mark.parametrize("sizes", [(1, 16, 4), (1, 4, 2), (1, 1, 1), (1, 100, 10)])
def test_one_pixel_at_the_deepest_level_is_refused_with_the_remedy(new_data, tmp_path, sizes):
    flags = [f"--{n}={v}" for n, v in zip(("batch-size", "crop", "depth"), sizes, strict=True)]
    arguments = ["--data", new_data, "--files", tmp_path / "files", "--width=4", "--epochs=1", "--device=cpu"]
    with pytest.raises(UserError, match=f"--batch-size 1: --crop {sizes[1]} .* give --batch-size 2, or --crop"):
        run_script(train.main, *arguments, *flags)
    assert not (tmp_path / "files").exists()


@pytest.mark.parametrize("sizes", [(2, 16, 4), (1, 17, 4), (1, 3, 1), (2, 1, 1), (2, 1, 3), (2, 3, 5)])
def test_two_pixels_at_the_deepest_level_are_enough(new_data, tmp_path, sizes):
    flags = [f"--{n}={v}" for n, v in zip(("batch-size", "crop", "depth"), sizes, strict=True)]
    arguments = ["--data", new_data, "--files", tmp_path, "--width=1", "--epochs=1", "--device=cpu"]
    assert run_script(train.main, *arguments, *flags, "--crops=4", "--all-eyes") == 0


@pytest.mark.parametrize("flag", [f"--depth={MAX_DEPTH + 1}", f"--width={MAX_WIDTH + 1}"])
def test_no_network_is_trained_that_would_not_be_loaded(new_data, tmp_path, flag, capsys):
    with pytest.raises(SystemExit) as status:
        run_script(train.main, "--data", new_data, "--files", tmp_path / "files", flag)
    assert status.value.code == 2
    assert "out of range" in capsys.readouterr().err
    assert not (tmp_path / "files").exists()
