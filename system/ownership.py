"""Which files of a folder a script wrote itself, so that it replaces those and never a file of the user's.

A script that fills a folder also writes a list of its files there, `written.json`: the script, and each file
with its size. A file that is not on the list, or has another size than when it was written, is the user's.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from system.files import UNFINISHED, atomic, claim
from utils import UserError

LIST = "written.json"
NOTE = "Files that the script below wrote here and may replace. Without this list it leaves all of them alone."
# of file managers, which write into every folder they show, and of a killed run
CLUTTER = {".DS_Store", "Thumbs.db", "desktop.ini", ".lock"}

Sizes = dict[str, int | None]  # of files by their path in the folder; None: unknown, as it was being written


def read_list(folder: Path) -> tuple[str, Sizes]:
    """The script that wrote a folder and the sizes of its files; "" and nothing if no list says so."""
    try:
        content = json.loads((folder / LIST).read_text(encoding="utf-8"))
        script, sizes = content["script"], content["files"]
        if content["note"] != NOTE or not isinstance(script, str):
            return "", {}
        # a list may come from anywhere: it must not lead out of the folder
        inside = {name: size for name, size in sizes.items() if ".." not in Path(name).parts}
        return script, {name: size for name, size in inside.items() if not Path(name).is_absolute()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "", {}


def write_list(folder: Path, script: str, names: Iterable[str], sizes: bool = True) -> None:
    """Write the list of a folder. Without `sizes` the files are about to be written."""
    files: Sizes = {}
    for name in sorted(names):
        if not sizes:
            files[name] = None
        elif (folder / name).is_file():
            files[name] = (folder / name).stat().st_size
    with atomic(folder / LIST) as temporary:
        content = {"note": NOTE, "script": script, "files": files}
        temporary.write_text(json.dumps(content, indent=0) + "\n", encoding="utf-8")


def is_own(path: Path, name: str, sizes: Mapping[str, int | None]) -> bool:
    """Whether a file is as the list says; `name` is its path in the folder of the list."""
    return name in sizes and path.is_file() and sizes[name] in (None, path.stat().st_size)


def users_files(
    folder: Path, sizes: Mapping[str, int | None], within: Iterable[str] = ("",), nested: bool = False
) -> list[Path]:
    """Files below `folder` that no script wrote.

    Args:
        folder: the folder that `sizes` belongs to.
        sizes: from `read_list`.
        within: only these files and folders inside it.
        nested: whether the lists of folders inside it count too.
    """
    found: list[Path] = []

    def look(path: Path, lists: list[tuple[Path, Mapping[str, int | None]]]) -> None:
        if path.is_dir() and not path.is_symlink():
            script, own = read_list(path) if nested else ("", {})
            inside = [*lists, (path, {**own, LIST: None})] if script else lists
            for child in sorted(path.iterdir()):
                look(child, inside)
        elif not (path.name in CLUTTER or path.name.startswith(UNFINISHED)) and not any(
            is_own(path, path.relative_to(root).as_posix(), own) for root, own in lists
        ):
            found.append(path)

    for name in within:
        if (folder / name).exists() or (folder / name).is_symlink():
            look(folder / name, [(folder, sizes)])
    return found


def refuse(script: str, flag: str, folder: Path, users: Collection[Path]) -> None:
    """Raise UserError if there are files that the script would delete or overwrite and did not write."""
    if users:
        more = f" and {len(users) - 1} more" if len(users) > 1 else ""
        raise UserError(
            f"{flag} {folder}: {sorted(users)[0]}{more} would be lost: not written by {script}, or changed "
            "since, or by version 1.0.0, which kept no list; move it away, or choose another folder"
        )


@contextlib.contextmanager
def own_results(
    script: str,
    flag: str,
    folder: Path,
    names: Collection[str],
    *parts: str,
    keep: bool = False,
    alone: bool = True,
) -> Iterator[None]:
    """Claim a folder for the results of a run, and remove those of an earlier run of the same script.

    Args:
        script: that writes them, such as test.py.
        flag: that names the folder, for messages.
        folder: of the results.
        names: of all files that may be written, by their path in the folder.
        parts: as of `claim`.
        keep: whether files of an earlier run that this one may write stay, for a run that goes on.
        alone: whether no other process writes into the folder for this one.

    Raises:
        UserError: the results would replace a file that is not of an earlier run, or has been changed since; or
            are those of another script. Nothing is removed then.
    """
    with claim(folder, *parts):
        before, earlier = read_list(folder)
        if before not in ("", script):
            raise UserError(f"{flag} {folder}: holds what {before} wrote; choose another folder")
        present = [name for name in {*earlier, *names, LIST} if (folder / name).exists()]
        # a run that goes on does what is damaged again
        sizes = {**(dict.fromkeys(earlier) if keep else earlier), **({LIST: None} if before else {})}
        refuse(script, flag, folder, [folder / n for n in present if not is_own(folder / n, n, sizes)])
        for name in set(earlier) - set(names if keep else ()):
            (folder / name).unlink(missing_ok=True)
        remove_empty(folder, earlier)
        write_list(folder, script, names, sizes=False)
        whole = alone
        try:
            yield
            whole = True
        finally:
            if whole:  # else others may still write, and the list of what may be written stays
                write_list(folder, script, names)


def remove_empty(folder: Path, names: Iterable[str]) -> None:
    """Remove the folders of files that were removed, if nothing else is in them."""
    parents = {parent for name in names for parent in Path(name).parents if parent != Path()}
    for parent in sorted(parents, key=lambda p: -len(p.parts)):
        with contextlib.suppress(OSError):  # not empty, or not there
            (folder / parent).rmdir()
