"""--um-per-pixel: a table as spreadsheets write it gives each photograph its number, or a line says why not."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from conftest import ROOT, landmarks, read_csv, run_script, write_photographs

import predict
from anatomy.landmarks import Landmarks
from datasets.tables import Table
from measures.micrometres import read_um_per_pixel
from utils import UserError

TABLES = {
    "commas": "e0.png,7.5\ne1.png,6\n",
    "semicolons and decimal commas": "e0.png;7,5\ne1.png;6\n",
    "semicolons and decimal points": "e0.png;7.5\ne1.png;6\n",
    "bars": "file | um\ne0.png | 7,5\ne1.png | 6\n",
    "a table of Markdown": "| file | um |\n| e0.png | 7.5 |\n| e1.png | 6 |\n",
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
    "line ends of Windows": "file,um\r\ne0.png,7.5\r\n\r\ne1.png,6\r\n",
    "line ends of an old Mac": "file,um\re0.png,7.5\re1.png,6\r",
    "spaces that do not break": "e0.png\u00a0,\u00a07.5\u00a0\ne1.png,6\u00a0\n",
    "a pixel's size": "file,pixel size (\u03bcm)\ne0.png,7.5\ne1.png,6\n",
    "a unit in words": "file,Microns\ne0.png,7.5\ne1.png,6\n",
    "a profile and who took it": "profile,photographer,file,um\nA,Li,e0.png,7.5\nB,Li,e1.png,6\n",
    "all in quotes": '"e0.png","7.5"\n"e1.png","6"\n',
    "exponents": "e0.png;7,5E+00\ne1.png;6e0\n",
    "an index": ",file,um\n0,e0.png,7.5\n1,e1.png,6\n",
    "gzipped": "e0.png.gz,7.5\ne1.png,6\n",
    "empty columns": "e0.png,7.5,,\ne1.png,6,,\n\n,,,\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("table", TABLES)
def test_a_table_of_a_spreadsheet_is_understood(table, encoding, tmp_path):
    file = tmp_path / "um.csv"
    file.write_text(TABLES[table], encoding=encoding)
    known = read_um_per_pixel(str(file))
    assert [known.find(Path("data", "in", f"e{k}.png")) for k in range(3)] == [7.5, 6, None]


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_umlauts_match_however_they_are_written(form, encoding, tmp_path):
    (tmp_path / "um.csv").write_bytes("M\u00fcller.png;7,5\n".encode(encoding))
    known = read_um_per_pixel(str(tmp_path / "um.csv"))
    assert known.find(Path(normalize(form, "M\u00fcller.png"))) == 7.5


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("e0.png,7,5\n", "3 columns without a heading"),
        ("file,um\ne0.png,7,5\n", "line 2 is"),
        ("Scales of 2024\nfile,um\ne0.png,7.5\n", "begins with 'Scales of 2024', a title above"),
        ("Scales of 2024\nfile;um\ne0.png;7,5\n", "begins with 'Scales of 2024', a title above"),
        ("Scales;;\nfile;eye;um\ne0.png;OD;7,5\n", "begins with 'Scales', a title above"),
        ("e0.png,7.5\nE0.png,6\n", "E0.png has two numbers, 7.5 and 6"),
        ("file,width,height\ne0.png,565,584\n", "which column"),
        ("file,mm_per_pixel\ne0.png,0.0075\n", "which column"),
        ("file,pixels_per_mm\ne0.png,133\n", "which column"),
        ("file,um,um_y\ne0.png,7.5,7.4\n", "which column"),
        ("file,um,um\ne0.png,7.5,7.5\n", "which column"),
        ("file,width\ne0.png,565\n", "which column"),
        ("file,nm_per_pixel\ne0.png,7500\n", "which column"),
        ("file,pixel_spacing\ne0.png,0.0075\n", "which column"),
        ("file,scale\ne0.png,0.5\n", "which column"),
        ("file,1/um\ne0.png,0.13\n", "which column"),
        ("file,um2 per pixel\ne0.png,56\n", "which column"),
        ("file,Umfang\ne0.png,56\n", "which column"),
        ("file,disc_um\ne0.png,1800\n", "which column"),
        ("file,um^2/pixel\ne0.png,56\n", "which column"),
        ("file,sq. um per pixel\ne0.png,56\n", "which column"),
        ("file,um_per_100px\ne0.png,750\n", "which column"),
        ("file,um_per_pixel_sd\ne0.png,0.2\n", "which column"),
        ("e0.png,0.0075\n", "line 1 is"),  # millimetres
        ("e0.png,7500\n", "line 1 is"),
        ("file,width of the field (\u00b5m)\ne0.png,9000\n", "which column"),
        ("e0.png,7_5\n", "line 1 is"),
        ("e1.png,6\ne0.png,7_5\n", "line 2 is"),
        ("e0.png,\ne1.png,6\n", "line 1 is"),
        ("e0.png;1.234,5\ne1.png;6\n", "line 1 is"),
        ("e0.png;7'500\ne1.png;6\n", "line 1 is"),
        ("file;um\ne0.png;1 234\n", "line 2 is"),
        ("file,um\ne0.png,7.5 mm\n", "line 2 is"),
        ("file,um\ne0.png,nan\n", "line 2 is"),
        ("e0.png,7.5\ne0,6\n", "e0.png has two numbers, 7.5 and 6"),
        ("e0.png,7.5\n".encode("utf-16-le").decode(), "not a CSV file of text"),
        ("", "give micrometres a pixel"),
        ("file,um\n", "no file names with numbers; give micrometres a pixel"),
        ("a.png,5\nb.png,none\n", "give micrometres a pixel"),
        ("a.png,-1\na.png,0\n", "give micrometres a pixel"),
        ("a.png\nb.png\n", "give micrometres a pixel"),
    ],
)
def test_a_table_that_can_be_misread_is_refused(table, said, tmp_path):
    (tmp_path / "um.csv").write_text(table)
    with pytest.raises(UserError, match=said):
        read_um_per_pixel(str(tmp_path / "um.csv"))


@pytest.mark.parametrize(
    "text", ["7_5", "1.234,5", "7.5um", "nan", "inf", "0", "-7", "1e-300", "7500", "missing.csv"]
)
def test_what_is_no_plain_number_is_not_taken_for_one(text):
    with pytest.raises(UserError, match="give micrometres a pixel"):
        read_um_per_pixel(text)


def test_two_files_of_one_name_get_their_own_numbers(tmp_path):
    (tmp_path / "um.csv").write_text("a/OD.png,5\nb/OD.png,6\neye.png,7\neye.jpg,8\n")
    known = read_um_per_pixel(str(tmp_path / "um.csv"))
    assert [known.find(Path("x", f, "OD.png")) for f in "abc"] == [5, 6, None]
    assert [known.find(Path(f"eye.{end}")) for end in ("png", "jpg", "tif")] == [7, 8, None]


def test_a_number_after_a_point_is_part_of_the_name(tmp_path):
    (tmp_path / "um.csv").write_text("P1.2,5\nP2.png,6\n")
    known = read_um_per_pixel(str(tmp_path / "um.csv"))
    assert [known.find(Path(f"{name}.png")) for name in ("P1.2", "P1", "P2")] == [5, None, 6]


def test_a_row_is_that_of_one_photograph_whatever_its_results_are_called():
    # b/eye.png is called eye_2 in the results, and eye_2.png of the table is another eye
    known = Table("um.csv", "a number", ["eye.png", "eye_2.png"], [7.0, 8.0])
    assert known.find(Path("b/eye.png")) == 7
    assert "1 of 1 photographs have a number" in known.match([Path("b/eye.png")])
    with pytest.raises(UserError, match=r"eye.png could be a.eye.png and b.eye.png; give the folders"):
        known.match([Path("a/eye.png"), Path("b/eye.png")])


@pytest.mark.parametrize(("um", "doubt"), [(90, ""), (60, ""), (9, "0.2 mm wide"), (900, "18.0 mm wide")])
def test_a_number_that_contradicts_the_disc_is_called_doubtful(um, doubt, files, tmp_path, monkeypatch):
    found = landmarks(disc_x=40.0, disc_y=40.0, disc_diameter=20.0)
    monkeypatch.setattr("anatomy.photograph.find_landmarks", lambda *_: found)
    eyes = write_photographs(tmp_path / "eyes", 1, 96, 92)
    flags = ("--weights", files / "checkpoint.pth", "--views=1", "--write=measures", "--um-per-pixel", um)
    assert run_script(predict.main, eyes, "--out", tmp_path / "out", *flags) == 0
    (row,) = read_csv(tmp_path / "out" / "measures.csv")
    assert (f"--um-per-pixel makes the disc {doubt}" in row["doubtful"]) is bool(doubt)
    assert float(row["um_per_pixel"]) == um


@pytest.mark.parametrize(("widest", "is_doubtful"), [(30.0, False), (50.0, True)])
def test_a_disc_that_no_other_of_its_camera_is_like_is_called_doubtful(
    widest, is_doubtful, tmp_path, monkeypatch
):
    def find(photograph: np.ndarray, _: np.ndarray) -> Landmarks:
        is_wide = photograph.mean(axis=(0, 1)).argmax() == 1  # the second alone is green
        return landmarks(disc_x=40.0, disc_y=40.0, disc_diameter=widest if is_wide else 20.0)

    monkeypatch.setattr("anatomy.photograph.find_landmarks", find)
    eyes = write_photographs(tmp_path / "eyes", 4, 96, 92)
    flags = ("--weights", ROOT / "files" / "fundus_unet.pth", "--views=1", "--write=measures")
    assert run_script(predict.main, eyes, "--out", tmp_path / "out", *flags) == 0
    doubts = [row["doubtful"] for row in read_csv(tmp_path / "out" / "measures.csv")]
    words = "disc 2.5 times as wide as others of its camera"
    assert [words in doubt for doubt in doubts] == [False, is_doubtful, False, False]


def test_how_many_photographs_have_a_number_is_said_and_none_is_refused(tmp_path):
    photographs = [Path(f"e{k}.png") for k in range(3)]
    (tmp_path / "um.csv").write_text("e1.png,5\ne7,5\n,5\n")
    known = read_um_per_pixel(str(tmp_path / "um.csv"))
    assert known.match(photographs) == (
        f"--um-per-pixel {tmp_path / 'um.csv'}: 1 of 3 photographs have a number; without one: e0.png, e2.png; "
        "rows of no photograph: e7"
    )
    assert read_um_per_pixel("5").match(photographs) == read_um_per_pixel(None).match(photographs) == ""
    with pytest.raises(UserError, match="none of the photographs is in it, such as e9.png"):
        known.match([Path("e9.png")])


def test_a_row_without_a_name_and_one_that_two_files_may_mean_give_no_number(tmp_path):
    (tmp_path / "um.csv").write_text("OD.png,5\n,9\n")
    known = read_um_per_pixel(str(tmp_path / "um.csv"))
    assert known.find(Path("OS.png")) is None
    with pytest.raises(UserError, match=r"od could be .*OD.png and .*OD.jpg"):
        known.match([Path("a/OD.png"), Path("b/OD.jpg")])
