"""Segment photographs that have no labels and no field-of-view files, of any size and from any camera."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

import metrics
from checkpoint import find_weights, load_checkpoint
from data import (
    Eye,
    drive_scale,
    estimate_fov,
    list_images,
    normalize,
    read_image,
    rescale,
    statistics,
    write_png,
)
from report import overlay, write_layers, write_report
from utils import (
    HelpFormatter,
    UserError,
    autocast,
    claim,
    describe,
    did_you_mean,
    keep_memory,
    pick_device,
    run,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

# torch is imported inside the functions that use it, so that --help answers at once

TILE = 1024  # pixels each way of the largest piece that goes through the network at once
PARTS = ("", "masks", "probability")  # folders of the results: overlays, vessel masks, probabilities


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Segment photographs of the retina; no labels, no field-of-view files needed. Writes "
        "to OUT: masks/, probability/ (16 bit), each photograph with its vessels outlined, and index.html to "
        "look through them.",
        epilog="example: python predict.py my_photographs eye.jpg --out results/mine",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="a photograph, or a folder of them")
    parser.add_argument(
        "--weights",
        type=Path,
        action="append",  # not several after one --weights: they would swallow the photographs
        help="a checkpoint; give it again for each more whose probabilities are to be averaged (default: "
        "files/drive_unet.pth, else files/checkpoint.pth)",
    )
    parser.add_argument("--out", type=Path, default=Path("results/predict"), help="folder to write")
    return parse_prediction_args(parser)


def parse_prediction_args(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Add the flags of every script that predicts, parse and check them."""
    parser.add_argument(
        "--threshold", type=float, help="probability that makes a vessel (default: the checkpoint's)"
    )
    parser.add_argument(
        "--tta",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="average eight flips and turns; --no-tta: a little worse, an eighth of the network's time",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    args = parser.parse_args()
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        parser.error(f"--threshold {args.threshold}: give a probability from 0 to 1")
    return args


def segment(
    model: nn.Module, photograph: np.ndarray, fov: np.ndarray, tta: bool = False, scale: float = 1.0
) -> np.ndarray:
    """Predict one photograph: whole, or in tiles without visible seams where it is large.

    Args:
        model: in evaluation mode, on the device to use.
        photograph: uint8 (H, W, 3) RGB.
        fov: field of view, uint8 (H, W), 0 or 255.
        tta: average eight views, see `model.predict`.
        scale: the network sees a copy this many times as large; see `data.drive_scale`.

    Returns:
        Probability of vessel in [0, 1], float32 (H, W), 0 outside the field of view.
    """
    import torch

    from model import predict

    if scale != 1:
        copy = rescale(Eye("", photograph, fov), scale)
        probability = segment(model, copy.image, copy.fov, tta)
        return cv2.resize(probability, fov.shape[::-1], interpolation=cv2.INTER_LINEAR) * (fov > 0)

    device = next(model.parameters()).device
    mean, std = statistics(photograph, fov)
    probability = np.zeros(fov.shape, np.float32)
    for tile, around, inner in tiles(fov.shape, model.grid, model.margin):
        if not fov[tile].any():
            continue
        image = normalize(photograph[around], fov[around], mean, std)
        batch = torch.from_numpy(image)[None].to(device, memory_format=torch.channels_last)
        with torch.inference_mode(), autocast(device):
            probability[tile] = predict(model, batch, tta)[0].cpu().numpy()[inner]
    return probability * (fov > 0)


def tiles(shape: tuple[int, int], grid: int, margin: int) -> Iterator[tuple[tuple[slice, slice], ...]]:
    """Cut (H, W) into tiles that a network predicts as it would predict the whole.

    Args:
        shape: H and W.
        grid: pixels of the squares that the network pools.
        margin: pixels that it must see around a tile, a multiple of `grid`.

    Yields:
        The tile's place in the whole, the place of the tile with what the network must see around it, and
        the tile's place in that.
    """
    step = max(TILE - 2 * margin, margin)  # a tile much smaller than its margin would waste the work

    def cut(length: int) -> list[tuple[slice, slice, slice]]:
        if length <= TILE:
            return [(slice(length), slice(length), slice(length))]
        pieces = []
        for start in range(0, length, step):
            stop = min(start + step, length)
            # pooling must meet the pixels in the same groups as in the whole: counted from its start, and in a
            # flipped view from its end
            low, high = max(start - margin, 0), min(start + step + margin + length % grid, length)
            pieces.append((slice(start, stop), slice(low, high), slice(start - low, stop - low)))
        return pieces

    for rows in cut(shape[0]):
        for columns in cut(shape[1]):
            yield tuple(zip(rows, columns, strict=True))


def choose_threshold(checkpoint: dict[str, Any], asked: float | None, weights: Path) -> float:
    """The probability in [0, 1] that makes a vessel: the one asked for, or else the checkpoint's.

    Raises:
        UserError: none was asked for and the checkpoint holds none.
    """
    threshold = checkpoint.get("threshold") if asked is None else asked
    if threshold is None:
        raise UserError(f"{weights}: holds no threshold (a last.pth?); use checkpoint.pth or give --threshold")
    return threshold


def load_networks(
    weights: Sequence[Path], asked: float | None, device: torch.device
) -> tuple[nn.Module, float]:
    """What to predict with: the network of one checkpoint, or the average of those of several.

    Returns:
        The network in evaluation mode on `device`, and the threshold in [0, 1]: the one asked for, or else
        the mean of the checkpoints'.

    Raises:
        UserError: as `load_checkpoint` and `choose_threshold` do.
    """
    from model import Ensemble, fold_batch_norm

    keep_memory()
    loaded = [load_checkpoint(path, device) for path in weights]
    thresholds = [choose_threshold(own, asked, path) for (_, own), path in zip(loaded, weights, strict=True)]
    networks = [fold_batch_norm(network) for network, _ in loaded]
    model = networks[0] if len(networks) == 1 else Ensemble(networks).eval()
    return model, float(np.mean(thresholds))


def binarize(levels: np.ndarray, fov: np.ndarray, threshold: float) -> np.ndarray:
    """Probability levels uint16 (H, W) to vessel mask uint8 (H, W), 0 or 255; 0 outside the field of view."""
    return np.where((levels >= metrics.level_of(threshold)) & (fov > 0), 255, 0).astype(np.uint8)


def find_photographs(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The files named and the images of the folders named, each once; and in words what is not there."""
    photographs, problems = [], []
    for path in paths:
        try:
            if path.is_dir():
                inside = list_images(path)
                photographs += inside
                problems += [] if inside else [f"{path}: no images in this folder"]
            elif path.exists():
                photographs.append(path)
            else:
                problems.append(f"{path}: no such file or folder{did_you_mean(path)}")
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
    return list({path.resolve(): path for path in photographs}.values()), problems


def name_results(photographs: Sequence[Path], out: Path) -> dict[str, Path]:
    """Give each photograph a name of its own for its results: its stem, or stem_2 where that is taken.

    Raises:
        UserError: the results would lie among the photographs, and could overwrite them.
    """
    folders = {path.parent.resolve() for path in photographs}
    results = out.resolve()
    if folders & {results / part for part in PARTS} or results / "page" in {f.parent for f in folders}:
        raise UserError(f"--out {out}: photographs to segment lie there; choose another folder for the results")
    names: dict[str, Path] = {}
    taken: set[str] = set()  # without case: Eye.png and eye.png are the same file on Windows and macOS
    for path in photographs:
        name, number = path.stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{path.stem}_{number}"
        taken.add(name.casefold())
        names[name] = path
    return names


def main() -> int:
    args = parse_args()
    photographs, problems = find_photographs(args.paths)
    names = name_results(photographs, args.out)
    if names:
        problems += predict_all(names, args)
    if problems:
        raise UserError("\n  ".join([f"{len(problems)} could not be segmented:", *problems]))
    return 0


def predict_all(names: dict[str, Path], args: argparse.Namespace) -> list[str]:
    """Segment the photographs one by one and write their results; returns in words which are unusable."""
    from tqdm import tqdm

    weights = args.weights or [find_weights(("drive_unet.pth", "checkpoint.pth"))]
    device = pick_device(args.device)
    model, threshold = load_networks(weights, args.threshold, device)
    print(f"weights: {', '.join(map(str, weights))}; device: {describe(device)}; threshold {threshold:.4f}")
    written, problems = [], []
    with claim(args.out, *PARTS[1:], "page/*"):
        for name, path in tqdm(names.items(), desc="predict", unit="photograph", disable=None):
            try:
                photograph = read_image(path)
            except UserError as error:
                problems.append(str(error))
                continue
            fov = estimate_fov(photograph)
            levels = metrics.quantize(segment(model, photograph, fov, args.tta, drive_scale(fov)))
            mask = binarize(levels, fov, threshold)
            pictures = (overlay(photograph, mask, fov), mask, levels)
            write_layers(args.out, name, photograph, pictures[0])
            for part, picture in zip(PARTS, pictures, strict=True):
                write_png(args.out / part / f"{name}.png", picture)
            written.append(name)
        notes = ["No scores: these photographs have no labels."]
        notes += [f"{len(problems)} more could not be segmented."] if problems else []
        if written:
            write_report(args.out / "index.html", written, threshold, notes)
    for name, path in names.items():
        if name != path.stem:
            print(f"{path}: called {name}.png in the results, because its own name was taken")
    pictures = "photographs with their vessels outlined in blue and the field of view in orange"
    print(f"{args.out}: {len(written)} of {len(names)} {pictures}, masks/, probability/ (16 bit)")
    if written:
        print(f"to look through them, open {args.out / 'index.html'} in a browser")
    return problems


if __name__ == "__main__":
    run(main)
