"""Vessel masks and probability maps made by any program: read a folder of them and pair it with the eyes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.decoding import MAX_PIXELS, decode
from datasets.eyes import Eye
from datasets.images import SUFFIXES, list_images, read_levels, read_mask, size
from datasets.pairing import match
from scoring import metrics
from utils import UserError, did_you_mean

TINTED = 8  # levels by which the colours of a grey picture may differ, as in a JPEG
BLURRED = 0.02  # share of grey pixels up to which a JPEG is still a mask: it blurs edges


@dataclass
class Maps:
    """What a folder holds for the eyes."""

    levels: dict[str, np.ndarray] = field(default_factory=dict)  # by the eye's name: uint16 (H, W), `quantize`
    problems: list[str] = field(default_factory=list)  # a line for each eye that cannot be scored, and why
    surplus: list[str] = field(default_factory=list)  # a line for each file that belongs to no eye
    binary: bool = True  # masks, which have no curve; else probabilities


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
    no number of the folder's is above 255, and masks of 0 and 1 if none is above 1.

    Raises:
        UserError: the folder is missing or no file of it fits an eye; the message has all reasons.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder{did_you_mean(folder)}")
    maps = Maps()
    if not (files := list_images(folder, {*SUFFIXES, ".npy"})):
        inside = next((f for f in (folder / "probability", folder / "masks") if f.is_dir()), None)
        hint = f"; did you mean {inside}?" if inside else ""
        raise UserError(f"{folder}: no images and no .npy files{hint}")
    called = {eye.name: {eye.name, eye.result_name} for eye in eyes}
    paired, maps.problems, maps.surplus = match(files, called)
    found: dict[str, np.ndarray] = {}
    for eye in eyes:
        if (path := paired.get(eye.name)) is None:
            continue
        try:
            found[eye.name] = read_map(path)
            if found[eye.name].shape != eye.fov.shape:
                pixels = f"{size(found.pop(eye.name))} pixels, but {eye.name} has {size(eye.fov)}"
                raise UserError(f"{path}: {pixels}; nothing is resized to be scored")
        except UserError as error:
            found.pop(eye.name, None)
            maps.problems.append(str(error))
    try:
        scale(folder, found)
    except UserError as error:
        maps.problems.append(str(error))
        found = {}
    if not found:
        raise UserError("\n  ".join([f"{folder}: nothing to score:", *maps.problems, *maps.surplus]))
    maps.binary = all(is_binary(levels, paired[name].suffix) for name, levels in found.items())
    maps.levels = found
    return maps


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
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: cannot be read as an array ({reason})") from None
    if array.dtype.kind == "f":
        if not (lowest >= 0 and highest <= 1):  # false for NaN too
            what = "numbers from {:.4g} to {:.4g}, not probabilities from 0 to 1 (logits? apply the sigmoid)"
            raise UserError(f"{path}: {what.format(lowest, highest)}")
        return np.array(array, np.float32)
    if lowest < 0 or highest > 65535:
        raise UserError(f"{path}: whole numbers from {lowest} to {highest}; give 8 or 16 bits, or 0 to 1")
    return np.array(array, np.uint16)


def scale(folder: Path, maps: dict[str, np.ndarray]) -> None:
    """Turn what `read_map` gives, in place, into levels of 0 to 65535.

    One rule for a folder, so that a blank mask or a map without vessels is not read in its own way.

    Raises:
        UserError: the numbers are neither of masks nor of probabilities.
    """
    whole = [levels for levels in maps.values() if levels.dtype.kind == "u"]
    found = sorted(
        {level for levels in whole for level in np.flatnonzero(np.bincount(levels.ravel())).tolist()}
    )
    top = found[-1] if found else 0
    full = next(full for full in (1, 255, 65535) if top <= full)
    # two levels, or artery, vein and both, as in labels
    classes = found[:1] == [0] and (len(found) == 2 or top <= 3)
    if 1 < top < 8 and not classes:
        raise UserError(f"{folder}: levels of 0 to {top}, labels of classes? Masks have 0 and 255, or 0 and 1")
    for name, levels in maps.items():
        if levels.dtype.kind == "u":
            levels = np.float32(levels > 0) if classes else levels / np.float64(full)
        maps[name] = metrics.quantize(levels)


def is_binary(levels: np.ndarray, suffix: str) -> bool:
    """Whether levels, uint16 (H, W), are a mask's: two values, or in a JPEG nearly so."""
    if suffix.lower() in (".jpg", ".jpeg"):
        return bool(np.mean((levels > 32 * 257) & (levels < 223 * 257)) <= BLURRED)
    return bool(np.isin(levels, (0, metrics.LEVELS - 1)).all())
