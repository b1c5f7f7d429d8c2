"""--um-per-pixel: micrometres that a pixel shows, one number or a table of file names and numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets.images import SUFFIXES
from datasets.tables import (
    file_column,
    find_row,
    is_number,
    match_rows,
    plain_name,
    read_rows,
    with_short_names,
    without_suffix,
)
from utils import UserError, path_name

LEAST, MOST = 0.1, 1000  # of a camera: an eye is 24 mm long, and its photograph has 50 pixels or more
WANTED = f"give micrometres a pixel, {LEAST} to {MOST}, or a CSV with a file name and such a number in each row"
# headings of the numbers, and those of other ones: the inverse, areas
NUMBERS = r"(\b|_)um(\b|_|p)|[µμ]m|mi[ck]ro[mn]"
A_PIXEL = r"px|pixel|umpp|^\W*(um|[µμ]m|mi[ck]ro(n|m\w+?r)\w*)\W*$"  # or the unit alone, but no width of a disc
WRONG = r"(px|pixels?).?(per|/)|1/|m²|m\W?2|\bsq|quadrat|\d.?p|_sd|std|error"


def read_um_per_pixel(given: str | None) -> dict[str, float]:
    """Read --um-per-pixel: a number, kept under the name "", or a CSV of file names and numbers.

    The CSV may be separated by commas, semicolons or tabs and have decimal commas, as spreadsheets write it.
    With more than two columns a heading says which ones count.

    Returns:
        The number by each `plain_name`, which is without a suffix where that leaves no doubt too.

    Raises:
        UserError: neither a number that a camera can have nor such a file; or a name has two numbers.
    """
    if given is None:
        return {}
    try:
        return {"": positive_number(given)}
    except ValueError:
        if is_number(given.strip()):
            raise UserError(f"--um-per-pixel {given}: of no camera; {WANTED}") from None
        path = path_name(given)
    return by_name(read_rows(path, "--um-per-pixel", WANTED), f"--um-per-pixel {given}")


def by_name(rows: Sequence[list[str]], given: str) -> dict[str, float]:
    """The number of each name in these rows; see `read_um_per_pixel`."""
    first = rows[0] if rows else []
    has_heading = not any(is_number(cell) or Path(cell).suffix.casefold() in SUFFIXES for cell in first)
    has_heading &= bool(rows)
    file, number = columns(first, has_heading, given)
    found: dict[str, float] = {}
    for line, row in enumerate(rows[has_heading:], 1 + has_heading):
        try:
            if len(row) != len(rows[0]):
                raise ValueError
            name, value = plain_name(row[file]), positive_number(row[number])
        except (IndexError, ValueError):
            text = ",".join(row)
            raise UserError(f"{given}: line {line} is {text!r:.60}; {WANTED}") from None
        if found.setdefault(name, value) != value:
            raise UserError(f"{given}: {row[file]} has two numbers, {found[name]:g} and {value:g}")
    for name, value in found.items():
        if (other := found.get(without_suffix(name), value)) != value:
            raise UserError(f"{given}: {name} has two numbers, {value:g} and {other:g}")
    if not found:
        raise UserError(f"{given}: no file names with numbers; {WANTED}")
    return with_short_names(found)


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


def um_of(path: Path, known: Mapping[str, float]) -> float | None:
    """Micrometres a pixel of a photograph, by the name of its file; None if unknown."""
    return find_row(path, known) or known.get("")


def describe_um(names: Mapping[str, Path], known: Mapping[str, float], given: str) -> str:
    """The line of `match_rows`, with its errors; empty where one number serves all, or there is none."""
    if not known or "" in known:
        return ""
    return match_rows(names, {name: name for name in known}, f"--um-per-pixel {given}", "a number")[0]
