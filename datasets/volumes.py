"""Labels in NRRD and NIfTI files, as 3D Slicer, ITK-SNAP and MITK save them; with pynrrd and nibabel.

ITK, which reads the photograph for these programs, puts its pixel of column x and row y at x to the left and y
to the back of the patient. The axes of a file say so too, whatever their order and direction; so a label
lies on its photograph where it was drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from datasets.decoding import INSTALL, MAX_PIXELS, is_installed
from utils import UserError, explain

VOLUMES = {".nrrd": ("an NRRD file", "nrrd"), ".nii": ("a NIfTI file", "nibabel")}  # what it is, its package
ALONG = 0.99  # cosine of an axis with that of the photograph that it runs along, at least
Header = dict[str, Any]


def volume_suffix(path: Path) -> str:
    """The suffix of a file among `VOLUMES`, without a .gz behind it; empty if it is none of these."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in VOLUMES if name.endswith(suffix)), "")


def read_volume(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Read a label of two axes, or of more with one slice.

    Returns:
        The levels, uint16 (H, W); and the segments of a segmentation of 3D Slicer by their names, bool (H, W)
        each, which may overlap. Other files name none.

    Raises:
        UserError: the package is not installed; the file is damaged, blank, of several slices, with axes that
            lie askew, or holds no labels.
    """
    suffix = volume_suffix(path)
    what, package = VOLUMES[suffix]
    if not is_installed(package):
        raise UserError(f"{path}: {what}; {INSTALL}, or export the label as PNG")
    try:
        array, directions, header = (load_nrrd if suffix == ".nrrd" else load_nifti)(path)
        layers = [upright(path, layer, directions) for layer in array]
        segments = segments_of(path, layers, header)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # these packages have no common exception for damaged files
        raise UserError(explain(error, path, f"cannot be read as {what}")) from None
    return np.maximum.reduce(layers), segments


def load_nrrd(path: Path) -> tuple[np.ndarray, np.ndarray | None, Header]:
    """Layers of an NRRD file (layers, axes), directions of their axes as `upright` needs them, its header."""
    import nrrd

    check_size(path, nrrd.read_header(str(path))["sizes"])
    array, header = nrrd.read(str(path))
    directions = header.get("space directions")
    several = header.get("kinds", [""])[0] == "list"
    if directions is not None:
        directions = np.array(list(directions[several:]), np.float64)  # that of a list is none
        space = header.get("space", "").lower()
        words = space.split("-") if "-" in space else list(space)
        for axis, opposite in enumerate(("r", "a")):  # of left and posterior
            if len(words) == 3 and words[axis].startswith(opposite):
                directions[:, axis] *= -1
    return array if several else array[None], directions, header


def load_nifti(path: Path) -> tuple[np.ndarray, np.ndarray | None, Header]:
    """As `load_nrrd`, of a NIfTI file."""
    import nibabel

    file: Any = nibabel.load(path)
    check_size(path, file.shape)
    placed = file.header["qform_code"] or file.header["sform_code"]
    # its axes are right, anterior, superior; a column of the matrix is an axis of the file
    directions = (np.diag([-1, -1, 1]) @ file.affine[:3, :3]).T if placed else None
    return np.asarray(file.dataobj)[None], directions, {}


def check_size(path: Path, shape: Any) -> None:
    """Raise UserError if a volume has more pixels than a photograph may have."""
    if np.prod(np.asarray(shape, np.float64)) > MAX_PIXELS:
        raise UserError(f"{path}: more than {MAX_PIXELS:,} pixels; export the slice of the photograph alone")


def upright(path: Path, layer: np.ndarray, directions: np.ndarray | None) -> np.ndarray:
    """Bring a layer the way its photograph lies: uint16 (H, W).

    Args:
        path: of the file, for messages.
        layer: labels; the first axis is that of the columns where nothing else is said.
        directions: of each axis, how far it runs to the left and to the back, and perhaps up, (axes, 2 or 3);
            None: the file does not say.

    Raises:
        UserError: it is not one slice of labels, or lies askew.
    """
    axes = [axis for axis, length in enumerate(layer.shape) if length > 1]
    if not axes:
        raise UserError(f"{path}: no label in it")  # Slicer saves a single voxel for that
    if len(axes) != 2:
        sizes = " x ".join(map(str, layer.shape))
        raise UserError(f"{path}: {sizes} numbers; export one slice with one number a pixel")
    if layer.dtype.kind == "f" and (layer == np.round(layer)).all():
        layer = layer.astype(np.int64)
    if layer.dtype.kind not in "bui" or layer.min() < 0 or layer.max() > 65535:
        raise UserError(f"{path}: not labels; export it as a label map, with whole numbers from 0 on")
    columns_first = np.squeeze(layer).astype(np.uint16)
    if directions is None:
        return np.ascontiguousarray(columns_first.T)
    along = directions[axes] / np.linalg.norm(directions[axes], axis=1, keepdims=True)
    if (np.abs(along[:, :2]) > ALONG).tolist() == [[False, True], [True, False]]:
        columns_first, along = columns_first.T, along[::-1]
    if not (np.abs(along[[0, 1], [0, 1]]) > ALONG).all():
        askew = "its axes do not lie along the photograph's"
        raise UserError(f"{path}: {askew}; export it on the photograph's grid")
    step_x, step_y = (int(np.sign(along[axis, axis])) for axis in (0, 1))
    return np.ascontiguousarray(columns_first[::step_x, ::step_y].T)


def segments_of(path: Path, layers: list[np.ndarray], header: Header) -> dict[str, np.ndarray]:
    """The segments that 3D Slicer names in a header, as of `read_volume`.

    Raises:
        UserError: a label is of no segment, as in a segmentation of fractions.
    """
    segments: dict[str, np.ndarray] = {}
    rest = [layer > 0 for layer in layers]
    number = 0
    while name := header.get(f"Segment{number}_Name"):
        layer = int(header.get(f"Segment{number}_Layer", number if len(layers) > 1 else 0))
        label = layers[layer] == int(header.get(f"Segment{number}_LabelValue", 1))
        segments[name] = segments[name] | label if name in segments else label
        rest[layer] &= ~label
        number += 1
    if segments and any(layer.any() for layer in rest):
        raise UserError(f"{path}: a label in it is of no segment; export the segments as a binary label map")
    return segments
