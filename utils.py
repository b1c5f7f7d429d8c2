"""What every script needs: errors for users, the way to run and to seed it."""

from __future__ import annotations

import argparse
import difflib
import io
import platform
import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

# torch takes seconds to import: every module imports it where it is used, so that --help answers at once


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
    if isinstance(sys.stdout, io.TextIOWrapper):  # a notebook has a stream of its own
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


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: Python, torch on each of its devices, and OpenCV all say it in another way."""
    signs: tuple[str, ...] = ("out of memory", "not enough memory", "allocate memory", "insufficient memory")
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


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (every device)."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


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
