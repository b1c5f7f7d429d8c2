"""Several pictures in a file, 16 bits, transparency, tinted masks: read rightly, or refused with the reason."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from corpus import encode, opencv
from PIL import Image, features

from data import read_eyes, read_info, read_working_disc
from datasets.eyes import Eye
from datasets.field_of_view import estimate_fov, fov_diameter
from datasets.images import read_fov, read_image, read_mask, write_png
from datasets.synthetic import draw_eye
from scoring.other_masks import read_maps
from utils import UserError

PHOTOGRAPH, VESSELS, FIELD = draw_eye(np.random.default_rng(0), 200, 196)
SMALL = cv2.resize(PHOTOGRAPH, (49, 50), interpolation=cv2.INTER_AREA)


def several(kind: str, *pictures: Image.Image, **options: object) -> bytes:
    file = BytesIO()
    pictures[0].save(file, kind, save_all=True, append_images=pictures[1:], **options)
    return file.getvalue()


WHOLE, PREVIEW = Image.fromarray(PHOTOGRAPH), Image.fromarray(SMALL)
LABEL = Image.fromarray(VESSELS).convert("1")
JPEG = encode(PHOTOGRAPH, "JPEG", quality=97)
HIDDEN = encode(SMALL, "JPEG", quality=97)
WIDE = [cv2.cvtColor(np.uint16(p) * 16, cv2.COLOR_RGB2BGR) for p in (SMALL, PHOTOGRAPH)]
LARGEST = {
    "preview first.tif": several("TIFF", PREVIEW, WHOLE),
    "preview last.tif": several("TIFF", WHOLE, PREVIEW, PREVIEW),
    "beside its mask.tif": several("TIFF", LABEL, WHOLE),
    "12 bits.tif": cv2.imencodemulti(".tif", WIDE)[1].tobytes(),
    "twice.tif": several("TIFF", WHOLE, WHOLE),
    "mpo.jpg": several("MPO", PREVIEW, WHOLE, quality=97),
    "behind a preview.jpg": HIDDEN + JPEG,
    "thumbnail inside.jpg": JPEG[:2] + b"\xff\xe1" + (len(HIDDEN) + 2).to_bytes(2, "big") + HIDDEN + JPEG[2:],
}


@pytest.mark.parametrize("name", LARGEST)
def test_of_several_pictures_in_a_file_the_largest_is_read(name, tmp_path):
    (tmp_path / name).write_bytes(LARGEST[name])
    read = read_image(tmp_path / name)
    assert read.shape == PHOTOGRAPH.shape
    assert np.abs(read.astype(int) - PHOTOGRAPH).mean() < 3


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG", "MPO"])
def test_frames_that_differ_are_refused_with_what_to_do(kind, tmp_path):
    path = tmp_path / f"film.{kind.lower()}"
    path.write_bytes(several(kind, WHOLE, Image.fromarray(PHOTOGRAPH[::-1].copy())))
    with pytest.raises(UserError, match=r"film.*: 2 pages of 196x200 pixels; save the right one"):
        read_image(path)


def directory(pixels: np.ndarray, start: int, tags: dict[int, int], order: str = "<") -> bytes:
    """What a TIFF says of pixels, uint8 or uint16 (H, W, n), that begin there, with these further tags."""
    height, width, layers = pixels.shape
    said = {256: width, 257: height, 258: 8 * pixels.itemsize, 259: 1, 273: start, 277: layers}
    said |= {278: height, 279: pixels.nbytes, **tags}
    rows = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in sorted(said.items()))
    return struct.pack(f"{order}H", len(said)) + rows + bytes(4)


def white_is_0(pixels: np.ndarray, order: str, tags: dict[int, int] | None = None) -> bytes:
    """A TIFF of grey pixels, uint8 or uint16 (H, W, 1), that says that 0 is white; ImageJ's order is >."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8 + pixels.nbytes)
    levels = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    return head + levels + directory(pixels, 8, {262: 0, **(tags or {})}, order)


