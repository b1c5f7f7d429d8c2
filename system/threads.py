"""Threads for work that runs side by side, such as writing pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from system.limits import usable_cores


@contextlib.contextmanager
def threads(number: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads, by default one a usable core; after an error or Ctrl-C, waiting jobs are dropped.

    ThreadPoolExecutor's own context would do all of them first.
    """
    pool = ThreadPoolExecutor(number or usable_cores())
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()
