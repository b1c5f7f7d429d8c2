"""The test eyes of new_data: results, scores and page, of a network's masks or of those from elsewhere."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data import doubt_size, read_eyes
from datasets.eyes import Eye
from datasets.images import write_png
from measures.table import examine_eye, write_all_measures
from measures.vessels import measure, prepare
from pages.pictures import colour_kinds, compare, picture, write_layers
from pages.report import write_report
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
from prediction.segmentation import binarize
from scoring.comparison import compare_scores, describe_comparison
from scoring.kinds import count_eyes, write_kinds_scores
from scoring.other_masks import Maps, name_folders, read_maps
from scoring.scores import NO_CURVE, score, sentence
from system.files import write_csv
from system.records import replace_results
from system.threads import threads
from utils import UserError, expand


def read_test_eyes(args: argparse.Namespace, labels: bool, refused: list[str]) -> list[Eye]:
    """The eyes of new_data/test, with --only those of one data set; arguments as of `read_eyes`.

    Raises:
        UserError: as there; or no eye is of that data set.
    """
    eyes = read_eyes(args.data / "test", labels, refused)
    if args.only is None:
        return eyes
    if not (own := [eye for eye in eyes if eye.source == args.only]):
        there = ", ".join(sorted({eye.source for eye in eyes} - {""})) or "none that dataset.json names"
        raise UserError(f"--only {args.only}: no data set of {args.data / 'test'}, which has {there}")
    return own


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
    if eye.kinds is not None:
        write_png(results / result_file("page/truth_arteries_veins", name), colour_kinds(eye.kinds))


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
            row |= NO_CURVE
    write_csv(results / SCORES_TABLE, rows)
    by_name = {row["image"]: row for row in rows}
    where = "the whole image" if args.whole_image else "the field of view"
    print(f"mean over {len(eyes)} images, in {where} ({results / SCORES_TABLE}):")
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
    if squashed := doubt_size(args.data):
        notes.append(squashed)
        print(squashed)
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
    eyes = read_test_eyes(args, True, refused)
    check_results(args.results, args.data)
    named = name_folders(list(expand(args.masks)), args.results)
    below = [results.relative_to(args.results) for _, results in named.values()]
    files = [COMPARISON, *((b / f).as_posix() for b in below for f in files_of_eyes(eyes))]
    maps_of = {name: read_maps(folder, eyes) for name, (folder, _) in named.items()}
    parts = [f"{b}/{part}" for b in below for part in ("", *RESULT_SUFFIXES)]
    with replace_results("test.py", "--results", args.results, files, *parts):
        rows = {}
        for name, (folder, results) in named.items():
            rows[name] = score_maps(args, threshold, eyes, folder, results, maps_of[name])
            refused += [f"{folder}: {problem}" for problem in maps_of[name].problems]
        if len(rows) > 1:
            table, differences = compare_scores(rows)
            write_csv(args.results / COMPARISON, table)
            print("\n".join(["", *describe_comparison(table, differences)]))
            print(f"eye by eye: {args.results / COMPARISON}")
    if refused:
        print("\n  ".join([f"test.py: {len(refused)} not scored:", *refused]), file=sys.stderr)
    return 2 if refused else 0


def score_maps(
    args: argparse.Namespace, threshold: float, eyes: Sequence[Eye], folder: Path, results: Path, maps: Maps
) -> list[dict[str, Any]]:
    """Score the maps of one folder and write their results; returns the rows of `score_all`."""
    what = "masks" if maps.binary else f"probability maps, threshold {threshold:.4f}"
    print(f"{folder}: {len(maps.levels)} {what}")
    paired = [eye for eye in eyes if eye.name in maps.levels]
    levels = [maps.levels[eye.name] for eye in paired]

    def finish(eye: Eye, own: np.ndarray) -> list[dict[str, Any]]:
        write_eye_results(results, eye, own, threshold, False)
        return examine_eye(eye, measure(prepare(own * (eye.fov > 0), eye.fov, threshold)))

    with threads() as pool:
        measured = write_all_measures(results / MEASURES_TABLE, pool.map(finish, paired, levels))
        rows = score_all(args, results, paired, levels, threshold, measured, maps.binary)
    if counts := count_eyes(paired, maps.kinds, args.whole_image):
        print(write_kinds_scores(results / KINDS_TABLE, counts))
    print(f"to look through it all, open {results / PAGE} in a browser")
    if maps.surplus:
        print("\n  ".join([f"{folder}: {len(maps.surplus)} more files:", *maps.surplus]), file=sys.stderr)
    return rows
