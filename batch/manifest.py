"""predict.json: what made these results, so that they can be made again."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from system.files import atomic
from utils import versions

ROOT = Path(__file__).resolve().parent.parent


def program_version() -> str | None:
    """The version in pyproject.toml; None if it is not there."""
    try:
        found = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    except OSError:
        return None
    return found[1] if found else None


def commit() -> str | None:
    """The commit of the checkout, with "+" if files differ from it; None without git or outside a checkout."""
    if not (ROOT / ".git").exists():
        return None
    try:
        head = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
        name = subprocess.run(head, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        changed = ["git", "-C", str(ROOT), "diff", "--quiet", "HEAD"]
        return name + ("+" if subprocess.run(changed, capture_output=True, timeout=10).returncode else "")
    except (OSError, subprocess.SubprocessError):
        return None


def sha256(path: Path) -> str:
    """SHA-256 of a file, as sha256sum prints it."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def write_manifest(
    path: Path,
    weights: Sequence[Path],
    threshold: float,
    device: str,
    flags: Mapping[str, Any],
    photographs: Iterable[Mapping[str, Any]],
) -> None:
    """Write predict.json atomically.

    Args:
        path: of the file.
        weights: the checkpoints.
        threshold: probability that makes a vessel.
        device: in words.
        flags: what the user asked for.
        photographs: of each its `image` (name of the results), `photograph` (file), `width`, `height`,
            `fov_diameter` (pixels), `scales` and what else is known; NaN becomes null.

    Raises:
        UserError: the file cannot be written.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return value if isinstance(value, (int, str, bool, type(None))) else str(value)

    content = {
        "program": {"name": "retinal-vessel-unet", "version": program_version(), "commit": commit()},
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "weights": [{"file": str(file), "sha256": sha256(file)} for file in weights],
        "threshold": threshold,
        "device": device,
        "flags": plain(flags),
        "versions": versions(),
    }
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=1, allow_nan=False).removesuffix("\n}"))
        file.write(',\n "photographs": [')
        number = 0
        for row in photographs:  # one at a time: there may be a hundred thousand
            file.write(f"{',' if number else ''}\n  {json.dumps(plain(row), allow_nan=False)}")
            number += 1
        file.write(f'\n ],\n "number_of_photographs": {number}\n}}\n')
