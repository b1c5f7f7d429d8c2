"""Vessel masks and probability maps made by any program: read a folder of them and pair it with the eyes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.decoding import MAX_PIXELS, decode, turning
from datasets.eyes import Eye
from datasets.images import SUFFIXES, list_images, read_levels, read_mask, size
from datasets.kinds import ARTERY, VEIN, decode_kinds, join_kinds
from datasets.masks import ALL_BRIGHT, as_mask
from datasets.pairing import match
from scoring import metrics
from utils import UserError, explain, missing

HALVES = (("arteries", "artery"), ("veins", "vein"))  # folders, or ends of the names, of the masks of one kind
TINTED = 8  # levels by which the colours of a grey picture may differ, as in a JPEG
BLURRED = 0.02  # share of grey pixels up to which a JPEG is still a mask: it blurs edges


@dataclass
class Maps:
    """What a folder holds for the eyes."""

    levels: dict[str, np.ndarray] = field(default_factory=dict)  # by the eye's name: uint16 (H, W), `quantize`
    problems: list[str] = field(default_factory=list)  # a line for each eye that cannot be scored, and why
    surplus: list[str] = field(default_factory=list)  # a line for each file that belongs to no eye
    turned: list[str] = field(default_factory=list)  # files that their EXIF turns
    binary: bool = True  # masks, which have no curve; else probabilities
    kinds: dict[str, np.ndarray] = field(default_factory=dict)  # arteries and veins, where the folder has them


def name_folders(folders: Sequence[Path], results: Path) -> dict[str, tuple[Path, Path]]:
    """Give each folder a name and a folder for its results: `results`, or of several results/NAME.

    The name is the folder's own, or with those above it where that is not unique: unet_masks, lwnet_masks.

    Raises:
        UserError: a folder is given twice, or its own files would be overwritten.
    """
    whole = [folder.resolve() for folder in folders]
    for folder, place in zip(folders, whole, strict=True):
        if whole.count(place) > 1:
            raise UserError(f"--masks {folder}: given twice")
    for depth in range(1, max(len(place.parts) for place in whole) + 1):
        names = [name_of_results(place, depth) for place in whole]
        if len({name.casefold() for name in names}) == len(names):
            break
    named = {
        name: (folder, results / name if len(folders) > 1 else results)
        for name, folder in zip(names, folders, strict=True)
    }
    for folder, own in named.values():
        if folder.resolve() in {own.resolve(), own.resolve() / "masks"}:
            raise UserError(f"--results {results}: would overwrite files in {folder}; choose another folder")
    return named


def name_of_results(place: Path, depth: int) -> str:
    """The name of a folder with those above it, so many in all, that no table or record of the results has."""
    name = "_".join(place.relative_to(place.anchor).parts[-depth:]) or "root"  # the anchor would lead elsewhere
    return f"{name}_2" if name.lower().endswith((".csv", ".json")) else name


def read_maps(folder: Path, eyes: Sequence[Eye]) -> Maps:
    """Read the masks or probability maps of a folder and pair them with the eyes by name; nothing is resized.

    Images have 8 or 16 bits, `.npy` arrays probabilities from 0 to 1, or 0 and 1, or 8 or 16 bits; 8 bits if
    no number of the folder's is above 255, and masks of 0 and 1 if none is above 1. Maps of arteries and veins
    are masks of vessels too. Of a folder with folders `arteries` and `veins`, or files whose names end so,
    these are read, and its `masks`; without `masks`, vessels are what is either.

    Raises:
        UserError: the folder is missing or no file of it fits an eye; the message has all reasons.
    """
    if not folder.is_dir():
        raise UserError(missing(folder, "folder"))
    maps = Maps()
    halves = list_halves(folder)
    files = [] if all(halves) else list_images(folder, {*SUFFIXES, ".npy"})
    if all(halves):
        artery, vein = (read_paired(half, eyes, read_mask, maps)[0] for half in halves)
        maps.kinds = {name: join_kinds(artery[name], vein[name]) for name in artery if name in vein}
        lone = sorted(artery.keys() ^ vein.keys())
        wrong = "a mask of one kind, and no right one of the other"
        maps.problems += [f"{folder}: of {name} {wrong}" for name in lone]
        files = list_images(folder / "masks") if (folder / "masks").is_dir() else []
    elif any(eye.kinds is not None for eye in eyes):
        maps.kinds = read_maps_of_kinds(files, eyes)
    if not files and not maps.kinds:
        inside = next((f for f in (folder / "probability", folder / "masks") if f.is_dir()), None)
        hint = f"; did you mean {inside}?" if inside else ""
        what = f"{folder}: no images and no .npy files{hint}"
        raise UserError("\n  ".join([what, *maps.problems, *maps.surplus]))
    if files:
        found, suffixes = read_paired(files, eyes, read_map, maps)
    else:
        found = {name: as_mask(kinds > 0) for name, kinds in maps.kinds.items()}
        suffixes = dict.fromkeys(found, ".png")
    try:
        scale(folder, found)
    except UserError as error:
        maps.problems.append(str(error))
        found = {}
    if not found:
        raise UserError("\n  ".join([f"{folder}: nothing to score:", *maps.problems, *maps.surplus]))
    maps.binary = all(is_binary(levels, suffixes[name]) for name, levels in found.items())
    whole = [eye for eye in eyes if eye.name in found]
    if bright := [e.name for e in whole if np.mean(found[e.name][e.fov > 0] > 32767) > 0.5]:
        print(f"{folder}: more than half of {', '.join(bright[:5])} is vessel; inverted? Vessels are white")
    if (highest := max(levels.max() for levels in found.values()) / 65535) < 0.5:
        print(f"{folder}: no probability above {highest:.2f}; percent? Levels are of 0 to 255, or 0 to 65535")
    if maps.turned:
        print(f"{folder}: turned as their EXIF says, whether drawn so or not: {', '.join(maps.turned[:5])}")
    maps.levels = found
    return maps


def list_halves(folder: Path) -> list[list[Path]]:
    """The masks of arteries and those of veins, in folders or by the ends of names; lists may be empty."""
    folders = [[folder / name for name in names if (folder / name).is_dir()][:1] for names in HALVES]
    if all(folders):
        return [list_images(own) for (own,) in folders]
    ends = [re.compile(rf"[ _.-]({'|'.join(names)})$", re.IGNORECASE) for names in HALVES]
    return [[path for path in list_images(folder) if end.search(path.stem)] for end in ends]


def read_paired(
    files: Sequence[Path], eyes: Sequence[Eye], read: Callable[[Path], np.ndarray], maps: Maps
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read each eye's file, and add what is wrong to `maps`; returns pixels and suffix by the eye's name."""
    matched = match(files, {eye.name: {eye.name, eye.result_name} for eye in eyes})
    paired = matched.files
    maps.problems += matched.several + matched.without
    maps.surplus += matched.unclear + matched.surplus
    found: dict[str, np.ndarray] = {}
    for eye in eyes:
        if (path := paired.get(eye.name)) is None:
            continue
        try:
            pixels = read(path)
            if pixels.shape != eye.fov.shape:
                sizes = f"{size(pixels)} pixels, but {eye.name} has {size(eye.fov)}"
                raise UserError(f"{path}: {sizes}; nothing is resized to be scored")
            found[eye.name] = pixels
        except UserError as error:
            maps.problems.append(str(error))
    maps.turned += [paired[name].name for name in found if turning(paired[name])]
    return found, {name: paired[name].suffix for name in found}


