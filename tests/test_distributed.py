"""Two processes train as one would; one that dies ends them all; `--resume` goes on with any number."""

from __future__ import annotations

import contextlib
import copy
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import CPU, ROOT, load, run_script, same_weights, small_data, stop_at, write_no_chart
from forked import modified
from matplotlib.figure import Figure
from ranks import Ranks

import train
import utils
from data import read_eyes
from model import UNet
from networks.checkpoints import KINDS, VESSELS, load_checkpoint
from system import processes
from training import batches, distributed, epoch, loop, optimizers
from training.crops import Crops
from training.earlier import OWN
from utils import UserError

dist = torch.distributed
pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals, and no fork"),
    pytest.mark.skipif(
        not (dist.is_available() and dist.is_gloo_available()), reason="this build of torch has no gloo"
    ),
]

NETWORK = ["--width=2", "--depth=1", "--crop=32", "--batch-size=4", "--device=cpu"]
EPOCHS = 24
SHORT = [*NETWORK, f"--epochs={EPOCHS}", "--crops=12", "--ema=0.9"]
LOSSES = [(0.0, VESSELS), (0.5, VESSELS), (0.5, KINDS)]
VALIDATED = [("scores", 3, VESSELS), ("one eye", 1, VESSELS), ("both kinds", 3, KINDS)]


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """new_data of three eyes: three copies validate, which two processes cannot share equally."""
    return small_data(
        tmp_path_factory.mktemp("eyes"), train=3, test=1, height=72, width=68, arteries_veins=True
    )


def run_train(arguments: list[str], of_rank_1: list[str]) -> None:
    """What `python train.py` does, in rank 1 with more arguments; last.pth is written within epochs, too."""
    loop.Saves.PERIOD = 0.001
    Figure.savefig = write_no_chart  # type: ignore[method-assign]
    sys.argv = ["train.py", *arguments, *(of_rank_1 if processes.rank() else [])]
    utils.run(train.main)


# What two processes compute


def first_batch(eyes: Path, kinds: bool = False) -> Crops:
    return Crops(read_eyes(eyes / "train", labels=True), 32, 5, 8, kinds=kinds)


def new_network(outputs: tuple[str, ...] = VESSELS) -> UNet:
    """A network that differs from the initial one, with running statistics, in evaluation mode."""
    torch.manual_seed(3)
    model = UNet(out_channels=len(outputs), width=4, depth=1)
    model.outputs = outputs
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(2, 3, 32, 32))
    return model.eval()


def gradients(
    eyes: Path, dice: float, outputs: tuple[str, ...] = VESSELS
) -> tuple[dict[str, torch.Tensor], float]:
    """Gradients of the first batch's loss with batch normalisation in evaluation mode, and the loss."""
    model = new_network(outputs)
    network = distributed.wrap(model)
    images, masks, fovs = next(iter(batches.load(first_batch(eyes, outputs == KINDS), 8)))
    loss = epoch.vessel_loss(network(images), masks, fovs, dice)
    loss.backward()
    return {name: weight.grad for name, weight in model.named_parameters()}, loss.item()


def compute(eyes: Path, out: Path) -> None:
    """Write what this process finds in several computations that the processes share."""
    rank, found = processes.rank(), {}
    with processes.group(str):
        _, _, fovs = next(iter(batches.load(first_batch(eyes), 8)))
        found["pixels"] = int(fovs.sum())
        for dice, outputs in LOSSES:
            found[f"gradients {dice} {outputs}"], found[f"loss {dice} {outputs}"] = gradients(
                eyes, dice, outputs
            )
        labelled = read_eyes(eyes / "train", labels=True)
        for name, number, outputs in VALIDATED:
            found[name] = epoch.evaluate(new_network(outputs), labelled[:number])
        found["any"] = [processes.any_of(rank == 1), processes.any_of(False)]
        model = UNet(width=2, depth=1).train()
        network = distributed.wrap(model)
        torch.manual_seed(rank)
        for _ in range(2):
            network(torch.randn(2, 3, 8, 8))
        found["own buffers"] = copy.deepcopy(dict(model.named_buffers()))
        with distributed.averaged_buffers(model, model):
            found["saved buffers"] = copy.deepcopy(dict(model.named_buffers()))
        found["buffers after a save"] = copy.deepcopy(dict(model.named_buffers()))
        distributed.average_buffers(model)
        found["buffers"] = dict(model.named_buffers())
        try:
            processes.check_same(["equal but for one", rank], "flags or eyes")
        except UserError as error:
            found["differs"] = str(error)
    torch.save(found, out / f"rank{rank}.pt")


