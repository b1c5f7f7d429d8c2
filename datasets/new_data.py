"""The folder new_data: what augment.py may replace in it, and how it replaces that as a whole."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from datasets.images import refuse_among_images
from datasets.layouts import DataSet
from system.records import RECORD, check_record, read_record, refuse_loss, users_files, write_record
from utils import NotWritten, UserError, explain

# what augment.py writes; everything else in the folder is left alone
REPLACED = ("dataset.json", "train", "test")


@contextlib.contextmanager
def scratch(out: Path, prefix: str) -> Iterator[Path]:
    """Yield a folder inside `out`, removed at the end, or by the next run if this one is killed.

    Raises:
        NotWritten: a file in it cannot be written; the message has `out` in its place, which the user knows.
    """
    path = out / f"{prefix}{secrets.token_hex(4)}"
    try:
        path.mkdir()
        write_record(path, "augment.py", [])
        yield path
    except (NotWritten, OSError) as error:
        said = explain(error) if isinstance(error, OSError) else str(error)
        if str(path) not in said:
            raise
        raise NotWritten(said.replace(str(path), str(out))) from None
    finally:
        shutil.rmtree(path, ignore_errors=True)


def remove_leftovers(out: Path) -> None:
    """Remove what a killed run left in `out`."""
    for leftover in (*out.glob(".staged-*"), *out.glob(".old-*")):
        if read_record(leftover).script == "augment.py":
            shutil.rmtree(leftover, ignore_errors=True)


def check_out(out: Path, data_sets: Sequence[DataSet]) -> None:
    """Raise UserError where a file would be lost that this script did not write, or in a data set's folder."""
    for data_set in data_sets:
        inside = {s.image.resolve().parent for s in data_set.eyes}
        inside |= {file.resolve().parent for s in data_set.eyes for file in s.files.values()}
        whole, place = data_set.folder.resolve(), out.resolve()
        if place == whole or any(
            place.is_relative_to(whole) and (place.is_relative_to(f) or f.is_relative_to(place)) for f in inside
        ):
            raise UserError(f"--out {out}: a folder of the data set {data_set.folder}; choose another folder")
    refuse_among_images("--out", out)
    check_record("augment.py", "--out", out)
    refuse_loss("augment.py", "--out", out, users_files(out, REPLACED))


def replace_data(staged: Path, out: Path) -> None:
    """Move `staged` into `out`, replacing an earlier run; undo it if a move fails."""
    record = out / RECORD
    undo: list[tuple[Path, Path]] = []
    names = [p.relative_to(staged).as_posix() for p in staged.rglob("*") if p.is_file() and p.name != RECORD]
    with scratch(out, ".old-") as old:
        if record.exists():
            shutil.copyfile(record, old / "record")  # network mounts let nobody set times and permissions
        try:
            # whenever a kill comes, all of it is ours
            write_record(out, "augment.py", {*read_record(out).files, *names}, written=False)
            # move all old files out before new ones in, so that a kill leaves no mixture
            for source, target in [
                *((out / part, old / part) for part in reversed(REPLACED) if (out / part).exists()),
                # no eye may test
                *((staged / part, out / part) for part in REPLACED if (staged / part).exists()),
            ]:
                source.rename(target)
                undo.append((target, source))
            write_record(out, "augment.py", names)
        except BaseException:
            for target, source in reversed(undo):
                target.rename(source)
            record.unlink(missing_ok=True)
            if (old / "record").exists():
                (old / "record").rename(record)
            raise
