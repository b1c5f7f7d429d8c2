"""What is timed of whole scripts, of the crops, and of a training until it is good."""

from __future__ import annotations

import statistics as stats
import subprocess
import sys
from pathlib import Path

import torch

import demo
from data import read_eyes
from datasets.eyes import Eye
from model import UNet, fold_batch_norm
from networks.checkpoints import save_checkpoint
from prediction.segmentation import segment
from research.steps import in_turn, our_step, seconds
from scoring.metrics import count_levels, quantize, scores
from training.crops import Crops
from training.epoch import train_one_epoch
from training.optimizers import make_optimizer, one_cycle
from training.settings import Settings
from training.thresholds import USUAL_THRESHOLD

ROOT = Path(__file__).resolve().parent.parent
# a small process in between: the peak memory of a child begins with that of the process that starts it
WATCH = """
import resource, subprocess, sys, time

ROOT = Path(__file__).resolve().parent.parent
start = time.perf_counter()
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


def whole_process(*command: object) -> tuple[float, float]:
    """Seconds and peak MiB of a script as a process of its own (Linux and macOS)."""
    watched = [sys.executable, "-c", WATCH, sys.executable, *map(str, command)]
    done = subprocess.run(watched, stdout=subprocess.PIPE, text=True, check=True)
    spent, most = map(float, done.stdout.split())
    return spent, most / (2**20 if sys.platform == "darwin" else 2**10)


def scripts(folder: Path, device: torch.device, repeats: int) -> None:
    """augment.py, test.py on 20 eyes, and --help of each script, as whole processes."""
    drive, data, weights = folder / "DRIVE", folder / "new_data", folder / "w.pth"
    demo.write_drive(drive, train=20, test=20)
    small = UNet(width=16, depth=3)
    save_checkpoint(
        weights, {"model": small.config, "weights": small.state_dict(), "threshold": 0.5, "split": {}}
    )
    runs = {
        "augment.py, 20 + 20 eyes": ("augment.py", "--drive", drive, "--out", data),
        "test.py, 20 labelled eyes": (
            *("test.py", "--data", data, "--weights", weights),
            *("--results", folder / "results", "--device", device),
        ),
    }
    helped = ("augment.py", "train.py", "test.py", "predict.py", "demo.py")
    runs |= {f"{name} --help": (name, "--help") for name in helped if (ROOT / name).exists()}
    print(f"\nwhole processes, width 16, depth 3\n  {'':28}{'seconds':>10}{'peak MiB':>10}")
    for name, (script, *arguments) in runs.items():
        figures = [whole_process(ROOT / script, *arguments) for _ in range(repeats)]
        print(f"  {name:28}{stats.median(f[0] for f in figures):10.2f}{max(f[1] for f in figures):10.0f}")


def input_pipeline(data: Path, device: torch.device) -> None:
    """Crops a second of the input pipeline alone, and the share of a training step spent waiting for it."""
    eyes = read_eyes(data / "train", labels=True)
    crops = Crops(eyes, 128, 0, 4000, choroid=0.3, camera=0.15)
    step = our_step(16, 3, 128, 4, "muon", device)
    # 40 of them, since those with a choroid or of another camera take longer
    times = in_turn({"crops": lambda: [crops[i] for i in range(40)], "step": step}, device, 9)
    batch = times["crops"] / 10
    share = batch / (batch + times["step"])
    print(f"\ninput: {4 / batch:.0f} crops of 128x128 a second in one process")
    print(f"a step of 4 crops waits {batch * 1e3:.0f} of {(batch + times['step']) * 1e3:.0f} ms: {share:.1%}")


def time_to_f1(data: Path, device: torch.device) -> None:
    """Train with longer and longer schedules until the held-out eyes of a fold reach F1 0.80."""
    training, held_out = read_eyes(data / "train", labels=True), read_eyes(data / "test", labels=True)
    for total in (150, 200, 250, 300, 400, 500, 700):
        spent, f1 = train_for(training, held_out, total, device)
        print(f"  {total} steps of 4 crops: F1 {f1:.4f} after {spent:.0f} s of training")
        if f1 >= 0.80:
            return


def train_for(
    training: list[Eye], held_out: list[Eye], total: int, device: torch.device
) -> tuple[float, float]:
    """Seconds of `total` steps by train.py's recipe, and the mean F1 of the held-out eyes."""
    torch.manual_seed(42)
    model = UNet(width=16, depth=3).to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(model, "muon", 0.02)
    crops = Crops(training, 128, 42, total * 4, choroid=0.3, camera=0.15)
    batches = iter(torch.utils.data.DataLoader(crops, batch_size=4))
    rates = [one_cycle(step / total, 0.02) for step in range(total)]

    def learn() -> None:
        train_one_epoch(model, batches, optimizer, Settings(), rates, [])

    spent, network = seconds(learn, device), fold_batch_norm(model)
    found = []
    for eye in held_out:
        levels = quantize(segment(network, eye.image, eye.fov))
        found.append(scores(count_levels(levels, eye.mask, eye.fov), USUAL_THRESHOLD)["f1"])
    return spent, stats.mean(found)
