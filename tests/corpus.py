"""Good, odd and bad files: what each is, and what reading it must give."""

from __future__ import annotations

import os
import re
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from datasets.synthetic import draw_eye

PHOTOGRAPH, VESSELS, FIELD = draw_eye(np.random.default_rng(3), 96, 92)
GREY = cv2.cvtColor(PHOTOGRAPH, cv2.COLOR_RGB2GRAY)
GREY3 = np.dstack([GREY] * 3)
RAMP = np.tile(np.linspace(0, 255, 92).astype(np.uint8), (96, 1))

Write = Callable[[Path], object]


@dataclass
class Case:
    """A file, and either the pixels that reading it gives or the reason why it is refused."""

    name: str  # of the file
    write: Write
    expected: np.ndarray | str  # pixels, or a pattern of the reason
    tolerance: float = 0  # mean absolute difference allowed, for formats that lose some
    posix: bool = False  # cannot be made on Windows

    @property
    def refused(self) -> bool:
        return isinstance(self.expected, str)

    def check(self, read: Callable[[Path], np.ndarray], folder: Path, error: type[Exception]) -> None:
        """Write the file and fail unless reading it does what it should."""
        path = folder / self.name
        self.write(path)
        if not self.refused:
            pixels = read(path)
            assert (pixels.dtype, pixels.shape) == (np.uint8, self.expected.shape)
            assert np.abs(pixels.astype(float) - self.expected).mean() <= self.tolerance
            return
        try:
            read(path)
        except error as refusal:
            named = str(path) in str(refusal) or repr(str(path)) in str(refusal)
            assert named, f"the file is not named: {refusal}"
            assert re.search(self.expected, str(refusal)), f"not the reason expected: {refusal}"
            assert len(str(refusal).splitlines()) == 1
        else:
            raise AssertionError(f"{self.name} was read, but should be refused: {self.expected}")


def encode(pixels: np.ndarray, kind: str, mode: str | None = None, **options: object) -> bytes:
    """An image file as Pillow writes it, after converting to `mode`."""
    image = Image.fromarray(pixels)
    file = BytesIO()
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def opencv(pixels: np.ndarray, suffix: str, *options: int) -> bytes:
    """An image file as OpenCV writes it, which knows 16 bits a colour."""
    return cv2.imencode(suffix, pixels[..., ::-1] if pixels.ndim == 3 else pixels, options)[1].tobytes()


def content(data: bytes) -> Write:
    return lambda path: path.write_bytes(data)


def cut(data: bytes, share: float = 0.5) -> Write:
    return content(data[: int(len(data) * share)])


def damaged(data: bytes) -> Write:
    """One byte in the middle of the pixels is another."""
    middle = len(data) // 2
    return content(data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :])


def huge_png(width: int, height: int) -> bytes:
    """The header of a PNG, which alone says how large it is, and no more than a few bytes of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def oriented(pixels: np.ndarray, kind: str, tag: int, undo: int) -> bytes:
    """A file that holds the pixels turned, and the note how to turn them back."""
    exif = Image.Exif()
    exif[0x0112] = tag
    return encode(np.rot90(pixels, undo).copy(), kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))


def white_is_zero(pixels: np.ndarray) -> bytes:
    """A TIFF of grey pixels whose 0 means white, as scanners and fax write it."""
    tag = struct.Struct("<HHIHH")
    there = encode(pixels.max() - pixels, "TIFF")
    assert there.count(tag.pack(262, 3, 1, 1, 0)) == 1
    return there.replace(tag.pack(262, 3, 1, 1, 0), tag.pack(262, 3, 1, 0, 0))


def link(target: str) -> Write:
    return lambda path: path.symlink_to(target)


def link_outside(path: Path) -> None:
    """A link to a photograph in a folder beside this one."""
    outside = path.parent.parent / f"outside_{path.parent.name}"
    outside.mkdir(exist_ok=True)
    (outside / "eye.png").write_bytes(PNG)
    path.symlink_to(outside / "eye.png")


def unreadable(path: Path) -> None:
    path.write_bytes(PNG)
    path.chmod(0)


def two_frames(kind: str, **options: object) -> bytes:
    first, second = Image.fromarray(PHOTOGRAPH), Image.fromarray(255 - PHOTOGRAPH)
    file = BytesIO()
    first.save(file, kind, save_all=True, append_images=[second], **options)
    return file.getvalue()


WIDE = PHOTOGRAPH.astype(np.uint16) * 257
WIDE_GREY = GREY.astype(np.uint16) * 257


def transparent_palette() -> bytes:
    """A mask in two colours of a palette, of which the background's is transparent."""
    image, file = Image.fromarray((VESSELS > 0).astype(np.uint8), "P"), BytesIO()
    image.putpalette([0, 0, 0, 0, 0, 0])
    image.save(file, "PNG", transparency=0)
    return file.getvalue()


