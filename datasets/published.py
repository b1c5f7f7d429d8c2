"""Published data sets: recognise one as it unpacks, pair its files, split it into training and test eyes.

A data set is recognised by its file names, so its folder may have any name. The split follows from each eye's
own name, so a missing eye does not move another one to the other side.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from datasets.images import SUFFIXES, list_images
from utils import UserError, did_you_mean

WHERE_FROM = """DRIVE cannot be downloaded by a script: register (free) at https://drive.grand-challenge.org,
unpack training.zip and test.zip, and put the folders as DRIVE/training and DRIVE/test, or give their folder
with --drive. Without DRIVE, `python demo.py` runs everything on synthetic eyes."""


@dataclass
class Source:
    """The files of one eye as published."""

    part: str  # train or test
    image: Path
    number: int  # seeds the random rotation of this eye
    files: dict[str, Path] = field(default_factory=dict)  # by target folder: mask, fov, second_observer
    scaled: bool = False  # whether training resizes it to DRIVE's scale
    scale: float = 1.0  # factor at which the network must see it; known once the eye is read

    @property
    def name(self) -> str:
        """The eye's name in new_data, such as 21_training, Image_01L, im0001 or 01_h."""
        return stem(self.image)


@dataclass
class DataSet:
    """The eyes of one data set, and a message for each file that is missing, unpaired or ambiguous."""

    name: str
    folder: Path
    eyes: list[Source]
    problems: list[str]
    split: str = ""  # as text; DRIVE comes split
    published: int = 0  # number of eyes as published, if it does not come split

    def describe(self) -> str:
        """Describe the split, and whether the data set is complete."""
        eyes = len({eye.name for eye in self.eyes})
        there = "" if eyes == self.published else f"only {eyes} of {self.published} eyes: "
        train, test = self.count("train"), self.count("test")
        return f"{self.name} in {self.folder}: {there}{train} to train, {test} to test ({self.split})"

    def train_on_all(self) -> None:
        """Let every labelled eye train, and lie among the test eyes at its native size too.

        Not DRIVE's own test eyes: where they have labels, these must stay unseen.
        """
        labelled = [eye for eye in self.eyes if "mask" in eye.files and (self.published or eye.part == "train")]
        self.eyes = [replace(eye, part=part) for part in ("train", "test") for eye in labelled]
        self.split = "all of them, for scores of a data set left out"

    def count(self, part: str) -> int:
        """The number of eyes of a part, train or test."""
        return sum(eye.part == part for eye in self.eyes)


@dataclass(frozen=True)
class Layout:
    """The file names of a data set that comes without a split; {} stands for the name of an eye."""

    name: str
    eye: str  # regular expression of an eye's name
    image: str  # the photograph without suffix, with its folder where that matters
    files: dict[str, str]  # the same for its other files, by target folder; only the mask is required
    published: int  # number of eyes
    split: str  # as text
    tests: Callable[[str, int], bool]  # whether an eye is a test eye, given the fold

    def find(self, name: str, files: Iterable[Path], problems: list[str]) -> dict[str, Path]:
        """Find the files of this name, by eye; a second file for an eye is added to `problems`."""
        pattern = re.escape(name).replace(r"\{\}", f"({self.eye})")
        found: dict[str, Path] = {}
        for path in files:
            match = re.fullmatch(pattern, f"{path.parent.name}/{stem(path)}" if "/" in name else stem(path))
            if match and match[1] in found:
                problems.append(f"{path}: a second file for eye {match[1]}, beside {found[match[1]].name}")
            elif match:
                found[match[1]] = path
        return found

    def read(self, folder: Path, fold: int) -> DataSet:
        """Pair the files of this data set."""
        problems: list[str] = []
        files = image_files(folder)
        images = self.find(self.image, files, problems)
        eyes = {
            eye: Source(
                "test" if self.tests(eye, fold) else "train", path, zlib.crc32(eye.encode()), scaled=True
            )
            for eye, path in images.items()
        }
        for target, name in self.files.items():
            found = self.find(name, files, problems)
            if found or target == "mask":
                pair(eyes, found, target, (self.image, folder), (name, folder), problems)
        for eye in eyes.values():
            if eye.part == "train":
                eye.files.pop("second_observer", None)
        split = self.split.format(fold)
        in_order = [eyes[eye] for eye in sorted(eyes)]
        data_set = DataSet(self.name, folder, in_order, problems, split, self.published)
        problems += [
            f"{folder}: no eyes of {self.name} to {part} ({split})"
            for part in ("train", "test")
            if not data_set.count(part)
        ]
        return data_set


# the 20 of STARE's 397 photographs that have labels
STARE = (1, 2, 3, 4, 5, 44, 77, 81, 82, 139, 162, 163, 235, 236, 239, 240, 255, 291, 319, 324)
STARE_FOLDS = 5

LAYOUTS = (
    Layout(
        "CHASE_DB1",
        eye=r"Image_\d+[LR]",
        image="{}",
        files={"mask": "{}_1stHO", "second_observer": "{}_2ndHO"},
        published=28,
        # the first 20 images and the last 8: both eyes of a child are on the same side
        split="children 01 to 10 train, the others test",
        tests=lambda eye, _: int(re.findall(r"\d+", eye)[0]) > 10,
    ),
    Layout(
        "STARE",
        eye=f"im(?:{'|'.join(f'{number:04d}' for number in STARE)})",
        image="{}",
        files={"mask": "{}.ah", "second_observer": "{}.vk"},
        published=len(STARE),
        # every fifth in the order of their numbers, so that no fold consists of neighbours
        split=f"fold {{}} of 0 to {STARE_FOLDS - 1} tests",
        tests=lambda eye, fold: STARE.index(int(eye[2:])) % STARE_FOLDS == fold,
    ),
    Layout(
        "HRF",
        eye=r"\d+_(?:h|g|dr)",
        image="images/{}",
        files={"mask": "manual1/{}", "fov": "mask/{}_mask"},
        published=45,
        # Orlando, Prokofyeva and Blaschko 2017: 15 and 30
        split="01 to 05 of each group train, the others test",
        tests=lambda eye, _: int(eye.split("_")[0]) > 5,
    ),
)

