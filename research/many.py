"""Two processes of predict.py on thousands of tiny photographs, killed and resumed, against one run; by hand.

    python -m research.many --photographs 5000

All processes are killed after two fifths of the photographs, torchrun's own after three quarters. At the end,
every file is compared with those of a run of one process that nothing stopped. Linux only.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from datasets.images import write_png
from datasets.synthetic import draw_eye
from model import UNet
from networks.checkpoints import save_checkpoint
from utils import UserError, run

ROOT = Path(__file__).resolve().parent.parent

FOLDERS = 5
RANKS = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def finished(out: Path) -> int:
    """How many photographs the processes have finished; a few are just begun."""
    return sum(1 for _ in out.glob("records/**/*.json"))


def family(root: int) -> dict[int, float]:
    """A process and its descendants, which torchrun gives sessions of their own: resident MiB of each."""
    parents, sizes = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        except (ProcessLookupError, FileNotFoundError):
            continue  # it ended meanwhile
        parents[int(folder.name)] = int(status["PPid"])
        sizes[int(folder.name)] = int(status.get("VmRSS", "0").split()[0]) / 1024
    found = {root}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {number: sizes.get(number, 0.0) for number in found}


def start(launcher: list[str], flags: list[str], out: Path) -> subprocess.Popen:
    """predict.py, one thread a process."""
    return subprocess.Popen(
        [sys.executable, *launcher, str(ROOT / "predict.py"), *flags, "--out", str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def stop_after(process: subprocess.Popen, out: Path, number: int, children: bool) -> None:
    """Kill it with SIGKILL once so many photographs are finished, its children too or not."""
    while finished(out) < number:
        if process.poll() is not None:
            raise UserError(f"predict.py ended with status {process.returncode} after {finished(out)}")
        time.sleep(0.01)
    sizes = family(process.pid)
    for number in sizes if children else [process.pid]:
        os.kill(number, signal.SIGKILL)
    process.wait()
    time.sleep(5)  # without torchrun, its children end by themselves
    print(f"killed after {finished(out)}, the largest had {max(sizes.values()):.0f} MiB", flush=True)


def write_photographs(folder: Path, number: int, side: int) -> None:
    """Write so many small photographs, eye0.png and so on."""
    photograph = draw_eye(np.random.default_rng(4), side, side)[0]
    for k in range(number):
        write_png(folder / f"eye{k}.png", np.roll(photograph, k, axis=2))


def contents(out: Path) -> dict[str, bytes]:
    """All results but predict.json, which holds a date and the command, and the records, which hold times."""
    own = ("predict.json", "written.json")
    files = (f for f in out.rglob("*") if f.is_file() and f.name not in own and "records" not in f.parts)
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=int, default=5000)
    parser.add_argument("--side", type=int, default=40, help="pixels")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for k in range(FOLDERS):
            write_photographs(folder / "eyes" / f"day {k}", args.photographs // FOLDERS, args.side)
        number = args.photographs // FOLDERS * FOLDERS
        torch.manual_seed(0)
        model = UNet(width=2, depth=1)
        weights = {"model": model.config, "weights": model.state_dict(), "threshold": 0.5}
        save_checkpoint(folder / "tiny.pth", weights)
        flags = [str(folder / "eyes"), "--recursive", "--views=1", "--device", "cpu"]
        flags += ["--weights", str(folder / "tiny.pth")]

        killed, whole = folder / "killed", folder / "whole"
        stop_after(start(RANKS, flags, killed), killed, number * 2 // 5, True)
        stop_after(start(RANKS, [*flags, "--resume"], killed), killed, number * 3 // 4, False)
        for launcher, more, out in ((RANKS, ["--resume"], killed), ([], [], whole)):
            begun = time.perf_counter()
            process = start(launcher, [*flags, *more], out)
            memory = 0.0
            while process.poll() is None:
                memory = max(memory, *family(process.pid).values())
                time.sleep(0.2)
            took = time.perf_counter() - begun
            print(f"status {process.returncode} after {took:.0f} s, at most {memory:.0f} MiB", flush=True)
        ours, wanted = contents(killed), contents(whole)
        different = sorted(name for name in ours.keys() | wanted.keys() if ours.get(name) != wanted.get(name))
        print(f"{finished(killed)} and {finished(whole)} photographs finished; {len(wanted)} files, different:")
        print(*(different or ["none"]), sep="\n")
        if different or finished(whole) != number:
            raise UserError("the killed run did not end as the other")


if __name__ == "__main__":
    run(main)
