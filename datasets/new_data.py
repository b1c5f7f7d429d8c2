"""The folder new_data: what augment.py may replace in it, and how it replaces that as a whole."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from datasets.layouts import DataSet
from system.ownership import LIST, Sizes, read_list, refuse, users_files, write_list
from utils import UserError

OWN = ("dataset.json", "train", "test")  # what this script writes; everything else in the folder is left alone


def scratch(out: Path, prefix: str) -> Path:
    """A folder inside `out` that the next run removes if this one is killed."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=out))
    write_list(path, "augment.py", [])
    return path


def files_of(folder: Path) -> list[str]:
    """All files of new_data by their path in it."""
    found = [folder / OWN[0], *(folder / "train").rglob("*"), *(folder / "test").rglob("*")]
    return [path.relative_to(folder).as_posix() for path in found if path.is_file()]


def own_files(out: Path) -> Sizes:
    """The files of an earlier run in `out` and their sizes, from its list; version 1.0.0 wrote none."""
    script, sizes = read_list(out)
    if script:
        return sizes if script == "augment.py" else {}
    try:
        info = json.loads((out / OWN[0]).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(info, dict) or not {"size", "seed", "test_labels", "train", "test"} <= info.keys():
        return {}
    image = r"(train|test)/(image|mask|fov|second_observer)/[^/]+_[0-3]\.png"
    return {name: None for name in files_of(out) if name == OWN[0] or re.fullmatch(image, name)}


def check_out(out: Path, data_sets: Sequence[DataSet]) -> None:
    """Refuse to write where a file would be lost, or into a data set.

    Raises:
        UserError: `out` has files in the way that this script did not write, or that were changed since; or it
            is a folder of a data set.
    """
    for data_set in data_sets:
        inside = {s.image.resolve().parent for s in data_set.eyes}
        inside |= {file.resolve().parent for s in data_set.eyes for file in s.files.values()}
        whole, place = data_set.folder.resolve(), out.resolve()
        if place == whole or any(
            place.is_relative_to(whole) and (place.is_relative_to(f) or f.is_relative_to(place)) for f in inside
        ):
            raise UserError(f"--out {out}: a folder of the data set {data_set.folder}; choose another folder")
    script, _ = read_list(out)
    if script not in ("", "augment.py"):
        raise UserError(f"--out {out}: holds what {script} wrote; choose another folder")
    refuse("augment.py", "--out", out, users_files(out, own_files(out), OWN))
    if not script and (out / LIST).exists():
        refuse("augment.py", "--out", out, [out / LIST])


def replace(staged: Path, out: Path) -> None:
    """Move `staged` into `out`, replacing an earlier run; undo it if a move fails."""
    old = scratch(out, ".old-")
    before, after = own_files(out), files_of(staged)
    undo: list[tuple[Path, Path]] = []
    try:
        # whenever a kill comes, all of it is ours
        write_list(out, "augment.py", {*before, *after}, sizes=False)
        # move all old files out before new ones in, so that a kill leaves no mixture
        for source, target in [
            *((out / name, old / name) for name in reversed(OWN) if (out / name).exists()),
            *((staged / name, out / name) for name in OWN),
        ]:
            source.rename(target)
            undo.append((target, source))
    except BaseException:
        for target, source in reversed(undo):
            target.rename(source)
        write_list(out, "augment.py", before)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