def test_a_tiff_whose_photograph_lies_inside_its_preview_is_refused(tmp_path):
    inner = PHOTOGRAPH.tobytes() + directory(PHOTOGRAPH, 8, {262: 2})
    start = 8 + len(inner)
    preview = SMALL.tobytes() + directory(SMALL, start, {262: 2, 330: 8 + PHOTOGRAPH.nbytes})
    head = b"II*\0" + struct.pack("<I", start + SMALL.nbytes)
    (tmp_path / "raw.tif").write_bytes(head + inner + preview)
    with pytest.raises(UserError, match=r"a preview, with a picture of 196x200 pixels inside"):
        read_image(tmp_path / "raw.tif")


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("order", ["<", ">"])
def test_white_as_0_is_turned_within_the_bits_that_are_used(bits, order, tmp_path):
    green = PHOTOGRAPH[..., 1]
    levels = (green.astype(np.uint16) << (bits - 8))[..., None]
    (tmp_path / "a.tif").write_bytes(white_is_0(2**bits - 1 - levels, order))
    assert np.abs(read_image(tmp_path / "a.tif")[..., 0].astype(int) - green).max() <= 1


@pytest.mark.parametrize("black", [0, 1])
@pytest.mark.parametrize("order", ["<", ">"])
def test_packed_floats_are_read_right_or_refused(order, black, tmp_path):
    # Pillow takes the bytes of the order > for those of the other
    pixels = PHOTOGRAPH[..., :1].astype(np.float32)
    packed = zlib.compress(pixels.astype(f"{order}f4").tobytes())
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8 + len(packed))
    tags = {259: 8, 262: black, 279: len(packed), 339: 3}
    (tmp_path / "eye.tif").write_bytes(head + packed + directory(pixels, 8, tags, order))
    try:
        read = read_image(tmp_path / "eye.tif")
    except UserError as error:
        assert order == ">" and "holds floating-point numbers" in str(error)
    else:
        assert np.array_equal(read[..., :1], pixels if black else 255 - pixels)


@pytest.mark.parametrize("bits", [1, 8, 16])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_mask_with_an_inverting_lookup_table_is_read_as_it_is_drawn(bits, order, tmp_path):
    dark = np.where(VESSELS, 0, 255 if bits == 16 else 2**bits - 1).astype(
        np.uint16 if bits == 16 else np.uint8
    )
    if bits == 1:
        file = white_is_0(np.packbits(dark, axis=1)[..., None], order, {256: dark.shape[1], 258: 1})
    else:
        file = white_is_0(dark[..., None], order)
    (tmp_path / "a.tif").write_bytes(file)
    assert (read_mask(tmp_path / "a.tif") == VESSELS).all()


def cut_out(alpha: np.ndarray) -> np.ndarray:
    """The photograph on transparent surroundings under which colours are left, uint16 RGBA."""
    bright = np.where(FIELD[..., None] > 0, PHOTOGRAPH, 180).astype(np.uint16) * 257
    return np.dstack([bright, alpha.astype(np.uint16) * 257])


