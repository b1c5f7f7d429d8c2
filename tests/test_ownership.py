"""No script deletes, overwrites or moves a file that it did not write; results are those of one run."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import read_csv, run_script
from PIL import Image

import augment
import demo
import predict
import test as tester
from batch import manifest, results
from batch import photographs as batch_photographs
from datasets.images import write_png
from datasets.new_data import replace_data
from system import records
from system.records import RECORD, read_record, replace_results, users_files, write_record
from utils import UserError, folder_name


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def make(folder: Path, *names: str) -> Path:
    """A folder with files of the user's."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"years of work: {name}")
    return folder


FOREIGN = ("train/patient_1.txt", "train/image/a.png", "test/label_1.txt")


@pytest.mark.parametrize(
    "info",
    [
        {"name": "MyStudy", "labels": {"vessel": 1}, "numTraining": 3, "file_ending": ".png"},
        {"train": ["a.png"], "test": []},
        {"size": None, "seed": 1, "test_labels": True, "train": 3, "test": 3},  # even if it looks like ours
        None,
        "not a list of anything",
    ],
)
def test_augment_leaves_a_folder_of_another_program_alone(drive, tmp_path, info):
    out = make(tmp_path / "mydata", *FOREIGN)
    if info is not None:
        (out / "dataset.json").write_text(json.dumps(info))
    before = content(out)
    with pytest.raises(UserError, match="would be lost: not written by augment.py"):
        run_script(augment.main, "--drive", drive, "--out", out)
    assert content(out) == before


@pytest.fixture
def own_data(new_data: Path, tmp_path: Path) -> Path:
    return shutil.copytree(new_data, tmp_path / "new_data")


@pytest.mark.parametrize("name", ["train/notes.txt", "train/image/mine.png", "test/mask_corrected/01.png"])
def test_augment_removes_nothing_that_lies_among_its_own_files(drive, own_data, name):
    make(own_data, name)
    before = content(own_data)
    with pytest.raises(UserError, match=Path(name).name):
        run_script(augment.main, "--drive", drive, "--out", own_data)
    assert content(own_data) == before


def test_augment_does_not_replace_a_mask_that_was_corrected_by_hand(drive, own_data):
    corrected = own_data / "train" / "mask" / "21_training_0.png"
    write_png(corrected, np.zeros((9, 9), np.uint8))
    before = content(own_data)
    with pytest.raises(UserError, match=r"21_training_0\.png would be lost: .* changed since"):
        run_script(augment.main, "--drive", drive, "--out", own_data)
    assert content(own_data) == before


def test_augment_replaces_its_own_folder(drive, own_data):
    make(own_data, "notes.txt", "mine/eye.png")
    (own_data / "train" / "image" / ".DS_Store").write_text("of the file manager")
    run_script(augment.main, "--drive", drive, "--out", own_data, "--seed", 7)
    run_script(augment.main, "--drive", drive, "--out", own_data, "--size", 32)
    assert json.loads((own_data / "dataset.json").read_text())["size"] == 32
    assert (own_data / "notes.txt").exists() and (own_data / "mine" / "eye.png").exists()
    assert read_record(own_data).script == "augment.py" and read_record(own_data).is_whole
    assert not users_files(own_data, ("train", "test", "dataset.json"))


