"""What a GPU trains by default, as far as a machine without one can tell."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

from batch import photographs
from data import read_eyes
from model import UNet
from training import epoch, loop
from training.batches import load
from training.crops import Crops
from training.losses import vessel_loss
from training.muon import Muon
from training.optimizers import make_optimizer
from training.settings import Run, Settings, choose_settings, usual_workers
from training.state import Training

GPU = torch.device("cuda")


class Looked(Exception):
    """Ends a training once the test has seen what it asked for."""


@pytest.fixture
def settings() -> Settings:
    """The settings where there is a GPU and no flag was given."""
    return choose_settings({}, GPU, 1)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors on a GPU that have shape, type and device, but no content."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    # what a tensor without content cannot answer: the loss, Muon's count of steps, whether all is finite
    monkeypatch.setattr(torch.Tensor, "item", lambda self: 1.0)
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda self: True)
    with FakeTensorMode():
        try:
            torch.empty(1, device=GPU).uniform_()
        except (AssertionError, RuntimeError) as error:
            pytest.skip(f"this torch cannot even pretend that there is a GPU: {error}")
        yield


def test_a_gpu_has_the_shipped_network_larger_batches_and_workers_a_cpu_does_not(settings, capsys, monkeypatch):
    assert (settings.width, settings.depth, settings.batch_size) == (24, 3, 32)
    settings = choose_settings({}, torch.device("cpu"), 1)
    assert (settings.width, settings.depth, settings.batch_size) == (16, 3, 4)
    monkeypatch.setattr("training.settings.usable_cores", lambda: 64)
    assert [usual_workers(torch.device(name)) for name in ("cuda", "cpu")] == [8, 0]
    monkeypatch.setattr("training.settings.usable_cores", lambda: 3)
    assert [usual_workers(torch.device(name)) for name in ("cuda", "cpu")] == [3, 0]


def test_an_epoch_of_its_network_leaves_nothing_on_the_cpu(settings, pretended, monkeypatch):
    n, side = settings.batch_size, settings.crop
    with GPU:
        model = UNet(width=settings.width, depth=settings.depth)
    optimizer = make_optimizer(model, settings.optimizer, settings.lr)
    assert isinstance(optimizer, Muon)
    seen = []

    def backward(loss: torch.Tensor) -> None:
        """torch's own asks for a driver."""
        seen.append((loss.device.type, loss.dtype, loss.shape))
        for weight in model.parameters():
            weight.grad = torch.empty_like(weight)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    model.classifier.register_forward_hook(
        lambda m, i, out: seen.append((out.device.type, out.dtype, out.shape))
    )
    batch = [torch.rand(n, channels, side, side) for channels in (3, 1, 1)]
    looks = []
    epoch.train_one_epoch(
        *(model, iter([batch, batch]), optimizer, replace(settings, dice=0.5), [0.01, 0.02], []),
        report=lambda steps, _: looks.append(steps),
    )
    assert looks == [2], "a GPU would wait at each look at a loss"
    assert seen == 2 * [("cuda", torch.bfloat16, (n, 1, side, side)), ("cuda", torch.float32, ())]
    momenta = [state["momentum"] for state in optimizer.state.values() if "momentum" in state]
    assert len(momenta) == 13  # seven blocks of two convolutions, but for the one that sees the photograph
    left = {
        (name, value.device.type)
        for state in optimizer.state.values()
        for name, value in state.items()
        if not value.is_cuda
    }
    assert left == {("step", "cpu")}  # a number that is asked for at every step


def test_the_gradients_of_its_network_have_its_shapes(settings):
    n, side = settings.batch_size, settings.crop
    with torch.device("meta"):
        model = UNet(width=settings.width, depth=settings.depth).to(memory_format=torch.channels_last)
        image, mask, fov = (torch.rand(n, channels, side, side) for channels in (3, 1, 1))
    vessel_loss(model(image.contiguous(memory_format=torch.channels_last)), mask, fov, 0.5).backward()
    assert sum(weight.grad.numel() for weight in model.parameters()) == 1_084_681


@pytest.mark.parametrize("workers", [None, 2])
def test_batches_for_a_gpu_come_from_workers_in_pinned_memory(settings, pretended, workers, monkeypatch):
    workers = usual_workers(GPU) if workers is None else workers
    loaders = []

    def look(*arguments: object) -> None:
        loaders.append(load(*arguments))
        raise Looked

    monkeypatch.setattr(loop, "load", look)
    with GPU:
        model = UNet(width=4, depth=1)
    state = Training(settings, {}, model, None, make_optimizer(model, settings.optimizer, settings.lr))
    monkeypatch.setattr(loop, "start_training", lambda *_: state)
    with pytest.raises(Looked):
        loop.train(Run(Path(), Path(), GPU, workers, False, {}), settings, {"train": [], "validation": []}, {})
    (loader,) = loaders
    assert (loader.num_workers, loader.pin_memory, loader.batch_size) == (workers, True, 32)


class Threads:
    """A data set of the number of OpenCV's threads in the process that is asked."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, i: int) -> int:
        return cv2.getNumThreads()


def test_a_worker_takes_one_core():
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    cv2.GaussianBlur(
        np.zeros((2000, 2000), np.float32), (0, 0), 3
    )  # its threads run before the worker is forked
    try:
        assert [int(batch[0]) for batch in load(Threads(), 1, workers=1)] == [1]
    finally:
        cv2.setNumThreads(before)


def test_four_workers_that_are_spawned_cut_what_one_process_cuts(new_data, tmp_path, monkeypatch):
    # as under Windows and macOS, where a worker inherits nothing
    crops = Crops(read_eyes(new_data / "train", labels=True), 32, 3, 20, choroid=0.5, camera=0.5)
    usual = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        spawned = list(load(crops, 4, done=4, workers=4))
    finally:
        multiprocessing.set_start_method(usual, force=True)
    alone = list(load(crops, 4, done=4))
    assert len(spawned) == len(alone) == 4
    for ours, theirs in zip(spawned, alone, strict=True):
        assert all(torch.equal(*parts) for parts in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    "device, number, expected",
    [("meta", 100, (8, 2, True)), ("meta", 3, (3, 5, True)), ("cpu", 100, (4, 1, False))],
    ids=["a GPU and 16 cores", "fewer photographs", "a CPU of 4 threads"],
)
def test_more_photographs_are_read_and_measured_at_once_beside_a_gpu_which_serves_one_at_a_time(
    device, number, expected, monkeypatch
):
    monkeypatch.setattr(photographs, "usable_cores", lambda: 16)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    model = UNet(width=1, depth=1).to(device)  # "meta" is any device that is no CPU
    predictor = photographs.Predictor(model, 0.5, 1, None, results=None)
    with photographs.shared_cores(predictor, number) as workers:
        with model.turn:
            is_alone = hasattr(model.turn, "locked") and model.turn.locked()
        assert (workers, cv2.getNumThreads(), is_alone) == expected