@pytest.mark.parametrize("suffix", ["png", "tif", "jp2"])
def test_transparent_surroundings_of_16_bits_are_black_as_those_of_8_are(suffix, tmp_path):
    wide, narrow = tmp_path / f"wide.{suffix}", tmp_path / f"narrow.{suffix}"
    if suffix == "jp2" and not features.check("jpg_2000"):
        pytest.skip("Pillow without JPEG 2000")
    pixels, lossless = cut_out(FIELD), (cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000)
    wide.write_bytes(cv2.imencode(f".{suffix}", pixels[..., [2, 1, 0, 3]], lossless)[1].tobytes())
    Image.fromarray((pixels // 257).astype(np.uint8)).save(narrow)
    one, other = read_image(wide), read_image(narrow)
    assert (one == other).all() and not one[FIELD == 0].any()
    assert fov_diameter(estimate_fov(one)) == pytest.approx(fov_diameter(FIELD), rel=0.03)


def tiff_16(pixels: np.ndarray, *tags: tuple[int, int]) -> bytes:
    """A TIFF of 16-bit RGB and a layer beside it, uint16 (H, W, 4), with these further tags; or in planes."""
    planes = (284, 2) in tags
    strips = [pixels[..., k].tobytes() for k in range(4)] if planes else [pixels.tobytes()]
    height, width = pixels.shape[:2]
    size, start = len(strips[0]), 8 + pixels.nbytes
    several = struct.pack("<4H", 16, 16, 16, 16)
    several += struct.pack("<8I", *(8 + k * size for k in range(4)), *(size,) * 4)
    where = [(273, 4, 4, start + 8), (279, 4, 4, start + 24)] if planes else [(273, 4, 1, 8), (279, 4, 1, size)]
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 4, start), (262, 3, 1, 2), (277, 3, 1, 4)]
    entries += [*where, *((tag, 3, 1, value) for tag, value in tags)]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    head = b"II*\0" + struct.pack("<I", start + len(several))
    return head + b"".join(strips) + several + struct.pack("<H", len(entries)) + directory + bytes(4)


