"""What every script needs: errors for users, a common way to run, seeds, versions."""

from __future__ import annotations

import argparse
import difflib
import errno
import glob
import io
import math
import os
import platform
import random
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PROGRAM = "retinal-vessel-unet"  # as files that it writes name it
# torch takes seconds to import: every module imports it where it is used, so that --help answers at once


class UserError(Exception):
    """An error that the user can fix. The message names the file, what is wrong and what to do."""


class NotWritten(UserError):
    """A file cannot be written: not the fault of what it was made from, and others cannot be written either."""


# what to do about an error of the system, by its name; not every system has all
REMEDIES = {
    "ENOSPC": "free some space",
    "EDQUOT": "free some space, or ask for a larger quota",
    "EACCES": "give yourself the right to it (chmod u+rwX; in Windows end what has it open), or do without it",
    "EPERM": "give yourself the right to it, or do without it",
    "EROFS": "choose another folder",
    "EIO": "the disk or its connection fails: restore the file, or do without it",
    **dict.fromkeys(("ESTALE", "ENOTCONN", "ETIMEDOUT", "EHOSTDOWN"), "connect the network disk again"),
    **dict.fromkeys(("EMFILE", "ENFILE"), "raise the limit with ulimit -n 4096, or use --workers 0"),
    "ENAMETOOLONG": "choose a shorter name",
    "EFBIG": "choose a folder on a disk that takes larger files",
    "ELOOP": "name the file itself, not a link",
}
ONLY_MESSAGES = "only messages are lost, results are written as ever"


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default to the help of each flag, unless it is None or False."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def path_name(text: str) -> Path:
    """argparse type: a file or folder. A shell leaves the ~ in --out=~/mine, and Windows every one."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # nobody is called so
        return Path(text)


def folder_name(text: str) -> Path:
    """argparse type: a folder to write. An empty text would be the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; name a folder")
    return path_name(text)


def between(low: float, high: float = math.inf, kind: type[int] | type[float] = float) -> Callable[[str], Any]:
    """argparse type: a number from `low` to `high`; a whole one if `kind` is int."""

    def number(text: str) -> float:
        if not low <= (value := kind(text)) <= high:
            wanted = f"{low} or more" if high == math.inf else f"{low} to {high}"
            raise argparse.ArgumentTypeError(f"{text} is out of range: give {wanted}")
        return value

    number.__name__ = "whole number" if kind is int else "number"  # of the message for what is none
    return number


seed_number = between(0, 2**32 - 1, int)  # argparse type: a seed that every library takes


def run(main: Callable[[], int | None], lower: str = "") -> None:
    """Run a script: a UserError becomes one line on stderr and exit status 2, without a traceback.

    `lower` names the flags that save memory. They are printed when memory runs out.
    """
    script = Path(sys.argv[0]).name
    wait_asleep()
    prepare_streams()
    warnings.filterwarnings("ignore", module="PIL")  # a bad image raises a UserError instead
    status = 2
    try:
        check_current_folder()
        sys.exit(main())
    except UserError as error:
        message = str(error)
    except KeyboardInterrupt:
        message, status = "interrupted", 130
    except Exception as error:
        if "shared memory" in str(error).lower():
            message = "out of shared memory; use --workers 0, or start the container with --shm-size=2g"
        elif "too many open files" in str(error).lower():
            message = f"too many open files; {REMEDIES['EMFILE']}"  # also where torch says so
        elif out_of_memory(error):
            text = "" if isinstance(error, ImportError) else str(error).lower()  # else it names a library
            gpu = any(kind in text for kind in ("cuda", "hip", "mps", "xpu"))
            message = f"out of memory{' of the GPU' * gpu}; {f'lower {lower}, or ' if lower else ''}"
            message += f"end other programs{', or use --device cpu' * gpu}"
        elif isinstance(error, OSError) and error.strerror:
            message = explain(error)
        else:
            raise
    # a file name could hold control codes of the terminal
    message = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in message)
    print(f"{script}: {message}", file=sys.stderr)
    sys.exit(status)


def check_current_folder() -> None:
    """Raise UserError if the folder in which the program was started is gone: libraries fail there."""
    try:
        Path.cwd()
    except OSError:
        raise UserError("the current folder is gone; go to another one, such as with: cd") from None


