"""Prepare data sets for training: read them as published, write 4 copies of each training eye as PNG."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -P and PYTHONSAFEPATH=1 leave it out

from anatomy.cameras import give_discs
from data import doubt_name
from datasets.by_folder import pair_kinds
from datasets.duplicates import find_equal, fingerprint
from datasets.eyes import Eye, load_eye, rescale, squash
from datasets.field_of_view import DIAMETER, estimate_fov, fov_diameter
from datasets.images import read_image, write_png
from datasets.kinds import KINDS_FILES
from datasets.layouts import STARE_FOLDS, DataSet, Source
from datasets.new_data import check_out, remove_leftovers, replace_data, scratch
from datasets.published import find_data_sets
from prediction.scale import WORKING_DISC
from prediction.teacher import read_lesson, teach
from system.files import atomic, claim
from system.threads import threads
from utils import (
    HelpFormatter,
    NotWritten,
    UserError,
    between,
    expand,
    folder_name,
    path_name,
    run,
    seed_number,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Turn DRIVE, or others, into PNG files: 4 copies of each training eye (as it is, flipped, "
        "upside down, rotated) and the test eyes as they are. An existing OUT is replaced as a whole or left "
        "as it was.",
        epilog="example: python augment.py --drive ~/Downloads/DRIVE; or: python augment.py DRIVE CHASE_DB1",
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "folders",
        type=path_name,
        nargs="*",
        metavar="FOLDER",
        help="DRIVE, CHASE_DB1, STARE or HRF as unpacked, or photographs with masks of your own, known by what "
        "is in it; all go into one OUT",
    )
    parser.add_argument(
        "--drive",
        type=path_name,
        help="DRIVE as downloaded and unpacked (default: DRIVE, if no FOLDER is given)",
    )
    parser.add_argument(
        "--stare-fold",
        type=between(0, STARE_FOLDS - 1, int),
        default=0,
        help="which fifth of STARE's 20 eyes tests, 0 to 4; the others train",
    )
    parser.add_argument(
        "--arteries-veins",
        type=path_name,
        nargs="+",
        action="extend",
        default=[],
        metavar="FOLDER",
        help="labels of arteries and veins that lie elsewhere, of the photographs' names",
    )
    parser.add_argument(
        "--unlabelled",
        type=path_name,
        metavar="FOLDER",
        help="photographs without labels that train too, with what the networks of --teacher find in them",
    )
    parser.add_argument(
        "--teacher",
        type=path_name,
        nargs="+",
        default=[],
        metavar="WEIGHTS",
        help="checkpoints whose probabilities, averaged over 8 views, are the labels of --unlabelled",
    )
    parser.add_argument("--out", type=folder_name, default=Path("new_data"), help="folder to write")
    parser.add_argument(
        "--leave-one-out",
        action="store_true",
        help="every labelled eye trains, and lies in test at its native size too, for train.py --leave-one-out",
    )
    parser.add_argument(
        "--disc",
        type=between(16, 1024, int),
        metavar="PIXELS",
        help="diameter of the optic disc to which training eyes are brought; as large as DRIVE's own they stay "
        f"as they are by default (default: {WORKING_DISC:.0f}; DRIVE alone stays as it is)",
    )
    of_each = "diameter of the optic disc in the photographs of each data set (default: found)"
    parser.add_argument("--discs", type=between(4, 4096), nargs="+", default=[], metavar="PIXELS", help=of_each)
    parser.add_argument(
        "--size", type=between(16, 4096, int), help="squash to SIZE x SIZE as many tutorials do (default: keep)"
    )
    parser.add_argument("--seed", type=seed_number, default=42, help="seed of the random rotations")
    args = parser.parse_args()
    if args.size and (args.leave_one_out or args.disc or args.discs):
        parser.error("--size: goes neither with --leave-one-out nor with --disc or --discs")
    if bool(args.unlabelled) != bool(args.teacher) or (args.unlabelled and args.size):
        parser.error("--unlabelled: with --teacher, and without --size")
    return args


def read_source(source: Source, square: int | None, disc: float | None = None) -> Eye:
    """Read and check one eye; with `square`, resize it to that many pixels each way.

    With `disc`, a training eye is resized so that the optic disc of its camera, `source.disc`, has so many
    pixels. A test eye keeps its size, since truth must not be resized for scoring.

    Raises:
        UserError: one line for each file that is unreadable, not binary or of another size.
    """
    eye = load_eye(source.name, source.image, source.files)
    if square:
        return squash(eye, square)
    if disc and source.disc and source.part == "train":
        return rescale(eye, disc / source.disc)
    return eye


def copies(eye: Eye, seed: int) -> Iterator[Eye]:
    """Yield the eye unchanged, flipped left-right, flipped upside down, and rotated by up to 45 degrees."""
    # albumentations looks for its newest version online when imported
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations as A

    yield eye
    for transform in (
        A.HorizontalFlip(p=1),
        A.VerticalFlip(p=1),
        A.Rotate(limit=45, border_mode=cv2.BORDER_CONSTANT, mask_interpolation=cv2.INTER_NEAREST, p=1),
    ):
        # one call moves all together; albumentations has its own random state
        masks = {"mask": eye.mask, "fov": eye.fov} | ({} if eye.kinds is None else {"kinds": eye.kinds})
        moved = A.Compose([transform], seed=seed)(image=eye.image, masks=list(masks.values()))
        yield replace(eye, second=None, image=moved["image"], **dict(zip(masks, moved["masks"], strict=True)))


def write_eye(source: Source, out: Path, args: argparse.Namespace, disc: float | None) -> np.ndarray:
    """Read one eye and write its copies; return its fingerprint.

    Raises:
        UserError: one line for each bad file.
    """
    eye = read_source(source, args.size, disc)
    own_seed = int(np.random.SeedSequence([args.seed, source.number]).generate_state(1)[0])
    for k, copy in enumerate(copies(eye, own_seed) if source.part == "train" else [eye]):
        parts = {"image": copy.image, "mask": copy.mask, "fov": copy.fov, "second_observer": copy.second}
        parts["arteries_veins"] = copy.kinds
        for part, pixels in parts.items():
            if pixels is not None:
                write_png(out / source.part / part / f"{eye.name}_{k}.png", pixels)
    return fingerprint(eye.image, eye.fov)


def write_all(sources: list[Source], out: Path, args: argparse.Namespace, disc: float | None) -> list[str]:
    """Write every eye below `out`, on all cores.

    Returns a line for every unusable file, and for every photograph that is there twice.

    Raises NotWritten where a file cannot be written.
    """
    from tqdm import tqdm

    problems: list[str] = []
    prints: dict[str, np.ndarray] = {}
    with threads() as pool:
        jobs = [pool.submit(write_eye, source, out, args, disc) for source in sources]
        for source, job in zip(sources, tqdm(jobs, desc="augment", unit="eye", disable=None), strict=True):
            try:
                prints[str(source.image)] = job.result()
            except NotWritten:  # of a full disk no eye is to blame
                raise
            except UserError as error:
                problems += str(error).splitlines()
    return problems + [
        f"{other}: the same photograph as {one}, perhaps turned or mirrored; remove one of them"
        for one, other in find_equal(prints)
    ]


def refuse_all(problems: Sequence[str]) -> None:
    """Raise UserError if there are problems."""
    if problems:
        raise UserError("\n  ".join([f"nothing was written: {len(problems)} unusable", *problems]))


def usual_disc(data_sets: Sequence[DataSet]) -> float | None:
    """Pixels per disc to which training eyes are brought by default; None where they stay as they are.

    Eyes in DRIVE's layout stay as they are if they are alone and no larger than DRIVE's.
    """
    eyes = [eye for data_set in data_sets for eye in data_set.eyes if eye.part == "train"]
    if len(data_sets) > 1 or any(eye.scaled for eye in eyes):
        return WORKING_DISC
    with contextlib.suppress(UserError):  # it is named when the eye is written
        first = fov_diameter(estimate_fov(read_image(eyes[0].image)))
        return WORKING_DISC if first > DIAMETER / 0.9 else None
    return None


def main() -> None:
    args = parse_args()
    data_sets = find_data_sets(list(expand(args.folders)), args.drive, args.stare_fold)
    out = args.out
    problems = [problem for data_set in data_sets for problem in data_set.problems]
    surplus: list[str] = []
    if args.arteries_veins:
        every = [eye for data_set in data_sets for eye in data_set.eyes]
        wrong, surplus = pair_kinds(args.arteries_veins, every)
        problems += wrong
    check_out(out, data_sets)
    if args.leave_one_out:
        for data_set in data_sets:
            data_set.train_on_all()
    truths = [any("mask" in s.files for s in d.eyes if s.part == "test") for d in data_sets]
    unlabelled = [d for d, known in zip(data_sets, truths, strict=True) if d.count("test") and not known]
    labelled = any(truths)
    if labelled:  # test.py scores all of its images or none
        for data_set in unlabelled:
            data_set.eyes = [s for s in data_set.eyes if s.part == "train"]
    sources = [eye for data_set in data_sets for eye in data_set.eyes]
    taken = Counter((s.part, s.name.casefold()) for s in sources)
    problems += [f"{s.image}: its name is used twice" for s in sources if taken[s.part, s.name.casefold()] > 1]
    problems += filter(None, (doubt_name(source.image, source.name) for source in sources))

    refuse_all(problems)  # before any pixel is read
    names = [source.name for source in sources]
    lesson = read_lesson(args.unlabelled, args.teacher, names) if args.unlabelled else None
    disc = None if args.size else args.disc or (WORKING_DISC if args.discs else usual_disc(data_sets))
    with claim(out):
        remove_leftovers(out)
        with scratch(out, ".staged-") as staged:
            if disc:
                give_discs(data_sets, args.discs)
            problems = write_all(sources, staged, args, disc)
            if lesson:
                problems += teach(*lesson, disc or WORKING_DISC, staged / "train", only_read=bool(problems))
            refuse_all(problems)
            counts = {part: len(list(staged.glob(f"{part}/image/*"))) for part in ("train", "test")}
            info = {"size": args.size, "seed": args.seed, "test_labels": labelled, **counts, "disc": disc}
            info["sets"] = {s.name: d.name for d in data_sets for s in d.eyes}
            if lesson:
                info["sets"] |= dict.fromkeys((path.stem for path in lesson[0]), "unlabelled")
                info["teachers_trained_on"] = sorted(lesson[1].trained_on)
            info["sources"] = [
                {"name": d.name, "split": d.split, "train": d.count("train"), "test": d.count("test")}
                for d in data_sets
            ]
            # data sets whose training eyes were resized
            info["rescaled"] = [d.name for d in data_sets if disc and any(s.disc for s in d.eyes)]
            with atomic(staged / "dataset.json") as temporary:
                temporary.write_text(json.dumps(info, indent=2) + "\n")
            replace_data(staged, out)

    print(f"{out}: {counts['train']} training and {counts['test']} test images")
    for data_set in data_sets:
        print(data_set.describe())
    if with_kinds := [eye.part for eye in sources if eye.files.keys() & set(KINDS_FILES)]:
        of_test = f"{with_kinds.count('test')} of {counts['test']} test eyes"
        of_training = f"{with_kinds.count('train')} of {sum(s.part == 'train' for s in sources)} training eyes"
        print(f"arteries and veins: labels of {of_training} and {of_test}")
    if surplus:
        surplus = [f"{len(surplus)} files of arteries and veins are left out:", *surplus]
        print("\n  ".join(surplus), file=sys.stderr)
    for data_set in unlabelled:
        then = "test.py will write masks and pictures, but no scores."
        then = "Its eyes were left out, since test.py scores all or none." if labelled else then
        why = "has no 1st_manual: today's download withholds the test labels, which is normal"
        print(f"{data_set.folder / 'test'} {why if data_set.name == 'DRIVE' else 'has no masks'}. {then}")
    print(f"next: python train.py --data {out}")


if __name__ == "__main__":
    run(main, lower="--size")
