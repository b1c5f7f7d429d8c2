"""Whose the photographs are: --table and names give columns, copies and mixed cameras are named."""

from __future__ import annotations

import json
from pathlib import Path, PurePath

import numpy as np
import pytest
from conftest import read_csv, run_script
from PIL import Image

import predict
from batch.patients import Patients, describe_cameras, read_patients
from batch.results import Rows
from datasets.duplicates import pack_print, unpack_print
from datasets.images import write_png
from datasets.people import person_in
from datasets.synthetic import draw_eye
from system.records import read_record
from utils import UserError

NAMES = {
    "P001/visit1/OD.jpg": ("P001", "right", "visit1"),
    "2024-05-01/mueller_links.tif": ("mueller", "left", "2024-05-01"),
    "P001_v2_left.png": ("P001", "left", "v2"),
    "sub-01/ses-2/sub-01_ses-2_eye-L.png": ("sub-01", "left", "ses-2"),
    "Image_01L.jpg": ("Image_01", "left", ""),
    "07_Rechts.ppm.gz": ("07", "right", ""),
    "patient 12/baseline/OS/photo.png": ("patient 12", "left", "baseline"),
    "12345/2020-01-03/IMG_0004_R.jpg": ("12345", "right", "2020-01-03"),
    "M\u00fcller_OD_20240102.jpg": ("M\u00fcller", "right", "20240102"),
    "M\u00fcller (OD) \u2013 visit 2.png": ("M\u00fcller", "right", "visit 2"),
    "jane.doe [L] v1.final.png": ("jane.doe final", "left", "v1"),
    # nothing is made up
    "IMG_0001_L.jpg": ("", "left", ""),
    "photos/OD.jpg": ("", "right", ""),
    "12_OD_OS.png": ("", "", ""),
    "21_training.tif": ("", "", ""),
    "im0001.ppm.gz": ("", "", ""),
    "01_dr.JPG": ("", "", ""),
    "close.png": ("", "", ""),
}


@pytest.mark.parametrize("path", NAMES)
def test_patient_eye_and_visit_are_read_where_names_say_them(path):
    assert person_in(PurePath(path)) == NAMES[path]


def test_a_folder_that_was_searched_says_the_patient_whatever_it_is_called():
    assert person_in(PurePath("photos/mueller/OD.jpg"), ["mueller"]).patient == "mueller"


TABLES = {
    "commas": "file,age,sphere\np1/od.png,63.5,-2.25\np1/os.png,63.5,+0.5\n",
    "semicolons and decimal commas": "file;age;sphere\np1/od.png;63,5;-2,25\np1/os.png;63,5;+0,5\n",
    "another order, Windows": "age\tsphere\tfile\n63.5\t-2.25\tx\\P1\\OD.tif\n63.5\t+0.5\tx\\P1\\OS.tif\n",
    "a name beside the file": "Vorname,age,sphere,Datei\nA,63.5,-2.25,p1/od\nA,63.5,+0.5,p1/os\n",
    "lines in a cell": 'note;age;sphere;file\n"a\nb";63,5;-2,25;p1/od\n;63,5;+0,5;p1/os\n',
}
PHOTOGRAPHS = {"p1/od": Path("x/p1/od.tif"), "p1/os": Path("x/p1/os.tif"), "p2/od": Path("x/p2/od.tif")}


def table_of(tmp_path: Path, text: str) -> Patients:
    (tmp_path / "patients.csv").write_text(text, encoding="utf-8")
    return read_patients(tmp_path / "patients.csv", PHOTOGRAPHS)


@pytest.mark.parametrize("table", TABLES)
def test_columns_of_a_spreadsheet_are_carried_with_decimal_points(table, tmp_path):
    patients = table_of(tmp_path, TABLES[table])
    told = [patients.tell({"image": n, "photograph": str(path)}) for n, path in PHOTOGRAPHS.items()]
    assert [(row.get("age"), row.get("sphere")) for row in told] == [
        ("63.5", "-2.25"),
        ("63.5", "+0.5"),
        (None, None),
    ]