def test_new_data_are_replaced_where_nobody_may_set_times_and_permissions(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    out = make(tmp_path / "out", "train/image/a.png")
    write_record(out, "augment.py", ["train/image/a.png"])
    for name in ("chmod", "utime"):
        monkeypatch.setattr(os, name, refuse)
    replace_data(make(out / ".new", "train/image/b.png"), out)
    assert sorted(content(out)) == [f"train{os.sep}image{os.sep}b.png", RECORD]


def test_augment_removes_no_hidden_folder_of_the_users(drive, tmp_path):
    out = make(tmp_path / "out", ".old-photographs/eye.png", ".staged-mine/eye.png")
    before = content(out)
    run_script(augment.main, "--drive", drive, "--out", out)
    assert before.items() <= content(out).items()


@pytest.mark.parametrize("where", ["", "training", "training/images", "test/mask", "training/images/new"])
def test_augment_writes_into_no_data_set(drive, tmp_path, where):
    own = shutil.copytree(drive, tmp_path / "DRIVE")
    before = content(own)
    with pytest.raises(UserError, match="a folder of the data set"):
        run_script(augment.main, "--drive", own, "--out", own / where)
    assert content(own) == before


@pytest.mark.parametrize("script", [augment, demo, tester, predict])
@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_name_is_not_the_current_folder(script, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flag = "--results" if script is tester else "--out"
    with pytest.raises(SystemExit) as status:
        run_script(script.main, *(["eye.png"] if script is predict else []), flag, text)
    assert status.value.code == 2
    assert "name a folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert folder_name("out") == Path("out")


@pytest.mark.parametrize(
    ("marker", "names"),
    [
        (None, ["mine.txt"]),
        ("SYNTHETIC data of my own, made by demo.py", ["eye.png"]),
        (demo.NOTE, ["thesis.txt", "DRIVE/training/images/21_training.tif"]),
        (demo.NOTE, [demo.MARKER]),
    ],
)
def test_demo_leaves_a_folder_alone_that_it_did_not_write(tmp_path, marker, names):
    out = make(tmp_path / "out", *names)
    if marker:
        (out / demo.MARKER).write_text(marker)
    before = content(out)
    with pytest.raises(UserError, match="not known to be written by demo.py; choose another --out"):
        run_script(demo.main, "--out", out)
    assert content(out) == before


def test_demo_keeps_what_was_put_into_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "write_drive", lambda folder, **_: make(folder, "training/21.tif"))
    monkeypatch.setattr(demo.subprocess, "run", lambda *_, **__: type("Done", (), {"returncode": 1}))
    out = tmp_path / "demo"
    assert run_script(demo.main, "--out", out) == 1
    assert run_script(demo.main, "--out", out) == 1  # what it wrote itself is replaced
    make(out, "results/thesis.txt")
    before = content(out)
    with pytest.raises(UserError, match="thesis.txt would be lost"):
        run_script(demo.main, "--out", out)
    assert content(out) == before


def score(new_data: Path, files: Path, results: Path) -> int | None:
    weights = files / "checkpoint.pth"
    flags = ["--views=1", "--device=cpu"]
    return run_script(tester.main, "--data", new_data, "--weights", weights, "--results", results, *flags)


@pytest.mark.parametrize("where", ["", "test", "test/image", "train/mask", "test/results"])
def test_test_py_writes_nothing_among_the_eyes(own_data, files, where):
    before = content(own_data)
    with pytest.raises(UserError, match=r"--results .*choose another folder"):
        score(own_data, files, own_data / where)
    assert content(own_data) == before


def test_results_are_those_of_one_run_and_a_users_file_stays(own_data, files, tmp_path):
    results = make(tmp_path / "results", "thesis.txt", "masks/mine.txt")
    score(own_data, files, results)
    first = content(results)
    for part in ("image", "mask", "fov", "second_observer"):
        (own_data / "test" / part / "02_test_0.png").unlink()
    (own_data / "test" / "image" / "03_test_0.png").write_bytes(b"now damaged")
    assert score(own_data, files, results) == 2
    second = content(results)
    assert not [name for name in second if "02_test" in name or "03_test" in name]
    assert {name for name in first if "01_test" in name} == {name for name in second if "01_test" in name}
    assert second["thesis.txt"] == first["thesis.txt"] and "masks/mine.txt" in second
    assert set(read_record(results).files) == second.keys() - {"thesis.txt", "masks/mine.txt", RECORD}


def test_a_mask_that_was_corrected_by_hand_is_not_overwritten(new_data, files, tmp_path):
    results = tmp_path / "results"
    score(new_data, files, results)
    (results / "masks" / "01_test.png").write_bytes(b"corrected for hours")
    before = content(results)
    with pytest.raises(UserError, match=r"01_test\.png would be lost: .*changed since"):
        score(new_data, files, results)
    assert content(results) == before


@pytest.mark.parametrize("name", ["index.html", "metrics.csv", "masks/01_test.png", RECORD])
def test_a_strangers_file_is_not_overwritten(new_data, files, tmp_path, name):
    results = make(tmp_path / "results", name)
    before = content(results)
    with pytest.raises(UserError, match="would be lost: not written by test.py"):
        score(new_data, files, results)
    assert content(results) == before


@pytest.mark.parametrize("damaged", [b"", b"[]", b"\xff\xfe", b'{"note": 1}', b"[" * 99_999])
def test_a_record_that_cannot_be_read_names_no_file_that_may_be_replaced(damaged, tmp_path):
    (tmp_path / RECORD).write_bytes(damaged)
    with pytest.raises(UserError, match=rf"{RECORD} would be lost"), replace(tmp_path, "test.py", "a.png"):
        pass
    assert (tmp_path / RECORD).read_bytes() == damaged


def replace(folder: Path, script: str, *names: str):
    return replace_results(script, "--results", folder, names)


def test_a_killed_run_is_replaced_and_another_scripts_results_are_not(tmp_path):
    with pytest.raises(KeyboardInterrupt), replace(tmp_path, "test.py", "masks/a.png", "index.html"):
        make(tmp_path, "masks/a.png")
        shutil.copy(tmp_path / RECORD, tmp_path / "as_it_was")
        raise KeyboardInterrupt
    assert read_record(tmp_path).files.keys() == {"masks/a.png"}
    shutil.move(tmp_path / "as_it_was", tmp_path / RECORD)  # as a kill leaves it
    with replace(tmp_path, "test.py", "index.html"):
        assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == [RECORD]
    with pytest.raises(UserError, match=r"holds what test\.py wrote"), replace(tmp_path, "other.py", "x.png"):
        pass


def change_unseen(path: Path, change: Callable[[], object]) -> None:
    """Change the content of a file, and set its time back as archives and editors may."""
    before = path.stat()
    change()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.mark.parametrize("another_file", [False, True])
def test_a_file_that_was_changed_with_size_and_time_kept_is_the_users(tmp_path, another_file):
    with replace(tmp_path, "test.py", "metrics.csv"):
        (tmp_path / "metrics.csv").write_text("0.81")
    copied = shutil.copytree(tmp_path, tmp_path / "copied", copy_function=shutil.copyfile)
    edited = tmp_path / ("mine.csv" if another_file else "metrics.csv")
    change_unseen(
        tmp_path / "metrics.csv", lambda: (edited.write_text("0.99"), edited.replace(tmp_path / "metrics.csv"))
    )
    lost = pytest.raises(UserError, match=r"metrics\.csv would be lost: .*changed since")
    with lost, replace(tmp_path, "test.py", "metrics.csv"):
        pass
    assert (tmp_path / "metrics.csv").read_text() == "0.99"
    with replace(copied, "test.py", "metrics.csv"):  # the same content at another time is no change
        assert not (copied / "metrics.csv").exists()


def test_a_file_is_only_read_again_where_its_ctime_does_not_say_enough(tmp_path, monkeypatch):
    make(tmp_path, "older.png", "new.png")
    os.utime(tmp_path / "older.png", ns=(0, 0))
    before = {path: records.state(path) for path in sorted(tmp_path.iterdir())}
    monkeypatch.setattr(records, "sha256", lambda _: "read")
    seen = [records.is_unchanged(path, state) for path, state in before.items()]
    # one time for both, as FAT and sshfs have it, may be the mtime; that of Windows is of the creation
    assert seen == [False, os.name != "nt"]
    assert not records.is_unchanged(tmp_path / "older.png", [before[tmp_path / "older.png"][0], 0, "mtime"])


def test_what_is_removed_is_said_before(tmp_path, capsys):
    with replace(tmp_path, "test.py", "masks/a.png", "masks/b.png"):
        make(tmp_path, "masks/a.png", "masks/b.png")
    capsys.readouterr()
    with replace(tmp_path, "test.py", "masks/a.png"):
        assert capsys.readouterr().out == f"{tmp_path}: removes 1 files of an earlier run: masks/b.png\n"


def test_a_full_disk_is_told_by_the_file_that_did_not_fit(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"masks/a\.png"), replace(tmp_path, "test.py", "masks/a.png"):
        monkeypatch.setattr(Path, "write_text", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "full")))
        raise UserError("masks/a.png: cannot be written")


