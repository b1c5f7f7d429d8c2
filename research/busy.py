"""Measure how much another program on one core slows training and prediction; python -m research.busy

Threads that soon sleep while they wait for one another, as the scripts have them, are compared with OpenMP's
default, threads that spin, with threads that sleep at once, and with one thread. All run in turn (A, B, A, B,
...), alone and beside a program that keeps the last core busy; the figures are medians. What else ran on the
machine is measured and printed: the less, the truer the figures. Linux only.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import platform
import resource
import statistics as stats
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from research.steps import our_prediction, our_step
from system.devices import describe, keep_memory
from utils import versions

CPU = torch.device("cpu")
WAYS: dict[str, dict[str, str]] = {
    "spinning": {},
    "asleep soon": {"GOMP_SPINCOUNT": "300"},
    "asleep": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one": {"OMP_NUM_THREADS": "1"},
}
KINDS: dict[str, tuple[Callable[..., Callable[[], None]], tuple]] = {
    "training step, 4 x 128x128": (our_step, (16, 3, 128, 4, "muon")),
    "prediction, 584x565": (our_prediction, (16, 3, (584, 565), 1)),
}


def busy_seconds() -> float:
    """Seconds that all processors together have worked since the machine was started."""
    user, nice, system, _, _, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def keep_busy() -> None:
    """Another program: works on the last core without end."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    while True:
        pass


def serve(pipe: Connection, make: Callable[..., Callable[[], None]], arguments: tuple) -> None:
    """Work for as many seconds as asked; answer with the seconds of a piece, in all, and of the processor."""
    if make is our_prediction:
        keep_memory()  # as networks.loading.load_networks does
    work = make(*arguments, CPU)
    pipe.send(describe(CPU))
    while length := pipe.recv():
        work()
        before, start, pieces = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter(), 0
        while (spent := time.perf_counter() - start) < length or not pieces:
            work()
            pieces += 1
        after = resource.getrusage(resource.RUSAGE_SELF)
        own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        pipe.send((spent / pieces, spent, own))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each; the median counts")
    parser.add_argument("--seconds", type=float, default=3, help="least length of each run")
    args = parser.parse_args()
    processes = multiprocessing.get_context("spawn")  # each reads the environment anew
    workers = {}
    for kind, way in itertools.product(KINDS, WAYS):
        os.environ.update(WAYS[way])
        workers[kind, way], theirs = processes.Pipe()
        processes.Process(target=serve, args=(theirs, *KINDS[kind]), daemon=True).start()
        for name in WAYS[way]:
            del os.environ[name]
    device = [pipe.recv() for pipe in workers.values()][0]

    times: dict[tuple[str, str, bool], list[float]] = {}
    rest: dict[bool, list[float]] = {False: [], True: []}
    for _, beside in itertools.product(range(args.rounds), (False, True)):
        other = processes.Process(target=keep_busy, daemon=True)
        if beside:
            other.start()
            time.sleep(2)  # until it works
        for (kind, way), pipe in workers.items():
            start, before = time.perf_counter(), busy_seconds()
            pipe.send(args.seconds)
            piece, spent, own = pipe.recv()
            elapsed = time.perf_counter() - start
            times.setdefault((kind, way, beside), []).append(piece)
            rest[beside].append((busy_seconds() - before) / elapsed - own / spent)
        if beside:
            other.kill()
            other.join()

    for pipe in workers.values():
        pipe.send(0)  # ends it
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {device}")
    print(", ".join(f"{name} {version}" for name, version in versions().items()))
    alone, taken = (stats.median(rest[beside]) for beside in (False, True))
    print(f"cores taken by other programs: alone {alone:.2f}, beside {taken:.2f}, of which 1 on purpose\n")
    print(f"{'seconds':28}{'threads':13}{'alone':>9}{'beside':>9}{'ratio':>7}")
    for kind, way in workers:
        first, second = (stats.median(times[kind, way, beside]) for beside in (False, True))
        print(f"{kind:28}{way:13}{first:9.3f}{second:9.3f}{second / first:7.2f}")


if __name__ == "__main__":
    main()