WIDE_VESSELS = VESSELS.astype(np.uint16) * 257
WHITE = np.dstack([np.maximum(GREY, VESSELS)] * 3)
PNG, JPEG = encode(PHOTOGRAPH, "PNG"), encode(PHOTOGRAPH, "JPEG", quality=95)
TIFF, GIF = encode(PHOTOGRAPH, "TIFF", compression="tiff_lzw"), encode(GREY, "GIF")
BMP, PPM = encode(PHOTOGRAPH, "BMP"), encode(PHOTOGRAPH, "PPM")
ALPHA = np.dstack([PHOTOGRAPH, FIELD])
NOISY = np.dstack([np.where(FIELD[..., None] > 0, PHOTOGRAPH, np.roll(PHOTOGRAPH, 40, 0)), FIELD])
CLASSES = np.where(VESSELS > 0, 1 + (np.arange(92) > 45), 0).astype(np.uint8)  # one half artery, one vein
ARTERIES = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255)], np.uint8)[CLASSES]
SOFT = cv2.GaussianBlur(cv2.resize(VESSELS, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST), (0, 0), 0.8)
NOT_A_NUMBER = np.where(FIELD > 0, GREY / 255, np.nan).astype(np.float32)
BROKEN = "cannot be read as an image"
NO_IMAGE = "not a TIFF, PNG, JPEG, GIF, BMP, PPM, WebP, JPEG 2000 or AVIF image"

