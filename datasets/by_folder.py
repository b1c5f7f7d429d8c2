"""Photographs with masks of which names and folders tell what they are: DRIVE, and data of one's own.

    mine/p1.jpg and mine/p1_mask.png, p1-vessels.tif, p1_manual.gif, p1.json (LabelMe or VIA) or p1.png
    mine/images/p1.jpg and mine/masks/p1.png, or any other name that has p1 in it as a word
    mine/training/images, mine/training/1st_manual, mine/test/images, and so on, as DRIVE has them

Photographs of a folder `test` test, all others train.
"""

from __future__ import annotations

import os
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from datasets.decoding import decode
from datasets.images import is_readable, read_mask
from datasets.kinds import KINDS_FILES
from datasets.layouts import (
    LAYOUTS,
    ROLES,
    DataSet,
    Source,
    add_files,
    image_files,
    no_labels,
    role,
    second_file,
)
from datasets.pairing import first_number, match, plain, stem
from datasets.polygons import shapes_in
from datasets.tables import first_five
from datasets.volumes import volume_suffix
from utils import UserError, missing

PART_OF = {"training": "train", "train": "train", "test": "test", "testing": "test"}  # by the name of a folder
DRIVE = r"\d+_(training|test)|(training|test)_\d+"  # in the names of DRIVE's photographs
# what a file is by words in its name, as ROLES says it of folders
WORDS = (
    ("arteries_veins", r"av$|arter(y|ies)[ _-]?veins?"),
    ("arteries", r"arter(y|ies)"),
    ("veins", r"veins?"),
    ("second_observer", r"manual_?2|2nd\w*|second_observer|observer_?2"),
    ("fov", r"fov"),
    ("mask", r"manual_?1?|vessels?|vessel_?mask|labels?|seg|segmentation|gt|truth|1st\w*|annot\w*"),
    ("either", r"masks?"),
)
# folders that say what is in them
KIND_FOLDERS = r"^(images?|photo.*|originals?|training|train|test|testing)$|" + "|".join(
    names for _, names in ROLES
)
Found = dict[str, list[Path]]  # files by what they are


def read_folders(folder: Path) -> DataSet | None:
    """Pair the photographs and masks below `folder`; None if none has a mask, nor is DRIVE's."""
    parts: dict[str, Found] = {"train": defaultdict(list), "test": defaultdict(list)}
    for path in image_files(folder, ".json"):
        if not any(layout.identify(path, folder) for layout in LAYOUTS):
            parts[part_of(path, folder)][kind_of(path, folder)].append(path)
    images = [path for found in parts.values() for path in found["image"]]
    paths = [path for found in parts.values() for files in found.values() for path in files]
    if any(re.search(DRIVE, stem(path), re.IGNORECASE) for path in images):
        return read_drive(parts)
    masks = any(found["mask"] for found in parts.values())
    for found in parts.values():
        tell_apart(found, masks)
        if not found["mask"]:  # whoever drew arteries and veins drew the vessels, see `load_eye`
            found["mask"] += found["arteries_veins"] or found["arteries"]
    if not any(found["mask"] for found in parts.values()) or not images:
        return None
    folder = Path(os.path.commonpath([path.parent for path in paths]))
    problems: list[str] = []
    called = names_of_own([path for found in parts.values() for path in found["image"]], folder)
    eyes = []
    unlabelled: list[str] = []
    for part, found in parts.items():
        own = {
            called[path]: Source(part, called[path], path, zlib.crc32(called[path].encode()), scaled=True)
            for path in found["image"]
        }
        for target in ("mask", "fov", "second_observer", *KINDS_FILES):
            if target != "second_observer" or part == "test":
                problems += add_matched(own, target, found[target], folder)
        labelled = [eye for eye in own.values() if "mask" in eye.files]
        if labelled or part == "train":  # else photographs to be segmented only
            unlabelled += [without_mask(eye) for eye in own.values() if "mask" not in eye.files]
            own = {eye.name: eye for eye in labelled}
        eyes += list(own.values())
    split = "to test are those in a folder called test"
    split += f"; left out, without a mask: {first_five(unlabelled)}" if unlabelled else ""
    if not any(eye.part == "train" for eye in eyes):
        problems.append(f"{folder}: no photograph with a mask to train; those in a folder test only test")
    return DataSet(folder.resolve().name, folder, eyes, problems, split)


