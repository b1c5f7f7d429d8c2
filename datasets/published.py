"""Published data sets: recognise one as it unpacks or as a mirror arranges it, and pair its files.

A data set is recognised by its file names, so its folder may have any name and lie in others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.by_folder import PART_OF, read_folders
from datasets.layouts import LAYOUTS, DataSet
from system.records import read_record
from utils import UserError, missing

WHERE_FROM = """DRIVE cannot be downloaded by a script: register (free) at https://drive.grand-challenge.org,
unpack training.zip and test.zip, and put the folders as DRIVE/training and DRIVE/test, or give their folder
with --drive. Without DRIVE, `python demo.py` runs everything on synthetic eyes."""

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")

KNOWN = (
    "known are DRIVE (training/images, training/1st_manual), CHASE_DB1 (Image_01L.jpg, Image_01L_1stHO.png), "
    "STARE (im0001.ppm, im0001.ah.ppm, gzipped or not), HRF (images/01_h.jpg, manual1/01_h.tif) and your own: "
    "photographs with masks of their names (p1.jpg and p1_mask.png; or images/p1.jpg and masks/p1.png)"
)


def find_data_sets(folders: Sequence[Path], drive: Path | None, fold: int) -> list[DataSet]:
    """Find the data sets in these folders, each once, DRIVE's first; by default that in ./DRIVE.

    Raises:
        UserError: a folder is missing or holds no known data set.
    """
    found = [find_data_set(folder, fold) for folder in folders]
    if drive or not found:
        try:
            found.insert(0, find_data_set(drive or Path("DRIVE"), fold))
        except UserError as error:
            raise UserError(f"{error}\n{WHERE_FROM}") from None
    return list({data_set.folder.resolve(): data_set for data_set in found}.values())


def find_data_set(folder: Path, fold: int = 0) -> DataSet:
    """Recognise the data set in a folder or in one inside it (archives are often nested).

    `fold` is the one of STARE's five folds that tests.

    Raises:
        UserError: nothing of that kind, or more than one published data set.
    """
    if not folder.is_dir():
        archive = f"{folder}: not a folder; unpack it and give the folder"
        raise UserError(archive if folder.exists() else missing(folder, "folder"))
    found: list[DataSet] = []
    if not (elsewhere := what_lies_there(folder)):
        found = [data_set for layout in LAYOUTS if (data_set := layout.read(folder, fold))]
        others = read_folders(folder)
        found += [others] if others and (others.name == "DRIVE" or not found) else []
    if not found:
        raise UserError(f"{folder}: no data set that is known{elsewhere}{archives_in(folder)}; {KNOWN}")
    if len(found) > 1:
        names = ", ".join(data_set.name for data_set in found)
        raise UserError(f"{folder}: more than one data set ({names}); give the folder of each")
    return found[0]


def what_lies_there(folder: Path) -> str:
    """What to do with a folder that is not a data set but a part of one or new_data; else empty."""
    if read_record(folder).script == "augment.py":
        return f"; augment.py wrote it, so it is ready: python train.py --data {folder}"
    parts = folder.name.casefold() in PART_OF and any((folder / name).is_dir() for name in ("images", "image"))
    return f"; it is a part of one, so give the folder above it: {folder.absolute().parent}" if parts else ""


def archives_in(folder: Path) -> str:
    """What to do with the archives in a folder; empty if there are none."""
    archives = sorted(f.name for f in folder.iterdir() if f.suffix.lower() in ARCHIVES)
    return f"; unpack {', '.join(archives[:4])} there" if archives else ""