def read_maps_of_kinds(files: Sequence[Path], eyes: Sequence[Eye]) -> dict[str, np.ndarray]:
    """Read maps of arteries and veins, by the eye's name; empty if no file has both, as with vessel masks.

    One rule for a folder: one eye's map may well be without arteries. What is wrong with a file is said where
    it is read as a mask of vessels.
    """
    images = [path for path in files if path.suffix.lower() != ".npy"]
    kinds, _ = read_paired(images, eyes, decode_kinds, Maps())
    both = any((own == ARTERY).any() and (own == VEIN).any() for own in kinds.values())
    return kinds if both else {}


def read_map(path: Path) -> np.ndarray:
    """Read a mask or a probability map as the file has it: (H, W), uint8, uint16 or float32.

    Raises:
        UserError: unreadable, a colour picture, or not one number a pixel; floats beyond 0 to 1.
    """
    if path.suffix.lower() != ".npy":
        levels = decode(path)
        if levels.ndim == 2:
            return levels
        if levels.shape[2] == 3 and (levels == levels[..., :1]).all():
            return levels[..., 0]
        with contextlib.suppress(UserError):  # in colours or in the transparency, as labelling tools draw
            if not (mask := read_mask(path)).all():
                return mask
        levels = read_levels(path)
        if (levels.max(axis=2) - levels.min(axis=2)).max() > TINTED:
            raise UserError(f"{path}: a colour picture, not a mask or a probability map")
        return levels.max(axis=2)
    try:
        # mapped first: a header may claim any size
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.size > MAX_PIXELS:
            raise UserError(f"{path}: more than {MAX_PIXELS:,} numbers")
        shape, array = array.shape, np.squeeze(array) if array.ndim > 2 else array
        if array.ndim != 2 or array.dtype.kind not in "buif":
            raise UserError(f"{path}: {array.dtype} {shape}; give one number a pixel, (H, W)")
        lowest, highest = array.min(), array.max()
    except (OSError, ValueError, EOFError) as error:
        raise UserError(explain(error, path, "cannot be read as an array")) from None
    if array.dtype.kind == "f":
        if not (lowest >= 0 and highest <= 1):  # false for NaN too
            what = "numbers from {:.4g} to {:.4g}, not probabilities from 0 to 1 (logits? apply the sigmoid)"
            raise UserError(f"{path}: {what.format(lowest, highest)}")
        return np.array(array, np.float32)
    if lowest < 0 or highest > 65535:
        raise UserError(f"{path}: whole numbers from {lowest} to {highest}; give 8 or 16 bits, or 0 to 1")
    return np.array(array, np.uint8 if array.dtype.itemsize == 1 else np.uint16)