@pytest.mark.parametrize("kind", [0, 2])
def test_a_layer_of_16_bits_that_is_no_transparency_hides_nothing(kind, tmp_path):
    pixels = cut_out(FIELD)
    (tmp_path / "a.tif").write_bytes(tiff_16(pixels, (338, kind)))
    is_transparency = kind == 2
    expected = np.where(FIELD[..., None] > 0, pixels[..., :3], 0) if is_transparency else pixels[..., :3]
    assert (read_image(tmp_path / "a.tif") == expected // 257).all()


def test_16_bits_in_planes_are_refused_rather_than_read_as_noise(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff_16(cut_out(FIELD), (338, 2), (284, 2)))
    with pytest.raises(
        UserError, match=r"a\.tif: a TIFF of 16 bits in planes, which is not read; save it inter"
    ):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("strongest", [255, 100])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_mask_drawn_in_the_transparency_is_read_in_8_and_16_bits(dtype, strongest, tmp_path):
    alpha = VESSELS.astype(dtype) // 255 * (strongest if dtype is np.uint8 else strongest * 257)
    layer = np.dstack([np.zeros((*VESSELS.shape, 3), dtype), alpha])
    (tmp_path / "layer.png").write_bytes(cv2.imencode(".png", layer)[1].tobytes())
    assert (read_mask(tmp_path / "layer.png") == VESSELS).all()


def palette(dark: tuple[int, ...], light: tuple[int, ...]) -> Image.Image:
    image = Image.fromarray((VESSELS > 0).astype(np.uint8), "P")
    image.putpalette([*dark, *light])
    return image


RED_AND_BLUE = np.zeros((*VESSELS.shape, 3), np.uint8)
RED_AND_BLUE[:100][VESSELS[:100] > 0] = (255, 0, 0)
RED_AND_BLUE[100:][VESSELS[100:] > 0] = (0, 0, 255)
LABELS = {
    "DRIVE's palette.gif": palette((4, 2, 4), (252, 254, 252)),
    "red on nearly white.gif": palette((252, 254, 252), (252, 2, 4)),
    "artery and vein.png": Image.fromarray(RED_AND_BLUE),
    "classes.png": Image.fromarray((VESSELS > 0) * np.tile(np.uint8([[1], [2]]), (100, 196))),
    "0 and 100.png": Image.fromarray(VESSELS // 255 * np.uint8(100)),
    "16 bits.tif": Image.fromarray(VESSELS.astype(np.uint16) // 255 * 1000),
    "transparent.png": Image.fromarray(np.dstack([np.zeros_like(RED_AND_BLUE), VESSELS])),
    "half transparent.png": Image.fromarray(np.dstack([np.full_like(RED_AND_BLUE, 9), VESSELS // 2 + 128])),
    "red on black.png": palette((0, 0, 0), (255, 0, 0)).convert("RGB"),
    "1 bit.tif": LABEL,
}


@pytest.mark.parametrize("name", LABELS)
def test_what_is_read_as_a_label_can_be_scored_as_a_mask(name, tmp_path):
    path = tmp_path / f"01_test{Path(name).suffix}"
    LABELS[name].save(path)
    assert (read_mask(path) == VESSELS).all()
    maps = read_maps(tmp_path, [Eye("01_test_0", PHOTOGRAPH, FIELD)])
    assert maps.binary and (maps.levels["01_test_0"] == VESSELS * np.uint16(257)).all()


ONES = (VESSELS > 0).astype(np.uint8)[..., None]
ALL_BRIGHT = {
    "8 bits.tif": white_is_0(ONES, "<"),
    "16 bits.tif": white_is_0(ONES.astype(np.uint16), "<"),
    "classes.tif": white_is_0(3 * ONES, ">"),
    "palette.png": several("PNG", palette((255, 255, 255), (254, 254, 254))),
}


@pytest.mark.parametrize("name", ALL_BRIGHT)
def test_a_mask_without_a_dark_pixel_is_refused_not_marked_all_over(name, tmp_path):
    path = tmp_path / f"01_test{Path(name).suffix}"
    path.write_bytes(ALL_BRIGHT[name])
    eye = Eye("01_test_0", PHOTOGRAPH, FIELD)
    for read in (read_mask, read_fov, lambda _: read_maps(tmp_path, [eye])):
        with pytest.raises(UserError, match="has no dark pixel, so all of it would be marked; save it with"):
            read(path)


@pytest.mark.parametrize("inverted", [False, True])
def test_masks_to_score_that_are_inverted_get_a_word(inverted, tmp_path, capsys):
    write_png(tmp_path / "01_test.png", 255 - VESSELS if inverted else VESSELS)
    read_maps(tmp_path, [Eye("01_test_0", PHOTOGRAPH, FIELD)])
    assert ("more than half of 01_test_0 is vessel; inverted?" in capsys.readouterr().out) is inverted


@pytest.mark.parametrize("name", ["mean", "Pooled", "second_observer", "second_observer_0", "std_of_folds"])
def test_an_eye_is_not_called_as_a_row_of_the_tables(name, tmp_path):
    for part, pixels in (("image", PHOTOGRAPH), ("mask", VESSELS)):
        for each in ("a", name):
            write_png(tmp_path / part / f"{each}.png", pixels)
    refused: list[str] = []
    assert [eye.name for eye in read_eyes(tmp_path, True, refused)] == ["a"]
    assert len(refused) == 1 and "a row of the tables is called so; rename it" in refused[0]


def test_a_dataset_json_of_another_program_changes_nothing(tmp_path):
    (tmp_path / "dataset.json").write_text('{"size": [200, 196], "diameter": 3, "train": 7}')
    assert read_info(tmp_path) == {}


@pytest.mark.parametrize("content", [b"", b'{"size": null, "disc": 64, "tra', b"\xff\xfe", b"[" * 99_999])
def test_a_dataset_json_that_is_damaged_is_not_taken_for_none(content, tmp_path):
    (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(UserError, match=r"dataset\.json: cannot be read \(damaged\); run augment\.py again"):
        read_working_disc(tmp_path)
    (tmp_path / "dataset.json").unlink()
    assert read_working_disc(tmp_path) is None


def test_16_bits_without_transparency_are_scaled_as_before(tmp_path):
    (tmp_path / "a.png").write_bytes(opencv(PHOTOGRAPH.astype(np.uint16) * 16, ".png"))
    assert np.abs(read_image(tmp_path / "a.png").astype(int) - PHOTOGRAPH).max() <= 1
