"""The eyes of new_data: read them and split them by eye.

Layout of `new_data`, written by augment.py and read by train.py and test.py:

    new_data/dataset.json            size, seed, number of eyes, pixels per disc, data sets
    new_data/{train,test}/image/     photographs, RGB PNG
    new_data/{train,test}/mask/      vessel masks of the same names, 0 or 255; test/mask only with test labels
    new_data/{train,test}/fov/       fields of view of the same names, 0 or 255
    new_data/train/probability/      in place of masks, 0 to 255: what trained networks found, see `Eye.taught`
    new_data/test/second_observer/   the second human's vessel masks, where there are any
    new_data/{train,test}/arteries_veins/    arteries and veins, where these are known, see `datasets.kinds`
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unicodedata import normalize

from datasets.duplicates import find_equal, fingerprint
from datasets.eyes import Eye, load_eye
from datasets.field_of_view import estimate_fov
from datasets.images import list_images, read_image
from datasets.kinds import KINDS_FILES
from datasets.people import without_side
from utils import UserError, did_you_mean, explain

# what tables call their rows that are no eyes
TAKEN_NAMES = {"mean", "pooled", "second_observer", "std_of_eyes", "std_of_folds"}


def read_eyes(folder: Path, labels: bool, refused: list[str] | None = None) -> list[Eye]:
    """Read `new_data/train` or `new_data/test`.

    Args:
        folder: has `image/`, and where known `mask/`, `fov/`, `second_observer/`, `arteries_veins/` with files
            of the same names.
        labels: whether an image without a mask is an error.
        refused: collects a message for each bad image, which is then left out; if None, a bad image is an
            error.

    Raises:
        UserError: no images, or files that are missing, unreadable or of another size (all are named); or
            augment.py rewrote the folder meanwhile, so that eyes of two runs may be mixed.
    """
    before = version(folder)
    if not (folder / "image").is_dir() or not (images := list_images(folder / "image")):
        hint = did_you_mean(folder / "image")
        raise UserError(f"{folder / 'image'}: no images{hint}; write them with: python augment.py")
    eyes, problems, taken = [], [], set()
    names = names_of(images)
    sets = read_sets(folder.parent)
    for path in images:
        try:
            eye = read_eye(path, folder, labels)
            eye.name = names[path]
            eye.source = sets.get(eye_of(eye.name), "")
            if problem := doubt_name(path, eye_of(eye.name)):
                raise UserError(problem)
            # some file systems ignore case
            if (name := eye.result_name.casefold()) in taken:
                raise UserError(f"{path}: its results would have the name of another image's; rename it")
        except UserError as error:
            problems.append(str(error))
        except OSError as error:  # a link into a folder that may not be searched
            problems.append(explain(error, error.filename or path))
        else:
            taken.add(name)
            eyes.append(eye)
    if version(folder) != before:
        raise UserError(f"{folder}: augment.py wrote it anew while it was read; start again when it has ended")
    if refused is not None and eyes:
        refused += problems
    elif problems:
        mend = "unusable; mend them (masks have the photographs' names and suffixes) or run augment.py again"
        raise UserError("\n  ".join([f"{folder}: {len(problems)} {mend}", *problems]))
    return eyes


def version(folder: Path) -> tuple[int, int] | None:
    """A value that changes when augment.py rewrites the new_data that `folder` is part of."""
    try:
        info = (folder.parent / "dataset.json").stat()
    except FileNotFoundError:
        return None
    return info.st_mtime_ns, info.st_ino


def read_info(folder: Path) -> dict[str, Any]:
    """Read new_data/dataset.json; empty if augment.py wrote none, as in a folder made by hand.

    Raises:
        UserError: it is there, but cannot be read: the scale and whom teachers learned from would be lost.
    """
    path = folder / "dataset.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        why = error if isinstance(error, OSError) else ValueError("damaged")
        raise UserError(explain(why, path, "cannot be read", "run augment.py again")) from None
    # another program's file of this name says nothing here
    own = isinstance(info, dict) and {"size", "seed", "test_labels", "train", "test"} <= info.keys()
    return info if own else {}


def doubt_size(folder: Path) -> str:
    """Why scores of the eyes in new_data are not those of others; "" where their labels have their own size."""
    side = read_info(folder).get("size")
    return "" if side is None else f"Scores of truth at {side}x{side}: not comparable with published ones."


def read_sets(folder: Path) -> dict[str, str]:
    """Read the data set of each eye from new_data/dataset.json, by the name of the eye; empty if not noted."""
    sets = read_info(folder).get("sets", {})
    if not isinstance(sets, dict) or not all(isinstance(name, str) for name in sets.values()):
        raise UserError(f"{folder / 'dataset.json'}: its list of data sets is damaged; run augment.py again")
    return sets


def read_working_disc(folder: Path) -> float | None:
    """Read the pixels per disc diameter of new_data's training eyes; None where they are as they were taken."""
    disc = read_info(folder).get("disc")
    if disc is not None and not (isinstance(disc, (int, float)) and 16 <= disc <= 1024):
        raise UserError(f"{folder / 'dataset.json'}: its size of the disc is damaged; run augment.py again")
    return disc


def read_eye(path: Path, folder: Path, labels: bool) -> Eye:
    """Read one image of `folder/image` with its masks; see `read_eyes`."""
    files = {}
    taught = partner(path, folder / "probability")
    if taught.exists():
        files["probability"], labels = taught, False
    for part in ("fov", *(() if files else ("mask",)), "second_observer", *KINDS_FILES):
        file = partner(path, folder / part)
        # a second observer, or who drew arteries and veins, may have drawn only some of the eyes
        if (labels and part == "mask") or (file.parent if part in ("fov", "mask") else file).exists():
            files[part] = file
    return load_eye(path.stem, path, files)


