"""Photographs in DICOM and HEIC files: pixels, the tags that are used, and those that are copied nowhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import read_csv, run_script
from PIL import Image

import predict
from batch.folders import find_photographs
from batch.photographs import likely_um
from datasets.decoding import decode
from datasets.dicom import read_tags
from datasets.images import read_image
from datasets.synthetic import draw_eye
from utils import UserError

WITH_FORMATS = "pip install -r requirements-formats.txt"
pydicom = pytest.importorskip("pydicom", reason=WITH_FORMATS)
SECRET = {
    "PatientName": "Roe^Jane",
    "PatientBirthDate": "19500102",
    "PatientID": "ID4711",
    "InstitutionName": "St. Elsewhere",
    "StudyDate": "20240506",
    "AccessionNumber": "ACC815",
}
TAGS = {
    "ImageLaterality": "R",
    "Manufacturer": "Canon",
    "ManufacturerModelName": "Canon CR-2",
    "PixelSpacing": [0.05, 0.05],
}


def write_dicom(path: Path, levels: np.ndarray, compress: Any = None, **tags: Any) -> Path:
    """Write uint8 or uint16, (frames, H, W), (H, W) or (H, W, 3) RGB, as an ophthalmic photograph."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid()
    colour = levels.shape[-1] == 3
    file.Modality = "OP"
    file.Rows, file.Columns = levels.shape[-3:-1] if colour else levels.shape[-2:]
    file.SamplesPerPixel = 3 if colour else 1
    file.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        file.PlanarConfiguration = 0
    if levels.ndim == (4 if colour else 3):
        file.NumberOfFrames = len(levels)
    file.BitsAllocated = file.BitsStored = 8 * levels.itemsize
    file.HighBit, file.PixelRepresentation = file.BitsStored - 1, 0
    file.PixelData = np.ascontiguousarray(levels).tobytes()
    for tag, value in tags.items():
        setattr(file, tag, value)
    if compress:
        file.compress(compress, generate_instance_uid=False)
    file.save_as(path, enforce_file_format=True)
    return path


EYE = draw_eye(np.random.default_rng(3), 120, 110)[0]


@pytest.mark.parametrize("name", ["eye.dcm", "IM000001"])
def test_an_uncompressed_photograph_is_read_as_it_is(name, tmp_path):
    write_dicom(tmp_path / name, EYE)
    assert (read_image(tmp_path / name) == EYE).all()
    assert find_photographs([tmp_path]).photographs == {tmp_path / name: Path(name).stem}


def test_jpeg_2000_is_read(tmp_path):
    pytest.importorskip("openjpeg", reason=WITH_FORMATS)
    from pydicom.uid import JPEG2000Lossless

    assert (read_image(write_dicom(tmp_path / "eye.dcm", EYE, JPEG2000Lossless)) == EYE).all()
    wide = np.arange(64 * 60, dtype=np.uint16).reshape(64, 60)
    assert (decode(write_dicom(tmp_path / "wide.dcm", wide, JPEG2000Lossless)) == wide).all()


def test_a_jpeg_photograph_keeps_its_colours(tmp_path):
    import io

    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit

    jpeg = io.BytesIO()
    Image.fromarray(EYE).save(jpeg, "JPEG", quality=95, subsampling=0)
    path = write_dicom(tmp_path / "eye.dcm", EYE)
    file = pydicom.dcmread(path)
    file.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    file.PhotometricInterpretation = "YBR_FULL"
    file.PixelData = encapsulate([jpeg.getvalue()])
    file["PixelData"].is_undefined_length = True
    file.save_as(path)
    assert np.abs(read_image(path).astype(int) - EYE).mean() < 2


def test_grey_levels_are_the_right_way_round(tmp_path):
    grey = EYE[..., 1]
    assert (read_image(write_dicom(tmp_path / "a.dcm", grey)) == grey[..., None]).all()
    inverted = write_dicom(tmp_path / "b.dcm", 255 - grey, PhotometricInterpretation="MONOCHROME1")
    assert (read_image(inverted) == grey[..., None]).all()
    twelve = write_dicom(tmp_path / "c.dcm", grey.astype(np.uint16) * 16, BitsStored=12, HighBit=11)
    assert (decode(twelve) == grey * np.uint16(16)).all()


def test_what_is_no_picture_is_refused_in_a_line(tmp_path):
    file = pydicom.dcmread(write_dicom(tmp_path / "report.dcm", EYE))
    del file.PixelData
    file.save_as(tmp_path / "report.dcm")
    with pytest.raises(UserError, match=r"report\.dcm: a DICOM file without a picture"):
        read_image(tmp_path / "report.dcm")
    whole = write_dicom(tmp_path / "cut.dcm", EYE).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cut\.dcm: cannot be read as a DICOM image"):
        read_image(tmp_path / "cut.dcm")


@pytest.mark.parametrize(
    ("spacing", "um"),
    [
        ([0.1, 0.1], 100),  # of 120 pixels: 12 mm
        ([0.0001, 0.0001], None),  # of the sensor
        ([1, 1], None),
        ([0.1, 0.2], None),
        ([0, 0], None),
        (None, None),
    ],
)
def test_only_a_spacing_that_an_eye_may_have_is_used(spacing, um, tmp_path):
    path = write_dicom(tmp_path / "eye.dcm", EYE, **({"PixelSpacing": spacing} if spacing else {}))
    assert read_tags(path).um_per_pixel == (None if um is None else pytest.approx(um))


def test_the_disc_must_agree_with_the_spacing():
    assert likely_um(10.0, 180.0) == 10.0
    assert likely_um(10.0, 60.0) is likely_um(10.0, float("nan")) is likely_um(None, 180.0) is None


def test_of_the_patients_tags_only_the_identifier_asked_for_is_copied(files, tmp_path):
    (tmp_path / "in").mkdir()
    write_dicom(tmp_path / "in" / "one.dcm", EYE, **TAGS, **SECRET)
    write_dicom(tmp_path / "in" / "two.dcm", np.stack([EYE[..., ::-1], EYE]), **SECRET)
    run = (tmp_path / "in", "--weights", files / "checkpoint.pth", "--views", 1)
    for flags, patient in (((), ""), (("--dicom-id", "AccessionNumber"), "ACC815")):
        out = tmp_path / f"out{patient}"
        assert run_script(predict.main, *run, *flags, "--out", out) in (0, None)
        one, two = read_csv(out / "measures.csv")
        assert (one["eye"], one["camera"], two["eye"]) == ("right", "Canon CR-2", "")
        assert [row.get("patient", "") for row in (one, two)] == [patient, patient]
        assert two["doubtful"].startswith("the first of 2 frames")
        written = [file.read_bytes() for file in out.rglob("*") if file.is_file()]
        for tag, value in SECRET.items():
            if value != patient:
                assert not any(value.encode() in content for content in written), tag
    assert (
        json.loads((out / "predict.json").read_text(encoding="utf-8"))["flags"]["dicom_id"] == "AccessionNumber"
    )


def test_a_heic_photograph_is_read(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason=WITH_FORMATS)
    heif.register_heif_opener()
    Image.fromarray(EYE).save(tmp_path / "eye.heic", quality=95)
    assert np.abs(read_image(tmp_path / "eye.heic").astype(int) - EYE).mean() < 4
    assert [*find_photographs([tmp_path]).photographs.values()] == ["eye"]
