"""Bad and odd files are read as a user expects or refused by name; none crashes a run, none is scored."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import corpus
import numpy as np
import pytest
from conftest import ROOT, TINY, read_csv, run_script
from corpus import FIELD, MASKS, PHOTOGRAPH, PHOTOGRAPHS, VESSELS, Case, encode, unavailable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import augment
import data
import train
import utils
from data import read_eyes
from datasets.eyes import Eye
from datasets.images import read_fov, read_image, read_mask, write_png
from utils import UserError

REFUSED = [case for case in PHOTOGRAPHS if case.refused and not unavailable(case)]


def ids(case: Case) -> str:
    return ascii(case.name)[1:-1]


def run_process(script: str, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, as users do."""
    command = [sys.executable, ROOT / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize("case", PHOTOGRAPHS, ids=ids)
def test_a_photograph_is_read_as_expected_or_refused_by_name(case, tmp_path):
    if reason := unavailable(case):
        pytest.skip(reason)
    case.check(read_image, tmp_path, UserError)


@pytest.mark.parametrize("case", MASKS, ids=ids)
def test_a_mask_is_read_as_expected_or_refused_by_name(case, tmp_path):
    if reason := unavailable(case):
        pytest.skip(reason)
    case.check(read_mask, tmp_path, UserError)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    for side in (11_000, 20_000):
        (tmp_path / "bomb.png").write_bytes(corpus.huge_png(side, side))
        with pytest.raises(UserError, match="more than"):
            read_image(tmp_path / "bomb.png")


def test_an_empty_field_of_view_is_refused(tmp_path):
    write_png(tmp_path / "fov.png", FIELD * 0)
    with pytest.raises(UserError, match=r"fov\.png: an empty field of view"):
        read_fov(tmp_path / "fov.png")


def test_augment_names_every_refused_photograph_and_writes_nothing(drive, tmp_path):
    own = shutil.copytree(drive, tmp_path / "DRIVE")
    names = []
    for number, case in enumerate(REFUSED, 100):
        names.append(f"{number}_{case.name}")
        case.write(own / "training" / "images" / names[-1])
        for folder, mask in (("1st_manual", VESSELS), ("mask", FIELD)):
            (own / "training" / folder / f"{number}_mask.gif").write_bytes(encode(mask, "GIF", optimize=False))
    with pytest.raises(UserError) as error:
        run_script(augment.main, "--drive", own, "--out", tmp_path / "out")
    lines = str(error.value).splitlines()
    assert len(lines) == 1 + len(names)
    for name in names:
        assert any(name in line or repr(name)[1:-1] in line for line in lines), name
    assert not list((tmp_path / "out").iterdir())


WRONG = {
    "blank": ("mask", VESSELS * 0, "0% of its field of view is vessel"),
    "all vessel": ("mask", VESSELS * 0 + 255, "100% of its field of view is vessel"),
    "inverted": ("mask", 255 - VESSELS, "of its field of view is vessel; is it inverted"),
    "the field of view": ("mask", FIELD, "of its field of view is vessel"),
    "second observer blank": ("second_observer", VESSELS * 0, "0% of its field of view is vessel"),
    "no field of view": ("fov", FIELD * 0, "an empty field of view"),
    "field of view inverted": ("fov", 255 - FIELD, "an inverted field of view"),
    "field of view of vessels": ("fov", VESSELS, "is it the vessel mask?"),
    "another size": ("fov", np.full((200, 300), 255, np.uint8), "300x200 pixels, but"),
}
AS_PUBLISHED = {
    "mask": "training/1st_manual/22_manual1.gif",
    "second_observer": "test/2nd_manual/02_manual2.gif",
    "fov": "training/mask/22_training_mask.gif",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_augment_refuses_masks_that_would_spoil_a_training(drive, tmp_path, wrong):
    part, pixels, reason = WRONG[wrong]
    own = shutil.copytree(drive, tmp_path / "DRIVE")
    path = own / AS_PUBLISHED[part]
    path.write_bytes(encode(pixels, "GIF", optimize=False))
    with pytest.raises(UserError, match=f"{path.name}: .*{re.escape(reason)}"):
        run_script(augment.main, "--drive", own, "--out", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_train_names_every_refused_image_and_writes_nothing(new_data, tmp_path):
    own = shutil.copytree(new_data, tmp_path / "new_data")
    for case in REFUSED:
        case.write(own / "train" / "image" / case.name)
    with pytest.raises(UserError) as error:
        run_script(train.main, "--data", own, "--files", tmp_path / "files", *TINY)
    for case in REFUSED:
        assert case.name in str(error.value) or repr(case.name)[1:-1] in str(error.value)
    assert not (tmp_path / "files").exists()


@pytest.fixture(scope="module")
def refusing(
    new_data: Path, files: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Results of test.py on good photographs, refused ones and odd names; and what it said."""
    folder = tmp_path_factory.mktemp("refusing")
    own = shutil.copytree(new_data, folder / "new_data")
    shutil.rmtree(own / "test" / "second_observer")
    for case in PHOTOGRAPHS:
        odd_name = not case.refused and case.expected.shape == PHOTOGRAPH.shape
        if (case.refused or odd_name) and not unavailable(case):
            case.write(own / "test" / "image" / case.name)
        if odd_name and not unavailable(case):
            for part, mask in (("mask", VESSELS), ("fov", FIELD)):
                (own / "test" / part / case.name).write_bytes(encode(mask, "PNG"))
    before = tree(folder)
    flags = ("--weights", files / "checkpoint.pth", "--results", folder / "results", "--device=cpu")
    done = run_process("test.py", "--data", own, *flags)
    assert {path for path in tree(folder) - before if Path(path).parts[0] != "results"} == set()
    return folder / "results", done


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_refused_photographs_stop_no_other_and_are_listed_at_the_end(refusing):
    results, done = refusing
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for case in REFUSED:
        assert case.name in done.stderr or repr(case.name)[1:-1] in done.stderr, case.name
    good = [case for case in PHOTOGRAPHS if not unavailable(case) and not case.refused]
    rows = {row["image"] for row in read_csv(results / "metrics.csv")}
    assert {"01_test", "02_test", "03_test", "mean"} <= rows
    for case in REFUSED:
        stem = Path(case.name).stem
        assert stem not in rows or any(Path(other.name).stem == stem for other in good)


def test_no_name_makes_test_py_write_outside_results(refusing):
    # the fixture compared the folders around the results before and after
    results, _ = refusing
    names = ["two words", "Äderchen – œil 眼", "$(touch x);`touch x` & '%s'", "-rf", "=SUM(A1)"]
    names += ["long" * 62] if os.name != "nt" else []
    names += ["up\\..\\..\\evil", "<img src=x onerror=alert(1)>"] if os.name != "nt" else []
    for name in names:
        assert read_mask(results / "masks" / f"{name}.png").shape == VESSELS.shape
    assert "<img src=x" not in (results / "index.html").read_text(encoding="utf-8")


def test_two_images_never_share_their_results(new_data, tmp_path):
    own = shutil.copytree(new_data / "test", tmp_path / "test")
    for part in ("image", "mask", "fov", "second_observer"):
        shutil.copy(own / part / "01_test_0.png", own / part / "01_TEST.png")
    refused: list[str] = []
    assert len(read_eyes(own, True, refused)) == 3
    assert len(refused) == 1 and "01_test_0.png" in refused[0] and "another image's" in refused[0]


def test_eyes_of_two_runs_of_augment_are_never_mixed(new_data, tmp_path, monkeypatch):
    own = shutil.copytree(new_data, tmp_path / "new_data")
    read_eye = data.read_eye

    def slowly(path: Path, *rest: object) -> Eye:
        eye = read_eye(path, *rest)
        if path.name == "22_training_0.png":  # another run of augment.py ends now
            (own / "dataset.json").unlink()
            shutil.copy(new_data / "dataset.json", own / "dataset.json")
        return eye

    monkeypatch.setattr(data, "read_eye", slowly)
    with pytest.raises(UserError, match=r"augment.py wrote it anew while it was read"):
        read_eyes(own / "train", labels=True)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_truth_or_field_of_view_is_refused_and_the_others_are_scored(new_data, tmp_path, wrong):
    part, pixels, reason = WRONG[wrong]
    own = shutil.copytree(new_data, tmp_path / "new_data")
    path = own / "test" / part / "02_test_0.png"
    write_png(path, pixels)
    refused: list[str] = []  # test.py scores the others, as with photographs that are refused
    assert {eye.name for eye in read_eyes(own / "test", True, refused)} == {"01_test_0", "03_test_0"}
    assert len(refused) == 1 and f"{path}: " in refused[0] and reason in refused[0]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:80] DefaultCPUAllocator: not enough memory"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
        ImportError("libtorch_cuda.so: failed to map segment from shared object"),
    ],
    ids=repr,
)
def test_out_of_memory_becomes_a_line_that_names_the_flags(error, capsys):
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as status:
        utils.run(main, lower="--batch-size or --crop")
    assert status.value.code == 2
    said = capsys.readouterr().err
    assert re.search(r"out of memory( of the GPU)?; lower --batch-size or --crop", said)
    assert ("of the GPU" in said) == ("out of memory" in str(error)), "not where a library is called cuda"


def test_a_real_lack_of_memory_names_the_flags(new_data, tmp_path, monkeypatch, capsys):
    # a layer of 2**47 bytes: more than an address can name, so that nothing is taken before it fails
    monkeypatch.setattr(train, "MAX_WIDTH", 2**21)
    huge = ["--width", 2**21, "--depth", 1, "--device=cpu"]
    with pytest.raises(SystemExit) as status:
        utils.run(
            lambda: run_script(train.main, "--data", new_data, "--files", tmp_path / "files", *huge),
            lower="--batch-size, --crop",
        )
    assert status.value.code == 2
    assert "out of memory; lower --batch-size, --crop" in capsys.readouterr().err


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library has no such choice")
def test_memory_that_a_prediction_frees_is_used_again():
    code = (
        "import resource, sys, numpy; from system.devices import keep_memory\n"
        "def main():\n"
        "    numpy.ones(2**27, numpy.uint8)\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(5): numpy.ones(2**27, numpy.uint8)\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    faults = []  # pages that the system had to clear
    environment = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"}
    for start in ("keep_memory(); main()", "main()"):
        command = [sys.executable, "-c", code + start]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        faults.append(int(done.stdout))
    assert faults[0] < 100 < 10_000 < faults[1]


def test_a_mistake_in_the_program_is_not_hidden():
    def main() -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        utils.run(main)


SEEDS = [corpus.PNG, corpus.TIFF, corpus.GIF, corpus.JPEG, encode(VESSELS, "GIF", optimize=False)]
SEEDS += [corpus.BMP, corpus.PPM, corpus.opencv(corpus.WIDE_GREY, ".png"), encode(PHOTOGRAPH, "PNG", "P")]
SEEDS += [corpus.oriented(PHOTOGRAPH, "TIFF", 6, 1), encode(PHOTOGRAPH, "TIFF", compression="jpeg")]
SEEDS = [data[:3000] for data in SEEDS] + SEEDS


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """The bytes of a real image file with some replaced, removed or repeated."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        # most of what decides is in the first bytes
        at = draw(st.integers(0, min(len(content) - 1, draw(st.sampled_from([60, 400, len(content)])))))
        what = draw(st.sampled_from(["replace", "remove", "repeat"]))
        if what == "replace":
            content[at : at + 4] = draw(st.binary(min_size=1, max_size=4))
        elif what == "remove" and len(content) > 40:
            del content[at : at + draw(st.integers(1, 30))]
        else:
            content[at:at] = content[at : at + draw(st.integers(1, 30))]
    return bytes(content)


@settings(max_examples=1500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(content=mutated())
def test_whatever_the_bytes_a_file_is_read_or_refused(content, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "fuzzed.png"
    path.write_bytes(content)
    for read, shape in ((read_image, 3), (read_mask, 2)):
        try:
            pixels = read(path)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert pixels.dtype == np.uint8 and pixels.ndim == shape and pixels.size


NO_NETWORK = """
import socket, sys

def refuse(*args, **kwargs):
    with open({log!r}, "a") as file:
        file.write(f"{{sys.argv}} {{args}}\\n")
    raise OSError("no network in this test")

socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
"""


def test_no_script_calls_the_network(drive, tmp_path):
    log = tmp_path / "calls.txt"
    (tmp_path / "site").mkdir()
    # Python imports this file before anything else; what a library does with the error is no matter
    (tmp_path / "site" / "sitecustomize.py").write_text(NO_NETWORK.format(log=str(log)))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    environment.pop("NO_ALBUMENTATIONS_UPDATE", None)
    probe = "import socket; socket.create_connection(('127.0.0.1', 9))"
    subprocess.run([sys.executable, "-c", probe], env=environment, check=False, capture_output=True)
    assert log.read_text(), "the guard itself does not work"
    log.unlink()
    new_data, files = tmp_path / "new_data", tmp_path / "files"
    weights = ("--weights", files / "checkpoint.pth")
    for script, *arguments in (
        ("augment.py", "--drive", drive, "--out", new_data),
        ("train.py", "--data", new_data, "--files", files, *TINY, "--epochs=1", "--crops=4"),
        ("test.py", "--data", new_data, *weights, "--results", tmp_path / "results"),
    ):
        done = run_process(script, *arguments, env=environment)
        assert done.returncode == 0, done.stderr
    assert not log.exists(), log.read_text()


def test_the_table_of_promises_counts_the_inputs_as_they_are():
    table = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
    counted = re.search(r"(\d+) kinds of photographs and (\d+) of masks", table)
    assert counted and [int(n) for n in counted.groups()] == [len(PHOTOGRAPHS), len(MASKS)]
    assert len(PHOTOGRAPHS) + len(MASKS) >= 40