def partner(image: Path, folder: Path) -> Path:
    """The file of `folder` with an image's name: with its suffix, else with another, composed or decomposed.

    Raises:
        UserError: it could be several.
    """
    same = folder / image.name
    if same.exists() or not folder.is_dir():
        return same
    others = [f for f in list_images(folder) if normalize("NFC", f.stem) == normalize("NFC", image.stem)]
    if len(others) > 1:
        raise UserError(f"{others[0]}: beside {others[1].name}, both of {image.name}; remove one of them")
    return others[0] if others else same


def names_of(images: Sequence[Path]) -> dict[Path, str]:
    """The name of each image of new_data: that of its file, which ends in _0, _1 and so on for copies.

    In a folder made by hand, patient_1 beside no patient_0 is no copy but an eye of its own: patient_1_0.
    """
    stems = {path.stem for path in images}
    own = {stem for stem in stems if eye_of(stem) != stem and f"{eye_of(stem)}_0" not in stems}
    return {path: f"{path.stem}_0" if path.stem in own else path.stem for path in images}


def eye_of(name: str) -> str:
    """The eye of a copy: 21_training_3 -> 21_training."""
    return re.sub(r"_\d+$", "", name)


def doubt_name(path: Path, eye: str) -> str:
    """What is wrong with the name of an eye, whose image lies at `path`; empty if nothing is."""
    return f"{path}: a row of the tables is called so; rename it" if eye.casefold() in TAKEN_NAMES else ""


def first_copies(eyes: Iterable[Eye]) -> list[Eye]:
    """The first copy of each eye, in order: the unchanged photograph."""
    first: dict[str, Eye] = {}
    for eye in eyes:
        first.setdefault(eye_of(eye.name), eye)
    return list(first.values())


def split_taught(eyes: Mapping[str, Eye]) -> tuple[list[str], list[str]]:
    """The names of the eyes that have labels, and of those that teachers taught: these only ever train."""
    taught = [name for name, eye in eyes.items() if eye.taught]
    return [name for name, eye in eyes.items() if not eye.taught], taught


def check_different(folder: Path, eyes: Iterable[Eye]) -> None:
    """Check that no photograph of `folder` has two names: it could train and validate.

    Raises:
        UserError: names each pair.
    """
    first = {eye.name: eye for eye in first_copies(eyes)}
    pairs = find_equal({name: fingerprint(eye.image, eye.fov) for name, eye in first.items()})
    pairs = [pair for pair in pairs if not all(first[name].taught for name in pair)]  # these only train
    if pairs:
        equal = [
            f"{one} and {other} are the same photograph, perhaps turned or mirrored" for one, other in pairs
        ]
        remedy = "remove one of each; copies of one eye are called NAME_0, NAME_1, and so on"
        raise UserError("\n  ".join([f"{folder / 'image'}: {remedy}:", *equal]))


def seen_in_training(folder: Path, eyes: Sequence[Eye], trained_on: Collection[str]) -> dict[str, str]:
    """Find test eyes of new_data, `folder`, whose photograph lies in its training part under another name.

    `trained_on` names the eyes that trained the network; if it is empty, all of the training part count.

    Returns:
        The name of the training eye by the name of the test eye.
    """
    images = list_images(folder / "train" / "image") if (folder / "train" / "image").is_dir() else []
    first = {eye_of(name): path for path, name in reversed(names_of(images).items())}
    own = {eye_of(eye.name) for eye in eyes}
    prints = {}
    for name, path in first.items():
        if name in own or (trained_on and name not in trained_on):
            continue  # the same name on both sides is meant so: augment.py --leave-one-out
        with contextlib.suppress(UserError):  # train.py speaks of bad files there
            image = read_image(path)
            prints[name] = fingerprint(image, estimate_fov(image))
    tested = {eye.name: fingerprint(eye.image, estimate_fov(eye.image)) for eye in eyes} if prints else {}
    pairs = find_equal({**tested, **prints})
    return {one: other for one, other in pairs if one in tested and other in prints}


def person_of(name: str) -> str:
    """The person of a copy: Image_01L_3 and Image_01R_0 -> Image_01; else the eye itself.

    The left and the right eye of one person end in L or R after a number (CHASE_DB1), or in _L, _R, _OD, _OS,
    _left, _right and so on (`datasets.people.SIDES`).
    """
    return without_side(eye_of(name))


def split_by_eye(
    names: Sequence[str], fraction: float = 0.15, seed: int = 42, always_train: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Split copies into `train` and `validation`, keeping all copies of an eye on one side.

    Both eyes of a person stay together too, since they are alike. A random split of the copies would put copies
    of nearly every validation eye into training and make validation scores worthless.

    Raises:
        UserError: the eyes of fewer than two people.
    """
    from sklearn.model_selection import GroupShuffleSplit

    people = [person_of(name) for name in names]
    if len(set(people)) < 2:
        raise UserError(
            f"eyes of {len(set(people))} person: a split into training and validation needs at least 2; "
            "NAME_0, NAME_1 and so on are copies of one eye"
        )
    sides = next(GroupShuffleSplit(1, test_size=fraction, random_state=seed).split(names, groups=people))
    split = {side: [names[i] for i in rows] for side, rows in zip(("train", "validation"), sides, strict=True)}
    split["train"] += always_train
    check_split(split)
    return split


def check_split(split: dict[str, list[str]]) -> None:
    """Raise UserError if an eye, or one person's eyes, are in both training and validation."""
    both = {person_of(n) for n in split["train"]} & {person_of(n) for n in split["validation"]}
    if both:
        raise UserError(f"split: {', '.join(sorted(both))} in both training and validation; split by eye")