def test_a_record_leads_to_nothing_outside_its_folder(tmp_path):
    outside = make(tmp_path, "thesis.txt") / "thesis.txt"
    with replace(tmp_path / "out", "test.py"):
        pass
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    record["files"] = {"../thesis.txt": None, str(outside): None, "a/../../thesis.txt": None}
    (tmp_path / "out" / RECORD).write_text(json.dumps(record))
    with replace(tmp_path / "out", "test.py"):
        pass
    assert outside.exists()


@pytest.fixture
def photographs(drive: Path, tmp_path: Path) -> Path:
    return shutil.copytree(drive / "test" / "images", tmp_path / "photographs")


def segment(photographs: Path, files: Path, out: Path, *more: str) -> int | None:
    flags = ["--weights", files / "checkpoint.pth", "--views=1", "--device=cpu"]
    return run_script(predict.main, photographs, "--out", out, *flags, *more)


def listed(out: Path) -> list[str]:
    """The photographs in measures.csv, which are those in predict.json and on the page, too."""
    names = [row["image"] for row in read_csv(out / "measures.csv")]
    assert [row["image"] for row in json.loads((out / "predict.json").read_text())["photographs"]] == names
    assert all(f'"{name}"' in (out / "index.html").read_text() for name in names)
    return names


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_results_of_photographs_that_are_not_given_stay_and_are_listed(
    photographs, files, tmp_path, capsys, resume
):
    out = make(tmp_path / "out", "notes.txt", "masks/notes.txt")
    segment(photographs, files, out)
    before = content(out)
    (photographs / "01_test.tif").unlink()
    (photographs / "03_test.tif").write_bytes(b"now damaged")
    capsys.readouterr()
    with pytest.raises(UserError, match=r"03_test\.tif"):
        segment(photographs, files, out, *resume)
    assert "2 photographs of earlier runs are listed too" in capsys.readouterr().out
    after = content(out)
    assert after.keys() == before.keys()
    pictures = [name for name in before if name.endswith((".png", ".jpg", ".txt"))]
    assert pictures and all(after[name] == before[name] for name in pictures)
    assert listed(out) == ["02_test", "03_test", "01_test"]


