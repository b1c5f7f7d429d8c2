"""Cross-validation by eye: every labelled eye is scored once, by a network trained without it."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data import eye_of, first_copies, person_of, read_info
from datasets.eyes import Eye
from networks.checkpoints import load_checkpoint
from prediction.segmentation import segment
from scoring import metrics
from system.devices import pick_device
from system.files import claim, write_csv
from training.earlier import OWN, check_own, list_own, set_aside, undo_move
from training.state import Training
from utils import UserError

Split = dict[str, list[str]]
# trains on a split with these arguments; returns None if it was stopped before the end
Train = Callable[[argparse.Namespace, Split], "Training | None"]


@dataclass(frozen=True)
class Predicted:
    """An eye and its prediction by the network of its fold, which was trained without it."""

    eye: Eye
    fold: int
    minutes: float  # of that network's training
    levels: np.ndarray  # uint16 (H, W), from metrics.quantize
    counts: np.ndarray  # int64 (2, metrics.LEVELS), from metrics.count_levels


def split_into_folds(names: Sequence[str], folds: int) -> list[Split]:
    """Deal the eyes out in order: fold k holds out eyes k, k + folds and so on, with all their copies.

    Both eyes of a person stay together (`data.person_of`).

    Returns:
        For each fold the copies to `train` on, those `held_out`, and an empty `validation`: an eye that is
        scored must not choose the epoch or the threshold.

    Raises:
        UserError: more folds than eyes.
    """
    persons = list(dict.fromkeys(person_of(name) for name in names))
    if folds > len(persons):
        eyes = f"{len(persons)} labelled eyes of different persons"
        raise UserError(f"--folds {folds}: there are only {eyes}, and each fold needs one")
    splits = []
    for k in range(folds):
        out = set(persons[k::folds])
        split: Split = {"train": [], "validation": [], "held_out": []}
        for name in names:
            split["held_out" if person_of(name) in out else "train"].append(name)
        splits.append(split)
    return splits


def cross_validate(args: argparse.Namespace, eyes: Mapping[str, Eye], train: Train) -> bool:
    """Train and score all folds, write folds.csv, then train on all eyes; or train only some folds.

    Each fold has its own folder, FILES/fold0 and so on, so that folds can be trained side by side. The network
    on all eyes is written to FILES itself.

    Args:
        args: of train.py; if `fold` is set, only these folds are trained, and no network on all eyes.
        eyes: all copies by name, in natural order.
        train: how to train.

    Returns:
        False if it was stopped before the end.

    Raises:
        UserError: more folds than eyes; nothing to resume, or of another training; what `train` raises.
    """
    splits = split_into_folds(list(eyes), args.folds)
    chosen = range(args.folds) if args.fold is None else sorted(set(args.fold))
    whole = len(chosen) == args.folds
    with claim(args.files) if whole else contextlib.nullcontext():
        if whole:
            undo_move(args.files)
        args.make_room = prepare(args, chosen, list(eyes))
        predicted: list[Predicted] = []
        for k in chosen:
            of_fold = run_fold(args, k, splits[k], eyes, train)
            args.make_room = None
            if of_fold is None:
                return False
            predicted += of_fold
        if not whole:
            print("when all folds are trained: the same command with --resume and without --fold")
            return True
        order = list(eyes).index
        found = summarize(args, sorted(predicted, key=lambda one: order(one.eye.name)))
        return args.fold is not None or train_final(args, list(eyes), found, train)


def prepare(args: argparse.Namespace, chosen: Sequence[int], names: Sequence[str]) -> Callable[[], None] | None:
    """With --resume, check that it is possible.

    Returns:
        A function that moves an earlier run of all folds away as a whole, so that nothing is mixed, to be
        called when the first checkpoint is ready. None: there is none, or each fold does it in its own folder.

    Raises:
        UserError: nothing to resume, or a network in FILES that is not the one on all eyes.
    """
    last = args.files / "last.pth"
    folders = [fold_folder(args, k) for k in chosen]
    if args.resume:
        if not any((folder / "last.pth").exists() for folder in folders):
            raise UserError(f"{folders[0]}: no fold to go on with; train without --resume")
        # fail now rather than after all folds
        if args.fold is None and last.exists():
            _, content = load_checkpoint(last, pick_device("cpu"))
            if content.get("split") != on_all_eyes(names):
                raise UserError(f"{last}: of a training on other eyes; move it away, or give another --files")
        return None
    if len(chosen) < args.folds:
        return None
    # an earlier run may have had more folds
    folders = sorted(f for f in args.files.glob("fold*") if f.name[4:].isdecimal() and f.is_dir())
    own = ["folds.csv", *(OWN if args.fold is None else ())]
    check_own(args.files, own)
    for folder in folders:
        check_own(folder)
        own += [f"{folder.name}/{name}" for name in OWN]
    if not any((args.files / name).exists() for name in own):
        return None
    return lambda: set_aside(args.files, own, "cross-validation")


def fold_folder(args: argparse.Namespace, k: int) -> Path:
    """The folder of a fold's own training."""
    return args.files / f"fold{k}"


def on_all_eyes(names: Sequence[str]) -> Split:
    """The split of a training on all eyes."""
    return {"train": list(names), "validation": []}


def arguments_for(args: argparse.Namespace, folder: Path) -> argparse.Namespace:
    """The arguments of a training in `folder`, which resumes if it had begun there and --resume is set."""
    resume = args.resume and (folder / "last.pth").exists()
    return argparse.Namespace(**{**vars(args), "files": folder, "resume": resume})


def run_fold(
    args: argparse.Namespace, k: int, split: Split, eyes: Mapping[str, Eye], train: Train
) -> list[Predicted] | None:
    """Train fold k unless it is done, and predict its eyes; None if it was stopped."""
    from model import fold_batch_norm

    held_out = first_copies(eyes[name] for name in split["held_out"])
    names = [eye_of(eye.name) for eye in held_out]
    print(f"fold {k}: {len(split['train'])} images to train, held out: {', '.join(names)}")
    folder = fold_folder(args, k)
    with claim(folder):
        state = train(arguments_for(args, folder), split)
    if state is None:
        return None
    network, minutes = fold_batch_norm(state.averaged), state.history[-1]["seconds"] / 60
    predicted, scores = [], []
    try:
        for eye in held_out:
            levels = metrics.quantize(segment(network, eye.image, eye.fov, tta=True))
            counts = metrics.count_levels(levels, eye.truth, eye.fov)
            predicted.append(Predicted(eye, k, minutes, levels, counts))
            # the threshold comes from the other folds, which may not be trained yet
            scores.append(metrics.scores(counts, metrics.expected_f1_threshold(levels, eye.fov)))
    except KeyboardInterrupt:  # the training is saved to its last step
        return None
    mean = metrics.mean(scores)
    print(
        f"fold {k}: F1 {mean['f1']:.4f}, AUC {mean['auc']:.4f}, mean over {len(names)} eyes held out, "
        "at thresholds that look at no label"
    )
    return predicted


def score_eye(one: Predicted, threshold: float) -> dict[str, float]:
    """`threshold` and the columns of `metrics.COLUMNS`, inside the field of view of one eye.

    Args:
        one: an eye that has a vessel mask.
        threshold: in [0, 1]; pixels of at least this probability are vessels.
    """
    return {"threshold": threshold} | metrics.score_image(one.levels, one.eye.truth, one.eye.fov, threshold)


def best_threshold(predicted: Iterable[Predicted]) -> float:
    """The threshold of the highest F1 of all pixels of these eyes together."""
    return metrics.best_threshold(np.sum([one.counts for one in predicted], axis=0))[0]


def summarize(args: argparse.Namespace, predicted: Sequence[Predicted]) -> dict[str, Any]:
    """Write folds.csv, a row for each eye and the summary rows, and print the result.

    An eye is scored at the threshold that is best for the eyes of the other folds. Their networks did train on
    this eye, but only this one number depends on them.

    Returns:
        For the checkpoint on all eyes: `threshold`, the best of all eyes pooled, and `cross_validation`, the
        mean scores.
    """
    folds = range(args.folds)
    thresholds = [best_threshold(one for one in predicted if one.fold != k) for k in folds]
    of_eyes = [score_eye(one, thresholds[one.fold]) for one in predicted]
    table = [
        {"eye": eye_of(one.eye.name), "fold": one.fold, **scores, "minutes": one.minutes}
        for one, scores in zip(predicted, of_eyes, strict=True)
    ]
    of_folds = [
        metrics.mean([scores for scores, one in zip(of_eyes, predicted, strict=True) if one.fold == k])
        for k in folds
    ]
    mean, eye_spread, fold_spread = metrics.mean(of_eyes), metrics.spread(of_eyes), metrics.spread(of_folds)
    summary = [
        {"eye": "mean", **mean},
        {"eye": "std_of_eyes", **eye_spread},
        {"eye": "std_of_folds", **fold_spread},
    ]
    path, pooled = args.files / "folds.csv", best_threshold(predicted)
    list_own(args.files, ["folds.csv"])
    write_csv(path, [*table, *summary])
    print(f"{path}: {len(table)} eyes, each scored by a network that was trained without it")
    print(
        f"mean over the eyes, in the field of view: Jaccard {mean['jaccard']:.4f}  F1 {mean['f1']:.4f}  "
        f"AUC {mean['auc']:.4f}; standard deviation of F1: {eye_spread['f1']:.4f} between the eyes, "
        f"{fold_spread['f1']:.4f} between the means of the folds"
    )
    print(f"the best threshold for all of them together: {pooled:.4f}")
    if (squashed := read_info(args.data).get("size")) is not None:
        print(f"Scores of truth at {squashed}x{squashed}: not comparable with published ones.")
    if rescaled := read_info(args.data).get("rescaled"):
        names = ", ".join(rescaled)
        print(f"Scores of truth at DRIVE's scale ({names}): not comparable with published ones.")
    return {"threshold": pooled, "cross_validation": {"folds": args.folds, **mean}}


def train_final(args: argparse.Namespace, names: Sequence[str], found: Mapping[str, Any], train: Train) -> bool:
    """Train on all eyes and store the folds' results in the checkpoint; False if it was stopped."""
    print(f"all eyes: {len(names)} images to train")
    state = train(arguments_for(args, args.files), on_all_eyes(names))
    if state is None:
        return False
    checkpoint = args.files / "checkpoint.pth"
    # save again: it may have been trained before the folds
    state.save(checkpoint, state.averaged, scores=state.history[-1], **found)
    print(f"{checkpoint}: trained on every eye, its threshold {found['threshold']:.4f} from the folds")
    print(f"next: python test.py --data {args.data} --weights {checkpoint}")
    return True
