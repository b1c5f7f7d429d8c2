"""Training is reproducible, resumable and honest about its split; checkpoints stand for themselves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import forked
import pytest
import torch
from conftest import CPU, HEIGHT, ROOT, TINY, WIDTH, load, read_history, run_script, same_weights, stop_at

import test as tester
import train
from data import eye_of, read_eyes
from model import ResUNet
from networks.checkpoints import load_checkpoint
from training import loop, optimizers, thresholds, time_budget
from training.batches import load as load_batches
from training.crops import Crops
from training.earlier import OWN
from training.settings import OLDER_VERSIONS, choose_settings
from utils import UserError

SHORT = [*TINY, "--epochs=2", "--crops=24"]
SMALL = "no GPU: smaller, as accurate on DRIVE"


def test_training_writes_checkpoints_split_history_and_curves(files):
    assert {f.name for f in files.iterdir() if f.suffix} == {*OWN, "written.json"}
    history = read_history(files)
    assert [row["epoch"] for row in history] == ["1", "2", "3"]
    assert float(history[-1]["train_loss"]) < float(history[0]["train_loss"])
    assert cv2.imread(str(files / "curves.png")).std() > 10
    assert cv2.imread(str(files / "preview.png")).shape == (2 * (HEIGHT + 4), 4 * WIDTH + 3 * 4, 3)


def test_the_written_split_has_every_copy_once_and_no_eye_on_both_sides(files, new_data):
    split = json.loads((files / "split.json").read_text())
    names = {f.stem for f in (new_data / "train" / "image").iterdir()}
    assert set(split["train"]) | set(split["validation"]) == names
    assert not {eye_of(n) for n in split["train"]} & {eye_of(n) for n in split["validation"]}
    assert load(files / "checkpoint.pth")["split"] == split


def test_the_checkpoint_alone_rebuilds_the_best_network(files):
    model, checkpoint = load_checkpoint(files / "checkpoint.pth", CPU)
    assert model.config == {"name": "unet", "in_channels": 3, "out_channels": 1, "width": 4, "depth": 2}
    assert same_weights(model.state_dict(), checkpoint["weights"])
    best = max(read_history(files), key=lambda row: float(row["f1"]))
    assert checkpoint["scores"]["epoch"] == int(best["epoch"])
    voters = len({eye_of(name) for name in checkpoint["split"]["validation"]})
    kept = (voters * float(best["threshold"]) + 6 * 0.39) / (voters + 6)
    assert checkpoint["threshold"] == pytest.approx(kept, abs=1e-6)
    assert {"torch", "numpy", "python", "opencv"} <= checkpoint["versions"].keys()
    assert not model.training


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({}, f"network: width 16, depth 3 ({SMALL})\n"),
        ({"depth": 2}, f"network: width 16, depth 2 ({SMALL})\n"),
        ({"width": 24}, "network: width 24, depth 3\n"),
        ({"width": 24, "depth": 2}, ""),
    ],
)
def test_why_a_network_is_so_wide_is_said_where_nobody_asked_for_it(given, line, capsys):
    choose_settings(given, CPU, 1)
    assert capsys.readouterr().out == line


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(new_data, tmp_path):
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        run_script(train.main, "--data", new_data, "--files", tmp_path / folder, *SHORT, "--seed", seed)
    a, b, c = (load(tmp_path / f / "last.pth")["weights"] for f in "abc")
    assert same_weights(a, b)
    assert not same_weights(a, c)
    assert read_history(tmp_path / "a") == read_history(tmp_path / "b")


def test_a_stopped_and_resumed_training_ends_with_the_same_bits(new_data, tmp_path, monkeypatch, capsys):
    settings = ["--data", new_data, *SHORT, "--ema=0.9"]  # without: see the one that is stopped in a fold
    run_script(train.main, *settings, "--files", tmp_path / "whole")

    stop_at(monkeypatch, 2, 7)  # in the middle of the first and of the second epoch
    assert run_script(train.main, *settings, "--files", tmp_path / "parts") == 130
    assert "--resume" in capsys.readouterr().err
    assert run_script(train.main, *settings, "--files", tmp_path / "parts", "--resume") == 130
    assert run_script(train.main, *settings, "--files", tmp_path / "parts", "--resume") == 0
    whole, parts = (load(tmp_path / f / "last.pth") for f in ("whole", "parts"))
    assert same_weights(whole["weights"], parts["weights"])
    best = [load(tmp_path / f / "checkpoint.pth") for f in ("whole", "parts")]
    assert same_weights(best[0]["weights"], best[1]["weights"])
    assert best[0]["threshold"] == best[1]["threshold"]
    assert read_history(tmp_path / "whole") == read_history(tmp_path / "parts")


def test_resuming_with_other_settings_is_refused_and_the_difference_named(new_data, files):
    other = [*TINY, "--epochs", 3, "--crops", 40, "--lr", 0.001, "--seed", 7]
    with pytest.raises(UserError, match=r"--lr 0\.02, not 0\.001; --seed 42, not 7"):
        run_script(train.main, "--data", new_data, "--files", files, *other, "--resume")


def test_a_flag_that_is_a_default_is_seen_as_given(new_data, tmp_path):
    settings = ["--data", new_data, "--files", tmp_path, *TINY, "--epochs=1", "--crops=8"]
    run_script(train.main, *settings, "--choroid=0.5")
    with pytest.raises(UserError, match=r"trained with --choroid 0\.5, not 0\.3"):
        run_script(train.main, *settings, "--resume", "--choroid=0.3")
    assert run_script(train.main, "--data", new_data, "--files", tmp_path, "--device=cpu", "--resume") == 0


def test_resuming_a_finished_training_says_so_and_changes_nothing(new_data, files, capsys):
    before = (files / "last.pth").read_bytes()
    settings = [*TINY, "--epochs", 3, "--crops", 40]
    assert run_script(train.main, "--data", new_data, "--files", files, *settings, "--resume") == 0
    assert "done already" in capsys.readouterr().out
    assert (files / "last.pth").read_bytes() == before


def resumed(files: Path, data: Path, change: Callable[[dict], None], *flags: object) -> dict:
    """The settings of last.pth after one more epoch; `change` made it one of an older version before."""
    settings = ["--data", data, "--files", files, *TINY, "--epochs=2", "--crops=8"]
    run_script(train.main, *settings, "--epochs=1")
    last = torch.load(files / "last.pth", weights_only=True)
    last["settings"]["epochs"] = 2
    change(last["settings"])
    torch.save(last, files / "last.pth")
    assert run_script(train.main, *settings, "--resume", *flags) == 0
    return torch.load(files / "last.pth", weights_only=True)["settings"]


def test_a_training_begun_before_an_update_goes_on_as_it_was(new_data, tmp_path, capsys):
    def older(settings: dict) -> None:
        for name in OLDER_VERSIONS:
            del settings[name]

    after = resumed(tmp_path, new_data, older)
    assert "as this training began: --choroid 0.0, --camera 0.0\n" in capsys.readouterr().out
    assert {name: after[name] for name in OLDER_VERSIONS} == OLDER_VERSIONS
    # and once more, now that last.pth has the settings
    again = ["--data", new_data, "--files", tmp_path, *TINY, "--epochs=2", "--crops=8", "--resume"]
    assert run_script(train.main, *again) == 0
    with pytest.raises(UserError, match=r"trained with --camera 0.0, not 0.3"):
        run_script(train.main, *again, "--camera=0.3")


def test_a_training_goes_on_where_an_update_changed_a_default(new_data, tmp_path):
    after = resumed(tmp_path, new_data, lambda settings: settings.update(camera=0.05, choroid=0.1))
    assert (after["camera"], after["choroid"]) == (0.05, 0.1)


def test_every_setting_has_a_value_for_older_trainings(files):
    settings = load(files / "last.pth")["settings"]
    always = {"width", "depth", "epochs", "crops", "batch_size", "crop", "optimizer", "lr", "seed"}
    assert settings.keys() == always | OLDER_VERSIONS.keys()


def test_a_finished_training_is_not_lengthened_but_says_how(new_data, tmp_path):
    settings = ["--data", new_data, *TINY, "--crops=8"]
    run_script(train.main, *settings, "--files", tmp_path / "a", "--epochs=1")
    with pytest.raises(UserError, match=r"--epochs 1, not 2; it is finished.* --start-from .*checkpoint\.pth"):
        run_script(train.main, *settings, "--files", tmp_path / "a", "--epochs=2", "--resume")
    start_from = ["--start-from", tmp_path / "a" / "checkpoint.pth"]
    assert run_script(train.main, *settings, "--files", tmp_path / "b", "--epochs=2", *start_from) == 0


def test_minutes_fits_the_training_into_a_time_and_resumes_with_the_same_length(
    new_data, tmp_path, capsys, monkeypatch
):
    settings = ["--data", new_data, "--files", tmp_path, *TINY, "--workers", 1, "--minutes", 0.1]
    taken, loaded = [], []

    def watched(crops: Crops, size: int, done: int, *how: object) -> torch.utils.data.DataLoader:
        loaded.append((size, *how))
        return load_batches(crops, size, done, *how)

    monkeypatch.setattr(time_budget, "load", watched)
    monkeypatch.setattr(loop, "load", watched)
    for _ in range(3):  # a machine that gets busy takes longer than it did when it was measured
        assert run_script(train.main, *settings) == 0
        assert "fit into 0.1 minutes" in capsys.readouterr().out
        last = load(tmp_path / "last.pth")
        taken.append(last["seconds"])
        if 2 < taken[-1] < 18:
            break
    else:
        pytest.fail(f"6 seconds were asked for, but three trainings took {taken}")
    # batches are timed as the training has them: from as many workers, for the same device
    assert len(loaded) == 2 * len(taken) and set(loaded) == {(4, 1, CPU)}
    assert len(last["history"]) == last["settings"]["epochs"]
    assert run_script(train.main, *settings, "--resume") == 0
    assert "done already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("device", "pinned"), [("cuda", True), ("cuda:1", True), ("cpu", False), ("mps", False)]
)
def test_batches_come_in_pinned_memory_for_a_gpu_alone(device, pinned, new_data):
    crops = Crops(read_eyes(new_data / "train", labels=True)[:1], 32, 0, 8)
    assert load_batches(crops, 4, device=torch.device(device)).pin_memory is pinned


def test_all_eyes_trains_on_every_eye_and_keeps_the_end_with_the_usual_threshold(new_data, tmp_path):
    assert run_script(train.main, "--data", new_data, "--files", tmp_path, *SHORT, "--all-eyes") == 0
    split = json.loads((tmp_path / "split.json").read_text())
    assert len(split["train"]) == 28
    assert split["validation"] == []
    assert same_weights(load(tmp_path / "checkpoint.pth")["weights"], load(tmp_path / "last.pth")["weights"])
    assert "f1" not in read_history(tmp_path)[0]
    assert load(tmp_path / "checkpoint.pth")["threshold"] == pytest.approx(thresholds.USUAL_THRESHOLD)
    scored = ["--data", new_data, "--weights", tmp_path / "checkpoint.pth", "--results", tmp_path / "results"]
    assert run_script(tester.main, *scored, "--device", "cpu") == 0


@pytest.mark.parametrize(("eyes", "kept"), [(0, 0.39), (3, (0.5 + 2 * 0.39) / 3), (600, 0.4989)])
def test_the_more_validation_eyes_the_more_their_threshold_counts(eyes, kept):
    assert thresholds.shrunk_threshold(0.5, eyes) == pytest.approx(kept, abs=1e-4)


def test_a_resnet_is_trained_resumed_and_rebuilt(new_data, tmp_path):
    settings = ["--data", new_data, "--files", tmp_path, *TINY, "--model=resunet", "--epochs=1", "--crops=8"]
    assert run_script(train.main, *settings) == 0
    model, _ = load_checkpoint(tmp_path / "checkpoint.pth", CPU)
    assert type(model) is ResUNet
    assert model.config == {"name": "resunet", "in_channels": 3, "out_channels": 1, "width": 4, "depth": 2}
    assert run_script(train.main, *settings, "--resume") == 0
    with pytest.raises(UserError, match="--model resunet, not unet"):
        run_script(train.main, *settings, "--model=unet", "--resume")


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--pretrained"], "for --model resunet only"),
        (["--model=resunet", "--depth=6"], "halves 5 times at most"),
    ],
)
def test_a_network_that_there_is_not_is_refused(flags, reason, capsys):
    with pytest.raises(SystemExit):
        run_script(train.main, *flags)
    assert reason in capsys.readouterr().err


def test_one_cycle_rises_to_its_peak_and_falls_to_almost_nothing():
    rates = [optimizers.one_cycle(p / 100, 0.01) for p in range(101)]
    assert max(rates) == rates[30] == pytest.approx(0.01)
    assert rates[:31] == sorted(rates[:31])
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert rates[-1] < 1e-6


def test_without_data_the_message_names_the_next_command(tmp_path):
    done = forked.finish("train.py", "--data", tmp_path / "nothing", "--files", tmp_path / "files")
    assert done.returncode == 2
    assert "python augment.py" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "files").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only GNU's OpenMP says how long its threads spin")
@pytest.mark.parametrize(
    ("script", "chosen", "spins"),
    [
        ("train.py --device=none", {}, 300),
        ("predict.py docs/demo.jpg --weights=none --device=none", {}, 300),
        ("train.py --device=none", {"OMP_WAIT_POLICY": "active"}, 30_000_000_000),
        ("train.py --device=none", {"GOMP_SPINCOUNT": "9"}, 9),
    ],
)
def test_threads_soon_sleep_while_they_wait_unless_the_user_chose(script, chosen, spins):
    names = ("OMP_", "GOMP_", "KMP_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    # OpenMP says how it is set when torch loads it
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE", **chosen}
    command = [sys.executable, *script.split()]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr) == [str(spins)]
