"""Files written whole or not at all, and folders held by one process at a time."""

from __future__ import annotations

import contextlib
import csv
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from utils import UserError

UNFINISHED = ".unfinished-"  # begins the name of a file that is being written


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place at the end, or vanishes after an error.

    A reader of `path`, or a program killed meanwhile, finds the whole old file or the whole new one.

    Raises:
        UserError: the file cannot be written: a full disk, say, or a folder that is read-only.
    """
    path = Path(path)
    # the end of the name is kept: Matplotlib chooses the format by it
    temporary = path.parent / f"{UNFINISHED}{secrets.token_hex(4)}-{path.name[-40:]}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # else a power cut could leave the new name on an empty file
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be written ({reason}); an earlier file is as it was") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a table of scores atomically; the first row has all columns, and what is NaN is left empty.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {
                    k: v if not isinstance(v, float) else "" if np.isnan(v) else f"{v:.8f}"
                    for k, v in row.items()
                }
            )


@contextlib.contextmanager
def claim(folder: Path, *parts: str) -> Iterator[None]:
    """Hold `folder` for writing by this process alone; remove what a killed one left there and in `parts`.

    `parts` are patterns of folders inside it, such as page/*.

    The operating system holds the lock and drops it when the process ends in whatever way, so that none is
    ever left behind.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None
    with file:
        if not lock(file) or not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            file.seek(0)
            number = file.read(20).decode(errors="replace").strip() or "(unknown)"
            raise UserError(
                f"{folder}: process {number} is writing there; wait for its end, or choose another folder"
            )
        try:
            with contextlib.suppress(OSError):  # the number is for the message alone; a full disk may lack it
                file.truncate(0)
                file.write(f"{os.getpid()}\n".encode())
            for part in (".", *parts):
                for leftover in folder.glob(f"{part}/{UNFINISHED}*"):
                    leftover.unlink(missing_ok=True)
            yield
        finally:
            # removed while it is held: whoever opened it just before sees above that it is gone
            with contextlib.suppress(OSError):
                path.unlink()


def lock(file: IO[bytes]) -> bool:
    """Lock an open file for this process, without waiting; False if another process has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(
                file.fileno(), 1 << 30, os.SEEK_SET
            )  # a byte far off: Windows lets nobody read a locked one
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            # lockf, not flock: the latter would live on in the DataLoader's workers after a kill
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        pass  # a file system without locks: better to go on unprotected than not at all
    return True