@pytest.fixture(scope="module")
def computed(eyes: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("computed")
    statuses, said = Ranks(compute, eyes, folder).finish()
    assert statuses == [0, 0], said
    return [load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize(("dice", "outputs"), LOSSES)
def test_averaged_gradients_are_those_of_one_process_with_the_whole_batch(eyes, computed, dice, outputs):
    alone, loss = gradients(eyes, dice, outputs)
    assert computed[0]["pixels"] != computed[1]["pixels"], "equal shares would hide a wrong mean"
    largest = max(gradient.abs().max() for gradient in alone.values())
    assert largest > 0.01
    for found in computed:
        assert found[f"loss {dice} {outputs}"] == pytest.approx(loss, abs=1e-6)
        for name, gradient in alone.items():
            assert (found[f"gradients {dice} {outputs}"][name] - gradient).abs().max() < 1e-5, name
    assert same_weights(*(found[f"gradients {dice} {outputs}"] for found in computed))


def test_validation_that_is_shared_out_finds_what_one_process_finds(eyes, computed):
    labelled = read_eyes(eyes / "train", labels=True)
    for found in computed:
        for name, number, outputs in VALIDATED:
            assert found[name] == epoch.evaluate(new_network(outputs), labelled[:number])


def test_running_statistics_become_the_mean_of_both(computed):
    for name, mean in computed[0]["buffers"].items():
        assert torch.equal(mean, computed[1]["buffers"][name])
        own = [found["own buffers"][name] for found in computed]
        assert name.endswith("num_batches_tracked") or not torch.equal(*own)
        assert torch.allclose(mean.double(), (own[0] + own[1]).double() / 2)


def test_a_save_holds_the_mean_statistics_and_leaves_each_process_its_own(computed):
    for found in computed:
        for name, mean in found["buffers"].items():
            assert torch.equal(found["saved buffers"][name], mean)
            assert torch.equal(found["buffers after a save"][name], found["own buffers"][name])


def test_synchronised_batch_normalisation_shares_what_it_learns_with_a_network_that_stays_as_it_is():
    model = UNet(width=2, depth=1)
    synchronised = distributed.synchronize(model, None)
    kinds = [type(module) for module in synchronised.modules()]
    assert kinds.count(torch.nn.SyncBatchNorm) == 6 and torch.nn.BatchNorm2d not in kinds
    assert torch.nn.SyncBatchNorm not in map(type, model.modules())
    tensors = [dict(part.state_dict(keep_vars=True)) for part in (model, synchronised)]
    assert list(tensors[0]) == list(tensors[1])
    assert all(tensors[0][name] is tensors[1][name] for name in tensors[0])


def test_a_stop_asked_of_one_is_known_to_all_and_other_settings_are_refused(computed):
    for found in computed:
        assert found["any"] == [True, False]
        assert "the processes have different flags or eyes" in found["differs"]


# What users see


@pytest.mark.parametrize(
    ("arguments", "of_rank_1", "line"),
    [
        (["--batch-size=3"], [], r"--batch-size 3: cannot be dealt out to 2 processes; give a multiple"),
        (["--folds=2"], [], r"--folds, --leave-one-out: start it without torchrun; .*"),
        (["--device=cpu:0"], [], r"--device cpu:0: torchrun gives each process a device of its own; .*"),
        ([], ["--data=nowhere"], r"nowhere/train/image: no images; write them with: python augment\.py"),
        ([], ["--seed=7"], r"the processes have different flags, eyes, or last\.pth; .*"),
    ],
)
def test_an_error_of_one_or_of_both_ends_both_with_one_line(eyes, tmp_path, arguments, of_rank_1, line):
    files = tmp_path / "files"
    given = [f"--data={eyes}", f"--files={files}", *SHORT, *arguments]
    started = time.time()
    statuses, said = Ranks(run_train, given, of_rank_1).finish()
    assert statuses == [2, 2], said
    assert time.time() - started < 60
    errors = [text for text in "".join(said).splitlines() if not text.startswith(("device:", "split by eye:"))]
    assert len(errors) == 1, said
    assert re.fullmatch(rf"train\.py: {line}", errors[0])
    assert not files.exists() or not list(files.iterdir())


def test_two_processes_fit_one_length_into_the_minutes_and_only_rank_0_speaks(eyes, tmp_path):
    files = tmp_path / "files"
    given = [f"--data={eyes}", f"--files={files}", *NETWORK, "--minutes=0.05", "--arteries-veins"]
    statuses, said = Ranks(run_train, given, []).finish()
    assert statuses == [0, 0], said
    assert "device: cpu" in said[0] and "in each of 2 processes" in said[0]
    assert "fit into 0.05 minutes" in said[0] and "next: python test.py" in said[0]
    assert said[1] == ""
    last = load(files / "last.pth")
    assert len(last["history"]) == last["settings"]["epochs"]
    assert {path.name for path in files.iterdir()} == {*OWN, "written.json"}
    model, _ = load_checkpoint(files / "checkpoint.pth", CPU, KINDS)
    assert not [name for name in model.state_dict() if name.startswith("module")]


# torchrun itself


@contextlib.contextmanager
def torchrun(eyes: Path, files: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """Start a training in two processes as users start it, which torchrun starts again if one of them dies."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = [ROOT / "train.py", f"--data={eyes}", f"--files={files}", *SHORT, *more]
    command = list(map(str, [*launcher, "--max-restarts=1", *script]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()  # it ends those that it started
        process.communicate()


def epochs_done(files: Path) -> int:
    path = files / "last.pth"
    return len(load(path)["history"]) if path.exists() else 0


def wait_for_epoch(files: Path, epoch: int) -> None:
    """Wait until the training has done so many epochs."""
    until, before = time.time() + 300, -1
    while True:
        if (now := modified(files / "last.pth")) != before:
            before = now
            if epochs_done(files) >= epoch:
                return
        assert time.time() < until, f"epoch {epoch} never came"
        time.sleep(0.02)


def pid_of_rank(rank: int, files: Path, process: subprocess.Popen[str]) -> int:
    """The process of rank 0, which holds the folder, or the other one that torchrun started."""
    main = int((files / ".lock").read_text())
    if rank == 0:
        return main
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    started = [int(pid) for pid, parent, args in rows if int(parent) == process.pid and "train.py" in args]
    (other,) = set(started) - {main}
    return other


def test_a_killed_process_ends_all_and_any_number_goes_on(eyes, tmp_path, monkeypatch):
    arguments = ["--data", eyes, "--files", tmp_path, *SHORT]

    # one process, stopped in the middle of the second epoch
    with monkeypatch.context() as patch:
        stop_at(patch, 4, number=signal.SIGTERM)
        assert run_script(train.main, *arguments) == 130
    assert len(load(tmp_path / "last.pth")["losses"]) == 2

    # two go on; when one is killed, torchrun starts both again, and when another is, it gives up
    lost = "another process of this run died, was ended or cannot be reached; "
    again = r"torchrun --nproc-per-node=2 .*train\.py .*--resume"
    with torchrun(eyes, tmp_path, "--resume") as process:
        for rank in (0, 1):
            wait_for_epoch(tmp_path, epochs_done(tmp_path) + 1)
            os.kill(pid_of_rank(rank, tmp_path, process), signal.SIGKILL)
            killed = time.time()
        _, errors = process.communicate(timeout=90)
        print(f"all ended {time.time() - killed:.1f} seconds after the kill")
        assert time.time() - killed < 60
        assert process.returncode != 0
    lines = [line for line in errors.splitlines() if line.startswith("train.py: ")]
    assert len(lines) == 2, errors
    for line in lines:
        assert re.search(rf"{lost}.*last\.pth is as it was written last; go on with: {again}$", line)
    assert errors.count("Traceback (most") == 1, "torchrun's own, and none of the script"
    done = epochs_done(tmp_path)
    assert 3 <= done < EPOCHS
    assert not list(tmp_path.glob(".*")), "neither lock nor temporary files remain"

    # two go on, until Ctrl-C
    ranks = Ranks(run_train, [*map(str, arguments), "--resume"], [])
    wait_for_epoch(tmp_path, done + 1)
    for process in ranks.processes:
        os.kill(process.pid, signal.SIGINT)
    statuses, said = ranks.finish()
    assert statuses == [130, 130], said
    assert re.search(rf"stopped, all steps are kept; go on with: {again}\n$", said[0])
    assert said[1] == ""

    # and one process to the end
    done = epochs_done(tmp_path)
    assert done < EPOCHS
    assert run_script(train.main, *arguments, "--resume") == 0
    last = load(tmp_path / "last.pth")
    assert [row["epoch"] for row in last["history"]] == list(range(1, EPOCHS + 1))
    assert not (tmp_path / "earlier").exists()
    rates = [row["learning_rate"] for row in last["history"]]
    total = 3 * EPOCHS
    assert rates == [optimizers.one_cycle((3 * epoch - 1) / total, 0.02) for epoch in range(1, EPOCHS + 1)]
    load_checkpoint(tmp_path / "checkpoint.pth", CPU)
