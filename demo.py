"""Try the whole pipeline without DRIVE: draw a small synthetic data set, then augment, train and test on it.

No real eye is involved, so the score says nothing about DRIVE.
"""

from __future__ import annotations

import argparse
import csv
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -P and PYTHONSAFEPATH=1 leave it out

from datasets.synthetic import write_drive
from pages.results import PAGE, SCORES_TABLE
from system.files import atomic
from system.records import read_record, refuse_loss, users_files, write_record
from utils import HelpFormatter, UserError, folder_name, run, seed_number

# Half the width of the CPU's default: 130 CPU seconds without bfloat16, and still F1 above 0.90.
TRAINING = ["--width=8", "--depth=3", "--epochs=4", "--crops=320", "--batch-size=4", "--crop=192"]

MARKER = "SYNTHETIC.txt"

NOTE = """SYNTHETIC: everything in this folder was made by demo.py, which replaces the folder when run again.
The photographs and vessel masks were drawn by a program and show no real eye. Scores reached on them
must not be compared with scores on DRIVE.
"""


def main() -> int:
    """Draw the eyes, run the three scripts on them and report; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Draw a small SYNTHETIC data set in DRIVE's layout, then augment, train and test on it.",
        epilog="example: python demo.py --out demo",
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "--out", type=folder_name, default=Path("demo"), help="folder for all of it, replaced if it exists"
    )
    parser.add_argument("--seed", type=seed_number, default=42, help="seed of the drawn eyes")
    arguments = parser.parse_args()
    out: Path = arguments.out
    if out.is_symlink() or (out.exists() and read_record(out).script != "demo.py"):
        raise UserError(f"{out}: exists and is not known to be written by demo.py; choose another --out")
    if out.exists():
        # each script has listed its own files
        refuse_loss("demo.py", "--out", out, users_files(out))
        shutil.rmtree(out)
    with atomic(out / MARKER) as temporary:
        temporary.write_text(NOTE)

    drive, data, files, results = out / "DRIVE", out / "new_data", out / "files", out / "results"
    print(f"drawing SYNTHETIC eyes into {drive}", flush=True)
    try:
        write_drive(drive, seed=arguments.seed)
    finally:
        drawn = [path.relative_to(out).as_posix() for path in drive.rglob("*") if path.is_file()]
        write_record(out, "demo.py", [MARKER, *drawn])
    steps: list[list[Any]] = [
        ["augment.py", "--drive", drive, "--out", data],
        ["train.py", "--data", data, "--files", files, *TRAINING],
        ["test.py", "--data", data, "--weights", files / "checkpoint.pth", "--results", results],
    ]
    for script, *options in steps:
        command = [sys.executable, str(Path(__file__).resolve().parent / script), *map(str, options)]
        typed = subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)
        print(f"\n{typed}", flush=True)
        status = subprocess.run(command, check=False).returncode
        if status != 0:
            sys.stderr.write(f"demo.py: {script} failed with exit status {status}\n")
            return status if status > 0 else 128 - status  # negative: ended by a signal

    with (results / SCORES_TABLE).open(newline="", encoding="utf-8-sig") as file:
        f1 = {row["image"]: float(row["f1"]) for row in csv.DictReader(file)}
    print(f"\nmean F1 on the SYNTHETIC test eyes: {f1['mean']:.4f}")
    look_at = (results / PAGE, results / "01_test.png", files / "curves.png", results / SCORES_TABLE)
    print("look at:", *look_at, sep="\n  ")
    print("All of it is SYNTHETIC: demo.py drew the eyes, and the score says nothing about DRIVE.")
    return 0


if __name__ == "__main__":
    run(main)
