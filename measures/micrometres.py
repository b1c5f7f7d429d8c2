"""--um-per-pixel: micrometres that a pixel shows, one number or a table of file names and numbers."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

from utils import UserError, path_name

WANTED = "give micrometres a pixel, or a CSV with a file name and such a number in each row"
# headings of the numbers, those that are no micrometres a pixel, and those of file names, best first
NUMBERS = r"\bum|_um|[µμ]m|micro|mikro|scale|resolution|spacing|pixel.?size"
WRONG = r"\bmm|_mm|(px|pixels?).?(per|/)"
NAMES = (r"^photograph", r"file", r"^image", r"name|bild|datei|photo|picture|path")


def read_um_per_pixel(given: str | None) -> dict[str, float]:
    """Read --um-per-pixel: a number, kept under the name "", or a CSV of file names and numbers.

    The CSV may be separated by commas, semicolons or tabs and have decimal commas, as spreadsheets write it.
    With more than two columns a heading says which ones count.

    Returns:
        The number by each `plain_name`, which is without a suffix where that leaves no doubt too.

    Raises:
        UserError: neither a number above 0 nor such a file; or a name has two numbers.
    """
    if given is None:
        return {}
    try:
        return {"": positive_number(given)}
    except ValueError:
        path = path_name(given)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"--um-per-pixel {given}: {error.strerror}; {WANTED}") from None
    try:
        return by_name(rows_of(content), given)
    except (UnicodeDecodeError, csv.Error):
        raise UserError(f"--um-per-pixel {given}: not a CSV file of text; {WANTED}") from None


def rows_of(content: bytes) -> list[list[str]]:
    """The rows of a CSV as a spreadsheet writes it, without empty ones and empty last columns."""
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = content.decode("utf-16") if wide else str(content, encoding="utf-8-sig")
    except UnicodeDecodeError:
        if b"\0" in content:
            raise
        text = content.decode("cp1252")
    lines = [line for line in text.splitlines() if line.strip(" ,;\t")]
    if lines and lines[0].startswith("sep="):  # as Excel reads it
        lines = lines[1:]
    separator = next((mark for mark in "\t;" if all(mark in line for line in lines)), ",")
    table = csv.reader(io.StringIO("\n".join(lines)), delimiter=separator)
    rows = [[cell.strip() for cell in row] for row in table]
    while rows and len({len(row) for row in rows}) == 1 and not any(row[-1] for row in rows):
        rows = [row[:-1] for row in rows]
    return rows


def by_name(rows: Sequence[list[str]], given: str) -> dict[str, float]:
    """The number of each name in these rows; see `read_um_per_pixel`."""
    heading = rows[0] if rows and not any(is_number(cell) for cell in rows[0]) else None
    file, number = columns(heading, rows, given)
    found: dict[str, float] = {}
    short: dict[str, set[float]] = {}
    for line, row in enumerate(rows[heading is not None :], 1 + (heading is not None)):
        try:
            if len(row) != len(rows[0]):
                raise ValueError
            name, value = plain_name(row[file]), positive_number(row[number])
        except (IndexError, ValueError):
            text = ",".join(row)
            raise UserError(f"--um-per-pixel {given}: line {line} is {text!r:.60}; {WANTED}") from None
        if found.setdefault(name, value) != value:
            raise UserError(
                f"--um-per-pixel {given}: {row[file]} has two numbers, {found[name]:g} and {value:g}"
            )
        short.setdefault(re.sub(r"\.\w{1,5}$", "", name), set()).add(value)
    if not found:
        raise UserError(f"--um-per-pixel {given}: no file names with numbers; {WANTED}")
    return {name: values.pop() for name, values in short.items() if len(values) == 1} | found


def columns(heading: Sequence[str] | None, rows: Sequence[list[str]], given: str) -> tuple[int, int]:
    """Which columns have the file name and the number."""
    width = len(rows[0]) if rows else 0
    if heading is None:
        if width != 2:
            heading_needed = "below a line that calls them file and um_per_pixel"
            columns_found = f"{width} columns without a heading (a decimal comma?)"
            raise UserError(f"--um-per-pixel {given}: {columns_found}; {WANTED}, {heading_needed}")
        return 0, 1
    low = [name.casefold() for name in heading]
    numbers = [k for k, name in enumerate(low) if re.search(NUMBERS, name) and not re.search(WRONG, name)]
    files = next((k for names in NAMES for k, name in enumerate(low) if re.search(names, name)), 0)
    if not numbers and width == 2 and not re.search(WRONG, low[1 - files]):
        numbers = [1 - files]
    if len(numbers) != 1 or numbers[0] == files:
        there = f"which column, of {', '.join(heading)}? Call it um_per_pixel"
        raise UserError(f"--um-per-pixel {given}: {there}; {WANTED}")
    return files, numbers[0]


def positive_number(text: str) -> float:
    """A number above 0, with a decimal point or comma; ValueError if it is none."""
    number = float(text.replace(",", ".") if "." not in text else text)
    if not 0 < number < 1e6:
        raise ValueError
    return number


def is_number(text: str) -> bool:
    """Whether this is a number, with a decimal point or comma."""
    return bool(re.fullmatch(r"[+-]?\d*[.,]?\d+([eE][+-]?\d+)?", text))


def plain_name(name: str) -> str:
    """A file name or path as all systems write it: composed characters, no capitals, slashes."""
    return normalize("NFC", name.strip()).casefold().replace("\\", "/").removeprefix("./")


def um_of(path: Path, known: Mapping[str, float], result: str = "") -> float | None:
    """Micrometres a pixel of a photograph, by the name of its file or results; None if unknown.

    The file's name counts with or without suffix and with any of its folders, as does that of the results.
    """
    parts = path.parts
    names = [f"{result}{path.suffix}", result, *("/".join(parts[k:]) for k in range(len(parts)))]
    for name in [plain_name(each) for each in names]:
        for own in (name, name.removesuffix(path.suffix.casefold())):
            if own and own in known:
                return known[own]
    return known.get("")


def describe_um(names: Mapping[str, Path], known: Mapping[str, float], given: str) -> str:
    """One line: how many photographs have a number, and which have none; empty where one number serves all.

    Raises:
        UserError: none has one.
    """
    if not known or "" in known:
        return ""
    without = [str(path) for name, path in names.items() if um_of(path, known, name) is None]
    if len(without) == len(names):
        raise UserError(f"--um-per-pixel {given}: none of the photographs is in it, such as {without[0]}")
    said = f"--um-per-pixel {given}: {len(names) - len(without)} of {len(names)} photographs have a number"
    shown = without[:5] + ([f"and {len(without) - 5} more"] if len(without) > 5 else [])
    return f"{said}; none: {', '.join(shown)}" if without else said
