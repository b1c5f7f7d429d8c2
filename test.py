"""Segment the test images of new_data and score them if there are labels; or score masks from elsewhere."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -P and PYTHONSAFEPATH=1 leave it out

from anatomy.photograph import Photograph, look_at
from data import eye_of, read_eyes, read_info, seen_in_training
from datasets.eyes import Eye
from datasets.field_of_view import fov_diameter
from datasets.images import write_png
from measures.table import examine_eye, list_doubtful, write_all_measures
from measures.uncertainty import uncertainty
from networks.checkpoints import find_weights
from networks.loading import add_prediction_flags, add_weights, load_networks
from pages.report import compare, picture, write_layers, write_report
from pages.results import (
    CHALLENGE,
    COMPARISON,
    KINDS_TABLE,
    MEASURES_TABLE,
    PAGE,
    RESULT_SUFFIXES,
    SCORES_TABLE,
    check_results,
    result_file,
)
from prediction.scale import plan_scale
from prediction.segmentation import binarize, segment
from scoring import metrics
from scoring.challenge import write_challenge
from scoring.comparison import compare_scores, describe_comparison
from scoring.kinds import count_eyes, write_kinds_scores
from scoring.other_masks import Maps, name_folders, read_maps
from scoring.scores import score, sentence
from system.devices import Stopwatch, describe, pick_device
from system.files import write_csv
from system.records import replace_results
from system.threads import threads
from utils import HelpFormatter, UserError, folder_name, path_name, run

if TYPE_CHECKING:
    from model import Network


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Segment new_data/test with a trained U-Net. Writes RESULTS: masks/, probability/, "
        "uncertainty/, a picture for each image, index.html to look through them, measures.csv, and "
        "metrics.csv where new_data has test labels. With --masks it scores what another program made "
        "instead, and compares several.",
        epilog="example: python test.py --weights files/checkpoint.pth --views 1",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--data", type=path_name, default=Path("new_data"), help="written by augment.py")
    add_weights(parser, "files/checkpoint.pth, else files/drive_unet.pth")
    parser.add_argument(
        "--masks",
        type=path_name,
        nargs="+",
        action="extend",
        metavar="FOLDER",
        help="score these masks or probability maps (images of 8 or 16 bits, .npy) instead of a network's; "
        "more than one folder: compare each with the first (threshold 0.5 unless given)",
    )
    parser.add_argument(
        "--results",
        type=folder_name,
        help="folder to write (default: results; with --masks results/masks_scored)",
    )
    parser.add_argument("--whole-image", action="store_true", help="score outside the field of view as well")
    add_prediction_flags(parser, views=8)
    args = parser.parse_args()
    if args.masks and args.weights:
        parser.error("--masks scores what is there already; leave out --weights")
    args.results = args.results or Path("results", "masks_scored" if args.masks else "")
    return args


def main() -> int:
    args = parse_args()
    refused: list[str] = []
    if args.masks:
        return score_masks(args)
    device = pick_device(args.device)
    weights = args.weights or [find_weights(("checkpoint.pth", "drive_unet.pth"))]
    model, threshold = load_networks(weights, args.threshold, device)
    eyes = read_eyes(args.data / "test", (args.data / "test" / "mask").is_dir(), refused)
    print(f"weights: {', '.join(map(str, weights))}; device: {describe(device)}; threshold {threshold:.4f}")
    check_results(args.results, args.data)
    if seen := sum(eye_of(eye.name) in model.trained_on for eye in eyes):
        print(f"{seen} of these {len(eyes)} eyes trained this network: their scores say nothing of others")
    notes = [
        f"{test} is the photograph {train} of {args.data / 'train'}: its score says nothing of other eyes."
        for test, train in seen_in_training(args.data, eyes, model.trained_on).items()
    ]
    for note in notes:
        print(note)
    with replace_results("test.py", "--results", args.results, files_of_eyes(eyes), *RESULT_SUFFIXES):
        levels, measured = segment_all(args, model, threshold, eyes)
        if all(eye.mask is None for eye in eyes):
            print(f"no metrics.csv: {args.data / 'test'} has no labels (DRIVE's download withholds them)")
            notes += ["No scores: these images have no labels (DRIVE's download withholds them)."]
            names = [eye.result_name for eye in eyes]
            write_report(args.results / PAGE, names, threshold, notes, measured=measured)
        else:
            score_all(args, args.results, eyes, levels, threshold, measured, notes=notes)
        challenge = write_challenge(args.results, eyes)
    labelled = any(eye.mask is not None for eye in eyes)
    colours = "; white found, orange missed, blue false" if labelled else ""
    print(f"{args.results}: {len(eyes)} pictures{colours}; masks/, probability/, uncertainty/")
    beside = ", and beside them those of the labels" if labelled else ""
    print(f"{args.results / MEASURES_TABLE}: measures of the predictions{beside}")
    if challenge:
        print(f"{challenge}: the masks of DRIVE's 20 test photographs, to be scored by its challenge")
    print(f"to look through it all, open {args.results / 'index.html'} in a browser")
    if doubtful := list_doubtful(measured, len(eyes)):
        print(doubtful)
    if refused:
        images = f"{len(refused)} of {len(refused) + len(eyes)} images"
        print("\n  ".join([f"test.py: {images} refused and not scored:", *refused]), file=sys.stderr)
    return 2 if refused else 0


def files_of_eyes(eyes: Sequence[Eye]) -> list[str]:
    """Every file that may be written for these eyes, by its path in the results."""
    names = [eye.result_name for eye in eyes]
    each = [result_file(folder, name) for name in names for folder in RESULT_SUFFIXES]
    tables = [PAGE, SCORES_TABLE, KINDS_TABLE, MEASURES_TABLE, CHALLENGE]
    return [*tables, *each, *(f"{name}.png" for name in names)]


def write_eye_results(results: Path, eye: Eye, levels: np.ndarray, threshold: float, probability: bool) -> None:
    """Write mask and picture of one eye, and `probability` if asked for."""
    name, mask = eye.result_name, binarize(levels, eye.fov, threshold)
    write_png(results / result_file("masks", name), mask)
    if probability:
        write_png(results / result_file("probability", name), levels)
    write_png(results / f"{name}.png", picture(eye, mask))
    write_layers(results, name, eye.image, compare(eye, mask), eye.mask)


def segment_all(
    args: argparse.Namespace, model: Network, threshold: float, eyes: Sequence[Eye]
) -> tuple[list[np.ndarray], list[dict[str, Any]]]:
    """Segment every eye and write its results; returns levels, uint16 (H, W), and measures of each."""
    from tqdm import tqdm

    def finish(eye: Eye, levels: np.ndarray, taken: Photograph) -> list[dict[str, Any]]:
        write_eye_results(args.results, eye, levels, threshold, True)
        write_png(args.results / result_file("uncertainty", eye.result_name), uncertainty(levels))
        return examine_eye(eye, levels, threshold, taken)

    levels, network = [], Stopwatch(model)
    with threads() as pool:
        jobs = []
        for eye in tqdm(eyes, desc="test", unit="image", disable=None):
            taken = look_at(eye.image)
            factor = plan_scale(taken, model).factor  # as predict.py sees it
            levels.append(metrics.quantize(segment(model, eye.image, eye.fov, args.views, factor)))
            taken = replace(taken, fov=eye.fov, diameter=fov_diameter(eye.fov))
            # encoding a picture takes about as long as predicting it, so it runs beside
            jobs.append(pool.submit(finish, eye, levels[-1], taken))
        measured = write_all_measures(args.results, [job.result() for job in jobs])
    print(f"network alone: {len(eyes) / network.seconds:.2f} images a second")
    return levels, measured


def score_all(
    args: argparse.Namespace,
    results: Path,
    eyes: Sequence[Eye],
    levels: Sequence[np.ndarray],
    threshold: float,
    measured: Sequence[dict[str, Any]],
    binary: bool = False,
    notes: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Score the eyes, print the scores, write metrics.csv and the page; returns the rows of the eyes.

    `binary` levels are masks, not probabilities: they have no curve and no area under it.
    """
    rows, pooled = score(eyes, levels, threshold, args.whole_image)
    if binary:
        for row in rows:
            row |= {"auc": float("nan"), "average_precision": float("nan")}
    write_csv(results / SCORES_TABLE, rows)
    by_name = {row["image"]: row for row in rows}
    where = "the whole image" if args.whole_image else "the field of view"
    print(f"mean over {len(eyes)} images, in {where} ({results / 'metrics.csv'}):")
    notes = [*notes, f"Scores of the pixels in {where}."]
    print(sentence(by_name["mean"]))
    if binary:
        notes.append("No AUC: these are masks, not probabilities.")
    elif undefined := [row["image"] for row in rows[: len(eyes)] if np.isnan(row["auc"])]:
        notes.append(f"No AUC for {', '.join(undefined)}: the truth has vessels only, or none, there.")
        print(notes[-1])
    if "second_observer" in by_name:
        print(f"second human observer: {sentence(by_name['second_observer'])}")
        if (observed := sum(eye.second is not None for eye in eyes)) < len(eyes):
            notes.append(f"The second observer drew {observed} of the {len(eyes)} images: a mean over those.")
            print(notes[-1])
    if (squashed := read_info(args.data).get("size")) is not None:
        notes.append(f"Scores of truth at {squashed}x{squashed}: not comparable with published ones.")
        print(notes[-1])
    names = [eye.result_name for eye in eyes]
    counts = None if binary else pooled
    write_report(results / PAGE, names, threshold, notes, rows, counts, measured)
    return rows[: len(eyes)]


def score_masks(args: argparse.Namespace) -> int:
    """Score each folder of --masks; compare the others with the first."""
    test, threshold = args.data / "test", 0.5 if args.threshold is None else args.threshold
    if (test / "image").is_dir() and not (test / "mask").is_dir():
        raise UserError(f"{test / 'mask'}: no labels to score with (DRIVE's download withholds them)")
    refused: list[str] = []
    eyes = read_eyes(test, True, refused)
    check_results(args.results, args.data)
    named = name_folders(args.masks, args.results)
    below = [results.relative_to(args.results) for _, results in named.values()]
    files = [COMPARISON, *((b / f).as_posix() for b in below for f in files_of_eyes(eyes))]
    maps_of = {name: read_maps(folder, eyes) for name, (folder, _) in named.items()}
    parts = [f"{b}/{part}" for b in below for part in ("", *RESULT_SUFFIXES)]
    with replace_results("test.py", "--results", args.results, files, *parts):
        return score_maps(args, threshold, eyes, named, maps_of, refused)


def score_maps(
    args: argparse.Namespace,
    threshold: float,
    eyes: Sequence[Eye],
    named: Mapping[str, tuple[Path, Path]],
    maps_of: Mapping[str, Maps],
    refused: list[str],
) -> int:
    """Score the maps of each folder and compare them; returns the exit status."""
    rows = {}
    for name, (folder, results) in named.items():
        maps = maps_of[name]
        what = "masks" if maps.binary else f"probability maps, threshold {threshold:.4f}"
        print(f"{folder}: {len(maps.levels)} {what}")
        paired = [eye for eye in eyes if eye.name in maps.levels]
        levels = [maps.levels[eye.name] for eye in paired]

        def finish(eye: Eye, own: np.ndarray, results: Path = results) -> list[dict[str, Any]]:
            write_eye_results(results, eye, own, threshold, False)
            return examine_eye(eye, own, threshold)

        with threads() as pool:
            jobs = [pool.submit(finish, eye, own) for eye, own in zip(paired, levels, strict=True)]
            measured = write_all_measures(results, [job.result() for job in jobs])
            rows[name] = score_all(args, results, paired, levels, threshold, measured, maps.binary)
        if counts := count_eyes(paired, maps.kinds, args.whole_image):
            print(write_kinds_scores(results / KINDS_TABLE, counts))
        print(f"to look through it all, open {results / 'index.html'} in a browser")
        refused += [f"{folder}: {problem}" for problem in maps.problems]
        if maps.surplus:
            print("\n  ".join([f"{folder}: {len(maps.surplus)} more files:", *maps.surplus]), file=sys.stderr)
    if len(rows) > 1:
        table, differences = compare_scores(rows)
        write_csv(args.results / COMPARISON, table)
        print("\n".join(["", *describe_comparison(table, differences)]))
        print(f"eye by eye: {args.results / 'comparison.csv'}")
    if refused:
        print("\n  ".join([f"test.py: {len(refused)} not scored:", *refused]), file=sys.stderr)
    return 2 if refused else 0


if __name__ == "__main__":
    run(main)