@pytest.mark.parametrize(
    "cells", [("1,234", "567"), ("-1,234", "2,345"), ("1.234", "1,5"), ("1,234.5", "2"), ("1,5", "mild")]
)
def test_numbers_that_may_have_thousands_and_text_stay(cells, tmp_path):
    patients = table_of(tmp_path, f"file;count\np1/od;{cells[0]}\np1/os;{cells[1]}\n")
    assert patients.table.values == [[cell] for cell in cells]


def test_a_column_that_names_other_photographs_is_not_that_of_the_rows(tmp_path):
    patients = table_of(tmp_path, "file,fellow eye\np1/od,p1/os\np9/od,p1/od\np8/od,p1/od.tif\n")
    assert patients.table.files == ["p1/od", "p9/od", "p8/od"]


def test_the_table_goes_before_the_names_and_an_eye_has_one_name(tmp_path):
    patients = table_of(tmp_path, "file,Patient,Eye,visit\np1/od,anna,OS,\n")
    row = patients.tell({"image": "p1/od", "photograph": "visit3/p1/od.tif"})
    assert [row[column] for column in ("patient", "eye", "visit")] == ["anna", "left", "visit3"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("file,age\np1/od,60\np1/od.tif,60\np1/od,61\n", "p1/od has two rows that differ, lines 2 and 4"),
        ("file,age\np1/od,63,5\n", "line 2 has 3 cells, the heading 2"),
        ("file,length\np1/od,60\n", "has a column length of its own"),
        ("file,age,age\np1/od,60,61\n", "two columns are called age"),
        ("file,\np1/od,60\n", "a column has no heading"),
        ("p1/od.tif,60\np1/os.tif,61\n", "its first line is p1/od.tif, no heading"),
        ("file,age\n", "no rows below a heading"),
        ('file,note\np1/od,"blurred\np1/os,sharp\n', "a quote is not closed"),  # it would swallow a row
        ("file,age\nod,60\n", "od could be x/p1/od.tif and x/p2/od.tif; give the folders"),
        ("file,age\nq,60\n", "none of the photographs is in it"),
    ],
)
def test_a_table_that_can_be_misread_is_refused(table, said, tmp_path):
    with pytest.raises(UserError, match=said.replace("/", r"[\\/]")):
        table_of(tmp_path, table).table.match(PHOTOGRAPHS.values())


def test_what_could_not_be_matched_is_said(tmp_path):
    table = table_of(tmp_path, "file,age\np1/od,60\np1/os,60\np1/os,60\np7/od,50\n").table
    said = table.match(PHOTOGRAPHS.values())
    assert "2 of 3 photographs have a row" in said
    assert f"without one: {PHOTOGRAPHS['p2/od']}" in said
    assert "rows of no photograph: p7/od" in said


def test_cameras_are_told_apart_by_name_else_by_size():
    portrait, landscape, larger = (
        {"photograph_width": w, "photograph_height": h} for w, h in ((50, 60), (60, 50), (90, 80))
    )
    assert describe_cameras([portrait, landscape]) == ""
    assert "60x50 pixels (2), 90x80 pixels (1)" in describe_cameras([portrait, landscape, larger])
    one, other = landscape | {"camera": "Canon CR-2"}, landscape | {"camera": "Topcon NW400"}
    assert describe_cameras([one, portrait | {"camera": "Canon CR-2"}]) == ""
    assert "Topcon NW400 (2), Canon CR-2 (1)" in describe_cameras([one, other, other])


def test_a_packed_fingerprint_is_nearly_the_same():
    fingerprint = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    fingerprint /= np.linalg.norm(fingerprint)
    assert float((unpack_print(pack_print(fingerprint)) * fingerprint).sum()) > 0.999
    assert not unpack_print(pack_print(np.zeros((64, 64), np.float32))).any()


