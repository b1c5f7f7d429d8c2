"""Scripts in processes of their own, forked off one that has imported everything.

That saves the seconds that each import of torch takes.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

import utils

HOW = "forkserver" if os.name != "nt" else "spawn"
PRELOADED = ["forked", "conftest", "predict", "test", "sklearn.model_selection", "torch._dynamo"]


class Forked:
    """A process that runs `work(*arguments)`, with the methods of `subprocess.Popen` that the tests use.

    Args:
        work: a function of a module, see `script` for that of a script.
        arguments: of it.
        environment: variables to set.
        folder: to work in.
        limits: what `resource.setrlimit` takes, by the name of the limit.
    """

    def __init__(
        self,
        work: Callable[..., None],
        *arguments: object,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        limits: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        context = multiprocessing.get_context(HOW)
        if HOW == "forkserver":
            start_server()
        self.place = tempfile.TemporaryDirectory(prefix="forked-", ignore_cleanup_errors=True)  # goes with this
        self.words = Path(self.place.name)
        given = (self.words, dict(environment or {}), folder or Path.cwd(), dict(limits or {}), work, arguments)
        self.process = context.Process(target=begin, args=given)
        self.process.start()
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, below 0 after a signal; None while it runs."""
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, which: int) -> None:
        os.kill(self.pid, which)

    def kill(self) -> None:
        self.process.kill()

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """Wait for the end; returns what it wrote to stdout and to stderr."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.kill()
            raise subprocess.TimeoutExpired(str(self.process), timeout)
        return self.said("out"), self.said("err")

    def said(self, stream: str) -> str:
        path = self.words / stream
        return path.read_text(encoding="utf-8") if path.exists() else ""


def start_server() -> None:
    """Start the process that is forked off, once: it must find test.py before the standard library's test."""
    from multiprocessing import forkserver

    tests = Path(__file__).resolve().parent
    forkserver.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (tests.parent, tests))))
        forkserver.ensure_running()


def begin(
    words: Path, environment: Mapping[str, str], folder: Path, limits: Mapping, work: Callable, given: tuple
) -> None:
    """What a process does: its words go to files."""
    if os.name != "nt":
        os.setsid()
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(words / name, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(file, number)
    for name, limit in limits.items():
        import resource

        resource.setrlimit(getattr(resource, name), limit)
    if HOW == "forkserver":
        multiprocessing.set_start_method("fork", force=True)  # for workers, as in a process of one's own
    torch.set_num_threads(1)
    os.environ.pop("PYTHONPATH", None)
    os.environ.update(environment)
    os.chdir(folder)
    work(*given)


def script(name: str, *arguments: str) -> None:
    """What `python NAME ARGUMENTS` does."""
    sys.argv = [name, *arguments]
    utils.run(importlib.import_module(Path(name).stem).main)


def start(name: str, *arguments: object, **options: object) -> Forked:
    """Start a script, such as train.py; options as of `Forked`."""
    return Forked(script, name, *map(str, arguments), **options)


def finish(name: str, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a script to its end."""
    process = start(name, *arguments, **options)
    out, err = process.communicate()
    return subprocess.CompletedProcess([name, *arguments], process.returncode, out, err)


def wait_until(reached: Callable[[], object], process: Forked, seconds: float = 120) -> None:
    """Wait until something is reached while a process runs."""
    until = time.time() + seconds
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.time() < until, "it never came"
        time.sleep(0.002)


def modified(path: Path) -> int:
    """When a file was written, in nanoseconds; 0 if it is not there."""
    return path.stat().st_mtime_ns if path.exists() else 0
