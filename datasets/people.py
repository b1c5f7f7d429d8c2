"""Whose eye a photograph shows, and of which visit, as the names of file and folders say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import NamedTuple

RIGHT = ("r", "re", "od", "right", "rechts", "droit", "droite")
LEFT = ("l", "le", "os", "og", "left", "links", "gauche")
SIDES = {**dict.fromkeys(RIGHT, "right"), **dict.fromkeys(LEFT, "left")}
SIDE_WORD = rf"(?<![^\W_])({'|'.join(sorted(SIDES, key=len, reverse=True))})(?![^\W_])"
SIDE_OF_NUMBER = r"(?<=\d)[LR](?![^\W_])"  # 07L, as CHASE_DB1 has it
DATE = r"(?:19|20)\d\d(?P<gap>[-_.]?)(?:0[1-9]|1[0-2])(?P=gap)(?:0[1-9]|[12]\d|3[01])"
VISIT = r"(?:visite?|besuch|termin|session|ses|follow[ _-]?up|fu|timepoint|month|monat|year|jahr|week)[ _-]?\d+"
VISIT = rf"(?<![^\W_])({VISIT}|v\d{{1,2}}|baseline|{DATE})(?![^\W_])"
PATIENT = r"patient|pat|participant|proband|person|subject|subj|sub|case|child|pid|id"
PATIENT = rf"(?<![^\W_])((?:{PATIENT})[ _-]?[^\W_]*\d[^\W_]*|[ps]\d{{1,6}})(?![^\W_])"
COUNTED = r"(img|dsc[nf]?|dcim|photo|scan|picture|fundus)?[ _-]?\d*"  # what cameras and people count with
FOLDERS = 3  # above a file that may say it, beside those that results are called by


class Person(NamedTuple):
    """Whose eye; each is empty where nothing says it."""

    patient: str
    eye: str  # right or left
    visit: str


def person_in(path: PurePath, place: Sequence[str] = ()) -> Person:
    """Read patient, eye and visit from the names of a photograph and its folders.

    `P001/visit1/OD.jpg`, `P001_v2_left.png`, `2024-05-01/mueller_links.tif`: a patient is what is called so,
    else what stands beside the eye in the file's name, else the folder of a file whose name has nothing else.

    Args:
        path: of the photograph; its last folders count where they have a number, or say eye or visit.
        place: folders that count whatever they are called, the outermost first, such as those between the
            folder that was searched and the photograph.
    """
    stem = re.sub(r"(\.\w{1,5})(\.gz)?$", "", path.name)
    telling = rf"\d|^{SIDE_WORD}$|^{VISIT}$"
    given = [name for name in path.parts[:-1][-FOLDERS:] if re.search(telling, name, re.IGNORECASE)]
    folders = [*reversed(place), *(name for name in reversed(given) if name not in place)]
    names = [stem, *folders]
    eye = next(filter(None, map(side_in, names)), "")
    visit = first(VISIT, names)
    patient = first(PATIENT, names)
    if not patient and (eye or visit):
        said = re.compile(rf"{SIDE_WORD}|{SIDE_OF_NUMBER}|{VISIT}", re.IGNORECASE)
        rest = [re.sub(r"([\W_])[\W_]+", r"\1", said.sub("", name)) for name in names]
        rest = [re.sub(r"^[\W_]|[\W_]$", "", name) for name in rest]  # nor what stood around it: (OD) –
        counted = re.fullmatch(COUNTED, rest[0], re.IGNORECASE)
        patient = next(filter(None, rest[1:] if counted else rest), "" if counted and counted[1] else rest[0])
    return Person(patient, eye, visit)


def side_in(name: str) -> str:
    """The eye that a name tells: right or left, empty if none or both."""
    words = [word[0].casefold() for word in re.finditer(f"{SIDE_WORD}|{SIDE_OF_NUMBER}", name, re.IGNORECASE)]
    sides = {SIDES[word] for word in words}
    return sides.pop() if len(sides) == 1 else ""


def first(pattern: str, names: Iterable[str]) -> str:
    """What the first of the names that has it says."""
    found = (re.search(pattern, name, re.IGNORECASE) for name in names)
    return next((match[1] for match in found if match), "")


def without_side(name: str) -> str:
    """A name without the eye at its end: 07L and p1_links become 07 and p1."""
    return re.sub(rf"({SIDE_OF_NUMBER}|[ _-]{SIDE_WORD})$", "", name, flags=re.IGNORECASE)
