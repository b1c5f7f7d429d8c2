"""A training that starts from a network keeps what made it, and the network itself where it was better."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CPU, TINY, run_script

import train
from data import eye_of, read_eyes
from datasets.field_of_view import fov_diameter
from model import UNet
from networks.checkpoints import load_checkpoint, save_checkpoint
from training import loop
from training.settings import choose_settings
from training.start import bring_to_scale

MADE_BY = {"choroid": 0.2, "camera": 0.3, "degrade": 0.5, "clahe": 0.25}
SHORT = [*TINY, "--epochs=1", "--crops=8"]


def write_start(path: Path, trained: str = "0_elsewhere", **more: object) -> Path:
    """A small untrained network, as if trained on that eye."""
    torch.manual_seed(0)
    network = UNet(width=4, depth=2)
    content = {"model": network.config, "weights": network.state_dict(), "threshold": 0.31, "settings": MADE_BY}
    save_checkpoint(path, {**content, "split": {"train": [trained], "validation": []}, "diameter": 128, **more})
    return path


def test_the_recipe_of_the_network_stays_unless_a_flag_says_otherwise(tmp_path):
    start = str(write_start(tmp_path / "start.pth"))
    given = {"start_from": start, "camera": 0.0}
    settings = choose_settings(given, CPU, 1, load_checkpoint(Path(start), CPU))
    kept = {name: getattr(settings, name) for name in MADE_BY}
    assert kept == MADE_BY | {"camera": 0.0}
    assert (settings.width, settings.depth, settings.lr) == (4, 2, pytest.approx(0.008))


def test_eyes_as_they_were_taken_come_to_the_diameter_of_the_network(new_data, tmp_path):
    network, _ = load_checkpoint(write_start(tmp_path / "start.pth"), CPU)
    eyes = {eye.name: eye for eye in read_eyes(new_data / "train", labels=True)}
    brought = bring_to_scale(eyes, new_data, network)
    for name, eye in brought.items():
        if name.endswith("_0"):
            assert fov_diameter(eyes[name].fov) < 100
            assert fov_diameter(eye.fov) == pytest.approx(128, abs=4)
        assert eye.image.shape[:2] == eye.truth.shape == eye.fov.shape
        assert set(np.unique(eye.truth)) <= {0, 255}
        first = f"{eye_of(name)}_0"
        # copies alike
        ratio = [brought[n].image.size / eyes[n].image.size for n in (name, first)]
        assert ratio[0] == pytest.approx(ratio[1], rel=0.05)


def test_the_checkpoint_keeps_scale_views_and_the_eyes_that_trained_the_start(new_data, tmp_path, capsys):
    start = write_start(tmp_path / "start.pth")
    arguments = ["--data", new_data, "--files", tmp_path / "files", *SHORT, "--start-from", start]
    assert run_script(train.main, *arguments) == 0
    assert "7 eyes resized to the scale of --start-from" in capsys.readouterr().out
    network, content = load_checkpoint(tmp_path / "files" / "checkpoint.pth", CPU)
    assert (network.diameter, network.disc, network.clahe) == (128, None, True)
    assert content["settings"]["degrade"] == 0.5
    assert {"0_elsewhere", "21_training"} <= network.trained_on
    assert run_script(train.main, *arguments, "--resume") == 0


@pytest.mark.parametrize(("after", "kept"), [(0.4, True), (0.6, False)])
def test_a_start_that_validates_better_is_what_is_kept(after, kept, new_data, tmp_path, monkeypatch, capsys):
    start, evaluate, f1 = write_start(tmp_path / "start.pth"), loop.evaluate, iter([0.5, after])
    monkeypatch.setattr(loop, "evaluate", lambda *given: {**evaluate(*given), "f1": next(f1)})
    arguments = ["--data", new_data, "--files", tmp_path / "files", *SHORT, "--start-from", start]
    assert run_script(train.main, *arguments) == 0
    said = capsys.readouterr().out
    network, content = load_checkpoint(tmp_path / "files" / "checkpoint.pth", CPU)
    given = load_checkpoint(start, CPU)[0].state_dict()
    assert all(torch.equal(weight, given[name]) for name, weight in network.state_dict().items()) == kept
    assert (content["threshold"] == 0.31) == kept
    assert ("no epoch was better than" in said) == kept
    assert run_script(train.main, *arguments, "--resume") == 0
    assert ("no epoch was better than" in capsys.readouterr().out) == kept


def test_a_start_that_has_seen_the_eyes_that_validate_is_not_compared(new_data, tmp_path, capsys):
    start = write_start(tmp_path / "start.pth", "21_training_0")  # validates with the usual seed
    arguments = ["--data", new_data, "--files", tmp_path / "files", *SHORT, "--start-from", start]
    assert run_script(train.main, *arguments) == 0
    assert "trained on 21_training, which validate" in capsys.readouterr().out
    assert "epoch" in load_checkpoint(tmp_path / "files" / "checkpoint.pth", CPU)[1]["scores"]