def test_results_that_are_replaced_are_announced(photographs, files, tmp_path, capsys):
    segment(photographs, files, tmp_path / "out")
    assert "replaces" not in capsys.readouterr().out
    segment(photographs, files, tmp_path / "out")
    assert "replaces the results of 3 photographs that were segmented before" in capsys.readouterr().out


def test_another_photograph_of_the_same_name_replaces_nothing(photographs, files, tmp_path, capsys):
    out, other = tmp_path / "out", tmp_path / "other" / "01_test.tif"
    segment(photographs, files, out)
    mask = (out / "masks" / "01_test.png").read_bytes()
    other.parent.mkdir()
    shutil.copy(photographs / "02_test.tif", other)
    for resume in ([], ["--resume"]):
        segment(other, files, out, *resume)
        assert f"{other}: called 01_test_2 in the results" in capsys.readouterr().out
        assert (out / "masks" / "01_test.png").read_bytes() == mask
        assert listed(out) == ["01_test_2", "01_test", "02_test", "03_test"]
    moved = photographs.rename(tmp_path / "moved")  # these are known by their content
    segment(moved, files, out, "--resume")
    assert "3 of 3 photographs are finished already" in capsys.readouterr().out
    assert listed(out) == ["01_test", "02_test", "03_test", "01_test_2"]


def test_another_photograph_of_the_same_size_and_time_is_segmented(photographs, files, tmp_path, capsys):
    names = ("01_test.tif", "02_test.tif", "03_test.tif")
    for name in names:  # as archives have them: uncompressed, and of one time
        Image.open(photographs / name).save(photographs / name, compression=None)
        os.utime(photographs / name, ns=(0, 0))
    segment(photographs, files, tmp_path / "out")
    first, second, third = ((photographs / name).read_bytes() for name in names)
    change_unseen(photographs / names[0], lambda: (photographs / names[0]).write_bytes(second))
    other = photographs.rename(tmp_path / "other")  # nothing is where it was: known by their content
    change_unseen(other / names[1], lambda: (other / names[1]).write_bytes(third))
    capsys.readouterr()
    segment(other, files, tmp_path / "out", "--resume")
    said = capsys.readouterr().out
    assert "1 of 3 photographs are finished already" in said
    assert [f"{other / name}: called" in said for name in names] == [True, True, False]


