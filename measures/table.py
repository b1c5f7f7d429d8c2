"""The rows of measures.csv: what was measured on a photograph, how sure it is, and whether to doubt it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from anatomy.landmarks import PLACES, Landmarks
from datasets.eyes import Eye
from datasets.kinds import NONE
from measures.arteries_veins import KIND_MEASURES, REASONS, ArteriesVeins, measure_kinds
from measures.vessels import CONFIDENCE, MEASURES, as_levels, measure, prepare
from measures.zones import DISC_UM
from system.files import write_csv

MOST_LISTED = 20  # doubtful photographs that the terminal names
ANATOMY = (*PLACES, "side", "scale_from", "um_per_pixel", "um_per_pixel_from")
# what a table of the user may say too
WHOSE = ("patient", "eye", "visit", "camera")
TABLE_COLUMNS: tuple[str, ...] = ("image", "photograph", *WHOSE, "copy_of", "by", "doubtful", "threshold")
TABLE_COLUMNS += ("photograph_width", "photograph_height", *ANATOMY, *CONFIDENCE, *MEASURES)
TABLE_COLUMNS += (*KIND_MEASURES, *REASONS, "made_by")


def anatomy_columns(landmarks: Landmarks, um_per_pixel: float | None) -> dict[str, Any]:
    """Disc, fovea, side of the eye, and micrometres that a pixel shows.

    Positions and diameter are in pixels of the photograph, NaN where not found. Without the user's
    `um_per_pixel` it is an estimate from the disc, and `um_per_pixel_from` says so.
    """
    estimate = DISC_UM / landmarks.disc_diameter
    return {
        **{name: getattr(landmarks, name) for name in PLACES},
        "side": landmarks.side,
        "um_per_pixel": um_per_pixel or estimate,
        "um_per_pixel_from": "given" if um_per_pixel else "disc, an estimate" if estimate > 0 else "",
    }


def examine_eye(
    eye: Eye,
    prediction: Mapping[str, Any],
    landmarks: Landmarks | None = None,
    kinds: ArteriesVeins | None = None,
) -> list[dict[str, Any]]:
    """What was measured on the `prediction` of one eye of new_data, and beside it what each observer drew.

    `kinds` are the measures of its arteries and veins, if they are told apart around the disc of `landmarks`.

    Returns:
        Rows with `image`, `by` (`prediction`, `first_observer`, `second_observer`) and the measures; that of
        the prediction first. With `kinds` another by `arteries_veins`: those of the labels, around the same
        disc.
    """
    rows = [{"image": eye.result_name, "by": "prediction", **prediction}]
    for name, drawn in (("first_observer", eye.mask), ("second_observer", eye.second)):
        if drawn is not None:
            vessels = prepare(as_levels(drawn & eye.fov), eye.fov, 0.5)
            rows.append({"image": eye.result_name, "by": name, **measure(vessels)})
    if landmarks and kinds:
        rows[0] |= kinds.row
        if eye.kinds is not None:
            truth = as_levels((eye.kinds != NONE) & (eye.fov > 0))
            drawn_kinds = measure_kinds(truth, eye.kinds, eye.fov, 0.5, landmarks)
            rows.append({"image": eye.result_name, "by": "arteries_veins", **drawn_kinds.row})
    return rows


def write_measures(path: Path, rows: Iterable[Mapping[str, Any]], more: Sequence[str] = ()) -> None:
    """Write measures.csv with the columns of `TABLE_COLUMNS`, and of the user's table, that any row has.

    Reads the rows twice.

    Raises:
        UserError: the file cannot be written.
    """
    present = {name for row in rows for name in row}
    every = dict.fromkeys((*TABLE_COLUMNS[: 2 + len(WHOSE)], *more, *TABLE_COLUMNS))
    columns = [name for name in every if name in present]
    empty = dict.fromkeys(columns, float("nan")) | {"side": "", "scale_from": "", "um_per_pixel_from": ""}
    empty |= dict.fromkeys(REASONS, "")
    write_csv(path, ({name: (empty | dict(row))[name] for name in columns} for row in rows))


def write_all_measures(path: Path, rows: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Write the rows of `examine_eye` of several eyes as a CSV; returns those of the predictions.

    Raises:
        UserError: the file cannot be written.
    """
    every = list(rows)
    write_measures(path, [row for eye in every for row in eye])
    return [eye[0] for eye in every]


def list_doubtful(rows: Iterable[Mapping[str, Any]], total: int) -> str:
    """How many photographs are doubtful, and which, a line each; empty if none is."""
    names = [f"{row['image']}: {row['doubtful']}" for row in rows if row["doubtful"]]
    if not names:
        return ""
    shown = names[:MOST_LISTED]
    shown += [f"and {len(names) - MOST_LISTED} more, see measures.csv"] if len(names) > MOST_LISTED else []
    verb = "photograph is" if total == 1 else "photographs are" if len(names) > 1 else "photographs is"
    return "\n  ".join([f"{len(names)} of {total} {verb} doubtful:", *shown])
