"""Ctrl-C and SIGTERM: how a training is stopped without losing a step."""

from __future__ import annotations

import signal


class Stop:
    """Ctrl-C or SIGTERM: the first asks the training to stop after its step, the second stops it at once."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Stop:
        self.before = {s: signal.signal(s, self.ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for which, handler in self.before.items():
            signal.signal(which, handler)

    def ask(self, *_: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


def ignore_signals(_: int) -> None:
    """Leave Ctrl-C and SIGTERM, which go to every process of a terminal, to the process that trains."""
    for which in (signal.SIGINT, signal.SIGTERM):
        signal.signal(which, signal.SIG_IGN)