PHOTOGRAPHS = [
    Case("plain.png", content(PNG), PHOTOGRAPH),
    Case("lzw.tif", content(TIFF), PHOTOGRAPH),
    Case("deflate.tiff", content(encode(PHOTOGRAPH, "TIFF", compression="tiff_adobe_deflate")), PHOTOGRAPH),
    Case("pages.tif", content(two_frames("TIFF")), "2 pages of 92x96 pixels; save the right one"),
    Case("turned.tif", content(oriented(PHOTOGRAPH, "TIFF", 6, 1)), PHOTOGRAPH),
    Case("turned_grey.tif", content(oriented(GREY, "TIFF", 6, 1)), GREY3),
    Case("turned_16_bit.tif", content(oriented(WIDE_GREY, "TIFF", 8, 3)), GREY3),
    Case(
        "turned_alpha.tif",
        content(oriented(ALPHA, "TIFF", 6, 1)),
        np.where(FIELD[..., None] > 0, PHOTOGRAPH, 0),
    ),
    Case("white_is_zero.tif", content(white_is_zero(np.maximum(GREY, VESSELS))), WHITE),
    Case("white_is_zero_16_bit.tif", content(white_is_zero(np.maximum(WIDE_GREY, WIDE_VESSELS))), WHITE),
    Case("grey_in_two_bytes_of_a_mac.tif", content(encode(WIDE_GREY.astype(">u2"), "TIFF")), GREY3),
    Case("big.tif", content(encode(PHOTOGRAPH, "TIFF", big_tiff=True)), PHOTOGRAPH),
    Case("plain.jpg", content(JPEG), PHOTOGRAPH, 4),
    Case("progressive.jpeg", content(encode(PHOTOGRAPH, "JPEG", quality=95, progressive=True)), PHOTOGRAPH, 4),
    Case("turned.jpg", content(oriented(PHOTOGRAPH, "JPEG", 6, 1)), PHOTOGRAPH, 4),
    Case("upside_down.jpg", content(oriented(PHOTOGRAPH, "JPEG", 3, 2)), PHOTOGRAPH, 4),
    Case("cmyk.jpg", content(encode(PHOTOGRAPH, "JPEG", "CMYK", quality=95)), PHOTOGRAPH, 4),
    Case("grey.jpg", content(encode(GREY, "JPEG", quality=95)), GREY3, 4),
    Case("a_tail.jpg", content(JPEG + bytes(500)), PHOTOGRAPH, 4),
    Case("jpeg_inside.png", content(JPEG), PHOTOGRAPH, 4),
    Case("plain.bmp", content(BMP), PHOTOGRAPH),
    Case("plain.ppm", content(PPM), PHOTOGRAPH),
    Case("UPPER.PNG", content(PNG), PHOTOGRAPH),
    Case("grey.png", content(encode(GREY, "PNG")), GREY3),
    Case("grey.gif", content(GIF), GREY3),
    Case("two_frames.gif", content(two_frames("GIF")), "2 pages of .* save the right one"),
    Case("two_frames.png", content(two_frames("PNG")), "2 pages of .* save the right one"),
    Case("palette.png", content(encode(PHOTOGRAPH, "PNG", "P")), PHOTOGRAPH, 20),
    Case("alpha.png", content(encode(ALPHA, "PNG")), np.where(FIELD[..., None] > 0, PHOTOGRAPH, 0)),
    Case("grey_alpha.png", content(encode(np.dstack([GREY, FIELD]), "PNG")), GREY3 * (FIELD[..., None] > 0)),
    Case("noise_under_alpha.png", content(encode(NOISY, "PNG")), np.where(FIELD[..., None] > 0, PHOTOGRAPH, 0)),
    Case("one_bit.png", content(encode(VESSELS, "PNG", "1")), np.dstack([VESSELS] * 3)),
    Case("grey_16_bit.png", content(opencv(WIDE_GREY, ".png")), GREY3),
    Case("rgb_16_bit.png", content(opencv(WIDE, ".png")), PHOTOGRAPH),
    Case("grey_16_bit.tif", content(opencv(WIDE_GREY, ".tif")), GREY3),
    Case("rgb_16_bit.tif", content(opencv(WIDE, ".tif")), PHOTOGRAPH),
    Case("grey_12_bit.png", content(opencv(WIDE_GREY // 16, ".png")), GREY3, 1),
    Case("8_bit_in_16.png", content(opencv(GREY.astype(np.uint16), ".png")), GREY3),
    Case("turned_16_bit.png", content(oriented(WIDE_GREY, "PNG", 6, 1)), GREY3),
    *(
        Case(f"rgb_{n}_bit.png", content(opencv(WIDE // 257 << n - 8, ".png")), PHOTOGRAPH, 2)
        for n in (10, 12, 14)
    ),
    Case("rgb_12_bit.tif", content(opencv(WIDE // 257 * 16, ".tif")), PHOTOGRAPH, 2),
    Case("grey_10_bit.png", content(opencv(WIDE_GREY // 257 * 4, ".png")), GREY3, 2),
    Case("webp_inside.png", content(encode(PHOTOGRAPH, "WEBP", quality=95)), PHOTOGRAPH, 6),
    Case("camera.jfif", content(JPEG), PHOTOGRAPH, 4),
    Case("grey.pgm", content(encode(GREY, "PPM")), GREY3),
    Case("Screenshot at 9.41\u202fAM.png", content(PNG), PHOTOGRAPH),
    Case(
        "\u53f3\u773c\u3000no\u00a0break soft\u00adhyphen mark\u200f join\u200d.png", content(PNG), PHOTOGRAPH
    ),
    Case("\u246020240501.png", content(PNG), PHOTOGRAPH),
    Case("one_pixel.png", content(encode(PHOTOGRAPH[40:41, 40:41], "PNG")), PHOTOGRAPH[40:41, 40:41]),
    Case("one_row.png", content(encode(PHOTOGRAPH[40:41], "PNG")), PHOTOGRAPH[40:41]),
    Case("two words.png", content(PNG), PHOTOGRAPH),
    Case("Äderchen – œil 眼.png", content(PNG), PHOTOGRAPH),
    Case("long" * 62 + ".png", content(PNG), PHOTOGRAPH, posix=True),
    Case(os.fsdecode(b"caf\xe9.png"), content(PNG), PHOTOGRAPH, posix=True),
    Case("$(touch x);`touch x` & '%s'.png", content(PNG), PHOTOGRAPH),
    Case("<img src=x onerror=alert(1)>.png", content(PNG), PHOTOGRAPH, posix=True),
    Case("up\\..\\..\\evil.png", content(PNG), PHOTOGRAPH, posix=True),
    Case("-rf.png", content(PNG), PHOTOGRAPH),
    Case("=SUM(A1).png", content(PNG), PHOTOGRAPH),
    Case("link_outside.png", link_outside, PHOTOGRAPH, posix=True),
    Case("cut.tif", cut(TIFF), f"{BROKEN}|{NO_IMAGE}|a TIFF of a kind"),
    Case("cut_in_the_pixels.tif", cut(encode(PHOTOGRAPH, "TIFF")), BROKEN),
    Case("cut.png", cut(PNG), BROKEN),
    Case("cut.jpg", cut(JPEG), BROKEN),
    Case("cut.gif", cut(GIF), BROKEN),
    Case("cut.bmp", cut(BMP), BROKEN),
    Case("cut.ppm", cut(PPM), BROKEN),
    Case("cut_in_the_header.tif", content(TIFF[:6]), f"{BROKEN}|{NO_IMAGE}|a TIFF of a kind"),
    Case("cut_in_the_header.png", content(PNG[:20]), f"{BROKEN}|{NO_IMAGE}"),
    Case("damaged.png", damaged(PNG), BROKEN),
    Case("empty.png", content(b""), "empty"),
    Case("zeros.tif", content(bytes(5000)), "all zeros, .* copy it anew"),
    Case("git_lfs.png", content(b"version https://git-lfs.github.com/spec/v1\nsize 9\n"), "git lfs pull"),
    Case("git_annex.tif", content(b"/annex/objects/MD5E-s9--ab.tif\n"), "git annex get"),
    Case("text.png", content(b"this is no picture\n"), NO_IMAGE),
    Case("page.jpg", content(b"<!DOCTYPE html><title>404</title>"), "a page of the web; download"),
    Case("archive.tif", content(b"PK\x03\x04" + bytes(100)), NO_IMAGE),
    Case("program.png", content(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), NO_IMAGE),
    Case("drawing.png", content(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), NO_IMAGE),
    Case("dicom_inside.png", content(bytes(128) + b"DICM" + bytes(50)), "a DICOM file"),
    Case("heic_inside.jpg", content(b"\0\0\0\x18ftypheic" + bytes(200)), "a HEIC photograph"),
    Case("bomb.png", content(huge_png(20_000, 20_000)), "more than 120,000,000 pixels"),
    Case("large.png", content(huge_png(11_000, 11_000)), "more than 120,000,000 pixels"),
    Case("no_width.png", content(huge_png(0, 10)), f"{BROKEN}|{NO_IMAGE}"),
    Case("few_pixels.png", content(huge_png(600, 600)), BROKEN),
    Case("nan.tif", content(encode(NOT_A_NUMBER, "TIFF")), "floating-point"),
    Case("float.tif", content(encode(GREY / np.float32(255), "TIFF")), "floating-point"),
    Case("negative.tif", content(encode(GREY.astype(np.int32) - 100, "TIFF")), "beyond 16 bits"),
    Case("32_bit.tif", content(encode(GREY.astype(np.int32) << 20, "TIFF")), "beyond 16 bits"),
    Case("folder.png", lambda path: path.mkdir(), "not a file"),
    Case("link_to_nothing.png", link("nowhere.png"), "no such file", posix=True),
    Case("link_to_itself.png", link("link_to_itself.png"), "no such file", posix=True),
    Case("bad_disk.png", link("/proc/self/mem"), "Input/output error|no such file", posix=True),
    Case("pipe.png", lambda path: os.mkfifo(path), "not a file", posix=True),
    Case("line\nbreak.png", content(PNG), "control character", posix=True),
    Case("bell\x07 \x1b[31mred.png", content(PNG), "control character", posix=True),
    Case("unreadable.png", unreadable, "Permission denied", posix=True),
]

MASKS = [
    Case("drive.gif", content(encode(VESSELS, "GIF", optimize=False)), VESSELS),
    Case("palette_of_two.gif", content(encode(VESSELS, "GIF")), VESSELS),
    Case("zero_and_one.png", content(encode(VESSELS // 255, "PNG")), VESSELS),
    Case("one_bit.png", content(encode(VESSELS, "PNG", "1")), VESSELS),
    Case("one_bit.tif", content(encode(VESSELS, "TIFF", "1", compression="group4")), VESSELS),
    Case("white_is_zero.tif", content(white_is_zero(VESSELS)), VESSELS),
    Case("white_is_zero_16_bit.tif", content(white_is_zero(WIDE_VESSELS)), VESSELS),
    Case("turned.tif", content(oriented(VESSELS, "TIFF", 6, 1)), VESSELS),
    Case("palette_and_transparent.png", content(transparent_palette()), VESSELS),
    Case("grey_and_alpha.png", content(encode(np.dstack([VESSELS * 0, VESSELS]), "PNG")), VESSELS),
    Case("16_bit.png", content(opencv(VESSELS.astype(np.uint16) * 257, ".png")), VESSELS),
    Case("255_in_16_bit.png", content(opencv(VESSELS.astype(np.uint16), ".png")), VESSELS),
    Case("one_in_16_bit.png", content(opencv(VESSELS.astype(np.uint16) // 255, ".png")), VESSELS),
    Case("alpha.png", content(encode(np.dstack([VESSELS] * 3 + [FIELD]), "PNG")), VESSELS),
    Case("red.png", content(encode(np.dstack([VESSELS, VESSELS * 0, VESSELS * 0]), "PNG")), VESSELS),
    Case("nearly_binary.jpg", content(encode(FIELD, "JPEG", quality=95)), FIELD, 1),
    Case("blank.png", content(encode(VESSELS * 0, "PNG")), VESSELS * 0),
    Case("all_vessel.png", content(encode(VESSELS * 0 + 255, "PNG")), VESSELS * 0 + 255),
    Case("grey.png", content(encode(RAMP, "PNG")), "not a mask of 0 and 255"),
    Case("photograph.png", content(PNG), "not a mask of 0 and 255"),
    Case("half_grey.png", content(encode(VESSELS // 2, "PNG")), VESSELS),
    Case("zero_and_two.png", content(encode(VESSELS // 255 * 2, "PNG")), VESSELS),
    Case("artery_1_vein_2.png", content(encode(CLASSES, "PNG")), VESSELS),
    Case("artery_red_vein_blue.png", content(encode(ARTERIES, "PNG")), VESSELS),
    Case(
        "artery_vein_on_white.png",
        content(encode(np.where(VESSELS[..., None] > 0, ARTERIES, 255).astype(np.uint8), "PNG")),
        VESSELS,
    ),
    Case("in_the_alpha.png", content(encode(np.dstack([VESSELS * 0 + 255] * 3 + [VESSELS]), "PNG")), VESSELS),
    Case("antialiased.png", content(encode(SOFT, "PNG")), np.where(SOFT > 127, 255, 0)),
    Case("dark.png", content(encode(np.where(VESSELS > 0, 30, 0).astype(np.uint8), "PNG")), VESSELS),
    Case("labels.png", content(encode(VESSELS // 255 + FIELD // 255, "PNG")), "brightest pixel is 2"),
    Case("cut.gif", cut(encode(VESSELS, "GIF", optimize=False), 0.9), BROKEN),
    Case("folder.gif", lambda path: path.mkdir(), "not a file"),
]


def unavailable(case: Case) -> str | None:
    """Why this case cannot be tried here, or None."""
    if case.posix and os.name == "nt":
        return "Windows has no such file or name"
    if sys.platform == "darwin" and case.name.encode(errors="replace").decode() != case.name:
        return "macOS has no such name"
    if case.write is unreadable and os.geteuid() == 0:
        return "root may read everything"
    return None
