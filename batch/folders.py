"""The photographs that predict.py is given, files and folders, and the names of their results."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from batch.photographs import FOLDERS
from datasets.images import list_images, passed_over
from utils import UserError, did_you_mean


@dataclass
class Found:
    """What lies at the paths that were given."""

    photographs: dict[Path, str] = field(default_factory=dict)  # and the name, such as a/b/eye, of its results
    problems: list[str] = field(default_factory=list)  # what is missing or cannot be read
    others: list[str] = field(default_factory=list)  # files that were left out, and what to do with them


def find_photographs(paths: Sequence[Path], out: Path | None = None, recursive: bool = False) -> Found:
    """Find the named files and the images of the named folders, each once.

    Args:
        paths: files and folders.
        out: where results lie; not looked into, unless it is named itself.
        recursive: whether folders are searched with all folders inside them; their results are named by their
            place in it.
    """
    found, seen = Found(), set()
    for path in paths:
        try:
            if not path.exists():
                found.problems.append(f"{path}: no such file or folder{did_you_mean(path)}")
                continue
            is_folder, inside = path.is_dir(), 0
            for folder in walk(path, out, recursive, found) if is_folder else [path.parent]:
                images = list_images(folder) if is_folder else [path]
                images = [i for i in images if not is_folder or not i.is_dir()]  # a folder may be called so
                found.others += passed_over(folder) if is_folder else []
                inside += len(images)
                place = folder.relative_to(path) if is_folder else Path()
                for image in images:
                    if (real := image.resolve()) not in seen:
                        seen.add(real)
                        found.photographs[image] = (place / image.stem).as_posix()
            if not inside:
                found.problems.append(f"{path}: no images in this folder{' or below' * recursive}")
        except OSError as error:
            found.problems.append(f"{error.filename or path}: {error.strerror}")
    return found


def walk(path: Path, out: Path | None, recursive: bool, found: Found) -> Iterator[Path]:
    """Yield a folder and, if `recursive`, those inside it, without hidden ones, links and `out`."""
    if not recursive:
        yield path
        return

    def unreadable(error: OSError) -> None:
        found.problems.append(f"{error.filename}: {error.strerror}")

    results = out.resolve() if out else None
    for folder, inside, _ in os.walk(path, onerror=unreadable):
        yield Path(folder)
        links = [name for name in inside if (Path(folder) / name).is_symlink()]
        found.others += [f"{Path(folder) / name}: a link to a folder; name it itself" for name in links]
        inside[:] = sorted(
            name
            for name in inside
            if not name.startswith(".") and name not in links and (Path(folder) / name).resolve() != results
        )


def name_results(photographs: dict[Path, str], out: Path) -> dict[str, Path]:
    """Give each photograph a unique name for its results: the wanted one, or if that is taken NAME_2 and so on.

    A name that is a photograph's own goes to no other: b/eye.jpg beside eye_2.jpg becomes eye_3. In a folder
    that is called as one of the results, such as masks, a photograph's results go to masks_2.

    Raises:
        UserError: the results would lie among the photographs and could overwrite them.
    """
    results, own = out.resolve(), {*FOLDERS, "page"}
    folders = {path.parent for path in photographs}
    for folder in {folder.resolve() for folder in folders}:
        if folder == results or any(folder.is_relative_to(results / part) for part in own):
            raise UserError(
                f"--out {out}: photographs to segment lie there; choose another folder for the results"
            )
    wanted = {}
    for path, name in photographs.items():
        first, *rest = name.split("/")
        wanted[path] = "/".join([f"{first}_2" if rest and first.casefold() in own else first, *rest])
    names: dict[str, Path] = {}
    taken: set[str] = set()  # Windows and macOS ignore case
    everyone = {name.casefold() for name in wanted.values()}
    for path, first in wanted.items():
        name, number = first, 1
        while name.casefold() in taken or (number > 1 and name.casefold() in everyone):
            number += 1
            name = f"{first}_{number}"
        taken.add(name.casefold())
        names[name] = path
    return names
