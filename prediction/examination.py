"""A row of measures.csv: what was measured on a photograph, how sure it is, and whether to doubt it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prediction.doubts import doubts, features
from prediction.uncertainty import Views, confidence
from scoring.measures import CONFIDENCE, MEASURES, measure
from system.files import write_csv
from utils import UserError

UM = [name for name in MEASURES if name.endswith("_um")]


def examine(
    photograph: np.ndarray,
    fov: np.ndarray,
    levels: np.ndarray,
    mask: np.ndarray,
    views: Views,
    diameter: float,
    bordered: bool = True,
    um_per_pixel: float | None = None,
) -> dict[str, Any]:
    """Measure one segmented photograph and say how sure it is.

    Args:
        photograph: uint8 (H, W, 3) RGB.
        fov: field of view, uint8 (H, W), 0 or 255.
        levels: probability, uint16 (H, W).
        mask: vessels, uint8 (H, W), 0 or 255.
        views: the vessel pixels of each view, and the threshold.
        diameter: of the whole field of view, pixels.
        bordered: whether that is known, because its border shows or the user said so.
        um_per_pixel: micrometres that a pixel shows, if known.

    Returns:
        `doubtful`, the reasons to look at it first, empty if there are none; the figures of
        `uncertainty.confidence` and `measures.measure`.
    """
    row: dict[str, Any] = {"doubtful": "", **confidence(levels, mask, fov, views)}
    row |= measure(levels, fov, views.threshold, um_per_pixel, diameter)
    found = features(photograph, fov, mask) | {"bordered": float(bordered)}
    row["doubtful"] = "; ".join(doubts(found, row))
    return row


def write_measures(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write measures.csv, a row each photograph, micrometres and thresholds of their own only if known.

    Reads the rows three times.

    Raises:
        UserError: the file cannot be written.
    """
    known = any(name in row for row in rows for name in UM)
    own = ["threshold"] if any("threshold" in row for row in rows) else []
    columns = ["image", "doubtful", *own, *CONFIDENCE, *(name for name in MEASURES if known or name not in UM)]
    write_csv(path, ({name: text(row.get(name, float("nan"))) for name in columns} for row in rows))


def text(value: Any) -> Any:
    """A value as it is, but a file name without the bytes that are not text."""
    return (
        value.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if isinstance(value, str) else value
    )


def summarize(rows: Iterable[Mapping[str, Any]], total: int) -> str:
    """One line: how many photographs are doubtful, and which; empty if none is."""
    names = [f"{row['image']} ({row['doubtful']})" for row in rows if row["doubtful"]]
    if not names:
        return ""
    shown = names[:5] + ([f"and {len(names) - 5} more, see measures.csv"] if len(names) > 5 else [])
    verb = "photograph is" if total == 1 else "photographs are" if len(names) > 1 else "photographs is"
    return f"{len(names)} of {total} {verb} doubtful: {', '.join(shown)}"


def read_um_per_pixel(given: str | None) -> dict[str, float]:
    """Read --um-per-pixel: a number, kept under the name "", or a CSV of file names and numbers.

    Raises:
        UserError: neither a number above 0 nor such a file.
    """
    if given is None:
        return {}
    try:
        return {"": positive(given)}
    except ValueError:
        path = Path(given)
    wanted = "give micrometres a pixel, or a CSV with a file name and such a number in each row"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except OSError as error:
        raise UserError(f"--um-per-pixel {given}: {error.strerror}; {wanted}") from None
    except (UnicodeDecodeError, csv.Error):
        raise UserError(f"--um-per-pixel {given}: not a CSV file in UTF-8; {wanted}") from None
    found: dict[str, float] = {}
    for number, row in enumerate(rows, 1):
        try:
            found[row[0].strip()] = positive(row[1])
        except (IndexError, ValueError):
            if number > 1:  # the first may be a head line
                raise UserError(
                    f"--um-per-pixel {given}: line {number} is {','.join(row)!r:.60}; {wanted}"
                ) from None
    if not found:
        raise UserError(f"--um-per-pixel {given}: no file names with numbers; {wanted}")
    return found


def positive(given: str) -> float:
    """A number above 0; ValueError if it is none."""
    number = float(given)
    if not 0 < number < 1e6:
        raise ValueError
    return number


def um_of(path: Path, known: Mapping[str, float], result: str = "") -> float | None:
    """Micrometres a pixel of a photograph, by the name of its file or results; None if unknown.

    The file's name counts with or without suffix, as does that of the results, which has folders in it.
    """
    for name in (f"{result}{path.suffix}", result or path.name, path.name, path.stem, ""):
        if name in known:
            return known[name]
    return None
