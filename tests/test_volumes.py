"""Labels in NRRD and NIfTI files lie on their photographs as they were drawn, or are refused."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets.checks import check_label
from datasets.decoding import decode
from datasets.eyes import load_eye
from datasets.images import read_mask, write_png
from datasets.kinds import BOTH, UNCERTAIN, decode_kinds
from datasets.published import find_data_set
from datasets.synthetic import draw_eye
from utils import UserError

WITH_FORMATS = "pip install -r requirements-formats.txt"
nrrd = pytest.importorskip("nrrd", reason=WITH_FORMATS)
nibabel = pytest.importorskip("nibabel", reason=WITH_FORMATS)
PHOTOGRAPH, VESSELS, _ = draw_eye(np.random.default_rng(0), 168, 160)
DRAWN = (VESSELS > 0).astype(np.uint8)
# the header that ITK, and so 3D Slicer, writes of a label on a PNG
ITK = {"space": "left-posterior-superior", "space directions": np.eye(3), "kinds": ["domain"] * 3}


def of_itk(path: Path, label: np.ndarray) -> Path:
    """Save a label, (H, W), as ITK does: columns first, one slice."""
    slices = label.T[..., None]
    if path.name.endswith(".nrrd"):
        nrrd.write(str(path), slices, ITK)
    else:
        nibabel.save(nibabel.Nifti1Image(slices, np.diag([-1, -1, 1, 1])), path)
    return path


def segmentation(path: Path, *segments: tuple[str, int, int, np.ndarray]) -> Path:
    """Save segments of a name, a value, a layer and pixels, bool (H, W), as 3D Slicer does."""
    layers = np.zeros((1 + max(layer for _, _, layer, _ in segments), *DRAWN.T.shape, 1), np.uint8)
    header: dict[str, Any] = dict(ITK)
    for number, (name, value, layer, pixels) in enumerate(segments):
        layers[layer][pixels.T, 0] = value
        header |= {
            f"Segment{number}_Name": name,
            f"Segment{number}_LabelValue": str(value),
            f"Segment{number}_Layer": str(layer),
        }
    if len(layers) > 1:
        header["kinds"] = ["list", *ITK["kinds"]]
        header["space directions"] = np.vstack([np.full(3, np.nan), np.eye(3)])
    nrrd.write(str(path), layers if len(layers) > 1 else layers[0], header)
    return path


SAVED: dict[str, Callable[[Path], None]] = {
    "two axes.nrrd": lambda path: nrrd.write(
        str(path), DRAWN.T, {"space dimension": 2, "space directions": np.eye(2)}
    ),
    "no directions.nrrd": lambda path: nrrd.write(str(path), DRAWN.T),
    "two axes.nii": lambda path: nibabel.save(nibabel.Nifti1Image(DRAWN.T, np.diag([-1, -1, 1, 1])), path),
    "no directions.nii.gz": lambda path: nibabel.save(nibabel.Nifti1Image(DRAWN.T, None), path),
    "slice first.nrrd": lambda path: nrrd.write(
        str(path), DRAWN.T[None], ITK | {"space directions": np.eye(3)[[2, 0, 1]]}
    ),
    "pixels of a screen.nrrd": lambda path: nrrd.write(
        str(path), DRAWN.T[..., None], ITK | {"space directions": np.diag([0.35, 0.35, 1])}
    ),
    "numbers of 64 bits.nii": lambda path: nibabel.save(
        nibabel.Nifti1Image(DRAWN.T.astype(np.float64), np.diag([-1, -1, 1, 1])), path
    ),
    "of itk.nrrd": lambda path: (of_itk(path, DRAWN), None)[1],
    "of itk.nii.gz": lambda path: (of_itk(path, DRAWN), None)[1],
}


@pytest.mark.parametrize("name", SAVED)
def test_a_label_lies_as_it_was_drawn(name, tmp_path):
    SAVED[name](tmp_path / name)
    assert (read_mask(tmp_path / name) == VESSELS).all()


@pytest.mark.parametrize(
    ("exchanged", "flips"), [*itertools.product((False, True), itertools.product((1, -1), (1, -1)))]
)
@pytest.mark.parametrize("suffix", [".nrrd", ".nii"])
def test_axes_of_any_order_and_direction_are_followed(suffix, exchanged, flips, tmp_path):
    pixels = DRAWN.T[:: flips[0], :: flips[1]]
    directions = np.diag([*flips, 1])
    if exchanged:
        pixels, directions = pixels.T, directions[[1, 0, 2]]
    path = tmp_path / f"label{suffix}"
    if suffix == ".nrrd":  # right, anterior, superior are the opposite
        header = ITK | {"space": "right-anterior-superior"}
        nrrd.write(str(path), pixels[..., None], header | {"space directions": directions * [-1, -1, 1]})
    else:
        affine = np.eye(4)
        affine[:3, :3] = (directions * [-1, -1, 1]).T
        nibabel.save(nibabel.Nifti1Image(pixels[..., None], affine), path)
    assert (read_mask(path) == VESSELS).all()


def test_a_label_whose_header_is_wrong_is_refused_with_what_would_fit(tmp_path):
    """As NumPy has it, rows first, in a frame as high as wide; and with nibabel's usual matrix."""
    square, label = PHOTOGRAPH[4:164], DRAWN[4:164]
    write_png(tmp_path / "p1.png", square)
    said = {}
    for name, pixels in (("rows.nrrd", label), ("affine.nii", label.T)):
        path = tmp_path / name
        if name == "rows.nrrd":
            nrrd.write(str(path), pixels)
        else:
            nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), path)
        with pytest.raises(UserError) as refused:
            load_eye("p1", tmp_path / "p1.png", {"mask": path})
        said[name] = str(refused.value)
    assert "with rows and columns exchanged it does" in said["rows.nrrd"]
    assert "turned by 180 degrees it does" in said["affine.nii"]


