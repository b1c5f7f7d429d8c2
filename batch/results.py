"""The results of many photographs in one folder: whose they are, which are finished, the rows of the tables."""

from __future__ import annotations

import contextlib
import glob
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from batch.manifest import program
from datasets.decoding import decode
from datasets.images import is_readable, refuse_among_images
from datasets.tables import Table
from pages.results import MANIFEST, MEASURES_TABLE, PAGE, WITHOUT_LABELS, result_file
from system.files import UNFINISHED, atomic, claim
from system.records import (
    Record,
    check_record,
    is_unchanged,
    read_record,
    refuse_loss,
    sha256,
    strangers,
    write_record,
)

SCRIPT, FLAG = "predict.py", "--out"
RECORDS = "records"  # folder of NAME.json, one for each photograph, written last
TABLES = (PAGE, MEASURES_TABLE, MANIFEST)
WEIGHTS_FLAGS = ("weights", "arteries_veins_weights")
MOST_COMPARED = 10_000  # photographs that are compared with each other: half a minute on one core


def describe_maker(made_by: Mapping[str, Any]) -> str:
    """What made the results of a photograph, for the tables, in a few words."""
    commit, mark, changes = (made_by["program"]["commit"] or "").partition("+")
    version = " ".join(filter(None, [made_by["program"]["version"], f"{commit[:7]}{mark}{changes}"]))
    used = [" and ".join(f"{n} {d[:8]}" for n, d in made_by[what]) for what in WEIGHTS_FLAGS if made_by[what]]
    flags = f"threshold {made_by['threshold']:.4f}", f"views {made_by['views']}"
    return ", ".join([version, *used, *flags])


