"""finished.jsonl: a line for each photograph whose results are whole, for `--resume` after a kill."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from batch.manifest import program_version, sha256
from batch.photographs import PARTS
from pages.report import layers
from system.files import atomic


def fingerprint(weights: Sequence[Path], **settings: Any) -> str:
    """A value that differs where the weights, the settings or the program would give other results."""
    made_by = [program_version(), [sha256(path) for path in weights], settings]
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()


class Journal:
    """The photographs that are finished, one JSON object a line, and their rows of the table.

    A kill can cut off the last line, which then does not count. Each of several processes writes a file of its
    own; rank 0 brings them together at the start and at the end.

    Iterating reads the rows from the file, so that memory does not grow with their number.

    Args:
        out: the folder of the results.
        made_by: of `fingerprint`.
        rank: of this process.
    """

    def __init__(self, out: Path, made_by: str, rank: int = 0) -> None:
        self.out, self.made_by, self.path = out, made_by, out / "finished.jsonl"
        self.own = out / f"finished-{rank}.jsonl" if rank else self.path
        self.turn = threading.Lock()
        self.finished: set[str] = set()  # names that stand in `path`

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with self.path.open(encoding="utf-8") as file:
            for text in file:
                yield json.loads(text)["row"]

    def __len__(self) -> int:
        return len(self.finished)

    def parts(self) -> list[Path]:
        """The files of the other processes, also of an earlier run."""
        return sorted(self.out.glob("finished-*.jsonl"))

    def begin(self, names: Mapping[str, Path], resume: bool) -> None:
        """Start a new journal; with `resume`, keep what still holds.

        A photograph counts as finished if it and its results are as they were, and made by the same weights and
        settings.
        """
        self.gather(names if resume else {}, self.holds)

    def end(self, names: Mapping[str, Path], keep: bool = False) -> None:
        """Bring the lines of all processes into one file, in the order of the names.

        With `keep`, those of the other processes stay: after a stop they may still be writing to them.
        """
        self.gather(names, lambda name, line, photograph: line["made_by"] == self.made_by, keep)

    def gather(
        self, names: Mapping[str, Path], counts: Callable[[str, dict[str, Any], Path], bool], keep: bool = False
    ) -> None:
        """Write a file of the lines that count, in the order of the names; remove the others unless `keep`."""
        places: dict[str, tuple[IO[bytes], int]] = {}
        with contextlib.ExitStack() as stack:
            for path in [self.path, *self.parts()]:
                if not path.exists():
                    continue
                file: IO[bytes] = stack.enter_context(path.open("rb"))
                place = 0
                for text in file:
                    with contextlib.suppress(ValueError, TypeError, KeyError, OSError):
                        # not one that is cut off, of another version, or whose files are gone
                        line = json.loads(text)
                        if (name := line["name"]) in names and counts(name, line, names[name]):
                            places[name] = file, place
                    place += len(text)
            with atomic(self.path) as temporary, temporary.open("wb") as whole:
                for name in names:
                    if name in places:
                        file, place = places[name]
                        file.seek(place)
                        whole.write(file.readline())
        for path in () if keep else self.parts():
            path.unlink()
        self.finished = set(places)

    def holds(self, name: str, line: dict[str, Any], photograph: Path) -> bool:
        """Whether a line of an earlier run still holds."""
        return line == self.line(name, photograph, line["row"])

    def add(self, name: str, photograph: Path, row: dict[str, Any]) -> None:
        """Note that a photograph is finished; from any thread."""
        line = json.dumps(self.line(name, photograph, row), default=lambda number: number.item())  # of NumPy
        with self.turn, self.own.open("a", encoding="utf-8") as file:
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