def test_a_turned_mask_that_fits_a_little_is_refused(monkeypatch):
    contrasts = iter([-0.3, -0.1, -0.9, -0.1])  # as it is, mirrored, upside down, turned
    monkeypatch.setattr("datasets.checks.vessel_contrast", lambda *_: next(contrasts))
    with pytest.raises(UserError, match=r"label\.png: does not fit .* but upside down it does"):
        check_label(Path("label.png"), VESSELS, np.full_like(VESSELS, 255), PHOTOGRAPH)


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "several slices.nii": (
        lambda path: nibabel.save(nibabel.Nifti1Image(np.repeat(DRAWN.T[..., None], 3, 2), None), path),
        r": 160 x 168 x 3 numbers; export one slice",
    ),
    "colours.nrrd": (
        lambda path: nrrd.write(str(path), np.zeros((3, 160, 168), np.uint8)),
        r": 3 x 160 x 168 numbers; export one slice",
    ),
    "a profile.nrrd": (
        lambda path: nrrd.write(str(path), DRAWN.T[:, None], ITK),
        r": its axes do not lie along",
    ),
    "askew.nii": (
        lambda path: nibabel.save(
            nibabel.Nifti1Image(DRAWN.T, np.array([[-1, 1, 0, 0], [-1, -1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
            path,
        ),
        r": its axes do not lie along",
    ),
    "probabilities.nrrd": (
        lambda path: nrrd.write(str(path), np.float32(DRAWN.T) / 2),
        r": not labels; export",
    ),
    "an empty segmentation.nrrd": (
        lambda path: nrrd.write(str(path), np.zeros((1, 1, 1), np.uint8), ITK),
        r": no label in it",
    ),
    "a fraction.seg.nrrd": (
        lambda path: nrrd.write(str(path), 100 * DRAWN.T[..., None], ITK | {"Segment0_Name": "Vessel"}),
        r": a label in it is of no segment",
    ),
    "cut off.nrrd": (
        lambda path: path.write_bytes(of_itk(path, DRAWN).read_bytes()[:-200]),
        r": cannot be read as an NRRD file \(",
    ),
    "a text.nii": (lambda path: path.write_text("labels"), r": cannot be read as a NIfTI file \("),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_label_of_a_photograph_is_refused(name, tmp_path):
    save, why = REFUSED[name]
    save(tmp_path / name)
    with pytest.raises(UserError, match=why) as refused:
        read_mask(tmp_path / name)
    assert str(refused.value).startswith(str(tmp_path / name)) and "\n" not in str(refused.value)


def test_segments_count_by_their_names(tmp_path):
    vessel = VESSELS > 0
    left, right = vessel.copy(), vessel.copy()
    left[:, 90:] = False
    right[:, :70] = False
    disc = np.zeros_like(vessel)
    disc[60:90, 60:90] = True
    path = tmp_path / "p1.seg.nrrd"
    # the veins have the lower number, and layers overlap
    segmentation(path, ("Veins", 1, 0, left), ("arteries", 2, 1, right), ("Disc", 1, 2, disc))
    assert (read_mask(path) == VESSELS).all()
    kinds = decode_kinds(path)
    assert ((kinds == BOTH) == (left & right)).all() and ((kinds == 1) == (right & ~left)).all()
    assert ((kinds == 2) == (left & ~right)).all() and not (kinds == UNCERTAIN).any()
    segmentation(path, ("Segment_1", 1, 0, left), ("Segment_2", 2, 0, right & ~left))
    with pytest.raises(UserError, match="no label says vessel, artery or vein: Segment_1, Segment_2"):
        read_mask(path)
    with pytest.raises(UserError, match=r"no segment is called artery, or none vein: Segment_1, Segment_2"):
        decode_kinds(path)


def test_volumes_find_their_photographs(tmp_path):
    mine, masks = tmp_path / "mine", {}
    (mine / "av").mkdir(parents=True)
    for seed, label in enumerate(("p0.nii.gz", "p1.seg.nrrd", "p2-label.nrrd", "p3.nrrd")):
        photograph, masks[f"p{seed}"], _ = draw_eye(np.random.default_rng(seed), 168, 160)
        Image.fromarray(photograph).save(mine / f"p{seed}.jpg", quality=97)
        of_itk(mine / label, (masks[f"p{seed}"] > 0).astype(np.uint8))
    levels = np.where(DRAWN > 0, np.where(np.arange(160) < 80, 1, 2), 0).astype(np.uint8)
    of_itk(mine / "av" / "p0.nrrd", levels)
    found = find_data_set(mine)
    assert not found.problems and [eye.name for eye in found.eyes] == ["p0", "p1", "p2", "p3"]
    eyes = [load_eye(eye.name, eye.image, eye.files) for eye in found.eyes]
    assert all((eye.mask == masks[eye.name]).all() for eye in eyes)
    (drawn,) = [eye for eye in eyes if eye.kinds is not None]
    assert drawn.name == "p0" and (drawn.kinds == levels).all()


@pytest.mark.parametrize("name", ["p1.nrrd", "p1.nii.gz"])
def test_without_the_package_it_is_said_what_to_install(name, tmp_path, monkeypatch):
    of_itk(tmp_path / name, DRAWN)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "datasets.decoding.importlib.util.find_spec",
        lambda package: None if package in ("nrrd", "nibabel") else found(package),
    )
    with pytest.raises(
        UserError, match=r"(a NIfTI|an NRRD) file; to read it, pip install -r requirements-form"
    ):
        read_mask(tmp_path / name)


def test_a_volume_is_no_photograph(tmp_path):
    with pytest.raises(UserError, match="a volume; augment.py reads labels in it, but no photographs"):
        decode(of_itk(tmp_path / "p1.nrrd", DRAWN))