def without_mask(eye: Source) -> str:
    """The name of an eye without a mask, with what may have been meant as one."""
    fov = eye.files.get("fov")
    return f"{eye.name} ({fov.name} is read as its field of view)" if fov else eye.name


def part_of(path: Path, folder: Path) -> str:
    """The part of a file, train or test, by the nearest folder that tells; train if none does."""
    names = [parent.name.casefold() for parent in path.relative_to(folder).parents]
    return next((PART_OF[name] for name in names if name in PART_OF), "train")


def kind_of(path: Path, folder: Path) -> str:
    """What a file is: image, mask, fov, second_observer, either (a mask or a field of view), or json."""
    if path.suffix.lower() == ".json":
        return "json"
    if known := role(path, folder):
        return known
    words = ((target, rf"(^|[^a-z0-9])({names})([^a-z]|$)") for target, names in WORDS)
    no_word = "mask" if volume_suffix(path) else "image"
    return next((target for target, words in words if re.search(words, stem(path), re.IGNORECASE)), no_word)


def tell_apart(found: Found, masks: bool) -> None:
    """Decide in place what names alone do not tell; `masks`: whether there are masks that are called better."""
    found["fov" if masks else "mask"] += found.pop("either", [])
    described = {path: names for path in found.pop("json", []) if (names := shapes_in(path))}
    by_stem = defaultdict(list)
    for path in found["image"]:
        by_stem[path.parent, plain(stem(path))].append(path)
    for (_, name), files in by_stem.items():
        drawn = [path for path, names in described.items() if name in names]
        found["mask"] += drawn
        if len(files) == 2 and not drawn:  # p1.jpg and its mask p1.png
            for path in files:
                decode(path)  # what is damaged is named, and no photograph without a mask
            flat = [path for path in files if is_readable(path, read_mask)]
            if len(flat) == 1:
                found["image"].remove(flat[0])
                found["mask"] += flat


def person_folders(path: Path, folder: Path) -> tuple[str, ...]:
    """The folders between `folder` and a file that do not say what it is, but perhaps whose."""
    return tuple(
        name for name in path.relative_to(folder).parts[:-1] if not re.search(KIND_FOLDERS, name, re.IGNORECASE)
    )


def names_of_own(images: Sequence[Path], folder: Path) -> dict[Path, str]:
    """The name of each photograph: its file's, or with its folders' (P1_OD) where several have that."""
    often = Counter(plain(stem(path)) for path in images)
    return {
        path: "_".join([*(person_folders(path, folder) if often[plain(stem(path))] > 1 else ()), stem(path)])
        for path in images
    }


def add_matched(eyes: dict[str, Source], target: str, files: Sequence[Path], folder: Path) -> list[str]:
    """Add to each eye its file among these; returns a message for each that is of no eye, or a second one.

    Files of one person come first, so that P1/OD.jpg gets P1/OD_mask.png.
    """
    rest = {path for path in files if path.suffix.lower() != ".json"}
    twice = []
    for path in sorted(set(files) - rest):
        described = shapes_in(path)
        for eye in eyes.values():
            if plain(stem(eye.image)) in described and eye.files.setdefault(target, path) != path:
                twice.append(second_file(path, eye.name, eye.files[target]))
    called = {name: {name, stem(eye.image)} for name, eye in eyes.items()}
    whose = {path: person_folders(path, folder) for path in [*rest, *(eye.image for eye in eyes.values())]}
    for person in [*sorted(set(whose.values())), None]:  # None: all
        near = [path for path in sorted(rest) if person in (None, whose[path])]
        without = {n: c for n, c in called.items() if target not in eyes[n].files}
        own = {n: c for n, c in without.items() if person in (None, whose[eyes[n].image])}
        for name, path in match(near, own).files.items():
            eyes[name].files[target] = path
            rest.discard(path)
    more = match(sorted(rest), called)
    return [
        *twice,
        *(second_file(path, name, eyes[name].files[target]) for name, path in more.files.items()),
        *more.several,
        *more.unclear,
        *more.surplus,
    ]


