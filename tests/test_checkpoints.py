"""A checkpoint is data: it runs no code, takes no memory beyond its size, and what is wrong with it is said."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch
from conftest import CPU, ROOT, TINY, run_script

import train
from datasets.images import read_image, read_mask, write_png
from model import ResUNet, UNet
from networks.checkpoints import FORMAT, halved, load_checkpoint, save_checkpoint
from training.muon import Muon
from training.settings import Settings
from training.state import Training
from utils import UserError


def fresh() -> dict[str, Any]:
    """The content of a sound checkpoint."""
    model = UNet(width=4, depth=2)
    return {"format": 1, "model": model.config, "weights": dict(model.state_dict()), "threshold": 0.5}


def edited(**changes: object) -> Callable[[Path], None]:
    """Writes a sound checkpoint but for some entries; None leaves the entry out."""

    def write(path: Path) -> None:
        content = {**fresh(), **changes}
        torch.save({name: value for name, value in content.items() if value is not None}, path)

    return write


def weights(**changes: object) -> Callable[[Path], None]:
    """Writes a sound checkpoint but for some weights, given with __ for each dot; None leaves one out."""
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    content = {**fresh()["weights"], **changes}
    return edited(weights={name: value for name, value in content.items() if value is not None})


def settings(**changes: object) -> Callable[[Path], None]:
    return edited(model={**fresh()["model"], **changes})


class Code:
    """An object whose unpickling runs a command."""

    def __reduce__(self) -> tuple:
        return os.system, ("echo harm > harm.txt",)


def cut(share: float) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        torch.save(fresh(), path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return write


def damaged(path: Path) -> None:
    torch.save(fresh(), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def compressed(path: Path) -> None:
    """256 MiB of zeros in a quarter of a megabyte."""
    torch.save(fresh(), path)
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("archive/data/9", "w") as file,
    ):
        for _ in range(16):
            file.write(bytes(2**24))


def one_number_for_a_gigabyte(path: Path) -> None:
    """Settings of a large network whose weights are all one number, repeated by a stride of 0."""
    with torch.device("meta"):
        model = UNet(width=512, depth=3)
    content = {name: torch.zeros((), dtype=w.dtype).expand(w.shape) for name, w in model.state_dict().items()}
    edited(model=model.config, weights=content)(path)


def other_network(path: Path) -> None:
    torch.save(torch.nn.Linear(3, 4).state_dict(), path)


BAD = {
    "missing": (lambda path: None, "no such checkpoint; train one"),
    "a folder": (lambda path: path.mkdir(), "no such checkpoint"),
    "empty": (lambda path: path.write_bytes(b""), "a file of another program"),
    "text": (lambda path: path.write_text("weights"), "a file of another program"),
    "a picture": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99)), "a file of another program"),
    "a zip of something else": (lambda path: zipfile.ZipFile(path, "w").writestr("a", "b"), "not a readable"),
    "code in a torch file": (edited(extra=Code()), "holds code or objects"),
    "code instead of weights": (lambda path: torch.save(Code(), path), "holds code or objects"),
    "code in a bare pickle": (lambda path: path.write_bytes(pickle.dumps(Code())), "a file of another program"),
    "code in an old torch file": (
        lambda path: torch.save(Code(), path, _use_new_zipfile_serialization=False),
        "a file of another program",
    ),
    "a whole module": (lambda path: torch.save(UNet(width=4, depth=1), path), "holds code or objects"),
    "an array of numpy": (edited(extra=np.zeros(3)), "holds code or objects"),
    "cut to nine tenths": (cut(0.9), "cut off or damaged"),
    "cut to a tenth": (cut(0.1), "cut off or damaged"),
    "a bit flipped": (damaged, "damaged"),
    "compressed": (compressed, "compressed"),
    "a list": (lambda path: torch.save([1, 2], path), "another program, not a checkpoint of train.py"),
    "another program's weights": (other_network, "another program, not a checkpoint of train.py"),
    "no format": (edited(format=None), "another program"),
    "no weights": (edited(weights=None), "another program"),
    "a newer format": (edited(format=FORMAT + 1), r"written by a newer version .*git pull"),
    "a format of text": (edited(format="1"), "no valid format number"),
    "a negative format": (edited(format=-1), "no valid format number"),
    "a tensor missing": (weights(classifier__bias=None), r"1 missing, such as 'classifier\.bias'"),
    "a tensor too many": (weights(more=torch.zeros(1)), "1 surplus, such as 'more'"),
    "a tensor of another shape": (weights(classifier__bias=torch.zeros(2)), "1 of another shape or type"),
    "a tensor of another type": (
        weights(classifier__bias=torch.zeros(1).double()),
        "1 of another shape or type",
    ),
    "a sparse tensor": (weights(classifier__bias=torch.zeros(1).to_sparse()), "1 of another shape or type"),
    "a number for a tensor": (weights(classifier__bias=0.0), "1 of another shape or type"),
    "a tensor without values": (
        weights(classifier__bias=torch.zeros(1, device="meta")),
        "another shape or type",
    ),
    "weights in a list": (edited(weights=[torch.zeros(1)]), "missing"),
    "not a number": (
        weights(classifier__bias=torch.tensor([float("nan")])),
        "not finite, such as classifier.bias",
    ),
    "infinite": (weights(classifier__bias=torch.tensor([float("inf")])), "not finite, such as classifier.bias"),
    "weights of another width": (settings(width=8), "of another shape or type"),
    "weights of another depth": (settings(depth=3), "missing"),
    "an absurd width": (settings(width=10**9), "its settings .* are no network's"),
    "an absurd depth": (settings(depth=10**9), "its settings .* are no network's"),
    "the largest network": (settings(width=4096, depth=10), "do not fit its settings"),
    "one number for a gigabyte": (one_number_for_a_gigabyte, "of another shape or type"),
    "a width of 0": (settings(width=0), "its settings .* are no network's"),
    "a width of text": (settings(width="4"), "its settings .* are no network's"),
    "a width of 4.0": (settings(width=4.0), "its settings .* are no network's"),
    "a setting unheard of": (settings(colour=1), "its settings .* are no network's"),
    "settings in a list": (edited(model=[4, 2]), "its settings .* are no network's"),
    "other channels": (settings(in_channels=5), "its settings .* are no network's"),
    "settings in pairs": (edited(model=list(fresh()["model"].items())), "its settings .* are no network's"),
    "a network unheard of": (settings(name="vgg"), "its settings .* are no network's"),
    "a network's name in a list": (settings(name=["unet"]), "its settings .* are no network's"),
    "the weights of another network": (settings(name="resunet"), "its weights do not fit .* missing"),
    "a ResNet deeper than it is": (settings(name="resunet", depth=6), "its settings .* are no network's"),
    "a threshold of text": (edited(threshold="half"), "its threshold is 'half'"),
    "a threshold of 2": (edited(threshold=2.0), "its threshold is 2.0"),
    "a threshold of NaN": (edited(threshold=float("nan")), "its threshold is nan"),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in: code that runs would leave a file there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", BAD)
def test_a_bad_checkpoint_gets_its_own_line_and_runs_no_code(name, here):
    write, reason = BAD[name]
    path = here / "bad.pth"
    write(path)
    with pytest.raises(UserError) as error:
        load_checkpoint(path, CPU)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert re.search(reason, message)
    assert len(message.splitlines()) == 1 and len(message) < 400 + len(str(path))
    assert not (here / "harm.txt").exists()


def test_code_would_have_run_without_the_guard(here):
    edited(extra=Code())(here / "bad.pth")
    torch.load(here / "bad.pth", weights_only=False)
    assert (here / "harm.txt").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit of memory for a process")
@pytest.mark.parametrize(
    "name", ["an absurd width", "one number for a gigabyte", "the largest network", "compressed"]
)
def test_a_bad_checkpoint_takes_no_memory(name, here):
    BAD[name][0](here / "bad.pth")
    code = (
        "import resource, sys, torch, utils, model; from pathlib import Path\n"
        "from networks import checkpoints\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = used()\n"
        "try: checkpoints.load_checkpoint(Path('bad.pth'), torch.device('cpu'))\n"
        "except utils.UserError: print((used() - before) // (1 if sys.platform != 'darwin' else 1024))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 100_000  # kilobytes


@pytest.mark.parametrize("script", ["test.py", "predict.py", "train.py"])
def test_every_script_ends_with_one_line_and_status_2(script, here, new_data):
    (here / "files").mkdir()
    edited(extra=Code())(here / "files" / "last.pth")
    weight = ["--weights", here / "files" / "last.pth"]
    arguments = {
        "test.py": ["--data", new_data, *weight],
        "predict.py": [new_data / "test" / "image", *weight],
        "train.py": ["--data", new_data, "--resume", *TINY],
    }[script]
    done = forked.finish(script, *arguments)
    assert done.returncode == 2
    assert re.fullmatch(rf"{script}: .*last\.pth: holds code or objects.*\n", done.stderr)
    assert not (here / "harm.txt").exists()


STATES = {
    "the best checkpoint as the last": (lambda last: last.pop("optimizer"), "KeyError: 'optimizer'"),
    "no history": (lambda last: last.pop("history"), "KeyError: 'history'"),
    "a history of text": (lambda last: last.update(history=["f1"]), "AttributeError"),
    "a history without scores": (lambda last: last.update(history=[{"epoch": 1}]), "ValueError: its history"),
    "losses of text": (lambda last: last.update(losses=["low"]), "TypeError"),
    "settings in a list": (lambda last: last.update(settings=[1]), "TypeError"),
    "an optimizer of another network": (
        lambda last: last["optimizer"]["state"][0].update(momentum=torch.zeros(3)),
        "does not fit",
    ),
    "an empty optimizer": (lambda last: last.update(optimizer={}), "KeyError"),
    "other eyes": (lambda last: last["split"]["train"].pop(), "other eyes or another split"),
    "another seed": (lambda last: last["settings"].update(seed=1), r"--seed 1, not 42; it is finished"),
    "two differences": (
        lambda last: last["settings"].update(lr=0.1, ema=0.5),
        r"--lr 0\.1, not 0\.02; --ema 0\.5, not 0\.0",
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_a_state_that_cannot_be_resumed_is_refused_with_the_reason(name, new_data, files, tmp_path):
    spoil, reason = STATES[name]
    last = torch.load(files / "last.pth", weights_only=True)
    spoil(last)
    (tmp_path / "files").mkdir()
    torch.save(last, tmp_path / "files" / "last.pth")
    before = (tmp_path / "files" / "last.pth").read_bytes()
    same = [*TINY, "--epochs", 3, "--crops", 40, "--lr", 0.02, "--seed", 42, "--ema", 0]
    with pytest.raises(UserError, match=reason):
        run_script(train.main, "--data", new_data, "--files", tmp_path / "files", *same, "--resume")
    assert (tmp_path / "files" / "last.pth").read_bytes() == before


@pytest.mark.parametrize("part", ["image", "mask", "fov"])
def test_a_training_does_not_go_on_with_other_pixels_of_the_same_names(part, new_data, files, tmp_path):
    shutil.copytree(new_data, tmp_path / "data")
    shutil.copytree(files, tmp_path / "files")
    run = ("--data", tmp_path / "data", "--files", tmp_path / "files", *TINY, "--resume")
    assert run_script(train.main, *run) == 0
    path = tmp_path / "data" / "train" / part / "21_training_0.png"
    write_png(path, read_image(path)[:, ::-1] if part == "image" else read_mask(path)[:, ::-1])
    with pytest.raises(UserError, match=r"last\.pth: pixels or labels of its eyes have changed since"):
        run_script(train.main, *run)


def test_a_hidden_instruction_for_loading_does_not_disconnect_the_optimizer(new_data, files, tmp_path):
    # torch keeps how to load in an attribute of its dicts of weights; a file could hold it too
    last = torch.load(files / "last.pth", weights_only=True)
    for instructions in last["weights"]._metadata.values():
        instructions["assign_to_params_buffers"] = True
    torch.save(last, tmp_path / "last.pth")
    model = UNet(width=4, depth=2)
    optimizer = Muon(model, 0.02)
    state = Training(Settings(**last["settings"]), last["split"], model, None, optimizer, pixels=last["pixels"])
    state.restore(tmp_path / "last.pth")
    stepped = [id(weight) for group in optimizer.param_groups for weight in group["params"]]
    assert sorted(stepped) == sorted(map(id, model.parameters()))


@pytest.mark.parametrize("kind", [UNet, ResUNet])
def test_what_is_saved_is_loaded_bit_for_bit(kind, tmp_path):
    network = kind(width=4, depth=2)
    content = {**fresh(), "model": network.config, "weights": dict(network.state_dict())}
    save_checkpoint(tmp_path / "good.pth", content)
    model, loaded = load_checkpoint(tmp_path / "good.pth", CPU)
    for name, weight in content["weights"].items():
        assert torch.equal(weight, model.state_dict()[name]) and torch.equal(weight, loaded["weights"][name])
    assert loaded["threshold"] == 0.5
    assert not model.training


def test_a_checkpoint_that_names_no_network_is_a_unet(tmp_path):
    content = fresh()
    del content["model"]["name"]
    torch.save(content, tmp_path / "old.pth")  # as programs before format 2 wrote it
    model, _ = load_checkpoint(tmp_path / "old.pth", CPU)
    assert type(model) is UNet


def test_the_table_of_promises_counts_the_checkpoints_as_they_are():
    table = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
    counted = re.findall(r"`test_checkpoints.py`: (\d+) (files|states)", table)
    assert {(int(number), what) for number, what in counted} == {(len(BAD), "files"), (len(STATES), "states")}


def test_a_compressed_checkpoint_is_smaller_and_the_same(tmp_path):
    weights = halved(fresh()["weights"])
    assert all(value.dtype == torch.float16 for value in weights.values() if value.is_floating_point())
    content = fresh() | {"weights": weights}
    sizes = []
    for compress in (False, True):
        path = tmp_path / f"{compress}.pth"
        save_checkpoint(path, content, compressed=compress)
        sizes.append(path.stat().st_size)
        _, read = load_checkpoint(path, CPU)
        assert all(torch.equal(read["weights"][name], weight) for name, weight in weights.items())
    assert sizes[1] < 0.95 * sizes[0]


def test_shipped_weights_fit_their_room():
    files = Path(__file__).resolve().parent.parent / "files"
    assert (files / "arteries_veins.pth").stat().st_size <= 8 * 2**20
    assert (files / "anatomy.pth").stat().st_size <= 2 * 2**20
