"""Two processes of predict.py end with what one writes, also after kills; one that fails ends both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, read_csv, run_script, write_photographs
from ranks import Ranks
from test_resume_prediction import contents, finished

import predict
import utils
from batch import photographs
from model import UNet
from networks.checkpoints import save_checkpoint
from system import processes
from utils import UserError

dist = torch.distributed
pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals, and no fork"),
    pytest.mark.skipif(
        not (dist.is_available() and dist.is_gloo_available()), reason="this build of torch has no gloo"
    ),
]

NUMBER = 16


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags of predict.py: tiny photographs in two folders, one of which is none, and a tiny network."""
    folder = tmp_path_factory.mktemp("shared")
    write_photographs(folder / "eyes", NUMBER - 1, 64, 60)
    write_photographs(folder / "eyes" / "more", 1, 64, 60)
    (folder / "eyes" / "eye3.png").write_bytes(b"none")
    torch.manual_seed(0)
    model = UNet(width=2, depth=1)
    save_checkpoint(
        folder / "tiny.pth", {"model": model.config, "weights": model.state_dict(), "threshold": 0.5}
    )
    return [f"{folder / 'eyes'}", "--recursive", "--weights", f"{folder / 'tiny.pth'}", "--device", "cpu"]


@pytest.fixture(scope="module")
def alone(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process writes."""
    out = tmp_path_factory.mktemp("alone")
    with pytest.raises(UserError, match=r"1 could not be segmented"):
        run_script(predict.main, *flags, "--out", out)
    found = contents(out)
    assert len([name for name in found if name.startswith("masks")]) == NUMBER - 1
    return found


def run_predict(arguments: list[str], seconds: float = 0.0, full_disk: bool = False) -> None:
    """What `python predict.py` does; each photograph takes so long, or rank 1 cannot write its second one."""
    original, done = photographs.write_results, []

    def write_results(*given: object) -> None:
        done.append(given)
        time.sleep(seconds)
        if full_disk and processes.rank() == 1 and len(done) > 1:
            raise UserError("disk full")
        original(*given)

    photographs.write_results = write_results
    sys.argv = ["predict.py", *arguments]
    utils.run(predict.main)


def wait_for(out: Path, number: int) -> None:
    """Wait until so many photographs are finished."""
    until = time.time() + 300
    while finished(out) < number:
        assert time.time() < until, "the photographs never came"
        time.sleep(0.01)


def stop_both(how: int, flags: list[str], folder: Path) -> tuple[Path, list[str]]:
    """Send both of two processes a signal once four photographs are finished; --out and their arguments."""
    out = folder / "out"
    arguments = [*flags, "--out", str(out)]
    ranks = Ranks(run_predict, arguments, 0.4)
    wait_for(out, 4)
    for process in ranks.processes:
        os.kill(process.pid, how)
    ranks.finish()
    return out, arguments


def test_two_processes_end_with_what_one_writes(flags, alone, tmp_path):
    out = tmp_path / "out"
    statuses, said = Ranks(run_predict, [*flags, "--out", str(out)], 0.05).finish()
    assert statuses == [2, 0], said
    assert "cpu (1 threads, " in said[0] and "in each of 2 processes; threshold 0.5" in said[0]
    assert f"{out}: {NUMBER - 1} of {NUMBER} photographs" in said[0]
    assert said[0].splitlines()[-2:] == [
        "predict.py: 1 could not be segmented:",
        f"  {Path(flags[0]) / 'eye3.png'}: not a TIFF, PNG, JPEG, GIF, BMP, PPM, WebP, JPEG 2000 or AVIF image",
    ]
    assert said[1] == ""
    assert contents(out) == alone
    assert not list(out.rglob(".*"))


def test_after_kills_two_go_on_and_end_as_without_them(flags, alone, tmp_path):
    out, arguments = stop_both(signal.SIGKILL, flags, tmp_path)
    assert finished(out) >= 4
    assert not (out / "measures.csv").exists()

    # one is killed, and torchrun ends the other
    ranks = Ranks(run_predict, [*arguments, "--resume"], 0.4)
    wait_for(out, 8)
    ranks.processes[0].kill()
    os.kill(ranks.processes[1].pid, signal.SIGTERM)
    statuses, said = ranks.finish()
    assert statuses == [-signal.SIGKILL, 2]
    again = f"torchrun --nproc-per-node=2 predict.py {' '.join(arguments)} --resume"
    line = f"another process of this run died, was ended or cannot be reached; go on with: {again}"
    assert said[1] == f"predict.py: {line}\n"

    statuses, said = Ranks(run_predict, [*arguments, "--resume"]).finish()
    assert statuses == [2, 0], said
    assert f" of {NUMBER} photographs are finished already" in said[0]
    assert contents(out) == alone
    assert not list(out.rglob(".*"))


def test_after_ctrl_c_of_both_there_is_a_page_of_what_is_finished(flags, alone, tmp_path):
    out, arguments = stop_both(signal.SIGINT, flags, tmp_path)  # as a terminal does
    listed = {row["image"] for row in read_csv(out / "measures.csv")}
    assert 4 <= len(listed) < NUMBER and len(listed) <= finished(out)
    assert all(f'"{name}"' in (out / "index.html").read_text() for name in listed)

    with pytest.raises(UserError, match=r"1 could not be segmented"):
        run_script(predict.main, *arguments, "--resume")
    assert contents(out) == alone


def test_an_error_of_one_ends_both_with_one_line(flags, alone, tmp_path):
    out = tmp_path / "out"
    arguments = [*flags, "--out", str(out)]
    ranks = Ranks(run_predict, arguments, 0.2, True)
    ranks.processes[1].communicate(60)
    os.kill(ranks.processes[0].pid, signal.SIGTERM)  # as torchrun does
    started = time.time()
    statuses, said = ranks.finish()
    assert time.time() - started < 60
    assert statuses == [2, 2]
    assert said[1] == "predict.py: disk full\n"
    assert "predict.py:" not in said[0] and "Traceback" not in said[0]

    # what they left is this script's own: a run from the start replaces it
    with pytest.raises(UserError, match=r"1 could not be segmented"):
        run_script(predict.main, *arguments)
    assert contents(out) == alone


def test_different_photographs_or_flags_are_refused(flags, tmp_path):
    statuses, said = Ranks(run_differently, flags, str(tmp_path / "out")).finish()
    assert statuses == [2, 2]
    lines = [line for line in "".join(said).splitlines() if line.startswith("predict.py: ")]
    assert len(lines) == 1 and "the processes have different flags, weights or photographs" in lines[0]
    assert not (tmp_path / "out").exists()


def run_differently(flags: list[str], out: str) -> None:
    run_predict([*flags, "--out", out, *(["--views=1"] if processes.rank() else [])])


def test_torchrun_ends_all_when_one_is_killed_and_one_process_goes_on(flags, alone, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [*flags, "--out", str(tmp_path)]
    process = subprocess.Popen(
        [*launcher, str(ROOT / "predict.py"), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(tmp_path, 1)
        os.kill(int((tmp_path / ".lock").read_text()), signal.SIGKILL)
        killed = time.time()
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert time.time() - killed < 60
    assert process.returncode != 0
    lines = [line for line in errors.splitlines() if line.startswith("predict.py: ")]
    assert len(lines) == 1 and "another process of this run died" in lines[0], errors
    with pytest.raises(UserError, match=r"1 could not be segmented"):
        run_script(predict.main, *arguments, "--resume")
    assert contents(tmp_path) == alone