def pair_kinds(folders: Sequence[Path], eyes: Sequence[Source]) -> tuple[list[str], list[str]]:
    """Give eyes the maps of arteries and veins, or the masks of both, that lie in these folders.

    They replace those beside the photographs. Not every eye needs one, nor every file an eye.

    Args:
        folders: with files of the photographs' names, or with folders called `arteries` and `veins` that have
            such files, or one called `av` or `arteries_veins`.
        eyes: each once.

    Returns:
        A message for each file that could be of several eyes or is a second one, and for each folder without
        any file of an eye; and one for each other file that is of no eye.

    Raises:
        UserError: a folder is missing.
    """
    found: Found = defaultdict(list)
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"--arteries-veins {missing(folder, 'folder')}")
        kinds = {path: kind_of(path, folder) for path in image_files(folder)}
        called = {path: kind for path, kind in kinds.items() if kind in KINDS_FILES}
        for path, kind in (called or dict.fromkeys(kinds, KINDS_FILES[0])).items():
            found[kind].append(path)
    problems, surplus = [], []
    names = {eye.name: {eye.name, stem(eye.image)} for eye in eyes}
    for kind, files in found.items():
        matched = match(files, names)
        for eye in eyes:
            if eye.name in matched.files:
                eye.files = {k: path for k, path in eye.files.items() if k not in KINDS_FILES or k in found}
                eye.files[kind] = matched.files[eye.name]
        problems += matched.several + matched.unclear
        surplus += matched.surplus
    used = [path for eye in eyes for path in eye.files.values()]
    problems += [
        f"--arteries-veins {folder}: no file of it has the name of a photograph, such as {eyes[0].name}"
        for folder in folders
        if not any(path.is_relative_to(folder) for path in used)
    ]
    return problems, surplus


def read_drive(parts: dict[str, Found]) -> DataSet:
    """Pair DRIVE's photographs, masks and fields of view by the numbers in their names, part by part."""
    sources: list[Source] = []
    problems: list[str] = []
    images = [path for found in parts.values() for path in found["image"]]
    above = Path(os.path.commonpath([path.parent for path in images]))
    if above.name.casefold() in ("images", "image"):
        above = above.parent.parent
    for part, name in (("train", "training"), ("test", "test")):
        found = parts[part]
        found["fov"] += found.pop("either", [])
        numbered = by_number(found["image"], problems)
        eyes = {number: Source(part, path.stem, path, int(number)) for number, path in numbered.items()}
        if not eyes:
            place = above / name
            problems.append(f"{place / 'images'}: no images; unpack DRIVE's {name}.zip to {place}")
            continue
        place = found["image"][0].parent
        # today's download has no test labels; fields of view can be estimated
        if part == "train" and not found["mask"]:
            problems.append(no_labels(place.parent, "1st_manual/21_manual1", found["fov"]))
        for target in ("mask", "fov", *KINDS_FILES, *(["second_observer"] if part == "test" else [])):
            if files := by_number(found[target], problems):
                add_files(eyes, files, target, ("{}", place), ("{}", found[target][0].parent), problems)
        sources += [eyes[number] for number in sorted(eyes)]
    return DataSet("DRIVE", above, sources, problems, "as published")


def by_number(files: Sequence[Path], problems: list[str]) -> dict[str, Path]:
    """Files by the first number in their names; one without, and a second one of a number, is a problem."""
    found: dict[str, Path] = {}
    for path in files:
        number = first_number(stem(path))
        other = found.setdefault(f"{number:02d}", path)
        if number < 0:
            problems.append(f"{path}: its name has no number of an eye; rename it")
        elif other != path:
            problems.append(second_file(path, number, other))
    return {number: path for number, path in found.items() if int(number) >= 0}