def scale(folder: Path, maps: dict[str, np.ndarray]) -> None:
    """Turn what `read_map` gives, in place, into levels of 0 to 65535.

    One rule for a folder, so that a blank mask or a map without vessels is not read in its own way.

    Raises:
        UserError: the numbers are neither of masks nor of probabilities.
    """
    whole = [levels for levels in maps.values() if levels.dtype.kind == "u"]
    counts = sum(np.bincount(levels.ravel(), minlength=metrics.LEVELS) for levels in whole)
    found = np.flatnonzero(counts).tolist()
    top = found[-1] if found else 0
    full = next(full for full in (1, 255, 65535) if top <= full)
    if len(found) > 1 and found[0] > top // 2:
        raise UserError(f"{folder}: {ALL_BRIGHT}")
    # two levels, or artery, vein and both, as in labels
    classes = found[:1] == [0] and (len(found) == 2 or top <= 3)
    if 1 < top < 8 and not classes:
        raise UserError(f"{folder}: levels of 0 to {top}, labels of classes? Masks have 0 and 255, or 0 and 1")
    for name, levels in maps.items():
        if levels.dtype.kind == "u":
            # beside one of 0 and 255 a mask of 0 and 1 would be blank
            two = 0 < (highest := levels.max()) < full and set(np.unique(levels)) == {0, highest}
            if not classes and (two or levels.dtype == np.uint8 and full == 65535):
                differ = f"{name} has levels of 0 to {highest}, others of 0 to {top}"
                raise UserError(f"{folder}: {differ}; save all alike")
            levels = np.float32(levels > 0) if classes else levels / np.float64(full)
        maps[name] = metrics.quantize(levels)


def is_binary(levels: np.ndarray, suffix: str) -> bool:
    """Whether levels, uint16 (H, W), are a mask's: two values, or in a JPEG nearly so."""
    if suffix.lower() in (".jpg", ".jpeg"):
        return bool(np.mean((levels > 32 * 257) & (levels < 223 * 257)) <= BLURRED)
    return bool(np.isin(levels, (0, metrics.LEVELS - 1)).all())
