"""What every script needs: errors for users, the device, seeds, whole files, a way to stop."""

from __future__ import annotations

import argparse
import contextlib
import csv
import ctypes
import difflib
import os
import platform
import random
import secrets
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

# torch takes seconds to import, so it is imported where it is used: --help and augment.py need none of it.

UNFINISHED = ".unfinished-"  # begins the name of a file that is being written


class UserError(Exception):
    """Something the user can put right; the message names the file, what is wrong and what to do."""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds to each flag's help its default, unless that says nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def run(main: Callable[[], int | None], lower: str = "") -> None:
    """Run a script: errors for the user become one line on stderr and exit status 2, without a traceback.

    `lower` names the flags that save memory, for the line to print when there is not enough.
    """
    script = Path(sys.argv[0]).name
    # line by line, so that a log file can be followed; a name that the console cannot show is no error
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    warnings.filterwarnings("ignore", module="PIL")  # what matters about an image is said in a UserError
    status = 2
    try:
        sys.exit(main())
    except UserError as error:
        message = str(error)
    except KeyboardInterrupt:
        message, status = "interrupted", 130
    except Exception as error:
        if out_of_memory(error):
            message = f"out of memory; {f'lower {lower}, or ' if lower else ''}end other programs"
        elif isinstance(error, OSError) and error.strerror:
            message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        else:
            raise
    # a name could hold codes that command the terminal
    message = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in message)
    print(f"{script}: {message}", file=sys.stderr)
    sys.exit(status)


def keep_memory() -> None:
    """Let this process keep the memory that it frees, to use it again.

    Large arrays otherwise go back to the system at once, which must clear every page when the next layer of the
    network asks for them anew: up to a tenth of the time of a prediction on a CPU. Not for training, which
    would hold a third more. Only the C library of most Linux systems has this choice.
    """
    mmap_max, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, -1)


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: Python, torch on each of its devices, and OpenCV all say it in another way."""
    signs = ("out of memory", "not enough memory", "allocate memory", "insufficient memory")
    signs += ("out of shared memory", "killed by signal: killed")  # of a DataLoader's worker
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in signs)


def did_you_mean(path: Path) -> str:
    """A hint at the existing name that is nearest to the first missing part of a path, or nothing."""
    for part in (path, *path.parents):
        if part.parent.is_dir():
            there = {file.name.casefold(): file for file in part.parent.iterdir()}
            near = difflib.get_close_matches(part.name.casefold(), there, n=1)
            return f"; did you mean {there[near[0]]}?" if near else ""
    return ""


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
        if os.name == "nt":
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


def ignore_signals(_: int) -> None:
    """Leave Ctrl-C and SIGTERM, which go to every process of a terminal, to the process that trains."""
    for which in (signal.SIGINT, signal.SIGTERM):
        signal.signal(which, signal.SIG_IGN)


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


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (every device)."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def pick_device(name: str = "auto") -> torch.device:
    """Turn auto, cpu, cuda, cuda:1 or mps into a device that is there; auto prefers cuda, then mps.

    Raises:
        UserError: the device is not there.
    """
    import torch

    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if has_cuda else "mps" if has_mps else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: no such device; use auto, cpu, cuda or mps") from None
    there = {"cpu": True, "cuda": has_cuda, "mps": has_mps}.get(device.type, False)
    if there and device.type == "cuda" and device.index is not None:
        there = device.index < torch.cuda.device_count()
    if not there:
        raise UserError(f"--device {name}: this device is not available here; use --device cpu")
    return device


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware itself computes in bfloat16; emulated it is slower than float32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # no public name for this question yet; without an answer float32 is right, only slower
        return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
    return False


def autocast(device: torch.device) -> torch.autocast | contextlib.nullcontext:
    """The context to run the network in: bfloat16 where the hardware has it, else float32."""
    import torch

    if not has_bfloat16(device):
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def describe(device: torch.device) -> str:
    """The device in words, e.g. 'cpu (2 threads, bfloat16)'."""
    import torch

    number = "bfloat16" if has_bfloat16(device) else "float32"
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)}, {number})"
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads, {number})"
    return f"{device} ({number})"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the result."""
    import cv2
    import torch

    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a class of its own, which weights_only refuses
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }
