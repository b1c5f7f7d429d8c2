"""Leave one data set out: train on the others, score it untouched, at a threshold that the others give."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data import eye_of, first_copies, read_eye
from datasets.eyes import Eye
from datasets.images import list_images, read_levels, write_png
from networks.checkpoints import load_checkpoint
from prediction.scale import factors_for
from prediction.segmentation import segment
from scoring import metrics
from system.devices import pick_device
from system.files import claim, write_csv
from training.cross_validation import Train, arguments_for
from training.earlier import OWN, set_aside
from utils import UserError

if TYPE_CHECKING:
    from model import Network

EYES_FOR_THRESHOLD = 6  # of each data set
THRESHOLDS = np.arange(5, 96) / 100


def leave_one_out(args: argparse.Namespace, eyes: Mapping[str, Eye], train: Train) -> bool:
    """Train without each data set in turn, predict its eyes at native size in eight views, and score them.

    Each training has its own folder, FILES/without_NAME, with its checkpoint, probability/ and, for each eye,
    scores.csv. FILES/leave_one_out.csv has a row for each data set, FILES/thresholds.csv its mean F1 at each
    threshold.

    Args:
        args: of train.py; if `leave_one_out` names data sets, only these are left out, and nothing is scored.
        eyes: all copies by name, each with its `source`.
        train: how to train.

    Returns:
        False if it was stopped before the end.

    Raises:
        UserError: fewer than two data sets, an unknown one, none of its eyes in test, or what `train` raises.
    """
    sets: dict[str, list[str]] = {}
    for eye in eyes.values():
        sets.setdefault(eye.source, []).append(eye.name)
    if len(sets) < 2:
        raise UserError(
            f"{args.data}: eyes of one data set; write several with: "
            "python augment.py DRIVE STARE HRF --leave-one-out"
        )
    if unknown := set(args.leave_one_out) - set(sets):
        raise UserError(f"--leave-one-out {min(unknown)}: not in {args.data}, which has {', '.join(sets)}")
    chosen = [name for name in sets if name in args.leave_one_out or not args.leave_one_out]
    for name in chosen:  # fail now rather than after hours
        next(native_eyes(args.data, sets[name]))
    whole = len(chosen) == len(sets)
    with claim(args.files) if whole else contextlib.nullcontext():
        try:
            if not all(run_one(args, name, eyes, train) for name in chosen):
                return False
            if whole:
                summarize(args, sets)
            else:
                print("when every data set was left out: the same command with --resume and without names")
        except KeyboardInterrupt:  # what is trained and predicted is saved
            return False
    return True


def run_one(args: argparse.Namespace, name: str, eyes: Mapping[str, Eye], train: Train) -> bool:
    """Train without one data set and predict it, as far as that is not done; False if it was stopped."""
    from model import fold_batch_norm

    split: dict[str, list[str]] = {"train": [], "validation": [], "held_out": []}
    for eye in eyes.values():
        split["held_out" if eye.source == name else "train"].append(eye.name)
    own = arguments_for(args, folder := folder_of(args, name))
    predicted = [f"probability/{eye_of(held)}.png" for held in split["held_out"]]
    if own.resume and all((folder / file).exists() for file in ["checkpoint.pth", *predicted]):
        return True  # by this command, or by another with other flags: a data set may need more epochs
    if args.start_from and saw(args.start_from, split["held_out"]):
        own.start_from = None
        print(f"without {name}: {args.start_from} was trained on its eyes, so this begins with random weights")
    print(f"without {name}: {len(split['train'])} images to train")
    with claim(folder, "probability"):
        if not own.resume:
            own.make_room = lambda: set_aside(folder, [*OWN, "scores.csv", *predicted])
        if (state := train(own, split)) is None:
            return False
        network, number = None, 0
        for eye in native_eyes(args.data, split["held_out"]):  # one by one: they can be large
            if (path := probability_of(folder, eye)).exists():
                continue
            if network is None:
                network = fold_batch_norm(state.averaged)
                threshold = best_of(mean_f1(network, args.data, [eyes[n] for n in split["train"]]))
                done = state.history[-1]
                state.save(folder / "checkpoint.pth", state.averaged, threshold=threshold, scores=done)
            factors = factors_for(eye.image, network)
            write_png(path, metrics.quantize(segment(network, eye.image, eye.fov, tta=True, scale=factors)))
            number += 1
        print(f"without {name}: {number} eyes predicted")
    return True


def folder_of(args: argparse.Namespace, name: str) -> Path:
    """The folder of the training without a data set."""
    return args.files / f"without_{name}"


def probability_of(folder: Path, eye: Eye) -> Path:
    """The file of an eye's probability, 16 bits."""
    return folder / "probability" / f"{eye_of(eye.name)}.png"


def summarize(args: argparse.Namespace, sets: Mapping[str, Sequence[str]]) -> None:
    """Score the predictions; write scores.csv of each data set, thresholds.csv and leave_one_out.csv.

    A data set is scored at the threshold of the others, each left out in its turn and counting the same: the
    mean of what has the highest expected F1 in each image. That takes no label, so it does not carry the habits
    of their observers to this one's, as the threshold of the best F1 there does (docs/results.md). Their
    networks did train on this data set, but only this one number depends on them.
    """
    curves, expected = {}, {}
    for name, names in sets.items():
        found, own = [], []
        for eye, levels in predictions(args, name, names):
            found.append(f1_curve(metrics.count_levels(levels, eye.truth, eye.fov)))
            own.append(metrics.expected_f1_threshold(levels, eye.fov))
        curves[name], expected[name] = np.mean(found, axis=0), float(np.mean(own))
    rows = []
    for name, names in sets.items():
        others = [other for other in sets if other != name]
        threshold = round(float(np.mean([expected[other] for other in others])), 2)
        scores = {
            eye_of(eye.name): metrics.score_image(levels, eye.truth, eye.fov, threshold)
            for eye, levels in predictions(args, name, names)
        }
        table = [{"image": image, **row} for image, row in scores.items()]
        write_csv(folder_of(args, name) / "scores.csv", table)
        mean = metrics.mean(list(scores.values()))
        _, content = load_checkpoint(folder_of(args, name) / "checkpoint.pth", pick_device("cpu"))
        row: dict[str, Any] = {"data_set": name, "eyes": len(scores), **mean, "threshold": threshold}
        # what others cost: the best for the eyes that trained the network, for the others where they were left
        # out, and for these eyes, which knows their labels
        known = {"trained": content["threshold"], "others_best": best_of(mean_of(curves, others))}
        for which, other in (known | {"best": best_of(curves[name])}).items():
            row |= {f"{which}_threshold": other, f"f1_at_{which}_threshold": at(curves[name], other)}
        rows.append(row)
        print(
            f"without {name}: F1 {mean['f1']:.4f}, AUC {mean['auc']:.4f}, mean of {len(scores)} eyes at "
            f"threshold {threshold:.2f}; at its own best, {row['best_threshold']:.2f}, F1 "
            f"{row['f1_at_best_threshold']:.4f}"
        )
    columns = {"threshold": THRESHOLDS, **curves}
    at_each = [{name: float(curve[i]) for name, curve in columns.items()} for i in range(len(THRESHOLDS))]
    write_csv(args.files / "thresholds.csv", at_each)
    write_csv(args.files / "leave_one_out.csv", rows)
    print(f"{args.files / 'leave_one_out.csv'}: each data set scored by a network trained without it")
    threshold = round(float(np.mean(list(expected.values()))), 2)
    print(f"the threshold of the highest expected F1, mean over all of them, each unseen: {threshold:.2f}")
    print(f"(the best with their labels: {best_of(mean_of(curves, list(sets))):.2f}); to train on all of them:")
    flags = f"--data {args.data} --all-eyes --threshold {threshold:.2f}"
    print(f"python train.py {flags}, and the flags of this training")


def mean_of(curves: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """The mean curve of these data sets, each counting the same."""
    return np.mean([curves[name] for name in names], axis=0)


def predictions(args: argparse.Namespace, name: str, names: Sequence[str]) -> Iterator[tuple[Eye, np.ndarray]]:
    """The native eyes of a data set and their predictions, uint16 (H, W), one by one."""
    for eye in native_eyes(args.data, names):
        yield eye, read_levels(probability_of(folder_of(args, name), eye))


def saw(checkpoint: Path, names: Sequence[str]) -> bool:
    """Whether a checkpoint was trained on, or chosen by, one of these eyes."""
    network, _ = load_checkpoint(checkpoint, pick_device("cpu"))
    return bool(network.trained_on & {eye_of(name) for name in names})


def native_eyes(data: Path, names: Sequence[str]) -> Iterator[Eye]:
    """Read the test eyes of these copies at their native size, one by one.

    Raises:
        UserError: none of them is in new_data/test: it was not written with --leave-one-out.
    """
    wanted, found = {eye_of(name) for name in names}, False
    folder = data / "test"
    for path in list_images(folder / "image") if (folder / "image").is_dir() else []:
        if eye_of(path.stem) in wanted:
            eye = read_eye(path, folder, labels=True)
            found = True
            yield eye
    if not found:
        raise UserError(
            f"{folder}: these eyes are not there; write it with: python augment.py ... --leave-one-out"
        )


def f1_curve(counts: np.ndarray) -> list[float]:
    """F1 at each of `THRESHOLDS`."""
    found = []
    for threshold in THRESHOLDS:
        tp, fp, fn, _ = metrics.confusion(counts, threshold)
        found.append(2 * tp / max(2 * tp + fp + fn, 1))
    return found


def best_of(curve: Sequence[float] | np.ndarray) -> float:
    """The threshold of the highest F1."""
    return float(THRESHOLDS[int(np.argmax(curve))])


def at(curve: np.ndarray, threshold: float) -> float:
    """The value of a curve at one of `THRESHOLDS`."""
    return float(curve[int(np.abs(THRESHOLDS - threshold).argmin())])


def mean_f1(network: Network, data: Path, trained: Sequence[Eye]) -> np.ndarray:
    """Mean F1 on eyes that trained a network, at each of `THRESHOLDS`, each data set counting the same.

    Its maximum is the best compromise between the observers of these data sets, who differ in how much they
    draw. The network has seen these eyes, but networks this small are hardly better on them than on others.
    Native eyes are used where new_data/test has them, else the training eyes.

    Args:
        network: in evaluation mode, with folded batch normalisation.
        data: the new_data that it was trained on.
        trained: the eyes that trained it.

    Returns:
        float64, as long as `THRESHOLDS`: the mean over data sets of the mean of up to six eyes each, in one
        view.
    """
    curves = []
    for source in dict.fromkeys(eye.source for eye in trained):
        own = first_copies(eye for eye in trained if eye.source == source)
        chosen = own[:: -(-len(own) // EYES_FOR_THRESHOLD)]
        try:
            at_native = list(native_eyes(data, [eye.name for eye in chosen]))
        except UserError:
            at_native = chosen
        f1 = []
        for eye in at_native:
            factors = factors_for(eye.image, network)
            levels = metrics.quantize(segment(network, eye.image, eye.fov, scale=factors))
            f1.append(f1_curve(metrics.count_levels(levels, eye.truth, eye.fov)))
        curves.append(np.mean(f1, axis=0))
    return np.mean(curves, axis=0)
