"""predict.json: what made these results, so that they can be made again."""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from system.files import atomic
from utils import PROGRAM, versions

PROGRAM_FOLDER = Path(__file__).resolve().parent.parent
Weights = Mapping[str, Mapping[Path, str]]  # SHA-256 of each checkpoint, by the flag that gives it


def program_version() -> str | None:
    """The version in pyproject.toml; None if it is not there."""
    try:
        text = (PROGRAM_FOLDER / "pyproject.toml").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r'^version = "(.+)"$', text, re.M)
    return found[1] if found else None


def commit() -> str:
    """The commit of the checkout, with "+" and a hash of the changes if there are any.

    Without git, as in a copy without its history or one of another user, "+" and a hash of the code.
    """

    def git(*command: str) -> bytes:
        command = ("git", "-C", str(PROGRAM_FOLDER), *command)
        return subprocess.run(command, capture_output=True, timeout=10, check=True).stdout

    name, changes = "", b""
    try:
        if (PROGRAM_FOLDER / ".git").exists():  # else of a checkout that it lies in
            name, changes = git("rev-parse", "HEAD").decode().strip(), git("diff", "HEAD")
    except (OSError, subprocess.SubprocessError):
        name = ""
    if not name:
        code = [path for pattern in ("*.py", "*/*.py") for path in sorted(PROGRAM_FOLDER.glob(pattern))]
        changes = b"".join(path.read_bytes() for path in code if path.parent.name != "tests")
    return f"{name}+{hashlib.sha256(changes).hexdigest()[:8]}" if changes else name


@functools.cache  # as it was when it began: it may be updated meanwhile
def program() -> dict[str, str | None]:
    """Name, version and commit of this program."""
    return {"name": PROGRAM, "version": program_version(), "commit": commit()}


def write_manifest(
    path: Path,
    weights: Weights,
    threshold: float,
    device: str,
    flags: Mapping[str, Any],
    photographs: Iterable[Mapping[str, Any]],
) -> None:
    """Write predict.json atomically; UserError if it cannot be written.

    The threshold is the probability that makes a vessel, the device is in words, the flags are what the user
    asked for, and `photographs` what is known of each, as of `predict_photograph`; NaN becomes null.
    """
    content = {
        "program": program(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        **{what: [{"file": str(f), "sha256": d} for f, d in files.items()] for what, files in weights.items()},
        "threshold": threshold,
        "device": device,
        "flags": flags,
        "versions": versions(),
    }
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=1, allow_nan=False, default=str).removesuffix("\n}"))
        file.write(',\n "photographs": [')
        number = 0
        for row in photographs:  # one at a time: there may be a hundred thousand
            known = {n: None if isinstance(v, float) and not math.isfinite(v) else v for n, v in row.items()}
            file.write(f"{',' if number else ''}\n  {json.dumps(known, allow_nan=False)}")
            number += 1
        file.write(f'\n ],\n "number_of_photographs": {number}\n}}\n')
