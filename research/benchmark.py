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
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from research.steps import in_turn, our_prediction, our_step, plain_prediction, plain_step, seconds
from research.whole_runs import input_pipeline, scripts, time_to_f1
from system.devices import describe, has_bfloat16, keep_memory, pick_device
from utils import versions


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
