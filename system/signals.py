"""Ctrl-C and SIGTERM: stop a training without losing a step."""

from __future__ import annotations

import signal


class Stop:
    """Handle Ctrl-C and SIGTERM: the first stops the training after its step, the second at once."""

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
    """Ignore Ctrl-C and SIGTERM in a DataLoader worker; the training process handles them."""
    for which in (signal.SIGINT, signal.SIGTERM):
        signal.signal(which, signal.SIG_IGN)
