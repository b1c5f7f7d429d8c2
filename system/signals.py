"""Ctrl-C, SIGTERM, SIGHUP and those of schedulers: stop without losing what is done."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

# what ends or announces the end of a process: Ctrl-C, kill, a terminal that is closed, schedulers
ENDINGS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
]


class Stop:
    """Handle signals that end a process: the first stops the training after its step, a second Ctrl-C at once.

    What a parent, such as nohup, has ignored stays ignored, but for Ctrl-C and SIGTERM.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Stop:
        # Python sets handlers in the main thread only
        in_main = threading.current_thread() is threading.main_thread()
        always = (signal.SIGINT, signal.SIGTERM)
        wanted = [s for s in ENDINGS if s in always or signal.getsignal(s) != signal.SIG_IGN] if in_main else []
        self.before = {s: signal.signal(s, self.ask) for s in wanted}
        return self

    def __exit__(self, *_: object) -> None:
        for which, handler in self.before.items():
            signal.signal(which, handler)

    def ask(self, which: int, _: object) -> None:
        # schedulers send several: only a user who presses Ctrl-C again does not want to wait
        if self.requested and which == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


def ignore_signals() -> None:
    """Ignore in a process of its own what the training process handles."""
    for which in ENDINGS:
        signal.signal(which, signal.SIG_IGN)


@contextlib.contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Inside, what ends a process, also a terminal that is closed, raises KeyboardInterrupt, as Ctrl-C does.

    Only the first one does, so that what is finished can be written. What a parent, such as nohup, has ignored
    stays ignored.
    """
    terminals = [number for number in (1, 2) if is_terminal(number)]

    def interrupt(which: int, _: object) -> None:
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        if which == getattr(signal, "SIGHUP", None):  # the terminal is gone: a word to it would be an error
            with Path(os.devnull).open("w") as nowhere:
                for number in terminals:
                    os.dup2(nowhere.fileno(), number)
        raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()
    wanted = {*ENDINGS} - {signal.SIGINT} if in_main else set()
    before = {which: signal.getsignal(which) for which in wanted if signal.getsignal(which) == signal.SIG_DFL}
    for which in before:
        signal.signal(which, interrupt)
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


def is_terminal(number: int) -> bool:
    """Whether this file number is a terminal."""
    try:
        return os.isatty(number)
    except OSError:
        return False