def test_rows_that_are_not_compared_are_said(tmp_path):
    rows = Rows(tmp_path / "rows")
    rows.path.write_text(
        "".join(
            f'{{"image": "{n}", "photograph": "{n}", "photograph_width": 9, "photograph_height": 9}}\n'
            for n in "ab"
        )
    )
    rows.number, rows.prints = 2, {"a": pack_print(np.ones((64, 64), np.float32))}
    assert Patients().join(rows) == ["looked for copies among the first 1 photographs only"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients, one with two visits, of which one photograph is another one of a patient again."""
    folder = tmp_path_factory.mktemp("study")
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Canon\0\0", "Canon CR-2"
    for k, place in enumerate(("P1/v1/OD", "P1/v1/OS", "P1/v2/OD", "P2/v1/OD")):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        eye = draw_eye(np.random.default_rng(0 if k == 2 else k), 160, 150)[0]
        Image.fromarray(eye).save(folder / f"{place}.jpg", quality=60 if k == 2 else 95, exif=exif)
    (folder / "patients.csv").write_text(
        "file;age;sphere;note\nP1/v1/OD;63,5;-2,25;\nP1\\v1\\OS.jpg;63,5;+1;=1+1\n"
    )
    return folder


def test_measures_have_patients_copies_and_cameras_and_a_new_table_needs_no_new_prediction(
    study, files, tmp_path, capsys
):
    out = tmp_path / "out"
    run = (study, "--recursive", "--weights", files / "checkpoint.pth", "--views=1", "--out", out)
    assert run_script(predict.main, *run, "--table", study / "patients.csv") in (0, None)
    said = capsys.readouterr().out
    assert "2 of 4 photographs have a row" in said
    assert "the same photograph twice, it seems (column copy_of): P1/v2/OD like P1/v1/OD" in said
    rows = read_csv(out / "measures.csv")
    columns = ("patient", "eye", "visit", "age", "sphere", "note", "camera", "copy_of", "photograph_width")
    assert [tuple(row[column] for column in columns) for row in rows] == [
        ("P1", "right", "v1", "63.5", "-2.25", "", "Canon CR-2", "", "150"),
        ("P1", "left", "v1", "63.5", "+1", "'=1+1", "Canon CR-2", "", "150"),
        ("P1", "right", "v2", "", "", "", "Canon CR-2", "P1/v1/OD", "150"),
        ("P2", "right", "v1", "", "", "", "Canon CR-2", "", "150"),
    ]
    manifest = (out / "predict.json").read_text(encoding="utf-8")
    assert "sphere" not in json.dumps(json.loads(manifest)["photographs"]), "it is passed on with results"

    (study / "other.csv").write_text("file,group\nP2/v1/OD,control\n")
    assert run_script(predict.main, *run, "--resume", "--table", study / "other.csv") in (0, None)
    assert "4 of 4 photographs are finished already" in capsys.readouterr().out
    again = read_csv(out / "measures.csv")
    assert [row["group"] for row in again] == ["", "", "", "control"]
    assert "age" not in again[0]


def test_a_photograph_that_was_moved_has_the_row_of_its_new_place(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_png(Path("a/eye.png"), draw_eye(np.random.default_rng(5), 120, 110)[0])
    write_png(Path("c/other.png"), draw_eye(np.random.default_rng(6), 120, 110)[0])
    Path("t.csv").write_text("file,patient\na/eye.png,P1\nb/eye.png,P2\nc/other.png,P3\n")
    flags = (
        "--weights",
        files / "checkpoint.pth",
        "--views=1",
        "--write=measures",
        "--out=out",
        "--table=t.csv",
    )
    assert run_script(predict.main, "a", *flags) in (0, None)
    before = read_record(Path("out/records/eye.json")).files
    Path("a").rename("b")
    assert run_script(predict.main, "b", *flags, "--resume") in (0, None)
    row = read_csv(Path("out/measures.csv"))[0]
    assert (row["photograph"], row["patient"]) == (str(Path("b/eye.png")), "P2")
    assert read_record(Path("out/records/eye.json")).files == before
    assert run_script(predict.main, "c", *flags) in (0, None)  # among the others of a later run
    assert [row["patient"] for row in read_csv(Path("out/measures.csv"))] == ["P3", "P2"]


def test_names_that_say_nothing_give_no_columns(files, tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(draw_eye(np.random.default_rng(5), 120, 110)[0]).save(tmp_path / "in" / "eye.png")
    run = (tmp_path / "in", "--weights", files / "checkpoint.pth", "--views=1", "--out", tmp_path / "out")
    assert run_script(predict.main, *run) in (0, None)
    heading = (tmp_path / "out" / "measures.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert not {"patient", "eye", "visit", "camera", "copy_of"} & {*heading}
