"""--um-per-pixel: micrometres that a pixel shows, one number or a table of file names and numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from datasets.images import SUFFIXES
from datasets.tables import Table, file_column, is_number, read_rows
from utils import UserError, path_name

UM_FLAG = "--um-per-pixel"
LEAST, MOST = 0.1, 1000  # of a camera: an eye is 24 mm long, and its photograph has 50 pixels or more
WANTED = f"give micrometres a pixel, {LEAST} to {MOST}, or a CSV with a file name and such a number in each row"
# headings of the numbers, and those of other ones: the inverse, areas
NUMBERS = r"(\b|_)um(\b|_|p)|[µμ]m|mi[ck]ro[mn]"
A_PIXEL = r"px|pixel|umpp|^\W*(um|[µμ]m|mi[ck]ro(n|m\w+?r)\w*)\W*$"  # or the unit alone, but no width of a disc
WRONG = r"(px|pixels?).?(per|/)|1/|m²|m\W?2|\bsq|quadrat|\d.?p|_sd|std|error"


def read_um_per_pixel(given: str | None) -> Table[float]:
    """Read --um-per-pixel: a number for all photographs, or a CSV of file names and numbers, see `read_rows`.

    With more than two columns a heading says which ones count.

    Raises:
        UserError: neither a number that a camera can have nor such a file; or a name has two numbers.
    """
    if given is None:
        return Table()
    try:
        return Table(default=positive_number(given))
    except ValueError:
        if is_number(given.strip()):
            raise UserError(f"{UM_FLAG} {given}: of no camera; {WANTED}") from None
        path = path_name(given)
    rows = read_rows(path, UM_FLAG, WANTED)
    first, given = rows[0] if rows else [], f"{UM_FLAG} {path}"
    has_heading = bool(rows) and not any(
        is_number(cell) or Path(cell).suffix.casefold() in SUFFIXES for cell in first
    )
    file, number = columns(first, has_heading, given)
    files, values = [], []
    for line, row in enumerate(rows[has_heading:], 1 + has_heading):
        try:
            if len(row) != len(first):
                raise ValueError
            files.append(row[file])
            values.append(positive_number(row[number]))
        except ValueError:
            text = ",".join(row)
            raise UserError(f"{given}: line {line} is {text!r:.60}; {WANTED}") from None
    if not any(files):
        raise UserError(f"{given}: no file names with numbers; {WANTED}")
    return Table(given, "a number", files, values).check(
        lambda one, other: f"numbers, {values[one]:g} and {values[other]:g}"
    )


def columns(first: Sequence[str], has_heading: bool, given: str) -> tuple[int, int]:
    """Which columns have the file name and the number, by the first line of a table."""
    if not has_heading:
        if len(first) != 2:
            heading_needed = "below a line that calls them file and um_per_pixel"
            columns_found = f"{len(first)} columns without a heading (a decimal comma?)"
            raise UserError(f"{given}: {columns_found}; {WANTED}, {heading_needed}")
        return 0, 1
    low = [name.casefold() for name in first]
    numbers = [k for k, name in enumerate(low) if re.search(NUMBERS, name) and not re.search(WRONG, name)]
    files = file_column(first)
    if len(numbers) != 1 or numbers[0] == files or not re.search(A_PIXEL, low[numbers[0]]):
        there = f"which column, of {', '.join(first)}? Call it um_per_pixel"
        raise UserError(f"{given}: {there}; {WANTED}")
    return files, numbers[0]


def positive_number(text: str) -> float:
    """A number that a camera can have, with a decimal point or comma; ValueError if it is none."""
    number = float(text.replace(",", "."))
    if not is_number(text.strip()) or not LEAST <= number <= MOST:  # float takes 7_5 for 75
        raise ValueError
    return number
