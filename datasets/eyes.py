"""One photograph with its masks: read and checked together, brought to another size together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from datasets.checks import check_fov, check_label
from datasets.decoding import turning
from datasets.field_of_view import estimate_fov
from datasets.images import read_fov, read_image, read_mask, read_probability, size
from datasets.kinds import KINDS_FILES, NONE, UNCERTAIN, check_kinds, join_kinds, read_kinds, split_kinds
from datasets.masks import as_mask
from datasets.polygons import draw_polygons
from utils import UserError


@dataclass
class Eye:
    """One photograph with its masks, all of the same height and width."""

    name: str  # such as 21_training_0
    image: np.ndarray  # uint8 (H, W, 3) RGB
    fov: np.ndarray  # uint8 (H, W), 0 or 255
    mask: np.ndarray | None = None  # uint8 (H, W), 0 or 255; where `taught` anything between
    second: np.ndarray | None = None  # a second observer's mask
    kinds: np.ndarray | None = None  # arteries and veins, uint8 (H, W), see `datasets.kinds`
    source: str = ""  # the data set it is from, where new_data says so
    taught: bool = False  # `mask` is the probability that trained networks find, not drawn by anyone

    @property
    def truth(self) -> np.ndarray:
        """The vessel mask, uint8 (H, W), 0 or 255, or where `taught` the probability of vessel.

        Raises:
            ValueError: the eye has none.
        """
        if self.mask is None:
            raise ValueError(f"{self.name}: no vessel mask")
        return self.mask

    def target(self, output: str) -> tuple[np.ndarray, np.ndarray]:
        """What an output of a network is to find here, and where that is known: (H, W), not 0 there.

        Outputs are `vessels`, `artery` and `vein`; vessels of unknown kind count for neither of these.

        Raises:
            ValueError: the eye has no such labels.
        """
        if output == "vessels":
            return self.truth, self.fov
        if self.kinds is None:
            raise ValueError(f"{self.name}: no labels of arteries and veins")
        known = np.where(self.kinds == UNCERTAIN, np.uint8(0), self.fov)
        return split_kinds(self.kinds)[("artery", "vein").index(output)], known

    @property
    def result_name(self) -> str:
        """The name of its result files: 01_test_0 -> 01_test."""
        return re.sub(r"_0$", "", self.name)


def digest(eyes: Iterable[Eye]) -> str:
    """SHA-256 of all pixels and labels of these eyes, in their order."""
    found = hashlib.sha256()
    for eye in eyes:
        for pixels in (eye.image, eye.fov, eye.mask, eye.kinds):
            found.update(b"none" if pixels is None else np.ascontiguousarray(pixels).data)
    return found.hexdigest()


def rescale(eye: Eye, scale: float) -> Eye:
    """Resize an eye by a factor, the same way for training and prediction.

    Shrinking averages the photograph; a shrunk mask is vessel where vessels cover a quarter of a pixel or more:
    half would lose thin vessels (docs/experiments.md), nearest neighbours break them. Masks stay 0 or 255, but
    what teachers found is resized as the photograph is.
    """
    height, width = eye.fov.shape
    wanted = max(1, round(width * scale)), max(1, round(height * scale))
    how, how_mask = (cv2.INTER_AREA,) * 2 if scale < 1 else (cv2.INTER_CUBIC, cv2.INTER_NEAREST)

    def resize(mask: np.ndarray) -> np.ndarray:
        return cv2.threshold(cv2.resize(mask, wanted, interpolation=how_mask), 63, 255, cv2.THRESH_BINARY)[1]

    image = cv2.resize(eye.image, wanted, interpolation=how)
    fov = cv2.resize(eye.fov, wanted, interpolation=cv2.INTER_NEAREST)
    mask, second = (None if drawn is None else resize(drawn) for drawn in (eye.mask, eye.second))
    if eye.taught:
        mask = cv2.resize(eye.truth, wanted, interpolation=how)
    kinds = None
    if eye.kinds is not None:
        kinds = join_kinds(*(resize(as_mask(drawn)) for drawn in split_kinds(eye.kinds)))
        kinds[(kinds == NONE) & (resize(as_mask(eye.kinds == UNCERTAIN)) > 0)] = UNCERTAIN
    return replace(eye, image=image, fov=fov, mask=mask, second=second, kinds=kinds)


def squash(eye: Eye, side: int) -> Eye:
    """Resize an eye to a square of `side` pixels, as many tutorials do: a round eye becomes an oval one."""

    def nearest(mask: np.ndarray) -> np.ndarray:
        return cv2.resize(mask, (side, side), interpolation=cv2.INTER_NEAREST)

    image = cv2.resize(eye.image, (side, side), interpolation=cv2.INTER_AREA)
    drawn = (eye.mask, eye.second, eye.kinds)
    mask, second, kinds = (None if labels is None else nearest(labels) for labels in drawn)
    return replace(eye, image=image, fov=nearest(eye.fov), mask=mask, second=second, kinds=kinds)


def load_eye(name: str, photograph: Path, files: Mapping[str, Path]) -> Eye:
    """Read and check a photograph with its masks.

    `files` are those of its masks by what they are: `mask`, or `probability` of a teacher, `second_observer`,
    `fov`, and `arteries_veins`, or `arteries` and `veins`. Without `fov` the field of view is found in the
    photograph.

    Raises:
        UserError: one line for each file that is unreadable, not of this photograph, or not what it should be.
    """
    problems: list[str] = []
    image: np.ndarray | None = None
    masks: dict[str, np.ndarray] = {}
    try:
        image = read_image(photograph)
    except UserError as error:
        problems.append(str(error))
    exif = ""
    if image is not None and (turn := turning(photograph)):
        exif = f"; the photograph's EXIF says: {turn}. Was it drawn without that?"
    for target, path in files.items():
        try:
            if path.suffix.lower() == ".json":
                if image is None:
                    continue
                masks[target] = draw_polygons(path, photograph.name, image.shape)
            else:
                masks[target] = READERS.get(target, read_mask)(path)
            if image is not None and masks[target].shape != image.shape[:2]:
                pixels = f"{size(masks[target])} pixels, but {photograph.name} has {size(image)}"
                raise UserError(f"{path}: {pixels}{exif}")
            if target == "fov":
                check_fov(path, masks[target])
        except UserError as error:
            problems.append(str(error))
    if problems or image is None:
        raise UserError("\n".join(problems))
    fov = masks.pop("fov") if "fov" in masks else estimate_fov(image)
    if taught := "probability" in masks:  # a photograph may have no vessels that a network finds
        masks["mask"] = masks.pop("probability")
    if "arteries" in masks and files.get("mask") == files["arteries"]:  # the vessels are those of both kinds
        masks["mask"] = masks["arteries"] | masks.get("veins", np.uint8(0))
    for target, mask in () if taught else masks.items():
        check_label(files[target], as_mask(mask > 0), fov, image, exif)
    return Eye(
        name, image, fov, masks.get("mask"), masks.get("second_observer"), kinds_of(files, masks), "", taught
    )


READERS = {
    "fov": read_fov,
    "arteries_veins": read_kinds,
    "probability": read_probability,
}  # other files are vessel masks


def kinds_of(files: Mapping[str, Path], masks: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The map of arteries and veins among the masks of an eye, or that of its two masks; None without.

    Raises:
        UserError: there is a mask of one kind only, or both are the same.
    """
    whole, *halves = KINDS_FILES
    there = [target for target in halves if target in masks]
    if whole in masks or not there:
        return masks.get(whole)
    if len(there) == 1:
        other = halves[1 - halves.index(there[0])]
        raise UserError(f"{files[there[0]]}: no file of the {other} beside these {there[0]}")
    return check_kinds(files[halves[1]], join_kinds(masks[halves[0]], masks[halves[1]]))