class Rows:
    """Rows of measures.csv in a file, one JSON object a line: memory does not grow with their number."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = self.finished = 0  # of all, and of those that this run was asked for and has
        self.prints: dict[str, str] = {}  # packed fingerprints of the first MOST_COMPARED, by name
        self.tell: Callable[[dict[str, Any]], dict[str, Any]] = dict  # adds what else is known to a row

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self.tell, self.measured())

    def measured(self) -> Iterator[dict[str, Any]]:
        """Yield the rows without what `tell` adds."""
        with self.path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)

    def __len__(self) -> int:
        return self.number


class ResultsFolder:
    """A folder of results by this program, these weights and these flags.

    Beside each photograph's results lies a record of what made them and of their files, written last. They are
    finished if all of that still holds. Several processes may write into the folder, each its own photographs.

    `um_per_pixel` is that of `read_um_per_pixel`, `kinds` the checkpoint that tells arteries from veins;
    the flags are those that decide the results: `threshold`, `views` and others.
    """

    def __init__(
        self,
        out: Path,
        weights: Sequence[Path],
        um_per_pixel: Table[float],
        kinds: Path | None = None,
        **flags: Any,
    ) -> None:
        self.out, self.um_per_pixel = out, um_per_pixel
        used = zip(WEIGHTS_FLAGS, (weights, [kinds] if kinds else []), strict=True)
        self.weights = {what: {path: sha256(path) for path in paths} for what, paths in used}
        named = {what: [[p.name, d] for p, d in files.items()] for what, files in self.weights.items()}
        # as it comes back from JSON, to be compared
        self.made_by = json.loads(json.dumps({"program": program(), **named, **flags}))

    def record_path(self, name: str) -> Path:
        """The file of a photograph's record, by the name of its results."""
        return self.out / RECORDS / f"{name}.json"

    def read(self, name: str) -> Record:
        """The record of a photograph; an empty one if there is none that can be read."""
        record = read_record(self.record_path(name))
        complete = not record.is_whole or {"made_by", "photograph", "row"} <= record.more.keys()
        return record if record.script == SCRIPT and complete else Record()

    def maker_of(self, photograph: Path) -> dict[str, Any]:
        """What makes the results of a photograph in this run."""
        return {**self.made_by, "um_per_pixel": self.um_per_pixel.find(photograph)}

    @contextlib.contextmanager
    def claimed(self, names: Mapping[str, Path], resume: bool) -> Iterator[set[str]]:
        """Hold the folder for the results of these photographs, by the name of their results.

        Yields the names of those that are finished and, with `resume`, not done again. Results of other
        photographs stay, and so do those of these until they are replaced.

        Raises:
            UserError: a file would be lost that this script did not write, or that was changed since; or the
                folder is being written, or another script's.
        """
        places = {glob.escape(Path(name).parent.as_posix()) for name in names}
        parts = [f"{folder}/{place}" for folder in (*WITHOUT_LABELS, RECORDS) for place in places]
        with claim(self.out, *parts):
            refuse_among_images(FLAG, self.out)
            users = strangers(self.out, TABLES, check_record(SCRIPT, FLAG, self.out))
            finished, moved, before = set(), [], 0
            for name, photograph in names.items():
                record = self.read(name)
                before += record.is_whole
                if resume and self.is_finished(name, photograph, record):
                    finished.add(name)
                    if record.more["row"]["photograph"] != str(photograph):
                        moved.append((name, photograph, record))
                elif not record.script and self.record_path(name).exists():
                    users.append(self.record_path(name))  # unreadable: it may say that all the rest is ours
                else:
                    changed = strangers(self.out, result_files(name), record)
                    # what cannot be read any more was damaged by the disk, not changed by the user
                    users += [p for p in changed if not (resume and record.script) or is_readable(p, decode)]
            refuse_loss(SCRIPT, FLAG, self.out, users)
            for name, photograph, record in moved:  # so that tables of the user find its row where it is now
                row = {**record.more["row"], "photograph": str(photograph)}
                self.finish(name, photograph, record.more["photograph"][1], row, record.files)
            if again := before - len(finished):
                print(f"{self.out}: replaces the results of {again} photographs that were segmented before")
            write_record(self.out, SCRIPT, TABLES, written=False)
            yield finished

    def record_tables(self) -> None:
        """Note that the tables and the page are written."""
        write_record(self.out, SCRIPT, TABLES)

    def is_finished(self, name: str, photograph: Path, record: Record) -> bool:
        """Whether a photograph and its results are as they were, and made by what this run would use."""
        return (
            record.is_whole
            and record.more["made_by"] == self.maker_of(photograph)
            and is_same_photograph(photograph, record)
            and is_unchanged(photograph, record.more["photograph"][1])
            and all(is_unchanged(self.out / file, before) for file, before in record.files.items())
        )

    def begin(self, name: str) -> None:
        """Note that the results of a photograph are about to be written; from any thread."""
        write_record(self.out, SCRIPT, result_files(name), self.record_path(name), written=False)

    def finish(
        self,
        name: str,
        photograph: Path,
        before: Sequence[Any],
        row: Mapping[str, Any],
        known: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the record of a photograph, whose results are whole; from any thread.

        `before` is its `state` before it was read: of what has changed since, these are not the results.
        `known` are the states of results that are unchanged.
        """
        made_by, place = self.maker_of(photograph), str(place_of(photograph))
        more = {"made_by": made_by, "photograph": [place, before], "row": row}
        write_record(self.out, SCRIPT, result_files(name), self.record_path(name), more=more, known=known)

    def holds_another(self, name: str, photograph: Path) -> bool:
        """Whether the results of this name are those of another photograph."""
        record = self.read(name)
        return record.is_whole and not is_same_photograph(photograph, record)

    @contextlib.contextmanager
    def rows(self, names: Mapping[str, Path]) -> Iterator[Rows]:
        """The rows of all photographs that have results here: first these, in their order, then others.

        A column `made_by` says what made each.
        """
        rows = Rows(self.out / f"{UNFINISHED}rows")
        try:
            with atomic(rows.path) as temporary, temporary.open("w", encoding="utf-8") as file:
                for name in (*names, *self.others(names)):
                    record = self.read(name)
                    if not record.is_whole or not all((self.out / f).is_file() for f in record.files):
                        continue
                    row = {**record.more["row"], "made_by": describe_maker(record.more["made_by"])}
                    fingerprint = row.pop("fingerprint")
                    if rows.number < MOST_COMPARED:
                        rows.prints[name] = fingerprint
                    file.write(f"{json.dumps(row)}\n")
                    rows.number += 1
                    rows.finished += name in names and self.is_finished(name, names[name], record)
            yield rows
        finally:
            rows.path.unlink(missing_ok=True)

    def others(self, names: Mapping[str, Path]) -> Iterator[str]:
        """Names of photographs of earlier runs."""
        top = self.out / RECORDS
        for folder, inside, files in os.walk(top):
            inside.sort()
            for file in sorted(files):
                name = (Path(folder) / file).relative_to(top).as_posix().removesuffix(".json")
                if file.endswith(".json") and not file.startswith(UNFINISHED) and name not in names:
                    yield name


def result_files(name: str) -> list[str]:
    """All files of a photograph by their path in the results."""
    return [result_file(folder, name) for folder in WITHOUT_LABELS]


def place_of(photograph: Path) -> Path:
    """The place of a photograph: two links to one file have two, two ways to one name lead to one."""
    return photograph.parent.resolve() / photograph.name


def is_same_photograph(photograph: Path, record: Record) -> bool:
    """Whether a record is of this photograph: by its place, or if nothing is there now by its content."""
    place, before = record.more["photograph"]
    return place == str(place_of(photograph)) or (
        not os.path.lexists(place) and is_unchanged(photograph, before)
    )