def wait_asleep() -> None:
    """Let the threads of a computation soon sleep while they wait for one another, unless the user chose.

    By default GNU's OpenMP lets them spin for milliseconds. Where other programs run as well, they so keep a
    core from the very thread that they wait for (docs/speed.md). The results stay the same, bit for bit. Call
    it before torch is imported: OpenMP reads the environment once.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "300"  # some 0.01 ms; the default is 300,000


def prepare_streams() -> None:
    """Make stdout and stderr such that every script can print: in a shell, a notebook, IDLE, or with none."""
    closed = []
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or getattr(stream, "closed", False):
            closed.append(name)
            # devnull also takes the number of the closed stream, which a file of results would get otherwise
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):  # a notebook has a stream of its own
            # flush every line, so that a log can be followed; escape names that the console cannot show
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
            setattr(sys, name, Messages(stream))
    if closed == ["stdout"]:
        print(f"{Path(sys.argv[0]).name}: stdout is closed; {ONLY_MESSAGES}", file=sys.stderr)


class Messages:
    """A stream of messages. Where it is full or nobody reads it any more, they are lost, but no results are."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """As of a text stream."""
        try:
            return self.stream.write(text)
        except OSError as error:
            with Path(os.devnull).open("w") as nowhere:  # for all that follows, also of other processes
                os.dup2(nowhere.fileno(), self.stream.fileno())
            lost = explain(error, self.stream.name, "cannot be written")
            print(f"{Path(sys.argv[0]).name}: {lost}; {ONLY_MESSAGES}", file=sys.stderr)
            return len(text)


def explain(error: Exception, path: Path | str | None = None, what: str = "", otherwise: str = "") -> str:
    """One line of an error of the system or of a reader of files: the file, what is wrong, and what to do.

    Args:
        error: that came.
        path: of the file; None: as the error names it, if it does.
        what: is wrong with it, where the error says why alone, such as "cannot be read".
        otherwise: what to do where `REMEDIES` has nothing for it.
    """
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:120] or type(error).__name__
    name = errno.errorcode.get(getattr(error, "errno", None) or 0, "")
    file = path if path is not None else getattr(error, "filename", None)
    said = [f"{file}: " if file else "", f"{what} ({reason})" if what else reason]
    return "; ".join(filter(None, ["".join(said), REMEDIES.get(name, otherwise)]))


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. Python, OpenCV and each device of torch word it differently."""
    signs = ["out of memory", "not enough memory", "allocate memory", "insufficient memory"]
    signs += ["killed by signal: killed", "failed to map segment"]  # a DataLoader's worker; a library
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in signs)


def did_you_mean(path: Path) -> str:
    """Suggest the existing name closest to the first missing part of a path; empty if there is none."""
    for part in () if path.exists() else (path, *path.parents):
        if part.parent.is_dir():
            there = {f.name.casefold(): f for f in part.parent.iterdir() if f.name != part.name}
            near = difflib.get_close_matches(part.name.casefold(), there, n=1)
            return f"; did you mean {there[near[0]]}?" if near else ""
    return ""


def expand(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the paths, and for a pattern that no shell expanded and that is no file what matches it."""
    for path in paths:
        root, pattern = Path(path.anchor), str(path.relative_to(path.anchor))
        matching = sorted(root.glob(pattern)) if glob.has_magic(pattern) and not path.exists() else []
        yield from matching or [path]


def missing(path: Path, what: str = "file or folder") -> str:
    """What to say of a path that is not there."""
    if glob.has_magic(str(path)):
        return f"{path}: nothing matches this pattern"
    if os.name != "nt" and re.match(r"[A-Za-z]:", str(path)):
        return f"{path}: no such {what}; a path of Windows, which in WSL is /mnt/c/folder/eye.jpg"
    if path.is_symlink():
        return f"{path}: no such {what}: a link that leads to none"
    return f"{path}: no such {what}{did_you_mean(path)}"


def not_installed(error: ImportError, requirements: str) -> UserError:
    """What to install for an optional package that is missing."""
    return UserError(f"{error.name} is not installed; install it with: pip install -r {requirements}")


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (every device)."""
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the result."""
    import cv2
    import torch

    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a str subclass, which weights_only refuses
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }
