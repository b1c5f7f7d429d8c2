"""Records of the files that a script wrote, so that it replaces those and never a file of the user's.

A record is a small JSON file: the script, and each file with its size, ctime and SHA-256. Files that are about
to be written stand in it without these. A file that no record names, or that has changed, is the user's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from system.files import UNFINISHED, atomic, claim
from utils import UserError, path_name

RECORD = "written.json"  # of a folder as a whole
EXPLANATION = (
    "Files that the script below wrote here and may replace. Without this list it leaves all of them alone."
)
# of file managers, which write into every folder they show, and of a killed run
CLUTTER = {".DS_Store", "Thumbs.db", "desktop.ini", ".lock"}


@dataclass(frozen=True)
class Record:
    """What a script wrote down of its files."""

    script: str = ""  # that wrote them, such as test.py; "" without a record
    files: Mapping[str, Any] = field(default_factory=dict)  # their `state` by their path in the folder
    more: Mapping[str, Any] = field(default_factory=dict)  # what else was written down

    @property
    def is_whole(self) -> bool:
        """Whether everything that it names was written."""
        return bool(self.script) and None not in self.files.values()


def sha256(path: Path) -> str:
    """SHA-256 of a file, as sha256sum prints it."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def state(path: Path) -> list[int | str]:
    """Size in bytes, time of the last change of the file or its name in ns (ctime), and SHA-256 of a file."""
    status = path.stat()
    return [status.st_size, status.st_ctime_ns, sha256(path)]


def is_unchanged(path: Path, before: Any) -> bool:
    """Whether a file is as `state` said before; None, for a file that was being written: if it is there.

    One that cannot be read is not.
    """
    try:
        return path.is_file() and (before is None or state_holds(path, before))
    except OSError:
        return False


def state_holds(path: Path, before: Any) -> bool:
    """Whether the `state` of a file that is there is still this."""
    status, (size, time, digest) = path.stat(), before
    # programs set the mtime, as archives and editors do, but not the ctime. A file that was copied or moved is
    # read, and so is one without: Windows tells its creation, sshfs and FAT the mtime
    is_untouched = sys.platform != "win32" and status.st_ctime_ns == time != status.st_mtime_ns
    return status.st_size == size and (is_untouched or sha256(path) == digest)


