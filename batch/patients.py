"""Whose the photographs are: the columns of --table, what names and files tell, copies, and mixed cameras."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batch.results import Rows
from datasets.duplicates import find_equal, unpack_print
from datasets.people import SIDES, person_in
from datasets.tables import Table, file_column, first_five, is_number, read_rows
from measures.table import TABLE_COLUMNS, WHOSE
from utils import UserError

WANTED_TABLE = "give a CSV with a heading, and in each row the file name of a photograph"


@dataclass
class Patients:
    """The table of the user, and what is known of each photograph beside its measures."""

    table: Table[list[str]] = field(default_factory=Table)  # the cells of the columns that are carried
    headings: list[str] = field(default_factory=list)  # of these
    copies: dict[str, str] = field(default_factory=dict)  # of which photograph another one is a copy, by name

    def tell(self, measured: Mapping[str, Any]) -> dict[str, Any]:
        """A row of measures.csv with what else is known: patient, eye, visit, the table's columns, `copy_of`.

        What the table says goes before what the file says, and that before names of files and folders.
        """
        name, photograph = measured["image"], Path(measured["photograph"])
        told = person_in(photograph, name.split("/")[:-1])._asdict()
        told |= {column: measured[column] for column in WHOSE if measured.get(column)}
        if cells := self.table.find(photograph):
            told |= {column: cell for column, cell in zip(self.headings, cells, strict=True) if cell}
            told["eye"] = SIDES.get(told["eye"].casefold(), told["eye"])
        told["copy_of"] = self.copies.get(name, "")
        known = {column: value for column, value in measured.items() if column not in WHOSE}
        return {**known, **{column: text for column, text in told.items() if text}}  # none: no column

    def join(self, rows: Rows) -> list[str]:
        """Give each row what is known of it; returns what to say of copies and cameras, a line each."""
        compared = {name: unpack_print(text) for name, text in rows.prints.items()}
        pairs = find_equal(compared, turned=False)
        for first, second in pairs:
            self.copies.setdefault(second, first)
        rows.tell = self.tell
        said = []
        if pairs:
            both = [f"{second} like {first}" for first, second in pairs]
            said.append(f"the same photograph twice, it seems (column copy_of): {first_five(both)}")
        if len(compared) < len(rows):
            said.append(f"looked for copies among the first {len(compared)} photographs only")
        return [*said, *filter(None, [describe_cameras(rows)])]


def read_patients(path: Path | None, names: Mapping[str, Path]) -> Patients:
    """Read --table: a CSV with a heading, which has a row for a photograph, and any columns.

    The column of the file names is the one whose heading says so, if a photograph is found by it, else the one
    that most are found by; `names` has them by the name of their results. A column of numbers with decimal
    commas gets decimal points.

    Raises:
        UserError: it is no such table.
    """
    if path is None:
        return Patients()
    given = f"--table {path}"
    heading, *rows = read_rows(path, "--table", WANTED_TABLE) or [[]]
    if not rows:
        raise UserError(f"{given}: no rows below a heading; {WANTED_TABLE}")
    for line, row in enumerate(rows, 2):
        if len(row) != len(heading):
            width = f"line {line} has {len(row)} cells, the heading {len(heading)}"
            raise UserError(f"{given}: {width} (a decimal comma?); {WANTED_TABLE}")
    tables = [Table(files=[row[k] for row in rows], values=rows) for k in range(len(heading))]
    found = [sum(map(bool, map(table.find, names.values()))) for table in tables]
    usual = file_column(heading)
    file = max(range(len(heading)), key=lambda k: (k == usual and found[k] > 0, found[k]))
    if re.search(r"\.\w{1,5}$", heading[file]):
        raise UserError(f"{given}: its first line is {heading[file]}, no heading; {WANTED_TABLE}")
    others = [k for k in range(len(heading)) if k != file]
    headings = [h if (h := heading[k]).casefold() not in WHOSE else h.casefold() for k in others]
    refuse_headings(given, headings)
    columns = [with_points([row[k] for row in rows]) for k in others]
    cells = [list(row) for row in zip(*columns, strict=True)] or [[] for _ in rows]
    table = Table(given, "a row", tables[file].files, cells)
    return Patients(
        table.check(lambda *two: "rows that differ, lines {} and {}".format(*(k + 2 for k in two))), headings
    )


def refuse_headings(given: str, headings: Sequence[str]) -> None:
    """Raise UserError where a column has no heading, that of another one, or that of a measure."""
    for heading, often in Counter(headings).items():
        if not heading:
            raise UserError(f"{given}: a column has no heading; {WANTED_TABLE}")
        if often > 1:
            raise UserError(f"{given}: two columns are called {heading}; rename one")
        if heading in TABLE_COLUMNS and heading not in WHOSE:
            own = f"measures.csv has a column {heading} of its own"
            raise UserError(f"{given}: {own}; rename that of the table")


def with_points(column: list[str]) -> list[str]:
    """A column of numbers with decimal points; one with other text, or perhaps thousands (1,234), as it is."""
    filled = [cell for cell in column if cell]
    with_comma = [cell for cell in filled if "," in cell]
    may_be_thousands = all(re.fullmatch(r"[+-]?\d{1,3},\d{3}", cell) for cell in with_comma)
    if may_be_thousands or not all(is_number(cell) and "." not in cell for cell in filled):
        return column
    return [cell.replace(",", ".") for cell in column]


def describe_cameras(rows: Iterable[Mapping[str, Any]]) -> str:
    """One line if the photographs are of several cameras, by EXIF, else by their sizes; else empty."""
    counts: Counter[str] = Counter()
    for row in rows:
        sides = sorted((row["photograph_width"], row["photograph_height"]), reverse=True)
        counts[row.get("camera") or "{}x{} pixels".format(*sides)] += 1
    if len(counts) < 2:
        return ""
    shown = [f"{camera} ({number})" for camera, number in counts.most_common()]
    return f"of several cameras or sizes, whose values do not compare: {first_five(shown)}"
