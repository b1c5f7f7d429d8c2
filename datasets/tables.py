"""Tables of photographs as spreadsheets write them, and which row is that of a photograph."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Generic, TypeVar

from datasets.decoding import OTHER_KINDS
from datasets.images import SUFFIXES
from datasets.pairing import plain
from utils import UserError, explain

# headings, best first
NAMES = (r"^photograph(?!er|ic)", r"(?<!pro)file", r"^image", r"name|bild|datei|photo(?!graphe)|picture|path")
WIDE = {  # encodings by their mark; that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
NUMBER = re.compile(r"[+-]?\d*[.,]?\d+([eE][+-]?\d+)?")  # with a decimal point or comma
Value = TypeVar("Value")


@dataclass(frozen=True)
class Table(Generic[Value]):
    """What a table of the user says of photographs: a value in each row, whatever that is."""

    given: str = ""  # the flag and its file, for messages
    what: str = "a row"  # that a photograph gets, for messages
    files: Sequence[str] = ()  # the file name in each row, as the table has it
    values: Sequence[Value] = ()
    default: Value | None = None  # of photographs without a row

    @cached_property
    def row_of(self) -> dict[str, int]:
        """The first row of each `plain_name`, and of each without its suffix, where that leaves no doubt."""
        rows: dict[str, int] = {}
        short: dict[str, list[int]] = {}
        for row, name in enumerate(map(plain_name, self.files)):
            if name and rows.setdefault(name, row) == row:
                short.setdefault(without_suffix(name), []).append(row)
        values = {name: [self.values[row] for row in own] for name, own in short.items()}
        clear = {name: own[0] for name, own in short.items() if values[name].count(values[name][0]) == len(own)}
        return clear | rows

    def check(self, describe: Callable[[int, int], str]) -> Table[Value]:
        """The table itself; UserError with what `describe` says of two rows if both are those of one name."""
        for row, file in enumerate(self.files):
            name = plain_name(file)
            for other in (self.row_of.get(own, row) for own in (name, without_suffix(name))):
                if self.values[row] != self.values[other]:
                    raise UserError(f"{self.given}: {file} has two {describe(*sorted((row, other)))}")
        return self

    def name_in(self, photograph: Path) -> str | None:
        """The fullest of the names that a photograph is `called` that has a row; None if none has."""
        return next(filter(self.row_of.__contains__, called(photograph)), None)

    def find(self, photograph: Path) -> Value | None:
        """The value of a photograph; None if it has none."""
        name = self.name_in(photograph)
        return self.default if name is None else self.values[self.row_of[name]]

    def match(self, photographs: Collection[Path]) -> str:
        """Say how many photographs have a row, and what could not be matched; empty without a table.

        Raises:
            UserError: none has one, or a row is that of several.
        """
        if not self.files:
            return ""
        owners: dict[int, Path] = {}
        without = []
        for path in photographs:
            if (name := self.name_in(path)) is None:
                without.append(str(path))
            elif (other := owners.setdefault(self.row_of[name], path)) != path:
                both = f"{name} could be {other} and {path}"
                raise UserError(f"{self.given}: {both}; give the folders, or the suffixes, with the names")
        if not owners:
            raise UserError(f"{self.given}: none of the photographs is in it, such as {without[0]}")
        unused = [file for file in self.files if file and self.row_of.get(plain_name(file)) not in owners]
        of_all = f"{len(photographs) - len(without)} of {len(photographs)} photographs"
        said = f"{self.given}: {of_all} have {self.what}"
        said += f"; without one: {first_five(without)}" if without else ""
        return said + (f"; rows of no photograph: {first_five(unused)}" if unused else "")


def read_rows(path: Path, flag: str, wanted: str) -> list[list[str]]:
    """The rows of a CSV as a spreadsheet writes it, without empty ones and empty last columns.

    Separated by commas, semicolons, tabs or bars, in UTF-8, UTF-16, UTF-32 or Windows-1252. The message has the
    `flag` that names it, and what is `wanted`.

    Raises:
        UserError: it cannot be read, is no text, or has a title above the heading.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(explain(error, f"{flag} {path}", otherwise=wanted)) from None
    try:
        rows = rows_of(content)
    except (UnicodeDecodeError, csv.Error):
        raise UserError(f"{flag} {path}: not a CSV file of text, or a quote is not closed; {wanted}") from None
    title, heading = (list(filter(None, row)) for row in (rows + [[], []])[:2])
    if len(title) == 1 < len(heading) and not any(map(NUMBER.fullmatch, heading)):  # no photograph's row
        raise UserError(f"{flag} {path}: begins with {title[0]!r:.60}, a title above the table; remove it")
    return rows


def rows_of(content: bytes) -> list[list[str]]:
    """See `read_rows`; raises UnicodeDecodeError or csv.Error."""
    wide = next((code for mark, code in WIDE.items() if content.startswith(mark)), "")
    if b"\0" in content and not wide:  # UTF-16 without its mark would be read as UTF-8 with these in it
        raise csv.Error
    try:
        text = content.decode(wide) if wide else str(content, encoding="utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252")
    lines = [line for line in text.splitlines() if line.strip(" ,;|\t")]
    if lines and lines[0].startswith("sep="):  # as Excel reads it
        lines = lines[1:]
    # not by lines: a cell in quotes may have several
    tables = []
    for mark in "\t;|":
        with contextlib.suppress(csv.Error):  # quotes that are right with commas alone
            tables.append(cells(lines, mark))
    below = ((table, table[first:]) for first in (0, 1) for table in tables)  # a title has no separators
    rows = next((table for table, body in below if body and all(len(row) > 1 for row in body)), None)
    rows = rows or cells(lines, ",")
    while rows and len({len(row) for row in rows}) == 1 and not any(row[-1] for row in rows):
        rows = [row[:-1] for row in rows]
    return rows


def cells(lines: Sequence[str], separator: str) -> list[list[str]]:
    """The cells of each row, at this separator; csv.Error for a quote that is not closed."""
    table = csv.reader(io.StringIO("\n".join(lines)), delimiter=separator, strict=True)
    return [[cell.strip() for cell in row] for row in table]


def file_column(heading: Sequence[str]) -> int:
    """Which column has the file names; the first if no heading says so."""
    low = [name.casefold() for name in heading]
    return next((k for names in NAMES for k, name in enumerate(low) if re.search(names, name)), 0)


def is_number(text: str) -> bool:
    """Whether this is a number, with a decimal point or comma."""
    return bool(NUMBER.fullmatch(text))


def plain_name(name: str) -> str:
    """A file name or path as all systems write it: composed characters, no capitals, slashes."""
    return plain(name.strip()).replace("\\", "/").removeprefix("./")


def without_suffix(name: str) -> str:
    """A `plain_name` without its suffix, and without that of gzip. P1.2 has none: it is not called P1."""
    name = name.removesuffix(".gz")
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix in SUFFIXES | OTHER_KINDS.keys() else name


def called(path: Path) -> Iterator[str]:
    """Yield each `plain_name` that a table may have for a photograph, the fullest first.

    The file's name counts with or without suffix and with any of its folders. That of its results does not:
    eye_2 may be the photograph eye of another folder, and the table's eye_2 another eye.
    """
    for k in range(len(path.parts)):
        own = plain_name("/".join(path.parts[k:]))
        yield from (own, without_suffix(own))


def first_five(names: Collection[str]) -> str:
    """The first five names, and how many more there are."""
    shown = list(names)[:5]
    return ", ".join([*shown, *([f"and {len(names) - 5} more"] if len(names) > 5 else [])])