def read_record(path: Path) -> Record:
    """Read a record, or of a folder its written.json; an empty one if there is none that can be read."""
    try:
        content = json.loads((path / RECORD if path.is_dir() else path).read_text(encoding="utf-8"))
        if content.pop("note") != EXPLANATION:
            return Record()
        files, script = content.pop("files"), content.pop("script")
        # a record may come from anywhere: it must not lead out of the folder
        inside = {n: s for n, s in files.items() if not Path(n).is_absolute() and ".." not in Path(n).parts}
        if not isinstance(script, str) or not all(s is None or len(s) == 3 for s in inside.values()):
            return Record()
        return Record(script, inside, content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Record()


def write_record(
    folder: Path,
    script: str,
    names: Iterable[str],
    path: Path | None = None,
    written: bool = True,
    more: Mapping[str, Any] | None = None,
    known: Mapping[str, Any] | None = None,
) -> None:
    """Record which files a script writes into a folder, in `path` or by default written.json there.

    Args:
        names: of the files in the folder; those that are not there are left out.
        written: False: the files are about to be written.
        more: what else to write down, as JSON can hold it.
        known: the `state` of files that are unchanged, which are not read again.

    Raises:
        UserError: the record cannot be written.
    """
    there = (n for n in names if not written or (folder / n).is_file())
    files = {n: ((known or {}).get(n) or state(folder / n)) if written else None for n in there}
    with atomic(path or folder / RECORD) as temporary:
        content = {"note": EXPLANATION, "script": script, "files": files, **(more or {})}
        text = json.dumps(content, default=lambda number: number.item())  # of NumPy
        temporary.write_text(text + "\n", encoding="utf-8")


def users_files(folder: Path, within: Iterable[str] = ("",)) -> list[Path]:
    """Files below `folder`, or below these parts of it, that no record in it or further inside names."""
    users: list[Path] = []

    def look(path: Path, records: list[tuple[Path, Record]]) -> None:
        if path.is_dir() and not path.is_symlink():
            for child in sorted(path.iterdir()):
                look(child, [*records, (path, read_record(path))])
        elif path.name not in CLUTTER and not path.name.startswith(UNFINISHED):
            for root, record in records:
                name = path.relative_to(root).as_posix()
                own = name == RECORD or (name in record.files and is_unchanged(path, record.files[name]))
                if record.script and own:
                    return
            users.append(path)

    for part in within:
        if (folder / part).exists() or (folder / part).is_symlink():
            look(folder / part, [(folder, read_record(folder))])
    return users


def strangers(folder: Path, names: Iterable[str], record: Record) -> list[Path]:
    """Those of these files of a folder that are there and not as the record says."""
    there = {name: folder / name for name in names if os.path.lexists(folder / name)}
    return [p for n, p in there.items() if n not in record.files or not is_unchanged(p, record.files[n])]


def refuse_loss(script: str, flag: str, folder: Path, users: Collection[Path]) -> None:
    """Raise UserError if there are files that the script would delete or overwrite and did not write."""
    if users:
        more = f" and {len(users) - 1} more" if len(users) > 1 else ""
        raise UserError(
            f"{flag} {folder}: {sorted(users)[0]}{more} would be lost: not written by {script}, or changed "
            "since, or unreadable now; move it away, or choose another folder"
        )


def check_record(script: str, flag: str, folder: Path) -> Record:
    """The record of a folder that this script wrote; an empty one if no script did.

    Raises:
        UserError: another script wrote the folder, or its written.json is none of ours; or results in it would
            be a nuisance: /, the home folder, that of the program.
    """
    record, place = read_record(folder), Path(os.path.realpath(folder))
    home, program = path_name("~").resolve(), Path(__file__).resolve().parent.parent
    if place in (Path(place.anchor), home, program):
        such = folder / "results"
        raise UserError(f"{flag} {folder}: not a place for results; name a folder in it, such as {such}")
    if record.script not in ("", script):
        raise UserError(f"{flag} {folder}: holds what {record.script} wrote; choose another folder")
    if not record.script and (folder / RECORD).exists():
        refuse_loss(script, flag, folder, [folder / RECORD])
    return record


@contextlib.contextmanager
def replace_results(
    script: str, flag: str, folder: Path, names: Collection[str], *parts: str
) -> Iterator[None]:
    """Claim a folder for the results of a run, and remove those of an earlier run of the same script.

    Args:
        script: that writes them, such as test.py, and `flag`, which names the folder in messages.
        names: of all files that may be written, by their path in the folder; `parts` as of `claim`.

    Raises:
        UserError: the results would replace a file that is not of an earlier run, or has been changed since; or
            are those of another script. Nothing is removed then.
    """
    with claim(folder, *parts):
        record = check_record(script, flag, folder)
        refuse_loss(script, flag, folder, strangers(folder, {*record.files, *names}, record))
        own = {name for name in {*record.files, *names} if (folder / name).exists()}
        if gone := sorted(own - set(names)):
            which = ", ".join(gone[:5]) + " ..." * (len(gone) > 5)
            print(f"{folder}: removes {len(gone)} files of an earlier run: {which}")
        write_record(folder, script, {*names, *own}, written=False)
        for name in own:
            (folder / name).unlink()
        remove_empty(folder, own)
        try:
            yield
        except BaseException:
            with contextlib.suppress(UserError):  # of a disk that is full, what was first said counts
                write_record(folder, script, sorted(names))
            raise
        write_record(folder, script, sorted(names))


def remove_empty(folder: Path, names: Iterable[str]) -> None:
    """Remove the folders of files that were removed, if nothing else is in them."""
    parents = {parent for name in names for parent in Path(name).parents if parent != Path()}
    for parent in sorted(parents, key=lambda p: -len(p.parts)):
        with contextlib.suppress(OSError):  # not empty, or not there
            (folder / parent).rmdir()
