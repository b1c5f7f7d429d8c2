"""Threads for work that runs side by side, such as writing pictures."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor


@contextlib.contextmanager
def threads(number: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads, by default one a processor; after an error or Ctrl-C, waiting jobs are dropped.

    ThreadPoolExecutor's own context would do all of them first.
    """
    pool = ThreadPoolExecutor(number or os.cpu_count())
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()
