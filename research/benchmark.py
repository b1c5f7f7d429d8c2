"""Measure speed and memory side by side with the plain way; run by hand: python -m research.benchmark

Everything that is compared runs in turn (A, B, A, B, ...), because machines get faster and slower while they
run; the figures are medians. A share of the peak is floating-point operations a second
over what a large matrix product reaches on the same machine a moment before.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import statistics as stats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import demo
from data import read_eyes
from datasets.eyes import Eye
from model import UNet, fold_batch_norm
from prediction.segmentation import predict, segment
from scoring.metrics import count_levels, quantize, scores
from system.devices import autocast, describe, has_bfloat16, keep_memory, pick_device
from training.crops import Crops
from training.epoch import train_one_epoch
from training.losses import vessel_loss
from training.optimizers import make_optimizer, one_cycle
from training.settings import Settings
from training.thresholds import USUAL_THRESHOLD
from utils import versions

ROOT = Path(__file__).resolve().parent.parent


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each; the median counts")
    parser.add_argument(
        "--skip-large", action="store_true", help="leave out the 31 M network (minutes on a CPU)"
    )
    parser.add_argument(
        "--fold", type=Path, help="new_data with labelled test eyes: also time training to an F1"
    )
    return parser.parse_args()


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that `work` takes, a GPU's included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def in_turn(works: dict[str, Callable[[], object]], device: torch.device, repeats: int) -> dict[str, float]:
    """Median seconds of each, run in turn after one untimed round."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for round_number in range(repeats + 1):
        for name, work in works.items():
            spent = seconds(work, device)
            if round_number:
                taken[name].append(spent)
    return {name: stats.median(times) for name, times in taken.items()}


def gflop(work: Callable[[], object]) -> float:
    """Billions of floating-point operations of `work`."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def peak(device: torch.device) -> float:
    """GFLOP/s of a large matrix product in the number format that the scripts use here."""
    number = torch.bfloat16 if has_bfloat16(device) else torch.float32
    a, b = (torch.randn(4096, 4096, device=device, dtype=number) for _ in range(2))
    return 2 * 4096**3 / 1e9 / in_turn({"product": lambda: a @ b}, device, 5)["product"]


def our_step(
    width: int, depth: int, side: int, batch: int, name: str, device: torch.device
) -> Callable[[], None]:
    """A step as train.py does it with this optimizer."""
    image, mask, fov = training_batch(side, batch, device)
    model = UNet(width=width, depth=depth).to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(model, name, 1e-4)

    def step() -> None:
        with autocast(device):
            logits = model(image.contiguous(memory_format=torch.channels_last))
        loss = vessel_loss(logits, mask, fov)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    step()  # gradients and the optimizer's state are there from now on
    return step


def plain_step(width: int, depth: int, side: int, batch: int, device: torch.device) -> Callable[[], None]:
    """A step as a tutorial does it: float32, NCHW, Adam, sigmoid, BCE + Dice."""
    image, mask, _ = training_batch(side, batch, device)
    model = plain_network(width, depth).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> None:
        probability = torch.sigmoid(model(image))
        overlap = (probability * mask).sum()
        dice = 1 - (2 * overlap + 1) / (probability.sum() + mask.sum() + 1)
        loss = F.binary_cross_entropy(probability, mask) + dice
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()  # gradients and the optimizer's state are there from now on
    return step


def training_batch(side: int, batch: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Images, masks and fields of view without meaning."""
    torch.manual_seed(0)
    image = torch.randn(batch, 3, side, side, device=device)
    mask = (torch.rand(batch, 1, side, side, device=device) < 0.13).float()
    return image, mask, torch.ones_like(mask)


def plain_network(width: int, depth: int) -> UNet:
    """The network with torch's own transposed convolutions."""
    model = UNet(width=width, depth=depth)
    for block in model.decoder:
        block.up.__class__ = torch.nn.ConvTranspose2d
    return model


def our_prediction(
    width: int, depth: int, shape: tuple[int, int], views: int, device: torch.device
) -> Callable[[], None]:
    """Prediction of one image as the scripts do it."""
    torch.manual_seed(0)
    image = torch.randn(1, 3, *shape, device=device).contiguous(memory_format=torch.channels_last)
    model = fold_batch_norm(UNet(width=width, depth=depth).to(device, memory_format=torch.channels_last))

    def work() -> None:
        with torch.inference_mode(), autocast(device):
            predict(model, image, views).cpu()

    return work


def plain_prediction(
    width: int, depth: int, shape: tuple[int, int], device: torch.device
) -> Callable[[], None]:
    """Prediction of one image as a tutorial does it: float32, NCHW."""
    torch.manual_seed(0)
    image = torch.randn(1, 3, *shape, device=device)
    model = plain_network(width, depth).to(device).eval()

    def work() -> None:
        with torch.no_grad():
            torch.sigmoid(model(image)).cpu()

    return work


