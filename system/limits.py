"""What this process may use: processor cores and open files."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

SYSTEM = Path("/")


def usable_cores() -> int:
    """The cores that this process may use: those of the machine, of its affinity, and of its container.

    taskset and schedulers limit the affinity; containers limit the time on all cores together (cgroups).
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no such call
        cores = os.cpu_count() or 1
    return max(min([cores, *map(math.ceil, limits_of_groups())]), 1)


def busy_cores() -> float:
    """The cores that programs kept busy in the last minute, on average; 0 where the system does not say."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows has no such call
        return 0.0


def limits_of_groups() -> Iterator[float]:
    """The limits of the control groups that this process is in, in cores."""
    for line in read_words(SYSTEM / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        version_1 = "cpu" in controllers.split(",")
        if controllers and not version_1:
            continue
        mount = SYSTEM / "sys/fs/cgroup" / ("cpu" if version_1 else "")
        own = mount / path.lstrip("/")
        # inside a container the path may be that of the machine, which is not to be seen there
        for folder in {mount, *(f for f in (own, *own.parents) if f.is_relative_to(mount))}:
            if version_1:
                words = read_words(folder / "cpu.cfs_quota_us") + read_words(folder / "cpu.cfs_period_us")
            else:
                words = read_words(folder / "cpu.max")
            if len(words) == 2 and words[0].isdecimal() and int(words[1]) > 0:  # else "max" or -1: none
                yield int(words[0]) / int(words[1])


def read_words(path: Path) -> list[str]:
    """The words of a small file; none if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return []


def allow_open_files() -> None:
    """Raise the limit of open files as far as a user may: workers share every batch as files."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows has no such limit
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
