"""The photographs that predict.py is given, files and folders, and the names of their results."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from batch.results import place_of
from datasets.decoding import is_installed
from datasets.dicom import is_dicom
from datasets.images import SUFFIXES, list_images, passed_over
from datasets.pairing import plain, stem
from pages.results import RESULT_SUFFIXES
from system.records import read_record
from utils import UserError, expand, explain, missing

LONGEST = 250  # bytes of a result's name: file systems take 255, with the suffix
RESULT_FOLDERS = {folder.split("/")[0] for folder in RESULT_SUFFIXES}  # folders of results
# how files begin that are read, for those whose name does not say it
SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"GIF8", b"BM")


@dataclass
class Listing:
    """What lies at the paths that were given."""

    photographs: dict[Path, str] = field(default_factory=dict)  # and the name, such as a/b/eye, of its results
    problems: list[str] = field(default_factory=list)  # what is missing or cannot be read
    others: list[str] = field(default_factory=list)  # files that were left out, and what to do with them


def find_photographs(paths: Sequence[Path], out: Path | None = None, recursive: bool = False) -> Listing:
    """Find the named files and the images of the named folders, each name once.

    Args:
        paths: files and folders, or patterns such as *.jpg that the shell has left as they are.
        out: where results lie; not looked into, unless it is named itself.
        recursive: whether folders are searched with all folders inside them; their results are named by their
            place in it.
    """
    listing, seen = Listing(), set()
    for path in expand(paths):
        try:
            if not path.exists():
                listing.problems.append(missing(path))
                continue
            if said := among_results(path):
                listing.problems.append(f"{path}: {said} wrote; name the photographs")
                continue
            inside, is_folder = 0, path.is_dir()
            for folder in walk(path, out, recursive, listing) if is_folder else [path.parent]:
                images = list_photographs(folder) if is_folder else [path]
                inside += len(images)
                listing.others += passed_over(folder, images) if is_folder else []
                place = folder.relative_to(path) if is_folder else Path()
                for image in images:
                    if (own := place_of(image)) not in seen:
                        seen.add(own)
                        listing.photographs[image] = (place / stem(image)).as_posix()
            if not inside:
                listing.problems.append(nothing_in(path, recursive))
        except OSError as error:
            listing.problems.append(explain(error, error.filename or path))
    return listing


def among_results(path: Path) -> str:
    """Say of a path that a script wrote what is in it, or what it lies in; empty if none did."""
    if script := read_record(path).script if path.is_dir() else "":
        return f"holds what {script}"
    *parents, _ = parts = place_of(path).parts
    for k in range(1, len(parents) + 1):
        if parts[k] in RESULT_FOLDERS and (script := read_record(Path(*parents[:k])).script):
            return f"lies in what {script}"
    return ""


def nothing_in(folder: Path, recursive: bool) -> str:
    """What to say of a folder without images."""
    inside = not recursive and any(f.is_dir() and not f.name.startswith(".") for f in folder.iterdir())
    hint = "; to look into the folders in it, add --recursive" if inside else ""
    return f"{folder}: no images in this folder{' or below' * recursive}{hint}"


def list_photographs(folder: Path) -> list[Path]:
    """The images of a folder in natural order, also gzipped ones and those whose name has no suffix."""
    return [file for file in list_images(folder, {*SUFFIXES, ".gz", ""}) if is_photograph(file)]


def is_photograph(file: Path) -> bool:
    """Whether a file is an image by its name, or without a suffix by how it begins; a folder is none."""
    if os.path.isdir(file):  # noqa: PTH112, Path.is_dir raises an error where it may not look
        return False
    if file.suffix:
        return Path(file.stem if file.suffix.lower() == ".gz" else file.name).suffix.lower() in SUFFIXES
    try:
        with file.open("rb") as content:
            if content.read(4).startswith(SIGNATURES):
                return True
        return is_installed("pydicom") and is_dicom(file)
    except OSError:
        return False


def walk(path: Path, out: Path | None, recursive: bool, listing: Listing) -> Iterator[Path]:
    """Yield a folder and, if `recursive`, those inside it, without hidden ones, links, results and `out`."""
    if not recursive:
        yield path
        return

    def unreadable(error: OSError) -> None:
        listing.problems.append(explain(error))

    results = os.path.realpath(out) if out else None
    for folder, inside, _ in os.walk(path, onerror=unreadable):
        yield Path(folder)
        wanted = []
        for name in sorted(inside):
            below = Path(folder, name)
            if below.is_symlink():
                listing.others.append(f"{below}: a link to a folder; name it itself")
            elif name.startswith(".") or os.path.realpath(below) == results:
                continue
            elif script := read_record(below).script:
                listing.others.append(f"{below}: what {script} wrote")
            else:
                wanted.append(name)
        inside[:] = wanted


def name_results(
    photographs: dict[Path, str],
    out: Path,
    is_taken: Callable[[str, Path], bool] = lambda name, photograph: False,
) -> dict[str, Path]:
    """Give each photograph a unique name for its results: the wanted one, or if that is taken NAME_2 and so on.

    A name that is a photograph's own goes to no other: b/eye.jpg beside eye_2.jpg becomes eye_3. In a folder
    that is called as one of the results, such as masks, or as a file of them may be, such as a.png, a
    photograph's results go to masks_2. A name that is too long with a suffix is cut.

    Args:
        photographs: and the wanted names.
        out: the folder of the results.
        is_taken: whether a name is that of another photograph, of an earlier run.

    Raises:
        UserError: the results would lie among the photographs and could overwrite them.
    """
    results = Path(os.path.realpath(out))
    for folder in {path.parent.resolve() for path in photographs}:
        if folder == results or any(folder.is_relative_to(results / part) for part in RESULT_FOLDERS):
            there = "photographs to segment lie there"
            raise UserError(f"--out {out}: {there}; choose another folder for the results")
    file_like = {*RESULT_SUFFIXES.values(), ".json"}
    wanted = {}
    for path, name in photographs.items():
        *folders, last = name.split("/")
        for k, part in enumerate(folders):
            if (k == 0 and part.casefold() in RESULT_FOLDERS) or Path(part).suffix.lower() in file_like:
                folders[k] = f"{part}_2"
        wanted[path] = "/".join([*folders, cut(last)])
    names: dict[str, Path] = {}
    taken: set[str] = set()
    everyone = {plain(name) for name in wanted.values()}
    for path, first in wanted.items():
        name, number = first, 1
        while plain(name) in taken or (number > 1 and plain(name) in everyone) or is_taken(name, path):
            number += 1
            *folders, last = first.split("/")
            name = "/".join([*folders, cut(last, f"_{number}")])
        taken.add(plain(name))
        names[name] = path
    return names


def cut(name: str, end: str = "") -> str:
    """A name with this end, such as _2, cut where it would be longer than LONGEST."""
    room, whole = LONGEST - len(end), os.fsencode(name)
    return f"{name if len(whole) <= room else whole[:room].decode(errors='ignore')}{end}"