def memory(device: torch.device) -> tuple[float, float]:
    """MiB that this process holds now, and the most that it has held so far: on a GPU, or in all (Linux)."""
    if device.type == "cuda":
        held, most = torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
        return held / 2**20, most / 2**20
    if not Path("/proc/self/statm").exists():
        return float("nan"), float("nan")
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return pages * resource.getpagesize() / 2**20, most


def serve(pipe: Connection, make: Callable, arguments: tuple, device: torch.device) -> None:
    """In a process of its own: work whenever asked, and answer with seconds, GFLOP and MiB.

    The MiB are the most that the work held beyond what it began with: network, gradients, optimizer.
    """
    if make is our_prediction:
        keep_memory()  # as networks_of.load_networks does
    work = make(*arguments, device)
    before, operations = memory(device)[0], 0.0
    while pipe.recv():
        if not operations:  # counting takes time, too: not in a timed run
            operations = gflop(work)
        spent = seconds(work, device)
        pipe.send((spent, operations, memory(device)[1] - before))


def table(
    title: str, ways: dict[str, tuple[Callable, tuple]], device: torch.device, repeats: int, top: float
) -> None:
    """Print seconds, GFLOP/s, share of the peak, memory, and ratios to the plain way.

    Every way has a process of its own, so that none inherits memory from another; they work in turn.
    """
    processes = multiprocessing.get_context("spawn")  # a fork would inherit the parent's memory
    pipes, children = {}, []
    for name, (make, arguments) in ways.items():
        pipes[name], theirs = processes.Pipe()
        children.append(processes.Process(target=serve, args=(theirs, make, arguments, device)))
        children[-1].start()
        theirs.close()  # so that the end of the child ends the wait for its answer
    answers: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, pipe in pipes.items():
            pipe.send(True)
            answers[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(False)
    for child in children:
        child.join()

    times = {name: stats.median(answer[0] for answer in found) for name, found in answers.items()}
    most = {name: found[-1][2] for name, found in answers.items()}
    print(
        f"\n{title}\n  {'':12}{'seconds':>10}{'GFLOP/s':>10}{'of peak':>10}{'MiB':>8}{'time':>10}{'memory':>10}"
    )
    for name in ways:
        rate = answers[name][0][1] / times[name]
        against = times[name] / times["plain"], most[name] / most["plain"]
        print(
            f"  {name:12}{times[name]:10.3f}{rate:10.0f}{rate / top:10.0%}{most[name]:8.0f}"
            f"{against[0]:10.2f}{against[1]:10.2f}"
        )


def training_table(
    width: int, depth: int, side: int, batch: int, device: torch.device, repeats: int, top: float
) -> None:
    """A training step of a network, ours with each optimizer, and the plain one."""
    arguments = (width, depth, side, batch)
    ways = {
        "ours, adamw": (our_step, (*arguments, "adamw")),
        "ours, muon": (our_step, (*arguments, "muon")),
        "plain": (plain_step, arguments),
    }
    table(f"training step, width {width}, depth {depth}, {batch} x {side}x{side}", ways, device, repeats, top)


def prediction_table(
    width: int, depth: int, shape: tuple[int, int], device: torch.device, repeats: int, top: float
) -> None:
    """Prediction of one image, ours in one view and in eight, and the plain one."""
    ways = {
        "ours": (our_prediction, (width, depth, shape, 1)),
        "ours, eight views": (our_prediction, (width, depth, shape, 8)),
        "plain": (plain_prediction, (width, depth, shape)),
    }
    title = f"prediction, width {width}, depth {depth}, one image of {shape[0]}x{shape[1]}"
    table(title, ways, device, repeats, top)


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
    from networks.checkpoints import save_checkpoint

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


def main() -> None:
    args = parse_args()
    device = pick_device(args.device)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {describe(device)}")
    print(", ".join(f"{name} {version}" for name, version in versions().items()))
    top = peak(device)
    number = "bfloat16" if has_bfloat16(device) else "float32, as there is no bfloat16 here"
    print(f"matrix product: {top:.0f} GFLOP/s in {number}; the shares of the peak are of this")
    rest = (device, args.repeats, top)
    if not args.skip_large:  # 31 M parameters
        training_table(64, 4, 512, 2, *rest)
        prediction_table(64, 4, (512, 512), *rest)
    training_table(16, 3, 128, 4, *rest)
    prediction_table(16, 3, (584, 565), device, max(args.repeats, 9), top)  # a native eye
    with tempfile.TemporaryDirectory() as folder:
        scripts(Path(folder), device, args.repeats)
        input_pipeline(Path(folder) / "new_data", device)
    if args.fold:
        print("\ntraining until the held-out eyes are segmented that well:")
        time_to_f1(args.fold, device)


if __name__ == "__main__":
    main()
