"""Published data sets: recognise one as it unpacks or as a mirror arranges it, and pair its files.

A data set is recognised by its file names, so its folder may have any name and lie in others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from datasets.images import list_images
from datasets.layouts import LAYOUTS, DataSet, Source, folders, no_labels, pair, second_file
from system.ownership import read_list
from utils import UserError, did_you_mean

WHERE_FROM = """DRIVE cannot be downloaded by a script: register (free) at https://drive.grand-challenge.org,
unpack training.zip and test.zip, and put the folders as DRIVE/training and DRIVE/test, or give their folder
with --drive. Without DRIVE, `python demo.py` runs everything on synthetic eyes."""

# how DRIVE's folders are called, as published first, in small letters or capitals
TRAINING, TEST = ("training", "train"), ("test", "testing")
IMAGES = ("images", "image")
LABELS = ("1st_manual", "manual1", "manual", "labels", "label")
FOVS, SECOND = ("mask", "masks", "fov"), ("2nd_manual", "manual2")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")

KNOWN = (
    "known are DRIVE (training/images, training/1st_manual), CHASE_DB1 (Image_01L.jpg, Image_01L_1stHO.png), "
    "STARE (im0001.ppm, im0001.ah.ppm, gzipped or not) and HRF (images/01_h.jpg, manual1/01_h.tif)"
)


def find_data_set(folder: Path, fold: int = 0) -> DataSet:
    """Recognise the data set in a folder or in one inside it (archives are often nested).

    Args:
        folder: DRIVE, CHASE_DB1, STARE or HRF, unpacked.
        fold: which of the five folds of STARE tests.

    Raises:
        UserError: no known data set, or more than one.
    """
    if not folder.is_dir():
        archive = "not a folder; unpack it and give the folder"
        raise UserError(f"{folder}: {archive if folder.exists() else f'no such folder{did_you_mean(folder)}'}")
    drive = next((inside for inside in folders(folder, 2) if has_drive(inside)), None)
    found = [read_drive(drive)] if drive else []
    found += [data_set for layout in LAYOUTS if (data_set := layout.read(folder, fold))]
    if not found:
        raise UserError(f"{folder}: no data set that is known{what_lies_there(folder)}; {KNOWN}")
    if len(found) > 1:
        names = ", ".join(data_set.name for data_set in found)
        raise UserError(f"{folder}: more than one data set ({names}); give the folder of each")
    return found[0]


def find_drive(folder: Path) -> Path:
    """Find the folder with `training/`: the one given or one inside it (the archive is often nested).

    Raises:
        UserError: DRIVE is not there; the message says where to get it.
    """
    for candidate in folders(folder, 2):
        if has_drive(candidate):
            return candidate
    looked = f"looked for {folder / 'training' / 'images'} and {folder / '*' / 'training' / 'images'}"
    hint = what_lies_there(folder) or did_you_mean(folder)
    raise UserError(f"{folder}: DRIVE is not there ({looked}){hint}\n{WHERE_FROM}")


def what_lies_there(folder: Path) -> str:
    """What to do with a folder that has no data set but something like one; else empty."""
    if not folder.is_dir():
        return ""
    if read_list(folder)[0] == "augment.py":
        return f"; augment.py wrote it, so it is ready: python train.py --data {folder}"
    if folder.name.casefold() in (*TRAINING, *TEST) and child(folder, IMAGES).is_dir():
        return f"; it is a part of one, so give the folder above it: {folder.absolute().parent}"
    archives = sorted(f.name for f in folder.iterdir() if f.suffix.lower() in ARCHIVES)
    return f"; unpack {', '.join(archives[:4])} there" if archives else ""


def has_drive(folder: Path) -> bool:
    """Whether this folder itself holds DRIVE, and not another data set whose mirror arranges it likewise."""
    images = child(child(folder, TRAINING), IMAGES)
    if read_list(folder)[0] or not images.is_dir():
        return False
    return not any(layout.identify(path, folder) for layout in LAYOUTS for path in list_images(images))


def child(folder: Path, names: Sequence[str]) -> Path:
    """The folder in `folder` that has the first of these names that is there, in small letters or capitals.

    If there is none, the path with the first of the names.
    """
    there = {f.name.casefold(): f for f in folder.iterdir() if f.is_dir()} if folder.is_dir() else {}
    return next((there[name] for name in names if name in there), folder / names[0])


def read_drive(drive: Path) -> DataSet:
    """Pair DRIVE's photographs, masks and fields of view by the number in their names."""
    sources: list[Source] = []
    problems: list[str] = []
    for part, names in (("train", TRAINING), ("test", TEST)):
        folder = child(drive, names)
        place = child(folder, IMAGES)
        images = by_number(place, problems)
        if not images:
            problems.append(f"{place}: no images; unpack DRIVE's {names[0]}.zip to {folder}")
        eyes = {number: Source(part, path.stem, path, number) for number, path in images.items()}
        for target, called in (("mask", LABELS), ("fov", FOVS), ("second_observer", SECOND)):
            masks = child(folder, called)
            needed = part == "train" and target == "mask"
            # today's download has no test labels; fields of view can be estimated
            if needed and eyes and not masks.is_dir():
                fovs = child(folder, FOVS)
                problems.append(no_labels(folder, "1st_manual/21_manual1", fovs.glob("*")))
            if not masks.is_dir() or (part == "train" and target == "second_observer"):
                continue
            files = by_number(masks, problems)
            pair(eyes, files, target, ("{}", place), ("{}", masks), problems)
        sources += [eyes[number] for number in sorted(eyes)]
    return DataSet("DRIVE", drive, sources, problems)


def by_number(folder: Path, problems: list[str]) -> dict[int, Path]:
    """List a folder's images by the number at the start of their names, or by the only one in them.

    The others are added to `problems`.
    """
    found: dict[int, Path] = {}
    for path in list_images(folder) if folder.is_dir() else []:
        begin, numbers = re.match(r"\d+", path.name), re.findall(r"\d+", path.stem)
        if not begin and len(numbers) != 1:
            problems.append(f"{path}: its name does not begin with the number of an eye; rename it")
            continue
        number = int(begin[0] if begin else numbers[0])
        other = found.setdefault(number, path)
        if other != path:
            problems.append(second_file(path, number, other))
    return found
