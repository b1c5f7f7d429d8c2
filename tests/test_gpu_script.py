"""research/gpu.sh, which a machine with a GPU runs once, rehearsed with small numbers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from research import gpu_predictions
from utils import versions

TINY = "--width 2 --depth 1 --crop 32 --crops 4 --batch-size 2"


@pytest.mark.skipif(not shutil.which("bash") or sys.platform == "win32", reason="a script for bash")
def test_trainings_are_killed_resumed_and_told_with_time_and_f1(new_data, tmp_path):
    small = {"PYTHON": sys.executable, "DEVICE": "cpu", "DATA": new_data, "STAGES": "training 31M"}
    small |= {"TRAIN": f"{TINY} --epochs 1", "LARGE": f"{TINY} --epochs 4"}
    environment = os.environ | {name: str(value) for name, value in small.items()}
    command = ["bash", str(ROOT / "research" / "gpu.sh"), str(tmp_path / "gpu.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "gpu.json").read_text())
    assert 0 < told["training F1 of fold 3"] < 1
    assert told["31M killed after seconds"] > 0
    for stage in ("training", "31M"):
        assert told[f"{stage} status"] == 0 and told[f"{stage} seconds"] > 0, told


def test_predictions_are_timed_and_compared_with_those_of_a_cpu(tmp_path, monkeypatch):
    out = tmp_path / "predict.json"
    monkeypatch.setattr(sys, "argv", ["", "cpu", "96x92", "2", "1", str(out)])
    gpu_predictions.main()
    told = json.loads(out.read_text())
    assert told["photographs a second, all"] > 0
    assert 0 <= told["share of the time that the device waits, masks and outlines"] <= 1
    assert told["share of pixels whose mask differs from a CPU's"] == 0, "both were the CPU"
    assert versions().items() <= told.items()