KNOWN = (
    "known are DRIVE (training/images, training/1st_manual), CHASE_DB1 (Image_01L.jpg, Image_01L_1stHO.png), "
    "STARE (im0001.ppm, im0001.ah.ppm, gzipped or not) and HRF (images/01_h.jpg, manual1/01_h.tif)"
)


def find_data_set(folder: Path, fold: int = 0) -> DataSet:
    """Recognise the data set in a folder or in one of its subfolders (archives are often nested).

    Args:
        folder: DRIVE, CHASE_DB1, STARE or HRF, unpacked.
        fold: which of the five folds of STARE tests.

    Raises:
        UserError: no known data set, or more than one.
    """
    if not folder.is_dir():
        archive = "not a folder; unpack it and give the folder"
        raise UserError(f"{folder}: {archive if folder.exists() else f'no such folder{did_you_mean(folder)}'}")
    found: dict[str, tuple[Path, Layout | None]] = {}
    for candidate in (folder, *subfolders(folder)):
        if has_drive(candidate):
            found.setdefault("DRIVE", (candidate, None))
        files = image_files(candidate)
        for layout in LAYOUTS:
            if layout.find(layout.image, files, []):
                found.setdefault(layout.name, (candidate, layout))
    if not found:
        raise UserError(f"{folder}: no data set that is known; {KNOWN}")
    if len(found) > 1:
        raise UserError(f"{folder}: more than one data set ({', '.join(found)}); give the folder of each")
    ((where, kind),) = found.values()
    return kind.read(where, fold) if kind else read_drive(where)


def find_drive(folder: Path) -> Path:
    """Find the folder with `training/`: the one given or one of its subfolders (the archive is often nested).

    Raises:
        UserError: DRIVE is not there; the message says where to get it.
    """
    for candidate in (folder, *subfolders(folder)):
        if has_drive(candidate):
            return candidate
    looked = f"looked for {folder / 'training' / 'images'} and {folder / '*' / 'training' / 'images'}"
    raise UserError(f"{folder}: DRIVE is not there ({looked}){did_you_mean(folder)}\n{WHERE_FROM}")


def has_drive(folder: Path) -> bool:
    """Whether this folder itself holds DRIVE."""
    return (folder / "training" / "images").is_dir()


def read_drive(drive: Path) -> DataSet:
    """Pair DRIVE's photographs, masks and fields of view by the number at the start of their names."""
    sources: list[Source] = []
    problems: list[str] = []
    for part, folder in (("train", drive / "training"), ("test", drive / "test")):
        images = by_number(folder / "images", problems)
        if not images:
            problems.append(f"{folder / 'images'}: no images")
        eyes = {number: Source(part, path, number) for number, path in images.items()}
        for name, target in (("1st_manual", "mask"), ("mask", "fov"), ("2nd_manual", "second_observer")):
            # today's download has no test labels; fields of view can be estimated
            if not (folder / name).is_dir() and not (part == "train" and target == "mask"):
                continue
            if part == "train" and target == "second_observer":
                continue
            files = by_number(folder / name, problems)
            pair(eyes, files, target, ("{}", folder / "images"), ("{}", folder / name), problems)
        sources += [eyes[number] for number in sorted(eyes)]
    return DataSet("DRIVE", drive, sources, problems)


def by_number(folder: Path, problems: list[str]) -> dict[int, Path]:
    """List a folder's images by the number at the start of their names; others are added to `problems`."""
    found: dict[int, Path] = {}
    for path in list_images(folder) if folder.is_dir() else []:
        match = re.match(r"\d+", path.name)
        if not match:
            problems.append(f"{path}: its name does not begin with the number of an eye")
        elif int(match[0]) in found:
            problems.append(
                f"{path}: a second file for eye {int(match[0])}, beside {found[int(match[0])].name}"
            )
        else:
            found[int(match[0])] = path
    return found


Key = TypeVar("Key", int, str)  # identifies an eye: its number or its name


def pair(
    eyes: dict[Key, Source],
    files: dict[Key, Path],
    target: str,
    photograph: tuple[str, Path],
    file: tuple[str, Path],
    problems: list[str],
) -> None:
    """Add to each eye its file; an eye or a file without a partner is added to `problems`.

    `photograph` and `file` name what is missing in the message: a name, in which {} stands for the eye, and a
    folder.
    """
    for eye in sorted(eyes.keys() | files.keys()):
        if eye not in eyes:
            problems.append(f"{files[eye]}: no photograph {photograph[0].format(eye)} in {photograph[1]}")
        elif eye not in files:
            problems.append(f"{eyes[eye].image}: no file {file[0].format(eye)} in {file[1]}")
        else:
            eyes[eye].files[target] = files[eye]


def image_files(folder: Path) -> list[Path]:
    """List the image files of a folder and its subfolders, including gzipped ones."""
    return [file for part in (folder, *subfolders(folder)) for file in list_images(part, {*SUFFIXES, ".gz"})]


def subfolders(folder: Path) -> list[Path]:
    """List the subfolders of a folder, sorted, without hidden ones."""
    return sorted(f for f in folder.glob("*") if f.is_dir() and not f.name.startswith("."))


def stem(path: Path) -> str:
    """The file name without suffix and without .gz: im0001.ppm.gz -> im0001."""
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem
