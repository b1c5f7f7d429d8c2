"""Prepare DRIVE for training: read it as it is published, write 4 copies of each training eye as PNG."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from data import Eye, estimate_fov, list_images, read_fov, read_image, read_mask, size, write_png
from utils import HelpFormatter, UserError, claim, did_you_mean, run

WHERE_FROM = """DRIVE cannot be downloaded by a script: register (free) at https://drive.grand-challenge.org,
unpack training.zip and test.zip, and put the folders as DRIVE/training and DRIVE/test, or give their folder
with --drive. Without DRIVE, `python demo.py` runs everything on synthetic eyes."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Turn DRIVE into PNG files: 4 copies of each training eye (as it is, flipped, upside down, "
        "rotated) and the test eyes as they are. An existing OUT is replaced as a whole or left as it was.",
        epilog="example: python augment.py --drive ~/Downloads/DRIVE",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--drive", type=Path, default=Path("DRIVE"), help="DRIVE as downloaded and unpacked")
    parser.add_argument("--out", type=Path, default=Path("new_data"), help="folder to write")
    parser.add_argument("--size", type=int, help="squash to SIZE x SIZE as many tutorials do (default: keep)")
    parser.add_argument("--seed", type=int, default=42, help="seed of the random rotations")
    args = parser.parse_args()
    if args.size is not None and not 16 <= args.size <= 4096:
        parser.error(f"--size {args.size}: give 16 to 4096, or leave it out to keep DRIVE's own 565x584")
    if args.seed < 0:
        parser.error(f"--seed {args.seed}: give 0 or more")
    return args


@dataclass
class Source:
    """The files of one eye in DRIVE."""

    part: str  # train or test
    image: Path
    files: dict[str, Path] = field(default_factory=dict)  # by the folder they go to: mask, fov, second_observer


def find_drive(folder: Path) -> Path:
    """The folder that has `training/`: the one given, or one folder inside it (the archive is often nested).

    Raises:
        UserError: there is none; says where to get DRIVE.
    """
    candidates = [folder, *sorted(f for f in folder.glob("*") if f.is_dir())]
    for candidate in candidates:
        if (candidate / "training" / "images").is_dir():
            return candidate
    looked = f"looked for {folder / 'training' / 'images'} and {folder / '*' / 'training' / 'images'}"
    raise UserError(f"{folder}: DRIVE is not there ({looked}){did_you_mean(folder)}\n{WHERE_FROM}")


def find_sources(drive: Path) -> tuple[list[Source], list[str]]:
    """Pair photographs with masks and fields of view by the number that their names begin with.

    Returns:
        The eyes, and in words every file that is missing, unpaired or ambiguous.
    """
    sources, problems = [], []
    for part, folder in (("train", drive / "training"), ("test", drive / "test")):
        images = by_number(folder / "images", problems)
        if not images:
            problems.append(f"{folder / 'images'}: no images")
        eyes = {number: Source(part, path) for number, path in images.items()}
        for name, target in (("1st_manual", "mask"), ("mask", "fov"), ("2nd_manual", "second_observer")):
            # test labels are withheld from today's download, fields of view can be estimated
            if not (folder / name).is_dir() and not (part == "train" and target == "mask"):
                continue
            if part == "train" and target == "second_observer":
                continue
            files = by_number(folder / name, problems)
            for number in sorted(eyes.keys() | files.keys()):
                if number not in eyes:
                    problems.append(f"{files[number]}: no photograph {number} in {folder / 'images'}")
                elif number not in files:
                    problems.append(f"{images[number]}: no file {number} in {folder / name}")
                else:
                    eyes[number].files[target] = files[number]
        sources += [eyes[number] for number in sorted(eyes)]
    stems = [(s.part, s.image.stem) for s in sources]
    problems += [
        f"{s.image}: its name is used twice" for s in sources if stems.count((s.part, s.image.stem)) > 1
    ]
    return sources, problems


def by_number(folder: Path, problems: list[str]) -> dict[int, Path]:
    """Image files of a folder by the number their names begin with; what does not fit goes to `problems`."""
    found: dict[int, Path] = {}
    for path in list_images(folder) if folder.is_dir() else []:
        match = re.match(r"\d+", path.name)
        if not match:
            problems.append(f"{path}: its name does not begin with the number of an eye")
        elif int(match[0]) in found:
            problems.append(
                f"{path}: a second file for eye {int(match[0])}, beside {found[int(match[0])].name}"
            )
        else:
            found[int(match[0])] = path
    return found


def read_source(source: Source, square: int | None) -> Eye:
    """Read and check one eye; with `square`, resize it to that many pixels each way.

    Raises:
        UserError: every file of the eye that is unreadable, not binary or of another size, a line each.
    """
    problems: list[str] = []
    masks: dict[str, np.ndarray] = {}
    image = None
    try:
        image = read_image(source.image)
    except UserError as error:
        problems.append(str(error))
    for target, path in source.files.items():
        try:
            masks[target] = read_fov(path) if target == "fov" else read_mask(path)
        except UserError as error:
            problems.append(str(error))
            continue
        if image is not None and masks[target].shape != image.shape[:2]:
            problems.append(f"{path}: {size(masks[target])} pixels, but {source.image.name} has {size(image)}")
    if problems:
        raise UserError("\n".join(problems))
    if "fov" not in masks:
        masks["fov"] = estimate_fov(image)
    if source.part == "train" and "mask" in masks:
        share = (masks["mask"] > 0)[masks["fov"] > 0].mean()  # 8 to 15 % in DRIVE
        if not 0 < share <= 0.5:
            raise UserError(
                f"{source.files['mask']}: {share:.0%} of its field of view is vessel; "
                "is it inverted, blank, or the field of view?"
            )
    if square:
        image = cv2.resize(image, (square, square), interpolation=cv2.INTER_AREA)
        for target, mask in masks.items():
            masks[target] = cv2.resize(mask, (square, square), interpolation=cv2.INTER_NEAREST)
    return Eye(source.image.stem, image, masks["fov"], masks.get("mask"), masks.get("second_observer"))


def copies(eye: Eye, seed: int) -> Iterator[Eye]:
    """The eye as it is, flipped left-right, flipped upside down, and rotated by up to 45 degrees either way."""
    # albumentations asks a server for its newest version when it is imported
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations as A

    yield eye
    for transform in (
        A.HorizontalFlip(p=1),
        A.VerticalFlip(p=1),
        A.Rotate(limit=45, border_mode=cv2.BORDER_CONSTANT, mask_interpolation=cv2.INTER_NEAREST, p=1),
    ):
        # one call moves all three alike; albumentations draws from a random state of its own
        moved = A.Compose([transform], seed=seed)(image=eye.image, masks=[eye.mask, eye.fov])
        mask, fov = moved["masks"]
        yield Eye(eye.name, moved["image"], fov, mask)


def write_eye(source: Source, out: Path, square: int | None, seed: int) -> list[str]:
    """Read one eye and write its copies; returns in words what is wrong with its files."""
    try:
        eye = read_source(source, square)
    except UserError as error:
        return str(error).splitlines()
    if source.part == "train" and eye.mask is None:
        return []  # reported as missing when the files were paired
    number = int(re.match(r"\d+", source.image.name)[0])
    own_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    for k, copy in enumerate(copies(eye, own_seed) if source.part == "train" else [eye]):
        parts = {"image": copy.image, "mask": copy.mask, "fov": copy.fov, "second_observer": copy.second}
        for part, pixels in parts.items():
            if pixels is not None:
                write_png(out / source.part / part / f"{eye.name}_{k}.png", pixels)
    return []


def write_all(sources: list[Source], problems: list[str], out: Path, square: int | None, seed: int) -> None:
    """Write every eye below `out`, on all cores.

    Raises:
        UserError: names every file that cannot be used.
    """
    from tqdm import tqdm

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(write_eye, source, out, square, seed) for source in sources]
        for job in tqdm(jobs, desc="augment", unit="eye", disable=None):
            problems += job.result()
    if problems:
        raise UserError("\n  ".join([f"nothing was written: {len(problems)} unusable", *problems]))


def replace(staged: Path, out: Path) -> None:
    """Move what is in `staged` to `out` in the place of an earlier run's files; undone if a move fails."""
    old = Path(tempfile.mkdtemp(prefix=".old-", dir=out))
    undo: list[tuple[Path, Path]] = []
    try:
        # everything old leaves before anything new comes: a kill in between leaves no mixture; dataset.json
        # leaves last and comes first, since without it the next run would take the rest for somebody else's
        for source, target in [
            *((out / name, old / name) for name in reversed(OWN) if (out / name).exists()),
            *((staged / name, out / name) for name in OWN),
        ]:
            source.rename(target)
            undo.append((target, source))
    except BaseException:
        for target, source in reversed(undo):
            target.rename(source)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


OWN = ("dataset.json", "train", "test")  # what this script writes in its folder; all else there is left alone


def main() -> None:
    args = parse_args()
    drive = find_drive(args.drive.expanduser())
    out = args.out.expanduser()
    foreign = [name for name in OWN[1:] if (out / name).exists() and not (out / OWN[0]).exists()]
    if foreign:
        raise UserError(f"{out / foreign[0]}: not written by augment.py; choose another --out, or move it away")
    sources, problems = find_sources(drive)
    labelled = any(s.part == "test" and "mask" in s.files for s in sources)

    with claim(out):
        for leftover in (*out.glob(".staged-*"), *out.glob(".old-*")):  # of a run that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        staged = Path(tempfile.mkdtemp(prefix=".staged-", dir=out))
        try:
            write_all(sources, problems, staged, args.size, args.seed)
            counts = {part: len(list((staged / part / "image").iterdir())) for part in ("train", "test")}
            info = {"size": args.size, "seed": args.seed, "test_labels": labelled, **counts}
            (staged / "dataset.json").write_text(json.dumps(info, indent=2) + "\n")
            replace(staged, out)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    print(f"{out}: {counts['train']} training and {counts['test']} test images")
    if not labelled:
        print(
            f"{drive / 'test'} has no 1st_manual: today's download withholds the test labels, which is normal. "
            "test.py will write masks and pictures, but no scores."
        )
    print(f"next: python train.py --data {out}")


if __name__ == "__main__":
    run(main, lower="--size")
