"""finished.jsonl: a line for each photograph whose results are whole, for `--resume` after a kill."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prediction.manifest import program_version, sha256
from prediction.photographs import PARTS
from scoring.report import layers
from system.files import atomic


def fingerprint(weights: Sequence[Path], **settings: Any) -> str:
    """A value that differs where the weights, the settings or the program would give other results."""
    made_by = [program_version(), [sha256(path) for path in weights], settings]
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()


class Journal:
    """The photographs that are finished, one JSON object a line.

    A kill can cut off the last line, which then does not count.

    Args:
        out: the folder of the results.
        made_by: of `fingerprint`.
    """

    def __init__(self, out: Path, made_by: str) -> None:
        self.out, self.made_by, self.path = out, made_by, out / "finished.jsonl"

    def begin(self, names: Mapping[str, Path], resume: bool) -> dict[str, dict[str, Any]]:
        """Start a new journal; with `resume`, keep what still holds and return its rows by name.

        A photograph counts as finished if it and its results are as they were, and made by the same weights and
        settings.
        """
        kept = self.read(names) if resume else {}
        with atomic(self.path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(line)}\n" for line in kept.values())
        return {name: line["row"] for name, line in kept.items()}

    def read(self, names: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
        """The lines that still hold, by name."""
        kept = {}
        if self.path.exists():
            with self.path.open(encoding="utf-8", errors="replace") as file:
                for text in file:
                    try:
                        line = json.loads(text)
                        name, row = line["name"], line["row"]
                        if name in names and line == self.line(name, names[name], row):
                            kept[name] = line
                    except (ValueError, TypeError, KeyError, OSError):
                        continue  # cut off, of another version, or its files are gone
        return kept

    def add(self, name: str, photograph: Path, row: dict[str, Any]) -> None:
        """Note that a photograph is finished."""
        line = json.dumps(self.line(name, photograph, row), default=lambda number: number.item())  # of NumPy
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def line(self, name: str, photograph: Path, row: dict[str, Any]) -> dict[str, Any]:
        """What the journal says of a finished photograph; OSError if one of its files is missing."""
        results = [self.out / part / f"{name}.png" for part in PARTS]
        pages = [self.out / folder / f"{name}{suffix}" for _, folder, suffix in layers(labelled=False)]
        pages.append(self.out / "page" / "thumbnail" / f"{name}.jpg")
        read = photograph.stat()
        return {
            "name": name,
            "made_by": self.made_by,
            "photograph": [str(photograph.resolve()), read.st_size, read.st_mtime_ns],
            "results": [file.stat().st_size for file in (*results, *pages)],
            "row": row,
        }
