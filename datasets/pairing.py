"""Which file belongs to which eye, by their names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize


class Matches(NamedTuple):
    """The file of each eye, and a line for each eye or file that is left."""

    files: dict[str, Path]  # by the name of the eye
    several: list[str]  # eyes with several files that fit alike
    without: list[str]  # eyes without a file
    unclear: list[str]  # files that could be of several eyes
    surplus: list[str]  # files of no eye, or of one that has a better one


def match(files: Iterable[Path], names: Mapping[str, Collection[str]]) -> Matches:
    """Find each eye's file by its name.

    A file belongs to the eye whose name it has; else to the eye whose name it contains as a word, such as
    01_test_pred.png or unet-01_test.npy; else, if its name is a number or DRIVE's 01_manual1, to the only eye
    of that number.

    Args:
        files: masks or maps.
        names: how each eye may be called.
    """
    found = Matches({}, [], [], [], [])
    candidates: dict[str, dict[int, list[Path]]] = {eye: {} for eye in names}
    for path in files:
        owners, rule = owners_of(plain(stem(path)), names)
        if len(owners) == 1:
            candidates[owners[0]].setdefault(rule, []).append(path)
        elif owners:
            found.unclear.append(f"{path}: could be {' or '.join(owners)}")
        else:
            found.surplus.append(f"{path}: no eye has this name")
    for name, by_rule in candidates.items():
        best, *others = [by_rule[rule] for rule in sorted(by_rule)] or [[]]
        found.surplus.extend(f"{path}: {name} has {best[0].name}" for path in sum(others, []))
        if len(best) == 1:
            found.files[name] = best[0]
        elif best:
            found.several.append(f"{name}: has {len(best)} files, {', '.join(map(str, best))}; leave one")
        else:
            found.without.append(f"{name}: no file of its name")
    return found


def owners_of(name: str, names: Mapping[str, Collection[str]]) -> tuple[list[str], int]:
    """The eyes that a file of this `plain` name may belong to, and the number of the rule."""
    called = {eye: {plain(own) for own in every} for eye, every in names.items()}
    if exact := [eye for eye, own in called.items() if name in own]:
        return exact, 0
    inside = {
        eye: max((len(n) for n in own if re.search(rf"(?<![^\W_]){re.escape(n)}(?![^\W_])", name)), default=0)
        for eye, own in called.items()
    }
    if longest := max(inside.values(), default=0):  # im_1_left_pred has the names of im_1_left and of im_1
        return [eye for eye, length in inside.items() if length == longest], 1
    number = re.fullmatch(r"(\d{1,9})(?:_manual\d?)?", name)
    return [eye for eye in names if number and first_number(eye) == int(number[1])], 2


def first_number(name: str) -> int:
    """The first number in a name, 1 of 01_test; -1 if there is none."""
    found = re.search(r"\d+", name)
    return int(found[0]) if found else -1


def plain(name: str) -> str:
    """A name without capitals and with composed characters, as two systems may write it differently."""
    return normalize("NFC", name).casefold()


def stem(path: Path) -> str:
    """The file name without suffix and without .gz: im0001.ppm.gz -> im0001."""
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem
