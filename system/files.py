"""Atomic writing of files, and folders locked by one process at a time."""

from __future__ import annotations

import contextlib
import csv
import errno
import functools
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from utils import NotWritten, UserError, explain

UNFINISHED = ".unfinished-"  # prefix of a file that is being written
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with these a spreadsheet takes text for a formula
SIGNED = r"[+-]\d+(\.\d+)?([eE][+-]?\d+)?"  # a number, which is no formula: -2.5 dioptres
NAMED = ("image", "photograph", "eye")  # columns of names, of which a spreadsheet would make numbers


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` at the end, or is removed after an error.

    At any moment, even after a kill, `path` holds the whole old file or the whole new one.

    Raises:
        NotWritten: the file cannot be, for example because the disk is full or the folder read-only. An
            OSError that names another file, such as one that is read for it, stays as it is.
    """
    path = Path(path)
    # keep the end of the name: Matplotlib chooses the format by the suffix
    temporary = path.parent / f"{UNFINISHED}{secrets.token_hex(4)}-{path.name[-40:]}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        yield temporary
        with temporary.open("rb+") as file:
            sync(file)
        temporary.replace(path)
    except OSError as error:
        named = Path(path if error.filename is None else os.fsdecode(error.filename))
        if named not in (path, *path.parents) and not named.name.startswith(UNFINISHED):
            raise
        said = explain(error, path, "cannot be written", "choose another folder")
        raise NotWritten(f"{said}; an earlier file is as it was") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync(file: IO[bytes]) -> None:
    """Wait until a file is on the disk: without it a power cut could leave an empty one under the new name.

    Network and FUSE file systems may not offer that; the program then goes on and says so once.
    """
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise
        warn_of_power_cuts(explain(error))


@functools.cache  # once, not for every file
def warn_of_power_cuts(reason: str) -> None:
    print(f"this file system does not say when a file is safe from a power cut ({reason})", file=sys.stderr)


def write_csv(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write a table atomically. The first row must have all columns; NaN becomes an empty cell.

    Where a cell is not ASCII, such as a file name, the file begins with the mark by which Excel knows UTF-8; R
    and pandas skip it. Bytes of a file name that are not text become "?". Text that a spreadsheet would run as
    a formula, such as a file name that begins with "=", gets an apostrophe in front.

    Raises:
        UserError: the file cannot be written.
    """
    with (
        atomic(path) as temporary,
        # not in TMPDIR, which may be full, or missing in a container
        tempfile.TemporaryFile(
            "w+", newline="", encoding="utf-8", errors="replace", dir=temporary.parent, prefix=UNFINISHED
        ) as table,
    ):
        writer, plain = None, True
        for row in rows:
            if writer is None:
                writer = csv.DictWriter(table, row.keys())
                writer.writeheader()
            plain = plain and all(v.isascii() for v in row.values() if isinstance(v, str))
            writer.writerow({name: cell(value, name in NAMED) for name, value in row.items()})
        table.seek(0)
        # plain readers stumble over a mark, so a table of ASCII has none
        with temporary.open("w", newline="", encoding="utf-8" if plain else "utf-8-sig") as file:
            shutil.copyfileobj(table, file)


def cell(value: object, is_name: bool = False) -> object:
    """What a table shows of a value, see `write_csv`."""
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.8f}"
    # https://owasp.org/www-community/attacks/CSV_Injection
    runs = isinstance(value, str) and value.startswith(FORMULA)
    return f"'{value}" if runs and (is_name or not re.fullmatch(SIGNED, str(value))) else value


@contextlib.contextmanager
def claim(folder: Path, *parts: str) -> Iterator[None]:
    """Lock `folder` for writing by this process; remove unfinished files there and in `parts`, such as page/*.

    The operating system releases the lock when the process ends, however it ends, so no stale lock is left.

    Raises:
        UserError: another process holds the lock, or the folder cannot be written.
    """
    path = folder / ".lock"
    for _ in range(100):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = path.open("a+b", buffering=0)
        except OSError as error:
            raise UserError(explain(error, folder, "cannot be written", "choose another folder")) from None
        with contextlib.ExitStack() as stack:
            stack.enter_context(file)
            if not lock(file):
                file.seek(0)
                number = file.read(20).decode(errors="replace").strip()
                who = f"process {number}" if number else "another process"
                raise UserError(f"{folder}: {who} is writing there; wait for its end, or choose another folder")
            # if its owner has just removed it, nobody holds the folder
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    stack.pop_all()
                    break
    else:
        raise UserError(f"{folder}: cannot be locked; choose another folder")
    with file:
        try:
            with contextlib.suppress(OSError):  # the number is for the message alone: the disk may be full
                file.truncate(0)
                file.write(f"{os.getpid()}\n".encode())
            for part in (".", *parts):
                for leftover in folder.glob(f"{part}/{UNFINISHED}*"):
                    leftover.unlink(missing_ok=True)
            yield
        finally:
            # remove it while locked: a process that has just opened it checks above that it still exists
            with contextlib.suppress(OSError):
                path.unlink()


def lock(file: IO[bytes]) -> bool:
    """Lock an open file without waiting; return False if another process holds it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            # a byte far beyond the end: Windows lets nobody read a locked byte
            os.lseek(file.fileno(), 1 << 30, os.SEEK_SET)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            # lockf, not flock: DataLoader workers would inherit a flock and keep it after a kill
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        pass  # the file system has no locks: go on without one
    return True
