"""Segment the test images of new_data and score them if there are labels; or score masks from elsewhere."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -P and PYTHONSAFEPATH=1 leave it out

from anatomy.photograph import look_at
from batch.photographs import to_look_at, write_kinds
from batch.scored import files_of_eyes, read_test_eyes, score_all, score_masks, write_eye_results
from data import eye_of, seen_in_training
from datasets.eyes import Eye
from datasets.field_of_view import fov_diameter
from datasets.images import write_png
from measures.doubts import uncertainty
from measures.table import examine_eye, list_doubtful, write_all_measures
from networks.checkpoints import find_weights
from networks.loading import (
    add_kinds,
    add_prediction_flags,
    add_weights,
    choose_kinds,
    load_kinds,
    load_networks,
    name_weights,
)
from pages.report import write_report
from pages.results import (
    CHALLENGE,
    KINDS_TABLE,
    MEASURES_TABLE,
    PAGE,
    RESULT_SUFFIXES,
    check_results,
    result_file,
)
from prediction.scale import plan_scales
from prediction.segmenter import Segmentation, segment_at
from scoring.challenge import write_challenge
from scoring.kinds import count_eyes, write_kinds_scores
from system.devices import Stopwatch, describe, pick_device
from system.records import replace_results
from system.threads import threads
from utils import HelpFormatter, UserError, folder_name, path_name, run

if TYPE_CHECKING:
    from model import Network


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Segment new_data/test with a trained U-Net. Writes RESULTS: masks/, probability/, "
        "uncertainty/, a picture for each image, index.html to look through them, measures.csv, and "
        "metrics.csv where new_data has test labels; arteries/, veins/ and arteries_veins.csv where they are "
        "told apart. With --masks it scores what another program made "
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
    parser.add_argument(
        "--only", metavar="DATA_SET", help="of these eyes, those of one data set, such as HRF (default: all)"
    )
    parser.add_argument(
        "--unseen",
        action="store_true",
        help="of these eyes, those that trained none of the networks: of a fold, or of a data set left out",
    )
    parser.add_argument("--whole-image", action="store_true", help="score outside the field of view as well")
    add_kinds(parser, "without --weights, where new_data/test has such labels")
    add_prediction_flags(parser, views=8)
    args = parser.parse_args()
    if args.masks and (args.weights or args.arteries_veins or args.arteries_veins_weights or args.unseen):
        parser.error("--masks scores what is there; leave out --weights, --arteries-veins and --unseen")
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
    eyes = read_test_eyes(args, (args.data / "test" / "mask").is_dir(), refused)
    of_kinds = choose_kinds(args, not args.weights and any(eye.kinds is not None for eye in eyes))
    kinds = load_kinds(of_kinds, device)
    print(f"weights: {name_weights(weights, of_kinds)}; device: {describe(device)}; threshold {threshold:.4f}")
    check_results(args.results, args.data)
    trained_on = {"this network": model.trained_on}
    trained_on |= {"the network of arteries and veins": kinds.trained_on} if kinds else {}
    every = frozenset[str]().union(*trained_on.values())
    if args.unseen:
        if unnoted := [network for network, known in trained_on.items() if not known]:
            raise UserError(f"--unseen: {unnoted[0]} does not note the eyes that trained it; use --only")
        if not (eyes := [eye for eye in eyes if eye_of(eye.name) not in every]):
            raise UserError(f"--unseen: all eyes of {args.data / 'test'} have trained a network; give others")
    for network, known in trained_on.items():
        if seen := sum(eye_of(eye.name) in known for eye in eyes):
            print(f"{seen} of these {len(eyes)} eyes trained {network}: their scores say nothing of others")
    notes = [
        f"{test} is the photograph {train} of {args.data / 'train'}: its score says nothing of other eyes."
        for test, train in seen_in_training(args.data, eyes, every).items()
    ]
    for note in notes:
        print(note)
    with replace_results("test.py", "--results", args.results, files_of_eyes(eyes), *RESULT_SUFFIXES):
        levels, called, measured = segment_all(args, model, kinds, threshold, eyes)
        if all(eye.mask is None for eye in eyes):
            print(f"no metrics.csv: {args.data / 'test'} has no labels (DRIVE's download withholds them)")
            notes += ["No scores: these images have no labels (DRIVE's download withholds them)."]
            names = [eye.result_name for eye in eyes]
            write_report(args.results / PAGE, names, threshold, notes, measured=measured)
        else:
            score_all(args, args.results, eyes, levels, threshold, measured, notes=notes)
        if counts := count_eyes(eyes, called, args.whole_image):
            print(write_kinds_scores(args.results / KINDS_TABLE, counts))
        challenge = write_challenge(args.results / CHALLENGE, eyes)
    labelled = any(eye.mask is not None for eye in eyes)
    colours = "; white found, orange missed, blue false" if labelled else ""
    folders = "masks/, probability/, uncertainty/" + (", arteries/, veins/" if kinds else "")
    print(f"{args.results}: {len(eyes)} pictures{colours}; {folders}")
    beside = ", and beside them those of the labels" if labelled else ""
    print(f"{args.results / MEASURES_TABLE}: measures of the predictions{beside}")
    if challenge:
        print(f"{challenge}: the masks of DRIVE's 20 test photographs, to be scored by its challenge")
    print(f"to look through it all, open {args.results / PAGE} in a browser")
    if doubtful := list_doubtful(measured, len(eyes)):
        print(doubtful)
    if refused:
        images = f"{len(refused)} of {len(refused) + len(eyes)} images"
        print("\n  ".join([f"test.py: {images} refused and not scored:", *refused]), file=sys.stderr)
    return 2 if refused else 0


def segment_all(
    args: argparse.Namespace, model: Network, kinds: Network | None, threshold: float, eyes: Sequence[Eye]
) -> tuple[list[np.ndarray], dict[str, np.ndarray], list[dict[str, Any]]]:
    """Segment every eye and write its results.

    Returns:
        Levels of each eye, uint16 (H, W); with `kinds` its arteries and veins by its name, as of
        `datasets.kinds`; and measures of each.
    """
    from tqdm import tqdm

    def finish(eye: Eye, found: Segmentation) -> list[dict[str, Any]]:
        name, measured = eye.result_name, found.measure_kinds()
        write_eye_results(args.results, eye, found.levels, threshold, True)
        write_png(args.results / result_file("uncertainty", name), uncertainty(found.levels))
        if found.kinds and measured:
            write_kinds(args.results, name, found.kinds, measured, *to_look_at(found.taken))
        return examine_eye(eye, found.examine(), found.taken.landmarks, measured)

    levels, called, network = [], {}, Stopwatch(model)
    photographs = [look_at(eye.image) for eye in eyes]
    scales = plan_scales(photographs, model)  # as predict.py sees them
    with threads() as pool:
        jobs = []
        bar = tqdm(eyes, desc="test", unit="image", disable=None)
        for eye, taken, scale in zip(bar, photographs, scales, strict=True):
            known = replace(taken, fov=eye.fov, diameter=fov_diameter(eye.fov))
            found = segment_at(model, known, scale, threshold, args.views, kinds)
            levels.append(found.levels)
            if found.kinds:
                called[eye.name] = found.kinds.pixels
            # encoding a picture takes about as long as predicting it, so it runs beside
            jobs.append(pool.submit(finish, eye, found))
        measured = write_all_measures(args.results / MEASURES_TABLE, [job.result() for job in jobs])
    print(f"network alone: {len(eyes) / network.seconds:.2f} images a second")
    return levels, called, measured


if __name__ == "__main__":
    run(main)
