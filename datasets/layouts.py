"""How published data sets name their files, as they unpack and as mirrors arrange them; pair each eye's files.

A file's name tells its eye, in small letters or capitals. What it is follows from the end of its name or, where
it has the photograph's name, from its folder: `labels/im0001.png`. The split follows from each eye's name: so a
missing eye moves no other one to the other side, and folders `train` and `test` of a mirror do not either.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from datasets.images import SUFFIXES, list_images
from datasets.kinds import KINDS_FILES
from datasets.pairing import first_number, stem
from datasets.volumes import VOLUMES
from system.records import RECORD


@dataclass
class Source:
    """The files of one eye as published."""

    part: str  # train or test
    name: str  # the eye's name in new_data, such as 21_training, Image_01L, im0001 or 01_h
    image: Path
    number: int  # seeds the random rotation of this eye
    # by target folder: mask, fov, second_observer, KINDS_FILES
    files: dict[str, Path] = field(default_factory=dict)
    scaled: bool = False  # whether training resizes it even where its field of view is as small as DRIVE's
    disc: float | None = None  # disc diameter of this camera in pixels, see `measure_discs`


@dataclass
class DataSet:
    """The eyes of one data set, and a message for each file that is missing, unpaired or ambiguous."""

    name: str
    folder: Path
    eyes: list[Source]
    problems: list[str]
    split: str  # as text
    published: int = 0  # number of eyes as published; 0 of data that are not

    def describe(self) -> str:
        """Describe the split, whether the data set is complete, and the discs that scale its training eyes."""
        eyes = len({eye.name for eye in self.eyes})
        there = "" if eyes >= self.published else f"only {eyes} of {self.published} eyes: "
        train, test = self.count("train"), self.count("test")
        discs = sorted({round(eye.disc) for eye in self.eyes if eye.part == "train" and eye.disc})
        sizes = " to ".join(map(str, discs[:1] + discs[1:][-1:]))  # the smallest and the largest
        scale = f"; discs of {sizes} pixels set the scale" if discs else ""
        return f"{self.name} in {self.folder}: {there}{train} to train, {test} to test ({self.split}){scale}"

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


# what a file is that has the photograph's name, by the name of the folder that it lies in; the first counts.
# DRIVE calls its fields of view masks, and many others their vessels; all of RITE lies in AV_groundTruth
ROLES = (
    ("arteries_veins", r"^(av|a_v)$|arter(y|ies).?(and.?)?veins?"),
    ("arteries", r"^arter(y|ies)"),
    ("veins", r"^veins?"),
    ("second_observer", r"2nd|second.?(observer|manual|reader)|manual_?2|vk$"),
    ("fov", r"fov"),
    ("mask", r"1st|manual|labels?(?![a-z])|annot|(?<!av_ground)truth|^gt$|segm|vessel"),
    ("either", r"mask"),
)


@dataclass(frozen=True)
class Layout:
    """The file names of a data set that comes without a split; {} stands for the name of an eye."""

    name: str
    eye: str  # regular expression of an eye's name, in small letters or capitals
    canonical: Callable[[str], str]  # the name as published
    image: str  # the photograph without suffix, with its folder where that matters
    files: dict[str, str]  # the same for its other files, by target folder; only the mask is required
    published: int  # number of eyes
    split: str  # as text
    tests: Callable[[str, int], bool]  # whether an eye is a test eye, given the fold

    def identify(self, path: Path, folder: Path) -> tuple[str, str] | None:
        """The eye of a file below `folder`, and what it is: image, mask, fov, second_observer; or None."""
        ends = {name.partition("{}")[2].casefold(): target for target, name in self.files.items()}
        ends |= {"_mask": "fov", "_fov": "fov", "_avmanual": "arteries_veins", "": "image"}
        pattern = f"({self.eye})({'|'.join(map(re.escape, ends))})"
        match = re.fullmatch(pattern, stem(path), re.IGNORECASE)
        if not match:
            return None
        target = ends[match[2].casefold()]
        if target in ("image", "fov"):
            target = (role(path, folder) or target).replace("either", "fov")
        return self.canonical(match[1]), target

    def find(self, folder: Path) -> tuple[dict[str, dict[str, Path]], list[str]]:
        """Find the files below `folder`, by target and eye; and a message for each second file of an eye."""
        problems: list[str] = []
        found: dict[str, dict[str, Path]] = {}
        for path in image_files(folder):
            if not (known := self.identify(path, folder)):
                continue
            eye, target = known
            other = found.setdefault(target, {}).setdefault(eye, path)
            if other != path:
                problems.append(second_file(path, eye, other))
        return found, problems

    def read(self, folder: Path, fold: int) -> DataSet | None:
        """Pair the files of this data set below `folder`; None if there is no photograph of it."""
        found, problems = self.find(folder)
        if not (images := found.pop("image", {})):
            return None
        paths = [path for files in (images, *found.values()) for path in files.values()]
        folder = Path(os.path.commonpath([path.parent for path in paths]))
        eyes = {}
        for eye, path in images.items():
            part = "test" if self.tests(eye, fold) else "train"
            eyes[eye] = Source(part, eye, path, zlib.crc32(eye.encode()), scaled=True)
        photograph, mask = (self.image, folder), self.files["mask"]
        if not found.get("mask"):
            problems.append(no_labels(folder, mask.format(min(eyes)), found.get("fov", {}).values()))
        for target, files in found.items():
            add_files(eyes, files, target, photograph, (self.files.get(target, "{}"), folder), problems)
        for source in eyes.values():
            if source.part == "train":
                source.files.pop("second_observer", None)
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
        canonical=lambda eye: f"Image_{first_number(eye):02d}{eye[-1].upper()}",
        image="{}",
        files={"mask": "{}_1stHO", "second_observer": "{}_2ndHO"},
        published=28,
        # the first 20 images and the last 8: both eyes of a child are on the same side
        split="children 01 to 10 train, the others test",
        tests=lambda eye, _: first_number(eye) > 10,
    ),
    Layout(
        "STARE",
        eye=f"im0*(?:{'|'.join(map(str, STARE))})",
        canonical=lambda eye: f"im{first_number(eye):04d}",
        image="{}",
        files={"mask": "{}.ah", "second_observer": "{}.vk"},
        published=len(STARE),
        # every fifth in the order of their numbers, so that no fold consists of neighbours
        split=f"fold {{}} of 0 to {STARE_FOLDS - 1} tests",
        tests=lambda eye, fold: STARE.index(first_number(eye)) % STARE_FOLDS == fold,
    ),
    Layout(
        "HRF",
        eye=r"\d+_(?:h|g|dr)",
        canonical=lambda eye: f"{first_number(eye):02d}_{eye.split('_')[1].lower()}",
        image="images/{}",
        files={"mask": "manual1/{}", "fov": "mask/{}_mask"},
        published=45,
        # Orlando, Prokofyeva and Blaschko 2017: 15 and 30
        split="01 to 05 of each group train, the others test",
        tests=lambda eye, _: first_number(eye) > 5,
    ),
)


def role(path: Path, folder: Path) -> str:
    """What a file is by the nearest folder that tells, of those between it and `folder`; empty if none does."""
    for parent in path.relative_to(folder).parents:
        for target, names in ROLES:
            if re.search(names, parent.name, re.IGNORECASE):
                return target
    return ""


def second_file(path: Path, eye: str | int, other: Path) -> str:
    """The message that an eye has two files, with what to do."""
    beside = other.name if other.parent == path.parent else other
    return f"{path}: a second file for eye {eye}, beside {beside}; remove one of them"


def no_labels(folder: Path, example: str, others: Iterable[Path]) -> str:
    """The message that a data set has no vessel masks, with what to do; `others` are other masks of it."""
    places = sorted({str(path.parent) for path in others})
    there = f", or if they are the files in {', '.join(places)}, rename that to labels" if places else ""
    return f"{folder}: no vessel masks; name them as {example}, or put them into a folder labels{there}"


def add_files(
    eyes: dict[str, Source],
    files: dict[str, Path],
    target: str,
    photograph: tuple[str, Path],
    file: tuple[str, Path],
    problems: list[str],
) -> None:
    """Add to each eye its file; a file without a partner is added to `problems`, and an eye too.

    Arteries and veins may be drawn in some of the eyes only. `photograph` and `file` name what is missing in
    the message: a name, in which {} stands for the eye, and a folder.
    """
    for eye in sorted(eyes.keys() | files.keys()):
        if eye not in eyes:
            problems.append(f"{files[eye]}: no photograph {photograph[0].format(eye)} in {photograph[1]}")
        elif eye in files:
            eyes[eye].files[target] = files[eye]
        elif target not in KINDS_FILES:
            problems.append(f"{eyes[eye].image}: no file {file[0].format(eye)} in {file[1]}")


def image_files(folder: Path, *more: str) -> list[Path]:
    """List images and volumes of a folder and those inside it, also gzipped, and files of `more` suffixes."""
    suffixes = {*SUFFIXES, ".gz", *VOLUMES, *more}
    return [f for inside in folders(folder) for f in list_images(inside, suffixes)]


def folders(folder: Path, depth: int = 4) -> Iterator[Path]:
    """Yield a folder and those inside it, so many deep, without hidden ones, macOS's and scripts' results."""
    yield folder
    for inside in sorted(filter(os.path.isdir, folder.glob("*"))) if depth else []:
        in_circle = inside.is_symlink() and folder.resolve().is_relative_to(inside.resolve())
        if (
            not in_circle
            and not inside.name.startswith((".", "__MACOSX"))
            and not os.path.lexists(inside / RECORD)
        ):
            yield from folders(inside, depth - 1)