def test_a_photograph_that_changes_while_it_is_segmented_is_segmented_again(
    photographs, files, tmp_path, monkeypatch, capsys
):
    write = batch_photographs.write_results

    def change(out: Path, name: str, *rest: object) -> None:
        if name == "01_test":
            shutil.copy(photographs / "02_test.tif", photographs / "01_test.tif")
        elif name == "03_test":
            (photographs / "03_test.tif").unlink()  # a disk that is half mounted
        write(out, name, *rest)

    monkeypatch.setattr(batch_photographs, "write_results", change)
    assert segment(photographs, files, tmp_path / "out") == 0
    monkeypatch.undo()
    capsys.readouterr()
    segment(photographs, files, tmp_path / "out", "--resume")
    assert "1 of 2 photographs are finished already" in capsys.readouterr().out
    assert listed(tmp_path / "out") == ["01_test", "02_test", "03_test"]


def test_the_tables_say_which_version_and_weights_made_each_row(photographs, files, tmp_path, monkeypatch):
    def makers() -> dict[str, str]:
        return {row["image"]: row["made_by"] for row in read_csv(tmp_path / "out" / "measures.csv")}

    segment(photographs / "01_test.tif", files, tmp_path / "out")
    before = makers()["01_test"]
    assert "checkpoint.pth" in before and "threshold" in before
    newer = {"name": "retinal-vessel-unet", "version": "9.9", "commit": "abcdef0123+12345678"}
    monkeypatch.setattr(results, "program", lambda: newer)
    segment(photographs / "02_test.tif", files, tmp_path / "out", "--resume")
    assert makers()["01_test"] == before and makers()["02_test"].startswith("9.9 abcdef0+12345678, checkpoint")
    segment(photographs, files, tmp_path / "out", "--resume")  # what the old one made is made again
    assert {maker.split(",")[0] for maker in makers().values()} == {"9.9 abcdef0+12345678"}


def test_code_that_changes_is_another_program_also_without_git(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "PROGRAM_FOLDER", make(tmp_path / "program", "model.py", "measures/table.py"))
    before = manifest.commit()
    assert manifest.commit() == before
    make(tmp_path / "program", "tests/test_a.py", "results/notes.txt")
    assert manifest.commit() == before
    (tmp_path / "program" / "measures" / "table.py").write_text("mended")
    changed = manifest.commit()
    assert changed != before
    (tmp_path / "program" / ".git").touch()  # that git refuses, as of another user
    assert manifest.commit() == changed


def test_an_unreadable_result_is_named_as_one_that_would_be_lost(tmp_path, monkeypatch):
    (file := tmp_path / "eye.png").write_bytes(b"mask")
    record = records.Record("predict.py", {file.name: [4, 0, "of the mask"]})
    monkeypatch.setattr(records, "sha256", lambda _: (_ for _ in ()).throw(PermissionError(errno.EACCES, "no")))
    assert records.strangers(tmp_path, [file.name], record) == [file]
    with pytest.raises(UserError, match=r"eye\.png would be lost: .* unreadable now; move it away"):
        records.refuse_loss("predict.py", "--out", tmp_path, [file])


def test_a_corrected_mask_is_kept_also_when_a_run_goes_on(photographs, files, tmp_path):
    segment(photographs, files, tmp_path / "out")
    write_png(tmp_path / "out" / "masks" / "01_test.png", np.zeros((9, 9), np.uint8))
    before = content(tmp_path / "out")
    for resume in ([], ["--resume"]):
        with pytest.raises(UserError, match=r"01_test\.png would be lost: .*changed since"):
            segment(photographs, files, tmp_path / "out", *resume)
        assert content(tmp_path / "out") == before


def test_photographs_results_and_test_pys_replace_no_page_of_each_other(photographs, new_data, files, tmp_path):
    score(new_data, files, tmp_path / "results")
    segment(photographs, files, tmp_path / "predicted")
    before = content(tmp_path)
    with pytest.raises(UserError, match=r"holds what test\.py wrote"):
        segment(photographs, files, tmp_path / "results")
    with pytest.raises(UserError, match=r"holds what predict\.py wrote"):
        score(new_data, files, tmp_path / "predicted")
    assert content(tmp_path) == before


def test_a_leave_one_out_deletes_no_file_that_lies_in_its_folder(tmp_path):
    from training.earlier import OWN, move_to_earlier

    make(tmp_path, "probability/01.png", "probability/mine.png", "last.pth")
    move_to_earlier(tmp_path, [*OWN, "probability/01.png"])
    moved = {"earlier/1/probability/01.png", "earlier/1/last.pth"}
    assert set(content(tmp_path)) == {"probability/mine.png"} | moved
