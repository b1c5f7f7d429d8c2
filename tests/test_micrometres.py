"""--um-per-pixel: a table as spreadsheets write it gives each photograph its number, or a line says why not."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import pytest

from measures.micrometres import describe_um, read_um_per_pixel, um_of
from utils import UserError

TABLES = {
    "commas": "e0.png,7.5\ne1.png,6\n",
    "semicolons and decimal commas": "e0.png;7,5\ne1.png;6\n",
    "semicolons and decimal points": "e0.png;7.5\ne1.png;6\n",
    "tabs": "e0.png\t7,5\ne1.png\t6\n",
    "quoted decimal commas": 'e0.png,"7,5"\ne1.png,6\n',
    "Excel's first line": "sep=;\nfile;um\ne0.png;7,5\ne1.png;6\n",
    "a heading": "file,um_per_pixel\ne0.png,7.5\ne1.png,6\n",
    "more columns": "file,width,um\ne0.png,565,7.5\ne1.png,565,6\n",
    "another order": "um per pixel;eye;photograph\n7,5;OD;e0.png\n6;OS;e1.png\n",
    "German": "Datei;Mikrometer je Pixel\ne0.png;7,5\ne1.png;6\n",
    "the micro sign": "image,µm/px\ne0.png,7.5\ne1.png,6\n",
    "no suffix": "e0,7.5\ne1,6\n",
    "capitals": "E0.PNG,7.5\nE1.Png,6\n",
    "another suffix": "e0.jpg,7.5\ne1.tiff,6\n",
    "twice the same": "e0.png,7.5\ne0.png,7.50\ne1.png,6\n",
    "folders": "in\\e0.png,7.5\n./in/e1.png,6\n",
    "empty columns": "e0.png,7.5,,\ne1.png,6,,\n\n,,,\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("table", TABLES)
def test_a_table_of_a_spreadsheet_is_understood(table: str, encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "um.csv"
    file.write_text(TABLES[table], encoding=encoding)
    known = read_um_per_pixel(str(file))
    assert [um_of(Path("data", "in", f"e{k}.png"), known, f"e{k}") for k in range(3)] == [7.5, 6, None]


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_umlauts_match_however_they_are_written(form: str, encoding: str, tmp_path: Path) -> None:
    (tmp_path / "um.csv").write_bytes("M\u00fcller.png;7,5\n".encode(encoding))
    known = read_um_per_pixel(str(tmp_path / "um.csv"))
    assert um_of(Path(normalize(form, "M\u00fcller.png")), known) == 7.5


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("e0.png,7,5\n", "3 columns without a heading"),
        ("file,um\ne0.png,7,5\n", "line 2 is"),
        ("e0.png,7.5\nE0.png,6\n", "E0.png has two numbers, 7.5 and 6"),
        ("file,width,height\ne0.png,565,584\n", "which column"),
        ("file,mm_per_pixel\ne0.png,0.0075\n", "which column"),
        ("file,pixels_per_mm\ne0.png,133\n", "which column"),
        ("file,um,um_y\ne0.png,7.5,7.4\n", "which column"),
    ],
)
def test_a_table_that_can_be_misread_is_refused(table: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "um.csv").write_text(table)
    with pytest.raises(UserError, match=said):
        read_um_per_pixel(str(tmp_path / "um.csv"))


def test_two_files_of_one_name_get_their_own_numbers(tmp_path: Path) -> None:
    (tmp_path / "um.csv").write_text("a/OD.png,5\nb/OD.png,6\neye.png,7\neye.jpg,8\n")
    known = read_um_per_pixel(str(tmp_path / "um.csv"))
    assert [um_of(Path("x", f, "OD.png"), known, f"{f}/OD") for f in "abc"] == [5, 6, None]
    assert [um_of(Path(f"eye.{end}"), known, "eye") for end in ("png", "jpg", "tif")] == [7, 8, None]


def test_how_many_photographs_have_a_number_is_said_and_none_is_refused() -> None:
    names = {f"e{k}": Path(f"e{k}.png") for k in range(3)}
    assert describe_um(names, {"e1.png": 5.0}, "um.csv") == (
        "--um-per-pixel um.csv: 1 of 3 photographs have a number; none: e0.png, e2.png"
    )
    assert describe_um(names, {"": 5.0}, "5") == describe_um(names, {}, "") == ""
    with pytest.raises(UserError, match="none of the photographs is in it, such as e0.png"):
        describe_um(names, {"x": 5.0}, "um.csv")
