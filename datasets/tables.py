"""Tables of photographs as spreadsheets write them, and which row is that of a photograph."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

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
Row = TypeVar("Row")


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
        raise UserError(f"{flag} {path}: not a CSV file of text; {wanted}") from None
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
    tables = [cells(lines, mark) for mark in "\t;|"]
    below = ((table, table[first:]) for first in (0, 1) for table in tables)  # a title has no separators
    rows = next((table for table, body in below if body and all(len(row) > 1 for row in body)), None)
    rows = rows or cells(lines, ",")
    while rows and len({len(row) for row in rows}) == 1 and not any(row[-1] for row in rows):
        rows = [row[:-1] for row in rows]
    return rows


def cells(lines: Sequence[str], separator: str) -> list[list[str]]:
    """The cells of each row, at this separator."""
    table = csv.reader(io.StringIO("\n".join(lines)), delimiter=separator)
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


def with_short_names(rows: Mapping[str, Row]) -> dict[str, Row]:
    """Add each `plain_name` without its suffix, where that leaves no doubt."""
    short: dict[str, list[Row]] = {}
    for name, row in rows.items():
        short.setdefault(without_suffix(name), []).append(row)
    return {name: own[0] for name, own in short.items() if all(row == own[0] for row in own)} | dict(rows)


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


def find_row(photograph: Path, rows: Mapping[str, Row]) -> Row | None:
    """The row of a photograph, by the fullest of the names that it is `called`; None if it has none."""
    return next((rows[name] for name in called(photograph) if name in rows), None)


def match_rows(
    names: Mapping[str, Path], rows: Mapping[str, Row], given: str, what: str
) -> tuple[str, dict[Row, Path]]:
    """Find the row of each photograph.

    Args:
        names: the photographs by the name of their results.
        rows: what tells a row from others, by each `plain_name`.
        given: the flag and its file, and `what` a row gives: for messages.

    Returns:
        One line, how many photographs have a row and which have none; and whose each row is.

    Raises:
        UserError: none has one, or a row is that of several.
    """
    owners: dict[Row, Path] = {}
    without = []
    for path in names.values():
        if (name := next(filter(rows.__contains__, called(path)), None)) is None:
            without.append(str(path))
        elif (other := owners.setdefault(rows[name], path)) != path:
            both = f"{name} could be {other} and {path}"
            raise UserError(f"{given}: {both}; give the folders, or the suffixes, with the names")
    if len(without) == len(names):
        raise UserError(f"{given}: none of the photographs is in it, such as {without[0]}")
    said = f"{given}: {len(names) - len(without)} of {len(names)} photographs have {what}"
    return f"{said}; without one: {first_five(without)}" if without else said, owners


def first_five(names: Collection[str]) -> str:
    """The first five names, and how many more there are."""
    shown = list(names)[:5]
    return ", ".join([*shown, *([f"and {len(names) - 5} more"] if len(names) > 5 else [])])
