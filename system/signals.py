"""Ctrl-C and SIGTERM: stop a training without losing a step."""

from __future__ import annotations

import signal
import threading


class Stop:
    """Handle Ctrl-C and SIGTERM: the first stops the training after its step, the second at once."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Stop:
        # Python sets handlers in the main thread only
        in_main = threading.current_thread() is threading.main_thread()
        wanted = (signal.SIGINT, signal.SIGTERM) if in_main else ()
        self.before = {s: signal.signal(s, self.ask) for s in wanted}
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
